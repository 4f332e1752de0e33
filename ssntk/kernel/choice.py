"""Which algorithm computes a kernel, and why."""

import math
from typing import Any, NamedTuple, Unpack

import equinox as eqx
import numpy as np

from ssntk.errors import as_choice, as_count, as_scalar
from ssntk.kernel.jacobian import METHODS, Choice, as_method, jacobian_choice
from ssntk.kernel.replay import Replay, check_room
from ssntk.kernel.rows import Asked, Rows, asked_of
from ssntk.kernel.sites import opened
from ssntk.kernel.sites.gram import event_bytes, site_bytes
from ssntk.kernel.sites.signals import with_signals
from ssntk.results import Speaks, Table

# The least number of units from which inner products between events are faster, for the kernel, and for its products with
# vectors. The second is larger, since such products are cheap anyway.
UNITS_FOR_KERNEL, UNITS_FOR_PRODUCTS = 96, 256
# At least so many vectors share one walk through the steps.
BLOCK = 16


def kernel_choice(rows: Rows, method: str) -> tuple[Choice, Rows]:
    """Which algorithm computes the kernel of these rows, and the rows prepared for it.

    Raises `ValueError` if `method` is not possible.
    """
    if method not in ("auto", "sites"):
        return jacobian_choice(rows.replay, method), rows
    forced = method == "sites"
    why = _without_sites(rows)
    if why is None:

        def worth(events: int, shape: tuple[int, ...]) -> bool:
            return forced or (min(shape) >= UNITS_FOR_KERNEL and 3 * events <= min(shape))

        ready, why = with_signals(rows.replay, opened.LEAST if forced else UNITS_FOR_KERNEL, worth)
        if why is None:
            needed = site_bytes(ready)
            if not forced and needed > rows.replay.bytes:
                return jacobian_choice(rows.replay, "auto"), rows
            check_room(needed, "cotangents of all events")
            events = max(signal.shape[2] for signal in ready.met)
            why = f"a save interval has {events} events (sites in stages of steps), few for the sides of the weights there"
            return Choice("sites", "it was asked for" if forced else why), _replaced(rows, ready)
    if forced:
        raise ValueError(f"method 'sites' is not possible: {why}")
    return jacobian_choice(rows.replay, "auto"), rows


def check_k(k: object, rows: int, parameters: int) -> None:
    """Raise `ValueError` unless k is a number of eigenvalues that is smaller than that of all of them."""
    if as_count(k, "k") >= min(rows, parameters):
        raise ValueError(f"k must be below the number of rows and of parameters, {min(rows, parameters)}, got {k}")


class KernelPlan(NamedTuple):
    """What [`kernel_plan`][] reports.

    - `method`: the algorithm, and `why`: the reason in a sentence.
    - `rows`, `parameters`: the sizes of J.
    - `memory`: roughly the memory at the peak, in bytes.
    """

    method: str
    why: str
    rows: int
    parameters: int
    memory: float

    def _line(self) -> str:
        return f"KernelPlan: {self.method}: {self.why}"

    def _tables(self) -> list[Table]:
        return [Table((), [(name, f"{getattr(self, name):.3g}") for name in ("rows", "parameters", "memory")])]

    summary, _repr_html_ = Speaks.summary, Speaks._repr_html_

    def __str__(self) -> str:
        return (
            f"{self.method}: {self.why}\n"
            f"{self.rows} rows, {self.parameters} parameters, about {self.memory / 1e9:.2g} GB at the peak"
        )


def kernel_plan(
    model: Any, probe: Any, *, k: Any = None, method: str = "auto", memory: Any = 2e9, **asked: Unpack[Asked]
) -> KernelPlan:
    """Which algorithm [`ntk`][] would use, or [`ntk_spectrum`][] for the top k eigenvalues, and why. Nothing is solved.

    Arguments and errors are as in these two functions, except that a kernel too large for this machine is no error. Print
    the result to read it.

    **Example:**

    ```python
    model = ssntk.CTRNN(n_state=8, n_input=1, n_output=1, key=jax.random.key(0))
    plan = ssntk.kernel_plan(model, ssntk.Probe(np.linspace(0.0, 1.0, 5)))
    print(plan.method, plan.rows, plan.parameters)  # segments 40 80
    ```
    """
    as_choice(method, "method", (*METHODS, "sites")) if k is None else as_method(method)
    limit = float(as_scalar(memory, "memory", positive=True))
    rows = asked_of(model, probe, **asked).recorded()
    replay = rows.replay
    total, p, itemsize = math.prod(replay.shape[:3]), replay.shape[3], np.dtype(replay.probe.ts.dtype).itemsize
    kernel = total**2 * itemsize
    if k is not None:
        check_k(k, total, p)
        if replay.bytes > limit and replay.replayable:
            ready = product_rows(rows).replay
            each = p * itemsize if ready.signals is None else event_bytes(ready)
            how = "" if ready.signals is None else ", by inner products of events"
            why = f"J would take {replay.bytes / 1e9:.3g} GB, more than memory = {limit:g} bytes{how}"
            return KernelPlan("products", why, total, p, 4.0 * BLOCK * each)
        kernel = 0
    choice, ready = kernel_choice(rows, method) if k is None else (jacobian_choice(replay, method), rows)
    if choice.method != "sites":
        return KernelPlan(choice.method, choice.why, total, p, float(2 * replay.bytes + kernel))
    return KernelPlan(choice.method, choice.why, total, p, float(2 * kernel + site_bytes(ready.replay)))


def product_rows(rows: Rows) -> Rows:
    """The rows. They have signals if products are cheaper by inner products of events."""
    if rows.over_theta is not None:
        return rows
    intervals = rows.replay.probe.n_batch * (rows.replay.probe.ts.shape[0] - 1)

    def worth(events: int, shape: tuple[int, ...]) -> bool:
        return min(shape) >= UNITS_FOR_PRODUCTS and intervals * events <= 2 * shape[1]

    return _replaced(rows, with_signals(rows.replay, UNITS_FOR_PRODUCTS, worth)[0])


def _without_sites(rows: Rows) -> str | None:
    """Why the kernel has no site form; `None` if it has one."""
    if not rows.replay.observation.direct:
        return f"the {rows.replay.observation.name} is observed, not the state"
    if rows.over_theta is not None:
        return "a preconditioner weighs every parameter"
    return None


def _replaced(rows: Rows, replay: Replay) -> Rows:
    return eqx.tree_at(lambda rows: rows.replay, rows, replay)
