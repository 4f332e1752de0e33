"""When a record of a training run is due, and what it cost."""

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import jax

from ssntk.errors import as_count

# The share of the time of training that records may take.
SHARE = 0.05
# How fast a slow record is forgotten, from one to the next.
FORGETS = 0.8
# What JAX calls its ways from a function to a program.
COMPILING = "/jax/core/compile/"


class Pace:
    """Records at every so many steps, or so that they take at most 5 % of the time that training takes.

    Compilation counts for neither: it happens once, however often one looks.
    """

    def __init__(self, every: Any):
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
        # As long as the slowest of late, it will still be within its share.
        return self.spent + self.last <= SHARE * training

    def took(self, seconds: float, compiling: float) -> None:
        """A record ended now that took so many seconds, in some of which something was compiled."""
        if self.began is None:
            self.began = time.perf_counter() - seconds
        self.recording += seconds
        cost = max(seconds - compiling, 0.0)
        self.spent += cost
        # One that is slow now and then is expected again, but not for ever.
        self.last = max(cost, FORGETS * self.last)


class Compiling:
    """`seconds` in which this thread traced and compiled, as JAX reports them."""

    def __init__(self) -> None:
        self.seconds, self._thread = 0.0, threading.get_ident()
        self._spans: list[tuple[float, float]] = []

    def __call__(self, event: str, duration_secs: float, **kwargs: Any) -> None:
        if not event.startswith(COMPILING) or threading.get_ident() != self._thread:
            return
        began = time.perf_counter() - duration_secs
        # Functions are traced within one another: what an inner one took is part of the outer one's time.
        while self._spans and self._spans[-1][0] >= began:
            self.seconds -= self._spans.pop()[1]
        self._spans.append((began, duration_secs))
        self.seconds += duration_secs


@contextlib.contextmanager
def compiling() -> Iterator[Compiling]:
    """How long is compiled within."""
    seen = Compiling()
    jax.monitoring.register_event_duration_secs_listener(seen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_duration_listener(seen)
