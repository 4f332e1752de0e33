"""Products without the Jacobian, and the top of the spectrum, against the Jacobian that is formed."""

import diffrax
import jax
import jax.numpy as jnp
import jax.random as jr
import lineax as lx
import numpy as np
import pytest
from helpers import Leaky, some

import ssntk
from ssntk.kernel.operator import back, forth
from ssntk.kernel.rows import recorded_rows

TS = jnp.array([0.0, 0.5, 1.0, 1.5, 2.0])
# Few stages, which compile fast.
FIXED = ssntk.Integrator(solver=diffrax.Heun(), dt=0.25)


@pytest.fixture(scope="module")
def task():
    model = Leaky(jr.key(0))
    us, x0 = jr.normal(jr.key(1), (2, 5, 2)), jr.normal(jr.key(2), (2, 5))
    return model, ssntk.Probe(TS, us, x0)


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


ASKED = {
    "plain": {},
    "readout": {"of": "readout", "weights": "trapezoid"},
    "rate": {"loss_operator": ssntk.TimeDerivative(), "weights": [1.0, 0.0, 2.0, 3.0, 0.5]},
    "sobolev": {"loss_operator": ssntk.Sobolev(1.5), "weights": "trapezoid"},
    "some": {"wrt": lambda m: (m.parts["u"], m.parts["w"]), "preconditioner": np.linspace(0.1, 3.0, 35)},
}


@pytest.mark.parametrize("name", ASKED)
def test_products_are_those_of_the_rows(task, name):
    model, probe = task
    rows = recorded_rows(model, probe, integrator=FIXED, **ASKED[name])
    matrix = np.asarray(rows.matrix())
    vectors, directions = random(3, matrix.shape[0]), random(3, matrix.shape[1])
    # Some hundred roundings.
    np.testing.assert_allclose(back(rows, jnp.asarray(vectors)), vectors @ matrix, atol=1e-12 * np.abs(matrix).max())
    np.testing.assert_allclose(
        forth(rows, jnp.asarray(directions)), directions @ matrix.T, atol=1e-12 * np.abs(matrix).max()
    )
    # The adjoint test: <v, J d> = <J^T v, d>.
    there = np.sum(vectors * np.asarray(forth(rows, jnp.asarray(directions))))
    here = np.sum(np.asarray(back(rows, jnp.asarray(vectors))) * directions)
    assert abs(there - here) < 1e-13 * np.abs(matrix).max() * vectors.size * directions.size**0.5


def test_the_operator_is_one_of_lineax(task):
    model, probe = task
    operator = ssntk.ntk_operator(model, probe, integrator=FIXED, weights="trapezoid")
    kernel = np.asarray(ssntk.ntk(model, probe, integrator=FIXED, weights="trapezoid"))
    vector = random(kernel.shape[0])
    np.testing.assert_allclose(operator.mv(jnp.asarray(vector)), kernel @ vector, atol=1e-11 * kernel.max())
    assert operator.in_size() == operator.out_size() == kernel.shape[0]
    assert lx.is_symmetric(operator)
    assert lx.is_positive_semidefinite(operator)
    # Kernel ridge regression by conjugate gradients.
    ridge = operator + lx.IdentityLinearOperator(operator.in_structure())
    solved = lx.linear_solve(
        lx.TaggedLinearOperator(ridge, lx.positive_semidefinite_tag), jnp.asarray(vector), lx.CG(rtol=1e-10, atol=1e-10)
    )
    np.testing.assert_allclose(solved.value, np.linalg.solve(kernel + np.eye(len(kernel)), vector), atol=1e-7)


@pytest.mark.parametrize("name", some(["plain", "sobolev", "some"], ["sobolev"]))
def test_what_lineax_asks_of_an_operator(task, name):
    model, probe = task
    operator = ssntk.ntk_operator(model, probe, integrator=FIXED, **ASKED[name])
    assert isinstance(operator, ssntk.NTKOperator)
    kernel = np.asarray(ssntk.ntk(model, probe, integrator=FIXED, method="autodiff", **ASKED[name]))
    # Some hundred roundings.
    error = 1e-12 * kernel.max()
    np.testing.assert_allclose(operator.as_matrix(), kernel, atol=error)
    np.testing.assert_allclose(lx.diagonal(operator), np.diag(kernel), atol=error)
    vectors = random(3, len(kernel))
    np.testing.assert_allclose(operator.block(jnp.asarray(vectors)), vectors @ kernel, atol=10 * error)
    np.testing.assert_allclose(operator.T.mv(jnp.asarray(vectors[0])), kernel @ vectors[0], atol=10 * error)
    below, beside = lx.tridiagonal(operator)[2], np.diag(kernel, 1)
    np.testing.assert_allclose(below, beside, atol=error)
    formed = lx.materialise(operator)
    assert isinstance(formed, lx.MatrixLinearOperator)
    np.testing.assert_allclose(formed.as_matrix(), kernel, atol=error)
    assert lx.linearise(operator) is lx.conj(operator) is operator
    for one in (operator, formed, operator.T):
        assert lx.is_symmetric(one)
        assert lx.is_positive_semidefinite(one)
        for other in (lx.is_diagonal, lx.is_negative_semidefinite, lx.has_unit_diagonal, lx.is_lower_triangular):
            assert not other(one)
    assert not lx.is_upper_triangular(operator)
    assert not lx.is_tridiagonal(operator)
    # Operators that are combined from it have the same properties.
    both = 2.0 * operator + lx.IdentityLinearOperator(operator.in_structure())
    np.testing.assert_allclose(lx.diagonal(both), 2 * np.diag(kernel) + 1, atol=10 * error)


@pytest.mark.parametrize("solver", [lx.CG(rtol=1e-12, atol=1e-12), lx.Cholesky()], ids=["CG", "Cholesky"])
def test_systems_with_a_ridge_are_solved(task, solver):
    model, probe = task
    masked = ssntk.Probe(TS, probe.us, probe.x0, mask=np.arange(5) > 1)
    operator = ssntk.ntk_operator(model, masked, integrator=FIXED)
    kernel = np.asarray(ssntk.ntk(model, masked, integrator=FIXED))
    wanted, ridge = random(len(kernel)), 0.1
    shifted = operator + ridge * lx.IdentityLinearOperator(operator.in_structure())
    solved = lx.linear_solve(lx.TaggedLinearOperator(shifted, lx.positive_semidefinite_tag), jnp.asarray(wanted), solver)
    # The iteration's tolerance, by the ridge.
    np.testing.assert_allclose(solved.value, np.linalg.solve(kernel + ridge * np.eye(len(kernel)), wanted), atol=1e-9)


def test_what_an_operator_was_made_of_still_works(task):
    model, probe = task
    operator, vectors = ssntk.ntk_operator(model, probe, integrator=FIXED), jnp.asarray(random(2, 50))
    with pytest.warns(DeprecationWarning, match=r"write op\.block\(V\) for op\.fn\.block\(V\)"):
        block = operator.fn.block(vectors)
    np.testing.assert_array_equal(block, operator.block(vectors))
    with pytest.warns(DeprecationWarning, match=r"op\.mv\(v\)"):
        np.testing.assert_array_equal(operator.fn(vectors[0]), operator.mv(vectors[0]))


def test_masks_and_other_models(task):
    model, probe = task
    mask = np.ones((2, 5, 5), bool)
    mask[0, 3:] = mask[1, 1, 2] = False
    masked = ssntk.Probe(TS, probe.us, probe.x0, mask=mask)
    operator = ssntk.ntk_operator(model, masked, integrator=FIXED)
    kernel = np.asarray(ssntk.ntk(model, masked, integrator=FIXED))
    np.testing.assert_allclose(operator.as_matrix(), kernel, atol=1e-12 * kernel.max())
    euler = ssntk.EulerMap(ssntk.GRUODE(4, 1, 1, key=jr.key(0)), 0.5)
    steps = ssntk.Probe(np.arange(4) * 0.5, random(1, 4, 1))
    kernel = np.asarray(ssntk.ntk(euler, steps))
    np.testing.assert_allclose(ssntk.ntk_operator(euler, steps).as_matrix(), kernel, atol=1e-13 * kernel.max())


def test_nothing_compiles_for_other_weights(compilations):
    probe = ssntk.Probe(TS, x0=np.ones(4))
    models = [ssntk.CTRNN(4, 0, 1, gain=g, key=jr.key(0)) for g in (0.5, 1.0, 3.0, 9.0)]
    operators = [ssntk.ntk_operator(model, probe, integrator=FIXED) for model in models]
    vector = jnp.ones(20)
    jax.block_until_ready(operators[0].mv(vector))
    before = len(compilations)
    for operator in operators[1:]:
        jax.block_until_ready(operator.mv(vector))
    assert len(compilations) == before


def test_the_top_of_the_spectrum_with_and_without_the_jacobian(task):
    model, probe = task
    asked = {"integrator": FIXED, "weights": "trapezoid"}
    whole = ssntk.ntk_spectrum(model, probe, **asked)
    # Enough memory for all of J; only for a streamed trace; for neither.
    for memory in (1e9, 20_000, 10):
        top = ssntk.ntk_spectrum(model, probe, k=6, memory=memory, **asked)
        np.testing.assert_allclose(top.eigenvalues, whole.eigenvalues[:6], rtol=1e-9)
        overlap = np.abs(np.sum(np.asarray(top.eigenvectors) * np.asarray(whole.eigenvectors[:, :6]), axis=0))
        np.testing.assert_allclose(overlap, 1.0, atol=1e-6)
        if memory > 10:
            np.testing.assert_allclose(top.trace, whole.trace, rtol=1e-12)
            assert top.trace_error == 0.0
        else:
            assert top.trace_error > 0.0
        # Four of the standard errors that come with the estimates.
        assert abs(top.trace - whole.trace) <= 4 * top.trace_error + 1e-12 * whole.trace
        assert abs(top.participation_ratio - whole.participation_ratio) <= 4 * top.participation_ratio_error
        assert top.participation_ratio_error < 0.02 * whole.participation_ratio
        np.testing.assert_allclose(top.top_share, whole.top_share, rtol=0.02)
        assert top.max_learning_rate == pytest.approx(float(whole.max_learning_rate), rel=1e-9)
        for unknown in (top.rank, top.condition_number, top.effective_rank, top.condition_number_on_rank):
            assert unknown is None
        assert not top.condition_number_is_bound
        with pytest.raises(ValueError, match="without k"):
            top.effective_dimension(1.0)
        residual = random(50)
        np.testing.assert_allclose(top.filter(residual, 2), whole.filter(residual, 2), atol=1e-6)


def test_arguments(task):
    model, probe = task
    for k in (0, 50, 2.5):
        with pytest.raises(ValueError, match="k must be"):
            ssntk.ntk_spectrum(model, probe, k=k, integrator=FIXED)
    with pytest.raises(ValueError, match="memory"):
        ssntk.ntk_spectrum(model, probe, k=2, memory=0, integrator=FIXED)
    with pytest.raises(ValueError, match="explicit"):
        ssntk.ntk_operator(model, probe, integrator=ssntk.Integrator(solver=diffrax.Kvaerno3()))
    still = ssntk.VectorField(lambda t, x, u, p: -x + 0 * p, jnp.ones(4), 4)
    with pytest.raises(ssntk.NumericalError, match="zero"):
        ssntk.ntk_spectrum(still, ssntk.Probe([0.0, 1.0]), k=2, integrator=FIXED)
    # Sixty long trajectories of 300 units: the memory that J would take is reported before anything is solved.
    wide = ssntk.CTRNN(300, 0, 1, key=jr.key(0))
    many = ssntk.Probe(np.linspace(0.0, 1.0, 2001), x0=np.zeros((60, 300)))
    with pytest.raises(ValueError, match="GB"):
        ssntk.ntk(wide, many, integrator=FIXED)
