"""plan.json: what a store says of its plan, checked against its own checksum, and what a record must hold to fit it."""

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import math
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ssntk.sweep.record import VARIABLES

# 1: sweeps towards a bifurcation only, without what the kernel is over time and the channel's directions.
FORMAT, READABLE = 2, (1, 2)
# What the numbers of a record depend on.
PACKAGES = ("ssntk", "jax", "jaxlib", "diffrax", "equinox", "numpy", "scipy")
# What plan.json holds beside what the plan itself says.
OWN = ("format", "hash", "older", "identity", "versions", "checksum")
# What earlier versions did not say.
DEFAULTS: dict[str, Any] = {"kind": "towards", "blocks": [], "dt": None, "ts": None, "older": []}
# The most units that a state may have.
MOST_UNITS = 10**6


# The kinds of NumPy's dtypes that a variable may have, by what it is.
KINDS = {float: "biuf", complex: "biufc", str: "U"}
ANEW = "run the sweep again, which writes it anew, or put it back"


class StoreError(RuntimeError):
    """A folder that cannot serve as the store of this plan.

    **Example:**

    ```python
    try:
        ssntk.Store("nothing").plan()
    except ssntk.StoreError as error:
        print(error)  # nothing holds no sweep
    ```
    """


@functools.cache
def versions() -> dict[str, str]:
    """Of what a measurement depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def hashes(plan: dict[str, Any]) -> set[str]:
    """Under which records count as those of a header's plan."""
    return {plan["hash"], *plan["older"]}


def written(plan_hash: str, said: dict[str, Any], identity: Any, by: dict[str, str], older: Iterable[str] = ()) -> bytes:
    """The contents of plan.json. `older`: other hashes of this plan, under which records count too."""
    plan = {"format": FORMAT, "hash": plan_hash, **said, "versions": by}
    if identity is not None:
        plan["identity"] = identity
    if older := sorted(set(older) - {plan_hash}):
        plan["older"] = older
    return json.dumps(plan | {"checksum": checksum(plan)}, indent=1).encode()


def checksum(plan: dict[str, Any]) -> str:
    """16 hexadecimal digits of what a header holds beside them."""
    rest = {name: value for name, value in plan.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def read(file: pathlib.Path) -> dict[str, Any]:
    """The contents of plan.json, what it lacks filled in.

    `StoreError` where it is none, cannot be read, or was changed since it was written. Earlier versions wrote no checksum.
    """
    plan = _parsed(file)
    if isinstance(plan, str):
        raise StoreError(f"{file} cannot be read: {plan}; {ANEW}")
    whole = plan.get("checksum") in (None, checksum(plan))
    plan = DEFAULTS | plan
    if faults := _faults(plan):
        raise StoreError(f"{file} cannot be read: {next(iter(faults.values()))}; {ANEW}")
    if not whole:
        raise StoreError(f"{file} was changed since it was written, and may not say what was measured: {ANEW}")
    return plan


def read_what_is_left(file: pathlib.Path) -> tuple[dict[str, Any], bool | None]:
    """What can be used of plan.json by a plan, which knows better, and whether it is as it was written; `None`: not known,
    as of one without a checksum. Empty texts stand for what cannot be used."""
    plan = _parsed(file)
    plan = {"checksum": "none"} if isinstance(plan, str) else plan
    sound = None if "checksum" not in plan else plan["checksum"] == checksum(plan)
    plan = DEFAULTS | plan
    for name in _faults(plan):
        plan.pop(name, None)
        sound = False
    identity = plan.get("identity")
    if identity is not None and not isinstance(identity, dict):
        del plan["identity"]
    return {"hash": "", "versions": {}} | DEFAULTS | plan, sound


def _parsed(file: pathlib.Path) -> dict[str, Any] | str:
    """What the file holds, or why that is no header."""
    try:
        data = file.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{file.parent} holds no sweep") from error
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error}") from error
    try:
        plan = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        return str(error)
    if not isinstance(plan, dict):
        return f"it holds a {type(plan).__name__}, and no table"
    if type(plan.get("format")) is int and plan["format"] not in READABLE:
        raise StoreError(
            f"{file.parent} has format {_short(plan['format'])}; this version reads {' and '.join(map(str, READABLE))}: "
            "it was written by a newer ssntk"
        )
    return plan


def _faults(plan: dict[str, Any]) -> dict[str, str]:
    """What in a header is not as it must be, by the field's name."""
    needed = "distances" if plan["kind"] == "towards" else "axes"
    found = {}
    for name in ("format", "hash", "title", "kind", "n_state", "versions", "blocks", "dt", "ts", "older", needed):
        if name not in plan:
            found[name] = f"it holds no {name}"
        elif not FIELDS[name][1](plan[name]):
            found[name] = f"{name} must be {FIELDS[name][0]}, got {_short(plan[name])}"
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: Any) -> bool:
    return (type(value) is int and abs(value) < 2**63) or (type(value) is float and math.isfinite(value))


def _listed(of: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(of, value))


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _axes(value: Any) -> bool:
    axis = _listed(lambda one: _number(one) or _text(one), 1)
    return isinstance(value, dict) and len(value) > 0 and all(map(axis, value.values()))


# What each field must be, in words and as a test.
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format": ("a format's number", lambda value: type(value) is int and value in READABLE),
    "hash": ("a text", _text),
    "title": ("a text", _text),
    "kind": ("'towards' or 'grid'", lambda value: value in ("towards", "grid")),
    "n_state": (f"a whole number up to {MOST_UNITS}", lambda value: type(value) is int and 0 < value <= MOST_UNITS),
    "versions": ("a table of texts", lambda value: isinstance(value, dict) and all(map(_text, value.values()))),
    "blocks": ("a list of names", _listed(_text)),
    "older": ("a list of texts", _listed(_text)),
    "dt": ("a positive number, or null", lambda value: value is None or (_number(value) and value > 0)),
    "ts": ("a list of numbers, or null", lambda value: value is None or _listed(_number)(value)),
    "distances": ("a list of positive numbers", _listed(lambda value: _number(value) and value > 0, 1)),
    "axes": ("a table of lists of numbers or texts", _axes),
}


def recorded(folder: pathlib.Path) -> dict[str, dict[str, str]]:
    """The hashes of plans in files of records and of the branch, and the versions that wrote these."""
    found: dict[str, dict[str, str]] = {}
    for file in [*sorted(folder.glob("points/*.npz")), folder / "branch.npz"]:
        with contextlib.suppress(Exception), np.load(file, allow_pickle=False) as archive:
            plan_hash = str(archive["plan"])
            if plan_hash not in found:
                found[plan_hash] = json.loads(str(archive["versions"])) if "versions" in archive else {}
    return found


def differing(plan: dict[str, Any], own: dict[str, Any]) -> list[str]:
    """The names of what a header says otherwise than the plan does, which may say more. A title says nothing of numbers."""
    own = json.loads(json.dumps(own))
    names = [name for name in plan if name in own and name not in (*OWN, "title")]
    return [name for name in names if plan[name] != own[name] and not (name in DEFAULTS and plan[name] == DEFAULTS[name])]


def misfit(plan: dict[str, Any], index: int, record: dict[str, np.ndarray]) -> str | None:
    """What in the record of a point is not as the header has it; `None` where all is."""
    status = record["status"]
    if status.ndim or status.dtype.kind != "U" or not (str(status) == "done" or str(status).startswith("failed: ")):
        return "its status is neither 'done' nor 'failed: ' and a reason"
    return _elsewhere(plan, index, record) or _malformed(plan, record)


def _elsewhere(plan: dict[str, Any], index: int, record: dict[str, np.ndarray]) -> str | None:
    """What says that a record was measured at another place than the header has for its point."""
    if plan["kind"] == "towards":
        expected = {"distance": plan["distances"][index]}
    else:
        at = np.unravel_index(index, [len(values) for values in plan["axes"].values()])
        expected = {f"axis_{name}": values[i] for i, (name, values) in zip(at, plan["axes"].items(), strict=True)}
    held = [name for name in record if name.startswith("axis_") or name == "distance"]
    for name in held:
        if name not in expected:
            return f"it has {name.removeprefix('axis_')}, which plan.json does not"
        if record[name].ndim:
            return f"{name.removeprefix('axis_')} has shape {record[name].shape} there, and is one value"
        if record[name].item() != expected[name]:
            return f"{name.removeprefix('axis_')} is {record[name].item()!r} there, and {expected[name]!r} in plan.json"
    # Nothing is known of where a point lay whose process died.
    for name in expected:
        if name not in held and str(record["status"]) == "done":
            return f"it has no {name.removeprefix('axis_')}"
    return None


def _malformed(plan: dict[str, Any], record: dict[str, np.ndarray]) -> str | None:
    """The first variable of a record that is missing, or not of the kind and size that the header asks for."""
    done, towards = str(record["status"]) == "done", plan["kind"] == "towards"
    x = record.get("x_star")
    n = x.size if x is not None and x.ndim == 1 and not towards and 0 < x.size <= plan["n_state"] else plan["n_state"]
    times = None if plan["ts"] is None else len(plan["ts"])
    sizes = {"mode": n, "row": None, "block": len(plan["blocks"]), "time": times, "time_2": times}
    for name, variable in VARIABLES.items():
        if name not in record:
            # What has no critical mode has nothing of it; parameters and distances are of a branch.
            always = variable.always and not name.startswith("channel_") and (towards or name != "parameter")
            if done and name != "distance" and (always or (name.startswith("block_") and plan["blocks"])):
                return f"it has no {name}"
            continue
        value = record[name]
        if value.dtype.kind not in KINDS[variable.dtype]:
            return f"{name} is {value.dtype} there, and must be {variable.dtype.__name__}"
        if value.ndim != len(variable.dims):
            return f"{name} has shape {value.shape} there, and must have {len(variable.dims)} axes"
        for dim, size in zip(variable.dims, value.shape, strict=True):
            # Of a kernel of fewer parameters than states fewer eigenvalues are known.
            fewer = name == "steady_state_eigenvalues" and 0 < size <= n
            if sizes[dim] is not None and size != sizes[dim] and not fewer:
                wanted = {"mode": "n_state", "block": "the number of blocks"}.get(dim, "the number of ts")
                return f"{name} has shape {value.shape} there, where {wanted} is {sizes[dim]} in plan.json"
    return None


def changes(held: dict[str, Any], plan: Any) -> str:
    """What is different in a plan from the one that a header tells of, in words."""
    identity = held.get("identity")
    if isinstance(identity, dict):
        names = [name for name in {**identity, **plan.identity} if identity.get(name) != plan.identity.get(name)]
        return f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"
    own = json.loads(json.dumps(plan.header()))
    names = [name for name in own if name in held and own[name] != held[name]]
    if names:
        return f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"
    by = held["versions"].get("jax", "an unknown version")
    return (
        f"it was begun by ssntk {held['versions'].get('ssntk', 'of an unknown version')} under JAX {by}, which told plans "
        "apart by text; what differs is not kept"
    )


def apart(first: dict[str, Any], other: dict[str, Any]) -> str | None:
    """What keeps two headers' stores from being put together; `None` where they tell of one plan."""
    one, two = first.get("identity"), other.get("identity")
    if one is not None and two is not None:
        differing_parts = [name for name in {**one, **two} if one.get(name) != two.get(name)]
    else:
        differing_parts = ["hash"] if hashes(first).isdisjoint(hashes(other)) else []
    said = {name: value for name, value in other.items() if name not in OWN}
    names = differing(first, said)
    if names or differing_parts:
        text = f"{', '.join([*names, *(part for part in differing_parts if part not in names)])} differ"
        if differing_parts == ["hash"] and not names:
            text = (
                f"{first['hash']} there, and {other['hash']} here. If they are parts of one sweep, which an earlier version "
                "began, run each part again, which measures nothing anew and writes down what it is of; then merge"
            )
        return text
    return None


def together(plans: list[dict[str, Any]]) -> dict[str, Any]:
    """The header of stores of one plan that are put together: the first that says all, with every hash."""
    base = next((plan for plan in plans if "identity" in plan), plans[0])
    older = set().union(*map(hashes, plans)) - {base["hash"]}
    return base | {"older": sorted(older)}
