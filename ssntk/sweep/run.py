"""Who runs a sweep: follows the branch, measures each missing point, records it at once."""

import time
from typing import Any

import numpy as np
import rich.console
import rich.progress

from ssntk.bifurcation.side import Side
from ssntk.collapse.channel import Channel
from ssntk.errors import NumericalError, as_instance
from ssntk.sweep.measure import Measurement
from ssntk.sweep.plan import Sweep
from ssntk.sweep.store import DONE, VARIABLES, Store


def run(sweep: Sweep, store: Store, executor: Any = None, progress: bool = True) -> Store:
    """Measure every point of `sweep` that `store` does not hold yet, and return the store.

    A point that fails is recorded as failed with its reason, and the sweep goes on.

    **Arguments:**

    - `executor`: `None` measures one point after another in this process; otherwise anything shaped like a
      `concurrent.futures.Executor`, to which points are submitted. One of processes must be able to pickle the sweep.
    - `progress`: whether to show progress on standard error.

    Raises `StoreError` where the store holds another plan, `NumericalError` where the branch holds no such bifurcation.
    """
    identity, model = as_instance(sweep, "sweep", Sweep).hash(), sweep.family.model
    if executor is not None and not hasattr(executor, "submit"):
        raise ValueError(f"executor must have a method submit, got {type(executor).__name__}")
    branch = store.branch() if as_instance(store, "store", Store).check(identity) else None
    followed = sweep.follow() if branch is None else branch
    side = sweep.side(followed)
    # Only now: a plan that leads to no bifurcation must not keep the folder from the corrected one.
    title = f"{type(model).__name__} towards a {sweep.towards}"
    store.claim(identity, sweep.distances, model.n_state, title, tuple(sweep.blocks or ()), sweep.family.dt)
    if branch is None:
        store.write_branch(followed, sweep.number(followed))
    missing = store.status().missing
    columns = (
        rich.progress.TextColumn("{task.description}"),
        rich.progress.BarColumn(),
        rich.progress.MofNCompleteColumn(),
        rich.progress.TextColumn("{task.fields[failures]} failed"),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("left"),
        rich.progress.TimeRemainingColumn(),
    )
    console = rich.console.Console(stderr=True)
    with rich.progress.Progress(*columns, console=console, disable=not progress) as bar:
        total, failures = len(sweep.distances), len(store.status().failed)
        task = bar.add_task(f"towards the {sweep.towards}", total=total, completed=total - len(missing), failures=failures)
        if executor is None:
            finished = (_point(sweep, store, side, index) for index in missing)
        else:
            futures = [executor.submit(_point, sweep, store, side, index) for index in missing]
            finished = (future.result() for future in futures)
        for succeeded in finished:
            failures += not succeeded
            bar.update(task, advance=1, failures=failures)
    return store


def _point(sweep: Sweep, store: Store, side: Side, index: int) -> bool:
    """Measure and record one point; whether it succeeded."""
    began = time.perf_counter()
    try:
        parameter, measured = sweep.measure(side, index)
        record, status = _record(parameter, measured), DONE
    except (NumericalError, ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        record, status = {}, f"failed: {error}"
    record |= {"distance": sweep.distances[index], "seconds": time.perf_counter() - began, "status": status}
    store.write_point(index, record)
    return status == DONE


def _record(parameter: float, measured: Measurement) -> dict[str, Any]:
    trajectory, steady = measured.trajectory, measured.steady_state
    return {
        "parameter": parameter,
        "x_star": measured.x_star,
        "residual": measured.residual,
        "jacobian_eigenvalues": measured.jacobian_eigenvalues,
        "ntk_eigenvalues": np.asarray(trajectory.eigenvalues),
        "steady_state_eigenvalues": np.asarray(steady.eigenvalues),
        "condition_number": np.asarray(steady.condition_number),
        "trajectory_condition_number": np.asarray(trajectory.condition_number),
        "trajectory_condition_number_is_bound": trajectory.condition_number_is_bound,
        "effective_rank": np.asarray(trajectory.effective_rank),
        "participation_ratio": np.asarray(trajectory.participation_ratio),
        "top_share": np.asarray(trajectory.top_share),
        "trace": np.asarray(trajectory.trace),
        **_channel_record(measured.channel),
    } | (_block_record(measured) if measured.blocks else {})


def _channel_record(channel: Channel | None) -> dict[str, Any]:
    names = [name.removeprefix("channel_") for name in VARIABLES if name.startswith("channel_")]
    return {} if channel is None else {f"channel_{name}": np.asarray(getattr(channel, name)) for name in names}


def _block_record(measured: Measurement) -> dict[str, Any]:
    blocks = measured.blocks.values()
    return {
        "block_eigenvalues": np.stack([np.asarray(block.eigenvalues) for block in blocks]),
        "block_participation_ratio": np.stack([np.asarray(block.participation_ratio) for block in blocks]),
        "block_channel_participation_ratio": np.array(list(measured.channel_participation_ratio.values())),
        "block_top_share": np.stack([np.asarray(block.top_share) for block in blocks]),
        "block_top_two_share": np.stack([np.asarray(block.share(2)) for block in blocks]),
    }
