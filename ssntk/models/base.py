"""The interface of every model: a vector field, a readout, and the parameters that are trained."""

import abc
import functools
import inspect
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.special
from jax.extend.core import ClosedJaxpr, Jaxpr
from jaxtyping import Array, Float, PyTree

from ssntk.errors import allocated, as_array, as_count, as_key, as_room, is_traced, traceable
from ssntk.models.clock import AbstractClock, Continuous
from ssntk.models.structure import by_structure
from ssntk.models.torch_layout import what_to_write
from ssntk.silence import listen

# Everything that compiles code for a user imports this file.
listen()
# Up to this many numbers are drawn by a program that models of many shapes share.
SMALL_DRAW = 2**20


class AbstractStateSpaceModel(eqx.Module):
    """A model `dx/dt = vector_field(t, x, u)`, `y = readout(x)`, with n states, d inputs and m outputs.

    In a subclass, define `n_state`, `n_input` and `n_output` as fields or properties, and the method `vector_field`.

    **Example:** a pendulum that a torque turns, which rests where sin x = 1/2.

    ```python
    class Pendulum(ssntk.AbstractStateSpaceModel):
        friction: jax.Array
        n_state: int = 2
        n_input: int = 1
        n_output: int = 2

        def vector_field(self, t, x, u):
            return jnp.array([x[1], u[0] - jnp.sin(x[0]) - self.friction * x[1]])


    points = ssntk.find_fixed_points(Pendulum(jnp.array(0.2)), [0.5], starts=[[0.1, 0.0]])
    print(points.x[0, 0].round(4), points.stable)  # 0.5236 [ True]
    ```
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

    def __init_subclass__(cls, **options: object):
        super().__init_subclass__(**options)
        if "clock" in inspect.get_annotations(cls):
            raise ValueError(f"{cls.__name__} cannot have a field clock, which says how its time runs: give it another name")

    @property
    def clock(self) -> AbstractClock:
        """The clock, which says how the time of the model runs: continuously, unless it is a map."""
        return Continuous()

    @abc.abstractmethod
    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        """The velocity of the state, in state units per unit time."""

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        """The output (m,) for a state (n,). Default: the state itself."""
        return x

    def trainable(self, of: str) -> PyTree:
        """theta, the parameters that are trained: a pytree of leaves of this model. Default: every inexact array.

        **Arguments:** `of`: what is observed, `"state"` or `"readout"`.
        """
        return eqx.filter(self, eqx.is_inexact_array)


def dtype_of(model: PyTree) -> jnp.dtype:
    """The floating-point type in which a model computes: that of its arrays, or JAX's default if it has none."""
    leaves = [leaf.dtype for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)]
    return jnp.dtype(max(leaves, key=lambda dtype: dtype.itemsize) if leaves else jnp.result_type(float))


def check_model(model: object, name: str = "model") -> None:
    """Raise `ValueError` unless `model` has the interface of a model and all its numbers are finite."""
    if not isinstance(model, AbstractStateSpaceModel):
        raise ValueError(
            f"{name} must be an ssntk.AbstractStateSpaceModel, got {type(model).__name__}{what_to_write(model)}"
        )
    if dtype_of(model).itemsize < 4:
        raise ValueError(f"{name} must hold float32 or float64 numbers, got {dtype_of(model)}")
    for path, leaf in jax.tree_util.tree_leaves_with_path(model):
        if (eqx.is_inexact_array(leaf) or isinstance(leaf, (float, complex, np.ndarray))) and not is_traced(leaf):
            if jnp.iscomplexobj(leaf):
                raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be real, got complex numbers")
            if not np.isfinite(np.asarray(leaf)).all():
                raise ValueError(f"{name}{jax.tree_util.keystr(path)} must be finite, got NaN or infinity")
    for what, least in (("n_state", 1), ("n_input", 0), ("n_output", 1)):
        as_count(getattr(model, what), f"{name}.{what}", least=least)
    velocity, output = _returned(model, name)
    for what, out, size in (("vector_field", velocity, model.n_state), ("readout", output, model.n_output)):
        got = f"{getattr(out, 'dtype', type(out).__name__)} {getattr(out, 'shape', '')}"
        if getattr(out, "shape", None) != (size,) or not jnp.issubdtype(out.dtype, jnp.floating):
            raise ValueError(f"{name}.{what} must return real numbers of shape ({size},), got {got}")


@by_structure
def _returned(model: AbstractStateSpaceModel, name: str) -> tuple[Any, Any]:
    """What the vector field and the readout of a model return, with shapes and dtypes in place of values."""
    x, u = (jax.ShapeDtypeStruct((size,), dtype_of(model)) for size in (model.n_state, model.n_input))
    time = jax.ShapeDtypeStruct((), dtype_of(model))
    with traceable(f"{name}.vector_field at x ({model.n_state},) and u ({model.n_input},)"):
        velocity = jax.eval_shape(lambda *at: model.vector_field(*at), time, x, u)
    with traceable(f"{name}.readout at x ({model.n_state},)"):
        output = jax.eval_shape(lambda x: model.readout(x), x)
    return velocity, output


def check_autonomous(model: AbstractStateSpaceModel, name: str = "model") -> None:
    """Raise `ValueError` if the vector field depends on time, since such a model has no equilibria.

    First, the traced program shows whether t can affect f. If it cannot, nothing is compiled. If it can, the values of f
    decide, since `x + 0 * t` does not depend on t. They are computed at random states of sizes 1e-3 to 1e3, and compared
    with those at time zero. The times have both signs and sizes from 1e-12 to 1e12. The numbers in the model, and times
    between them, are used too. A pulse may be missed if the model computes its time from several numbers, and if the pulse
    is shorter than a 20th of that time. While JAX traces the model, values are not known, and nothing is checked.

    **Arguments:** `name`: the name of the model in the message.
    """
    if is_traced(model):
        return
    if not _may_depend_on_time(model):
        return
    dtype = dtype_of(model)
    closed = _program(model)
    random = np.random.default_rng(0)
    sizes = 10.0 ** np.arange(-3, 4)
    states = sizes[:, None] * random.standard_normal((len(sizes), model.n_state))
    inputs = random.standard_normal((len(sizes), model.n_input))
    known = _numbers(closed, model)
    times = np.concatenate([np.geomspace(1e-12, 1e12, 1201), np.abs(known), (known[1:] + known[:-1]) / 2])
    times = np.concatenate([[0.0], times, -times])

    def all_states(t: Array) -> Array:
        return jax.vmap(lambda x, u: model.vector_field(t, x, u))(jnp.asarray(states, dtype), jnp.asarray(inputs, dtype))

    # Evaluate one time after the other, since the same program then rounds in the same way at every time.
    velocity = np.asarray(jax.jit(lambda times: jax.lax.map(all_states, times))(times.astype(dtype)), float)
    finite = np.isfinite(velocity) & np.isfinite(velocity[0])
    with np.errstate(invalid="ignore"):
        change = np.where(finite, np.abs(velocity - velocity[0]), 0.0)
    size = np.where(finite, np.abs(velocity), 0.0).max(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(change > 64 * float(jnp.finfo(dtype).eps) * size, change / size, 0.0).max(axis=(1, 2))
    if share.max() > 0:
        raise ValueError(
            f"{name} must not depend on t: between time zero and t = {times[share.argmax()]:.3g} its vector field changes "
            f"by {share.max():.2g} of its size, and a model that depends on t has no equilibria; sample it as a map over "
            "one period, average it over the period, or write the drive as a constant input u"
        )


def _program(model: AbstractStateSpaceModel) -> ClosedJaxpr:
    """The vector field as JAX traces it, a function of t, x and u."""
    t, x, u = (jax.ShapeDtypeStruct(shape, dtype_of(model)) for shape in ((), (model.n_state,), (model.n_input,)))
    return jax.make_jaxpr(lambda t, x, u: model.vector_field(t, x, u))(t, x, u)


@by_structure
def _may_depend_on_time(model: AbstractStateSpaceModel) -> bool:
    """Whether the traced vector field uses its time."""
    return _reaches(_program(model).jaxpr)


def _reaches(jaxpr: Jaxpr) -> bool:
    """Whether the first argument of a jaxpr can affect its first result.

    For inner programs it is assumed that each of their arguments affects all their results.
    """
    reached = {jaxpr.invars[0]}
    for equation in jaxpr.eqns:
        # A literal holds a value, and is not a variable.
        if any(not hasattr(var, "val") and var in reached for var in equation.invars):
            reached.update(equation.outvars)
    result = jaxpr.outvars[0]
    return not hasattr(result, "val") and result in reached


def _numbers(closed: ClosedJaxpr, model: AbstractStateSpaceModel) -> np.ndarray:
    """The sizes, ascending, of numbers that may be times: those in a traced program, and in the model's short arrays."""
    found: list[Any] = [*closed.consts, *jax.tree.leaves(model)]
    programs = [closed.jaxpr]
    while programs:
        program = programs.pop()
        for equation in program.eqns:
            found += [var.val for var in equation.invars if hasattr(var, "val")]
            for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
                if hasattr(part, "eqns"):
                    found += getattr(part, "consts", [])
                    programs.append(getattr(part, "jaxpr", part))
    arrays = (np.asarray(one, float).ravel() for one in found if eqx.is_array_like(one) and np.size(one) <= 64)
    values = np.abs(np.concatenate([np.zeros(0), *arrays]))
    return np.unique(values[np.isfinite(values) & (values > 0)])[:256]


def random_weights(key: Any, *parts: tuple[tuple[int, ...], int]) -> list[Array]:
    """For each (shape, c) an array of numbers from N(0, 1/c), all drawn from one key in one compiled call.

    Raises `ValueError` if `key` is not a key, or if the arrays do not fit into this machine.
    """
    key = as_key(key, needed=True)
    # A grid makes many networks at once, and a draw needs additional memory as large as its result.
    shapes = tuple(shape for shape, _ in parts)
    # The last two parts are the weights of the input and of the readout.
    largest = max(range(len(shapes)), key=lambda i: math.prod(shapes[i]))
    (_, inputs), (outputs, _) = shapes[-2:]
    name = "n_state"
    if largest == len(shapes) - 2 and inputs > shapes[-2][0]:
        name = "n_input"
    elif largest == len(shapes) - 1 and outputs > shapes[-1][1]:
        name = "n_output"
    as_room(2 * sum(map(math.prod, shapes)), name)
    together = 2 ** max(6, (math.prod(shapes[largest]) - 1).bit_length())
    if len(parts) * together <= SMALL_DRAW and not is_traced(key) and _has_prefixes(key):
        rows = _rows(key, len(parts), together)
        if not is_traced(rows):
            # Weights lie where the key lies.
            where = key.sharding if getattr(key, "committed", False) else None
            return jax.device_put(_cut(np.asarray(rows), parts), where)
    drawn = _drawn(key, shapes, [math.sqrt(c) for _, c in parts])
    allocated(drawn, name)
    return drawn


def _has_prefixes(key: Array) -> bool:
    """Whether the first numbers that are drawn from a key do not depend on how many are drawn."""
    return jax.config.jax_threefry_partitionable and str(jr.key_impl(key)) == "threefry2x32"


@functools.partial(jax.jit, static_argnums=(1, 2))
def _rows(key: Array, count: int, size: int) -> Array:
    """For each of `count` keys split from one, `size` numbers from N(0, 1). Models of many shapes share this program."""
    return jax.vmap(lambda own: jr.normal(own, (size,)))(jr.split(key, count))


def _cut(rows: np.ndarray, parts: Sequence[tuple[tuple[int, ...], int]]) -> list[np.ndarray]:
    """The weights of each (shape, c), from rows of numbers, as `_drawn` makes them: XLA multiplies by the reciprocal."""
    one = rows.dtype.type(1)
    return [
        (row[: math.prod(shape)] * (one / rows.dtype.type(math.sqrt(c)))).reshape(shape)
        for row, (shape, c) in zip(rows, parts, strict=True)
    ]


@functools.partial(jax.jit, static_argnums=1)
def _drawn(key: Array, shapes: tuple[tuple[int, ...], ...], scales: list[Array | float]) -> list[Array]:
    """The same for weights of any size and while JAX traces."""
    keys = jr.split(key, len(shapes))
    # Keep the draws apart, so that numbers are the same to the last digit, however many are drawn and whether or not traced.
    apart = [jax.lax.optimization_barrier(jr.normal(own, shape)) for own, shape in zip(keys, shapes, strict=True)]
    return [drawn / scale for drawn, scale in zip(apart, scales, strict=True)]


def uniform(normal: Array, bound: float) -> Array:
    """Numbers uniform in (-bound, bound), made of numbers from N(0, 1) that [`random_weights`][] drew."""
    # If the values are known, compute on the host, which compiles nothing.
    if is_traced(normal):
        return bound * jax.scipy.special.erf(normal / math.sqrt(2))
    drawn = bound * scipy.special.erf(np.asarray(normal, float) / math.sqrt(2))
    return jax.device_put(drawn.astype(normal.dtype), normal.sharding if normal.committed else None)


def time_constant(tau: Any, n: int) -> Array:
    """`tau` as an array, () or (n,); `ValueError` unless it has such a shape and is positive."""
    tau = as_array(tau, "tau")
    if tau.shape not in ((), (n,)):
        raise ValueError(f"tau must be a scalar or have shape ({n},), got {tau.shape}")
    if not is_traced(tau) and not bool((np.asarray(tau) > 0).all()):
        raise ValueError("tau must be positive")
    return tau


class Wrapper(AbstractStateSpaceModel):
    """A model that wraps another one, `wrapped`, and has the sizes, readout, parameters and other attributes of that."""

    wrapped: AbstractStateSpaceModel

    def __check_init__(self):
        # A wrapper of a map must be a map, since as a flow its stability would be another.
        if type(self.clock) is not type(self.wrapped.clock):
            raise TypeError(
                f"{type(self).__name__} runs in another time than the {type(self.wrapped).__name__} that it wraps"
            )

    @property
    def n_state(self) -> int:
        return self.wrapped.n_state

    @property
    def n_input(self) -> int:
        return self.wrapped.n_input

    @property
    def n_output(self) -> int:
        return self.wrapped.n_output

    def readout(self, x: Float[Array, " n"]) -> Float[Array, " m"]:
        return self.wrapped.readout(x)

    def trainable(self, of: str) -> PyTree:
        return self.wrapped.trainable(of)

    def __getattr__(self, name: str) -> Any:
        # A lens that was written for the model must also work on the wrapper.
        if name.startswith("__") or name == "wrapped":
            raise AttributeError(name)
        return getattr(self.wrapped, name)


class WithInput(Wrapper):
    """The model `wrapped` with a constant `added_input` (d,), added to its input."""

    added_input: Float[Array, " d"]

    def vector_field(self, t: Any, x: Float[Array, " n"], u: Float[Array, " d"]) -> Float[Array, " n"]:
        return self.wrapped.vector_field(t, x, u + self.added_input)
