"""Convert a step function, such as a cell of equinox or flax or a user's own, into a map."""

import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.errors import as_count, traceable
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.maps import EulerMap
from ssntk.models.torch_layout import looks_like_torch

# Usual names of the arguments of a step. They are used only if shapes do not show the order of the arguments.
STATES, INPUTS = ("h", "hidden", "hx", "carry", "state", "hidden_state"), ("u", "x", "input", "inputs", "xs")


def from_cell(cell: Any, readout: Any = None, *, n_state: Any, n_input: Any) -> EulerMap:
    """A map with dt = 1 from any step `cell(u, h) -> h` or `cell(u, h) -> (h, y)`, such as an equinox cell or a function.

    **Arguments:**

    - `cell`: the step. It is called with the input (d,) first and the state second, both without a batch axis. theta is its
      floating-point arrays, if it is an `eqx.Module` or another pytree. Arrays that a function only closes over are
      constants. To make them part of theta, pass `eqx.Partial(step, weights)` for a `step(weights, u, h)`. If the step
      returns a y, it is not used.
    - `readout`: a function from h to y (m,), such as an `eqx.nn.Linear`. Its arrays are in theta if the readout is observed.
      If the state is a tuple, the readout is called with the tuple; but an `eqx.nn.Linear` is called with the first entry,
      such as h in the state (h, c) of an LSTM. Default: the whole state.
    - `n_state`: n. If the state is a tuple or another pytree of arrays: the same pytree with sizes in place of the arrays,
      such as (n, n) for an LSTM. For an array that is not one-dimensional, use an array of its shape in place of the size.
      The state of the model holds the entries of all arrays in tree order.
    - `n_input`: d >= 0.

    Raises `ValueError`, which names `cell` or `readout`, what it returned and what was expected. This happens before
    anything is compiled.

    **Example:**

    ```python
    cell = eqx.nn.GRUCell(1, 3, key=jax.random.key(0))
    network = ssntk.from_cell(cell, n_state=3, n_input=1)
    print(jnp.allclose(network.step(jnp.ones(3), [0.5]), cell(jnp.array([0.5]), jnp.ones(3))))  # True
    ```
    """
    if looks_like_torch(cell):
        raise ValueError("cell is a PyTorch network: pass ssntk.from_torch(net)")
    if not callable(cell):
        raise ValueError(f"cell must be callable as cell(u, h), got {type(cell).__name__}")
    if readout is not None and not callable(readout):
        raise ValueError(f"readout must be callable as readout(h), got {type(readout).__name__}")
    cell, readout = jax.tree.map(_as_jax, (cell, readout))
    shapes = _shapes(n_state)
    if isinstance(cell, eqx.nn.LSTMCell) and isinstance(shapes, _Shape) and shapes == (2 * cell.hidden_size,):
        shapes = _shapes((cell.hidden_size, cell.hidden_size))
    d = as_count(n_input, "n_input", least=0)
    dtype = dtype_of((cell, readout))
    u = jax.ShapeDtypeStruct((d,), dtype)
    h = jax.tree.map(lambda shape: jax.ShapeDtypeStruct(shape, dtype), shapes)
    return EulerMap(Cell(cell, readout, h, d, _alone(cell, u, h)), 1.0)


class Cell(AbstractStateSpaceModel):
    """The vector field `step - x` of a step `cell(u, h)`. The state x (n,) holds the entries of h in tree order."""

    cell: Any
    output: Callable[..., Array] | None
    n_input: int
    structure: Any = eqx.field(static=True)
    shapes: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    # Whether the cell returns h only, and not (h, y).
    alone: bool = eqx.field(static=True)
    n_output: int

    def __init__(self, cell: Any, output: Any, h: PyTree, n_input: int, alone: bool):
        self.cell, self.output, self.n_input, self.alone = cell, output, n_input, alone
        leaves, self.structure = jax.tree.flatten(h)
        self.shapes = tuple(leaf.shape for leaf in leaves)
        self.n_output = self.n_state
        if output is not None:
            said = f"readout at h {_said(h)}"
            y, error = _tried(said, self._read, h)
            if error is not None:
                raise error
            if len(getattr(y, "shape", ())) != 1 or not jnp.issubdtype(y.dtype, jnp.floating):
                raise ValueError(f"readout must return real numbers of shape (m,), got {_said(y)}")
            self.n_output = y.shape[0]

    @property
    def n_state(self) -> int:
        return sum(map(int, map(np.prod, self.shapes)))

    def shaped(self, x: Float[Array, " n"]) -> PyTree:
        """The state in the form that the cell takes."""
        ends = np.cumsum([int(np.prod(shape)) for shape in self.shapes])
        parts = jnp.split(x, ends[:-1])
        leaves = [part.reshape(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return jax.tree.unflatten(self.structure, leaves)

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        after = self.cell(u, self.shaped(x))
        leaves = jax.tree.leaves(after if self.alone else after[0])
        return jnp.concatenate([jnp.ravel(leaf).astype(x.dtype) for leaf in leaves]) - x

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return x if self.output is None else self._read(self.shaped(x))

    def _read(self, h: PyTree) -> Array:
        output: Any = self.output
        return output(h[0] if isinstance(output, eqx.nn.Linear) and isinstance(h, tuple) else h)

    def trainable(self, of: str) -> PyTree:
        return eqx.filter((self.cell, self.output) if of == "readout" else self.cell, eqx.is_inexact_array)


def _as_jax(leaf: Any) -> Any:
    """A NumPy array of floating-point numbers as an array of JAX, so that it is in theta; other leaves as they are."""
    return jnp.asarray(leaf) if isinstance(leaf, np.ndarray) and leaf.dtype.kind == "f" else leaf


class _Shape(tuple):
    """A shape. JAX takes it for a leaf, which a tuple is not."""


def _shapes(n_state: Any) -> PyTree:
    """The shape of each array of the state."""

    def shape(size: object) -> _Shape:
        return _Shape(getattr(size, "shape", ()) or (as_count(size, "n_state"),))

    shapes = jax.tree.map(shape, n_state, is_leaf=lambda leaf: leaf is None)
    if not jax.tree.leaves(shapes):
        raise ValueError(f"n_state must be a size or a tuple of sizes, got {n_state!r}")
    return shapes


def _alone(cell: Any, u: PyTree, h: PyTree) -> bool:
    """Whether a cell returns only the state, without a y; `ValueError` if it returns no state."""
    call = f"cell(u {_said(u)}, h {_said(h)})"
    returned, error = _tried(call, cell, u, h)
    found = _holds(returned, h)
    swapped = _holds(_tried(call, cell, h, u)[0], h)
    if found is not None:
        if swapped is not None and _named_otherwise(cell):
            raise ValueError(_ORDER.format(names="as the names of its arguments say"))
        return found
    if swapped is not None:
        raise ValueError(_ORDER.format(names="as its shapes say"))
    pairs = "; if its state is a tuple, as (h, c) of an LSTM, give n_state=(n, n)"
    if error is not None:
        raise ValueError(f"{error}; cell takes (u, h), without a batch axis{pairs}") from error
    wanted = f"h {_said(h)}, the state after the step, or (h, y)"
    raise ValueError(f"cell must return {wanted}; {call} returned {_said(returned)}")


_ORDER = (
    "cell must take (u, h), the input first and the state second; it takes (h, u), {names}: pass "
    "eqx.Partial(lambda cell, u, h: cell(h, u), cell)"
)


def _tried(what: str, function: Callable[..., PyTree], *arguments: PyTree) -> tuple[PyTree, ValueError | None]:
    """The shapes of what a function returns, and `None`; or `None`, and the error that says why it cannot be evaluated."""
    try:
        with traceable(what):
            return eqx.filter_eval_shape(function, *arguments), None
    except ValueError as error:
        return None, error
    except Exception as error:
        return None, ValueError(f"{what} could not be evaluated: {type(error).__name__}: {error}")


def _holds(returned: PyTree, h: PyTree) -> bool | None:
    """`True` if the cell returned a state like h; `False` if it returned a pair whose first entry is one; else `None`."""
    if _alike(returned, h):
        return True
    return False if isinstance(returned, tuple) and len(returned) == 2 and _alike(returned[0], h) else None


def _alike(one: PyTree, h: PyTree) -> bool:
    return jax.tree.structure(one) == jax.tree.structure(h) and all(
        getattr(leaf, "shape", None) == want.shape and jnp.issubdtype(leaf.dtype, jnp.floating)
        for leaf, want in zip(jax.tree.leaves(one), jax.tree.leaves(h), strict=True)
    )


def _named_otherwise(cell: Any) -> bool:
    """Whether the names of the arguments show that the state comes first."""
    try:
        names = list(inspect.signature(cell).parameters)[:2]
    except (TypeError, ValueError):
        return False
    if len(names) < 2:
        return False
    first, second = (name.lower() for name in names)
    states, inputs = ("h_", "state", "carry", "hidden"), ("u", "x", "inp")
    # (x, u) is the order of this package's own steps.
    return (
        (first in STATES and second in INPUTS)
        or (first, second) == ("x", "u")
        or (first.startswith(states) and second.startswith(inputs))
    )


def _said(tree: PyTree) -> str:
    """Shapes as text for a message: (3,), or ((3,), (3,))."""
    if tree is None:
        return "nothing"
    shown = jax.tree.map(lambda leaf: getattr(leaf, "shape", type(leaf).__name__), tree)
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")}
    odd = sorted(kind for kind in kinds if not kind.startswith("float"))
    return f"{shown}" + (f" of {', '.join(odd)}" if odd else "")
