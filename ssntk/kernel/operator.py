"""The kernel as a linear operator: its products walk the recorded steps, and neither it nor the Jacobian is ever formed."""

import math
from typing import Any, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ssntk.kernel.choice import product_rows
from ssntk.kernel.gram import site_product
from ssntk.kernel.products import pull, push
from ssntk.kernel.rows import Asked, Rows, rows_of


class KernelProduct(eqx.Module):
    """`v -> K v`. Its compiled code is shared by all models, probes and weights of the same shapes."""

    rows: Rows

    @property
    def n_rows(self) -> int:
        """The number of rows, B T n or B T m."""
        return math.prod(self.rows.replay.shape[:3])

    def __call__(self, vector: Float[Array, " rows"]) -> Float[Array, " rows"]:
        return self.block(vector[None])[0]

    def block(self, vectors: Float[Array, "k rows"]) -> Float[Array, "k rows"]:
        """K times each of k vectors at once, which costs far less than k products."""
        if self.rows.replay.signals is not None:
            return site_product(self.rows, vectors)
        return self.forward(self.back(vectors))

    def back(self, vectors: Float[Array, "k rows"]) -> Float[Array, "k p"]:
        """The transpose of sqrt(weight) L J D^(-1/2), for k vectors."""
        return _back(self.rows, vectors)

    def forward(self, directions: Float[Array, "k p"]) -> Float[Array, "k rows"]:
        """sqrt(weight) L J D^(-1/2), for k vectors."""
        return _forward(self.rows, directions)


@eqx.filter_jit
def _back(rows: Rows, vectors: Array) -> Array:
    replay = rows.replay
    cotangents = jnp.moveaxis(vectors.reshape(-1, *replay.shape[:3]), 0, -1)
    cotangents = replay.probe.observed(rows.on_rows(cotangents, transpose=True))
    pulled = pull(replay, jnp.moveaxis(cotangents, -1, 0))
    return pulled if rows.over_theta is None else pulled * rows.over_theta[None]


@eqx.filter_jit
def _forward(rows: Rows, directions: Array) -> Array:
    scaled = directions if rows.over_theta is None else directions * rows.over_theta[None]
    tangents = jnp.moveaxis(push(rows.replay, scaled), 0, -1)
    seen = rows.on_rows(rows.replay.probe.observed(tangents))
    return jnp.moveaxis(seen, -1, 0).reshape(directions.shape[0], -1)


def ntk_operator(model: Any, probe: Any, **asked: Unpack[Asked]) -> lx.FunctionLinearOperator:
    """The kernel of [`ntk`][] as a symmetric, positive semidefinite `lineax` operator over the rows (b, t, i) in C order.

    `op.mv(v)` is one backward and one forward walk through the recorded steps, `op.fn.block(V)` is k of them at once; memory
    is that of the recorded states and k vectors. `op.as_matrix()` forms the kernel from such products: [`ntk`][] is faster.

    Keyword arguments as in [`ntk`][]; the solver must be an explicit Runge-Kutta method. Raises as
    [`parameter_jacobian`][] does.
    """
    product = product_of(rows_of(model, probe, formed=None, **asked))
    structure = jax.ShapeDtypeStruct((product.n_rows,), product.rows.replay.probe.ts.dtype)
    tags = frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag})
    return lx.FunctionLinearOperator(product, structure, tags, closure_convert=False)


def product_of(rows: Rows) -> KernelProduct:
    """The product of a kernel whose steps can be replayed; `ValueError` otherwise."""
    if not rows.replay.replayable:
        solver = type(rows.replay.integrator.solver).__name__
        raise ValueError(f"integrator must have an explicit solver for products without the Jacobian, got {solver}")
    return KernelProduct(product_rows(rows))
