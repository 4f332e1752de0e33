"""Failures and the checks of arguments that every room shares."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

T = TypeVar("T")


class NumericalError(RuntimeError):
    """A computation that did not converge. The message says what failed and what to try."""


def is_traced(*trees: Any) -> bool:
    """Whether any leaf is a tracer, so that its values cannot be looked at."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(trees))


def as_array(value: Any, name: str, shape: tuple[int | str, ...] | None = None, *, finite: bool = True) -> jax.Array:
    """`value` as a floating-point array; `ValueError` naming `name` where its dtype, shape or values are wrong.

    In `shape` an int is a required length and a string is any length.
    """
    try:
        if isinstance(value, str):
            raise TypeError("a string")
        array = jnp.asarray(value) if isinstance(value, jax.Array) or is_traced(value) else _copied(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be an array of real numbers, got {type(value).__name__}") from error
    if jnp.issubdtype(array.dtype, jnp.integer):
        array = array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"{name} must hold float32 or float64 numbers, got {array.dtype}")
    if array.weak_type:
        # A Python number and an array must not compile twice.
        array = jnp.asarray(array, dtype=array.dtype)
    if shape is not None and (
        array.ndim != len(shape)
        or any(isinstance(want, int) and want != got for want, got in zip(shape, array.shape, strict=True))
    ):
        wanted = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}")
    if finite and not isinstance(array, Tracer) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return array


def _copied(value: Any) -> jax.Array:
    """`value`, of the host, as an array that later changes of it do not reach; unlike `jnp.asarray`, compiling nothing."""
    if np.ma.is_masked(value):
        raise TypeError("a masked array")
    host = np.array(value)
    if host.dtype.kind not in "biufcV":
        raise TypeError(f"an array of {host.dtype}")
    # Bytes in the order of another machine, as files have them.
    return jax.device_put(host if host.dtype.isnative else host.astype(host.dtype.newbyteorder("=")))


def as_scalar(value: Any, name: str, *, positive: bool = False) -> jax.Array:
    """`value` as a floating-point scalar array, checked like [`as_array`][]."""
    array = as_array(value, name, ())
    if positive and not is_traced(array) and float(array) <= 0:
        raise ValueError(f"{name} must be positive, got {float(array):g}")
    return array


def as_instance(value: Any, name: str, kind: type[T]) -> T:
    """`value` if it is an instance of `kind`."""
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be an ssntk.{kind.__name__}, got {type(value).__name__}")
    return value


@contextlib.contextmanager
def traceable(what: str) -> Iterator[None]:
    """What JAX cannot trace is a `ValueError` that says what to write instead."""
    try:
        yield
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(
            f"{what} calls a function of NumPy, which JAX cannot trace: use jax.numpy, such as jnp.tanh for np.tanh"
        ) from error
    except jax.errors.TracerBoolConversionError as error:
        raise ValueError(
            f"{what} branches on a value that JAX does not know while it traces: use jnp.where or jax.lax.cond instead of if"
        ) from error
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError) as error:
        raise ValueError(
            f"{what} needs a value as a number that JAX does not know while it traces: compute with jax.numpy throughout"
        ) from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what} could not be evaluated: {error}") from error


def as_key(value: Any, *, needed: bool = False) -> jax.Array:
    """`value` as a random key, `jax.random.key(0)` where it is `None` and none is `needed`."""
    if value is None:
        if needed:
            raise ValueError("key must be a jax.random.key, got None")
        return jax.random.key(0)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    if not typed and not (dtype == np.uint32 and shape == (2,)):
        raise ValueError(f"key must be a jax.random.key, got {value!r}")
    return value


def as_room(numbers: int, name: str, dtype: Any = float) -> None:
    """`ValueError` naming `name` where so many numbers do not fit into this machine: trying ends the process."""
    try:
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        room = 2**40
    needed = numbers * np.dtype(dtype).itemsize
    if needed > room:
        raise ValueError(f"{name} is too large: {needed:.3g} bytes do not fit into this machine's {room:.3g}")


def as_count(value: Any, name: str, *, least: int = 1) -> int:
    """`value` as an int that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def as_choice(value: Any, name: str, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value
