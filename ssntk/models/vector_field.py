"""Any ordinary differential equation as a model."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_array, as_count, traceable
from ssntk.models.base import AbstractStateSpaceModel, dtype_of


class VectorField(AbstractStateSpaceModel):
    """`dx/dt = fn(t, x, u, params)`, with x (n,), u (d,) and a result (n,); theta is `params`.

    `fn` may also return a list or tuple of n scalars, as is usual with scipy and XPPAUT.

    **Example:**

    ```python
    def pendulum(t, x, u, params):
        return [x[1], -jnp.sin(x[0]) - params["friction"] * x[1]]


    model = ssntk.VectorField(pendulum, {"friction": 0.2}, n_state=2)
    print(ssntk.find_fixed_points(model, starts=[[0.1, 0.0]]).eigenvalues.round(3))  # [[-0.1+0.995j -0.1-0.995j]]
    ```
    """

    fn: Callable[..., Array]
    params: PyTree[Array]
    n_state: int
    n_input: int

    def __init__(self, fn: Callable[..., Array], params: PyTree, n_state: int, n_input: int = 0):
        """**Arguments:**

        - `fn`: the vector field, written with `jax.numpy`. Pass the same function object again to reuse compiled code.
        - `params`: a pytree of numbers and arrays. All of them become floating-point arrays.
        - `n_state`, `n_input`: n >= 1 and d >= 0.

        Raises `ValueError` if `fn` cannot be called like this, or returns another shape.
        """
        self.fn, self.params, self.n_state, self.n_input = checked(fn, params, n_state, n_input)

    @property
    def n_output(self) -> int:
        return self.n_state

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return as_state(self.fn(t, x, u, self.params), x)

    def trainable(self, of: str) -> PyTree[Array]:
        return self.params


def checked(fn: Callable[..., Any], params: PyTree, n_state: int, n_input: int) -> tuple[Any, PyTree[Array], int, int]:
    """The arguments of a [`VectorField`][] or a [`Map`][], checked, with every number of `params` as an array."""
    if not callable(fn):
        raise ValueError(f"fn must be callable as fn(t, x, u, params), got {type(fn).__name__}")
    params = jax.tree.map(lambda leaf: as_array(leaf, "params"), params)
    n, d = as_count(n_state, "n_state"), as_count(n_input, "n_input", least=0)
    # Times, states and inputs have the model's dtype.
    dtype = dtype_of(params)
    what = f"fn(t, x ({n},), u ({d},), params)"
    try:
        with traceable(what):
            at = (jax.ShapeDtypeStruct(shape, dtype) for shape in ((), (n,), (d,)))
            out = jax.eval_shape(fn, *at, params)
    except ValueError:
        raise
    except Exception as error:
        raise ValueError(f"{what} could not be evaluated: {error}") from error
    if isinstance(out, (list, tuple)) and all(getattr(one, "shape", None) == () for one in out):
        # A list of numbers, one for each state, becomes an array.
        out = jax.ShapeDtypeStruct((len(out),), dtype)
    if getattr(out, "shape", None) != (n,):
        raise ValueError(f"fn must return shape ({n},), got {getattr(out, 'shape', type(out).__name__)}")
    return fn, params, n, d


def as_state(out: Any, x: Float[Array, " n"]) -> Float[Array, " n"]:
    """What a user's function returned, as an array (n,)."""
    return jnp.stack([jnp.asarray(one, x.dtype) for one in out]) if isinstance(out, (list, tuple)) else out
