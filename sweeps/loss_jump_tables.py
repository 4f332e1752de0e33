"""What loss_jump_study.py concludes from its rows: jumps, events, their coincidence, and the tables."""

import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
from loss_jump_points import KINDS
from loss_jump_runs import Cell

FACTOR, WINDOW, LARGEST = 2.0, 20, 1e6
PEAK, USUAL, SHARE = 3.0, 100, 0.01
# Windows of coincidence: steps before and after. Shifts of the nearby control.
WITHIN, BEFORE, NEARBY = (2, 2), (10, 0), (25, 100)
SAMPLES, SHIFTS, APART = 1000, 400, 20


# %% Definitions
def length(loss: np.ndarray) -> int:
    """How many steps a run has: up to and with the first loss that is not finite or too large."""
    bad = np.flatnonzero(~(loss <= LARGEST))
    return int(bad[0]) + 1 if len(bad) else len(loss)


def jumps(loss: np.ndarray) -> np.ndarray:
    """The steps at which the loss exceeds twice the median of the last 20 steps, at least 20 steps apart."""
    return spaced(loss, lambda now, usual: ~(now <= FACTOR * usual))


def falls(loss: np.ndarray) -> np.ndarray:
    """The steps at which the loss is below half of the median of the last 20 steps, at least 20 steps apart."""
    return spaced(loss, lambda now, usual: now < usual / FACTOR)


def spaced(loss: np.ndarray, moved: Callable[[Any, Any], Any]) -> np.ndarray:
    at = np.flatnonzero(moved(loss, usual(loss, WINDOW)))
    found: list[int] = []
    for t in at[at >= WINDOW]:
        if not found or t >= found[-1] + WINDOW:
            found.append(int(t))
    return np.array(found, int)


def large_changes(loss: np.ndarray) -> np.ndarray:
    """The 1 % of steps with the largest |log L(t) - log L(t - 1)|, from the 20th step on."""
    with np.errstate(all="ignore"):
        change = np.nan_to_num(np.abs(np.diff(np.log(loss), prepend=np.nan)), nan=0.0, posinf=np.inf)
    change[: min(WINDOW, len(loss))] = 0.0
    count = round(SHARE * len(loss))
    return np.sort(np.argsort(-change, kind="stable")[:count])


def usual(values: np.ndarray, window: int) -> np.ndarray:
    """The median of the last `window` steps before each step, of fewer at first; infinite before the 20th step."""
    out = np.full(len(values), np.inf)
    first = min(window, len(values))
    for t in range(WINDOW, first):
        out[t] = np.median(values[:t])
    if len(values) > window:
        out[window:] = np.median(np.lib.stride_tricks.sliding_window_view(values[:-1], window), axis=1)
    return out


def onset(on: np.ndarray) -> np.ndarray:
    """Where a condition holds that did not hold at the step before."""
    return on & ~np.append(True, on[:-1])


class Ran(NamedTuple):
    """One network: its cell, its rows up to its end, the steps of its jumps, falls and large changes, and its events."""

    cell: Cell
    seed: int
    rows: dict[str, np.ndarray]
    changes: dict[str, np.ndarray]
    events: dict[str, np.ndarray]


def ran(cell: Cell, seed: int, rows: dict[str, np.ndarray]) -> Ran:
    loss, kind = rows["loss"], rows["kind"]
    changes = {"jumps": jumps(loss), "falls": falls(loss), "large changes": large_changes(loss)}
    events = {
        "bifurcation": kind > 0,
        "birth or death": kind == 1,
        "stability change": kind > 1,
        "kernel peak": onset(rows["top"] > PEAK * usual(rows["top"], USUAL)),
        "rate crossed": onset(rows["ratio"] > 1),
        "rate above": rows["ratio"] > 1,
        "gradient peak": onset(rows["gradient"] > FACTOR * usual(rows["gradient"], WINDOW)),
    }
    return Ran(cell, seed, rows, changes, events)


# %% Coincidence
def near(on: np.ndarray, window: tuple[int, int]) -> np.ndarray:
    """Whether there is an event at any of the steps from t - before to t + after."""
    total = np.concatenate([[0], np.cumsum(on)])
    t = np.arange(len(on))
    return total[np.minimum(t + window[1] + 1, len(on))] > total[np.maximum(t - window[0], 0)]


class Met(NamedTuple):
    """Of one run: the number of changes, how many meet an event, and how many would by each control."""

    count: int
    hits: int
    shifted: float
    nearby: float
    shifts: np.ndarray


def met(at: np.ndarray, on: np.ndarray, window: tuple[int, int], seed: int = 0) -> Met:
    """How many of the steps `at` have an event `on` in the window. Steps before the 20th do not count."""
    end = len(on)
    at = at[at >= WINDOW]
    close, span = near(on, window), end - WINDOW
    if not len(at) or span < 1:
        return Met(0, 0, 0.0, 0.0, np.zeros(SHIFTS))
    offsets = np.arange(NEARBY[0], NEARBY[1] + 1)
    moved = at[:, None] + np.concatenate([-offsets, offsets])[None]
    inside = (moved >= WINDOW) & (moved < end)
    shares = (close[np.clip(moved, 0, end - 1)] & inside).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
    by = np.random.default_rng(seed).integers(span, size=SHIFTS)
    shifts = close[WINDOW + (at[None] - WINDOW + by[:, None]) % span].sum(axis=1)
    return Met(len(at), int(close[at].sum()), len(at) * float(close[WINDOW:].mean()), float(shares.sum()), shifts)


class Told(NamedTuple):
    """A coincidence over runs: the share of changes with an event, those of the controls, the ratios to these with their
    intervals (ratio, low, high), and the p of the random shifts."""

    count: int
    share: float
    shifted: float
    nearby: float
    ratio: tuple[float, float, float]
    nearby_ratio: tuple[float, float, float]
    p: float


def told(runs: Iterable[Ran], change: str, event: str, window: tuple[int, int]) -> Told:
    return over([met(run.changes[change], run.events[event], window, i) for i, run in enumerate(runs)])


def over(parts: list[Met]) -> Told:
    each = np.array([part[:4] for part in parts], float)
    count, hits, shifted, nearby = each.sum(axis=0) if len(each) else np.zeros(4)
    if not count:
        nothing = (np.nan,) * 3
        return Told(0, np.nan, np.nan, np.nan, nothing, nothing, np.nan)
    drawn = each[np.random.default_rng(0).integers(len(each), size=(SAMPLES, len(each)))].sum(axis=1)
    p = (1 + (np.sum([part.shifts for part in parts], axis=0) >= hits).sum()) / (1 + SHIFTS)
    ratios = [_ratio(hits, control, drawn[:, 1], drawn[:, place]) for control, place in ((shifted, 2), (nearby, 3))]
    return Told(int(count), hits / count, shifted / count, nearby / count, *ratios, float(p))


def _ratio(hits: float, control: float, some: np.ndarray, others: np.ndarray) -> tuple[float, float, float]:
    """The ratio and its interval. Samples without any event say nothing: they count as zero for the lower end, and as
    infinite for the upper one."""
    if not control:
        return (np.nan,) * 3
    with np.errstate(divide="ignore", invalid="ignore"):
        drawn = some / others
    low, high = (
        np.quantile(np.where(np.isnan(drawn), end, drawn), at, method="higher")
        for end, at in ((0.0, 0.025), (np.inf, 0.975))
    )
    # Samples of no hit at all have no spread. The upper end is then that of a Poisson variable.
    return hits / control, float(low), float(high if hits else max(3 / control, high))


def shares(told: Told) -> str:
    """A share, its two controls and the ratios, as cells of a table."""
    if not told.count:
        return "- | - | - | -"
    return f"{told.share:.3f} | {told.shifted:.3f} | {times(told.ratio)} | {times(told.nearby_ratio)}"


def times(ratio: tuple[float, float, float]) -> str:
    return "-" if np.isnan(ratio[0]) else "{:.1f} ({:.1f} to {:.1f})".format(*ratio).replace("inf", "∞")


# %% Reading
def read(folder: pathlib.Path, cells: list[Cell]) -> tuple[list[Ran], dict[str, Any]]:
    """The runs of all tens of networks that every cell has, and the counts of searches and seconds."""
    named = {
        cell: {f.stem.removeprefix("_".join(cell) + "_"): f for f in folder.glob(f"{'_'.join(cell)}_*.npz")}
        for cell in cells
    }
    parts = sorted(set.intersection(*(set(files) for files in named.values())), key=lambda name: int(name.split("_")[0]))
    runs, counts = [], {"seconds": np.zeros(2), "rates": {}}
    for cell, part in ((cell, part) for cell in cells for part in parts):
        held = dict(np.load(named[cell][part]))
        counts["seconds"] = counts["seconds"] + held["seconds"]
        counts["rates"][cell] = float(held["rate"])
        for name, value in held.items():
            if value.shape == held["seeds"].shape and name != "seeds":
                counts[cell.network, name] = counts.get((cell.network, name), 0) + int(value.sum())
        for i, seed in enumerate(held["seeds"]):
            end = length(held["loss"][:, i])
            rows = {name: value[:end, i] for name, value in held.items() if value.ndim == 2}
            runs.append(ran(cell, int(seed), rows))
    file = folder / "rates.json"
    counts["choosing"] = sum(one["seconds"] for one in json.loads(file.read_text()).values()) if file.exists() else 0.0
    return runs, counts


def of(runs: list[Ran], **which: str) -> list[Ran]:
    return [run for run in runs if all(getattr(run.cell, name) == value for name, value in which.items())]


# %% Tables
def rule(columns: str) -> None:
    print(f"\n| {columns} |\n|{'---|' * (columns.count(' | ') + 1)}")


def row(*cells: object) -> None:
    print(f"| {' | '.join(map(str, cells))} |")


def overview(runs: list[Ran], rates: dict[Cell, float]) -> None:
    rule(
        "network, task, optimiser | rate | first loss, last loss (median) | jumps (runs) | falls (runs) | births and deaths "
        "| stability changes (+1, flip, pair, of cycles) | kernel peaks | rate crossed | steps with rate above"
    )
    for cell, rate in rates.items():
        mine = [run for run in runs if run.cell == cell]
        first, last = (np.median([run.rows["loss"][at] for run in mine]) for at in (0, -1))
        many = [
            f"{sum(len(run.changes[name]) for run in mine)} ({sum(len(run.changes[name]) > 0 for run in mine)})"
            for name in ("jumps", "falls")
        ]
        kinds = np.sum([np.bincount(run.rows["kind"], minlength=1 + len(KINDS)) for run in mine], axis=0)
        total = {name: sum(int(run.events[name].sum()) for run in mine) for name in mine[0].events}
        above = total["rate above"] / sum(len(run.rows["loss"]) for run in mine)
        changed = f"{kinds[2:].sum()} ({', '.join(map(str, kinds[2:]))})"
        row(
            *(", ".join(cell), f"{rate:g}", f"{first:.2g}, {last:.2g}", *many, kinds[1], changed),
            *(total["kernel peak"], total["rate crossed"], f"{above:.0%}"),
        )


def through_infinity(runs: list[Ran]) -> None:
    """Of a PLRNN two points meet at a border, or one goes to infinity."""
    moves = np.concatenate([np.diff(run.rows["n_points"])[run.rows["kind"][1:] == 1] for run in of(runs, network="PLRNN")])
    print(
        f"\nPLRNN: {np.sum(moves % 2 == 1)} of {len(moves)} births and deaths are of an odd number of points (to infinity)"
    )


def pooled(runs: list[Ran], which: str, changes: Iterable[str] = ("jumps", "falls", "large changes")) -> None:
    for change in changes:
        for window, said in ((WITHIN, "within 2 steps"), (BEFORE, "within the 10 steps before")):
            print(f"\n{which}: {change}, an event {said}")
            rule(f"event | {change} | share | shifted | ratio to shifted | ratio to nearby | p")
            for event in runs[0].events:
                found = told(runs, change, event, window)
                row(event, found.count, shares(found), f"{found.p:.3f}")


def by_cell(runs: list[Ran], cells: Iterable[Cell], window: tuple[int, int], said: str) -> None:
    names = ("bifurcation", "kernel peak", "rate crossed", "rate above", "gradient peak")
    print(f"\nEach cell: share of jumps with an event {said}, and its ratio to nearby")
    rule("network, task, optimiser | jumps | " + " | ".join(names))
    above = np.zeros(len(names), int)
    for cell in cells:
        found = [told([run for run in runs if run.cell == cell], "jumps", event, window) for event in names]
        above += [one.nearby_ratio[1] > 1 for one in found]
        parts = [f"{one.share:.2f}, {times(one.nearby_ratio)}" if one.count else "-" for one in found]
        row(", ".join(cell), found[0].count, *parts)
    row("intervals above 1", "", *above)


def converse(runs: list[Ran], window: tuple[int, int], said: str) -> None:
    print(f"\nThe other way round: events with a jump {said}")
    rule("event | network | events | share | shifted | ratio to shifted | ratio to nearby | p")
    for event in ("bifurcation", "birth or death", "stability change", "kernel peak", "rate crossed", "gradient peak"):
        for network in dict.fromkeys(run.cell.network for run in runs):
            parts = []
            for i, run in enumerate(of(runs, network=network)):
                on = np.zeros(len(run.rows["loss"]), bool)
                on[run.changes["jumps"]] = True
                parts.append(met(np.flatnonzero(run.events[event]), on, window, i))
            found = over(parts)
            row(event, network, found.count, shares(found), f"{found.p:.3f}")


def sizes(runs: list[Ran]) -> None:
    print("\nThe kernel's largest eigenvalue over its run's median: median over steps (95 % over runs)")
    rule("network | optimiser | at jumps | at falls | at births and deaths | at stability changes")
    groups = dict.fromkeys((run.cell.network, run.cell.optimiser) for run in runs)
    for network, optimiser in groups:
        cells = []
        for name in ("jumps", "falls", "birth or death", "stability change"):
            each = []
            for run in of(runs, network=network, optimiser=optimiser):
                at = run.changes[name] if name in run.changes else np.flatnonzero(run.events[name])
                each.append(run.rows["top"][at] / np.median(run.rows["top"]))
            cells.append(median_over(each))
        row(network, optimiser, *cells)


def median_over(each: list[np.ndarray]) -> str:
    """The median of all values, with an interval by drawing runs."""
    each = [values[np.isfinite(values)] for values in each]
    if not sum(map(len, each)):
        return "-"
    random, drawn = np.random.default_rng(0), []
    for _ in range(SAMPLES):
        values = np.concatenate([each[i] for i in random.integers(len(each), size=len(each))])
        drawn += [np.median(values)] if len(values) else []
    return "{:.2g} ({:.2g} to {:.2g})".format(np.median(np.concatenate(each)), *np.percentile(drawn, [2.5, 97.5]))


def both(runs: list[Ran]) -> None:
    """Not among the definitions: added after the first results, to tell bifurcations from rates."""
    print("\nSteps with a jump within the next 10 steps: share (95 % over runs), number of steps")
    rule("network | neither | bifurcation within 2 steps before | rate above | both")
    for network in dict.fromkeys(run.cell.network for run in runs):
        each = []
        for run in of(runs, network=network):
            on = np.zeros(len(run.rows["loss"]), bool)
            on[run.changes["jumps"]] = True
            soon, changed = near(np.append(on[1:], False), (0, 9))[WINDOW:], near(run.events["bifurcation"], (2, 0))[WINDOW:]
            place = changed + 2 * run.events["rate above"][WINDOW:]
            each.append([np.bincount(place, weights, minlength=4) for weights in (np.ones(len(place)), soon)])
        counts = np.array(each)
        drawn = counts[np.random.default_rng(0).integers(len(counts), size=(SAMPLES, len(counts)))].sum(axis=1)
        total, parts = counts.sum(axis=0), []
        for i in range(4):
            samples = drawn[drawn[:, 0, i] > 0, 1, i] / drawn[drawn[:, 0, i] > 0, 0, i]
            if total[0, i]:
                low, high = np.percentile(samples, [2.5, 97.5])
                parts.append(f"{total[1, i] / total[0, i]:.1%} ({low:.1%} to {high:.1%}), {total[0, i]:.0f}")
            else:
                parts.append("-")
        row(network, *parts)


# %% The first bifurcation
def needed(run: Ran) -> int | None:
    """The step of the first bifurcation that the task needs; 0 if the network has it at first."""
    stable = run.rows["n_stable"]
    if run.cell.task == "flip-flop":
        has = stable >= 2
    else:
        has = (stable == 0) | (run.rows["kind"] == 1 + KINDS.index("Neimark-Sacker"))
    return int(np.argmax(has)) if has.any() else None


def wilson(hits: int, count: int) -> str:
    """A share with Wilson's 95 % interval."""
    if not count:
        return "-"
    z, share = 1.96, hits / count
    middle, half = share + z**2 / (2 * count), z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    low, high = (middle - half) / (1 + z**2 / count), (middle + half) / (1 + z**2 / count)
    return f"{hits} of {count} ({max(low, 0.0):.0%} to {high:.0%})"


def first(runs: list[Ran]) -> None:
    print("\nThe first bifurcation that the task needs")
    rule(
        "network, task, optimiser | runs that pass it | at step (quartiles) | within 20 steps of the smallest PR "
        "| by chance | within 20 steps of the first fall | percentile of the PR there | PR there / at first"
    )
    groups = {", ".join(cell): [run for run in runs if run.cell == cell] for cell in dict.fromkeys(run.cell for run in runs)}
    groups |= {f"all, {name}": of(runs, optimiser=name) for name in dict.fromkeys(run.cell.optimiser for run in runs)}
    for name, mine in (groups | {"all": runs}).items():
        at = [(run, t) for run in mine for t in [needed(run)] if t]
        if not at:
            row(name, f"0 of {len(mine)}", *"------")
            continue
        ratio = [run.rows["participation"] for run, _ in at]
        lowest = [int(np.nanargmin(one)) for one in ratio]
        close = sum(abs(t - low) <= APART for (_, t), low in zip(at, lowest, strict=True))
        chance = np.mean(
            [(np.abs(np.arange(len(one)) - low) <= APART).mean() for one, low in zip(ratio, lowest, strict=True)]
        )
        fell = [abs(t - run.changes["falls"][0]) <= APART for run, t in at if len(run.changes["falls"])]
        percentile = [100 * np.mean(one <= one[t]) for one, (_, t) in zip(ratio, at, strict=True)]
        relative = [one[t] / one[0] for one, (_, t) in zip(ratio, at, strict=True)]
        parts = [t for _, t in at], percentile, relative
        spreads = ["{1:.3g} ({0:.3g} to {2:.3g})".format(*np.percentile(part, [25, 50, 75])) for part in parts]
        row(
            *(name, f"{len(at)} of {len(mine)}", spreads[0]),
            *(wilson(close, len(at)), f"{chance:.1%}", wilson(int(sum(fell)), len(fell)), *spreads[1:]),
        )


def searches(counts: dict[Any, Any], networks: Iterable[str]) -> None:
    print("\nSearches")
    rule(
        "network | scheduled | found a new point | missed one | further | found a missed point | left out | audited | "
        "found a missed point | points by ssntk | of them unknown | known, not by ssntk"
    )
    names = ("scheduled", "new", "missed", "further", "further_new", "left_out", "audited", "audit_new", "library")
    for network in networks:
        row(network, *(counts.get((network, name), 0) for name in (*names, "library_new", "library_less")))


def tables(folder: pathlib.Path, cells: list[Cell]) -> list[Ran]:
    runs, counts = read(folder, cells)
    if not runs:
        raise SystemExit(f"{folder} has no networks that all cells have yet")
    train, track = counts["seconds"] / 3600
    print(
        f"{len(runs)} runs, {len(runs) // len(cells)} of each cell; {train:.2f} h of training, {track:.2f} h of tracking "
        f"and searches, {counts['choosing'] / 3600:.2f} h of choosing rates, on one core"
    )
    overview(runs, counts["rates"])
    through_infinity(runs)
    pooled(runs, "all runs")
    for network in dict.fromkeys(cell.network for cell in cells):
        pooled(of(runs, network=network), network)
    for optimiser in dict.fromkeys(cell.optimiser for cell in cells):
        pooled(of(runs, optimiser=optimiser), optimiser)
    by_cell(runs, cells, WITHIN, "within 2 steps")
    by_cell(runs, cells, BEFORE, "within the 10 steps before")
    converse(runs, WITHIN, "within 2 steps")
    converse(runs, BEFORE[::-1], "within the 10 steps after")
    both(runs)
    sizes(runs)
    first(runs)
    searches(counts, dict.fromkeys(cell.network for cell in cells))
    sound = [run for run in runs if not blown(run).any()]
    # PLRNNs are not bounded, so that their sum may be any integer.
    for network in dict.fromkeys(cell.network for cell in cells if cell.network != "PLRNN"):
        wrong, late = (np.concatenate([part(run) for run in of(runs, network=network)]) for part in (unsummed, blown))
        print(
            f"{network}: index sum not 1 at {wrong.mean():.2%} of steps, at {wrong[~late].mean():.2%} of those not blown up"
        )
    print(f"\nAdded after the first results: the {len(sound)} runs whose loss never exceeds ten times the first")
    pooled(sound, "sound runs", ("jumps",))
    by_cell(sound, cells, BEFORE, "within the 10 steps before")
    return runs


def blown(run: Ran) -> np.ndarray:
    """Steps from which on the loss has exceeded ten times the first."""
    return np.maximum.accumulate(~(run.rows["loss"] <= 10 * run.rows["loss"][0]))


def unsummed(run: Ran) -> np.ndarray:
    return run.rows["index"] != 1
