"""The records of a plan: whether one fits its plan, and all of them as arrays over the points."""

from collections.abc import Mapping, Sequence

import numpy as np

from ssntk.sweep.coverage import Header, coverage_of
from ssntk.sweep.record import VARIABLES, variables_of

Record = Mapping[str, np.ndarray]
# The kinds of NumPy's dtypes that a variable may have, by its declared type.
KINDS = {float: "biuf", complex: "biufc", str: "U"}
MISSING: Record = {"status": np.asarray("missing")}


def misfit(plan: Header, index: int, record: dict[str, np.ndarray]) -> str | None:
    """What in the record of a point contradicts the header; `None` if nothing does."""
    status = record["status"]
    if status.ndim or status.dtype.kind != "U" or not (str(status) == "done" or str(status).startswith("failed: ")):
        return "its status is neither 'done' nor 'failed: ' and a reason"
    return _elsewhere(plan, index, record) or _malformed(plan, record)


def _elsewhere(plan: Header, index: int, record: dict[str, np.ndarray]) -> str | None:
    """How a record shows that it was measured elsewhere than the header says for its point; `None` if it does not."""
    expected = coverage_of(plan).place(plan, index)
    held = [name for name in record if name.startswith("axis_") or name == "distance"]
    for name in held:
        if name not in expected:
            return f"it has {name.removeprefix('axis_')}, which plan.json does not"
        if record[name].ndim:
            return f"{name.removeprefix('axis_')} has shape {record[name].shape} there, and is one value"
        if record[name].item() != expected[name]:
            return f"{name.removeprefix('axis_')} is {record[name].item()!r} there, and {expected[name]!r} in plan.json"
    # If the process of a point died, its record does not say where it lay.
    for name in expected:
        if name not in held and str(record["status"]) == "done":
            return f"it has no {name.removeprefix('axis_')}"
    return None


def _malformed(plan: Header, record: dict[str, np.ndarray]) -> str | None:
    """The first variable of a record that is missing, or does not have the type and size that the header requires."""
    done, coverage, x = str(record["status"]) == "done", coverage_of(plan), record.get("x_star")
    n = coverage.n_state(plan, x.size if x is not None and x.ndim == 1 else None)
    times = None if plan["ts"] is None else len(plan["ts"])
    sizes = {"mode": n, "block": len(plan["blocks"]), "time": times, "time_2": times}
    for name, variable in variables_of(plan).items():
        if name not in record:
            # A point may have no critical mode. Where the point lies was checked before.
            always = variable.always and not name.startswith("channel_") and coverage.records(name) and name != "distance"
            if done and (always or (name.startswith("block_") and plan["blocks"])):
                return f"it has no {name}"
            continue
        value = record[name]
        if value.dtype.kind not in KINDS[variable.dtype]:
            return f"{name} is {value.dtype} there, and must be {variable.dtype.__name__}"
        if value.ndim != len(variable.dims):
            return f"{name} has shape {value.shape} there, and must have {len(variable.dims)} axes"
        for dim, size in zip(variable.dims, value.shape, strict=True):
            wanted_size = sizes.get(dim)
            # A kernel with fewer parameters than states has fewer eigenvalues. So may a quantity of the user's own.
            fewer = dim == "mode" and 0 < size <= n and (name == "steady_state_eigenvalues" or name not in VARIABLES)
            if wanted_size is not None and size != wanted_size and not fewer:
                wanted = {"mode": "n_state", "block": "the number of blocks"}.get(dim, "the number of ts")
                return f"{name} has shape {value.shape} there, where {wanted} is {wanted_size} in plan.json"
    return None


def stacked(plan: Header, records: Sequence[Record]) -> dict[str, np.ndarray]:
    """Every variable as an array over the points (k, ...), in the order of the records. If a record lacks it, it is NaN.

    If no record holds a variable that only some plans have, it is left out.
    """
    coverage, variables = coverage_of(plan), variables_of(plan)
    sizes = {dim: 0 for variable in variables.values() for dim in variable.dims}
    if not any("ntk_eigenvalues" in record for record in records):
        sizes["row"] = plan["n_state"]
    for record in records:
        for name, variable in variables.items():
            if name in record:
                for dim, size in zip(variable.dims, np.shape(record[name]), strict=True):
                    sizes[dim] = max(sizes[dim], size)
    sizes |= {"mode": plan["n_state"], "block": len(plan["blocks"])}
    out: dict[str, np.ndarray] = {}
    for name, variable in variables.items():
        held = any(name in record for record in records)
        if name == "distance" and coverage.leads:
            # This is known for points that were not measured, too.
            out[name] = np.asarray([coverage.place(plan, int(index))[name] for index in coverage.order(plan)])
            continue
        if not (held or (variable.always and coverage.records(name))):
            continue
        if variable.dtype is str:
            out[name] = np.asarray([str(record.get(name, "")) for record in records])
            continue
        # Flags become numbers, so that a failed point can be NaN.
        array = np.full((len(records), *(sizes[dim] for dim in variable.dims)), np.nan, variable.dtype)
        for at, record in enumerate(records):
            if name in record:
                value = np.asarray(record[name])
                array[(at, *(slice(size) for size in value.shape))] = value
        out[name] = array
    return out
