"""The form A x + B relu(C x + c) + h is read from models that have one, in any units; others are refused by name."""

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk.models.base import dtype_of
from ssntk.piecewise.recognise import Recognised

KEY = jr.key(0)


def values(model, states, u):
    """What the model itself returns, and the sizes of the terms of its form there, both (k, n)."""
    u = jnp.asarray(u if u is not None else np.zeros(model.n_input), dtype_of(model))
    one = model.advance if isinstance(model, ssntk.AbstractMap) else model.vector_field
    return np.stack([np.asarray(one(0.0, jnp.asarray(x, dtype_of(model)), u), float) for x in states])


def compared(model, u=None, tolerance=1e-14, seed=0):
    """The form of a model, after it was compared with the model at random states of several sizes."""
    form = ssntk.piecewise_linear(model, u)
    random = np.random.default_rng(seed)
    states = random.standard_normal((32, model.n_state)) * 10 ** random.uniform(-2, 2, (32, 1))
    states = states.astype(dtype_of(model)).astype(float)
    sizes = np.abs(states) @ np.abs(form.A).T + np.abs(form.h)
    sizes += (np.abs(states) @ np.abs(form.C).T + np.abs(form.c)) @ np.abs(form.B).T
    assert (np.abs(values(model, states, u) - form(states)) <= tolerance * sizes).all()
    return form


def clipped(x):
    return jnp.clip(x, -1.0, 2.0)


def leaky(x):
    return jnp.where(x > 0, x, 0.1 * x)


def gated(x):
    return x * (x > 0).astype(x.dtype)


def between(x):
    return jnp.where((x > 0) & (x < 1), x, jnp.clip(x, 0, 1))


def tent(x):
    return jnp.where(jnp.abs(x) < 1, 1 - jnp.abs(x), 0.0)


# The activations, with the number of kinks that each has.
ACTIVATIONS = [
    (jax.nn.relu, 1),
    (jax.nn.leaky_relu, 1),
    (jax.nn.hard_tanh, 2),
    (jax.nn.hard_sigmoid, 2),
    (jax.nn.relu6, 2),
    (jnp.abs, 1),
    (clipped, 2),
    (leaky, 1),
    (gated, 1),
    (between, 2),
    (tent, 3),
]


@pytest.mark.parametrize(("activation", "kinks"), ACTIVATIONS, ids=[one.__name__ for one, _ in ACTIVATIONS])
@pytest.mark.parametrize("form", ["current", "rate"])
def test_activations_with_kinks(activation, kinks, form):
    model = ssntk.CTRNN(4, 2, 1, activation=activation, form=form, tau=0.3, key=KEY)
    found = compared(model, [0.3, -0.2])
    assert found.C.shape == (4 * kinks, 4)
    assert found.dt is None


def test_the_two_forms_of_a_relu_network():
    weight, drive = np.array([[0.0, -1.5], [0.5, 0.2]]), np.array([1.0, 2.0])
    current = ssntk.piecewise_linear(ssntk.CTRNN.from_weights(weight, bias=drive, activation=jax.nn.relu))
    rate = ssntk.piecewise_linear(ssntk.CTRNN.from_weights(weight, bias=drive, activation=jax.nn.relu, form="rate"))
    for form, B, C, c, h in ((current, weight, np.eye(2), [0, 0], drive), (rate, np.eye(2), weight, drive, [0, 0])):
        np.testing.assert_array_equal(form.A, -np.eye(2))
        np.testing.assert_array_equal(form.B, B)
        np.testing.assert_array_equal(form.C, C)
        np.testing.assert_array_equal(form.c, c)
        np.testing.assert_array_equal(form.h, h)


MAPS = {
    "standard": lambda: ssntk.PLRNN(5, 1, 2, key=KEY),
    "almost linear": lambda: ssntk.PLRNN(5, 1, 2, rectified=2, key=KEY),
    "shallow": lambda: ssntk.PLRNN(5, 1, 2, hidden=9, key=KEY),
    "Euler": lambda: ssntk.EulerMap(ssntk.CTRNN(5, 1, 1, activation=jax.nn.relu, form="rate", key=KEY), 0.1),
    "torch": lambda: ssntk.from_torch(
        {
            "weight_ih_l0": np.ones((5, 1)),
            "weight_hh_l0": np.asarray(jr.normal(KEY, (5, 5))),
            "bias_ih_l0": np.arange(5.0),
            "bias_hh_l0": np.ones(5),
        },
        activation=jax.nn.relu,
    ),
}


@pytest.mark.parametrize(
    ("name", "kinks"), [("standard", 5), ("almost linear", 2), ("shallow", 9), ("Euler", 5), ("torch", 5)]
)
def test_maps(name, kinks):
    model = MAPS[name]()
    form = compared(model, [0.7])
    assert (form.C.shape, form.dt) == ((kinks, 5), model.dt)


# Fields of three states, with the number of their hyperplanes.
FIELDS = {
    "elements": (lambda t, x, u, p: [x[0], jnp.maximum(x[1], x[2]), -x[2]], 1),
    "at": (lambda t, x, u, p: x.at[1].set(jnp.maximum(x[0], 0)).at[2].add(p * x[1]), 1),
    "cond": (lambda t, x, u, p: jax.lax.cond(x[0] > 0, lambda x: 2 * x[:1], lambda x: x[:1], x) - x, 1),
    "scan": (lambda t, x, u, p: jax.lax.scan(lambda c, _: (0.5 * c + x, None), x, None, 3)[0] + jax.nn.relu(x), 3),
    "gather": (lambda t, x, u, p: -x + jax.nn.relu(x)[jnp.array([2, 0, 1])], 3),
    "batched product": (
        lambda t, x, u, p: jnp.einsum("ij,ij->i", jnp.eye(3) * p, jnp.outer(jax.nn.relu(x), jnp.ones(3))),
        3,
    ),
    "one signal inside itself": (lambda t, x, u, p: jax.nn.relu(1 - jax.nn.relu(1 - jnp.abs(x))) - x, 9),
    "vmap": (lambda t, x, u, p: jax.vmap(lambda one: jnp.clip(one, -1, 1))(x) - x, 6),
    "loop": (lambda t, x, u, p: jax.lax.fori_loop(0, 3, lambda i, c: c + jax.nn.relu(x[i]), 0.0) - x, 3),
    "linear": (lambda t, x, u, p: jnp.cumsum(x) - jnp.roll(x, 1) + jnp.mean(x), 0),
    "alike": (lambda t, x, u, p: jax.nn.relu(x) - jax.nn.relu(-2 * x) + jnp.abs(3 * x), 3),
    "known numbers": (lambda t, x, u, p: jnp.minimum(x, jnp.exp(p)) * jax.scipy.special.erf(p), 3),
    "maximum of two": (lambda t, x, u, p: jnp.max(x[:2]) - x, 1),
    "an empty test": (lambda t, x, u, p: jnp.where(x != x, 0.0, -x) + jnp.where(p > 0, jax.nn.relu(x), 0.0), 3),
    "dead": (lambda t, x, u, p: -x + jax.nn.relu(jnp.zeros(3) * x + p) + 0 * jax.nn.relu(x), 0),
}


@pytest.mark.parametrize("name", FIELDS)
def test_fields_of_a_user(name):
    fn, kinks = FIELDS[name]
    form = compared(ssntk.VectorField(fn, 1.3, 3))
    assert len(form.C) == kinks


def test_both_sides_of_a_hyperplane_are_one_relu():
    form = ssntk.piecewise_linear(ssntk.Map(lambda t, x, u, p: jax.nn.relu(x) - 3 * jax.nn.relu(-p * x), 2.0, 1))
    # relu(x) - 6 relu(-x) = 6 x - 5 relu(x).
    assert [part.tolist() for part in (form.A, form.B, form.C, form.c, form.h)] == [[[6]], [[-5]], [[1]], [0], [0]]


REFUSED = {
    "tanh": (lambda x: jnp.tanh(x), "tanh of a value"),
    "sigmoid": (lambda x: jax.nn.sigmoid(x), "sigmoid of a value"),
    "softplus": (lambda x: jax.nn.softplus(x), "in softplus"),
    "elu": (lambda x: jax.nn.elu(x), "in elu"),
    "gelu": (lambda x: jax.nn.gelu(x), "a power of a value"),
    "swish": (lambda x: jax.nn.hard_swish(x), "a product of two values that depend on the state, in hard_silu"),
    "product": (lambda x: x * x[::-1], "a product of two values that depend on the state"),
    "quotient": (lambda x: 1 / x, "a division by a value"),
    "step": (lambda x: jnp.where(x > 0, 1.0, 0.0), "a jump, in where: the two values differ where the test changes"),
    "offset": (lambda x: jnp.where(x > 0, x + 1.0, 0.1 * x), "a jump, in where"),
    "other test": (lambda x: jnp.where(x[0] > 0, x, 2 * x), "a jump, in where"),
    "heaviside": (lambda x: jnp.heaviside(x, 0.5), "a jump, in heaviside"),
    "sign": (lambda x: jnp.sign(x), "sign of a value"),
    "threshold": (lambda x: x * (x > 1).astype(x.dtype), "a jump, in a product with a step"),
    "two layers": (lambda x: jax.nn.relu(jnp.ones((3, 3)) @ jax.nn.relu(x) - x), "a relu of relus, in relu"),
    "largest of three": (lambda x: jnp.max(x) - x, "a relu of relus"),
    "rounding": (lambda x: jnp.floor(x), "floor of a value"),
    "steps": (
        lambda x: jax.lax.while_loop(lambda c: c[0] > 1, lambda c: 0.5 * c, x),
        "a loop whose number of steps",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_other_models_are_refused_by_the_part_that_is_not(name):
    fn, part = REFUSED[name]
    model = ssntk.VectorField(lambda t, x, u, p: -p * x + fn(x), 1.0, 3)
    with pytest.raises(ValueError, match=f"^model must be piecewise linear, and it has .*{part}"):
        ssntk.piecewise_linear(model)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.hard_tanh, jax.nn.leaky_relu])
def test_the_form_in_other_units(activation, seed):
    random = np.random.default_rng(seed)
    sizes, time = 10 ** random.uniform(-6, 6, 4), 10 ** random.uniform(-6, 6)
    model = ssntk.CTRNN(4, 2, 1, activation=activation, form="rate", key=jr.key(seed))
    u = random.standard_normal(2)
    other = ssntk.VectorField(lambda t, z, u, p: model.vector_field(t, z / sizes, u) * sizes / time, 0.0, 4, 2)
    one, two = ssntk.piecewise_linear(model, u), ssntk.piecewise_linear(other, u)
    assert one.C.shape == two.C.shape
    close = {"rtol": 1e-12, "atol": 0}
    np.testing.assert_allclose(two.C * sizes, one.C, **close)
    np.testing.assert_allclose(two.c, one.c, **close)
    np.testing.assert_allclose(two.B * time / sizes[:, None], one.B, **close)
    np.testing.assert_allclose(np.diag(two.A) * time, np.diag(one.A), **close)


def test_models_in_single_precision_are_read_in_double():
    with jax.enable_x64(False):
        for activation, _ in ACTIVATIONS:
            model = ssntk.CTRNN(4, 2, 1, activation=activation, form="rate", tau=0.3, key=KEY)
            assert model.weight.dtype == np.float32
            form = compared(model, [0.3, -0.2], tolerance=1e-5)
            assert form.C.dtype == np.float64


FAMILIES = {
    "gain": (lambda model: ssntk.Family(model, "gain"), (0.5, 2.0), (-1.0, 0.0, 0.3, 5.0)),
    "tau": (lambda model: ssntk.Family(model, "tau"), (0.5, 2.0), (0.1, 1.0)),
    "input": (lambda model: ssntk.Family.input(model, [1.0, 0.5]), (-1.0, 1.0), (-3.0, 0.0, 7.0)),
}


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("activation", [jax.nn.relu, jax.nn.hard_tanh, jax.nn.leaky_relu, tent])
def test_a_family_has_the_same_relus_everywhere(name, activation):
    model = ssntk.CTRNN(4, 2, 1, activation=activation, form="rate", key=KEY)
    make, places, others = FAMILIES[name]
    family = make(model)
    forms = Recognised(family, places=places)
    states = 3 * np.random.default_rng(0).standard_normal((16, 4))
    for p in (*places, *others):
        form = forms(p)
        assert form.C.shape == forms(places[0]).C.shape
        np.testing.assert_allclose(form(states), values(family(p), states, None), rtol=1e-12, atol=1e-12)


def test_a_family_keeps_its_relus_where_a_border_vanishes():
    family = ssntk.Family(ssntk.VectorField(lambda t, x, u, p: -x + jnp.clip(x, -p, p), 1.0, 3), lambda m: m.params)
    forms = Recognised(family, places=(0.5, 2.0))
    states = np.random.default_rng(0).standard_normal((16, 3))
    for p in (-1.0, 0.0, 1.0, 3.0):
        assert forms(p).C.shape == (6, 3)
        np.testing.assert_allclose(forms(p)(states), values(family(p), states, None), rtol=1e-14, atol=1e-14)


def test_what_does_not_fit_is_refused():
    model = ssntk.CTRNN(4, 2, 1, activation=jax.nn.relu, key=KEY)
    with pytest.raises(ValueError, match=r"^u must have shape \(2,\)"):
        ssntk.piecewise_linear(model, [1.0])
    with pytest.raises(ValueError, match=r"^model must be an ssntk.AbstractStateSpaceModel"):
        ssntk.piecewise_linear(np.eye(2))
    with pytest.raises(ValueError, match=r"^model must not depend on t"):
        ssntk.piecewise_linear(ssntk.VectorField(lambda t, x, u, p: -x + t * p, 1.0, 2))
    with pytest.raises(ValueError, match=r"^places must hold"):
        Recognised(ssntk.Family(model, "gain"))
