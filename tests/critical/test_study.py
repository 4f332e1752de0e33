"""The study that the thresholds come from: its statistics, and the reference that it measures networks against."""

import importlib.util

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import ROOT

import ssntk


@pytest.fixture(scope="module")
def study():
    spec = importlib.util.spec_from_file_location("criticality_study", ROOT / "sweeps" / "criticality_study.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_area_is_the_share_of_pairs_in_order(study):
    rng = np.random.default_rng(0)
    score, fragile = rng.integers(6, size=40).astype(float), rng.random(40) < 0.4
    pairs = [(a < b) + (a == b) / 2 for a in score[fragile] for b in score[~fragile]]
    np.testing.assert_allclose(study.area(score, fragile), np.mean(pairs), rtol=1e-12)
    assert np.isnan(study.area(score, np.ones(40, bool)))


def test_the_threshold_separates_what_can_be_separated(study):
    score = np.array([0.1, 0.2, 0.3, 0.7, 0.8])
    assert 0.3 < study.best_threshold(score, score < 0.5) < 0.7


def test_leaks_filter_the_drive_and_nothing_else(study):
    # One unit at rest at zero without recurrence in the tangent: d x / d bias is 1 - exp(-t / tau) through leaks alone.
    model, tau = ssntk.CTRNN.from_weights([[0.9]], np.zeros((1, 2))), 2.0
    probe = study.probe_of(5.0, 0.0, jnp.zeros(2), half=True)
    lens = study.Leaks(model, jnp.asarray(tau))
    found = ssntk.ntk_spectrum(lens, probe, wrt=lambda m: m.model.bias, integrator=study.INTEGRATOR)
    times = np.linspace(0, 5, study.TIMES)
    expected = study.INPUTS * np.sum((tau * (1 - np.exp(-times / tau))) ** 2)
    # Heun's method with steps of an eighth of tau: 3e-3 of 1.
    np.testing.assert_allclose(float(found.eigenvalues[0]), expected, rtol=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["low-rank", "GRU"])
def test_a_record(study, family):
    record = study.measure(family, 8, 0)
    for at in record["horizons"]:
        # In seven steps a network changes little: the stable rate is 2 / lambda. The study finds it to within a half.
        assert 0.5 <= at["slowing"] / at["amplification"] <= 1.5
    assert [at["horizon"] for at in record["horizons"]] == list(study.HORIZONS)
