"""When a record of a training run is due, and what it cost."""

import contextlib
import threading
import time
from collections.abc import Iterator

import jax

from ssntk.errors import as_count

# Records may take this share of the time of training.
SHARE = 0.05
# The expected cost of a record falls by at least this factor from one record to the next, after a slow one.
FORGETS = 0.8
# The events by which JAX reports its steps from a function to a program begin like this.
COMPILING = "/jax/core/compile/"


class Pace:
    """Decides when to record: at every so many steps, or so that records take at most 5 % of the time of training.

    Time that is spent on compilation does not count, since it is spent only once.
    """

    def __init__(self, every: object):
        if isinstance(every, str) and every != "auto":
            raise ValueError(f"every must be a number of steps or 'auto', got {every!r}")
        self.every = every if isinstance(every, str) else as_count(every, "every")
        self.began: float | None = None
        self.recording = self.spent = self.last = 0.0

    def due(self, step: int) -> bool:
        """Whether to record now."""
        if isinstance(self.every, int):
            return step % self.every == 0
        if self.began is None:
            return True
        training = time.perf_counter() - self.began - self.recording
        # A record that takes as long as a slow recent one would still be within its share.
        return self.spent + self.last <= SHARE * training

    def took(self, seconds: float, compiling: float) -> None:
        """Note that a record has ended, which took `seconds` [s], of which `compiling` [s] went to compilation."""
        if self.began is None:
            self.began = time.perf_counter() - seconds
        self.recording += seconds
        cost = max(seconds - compiling, 0.0)
        self.spent += cost
        # After a slow record another slow one is expected, but not for ever.
        self.last = max(cost, FORGETS * self.last)


class Compiling:
    """How many `seconds` this thread traced and compiled, as JAX reports them."""

    def __init__(self) -> None:
        self.seconds, self._thread = 0.0, threading.get_ident()
        self._spans: list[tuple[float, float]] = []

    def __call__(self, event: str, duration_secs: float, **kwargs: object) -> None:
        if not event.startswith(COMPILING) or threading.get_ident() != self._thread:
            return
        began = time.perf_counter() - duration_secs
        # Functions are traced within one another, so the time of an inner one is part of the outer one's time.
        while self._spans and self._spans[-1][0] >= began:
            self.seconds -= self._spans.pop()[1]
        self._spans.append((began, duration_secs))
        self.seconds += duration_secs


@contextlib.contextmanager
def compiling() -> Iterator[Compiling]:
    """Measure how long is compiled inside this context."""
    seen = Compiling()
    jax.monitoring.register_event_duration_secs_listener(seen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(seen)
