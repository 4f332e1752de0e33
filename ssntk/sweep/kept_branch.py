"""A branch as the arrays of branch.npz, and back."""

from collections.abc import Mapping

import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.sweep.codec import decode, encode


def arrays_of(branch: Branch, number: int) -> dict[str, np.ndarray]:
    """The arrays of a branch, and which of its bifurcations is swept towards."""
    return encode(branch) | {"number": np.asarray(number)}


def branch_of(held: Mapping[str, np.ndarray]) -> Branch | None:
    """The branch that these arrays hold; `None` if they hold none, as in a file that somebody else made or changed."""
    try:
        branch = decode(Branch, held)
        points = [getattr(branch, name) for name in ("parameter", "x", "eigenvalues", "stable", "tangent")]
        alike = branch.parameter.ndim == 1 and branch.x.ndim == 2 and len(set(map(len, points))) == 1
        numbers = all(array.dtype.kind in "bfc" for array in points)
        return branch if alike and numbers and 0 <= int(held["number"]) < len(branch.bifurcations) else None
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
