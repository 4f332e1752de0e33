"""Properties that hold for every model: one dict of models (zoo.py) against one list of properties.

The references are written out here: Heun's method and the iteration of maps in a loop, their derivative by JAX's forward
mode, eigenvalues and singular values by numpy.
"""

import functools
import itertools

import cloudpickle
import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import forget_if_full
from zoo import DRIVEN, TWINS, ZOO, Rescaled, RescaledMap, single

import ssntk
from ssntk.kernel.sites import opened

# One of the models is in single precision, which causes warnings (tests/test_precision.py).
pytestmark = pytest.mark.filterwarnings("ignore::ssntk.PrecisionWarning")
# Few stages, which compile fast.
STEP = 0.25
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=STEP)
# The models that differ most. For properties that take seconds, the others run with -m slow only.
FEW = {"rate", "neural", "still user", "euler", "lstm cell"}


def models(always, without=frozenset()):
    """Names of models: those of `always` in every run, the others with -m slow."""
    marks = {name: () if name in always else pytest.mark.slow for name in ZOO}
    return [pytest.param(name, marks=mark) for name, mark in marks.items() if name not in without]


EACH, ALL = set(ZOO) - TWINS, set(ZOO)
# Each is searched for fixed points, which compiles the most.
JUDGED = FEW | {"gru", "hopf", "saddle-node", "single", "user's map", "layers", "closed map"}


def types(model):
    return {leaf.dtype for leaf in jax.tree.leaves(eqx.filter(model, eqx.is_inexact_array))}


@pytest.fixture(autouse=True, scope="module")
def full():
    """Counts tests. A few hundred tests in one file compile more than a process can hold."""
    return itertools.count(1)


@pytest.fixture
def model(name, full):
    """A model by its name. Here dtypes are promoted as for users, and not as strictly as in other tests."""
    made = ZOO[name]()
    with jax.numpy_dtype_promotion("standard" if len(types(made)) > 1 else "strict"):
        yield made
    if next(full) % 50 == 0:
        forget_if_full()


def dtype_of(model):
    return max(types(model), key=lambda dtype: dtype.itemsize)


def rounding(model):
    """A few thousand roundings of the coarsest numbers, of sums of some hundred terms."""
    return 5e3 * max(float(jnp.finfo(dtype).eps) for dtype in types(model))


def digits(model):
    """Half of the digits, the accuracy of Newton's method and of eigenvalues."""
    return max(float(jnp.finfo(dtype).eps) for dtype in types(model)) ** 0.5


def is_map(model):
    return isinstance(model, ssntk.AbstractMap)


def asked(model):
    """A probe and its integrator. Each save interval has one step; for maps the second interval has two."""
    step = model.dt if is_map(model) else STEP
    random = np.random.default_rng(0)
    us = random.normal(size=(2, model.n_input))
    x0 = random.normal(size=(2, model.n_state))
    return ssntk.Probe([0.0, step, (3 if is_map(model) else 2) * step], us, x0), {} if is_map(model) else {
        "integrator": HEUN
    }


def advanced(model, t, x, u):
    """One step, of Heun's method for a flow."""
    if is_map(model):
        return model.advance(t, x, u)
    first = model.vector_field(t, x, u)
    return x + STEP / 2 * (first + model.vector_field(t + STEP, x + STEP * first, u))


def rolled_out(model, probe):
    """The outputs at the save times (B, T, m) as a function of theta, and theta (p,)."""
    theta = model.trainable("readout")
    leaves, treedef = jax.tree.flatten(theta)
    sizes = np.cumsum([leaf.size for leaf in leaves])[:-1]
    # The vector has one dtype. Each leaf is converted back to its own.
    dtype = dtype_of(model)
    us, x0, times = (np.asarray(part, dtype) for part in (probe.us, probe.x0, probe.ts))
    at = {id(leaf): i for i, leaf in enumerate(leaves)}

    def outputs(vector):
        parts = [
            part.reshape(leaf.shape).astype(leaf.dtype) for part, leaf in zip(jnp.split(vector, sizes), leaves, strict=True)
        ]
        moved = jax.tree.map(lambda leaf: parts[at[id(leaf)]] if id(leaf) in at else leaf, model)
        saved = np.array([0, 1, 3 if is_map(model) else 2])

        def run(u, x):
            def step(x, t):
                return (x := advanced(moved, t, x, u)), x

            states = jax.lax.scan(step, x, (times[1] - times[0]) * np.arange(3, dtype=dtype))[1]
            return jax.vmap(moved.readout)(jnp.concatenate([x[None], states])[saved])

        return jax.vmap(run)(us, x0)

    assert treedef.num_leaves == len(at)
    return outputs, jnp.concatenate([jnp.ravel(leaf).astype(dtype) for leaf in leaves])


@functools.cache
def derivative(name):
    """The outputs (B, T, m) and their derivative (B, T, m, p), by forward mode through the loop."""
    model = ZOO[name]()
    with jax.numpy_dtype_promotion("standard"):
        outputs, theta = rolled_out(model, asked(model)[0])

        def twice(vector):
            out = outputs(vector)
            return out, out

        # One program for both compiles faster than two.
        slopes, values = jax.jit(jax.jacfwd(twice, has_aux=True))(theta)
        return np.asarray(values), np.asarray(slopes)


@pytest.mark.parametrize("name", models(ALL))
def test_the_protocol(name, model):
    dtype = dtype_of(model)
    x, u = jnp.ones(model.n_state, dtype), jnp.ones(model.n_input, dtype)
    velocity, output = model.vector_field(jnp.zeros((), dtype), x, u), model.readout(x)
    assert (velocity.shape, output.shape) == ((model.n_state,), (model.n_output,))
    assert velocity.dtype == output.dtype == dtype
    own = {id(leaf) for leaf in jax.tree.leaves(model)}
    for of in ("state", "readout"):
        trained = jax.tree.leaves(model.trainable(of))
        assert trained
        assert {id(leaf) for leaf in trained} <= own
    if is_map(model):
        np.testing.assert_allclose(model.advance(0.0, x, u), x + model.dt * velocity, rtol=rounding(model))


@pytest.mark.parametrize("name", models(EACH))
def test_simulate_is_the_loop(name, model):
    probe, how = asked(model)
    states = ssntk.simulate(model, probe, **how)
    assert states.shape == (2, 3, model.n_state)
    assert states.dtype == dtype_of(model)
    outputs = jax.vmap(jax.vmap(model.readout))(states)
    expected = derivative(name)[0]
    np.testing.assert_allclose(outputs, expected, atol=rounding(model) * np.abs(expected).max())


METHODS = {
    "segments": EACH,
    "rows": FEW,
    "chunks": {"neural", "euler"},
    "autodiff": {"still user", "euler"},
}


@pytest.mark.parametrize(
    ("method", "name"),
    [pytest.param(by, *one.values, marks=one.marks) for by, always in METHODS.items() for one in models(always)],
)
def test_every_method_gives_the_derivative_of_the_loop(method, name, model):
    probe, how = asked(model)
    found = np.asarray(ssntk.parameter_jacobian(model, probe, of="readout", method=method, **how))
    expected = derivative(name)[1]
    assert found.dtype == dtype_of(model)
    # Compare each theta in its own units, which differ by a factor of a thousand.
    size = np.abs(expected).max(axis=(0, 1, 2))
    size[size == 0] = 1.0
    np.testing.assert_allclose(found / size, expected / size, atol=rounding(model))


@pytest.mark.parametrize("name", models({"neural", "still user", "euler"}))
def test_the_kernel_by_sites_is_that_by_the_jacobian(name, model, monkeypatch):
    # Sites of any size are opened.
    monkeypatch.setattr(opened, "LEAST", 2)
    probe, how = asked(model)
    rows = np.asarray(ssntk.parameter_jacobian(model, probe, **how)).reshape(6 * model.n_state, -1)
    # A derivative in two dtypes is less accurate, and the check of the sites refuses it. Sites are not looked for in loops.
    if (
        name != "many iterations"
        and len(types(model)) == 1
        and any(leaf.ndim == 2 for leaf in jax.tree.leaves(model.trainable("state")))
    ):
        kernel = ssntk.ntk(model, probe, method="sites", **how)
        np.testing.assert_allclose(kernel, rows @ rows.T, atol=rounding(model) * np.square(rows).sum(axis=1).max())
    else:
        with pytest.raises(ValueError, match="method 'sites' is not possible: "):
            ssntk.ntk(model, probe, method="sites", **how)
    spectrum = ssntk.ntk_spectrum(model, probe, **how)
    values = np.square(np.linalg.svd(rows, compute_uv=False))
    np.testing.assert_allclose(np.asarray(spectrum.eigenvalues)[: len(values)], values, atol=rounding(model) * values[0])


def jacobian(model, x, u):
    return np.asarray(jax.jacfwd(lambda x: model.vector_field(0.0, x, u))(jnp.asarray(x, dtype_of(model))), float)


def exponents(model, matrix):
    """The eigenvalues for flows, or the multipliers for maps, ascending."""
    return np.sort_complex(np.linalg.eigvals(np.eye(len(matrix)) + model.dt * matrix if is_map(model) else matrix))


def stable(model, values):
    return bool((np.abs(values) < 1).all() if is_map(model) else (values.real < 0).all())


def radius(model, matrix):
    """The smallest singular value of `z - A` over z on the edge of stability, and the largest error of this minimum."""
    n = 4001
    if is_map(model):
        edge = (np.exp(1j * np.linspace(0.0, np.pi, n)) - 1) / model.dt
        apart = np.pi / (n - 1) / model.dt
    else:
        fastest = 2 * np.linalg.norm(matrix, 2)
        edge, apart = 1j * np.linspace(0.0, fastest, n), fastest / (n - 1)
    least = np.linalg.svd(edge[:, None, None] * np.eye(len(matrix)) - matrix, compute_uv=False).min(axis=1)
    # A singular value moves by no more than z does.
    return least.min(), apart


@functools.cache
def judged(name):
    """The fixed points and the verdict on a model, `None` if it has no fixed point."""
    model = ZOO[name]()
    with jax.numpy_dtype_promotion("standard"):
        points = ssntk.find_fixed_points(model, n_starts=8)
        return points, ssntk.criticality(model, n_starts=8) if len(points) else None


def families(model):
    if model.n_input:
        return ssntk.Family.input(model, np.ones(model.n_input))
    return ssntk.Family.line(model, jax.tree.map(np.ones_like, eqx.filter(model, eqx.is_inexact_array)))


@pytest.mark.parametrize("name", sorted(DRIVEN))
def test_what_depends_on_time_is_refused(name, model):
    for call in (ssntk.find_fixed_points, ssntk.criticality, lambda m: ssntk.continuation(families(m), (0.0, 1.0))):
        with pytest.raises(ValueError, match="must not depend on t: between time zero"):
            call(model)


@pytest.mark.parametrize("name", models(JUDGED, without=DRIVEN))
def test_fixed_points_and_the_verdict(name, model):
    points, verdict = judged(name)
    u = jnp.zeros(model.n_input, dtype_of(model))
    if verdict is None:
        with pytest.raises(ssntk.NumericalError, match="no fixed point was found from 8 starts"):
            ssntk.criticality(model, n_starts=8)
        return
    for x, values, firm in zip(points.x, points.eigenvalues, points.stable, strict=True):
        matrix = jacobian(model, x, u)
        expected = exponents(model, matrix)
        np.testing.assert_allclose(np.sort_complex(values), expected, atol=digits(model) * np.abs(expected).max())
        assert firm == stable(model, expected)
        # Newton's next step would be this small, relatively.
        velocity = np.asarray(model.vector_field(0.0, jnp.asarray(x, dtype_of(model)), u))
        assert np.abs(np.linalg.solve(matrix, velocity)).max() <= digits(model) * max(np.abs(points.x).max(), 1e-12)
    nearest, apart = radius(model, jacobian(model, verdict.x_star, u))
    assert nearest - apart <= verdict.stability_radius * (1 + digits(model))
    assert verdict.stability_radius <= nearest * (1 + digits(model))


@pytest.mark.parametrize("name", models(FEW | {"hopf", "single"}, without=DRIVEN))
def test_a_branch_or_a_sentence(name, model):
    family, u = families(model), jnp.zeros(model.n_input, dtype_of(model))
    if not len(judged(name)[0]):
        with pytest.raises(ssntk.NumericalError, match="no equilibrium was found at p = 0"):
            ssntk.continuation(family, (0.0, 0.5))
        return
    branch = ssntk.continuation(family, (0.0, 0.5))
    assert branch.status.startswith("left the span")
    for point in branch[:: max(len(branch) // 5, 1)]:
        matrix = jacobian(family(point.parameter), point.x, u)
        expected = exponents(model, matrix)
        np.testing.assert_allclose(np.sort_complex(point.eigenvalues), expected, atol=digits(model) * np.abs(expected).max())
        assert point.stable == stable(model, expected)


def rescaled(model, size, rate):
    """A model in other units. For maps the unit of time does not change."""
    if is_map(model):
        return RescaledMap(model, size), 1.0
    return Rescaled(model, size, rate), rate


@pytest.mark.parametrize("name", models({"rate", "euler", "hopf"}))
def test_other_units_change_no_answer(name, model):
    other, rate = rescaled(model, 1e3, 1e-2)
    probe, how = asked(model)
    slower = {} if is_map(model) else {"integrator": ssntk.Integrator(solver=diffrax.Heun(), dt=STEP / rate)}
    one = np.asarray(ssntk.parameter_jacobian(model, probe, **how))
    two = np.asarray(ssntk.parameter_jacobian(other, ssntk.Probe(probe.ts / rate, probe.us, 1e3 * probe.x0), **slower))
    np.testing.assert_allclose(two, 1e3 * one, atol=1e3 * rounding(model) * np.abs(one).max())
    if name in DRIVEN:
        return
    points, verdict = judged(name)
    moved = ssntk.find_fixed_points(other, n_starts=8)
    assert len(moved) == len(points)
    if verdict is None:
        return
    np.testing.assert_allclose(moved.x, 1e3 * points.x, atol=1e3 * digits(model) * max(np.abs(points.x).max(), 1e-12))
    np.testing.assert_array_equal(moved.stable, points.stable)
    # The time scale of a verdict is read from `tau`, which the model in other units does not have.
    now = ssntk.criticality(other, n_starts=8, time_scale=verdict.time_scale / rate)
    assert (now.verdict, now.kind, now.near) == (verdict.verdict, verdict.kind, verdict.near)
    np.testing.assert_allclose(now.stability_radius, rate * verdict.stability_radius, rtol=digits(model))


@pytest.mark.parametrize("name", models(JUDGED, without=DRIVEN))
def test_results_are_read_back_as_they_were(name, model, tmp_path):
    points, verdict = judged(name)
    path = ssntk.save(tmp_path / "points.npz", points, model=model)
    assert ssntk.load(path, model=ZOO[name]()) == points
    with pytest.raises(ValueError, match="is of another model"):
        ssntk.load(path, model=changed(model))
    if verdict is not None:
        assert ssntk.load(ssntk.save(tmp_path / "verdict.npz", verdict)) == verdict


def changed(model):
    """A model with one weight that is a little larger."""
    leaves, treedef = jax.tree.flatten(model)
    first = next(i for i, leaf in enumerate(leaves) if eqx.is_inexact_array(leaf))
    flat = leaves[first].ravel()
    leaves[first] = flat.at[0].set(flat[0] * 1.001 + 1e-3).reshape(leaves[first].shape)
    return jax.tree.unflatten(treedef, leaves)


@pytest.mark.parametrize("name", models(FEW | {"field", "user's map"}, without=DRIVEN))
def test_a_plan_knows_its_model(name, model):
    def plan(model):
        probe = ssntk.Probe([0.0, getattr(model, "dt", 1.0)])
        return ssntk.Sweep(families(model), towards="saddle-node", span=(0.0, 1.0), distances=[1e-2, 1e-3], probe=probe)

    first = plan(model).hash()
    assert plan(ZOO[name]()).hash() == first
    assert plan(cloudpickle.loads(cloudpickle.dumps(model))).hash() == first
    assert plan(changed(model)).hash() != first
    if name == "rate":
        assert plan(single(model)).hash() != first


@pytest.mark.parametrize("name", models(ALL))
def test_a_copy_is_the_same(name, model):
    copies = [
        cloudpickle.loads(cloudpickle.dumps(model)),
        jax.tree.unflatten(*reversed(jax.tree.flatten(model))),
        ZOO[name](),
    ]
    x, u = jnp.ones(model.n_state, dtype_of(model)), jnp.ones(model.n_input, dtype_of(model))
    for copy in copies:
        assert type(copy) is type(model)
        assert jax.tree.structure(copy.trainable("readout")) == jax.tree.structure(model.trainable("readout"))
        np.testing.assert_array_equal(copy.vector_field(0.0, x, u), model.vector_field(0.0, x, u))
        np.testing.assert_array_equal(copy.readout(x), model.readout(x))
