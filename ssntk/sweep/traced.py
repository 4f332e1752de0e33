"""What JAX traces of a function, as operations in their order. Names, line numbers and printing do not count."""

import contextlib
import dis
import types
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var
from jaxtyping import Array, PyTree

from ssntk.sweep.graph import Node

# These operations only say how a function is called. Its own operations are walked in their place.
CALLS = ("jit", "pjit", "closed_call", "core_call", "custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr")
# Functions whose derivative is a rule that their operations do not show.
RULED = ("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", "custom_lin")
# Parameters that do not affect what an operation computes: names, where it runs, and what is kept for derivatives.
IDLE = ("name", "sharding", "out_sharding", "ctx_mesh", "weak_type", "policy", "prevent_cse", "debug_info")
PRINTS = ("debug_callback", "debug_print")
# Operations that draw random numbers. How they draw is a setting of JAX.
DRAWS = ("random_", "threefry", "rng_")
# Normal forms need derivatives up to this order.
ORDERS = 3


# A variable by its number, or a literal with its value.
_Operand = tuple[str, int | np.ndarray]


class Traced:
    """What `function` computes from arguments like these: the operations that JAX traces.

    If derivatives follow rules that were written by hand, the operations of the derivatives count too.
    """

    def __init__(self, function: Callable[..., PyTree], *arguments: PyTree):
        self.jaxprs = [jax.make_jaxpr(function)(*arguments)]
        ruled = primitives(self.jaxprs[0].jaxpr).intersection(RULED)
        for _ in range(ORDERS if ruled else 0):
            found = _derivative(function, arguments)
            if found is None:
                break
            function, arguments, jaxpr = found
            self.jaxprs.append(jaxpr)
            if not primitives(_needed(jaxpr)).intersection(RULED):
                break
        drawn = any(name.startswith(DRAWS) for jaxpr in self.jaxprs for name in primitives(jaxpr.jaxpr))
        self.drawn = _drawn() if drawn else None


def _derivative(
    function: Callable[..., PyTree], arguments: PyTree
) -> tuple[Callable[..., PyTree], PyTree, ClosedJaxpr] | None:
    """The derivative of a function, its arguments and its traced operations; `None` if it has none."""
    moving, still = eqx.partition(arguments, _moves)

    def of(moving: PyTree) -> list[Array]:
        return [leaf for leaf in jax.tree.leaves(function(*eqx.combine(moving, still))) if _moves(leaf)]

    def forward(moving: PyTree, tangents: PyTree) -> list[Array]:
        return jax.jvp(of, (moving,), (tangents,))[1]

    def backward(moving: PyTree, cotangents: list[Array]) -> tuple[PyTree]:
        return jax.vjp(of, moving)[1](cotangents)

    # The forward mode does not reach a rule for the reverse mode.
    with contextlib.suppress(Exception):
        jaxpr = jax.make_jaxpr(forward)(moving, moving)
        if "custom_lin" not in primitives(jaxpr.jaxpr):
            return forward, (moving, moving), jaxpr
    with contextlib.suppress(Exception):
        returned = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in jax.eval_shape(of, moving)]
        return backward, (moving, returned), jax.make_jaxpr(backward)(moving, returned)
    return None


def _needed(closed: ClosedJaxpr) -> Jaxpr:
    """The operations of a jaxpr on which its results depend."""
    with contextlib.suppress(Exception):
        from jax.interpreters import partial_eval

        return partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))[0]
    return closed.jaxpr


def _drawn() -> list[np.ndarray]:
    """A few random bits, as JAX draws them now."""
    keys = [jax.random.key(0), jax.random.key(0, impl="threefry2x32")]
    return [np.asarray(jax.random.bits(key, (5,), "uint32")) for key in keys]


def _moves(leaf: object) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)


def primitives(jaxpr: Jaxpr) -> set[str]:
    """The names of all operations in a jaxpr, including those of inner functions."""
    found: set[str] = set()
    for equation in jaxpr.eqns:
        found.add(equation.primitive.name)
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(part, "eqns"):
                found |= primitives(getattr(part, "jaxpr", part))
    return found


def operations(said: Node, jaxpr: Jaxpr, consts: Sequence[object]) -> None:
    """Describe the operations of a jaxpr in their order. Variables are numbered as they come."""
    said.put("jaxpr", str(len(jaxpr.invars)))
    numbers: list[int] = [0]

    def new(var: Var) -> tuple[str, int]:
        numbers[0] += 1
        said.put("variable", f"{tuple(getattr(var.aval, 'shape', ()))} {getattr(var.aval, 'dtype', '')}")
        return "v", numbers[0]

    def walk(jaxpr: Any, consts: Sequence[object], inputs: Sequence[_Operand]) -> list[_Operand]:
        known: dict[Var, _Operand] = dict(zip(jaxpr.invars, inputs, strict=True))
        for i, var in enumerate(jaxpr.constvars):
            # The constants of an open jaxpr come from the jaxpr that contains it.
            if i < len(consts):
                said.add(consts[i])
            known[var] = new(var)

        def read(var: Var | Literal) -> _Operand:
            return ("literal", np.asarray(var.val)) if isinstance(var, Literal) else known[var]

        for equation in jaxpr.eqns:
            name, params = equation.primitive.name, equation.params
            operands = [read(var) for var in equation.invars]
            inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
            if name in PRINTS:
                continue
            if name in CALLS and hasattr(inner, "eqns"):
                closed = getattr(inner, "jaxpr", inner), getattr(inner, "consts", ())
                known |= zip(equation.outvars, walk(*closed, operands), strict=True)
                continue
            said.put("operation", name)
            if name.endswith("_callback") and only_raises(getattr(params.get("callback"), "callback_func", None)):
                said.put("raises")
            else:
                said.many("of", operands)
                said.many("how", ((key, params[key]) for key in sorted(params) if not _idle(key, params[key])))
            for var in equation.outvars:
                known[var] = new(var)
        return [read(var) for var in jaxpr.outvars]

    said.many("results", walk(jaxpr, consts, [new(var) for var in jaxpr.invars]))


def only_raises(function: object) -> bool:
    """Whether a function never returns, so that it computes nothing."""
    if not isinstance(function, types.FunctionType):
        return False
    names = {at.opname for at in dis.get_instructions(function.__code__)}
    return "RAISE_VARARGS" in names and not any(name.startswith(("RETURN", "YIELD")) for name in names)


def _idle(name: str, value: object) -> bool:
    """Whether a parameter does not affect what an operation computes.

    A parameter that is not set does not count either, since another version of JAX may have more parameters.
    """
    return value is None or value is False or name in IDLE or type(value).__name__ == "UnspecifiedValue"
