"""The low-rank natural-gradient transformation against dense linear algebra, optax and quadratics."""

import functools

import diffrax
import equinox as eqx
import jax
import jax.flatten_util
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ssntk

TIMES = np.linspace(0.0, 4.0, 9)
HEUN = ssntk.Integrator(solver=diffrax.Heun(), dt=0.5)


def task(seed, n=6, solved=False):
    """A network's residuals as a function of all its parameters: (parameters, residuals).

    The network is solved by a short Euler loop, which compiles quickly; if `solved`, by `simulate`, as users do.
    """
    model_key, input_key, target_key = jr.split(jr.key(seed), 3)
    model = ssntk.CTRNN(n, 1, 2, key=model_key)
    us, wanted = jr.normal(input_key, (3, 1)), jr.normal(target_key, (3, 9, 2))
    at = jax.tree.map(lambda _: False, model)
    at = eqx.tree_at(lambda m: (m.weight, m.input_weight, m.bias, m.readout_weight, m.readout_bias), at, (True,) * 5)
    params, static = eqx.partition(model, at)

    def residuals(params):
        whole = eqx.combine(params, static)
        if solved:
            states = ssntk.simulate(whole, ssntk.Probe(TIMES, us), integrator=HEUN, adjoint=diffrax.DirectAdjoint())
        else:

            def step(x, _):
                x = x + 0.5 * (-x + jnp.tanh(x @ whole.weight.T + us @ whole.input_weight.T + whole.bias[None]))
                return x, x

            states = jax.lax.scan(step, jnp.zeros((3, n)), length=9)[1].swapaxes(0, 1)
        return (jax.vmap(jax.vmap(whole.readout))(states) - wanted).ravel()

    return params, residuals


def loss_of(residuals):
    return lambda params: jnp.mean(residuals(params) ** 2) / 2


def quadratic(seed, rows=12, p=8, spread=3.0):
    """Linear residuals `A theta - b` whose curvatures span orders of magnitude."""
    random = np.random.default_rng(seed)
    left = np.linalg.qr(random.normal(size=(rows, p)))[0]
    right = np.linalg.qr(random.normal(size=(p, p)))[0]
    matrix = (left * 10 ** (-spread * np.arange(p) / p)) @ right.T * rows**0.5
    target, start = jnp.asarray(random.normal(size=rows)), jnp.asarray(random.normal(size=p))
    return start, lambda theta: jnp.asarray(matrix) @ theta - target, matrix


def one_update(opt, params, residuals):
    @jax.jit
    def update(params):
        gradient = jax.grad(loss_of(residuals))(params)
        return opt.update(gradient, opt.init(params), params, residuals=residuals)

    return update(params)


def test_rank_zero_is_gradient_descent_to_the_last_bit():
    params, residuals = task(0)
    gradient = jax.jit(jax.grad(loss_of(residuals)))(params)
    schedule = optax.linear_schedule(0.3, 0.1, 5)
    for rate in (0.3, schedule):
        ours, theirs = ssntk.low_rank_natural_gradient(rate, rank=0), optax.sgd(rate)
        mine, other = ours.init(params), theirs.init(params)
        for _ in range(3):
            update, mine = ours.update(gradient, mine)
            expected, other = theirs.update(gradient, other)
            assert eqx.tree_equal(update, expected)


@pytest.mark.parametrize("rate", [1e-2, 1.0, 1e4])
def test_all_directions_make_levenbergs_step(rate):
    """(J^T J / rows + I / eta)^-1 g, from a dense Jacobian by jacrev."""
    params, residuals = task(1)
    theta, unravel = jax.flatten_util.ravel_pytree(params)
    jacobian = np.asarray(jax.jit(jax.jacrev(lambda v: residuals(unravel(v))))(theta))
    gradient = jacobian.T @ np.asarray(residuals(params)) / len(jacobian)
    expected = -np.linalg.solve(jacobian.T @ jacobian / len(jacobian) + np.eye(theta.size) / rate, gradient)
    update, _ = one_update(ssntk.low_rank_natural_gradient(rate, rank=theta.size), params, residuals)
    found = jax.flatten_util.ravel_pytree(update)[0]
    # The tolerance. The dense system's condition is 1 + eta lambda_1, at most 1e5 here.
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-8 * np.abs(expected).max())


def test_a_large_rate_makes_the_gauss_newton_step():
    theta, residuals, matrix = quadratic(2, spread=1.5)
    update, _ = one_update(ssntk.low_rank_natural_gradient(1e9, rank=theta.size), theta, residuals)
    solution = np.linalg.lstsq(matrix, matrix @ np.asarray(theta) - np.asarray(residuals(theta)), rcond=None)[0]
    # 1 / eta is 1e-9 beside curvatures from 2e-3 to 1, and eta times the rounding of g 1e-7.
    np.testing.assert_allclose(theta + update, solution, rtol=0, atol=1e-5)


def test_the_eigenpairs_are_those_of_the_dense_gauss_newton_matrix():
    params, residuals = task(3)
    theta, unravel = jax.flatten_util.ravel_pytree(params)
    jacobian = np.asarray(jax.jit(jax.jacrev(lambda v: residuals(unravel(v))))(theta))
    values, vectors = np.linalg.eigh(jacobian.T @ jacobian / len(jacobian))
    opt = ssntk.low_rank_natural_gradient(0.1, rank=3, tolerance=1e-13, max_passes=500)
    _, state = one_update(opt, params, residuals)
    np.testing.assert_allclose(state.eigenvalues, values[::-1][:3], rtol=1e-10)
    # A vector's error is the square root of its eigenvalue's.
    overlap = np.abs(np.sum(np.asarray(state.eigenvectors) * vectors[:, ::-1][:, :3].T, axis=1))
    np.testing.assert_allclose(overlap, 1, atol=1e-6)
    assert state.eigenvectors.shape == (3, theta.size)
    # What it works with is no larger either: nothing is p x p or rows x p.
    assert max(leaf.size for leaf in jax.tree.leaves(state)) == 3 * theta.size


@functools.cache
def descent(rank):
    """Thirty steps on `A theta - b` from given eigenpairs: (losses, refreshes), compiled once a rank."""

    @jax.jit
    def run(matrix, target, theta, rate, values, vectors):
        def residuals(theta):
            return matrix @ theta - target

        opt = ssntk.low_rank_natural_gradient(rate, rank=rank, refresh=1000)
        # No refresh: the eigenpairs are exact.
        state = opt.init(theta)._replace(eigenvalues=values, eigenvectors=vectors, interval=jnp.asarray(1000, jnp.int32))

        def step(carry, _):
            theta, state = carry
            loss, gradient = jax.value_and_grad(loss_of(residuals))(theta)
            update, state = opt.update(gradient, state, theta, residuals=residuals)
            return (theta + update, state), loss

        (_, state), losses = jax.lax.scan(step, (theta, state), length=31)
        return losses, state.refreshes

    return run


@given(seed=st.integers(0, 10_000), rank=st.integers(1, 3), share=st.floats(0.05, 0.99))
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_below_the_rate_of_what_is_left_a_quadratic_never_rises(seed, rank, share):
    theta, residuals, matrix = quadratic(seed)
    values, vectors = np.linalg.eigh(matrix.T @ matrix / len(matrix))
    values, vectors = values[::-1].copy(), vectors[:, ::-1].T.copy()
    rate = share * 2 / values[rank]
    target = matrix @ np.asarray(theta) - np.asarray(residuals(theta))
    losses, refreshes = descent(rank)(matrix, target, theta, rate, values[:rank], vectors[:rank])
    assert int(refreshes) == 0
    # To the rounding of a sum of twelve squares.
    assert (np.diff(losses) <= 1e-13 * losses[0]).all()
    if rate * values[0] > 2:
        # Gradient descent at this rate grows along the directions that were taken out.
        plain = np.asarray(theta)
        for _ in range(31):
            plain = plain - rate * matrix.T @ (matrix @ plain - target) / len(matrix)
        gap = vectors[0] @ (plain - np.linalg.lstsq(matrix, target, rcond=None)[0])
        at_first = vectors[0] @ (np.asarray(theta) - np.linalg.lstsq(matrix, target, rcond=None)[0])
        np.testing.assert_array_less(abs(at_first), abs(gap))


def test_renaming_the_units_changes_nothing():
    params, residuals = task(4)
    order = np.random.default_rng(0).permutation(6)

    def renamed(tree, order):
        return eqx.tree_at(
            lambda m: (m.weight, m.input_weight, m.bias, m.readout_weight),
            tree,
            (tree.weight[order][:, order], tree.input_weight[order], tree.bias[order], tree.readout_weight[:, order]),
        )

    back = np.argsort(order)
    opt = ssntk.low_rank_natural_gradient(0.5, rank=2, tolerance=1e-14, max_passes=500)
    update, _ = one_update(opt, params, residuals)
    other, _ = one_update(opt, renamed(params, order), lambda params: residuals(renamed(params, back)))
    for mine, theirs in zip(jax.tree.leaves(renamed(update, order)), jax.tree.leaves(other), strict=True):
        # The first vectors differ, so that both agree as far as the iteration went: the root of the eigenvalues' 1e-14.
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-6)


def test_it_refreshes_when_the_top_eigenvalue_moves_and_rarely_when_it_rests():
    """Residuals with a prescribed curvature, which is first constant and then grows by 30 % in each step."""

    opt = ssntk.low_rank_natural_gradient(1e-3, rank=1, refresh=16)

    @jax.jit
    def update(theta, state, size):
        def residuals(theta):
            return size * theta

        return opt.update(jax.grad(loss_of(residuals))(theta), state, theta, residuals=residuals)[1]

    def run(curvature, steps):
        theta = jnp.ones(4)
        state, refreshes = opt.init(theta), []
        for step in range(steps):
            state = update(theta, state, curvature(step) ** 0.5)
            refreshes.append(int(state.refreshes))
        return refreshes

    still, growing = run(lambda _: 1.0, 47), run(lambda step: 1.3**step, 47)
    # If the curvature is constant, 1 + 2 + 4 + 8 + 16 + 16 steps lie between seven refreshes.
    assert still[-1] == 6
    assert growing[-1] == 47


def test_one_compilation_for_all_steps_and_weights(compilations):
    params, residuals = task(5, solved=True)
    opt = ssntk.low_rank_natural_gradient(0.1, rank=2, refresh=3)

    @jax.jit
    def step(params, state):
        gradient = jax.grad(loss_of(residuals))(params)
        update, state = opt.update(gradient, state, params, residuals=residuals)
        return optax.apply_updates(params, update), state

    params, state = step(params, opt.init(params))
    before = len(compilations)
    for _ in range(5):
        params, state = step(params, state)
    assert len(compilations) == before
    assert int(state.count) == 6


def test_it_chains_with_other_transformations():
    theta, residuals, _ = quadratic(6)
    opt = optax.chain(optax.clip_by_global_norm(1e-3), ssntk.low_rank_natural_gradient(0.1, rank=1))
    update, _ = one_update(opt, theta, residuals)
    assert float(jnp.linalg.norm(update)) <= 1e-4


def test_bad_arguments_are_named():
    theta, residuals, _ = quadratic(7)
    make = ssntk.low_rank_natural_gradient
    for wrong, message in (
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"learning_rate": 0.1, "rank": -1}, "rank"),
        ({"learning_rate": 0.1, "refresh": 0}, "refresh"),
        ({"learning_rate": 0.1, "change": 0.0}, "change"),
        ({"learning_rate": 0.1, "tolerance": "a"}, "tolerance"),
        ({"learning_rate": 0.1, "key": 3}, "key"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**wrong)
    with pytest.raises(ValueError, match="rank"):
        make(0.1, rank=9).init(theta)
    with pytest.raises(ValueError, match="params"):
        make(0.1).init({"a": jnp.arange(5)})
    opt = make(0.1)
    with pytest.raises(ValueError, match="residuals"):
        opt.update(theta, opt.init(theta), theta)
    with pytest.raises(ValueError, match="residuals"):
        opt.update(theta, opt.init(theta), theta, residuals=lambda theta: jnp.sum(residuals(theta)))
