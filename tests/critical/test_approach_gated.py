"""The nearest bifurcation of networks whose parameters act through gates or through a nonlinearity.

Nothing expected here comes from the package: cells, their derivatives and distances are written out in numpy, and minima are
compared with SciPy's SLSQP from other starts. Compiled: searches of GRUs of 3 units, of one closed loop and of one stack.
"""

import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
import scipy.optimize
from helpers import EXACT, seeds, some
from zoo import RescaledMap

import ssntk

N, SEEDS = 3, seeds(1, 6)
KINDS = ["singular", "flip", "neimark-sacker"]


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def gru(theta, h, along):
    """A step of PyTorch's GRU without input from h, and its derivative along each column of `along` (n, k)."""
    W, b, c = theta[: 3 * N * N].reshape(3 * N, N), theta[3 * N * N :][: 3 * N], theta[3 * N * N :][3 * N :]
    (Wr, Wz, Wn), (br, bz, bn), (cr, cz, cn) = W.reshape(3, N, N), b.reshape(3, N), c.reshape(3, N)
    r, z, inner = sigmoid(Wr @ h + br + cr), sigmoid(Wz @ h + bz + cz), Wn @ h + cn
    new = np.tanh(bn + r * inner)
    by_r, by_z = (r * (1 - r))[:, None] * (Wr @ along), (z * (1 - z))[:, None] * (Wz @ along)
    by_new = (1 - new**2)[:, None] * (by_r * inner[:, None] + r[:, None] * (Wn @ along))
    return (1 - z) * new + z * h, (1 - z)[:, None] * by_new + by_z * (h - new)[:, None] + z[:, None] * along


def vector(model):
    """theta of a GRU: hidden weights, input biases, hidden biases."""
    return np.concatenate([np.ravel(leaf) for leaf in (model.weight_hh, model.bias_ih, model.bias_hh)])


def free(model):
    return model.weight_hh, model.bias_ih, model.bias_hh


def multiplier(kind, frequency):
    return {"singular": 1.0, "saddle-node": 1.0, "flip": -1.0}.get(kind, np.exp(1j * frequency))


def conditions(y, kind):
    """What a bifurcation point leaves zero. y = theta, h, real and imaginary part of the eigenvector, angle."""
    theta, (h, v, w), angle = y[: 3 * N * N + 6 * N], y[3 * N * N + 6 * N :][: 3 * N].reshape(3, N), y[-1]
    step, (dv, dw) = (part.T for part in gru(theta, h, np.stack([v, w], axis=1)))
    if kind == "neimark-sacker":
        cos, sin = np.cos(angle), np.sin(angle)
        rest = [dv - cos * v + sin * w, dw - cos * w - sin * v, [v @ v + w @ w - 1, v @ w]]
    else:
        rest = [dv - multiplier(kind, 0) * v, w, [v @ v - 1, angle]]
    return np.concatenate([step - h, *rest])


def derivative(function, y):
    """The Jacobian by complex steps, exact to rounding: cells are analytic."""
    steps = 1e-30j * np.eye(len(y))
    return np.stack([function(y + step).imag / 1e-30 for step in steps], axis=1)


def descent(found, start, kind, rng, signs=None):
    """The distance at the minimum to which SLSQP leads from near a point that was found."""
    mode = found.right / np.linalg.norm(found.right)
    mode = mode * np.exp(-0.5j * np.angle(mode @ mode))
    angle = found.frequency if kind == "neimark-sacker" else 0.0
    y = np.concatenate([vector(found.model), found.x, mode.real, mode.imag, [angle]])
    np.testing.assert_allclose(conditions(y, kind), 0, atol=1e-11)
    p = len(start)
    limits = [(None, None)] * len(y)
    if signs is not None:
        y[:p] = np.where(signs * y[:p] < 0, 0, y[:p])
        limits[:p] = [{1: (0, None), -1: (None, 0), 0: (None, None)}[int(sign)] for sign in signs]
    result = scipy.optimize.minimize(
        lambda y: ((y[:p] - start) ** 2).sum() / 2,
        y + 0.01 * rng.normal(size=y.shape) * (np.arange(len(y)) < len(y) - 1),
        jac=lambda y: np.append(y[:p] - start, np.zeros(len(y) - p)),
        bounds=limits,
        constraints={
            "type": "eq",
            "fun": lambda y: conditions(y, kind),
            "jac": lambda y: derivative(lambda z: conditions(z, kind), y),
        },
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 500},
    )
    assert np.abs(conditions(result.x, kind)).max() < 1e-7
    return np.linalg.norm(result.x[:p] - start)


@pytest.mark.parametrize("kind", some(KINDS, ["singular", "neimark-sacker"]))
@pytest.mark.parametrize("seed", SEEDS)
def test_the_nearest_point_of_a_gru(kind, seed):
    model = ssntk.GRUCell(0, N, key=jr.key(seed))
    found = ssntk.approach(model, kind, wrt=free, n_starts=4)
    start = vector(model)
    assert found.converged
    assert found.minimum
    np.testing.assert_allclose(np.linalg.norm(vector(found.model) - start), found.distance, rtol=1e-12)
    # The critical multiplier, of the matrix by complex steps.
    theta = vector(found.model)
    matrix = derivative(lambda h: gru(theta, h, np.zeros((N, 0)))[0], found.x)
    wanted = multiplier(kind, found.frequency)
    assert np.abs(np.linalg.eigvals(matrix) - wanted).min() < 1e-6
    if "boundary" not in found.kind:
        np.testing.assert_allclose(descent(found, start, kind, np.random.default_rng(seed)), found.distance, rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_generic_fold_of_a_gru_is_at_least_as_far_as_its_cusp(seed):
    model = ssntk.GRUCell(0, N, key=jr.key(seed))
    cusp, fold = (ssntk.approach(model, kind, wrt=free, n_starts=4) for kind in ("singular", "saddle-node"))
    assert (cusp.kind, fold.kind) == ("cusp", "saddle-node")
    assert fold.distance > cusp.distance
    # The coefficient is at its bound, 0.05 / (time_scale size), by second differences of the step along the mode.
    theta, r = vector(fold.model), fold.right.real
    bent = [gru(theta, fold.x + h * r, np.zeros((N, 0)))[0] for h in (-1e-3, 0.0, 1e-3)]
    second = (bent[0] - 2 * bent[1] + bent[2]) / 1e-6
    np.testing.assert_allclose(fold.left.real @ second / 2, fold.coefficient, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_weights_behind_gates_keep_their_signs(seed):
    model = ssntk.GRUCell(0, N, key=jr.key(seed))
    signs = np.sign(np.asarray(model.weight_hh))
    found = ssntk.approach(model, "flip", wrt=free, n_starts=4, signs={"weight_hh": signs})
    assert (signs * np.asarray(found.model.weight_hh) >= 0).all()
    every = np.concatenate([signs.ravel(), np.zeros(6 * N)])
    nearest = descent(found, vector(model), "flip", np.random.default_rng(seed), every)
    np.testing.assert_allclose(nearest, found.distance, rtol=1e-6)
    # Fewer changes are allowed than without signs.
    assert found.distance >= ssntk.approach(model, "flip", wrt=free, n_starts=4).distance - 1e-9


# Networks in other units are in every run, tests/critical/test_units.py.
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["flip", "saddle-node", "neimark-sacker"])
def test_units_of_the_states_do_not_matter(kind):
    size = 10.0 ** np.random.default_rng(3).uniform(-5, 5, N)
    model = ssntk.GRUCell(0, N, key=jr.key(3))
    found = ssntk.approach(model, kind, wrt=free, n_starts=4)
    other = ssntk.approach(
        RescaledMap(model, jnp.asarray(size)),
        kind,
        x=found.x_start * size,
        wrt=lambda m: free(m.inner),
        n_starts=4,
        scale=size,
    )
    assert other.kind == found.kind
    np.testing.assert_allclose(other.distance, found.distance, rtol=1e-7)
    np.testing.assert_allclose(other.x / size, found.x, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(other.frequency, found.frequency, rtol=1e-7)


@pytest.mark.parametrize("cost", some([1e-12, 1e9], [1e-12]))
def test_the_unit_of_the_cost_does_not_matter(cost):
    model = ssntk.GRUCell(0, N, key=jr.key(4))
    found = ssntk.approach(model, "flip", wrt=free, n_starts=4)
    names = ("weight_hh", "bias_ih", "bias_hh")
    other = ssntk.approach(model, "flip", wrt=free, n_starts=4, metric=dict.fromkeys(names, cost))
    np.testing.assert_allclose(other.distance / cost**0.5, found.distance, rtol=1e-9)
    np.testing.assert_allclose(vector(other.model), vector(found.model), atol=1e-7)


def test_a_network_in_the_rate_form_is_nearest_where_its_own_formula_says():
    # x' = -x + tanh(w x + b) with one unit: singular where w (1 - tanh^2) = 1, so that x = +-sqrt(1 - 1 / w), and b follows.
    w, b = 1.7, 0.4
    model = ssntk.CTRNN.from_weights([[w]], bias=[b], form="rate")
    found = ssntk.approach(model, "singular", wrt=lambda m: (m.weight, m.bias), n_starts=4)

    def squared(weight, sign):
        x = sign * np.sqrt(1 - 1 / weight)
        return (weight - w) ** 2 + (np.arctanh(x) - weight * x - b) ** 2

    # The distance has a minimum on each side of zero: a start leads to that of its own side.
    side = np.sign(found.x[0])
    own = scipy.optimize.minimize_scalar(
        squared, bounds=(1.0, 4.0), args=(side,), method="bounded", options={"xatol": 1e-12}
    )
    np.testing.assert_allclose(found.distance**2, own.fun, rtol=EXACT)


@pytest.mark.parametrize("kind", some(KINDS, ["flip"]))
@pytest.mark.parametrize("name", some(["small loop", "loop", "layers"], ["small loop"]))
def test_loops_and_layers_have_nearest_points(name, kind):
    model = {
        "small loop": lambda: ssntk.ClosedLoop(ssntk.GRUCell(1, 2, 1, key=jr.key(14))),
        "loop": lambda: ssntk.ClosedLoop(ssntk.GRUCell(3, 4, 3, key=jr.key(14))),
        "layers": lambda: ssntk.Layers(ssntk.GRUCell(2, 3, key=jr.key(11)), ssntk.GRUCell(3, 2, key=jr.key(12))),
    }[name]()
    found = ssntk.approach(model, kind, **({"n_starts": 2} if name == "small loop" else {}))
    assert found.converged
    # The step of the model itself, differentiated by differences.
    u = np.zeros(model.n_input)

    def step(x):
        return np.asarray(found.model.step(jnp.asarray(x), u))

    np.testing.assert_allclose(step(found.x), found.x, atol=1e-10)
    n = model.n_state
    matrix = np.stack([(step(found.x + h) - step(found.x - h)) / 2e-5 for h in 1e-5 * np.eye(n)], axis=1)
    assert np.abs(np.linalg.eigvals(matrix) - multiplier(kind, found.frequency)).min() < 1e-4
