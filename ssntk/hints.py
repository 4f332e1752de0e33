"""Hints for names that the package does not have: names that users of other programs expect, and what to use here."""

import difflib
from collections.abc import Sequence

FIXED = "find_fixed_points(model)"
JUDGE = "criticality(model), or warn_if_near_critical(net) of a PyTorch network; on the command line it is ssntk check"
LOCATE = "locate(family, kind, parameter=, x=), whose .coefficient is the normal form's; branches have it in .bifurcations"
CELL = "from_cell(cell, n_state=, n_input=)"
TORCH = "from_torch(net)"
# Names in small letters, without underscores.
KNOWN = {
    "check": JUDGE,
    "diagnose": JUDGE,
    "critical": JUDGE,
    "nearcritical": JUDGE,
    "isnearcritical": JUDGE,
    "monitor": "NTKMonitor(probe)",
    "watch": "NTKMonitor(probe)",
    "fromequinox": CELL,
    "fromeqx": CELL,
    "fromflax": CELL,
    "fromjax": CELL,
    "fromstep": CELL,
    "fromfunction": "VectorField(fn, params, n_state), or from_cell(step, n_state=, n_input=) of a step in discrete time",
    "frompytorch": TORCH,
    "fromstatedict": TORCH,
    "frommodule": TORCH,
    "rnn": "CTRNN, or from_torch(net)",
    "vanillarnn": "CTRNN, or from_torch(net)",
    "gru": "from_torch(net), or from_cell(cell, n_state=, n_input=); GRUODE is another function",
    "lstm": "from_torch(net), or from_cell(cell, n_state=(n, n), n_input=)",
    "ode": "VectorField(fn, params, n_state)",
    "odesystem": "VectorField(fn, params, n_state)",
    "system": "VectorField(fn, params, n_state)",
    "map": "EulerMap(model, dt), or from_cell(step, n_state=, n_input=) of a step",
    "fixedpoints": FIXED,
    "findfixedpoint": FIXED,
    "fixedpointfinder": FIXED,
    "equilibria": FIXED,
    "findequilibria": FIXED,
    "steadystates": FIXED,
    "normalform": LOCATE,
    "findbifurcations": "continuation(family, span), or bifurcation_diagram(family, span)",
    "bifurcations": "continuation(family, span), or bifurcation_diagram(family, span)",
    "findbifurcation": LOCATE,
    "diagram": "bifurcation_diagram(family, span)",
    "continue": "continuation(family, span)",
    "integrate": "simulate(model, probe)",
    "solve": "simulate(model, probe)",
    "rollout": "simulate(model, probe)",
    "jacobian": "parameter_jacobian(model, probe)",
    "kernel": "ntk(model, probe)",
    "neuraltangentkernel": "ntk(model, probe)",
    "spectrum": "ntk_spectrum(model, probe)",
    "predict": "linearised_training(model, probe, targets, learning_rate, steps)",
    "linearizedtraining": "linearised_training(model, probe, targets, learning_rate, steps)",
    "learningrate": "linearised_training(...).max_learning_rate",
    "maxlearningrate": "linearised_training(...).max_learning_rate",
    "naturalgradient": "low_rank_natural_gradient(learning_rate)",
    "lyapunov": "stability_radius(A), or the eigenvalues of find_fixed_points(model); there are no Lyapunov exponents",
}


def missing(name: str, known: Sequence[str]) -> str:
    """The message for an attribute that the package does not have. `known`: the names that it has."""
    said = f"ssntk has no attribute {name!r}"
    plain = name.lower().replace("_", "")
    if plain in KNOWN:
        return f"{said}: use ssntk.{KNOWN[plain]}"
    lower = {one.lower().replace("_", ""): one for one in known}
    close = [lower[one] for one in difflib.get_close_matches(plain, lower, n=3, cutoff=0.7)]
    return said + (f": did you mean {' or '.join(f'ssntk.{one}' for one in close)}?" if close else "; dir(ssntk) lists all")


# The same for attributes of results, and for arguments of `plot`.
MEMBERS = {
    "todict": "to_xarray(), or to_csv(path)",
    "todataframe": "to_xarray().to_dataframe(), or to_csv(path)",
    "topandas": "to_xarray().to_dataframe(), or to_csv(path)",
    "tonumpy": "x, parameter and the others, which are arrays",
    "param": "parameter",
    "params": "parameter",
    "p": "parameter",
    "sol": "x",
    "states": "x",
    "u": "x",
    "specialpoint": "bifurcations",
    "specialpoints": "bifurcations",
    "labels": "bifurcations",
    "points": "x, or index the result",
    "stability": "stable",
    "normalform": "the coefficient of each of bifurcations",
    "draw": "plot()",
    "show": "plot(), or print the result",
    "vars": "y=, a state's index, 'output 0', 'norm' or a function of x",
    "plotfold": "plot()",
    "ordinate": "y=",
    "yaxis": "y=",
    "var": "y=",
}


def member_hint(name: str) -> str:
    """The end of a message about an attribute or argument that a result does not have; empty if there is no hint."""
    known = MEMBERS.get(name.lower().replace("_", ""))
    return f": use {known}" if known else ""
