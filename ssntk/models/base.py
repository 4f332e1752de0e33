"""The protocol of every model: a vector field, a readout, and what of it is trained."""

import abc
import functools
import math
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_array, as_count, is_traced


class AbstractStateSpaceModel(eqx.Module):
    """`dx/dt = vector_field(t, x, u)`, `y = readout(x)`.

    Subclass it with fields or properties `n_state`, `n_input`, `n_output`, and a `vector_field`.
    """

    if TYPE_CHECKING:
        # Type checkers would take the abstract variables for arguments of every subclass's `__init__`.
        @property
        def n_state(self) -> int: ...
        @property
        def n_input(self) -> int: ...
        @property
        def n_output(self) -> int: ...
    else:
        n_state: eqx.AbstractVar[int]
        n_input: eqx.AbstractVar[int]
        n_output: eqx.AbstractVar[int]

    @abc.abstractmethod
    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The velocity of the state, in state units per unit time."""

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        """The output of a state; the identity unless overridden."""
        return x

    def trainable(self, of: str) -> PyTree:
        """theta, the trained leaves: a pytree of leaves of this model. Default: every inexact array.

        **Arguments:** `of`: `"state"` or `"readout"`, what is observed.
        """
        return eqx.filter(self, eqx.is_inexact_array)


def dtype_of(model: AbstractStateSpaceModel) -> jnp.dtype:
    """The floating-point type that a model computes in: that of its arrays, else JAX's default."""
    leaves = [leaf.dtype for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)]
    return jnp.dtype(max(leaves, key=lambda dtype: dtype.itemsize) if leaves else jnp.result_type(float))


def check_model(model: Any, name: str = "model") -> None:
    """`ValueError` unless `model` follows the protocol and all its numbers are finite."""
    if not isinstance(model, AbstractStateSpaceModel):
        raise ValueError(f"{name} must be an ssntk.AbstractStateSpaceModel, got {type(model).__name__}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if (eqx.is_inexact_array(leaf) or isinstance(leaf, (float, complex, np.ndarray))) and not is_traced(leaf):
            if jnp.iscomplexobj(leaf):
                raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be real, got complex numbers")
            if not np.isfinite(np.asarray(leaf)).all():
                raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be finite, got NaN or infinity")
    for what, least in (("n_state", 1), ("n_input", 0), ("n_output", 1)):
        as_count(getattr(model, what), f"{name}.{what}", least=least)
    x, u = (jax.ShapeDtypeStruct((size,), dtype_of(model)) for size in (model.n_state, model.n_input))
    time = jax.ShapeDtypeStruct((), dtype_of(model))
    for what, out, size in (
        ("vector_field", jax.eval_shape(lambda *at: model.vector_field(*at), time, x, u), model.n_state),
        ("readout", jax.eval_shape(lambda x: model.readout(x), x), model.n_output),
    ):
        got = f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}"
        if getattr(out, "shape", None) != (size,) or not jnp.issubdtype(out.dtype, jnp.floating):
            raise ValueError(f"{name}.{what} must return real numbers of shape ({size},), got {got}")


def random_weights(key: Any, *parts: tuple[tuple[int, ...], int]) -> list[Array]:
    """For each (shape, c) an array from N(0, 1/c), drawn from one key in one compiled call."""
    return _drawn(key, tuple(shape for shape, _ in parts), [math.sqrt(c) for _, c in parts])


@functools.partial(jax.jit, static_argnums=1)
def _drawn(key: Any, shapes: tuple[tuple[int, ...], ...], scales: list[Any]) -> list[Array]:
    keys = jr.split(key, len(shapes))
    # Apart, so that numbers are the same to the last digit however many are drawn, and when this is traced.
    apart = [jax.lax.optimization_barrier(jr.normal(own, shape)) for own, shape in zip(keys, shapes, strict=True)]
    return [drawn / scale for drawn, scale in zip(apart, scales, strict=True)]


def time_constant(tau: Any, n: int) -> Array:
    """`tau` as an array, a positive scalar or (n,); `ValueError` otherwise."""
    tau = as_array(tau, "tau")
    if tau.shape not in ((), (n,)):
        raise ValueError(f"tau must be a scalar or have shape ({n},), got {tau.shape}")
    if not is_traced(tau) and not bool((np.asarray(tau) > 0).all()):
        raise ValueError("tau must be positive")
    return tau


class WithInput(AbstractStateSpaceModel):
    """`wrapped` with `added_input` (d,) added to whatever input it is given; its other attributes are the model's own."""

    wrapped: AbstractStateSpaceModel
    added_input: Float[Array, " d"]

    @property
    def n_state(self) -> int:
        return self.wrapped.n_state

    @property
    def n_input(self) -> int:
        return self.wrapped.n_input

    @property
    def n_output(self) -> int:
        return self.wrapped.n_output

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.vector_field(t, x, u + self.added_input)

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.wrapped.readout(x)

    def trainable(self, of: str) -> PyTree:
        return self.wrapped.trainable(of)

    def __getattr__(self, name: str) -> Any:
        # A lens written for the model works on the model with its input.
        if name.startswith("__") or name == "wrapped":
            raise AttributeError(name)
        return getattr(self.wrapped, name)
