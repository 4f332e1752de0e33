"""`ssntk sweep`: run what a file describes, and say how it ended."""

import contextlib
import pathlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import cyclopts

from ssntk.cli.app import app
from ssntk.cli.stores import draw, print_status
from ssntk.foreign import UsageError


@app.command
def sweep(
    file: Annotated[pathlib.Path | None, cyclopts.Parameter(help="The TOML file that describes the sweep.")] = None,
    *,
    out: Annotated[
        pathlib.Path | None, cyclopts.Parameter(help="The store's folder; default results/<name of the file>.")
    ] = None,
    workers: Annotated[
        int | None, cyclopts.Parameter(help="Measure in so many single-threaded processes of this machine.")
    ] = None,
    scheduler: Annotated[str | None, cyclopts.Parameter(help="Measure on a running Dask cluster: tcp://host:8786.")] = None,
    part: Annotated[
        str | None, cyclopts.Parameter(help="Measure only the i-th of k parts: 1/4; see merge for putting them together.")
    ] = None,
    retry_failed: Annotated[bool, cyclopts.Parameter(negative=(), help="Measure points that failed again.")] = False,
    status: Annotated[bool, cyclopts.Parameter(negative=(), help="Only say what is done and what is missing.")] = False,
    dry_run: Annotated[
        bool, cyclopts.Parameter(negative=(), help="Only say what would be done, how long it takes, and the memory.")
    ] = False,
    schema: Annotated[bool, cyclopts.Parameter(negative=(), help="Print every key of a sweep file, with defaults.")] = False,
) -> None:
    """Drive a network to a bifurcation, or over a grid, and measure its kernel on the way. A second run resumes."""
    from ssntk.sweep.toml import SCHEMA

    if schema:
        print(SCHEMA, end="")
        return
    if file is None:
        raise UsageError("name a sweep file, such as sweeps/saddle_node.toml, or ask for --schema")
    if workers is not None and scheduler is not None:
        raise UsageError("--workers and --scheduler exclude each other")
    if workers is not None and workers < 1:
        raise UsageError(f"--workers must be at least 1, got {workers}")
    chosen = None if part is None else _part(part)
    from ssntk.sweep.plan import read_plan
    from ssntk.sweep.run import run
    from ssntk.sweep.store import Store

    try:
        plan = read_plan(file)
    except ValueError as error:
        raise UsageError(str(error)) from error
    folder = pathlib.Path("results") / file.stem if out is None else out
    store = Store(folder)
    if status:
        if store.check(plan.hash(), plan):
            print_status(store)
        else:
            print(f"{folder}: 0 of {plan.size} done, nothing was run yet")
        return
    if dry_run:
        _print_estimate(file, plan, store, workers or 1, chosen)
        return
    try:
        with _executor(workers, scheduler) as executor:
            run(plan, store, executor=executor, part=chosen, retry_failed=retry_failed)
    except KeyboardInterrupt:
        print(f"Stopped. What was measured is kept in {folder}; run the same command to go on.", file=sys.stderr)
        raise SystemExit(130) from None
    print_summary(store)


def _part(text: str) -> tuple[int, int]:
    try:
        i, k = (int(number) for number in text.split("/"))
    except ValueError:
        i, k = 0, 0
    if not 1 <= i <= k:
        raise UsageError(f"--part must be i/k with i from 1 to k, such as 1/4, got {text!r}")
    return i, k


@contextlib.contextmanager
def _executor(workers: int | None, scheduler: str | None) -> Iterator[Any]:
    """The executor that measures: this process, other processes, or a Dask cluster."""
    if scheduler is not None:
        try:
            from distributed import Client
        except ImportError as error:
            raise ImportError("--scheduler needs Dask: install ssntk[cluster]") from error
        try:
            client = Client(scheduler, timeout="10s")
        except (OSError, TimeoutError, ValueError) as error:
            raise UsageError(f"no Dask scheduler answers at {scheduler}: {error}") from error
        with client:
            yield client.get_executor()
    elif workers is not None:
        from ssntk.sweep.workers import Workers

        with Workers(workers) as executor:
            yield executor
    else:
        yield None


def _print_estimate(file: pathlib.Path, plan: Any, store: Any, workers: int, part: tuple[int, int] | None) -> None:
    """Print what is done, and how long the rest will take. For that, batches are measured and not recorded."""
    import time

    from ssntk.sweep.progress import duration

    held = store.check(plan.hash(), plan)
    states = store.status() if held else None
    done, failed = (len(states.done), len(states.failed)) if states else (0, 0)
    header = plan.header()
    shape = " x ".join(f"{len(values)} {name}" for name, values in header.get("axes", {}).items())
    print(f"{file}: {header['title']}, {plan.size} points" + (f" ({shape})" if shape else ""))
    print(
        f"plan {plan.hash()}, in batches of up to {max(map(len, plan.batches))}; {store.path}: {done} done, {failed} failed"
    )
    from ssntk.sweep.run import batches_of

    chosen = {index for batch in batches_of(plan, part) for index in batch}
    left = len(chosen & set(states.missing)) if states else len(chosen)
    if left == 0:
        return
    context = plan.begin(plan.follow())
    # One batch of every shape is measured twice, since the second time everything is compiled. The estimate assumes that all
    # shapes have equally many points.
    took = [0.0, 0.0]
    reasons: list[str] = []
    tried = sum(map(len, plan.samples))
    for batch in plan.samples:
        for again in range(2):
            began = time.perf_counter()
            found = [one for _, one in plan.measure_batch(context, batch)]
            took[again] += time.perf_counter() - began
            reasons += [str(one) for one in found if again and isinstance(one, Exception)]
    each = took[1] / tried
    total = took[0] - took[1] + left * each / workers
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    print(
        f"{left} to go: about {duration(total)} ({each:.3g} s a point after {took[0] - took[1]:.2g} s of compiling"
        + (f", {workers} workers" if workers > 1 else "")
        + f"); memory {peak / 1e9:.2g} GB"
        + (" each" if workers > 1 else "")
    )
    if reasons:
        print(f"Of the {tried} points that were tried {len(reasons)} failed: {reasons[0]}")


def print_summary(store: Any) -> None:
    """Print how a sweep ended: a table, the figure, and the paths of all files."""
    from ssntk.report.tables import print_store
    from ssntk.sweep.coverage import coverage_of
    from ssntk.sweep.store import StoreError

    state = store.status()
    print_store(store)
    for index, reason in list(state.failed.items())[:10]:
        print(f"Point {index} failed: {reason}")
    if len(state.failed) > 10:
        print(f"... and {len(state.failed) - 10} more; --status lists them all")
    for name in state.set_aside:
        print(f"Set aside, no record of this plan: {name}")
    if state.missing:
        print(f"{len(state.missing)} of {state.total} points are still missing")
    if not state.done and state.failed:
        raise RuntimeError(f"every point failed: {next(iter(state.failed.values()))}")
    if not state.done:
        print("Nothing to measure here: this part holds no batch of points")
        return
    try:
        print(f"Figure   {draw(store)}")
    except StoreError as error:
        print(f"No figure: {error}")
    print(f"Records  {store.path / 'points'}")
    if coverage_of(store.plan()).leads:
        print(f"Branch   {store.path / 'branch.npz'}")
    print(f"A page to look through: ssntk report {store.path}")
