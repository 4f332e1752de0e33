"""The study of loss operators: its parts on closed forms, and that it runs. Its numbers are on docs/studies.md."""

import os
import subprocess
import sys

import diffrax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from helpers import ROOT

import ssntk

sys.path.append(str(ROOT / "sweeps"))
import loss_operators as study
import loss_operators_training as training


def planted(alpha, count=100, floor=1e-26):
    return ssntk.Spectrum(np.arange(1.0, count + 1) ** -alpha, floor, None, 0)


# %% Exponents
@pytest.mark.parametrize("alpha", [1.0, 4.0, 9.5])
def test_a_planted_power_is_found_in_every_window(alpha):
    for window in study.WINDOWS:
        found, half, count = study.exponent(planted(alpha), window)
        np.testing.assert_allclose(found, alpha, rtol=1e-10)
        # The regression's error comes from 1 - r^2, which is rounded.
        assert (count, half < 1e-6) == (window[1] - window[0] + 1, True)


def test_modes_near_the_floor_are_not_fitted():
    # 1e3 times the floor is 1e-17, which k^-10 passes at k = 10^1.7 = 50.1.
    values = np.maximum(np.arange(1.0, 101) ** -10, 3e-18)
    spectrum = ssntk.Spectrum(values, 1e-20, None, 0)
    found, _, count = study.exponent(spectrum, (10, 60))
    np.testing.assert_allclose(found, 10, rtol=1e-10)
    assert count == 41
    assert study.exponent(spectrum, (60, 90))[2] == 0


def test_planted_differences_are_told():
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.normal(size=10)
    shifts = {name: -2 * order for name, order in study.ORDERS.items()}
    seeds = [study.record({name: planted(8 + extra + shift) for name, shift in shifts.items()}) for extra in noise]
    for row in study.summary({"one": seeds}, "10-60"):
        # The bootstrap of a constant is that constant, although the exponents scatter.
        shift = shifts[row["operator"]]
        np.testing.assert_allclose(row["exponent"][0], 8 + noise.mean() + shift, rtol=1e-9)
        if "difference" in row:
            np.testing.assert_allclose(row["difference"], [shift] * 3, rtol=1e-9)
            # All ten of one sign have the probability 2 / 2^10.
            assert row["sign test"] == (10 * (shift < 0), 10, pytest.approx(2 / 1024))
            assert row["verdict"] == ("slows it" if shift < 0 else "speeds it")
    assert study.verdict(-0.1, 0.2) == "neither"


# %% Operators
def waves(count, power, times=257):
    """x = sum_k p_k k^-power sin(w_k t) with w_k = pi k / horizon, whose rows are orthogonal."""
    w = np.pi * np.arange(1.0, count + 1) / study.HORIZON
    size = np.arange(1.0, count + 1) ** -power
    model = ssntk.VectorField(
        lambda t, x, u, p: jnp.sum(p * size * w * jnp.cos(w * t))[None] + 0 * u, jnp.ones(count), 1, n_input=1
    )
    return model, study.probe(lambda t: jnp.zeros((1, 1)) * t, times)


@pytest.mark.parametrize(("name", "change"), [("d/dt", 2.0), pytest.param("d²/dt²", 4.0, marks=pytest.mark.slow)])
def test_a_derivative_of_a_stationary_kernel_lowers_the_exponent_by_twice_its_order(name, change):
    model, at = waves(60, 3.0)
    second = study.SecondOrder(jnp.asarray(0.0), lambda t: jnp.zeros((1, 1)) * t)
    operator = {"d/dt": ssntk.TimeDerivative(), "d²/dt²": second}[name]
    # Tsit5 with two steps in an interval resolves w = 9.4 to 1e-5.
    steps = ssntk.Integrator(diffrax.Tsit5(), dt=study.HORIZON / 256 / 2)
    asked = {"integrator": steps, "weights": "trapezoid", "eigenvectors": False}
    plain, changed = (ssntk.ntk_spectrum(model, at, loss_operator=one, **asked) for one in (None, operator))
    before, after = (study.exponent(one, (10, 60))[0] for one in (plain, changed))
    np.testing.assert_allclose([before, after], [6.0, 6.0 - change], rtol=1e-4)


def test_rows_of_both_laws_are_those_of_a_closed_form():
    # x' = -p x + cos t has y'' = p^2 x - p cos t - sin t. The derivatives by p follow from those of x.
    p, w, a = 0.7, 1.3, 0.4
    model = ssntk.VectorField(lambda t, x, u, p: -p * x + u, jnp.asarray([p]), 1, n_input=1)
    at = ssntk.Probe(np.linspace(0.0, 4.0, 9), lambda t: jnp.cos(t)[None, None])
    asked = {"integrator": ssntk.Integrator(diffrax.Tsit5(), dt=0.02)}
    s = scipy.integrate.solve_ivp(
        lambda t, z: [-p * z[0] + np.cos(t), -z[0] - p * z[1]], (0, 4), [0, 0], t_eval=at.ts, rtol=1e-12, atol=1e-14
    ).y
    x, by_p, input_ = s[0], s[1], np.cos(np.asarray(at.ts))
    first = -x - p * by_p + a * by_p
    second = 2 * p * x + p**2 * by_p - input_ + w**2 * by_p
    for operator, row in (
        (study.FirstOrder(jnp.asarray(a)), first),
        (study.SecondOrder(jnp.asarray(w), at.us), second),
    ):
        found = np.asarray(ssntk.ntk(model, at, loss_operator=operator, **asked))
        # The error of a step of a fifth-order method is below 0.02^6 = 6e-11, and there are 200.
        np.testing.assert_allclose(found, np.outer(row, row), atol=1e-8 * np.abs(row).max() ** 2, rtol=0)


@pytest.fixture(scope="module")
def measured():
    return study.drawn("tanh RNN, gain 0.95", "rough", 0)


def test_no_operator_with_a_bounded_inverse_speeds_the_decay(measured):
    # Rows that start at zero are integrals of L of them: y = int exp(a (s - t)) (L y)(s) ds for d/dt + a. This multiplies
    # no row by more than 1 / a, so that lambda_k(K) <= lambda_k(L K L^T) / a^2 at every k. Sums over 256 intervals are
    # integrals to 2 % for the modes that are compared. The largest factor of Sobolev(-1) is one.
    found = study.spectra(*measured, ("plain", "d/dt + a", "Sobolev(-1)"))
    plain, law, smooth = (found[name].eigenvalues[:60] for name in ("plain", "d/dt + a", "Sobolev(-1)"))
    assert (plain <= 1.02 / study.DECAY**2 * law).all()
    assert (smooth <= 1.02 * plain).all()


@pytest.mark.slow
def test_the_kernel_by_units_is_the_average_of_the_package(measured):
    model, input_ = measured
    at, steps = study.probe(input_, 33), study.integrator(33, 2)
    found = study.by_units(model, at, ssntk.Residual(), steps).eigenvalues
    kernel = ssntk.ntk(
        model, at, average="units", wrt=lambda m: study.theta(m)[:3], loss_operator=ssntk.Residual(), integrator=steps
    )
    expected = np.linalg.eigvalsh(np.asarray(kernel))[::-1]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12 * expected[0])


# %% Training
def test_the_target_obeys_the_law(measured):
    input_, times = measured[1], np.linspace(0.0, 3.0, 7)
    size, phase = np.asarray(input_.amplitude), np.asarray(input_.phase)
    w = np.pi * np.arange(1, len(size) + 1) / study.HORIZON
    solved = scipy.integrate.solve_ivp(
        lambda t, y: [size @ np.sin(w * t + phase) - study.DECAY * y[0]], (0, 3), [0.0], t_eval=times, rtol=1e-9, atol=1e-11
    )
    np.testing.assert_allclose(
        training.solution(input_, jnp.asarray(times)), solved.y[0], atol=1e-7 * np.abs(solved.y).max()
    )


def test_frozen_training_is_gradient_descent_on_fixed_rows():
    rng = np.random.default_rng(0)
    rows, start = [rng.normal(size=(7, 5)) for _ in range(2)], rng.normal(size=(2, 7))
    frozen = training.Frozen(rows)
    for which in range(2):
        change, rate = np.zeros(5), frozen.rate(which)
        for _ in range(20):
            change -= rate * rows[which].T @ (start[which] + rows[which] @ change)
        expected = np.stack([start[i] + rows[i] @ change for i in range(2)])
        np.testing.assert_allclose(frozen.after(start, which, 20), expected, rtol=1e-10, atol=1e-12)


def test_shares_are_those_of_planted_cosines():
    order = np.arange(64)
    cosine = lambda k: np.cos(np.pi * k * (order + 0.5) / 64)  # noqa: E731
    before = cosine(2) + cosine(6) + cosine(12) + cosine(20)
    after = 0.5 * cosine(2) + 0.1 * cosine(6) + cosine(12)
    np.testing.assert_allclose(training.shares(after, before), [0.25, 0.01, 1.0, 0.0], atol=1e-12)


# %% The whole study
@pytest.mark.slow
def test_the_quick_study_runs_and_prints_the_same_from_its_files(tmp_path):
    script = [sys.executable, str(ROOT / "sweeps" / "loss_operators.py"), "--quick", "--out", str(tmp_path)]
    env = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    first, again = (subprocess.run(script, capture_output=True, text=True, check=False, cwd=ROOT, env=env) for _ in range(2))
    assert (first.returncode, first.stderr) == (0, "")
    assert again.stdout in first.stdout
    assert (tmp_path / "quick" / "loss_operators.png").stat().st_size > 10_000
    assert "| d/dt |" in first.stdout
