"""One self-contained page of a sweep's results. Its data are collected here, and drawn by `page.js`."""

import base64
import hashlib
import html
import importlib.resources
import json
import os
import pathlib
import shlex
import string
from typing import Any

import numpy as np
from scipy.interpolate import CubicSpline

from ssntk.bifurcation.continuation import Branch
from ssntk.bifurcation.events.kinds import kind_named
from ssntk.bifurcation.projection import curves, direction_of
from ssntk.cycles.branch import CycleBranch
from ssntk.files import write_whole
from ssntk.models.clock import AbstractClock, Continuous, clock_of
from ssntk.nouns import Json
from ssntk.report.cycle_payload import cycle_lines, cycle_point, cycle_slopes, cycle_text
from ssntk.report.numbers import number as _number
from ssntk.sweep.coverage import Header, TowardsOfCycles, coverage_of
from ssntk.sweep.kept_branch import AnyBranch
from ssntk.sweep.quantities.base import Variable
from ssntk.sweep.quantities.blocks import BlocksQuantity
from ssntk.sweep.quantities.channel import ChannelQuantity
from ssntk.sweep.record import Listed, listed
from ssntk.sweep.store import DONE, Status, Store
from ssntk.sweep.summary import slope_of

# How much a screen can show: eigenvalues of a spectrum, units of a vector, save times of a kernel, points of a branch.
MOST_MODES, MOST_UNITS, MOST_TIMES, MOST_STEPS = 128, 128, 64, 2000
# How many shades a kernel over time has on either side of zero.
SHADES = 127

# A page leaves out this part of a variable's name, since it repeats the name of the section.
PREFIX = "channel_"


def write_page(store: Store, path: str | os.PathLike[str]) -> pathlib.Path:
    """Write the page of a store's results, and return its path.

    The page needs no network and no other file. Raises `StoreError` if the folder holds no sweep.
    """
    parts = importlib.resources.files("ssntk.report")
    style, script, template = (parts.joinpath(f"page.{kind}").read_text(encoding="utf-8") for kind in ("css", "js", "html"))
    held = payload(store)
    page = string.Template(template).substitute(
        title=html.escape(held["title"]),
        folder=html.escape(held["folder"]),
        style=style,
        script=script,
        style_hash=_sha256(style),
        script_hash=_sha256(script),
        data=_as_json(held),
    )
    # The name of a folder need not be valid text.
    return write_whole(path, page.encode("utf-8", "replace"))


def payload(store: Store) -> Json:
    """The data of the page, as JSON. A number that is not finite is `None`.

    Points are in the order of the slider: from far to near for a sweep towards a bifurcation, in C order of the axes for a
    grid.
    """
    plan, data, status = store.plan(), store.arrays(), store.status()
    coverage = coverage_of(plan)
    towards, order = coverage.leads, coverage.order(plan)
    rows = np.arange(len(order))[::-1] if towards else np.arange(len(order))
    numbers = order[rows]
    branch = store.branch() if towards else None
    # Some numbers exist for some models only.
    shown_numbers = {key: one for key, one in listed(plan, "overview", "point").items() if one.name in data}
    of_cycles = coverage.kind == TowardsOfCycles.kind
    equilibria = branch if isinstance(branch, Branch) else None
    projection = None if equilibria is None or len(equilibria.parameter) == 0 else direction_of((equilibria,))
    sizes = {name: data[name].shape[-1] if name in data else 0 for name in ("ntk_eigenvalues", "jacobian_eigenvalues")}
    modes, shown = (_thinned(size) for size in sizes.values())
    times = _times(plan["ts"], data)
    where = np.stack(np.unravel_index(numbers, store.shape()), axis=1)
    points = []
    for row, number, at in zip(rows, numbers, where, strict=True):
        one = {name: values[row] for name, values in data.items()}
        point: Json = {"index": int(number)} | ({} if towards else {"at": at.tolist()})
        point |= {name: _number(one.get(name), 12) for name in ("distance", "parameter")} if towards else {}
        if one["status"] != DONE:
            state = "missing" if one["status"] == "missing" else "failed"
            points.append(point | {"state": state, "reason": str(one["status"]).removeprefix("failed: ")})
            continue
        if projection is not None:
            point["height"] = _number((one["x_star"] - projection[0]) @ projection[1], 12)
        if of_cycles:
            points.append(point | {"state": "done"} | cycle_point(one, shown_numbers))
            continue
        points.append(point | {"state": "done"} | _measured(one, shown_numbers, clock_of(plan["dt"]), modes, shown, times))
    return {
        "title": plan["title"],
        "kind": plan["kind"],
        "format": plan["format"],
        "hash": plan["hash"],
        "folder": store.path.resolve().name,
        "dt": plan["dt"],
        "axes": [{"name": name, "values": values.tolist()} for name, values in store.axes().items()],
        "blocks": plan["blocks"],
        "times": None if times is None else [_number(plan["ts"][i]) for i in times],
        "modes": {"ntk": (modes + 1).tolist(), "steady": (shown + 1).tolist()},
        "sizes": {"ntk": sizes["ntk_eigenvalues"], "steady": sizes["jacobian_eigenvalues"]},
        "quantities": _quantities(shown_numbers, clock_of(plan["dt"])),
        "panels": _panels(plan, shown_numbers),
        "channel": {
            name.removeprefix(PREFIX): [one.label, _units(one.variable)] for name, one in listed(plan, "channel").items()
        },
        "block_heads": [named(one.label, _units(one)) for one in BlocksQuantity.variables.values()],
        "points": points,
        "slope": _slope(store, data) if equilibria is not None else None,
        "slopes": cycle_slopes(store, data) if isinstance(branch, CycleBranch) else None,
        "branch": _lines(store, branch, projection),
        "what": _what(store, plan, status, branch),
        "rerun": _rerun(store.path.resolve().name, towards),
    }


def _measured(
    one: Json,
    numbers: dict[str, Listed],
    clock: AbstractClock,
    modes: np.ndarray,
    shown: np.ndarray,
    times: np.ndarray | None,
) -> Json:
    """The data of the panels for one measured point."""
    eigenvalues = one["jacobian_eigenvalues"]
    values = {key: number.of(one[number.name]) for key, number in numbers.items() if number.name in one}
    values["growth"] = clock.shown_rate(eigenvalues[0])
    kept = eigenvalues[shown]
    kept = kept[np.isfinite(kept)]
    out: Json = {
        "values": {key: _number(values.get(key)) for key in numbers},
        "bound": bool(one["trajectory_condition_number_is_bound"] == 1),
        "rightmost": [_number(eigenvalues[0].real), _number(eigenvalues[0].imag)],
        "eigenvalues": [[_number(part, 5) for part in parts] for parts in (kept.real, kept.imag)],
        "ntk": [_number(value, 4) for value in one["ntk_eigenvalues"][modes]],
        "steady": [_number(value, 4) for value in one["steady_state_eigenvalues"][shown]],
        "kernel": None if times is None else _kernel(one["kernel_over_time"][np.ix_(times, times)]),
        "channel": _channel(one),
    }
    if all(name in one for name in BlocksQuantity.variables):
        # If a block has several eigenvalues, the largest is shown.
        parts = [one[name] if one[name].ndim == 1 else one[name][:, 0] for name in BlocksQuantity.variables]
        out["blocks"] = [[_number(part[i]) for part in parts] for i in range(len(parts[0]))]
    return out


def _channel(one: Json) -> Json | None:
    """The critical mode of a point; `None` if the point has none."""
    if not one.get("channel_kind"):
        return None
    critical = one["channel_critical_eigenvalue"]
    numbers = [name for name, variable in ChannelQuantity.variables.items() if variable.section == "channel"]
    out: Json = {name.removeprefix(PREFIX): _number(one[name]) for name in numbers}
    out |= {name: str(one[f"channel_{name}"]) for name in ("kind", "method", "reason")}
    out["critical"] = [_number(critical.real), _number(critical.imag)]
    sizes = np.abs(one["channel_right"]) if "channel_right" in one else np.zeros(0)
    sizes = sizes[np.isfinite(sizes)]
    largest = np.sort(np.argsort(-sizes, kind="stable")[:MOST_UNITS])
    return out | {
        "units": [int(i) for i in largest],
        "right": [_number(size, 4) for size in sizes[largest]],
        "n_units": int(sizes.size),
    }


def _lines(store: Store, branch: AnyBranch | None, projection: tuple[np.ndarray, np.ndarray] | None) -> Json | None:
    """The branch as lines; `None` if there is none to draw."""
    if isinstance(branch, CycleBranch):
        return cycle_lines(branch, store.bifurcation())
    return None if projection is None or branch is None else _branch(store, branch, *projection)


def _branch(store: Store, branch: Branch, centre: np.ndarray, direction: np.ndarray) -> Json:
    """The branch as two lines, stable and unstable, with `None` at gaps, and its events."""
    located = np.array([event.x for event in branch.bifurcations]).reshape(-1, branch.x.shape[1])
    parameter, height, solid, dashed = _smooth(*curves(branch, *((x - centre) @ direction for x in (branch.x, located))))
    target = store.bifurcation()
    return {
        "parameter": [_number(value, 12) for value in parameter],
        "stable": [_number(value, 12) for value in np.where(solid, height, np.nan)],
        "unstable": [_number(value, 12) for value in np.where(dashed, height, np.nan)],
        "events": [
            {
                "kind": event.kind,
                "parameter": _number(event.parameter, 12),
                "height": _number((event.x - centre) @ direction, 12),
                "target": event.kind == target.kind and event.parameter == target.parameter,
            }
            for event in (*branch.bifurcations, *branch.unresolved)
        ],
        "scalar": direction.size == 1,
    }


def _smooth(parameter: np.ndarray, height: np.ndarray, *lines: np.ndarray) -> tuple[np.ndarray, ...]:
    """The curves of a branch with additional points, on cubic splines over the chord length.

    Straight chords would miss points that are measured between two steps, especially near a fold.
    """
    sizes = [np.ptp(values) or 1.0 for values in (parameter, height)]
    chords = np.hypot(np.diff(parameter) / sizes[0], np.diff(height) / sizes[1])
    # A located point may coincide with a step.
    own = np.append(True, chords > 1e-12 * chords.sum()) if len(parameter) > 1 else np.ones(len(parameter), bool)
    parts = min(MOST_STEPS // max(own.sum() - 1, 1), 16)
    if own.sum() < 4 or parts < 2:
        return parameter, height, *lines
    parameter, height, *kept = (values[own] for values in (parameter, height, *lines))
    length = np.append(0.0, np.hypot(np.diff(parameter) / sizes[0], np.diff(height) / sizes[1]).cumsum())
    step = np.arange(parts * (len(length) - 1) + 1) / parts
    before, after = np.floor(step).astype(int), np.ceil(step).astype(int)
    at = np.interp(step, np.arange(len(length)), length)
    smooth = [CubicSpline(length, values)(at) for values in (parameter, height)]
    return *smooth, *(line[before] & line[after] for line in kept)


def _slope(store: Store, data: dict[str, np.ndarray]) -> Json | None:
    """The slope of the largest steady-state eigenvalue near the bifurcation, as in `collapse`, and the predicted slope."""
    kept = data["status"] == DONE
    if not kept.any():
        return None
    slope = slope_of(store.bifurcation().kind, data["distance"][kept], data["steady_state_eigenvalues"][kept, 0])
    measured, decades, predicted = _number(slope.measured, 4), _number(slope.decades, 2), _number(slope.predicted)
    return {"measured": measured, "decades": decades, "predicted": predicted, "says": slope.says}


def _what(store: Store, plan: Header, status: Status, branch: AnyBranch | None) -> list[list[str]]:
    """What was run: pairs of a name and a text."""
    counts = f"{status.total}: {len(status.done)} measured, {len(status.failed)} failed, {len(status.missing)} not measured"
    coverage = coverage_of(plan)
    out = [["Title", plan["title"]], ["Plan", f"hash {plan['hash']}"], ["Points", counts]]
    out += [["State dimension", f"n = {plan['n_state']}" + ("" if coverage.leads else " at most")]]
    dynamics = "differential equation" if clock_of(plan["dt"]) == Continuous() else f"map, one step dt = {plan['dt']:g} time"
    out += [["Dynamics", dynamics]]
    if coverage.leads:
        far, near = max(plan["distances"]), min(plan["distances"])
        out += [["Plan covers", f"a sweep towards a bifurcation: |p - p_c| from {far:g} to {near:g}, in units of p"]]
    else:
        axes = coverage.axes(plan).items()
        out += [["Plan covers", "a grid: " + " x ".join(f"{len(values)} {name}" for name, values in axes)]]
    if plan["ts"]:
        out += [["Kernel over time", f"{len(plan['ts'])} save times from {plan['ts'][0]:g} to {plan['ts'][-1]:g} time"]]
    if plan["blocks"]:
        out += [["Blocks of parameters", ", ".join(plan["blocks"])]]
    if branch is not None:
        event = store.bifurcation()
        out += [["Bifurcation located", _located(event) if isinstance(branch, Branch) else cycle_text(event)]]
        out += [["Branch", f"{len(branch.parameter)} points; it {branch.status}"]]
    out += [["Store", f"folder {store.path.resolve().name}, format {plan['format']}"]]
    out += [["Set aside", ", ".join(status.set_aside) + " (no records of this plan)" if status.set_aside else "no file"]]
    return [*out, ["Versions", ", ".join(f"{name} {version}" for name, version in plan["versions"].items())]]


def _located(event: Any) -> str:
    """What was located, in words."""
    within = max(abs(float(end) - float(event.parameter)) for end in event.interval)
    low, high = (f"{float(end):.17g}" for end in event.interval)
    text = f"{event.kind} at p_c = {float(event.parameter):.12g}, in [{low}, {high}], known to within {within:.1g}; "
    text += f"normal-form coefficient {float(event.coefficient):.6g}"
    none = ", criticality not known" if kind_named(event.kind).criticality else ""
    text += f", {event.criticality}" if event.criticality else none
    text += f"; angular frequency {float(event.frequency):.6g} rad/time" if event.frequency else ""
    return f"{text}; residual of its extended system {float(event.residual):.1g}"


def _rerun(folder: str, towards: bool) -> list[list[str]]:
    """How to run the plan again. Points that are measured already are kept."""
    plan = "sweep" if towards else "grid"
    return [
        ["On the command line", f"ssntk sweep <file>.toml --out {shlex.quote(folder)}"],
        ["In Python", f"ssntk.run({plan}, ssntk.Store({folder!r}))"],
    ]


def _quantities(numbers: dict[str, Listed], clock: AbstractClock) -> list[Json]:
    out = [
        {
            "name": key,
            "label": one.label,
            "units": _units(one.variable),
            # Whether a phase diagram can show it.
            "mapped": one.variable.section == "overview",
        }
        for key, one in numbers.items()
    ]
    if clock != Continuous() and "growth" in numbers:
        next(one for one in out if one["name"] == "growth")["label"] = "Growth exponent log |m₁| / dt"
    return out


def _panels(plan: Header, numbers: dict[str, Listed]) -> list[Json]:
    """The panels of the user's own quantities. They draw the numbers of the quantities over the distance."""
    out = []
    for name, said in plan["quantities"].items():
        keys = [key for key, one in numbers.items() if one.name in said["variables"]]
        if said["panel"] is not None and keys:
            units = {_units(numbers[key].variable) for key in keys}
            label = units.pop() if len(units) == 1 else ""
            out.append({"name": name, "title": said["panel"], "label": label, "lines": keys})
    return out


def _units(variable: Variable) -> str:
    """Units as a reader expects them; empty if there are none."""
    return "" if variable.units == "1" else variable.units.replace("^2", "²").replace(" / ", "/")


def named(label: str, units: str) -> str:
    """A label with its units in brackets."""
    return f"{label} ({units})" if units else label


def _times(ts: list[float] | None, data: dict[str, np.ndarray]) -> np.ndarray | None:
    """The indices of the save times at which the kernel over time is shown, evenly chosen; `None` if there is no kernel."""
    count = data["kernel_over_time"].shape[-1] if "kernel_over_time" in data else 0
    if ts is None or count == 0 or count != len(ts):
        return None
    return np.linspace(0, count - 1, min(count, MOST_TIMES)).round().astype(int)


def _kernel(values: np.ndarray) -> Json | None:
    """A symmetric kernel as the rows of its upper triangle. Each entry is a signed byte, relative to the largest entry."""
    upper = values[np.triu_indices(len(values))]
    peak = float(np.abs(upper).max())
    if not np.isfinite(peak):
        return None
    shades = np.rint(SHADES * upper / (peak or 1.0)).astype(np.int8)
    return {"peak": _number(peak), "upper": base64.b64encode(shades.tobytes()).decode()}


def _thinned(count: int) -> np.ndarray:
    """The first of `count` places, and fewer and fewer of the others, as on a logarithmic axis."""
    if count <= MOST_MODES:
        return np.arange(count)
    return np.unique(np.geomspace(1, count, MOST_MODES).round().astype(int)) - 1


def _as_json(held: Json) -> str:
    """JSON that is safe inside a script element, whatever its strings hold."""
    text = json.dumps(held, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _sha256(text: str) -> str:
    """The hash by which a content security policy allows an inline script or style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
