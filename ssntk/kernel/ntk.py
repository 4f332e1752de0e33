"""The neural tangent kernel of trajectories, and its spectrum."""

from typing import Any, Unpack

from jaxtyping import Array, Float

from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_choice, as_count, outside_jit
from ssntk.kernel.averages import as_average, averaged_kernel, check_average
from ssntk.kernel.dense import by_inputs, dense_kernel, with_itself
from ssntk.kernel.jacobian import METHODS, as_method
from ssntk.kernel.rows import Asked, asked_of, recorded_rows
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
    average: Any = None,
) -> Float[Array, "rows others"]:
    """The Neural Tangent Kernel K = J J^T (rows, rows), or J J'^T (rows, others) if a second probe is given.

    J (rows, p) is the [`parameter_jacobian`][] with its rows (b, t, i) in C order: input, save time, coordinate.
    With `average` it is a partial trace of that kernel, divided by the length of what is traced over.

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
    - `average`: `None`: K itself. The averages are computed without it.
      `"units"` is (B T, B' T'), the mean `sum_i K[(b, t, i), (b', t', i)] / n` over the n states. Its trace is tr K / n.
      `"outputs"` is the same over the m outputs, with `of="readout"`. It is what a single random output sees on average, and
      the J J^T / m of other libraries (Novak et al., *Neural Tangents*, ICLR 2020, as `trace_axes`).
      `"time"` is (n, n), or (m, m) with `of="readout"`: the mean `sum_bt K[(b, t, i), (b, t, j)] / (B T)` over inputs and
      save times. Its trace is tr K / (B T). A second probe must then have as many inputs and save times, which are paired in
      their order.
      Everything else acts first: rows that a mask hides count as zeros, and weights are not divided by their sum. An average
      over states adds their squares, so that it depends on `scale`, and on their units without it. If a loss operator
      observes another number of rows, these are averaged.

    Raises as [`parameter_jacobian`][] does. Also raises `ValueError` if `average` does not fit `of` or `other`.

    **Example:**

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: p, jnp.ones(1), 1)  # x = x0 + p t, so that dx/dp = t
    probe = ssntk.Probe([0.0, 1.0, 2.0])
    print(ssntk.ntk(model, probe).round(6))  # [[0. 0. 0.] [0. 1. 2.] [0. 2. 4.]]
    print(ssntk.ntk(model, probe, average="time").round(6))  # [[1.666667]]
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
    average = as_average(average, of)
    checked = asked_of(model, probe, **asked)
    against = None if other is None else asked_of(model, other, **asked)
    if average is not None:
        check_average(average, checked, against)
        theirs = None if against is None else against.recorded()
        return averaged_kernel(checked.recorded(), theirs, average, method, batch_size)
    checked.check_kernel()
    if against is None:
        mine = theirs = checked.recorded()
        return dense_kernel(mine, method) if batch_size is None else by_inputs(mine, theirs, method, batch_size)
    against.check_kernel()
    return by_inputs(checked.recorded(), against.recorded(), method, batch_size)


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
