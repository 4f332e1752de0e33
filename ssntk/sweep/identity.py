"""What a plan computes, as hashes of its structure. Text for people is never hashed, since it differs between terminals.

A function that JAX traces enters as its operations. Numbers enter by dtype, shape and bytes, random keys by their data.
Other functions are not traced, such as the norm that a solver uses, or a function that JAX calls back. If a library holds
such a function, it enters by its name; otherwise by its code and by everything that the code refers to.
"""

import jax
import numpy as np

from ssntk.dynamics.probe import AbstractProbe, Probe
from ssntk.sweep.described import digest
from ssntk.sweep.traced import Traced, primitives

# The version of these descriptions. If two plans have different versions, they cannot be compared part by part.
VERSION = "2"

__all__ = ["Traced", "digest", "digests", "hashed", "primitives", "probe_parts"]


def digests(parts: dict[str, object]) -> dict[str, str]:
    """The digest of each part of a plan, by its name.

    Parts that are `None` are left out. So a plan keeps its hash if a later version adds a part that it does not use. Raises
    `ValueError`, which names the part, if a part cannot be distinguished from others.
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


def uniform(scale: np.ndarray | None) -> np.ndarray | float | None:
    """A metric as one number if it is the same for all states, and as `None` if that number is one."""
    if scale is None or np.unique(scale).size != 1:
        return scale
    one = float(np.ravel(scale)[0])
    return None if one == 1 else one


def probe_parts(given: Probe, fitted: AbstractProbe) -> dict[str, object]:
    """The parts of a probe that matter: as it was given, and as it fits a model and a frequency."""
    us = fitted.us
    if us is not None and not callable(us) and us.shape[0] == 1 and us.ndim == 2 and not np.asarray(us).any():
        # An input of zeros is the same as none.
        us = None
    return {
        "probe.ts": fitted.ts,
        "probe.us": Traced(us, jax.ShapeDtypeStruct((), fitted.ts.dtype)) if callable(us) else us,
        # If the frequency is that of the bifurcation, the plan differs from one with any given frequency.
        "probe.us.frequency": "that of the bifurcation" if given.at_frequency(1.0) is not given else None,
        "probe.x0": "the fixed point" if given.x0 is None else fitted.x0,
        "probe.mask": fitted.mask,
        "probe.hold": fitted.hold or None,
    }
