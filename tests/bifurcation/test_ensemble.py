"""Many branches at once, and derivatives of where they bifurcate."""

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk

nf = ssntk.normal_forms
SPAN = (-2.0, 2.0)


def network(key):
    return ssntk.Family.input(ssntk.CTRNN(8, 1, 1, gain=2.5, key=key), [1.0])


@pytest.mark.slow
def test_an_ensemble_is_its_members(compilations):
    families = [network(jr.key(seed)) for seed in range(12)]
    branches = ssntk.continuation_ensemble(families, SPAN)
    for family, branch in zip(families, branches, strict=True):
        alone = ssntk.continuation(family, SPAN)
        assert branch.status == alone.status
        assert [event.kind for event in branch.bifurcations] == [event.kind for event in alone.bifurcations]
        here, there = ([event.parameter for event in b.bifurcations] for b in (branch, alone))
        # Side by side and alone round differently; each point is located to rounding.
        np.testing.assert_allclose(here, there, atol=1e-10)
    assert {event.kind for branch in branches for event in branch.bifurcations} == {"saddle-node", "hopf"}
    # As one family whose arrays have a leading axis: other weights of the same shapes compile nothing.
    stacked = ssntk.Family.input(families[0].model, [1.0])
    families = [eqx.tree_at(lambda f: f.model.weight, network(jr.key(s)), replace_fn=lambda w: 1.01 * w) for s in range(12)]
    leaves = [jax.tree.leaves(eqx.filter(family, eqx.is_array)) for family in families]
    arrays, rest = eqx.partition(stacked, eqx.is_array)
    grouped = jax.tree.unflatten(jax.tree.structure(arrays), [np.stack(parts) for parts in zip(*leaves, strict=True)])
    stacked = eqx.combine(jax.tree.map(jnp.asarray, grouped), rest)
    before = len(compilations)
    again = ssntk.continuation_ensemble(stacked, SPAN)
    assert len(compilations) == before
    alone = ssntk.continuation(families[5], SPAN)
    np.testing.assert_allclose(again[5].x, alone.x, atol=1e-10)


@pytest.mark.slow
def test_a_family_made_by_filter_vmap():
    keys = jr.split(jr.key(3), 5)
    families = eqx.filter_vmap(network)(keys)
    branches = ssntk.continuation_ensemble(families, SPAN, lanes=2)
    assert len(branches) == 5
    for key, branch in zip(keys, branches, strict=True):
        np.testing.assert_allclose(branch.x, ssntk.continuation(network(key), SPAN).x, atol=1e-10)


def test_members_without_an_equilibrium_do_not_stop_the_others():
    # p + mu - x^2: at p = -1 an equilibrium exists where mu > 1.
    def field(t, x, u, c):
        return c["p"] + c["mu"] - x**2

    families = [
        ssntk.Family(ssntk.VectorField(field, {"p": jnp.asarray(0.0), "mu": jnp.asarray(mu)}, 1), lambda m: m.params["p"])
        for mu in (2.0, 0.0, 3.0)
    ]
    good, none, other = ssntk.continuation_ensemble(families, (-1.0, 4.0))
    assert (len(none.x), none.bifurcations) == (0, ())
    assert none.status == "no equilibrium was found at p = -1: start elsewhere, or pass x0"
    for mu, branch in ((2.0, good), (3.0, other)):
        np.testing.assert_allclose(branch.x[:, 0] ** 2, branch.parameter + mu, atol=1e-12)


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda f: ((), {}), "at least one"),
        (lambda f: ([f, 3.0], {}), r"families\[1\]"),
        (lambda f: ([f, ssntk.Family.input(ssntk.CTRNN(9, 1, 1, key=jr.key(0)), [1.0])], {}), r"families\[1\] must be like"),
        (lambda f: ([f, ssntk.Family(f.model, "gain")], {}), r"families\[1\] must be like"),
        (lambda f: (f, {}), "one leading axis"),
        (lambda f: (f.model, {}), "families must be a sequence"),
        (lambda f: (5, {}), "families must be a sequence"),
        (lambda f: ([f], {"x0": np.zeros((2, 8))}), "x0"),
        (lambda f: ([f], {"u": np.zeros(3)}), "u must"),
        (lambda f: ([f], {"lanes": 0}), "lanes"),
    ],
)
def test_bad_ensembles(make, match):
    families, arguments = make(network(jr.key(0)))
    with pytest.raises(ValueError, match=match):
        ssntk.continuation_ensemble(families, SPAN, **arguments)


# Folds have a test by the closed form, which runs always.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["saddle-node", "hopf"])
def test_locations_are_differentiable(kind):
    family = network(jr.key(20))
    model = family.model
    event = next(e for e in ssntk.continuation(family, SPAN).bifurcations if e.kind == kind)

    def where(weight):
        moved = eqx.tree_at(lambda m: m.weight, model, weight)
        return ssntk.locate(ssntk.Family.input(moved, [1.0]), kind, parameter=event.parameter, x=event.x)

    def numbers(weight):
        found = where(weight)
        return jnp.stack([found.parameter, found.frequency, found.coefficient, found.x[0]])

    direction = jr.normal(jr.key(5), model.weight.shape)
    value, forward = jax.jit(lambda w: jax.jvp(numbers, (w,), (direction,)))(model.weight)
    concrete = where(model.weight)
    np.testing.assert_allclose(
        value, [concrete.parameter, concrete.frequency, concrete.coefficient, concrete.x[0]], atol=1e-11
    )
    reverse = jnp.tensordot(jax.jacrev(numbers)(model.weight), direction, 2)
    # The same linear systems, solved transposed.
    np.testing.assert_allclose(reverse, forward, rtol=1e-10, atol=1e-12)

    def outside(weight):
        found = where(weight)
        return np.array([found.parameter, found.frequency, found.coefficient, found.x[0]])

    # Central differences of the numbers that the located points carry: h^2, and rounding over h.
    h = 1e-5
    difference = (outside(model.weight + h * direction) - outside(model.weight - h * direction)) / (2 * h)
    np.testing.assert_allclose(forward, difference, rtol=1e-5, atol=1e-6)


def test_derivative_of_a_fold_by_the_closed_form():
    # h + mu x - x^3: fold at mu = 3 (h / 2)^(2 / 3), so d mu / d h = (h / 2)^(-1 / 3).
    def where(h):
        return ssntk.locate(ssntk.Family(nf.pitchfork(0.0, h=h), "mu"), "saddle-node", parameter=0.5, x=[-0.4]).parameter

    hs = jnp.array([0.1, 0.2, 0.3])
    value, slope = jax.jit(jax.vmap(jax.value_and_grad(where)))(hs)
    np.testing.assert_allclose(value, 3 * (hs / 2) ** (2 / 3), rtol=1e-12)
    np.testing.assert_allclose(slope, (hs / 2) ** (-1 / 3), rtol=1e-11)
    # Second derivatives too: -(1/6) (h / 2)^(-4/3).
    np.testing.assert_allclose(jax.jit(jax.grad(jax.grad(where)))(0.2), -(0.1 ** (-4 / 3)) / 6, rtol=1e-10)


def test_where_there_is_none_the_traced_location_is_nan():
    # mu + one (x + x^3) has no fold.
    def where(one):
        model = ssntk.VectorField(_monotone, {"mu": jnp.asarray(0.0), "one": one}, 1)
        return ssntk.locate(ssntk.Family(model, lambda m: m.params["mu"]), "saddle-node", parameter=0.3, x=[0.2]).parameter

    assert np.isnan(jax.jit(where)(1.0))
    family = ssntk.Family(nf.pitchfork(0.0), "mu")
    with pytest.raises(ValueError, match="kind 'pitchfork' has no derivative"):
        jax.grad(lambda x: ssntk.locate(family, "pitchfork", parameter=x, x=[0.0]).parameter)(0.1)


def _monotone(t, x, u, c):
    return c["mu"] + c["one"] * (x + x**3)


@pytest.mark.slow
def test_a_traced_fold_does_not_pose_as_a_hopf_point():
    # x' = y, y' = p + b y + x^2 + x y: near its Bogdanov-Takens point the fold at p = 0 solves the system of a pair, with
    # the frequency zero. The Hopf point is at x = -b, p = -b^2.
    def field(t, x, u, params):
        return jnp.stack([x[1], params["p"] + params["b"] * x[1] + x[0] ** 2 + x[0] * x[1]])

    def where(b, p, x):
        family = ssntk.Family(ssntk.VectorField(field, {"b": b, "p": jnp.asarray(0.0)}, 2), lambda m: m.params["p"])
        return ssntk.locate(family, "hopf", parameter=p, x=[x, 0.0]).parameter

    assert np.isnan(jax.jit(lambda b: where(b, -0.001, -0.03))(0.3))
    value, slope = jax.jit(jax.value_and_grad(lambda b: where(b, -0.08, -0.28)))(0.3)
    np.testing.assert_allclose([value, slope], [-0.09, -0.6], rtol=1e-11)
    # A member of a batch with a NaN does not stop the others.
    values = jax.vmap(lambda b: where(b, -0.08, -0.28))(jnp.array([0.3, jnp.nan]))
    np.testing.assert_allclose(values, [-0.09, np.nan], rtol=1e-11)
