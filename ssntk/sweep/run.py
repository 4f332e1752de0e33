"""Running a sweep: each missing batch of points is measured, and its points are recorded immediately."""

import asyncio
import builtins
import contextlib
import hashlib
import io
import multiprocessing
import pickle
import queue
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from ssntk.errors import NumericalError, as_count
from ssntk.results import ByName
from ssntk.sweep.abstract_plan import AbstractPlan
from ssntk.sweep.header import StoreError
from ssntk.sweep.progress import reporting
from ssntk.sweep.record import record_of
from ssntk.sweep.store import DONE, Store
from ssntk.sweep.workers import one_thread
from ssntk.threads import one_blas_thread

# How many batches wait in an executor at a time. It is enough for any cluster, and keeps a million points out of memory.
WAITING = 1024
# The errors that `Workers` and Dask raise for a task whose processes died repeatedly.
DEATHS = ("WorkerDied", "KilledWorker")
# Words in a failure of compiled code that a point has caused, by its size, or by a function that is called back.
OF_THE_POINT = ("RESOURCE_EXHAUSTED", "Out of memory", "allocat", "allback")
# Errors of a function that is called back which no point has caused: of a disk or a network, or a request to end.
ELSEWHERE = (OSError, ImportError, SystemExit, KeyboardInterrupt)
# Finds where the lines of a traceback end and the error begins.
RAISED = re.compile(r'.*\n  File "[^"\n]*", line \d+[^\n]*\n(?:    [^\n]*\n)*(?P<said>.*)', re.DOTALL)
# The thread that compiles in advance.
PREPARING = "ssntk-prepare"


class EnvironmentFault(RuntimeError):
    """A failure of compiled code that no point has caused."""


def run(
    sweep: AbstractPlan,
    store: Store,
    executor: Any = None,
    progress: bool = True,
    *,
    part: Any = None,
    retry_failed: bool = False,
) -> Store:
    """Measure every point of `sweep` that `store` does not hold yet, and return the store.

    Points are measured in the batches of the plan, and recorded as soon as their batch is measured. If a point fails, it is
    recorded as failed with its reason, and the sweep goes on. If the processes that measure a batch die repeatedly, its
    points are measured alone, and the one at fault is recorded as failed.

    **Arguments:**

    - `executor`: what measures the batches. `None`: this process, one batch after another. [`Workers`][]: processes of this
      machine. Or anything with the interface of `concurrent.futures.Executor`, such as `client.get_executor()` of Dask. All
      processes must be able to write into the store's folder.
    - `progress`: whether to show progress on standard error.
    - `part`: (i, k) measures only the i-th of k parts, i = 1 to k. So k machines can share a plan without a connection;
      `Store.merge` then merges their stores.
    - `retry_failed`: whether points that failed are measured again.

    Raises `StoreError` if the store holds another plan, is in use, or cannot be written to. Raises `NumericalError` if the
    branch holds no such bifurcation.

    **Example:** the steady-state kernel 1 / (4 mu).

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    sweep = ssntk.Sweep(
        family, towards="saddle-node", span=(1.0, -1.0), distances=[0.1, 0.01], probe=ssntk.Probe([0.0, 1.0]), x0=[1.0]
    )
    store = ssntk.Store("fold")
    ssntk.run(sweep, store, progress=False)
    print(store.to_xarray().steady_state_eigenvalues[:, 0].values.round(3))  # [25.   2.5]
    ```
    """
    if not isinstance(sweep, AbstractPlan):
        raise ValueError(f"sweep must be an ssntk.Sweep or an ssntk.Grid, got {type(sweep).__name__}")
    if not isinstance(store, Store):
        raise ValueError(f"store must be an ssntk.Store, got {type(store).__name__}")
    if executor is not None and not hasattr(executor, "submit"):
        raise ValueError(f"executor must have a method submit, got {type(executor).__name__}")
    batches = batches_of(sweep, part)
    with one_blas_thread():
        return _run(sweep, store, executor, progress, batches, retry_failed)


def _run(
    sweep: AbstractPlan,
    store: Store,
    executor: Any,
    progress: bool,
    batches: Sequence[tuple[int, ...]],
    retry_failed: bool,
) -> Store:
    identity = sweep.hash()
    held = store.check(identity, sweep)
    if held:
        # The header may have been changed by hand. It is corrected before anything is read by it.
        with store.locked():
            store.claim(identity, sweep.header(), sweep)
    kept = store.branch() if held else None
    if kept is None and sweep.coverage.leads and executor is None:
        threading.Thread(target=_prepare, args=(sweep, jax.config.values), name=PREPARING).start()
    branch = sweep.follow() if kept is None else kept
    context = sweep.begin(branch)
    # The folder is claimed only now. A plan that leads to no bifurcation must not occupy it.
    with store.locked():
        store.claim(identity, sweep.header(), sweep)
        status = store.status()
        store.set_aside(status.set_aside)
        if kept is None and branch is not None:
            store.write_branch(branch, sweep.number(branch))
        wanted = {*status.missing, *(status.failed if retry_failed else ())}
        todo = [kept for batch in batches if (kept := tuple(index for index in batch if index in wanted))]
        chosen = {index for batch in batches for index in batch}
        failed = sum(index in chosen and index not in wanted for index in status.failed)
        done = len(chosen) - sum(map(len, todo))
        with reporting(sweep.header()["title"], len(chosen), done, failed, progress) as tell:
            finished = (
                _serial(sweep, store, context, todo) if executor is None else _spread(sweep, store, context, todo, executor)
            )
            for states in finished:
                tell(len(states), sum(state != DONE for state in states))
    return store


def _prepare(sweep: AbstractPlan, settings: dict[str, object]) -> None:
    """Compile the code that measures points while their branch is followed, in a thread with the settings of the
    caller's."""
    # If this fails, it will fail again when the code is needed, and be reported then.
    with contextlib.suppress(Exception):
        if jax.config.values == settings:
            sweep.prepare()


def batches_of(sweep: AbstractPlan, part: object) -> Sequence[tuple[int, ...]]:
    """The batches of the part (i, k) of a plan; all batches if `part` is `None`."""
    if part is None:
        return sweep.batches
    if not isinstance(part, tuple) or len(part) != 2:
        raise ValueError(f"part must be (i, k), got {part!r}")
    k = as_count(part[1], "part[1]")
    i = as_count(part[0], "part[0]")
    if i > k:
        raise ValueError(f"part must be (i, k) with i from 1 to k, got ({i}, {k})")
    return sweep.batches[i - 1 :: k]


def _serial(sweep: AbstractPlan, store: Store, context: Any, todo: Sequence[tuple[int, ...]]) -> Iterator[list[str]]:
    for indices in todo:
        yield measure_batch(sweep, store, context, indices)


def _spread(
    sweep: AbstractPlan, store: Store, context: Any, todo: Sequence[Sequence[int]], executor: Any
) -> Iterator[list[str]]:
    """The statuses of the points of each batch, in any order.

    If the process of a batch died, its points are measured one by one, to find the one that caused it.
    """
    written = io.BytesIO()
    ByName(written).dump((sweep, context, str(store.path.absolute())))
    plan = written.getvalue()
    key, double = hashlib.sha256(plan).hexdigest(), bool(jax.config.read("jax_enable_x64"))
    waiting: dict[Any, Sequence[int]] = {}
    # If an executor cancels tasks while it is shut down, `concurrent.futures.wait` never returns. Callbacks are called.
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    rest = iter(todo)

    def submit(indices: Sequence[int]) -> None:
        try:
            future = executor.submit(_task, plan, key, double, indices)
            waiting[future] = indices
            future.add_done_callback(ready.put)
        except (Exception, asyncio.CancelledError) as error:
            raise _ended(error, store) from error

    try:
        while True:
            while len(waiting) < WAITING and (indices := next(rest, None)) is not None:
                submit(indices)
            if not waiting:
                return
            future = ready.get()
            indices = waiting.pop(future)
            try:
                states = future.result()
            # Asyncio's cancellation is not a subclass of Exception.
            except (Exception, asyncio.CancelledError) as error:
                if type(error).__name__ not in DEATHS:
                    raise _ended(error, store) from error
                if len(indices) > 1:
                    for index in indices:
                        submit((index,))
                else:
                    reason = f"failed: {error}"
                    store.write_point(indices[0], {"seconds": np.nan, "status": reason})
                    yield [reason]
            else:
                yield states
    finally:
        for future in waiting:
            future.cancel()


def _ended(error: BaseException, store: Store) -> Exception:
    """The error with which a run ends if its executor fails, because a scheduler is gone, say, or tasks were cancelled."""
    if isinstance(error, (StoreError, NumericalError, EnvironmentFault)):
        return error
    said = f"{type(error).__name__}: {error}".removesuffix(": ")
    return RuntimeError(f"the executor gave up ({said}); what was measured is kept in {store.path}: run it again to go on")


# The plan that this process works on, by its key. It is kept, since a plan that arrives again would be compiled again.
_plans: dict[str, tuple[AbstractPlan, Any, str]] = {}


def _task(plan: bytes, key: str, double: bool, indices: Sequence[int]) -> list[str]:
    """Measure and record a batch in another process."""
    known = _plans.get(key)
    if known is None:
        # This is a process that was started to work, by Dask for example, and not a thread of the calling process.
        if not _plans and multiprocessing.parent_process() is not None:
            one_thread()
        _plans.clear()
        jax.config.update("jax_enable_x64", double)
        known = _plans[key] = pickle.loads(plan)
    sweep, context, path = known
    return measure_batch(sweep, Store(path), context, indices)


def measure_batch(sweep: AbstractPlan, store: Store, context: Any, indices: Sequence[int]) -> list[str]:
    """Measure and record a batch or a part of it, and return the status of each point."""
    began = time.perf_counter()
    try:
        with one_blas_thread():
            measured = sweep.measure_batch(context, indices)
    except (MemoryError, jax.errors.JaxRuntimeError) as error:
        # The batch is too large for this machine or its accelerator, or a function that is called back has failed.
        reason = _reason(error, store)
        if len(indices) > 1:
            # Perhaps only one of the points has caused it.
            return [state for index in indices for state in measure_batch(sweep, store, context, (index,))]
        measured = [({}, reason)]
    seconds = (time.perf_counter() - began) / len(indices)
    states = []
    for index, (values, found) in zip(indices, measured, strict=True):
        failed = isinstance(found, Exception)
        states.append(f"failed: {found}" if failed else DONE)
        record = values | ({} if failed else record_of(found)) | {"seconds": seconds, "status": states[-1]}
        store.write_point(index, record)
    return states


def _reason(error: Exception, store: Store) -> Exception:
    """The error with which a point fails; `EnvironmentFault` if the point did not cause it, as with damaged compiled
    code."""
    text = str(error).strip()
    if isinstance(error, MemoryError):
        return error
    raised = RAISED.match(text)
    # Equinox's messages go on about what has called it.
    said = text if raised is None else raised["said"].split("\n\n")[0].strip()
    kind = getattr(builtins, said.partition(":")[0].rpartition(".")[2], Exception)
    known = any(fault in text for fault in OF_THE_POINT)
    if raised is not None and kind is KeyboardInterrupt:
        raise KeyboardInterrupt from error
    if not known or (raised is not None and isinstance(kind, type) and issubclass(kind, ELSEWHERE)):
        raise EnvironmentFault(f"{said.removesuffix(':')}; what was measured is kept in {store.path}") from error
    return RuntimeError(said.removesuffix(":").removeprefix("_EquinoxRuntimeError: "))
