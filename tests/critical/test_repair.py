"""The twelve networks of examples/repair_initialisation.py, whose numbers docs/criticality.md gives."""

import importlib.util

import numpy as np
import pytest
from helpers import ROOT

import ssntk
from ssntk.critical.flag import NEAR, relative_distance, verdict
from ssntk.dynamics.stability import linearised


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("repair_initialisation", ROOT / "examples" / "repair_initialisation.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def pairs(example):
    found = example.flagged_pairs()
    assert len(found) >= 10
    return found


def test_every_repaired_network_is_regular_at_its_equilibrium(example, pairs):
    same = 0
    for _, flagged, (_, repaired, _), safe in pairs:
        assert flagged.near
        matrix = np.asarray(linearised(repaired, safe.x, np.zeros(1))[1])
        radius = float(ssntk.stability_radius(matrix)[0])
        assert radius >= NEAR * (1 - 1e-9)
        assert verdict(relative_distance(radius, flagged.time_scale, example.HORIZON)) == "regular"
        # `criticality` judges the most fragile of all equilibria, and `retreat` moves one of them.
        judged = ssntk.criticality(repaired, horizon=example.HORIZON)
        if np.allclose(judged.x_star, safe.x, atol=1e-6):
            same += 1
            assert judged.verdict == "regular"
    assert same >= 10


@pytest.mark.parametrize("name", ["fast, strong inputs", "held, weak inputs"])
def test_repair_lowers_the_largest_hessian_eigenvalue(example, pairs, name):
    us, _ = example.task(*example.TASKS[name])
    tops = np.array([[example.top_hessian(model, us) for model in three[:2]] for _, _, three, _ in pairs])
    lower, higher, p = example.count(tops[:, 0] > tops[:, 1], tops[:, 0] < tops[:, 1])
    # The level of a sign test: of 12 pairs, at least 10 one way.
    assert lower > higher
    assert p < 0.05


@pytest.mark.slow
def test_flagged_networks_do_not_train_worse_at_a_rate_that_ordinary_ones_stand(example, pairs):
    """What was expected and was not found: if it is found one day, the documentation is wrong."""
    for asked in example.TASKS.values():
        _, curves, _ = example.experiment(pairs, *asked)
        for j in range(curves.shape[2]):
            for worse, better, p in example.compare(curves[:, :, j]):
                assert not (worse > better and p < 0.05)
