"""A branch as the arrays of branch.npz, and back."""

from collections.abc import Mapping

import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.branch import CycleBranch, CycleEvent
from ssntk.cycles.side import events_of
from ssntk.sweep.codec import decode, encode

# A branch of equilibria or of limit cycles.
AnyBranch = Branch | CycleBranch


def event_of(branch: AnyBranch, number: int) -> Bifurcation | CycleEvent:
    """The bifurcation of this number: of a branch of cycles, also the one at its end."""
    return (events_of(branch) if isinstance(branch, CycleBranch) else branch.bifurcations)[number]


def arrays_of(branch: AnyBranch, number: int) -> dict[str, np.ndarray]:
    """The arrays of a branch, and which of its bifurcations is swept towards."""
    return encode(branch) | {"number": np.asarray(number)}


def branch_of(held: Mapping[str, np.ndarray]) -> AnyBranch | None:
    """The branch that these arrays hold; `None` if they hold none, as in a file that somebody else made or changed."""
    try:
        branch = decode(CycleBranch, held) if "orbits.count" in held else decode(Branch, held)
        whole = _is_of_cycles(branch) if isinstance(branch, CycleBranch) else _is_of_equilibria(branch)
        if not whole or int(held["number"]) < 0:
            return None
        event_of(branch, int(held["number"]))
        return branch
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return None


def _is_of_equilibria(branch: Branch) -> bool:
    points = [getattr(branch, name) for name in ("parameter", "x", "eigenvalues", "stable", "tangent")]
    alike = branch.parameter.ndim == 1 and branch.x.ndim == 2 and len(set(map(len, points))) == 1
    return alike and all(array.dtype.kind in "bfc" for array in points)


def _is_of_cycles(branch: CycleBranch) -> bool:
    alike = branch.parameter.ndim == 1 and len(branch.parameter) == len(branch.orbits) > 0
    shapes = {one.x.shape[1:] for one in branch.orbits if one.x.ndim == 2 and len(one.x) == len(one.ts)}
    numbers = all(
        one.x.dtype.kind == one.ts.dtype.kind == "f" and one.multipliers.dtype.kind in "fc" for one in branch.orbits
    )
    return alike and numbers and len(shapes) == 1
