"""The mean field against the kernel of one network, as ratios in one run: `pytest -m slow tests/benchmarks -s -n 0`."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import timed

import ssntk

pytestmark = pytest.mark.slow


def test_a_mean_field_against_the_kernel_of_one_network():
    """Two inputs, 21 times, 128 units: the first call, later calls, and another number of times."""
    ts = 0.25 * np.arange(21)
    us = np.stack([np.stack([np.sin(ts), np.cos(ts)], axis=1), np.stack([np.cos(2 * ts), 0 * ts], axis=1)])
    models = [ssntk.CTRNN(128, 2, 1, gain=gain, key=jax.random.key(0)) for gain in (1.2, 0.9)]
    probe, shorter = ssntk.Probe(ts, us), ssntk.Probe(ts[:15], us[:, :15])
    lasted = []
    for call in (
        lambda: ssntk.mean_field(models[0], probe),
        lambda: ssntk.mean_field(models[1], probe),
        lambda: ssntk.mean_field(models[1], shorter),
        lambda: ssntk.ntk(models[0], probe).block_until_ready(),
    ):
        start = time.perf_counter()
        call()
        lasted.append(time.perf_counter() - start)
    warm, kernel = timed(
        lambda: jnp.asarray(ssntk.mean_field(models[1], probe).kernel), lambda: ssntk.ntk(models[1], probe), rounds=3
    )
    cold, other, short, first = lasted
    print(f"\nfirst {cold / warm:.1f}, other weights {other / warm:.1f}, fewer times {short / warm:.1f} of a warm call")
    print(
        f"the kernel of one network: first {first / warm:.1f}, warm {kernel / warm:.2f} of a warm mean field ({warm:.2f} s)"
    )
    # Other weights and other times compile nothing.
    assert other < 2 * warm
    assert short < 2 * warm
