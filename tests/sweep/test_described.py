"""The parts of a structure that enter its digest. Structures that differ have different digests, and equal ones have the
same digest in every process. Compiles nothing; starts one other process."""

import collections
import contextvars
import dataclasses
import enum
import functools
import json
import logging
import os
import random
import subprocess
import sys
import types

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
import pandas as pd
import pytest
import scipy.sparse as sp
import scipy.sparse.linalg as sla
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.experimental import sparse

from ssntk.sweep.identity import Traced, digest


class AttrDict(dict):
    """A dict whose entries are also attributes, as many libraries define it."""

    def __init__(self, **entries):
        super().__init__(**entries)
        self.__dict__ = self


def with_attribute(base, start):
    """A function that makes an object of a subclass of `base`, from `start`, with an attribute."""
    kind = type("Own", (base,), {})

    def make(value):
        made = kind(start)
        made.note = value
        return made

    return make


class Slotted:
    __slots__ = ("__dict__", "inner")

    def __init__(self, inner, outer=0):
        self.inner, self.outer = inner, outer


@dataclasses.dataclass
class Fields:
    a: int = 1


def field_and_more(value):
    made = Fields()
    made.more = value
    return made


def member(value, **body):
    """The member of a new enumeration."""
    return enum.Enum("Own", {"A": value}).A


def flag(value):
    class Own(enum.Flag):
        A, B = 1, 2

    return Own(value)


def with_method(value):
    class Own(enum.Enum):
        A = 1

        def times(self, x):
            return value * x

    return Own.A


def with_own_attribute(function):
    def of(value):
        made = types.FunctionType(function.__code__, function.__globals__)
        made.scale = value
        return made

    return of


def jvp_rule(value):
    @jax.custom_jvp
    def own(x):
        return x

    own.defjvp(lambda primals, tangents: (own(*primals), value * tangents[0]))
    return own


def vjp_rule(value):
    @jax.custom_vjp
    def own(x):
        return x

    own.defvjp(lambda x: (x, None), lambda _, cotangent: (value * cotangent,))
    return own


def wrapped(value):
    @functools.wraps(jnp.tanh)
    def own(x):
        return value * jnp.tanh(x)

    return own


def dispatched(value):
    @functools.singledispatch
    def own(x):
        return x

    own.register(float)(lambda x: value * x)
    return own


def inherited(value):
    base = type("Base", (), {"K": value})
    return type("Own", (base,), {"__call__": lambda self, x: self.K * x})()


class Operator(sla.LinearOperator):
    def __init__(self, factor):
        super().__init__(float, (2, 2))
        self.factor = factor

    def _matvec(self, x):
        return self.factor * x


def circle(value):
    def one(x):
        return other(x)

    def other(x):
        return one(value * x)

    return one


COUNTED = {
    **{f"attribute of a {base.__name__}": with_attribute(base, start) for base, start in (
        (list, [1]), (tuple, (1,)), (dict, {1: 2}), (set, {1}), (frozenset, {1}), (str, "a"), (int, 1), (float, 1.0),
        (collections.deque, [1]), (collections.OrderedDict, {1: 2}), (collections.UserDict, {1: 2}),
    )},
    "entry of a dict that is its own attributes": lambda value: AttrDict(a=value),
    "slot beside attributes": Slotted,
    "attribute beside slots": lambda value: Slotted(0, value),
    "attribute that is no field": field_and_more,
    "length of a deque": lambda value: collections.deque([1], value),
    "order of a dict": lambda value: dict(sorted({"a": 1, "b": 2}.items(), reverse=value == 2)),
    "value of a member": member,
    "function of a member": lambda value: member(functools.partial(lambda x: value * x)),
    "flag": flag,
    "method of an enumeration": with_method,
    "mask": lambda value: np.ma.array([1.0, 2.0], mask=[0, value - 1]),
    "field of a structure": lambda value: np.array([(1, value)], dtype=[("a", int), ("b", float)]),
    "unit of a time": lambda value: np.array([1], ["M8[s]", "M8[ms]"][value - 1]),
    "long double": np.longdouble,
    "bfloat16": lambda value: jnp.array(value, jnp.bfloat16),
    "memory": lambda value: memoryview(bytes([value])),
    "state of random numbers": random.Random,
    "state of NumPy's random numbers": np.random.default_rng,
    "sparse matrix": lambda value: sp.csr_matrix(value * np.eye(3)),
    "sparse array of JAX": lambda value: sparse.BCOO.fromdense(value * jnp.eye(3)),
    "operator": Operator,
    "matrix of an operator": lambda value: sla.aslinearoperator(value * np.eye(2)),
    "function of an operator": lambda value: sla.LinearOperator((2, 2), matvec=lambda x: value * x),
    "table": lambda value: pd.DataFrame({"a": [value]}),
    "index of a table": lambda value: pd.Series([1], index=[value]),
    "attribute of a function": with_own_attribute(lambda x: x),
    "rule of a derivative": jvp_rule,
    "rule of a reverse derivative": vjp_rule,
    "what a wrapper adds": wrapped,
    "function that is chosen by type": dispatched,
    "attribute of a class": inherited,
    "circle of functions": circle,
    "array in a solver": lambda value: diffrax.VeryChord(rtol=jnp.array(1e-3 * value), atol=1e-9),
    "norm in a solver": lambda value: diffrax.VeryChord(1e-3, 1e-3, norm=lambda x: value * optimistix.max_norm(x)),
}  # fmt: skip


@pytest.mark.parametrize("kind", COUNTED)
def test_it_counts(kind):
    make = COUNTED[kind]
    assert digest(make(1)) == digest(make(1))
    assert digest(make(1)) != digest(make(2))


def plain(x):
    return jnp.max(x)


def nested():
    def plain(x):
        return jnp.max(x)

    return plain


class Lazy:
    def __init__(self):
        self.own = 1

    @functools.cached_property
    def twice(self):
        return 2 * self.own


def used(make, times):
    made = make()
    for _ in range(times):
        made(1)
    return made


def count_of_a_cell():
    n = 0

    def own(x):
        nonlocal n
        n += 1
        return x

    return own


def count_in_a_dict():
    calls = {"n": 0}

    def own(x):
        calls["n"] += 1
        return x

    return own


def count_of_a_function():
    def own(x):
        own.calls += 1
        return x

    own.calls = 0
    return own


class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, x):
        self.calls += 1
        return x


CALLS = 0


def count_of_a_module():
    def own(x):
        global CALLS
        CALLS += 1
        return x

    return own


def log_to(x):
    logging.getLogger("of-this-test").debug("seen")
    LOGGER.debug("seen")
    return x


LOGGER = logging.getLogger("of-this-test")


@pytest.mark.parametrize("make", [count_of_a_cell, count_in_a_dict, count_of_a_function, Counter, count_of_a_module])
def test_how_often_a_function_was_called_does_not_count(make):
    assert len({digest(used(make, times)) for times in range(3)}) == 1


def test_use_does_not_count():
    before = digest(log_to)
    log_to(1)
    logging.getLogger("another")
    assert digest(log_to) == before
    each = np.vectorize(lambda x: 2 * x)
    before = digest(each)
    each(np.ones(2))
    assert digest(each) == before != digest(np.vectorize(lambda x: 3 * x))
    matrix = sla.aslinearoperator(np.eye(2))
    before = digest(matrix)
    assert matrix.H.shape == (2, 2)
    assert digest(matrix) == before
    lazy = Lazy()
    before = digest(lazy)
    assert lazy.twice == 2
    assert digest(lazy) == before
    cached = functools.lru_cache(plain)
    before = digest(cached)
    cached(1)
    assert digest(cached) == before == digest(plain)


@pytest.mark.parametrize(
    "pair",
    [
        (np.array([1.5], ">f8"), np.array([1.5], "<f8")),
        (np.array(["ab"], ">U2"), np.array(["ab"], "<U2")),
        (np.arange(6.0).reshape(2, 3), np.asfortranarray(np.arange(6.0).reshape(2, 3))),
        (np.float64(2.0), 2.0),
        (plain, nested()),
        (plain, jax.jit(plain)),
        (plain, eqx.filter_jit(plain)),
        ([plain, plain], [plain, nested()]),
        (jnp.float32, np.dtype("float32")),
        ({"a", "b", (1, 2)}, {(1, 2), "b", "a"}),
        (sp.coo_matrix(([1.0, 1.0], ([0, 0], [0, 0]))).tocsr(), sp.csr_matrix([[2.0]])),
    ],
)
def test_it_does_not_count(pair):
    assert digest(pair[0]) == digest(pair[1])


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (np.frompyfunc(lambda x: x, 1, 1), "numpy.ufunc"),
        ((i for i in [1]), "builtins.generator"),
        (contextvars.ContextVar("x"), "ContextVar"),
        (os.scandir(), "ScandirIterator"),
        (functools.partial(plain, os.scandir()), "ScandirIterator"),
        (open(os.devnull), "TextIOWrapper"),  # noqa: SIM115
    ],
)  # fmt: skip
def test_what_cannot_be_looked_into_is_named(value, name):
    with pytest.raises(ValueError, match=f"it holds .*{name}.*can neither be written down nor be looked into"):
        digest([{"a": value}])


def test_abstract_types_are_known_by_name():
    assert len({digest(kind) for kind in (np.floating, np.generic, np.inexact, np.float64, np.longdouble)}) == 5


@functools.cache
def implicit(factor):
    """The digest of a layer that solves for a fixed point, which takes long to trace with all its derivatives."""

    def step(y, x):
        return factor * jnp.tanh(y) + x

    solver = optimistix.Newton(1e-8, 1e-8)
    return digest(
        Traced(lambda x: optimistix.root_find(lambda y, _: y - step(y, x), solver, jnp.zeros(2)).value, jnp.ones(2))
    )


def checked(limit):
    return lambda x: eqx.error_if(jnp.tanh(x), jnp.any(x > limit), f"more than {limit}")


def of_this_process():
    x = jnp.ones(2)
    return {
        "checked": digest(Traced(checked(10.0), x)),
        "implicit": implicit(0.5),
        "called back": digest(Traced(lambda x: jax.pure_callback(np.tanh, jax.ShapeDtypeStruct((2,), x.dtype), x), x)),
        "others": digest([COUNTED[kind](1) for kind in COUNTED]),
        "set": digest({"a", "b", "c", plain, (1, 2)}),
    }


@pytest.mark.slow
def test_another_process_agrees():
    code = "import json, test_described as t; print(json.dumps(t.of_this_process()))"
    path = os.pathsep.join(map(str, (ROOT, ROOT / "tests", ROOT / "tests" / "sweep")))
    environment = os.environ | {"PYTHONPATH": path, "PYTHONHASHSEED": "7", "JAX_ENABLE_X64": "1"}
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert json.loads(told.stdout) == of_this_process()


def test_implicit_layers_and_checks_count():
    x = jnp.ones(2)
    assert implicit(0.5) != implicit(0.4)
    assert digest(Traced(checked(1.0), x)) != digest(Traced(checked(2.0), x))


def norm_of(scale):
    return lambda x: scale * jnp.max(jnp.abs(x))


class Box:
    def __init__(self, held):
        self.held = held


KINDS = {
    "sequence": lambda held: held,
    "dict": lambda held: dict(enumerate(held)),
    "attributes": lambda held: AttrDict(**{f"a{i}": one for i, one in enumerate(held)}),
    "closure": lambda held: norm_of(held),
    "partial": lambda held: functools.partial(norm_of, *held),
    "object": Box,
    "member": lambda held: member((held,)),
    "of a list": lambda held: with_attribute(list, [0])(held),
    "slot": Slotted,
    "solver": lambda held: diffrax.VeryChord(rtol=held, atol=1e-3),
}
leaves = st.one_of(
    st.integers(0, 2), st.sampled_from(["a", "b"]), st.sampled_from(["array", "scalar"]).map(lambda one: (one,))
)
specs = st.recursive(
    leaves, lambda inner: st.tuples(st.sampled_from(sorted(KINDS)), st.lists(inner, max_size=3).map(tuple)), max_leaves=6
)


def built(spec):
    if spec == ("array",):
        return np.arange(3.0)
    if spec == ("scalar",):
        return np.float32(0.5)
    return KINDS[spec[0]]([built(one) for one in spec[1]]) if isinstance(spec, tuple) else spec


@settings(max_examples=100, deadline=None)
@given(specs, specs, st.booleans())
def test_two_structures_are_one_if_and_only_if_they_hold_the_same(one, other, same):
    other = one if same else other
    assert (digest(built(one)) == digest(built(other))) == (one == other)
