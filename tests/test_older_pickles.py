"""Pickles of earlier versions are read: classes that moved are found, and fields that are new have their defaults."""

import importlib
import pickle

import numpy as np
import pytest

import ssntk

# The modules in which classes were when pickles of them were written.
STOOD = {
    "ssntk.models.euler_map": "EulerMap",
    "ssntk.bifurcation.family": "Family",
    "ssntk.bifurcation.locate": "Bifurcation",
    "ssntk.kernel.loss_operators": "Sobolev",
    "ssntk.sweep.measure": "Measurement",
}


@pytest.mark.parametrize(("module", "name"), STOOD.items(), ids=STOOD.values())
def test_what_moved_is_found_where_it_stood(module, name):
    assert getattr(importlib.import_module(module), name) is getattr(ssntk, name)


def test_a_measurement_of_before_has_no_quantities():
    found = ssntk.measure(ssntk.normal_forms.saddle_node(0.01), ssntk.Probe([0.0, 1.0]), [0.1])
    state = found.__getstate__()
    assert state.pop("quantities") == {}
    older = object.__new__(ssntk.Measurement)
    older.__setstate__(state)
    assert older == found
    assert older.quantities == {}
    assert pickle.loads(pickle.dumps(found)) == found
    np.testing.assert_array_equal(older.x_star, found.x_star)
