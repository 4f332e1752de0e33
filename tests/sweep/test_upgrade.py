"""A plan under another version of JAX, which may trace the same function to other operations."""

import json

import jax
import jax.extend
import jax.random as jr
import numpy as np
import pytest
from helpers import QUICK, fold_sweep

import ssntk
from ssntk.sweep import described, header, traced


def grid():
    return ssntk.Grid(
        lambda gain: ssntk.CTRNN(2, 1, 1, gain=gain, key=jr.key(0)),
        {"gain": [0.3, 0.5]},
        probe=ssntk.Probe(np.linspace(0.0, 2.0, 3)),
        integrator=QUICK,
    )


PLANS = {"fold": (fold_sweep, "family"), "grid": (grid, "make")}


def upgraded(monkeypatch):
    """Imitate a version of JAX that has another name for one operation, and more parameters for each."""
    operations = traced.operations

    def other(said, jaxpr, consts):
        said.put("operation", "another name for the same")
        operations(said, jaxpr, consts)

    monkeypatch.setattr(described, "operations", other)
    by = header.versions() | {"jax": "99.0"}
    monkeypatch.setattr(header, "versions", lambda: by)


@pytest.mark.parametrize("name", PLANS)
def test_the_message_says_that_versions_may_be_to_blame(tmp_path, monkeypatch, name):
    make, part = PLANS[name]
    store = ssntk.run(make(), ssntk.Store(tmp_path), progress=False)
    before, begun = store.status(), store.plan()["versions"]["jax"]
    upgraded(monkeypatch)
    match = rf"begun under JAX {begun}, and this is JAX 99\.0.*what JAX traces alone \({part}\).*install JAX {begun}"
    with pytest.raises(ssntk.StoreError, match=match):
        ssntk.run(make(), store, progress=False)
    # The store was not changed.
    assert store.status() == before


def test_stores_of_two_versions_are_not_merged_and_say_so(tmp_path, monkeypatch):
    first = ssntk.run(fold_sweep(), ssntk.Store(tmp_path / "first"), progress=False)
    begun = first.plan()["versions"]["jax"]
    upgraded(monkeypatch)
    second = ssntk.run(fold_sweep(), ssntk.Store(tmp_path / "second"), progress=False)
    with pytest.raises(ssntk.StoreError, match=rf"family differ\. They were begun under JAX {begun} and 99\.0"):
        first.merge(second)


def test_another_plan_stays_another_plan_under_any_version(tmp_path, monkeypatch):
    store = ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    upgraded(monkeypatch)
    for other in (fold_sweep(step=0.04), fold_sweep(distances=[1e-1])):
        with pytest.raises(ssntk.StoreError, match=r"holds another plan .*(step|distances).* differ"):
            ssntk.run(other, store, progress=False)


def test_under_the_same_version_what_is_traced_makes_another_plan(tmp_path, monkeypatch):
    store = ssntk.run(fold_sweep(), ssntk.Store(tmp_path), progress=False)
    upgraded(monkeypatch)
    monkeypatch.setattr(header, "versions", lambda: json.loads((tmp_path / "plan.json").read_text())["versions"])
    with pytest.raises(ssntk.StoreError, match=r"holds another plan .*: family differs"):
        ssntk.run(fold_sweep(), store, progress=False)


def test_how_jaxprs_print_is_no_part_of_a_plan(monkeypatch):

    expected = fold_sweep().identity

    def changed(*args, **kwargs):
        raise AssertionError("the text of a jaxpr was asked for")

    for kind in (jax.extend.core.Jaxpr, jax.extend.core.ClosedJaxpr):
        monkeypatch.setattr(kind, "pretty_print", changed, raising=False)
        monkeypatch.setattr(kind, "__str__", changed)
        monkeypatch.setattr(kind, "__repr__", changed)
    assert fold_sweep().identity == expected
