"""For any arguments, every public function returns a right result or raises an error that names the argument.

There are few shapes, so that little is compiled. Values range from the smallest to the largest numbers.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import ssntk

# The same examples in every run: what fails here fails everywhere.
# A search takes half a second.
searched, few, many = (settings(derandomize=True, deadline=None, max_examples=count) for count in (16, 40, 200))
NICE = st.floats(-3, 3, width=32)
NASTY = st.sampled_from([np.nan, np.inf, -np.inf])
# Wide, but with room for a product of two.
LARGE = st.one_of(NICE, st.floats(-1e120, 1e120), st.sampled_from([0.0, 5e-324, 1e-300, -1e-150, 1e120]))
WIDE = st.one_of(NICE, st.floats(-1e300, 1e300), st.sampled_from([0.0, 5e-324, 1e-300, -1e-150, 1e150, 1e308]))


def right(*shape, values=NICE):
    return hnp.arrays(np.float64, shape, elements=values)


@st.composite
def wrong(draw, *shape, legal=()):
    """A value that is not a real, finite array of this shape, nor of another legal shape."""
    kind = draw(st.sampled_from(["shape", "nan", "complex", "text", "object", "ragged"]))
    if kind == "shape":
        other = draw(
            hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4).filter(
                lambda other: other not in (shape, *legal)
            )
        )
        return np.ones(other)
    if kind == "nan":
        array = draw(right(*shape))
        assume(array.size)
        array.flat[draw(st.integers(0, array.size - 1))] = draw(NASTY)
        return array
    return {
        "complex": np.ones(shape) * 1j,
        "text": "1, 2",
        "object": {"a": 1},
        "ragged": [[1.0], [1.0, 2.0]],
    }[kind]


def linear(t, x, u, p):
    return p["W"] @ x + p["b"] + u


def linear_model(weight, bias):
    return ssntk.VectorField(linear, {"W": weight, "b": bias}, 2, 2)


# Every public function as a function of one argument with a required shape: (name in the message, shape, call).
MODEL = ssntk.CTRNN(2, 1, 1, gain=0.5, key=jax.random.key(0))
PROBE = ssntk.Probe([0.0, 1.0])
FAMILY = ssntk.Family.input(MODEL, [1.0])
FOLD = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
OPEN = {
    "weight": ((2, 2), lambda v: ssntk.CTRNN.from_weights(v)),
    "input_weight": ((2, 1), lambda v: ssntk.CTRNN.from_weights(np.eye(2), v, np.ones(2), np.ones((1, 2)))),
    "bias": ((2,), lambda v: ssntk.CTRNN.from_weights(np.eye(2), bias=v)),
    "readout_bias": ((2,), lambda v: ssntk.CTRNN.from_weights(np.eye(2), readout_bias=v)),
    "gain": ((), lambda v: ssntk.CTRNN(2, 1, 1, gain=v, key=jax.random.key(0))),
    "mu": ((), lambda v: ssntk.normal_forms.saddle_node(v)),
    "omega": ((), lambda v: ssntk.normal_forms.hopf(0.0, v)),
    "h": ((2,), lambda v: ssntk.normal_forms.hopf(0.0, 1.0, h=v)),
    "dt": ((), lambda v: ssntk.EulerMap(MODEL, v)),
    "frequency": ((), lambda v: ssntk.Sinusoid([[1.0]], v)),
    "phase": ((), lambda v: ssntk.Sinusoid([[1.0]], 1.0, v)),
    "x0": ((2,), lambda v: ssntk.simulate(MODEL, ssntk.Probe([0.0, 1.0], x0=v))),
    "us": ((1, 1), lambda v: ssntk.simulate(MODEL, ssntk.Probe([0.0, 1.0], v))),
    "weights": ((2,), lambda v: ssntk.ntk(MODEL, PROBE, weights=v)),
    "u": ((1,), lambda v: ssntk.find_fixed_points(MODEL, v, n_starts=2)),
    "direction": ((1,), lambda v: ssntk.Family.input(MODEL, v)),
    "offset": ((1,), lambda v: ssntk.Family.input(MODEL, [1.0], v)),
    "x0 ": ((1,), lambda v: ssntk.continuation(FOLD, (1.0, -1.0), x0=v)),
    "step": ((), lambda v: ssntk.continuation(FOLD, (1.0, -1.0), step=v)),
    "parameter": ((), lambda v: ssntk.locate(FOLD, "saddle-node", parameter=v, x=[0.0])),
    "x": ((1,), lambda v: ssntk.locate(FOLD, "saddle-node", parameter=0.0, x=v)),
    "x_star": ((2,), lambda v: ssntk.steady_state_ntk(MODEL, v)),
    "x_star ": ((2,), lambda v: ssntk.measure(MODEL, PROBE, v)),
    "residual": ((3,), lambda v: ssntk.Spectrum.from_kernel(np.eye(3)).filter(v, 1)),
    "learning_rate": ((), lambda v: ssntk.Spectrum.from_kernel(np.eye(3)).steps_to_tolerance(v, 0.1)),
    "tol": ((), lambda v: ssntk.Spectrum.from_kernel(np.eye(3)).steps_to_tolerance(0.1, v)),
    "gamma": ((), lambda v: ssntk.Spectrum.from_kernel(np.eye(3)).effective_dimension(v)),
}


# Other shapes that are valid for an argument: another number of units, of inputs, of points.
LEGAL = {
    "weight": [(k, k) for k in range(1, 5)],
    "x0": [(k, 2) for k in range(1, 5)],
    "x_star": [(k, 2) for k in range(1, 5)],
    "us": [(k, 1) for k in range(1, 5)] + [(k, 2, 1) for k in range(1, 5)],
}


@pytest.mark.parametrize("name", OPEN)
@few
@given(data=st.data())
def test_a_wrong_array_is_named(name, data):
    shape, call = OPEN[name]
    wrong_array = wrong(*shape, legal=LEGAL.get(name, ()))
    with pytest.raises(ValueError, match=rf"\b{name.strip()}\b"):
        call(data.draw(wrong_array))


@few
@given(st.one_of(wrong(2), right(3).filter(lambda ts: not (np.diff(ts) > 0).all())))
def test_wrong_times_are_named(ts):
    assume(not (isinstance(ts, np.ndarray) and ts.ndim == 1 and len(ts) > 2 and (np.diff(ts) > 0).all()))
    with pytest.raises(ValueError, match="ts"):
        ssntk.Probe(ts)


@few
@given(st.one_of(wrong(2), st.sampled_from([(1.0, 1.0), (0.0,), None])))
def test_a_wrong_span_is_named(span):
    with pytest.raises(ValueError, match="span"):
        ssntk.continuation(FOLD, span)


@few
@given(st.one_of(st.just([]), st.lists(NASTY, min_size=1), st.lists(st.floats(-3, 0), min_size=1), st.just([0.1, 0.1])))
def test_wrong_distances_are_named(distances):
    with pytest.raises(ValueError, match="distances"):
        ssntk.Sweep(FOLD, towards="saddle-node", span=(1.0, -1.0), distances=distances, probe=PROBE)


@pytest.mark.parametrize("name", ["rtol", "atol", "dt"])
@few
@given(value=st.one_of(NASTY, st.floats(max_value=0), st.just("1"), st.just(np.ones(2))))
def test_wrong_tolerances_are_named(name, value):
    with pytest.raises(ValueError, match=name):
        ssntk.Integrator(**{name: value})


@many
@given(hnp.arrays(np.float64, hnp.array_shapes(min_dims=2, max_dims=3, min_side=1, max_side=5), elements=WIDE))
def test_spectra_of_any_jacobian(jacobian):
    matrix = jacobian.reshape(-1, jacobian.shape[-1])
    scale = np.abs(matrix).max()
    try:
        spectrum = ssntk.Spectrum.from_jacobian(jacobian)
    except ssntk.NumericalError:
        # An error is allowed only if the eigenvalue itself overflows or underflows.
        assert not 1e-150 < scale < 1e150
        return
    values = np.asarray(spectrum.eigenvalues)
    assert values.shape == (matrix.shape[0],)
    assert np.isfinite(values).all()
    assert (values >= 0).all()
    assert (np.diff(values) <= 0).all()
    assert spectrum.rank <= min(matrix.shape)
    if scale == 0:
        assert spectrum.rank == 0
        assert np.isnan(spectrum.participation_ratio)
        return
    # Singular values and the Frobenius norm, of what was scaled to one; by numpy.
    exact = np.linalg.svd(matrix / scale, compute_uv=False) ** 2
    np.testing.assert_allclose(values[: exact.size] / scale / scale, exact, atol=1e-13 * exact[0], rtol=1e-12)
    np.testing.assert_allclose(spectrum.participation_ratio, exact.sum() ** 2 / (exact**2).sum(), rtol=1e-12)
    share = exact[exact > 0] / exact.sum()
    np.testing.assert_allclose(spectrum.effective_rank, np.exp(-(share * np.log(share)).sum()), rtol=1e-9)
    np.testing.assert_allclose([spectrum.top_share, spectrum.share(2)], [share[0], share[:2].sum()], rtol=1e-12)
    # The condition number is the ratio, a bound, or infinite by construction.
    condition = float(spectrum.condition_number)
    if matrix.shape[0] > matrix.shape[1]:
        assert condition == np.inf
    elif spectrum.condition_number_is_bound:
        assert exact[-1] <= spectrum.floor * exact[0] * (1 + 1e-6)
    else:
        np.testing.assert_allclose(condition, exact[0] / exact[-1], rtol=1e-6)


@many
@given(hnp.arrays(np.float64, st.integers(1, 4).map(lambda n: (n, n)), elements=NICE), st.sampled_from([1e-200, 1.0, 1e200]))
def test_spectra_of_any_kernel(root, scale):
    kernel = root @ root.T * scale
    spectrum = ssntk.Spectrum.from_kernel(kernel)
    exact = np.maximum(np.linalg.eigvalsh(root @ root.T)[::-1], 0) * scale
    np.testing.assert_allclose(spectrum.eigenvalues, exact, atol=1e-12 * max(exact[0], 1e-300))
    if exact[0] > 0:
        skew = kernel.copy()
        skew[0, -1] += 0.1 * exact[0]
        if len(skew) > 1:
            with pytest.raises(ValueError, match="symmetric"):
                ssntk.Spectrum.from_kernel(skew)
        with pytest.raises(ValueError, match="semidefinite"):
            ssntk.Spectrum.from_kernel(kernel - 2 * exact[0] * np.eye(len(kernel)))


@few
@given(right(2, 2, values=LARGE), right(2, values=LARGE), right(2, values=LARGE))
def test_linear_systems_are_solved_or_refused(weight, bias, x0):
    model = linear_model(weight, bias)
    try:
        states = np.asarray(ssntk.simulate(model, ssntk.Probe([0.0, 0.5, 1.0], x0=x0)))[0]
    except ssntk.NumericalError:
        # The solver may fail if the model is too stiff for its steps or overflows, but never if everything is of order one.
        assert max(np.abs(part).max() for part in (weight, bias, x0)) > 10
        return
    assert np.isfinite(states).all()
    # Linear in (b, x0), which are scaled so that the matrix exponential keeps its digits.
    scale = max(np.abs(x0).max(), np.abs(bias).max()) or 1.0
    augmented = np.zeros((3, 3))
    augmented[:2, :2], augmented[:2, 2] = weight, bias / scale
    with np.errstate(all="ignore"):
        exact = np.array([(scipy.linalg.expm(augmented * t) @ np.append(x0 / scale, 1.0))[:2] for t in (0.0, 0.5, 1.0)])
    assume(np.isfinite(exact).all())
    # The tolerances of the solver, relative to the largest state on the way.
    np.testing.assert_allclose(states / scale, exact, atol=max(1e-6 * np.abs(exact).max(), 1e-8 / scale))


@few
@given(right(2, 2), right(2))
def test_kernels_of_linear_systems(weight, bias):
    # dx/dt = W x + b from x0 = 0: dx/db = int exp(W s) ds.
    model = linear_model(weight, bias)
    rows = ssntk.parameter_jacobian(model, ssntk.Probe([0.0, 0.5, 1.0]), wrt=lambda m: m.params["b"])
    for k, t in enumerate((0.0, 0.5, 1.0)):
        blocks = np.zeros((4, 4))
        blocks[:2, :2], blocks[:2, 2:] = weight, np.eye(2)
        exact = scipy.linalg.expm(blocks * t)[:2, 2:]
        # Tsit5 at rtol 1e-8, through exp(3 sqrt 2) at most.
        np.testing.assert_allclose(rows[0, k], exact, atol=1e-6 * max(1.0, np.abs(exact).max()))


@searched
@given(right(2, 2, values=LARGE), right(2, values=LARGE))
def test_fixed_points_of_linear_systems(weight, bias):
    model = linear_model(weight, bias)
    with np.errstate(all="ignore"):
        condition = np.linalg.cond(weight) if np.abs(weight).max() > 0 else np.inf
        exact = np.linalg.solve(weight, -bias) if condition < 1e12 else None
    points = ssntk.find_fixed_points(model, n_starts=8)
    for x, residual in zip(points.x, points.residual, strict=True):
        # A reported fixed point is one to the root of rounding, relative to its terms at a state of order one or larger.
        unit = max(np.abs(weight).max(), np.abs(bias).max()) or 1.0
        size = np.abs(weight / unit) @ (1 + np.abs(x)) + np.abs(bias / unit)
        assert np.isfinite(x).all()
        assert (np.abs(weight / unit @ x + bias / unit) <= 2e-8 * size).all()
        assert residual / unit <= 2e-8 * size.max()
    moderate = max(np.abs(weight).max(), np.abs(bias).max()) < 10
    if moderate and condition < 1e4 and np.abs(weight).max() > 1e-3 and np.abs(exact).max() < 100:
        assert len(points) == 1
        np.testing.assert_allclose(points.x[0], exact, rtol=1e-8, atol=1e-8)
        kernel = ssntk.steady_state_ntk(model, points.x[0], wrt=lambda m: m.params["b"])
        inverse = np.linalg.inv(weight)
        np.testing.assert_allclose(kernel, inverse @ inverse.T, rtol=1e-8, atol=1e-10 * np.abs(inverse).max() ** 2)


@few
@given(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3))
def test_the_fold_of_a_parabola_wherever_it_starts(start, end):
    branch = ssntk.continuation(FOLD, (start, -end), x0=[start**0.5])
    (event,) = branch.bifurcations
    # In units of the span, to which steps are relative.
    assert abs(event.parameter) < 1e-9 * (start + end)
    assert abs(event.x[0]) < 1e-6 * (start + end) ** 0.5
    np.testing.assert_allclose(branch.parameter, branch.x[:, 0] ** 2, atol=1e-9 * (start + end))


@few
@given(st.sampled_from([np.float16, np.float32, np.float64, np.int32, np.int64, bool, np.uint8]))
def test_numbers_of_any_type(dtype):
    ones = np.ones((2, 2), dtype)
    if dtype in (bool, np.float16):
        with pytest.raises(ValueError, match="weight must hold"):
            ssntk.CTRNN.from_weights(ones)
        return
    model = ssntk.CTRNN.from_weights(ones)
    assert jnp.issubdtype(model.weight.dtype, jnp.floating)
    np.testing.assert_array_equal(model.weight, 1.0)
    states = ssntk.simulate(model, ssntk.Probe(np.array([0, 1, 2]), x0=np.array([1, 0])))
    # x0 - x1 decays as exp(-t), in the precision of the type.
    np.testing.assert_allclose(states[0, :, 0] - states[0, :, 1], np.exp([0.0, -1.0, -2.0]), rtol=1e-5)
