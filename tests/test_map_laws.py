"""The laws of reference/laws.json for maps: folds, flips and Neimark-Sacker points in closed form."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

import ssntk
from ssntk import laws

LAWS = {row["name"]: row for row in json.loads((pathlib.Path(__file__).parent / "reference" / "laws.json").read_text())}


def slope(x, y):
    return np.polyfit(np.log(x), np.log(y), 1)[0]


def as_map(fn, params, n_state, n_input=0):
    """`x -> x + fn(x)` with step one."""
    return ssntk.EulerMap(ssntk.VectorField(fn, params, n_state, n_input), 1.0)


def flip(t, x, u, p):
    """x -> m x + x^3 + h + a u."""
    return (p["m"] - 1) * x + x**3 + p["h"] + p["a"] * u


def flipping(m):
    return as_map(flip, {"m": m, "h": 0.0, "a": 0.0}, 1, 1)


def sensitivity(model, steps, lens, x0, us=None):
    """s_k = dx_k/dtheta, (steps + 1, n, p), and the eigenvalues of sum_k s_k s_k^T in parameter space."""
    probe = ssntk.Probe(np.arange(steps + 1.0), us, np.atleast_1d(x0))
    rows = ssntk.parameter_jacobian(model, probe, wrt=lens)[0]
    values = ssntk.Spectrum.from_jacobian(rows, eigenvectors=False).eigenvalues
    return np.asarray(rows), np.asarray(values)


def check(name, variable, values, prefactor):
    """The exponent to 0.01, and the prefactor at the first value, the nearest one, to 1 %."""
    assert abs(slope(variable, values) - LAWS[name]["exponent"]) < 0.01
    np.testing.assert_allclose(values[0] / variable[0] ** LAWS[name]["exponent"], prefactor, rtol=0.01)


def test_fold_of_a_map():
    mu = np.array([1e-4, 1e-3, 1e-2])
    kernels = [
        float(ssntk.steady_state_ntk(ssntk.EulerMap(ssntk.normal_forms.saddle_node(m), 1.0), [m**0.5])[0, 0]) for m in mu
    ]
    check("map_fold_ss", mu, np.array(kernels), 1 / 4)


def test_flip_sees_what_alternates_and_not_what_is_constant():
    distance = np.array([0.002, 0.004])
    constant = [float(ssntk.steady_state_ntk(flipping(d - 1), [0.0], wrt=lambda m: m.params["h"])[0, 0]) for d in distance]
    check("flip_ss_bias", distance, np.array(constant), 1 / 4)
    np.testing.assert_allclose(constant, laws.flip_steady_state(distance - 1, "constant"), rtol=1e-9)
    # 10_000 steps at the slower rate leave exp(-20) of the transient.
    us = (-1.0) ** np.arange(10_001)[None, :, None]
    last = [sensitivity(flipping(d - 1), 10_000, lambda m: m.params["a"], 0.0, us)[0][-1, 0, 0] ** 2 for d in distance]
    check("flip_ss_alt", distance, np.array(last), 1.0)
    np.testing.assert_allclose(last, laws.flip_steady_state(distance - 1), rtol=1e-6)


def test_flip_transient():
    distance, x0 = np.array([0.002, 0.004]), 1e-4
    totals = [sensitivity(flipping(d - 1), 10_000, lambda m: m.params["m"], x0)[1][0] for d in distance]
    check("flip_transient_m", distance, np.array(totals), x0**2 / 4)
    m = 1 - distance
    np.testing.assert_allclose(totals, laws.map_transient(x0, m), rtol=1e-4)


def test_flip_cycle():
    mu = np.array([0.002, 0.004])
    rows = [sensitivity(flipping(-1 - m), 10_000, lambda m: (m.params["m"], m.params["h"]), m**0.5)[0][-1, 0] for m in mu]
    # m = -(1 + mu).
    by_m, by_h = np.array(rows).T ** 2
    check("flip_branch_mu", mu, by_m, 1 / 4)
    assert abs(slope(mu, by_h) - LAWS["flip_branch_bias"]["exponent"]) < 0.01
    np.testing.assert_allclose(by_h, 1 / 4, rtol=0.01)


def turn(t, x, u, p):
    """z -> exp(g + i w) z - c z |z|^2, less z."""
    cosine, sine = jnp.exp(p["g"]) * jnp.cos(p["w"]), jnp.exp(p["g"]) * jnp.sin(p["w"])
    turned = jnp.stack([cosine * x[0] - sine * x[1], sine * x[0] + cosine * x[1]])
    return turned - p["c"] * (x @ x) * x - x


def test_neimark_sacker_transient():
    size, lens = 1e-3, lambda m: (m.params["g"], m.params["w"])
    distance = np.array([0.002, 0.004])
    pairs = []
    for d in distance:
        model = as_map(turn, {"g": np.log(1 - d), "w": 1.0, "c": 0.0}, 2)
        pairs.append(sensitivity(model, 10_000, lens, [size, 0.0])[1][:2])
    for top in np.array(pairs).T:
        check("ns_transient", distance, top, size**2 / 4)
        r = 1 - distance
        np.testing.assert_allclose(top, r**2 * laws.map_transient(size, r), rtol=1e-6)


def polar(t, x, u, p):
    """z -> exp(i w) z (1 + mu - |z|^2), less z: a circle of radius sqrt(mu) on which the phase advances by w."""
    grown = (1 + p["mu"] - x @ x) * x
    cosine, sine = jnp.cos(p["w"]), jnp.sin(p["w"])
    return jnp.stack([cosine * grown[0] - sine * grown[1], sine * grown[0] + cosine * grown[1]]) - x


def test_neimark_sacker_phase_on_the_circle():
    steps, model = np.array([1000, 2000]), as_map(polar, {"mu": 0.04, "w": 1.0}, 2)
    totals = np.array([sensitivity(model, n, lambda m: m.params["w"], [0.2, 0.0])[1][0] for n in steps])
    assert abs(slope(steps, totals) - LAWS["ns_circle_phase"]["exponent"]) < 0.01
    np.testing.assert_allclose(totals, laws.circle_phase(0.2, steps), rtol=1e-9)


def test_euler_steps_move_a_hopf_point():
    for omega, dt in ((1.0, 0.1), (2.0, 0.3)):
        model = ssntk.EulerMap(ssntk.normal_forms.hopf(laws.euler_hopf(omega, dt), omega), dt)
        multipliers = np.linalg.eigvals(jax.jacfwd(model.step)(jnp.zeros(2)))
        np.testing.assert_allclose(np.abs(multipliers), 1.0, rtol=1e-12)
        np.testing.assert_allclose(laws.euler_hopf(omega, 1e-4), -1e-4 * omega**2 / 2, rtol=1e-6)
    assert np.isnan(laws.euler_hopf(2.0, 0.6))
