"""Linear operations on values (K, *shape), of which the first axis holds coefficients; see [`Kinks`][]."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import JaxprEqn

from ssntk.piecewise.kinks import widened


def alike(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Values with one number of coefficients."""
    width = max(map(len, values))
    return [widened(one, width) for one in values]


def ranked(values: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Values of one rank: scalars become arrays of length one along each axis."""
    rank = max(one.ndim for one in values)
    return [one.reshape(len(one), *(1,) * (rank - one.ndim), *one.shape[1:]) for one in values]


def _product(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    if min(len(one), len(other)) > 1:
        return None
    one, other = ranked((one, other))
    return one * other


def _quotient(one: np.ndarray, other: np.ndarray) -> np.ndarray | None:
    # The division of integers is another operation.
    if len(other) > 1 or one.dtype.kind != "f":
        return None
    one, other = ranked((one, other))
    return one / other


def _sum(args: list[np.ndarray], sign: int) -> np.ndarray:
    one, other = alike(ranked(args))
    return one + other if sign > 0 else one - other


def _power(base: np.ndarray, exponent: int) -> np.ndarray | None:
    if exponent == 1:
        return base
    return None if len(base) > 1 else base**exponent if exponent > 0 else 1.0 / base**-exponent


def _dotted(one: np.ndarray, other: np.ndarray, numbers: Any) -> np.ndarray | None:
    """The sum of products over axes, if at least one of the two is known."""
    if min(len(one), len(other)) > 1:
        return None
    (contracted, along), (batch, beside) = numbers
    first = len(one) > 1
    if not batch:
        if first or len(other) == 1:
            return np.tensordot(one, other[0], axes=([axis + 1 for axis in contracted], along))
        free = one.ndim - 1 - len(contracted)
        return np.moveaxis(np.tensordot(one[0], other, axes=(contracted, [axis + 1 for axis in along])), free, 0)
    left, right = [*range(one.ndim - 1)], [*range(20, 19 + other.ndim)]
    for axes, mine in ((contracted, along), (batch, beside)):
        for axis, own in zip(axes, mine, strict=True):
            right[own] = left[axis]
    out = [left[axis] for axis in batch]
    out += [i for axis, i in enumerate(left) if axis not in (*contracted, *batch)]
    out += [i for axis, i in enumerate(right) if axis not in (*along, *beside)]
    if first:
        return np.einsum(one, [51, *left], other[0], right, [51, *out])
    return np.einsum(one[0], left, other, [51, *right], [51, *out])


def _summed_up(value: np.ndarray, axis: int, turned: bool) -> np.ndarray:
    sums = np.cumsum(np.flip(value, axis + 1) if turned else value, axis=axis + 1)
    return np.flip(sums, axis + 1) if turned else sums


def _converted(value: np.ndarray, dtype: Any) -> np.ndarray | None:
    # Numbers of 32 bits become ones of 64, since the form is computed in double precision.
    if np.dtype(dtype).kind == "f":
        return value.astype(float)
    return None if len(value) > 1 else value.astype(dtype)


# Each function takes the arguments and parameters of an operation. It returns `None` if the operation is not linear in them.
LINEAR: dict[str, Callable[[list[np.ndarray], dict[str, Any]], np.ndarray | None]] = {
    "add": lambda args, params: _sum(args, 1),
    "add_any": lambda args, params: _sum(args, 1),
    "sub": lambda args, params: _sum(args, -1),
    "neg": lambda args, params: -args[0],
    "mul": lambda args, params: _product(args[0], args[1]),
    "div": lambda args, params: _quotient(args[0], args[1]),
    "integer_pow": lambda args, params: _power(args[0], params["y"]),
    "dot_general": lambda args, params: _dotted(args[0], args[1], params["dimension_numbers"]),
    "reduce_sum": lambda args, params: args[0].sum(axis=tuple(axis + 1 for axis in params["axes"])),
    "cumsum": lambda args, params: _summed_up(args[0], params["axis"], params["reverse"]),
    "convert_element_type": lambda args, params: _converted(args[0], params["new_dtype"]),
    "reduce_precision": lambda args, params: args[0],
}


# Operations that move or pick elements. The numbers are those of the arguments of which elements are taken.
PLACING: dict[str, Callable[[int], Sequence[int]]] = {
    **dict.fromkeys(("reshape", "squeeze", "expand_dims", "transpose", "broadcast_in_dim", "slice", "rev"), lambda k: (0,)),
    **dict.fromkeys(("dynamic_slice", "gather", "split", "copy", "copy_p", "tile"), lambda k: (0,)),
    **dict.fromkeys(("concatenate", "stack"), range),
    **dict.fromkeys(("dynamic_update_slice", "pad"), lambda k: (0, 1)),
    "scatter": lambda k: (0, 2),
    "select_n": lambda k: range(1, k),
}


def placed(equation: JaxprEqn, args: list[np.ndarray], of: Sequence[int]) -> list[np.ndarray]:
    """The results of an operation that moves elements. The same operation on their numbers says which ones are taken."""
    moved = alike([args[i] for i in of])
    if moved[0].dtype.kind != "f" and len(moved[0]) == 1:
        moved = [one.astype(np.result_type(*moved)) for one in moved]
    ends = np.cumsum([one[0].size for one in moved])
    numbers = [np.arange(end - one[0].size, end).reshape(one.shape[1:]) for one, end in zip(moved, ends, strict=True)]
    given = [numbers[of.index(i)] if i in of else one[0] for i, one in enumerate(args)]
    name, params = equation.primitive.name, equation.params
    if name in _HOST:
        found: Any = _HOST[name](given, params)
    else:
        asked = [jnp.asarray(one, int if i in of else None) for i, one in enumerate(given)]
        found = equation.primitive.bind(*asked, **params)
    flat = np.concatenate([one.reshape(len(one), -1) for one in moved], axis=1)
    found = [np.asarray(one) for one in (found if equation.primitive.multiple_results else [found])]
    # Numbers of elements that do not exist are marked by JAX with others.
    if any(((one < 0) | (one >= flat.shape[1])).any() for one in found):
        raise IndexError(f"{name} reads beyond an array")
    return [flat[:, one] for one in found]


def _broadcast(value: np.ndarray, shape: Sequence[int], dimensions: Sequence[int]) -> np.ndarray:
    wide = [1] * len(shape)
    for own, axis in enumerate(dimensions):
        wide[axis] = value.shape[own]
    return np.broadcast_to(value.reshape(wide), shape)


def _sliced(value: np.ndarray, params: dict[str, Any]) -> np.ndarray:
    steps = params["strides"] or (1,) * value.ndim
    return value[tuple(map(slice, params["start_indices"], params["limit_indices"], steps))]


def _sliced_at(value: np.ndarray, starts: Sequence[Any], sizes: Sequence[int]) -> np.ndarray:
    at = [int(np.clip(start, 0, most - size)) for start, most, size in zip(starts, value.shape, sizes, strict=True)]
    return value[tuple(slice(start, start + size) for start, size in zip(at, sizes, strict=True))]


# The same on the host, for the operations that models use most: JAX would compile each of them.
_HOST: dict[str, Callable[[list[Any], dict[str, Any]], Any]] = {
    "reshape": lambda args, params: args[0].reshape(params["new_sizes"]),
    "squeeze": lambda args, params: np.squeeze(args[0], tuple(params["dimensions"])),
    "transpose": lambda args, params: np.transpose(args[0], params["permutation"]),
    "broadcast_in_dim": lambda args, params: _broadcast(args[0], params["shape"], params["broadcast_dimensions"]),
    "slice": lambda args, params: _sliced(args[0], params),
    "rev": lambda args, params: np.flip(args[0], params["dimensions"]),
    "copy": lambda args, params: args[0],
    "dynamic_slice": lambda args, params: _sliced_at(args[0], args[1:], params["slice_sizes"]),
    "concatenate": lambda args, params: np.concatenate(args, params["dimension"]),
    "stack": lambda args, params: np.stack(args, params["axis"]),
    "split": lambda args, params: np.split(args[0], np.cumsum(params["sizes"])[:-1], params["axis"]),
    "select_n": lambda args, params: np.choose(args[0].astype(int), args[1:]),
}
