"""Explain what a result means, in plain sentences, and which call to make next."""

import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.events.kinds import KINDS, OF_BORDERS, kind_named
from ssntk.bifurcation.point import Bifurcation
from ssntk.collapse.channel import Channel
from ssntk.collapse.detect import Detection
from ssntk.collapse.signature import Signature
from ssntk.critical.approach import Approach
from ssntk.critical.flag import Criticality
from ssntk.critical.retreat import Retreat
from ssntk.critical.warned import border_clause
from ssntk.diagrams.diagram import Diagram
from ssntk.diagrams.two_parameters import TwoParameterDiagram
from ssntk.dynamics.fixed_points import FixedPoints, SlowPoints
from ssntk.explained import of_cycles as of_cycles
from ssntk.explained.base import say, sentences
from ssntk.kernel.spectrum import Spectrum
from ssntk.learning.monitor import MonitorRecord, NTKMonitor
from ssntk.learning.predict import LinearisedTraining
from ssntk.results import Result, Results, Speaks, counted
from ssntk.sweep.measure import Measurement
from ssntk.sweep.store import Store


def explain(result: object) -> str:
    """Explain a result in five plain sentences: what was found, how far it can be trusted, and which call to make next.

    **Arguments:** `result`: what a function of ssntk returned. If there are no sentences for its class, its summary is
    returned.

    Raises `ValueError` if it is not a result.

    **Example:**

    ```python
    points = ssntk.find_fixed_points(ssntk.normal_forms.pitchfork(1.0))
    print(ssntk.explain(points).split(";")[0])  # There are 3 fixed points: 2 stable, 1 with 1 unstable direction
    ```
    """
    if not isinstance(result, Speaks) and not callable(getattr(result, "summary", None)):
        raise ValueError(f"result must be what a function of ssntk returned, got {type(result).__name__}")
    said = sentences(result)
    return " ".join(f"{one[0].upper()}{one[1:]}" for one in said) if said else f"{result.summary()}\n{_NEXT}"


_NEXT = "Its fields are described by help(result); ssntk.save(path, result) keeps it."


@sentences.register
def _(found: FixedPoints) -> list[str]:
    if len(found) == 0 and found.complete:
        return [
            "It is proved that there is no fixed point.",
            "So the network never comes to rest, or it grows without bound.",
            "Next: look at a simulation by ssntk.simulate.",
        ]
    if len(found) == 0:
        made = counted(found.n_starts, "start")
        return [
            f"No fixed point was found from {made}.",
            "So the network may not come to rest anywhere, or its fixed points lie where no start arrives.",
            f"There {_are(len(found.slow), 'slow point')}, where it almost rests.",
            f"Of the starts {found.n_lost} arrived nowhere.",
            "Next: ssntk.find_fixed_points(model, u, n_starts=1024), or look at a simulation by ssntk.simulate.",
        ]
    stable, chance = int(found.stable.sum()), found.coverage
    alone = f"There {'is' if len(found) == 1 else 'are'} {found._headline()}."
    rest = "it can come to rest at a stable one" if stable else "none is stable, so that it keeps moving, or moves away"
    known = (
        "It is proved that there are no others."
        if found.complete
        else f"One more start would arrive at a known point with an estimated chance of {chance:.2f}; no proof that all are "
        "known."
    )
    index = {
        None: "A point is degenerate, so that a bifurcation is at hand.",
        1: "The index sum is 1, as it must be if the network is bounded and all points are known.",
    }.get(
        found.index_sum,
        f"The index sum is {found.index_sum}: "
        + ("so the network is not bounded." if found.complete else "of a bounded network it would be 1 if all were known."),
    )
    call = "ssntk.continuation(ssntk.Family(...), span, x0=result.x[0])" if stable else "ssntk.criticality(model)"
    return [alone, f"Left to itself, {rest}.", known, index, f"Next: result.plot() shows them; {call} goes on from here."]


@sentences.register
def _(found: SlowPoints) -> list[str]:
    return [
        f"{found._headline()}.",
        "The speed has a minimum at each that is not zero.",
        "A pair of fixed points was there, or will be, at a nearby parameter.",
        "The Jacobian is singular at each, up to rounding.",
        "Next: ssntk.bifurcation_diagram(family, span) looks for the fold beside each.",
    ]


@sentences.register
def _(branch: Branch) -> list[str]:
    if len(branch) == 0:
        return [f"The branch has no points: {branch.status}.", "Next: pass x0=, or another span."]
    low, high = say(branch.parameter.min()), say(branch.parameter.max())
    share = f"{int(branch.stable.sum())} of {counted(len(branch), 'point')} are stable"
    return [
        f"One branch of equilibria was followed from p = {say(branch.parameter[0])} to {say(branch.parameter[-1])}.",
        f"It lies between p = {low} and {high}, and {share}.",
        _events(branch.bifurcations, len(branch.unresolved)),
        f"It ended for this reason: {branch.status}.",
        f"Next: result.plot() draws it; {_onwards(branch.bifurcations)}.",
    ]


@sentences.register
def _(diagram: Diagram) -> list[str]:
    switched = sum(parent is not None for parent in diagram.parent)
    return [
        f"The diagram has {counted(len(diagram), 'branch')} of equilibria, {switched} of them found where branches cross.",
        _events(diagram.bifurcations, len(diagram.unresolved)),
        *_of_cycles(diagram),
        f"As to completeness: {diagram.status}.",
        "Nothing proves that there are no other branches: more n_slices or n_starts find more.",
        f"Next: result.plot() draws it; {_onwards(diagram.bifurcations)}.",
    ]


@sentences.register
def _(diagram: TwoParameterDiagram) -> list[str]:
    kinds = [curve.kind for curve in diagram.curves]
    found = ", ".join(f"{kinds.count(kind)} of the kind {kind}" for kind in dict.fromkeys(kinds)) or "none"
    closed = sum(curve.closed for curve in diagram.curves)
    names = [point.kind for point in diagram.points]
    points = ", ".join(f"{names.count(name)} {name}" for name in dict.fromkeys(names)) or "none"
    counts = sorted({region.n_stable for region in diagram.regions})
    call = "ssntk.criticality(result.plane(p1, p2)) judges the network at any place"
    return [
        f"Over {diagram.names[0]} and {diagram.names[1]} lie {counted(len(kinds), 'curve')} of bifurcations: {found}; "
        f"{closed} closed.",
        f"Their points of codimension two, each counted once: {points}.",
        f"Between the curves the number of stable fixed points is {' or '.join(map(str, counts)) or 'not known'}.",
        *_of_kernels(diagram),
        f"As to completeness: {diagram.status}; more n_slices find more.",
        f"Next: result.plot() draws it; {call}.",
    ]


def _of_kernels(diagram: TwoParameterDiagram) -> list[str]:
    """A sentence about the kernels of a diagram, if they were computed."""
    found = diagram.kernel
    if found is None or not np.isfinite(found.top).any():
        return []
    at = np.unravel_index(np.nanargmax(found.top), found.top.shape)
    place = f"({say(float(found.p1[at[0]]))}, {say(float(found.p2[at[1]]))})"
    here, largest = say(float(found.participation_ratio[at])), say(float(np.nanmax(found.participation_ratio)))
    return [
        f"The steady-state kernel is nearest to collapse at {place}, where its participation ratio is {here}; the largest "
        f"one is {largest}."
    ]


def _of_cycles(diagram: Diagram) -> list[str]:
    """A sentence about the limit cycles of a diagram, if they were followed and found."""
    if not diagram.cycles:
        return []
    events = ", ".join(f"{event.kind} at p = {say(event.parameter)}" for event in diagram.cycle_events) or "none"
    stable = sum(int(branch.stable.sum()) for branch in diagram.cycles)
    return [
        f"It has {counted(len(diagram.cycles), 'branch')} of limit cycles, with {stable} stable among "
        f"{sum(map(len, diagram.cycles))} orbits; their bifurcations: {events}."
    ]


@sentences.register
def _(point: Bifurcation) -> list[str]:
    if not point.converged:
        return [
            f"An event was seen near p = {say(point.parameter)}, and not located.",
            f"The reason: {point.reason}.",
            "Next: ssntk.continuation(family, span, step=0.01) over a short span around it.",
        ]
    otherwise = "the count of unstable directions changes there, or the user's own function its sign"
    what = kind_named(point.kind).meaning or otherwise
    born = {
        "supercritical": "What is born is stable, if the other modes are, so that the change is gradual.",
        "subcritical": "What is born is unstable, so that the network jumps away.",
    }.get(point.criticality or "", "It has no criticality.")
    width = abs(float(point.interval[1]) - float(point.interval[0])) / 2
    return [
        f"This is a {point.kind} point at p = {say(point.parameter)}.",
        f"{what}.",
        born,
        f"Its place is known to {say(width)}, and it solves its equations to {say(point.residual)}.",
        f"Next: {_onwards((point,))}.",
    ]


@sentences.register
def _(found: Criticality) -> list[str]:
    if found.verdict == "unknown":
        return [f"No verdict: {found.reason}.", "Next: ssntk.criticality(model, n_starts=256)."]
    far = "near" if found.near else "far from"
    crossing = "an oscillation starts" if found.kind == "pair" else "an equilibrium vanishes or splits, or a flip occurs"
    call = {
        True: f"ssntk.retreat(model, margin={say(0.33 / found.time_scale)}) moves it away by the least change",
        False: "nothing has to be done; train, and watch by ssntk.NTKMonitor(probe)",
    }[bool(found.near)]
    return [
        f"This network is {far} a bifurcation: the verdict is {found.verdict!r}.",
        f"It was judged at a {'stable' if found.stable else 'unstable'} fixed point, one of {found.n_fixed_points}.",
        f"The least change of the Jacobian after which {crossing} is {say(abs(found.stability_radius))} in 1 / time, or "
        f"{say(found.relative_distance)} relative to the network's own rates.",
        f"Changes of the parameters push that mode with the strength {say(found.drive)}, and 0 would mean not at all.",
        *_origin(found),
        *_border(found),
        f"Next: {call}.",
    ]


def _origin(found: Criticality) -> list[str]:
    """A sentence on random networks of the same gain."""
    if found.percentile is None or found.gain is None or found.expected_radius is None:
        return []
    return [
        f"Of random networks of its gain, {say(found.gain)}, {say(100 * found.percentile)} % are nearer to instability. "
        f"Their median distance is {say(found.expected_radius)} in 1 / time."
    ]


def _border(found: Criticality) -> list[str]:
    """A sentence on the nearest nonsmooth fold."""
    clause = border_clause(found.border)
    return [clause[0].upper() + clause[1:] + "."] if clause else []


@sentences.register
def _(spectrum: Spectrum) -> list[str]:
    condition, values = spectrum.condition_number, spectrum.eigenvalues
    if condition is None:
        wide = "Only the largest eigenvalues were computed, so that no condition number is known."
    elif not np.isfinite(condition):
        wide = "Some eigenvalues are zero by construction, so that the condition number is infinite."
    elif spectrum.condition_number_is_bound:
        wide = f"The condition number is at least {say(condition)}: the smallest eigenvalues are rounding."
    else:
        wide = f"The slowest mode learns {say(condition)} times more slowly than the fastest."
    return [
        f"There {_are(len(values), 'known eigenvalue')} of the kernel, the largest {say(values[0])}.",
        f"Its weight is spread over about {say(spectrum.participation_ratio)} modes, and the first holds "
        f"{say(100 * spectrum.top_share)} % of it.",
        wide,
        f"Gradient descent on |residual|^2 / 2 diverges above the learning rate {say(spectrum.max_learning_rate)}.",
        "Next: ssntk.plot.spectrum(result) draws it; result.steps_to_tolerance(learning_rate, tol) says how long it takes.",
    ]


@sentences.register
def _(channel: Channel) -> list[str]:
    held = channel.method in ("fixed point", "averaged")
    return [
        f"The critical eigenvalue is {say(channel.critical_eigenvalue)} ({channel.kind}).",
        f"Its direction holds {say(100 * channel.share)} % of the kernel's trace.",
        f"The kernel's largest eigenvalue is {say(channel.top_eigenvalue)}, that of the critical part is predicted to be "
        f"{say(channel.predicted_top_eigenvalue)}."
        if held
        else "No law predicts its part of the kernel here.",
        f"The drive of the mode is {say(channel.drive)}; a mode without drive is not amplified.",
        "Next: ssntk.Sweep(...) measures it at several distances from the bifurcation.",
    ]


@sentences.register
def _(found: Signature) -> list[str]:
    what = "a real eigenvalue (saddle-node, transcritical, pitchfork)" if found.kind == "real" else "a pair (Hopf)"
    return [
        f"The response is largest at the frequency {say(found.peak_frequency)}.",
        f"That is the signature of {what}.",
        f"The peak is {say(found.peak)} high.",
        f"Its half width, {say(found.width)}, estimates how fast the mode decays.",
        "Next: ssntk.bifurcation_channel(model, probe, x_star) measures what that mode does to the kernel.",
    ]


@sentences.register
def _(found: Detection) -> list[str]:
    if not found.converged:
        return [
            f"The kernels do not say where a bifurcation lies: {found.reason}.",
            "Next: add points nearer to it, or pass ts= and kernels=.",
        ]
    return [
        f"The kernels point to a {found.kind or 'bifurcation'} at p = {say(found.critical_parameter)}.",
        f"The 95 % interval is {say(found.interval)}.",
        f"The first eigenvalue grows with the exponent {say(found.exponent)} there.",
        f"Against the next likely kind the log odds are {say(found.odds)}.",
        "Next: if the model is at hand, ssntk.continuation(family, span) locates the point itself.",
    ]


@sentences.register
def _(found: Approach) -> list[str]:
    line = "result.model is the network there" if found.family is None else "ssntk.Sweep(result, ...) measures along the way"
    return [
        f"{found.reason}",
        f"What is met is a {found.kind}, at a distance of {say(found.distance)} in the parameters.",
        f"{found.agreeing} of {len(found.starts)} starts led here; it is a local minimum and no proof of the nearest."
        if found.minimum
        else "It is no minimum to second order, so that a nearer one exists.",
        f"Its conditions are met to {say(found.residual)}.",
        f"Next: {line}.",
    ]


@sentences.register
def _(found: Retreat) -> list[str]:
    moved = f"The parameters moved by {say(found.distance)}." if found.distance else "Nothing had to be changed."
    return [
        f"The equilibrium of result.model has the stability radius {say(found.stability_radius)}.",
        moved,
        f"The margin is attained at {counted(len(found.frequencies), 'frequency')}.",
        f"A network nearby could be nearer by {say(found.gap)} of that at most, to first order.",
        "Next: ssntk.criticality(result.model) judges all of its fixed points.",
    ]


@sentences.register
def _(found: LinearisedTraining) -> list[str]:
    trust = "can" if found.lazy else "cannot"
    return [
        f"In {int(found.steps[-1])} steps the loss is predicted to go from {say(found.loss[0])} to {say(found.loss[-1])}.",
        f"The learning rate is {say(found.learning_rate)}, the largest stable one {say(found.max_learning_rate)}.",
        f"The kernel moves by {say(found.drift.relative_change)} of itself on the way.",
        f"So the prediction {trust} be relied on; the true loss at its end is {say(found.true_loss)}.",
        "Next: train so far, and hold the result against it by result.drift_to(model)."
        if found.lazy
        else "Next: predict fewer steps, or lower the learning rate.",
    ]


@sentences.register
def _(record: MonitorRecord) -> list[str]:
    given = "" if np.isnan(record.learning_rate) else f", and yours is {say(record.learning_rate)}"
    near = record.verdict in ("near-critical", "critical")
    return [
        f"At step {record.step} {counted(record.n_fixed_points, 'fixed point')} of the network are known, {record.n_stable} "
        "of them stable.",
        f"The verdict on the nearest to a bifurcation is {record.verdict!r}: its stability radius is "
        f"{say(record.stability_radius)} in 1 / time.",
        f"Gradient descent overshoots above the learning rate {say(record.max_learning_rate)}{given}.",
        f"The kernel has moved by {say(record.relative_change)} of itself since the first record.",
        "Next: "
        + ("ssntk.retreat(model, margin) moves away, or lower the learning rate." if near else "train on, and look again."),
    ]


@sentences.register
def _(monitor: NTKMonitor) -> list[str]:
    last = sentences(monitor.records[-1]) if monitor.records else ["Next: call monitor.update(step, model) in the loop."]
    return [f"{monitor._headline()}.", *last]


@sentences.register
def _(found: Measurement) -> list[str]:
    return [
        f"The fixed point solves its equation to {say(found.residual)}.",
        f"Its fastest eigenvalue is {say(found.jacobian_eigenvalues[0])}.",
        f"The trajectory kernel is spread over about {say(found.trajectory.participation_ratio)} modes.",
        "No critical mode could be told apart." if found.channel is None else f"{found.channel._headline()}.",
        "Next: ssntk.plot.spectrum(result.trajectory), or ssntk.Sweep(...) for many such points.",
    ]


@sentences.register
def _(store: Store) -> list[str]:
    return [
        f"{store._headline()}.",
        "Next: ssntk.run(sweep, store) goes on; ssntk.plot.collapse(store) draws what is there.",
    ]


@sentences.register
def _(several: Results) -> list[str]:
    if not several:
        return ["There are no results."]
    first: Result = several[0]
    return [f"{several._headline()}.", *([f"Of the first: {one}" for one in sentences(first)[:1]] or [first._headline()])]


def _are(count: int, what: str) -> str:
    return f"{'is' if count == 1 else 'are'} {counted(count, what)}"


def _events(events: tuple[Bifurcation, ...], unresolved: int) -> str:
    kinds = [event.kind for event in events]
    found = ", ".join(f"{kinds.count(kind)} {kind}" for kind in dict.fromkeys(kinds))
    first = f", the first at p = {say(events[0].parameter)}" if events else ""
    said = f"On the way {_are(len(events), 'bifurcation')}: {found}{first}" if events else "No bifurcation lies on the way"
    return said + (f"; {counted(unresolved, 'event')} could not be located." if unresolved else ".")


def _onwards(events: tuple[Bifurcation, ...]) -> str:
    kinds = {event.kind for event in events}
    known = next((kind.name for kind in KINDS if kind.meaning and kind.name in kinds and kind not in OF_BORDERS), None)
    if known is None and any(kind.name in kinds for kind in OF_BORDERS):
        return "ssntk.border_margin(model, x) measures how far the parameters are from such borders"
    if known is None:
        return "another parameter by ssntk.Family, or a longer span, may lead to a bifurcation"
    return f"ssntk.Sweep(family, towards={known!r}, ...) measures the kernel on the way to it"
