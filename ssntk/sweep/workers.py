"""Processes of this machine that measure points side by side, and outlive the death of one of them."""

import concurrent.futures
import concurrent.futures.process
import contextlib
import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from ssntk.errors import as_count

# Each process has one thread: more get in each other's way.
ONE_THREAD: dict[str, str] = {
    f"{library}_THREADS": "1" for library in ("OMP_NUM", "OPENBLAS_NUM", "MKL_NUM", "VECLIB_MAXIMUM")
}
# How often a task is tried whose processes die of it, and how often a process is started that dies before it begins.
TRIES, STARTS = 3, 10
_environment = threading.Lock()


class WorkerDied(RuntimeError):
    """A task whose process died every time that it was tried."""


class Workers(concurrent.futures.Executor):
    """`count` single-threaded processes, for `run(sweep, store, executor=Workers(2))`; use it as a context.

    They are spawned, not forked, which would hang JAX: a script that makes them needs `if __name__ == "__main__":`.
    A process that dies is replaced, and its task given to the new one; a task that kills three raises [`WorkerDied`][].

    **Example:**

    ```python
    with ssntk.Workers(2) as pool:  # and ssntk.run(sweep, store, pool), under `if __name__ == "__main__":` in a script
        print(pool.count)  # 2
    ```
    """

    def __init__(self, count: int):
        """Raises `ValueError` where `count` is no positive integer."""
        self.count = as_count(count, "count")
        self._threads = concurrent.futures.ThreadPoolExecutor(self.count)
        self._own = threading.local()
        self._pools: list[concurrent.futures.ProcessPoolExecutor] = []
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future:
        """`fn(*args, **kwargs)` in one of the processes."""
        return self._threads.submit(self._run, fn, args, kwargs)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes; with `cancel_futures` at once, whatever they are doing."""
        self._closed = self._closed or cancel_futures
        if cancel_futures:
            for pool in self._pools:
                for process in list((pool._processes or {}).values()):
                    process.kill()
        self._threads.shutdown(wait, cancel_futures=cancel_futures)
        for pool in self._pools:
            pool.shutdown(wait, cancel_futures=True)

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        # Stopped by the keyboard, or by an error: nobody waits for what is under way.
        self.shutdown(cancel_futures=kind is not None)

    def _run(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        tries = starts = 0
        while tries < TRIES and starts < STARTS:
            if self._closed:
                raise concurrent.futures.CancelledError
            begun = False
            try:
                pool = self._pool()
                # Whatever kills a process that has not begun has nothing to do with the task.
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
        """This thread's own process, so that it is known whose task a death belongs to."""
        pool = getattr(self._own, "pool", None)
        if pool is None:
            spawn = multiprocessing.get_context("spawn")
            pool = concurrent.futures.ProcessPoolExecutor(1, spawn, _begin, (os.getpid(),))
            # A process has the environment of the moment in which it starts.
            with _environment, environment(ONE_THREAD):
                pool.submit(os.getpid)
            self._own.pool = pool
            self._pools.append(pool)
        return pool


@contextlib.contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    """These variables for new processes, while it lasts."""
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


def _begin(parent: int) -> None:
    """Have one thread, and end when the process that started this one has died, without waiting for more work from it."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    one_thread()


def one_thread() -> None:
    """Give the compiled code of this process one thread, as long as JAX has not started.

    By the cores that it sees: with XLA's own flag for this, products of matrices are summed in another order, and records
    would depend on who measured them.
    """
    os.environ.update(ONE_THREAD)
    if not hasattr(os, "sched_setaffinity"):
        return
    import jax

    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(cores)[os.getpid() % len(cores)]})
    jax.devices()
    os.sched_setaffinity(0, cores)
