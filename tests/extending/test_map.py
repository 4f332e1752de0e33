"""A user's own map, in a few lines: the delayed logistic map, whose fixed points and bifurcations are known.

Compiles the search, one branch, a verdict, a solve and a Jacobian of two states.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk


class DelayedLogistic(ssntk.AbstractMap):
    """x' = r x (1 - y) + u, y' = x: every state is one step old."""

    r: jax.Array
    n_state: int = 2
    n_input: int = 1
    n_output: int = 2

    def advance(self, t, x, u):
        return jnp.stack([self.r * x[0] * (1 - x[1]) + u[0], x[0]])


@pytest.fixture
def model():
    return DelayedLogistic(jnp.asarray(1.5))


def test_its_fixed_points_and_multipliers(model):
    found = ssntk.find_fixed_points(model)
    # x = y = 0 and 1 - 1 / r, where m^2 = m - (r - 1).
    np.testing.assert_allclose(sorted(found.x[:, 0]), [0.0, 1 / 3], atol=1e-14)
    inner = found.eigenvalues[np.argmax(found.x[:, 0])]
    np.testing.assert_allclose(sorted(inner, key=np.imag), [0.5 - 0.5j, 0.5 + 0.5j], atol=1e-14)
    assert found.stable.sum() == 1


def test_its_branch_meets_the_points_that_are_known(model):
    family = ssntk.Family(model, "r")
    branch = ssntk.continuation(family, (0.5, 2.5), x0=[-1.0, -1.0], at=0.5)
    kinds = [event.kind for event in branch.bifurcations]
    assert kinds == ["transcritical", "neimark-sacker"]
    # The points exchange at r = 1; |m|^2 = r - 1 at the inner one, whose angle is pi / 3 where it is one.
    np.testing.assert_allclose([event.parameter for event in branch.bifurcations], [1.0, 2.0], rtol=1e-12)
    np.testing.assert_allclose(branch.bifurcations[1].frequency, np.pi / 3, rtol=1e-10)


def test_a_verdict_and_a_retreat_from_the_edge_of_stability(model):
    near = eqx.tree_at(lambda m: m.r, model, jnp.asarray(1.9))
    found = ssntk.criticality(near)
    assert found.kind == "pair"
    safe = ssntk.retreat(near, 2 * found.stability_radius)
    x = 1 - 1 / float(safe.r)
    jacobian = np.array([[safe.r * (1 - x), -safe.r * x], [1.0, 0.0]]) - np.eye(2)
    radius, _ = ssntk.stability_radius(jacobian, dt=1.0)
    np.testing.assert_allclose(radius, 2 * found.stability_radius, rtol=1e-6)


def test_its_kernel_is_that_of_a_plain_loop(model):
    us = 0.05 * np.random.default_rng(0).standard_normal((3, 6, 1))
    probe = ssntk.Probe.steps(us, [0.3, 0.3])

    def rolled(model, us):
        states, x = [jnp.asarray([0.3, 0.3])], jnp.asarray([0.3, 0.3])
        for u in us:
            x = model.advance(0.0, x, u)
            states.append(x)
        return jnp.stack(states)

    J = ssntk.parameter_jacobian(model, probe)
    by_r = jax.jit(jax.vmap(jax.jacrev(lambda r, us: rolled(DelayedLogistic(r), us)), (None, 0)))
    expected = by_r(model.r, jnp.asarray(us))
    np.testing.assert_allclose(J[:, 1:, :, 0], expected[:, 1:], rtol=1e-12, atol=1e-15)
    states = jax.jit(jax.vmap(rolled, (None, 0)))(model, jnp.asarray(us))
    np.testing.assert_allclose(ssntk.simulate(model, probe), states, rtol=1e-13)


def test_another_step_is_another_unit_of_time():
    slow = eqx.tree_at(lambda m: m.r, DelayedLogistic(jnp.asarray(1.5), dt=0.5), jnp.asarray(1.5))
    fast = DelayedLogistic(jnp.asarray(1.5))
    one, other = ssntk.criticality(fast), ssntk.criticality(slow)
    np.testing.assert_allclose(other.critical_frequency, 2 * one.critical_frequency, rtol=1e-9)
    np.testing.assert_allclose(other.stability_radius, 2 * one.stability_radius, rtol=1e-9)
    with pytest.raises(ValueError, match="must be in continuous time"):
        ssntk.EulerMap(fast, 0.1)


class Halved(ssntk.AbstractMap):
    """x' = r x, every half unit of time."""

    dt: float = 0.5
    r: jax.Array
    n_state: int = 1
    n_input: int = 0
    n_output: int = 1

    def advance(self, t, x, u):
        return self.r * x


def test_a_step_that_is_written_as_a_default_is_taken():
    model = Halved(jnp.asarray(0.5))
    assert model.dt == 0.5
    assert ssntk.simulate(model, ssntk.Probe([0.0, 0.5, 1.5], x0=[1.0])).ravel().tolist() == [1.0, 0.5, 0.125]
    # dt is not an array, so that a family cannot move it.
    assert [event.kind for event in ssntk.continuation(ssntk.Family(model, "r"), (0.5, -1.5), x0=[0.0]).bifurcations] == [
        "flip"
    ]
    assert Halved(jnp.asarray(0.5), dt=0.25).dt == 0.25


def test_a_step_that_would_count_for_nothing_is_refused():
    with pytest.raises(ValueError, match=r"dt of Property must be a field, .*, and not a property"):
        type("Property", (ssntk.AbstractMap,), {"dt": property(lambda self: 0.25)})
    with pytest.raises(ValueError, match="dt of Mixed must be a field"):
        type("Mixed", (type("Quarter", (), {"dt": property(lambda self: 0.25)}), ssntk.AbstractMap), {})
    with pytest.raises(ValueError, match=r"write dt: float = 0\.25"):
        type("Quartered", (Halved,), {"dt": 0.25})
    for dt in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="dt must be a positive number"):
            Halved(jnp.asarray(0.5), dt=dt)


def test_a_field_that_would_hide_the_clock_is_refused():
    with pytest.raises(ValueError, match="Clocked cannot have a field clock"):
        type("Clocked", (Halved,), {"__annotations__": {"clock": float}})
