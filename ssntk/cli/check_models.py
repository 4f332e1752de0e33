"""`ssntk check`: are initialisations near a bifurcation?"""

import contextlib
import dataclasses
import json
import math
from typing import Annotated, Any

import cyclopts

from ssntk.cli.app import app
from ssntk.foreign import UsageError, about_keys, argument_of, foreign, own_stdout


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
