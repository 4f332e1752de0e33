"""Recognise piecewise-linear models: read A, B, C, c and h of A x + B relu(C x + c) + h from the program of a model."""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr

from ssntk.errors import as_array, outside_jit
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.clock import Continuous
from ssntk.models.family import Family
from ssntk.models.maps import AbstractMap
from ssntk.models.structure import by_structure
from ssntk.piecewise.form import PiecewiseLinear
from ssntk.piecewise.kinks import Kinks, NotPiecewiseLinear, Step
from ssntk.piecewise.program import Reader, lifted

# Terms that should be equal may differ by this many roundings of the model's numbers.
ROUNDINGS = 64
# The number of states at which the form is compared with the program.
STATES = 8


@outside_jit
def piecewise_linear(model: Any, u: Any = None) -> PiecewiseLinear:
    """The form A x + B relu(C x + c) + h of a model, if it has one, read from the model's program in double precision.

    Recognised are relu, leaky relu, hard tanh, hard sigmoid and relu6 as activations. In a [`VectorField`][], a [`Map`][]
    or your own class also `abs`, `maximum`, `minimum`, `clip`, and `where` and `lax.cond` on a linear test. The model may
    be a flow or a map. Nothing is compiled.

    A piecewise-linear function of one signal needs a relu for each of its kinks: hard tanh two. Each hyperplane on which
    the model has a kink appears once. Its signal has the sign and the scale that it has first in the model, and the
    relu of the opposite signal is written as relu(-s) = relu(s) - s.

    **Arguments:** `model`: an [`AbstractStateSpaceModel`][] that does not depend on time. `u`: (d,) constant input. Default
    zero.

    Raises `ValueError` if the model is not of this form, and names the part that is not. Examples are tanh, a product of
    two states, a relu of a sum of relus, and a `where` whose two values differ on the border.

    **Example:** |x| = 2 relu(x) - x.

    ```python
    lozi = ssntk.Map(lambda t, x, u, p: [1 + x[1] - p["a"] * jnp.abs(x[0]), p["b"] * x[0]], {"a": 1.7, "b": 0.5}, 2)
    form = ssntk.piecewise_linear(lozi)
    print(form.A.tolist(), form.B.tolist(), form.C.tolist())  # [[1.7, 1.0], [0.5, 0.0]] [[-3.4], [0.0]] [[1.0, 0.0]]
    ```
    """
    check_model(model)
    check_autonomous(model)
    return Recognised(model, u)()


class Recognised:
    """The forms of one model with different numbers in it. All have the same relus, in the same order.

    The program of the model is traced once for all models of its structure. Each call takes some tenths of a millisecond
    for small networks.

    `Recognised(family, places=(0.1, 0.4, 1.0))` is a function of the family's parameter.
    """

    def __init__(self, source: AbstractStateSpaceModel | Family, u: Any = None, places: Sequence[float] = ()):
        """**Arguments:**

        - `source`: a model, or a family of models.
        - `u`: (d,) constant input. Default zero.
        - `places`: for a family, at least two parameters that are typical of those of interest, at none of which a weight
          happens to be zero. The relus are those that are needed at these.

        Raises `NotPiecewiseLinear`, a `ValueError` that names the part of the model that has no such form.
        """
        if isinstance(source, Family) and len(places) == 0:
            raise ValueError("places must hold at least one parameter")
        model = source(places[0]) if isinstance(source, Family) else source
        self.source = source
        self.dtype, self.clock, self.n = np.dtype(dtype_of(model)), model.clock, model.n_state
        given = np.zeros(model.n_input) if u is None else np.asarray(as_array(u, "u", (model.n_input,)), float)
        self.u, self.program = given, _program(model)
        self.tolerance = ROUNDINGS * float(np.finfo(self.dtype).eps)
        self.plan: tuple[Step, ...] | None = None
        # Most models are refused at the first place: make the others only then.
        raws = [self._raw(model)]
        raws += [self._raw(source(p)) for p in places[1:]] if isinstance(source, Family) else []
        self.groups = _grouped(raws, self.tolerance)
        self.first = self._formed(*raws[0])
        self._check(model, self.first)

    def __call__(self, p: Any = None) -> PiecewiseLinear:
        """The form at a parameter; without one, that of the model. Raises `NotPiecewiseLinear` if other relus are needed."""
        return self._formed(*self._raw(self.source(p))) if isinstance(self.source, Family) else self.first

    def of(self, model: AbstractStateSpaceModel) -> PiecewiseLinear:
        """The form of a model of the same structure. Raises `NotPiecewiseLinear` if other relus are needed."""
        return self._formed(*self._raw(model))

    @property
    def nested(self) -> bool:
        """Whether kinks lie within kinks, as in `clip` or `abs(abs(x) - p)`. They may come and go with the numbers."""
        return any(step.lines for step in self.plan or ())

    def rests(self, p: Any, x: np.ndarray) -> bool:
        """Whether a state x (n,) is a fixed point at a parameter, by the model's program."""
        form = self(p)
        model = self.source(p) if isinstance(self.source, Family) else self.source
        out, _ = self._evaluated(model, x[None], None)
        still = np.zeros(self.n) if self.clock == Continuous() else x
        return bool((np.abs(out[0] - still) <= 1e3 * self.tolerance * (_terms(form, x) + np.abs(still))).all())

    def _evaluated(self, model: AbstractStateSpaceModel, x: np.ndarray, plan: Any) -> tuple[np.ndarray, Kinks]:
        """What the program returns for states that are the values x (K, n), and its relus."""
        kinks = Kinks(self.n, self.tolerance, plan)
        arrays = [lifted(leaf) for leaf in jax.tree.leaves(eqx.filter(model, _is_array))]
        try:
            # JAX does not warn of numbers that overflow, so neither does this.
            with np.errstate(all="ignore"):
                (out,) = Reader(kinks).read(self.program.jaxpr, self.program.consts, [*arrays, x, self.u[None]])
        except NotPiecewiseLinear:
            raise
        # Programs may hold operations of any kind, and most models that have such are not of this form.
        except Exception as error:
            raise NotPiecewiseLinear(f"an operation that cannot be read: {type(error).__name__}") from error
        if not np.isfinite(out).all() or not np.isfinite(kinks.rows).all():
            raise NotPiecewiseLinear("numbers that are not finite")
        return out, kinks

    def _raw(self, model: AbstractStateSpaceModel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The coefficients (1 + n, n) of the affine part and (m, n) of the relus, and the signals (m, 1 + n) of these."""
        x = np.concatenate([np.zeros((1, self.n)), np.eye(self.n)])
        out, kinks = self._evaluated(model, x, self.plan)
        self.plan = tuple(kinks.steps)
        whole = np.zeros((kinks.width, self.n))
        whole[: len(out)] = out
        return whole[: 1 + self.n], whole[1 + self.n :], kinks.rows

    def _formed(self, affine: np.ndarray, weights: np.ndarray, rows: np.ndarray) -> PiecewiseLinear:
        """The form, with one relu for each group of parallel signals."""
        affine, n = affine.copy(), self.n
        # A relu whose signal does not depend on the state is a number.
        still = np.ones(len(rows), bool)
        B, signals = np.zeros((len(self.groups), n)), np.zeros((len(self.groups), 1 + n))
        for k, group in enumerate(self.groups):
            still[group] = False
            some = rows[group]
            first = int((some != 0).any(axis=1).argmax())
            leader = signals[k] = some[first]
            pivot = int(np.argmax(np.roll(leader, -1) != 0)) - n
            factors = some[:, pivot] / leader[pivot] if leader[pivot] else np.ones(len(group))
            shares = np.abs(factors)[:, None] * weights[group]
            B[k] = shares.sum(axis=0)
            # relu(-s) = relu(s) - s.
            affine -= np.outer(leader, shares[factors < 0].sum(axis=0))
        affine[0] += np.maximum(rows[still, 0], 0.0) @ weights[still]
        return PiecewiseLinear(affine[1:].T.copy(), B.T.copy(), signals[:, 1:], signals[:, 0], affine[0], self.clock.dt)

    def _check(self, model: AbstractStateSpaceModel, form: PiecewiseLinear) -> None:
        """Compare a form with the program at random states. A difference would be an error of this code."""
        random = np.random.default_rng(0)
        states = typical(form) * random.standard_normal((STATES, self.n)) * 4 ** random.uniform(-1, 1, (STATES, 1))
        sizes = _terms(form, states)
        for x, size, value in zip(states, sizes, form(states), strict=True):
            out, _ = self._evaluated(model, x[None], None)
            if (np.abs(out[0] - value) > 1e3 * self.tolerance * size).any():
                raise NotPiecewiseLinear("values at random states that differ from those of its form")


def _terms(form: PiecewiseLinear, x: np.ndarray) -> np.ndarray:
    """The sizes (..., n) of the terms of f at states (..., n)."""
    inside = np.abs(x) @ np.abs(form.C).T + np.abs(form.c)
    return np.abs(x) @ np.abs(form.A).T + np.abs(form.h) + inside @ np.abs(form.B).T


def typical(form: PiecewiseLinear) -> np.ndarray:
    """Typical sizes (n,) of the states: the distances to the hyperplanes along each axis, in the middle of them."""
    n = form.C.shape[1]
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.abs(form.c[:, None] / form.C))
    sizes = np.ones(n)
    for i in range(n):
        known = logs[np.isfinite(logs[:, i]), i]
        sizes[i] = np.exp(np.median(known)) if len(known) else 1.0
    return sizes


def _grouped(raws: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]], eps: float) -> list[np.ndarray]:
    """The numbers of the relus that any of the evaluations needs, in groups whose signals are parallel in all of them."""
    used = np.any([(weights != 0).any(axis=1) & (rows[:, 1:] != 0).any(axis=1) for _, weights, rows in raws], axis=0)
    kept = np.flatnonzero(used)
    parts = []
    for _, _, rows in raws:
        turned = np.roll(rows[kept], -1, axis=1)
        pivots = np.take_along_axis(turned, (turned != 0).argmax(axis=1)[:, None], axis=1)
        parts.append(turned / np.where(pivots != 0, pivots, 1.0))
    whole = np.concatenate(parts, axis=1)
    # Parallel signals have the same projection, so that only neighbours need to be compared.
    weights = np.random.default_rng(0).uniform(0.5, 1.0, whole.shape[1])
    projected, sizes = whole @ weights, np.abs(whole) @ weights
    groups: list[list[int]] = []
    block: list[list[int]] = []
    last = -np.inf
    for i in np.argsort(projected, kind="stable"):
        if projected[i] - last > eps * sizes[i]:
            block = []
        last = projected[i]
        same = next((one for one in block if (np.abs(whole[one[0]] - whole[i]) <= eps * np.abs(whole[i])).all()), None)
        if same is None:
            same = []
            block.append(same)
            groups.append(same)
        same.append(int(i))
    return sorted((kept[np.sort(one)] for one in groups), key=lambda one: int(one[0]))


def _is_array(leaf: object) -> bool:
    return isinstance(leaf, jax.Array)


@by_structure
def _program(model: AbstractStateSpaceModel) -> ClosedJaxpr:
    """The vector field of a flow, or one step of a map, as a program of the model's arrays, x and u."""
    arrays, rest = eqx.partition(model, _is_array)
    leaves, structure = jax.tree.flatten(arrays)
    dtype = dtype_of(model)

    def moved(leaves: Any, x: Any, u: Any) -> Any:
        one = eqx.combine(jax.tree.unflatten(structure, leaves), rest)
        t = jnp.zeros((), dtype)
        return one.advance(t, x, u) if isinstance(one, AbstractMap) else one.vector_field(t, x, u)

    x, u = (jax.ShapeDtypeStruct((size,), dtype) for size in (model.n_state, model.n_input))
    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    return jax.make_jaxpr(moved)(shapes, x, u)
