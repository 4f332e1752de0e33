"""Follow one curve of bifurcations for each of many networks, at the same time."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np

from ssntk.bifurcation.point import Bifurcation
from ssntk.curves.continuation import checked, traced
from ssntk.curves.curve import Curve
from ssntk.curves.together import each
from ssntk.dynamics.fixed_points import constant_input
from ssntk.errors import NumericalError, as_array, as_count, as_instance, as_scalar, outside_jit
from ssntk.models.base import check_autonomous, dtype_of
from ssntk.models.plane import Plane, spans_of
from ssntk.precision import watch_precision
from ssntk.results import Results
from ssntk.threads import one_blas_thread


@outside_jit
@one_blas_thread()
def bifurcation_curve_ensemble(
    planes: Any,
    bifurcations: Any,
    spans: Any,
    *,
    at: Any = None,
    u: Any = None,
    step: Any = 0.05,
    max_steps: int = 2000,
) -> tuple[Curve, ...]:
    """Follow one curve for each of many networks, as [`bifurcation_curve`][] does, with all corrections in one compiled
    batch.

    **Arguments:**

    - `planes`: B planes of models that differ in the values of their arrays only, such as random initialisations.
    - `bifurcations`: one located [`Bifurcation`][] of equilibria for each plane, not necessarily of the same kind; or `None`
      for a network that has none.
    - `spans`: (span1, span2), for all. `at`: (B, 2), or (2,) for all, where the bifurcations lie. Default: as for one curve.
    - `u`, `step`, `max_steps`: those of [`bifurcation_curve`][], for all.

    If a curve cannot be started, or if there is no bifurcation, the curve has no points and its `status` says why. Raises
    `ValueError` for arguments that do not fit, with the number of the network.

    **Example:** the saddle-nodes of x' = a + b x - c x^3 are at 27 c a^2 = 4 b^3.

    ```python
    def cubic(t, x, u, p):
        return p["a"] + p["b"] * x - p["c"] * x**3


    planes, folds = [], []
    for c in (1.0, 2.0):
        model = ssntk.VectorField(cubic, {"a": 0.0, "b": 1.0, "c": c}, 1)
        first, second = ssntk.Family(model, "a"), ssntk.Family(model, "b")
        planes.append(ssntk.Family.plane(first, second))
        folds.append(ssntk.continuation(first, (-1.0, 1.0)).bifurcations[0])
    curves = ssntk.bifurcation_curve_ensemble(planes, folds, ((-1.0, 1.0), (-1.0, 2.0)))
    ratios = [4 * curve.parameters[:5, 1] ** 3 / curve.parameters[:5, 0] ** 2 for curve in curves]
    print([ratio.round(6).tolist() for ratio in ratios])  # [[27.0, 27.0, 27.0, 27.0, 27.0], [54.0, 54.0, 54.0, 54.0, 54.0]]
    ```
    """
    longest, most = float(as_scalar(step, "step", positive=True)), as_count(max_steps, "max_steps", least=2)
    planes, bifurcations = _listed(planes, "planes"), _listed(bifurcations, "bifurcations")
    if len(planes) != len(bifurcations):
        raise ValueError(f"bifurcations must be as many as planes, {len(planes)}, got {len(bifurcations)}")
    for i, plane in enumerate(planes):
        as_instance(plane, f"planes[{i}]", Plane)
        if not _alike(plane, planes[0]):
            raise ValueError(f"planes[{i}] must differ from planes[0] in the values of its arrays only")
    places = [None] * len(planes) if at is None else _places(at, len(planes))
    ends, made, jobs = spans_of(spans), list[Any](), []
    for i, (plane, bifurcation, place) in enumerate(zip(planes, bifurcations, places, strict=True)):
        if bifurcation is None:
            made.append(_empty(plane, ends, "none", "no bifurcation to start from"))
            continue
        as_instance(bifurcation, f"bifurcations[{i}]", Bifurcation)
        try:
            followed, _, where = checked(plane, bifurcation, spans, place)
        except ValueError as error:
            raise ValueError(f"{error} (network {i})") from error
        assert followed is not None
        check_autonomous(plane(*where[0]), f"planes[{i}]")
        made.append(None)
        jobs.append((plane, constant_input(plane.model, u), followed, bifurcation, ends, where, longest, most))
    watch_precision(dtype_of(planes[0].model))
    found = iter(each([_job(job) for job in jobs]))
    return Results(next(found) if one is None else one for one in made)


def _job(parts: Any) -> Any:
    """A curve as a function of its corrector."""

    def follow(correct: Any) -> Curve:
        try:
            return traced(*parts, correct=correct)
        except (NumericalError, ValueError) as error:
            return _empty(parts[0], parts[4], parts[3].kind, str(error))

    return follow


def _listed(value: Any, name: str) -> list[Any]:
    if not isinstance(value, Sequence) or isinstance(value, str) or len(value) == 0:
        raise ValueError(f"{name} must be a sequence with at least one entry, got {type(value).__name__}")
    return list(value)


def _places(at: Any, count: int) -> list[Any]:
    """The parameters (2,) of each bifurcation."""
    given = as_array(at, "at")
    if given.shape not in ((2,), (count, 2)):
        raise ValueError(f"at must have shape (2,) or ({count}, 2), got {given.shape}")
    return list(np.broadcast_to(np.asarray(given), (count, 2)))


def _alike(one: Plane, other: Plane) -> bool:
    """Whether two planes share compiled code."""
    (arrays, rest), (others, other_rest) = (eqx.partition(plane, eqx.is_array) for plane in (one, other))
    shapes, other_shapes = ([(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(part)] for part in (arrays, others))
    return bool(shapes == other_shapes and eqx.tree_equal(rest, other_rest))


def _empty(plane: Plane, ends: np.ndarray, kind: str, status: str) -> Curve:
    """A curve without points."""
    n = plane.model.n_state
    none, wide = np.zeros(0), np.zeros((0, n))
    numbers = np.zeros((0, 2)), wide, none, none, wide.astype(complex)
    return Curve(kind, *numbers, points=(), unresolved=(), closed=False, status=status, plane=plane, spans=ends)
