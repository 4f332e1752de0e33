"""Corrections of points on several curves, in one call of compiled code.

Each curve is followed by a thread of its own, which stops at each correction until all others have asked for one too. On
small networks a call takes longer than the correction itself.
"""

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

from ssntk.compiled import Held
from ssntk.curves.correct import Corrected, correcting_each, in_dtype, reached

T = TypeVar("T")


class _Asked(NamedTuple):
    """A correction that a curve waits for: the conditions, the number of its system, and where it begins."""

    modes: Any
    number: int
    parts: Any


class _Stopped(Exception):
    """The threads end without a result, since the caller has."""


class Together:
    """The corrector of several curves, of systems that differ in the values of their arrays only."""

    def __init__(self, count: int):
        self.count, self.running = count, count
        self.systems: list[Held] = []
        self.asked: dict[int, _Asked] = {}
        self.found: dict[int, Any] = {}
        self.stacked: Held | None = None
        self.changed = threading.Condition()
        self.stopped = False

    def corrector(self) -> Callable[..., Corrected | None]:
        """A corrector for one curve."""
        own = threading.get_ident()

        def correct(modes: Any, held: Held, *parts: Any) -> Corrected | None:
            with self.changed:
                number = next((i for i, one in enumerate(self.systems) if one is held), -1)
                if number < 0:
                    number = len(self.systems)
                    self.systems.append(held)
                    self.stacked = None
                self.asked[own] = _Asked(modes, number, in_dtype(held, parts))
                self._run_if_all_wait()
                while own not in self.found and not self.stopped:
                    self.changed.wait()
                if self.stopped:
                    raise _Stopped
                found = self.found.pop(own)
            if isinstance(found, BaseException):
                raise found
            return found

        return correct

    def ended(self) -> None:
        """Wait for one curve less."""
        with self.changed:
            self.running -= 1
            self._run_if_all_wait()

    def stop(self) -> None:
        """End all threads."""
        with self.changed:
            self.stopped = True
            self.changed.notify_all()

    def _run_if_all_wait(self) -> None:
        """Compute all corrections if every curve that is still followed waits for one."""
        if not self.asked or len(self.asked) < self.running or self.stopped:
            return
        try:
            for modes in dict.fromkeys(one.modes for one in self.asked.values()):
                self._run(modes, {own: one for own, one in self.asked.items() if one.modes == modes})
        # The threads raise it: this one may belong to another curve.
        except Exception as error:
            self.found |= dict.fromkeys(self.asked.keys() - self.found.keys(), error)
        self.asked.clear()
        self.changed.notify_all()

    def _run(self, modes: Any, asked: dict[int, _Asked]) -> None:
        """Compute the corrections with these conditions."""
        if self.stacked is None:
            arrays = [one.arrays for one in self.systems]
            # The number of systems does not change the compiled code.
            arrays += arrays[:1] * (self.count - len(arrays))
            self.stacked = Held(
                jax.tree.map(lambda *parts: jax.device_put(np.stack([np.asarray(part) for part in parts])), *arrays),
                self.systems[0].rest,
            )
        every = list(asked.values())
        filled = every + every[:1] * (self.count - len(every))
        parts = jax.tree.map(lambda *each: np.stack(each), *[one.parts for one in filled])
        which = np.array([one.number for one in filled], np.int32)
        found = np.asarray(correcting_each(modes)(self.stacked, np.int32(len(every)), which, *parts))
        for numbers, (own, one) in zip(found, asked.items(), strict=False):
            self.found[own] = reached(modes, numbers, one.parts)


def each(jobs: Sequence[Callable[[Callable[..., Corrected | None]], T]]) -> list[T]:
    """The results of jobs, each of which is called with a corrector, all at the same time. Errors are raised."""
    together = Together(len(jobs))
    results: list[Any] = [None] * len(jobs)

    def run(i: int) -> None:
        try:
            results[i] = jobs[i](together.corrector()), None
        except BaseException as error:
            results[i] = None, error
        finally:
            together.ended()

    threads = [threading.Thread(target=run, args=(i,), name=f"ssntk-curve-{i}", daemon=True) for i in range(len(jobs))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        together.stop()
        raise
    for _, error in results:
        if error is not None:
            raise error
    return [found for found, _ in results]
