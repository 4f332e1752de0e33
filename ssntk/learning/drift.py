"""How far a kernel has moved."""

from typing import NamedTuple

import numpy as np

from ssntk.kernel.top import smaller_gram
from ssntk.results import Speaks, short


class Drift(NamedTuple):
    """How much a kernel K' differs from an earlier kernel K.

    - `relative_change`: `|K' - K| / |K|` in the Frobenius norm; 0 if the kernel did not move.
    - `alignment`: `<K, K'> / (|K| |K'|)`, the cosine between them; 1 if K' is a multiple of K.

    **Example:**

    ```python
    model = ssntk.CTRNN(3, 1, 1, key=jax.random.key(0))
    probe = ssntk.Probe(np.linspace(0.0, 2.0, 5), np.ones((1, 1)))
    training = ssntk.linearised_training(model, probe, np.ones((1, 5, 1)), 0.01, steps=5)
    print(training.drift_to(model).relative_change)  # 0.0
    ```
    """

    relative_change: float
    alignment: float

    def _line(self) -> str:
        return f"Drift: relative change {short(self.relative_change)}, alignment {short(self.alignment)}"

    _tables, summary, _repr_html_ = Speaks._tables, Speaks.summary, Speaks._repr_html_


class Seen(NamedTuple):
    """A Jacobian (rows, p), and the smaller of J J^T and J^T J."""

    jacobian: np.ndarray
    gram: np.ndarray


def seen(jacobian: np.ndarray) -> Seen:
    """What [`drift`][] needs of a kernel."""
    return Seen(jacobian, smaller_gram(jacobian))


def drift(before: Seen, after: Seen) -> Drift:
    """The drift from one kernel J J^T to another. If p is smaller than rows, nothing of size rows^2 is formed.

    It resolves relative changes down to the square root of the rounding error.
    """
    old, new = float(np.linalg.norm(before.gram)), float(np.linalg.norm(after.gram))
    if old == 0:
        return Drift(0.0 if new == 0 else np.inf, np.nan)
    if new == 0:
        return Drift(1.0, np.nan)
    if before.jacobian.shape[0] <= before.jacobian.shape[1]:
        inner = float(np.vdot(before.gram / old, after.gram / new))
    else:
        inner = float(np.square(before.jacobian.T @ after.jacobian / (old * new) ** 0.5).sum())
    ratio = new / old
    # |K' - K|^2 = (|K'| - |K|)^2 + 2 |K| |K'| (1 - alignment), in units of |K|.
    return Drift(float(np.sqrt((ratio - 1) ** 2 + 2 * ratio * max(1 - inner, 0.0))), inner)
