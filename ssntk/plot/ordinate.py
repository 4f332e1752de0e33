"""The quantity on the vertical axis of a diagram."""

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ssntk.bifurcation.continuation import Branch
from ssntk.bifurcation.projection import direction_of

PRINCIPAL = "state (first principal\ncomponent, linear\ntrend in p removed)"


class Ordinate(NamedTuple):
    """The quantity on the vertical axis.

    - `height`: a function of states (k, n) and outputs (k, m), or `None` for the latter, that returns the heights (k,).
    - `label`: the label of the axis.
    """

    height: Callable[[np.ndarray, np.ndarray | None], np.ndarray]
    label: str

    def along(self, branch: Branch) -> np.ndarray:
        """The heights of the points of a branch."""
        return self.height(branch.x, outputs_of(branch))

    def at(self, events: Sequence[Any]) -> np.ndarray:
        """The heights of one or more bifurcations; NaN if outputs are requested and a bifurcation does not hold its own."""
        return np.concatenate([self._of(event) for event in events])

    def _of(self, event: Any) -> np.ndarray:
        outputs = outputs_of(event)
        if outputs is None:
            return self.height(np.asarray(event.x)[None], None)
        return self.height(np.asarray(event.x)[None], np.asarray(outputs)[None])


def outputs_of(result: object) -> np.ndarray | None:
    """The readout of a branch or an event; `None` if an earlier version wrote it, which kept no readout."""
    return getattr(result, "outputs", None)


def as_ordinate(y: Any, branches: Sequence[Any], *, states: bool = False) -> Ordinate:
    """The quantity that `y` requests; `ValueError` if these branches do not have it. `states`: allow no outputs."""
    n = branches[0].x.shape[1]
    held = [] if states else [out for out in map(outputs_of, branches) if out is not None]
    m = held[0].shape[1] if held and len(held) == len(branches) else 0
    if y is None:
        y = "output 0" if m and any(getattr(branch, "has_readout", False) for branch in branches) else 0
    if callable(y):
        return Ordinate(lambda x, _: _called(y, x), getattr(y, "__name__", "").replace("<lambda>", "") or "y(x)")
    if isinstance(y, (int, np.integer)) and not isinstance(y, bool) and 0 <= y < n:
        return Ordinate(lambda x, _: x[:, int(y)], "state $x$" if n == 1 else f"state {int(y)}")
    if isinstance(y, str) and y == "norm":
        return Ordinate(lambda x, _: _norm(x), "norm of the state $|x|$")
    if isinstance(y, str) and y == "principal":
        if n == 1:
            return Ordinate(lambda x, _: x[:, 0], "state $x$")
        centre, direction = direction_of(branches)
        return Ordinate(lambda x, _: (x - centre) @ direction, PRINCIPAL)
    named = re.fullmatch(r"output (\d+)", y) if isinstance(y, str) else None
    if named and int(named[1]) < m:
        which = int(named[1])
        return Ordinate(lambda x, out: np.full(len(x), np.nan) if out is None else out[:, which], f"output {which}")
    known = [f"a state's index from 0 to {n - 1}" if n > 1 else "the state's index 0"]
    known += [repr("output 0") if m == 1 else f"'output 0' to 'output {m - 1}'"] if m else []
    raise ValueError(f"y must be {', '.join(known)}, 'norm', 'principal' or a function of a state (n,), got {y!r}")


def _norm(x: np.ndarray) -> np.ndarray:
    """The norm of each state. States are first divided by the largest entry, so that no square overflows."""
    size = np.abs(x).max(initial=0.0) or 1.0
    return size * np.linalg.norm(x / size, axis=1)


def _called(fn: Callable[[np.ndarray], object], x: np.ndarray) -> np.ndarray:
    """The values (k,) of a user's function at states x (k, n)."""
    values = [np.asarray(fn(state)) for state in x]
    if any(value.size != 1 or value.dtype.kind not in "biuf" for value in values):
        shown = next(value for value in values if value.size != 1 or value.dtype.kind not in "biuf")
        raise ValueError(f"y must return a real number for a state (n,), got {shown.dtype} of shape {shown.shape}")
    return np.array([float(value.reshape(())) for value in values])
