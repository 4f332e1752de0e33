"""Several steps of a map as one, so that its cycles are fixed points."""

from typing import Any

import equinox as eqx
import jax
from jaxtyping import Array, Float

from ssntk.errors import as_count, as_instance
from ssntk.models.maps import AbstractMap, MapWrapper

# Up to this many steps are written out, and more are a loop, which compiles faster.
UNROLLED = 4


class Iterated(MapWrapper):
    """The map F^k, k steps of the map F with the same input as one step of length `k dt`.

    A cycle of F whose period divides k is k fixed points of it, and their multipliers are those of the whole cycle. Save
    times lie whole rounds apart. Attributes that it does not have are those of F.

    **Example:** the second flip of the logistic map, at r = 1 + sqrt(6).

    ```python
    logistic = ssntk.Map(lambda t, x, u, params: params["r"] * x * (1 - x), {"r": 3.2}, n_state=1)
    family = ssntk.Family(ssntk.Iterated(logistic, 2), "r")
    branch = ssntk.continuation(family, (3.2, 3.6), x0=[0.513])
    print(branch.bifurcations[0].kind, round(branch.bifurcations[0].parameter, 9))  # flip 3.449489743
    ```
    """

    k: int = eqx.field(static=True)

    def __init__(self, map: Any, k: Any):
        """**Arguments:** `map`: F. `k`: the number of steps, at least 1.

        Raises `ValueError` if `map` is not a map, or `k` is not a positive integer.
        """
        as_instance(map, "map", AbstractMap)
        self.k = as_count(k, "k")
        super().__init__(map, self.k * map.dt)

    @property
    def iterations(self) -> int:
        return self.k * self.wrapped.iterations

    def iteration(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.iteration(t, x, u)

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        dt = self.wrapped.clock.unit
        if self.k <= UNROLLED:
            for i in range(self.k):
                x = self.wrapped.advance(t + i * dt, x, u)
            return x

        def step(carry: tuple[Array, Array], _: None) -> tuple[tuple[Array, Array], None]:
            x, t = carry
            return (self.wrapped.advance(t, x, u), t + dt), None

        start = x, jax.numpy.asarray(t, x.dtype)
        return jax.lax.scan(step, start, length=self.k)[0][0]
