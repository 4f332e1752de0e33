"""Whose store a folder is: a plan held against plan.json, and against what was measured, which knows better."""

import pathlib
from typing import Any

from ssntk.notices import warn
from ssntk.sweep import header
from ssntk.sweep.abstract_plan import AbstractPlan
from ssntk.sweep.coverage import Header
from ssntk.sweep.header import StoreError


def check(folder: pathlib.Path, plan_hash: str, plan: AbstractPlan | None) -> bool:
    """Whether the folder holds the plan; `StoreError` if it holds another, unless nothing was measured of that."""
    file = folder / "plan.json"
    if not file.exists():
        return False
    if plan is None:
        held = header.read(file)
        same = plan_hash in header.hashes(held)
    else:
        # The plan knows better than a header that was changed.
        held, same = _compared(file, plan_hash, plan)
    if same:
        return True
    if any(folder.glob("points/*.npz")):
        if plan is not None and (why := header.traced_otherwise(held, plan)):
            raise StoreError(f"{folder} holds another plan, or this one: it {why}")
        what = "" if plan is None else f": {header.changes(held, plan)}"
        if not held["hash"]:
            # Of that nothing is left, which is said there.
            header.read(file)
        raise StoreError(
            f"{folder} holds another plan ({held['hash']}, not {plan_hash}){what}; name another folder, or remove that one"
        )
    return False


def claimed(folder: pathlib.Path, plan_hash: str, said: Header, plan: AbstractPlan | None) -> bytes | None:
    """What is to be written into plan.json to make the folder that of a plan; `None` if it is already as it must be.

    Raises `StoreError` if it holds another plan.
    """
    file, identity, by = folder / "plan.json", None if plan is None else plan.identity, header.versions()
    sound: bool | None = True
    held: dict[str, Any] = {"hash": plan_hash, "versions": {}, "older": []}
    if check(folder, plan_hash, plan):
        held, sound = header.read_what_is_left(file)
        # What earlier versions did not say is no difference.
        differing = header.differing(held, said)
        if sound and differing:
            raise StoreError(
                f"{folder} holds a plan of the same identity that has other {' and '.join(differing)}, "
                f"{', '.join(str(held[name]) for name in differing)}: name another folder"
            )
        if sound and (identity is None or held.get("identity") == identity):
            return None
        if differing or sound is False:
            warn(f"{file} was not what the plan says, and is written anew")
    # What was measured knows better than a header that was changed.
    recorded = header.recorded(folder)
    others = {held["hash"], *recorded} - {plan_hash}
    known = {plan_hash} | (plan.older_hashes() if others and plan is not None else set())
    counted = [one for one in recorded if one in known]
    own = held["hash"] if held["hash"] in known else next(iter(counted), plan_hash)
    if sound is not True:
        by = held["versions"] if sound is None else next((recorded[one] for one in counted if recorded[one]), by)
    return header.written(own, said, identity, by, {*counted, *(known & set(held["older"]))})


def _compared(file: pathlib.Path, plan_hash: str, plan: AbstractPlan) -> tuple[dict[str, Any], bool]:
    """What can be read of plan.json, and whether it is that of a plan, which may have had another hash in an earlier
    version; of a header that was changed its records tell."""
    held, sound = header.read_what_is_left(file)
    identity = held.get("identity")
    # An identity of another version is compared by the hashes that the plan had in it.
    if sound and identity is not None and identity.get("version") == plan.identity.get("version"):
        return held, identity == plan.identity
    recorded = set() if sound else header.recorded(file.parent).keys()
    found = recorded or {held["hash"]}
    same = plan_hash in found or (not recorded and identity == plan.identity)
    return held, same or not plan.older_hashes().isdisjoint(found)
