"""Kernels against derivatives without automatic differentiation, and under changes that must not matter."""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import ssntk

TS = np.array([0.0, 0.5, 1.5])
DT = 0.25
FIXED = ssntk.Integrator(solver=diffrax.Heun(), dt=DT)


def random(*shape, seed=0):
    return np.random.default_rng(seed + sum(shape)).normal(size=shape)


def current(xp, x, u, p):
    return (-x + p["gain"] * (p["w"] @ xp.tanh(x)) + p["v"] @ u + p["b"]) / p["tau"]


def mlp(xp, x, u, p):
    hidden = xp.tanh(p["a"] @ x + p["b"])
    return p["c"] @ xp.tanh(p["d"] @ hidden) - p["e"] * x


def attention(xp, x, u, p):
    tokens = x.reshape(2, 2)
    query, key, value = (tokens @ p[name] for name in ("q", "k", "v"))
    weight = xp.exp(query @ key.T / 2)
    return (-tokens + (weight / weight.sum(axis=-1, keepdims=True)) @ value @ p["o"]).reshape(-1)


FIELDS = {
    "current": (
        current,
        {"w": random(4, 4), "v": random(4, 1), "b": random(4), "gain": np.array(1.3), "tau": 1 + random(4, seed=1) ** 2},
    ),
    "mlp": (mlp, {"a": random(3, 4), "b": random(3), "c": random(4, 2), "d": random(2, 3), "e": np.array(0.7)}),
    "attention": (attention, {name: random(2, 2, seed=i) for i, name in enumerate("qkvo")}),
}


def solved(field, params, x, u):
    """Heun's method in numpy, on real or complex numbers: states (T, n)."""
    states = [x]
    for length in np.diff(TS):
        # As many steps in every interval as keep the longest within DT.
        for _ in range(4):
            first = field(np, x, u, params)
            x = x + length / 8 * (first + field(np, x + length / 4 * first, u, params))
        states.append(x)
    return np.array(states)


@pytest.mark.parametrize("name", FIELDS)
def test_the_jacobian_is_that_of_the_complex_step(name):
    field, params = FIELDS[name]
    x0, u = random(4, seed=7), random(1, seed=8)
    # f(x + ih) = f(x) + ih f'(x) + O(h^2): with h = 1e-100 exact to rounding (Squire and Trapp, 1998).
    columns = []
    for key in sorted(params):
        for i in range(params[key].size):
            nudge = np.zeros(params[key].size, complex)
            nudge[i] = 1e-100j
            nudged = params | {key: params[key] + nudge.reshape(params[key].shape)}
            columns.append(solved(field, nudged, x0.astype(complex), u).imag / 1e-100)
    expected = np.stack(columns, axis=-1)
    model = ssntk.VectorField(lambda t, x, u, p: field(jnp, x, u, p), params, 4, 1)
    probe = ssntk.Probe(TS, u[None], x0)
    for method in ("segments", "rows"):
        got = np.asarray(ssntk.parameter_jacobian(model, probe, integrator=FIXED, method=method))[0]
        # Some hundred roundings.
        np.testing.assert_allclose(got, expected, atol=1e-13 * np.abs(expected).max())


def network(weight, bias, **changed):
    return ssntk.CTRNN.from_weights(weight, bias=bias, **({"gain": 1.2} | changed))


def test_permuted_units_permute_the_kernel():
    weight, bias, x0, order = random(4, 4), random(4), random(4, seed=3), np.array([2, 0, 3, 1])
    kernel = np.asarray(ssntk.ntk(network(weight, bias), ssntk.Probe(TS, x0=x0), integrator=FIXED))
    moved = network(weight[np.ix_(order, order)], bias[order])
    permuted = np.asarray(ssntk.ntk(moved, ssntk.Probe(TS, x0=x0[order]), integrator=FIXED))
    rows = (np.arange(3)[:, None] * 4 + order).ravel()
    np.testing.assert_allclose(permuted, kernel[np.ix_(rows, rows)], atol=1e-13 * kernel.max())


def test_a_slower_network_watched_for_longer_has_the_same_kernel():
    weight, bias, x0 = random(4, 4), random(4), random(4, seed=3)
    kernel = np.asarray(ssntk.ntk(network(weight, bias), ssntk.Probe(TS, x0=x0), integrator=FIXED))
    slow = ssntk.Integrator(solver=diffrax.Heun(), dt=3 * DT)
    same = ssntk.ntk(network(weight, bias, tau=3.0), ssntk.Probe(3 * TS, x0=x0), integrator=slow)
    np.testing.assert_allclose(same, kernel, atol=1e-13 * kernel.max())


def test_scaled_and_split_parameters_scale_and_add_their_blocks():
    weight, bias, x0 = jnp.asarray(random(4, 4)), jnp.asarray(random(4)), random(4, seed=3)
    probe = ssntk.Probe(TS, x0=x0)
    plain = network(weight, bias)
    blocks = ssntk.ntk_blocks(plain, probe, ["weight", "bias"], integrator=FIXED)
    part, whole = blocks["bias"], ssntk.ntk(plain, probe, integrator=FIXED)
    np.testing.assert_allclose(blocks["weight"] + part, whole, atol=1e-13 * float(whole.max()))

    def field(t, x, u, p):
        return -x + 1.2 * (3.0 * p["w"] @ jnp.tanh(x)) + p["one"] + p["two"]

    # A weight that is written as three times a parameter is learned nine times as fast; a bias as a sum of two, twice.
    params = {"w": weight / 3, "one": bias - 1, "two": jnp.ones(4)}
    changed = ssntk.ntk(ssntk.VectorField(field, params, 4), probe, integrator=FIXED)
    np.testing.assert_allclose(changed, 9 * blocks["weight"] + 2 * part, atol=1e-12 * float(changed.max()))


@pytest.mark.slow
@pytest.mark.parametrize("solver", [diffrax.ImplicitEuler(), diffrax.Kvaerno3()])
def test_implicit_solvers_take_given_steps(solver):
    """Steps that cannot be refused: the network is near chaos, and the solver converges to its fine explicit solution."""
    model = ssntk.CTRNN(8, 0, 1, gain=1.5, key=jax.random.key(0))
    probe = ssntk.Probe([0.0, 1.0, 2.0], x0=random(8))
    exact = np.asarray(ssntk.simulate(model, probe))
    errors = [
        np.abs(ssntk.simulate(model, probe, integrator=ssntk.Integrator(solver=solver, dt=dt)) - exact).max()
        for dt in (0.25, 0.0625)
    ]
    # Orders 1 and 3: a quarter of the step, a quarter and a sixty-fourth of the error, each with a factor of two to spare.
    assert errors[1] < errors[0] * 2 * 4.0 ** -(1 if isinstance(solver, diffrax.ImplicitEuler) else 3)


def test_an_implicit_solver_in_single_precision():
    weight = random(4, 4).astype(np.float32) / 2
    model = ssntk.CTRNN.from_weights(weight)
    probe = ssntk.Probe(np.float32([0.0, 1.0]), x0=np.ones(4, np.float32))
    implicit = ssntk.Integrator(solver=diffrax.ImplicitEuler(), dt=0.25)
    x = np.ones(4)
    for _ in range(4):
        # Implicit Euler by Newton's method in double precision.
        y = x
        for _ in range(20):
            slope = -np.eye(4) + weight.astype(float) * (1 - np.tanh(y) ** 2)
            y = y - np.linalg.solve(np.eye(4) - 0.25 * slope, y - x - 0.25 * (-y + weight.astype(float) @ np.tanh(y)))
        x = y
    # Stages are solved to 32 roundings, four times over.
    np.testing.assert_allclose(ssntk.simulate(model, probe, integrator=implicit)[0, -1], x, atol=2e-5)
