"""Recurrent layers, one above the other."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_instance
from ssntk.models.base import dtype_of
from ssntk.models.maps import AbstractMap


class Layers(AbstractMap):
    """A stack of recurrent layers, as `torch.nn.RNN`, `GRU` and `LSTM` have with `num_layers`.

    The first layer takes the input. In the same step, each other layer takes the new state of the layer below (of an LSTM
    its h). The state holds those of all layers, the first one's first. The readout is that of the last layer. theta is
    that of every layer; the readout's weights are those of the last.

    **Example:**

    ```python
    first, second = jax.random.split(jax.random.key(0))
    network = ssntk.Layers(ssntk.LSTMCell(2, 4, key=first), ssntk.GRUCell(4, 3, 1, key=second))
    print(network.n_state, network.n_input, network.n_output)  # 11 2 1
    ```
    """

    cells: tuple[AbstractMap, ...]

    def __init__(self, *cells: Any):
        """**Arguments:** `cells`: maps with the same dt, from the bottom to the top.

        Raises `ValueError` if there are none, or if the inputs of a layer are not as many as the units of the one below.
        """
        if not cells:
            raise ValueError("cells must hold at least one map")
        for i, cell in enumerate(cells):
            as_instance(cell, f"cells[{i}]", AbstractMap)
            if cell.dt != cells[0].dt:
                raise ValueError(f"cells must have the same dt, got {cells[0].dt:g} and {cell.dt:g}")
        for i, (below, above) in enumerate(itertools.pairwise(cells)):
            width = _width(below)
            if above.n_input != width:
                raise ValueError(
                    f"cells[{i + 1}] must have {width} inputs, as many as cells[{i}] has units, got {above.n_input}"
                )
        self.cells = cells
        self.dt = cells[0].dt

    @property
    def n_state(self) -> int:
        return sum(cell.n_state for cell in self.cells)

    @property
    def n_input(self) -> int:
        return self.cells[0].n_input

    @property
    def n_output(self) -> int:
        return self.cells[-1].n_output

    def split(self, x: Float[Array, " n"]) -> list[Array]:
        """The states of the layers, from the state of all."""
        return jnp.split(x, np.cumsum([cell.n_state for cell in self.cells])[:-1].tolist())

    def advance(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        after = []
        for cell, state in zip(self.cells, self.split(x), strict=True):
            after.append(cell.advance(t, state, u))
            u = cell.passed_up(after[-1])
        return jnp.concatenate(after)

    def passed_up(self, x: Float[Array, " n"]) -> Float[Array, " k"]:
        return self.cells[-1].passed_up(self.split(x)[-1])

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.cells[-1].readout(self.split(x)[-1])

    def trainable(self, of: str) -> PyTree:
        return (*(cell.trainable("state") for cell in self.cells[:-1]), self.cells[-1].trainable(of))


def _width(cell: AbstractMap) -> int:
    """The number of entries that a layer passes to the layer above."""
    return jax.eval_shape(lambda x: cell.passed_up(x), jax.ShapeDtypeStruct((cell.n_state,), dtype_of(cell))).shape[0]
