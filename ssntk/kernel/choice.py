"""Which algorithm computes a kernel, and why."""

import math
from typing import Any, NamedTuple, Unpack

import equinox as eqx
import numpy as np

from ssntk.errors import as_choice, as_scalar
from ssntk.kernel.jacobian import METHODS, Choice, jacobian_choice
from ssntk.kernel.replay import Replay
from ssntk.kernel.rows import Asked, Rows, rows_of
from ssntk.kernel.signals import with_signals

# From how many units inner products between events pay, for the kernel and for its products with vectors, which are cheap.
UNITS_FOR_KERNEL, UNITS_FOR_PRODUCTS = 96, 256
# Vectors that share a walk, at least.
BLOCK = 16


def kernel_choice(rows: Rows, method: str) -> tuple[Choice, Rows]:
    """How the kernel of these rows is computed, and the rows made ready for it.

    Raises `ValueError` where `method` cannot be.
    """
    if method not in ("auto", "sites"):
        return jacobian_choice(rows.replay, method), rows
    forced = method == "sites"
    why = _without_sites(rows)
    if why is None:

        def worth(events: int, shape: tuple[int, ...]) -> bool:
            return forced or (min(shape) >= UNITS_FOR_KERNEL and 3 * events <= min(shape))

        ready = with_signals(rows.replay, worth)
        if ready.signals is not None:
            events = max(signal.shape[2] for signal in ready.signals)
            why = f"a save interval has {events} events (sites in stages of steps), few for {ready.model.n_state} units"
            return Choice("sites", "it was asked for" if forced else why), _replaced(rows, ready)
        why = "no leaf of theta is large and meets signals in matrix products alone, with few events in a save interval"
    if forced:
        raise ValueError(f"method 'sites' is not possible: {why}")
    return jacobian_choice(rows.replay, "auto"), rows


class KernelPlan(NamedTuple):
    """What [`kernel_plan`][] tells: the method and why, the sizes of the kernel, and roughly the bytes at the peak."""

    method: str
    why: str
    rows: int
    parameters: int
    memory: float

    def __str__(self) -> str:
        return (
            f"{self.method}: {self.why}\n"
            f"{self.rows} rows, {self.parameters} parameters, about {self.memory / 1e9:.2g} GB at the peak"
        )


def kernel_plan(
    model: Any, probe: Any, *, k: Any = None, method: str = "auto", memory: Any = 2e9, **asked: Unpack[Asked]
) -> KernelPlan:
    """How [`ntk`][] would compute the kernel, or [`ntk_spectrum`][] its top k eigenvalues, and why; nothing but the solve is
    computed.

    Arguments and errors as of these two; `print` the result.
    """
    as_choice(method, "method", (*METHODS, "sites"))
    rows = rows_of(model, probe, formed=None, **asked)
    replay = rows.replay
    total, p, itemsize = math.prod(replay.shape[:3]), replay.shape[3], np.dtype(replay.probe.ts.dtype).itemsize
    kernel = total**2 * itemsize
    if k is not None:
        limit = float(as_scalar(memory, "memory", positive=True))
        if replay.bytes > limit and replay.replayable:
            ready = product_rows(rows).replay
            each = (sum(s[..., 0].size for s in ready.signals or []) * replay.model.n_state + p) * itemsize
            sites = "" if ready.signals is None else ", by inner products of events"
            why = f"J would take {replay.bytes / 1e9:.3g} GB, more than memory = {limit:g} bytes{sites}"
            return KernelPlan("products", why, total, p, 4.0 * BLOCK * each)
        kernel = 0
    choice, ready = kernel_choice(rows, method) if k is None else (jacobian_choice(replay, method), rows)
    if choice.method != "sites":
        return KernelPlan(choice.method, choice.why, total, p, float(2 * replay.bytes + kernel))
    events = sum(s[..., 0].size * s.shape[-1] for s in ready.replay.signals)
    return KernelPlan(choice.method, choice.why, total, p, float(2 * kernel + events * replay.model.n_state * itemsize))


def product_rows(rows: Rows) -> Rows:
    """The rows, with signals where products by inner products of events are cheaper."""
    if rows.over_theta is not None:
        return rows
    intervals = rows.replay.probe.n_batch * (rows.replay.probe.ts.shape[0] - 1)

    def worth(events: int, shape: tuple[int, ...]) -> bool:
        return min(shape) >= UNITS_FOR_PRODUCTS and intervals * events <= 2 * shape[1]

    return _replaced(rows, with_signals(rows.replay, worth))


def _without_sites(rows: Rows) -> str | None:
    """What keeps the kernel from its site form, if anything does."""
    if rows.replay.observation != "state":
        return f"the {rows.replay.observation} is observed, not the state"
    if rows.over_theta is not None:
        return "a preconditioner weighs every parameter"
    return None


def _replaced(rows: Rows, replay: Replay) -> Rows:
    return eqx.tree_at(lambda rows: rows.replay, rows, replay)
