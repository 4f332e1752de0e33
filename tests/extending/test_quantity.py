"""A user's own quantity, in one file: it is measured, stored, exported, printed and shown without any other edit."""

import json
from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from helpers import QUICK, fold_sweep

import ssntk


class Susceptibility(ssntk.AbstractQuantity):
    """How far a constant push, of size `push` in every direction, moves the fixed point."""

    push: float = 1.0
    name = "susceptibility"
    panel = "Susceptibility of the fixed point"
    variables: ClassVar = {
        "susceptibility": ssntk.Variable(
            "largest displacement of the fixed point", "state", label="Largest displacement", short="moved", log=True
        ),
        "displacements": ssntk.Variable("displacement by a push along each direction", "state", ("direction",)),
    }

    def traced(self, point):
        return self.push * jnp.linalg.svd(jnp.linalg.inv(point.jacobian), compute_uv=False)

    def finish(self, shared, traced):
        return {"susceptibility": traced[0], "displacements": traced}


# Of dx/dt = mu - x^2 the Jacobian at x = sqrt(mu) is -2 sqrt(mu), and a push c moves the fixed point by c / (2 sqrt(mu)).
def law(distance):
    return 0.1 / (2 * np.sqrt(distance))


@pytest.fixture(scope="module")
def sweep():
    return fold_sweep(quantities=(Susceptibility(0.1),))


@pytest.fixture(scope="module")
def store(sweep, tmp_path_factory):
    return ssntk.run(sweep, ssntk.Store(tmp_path_factory.mktemp("own") / "store"), progress=False)


def test_it_is_measured_at_one_point():
    model, probe = ssntk.normal_forms.saddle_node(0.25), ssntk.Probe([0.0, 1.0])
    measured = ssntk.measure(model, probe, [0.5], integrator=QUICK, quantities=Susceptibility(0.1))
    # The fixed point is known to rounding, and A^-1 of one entry has no further error.
    np.testing.assert_allclose(measured.quantities["susceptibility"], law(0.25), rtol=1e-12)
    assert measured.quantities["displacements"].shape == (1,)
    assert ssntk.measure(model, probe, [0.5], integrator=QUICK).quantities == {}


def test_it_is_recorded_and_exported(store, tmp_path):
    data = store.to_xarray()
    # A root that is known to 1e-15 / |A|, at the nearest point 1e-15 / 0.02, moves the law by as much relatively.
    np.testing.assert_allclose(data.susceptibility, law(data.distance), rtol=1e-11)
    assert data.susceptibility.attrs == {
        "long_name": "largest displacement of the fixed point",
        "units": "state",
    }
    assert data.displacements.dims == ("point", "direction")
    xarray, _ = pytest.importorskip("xarray"), pytest.importorskip("h5netcdf")
    store.to_netcdf(tmp_path / "store.nc")
    with xarray.open_dataset(tmp_path / "store.nc", engine="h5netcdf") as read:
        np.testing.assert_array_equal(read.susceptibility, data.susceptibility)
        assert read.susceptibility.attrs["units"] == "state"


def test_it_is_in_the_printed_table_and_on_the_page(store, capsys):
    from ssntk.report.page import payload
    from ssntk.report.tables import print_store

    print_store(store)
    printed = capsys.readouterr().out
    assert "moved" in printed
    # 0.1 / (2 sqrt(1e-4)), at the last point.
    assert "5.000e+00" in printed
    held = payload(store)
    (own,) = [one for one in held["quantities"] if one["name"] == "susceptibility"]
    assert own == {"name": "susceptibility", "label": "Largest displacement", "units": "state", "mapped": True}
    assert held["panels"] == [
        {
            "name": "susceptibility",
            "title": "Susceptibility of the fixed point",
            "label": "state",
            "lines": ["susceptibility"],
        }
    ]
    # From far to near, to six digits.
    shown = [point["values"]["susceptibility"] for point in held["points"]]
    np.testing.assert_allclose(shown, law(np.array([1e-1, 1e-2, 1e-3, 1e-4])), rtol=1e-5)


def test_a_plan_with_it_is_another_plan_and_goes_on(store, tmp_path):
    hashes = {
        fold_sweep(**how).hash()
        for how in ({}, {"quantities": (Susceptibility(0.1),)}, {"quantities": (Susceptibility(0.2),)})
    }
    assert len(hashes) == 3
    assert fold_sweep(quantities=()).hash() == fold_sweep().hash()
    before = {file.name: file.stat().st_mtime_ns for file in (store.path / "points").iterdir()}
    ssntk.run(fold_sweep(quantities=[Susceptibility(0.1)]), ssntk.Store(store.path), progress=False)
    assert {file.name: file.stat().st_mtime_ns for file in (store.path / "points").iterdir()} == before
    with pytest.raises(ssntk.StoreError, match=r"another plan.*: quantities differs"):
        ssntk.run(fold_sweep(quantities=(Susceptibility(0.2),)), ssntk.Store(store.path), progress=False)
    # The identity of a plan without own quantities is the same as before these existed.
    assert "quantities" not in fold_sweep().identity
    plain = ssntk.run(fold_sweep(), ssntk.Store(tmp_path / "plain"), progress=False)
    assert "quantities" not in json.loads((plain.path / "plan.json").read_text())


def test_a_grid_records_it_too(tmp_path):
    from ssntk.report.page import payload

    grid = ssntk.Grid(
        lambda mu: ssntk.normal_forms.saddle_node(mu),
        {"mu": [0.25, 1.0, -1.0]},
        probe=ssntk.Probe([0.0, 1.0]),
        x0=[0.5],
        integrator=QUICK,
        quantities=(Susceptibility(),),
    )
    store = ssntk.run(grid, ssntk.Store(tmp_path / "grid"), progress=False)
    # Without a fixed point, at mu < 0, there is none.
    np.testing.assert_allclose(store.to_xarray().susceptibility, [1.0, 0.5, np.nan], rtol=1e-11)
    assert "susceptibility" in payload(store)["points"][0]["values"]
