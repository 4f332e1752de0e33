"""Failures and the checks of arguments that every room shares."""

import contextlib
import difflib
import enum
import functools
import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import PyTree

from ssntk.nouns import DType

T = TypeVar("T")
P = ParamSpec("P")


class Outcome(enum.Enum):
    """How a computation ended. The value is the sentence that a user reads, with names in the place of numbers.

    Code that depends on an outcome compares members of this enumeration, and never parses the sentence.
    """

    # Why a branch ends.
    left_span = "left the span at p = {p:g}"
    closed = "came back to its start"
    left_domain = "left the domain at p = {p:.6g}: the vector field is not finite beyond"
    kink = (
        "ends at p = {p:.6g}: the vector field has a kink at p = {p:.6g}, and no way on was found behind it; use softplus, "
        "or a model that ssntk.piecewise_linear reads"
    )
    corners_meet = (
        "ends at p = {p:.6g}: several kinks of the vector field meet there, and {ways} branches leave that place; to follow "
        "one, pass x0 beside it"
    )
    jump = "ends at p = {p:.6g}: the vector field jumps there, so that no branch goes on"
    underflow = (
        "step underflow at p = {p:.6g}: the corrector fails for every step length; another step may pass, or events meet"
    )
    unbounded = "ends near p = {p:.6g}: the state grows without bound there"
    max_steps = "stopped at p = {p:.6g}: max_steps = {most} points; raise max_steps, or step"
    short = "stopped at p = {p:.6g}, short of the end of the span: the corrector fails there; try a smaller step"
    halves = "ends near p = {p:.6g}, at the flip where its period halves"
    to_infinity = (
        "leaves for infinity at p = {p:.6g}: df/dx is singular there, and the state grows without bound (a degenerate "
        "transcritical bifurcation)"
    )
    lost = "stopped at p = {p:.6g}: df/dx is singular to rounding there, so that the state is not known beyond"
    several_ways = (
        "ends at p = {p:.6g}: {count} signals vanish there at once, and {ways} branches leave that place; to follow another "
        "one, pass x0 beside it"
    )
    many_switch = "ends at p = {p:.6g}: {count} signals vanish there at once, too many to test all regions around"
    no_way = "ends at p = {p:.6g}: in each region behind that border df/dx is singular, as on a line of equilibria"
    left_bounds = "left its bounds at p = {p:.6g}"
    reached_bound = "left its bounds at p = {p:.6g}: state {index} reached {limit:g}"
    stopped = "stopped at p = {p:.6g}: {name}"
    # Additional remarks about a branch.
    repeats = "it repeats itself, {states}: if those are angles, pass periods"
    conservative = "conservative: eigenvalues on the axis"
    on_axis = "some eigenvalues stay on the axis"
    # Why a point is not a fixed point, or not one of the bifurcations that were looked for.
    no_fixed_point = (
        "no fixed point near x_star: the last Newton correction was {size:.3g} of the states' sizes, with |f| = {speed:.3g}"
    )
    not_finite = "the Jacobian is not finite there"
    no_pair = "no complex pair of eigenvalues there"
    not_converged = (
        "Newton's iteration on the extended system did not converge: its last correction was {size:.2g} of the states' "
        "sizes, and {asked:.2g} is asked"
    )
    defective = "the critical eigenvalue {value:.6g} is defective: its left and right eigenvectors are orthogonal"
    zero_frequency = "the frequency tends to zero, so it is no pair"
    flip_frequency = "the frequency tends to pi / dt, so it is no pair"
    not_critical = "the Jacobian has no such critical eigenvalue: the nearest is off by {off:.2g}"
    branch_point = "the branch does not turn there: it is a branch point"
    several_vanish = "more than one eigenvalue vanishes there"
    pass_by = "the branches pass close by each other and do not cross"
    not_quadratic = "its quadratic terms are not finite"
    several_branches = "its quadratic terms vanish: more than two branches meet"
    isolated = "an isolated point: no branches cross there"
    cusp = "its quadratic coefficient vanishes: it is a cusp"

    def say(self, **numbers: object) -> "Sentence":
        """The sentence, with these numbers in it."""
        return Sentence(self, self.value.format(**numbers))


class Sentence(str):
    """A sentence that holds the outcome that it describes."""

    outcome: Outcome

    def __new__(cls, outcome: Outcome, text: str) -> "Sentence":
        self = super().__new__(cls, text)
        self.outcome = outcome
        return self

    def __reduce__(self) -> tuple[type["Sentence"], tuple[Outcome, str]]:
        return Sentence, (self.outcome, str(self))


class NumericalError(RuntimeError):
    """A computation did not converge. The message says what failed and what to try.

    `outcome`: the [`Outcome`][] that the message describes, for code that must know it; else `None`.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    try:
        ssntk.continuation(family, (-1.0, -2.0))
    except ssntk.NumericalError as error:
        print(error)  # no equilibrium was found at p = -1: start elsewhere, or pass x0
    ```
    """

    outcome: Outcome | None = None

    def __init__(self, message: str = ""):
        super().__init__(str(message))
        self.outcome = message.outcome if isinstance(message, Sentence) else None


def is_traced(*trees: object) -> bool:
    """Whether any leaf is a tracer, whose values are not known."""
    try:
        leaves = jax.tree.leaves(trees)
    # An object that is not a pytree, such as a dict with keys of several types, holds no tracers.
    except (TypeError, ValueError):
        return False
    return any(isinstance(leaf, Tracer) for leaf in leaves)


def outside_jit(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function that needs known numbers, so that it raises `ValueError` if JAX traces it."""

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> T:
        if is_traced(args, kwargs):
            raise ValueError(
                f"{function.__name__} looks at numbers and cannot be inside jit, vmap or grad: call it outside of them"
            )
        return function(*args, **kwargs)

    return checked


def as_array(value: Any, name: str, shape: tuple[int | str, ...] | None = None, *, finite: bool = True) -> jax.Array:
    """`value` as a floating-point array. Raises `ValueError`, which names `name`, if its dtype, shape or values are wrong.

    In `shape`, an int is a required length, and a string stands for any length.
    """
    try:
        if isinstance(value, str):
            raise TypeError("a string")
        array = jnp.asarray(value) if isinstance(value, jax.Array) or is_traced(value) else _copied(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{name} must be an array of real numbers, got {type(value).__name__}") from error
    except MemoryError as error:
        raise ValueError(f"{name} is too large: {error}") from error
    allocated(array, name)
    if jnp.issubdtype(array.dtype, jnp.integer):
        array = array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(f"{name} must hold real numbers, got dtype {array.dtype}")
    if array.dtype not in (jnp.float32, jnp.float64):
        raise ValueError(f"{name} must hold float32 or float64 numbers, got {array.dtype}: pass {name}.astype(float)")
    if array.weak_type:
        # A Python number and an array must share one compilation.
        array = jnp.asarray(array, dtype=array.dtype)
    if shape is not None and (
        array.ndim != len(shape)
        or any(isinstance(want, int) and want != got for want, got in zip(shape, array.shape, strict=True))
    ):
        wanted = "(" + ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "") + ")"
        raise ValueError(f"{name} must have shape {wanted}, got {array.shape}")
    if finite and not isinstance(array, Tracer) and not np.isfinite(np.asarray(array)).all():
        raise ValueError(f"{name} must be finite, got NaN or infinity")
    return array


def _copied(value: object) -> jax.Array:
    """A copy of `value`, which is on the host, as a JAX array. Unlike `jnp.asarray`, this compiles nothing."""
    if np.ma.is_masked(value):
        raise TypeError("a masked array")
    host = np.array(value)
    if host.dtype.kind not in "biufcV":
        raise TypeError(f"an array of {host.dtype}")
    # Arrays from files may have the byte order of another machine.
    return jax.device_put(host if host.dtype.isnative else host.astype(host.dtype.newbyteorder("=")))


def as_scalar(value: Any, name: str, *, positive: bool = False) -> jax.Array:
    """`value` as a floating-point scalar array, checked as in [`as_array`][]."""
    array = as_array(value, name, ())
    if positive and not is_traced(array) and float(array) <= 0:
        raise ValueError(f"{name} must be positive, got {float(array):g}")
    return array


# How to write a value of a class, for users who pass numbers or a function instead.
HOW = {
    "Family": ': name the parameter of a model by ssntk.Family(model, "p"), and make a model of a function by '
    "ssntk.VectorField(fn, params, n_state), fn(t, x, u, params)",
    "Probe": ": write ssntk.Probe(ts, us, x0), with save times ts such as np.linspace(0, 100, 101)",
}


def as_instance(value: object, name: str, kind: type[T]) -> T:
    """`value` if it is an instance of `kind`. Otherwise raises `ValueError`, which says how to make one."""
    if not isinstance(value, kind):
        how = HOW.get(kind.__name__, "")
        raise ValueError(f"{name} must be an ssntk.{kind.__name__}, got {type(value).__name__}{how}")
    return value


@contextlib.contextmanager
def traceable(what: str) -> Iterator[None]:
    """If JAX cannot trace the code inside, raise `ValueError`, which says what to write instead."""
    try:
        yield
    except jax.errors.TracerArrayConversionError as error:
        raise ValueError(
            f"{what} calls a function of NumPy, which JAX cannot trace: use jax.numpy, such as jnp.tanh for np.tanh"
        ) from error
    except jax.errors.TracerBoolConversionError as error:
        raise ValueError(
            f"{what} branches on a value that JAX does not know while it traces: use jnp.where or jax.lax.cond instead of if"
        ) from error
    except (jax.errors.ConcretizationTypeError, jax.errors.TracerIntegerConversionError) as error:
        raise ValueError(
            f"{what} needs a value as a number that JAX does not know while it traces: compute with jax.numpy throughout"
        ) from error
    except TypeError as error:
        # Functions of the standard library, such as those of `math`, fail with such a message.
        if "converted to Python scalars" in str(error) or "converted to a scalar" in str(error):
            raise ValueError(
                f"{what} takes an array for one number, as Python's math does: use jax.numpy, such as jnp.tanh for "
                f"math.tanh ({_first(error)})"
            ) from error
        raise ValueError(f"{what} could not be evaluated: {_first(error)}") from error
    except (ArithmeticError, AttributeError, LookupError, ValueError) as error:
        raise ValueError(f"{what} could not be evaluated: {_first(error)}") from error


def _first(error: Exception) -> str:
    """The message of an error, without the long text that JAX adds about what it was tracing."""
    said = str(error).split("\nThe error occurred while tracing")[0].split("\n\nSee https")[0].strip()
    return said if type(error) in (TypeError, ValueError) else f"{type(error).__name__}: {said}"


def as_key(value: Any, *, needed: bool = False) -> jax.Array:
    """`value` as a random key; if it is `None` and not `needed`, `jax.random.key(0)`."""
    if value is None:
        if needed:
            raise ValueError("key must be a jax.random.key, got None")
        return jax.random.key(0)
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and shape == ()
    # The number of words of a raw key depends on the generator that is set.
    if not typed and not (dtype == np.uint32 and shape == jax.eval_shape(lambda: jax.random.PRNGKey(0)).shape):
        raise ValueError(f"key must be a jax.random.key, got {value!r}")
    # The key is made typed, since compiled functions do not distinguish raw keys of two generators.
    return value if typed else jax.random.wrap_key_data(jnp.asarray(value))


def as_room(numbers: int, name: str, dtype: DType = float) -> None:
    """Raise `ValueError`, which names `name`, if so many numbers do not fit into this machine.

    Without the check, allocating them may end the process.
    """
    # Python's integers do not overflow.
    needed, room = numbers * np.dtype(dtype).itemsize, _room()
    if needed > room:
        count = f"{needed:.3g}" if needed < 2**1000 else "more than 1e300"
        raise ValueError(f"{name} is too large: {count} bytes do not fit into the {room:.3g} that there are")


def allocated(arrays: PyTree, name: str) -> None:
    """Wait for arrays of a device. Raises `ValueError` if they did not fit, since they must not be used then."""
    try:
        jax.block_until_ready(arrays)
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error) and "ut of memory" not in str(error):
            raise
        raise ValueError(f"{name} is too large: {str(error).splitlines()[0]}") from error


def _room() -> int:
    """How many bytes this process may have. The machine, its control group and its address space limit them."""
    found = [2**48]
    with contextlib.suppress(AttributeError, ValueError, OSError):
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        # If there is no limit, the file holds "max", or a number larger than the memory.
        with contextlib.suppress(ValueError, OSError):
            found.append(int(pathlib.Path(file).read_text()))
    with contextlib.suppress(ImportError, AttributeError, ValueError, OSError, IndexError):
        import resource

        limit = resource.getrlimit(resource.RLIMIT_AS)[0]
        if limit != resource.RLIM_INFINITY:
            taken = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
            found.append(max(limit - taken, 0))
    return min(found)


def as_count(value: object, name: str, *, least: int = 1) -> int:
    """`value` as an int that is at least `least`."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ValueError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")
    return int(value)


def as_choice(value: object, name: str, choices: tuple[str, ...]) -> str:
    """`value` if it is one of `choices`."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, choices))}, got {value!r}")
    return value


def close_to(name: str, known: Sequence[str]) -> str:
    """The end of a message about an unknown name: the name that may be meant, and all known names."""
    # People remember the last part of a name, so params.I is also found from I.
    ends = {one.rpartition(".")[2]: one for one in reversed(known)}
    lower = {end.lower(): one for end, one in (*ends.items(), *((one, one) for one in known))}
    close = difflib.get_close_matches(name.lower(), lower, n=1) or difflib.get_close_matches(
        name.rpartition(".")[2].lower(), lower, n=1
    )
    listed = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    meant = f"; did you mean {lower[close[0]]!r}?" if close else ""
    return meant + (f" Known are {listed}" if meant and listed else f"; known are {listed}" if listed else "")
