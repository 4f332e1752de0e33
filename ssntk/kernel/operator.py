"""The kernel as a linear operator: its products walk the recorded steps, and neither it nor the Jacobian is ever formed."""

import math
from typing import Any, Unpack

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Float

from ssntk.kernel.choice import product_rows
from ssntk.kernel.dense import dense_kernel, streamed_diagonal
from ssntk.kernel.products import pull, push
from ssntk.kernel.rows import Asked, Rows, asked_of
from ssntk.kernel.sites.gram import site_product
from ssntk.notices import warn


class NTKOperator(lx.AbstractLinearOperator):
    """The kernel K (rows, rows) as a symmetric, positive semidefinite operator of lineax.

    Make one with [`ntk_operator`][]. Rows are (b, t, i) in C order. Everything that lineax does with operators works: sums
    and products, `lineax.linear_solve`, `lineax.diagonal`. Models, probes and weights of the same shapes share compiled
    code.

    - `mv(v)`: K v (rows,), by one backward and one forward walk through the recorded steps. It needs memory for the states
      and for v only.
    - `block(V)`: K times each of k vectors (k, rows), which costs far less than k products.
    - `as_matrix()`: K (rows, rows), as fast as [`ntk`][] computes it. It needs memory for J.

    **Example:** kernel ridge regression without a kernel matrix.

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p, jnp.ones(1), 1)  # x = x0 + p t, with the kernel t t'
    operator = ssntk.ntk_operator(model, ssntk.Probe([0.0, 1.0, 2.0]))
    print(operator.mv(jnp.ones(3)).round(6))  # [0. 3. 6.]
    ridge = operator + lineax.IdentityLinearOperator(operator.in_structure())
    ridge = lineax.TaggedLinearOperator(ridge, lineax.positive_semidefinite_tag)
    solved = lineax.linear_solve(ridge, jnp.ones(3), lineax.CG(rtol=1e-8, atol=1e-8))
    print(solved.value.round(6))  # [1.  0.5 0. ]
    ```
    """

    rows: Rows

    def mv(self, vector: Float[Array, " rows"]) -> Float[Array, " rows"]:
        return self.block(vector[None])[0]

    def block(self, vectors: Float[Array, "k rows"]) -> Float[Array, "k rows"]:
        """K times each of k vectors, (k, rows), which costs far less than k products."""
        if self.rows.replay.signals is not None:
            return site_product(self.rows, vectors)
        return forth(self.rows, back(self.rows, vectors))

    def as_matrix(self) -> Float[Array, "rows rows"]:
        return dense_kernel(self.rows)

    def transpose(self) -> "NTKOperator":
        return self

    def in_structure(self) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((math.prod(self.rows.replay.shape[:3]),), self.rows.replay.probe.ts.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        return self.in_structure()

    @property
    def fn(self) -> "Product":
        """Deprecated: use `mv` and `block` of the operator itself."""
        warn(
            "op.fn of an ntk_operator is deprecated: write op.block(V) for op.fn.block(V), and op.mv(v) for op.fn(v)",
            DeprecationWarning,
        )
        return Product(self)


class Product(eqx.Module):
    """Deprecated: `op.fn(v)` and `op.fn.block(V)`."""

    operator: NTKOperator

    def __call__(self, vector: Float[Array, " rows"]) -> Float[Array, " rows"]:
        return self.operator.mv(vector)

    def block(self, vectors: Float[Array, "k rows"]) -> Float[Array, "k rows"]:
        """K times each of k vectors."""
        return self.operator.block(vectors)


# Lineax asks for an operator's properties by dispatch on its class. They are all registered here.


@lx.is_symmetric.register(NTKOperator)
@lx.is_positive_semidefinite.register(NTKOperator)
def _always(operator: NTKOperator) -> bool:
    return True


@lx.is_diagonal.register(NTKOperator)
@lx.is_tridiagonal.register(NTKOperator)
@lx.is_lower_triangular.register(NTKOperator)
@lx.is_upper_triangular.register(NTKOperator)
@lx.has_unit_diagonal.register(NTKOperator)
@lx.is_negative_semidefinite.register(NTKOperator)
def _not_known(operator: NTKOperator) -> bool:
    # A kernel of one row has most of these properties, but lineax reads "no" as "not known".
    return False


@lx.linearise.register(NTKOperator)
@lx.conj.register(NTKOperator)
def _itself(operator: NTKOperator) -> NTKOperator:
    # The operator is already linear, at the recorded states, and real.
    return operator


@lx.materialise.register(NTKOperator)
def _materialised(operator: NTKOperator) -> lx.MatrixLinearOperator:
    return lx.MatrixLinearOperator(operator.as_matrix(), frozenset({lx.symmetric_tag, lx.positive_semidefinite_tag}))


@lx.diagonal.register(NTKOperator)
def _diagonal(operator: NTKOperator) -> Float[Array, " rows"]:
    if operator.rows.mixes_times:
        return jnp.sum(jnp.square(operator.rows.matrix()), axis=1)
    return streamed_diagonal(operator.rows).ravel()


@lx.tridiagonal.register(NTKOperator)
def _tridiagonal(operator: NTKOperator) -> tuple[Array, Array, Array]:
    matrix = operator.as_matrix()
    beside = jnp.diagonal(matrix, 1)
    return jnp.diagonal(matrix), beside, beside


@eqx.filter_jit
def back(rows: Rows, vectors: Float[Array, "k rows"]) -> Float[Array, "k p"]:
    """The transpose of R = sqrt(weight) L J D^(-1/2) (rows, p) times each of k vectors, (k, p)."""
    replay = rows.replay
    cotangents = jnp.moveaxis(vectors.reshape(-1, *replay.shape[:3]), 0, -1)
    cotangents = replay.probe.observed(rows.on_rows(cotangents, transpose=True))
    pulled = pull(replay, jnp.moveaxis(cotangents, -1, 0))
    return pulled if rows.over_theta is None else pulled * rows.over_theta[None]


@eqx.filter_jit
def forth(rows: Rows, directions: Float[Array, "k p"]) -> Float[Array, "k rows"]:
    """R = sqrt(weight) L J D^(-1/2) (rows, p) times each of k directions of theta, (k, rows)."""
    scaled = directions if rows.over_theta is None else directions * rows.over_theta[None]
    tangents = jnp.moveaxis(push(rows.replay, scaled), 0, -1)
    seen = rows.on_rows(rows.replay.probe.observed(tangents))
    return jnp.moveaxis(seen, -1, 0).reshape(directions.shape[0], -1)


def ntk_operator(model: Any, probe: Any, **asked: Unpack[Asked]) -> NTKOperator:
    """The kernel of [`ntk`][] as a symmetric, positive semidefinite `lineax` operator. Rows are (b, t, i) in C order.

    `op.mv(v)` takes one backward and one forward walk through the recorded steps. `op.block(V)` multiplies k vectors at
    once. Both need memory for the recorded states and for the vectors only. `op.as_matrix()` is [`ntk`][].
    `lineax.diagonal(op)` is its diagonal, computed without a kernel.

    Keyword arguments are as in [`ntk`][]; the solver must be an explicit Runge-Kutta method. Raises as
    [`parameter_jacobian`][] does.

    **Returns:** an [`NTKOperator`][].

    **Example:**

    ```python
    model = ssntk.CTRNN(n_state=8, n_input=1, n_output=1, key=jax.random.key(0))
    operator = ssntk.ntk_operator(model, ssntk.Probe([0.0, 1.0, 2.0]), weights="trapezoid")
    print(operator.in_size(), operator.block(jnp.ones((5, 24))).shape)  # 24 (5, 24)
    ```
    """
    return operator_of(asked_of(model, probe, **asked).recorded())


def operator_of(rows: Rows) -> NTKOperator:
    """The operator of these rows. Raises `ValueError` if their steps cannot be replayed."""
    if not rows.replay.replayable:
        solver = type(rows.replay.integrator.solver).__name__
        raise ValueError(f"integrator must have an explicit solver for products without the Jacobian, got {solver}")
    return NTKOperator(product_rows(rows))
