"""Curves of transcriticals and pitchforks, which persist only where something keeps branches crossing.

Compiles: corrections of crossing branches of flows of one and of two states, and of networks of 8 units.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import seeds
from planes import families, followed

import ssntk

SPANS = ((-1.0, 1.0), (-0.9, 0.7))


def mirrored(x, p):
    return (p["p1"] - p["p2"] ** 2) * x + p["p2"] * x**3 - x**5


def resting(x, p):
    return (p["p1"] - p["p2"] ** 2) * x - p["p2"] * x**2 - x**3


@pytest.mark.parametrize(
    ("fn", "kind", "sign", "flat"),
    [(mirrored, "pitchfork", 1, "degenerate-pitchfork"), (resting, "transcritical", -1, "degenerate-transcritical")],
)
def test_closed_forms(fn, kind, sign, flat):
    curve = followed(families(fn, 1, p1=0.0, p2=-0.5), kind, (-1.0, 1.0), SPANS, x0=[0.0])
    p1, p2 = curve.parameters.T
    np.testing.assert_allclose(p1, p2**2, atol=1e-14)
    np.testing.assert_allclose(curve.coefficient, sign * p2, atol=1e-13)
    np.testing.assert_allclose(curve.x, 0, atol=1e-14)
    np.testing.assert_allclose((p2.min(), p2.max()), SPANS[1], rtol=1e-14)
    (point,) = curve.points
    assert point.kind == flat
    np.testing.assert_allclose(point.parameters, 0, atol=1e-12)


def oscillating(x, p):
    """x'' = p1 x + p2 x' - x^3 - x^2 x' (Guckenheimer and Holmes, *Nonlinear Oscillations*, section 7.3).

    Pitchforks of the origin at p1 = 0, Hopf points at p2 = 0 > p1; of the other two equilibria at p2 = p1 > 0.
    """
    return jnp.stack([x[1], p["p1"] * x[0] + p["p2"] * x[1] - x[0] ** 3 - x[0] ** 2 * x[1]])


def test_a_double_zero_where_branches_cross():
    plane = ssntk.Family.plane(*families(oscillating, 2, p1=0.0, p2=-0.5))
    diagram = ssntk.two_parameter_diagram(plane, ((-1.0, 1.3), (-0.9, 0.7)), n_searches=3, n_starts=16)
    (point,) = diagram.points
    # It is on the curve of pitchforks and on that of the origin's Hopf points, and is no Bogdanov-Takens point.
    assert point.kind == "double-zero"
    np.testing.assert_allclose(point.parameters, 0, atol=1e-9)
    (own,) = diagram.through
    assert sorted(diagram[i].kind for i in own) == ["hopf", "pitchfork"]
    assert sorted(curve.kind for curve in diagram) == ["hopf", "hopf", "pitchfork"]
    for curve in diagram:
        p1, p2 = curve.parameters.T
        off = p1 if curve.kind == "pitchfork" else p2 if p1.min() < 0 else p1 - p2
        np.testing.assert_allclose(off, 0, atol=1e-9)
    assert sorted(region.n_stable for region in diagram.regions) == [0, 1, 2]


def opened(x, p):
    """A transcritical at p2 = 0, which opens into saddle-nodes at p1^2 = -4 p2."""
    return p["p1"] * x - x**2 + p["p2"]


def test_what_does_not_persist_is_refused():
    first, second = families(opened, 1, p1=0.0, p2=0.0)
    plane = ssntk.Family.plane(first, second)
    (event,) = ssntk.continuation(first, (-1.0, 1.0), x0=[0.0]).bifurcations
    assert event.kind == "transcritical"
    with pytest.raises(ssntk.NumericalError, match="it does not persist if both parameters change"):
        ssntk.bifurcation_curve(plane, event, ((-1.0, 1.0), (-1.0, 1.0)))
    # The line at p2 = 0 meets the curve of saddle-nodes at the place where it turns.
    diagram = ssntk.two_parameter_diagram(plane, ((-1.0, 1.2), (-1.0, 1.0)), n_slices=1, n_searches=3, n_starts=16)
    assert [curve.kind for curve in diagram] == ["saddle-node"]
    np.testing.assert_allclose(diagram[0].parameters[:, 0] ** 2, -4 * diagram[0].parameters[:, 1], atol=1e-12)
    assert diagram.status == "everything that was seen was followed"


def network(seed, n=8, size=1.0, clock=1.0, units=(1.0, 1.0)):
    """A network without biases, whose state of rest loses stability to two mirrored ones."""
    rng = np.random.default_rng(seed)
    weight, (one, other) = 0.6 * rng.standard_normal((n, n)) / np.sqrt(n), rng.standard_normal((2, n)) / np.sqrt(n)
    values = {"W": jnp.asarray(weight), "a": jnp.asarray(one), "b": jnp.asarray(other)}
    values |= {"size": jnp.broadcast_to(jnp.asarray(size), (n,)), "clock": clock, "u1": units[0], "u2": units[1]}
    model = ssntk.VectorField(_field, values | {"p1": 0.0, "p2": 0.1 * units[1]}, n)
    return (ssntk.Family(model, "p1"), ssntk.Family(model, "p2")), (weight, one, other)


def _field(t, z, u, p):
    x = z / p["size"]
    driven = p["p1"] / p["u1"] * p["a"] * jnp.tanh(p["a"] @ x) + p["p2"] / p["u2"] * p["b"] * jnp.sin(p["b"] @ x)
    return p["size"] * (jnp.tanh(p["W"] @ x) - x + driven) / p["clock"]


@pytest.mark.parametrize("seed", seeds(1, 9))
def test_networks_at_rest(seed):
    (first, second), (weight, one, other) = network(seed)
    n, plane = len(weight), ssntk.Family.plane(first, second)
    branch = ssntk.continuation(first, (-1.0, 3.0), x0=np.zeros(n))
    event = next(event for event in branch.bifurcations if event.kind == "pitchfork")
    curve = ssntk.bifurcation_curve(plane, event, ((-1.0, 3.0), (-2.0, 2.0)))
    assert len(curve) > 3
    for p1, p2 in curve.parameters:
        jacobian = weight - np.eye(n) + p1 * np.outer(one, one) + p2 * np.outer(other, other)
        assert np.linalg.svd(jacobian, compute_uv=False)[-1] < 1e-12
    # In other units of the states, of time and of the parameters it is the same.
    rng = np.random.default_rng(seed + 100)
    size, (clock, *units) = 10 ** rng.uniform(-6, 6, n), 10 ** rng.uniform(-6, 6, 3)
    scaled, _ = network(seed, size=size, clock=clock, units=units)
    span, spans = np.array([-1.0, 3.0]), np.array([[-1.0, 3.0], [-2.0, 2.0]]) * np.reshape(units, (2, 1))
    branch = ssntk.continuation(scaled[0], span * units[0], x0=np.zeros(n))
    event = next(event for event in branch.bifurcations if event.kind == "pitchfork")
    again = ssntk.bifurcation_curve(ssntk.Family.plane(*scaled), event, spans)
    assert [point.kind for point in again.points] == [point.kind for point in curve.points]
    for point, same in zip(curve.points, again.points, strict=True):
        np.testing.assert_allclose(same.parameters / units, point.parameters, rtol=1e-7, atol=1e-9)
    for p1, p2 in again.parameters / units:
        jacobian = weight - np.eye(n) + p1 * np.outer(one, one) + p2 * np.outer(other, other)
        assert np.linalg.svd(jacobian, compute_uv=False)[-1] < 1e-11
