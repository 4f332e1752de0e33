"""The command line: `ssntk sweep`, `ssntk check`, `ssntk plot`."""

import dataclasses
import json
import math
import os
import pathlib
import sys
from collections.abc import Callable
from typing import Annotated, Any

import cyclopts

app = cyclopts.App(name="ssntk", help="Bifurcations of recurrent networks, and what they do to learning.")


class UsageError(Exception):
    """What was asked for cannot be understood: exit status 2."""


@app.command
def sweep(
    file: Annotated[pathlib.Path | None, cyclopts.Parameter(help="The TOML file that describes the sweep.")] = None,
    *,
    out: Annotated[
        pathlib.Path | None, cyclopts.Parameter(help="The store's folder; default results/<name of the file>.")
    ] = None,
    status: Annotated[bool, cyclopts.Parameter(negative=(), help="Only say what is done and what is missing.")] = False,
    dry_run: Annotated[bool, cyclopts.Parameter(negative=(), help="Check the file and say what would be done.")] = False,
    schema: Annotated[bool, cyclopts.Parameter(negative=(), help="Print every key of a sweep file, with defaults.")] = False,
) -> None:
    """Drive a network to a bifurcation and measure its kernel on the way. A second run resumes."""
    from ssntk.sweep.toml import SCHEMA

    if schema:
        print(SCHEMA, end="")
        return
    if file is None:
        raise UsageError("name a sweep file, such as sweeps/saddle_node.toml, or ask for --schema")
    from ssntk.sweep.plan import Sweep
    from ssntk.sweep.run import run
    from ssntk.sweep.store import Store, StoreError

    try:
        plan = Sweep.from_toml(file)
    except ValueError as error:
        raise UsageError(str(error)) from error
    folder = pathlib.Path("results") / file.stem if out is None else out
    store = Store(folder)
    if status or dry_run:
        held = store.check(plan.hash())
        if dry_run:
            done, model = len(store.status().done) if held else 0, plan.family.model
            print(f"{file}: {len(plan.distances)} points towards a {plan.towards}, {done} of them done in {folder}.")
            print(f"{type(model).__name__}, n = {model.n_state}; plan {plan.hash()}.")
        elif held:
            _print_status(store)
        else:
            print(f"{folder}: 0 of {len(plan.distances)} done, nothing was run yet")
        return
    try:
        run(plan, store)
    except KeyboardInterrupt:
        print(f"Stopped. What was measured is kept in {folder}; run the same command to go on.", file=sys.stderr)
        raise SystemExit(130) from None
    _print_summary(store)
    try:
        figure = _draw(store, folder / "collapse.png")
    except StoreError as error:
        raise RuntimeError(f"every point failed: {next(iter(store.status().failed.values()), error)}") from error
    print(f"Figure   {figure}\nRecords  {folder / 'points'}\nBranch   {folder / 'branch.npz'}")


@app.command
def check(
    factory: Annotated[str, cyclopts.Parameter(help="package.module:function, called as function(key) -> model.")],
    *,
    seeds: Annotated[int, cyclopts.Parameter(help="How many: seed s is jax.random.key(s), s = 0, 1, ...")] = 16,
    horizon: Annotated[
        float | None,
        cyclopts.Parameter(help="How long trajectories last in training, in units of time; default: as long as it takes."),
    ] = None,
    as_json: Annotated[bool, cyclopts.Parameter(name="--json", negative=(), help="Print JSON instead of a table.")] = False,
) -> None:
    """Are a model's initialisations near a bifurcation? Exit status 1 where one is, or where it could not be told."""
    import jax

    from ssntk.critical.flag import criticality_ensemble

    if seeds < 1:
        raise UsageError(f"--seeds must be at least 1, got {seeds}")
    make = _factory(factory)
    try:
        results = criticality_ensemble([make(jax.random.key(seed)) for seed in range(seeds)], horizon=horizon)
    except ValueError as error:
        raise UsageError(f"{factory}: {error}") from error
    if as_json:
        print(json.dumps([{"seed": seed} | _plain(found) for seed, found in enumerate(results)], indent=1))
    else:
        _print_verdicts(results)
    if any(found.near is not False for found in results):
        raise SystemExit(1)


def _factory(name: str) -> Callable[[Any], Any]:
    """The function that `package.module:function` names, looked for in the current folder too."""
    import importlib

    module, _, attribute = name.partition(":")
    if not module or not attribute:
        raise UsageError(f"{name!r} must be package.module:function")
    sys.path.insert(0, os.getcwd())
    try:
        make = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{name!r} cannot be imported: {error}") from error
    if not callable(make):
        raise UsageError(f"{name!r} is not a function of a key")
    return make


def _plain(found: Any) -> dict[str, Any]:
    """A verdict as JSON has it; what is not a finite number is null."""
    plain: dict[str, Any] = {}
    for name, value in dataclasses.asdict(found).items():
        value = value.tolist() if hasattr(value, "tolist") else value
        plain[name] = None if isinstance(value, float) and not math.isfinite(value) else value
    return plain


def _print_verdicts(results: Any) -> None:
    import rich.console
    import rich.table

    from ssntk.critical.flag import CRITICAL, NEAR

    title = f"Relative distance: near-critical below {NEAR:g}, critical below {CRITICAL:g}"
    table = rich.table.Table(title=title, title_justify="left")
    for head in ("seed", "verdict", "kind", "distance", "radius", "frequency", "abscissa", "drive"):
        table.add_column(head, justify="left" if head in ("verdict", "kind") else "right")
    for seed, found in enumerate(results):
        sizes = (
            found.relative_distance,
            found.stability_radius,
            found.critical_frequency,
            found.spectral_abscissa,
            found.drive,
        )
        table.add_row(str(seed), found.verdict, found.kind, *(f"{size:.3g}" for size in sizes))
    console = rich.console.Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    known = [found for found in results if found.near is not None]
    print(f"{sum(found.near for found in known)} of {len(results)} near-critical, {len(results) - len(known)} unknown.")
    for found in results:
        if found.near is None:
            print(found.reason)
            break
    if known:
        print(min(known, key=lambda found: found.relative_distance).reason)


@app.command
def plot(
    folder: Annotated[pathlib.Path, cyclopts.Parameter(help="The folder of a sweep's results.")],
    *,
    out: Annotated[
        pathlib.Path | None, cyclopts.Parameter(help="The figure: .png, .svg or .pdf; default collapse.png there.")
    ] = None,
) -> None:
    """Draw the figure of a sweep's results again."""
    from ssntk.sweep.store import Store

    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder")
    print(_draw(Store(folder), folder / "collapse.png" if out is None else out))


def _draw(store: Any, file: pathlib.Path) -> pathlib.Path:
    if file.suffix.lower() not in (".png", ".svg", ".pdf"):
        raise UsageError(f"{file}: a figure must end in .png, .svg or .pdf")
    import matplotlib

    matplotlib.use("agg")
    from ssntk import plot

    axes = plot.collapse(store)
    figure = axes[0].figure
    figure.savefig(file, dpi=150)
    plot.plt.close(figure)
    return file


def _print_status(store: Any) -> None:
    state = store.status()
    print(f"{store.path}: {len(state.done)} of {state.total} done, {len(state.failed)} failed, {len(state.missing)} missing")
    for index, reason in state.failed.items():
        print(f"  point {index} failed: {reason}")
    for name in state.set_aside:
        print(f"  no record of this plan: {name}")


def _print_summary(store: Any) -> None:
    """The table of a finished sweep, at most a dozen of its points."""
    import numpy as np
    import rich.console
    import rich.table

    from ssntk.collapse.exponent import NEXT_ORDER, STEADY_STATE_EXPONENT, fitted_decades, measured_exponent

    data, state = store.arrays(), store.status()
    good = np.flatnonzero(data["status"] == "done")[::-1]
    if good.size:
        event = store.bifurcation()
        table = rich.table.Table(title=f"{event.kind} at p = {event.parameter:.10g}", title_justify="left")
        heads = ("distance", "Re lambda_1", "steady-state NTK", "its condition", "effective rank", "participation")
        for head in heads:
            table.add_column(head, justify="right")
        for i in good[np.unique(np.linspace(0, good.size - 1, min(12, good.size)).round().astype(int))]:
            table.add_row(
                f"{data['distance'][i]:.2e}",
                f"{data['jacobian_eigenvalues'][i, 0].real:.3e}",
                f"{data['steady_state_eigenvalues'][i, 0]:.3e}",
                f"{data['condition_number'][i]:.3e}",
                f"{data['effective_rank'][i]:.3f}",
                f"{data['participation_ratio'][i]:.3f}",
            )
        # Off a terminal a table is not to be folded to a width that nobody asked for.
        console = rich.console.Console(width=None if sys.stdout.isatty() else 100)
        console.print(table)
        towards = data["distance"][good], data["steady_state_eigenvalues"][good, 0]
        decades, order = fitted_decades(towards[0]), NEXT_ORDER[event.kind]
        slope, exponent = (measured_exponent(*towards, decades, next_order=power) for power in (None, order))
        print(
            f"Slope of the largest steady-state eigenvalue over the last {decades:.2g} decades: {slope:.4f}; "
            f"{exponent:.4f} with the next term, distance^{order:g}; predicted {STEADY_STATE_EXPONENT[event.kind]:g}."
        )
        last = {name: data[name][good[-1]] for name in data if name.startswith("channel_")}
        if last["channel_method"]:
            found, law = (float(last[f"channel_{name}"]) for name in ("top_eigenvalue", "predicted_top_eigenvalue"))
            print(
                f"Trajectory NTK at the last point: largest eigenvalue {found:.4g}; of the critical mode alone "
                + (f"{law:.4g} by the master law ({last['channel_method']})" if np.isfinite(law) else "nothing is predicted")
                + f"; its share of the trace {float(last['channel_share']):.4f}, |l||r| = "
                f"{float(last['channel_nonnormality']):.3g}."
            )
        blocks = store.plan()["blocks"]
        if blocks:
            last = {name: data[name][good[-1]] for name in data if name.startswith("block_")}
            table = rich.table.Table(
                title=f"Blocks of theta at distance {data['distance'][good[-1]]:.2e}", title_justify="left"
            )
            table.add_column("block")
            for head in ("largest eigenvalue", "top share", "top two", "participation", "predicted"):
                table.add_column(head, justify="right")
            for i, name in enumerate(blocks):
                predicted = last["block_channel_participation_ratio"][i]
                table.add_row(
                    name,
                    f"{last['block_eigenvalues'][i, 0]:.3e}",
                    f"{last['block_top_share'][i]:.5f}",
                    f"{last['block_top_two_share'][i]:.5f}",
                    f"{last['block_participation_ratio'][i]:.4f}",
                    "not driven" if predicted == 0 else f"{predicted:.4f}" if np.isfinite(predicted) else "unknown",
                )
            console.print(table)
    for index, reason in state.failed.items():
        print(f"Point {index} failed: {reason}")


def main(tokens: list[str] | None = None) -> None:
    """Run the command line: exit status 0, 1 for a failure, 2 for a usage error, 130 when stopped by the keyboard."""
    # Set before JAX starts. Solves are checked on the host, and the compiled checks of equinox cannot be cached.
    os.environ.setdefault("EQX_ON_ERROR", "off")
    import jax

    jax.config.update("jax_enable_x64", True)
    _guarded(lambda: app(tokens))


def _guarded(call: Callable[[], Any]) -> None:
    """A clear sentence instead of a traceback for everything that can go wrong as foreseen."""
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
