"""The tables that the command line prints."""

import sys
from typing import Any

import numpy as np
import rich.console
import rich.table
import rich.text

from ssntk.collapse.cycle_law import cycle_law
from ssntk.critical.distance import CRITICAL, NEAR
from ssntk.critical.warned import border_distance
from ssntk.cycles.side import kind_of_event
from ssntk.files import legible
from ssntk.sweep.aims import WITHOUT_A_MODE
from ssntk.sweep.coverage import Header, OverAxes, Towards, TowardsOfCycles, coverage_of
from ssntk.sweep.cycle_summary import tendencies
from ssntk.sweep.record import Listed, listed
from ssntk.sweep.store import Store
from ssntk.sweep.summary import quartiles, slope_of


def _plain(name: str) -> rich.text.Text:
    """A name as text to print. Nothing in it is read as markup."""
    return rich.text.Text(legible(name))


def print_verdicts(results: Any) -> None:
    """Print a row for each network, and the reason for the verdict on the most critical one."""
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
        table.add_row(str(seed), found.verdict, _plain(found.kind), *(f"{size:.3g}" for size in sizes))
    console = rich.console.Console(width=None if sys.stdout.isatty() else 100)
    console.print(table)
    known = [found for found in results if found.near is not None]
    print(f"{sum(found.near for found in known)} of {len(results)} near-critical, {len(results) - len(known)} unknown.")
    for found in results:
        if found.near is None:
            print(found.reason)
            break
    if known:
        print(min(known, key=lambda found: min(found.relative_distance, border_distance(found.border))).reason)


def print_grid(store: Store) -> None:
    """Print the quartiles of each quantity over the grid, and where it is largest."""
    data, axes = store.arrays(), store.axes()
    good = np.flatnonzero(data["status"] == "done")
    if good.size == 0:
        return
    table = rich.table.Table(title=_plain(f"{store.plan()['title']}: {good.size} points"), title_justify="left")
    for head in ("", "least", "quartile", "median", "quartile", "most", "most at"):
        table.add_column(head, justify="right" if head not in ("", "most at") else "left")
    quantities = {one.heading: one.of(data[one.name]) for one in _columns(store.plan(), data)}
    for name, values in quantities.items():
        values = values[good]
        if np.isnan(values).all():
            continue
        at = np.unravel_index(good[np.nanargmax(values)], store.shape())
        where = ", ".join(
            f"{axis} = {axes[axis][i]:.4g}" if axes[axis].dtype.kind != "U" else f"{axis} = {axes[axis][i]}"
            for axis, i in zip(axes, at, strict=True)
        )
        table.add_row(name, *(f"{value:.4g}" for value in quartiles(values)), _plain(where))
    rich.console.Console(width=None if sys.stdout.isatty() else 120).print(table)


def _columns(plan: Header, data: dict[str, np.ndarray]) -> list[Listed]:
    """The numbers that have a column in printed tables: those with a heading, and those of the user's own quantities."""
    numbers = listed(plan, "overview", "point").values()
    return [one for one in numbers if (one.variable.short or one.own) and one.name in data]


def _cell(one: Listed, value: np.ndarray | np.generic) -> str:
    """A number of a table. It is written with a power of ten if it has units, or if its values cover many powers of ten."""
    return f"{value:.3e}" if one.variable.log or one.variable.units != "1" else f"{value:.3f}"


def print_points(store: Store) -> None:
    """Print the table of a finished sweep, with at most a dozen of its points."""
    data = store.arrays()
    good = np.flatnonzero(data["status"] == "done")[::-1]
    if good.size:
        event = store.bifurcation()
        table = rich.table.Table(title=_plain(f"{event.kind} at p = {event.parameter:.10g}"), title_justify="left")
        plan = store.plan()
        # The trajectory kernel's largest eigenvalue comes later, beside its prediction.
        columns = [one for one in _columns(plan, data) if one.name != "ntk_eigenvalues"]
        for head in ("distance", *(one.heading for one in columns)):
            table.add_column(_plain(head), justify="right")
        for i in good[np.unique(np.linspace(0, good.size - 1, min(12, good.size)).round().astype(int))]:
            table.add_row(f"{data['distance'][i]:.2e}", *(_cell(one, one.of(data[one.name][i])) for one in columns))
        # If the output is not a terminal, the table must not be folded to an arbitrary width.
        width = 100 + sum(4 + max(len(one.heading), 10) for one in columns if one.own or not one.variable.always)
        console = rich.console.Console(width=None if sys.stdout.isatty() else width)
        console.print(table)
        slope = slope_of(event.kind, data["distance"][good], data["steady_state_eigenvalues"][good, 0])
        print(
            f"Slope of the largest steady-state eigenvalue over the last {slope.decades:.2g} decades: {slope.measured:.4f}; "
            f"{slope.corrected:.4f} with the next term, distance^{slope.next_order:g}; predicted {slope.predicted:g}"
            + (f": {slope.says}." if slope.says else ".")
        )
        last = {name: data[name][good[-1]] for name in data if name.startswith("channel_")}
        if last["channel_method"]:
            found, law = (float(last[f"channel_{name}"]) for name in ("top_eigenvalue", "predicted_top_eigenvalue"))
            mode = "slowest" if event.kind in WITHOUT_A_MODE else "critical"
            print(
                f"Trajectory NTK at the last point: largest eigenvalue {found:.4g}; of the {mode} mode alone "
                + (f"{law:.4g} by the master law ({last['channel_method']})" if np.isfinite(law) else "nothing is predicted")
                + f"; its share of the trace {float(last['channel_share']):.4f}, |l||r| = "
                f"{float(last['channel_nonnormality']):.3g}."
            )
        blocks = plan["blocks"]
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
                    _plain(name),
                    f"{last['block_eigenvalues'][i, 0]:.3e}",
                    f"{last['block_top_share'][i]:.5f}",
                    f"{last['block_top_two_share'][i]:.5f}",
                    f"{last['block_participation_ratio'][i]:.4f}",
                    "not driven" if predicted == 0 else f"{predicted:.4f}" if np.isfinite(predicted) else "unknown",
                )
            console.print(table)


def print_cycles(store: Store) -> None:
    """Print the table of a finished sweep towards a bifurcation of cycles, and its slopes."""
    data = store.arrays()
    good = np.flatnonzero(data["status"] == "done")[::-1]
    if good.size == 0:
        return
    kind, event = kind_of_event(store.bifurcation()), store.bifurcation()
    title = _plain(f"{kind} at p = {float(event.parameter):.10g}")
    table = rich.table.Table(title=title, title_justify="left")
    columns = _columns(store.plan(), data)
    for head in ("distance", *(one.heading for one in columns)):
        table.add_column(_plain(head), justify="right")
    for i in good[np.unique(np.linspace(0, good.size - 1, min(12, good.size)).round().astype(int))]:
        table.add_row(f"{data['distance'][i]:.2e}", *(_cell(one, one.of(data[one.name][i])) for one in columns))
    rich.console.Console(width=None if sys.stdout.isatty() else 20 + 16 * len(columns)).print(table)
    decades, slopes = tendencies(kind, {name: values[good] for name, values in data.items()})
    for one in slopes:
        predicted = f"; predicted {one.predicted:g}" if np.isfinite(one.predicted) else ""
        print(
            f"Slope of the {one.title} over the last {decades:.2g} decades: {round(one.measured, 4) + 0.0:.4f}{predicted}."
        )
    print(f"Near a {kind}: {cycle_law(kind).says}.")


# The functions that print a finished store, by the kind of its plan.
PRINTED = {Towards.kind: print_points, TowardsOfCycles.kind: print_cycles, OverAxes.kind: print_grid}


def print_store(store: Store) -> None:
    """Print the table of a store's results."""
    PRINTED[coverage_of(store.plan()).kind](store)
