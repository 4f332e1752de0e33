"""The data of the page of a sweep towards a bifurcation of limit cycles."""

from typing import Any

import numpy as np

from ssntk.bifurcation.events.kinds import kind_named
from ssntk.collapse.cycle_law import cycle_law
from ssntk.cycles.branch import CycleBranch
from ssntk.cycles.side import events_of, kind_of_event
from ssntk.nouns import Json
from ssntk.report.numbers import number
from ssntk.sweep.cycle_summary import tendencies
from ssntk.sweep.record import Listed
from ssntk.sweep.store import DONE, Store


def cycle_point(one: Json, numbers: dict[str, Listed]) -> Json:
    """The data of the panels for one measured cycle."""
    values = {key: listed.of(one[listed.name]) for key, listed in numbers.items() if listed.name in one}
    multipliers = one["multipliers"][np.isfinite(one["multipliers"])]
    return {
        "values": {key: number(values.get(key)) for key in numbers},
        "decay": None if "critical_exponent" not in one else number(-one["critical_exponent"].real),
        "multipliers": [[number(part, 5) for part in parts] for parts in (multipliers.real, multipliers.imag)],
        "height": number(one["maximum"][0], 12),
        "lowest": number(one["minimum"][0], 12),
    }


def cycle_slopes(store: Store, data: dict[str, np.ndarray]) -> Json | None:
    """The slopes over the distance, and a sentence about what theory predicts."""
    kept, kind = data["status"] == DONE, kind_of_event(store.bifurcation())
    if not kept.any():
        return None
    decades, found = tendencies(kind, {name: values[kept] for name, values in data.items()})
    return {
        "says": f"Near a {kind}: {cycle_law(kind).says}",
        "decades": number(decades, 2),
        "lines": {one.name: [number(one.measured, 4), number(one.predicted, 4)] for one in found},
    }


def cycle_lines(branch: CycleBranch, target: Any) -> Json:
    """The largest value of the first state on each cycle of a branch, as two lines, stable and unstable."""
    height = branch.maximum[:, 0]
    # Lines join at the last stable cycle.
    beside = np.append(branch.stable[1:], False) | np.insert(branch.stable[:-1], 0, False)
    unstable = ~branch.stable | (beside & ~branch.stable)
    return {
        "parameter": [number(value, 12) for value in branch.parameter],
        "stable": [number(value, 12) for value in np.where(branch.stable, height, np.nan)],
        "unstable": [number(value, 12) for value in np.where(unstable, height, np.nan)],
        "events": [
            {
                "kind": kind_of_event(event),
                "parameter": number(event.parameter, 12),
                "height": number(event.orbit.maximum[0] if hasattr(event, "orbit") else event.x[0], 12),
                "target": kind_of_event(event) == kind_of_event(target) and event.parameter == target.parameter,
            }
            for event in events_of(branch)
        ],
        "scalar": False,
    }


def cycle_text(event: Any) -> str:
    """What was located, in words."""
    kind = kind_of_event(event)
    low, high = (f"{float(end):.17g}" for end in event.interval)
    text = f"{kind} at p_c = {float(event.parameter):.12g}, in [{low}, {high}]: {kind_named(kind).meaning}"
    return text + (
        f"; period {event.period:.10g} time, multiplier {event.multiplier:.6g}" if hasattr(event, "orbit") else ""
    )
