"""Branches of piecewise-linear families in the user's units, with their collisions and bifurcations."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ssntk.bifurcation.branch import Branch
from ssntk.bifurcation.crossing import NONE, Bounds, Own
from ssntk.bifurcation.exact import Exact
from ssntk.bifurcation.halves import Half
from ssntk.bifurcation.judged import collisions_on, ends_on, inside_on, users_on
from ssntk.bifurcation.sampled import Line, Met, limits_of
from ssntk.dynamics.stability import judged_exponents
from ssntk.models.base import dtype_of
from ssntk.piecewise.pivot import Path
from ssntk.piecewise.region import region_of


def branch_of(
    exact: Exact,
    paths: list[Path],
    scale: np.ndarray | None,
    step: float,
    most: int,
    own: Own = NONE,
    bounds: Bounds = None,
    turned: bool = False,
) -> Branch:
    """The branch that consists of the path in one direction, or of those in two directions.

    **Arguments:** `turned`: whether to travel a single path against its direction.
    """
    sizes = _sizes(exact, paths) if scale is None else scale
    halves, met = list[Half](), list[tuple[int, Met]]()
    for path in paths:
        line = Line(exact.system, path, exact.p0, exact.p1, sizes, step)
        points = line.points()
        half = Half.of(line, limits_of(line, bounds, own.crossings, points), points, most)
        here = [one for event in own.crossings for one in line.crossings(half.points, event)]
        if halves:
            count = len(half.points.q)
            shift = count - 1
            met = [(at + shift, one) for at, one in met] + [(count - 2 - one.after, one) for one in here]
            halves = [half.reversed().followed_by(halves[0])]
        else:
            halves, met = [half], [(one.after, one) for one in here]
    if turned:
        count = len(halves[0].points.q)
        halves, met = [halves[0].reversed()], [(count - 2 - at, one) for at, one in met]
    return _assembled(exact, halves[0], sizes, sorted(met, key=lambda pair: pair[0]))


def _sizes(exact: Exact, paths: list[Path]) -> np.ndarray:
    """The typical sizes (n,) of the states: the largest at borders, and at ends that are not infinite."""
    places = [kink.x for path in paths for kink in path.kinks]
    for path in paths:
        begin, end = path.pieces[0], path.ends[0]
        region = region_of(exact.system, begin.pattern, begin.begin)
        assert region is not None
        places.append(region.state(begin.begin))
        if end.x is not None and np.isfinite(end.x).all() and end.units == () and not _infinite(end.outcome):
            places.append(end.x)
    most = np.abs(np.stack(places) * exact.system.sizes).max(axis=0)
    return np.where(most > 0, most, exact.system.sizes)


def _infinite(outcome: Any) -> bool:
    return outcome.name in ("to_infinity", "lost")


def _assembled(exact: Exact, half: Half, scale: np.ndarray, met: list[tuple[int, Met]]) -> Branch:
    """The branch of a path in the user's units, with its collisions and bifurcations."""
    points, n = half.points, len(scale)
    count = len(points.q)
    exponents, doubts = np.zeros((count, n), complex), np.zeros((count, n))
    tangent, done = np.zeros((count, n + 1)), {}
    for number, pattern in enumerate(half.patterns):
        here = np.flatnonzero(points.piece == number)
        if not here.size:
            continue
        key = pattern.tobytes()
        if not exact.system.still or key not in done:
            done[key] = judged_exponents(exact.matrices(pattern, points.q[here]), exact.clock)
        exponents[here], doubts[here] = done[key]
        # The point before the first one of a piece is the border at which the piece begins.
        whole = np.arange(max(int(here[0]) - 1, 0), int(here[-1]) + 1)
        tangent[here] = _tangents(exact, pattern, points.q[whole], points.x[whole], scale)[-len(here) :]
    # The parameter rises or falls as it does from the point before, and at the first point as it does to the next one.
    sign = np.sign(np.diff(points.q))
    tangent *= np.append(sign[:1], sign)[:, None] if len(sign) else 1.0
    unstable = (exponents.real > doubts).sum(axis=1)
    collisions, events = collisions_on(exact, half, exponents, doubts)
    ends, unresolved = ends_on(exact, half)
    events += [*inside_on(exact, half, exponents, doubts), *users_on(exact, met), *ends]
    # Of two events in one step the one that is met first comes first.
    events.sort(key=lambda pair: (pair[0], abs(pair[1].parameter - float(exact.parameter(points.q[pair[0]])))))
    outputs = _outputs(exact, points.x, exact.parameter(points.q))
    events = [(at, dataclasses.replace(one, outputs=_output(exact, one.x, one.parameter))) for at, one in events]
    return Branch(
        parameter=exact.parameter(points.q),
        x=points.x,
        eigenvalues=exact.clock.reported(exponents),
        stable=(exponents.real < -doubts).all(axis=1),
        bifurcations=tuple(event for _, event in events),
        unresolved=tuple(unresolved),
        status="; the other way: ".join(half.ends),
        tangent=tangent,
        steps=tuple(at for at, _ in events),
        scale=scale,
        n_unstable=unstable,
        outputs=outputs,
        has_readout=not np.array_equal(outputs, points.x),
        collisions=tuple(collisions),
    )


def _tangents(exact: Exact, pattern: np.ndarray, q: np.ndarray, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """The unit tangents (k, n + 1) towards the end of the span at points of one region."""
    sizes = exact.system.sizes
    if exact.system.still and q[-1] != q[0]:
        slopes = ((x[-1] - x[0]) / (q[-1] - q[0]))[None]
    else:
        region = region_of(exact.system, pattern, float(q[-1]))
        assert region is not None
        slopes = np.stack([region.slopes(float(at), one / sizes).x * sizes for at, one in zip(q, x, strict=True)])
    whole = np.append(slopes / scale, np.ones((len(slopes), 1)), axis=1)
    whole /= np.sqrt(np.mean(whole[:, :-1] ** 2, axis=1) + whole[:, -1] ** 2)[:, None]
    return np.broadcast_to(whole * np.append(scale, 1.0), (len(q), len(scale) + 1))


def _outputs(exact: Exact, x: np.ndarray, p: np.ndarray) -> np.ndarray:
    """The readout (k, m) at states (k, n)."""
    model = exact.family.model
    traced = jax.make_jaxpr(model.readout)(jax.ShapeDtypeStruct((x.shape[1],), dtype_of(model))).jaxpr
    if traced.outvars[0] is traced.invars[0]:
        return x
    # Calls of few lengths share compiled code.
    length = 1 << (len(x) - 1).bit_length()
    padded = [np.concatenate([part, np.repeat(part[:1], length - len(x), axis=0)]) for part in (x, p)]
    dtype = dtype_of(model)
    states, places = (jnp.asarray(part.astype(dtype)) for part in padded)
    return np.asarray(jax.vmap(lambda x, p: exact.family(p).readout(x))(states, places))[: len(x)]


def _output(exact: Exact, x: np.ndarray, p: float) -> np.ndarray:
    return _outputs(exact, x[None], np.array([p]))[0]
