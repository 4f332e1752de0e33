import gc
import inspect
import itertools
import os
import pathlib
import threading
import typing

import jax
import jaxtyping
import pytest

# Most of the time of the tests is compilation. It is shorter without most optimisations, with XLA's older code for loops (84
# tests: 104 and 77 s), and if each program is compiled in one piece. The settings also hold for processes that tests start,
# since records are compared bit for bit.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
QUICK = "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {QUICK}".strip()
jax.config.update("jax_disable_most_optimizations", True)
# Tracing makes millions of small objects that stay alive: search them for garbage less often.
gc.set_threshold(100_000, 20, 20)
jax.config.update("jax_enable_x64", True)
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


def dimensioned(hint):
    """Whether a hint says something that jaxtyping checks: dimensions, or the leaves of a pytree. Beartype does the rest."""
    if isinstance(hint, str):
        return "[" in hint
    if getattr(hint, "__module__", "").startswith("jaxtyping") and hint is not jaxtyping.PyTree:
        return True
    inner = hint if isinstance(hint, list) else typing.get_args(hint)
    return any(map(dimensioned, inner))


def checked(typechecker):
    """Check the types of functions when they are called, except of functions inside others: each would be compiled anew
    whenever the outer function runs, which takes an eighth of the time of the tests. Pyright checks these.

    Jaxtyping compares dimensions, for which it binds the arguments and checks them twice. That is a twelfth of the time of
    the tests, and in vain for functions whose hints have no dimensions: the type checker alone sees the same there."""
    check = jaxtyped(typechecker=typechecker)

    def decorated(function):
        if "<locals>" in function.__qualname__:
            return function
        plain = inspect.isfunction(function) and not any(map(dimensioned, function.__annotations__.values()))
        return typechecker(function) if plain else check(function)

    return decorated


# The import hook, which pyproject.toml asks for, decorates every function.
jaxtyped, jaxtyping.jaxtyped = jaxtyping.jaxtyped, checked


def forget_if_full():
    """Clear JAX's caches if they are large. Compiled programs keep memory mapped. Linux allows 65,530 mappings, and XLA
    crashes beyond that."""
    mapped = pathlib.Path("/proc/self/maps")
    if mapped.exists() and mapped.read_bytes().count(b"\n") > 20_000:
        jax.clear_caches()
        gc.collect()


@pytest.fixture(autouse=True, scope="module")
def few_mappings():
    yield
    forget_if_full()


@pytest.fixture(autouse=True)
def precision():
    """Let the warning about float32, which is given once in a process, be given once in each test."""
    from ssntk import precision

    precision.unsaid_again()


@pytest.fixture
def getkey():
    """A new random key at every call, the same in every run."""
    numbers = itertools.count()
    return lambda: jax.random.key(next(numbers))


@pytest.fixture
def compilations():
    """A list that grows by one whenever XLA compiles."""
    seen = []
    for thread in threading.enumerate():
        # Wait for threads of earlier tests that are still compiling.
        if thread.name == "ssntk-prepare":
            thread.join()

    def listen(event: str, duration_secs: float, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield seen
    jax.monitoring.unregister_event_duration_listener(listen)
