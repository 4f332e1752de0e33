"""Processes of this machine that measure points side by side. If one of them dies, it is replaced."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any

from ssntk.errors import as_count

# Each process has one thread, since more would slow each other down.
ONE_THREAD: dict[str, str] = {
    f"{library}_THREADS": "1" for library in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM")
}
# How often a task is tried if its processes die, and how often a process is started if it dies before it begins.
TRIES, STARTS = 3, 10
_environment = threading.Lock()


class WorkerDied(RuntimeError):
    """The process of a task died every time that the task was tried."""


class Workers(concurrent.futures.Executor):
    """`count` single-threaded processes, for `run(sweep, store, executor=Workers(2))`; use it as a context.

    The processes are spawned, since forked ones would hang in JAX. A script that makes them therefore needs
    `if __name__ == "__main__":`. If a process dies, it is replaced, and its task is given to the new one. If a task kills
    three processes, it raises [`WorkerDied`][].

    **Example:**

    ```python
    with ssntk.Workers(2) as pool:  # and ssntk.run(sweep, store, pool), under `if __name__ == "__main__":` in a script
        print(pool.count)  # 2
    ```
    """

    def __init__(self, count: int):
        """Raises `ValueError` if `count` is not a positive integer."""
        self.count = as_count(count, "count")
        self._threads = concurrent.futures.ThreadPoolExecutor(self.count)
        self._own = threading.local()
        self._pools: list[concurrent.futures.ProcessPoolExecutor] = []
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: object, **kwargs: Any) -> concurrent.futures.Future:
        """Call `fn(*args, **kwargs)` in one of the processes."""
        return self._threads.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes. With `cancel_futures` they end at once, whatever they are doing."""
        self._closed = self._closed or cancel_futures
        if cancel_futures:
            for pool in self._pools:
                for process in list((pool._processes or {}).values()):
                    process.kill()
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait, cancel_futures=True)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # If the keyboard or an error stops the run, nobody waits for the tasks under way.
        self.shutdown(cancel_futures=kind is not None)

    def _run(self, fn: Callable[..., Any], args: tuple[object, ...], kwargs: dict[str, object]) -> object:
        tries = starts = 0
        while tries < TRIES and starts < STARTS:
            if self._closed:
                raise concurrent.futures.CancelledError
            begun = False
            try:
                pool = self._pool()
                # If a process dies before it has begun, the task is not the cause.
                pool.submit(os.getpid).result()
                begun = True
                return pool.submit(fn, *args, **kwargs).result()
            except concurrent.futures.process.BrokenProcessPool:
                self._own.pool = None
                tries, starts = (tries + 1, 0) if begun else (tries, starts + 1)
        if tries < TRIES:
            raise WorkerDied(f"the processes that were to measure it died as they began, {STARTS} in a row")
        raise WorkerDied(f"the process that measured it died, {TRIES} times (killed, out of memory, or crashed)")

    def _pool(self) -> concurrent.futures.ProcessPoolExecutor:
        """The process of this thread. Each thread has its own, so that it is known which task a death belongs to."""
        pool = getattr(self._own, "pool", None)
        if pool is None:
            spawn = multiprocessing.get_context("spawn")
            pool = concurrent.futures.ProcessPoolExecutor(1, spawn, _begin, (os.getpid(),))
            # A process takes the environment and the signal mask of the moment in which it starts.
            with _environment, environment(ONE_THREAD), uninterrupted():
                pool.submit(os.getpid)
            self._own.pool = pool
            self._pools.append(pool)
        return pool


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """Set these environment variables for processes that start inside this context."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Keep Ctrl-C from processes that start inside this context, which the process that starts them ends. A terminal sends
    it to all, and one that is still importing would print a traceback."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(parent: int) -> None:
    """Set up a new process: it has one thread, and ends when the process that started it has died."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    one_thread()


def one_thread() -> None:
    """Give the compiled code of this process one thread, if JAX has not started yet.

    This restricts the cores that the process sees. XLA's own flag for one thread sums products of matrices in another order,
    so that records would depend on the process that measured them.
    """
    os.environ.update(ONE_THREAD)
    if not hasattr(os, "sched_setaffinity"):
        return
    import jax

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})
    jax.devices()
    os.sched_setaffinity(0, cores)
