"""A store as an `xarray.Dataset`, and as netCDF."""

import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from ssntk.files import legible
from ssntk.sweep.coverage import Header, coverage_of
from ssntk.sweep.kept_branch import AnyBranch, event_of
from ssntk.sweep.record import variables_of

_PER_MODE = ("jacobian_eigenvalues", "ntk_eigenvalues", "steady_state_eigenvalues")


def as_dataset(plan: Header, arrays: dict[str, np.ndarray], branch: AnyBranch | None, number: int | None) -> Any:
    """The dataset that `Store.to_xarray` describes, made of the header, the arrays and the branch of a store."""
    try:
        import xarray
    except ImportError as error:
        raise ImportError("Store.to_xarray needs xarray: install ssntk[sweep]") from error
    coverage, known = coverage_of(plan), variables_of(plan)
    axes = coverage.axes(plan)
    over, shape = tuple(axes) or ("point",), coverage.shape(plan)
    modes = plan["n_state"]
    variables: dict[str, Any] = {}
    for name, values in arrays.items():
        variable = known[name]
        about = {"long_name": variable.meaning, "units": variable.units}
        if variable.dtype is str:
            about.pop("units")
        folded = values.reshape(*shape, *values.shape[1:])
        if name in _PER_MODE:
            # If there are fewer than n eigenvalues, the others are not known.
            first = np.full((*shape, modes), np.nan, values.dtype)
            first[..., : values.shape[1]] = folded[..., :modes]
            variables[name] = ((*over, "mode"), first, about)
            if name == "ntk_eigenvalues" and values.shape[1] > modes:
                variables[f"{name}_all"] = ((*over, "row"), folded, about)
        else:
            variables[name] = ((*over, *variable.dims), folded, about)
    coordinates: dict[str, Any] = {name: _legible(values) for name, values in axes.items()}
    if plan["blocks"]:
        coordinates["block"] = [legible(name) for name in plan["blocks"]]
    if plan["ts"] is not None and "kernel_over_time" in variables:
        coordinates |= {dim: (dim, plan["ts"], {"units": "time"}) for dim in ("time", "time_2")}
    attributes = {"plan": plan["hash"], "title": legible(plan["title"]), "format": plan["format"]}
    attributes |= {f"version_{name}": version for name, version in plan["versions"].items()}
    if plan["dt"] is not None:
        attributes["dt"] = plan["dt"]
    if branch is not None and number is not None:
        event = event_of(branch, number)
        attributes |= {"branch": branch.status, "bifurcation": event.kind, "critical_parameter": event.parameter}
    return xarray.Dataset(variables, coordinates, attributes)


def _legible(values: np.ndarray) -> np.ndarray:
    return np.asarray([legible(value) for value in values.tolist()]) if values.dtype.kind == "U" else values


def write_netcdf(data: Any, path: pathlib.Path) -> None:
    """Write a dataset as netCDF, under another name that is then changed, so that the file exists completely or not at
    all."""
    try:
        import h5netcdf
    except ImportError as error:
        raise ImportError("Store.to_netcdf needs h5netcdf: install ssntk[sweep]") from error
    assert h5netcdf
    for name in [name for name, values in data.data_vars.items() if np.iscomplexobj(values)]:
        for part in ("real", "imag"):
            values = getattr(data[name], part)
            # If a complex number is NaN, its imaginary part is unknown too.
            data[f"{name}_{part}"] = values.where(~np.isnan(data[name])).assign_attrs(data[name].attrs)
        data = data.drop_vars(name)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".") as folder:
        whole = pathlib.Path(folder) / "store.nc"
        data.to_netcdf(whole, engine="h5netcdf")
        os.replace(whole, path)
