"""plan.json: what a store says about its plan, with a checksum, and what a record must hold to fit the plan."""

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

from ssntk.sweep.abstract_plan import AbstractPlan
from ssntk.sweep.coverage import COVERAGES, Header
from ssntk.sweep.quantities.base import Variable

# Format 1 has sweeps towards a bifurcation only, and lacks the kernel over time and the channel's directions.
FORMAT, READABLE = 2, (1, 2)
# The packages on whose versions the numbers of a record depend.
PACKAGES = ("ssntk", "jax", "jaxlib", "diffrax", "equinox", "numpy", "scipy")
# The fields of plan.json that are not part of the plan's own header.
OWN = ("format", "hash", "older", "identity", "versions", "checksum")
# The values of fields that earlier versions did not write.
DEFAULTS: Header = {"kind": "towards", "blocks": [], "dt": None, "ts": None, "older": [], "quantities": {}}
# The most units that a state may have.
MOST_UNITS = 10**6


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
    """The versions of the packages on which a measurement depends."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


def hashes(plan: Header) -> set[str]:
    """The hashes that records of this header's plan may have."""
    return {plan["hash"], *plan["older"]}


def written(
    plan_hash: str, said: Header, identity: dict[str, str] | None, by: dict[str, str], older: Iterable[str] = ()
) -> bytes:
    """The contents of plan.json. `older`: other hashes of this plan, under which records count too."""
    plan = {"format": FORMAT, "hash": plan_hash, **said, "versions": by}
    if not plan.get("quantities"):
        # A plan with standard quantities only has the same header as before other quantities were possible.
        plan.pop("quantities", None)
    if identity is not None:
        plan["identity"] = identity
    if older := sorted(set(older) - {plan_hash}):
        plan["older"] = older
    return json.dumps(plan | {"checksum": checksum(plan)}, indent=1).encode()


def checksum(plan: Header) -> str:
    """The checksum of a header, 16 hexadecimal digits, over all of its other fields."""
    rest = {name: value for name, value in plan.items() if name != "checksum"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()[:16]


def read(file: pathlib.Path) -> Header:
    """The contents of plan.json, with defaults for fields that it lacks.

    Raises `StoreError` if it is not a header, cannot be read, or was changed since it was written. Earlier versions wrote no
    checksum.
    """
    plan, whole, fault = _examined(_bytes(file), file)
    if fault:
        raise StoreError(f"{file} cannot be read: {fault}; {ANEW}")
    if not whole:
        raise StoreError(f"{file} was changed since it was written, and may not say what was measured: {ANEW}")
    return dict(plan)


# The plan is needed for every record that is read or written. It is parsed again only if the bytes of the file have changed.
@functools.lru_cache(maxsize=16)
def _examined(data: bytes, file: pathlib.Path) -> tuple[Header, bool, str]:
    """What a header holds, whether it is unchanged since it was written, and what is wrong with it."""
    plan = _parsed(data, file)
    if isinstance(plan, str):
        return {}, False, plan
    whole = plan.get("checksum") in (None, checksum(plan))
    plan = DEFAULTS | plan
    return plan, whole, next(iter(_faults(plan).values()), "")


def read_what_is_left(file: pathlib.Path) -> tuple[Header, bool | None]:
    """The usable fields of plan.json, and whether it is unchanged since it was written.

    A plan can supply the other fields; here they are empty texts. The second value is `None` if it is not known, as for a
    header without a checksum.
    """
    plan = _parsed(_bytes(file), file)
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


def _bytes(file: pathlib.Path) -> bytes:
    try:
        return file.read_bytes()
    except FileNotFoundError as error:
        raise StoreError(f"{file.parent} holds no sweep") from error
    except OSError as error:
        raise StoreError(f"{file} cannot be read: {error}") from error


def _parsed(data: bytes, file: pathlib.Path) -> Header | str:
    """The contents of the file, or a text that says why they are not a header."""
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


def _faults(plan: Header) -> dict[str, str]:
    """What is wrong in a header, by the name of the field."""
    # If the kind is unknown, so is the field that it needs.
    needed = [COVERAGES[plan["kind"]].needed] if FIELDS["kind"][1](plan["kind"]) else []
    found = {}
    names = ("format", "hash", "title", "kind", "n_state", "versions", "blocks", "dt", "ts", "older", "quantities")
    for name in (*names, *needed):
        if name not in plan:
            found[name] = f"it holds no {name}"
        elif not FIELDS[name][1](plan[name]):
            found[name] = f"{name} must be {FIELDS[name][0]}, got {_short(plan[name])}"
    return found


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _number(value: object) -> bool:
    return (type(value) is int and abs(value) < 2**63) or (type(value) is float and math.isfinite(value))


def _listed(of: Callable[[Any], bool], least: int = 0) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) >= least and all(map(of, value))


def _text(value: object) -> bool:
    return isinstance(value, str)


def _axes(value: object) -> bool:
    axis = _listed(lambda one: _number(one) or _text(one), 1)
    return isinstance(value, dict) and len(value) > 0 and all(map(axis, value.values()))


def _quantities(value: object) -> bool:
    def quantity(one: object) -> bool:
        held = one.get("variables") if isinstance(one, dict) else None
        panel = isinstance(one, dict) and (one.get("panel") is None or _text(one["panel"]))
        return panel and isinstance(held, dict) and all(map(_variable, held.values()))

    return isinstance(value, dict) and all(map(quantity, value.values()))


def _variable(value: object) -> bool:
    if not isinstance(value, dict):
        return False
    said = {name: default for name, default in Variable._field_defaults.items() if name not in ("dims", "dtype")} | value
    texts = all(_text(said.get(name)) for name in ("meaning", "units", "label", "short", "section", "first"))
    plain = all(isinstance(said[name], bool) for name in ("always", "log"))
    return texts and plain and said.get("dtype") in ("float", "complex", "str") and _listed(_text)(said.get("dims"))


# What each field must be, in words and as a test.
FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format": ("a format's number", lambda value: type(value) is int and value in READABLE),
    "hash": ("a text", _text),
    "title": ("a text", _text),
    "kind": (" or ".join(map(repr, COVERAGES)), lambda value: isinstance(value, str) and value in COVERAGES),
    "n_state": (f"a whole number up to {MOST_UNITS}", lambda value: type(value) is int and 0 < value <= MOST_UNITS),
    "versions": ("a table of texts", lambda value: isinstance(value, dict) and all(map(_text, value.values()))),
    "blocks": ("a list of names", _listed(_text)),
    "older": ("a list of texts", _listed(_text)),
    "dt": ("a positive number, or null", lambda value: value is None or (_number(value) and value > 0)),
    "ts": ("a list of numbers, or null", lambda value: value is None or _listed(_number)(value)),
    "distances": ("a list of positive numbers", _listed(lambda value: _number(value) and value > 0, 1)),
    "axes": ("a table of lists of numbers or texts", _axes),
    "quantities": ("a table of quantities", _quantities),
}


def recorded(folder: pathlib.Path) -> dict[str, dict[str, str]]:
    """The hashes of plans in the records and in branch.npz, and the versions that wrote them."""
    found: dict[str, dict[str, str]] = {}
    for file in [*sorted(folder.glob("points/*.npz")), folder / "branch.npz"]:
        with contextlib.suppress(Exception), np.load(file, allow_pickle=False) as archive:
            plan_hash = str(archive["plan"])
            if plan_hash not in found:
                found[plan_hash] = json.loads(str(archive["versions"])) if "versions" in archive else {}
    return found


def differing(plan: Header, own: Header) -> list[str]:
    """The names of fields that differ between a header and the plan's own, except the title.

    Fields that only the plan has are no difference.
    """
    own = json.loads(json.dumps(own))
    names = [name for name in plan if name in own and name not in (*OWN, "title")]
    return [name for name in names if plan[name] != own[name] and not (name in DEFAULTS and plan[name] == DEFAULTS[name])]


def changes(held: Header, plan: AbstractPlan) -> str:
    """How a plan differs from the one that a header describes, in words."""
    identity = held.get("identity")
    if isinstance(identity, dict):
        return _differ(_other_parts(identity, plan.identity))
    own = json.loads(json.dumps(plan.header()))
    names = [name for name in own if name in held and own[name] != held[name]]
    if names:
        return _differ(names)
    by = held["versions"].get("jax", "an unknown version")
    return (
        f"it was begun by ssntk {held['versions'].get('ssntk', 'of an unknown version')} under JAX {by}, which told plans "
        "apart by text; what differs is not kept"
    )


def _differ(names: list[str]) -> str:
    return f"{', '.join(names)} {'differs' if len(names) == 1 else 'differ'}"


def _other_parts(one: Header, two: Header) -> list[str]:
    return [name for name in {**one, **two} if one.get(name) != two.get(name)]


def traced_otherwise(held: Header, plan: AbstractPlan) -> str | None:
    """Why a plan may be the one that a header describes although it has another hash, in words; `None` if it is not.

    Functions enter a plan's hash as the operations that JAX traces of them. Another version of JAX may trace the same
    function to other operations.
    """
    identity, by, now = held.get("identity"), held["versions"].get("jax"), versions()["jax"]
    if not isinstance(identity, dict) or by in (None, now):
        return None
    names = _other_parts(identity, plan.identity)
    if not names or not set(names) <= set(plan.traced_parts):
        return None
    return (
        f"was begun under JAX {by}, and this is JAX {now}. They differ in what JAX traces alone ({', '.join(names)}), "
        f"which two versions may trace otherwise: install JAX {by} to go on, or name another folder to measure anew"
    )


def apart(first: Header, other: Header) -> str | None:
    """Why the stores of two headers cannot be merged; `None` if both describe the same plan."""
    one, two = first.get("identity"), other.get("identity")
    if one is not None and two is not None:
        differing_parts = _other_parts(one, two)
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
        by = [header["versions"].get("jax") for header in (first, other)]
        if not names and by[0] != by[1]:
            text += (
                f". They were begun under JAX {by[0]} and {by[1]}, which may trace one function otherwise: use one version"
            )
        return text
    return None


def together(plans: list[Header]) -> Header:
    """The header of several merged stores of one plan: the first complete header, with the hashes of all."""
    base = next((plan for plan in plans if "identity" in plan), plans[0])
    older = set().union(*map(hashes, plans)) - {base["hash"]}
    return base | {"older": sorted(older)}
