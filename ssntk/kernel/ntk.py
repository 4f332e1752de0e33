"""The neural tangent kernel of trajectories, and its spectrum."""

from typing import Any, Unpack

import jax.numpy as jnp
from jaxtyping import Array, Float

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_choice, as_count, outside_jit
from ssntk.kernel.dense import contract, dense_kernel, with_itself
from ssntk.kernel.jacobian import METHODS, as_method
from ssntk.kernel.rows import Asked, Rows, asked_of, recorded_rows
from ssntk.kernel.spectrum import Spectrum
from ssntk.kernel.top import top_spectrum
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import block_positions
from ssntk.nouns import Lens


def ntk(
    model: AbstractStateSpaceModel,
    probe: Probe,
    other: Probe | None = None,
    *,
    of: str = "state",
    wrt: Lens | None = None,
    weights: Any = None,
    loss_operator: Any = None,
    preconditioner: Any = None,
    integrator: Integrator | None = None,
    scale: Any = None,
    method: str = "auto",
    batch_size: Any = None,
) -> Float[Array, "rows others"]:
    """The Neural Tangent Kernel K = J J^T (rows, rows), or J J'^T (rows, others) if a second probe is given.

    J (rows, p) is the [`parameter_jacobian`][] with its rows (b, t, i) in C order: input, save time, coordinate.

    **Arguments:**

    - `other`: a second probe, for the cross-kernel.
    - `weights`: how save times are weighted. `None`: the raw stacked kernel. `"trapezoid"`: by the trapezoid rule over the
      save times [time]; eigenvalues are then those of `K_int = int J J^T dt` over the horizon, about raw * horizon / T.
      (T,): any non-negative weights. Each row and each column is multiplied by the square root of its time's weight.
    - `loss_operator`: L in `L K L^T`: `None`, [`TimeDerivative`][], [`Residual`][], [`Sobolev`][], or an instance of your
      own subclass of [`AbstractLossOperator`][]. It acts before the weights.
    - `preconditioner`: D in `J D^-1 J^T`: `None`, (p,) positive numbers, or a state of `optax.adam`. For the last, D is
      `sqrt(nu / (1 - 0.999^count)) + 1e-8`.
    - `of`, `wrt`, `integrator`: as in [`parameter_jacobian`][].
    - `scale`: (n,) positive numbers, or one [state]: the metric of the states. The rows are then D^-1 J with
      D = diag(scale). Default: ones. With `of="readout"` a scale raises `ValueError`.
    - `batch_size`: how many inputs of each probe are held as rows of J at a time; default all. If J is held in parts, all
      parts but the first are computed repeatedly.
    - `method`: as in [`parameter_jacobian`][], and also `"sites"`. It computes the kernel of the states without J, if theta
      meets signals in matrix products. `"auto"` uses it from about 100 units on, if a save interval has few steps.
      [`kernel_plan`][] reports the choice. All methods give the same answer to 1e-12 of the largest entry.

    Raises as [`parameter_jacobian`][] does.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p, jnp.ones(1), 1)  # x = x0 + p t, so that dx/dp = t
    print(ssntk.ntk(model, ssntk.Probe([0.0, 1.0, 2.0])).round(6))  # [[0. 0. 0.] [0. 1. 2.] [0. 2. 4.]]
    ```
    """
    asked: Asked = {
        "of": of,
        "wrt": wrt,
        "weights": weights,
        "loss_operator": loss_operator,
        "preconditioner": preconditioner,
        "integrator": integrator,
        "scale": scale,
    }
    as_choice(method, "method", (*METHODS, "sites"))
    batch_size = None if batch_size is None else as_count(batch_size, "batch_size")
    if method == "sites" and (other is not None or batch_size is not None):
        raise ValueError("method 'sites' is not possible with another probe or a batch_size")
    checked = asked_of(model, probe, **asked)
    checked.check_kernel()
    if other is None:
        mine = theirs = checked.recorded()
        return dense_kernel(mine, method) if batch_size is None else _by_inputs(mine, theirs, method, batch_size)
    against = asked_of(model, other, **asked)
    against.check_kernel()
    return _by_inputs(checked.recorded(), against.recorded(), method, batch_size)


def ntk_blocks(
    model: AbstractStateSpaceModel,
    probe: Probe,
    blocks: Any,
    *,
    method: str = "auto",
    **asked: Unpack[Asked],
) -> dict[str, Float[Array, "rows rows"]]:
    """The part of [`ntk`][] that belongs to each block of theta. If the blocks partition theta, the parts add up to K.

    **Arguments:** `blocks`: a list of the model's attributes, or a dict from names to lenses. The others are as in
    [`ntk`][].

    Raises `ValueError` if a block is not part of theta, and as [`ntk`][] does.

    **Example:**

    ```python
    model = ssntk.CTRNN(n_state=3, n_input=1, n_output=1, key=jax.random.key(0))
    probe = ssntk.Probe([0.0, 1.0], np.ones((1, 1)))
    parts = ssntk.ntk_blocks(model, probe, ["weight", "input_weight", "bias"])
    print(np.allclose(sum(parts.values()), ssntk.ntk(model, probe)))  # True
    ```
    """
    as_method(method)
    parts = block_positions(model, asked.get("of", "state"), asked.get("wrt"), blocks)
    rows = recorded_rows(model, probe, **asked)
    matrix, theta = rows.matrix(method), rows.replay.theta
    return {name: with_itself(matrix[:, theta.columns(block)]) for name, block in parts.items()}


def fisher(
    model: AbstractStateSpaceModel,
    probe: Probe,
    *,
    method: str = "auto",
    **asked: Unpack[Asked],
) -> Float[Array, "p p"]:
    """The dual J^T J (p, p), whose non-zero eigenvalues are those of the kernel.

    It is the Fisher information about theta, if the rows are observed with Gaussian noise of variance one. Arguments and
    errors are as in [`ntk`][].

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p, jnp.ones(1), 1)  # x = x0 + p t, so that dx/dp = t
    print(ssntk.fisher(model, ssntk.Probe([0.0, 1.0, 2.0])).round(6))  # [[5.]]
    ```
    """
    as_method(method)
    return with_itself(recorded_rows(model, probe, **asked).matrix(method).T)


@outside_jit
def ntk_spectrum(
    model: AbstractStateSpaceModel,
    probe: Probe,
    *,
    method: str = "auto",
    eigenvectors: bool = True,
    k: Any = None,
    exact: bool = False,
    memory: Any = 2e9,
    **asked: Unpack[Asked],
) -> Spectrum:
    """The spectrum of [`ntk`][]. It comes from the singular values of J, so that small eigenvalues keep their digits.

    **Arguments:** as in [`ntk`][] and [`Spectrum.from_jacobian`][], and

    - `k`: compute only the first k eigenvalues, by Lanczos' iteration. If the trace and the participation ratio are
      estimated, they come with their standard errors. A property that needs every eigenvalue is then `None`.
    - `exact`: with k, compute the trace and the participation ratio without estimates. They come from J if it fits into
      `memory`. Otherwise they come from every block of the kernel in turn, as with `method="sites"` in [`ntk`][]; this keeps
      the cotangents of all events in memory.
    - `memory`: with k, how many bytes J may take. If it would take more, nothing of the size of J is formed.

    Raises as [`parameter_jacobian`][] does. Without k it also raises `ValueError` if J does not fit into this machine.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p, jnp.ones(1), 1)  # x = x0 + p t, so that dx/dp = t
    spectrum = ssntk.ntk_spectrum(model, ssntk.Probe([0.0, 1.0, 2.0]))
    print(spectrum.eigenvalues.round(6), spectrum.rank)  # [5. 0. 0.] 1
    ```
    """
    as_method(method)
    if exact and k is None:
        raise ValueError("exact is for the top k: without k everything is")
    if k is not None:
        return top_spectrum(asked_of(model, probe, **asked).recorded(), k, method, memory, exact)
    rows = recorded_rows(model, probe, **asked)
    return Spectrum.from_jacobian(rows.matrix(method), eigenvectors=eigenvectors)


def _by_inputs(mine: Rows, theirs: Rows, method: str, batch_size: int | None) -> Array:
    """The kernel of two sets of rows, with `batch_size` inputs of each at a time.

    If both are the same set, only the lower blocks are computed.
    """
    blocks: dict[tuple[int, int], Array] = {}
    starts = [range(0, rows.replay.probe.n_batch, batch_size or rows.replay.probe.n_batch) for rows in (mine, theirs)]

    def some(rows: Rows, which: range, i: int) -> Array:
        return rows.matrix(method, which[i], min(which.step, which.stop - which[i]))

    for i in range(len(starts[0])):
        left = some(mine, starts[0], i)
        for j in range(i + 1 if mine is theirs else len(starts[1])):
            blocks[i, j] = contract(left, left if mine is theirs and i == j else some(theirs, starts[1], j))
            if mine is theirs:
                blocks[j, i] = blocks[i, j].T
    return jnp.block([[blocks[i, j] for j in range(len(starts[1]))] for i in range(len(starts[0]))])
