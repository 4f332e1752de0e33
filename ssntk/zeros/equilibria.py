"""The equilibria of a family over a span, as zeros that can be followed: without units, conserved quantities held."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.dynamics.conserved import conserved_quantities, is_conserved
from ssntk.dynamics.fixed_points import constant_input
from ssntk.dynamics.metric import as_metric
from ssntk.dynamics.scales import rate_of, sizes_over
from ssntk.dynamics.stability import field_at, linearised
from ssntk.errors import as_array, as_instance
from ssntk.models.base import check_autonomous, dtype_of
from ssntk.models.clock import AbstractClock
from ssntk.models.family import Family
from ssntk.models.iterated import Iterated
from ssntk.models.maps import AbstractMap
from ssntk.nouns import Real
from ssntk.precision import watch_precision
from ssntk.zeros.base import AbstractZeros

# Fractions of the span at which the states' sizes are computed.
PLACES = (0.0, 0.5, 1.0)


class Equilibria(AbstractZeros):
    """The solutions y (n,) of `f(scale y; p0 + q (p1 - p0)) / scale = 0` for the constant input `u` (d,).

    Conserved quantities make df/dx singular everywhere. Each is therefore held by a term that pulls it to its `level`. At
    that level the term changes no equilibrium, since f does not change the quantity. `weights` (c, n), in units of the
    sizes, are orthonormal.
    """

    family: Family
    u: Float[Array, " d"]
    p0: Float[Array, ""]
    p1: Float[Array, ""]
    scale: Float[Array, " n"]
    weights: Float[Array, "c n"]
    level: Float[Array, " c"]
    pull: Float[Array, ""]

    @property
    def size(self) -> int:
        return self.family.model.n_state

    @property
    def clock(self) -> AbstractClock:
        return self.family.clock

    def units(self) -> Float[Array, " n"]:
        return self.scale

    def at(self, y: Float[Array, " n"], q: Real) -> Float[Array, " n"]:
        """The velocity (n,) at the state y (n,) and the fraction q of the span, in sizes per unit time."""
        velocity = field_at(self.family(self.parameter(q)), self.scale * y, self.u) / self.scale
        if self.weights.shape[0] == 0:
            return velocity
        return velocity - self.pull * self.weights.T @ (self.weights @ y - self.level)

    def twice(self) -> "Equilibria":
        """The fixed points of the map that takes two steps of this one at a time."""
        twice: Any = Iterated(self.family.model, 2)  # pyright: ignore[reportArgumentType]
        return dataclasses.replace(self, family=self.family.of(twice), pull=self.pull / 2)

    @property
    def rounds(self) -> int:
        model = self.family.model
        return model.iterations if isinstance(model, AbstractMap) else 1

    def orbit(self, z: Float[Array, " n1"]) -> Float[Array, "rounds n"]:
        model = self.family(self.parameter(z[-1]))

        def step(y: Array, _: None) -> tuple[Array, Array]:
            return model.iteration(jnp.zeros((), y.dtype), self.scale * y, self.u) / self.scale, y

        return jax.lax.scan(step, z[:-1], length=self.rounds)[1]

    @property
    def reads_itself(self) -> bool:
        model = self.family.model
        traced = jax.make_jaxpr(lambda x: model.readout(x))(jax.ShapeDtypeStruct((self.size,), self.scale.dtype)).jaxpr
        return traced.outvars[0] is traced.invars[0]

    def outputs(self, z: Float[Array, " n1"]) -> Float[Array, " m"]:
        # The parameters of the readout may depend on p too.
        return self.family(self.parameter(z[-1])).readout(self.scale * z[:-1])


def equilibria_of(
    family: Any, span: object, u: object, *, x: np.ndarray | None = None, scale: object = None, fix: object = None
) -> Equilibria:
    """The equilibria of a family over a span, from checked arguments.

    `x` (n,): a state of the branch, default zero. `scale`: the sizes of the states, by default found from the model. `fix`:
    conserved quantities as pairs (weights, value).
    """
    as_instance(family, "family", Family)
    model, dtype = family.model, dtype_of(family.model)
    n = model.n_state
    ends = np.asarray(as_array(span, "span", (2,))).astype(dtype)
    if float(ends[0]) == float(ends[1]):
        raise ValueError(f"span must not be empty, got ({float(ends[0]):g}, {float(ends[1]):g})")
    given_sizes = as_metric(scale, n)
    pairs = _pairs(fix, n)
    u = constant_input(model, u)
    check_autonomous(family(float(ends[0])))
    watch_precision(dtype)
    models = [family(float(ends[0] + q * (ends[1] - ends[0]))) for q in PLACES]
    state = np.zeros(n, dtype) if x is None else np.asarray(x, dtype)
    sizes = sizes_over(models, u, state) if given_sizes is None else given_sizes.astype(dtype)
    weights = conserved_quantities(models, u, sizes)
    level = weights @ state
    if pairs:
        given, values = np.stack([pair[0] for pair in pairs]).astype(dtype), np.array([pair[1] for pair in pairs], dtype)
        for i in np.flatnonzero(~is_conserved(models, u, sizes, given)):
            raise ValueError(f"fix[{i}] must be a conserved quantity: its weights . f(x) is not zero at every state")
        # Use the given quantities, and of those that were found the ones independent of them.
        rest = [i for i in range(len(weights)) if _new(given * sizes, weights[i] * sizes)]
        weights, level = np.concatenate([given, weights[rest]]), np.concatenate([values, level[rest]])
    # Make the weights orthonormal in units of the sizes.
    turned, triangle = np.linalg.qr((weights * sizes).T) if len(weights) else (np.zeros((n, 0)), np.zeros((0, 0)))
    level = np.linalg.solve(triangle.T, level) if len(weights) else np.zeros(0)
    velocity, jacobian = (np.nan_to_num(np.asarray(part)) for part in linearised(models[0], jax.device_put(state), u))
    pull = rate_of(velocity, jacobian, sizes)
    # Limit the pull for maps, which would overshoot the level otherwise.
    if isinstance(model, AbstractMap):
        pull = min(pull, 0.5 / model.dt)
    parts = jax.device_put((ends[0], ends[1], sizes, turned.T.astype(dtype), level.astype(dtype), np.asarray(pull, dtype)))
    return Equilibria(family, u, *parts)


def resized(zeros: Equilibria, states: np.ndarray, at: Sequence[float] = PLACES) -> Equilibria:
    """The same equilibria with new sizes of the states: those near one state (n,), or near states (k, n) at the fractions
    `at` (k,) of the span. Conserved quantities keep their values."""
    models = [zeros.family(float(zeros.parameter(q))) for q in at]
    sizes = sizes_over(models, zeros.u, np.asarray(states, zeros.scale.dtype))
    if zeros.weights.shape[0] == 0:
        return dataclasses.replace(zeros, scale=jax.device_put(sizes))
    before = np.asarray(zeros.weights) / np.asarray(zeros.scale)
    turned, triangle = np.linalg.qr((before * sizes).T)
    level = np.linalg.solve(triangle.T, np.asarray(zeros.level))
    parts = jax.device_put((sizes, turned.T.astype(sizes.dtype), level.astype(sizes.dtype)))
    return dataclasses.replace(zeros, **dict(zip(("scale", "weights", "level"), parts, strict=True)))


def _pairs(fix: Any, n: int) -> list[tuple[np.ndarray, float]]:
    """`fix` as pairs (weights (n,), value)."""
    if fix is None:
        return []
    try:
        # A single pair is accepted too.
        pairs = [fix] if len(fix) == 2 and np.shape(fix[1]) == () and np.shape(fix[0]) == (n,) else list(fix)
        parts = [(weights, value) for weights, value in pairs]
    except (TypeError, ValueError) as error:
        raise ValueError("fix must be (weights, value) pairs of conserved quantities") from error
    found = []
    for i, (weights, value) in enumerate(parts):
        array = np.asarray(as_array(weights, f"fix[{i}][0]", (n,)))
        if not array.any():
            raise ValueError(f"fix[{i}][0] must not be zero")
        found.append((array, float(as_array(value, f"fix[{i}][1]", ()))))
    return found


def _new(given: np.ndarray, row: np.ndarray) -> bool:
    """Whether a row (n,) is independent of those given (k, n)."""
    unit = row / np.linalg.norm(row)
    rest = unit - given.T @ np.linalg.lstsq(given.T, unit, rcond=None)[0]
    return bool(np.linalg.norm(rest) > 1e-6)
