"""Speed as ratios between alternatives in one run: `pytest -m slow tests/benchmarks -s -n 0` prints the table.

Alternatives take turns, so that a machine whose speed drifts treats them alike; the median of each is compared.
"""

import statistics
import time

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import reference_family

import ssntk

pytestmark = pytest.mark.slow

HORIZON = 19.0
# Twenty steps of a twentieth of the leak time in each of 19 save intervals.
FIXED = ssntk.Integrator(dt=0.05)


def timed(*calls, rounds):
    """The median seconds of each call, warm."""
    for call in calls:
        jax.block_until_ready(call())
    seconds = [[] for _ in calls]
    for _ in range(rounds):
        for call, taken in zip(calls, seconds, strict=True):
            began = time.perf_counter()
            jax.block_until_ready(call())
            taken.append(time.perf_counter() - began)
    return [statistics.median(taken) for taken in seconds]


def task(n, times):
    """A random CTRNN (seed 0) near chaos, driven by a random input, T save times over 19 leak times."""
    model = ssntk.CTRNN(n, 2, 3, gain=1.5, key=jr.key(0))
    us = jr.normal(jr.key(1), (1, times, 2))
    return model, ssntk.Probe(jnp.linspace(0.0, HORIZON, times), us, jr.normal(jr.key(2), (n,)))


@pytest.mark.parametrize(("name", "integrator", "least"), [("fixed", FIXED, 40), ("adaptive", ssntk.Integrator(), 10)])
def test_jacobian_against_jacrev(name, integrator, least):
    model, probe = task(64, 20)
    segments, autodiff = timed(
        lambda: ssntk.parameter_jacobian(model, probe, integrator=integrator),
        lambda: ssntk.parameter_jacobian(model, probe, integrator=integrator, method="autodiff"),
        rounds=5,
    )
    print(f"\nJ, n = 64, T = 20, {name} steps: {segments:.4f} s, jacrev {autodiff:.3f} s, ratio {autodiff / segments:.1f}")
    assert autodiff / segments >= least


@pytest.mark.parametrize("n", [64, 128])
def test_readout_rows_against_jacrev_of_the_outputs(n):
    model, probe = task(n, 20)
    calls = [
        lambda method=method: ssntk.parameter_jacobian(model, probe, of="readout", integrator=FIXED, method=method)
        for method in ("rows", "segments", "autodiff")
    ]
    rows, segments, autodiff = timed(*calls, rounds=3)
    print(f"\nreadout rows, n = {n}, m = 3, T = 20: sweep {rows:.3f} s, segments {segments:.3f} s, jacrev {autodiff:.3f} s")
    print(f"ratio {autodiff / rows:.1f}")
    assert autodiff / rows >= 1.5


def test_top_of_the_spectrum_against_all_of_it():
    model, probe = task(64, 20)
    whole, top, without = timed(
        lambda: ssntk.ntk_spectrum(model, probe, integrator=FIXED, eigenvectors=False).eigenvalues,
        lambda: ssntk.ntk_spectrum(model, probe, integrator=FIXED, k=10).eigenvalues,
        lambda: ssntk.ntk_spectrum(model, probe, integrator=FIXED, k=10, memory=1e6).eigenvalues,
        rounds=3,
    )
    print(
        f"\nspectrum, n = 64, T = 20 (1280 rows, p = 4288): all {whole:.3f} s, top ten {top:.3f} s, "
        f"top ten without J {without:.2f} s"
    )
    assert whole > top


def test_growth_in_the_number_of_save_times():
    # Over the same horizon and with the same number of steps, 4 to 64 save intervals.
    counts = (9, 17, 33, 65)
    calls = []
    for times in counts:
        model, probe = task(64, times)
        integrator = ssntk.Integrator(dt=HORIZON / 384)
        calls.append(lambda m=model, p=probe, i=integrator: ssntk.parameter_jacobian(m, p, integrator=i))
    taken = timed(*calls, rounds=5)
    exponent = np.polyfit(np.log(counts), np.log(taken), 1)[0]
    print(f"\nJ, n = 64, T = {counts}: {[round(t, 4) for t in taken]} s, exponent {exponent:.2f}")
    assert exponent <= 1.2


def test_growth_in_the_horizon():
    counts = (10, 20, 40, 80)
    calls = []
    for times in counts:
        model, _ = task(64, times)
        us = jr.normal(jr.key(1), (1, times, 2))
        probe = ssntk.Probe(jnp.arange(float(times)), us, jr.normal(jr.key(2), (64,)))
        calls.append(lambda m=model, p=probe: ssntk.parameter_jacobian(m, p, integrator=FIXED))
    taken = timed(*calls, rounds=5)
    exponent = np.polyfit(np.log(counts), np.log(taken), 1)[0]
    print(f"\nJ, n = 64, one save time a leak time, T = {counts}: {[round(t, 4) for t in taken]} s, exponent {exponent:.2f}")
    assert exponent <= 1.2


@pytest.mark.parametrize("name", ["wc2", "rnn32", "rnn100"])
def test_continuation_warm_against_cold(name):
    family, x0, span, _ = reference_family(name)
    began = time.perf_counter()
    ssntk.continuation(family, span, x0=x0)
    cold = time.perf_counter() - began
    (warm,) = timed(lambda: ssntk.continuation(family, span, x0=x0).parameter, rounds=5)
    print(f"\ncontinuation with located events, {name}: warm {warm:.4f} s, the first call {cold:.2f} s")
    assert warm < cold
