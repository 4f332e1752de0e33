"""The command line: `ssntk sweep`, `merge`, `export`, `plot`, `report` and `check`."""

import contextlib
import dataclasses
import gc
import json
import math
import os
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Annotated, Any

import cyclopts

from ssntk.files import is_private
from ssntk.foreign import UsageError, about_keys, argument_of, foreign, own_stdout

app = cyclopts.App(name="ssntk", help="Bifurcations of recurrent networks, and what they do to learning.")


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
            _print_status(store)
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
    _print_summary(store)


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


@app.command
def merge(
    folders: Annotated[list[pathlib.Path], cyclopts.Parameter(help="Stores of one plan, such as those of its parts.")],
    *,
    out: Annotated[pathlib.Path, cyclopts.Parameter(help="The store that takes over their records.")],
) -> None:
    """Put the stores of several machines together. What is there already stays as it is."""
    from ssntk.sweep.store import Store

    for folder in folders:
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder")
    store = Store(out)
    store.merge(*map(Store, folders))
    _print_status(store)


@app.command
def export(
    folder: Annotated[pathlib.Path, cyclopts.Parameter(help="The folder of a sweep's results.")],
    *,
    out: Annotated[pathlib.Path, cyclopts.Parameter(help="The netCDF file, .nc.")],
) -> None:
    """Write a sweep's results as netCDF 4, for other programs. A complex variable becomes two, _real and _imag."""
    _check_folder(out)
    if out.suffix != ".nc":
        raise UsageError(f"{out}: a netCDF file must end in .nc")
    _opened(folder).to_netcdf(out)
    print(out)


@app.command
def check(
    factory: Annotated[str, cyclopts.Parameter(help="package.module:function, called as function(key) or function(seed).")],
    *,
    seeds: Annotated[int, cyclopts.Parameter(help="How many: seed s is jax.random.key(s), s = 0, 1, ...")] = 16,
    horizon: Annotated[
        float | None,
        cyclopts.Parameter(help="How long trajectories last in training, in units of time; default: as long as it takes."),
    ] = None,
    as_json: Annotated[bool, cyclopts.Parameter(name="--json", negative=(), help="Print JSON instead of a table.")] = False,
) -> None:
    """Are a model's initialisations near a bifurcation? Exit status 1 if one is, or if one could not be judged.

    The function returns a model or a PyTorch network. An argument called seed is an int, s = 0, 1, ...
    """
    import jax

    from ssntk.critical.flag import criticality_ensemble
    from ssntk.errors import NumericalError
    from ssntk.models.as_model import as_model
    from ssntk.report.tables import print_verdicts
    from ssntk.silence import LISTENER
    from ssntk.sweep.factory import function_named

    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {seeds}")
    LISTENER.quiet = as_json
    # Foreign code may print. Its text must not mix with the output of this command.
    with own_stdout() as out:
        make = function_named(factory)
        with foreign(factory, function=make):
            name = argument_of(make)
        with foreign(factory, function=make, hint=None if name == "seed" else about_keys):
            keys = [seed if name == "seed" else jax.random.key(seed) for seed in range(seeds)]
            made = [make(key) if name is None else make(**{name: key}) for key in keys]
        with foreign(factory, function=make):
            models = [as_model(one, "the model that it returns") for one in made]
        with foreign(factory, NumericalError):
            results = criticality_ensemble(models, horizon=horizon)
        with contextlib.redirect_stdout(out):
            if as_json:
                print(json.dumps([{"seed": seed} | _plain(found) for seed, found in enumerate(results)], indent=1))
            else:
                print_verdicts(results)
    if any(found.near is not False for found in results):
        raise SystemExit(1)


def _plain(found: Any) -> dict[str, Any]:
    """A verdict as JSON. Numbers that are not finite become null."""
    return {name: _finite(value) for name, value in dataclasses.asdict(found).items()}


def _finite(value: Any) -> Any:
    value = value.tolist() if hasattr(value, "tolist") else value
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@app.command
def plot(
    folder: Annotated[pathlib.Path, cyclopts.Parameter(help="The folder of a sweep's results.")],
    *,
    out: Annotated[
        pathlib.Path | None, cyclopts.Parameter(help="The figure: .png, .svg or .pdf; default as sweep draws it, there.")
    ] = None,
) -> None:
    """Draw the figure of a sweep's results again."""
    print(_draw(_opened(folder), out))


@app.command
def report(
    folder: Annotated[pathlib.Path, cyclopts.Parameter(help="The folder of a sweep's results.")],
    *,
    out: Annotated[pathlib.Path | None, cyclopts.Parameter(help="The page; default report.html there.")] = None,
) -> None:
    """Write one self-contained HTML page of a sweep's results: to look through, to print, to send."""
    from ssntk.report.page import write_page

    page = folder / "report.html" if out is None else out
    _check_folder(page)
    if page.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"{page}: a page must end in .html")
    print(write_page(_opened(folder), page))


def _check_folder(file: pathlib.Path) -> None:
    if not file.parent.is_dir():
        raise UsageError(f"{file.parent} is not a folder")


def _opened(folder: pathlib.Path) -> Any:
    from ssntk.sweep.store import Store

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    return Store(folder)


def _draw(store: Any, out: pathlib.Path | None = None) -> pathlib.Path:
    from ssntk.sweep.coverage import coverage_of

    figure = coverage_of(store.plan()).figure
    file = out or pathlib.Path(store.path, f"{figure}.png")
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{file}: a figure must end in .png, .svg or .pdf")
    import matplotlib

    matplotlib.use("agg")
    from ssntk import plot
    from ssntk.files import write_whole
    from ssntk.plot.canvas import saved

    axes = getattr(plot, figure)(store)
    return write_whole(file, saved(axes[0].figure, file.suffix[1:].lower()))


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


def _print_status(store: Any) -> None:
    state = store.status()
    print(f"{store.path}: {len(state.done)} of {state.total} done, {len(state.failed)} failed, {len(state.missing)} missing")
    for index, reason in state.failed.items():
        print(f"  point {index} failed: {reason}")
    for name in state.set_aside:
        print(f"  no record of this plan: {name}")


def _print_summary(store: Any) -> None:
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
        print(f"Figure   {_draw(store)}")
    except StoreError as error:
        print(f"No figure: {error}")
    print(f"Records  {store.path / 'points'}")
    if coverage_of(store.plan()).leads:
        print(f"Branch   {store.path / 'branch.npz'}")
    print(f"A page to look through: ssntk report {store.path}")


def _keep_compiled() -> None:
    """Keep compiled code between runs: in the folder that `SSNTK_CACHE` names, or in the user's; not if it is "off"."""
    from ssntk.cache import default_folder, keep_compiled

    folder = None if os.environ.get("JAX_COMPILATION_CACHE_DIR") else default_folder()
    if folder is not None and is_private(folder, within=True):
        keep_compiled(folder)


def main(tokens: list[str] | None = None) -> None:
    """Run the command line: exit status 0, 1 for a failure, 2 for a usage error, 130 when stopped by the keyboard."""
    # This must be set before JAX starts. Equinox's compiled checks cannot be cached, and solves are checked on the host
    # anyway.
    os.environ.setdefault("EQX_ON_ERROR", "off")
    _keep_compiled()
    # Some daemons start their programs without these streams.
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    # Names of files need not be valid text. Characters that cannot be printed are printed as their numbers.
    with contextlib.suppress(AttributeError, ValueError):
        sys.stdout.reconfigure(errors="backslashreplace")  # pyright: ignore[reportAttributeAccessIssue]
    # Tracing makes millions of small objects that stay alive. Searching them for garbage takes a seventh of the start-up
    # time.
    gc.set_threshold(100_000, 20, 20)
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        _guarded(lambda: app(tokens))
    except SystemExit as stopped:
        _leave(stopped.code)
        raise


def _leave(code: int | str | None) -> None:
    """End the process. If code is still being compiled in advance, end at once: it cannot be stopped, and is not needed."""
    run = sys.modules.get("ssntk.sweep.run")
    if run is not None and any(thread.name == run.PREPARING for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        # `code` means what it means to `sys.exit`: None is success; a text is printed, and means failure.
        if code is not None and not isinstance(code, int):
            print(code, file=sys.stderr, flush=True)
        os._exit(code if isinstance(code, int) else int(code is not None))


def _guarded(call: Callable[[], object]) -> None:
    """Turn every foreseen error into a sentence instead of a traceback."""
    from ssntk.errors import NumericalError
    from ssntk.sweep.store import StoreError

    try:
        call()
    except KeyboardInterrupt:
        print("ssntk: stopped", file=sys.stderr)
        raise SystemExit(130) from None
    except UsageError as error:
        print(f"ssntk: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (NumericalError, StoreError, ImportError, OSError, RuntimeError, ValueError) as error:
        print(f"ssntk: {error}", file=sys.stderr)
        raise SystemExit(1) from None
