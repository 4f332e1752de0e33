"""Any function that takes one step, as a model in discrete time."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_scalar, is_traced
from ssntk.models.maps import AbstractMap
from ssntk.models.vector_field import as_state, checked


class Map(AbstractMap):
    """The map `x <- fn(t, x, u, params)`, with x (n,), u (d,) and a result (n,); theta is `params`.

    `fn` may also return a list or tuple of n scalars.

    **Example:** a cycle of two steps.

    ```python
    logistic = ssntk.Map(lambda t, x, u, params: params["r"] * x * (1 - x), {"r": 3.2}, n_state=1)
    print(ssntk.find_cycles(logistic, 2).x.round(4).tolist())  # [[[0.513], [0.7995]]]
    ```
    """

    fn: Callable[..., Array]
    params: PyTree[Array]
    n_state: int
    n_input: int
    dt: float = eqx.field(static=True, default=1.0, kw_only=True)

    def __init__(self, fn: Any, params: PyTree, n_state: Any, n_input: Any = 0, *, dt: Any = 1.0):
        """**Arguments:**

        - `fn`: the step, written with `jax.numpy`. Pass the same function object again to reuse compiled code.
        - `params`: a pytree of numbers and arrays. All of them become floating-point arrays.
        - `n_state`, `n_input`: n >= 1 and d >= 0.
        - `dt`: the time that a step takes, positive.

        Raises `ValueError` if `fn` cannot be called like this, or returns another shape.
        """
        if is_traced(dt):
            raise ValueError("dt must be concrete: the number of steps follows from it")
        self.fn, self.params, self.n_state, self.n_input = checked(fn, params, n_state, n_input)
        self.dt = float(as_scalar(dt, "dt", positive=True))

    @property
    def n_output(self) -> int:
        return self.n_state

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return as_state(self.fn(t, x, u, self.params), x)

    def trainable(self, of: str) -> PyTree[Array]:
        return self.params
