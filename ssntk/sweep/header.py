"""plan.json: what a store says of its plan, checked against its own checksum, and what a record must hold to fit it."""

import functools
import hashlib
import importlib.metadata
import json
import math
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

# 1: sweeps towards a bifurcation only, without what the kernel is over time and the channel's directions.
FORMAT, READABLE = 2, (1, 2)
# What the numbers of a record depend on.
PACKAGES = ("ssntk", "jax", "jaxlib", "diffrax", "equinox", "numpy", "scipy")
# What plan.json holds beside what the plan itself says.
OWN = ("format", "hash", "identity", "versions", "checksum")
# The most units that a state may have.
MOST_UNITS = 10**6


class StoreError(RuntimeError):
    """A folder that cannot serve as the store of this plan."""


@functools.cache
def versions() -> dict[str, str]:
    """Of what a measurement depends on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def written(plan_hash: str, said: dict[str, Any], identity: dict[str, str] | None, by: dict[str, str]) -> bytes:
    """The contents of plan.json."""
    plan = {"format": FORMAT, "hash": plan_hash, **said, "versions": by}
    if identity is not None:
        plan["identity"] = identity
    return json.dumps(plan | {"checksum": checksum(plan)}, indent=1).encode()


def checksum(plan: dict[str, Any]) -> str:
    """16 hexadecimal digits of what a header holds beside them."""
    rest = {name: value for name, value in plan.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def read(file: pathlib.Path, *, whole: bool = True) -> dict[str, Any]:
    """The contents of plan.json, what it lacks filled in.

    `StoreError` where it is none, cannot be read, or, if it is to be `whole`, was changed since it was written. Earlier
    versions wrote no checksum.
    """
    try:
        plan = json.loads(file.read_bytes().decode("utf-8-sig"))
    except FileNotFoundError as error:
        raise StoreError(f"{file.parent} holds no sweep") from error
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{file} cannot be read: {error}") from error
    if not isinstance(plan, dict):
        raise StoreError(f"{file} cannot be read: it holds a {type(plan).__name__}, and no table")
    if type(plan.get("format")) is int and plan["format"] not in READABLE:
        raise StoreError(
            f"{file.parent} has format {plan['format']}; this version reads {' and '.join(map(str, READABLE))}: "
            "it was written by a newer ssntk"
        )
    whole_still = plan.get("checksum") in (None, checksum(plan))
    plan = {"kind": "towards", "blocks": [], "dt": None, "ts": None} | plan
    needed = "distances" if plan["kind"] == "towards" else "axes"
    for name in ("format", "hash", "title", "kind", "n_state", "versions", "blocks", "dt", "ts", needed):
        if name not in plan:
            raise StoreError(f"{file} cannot be read: it holds no {name}")
        if not FIELDS[name][1](plan[name]):
            raise StoreError(f"{file} cannot be read: {name} must be {FIELDS[name][0]}, got {_short(plan[name])}")
    if whole and not whole_still:
        raise StoreError(
            f"{file} was changed since it was written, and may not say what was measured: run the sweep again, "
            "which writes it anew, or put it back"
        )
    return plan


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


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
    "dt": ("a positive number, or null", lambda value: value is None or (_number(value) and value > 0)),
    "ts": ("a list of numbers, or null", lambda value: value is None or _listed(_number)(value)),
    "distances": ("a list of positive numbers", _listed(lambda value: _number(value) and value > 0, 1)),
    "axes": ("a table of lists of numbers or texts", _axes),
}


def unsaid(plan: dict[str, Any], own: dict[str, Any]) -> bool:
    """Whether a header says nothing else of its plan than the plan does, which may say more."""
    own = json.loads(json.dumps(own))
    held = {name: value for name, value in plan.items() if name not in OWN}
    defaults = {"kind": "towards", "blocks": [], "dt": None, "ts": None}
    return all(own.get(name) == value or defaults.get(name, "") == value for name, value in held.items())


def misfit(plan: dict[str, Any], index: int, record: dict[str, np.ndarray]) -> str | None:
    """What in the record of a point is not as the header has it; `None` where all is."""
    if plan["kind"] == "towards":
        expected = {"distance": plan["distances"][index]}
    else:
        at = np.unravel_index(index, [len(values) for values in plan["axes"].values()])
        expected = {f"axis_{name}": values[i] for i, (name, values) in zip(at, plan["axes"].items(), strict=True)}
    for name, value in expected.items():
        if name in record and record[name].item() != value:
            return f"{name.removeprefix('axis_')} is {record[name].item()!r} there, and {value!r} in plan.json"
    n = record["x_star"].shape[0] if "x_star" in record and record["x_star"].ndim == 1 else plan["n_state"]
    if n > plan["n_state"] or (n < plan["n_state"] and plan["kind"] == "towards"):
        return f"n_state is {n} there, and {plan['n_state']} in plan.json"
    return None


def changes(held: dict[str, Any], plan: Any) -> str:
    """What is different in a plan from the one that a header tells of, in words."""
    identity = held.get("identity")
    if isinstance(identity, dict):
        names = [name for name in {**identity, **plan.identity} if identity.get(name) != plan.identity.get(name)]
        return f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"
    own = json.loads(json.dumps(plan.header()))
    names = [name for name in own if own[name] != held.get(name)]
    if names:
        return f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"
    by = held["versions"].get("jax", "an unknown version")
    return (
        f"it was begun by ssntk {held['versions'].get('ssntk', 'of an unknown version')} under JAX {by}, which told plans "
        "apart by text; what differs is not kept"
    )
