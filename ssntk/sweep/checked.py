"""The fields of a sweep as it keeps them, or why they do not fit."""

import numpy as np
from jaxtyping import PyTree

from ssntk.bifurcation.events.standard import kinds_of
from ssntk.critical.approach import Approach
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.metric import as_metric
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_array, as_choice, as_count, as_instance, as_scalar
from ssntk.models.family import Family
from ssntk.models.maps import AbstractMap, with_input
from ssntk.models.theta import check_blocks
from ssntk.sweep.aims import OF_CYCLES, check_aim, oscillates
from ssntk.sweep.cycle_path import checked_cycles
from ssntk.sweep.measure import MEASURED, Asked
from ssntk.sweep.quantities.standard import as_quantities
from ssntk.zeros.equilibria import equilibria_of


def along(path: Approach, given: dict[str, PyTree]) -> dict[str, PyTree]:
    """The fields that follow from an approach. Raises `ValueError` if no sweep can go along it, or if fields contradict."""
    if path.family is None:
        raise ValueError(f"family has no length, the network is at a {path.kind} already: approach from another network")
    if path.kind not in kinds_of(path.family.clock):
        hint = "ask for a 'saddle-node'" if path.kind == "cusp" else "try another omega_min, or one of its others"
        raise ValueError(f"family leads to a {path.kind}, which no sweep can go towards: of approach, {hint}")
    if given["towards"] not in (None, path.kind):
        raise ValueError(f"towards must be {path.kind!r}, as the approach has it, got {given['towards']!r}")
    u = path.u if given["u"] is None else np.asarray(constant_input(path.family.model, given["u"]))
    if not np.array_equal(u, path.u):
        raise ValueError(f"u must be {path.u}, as the approach has it, got {u}")
    span = (0.0, 2 * path.distance) if given["span"] is None else given["span"]
    ends = np.asarray(as_array(span, "span", (2,)))
    if not ends.min() < path.distance < ends.max():
        raise ValueError(f"span must hold {path.distance:g}, where the approach ends, got ({ends[0]:g}, {ends[1]:g})")
    if given["span"] is None and path.reached is False:
        raise ValueError(missed(path))
    x0 = path.x_start if given["x0"] is None else given["x0"]
    return {"family": path.family, "towards": path.kind, "span": span, "x0": x0, "u": u}


def checked(given: dict[str, PyTree]) -> dict[str, PyTree]:
    """The fields of a plan as it keeps them, and what is measured. Raises `ValueError`, which names the field that is wrong.

    Equal plans must be equal however their fields were written, so that they find their records again.
    """
    if given["towards"] in OF_CYCLES:
        check_aim(given["towards"], as_instance(given["family"], "family", Family), given["span"], given["u"])
        held = checked_cycles(given)
    else:
        held = _of_equilibria(given)
    distances = np.asarray(as_array(held["distances"], "distances", ("k",)))
    if distances.size == 0 or distances.min() <= 0 or np.unique(distances).size < distances.size:
        raise ValueError("distances must be positive and distinct, and hold at least one")
    held["distances"] = np.sort(distances)[::-1]
    return held


def _of_equilibria(given: dict[str, PyTree]) -> dict[str, PyTree]:
    """All fields but the distances, and what is measured, of a sweep towards a bifurcation of equilibria."""
    held = dict(given)
    family = as_instance(held["family"], "family", Family)
    equilibria_of(family, held["span"], held["u"])
    check_aim(held["towards"], family, held["span"], held["u"])
    probe = as_instance(held["probe"], "probe", Probe)
    as_choice(held["of"], "of", ("state", "readout"))
    held["index"] = None if held["index"] is None else as_count(held["index"], "index", least=0)
    model = family.model
    if held["integrator"] is not None:
        as_instance(held["integrator"], "integrator", Integrator)
    elif not isinstance(model, AbstractMap):
        held["integrator"] = Integrator()
    held["scale"] = as_metric(held["scale"], model.n_state)
    held["blocks"] = check_blocks(held["blocks"]) or None
    held["quantities"] = as_quantities(held["quantities"])
    if not oscillates(held["towards"]) and probe.at_frequency(1.0) is not probe:
        raise ValueError(f"probe.us must have a frequency: a {held['towards']} has none to give")
    model_at_p0 = with_input(family(float(held["span"][0])), constant_input(model, held["u"]))
    held["_asked"] = Asked.checked(model_at_p0, probe.at_frequency(1.0), **{name: held[name] for name in MEASURED})
    held["span"] = tuple(float(end) for end in held["span"])
    held["step"] = float(as_scalar(held["step"], "step", positive=True))
    if held["x0"] is not None:
        held["x0"] = np.asarray(as_array(held["x0"], "x0", (model.n_state,)))
    return held


def missed(path: Approach) -> str:
    return (
        f"family is the way to a {path.kind} that the network's own equilibrium does not come to: of approach, try another "
        "x, more n_starts, or one of its others; or give the span and x0 of a branch that comes there"
    )
