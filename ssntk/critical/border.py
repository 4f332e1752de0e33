"""How far the units of a piecewise-linear network are from their borders, in terms of its parameters."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.bifurcation.collisions import PERSISTENCE
from ssntk.bifurcation.events.kinds import NONSMOOTH_FOLD
from ssntk.dynamics.refine import check_fixed_point
from ssntk.errors import NumericalError, as_array, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.models.theta import Positions, Theta, get, put, theta_positions
from ssntk.nouns import Lens
from ssntk.piecewise.form import PiecewiseLinear
from ssntk.piecewise.over import Over, over
from ssntk.piecewise.recognise import Recognised
from ssntk.piecewise.region import Region, region_of
from ssntk.results import Result, Table, short

# The largest number of derivatives that exist at once.
NUMBERS = 2**23
# How many places on each border are tried, of which the one farthest from other borders is used.
TRIES = 8
# A leaf is moved by this part of its size, to see which numbers of the form depend on it.
MOVED = 2.0**-6
# Numbers that differ by less than this part are the same.
SAME = 1e-5


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class BorderMargin(Result):
    """How far each unit of a piecewise-linear model is from its border at a fixed point.

    - `distance` (m,): to first order the least change of the parameters theta, as a length, that brings the unit to its
      border: |s_i| / |ds_i/dtheta|, with the signal s = C x* + c and ds/dtheta = C dx*/dtheta + dC/dtheta x* + dc/dtheta.
      It is infinite for a unit that theta does not move.
    - `relative` (m,): the same if the change of each parameter is measured relative to its value. It has no unit, and is the
      same in all units of states, time and parameters. A parameter that is zero does not move.
    - `signal` (m,): s, in the model's units.
    - `delta` (m,): det J' / det J, with the Jacobian J' behind the border.
    - `kind` (m,): `"nonsmooth-fold"`, if delta < 0: the fixed point vanishes at that border. Else `"persistence"`.
    - `unit`: the unit that is nearest to its border. `fold`: the nearest one whose border is a nonsmooth fold; `None` if
      there is none. Both by `distance`.

    Units are numbered as the rows of `C` of [`piecewise_linear`][].

    **Example:** dx/dt = -x + 2 relu(x) + p at p = -0.25 has a second, unstable equilibrium at 0.25.

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: -x + 2 * jax.nn.relu(x) + p["p"], {"p": jnp.asarray(-0.25)}, 1)
    margins = [ssntk.border_margin(model, [x]) for x in (-0.25, 0.25)]
    print([(float(margin.distance[0]), margin.fold) for margin in margins])  # [(0.25, 0), (0.25, 0)]
    ```
    """

    distance: np.ndarray
    relative: np.ndarray
    signal: np.ndarray
    delta: np.ndarray
    kind: tuple[str, ...]
    unit: int
    fold: int | None

    def __len__(self) -> int:
        return len(self.distance)

    def _headline(self) -> str:
        i = self.unit
        text = f"BorderMargin: unit {i} is nearest to its border, at a change of theta by {short(self.distance[i])}"
        text += f" ({self.kind[i]}, delta = {short(self.delta[i])})"
        if self.fold is None:
            return f"{text}; no border is a nonsmooth fold"
        return f"{text}; the nearest nonsmooth fold is that of unit {self.fold}, at {short(self.distance[self.fold])}"

    def _tables(self) -> list[Table]:
        order = np.argsort(self.distance)
        rows = [(int(i), self.distance[i], self.relative[i], self.signal[i], self.delta[i], self.kind[i]) for i in order]
        return [Table.of(("unit", "distance", "relative", "signal", "delta", "kind"), rows, 8)]


@outside_jit
def border_margin(model: Any, x_star: Any, *, u: Any = None, wrt: Lens | None = None, metric: Any = None) -> BorderMargin:
    """For each unit of a piecewise-linear model the least change of its parameters that brings the unit to its border.

    At a border with delta < 0 two fixed points meet and vanish. No eigenvalue and no kernel warns of such a nonsmooth fold:
    both stay as they are up to it. This margin does. It is exact if only biases move, and of first order else.

    **Arguments:**

    - `x_star`: (n,) a fixed point of a piecewise-linear model, such as a ReLU network. `u`: (d,) constant input. Default
      zero.
    - `wrt`: a lens that selects the parameters theta. Default: `model.trainable("state")`.
    - `metric`: a positive number, or (p,) positive numbers: the typical size of each parameter. A change has the length
      |dtheta / metric|. Default: ones.

    Raises `ValueError` for arguments that do not fit, among them a model that is not piecewise linear. Raises
    `NumericalError` if `x_star` is not a fixed point, or if df/dx is singular there.

    **Example:** dx/dt = -x + 2 relu(x) + p has its fold at p = 0.

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: -x + 2 * jax.nn.relu(x) + p["p"], {"p": jnp.asarray(-0.25)}, 1)
    margin = ssntk.border_margin(model, [-0.25])
    print(margin.distance, margin.delta, margin.kind)  # [0.25] [-1.] ('nonsmooth-fold',)
    ```
    """
    check_model(model)
    check_autonomous(model)
    at = theta_positions(model, "state", wrt)
    x, given = check_fixed_point(model, x_star, u)
    sizes = _metric(metric, Theta(model, at).size)
    return margin_at(model, at, np.asarray(x, float), given, Recognised(model, given), sizes)


def margin_at(
    model: AbstractStateSpaceModel, at: Positions, x: np.ndarray, u: Array, forms: Recognised, sizes: np.ndarray | float
) -> BorderMargin:
    """The margins at a fixed point x (n,) of a model whose forms are known."""
    form = forms()
    if not len(form.c):
        raise ValueError("model must have relus, and it has none: it is linear")
    system = over(lambda q: form)
    pattern = form.signals(x) > 0
    region = region_of(system, pattern, 0.0)
    if region is None:
        raise NumericalError("df/dx is singular at x_star: there the distances to borders are not defined")
    # In its region the fixed point is known to rounding.
    better = region.state(0.0) * system.sizes
    if np.array_equal(form.signals(better) > 0, pattern):
        x = better
    signal = form.signals(x)
    distance, relative = _lengths(model, at, x, u, form, region, forms, sizes)
    delta = _deltas(region)
    folds = np.flatnonzero(delta < 0)
    # A unit on its border is there without any change.
    away = np.where(np.abs(signal) <= region.doubts(0.0, x / system.sizes) * system.widths, 0.0, np.abs(signal))
    with np.errstate(divide="ignore", invalid="ignore"):
        far = [np.where(away == 0, 0.0, np.where(one > 0, away / one, np.inf)) for one in (distance, relative)]
    return BorderMargin(
        distance=far[0],
        relative=far[1],
        signal=signal,
        delta=delta,
        kind=tuple(NONSMOOTH_FOLD.name if one < 0 else PERSISTENCE for one in delta),
        unit=int(np.argmin(far[0])),
        fold=int(folds[np.argmin(far[0][folds])]) if folds.size else None,
    )


def _metric(metric: Any, size: int) -> np.ndarray | float:
    if metric is None:
        return 1.0
    sizes = np.asarray(as_array(metric, "metric"), float)
    if sizes.shape not in ((), (size,)) or not (sizes > 0).all():
        raise ValueError(f"metric must be a positive number, or hold {size} of them, got shape {sizes.shape}")
    return sizes


def _deltas(region: Region) -> np.ndarray:
    """det J' / det J for each unit that switches, (m,)."""
    parts = region.system.parts(0.0)
    gains = (parts.C * region.solve(0.0, parts.B).T).sum(axis=1)
    return 1 + np.where(region.pattern, -1.0, 1.0) * gains


def _lengths(
    model: AbstractStateSpaceModel,
    at: Positions,
    x: np.ndarray,
    u: Array,
    form: PiecewiseLinear,
    region: Region,
    forms: Recognised,
    sizes: np.ndarray | float,
) -> tuple[np.ndarray, np.ndarray]:
    """|ds_i/dtheta| (m,) in the metric, and with each parameter in units of its value."""
    theta, m = Theta(model, at), len(form.c)
    values = np.concatenate([np.ravel(np.asarray(leaf, float)) for leaf in get(model, at)])
    direct, counts = _direct(model, at, form, forms), [np.size(leaf) for leaf in get(model, at)]
    back = -np.stack([region.solve(0.0, row) for row in np.eye(len(x))], axis=1)
    # C dx*/dtheta = -C J^-1 F, with the rows -C J^-1 as covectors of f.
    covectors = (form.C * region.system.sizes) @ back / region.system.sizes
    pairs, readers = _beside(form, x, region.system)
    dtype = dtype_of(model)
    room = int(np.clip(NUMBERS // max(theta.size, 1), 1, max(m, 1)))
    lengths = np.zeros((2, m))
    for first in range(0, m, room):
        chosen = [part[first : first + room] for part in (covectors, pairs, readers)]
        padded = [np.concatenate([part, np.zeros((room - len(part), *part.shape[1:]))]).astype(dtype) for part in chosen]
        through, jumps = _gradients(model, at, jax.device_put(x.astype(dtype)), u, *map(jax.device_put, padded))
        count = len(chosen[0])
        moved = np.repeat(direct[first : first + count], counts, axis=1)
        slopes = np.asarray(through, float)[:count] + np.asarray(jumps, float)[:count] * moved
        lengths[0, first : first + count] = np.linalg.norm(slopes * sizes, axis=1)
        lengths[1, first : first + count] = np.linalg.norm(slopes * values, axis=1)
    return lengths[0], lengths[1]


def _direct(model: AbstractStateSpaceModel, at: Positions, form: PiecewiseLinear, forms: Recognised) -> np.ndarray:
    """Whether each signal depends on each of the l arrays of theta directly, (m, l), as ones and zeros.

    The jump of f at a border is B_i s_i. Its derivative is that of s_i, times B_i, if B_i does not depend on the parameter.
    """
    leaves, columns = get(model, at), []
    random = np.random.default_rng(0)
    for number, leaf in enumerate(leaves):
        host = np.asarray(leaf)
        size = float(np.sqrt(np.mean(host.astype(float) ** 2))) if host.size else 0.0
        step = (size if size > 0 else 1.0) * MOVED * random.uniform(-1, 1, host.shape)
        moved = [*leaves[:number], jax.device_put((host + step).astype(host.dtype)), *leaves[number + 1 :]]
        other = forms.of(put(model, at, moved))
        # What does not depend on the array may still be rounded otherwise.
        moves = [
            np.abs(new - old) > SAME * np.abs(old) for new, old in ((other.C, form.C), (other.c, form.c), (other.B, form.B))
        ]
        reads, writes = moves[0].any(axis=1) | moves[1], moves[2].any(axis=0)
        if (reads & writes).any():
            raise ValueError(
                "wrt must select arrays that move the signals of units, or what units do to others, but array number "
                f"{number} moves both of unit {int(np.flatnonzero(reads & writes)[0])}: keep them apart"
            )
        columns.append(reads)
    return np.stack(columns, axis=1).astype(float)


def _beside(form: PiecewiseLinear, x: np.ndarray, system: Over) -> tuple[np.ndarray, np.ndarray]:
    """For each unit two states (m, 2, n) next to its border, behind and before it, with no other border between; and
    covectors (m, n) that read the unit alone, with w . B_i = 1."""
    random = np.random.default_rng(0)
    m, n = form.C.shape
    rows, columns, y = form.C * system.sizes, form.B / system.sizes[:, None], x / system.sizes
    size = np.abs(y).max(initial=0.0)
    pairs, readers = np.zeros((m, 2, n)), np.zeros((m, n))
    for i in range(m):
        row, column = rows[i], columns[:, i]
        if not row.any() or not column.any():
            continue
        normal = row / (row @ row)
        base, best = y - normal * float(row @ y + form.c[i]), -1.0
        reach = size if size > 0 else float(np.abs(base).max()) or 1.0
        for _ in range(TRIES):
            aside = reach * random.standard_normal(n)
            place = base + aside - normal * float(row @ aside)
            others = np.delete(rows @ place + form.c, i)
            speeds = np.delete(np.abs(rows @ normal), i)
            with np.errstate(divide="ignore", invalid="ignore"):
                free = float(np.where(speeds > 0, np.abs(others) / speeds, np.inf).min(initial=np.inf))
            free = min(free, reach * float(np.linalg.norm(row)))
            if free > best:
                best, pairs[i] = free, np.stack([place + free / 2 * normal, place - free / 2 * normal]) * system.sizes
        at = int(np.argmax(np.abs(column)))
        readers[i, at] = 1 / form.B[at, i]
    return pairs, readers


@eqx.filter_jit
def _gradients(
    model: AbstractStateSpaceModel,
    at: Positions,
    x: Float[Array, " n"],
    u: Array,
    covectors: Float[Array, "m n"],
    pairs: Float[Array, "m 2 n"],
    readers: Float[Array, "m n"],
) -> tuple[Float[Array, "m p"], Float[Array, "m p"]]:
    """d(w . f)/dtheta (m, p) at x for the covectors; and d(w . B_i s_i)/dtheta (m, p) at x for the readers.

    The latter is the jump of f at the border of unit i, continued to x: on both sides f is affine in x.
    """
    theta, time = Theta(model, at), jnp.zeros((), x.dtype)

    def pulled(y: Array, w: Array) -> Array:
        def f(leaves: list[Array]) -> Array:
            moved = theta.put(leaves)
            return moved.advance(time, y, u) if isinstance(moved, AbstractMap) else moved.vector_field(time, y, u)

        return theta.ravel(jax.vjp(f, theta.arrays)[1](w)[0])

    def continued(y: Array, w: Array) -> Array:
        value, slope = jax.jvp(lambda z: pulled(z, w), (y,), (x - y,))
        return value + slope

    def one(covector: Array, pair: Array, reader: Array) -> tuple[Array, Array]:
        return pulled(x, covector), continued(pair[0], reader) - continued(pair[1], reader)

    return jax.vmap(one)(covectors, pairs, readers)
