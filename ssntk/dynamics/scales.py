"""Typical sizes of the states: what every step, start and tolerance is relative to, so that no answer depends on units.

The size of a state is that at which the vector field departs from its linear part. A state that enters linearly takes the
size that balances the Jacobian. Sizes follow the units: those of z = S x are S times those of x.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.dynamics.stability import field_at, state_jacobian
from ssntk.models.base import AbstractStateSpaceModel

# Powers of ten at which a departure is looked for, and how often the decade is halved in which it begins.
DECADES, HALVINGS = 24, 10
# A tenth counts as a departure. The hyperbolic tangent departs by a tenth at 0.55, and its size is one.
DEPARTURE, TANH = 0.1, 0.554
# The most that a state may exceed its own departure before its offset stops counting as its size.
OFFSET = 30.0
# Units up to which the Jacobian's own departures are looked at, which cost n times more.
FEW = 16
# Numbers in the states that are worked on side by side.
TOGETHER = 2**21


def typical_sizes(model: AbstractStateSpaceModel, u: Any, x: Any) -> np.ndarray:
    """The typical sizes (n,) of the states of a model near the state `x` (n,), in their own units, under the input `u` (d,)."""
    return sizes_over([model], u, x)


def sizes_over(models: Sequence[AbstractStateSpaceModel], u: Any, x: Any) -> np.ndarray:
    """The typical sizes (n,) of the states over several models of one family, such as those along a span."""
    x = np.asarray(x)
    found, jacobians = [], []
    for model in models:
        departs, jacobian = (np.asarray(part) for part in _departures(model, jax.device_put(x), u))
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(departs)
        found.append(np.where(np.isfinite(logs), logs, np.nan))
        jacobians.append(np.abs(np.where(np.isfinite(jacobian), jacobian, 0.0)))
    # Both signs and all models count alike. A departure at every size, as at a kink, is none.
    logs = np.concatenate(found, axis=1)
    counts = np.isfinite(logs).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        least = np.exp(np.where(counts > 0, np.nansum(logs, axis=1) / counts, np.nan)) / TANH
    least = _balanced(np.mean(jacobians, axis=0), least)
    offset = np.abs(x.astype(float))
    sizes = np.where(np.isfinite(least), np.clip(offset, least, OFFSET * least), offset)
    return np.where(np.isfinite(sizes) & (sizes > 0), sizes, 1.0).astype(x.dtype)


def rate_of(jacobian: Any, sizes: np.ndarray) -> float:
    """A typical rate of the Jacobian (n, n), in 1 / time: its norm where states are measured by their sizes."""
    scaled = np.abs(np.asarray(jacobian, float)) * sizes[None, :] / sizes[:, None]
    rate = float(scaled.sum(axis=1).max())
    return rate if np.isfinite(rate) and rate > 0 else 1.0


@eqx.filter_jit
def _departures(model: AbstractStateSpaceModel, x: Array, u: Array) -> tuple[Array, Array]:
    """The sizes (n, 2) at which f departs from its linear part along each state, up and down, infinite where it does not;
    and the Jacobian (n, n)."""
    n, dtype = x.shape[0], x.dtype
    eps = jnp.finfo(dtype).eps

    def field(x: Array) -> Array:
        return field_at(model, x, u)

    here, jacobian = field(x), state_jacobian(model, x, u)
    noise = 256 * eps * (jnp.abs(here) + jnp.abs(jacobian) @ jnp.abs(x))

    def departs(state: Array, sign: Array, power: Array) -> Array:
        """Whether a change of one state by sign * 10^power leaves the linear part."""
        size = sign * 10.0**power
        moved = jnp.zeros(n, dtype).at[state].set(size)
        column = jacobian[:, state] * size
        there = field(x + moved)
        off = jnp.abs(there - here - column)
        # What does not answer in the first order is compared with what is there.
        against = jnp.abs(column) + jnp.abs(here)
        left = (off > DEPARTURE * against) & (off > noise) & (against > 0)
        found = left.any() | ~jnp.isfinite(there).all()
        if n <= FEW:
            rates = jnp.diagonal(jacobian)
            turned = jnp.diagonal(state_jacobian(model, x + moved, u)) - rates
            apart = jnp.abs(size) > 256 * eps * jnp.abs(x[state])
            found |= apart & ((jnp.abs(turned) > DEPARTURE * jnp.abs(rates)) & (rates != 0)).any()
        return found

    powers = jnp.arange(-DECADES, DECADES + 1, dtype=dtype)

    def one(state: Array) -> Array:
        def way(sign: Array) -> Array:
            seen = jax.vmap(lambda power: departs(state, sign, power))(powers)
            first = jnp.argmax(seen)
            low, high = powers[first] - 1, powers[first]

            def halve(_: Any, ends: tuple[Array, Array]) -> tuple[Array, Array]:
                low, high = ends
                middle = (low + high) / 2
                beyond = departs(state, sign, middle)
                return jnp.where(beyond, low, middle), jnp.where(beyond, middle, high)

            low, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
            return jnp.where(seen.any() & ~seen[0], 10.0 ** ((low + high) / 2), jnp.inf)

        return jax.vmap(way)(jnp.asarray([1.0, -1.0], dtype))

    each = n * len(powers) * 2 * (n if n <= FEW else 1)
    return jax.lax.map(one, jnp.arange(n), batch_size=int(np.clip(TOGETHER // each, 1, n))), jacobian


def _balanced(jacobian: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """`sizes` (n,) with those that are not finite put where rows and columns of the scaled Jacobian (n, n) are as large
    (Osborne, *Journal of the ACM* 7, 1960); infinite where nothing connects a state to the others."""
    unknown = np.flatnonzero(~np.isfinite(sizes))
    if unknown.size == 0:
        return sizes
    n = len(sizes)
    rates, couples = np.diagonal(jacobian).copy(), jacobian - np.diag(np.diagonal(jacobian))
    known = np.isfinite(sizes)
    sizes = np.where(known, sizes, np.nan)
    if not known.any():
        # All is linear: a common factor is free.
        start = int(np.argmax(couples.sum(axis=1) + couples.sum(axis=0)))
        sizes[start], known[start] = 1.0, True
    # A first value from what is known already, then balance.
    for _ in range(n):
        fresh = False
        for k in np.flatnonzero(np.isnan(sizes)).tolist():
            value = _beside(k, rates, couples, np.where(np.isnan(sizes), 0.0, sizes))
            if value is not None:
                sizes[k], fresh = value, True
        if not fresh:
            break
    for _ in range(50):
        moved = 1.0
        for k in unknown[np.isfinite(sizes[unknown])].tolist():
            value = _beside(k, rates, couples, np.where(np.isnan(sizes), 0.0, sizes))
            if value is not None:
                moved = max(moved, value / sizes[k], sizes[k] / value)
                sizes[k] = value
        if moved < 1.01:
            break
    return np.where(np.isnan(sizes), np.inf, sizes)


def _beside(k: int, rates: np.ndarray, couples: np.ndarray, sizes: np.ndarray) -> float | None:
    """The size of state k that balances its row with its column, given the sizes (n,) of the others, zero where unknown."""
    others = sizes > 0
    others[k] = False
    row = float((couples[k, others] * sizes[others]).sum())
    column = float((couples[others, k] / sizes[others]).sum())
    if row > 0 and column > 0:
        return float(np.sqrt(row / column))
    if row > 0:
        return float(row / rates[k]) if rates[k] > 0 else None
    if column > 0:
        own = couples[others, k] > 0
        through = rates[others][own] * sizes[others][own] / couples[others, k][own]
        return float(through[through > 0].min()) if (through > 0).any() else 1 / column
    return None
