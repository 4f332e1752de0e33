"""A branch as arrays, which branch.npz holds, and a branch of these again."""

import dataclasses
from typing import Any

import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.point import Bifurcation


def arrays_of(branch: Branch, number: int) -> dict[str, np.ndarray]:
    """The arrays of a branch, and which of its bifurcations is swept towards."""
    fields = {field.name: getattr(branch, field.name) for field in dataclasses.fields(Branch)}
    events = {name: [dataclasses.asdict(event) for event in fields.pop(name)] for name in ("bifurcations", "unresolved")}
    # A branch of an earlier version does not say everything.
    arrays = {name: np.asarray(value) for name, value in fields.items() if value is not None}
    arrays["number"] = np.asarray(number)
    for name, found in events.items():
        arrays[f"{name}.count"] = np.asarray(len(found))
        for i, event in enumerate(found):
            # None is not an array: an empty string stands for it.
            arrays |= {f"{name}.{i}.{key}": np.asarray("" if value is None else value) for key, value in event.items()}
    return arrays


def branch_of(held: dict[str, np.ndarray]) -> Branch | None:
    """The branch of such arrays; `None` where they are of none, as of a file that somebody made or changed."""
    try:
        parts: dict[str, Any] = {}
        for field in dataclasses.fields(Branch):
            if field.name in ("bifurcations", "unresolved"):
                count = int(held[f"{field.name}.count"])
                parts[field.name] = tuple(_event(held, f"{field.name}.{i}.") for i in range(count))
            # What a field that came later stands for has a default.
            elif field.name in held:
                parts[field.name] = held[field.name]
        parts |= {"status": str(parts["status"]), "steps": tuple(int(at) for at in parts["steps"])}
        parts["has_readout"] = bool(parts.get("has_readout", False))
        branch = Branch(**parts)
        points = [getattr(branch, name) for name in ("parameter", "x", "eigenvalues", "stable", "tangent")]
        alike = branch.parameter.ndim == 1 and branch.x.ndim == 2 and len(set(map(len, points))) == 1
        numbers = all(array.dtype.kind in "bfc" for array in points)
        return branch if alike and numbers and 0 <= int(held["number"]) < len(branch.bifurcations) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _event(held: dict[str, np.ndarray], prefix: str) -> Bifurcation:
    values: dict[str, Any] = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    values = {name: value if value.ndim else value.item() for name, value in values.items()}
    for name in ("criticality", "tangents", "outputs"):
        if isinstance(value := values.get(name, ""), str):
            values[name] = value or None
    values["interval"] = tuple(values["interval"].tolist())
    return Bifurcation(**values)
