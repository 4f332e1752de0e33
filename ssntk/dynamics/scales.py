"""Find the typical sizes of the states. All steps, starts and tolerances are relative to them, so that no result depends on
the units of the states.

The size of a state is the distance at which the vector field departs from its linear part. If a state enters linearly, its
size is the one that balances the Jacobian. Sizes change with the units: those of z = S x are S times those of x.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from scipy.sparse.csgraph import connected_components

from ssntk.compiled import Compiled, Held
from ssntk.dynamics.stability import field_at, linear_at, state_jacobian
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.nouns import AnyArray

# The number of powers of ten at which a departure is looked for, and of bisections of the decade in which it begins.
DECADES, HALVINGS = 24, 10
# A relative departure from the linear part of a tenth counts. The hyperbolic tangent, whose size is to be one, departs by a
# tenth at 0.554.
DEPARTURE, TANH = 0.1, 0.554
# A state's own value counts as its size, but only up to this multiple of its distance of departure.
OFFSET = 30.0
# Up to this number of units, departures of the Jacobian are examined too, which costs n times more.
FEW = 16
# An entry of the Jacobian counts as zero at a state if it is below this fraction of its mean over several states.
WEAK = 0.03
# The largest number of entries in a batch of states.
TOGETHER = 2**21


def typical_sizes(model: AbstractStateSpaceModel, u: Array, x: AnyArray) -> np.ndarray:
    """The typical sizes (n,) of the states of a model near the state `x` (n,), in their units, for the input `u` (d,)."""
    return sizes_over([model], u, x)


def sizes_over(models: Sequence[AbstractStateSpaceModel], u: Array, x: AnyArray) -> np.ndarray:
    """The typical sizes (n,) of the states over k models of one family, such as those along a span, near one state `x` (n,)
    or near a state of each (k, n)."""
    x = np.asarray(x)
    states = np.broadcast_to(x, (len(models), x.shape[-1]))
    pairs = list(zip(map(Held.of, models), jax.device_put(list(states)), strict=True))
    axes = np.eye(states.shape[1], dtype=x.dtype)
    nothing, no_rates = np.zeros_like(states[0]), np.zeros_like(axes)
    each = [_departing(model, state, u, axes, nothing, no_rates) for model, state in pairs]
    jacobians = [np.abs(np.where(np.isfinite(one), one, 0.0)) for one in (np.asarray(out[1]) for out in each)]
    jacobian, fields = np.mean(jacobians, axis=0), [out[2] for out in each]
    # If the linear part is zero at one state, as at a bifurcation, everything departs from it: use that of the others too.
    usual = (WEAK * jacobian).astype(x.dtype)
    found = [
        _departing(*pair, u, axes, nothing, usual)[0] if (one < usual).any() else out[0]
        for pair, one, out in zip(pairs, jacobians, each, strict=True)
    ]
    least = _mean(found)
    if not np.isfinite(least).all() and len(axes) <= FEW:
        # A state that enters linearly may still change the rates of others, as in a product of two states.
        turned = _mean([_turning(model, state, u, axes, nothing, no_rates)[0] for model, state in pairs])
        least = np.where(np.isfinite(least), least, turned)
    least = least / TANH
    known = np.isfinite(least)
    least = _balanced(jacobian, least)
    # A group of states that the Jacobian does not connect to a state of known size is balanced within itself. Its common
    # factor is the one at which the group moves the other states by their sizes.
    for group in _groups(jacobian, ~known) if known.any() else []:
        if np.isfinite(least[group]).all():
            continue
        within = _balanced(jacobian[np.ix_(group, group)], np.full(len(group), np.nan))
        along = np.zeros_like(axes)
        along[0, group] = np.where(np.isfinite(within), within, 1.0)
        terms = np.where(known, np.diagonal(jacobian) * np.where(known, least, 0.0), 0.0).astype(x.dtype)
        factor = _mean([_departing(model, state, u, along, terms, no_rates)[0] for model, state in pairs])[0]
        if np.isfinite(factor):
            least[group] = factor * along[0, group] / TANH
    offset = np.abs(states.astype(float)).max(axis=0)
    far = known & (least > OFFSET * offset)
    if far.any() and x.any():
        # A unit that is deeply saturated hardly departs from its flat linear part. It has its size at the zero state then.
        usual = np.maximum(offset, sizes_over(models, u, np.zeros_like(x)))
        least = np.where(far, np.minimum(least, OFFSET * usual), least)
    # The size of a state that enters linearly follows from its couplings only, and may be arbitrary if a loop is hardly
    # closed. Its size is therefore at least its own value, and at least the smallest change of it that brings the field to
    # rest.
    with np.errstate(all="ignore"):
        push = np.max([np.abs(np.asarray(one, float)) for one in fields], axis=0)
        linear = np.maximum(offset, _least(push[:, None] / jacobian))
        linear = np.where(np.isfinite(least), np.maximum(least, linear), linear)
        sizes = np.where(known, np.clip(offset, least, OFFSET * least), linear)
    # Keep sizes far from the limits of the dtype, so that squares neither underflow nor overflow.
    ends = np.finfo(x.dtype)
    sizes = np.clip(sizes, float(ends.tiny) ** 0.3, float(ends.max) ** 0.3) * (sizes > 0)
    return np.where(sizes > 0, sizes, 1.0).astype(x.dtype)


def _least(ratios: np.ndarray) -> np.ndarray:
    """The smallest positive finite entry (n,) of each column of a matrix (n, n); zero if there is none."""
    kept = np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.inf).min(axis=0)
    return np.where(np.isfinite(kept), kept, 0.0)


def _mean(departures: Sequence[AnyArray]) -> np.ndarray:
    """The geometric means (n,) of the finite ones of several sizes (n, 2), one pair for each model; NaN if fewer than half
    are finite.

    Both directions and all models count equally. Half are required, since a single finite size may be due to rounding, if
    large terms cancel for one parameter. Models at which a state departs far later than at another one do not count: it
    hardly acts there, as a saturated unit, or one whose coupling is switched off.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(np.stack([np.asarray(one, float) for one in departures], axis=1))
    finite = np.isfinite(logs)
    total = np.where(finite, logs, 0.0)
    with np.errstate(invalid="ignore"):
        each = np.where(finite.any(axis=2), total.sum(axis=2) / finite.sum(axis=2), np.inf)
    counted = finite & (each <= each.min(axis=1, keepdims=True) + np.log(OFFSET))[:, :, None]
    means = np.where(counted, logs, 0.0).sum(axis=(1, 2)) / np.maximum(counted.sum(axis=(1, 2)), 1)
    return np.where(2 * finite.sum(axis=(1, 2)) >= logs[0].size, np.exp(means), np.nan)


def _groups(jacobian: np.ndarray, unknown: np.ndarray) -> list[np.ndarray]:
    """The states whose size is `unknown` (n,), in groups that the Jacobian connects."""
    at = np.flatnonzero(unknown)
    count, labels = connected_components(jacobian[np.ix_(at, at)] != 0, directed=False)
    return [at[labels == i] for i in range(count)]


def rate_of(velocity: AnyArray, jacobian: AnyArray, sizes: np.ndarray) -> float:
    """A typical rate, in 1 / time: the norm of the Jacobian (n, n) with states measured in their sizes. If it is zero, the
    norm of the velocity (n,) relative to the sizes."""
    with np.errstate(over="ignore", invalid="ignore"):
        scaled = np.abs(np.asarray(jacobian, float)) * sizes[None, :] / sizes[:, None]
        rates = float(scaled.sum(axis=1).max()), float((np.abs(np.asarray(velocity, float)) / sizes).max())
    return next((rate for rate in rates if np.isfinite(rate) and rate > 0), 1.0)


def _known(jacobian: Array, x: Array) -> Array:
    """Which entries (n, n) of the Jacobian are known. One whose term at x is only a rounding error beside the others of its
    row, as that of a saturated unit, is not."""
    terms = jnp.abs(jacobian * x[None])
    noise = 256 * jnp.finfo(x.dtype).eps * terms.sum(axis=1, keepdims=True)
    return (jacobian != 0) & ((x == 0)[None] | (terms > noise))


def _departures(
    turns: bool, held: Held, x: Array, u: Array, along: Array, terms: Array, rates: Array
) -> tuple[Array, Array, Array]:
    """The distances (k, 2) along directions (k, n), upwards and downwards, at which f departs from its linear part, infinite
    if it never does; the Jacobian (n, n); and f (n,).

    `terms` (n,): sizes with which the rows of f are compared, besides their change. `rates` (n, n): lower bounds of the
    Jacobian's entries for that change. `turns`: find the distance at which an entry of the Jacobian changes instead.
    """
    n, dtype, model = x.shape[0], x.dtype, held.tree
    eps = jnp.finfo(dtype).eps

    def field(x: Array) -> Array:
        return field_at(model, x, u)

    here, jacobian = linear_at(model, x, u)

    terms_here = jnp.abs(here) + jnp.abs(jacobian) @ jnp.abs(x)

    def departs(direction: Array, products: tuple[Array, ...], sign: Array, power: Array) -> Array:
        """Whether f departs from its linear part at sign * 10^power along a direction (n,)."""
        distance = 10.0**power
        moved = sign * distance * direction
        if turns:
            turned = jnp.abs(state_jacobian(model, x + moved, u) - jacobian)
            apart = (jnp.abs(moved) > 256 * eps * jnp.abs(x)).any()
            return apart & ((turned > DEPARTURE * jnp.abs(jacobian)) & _known(jacobian, x)).any()
        change, usual, size = (distance * product for product in products)
        there = field(x + moved)
        off = jnp.abs(there - here - sign * change)
        # Rows that do not change to first order are compared with their own values.
        linear = jnp.maximum(jnp.abs(change), usual)
        against = jnp.maximum(linear + jnp.abs(here), terms)
        noise = 256 * eps * (terms_here + size)
        return ((off > DEPARTURE * against) & (off > noise) & (against > 0)).any() | ~jnp.isfinite(there).all()

    powers = jnp.arange(-DECADES, DECADES + 1, dtype=dtype)
    count = powers.shape[0]

    def one(direction: Array) -> Array:
        # All products with matrices but those of f are made once for each direction.
        products = jacobian @ direction, rates @ jnp.abs(direction), jnp.abs(jacobian) @ jnp.abs(direction)

        def way(sign: Array) -> Array:
            # One loop looks at all decades, and then halves the one in which the departure begins: f is traced once.
            def look(i: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
                before, last, low, high = state
                # At small distances rounding counts as a departure. The true one lies above the last two linear decades.
                low = jnp.where(i == count, powers[last], low)
                high = jnp.where(i == count, powers[jnp.minimum(last + 1, count - 1)], high)
                first, middle = i < count, (low + high) / 2
                seen = departs(direction, products, sign, jnp.where(first, powers[jnp.minimum(i, count - 1)], middle))
                last = jnp.where(first & (i > 0) & ~seen & ~before, i, last)
                return seen, last, jnp.where(first | seen, low, middle), jnp.where(first | ~seen, high, middle)

            nothing = jnp.zeros((), dtype)
            start = jnp.asarray(True), jnp.asarray(0), nothing, nothing
            _, last, low, high = jax.lax.fori_loop(0, count + HALVINGS, look, start)
            bracketed = (last > 0) & (last < count - 1)
            return jnp.where(bracketed, 10.0 ** ((low + high) / 2), jnp.inf)

        return jax.vmap(way)(jnp.asarray([1.0, -1.0], dtype))

    each = 2 * n * (n if turns else 1)
    return jax.lax.map(one, along, batch_size=int(np.clip(TOGETHER // each, 1, n))), jacobian, here


_departing, _turning = (Compiled(functools.partial(_departures, turns), seldom=True) for turns in (False, True))


def _balanced(jacobian: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """`sizes` (n,), in which each entry that is not finite is replaced by the size at which the row and the column of the
    scaled Jacobian (n, n) are equally large (Osborne, *Journal of the ACM* 7, 1960). A state that is connected to no other
    stays infinite."""
    unknown = np.flatnonzero(~np.isfinite(sizes))
    if unknown.size == 0:
        return sizes
    with np.errstate(all="ignore"):
        return _balancing(jacobian, sizes, unknown)


def _balancing(jacobian: np.ndarray, sizes: np.ndarray, unknown: np.ndarray) -> np.ndarray:
    """[`_balanced`][] if at least one size is unknown."""
    n = len(sizes)
    rates, couples = np.diagonal(jacobian).copy(), jacobian - np.diag(np.diagonal(jacobian))
    known = np.isfinite(sizes)
    sizes = np.where(known, sizes, np.nan)
    if not known.any():
        # No size is known: the common factor is arbitrary, so set the first size to one.
        start = int(np.argmax(((couples > 0) & (couples.T > 0)).sum(axis=1)))
        sizes[start], known[start] = 1.0, True
    # First give each state a value from the known sizes of others, then balance.
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
    """The size of state k that balances its row with its column, given the sizes (n,) of the others, zero if unknown."""
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
