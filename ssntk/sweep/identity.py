"""What a plan computes, as hashes of its structure, never of text for people, which differs between terminals.

Functions that JAX traces enter as their operations, numbers by dtype, shape and bytes, random keys by their data. What is
not traced, such as the norm that a solver takes or a function that JAX calls back, enters by its name where a library holds
it, and else by its code and by all that this refers to.
"""

from typing import Any

import jax
import numpy as np

from ssntk.sweep.described import digest
from ssntk.sweep.traced import Traced, primitives

# Of how plans are described: those of another version cannot be compared part by part.
VERSION = "2"

__all__ = ["Traced", "digest", "digests", "hashed", "primitives", "probe_parts"]


def digests(parts: dict[str, Any]) -> dict[str, str]:
    """The digest of each part of a plan, by its name.

    Parts that are `None` are left out, so that a plan without what a later version offers stays the same plan. Raises
    `ValueError` naming the part that cannot be told from others.
    """
    found = {"version": VERSION}
    for name, part in parts.items():
        if part is not None:
            try:
                found[name] = digest(part)
            except ValueError as error:
                raise ValueError(f"{name} cannot be told from others: {error}") from error
    return found


def hashed(identity: dict[str, str]) -> str:
    """The hash of a plan whose parts have these digests."""
    return digest(sorted(identity.items()))


def uniform(scale: Any) -> Any:
    """A metric as one number where it is the same for all states, and `None` where that is one."""
    if scale is None or np.unique(scale).size != 1:
        return scale
    one = float(np.ravel(scale)[0])
    return None if one == 1 else one


def probe_parts(given: Any, fitted: Any) -> dict[str, Any]:
    """What counts of a probe: as it was given, and as it fits a model and a frequency."""
    us = fitted.us
    if us is not None and not callable(us) and us.shape[0] == 1 and us.ndim == 2 and not np.asarray(us).any():
        # As where there is none.
        us = None
    return {
        "probe.ts": fitted.ts,
        "probe.us": Traced(us, jax.ShapeDtypeStruct((), fitted.ts.dtype)) if callable(us) else us,
        # A frequency that is left to the bifurcation is another plan than any that is given.
        "probe.us.frequency": "that of the bifurcation" if given.at_frequency(1.0) is not given else None,
        "probe.x0": "the fixed point" if given.x0 is None else fitted.x0,
        "probe.mask": fitted.mask,
    }
