"""Which algorithm computes a kernel, and why."""

import equinox as eqx

from ssntk.kernel.jacobian import Choice, jacobian_choice
from ssntk.kernel.replay import Replay
from ssntk.kernel.rows import Rows
from ssntk.kernel.signals import with_signals

# From how many units inner products between events pay, for the kernel and for its products with vectors, which are cheap.
UNITS_FOR_KERNEL, UNITS_FOR_PRODUCTS = 96, 256


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
