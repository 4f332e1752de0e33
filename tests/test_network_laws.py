"""The laws of reference/laws.json for networks: random tanh RNNs near a fold, and claims that are not true."""

import json
import pathlib

import equinox as eqx
import jax.random as jr
import numpy as np
import pytest

import ssntk
from ssntk.collapse.exponent import measured_exponent
from ssntk.kernel.steady_state import steady_state_jacobian

LAWS = {row["name"]: row for row in json.loads((pathlib.Path(__file__).parent / "reference" / "laws.json").read_text())}


def folds(n, count):
    """Sweeps towards folds that end a stable part, of the first seeds that have one, and their sides."""
    found = []
    for seed in range(1000):
        family = ssntk.Family.input(ssntk.CTRNN(n, 1, 1, gain=1.3, key=jr.key(seed)), [1.0])
        distances = np.geomspace(1e-7, 1e-4, 7)
        sweep = ssntk.Sweep(
            family, towards="saddle-node", span=(-4.0, 4.0), distances=distances, probe=ssntk.Probe([0.0, 1.0])
        )
        try:
            found.append((sweep, sweep.side(sweep.follow())))
        except ssntk.NumericalError as error:
            if "no saddle-node" not in str(error) and "no stable side" not in str(error):
                raise
        if len(found) == count:
            return found
    raise AssertionError("too few networks with a fold")


def exponents_of(sweep, side):
    """The exponents of the rows rnn_sn_*, in this order, and the prefactor's ratio at the nearest point."""
    n, rows = sweep.family.model.n_state, []
    for distance in sweep.distances:
        parameter, x = side.at_distance(distance)
        model = sweep.model_at(parameter)
        spectrum = ssntk.Spectrum.from_jacobian(steady_state_jacobian(model, x))
        gain, weight = float(model.wrapped.wrapped.gain), np.asarray(model.wrapped.wrapped.weight)
        values, rights = np.linalg.eig(-np.eye(n) + gain * weight * (1 - np.tanh(x) ** 2))
        at = np.abs(values).argmin()
        right, left = rights[:, at].real, np.linalg.inv(rights)[at].real
        # sin of the angle, which is exact where it is small: what is left of r beside the top eigenvector.
        top = np.asarray(spectrum.eigenvectors[:, 0])
        angle = np.linalg.norm(right - top * (top @ right))
        # l^T F of a CTRNN: gain l_i phi_j for the weights, l_i u for the input's, l_i for the bias.
        drive = left @ left * (gain**2 * np.tanh(x) @ np.tanh(x) + parameter**2 + 1)
        channel = np.outer(right, left)
        residual = (np.eye(n) - channel) @ np.asarray(steady_state_jacobian(model, x))
        rate = -values[at].real
        rows.append(
            (rate, spectrum.eigenvalues[0], float(spectrum.participation_ratio) - 1, angle, (residual**2).sum(), drive)
        )
    rate, top, excess, angle, residual, drive = np.array(rows).T
    by_distance = [measured_exponent(sweep.distances, each, next_order=0.5) for each in (top, rate)]
    by_rate = [measured_exponent(rate, each, next_order=1.0) for each in (excess, angle, residual)]
    # |r|^2 |l^T F|^2 / lambda^2 with |r| = 1, to the angle's order.
    return np.array([*by_distance, *by_rate]), top[-1] * rate[-1] ** 2 / drive[-1]


@pytest.mark.parametrize(("n", "count"), [(20, 1), *(pytest.param(n, 10, marks=pytest.mark.slow) for n in (20, 50, 100))])
def test_random_networks_near_a_fold(n, count):
    laws = [LAWS[f"rnn_sn_{name}_n{n}"]["exponent"] for name in ("ss_lmax", "lambda", "PR", "angle", "res")]
    exponents, prefactors = zip(*(exponents_of(*fold) for fold in folds(n, count)), strict=True)
    spread = np.array(exponents) - laws
    print(n, "exponents of lambda_1, lambda, PR - 1, angle, residual less the laws', least and most:")
    print(np.array2string(np.array([spread.min(axis=0), spread.max(axis=0)]), precision=4, suppress_small=True))
    assert np.abs(spread[:, 0]).max() < 0.01
    # If another slow mode is near, the law does not hold yet at 1e-4. This is so for one network in ten.
    assert ((np.abs(spread) < 0.01).mean(axis=0) >= 0.9).all()
    assert np.mean(np.abs(np.array(prefactors) - 1) < 0.01) >= 0.9


@pytest.mark.slow
def test_the_naive_claim_that_the_kernel_goes_as_the_stability_radius_to_the_minus_two_is_false():
    # Row slow_eig_share: on its ensemble the slope was -1.66. On this one it is steeper than -2, since the gain also differs
    # between networks. The radius alone is a wrong predictor in both cases.
    radii, tops, horizon = [], [], 20.0
    frequencies = np.append(0.0, np.geomspace(1e-3, 10.0, 200))
    for seed in range(40):
        weights, biases, gains = jr.split(jr.key(seed), 3)
        model = ssntk.CTRNN(16, 1, 1, gain=jr.uniform(gains, (), minval=0.3, maxval=1.3), key=weights)
        model = eqx.tree_at(lambda m: m.bias, model, 0.3 * jr.normal(biases, (16,)))
        points = ssntk.find_fixed_points(model, n_starts=16)
        if len(points) == 0 or not points.stable[0]:
            continue
        x = points.x[0]
        matrix = -np.eye(16) + float(model.gain) * np.asarray(model.weight) * (1 - np.tanh(x) ** 2)
        singular = np.linalg.svd(1j * frequencies[:, None, None] * np.eye(16) - matrix, compute_uv=False)[:, -1]
        # Use only networks in which the horizon does not limit the kernel and the nearest instability does not oscillate.
        if singular.min() > 2 / horizon and frequencies[singular.argmin()] < 0.05:
            spectrum = ssntk.measure(model, ssntk.Probe(np.linspace(0.0, horizon, 21)), x).trajectory
            radii.append(singular.min())
            tops.append(float(spectrum.eigenvalues[0]))
    assert len(radii) > 20
    slope = np.polyfit(np.log(radii), np.log(tops), 1)[0]
    assert -3.5 < slope < LAWS["slow_eig_share"]["exponent"] - 0.2


def test_the_naive_claim_that_the_linear_formula_holds_past_the_crossing_is_false():
    # Row train_supercritical_normal_form: T^3 g(-mu T) belongs to a state that stays; one that escapes saturates first.
    mu, horizon = 0.225, 60.0
    ts = np.linspace(0.0, horizon, 601)
    kernels = []
    for x0 in (0.0, 1e-3):
        probe = ssntk.Probe(ts, x0=[x0])
        spectrum = ssntk.ntk_spectrum(ssntk.normal_forms.pitchfork(mu), probe, wrt=lambda m: m.h, weights="trapezoid")
        kernels.append(float(spectrum.eigenvalues[0]))
    linear = np.exp(2 * mu * horizon) / (2 * mu**3)
    np.testing.assert_allclose(kernels[0], linear, rtol=0.01)
    assert kernels[1] < 0.1 * linear
