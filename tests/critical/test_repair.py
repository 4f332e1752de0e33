"""The twelve networks of examples/repair_initialisation.py, whose numbers docs/criticality.md gives."""

import importlib.util

import numpy as np
import pytest
from helpers import ROOT

import ssntk
from ssntk.critical.distance import NEAR, relative_distance, verdict
from ssntk.dynamics.stability import linearised

pytestmark = pytest.mark.slow


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


@pytest.mark.parametrize("name", ["output, held and weak inputs", "states, held and weak inputs"])
def test_repair_lowers_the_largest_hessian_eigenvalue(example, pairs, name):
    held, memory, strength = example.TASKS[name]
    us, _ = example.task(held, memory, strength)
    of = "state" if memory is None else "readout"
    tops = np.array([[example.top_hessian(model, us, of) for model in three[:2]] for _, _, three, _ in pairs])
    lower, higher, p = example.count(tops[:, 0] > tops[:, 1], tops[:, 0] < tops[:, 1])
    # At this level of a sign test at least 10 of 12 pairs.
    assert lower > higher
    assert p < 0.05


def test_flagged_networks_train_worse_where_states_are_fitted(example, pairs):
    # For each of nine counts; documented for the states at half of the limit, and not found for one output.
    level = 0.05 / (len(example.TASKS) * len(example.FRACTIONS))
    for name, asked in example.TASKS.items():
        _, curves, _ = example.experiment(pairs, *asked)
        assert np.isfinite(example.finals(curves[:, 1])).all()
        counts = [example.compare(curves[:, :, j]) for j in range(len(example.FRACTIONS))]
        if name.startswith("states"):
            (worse, better, _), (spiked, other, p) = counts[-1]
            assert worse > better
            assert spiked > other
            assert p < level
        else:
            # Where this fails the documentation says too little of the repair.
            assert not any(a > b and p < level for both in counts for a, b, p in both)
