"""Whether a folder is the store of a plan.

The plan is compared with plan.json, and with the records. If these two disagree, the records count.
"""

import pathlib

from ssntk.notices import warn
from ssntk.sweep import header
from ssntk.sweep.abstract_plan import AbstractPlan
from ssntk.sweep.coverage import Header
from ssntk.sweep.header import StoreError


def check(folder: pathlib.Path, plan_hash: str, plan: AbstractPlan | None) -> bool:
    """Whether the folder holds the plan. Raises `StoreError` if it holds another one of which something was measured."""
    file = folder / "plan.json"
    if not file.exists():
        return False
    if plan is None:
        held = header.read(file)
        same = plan_hash in header.hashes(held)
    else:
        # If the header was changed by hand, the plan itself counts.
        held, same = _compared(file, plan_hash, plan)
    if same:
        return True
    if any(folder.glob("points/*.npz")):
        if plan is not None and (why := header.traced_otherwise(held, plan)):
            raise StoreError(f"{folder} holds another plan, or this one: it {why}")
        what = "" if plan is None else f": {header.changes(held, plan)}"
        if not held["hash"]:
            # If nothing is left of the header, reading it raises an error that says so.
            header.read(file)
        raise StoreError(
            f"{folder} holds another plan ({held['hash']}, not {plan_hash}){what}; name another folder, or remove that one"
        )
    return False


def claimed(folder: pathlib.Path, plan_hash: str, said: Header, plan: AbstractPlan | None) -> bytes | None:
    """What must be written into plan.json to make the folder the store of a plan; `None` if nothing must be.

    Raises `StoreError` if it holds another plan.
    """
    file, identity, by = folder / "plan.json", None if plan is None else plan.identity, header.versions()
    sound: bool | None = True
    held: Header = {"hash": plan_hash, "versions": {}, "older": []}
    if check(folder, plan_hash, plan):
        held, sound = header.read_what_is_left(file)
        # A field that earlier versions did not write is no difference.
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
    # If the header was changed by hand, the records count.
    recorded = header.recorded(folder)
    others = {held["hash"], *recorded} - {plan_hash}
    known = {plan_hash} | (plan.older_hashes() if others and plan is not None else set())
    counted = [one for one in recorded if one in known]
    own = held["hash"] if held["hash"] in known else next(iter(counted), plan_hash)
    if sound is not True:
        by = held["versions"] if sound is None else next((recorded[one] for one in counted if recorded[one]), by)
    return header.written(own, said, identity, by, {*counted, *(known & set(held["older"]))})


def _compared(file: pathlib.Path, plan_hash: str, plan: AbstractPlan) -> tuple[Header, bool]:
    """The readable part of plan.json, and whether it belongs to a plan.

    The plan may have had another hash in an earlier version. If the header was changed by hand, the records decide.
    """
    held, sound = header.read_what_is_left(file)
    identity = held.get("identity")
    # If the identity was written by another version, the hashes that the plan had in that version are compared.
    if sound and identity is not None and identity.get("version") == plan.identity.get("version"):
        return held, identity == plan.identity
    recorded = set() if sound else header.recorded(file.parent).keys()
    found = recorded or {held["hash"]}
    same = plan_hash in found or (not recorded and identity == plan.identity)
    return held, same or not plan.older_hashes().isdisjoint(found)
