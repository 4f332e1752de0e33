"""Evaluate the traced program of a model for all states at once, as long as its values are affine in states and relus."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr, JaxprEqn, Literal

from ssntk.piecewise.kinks import Kinks, NotPiecewiseLinear
from ssntk.piecewise.linear import LINEAR, PLACING, alike, placed, ranked

# Loops of more steps than this are refused.
LONGEST = 10_000


class Test(NamedTuple):
    """A truth value that depends on the state: true where `margin` is positive."""

    margin: np.ndarray


# What operations are called in messages, if their names do not say it.
OF = "of a value that depends on the state"
SAID = {
    **dict.fromkeys(("mul", "dot_general"), "a product of two values that depend on the state"),
    "div": "a division by a value that depends on the state",
    "integer_pow": f"a power {OF}",
    "square": f"a square {OF}",
    "logistic": f"sigmoid {OF}",
    **dict.fromkeys(("eq", "ne"), "a test for equality of values that depend on the state"),
    **dict.fromkeys(
        ("and", "or", "not", "xor", "gt", "ge", "lt", "le", "select_n", "stack", "concatenate"),
        "a choice between truth values that depend on the state",
    ),
    "convert_element_type": f"a conversion {OF} to another kind of number",
    "while": "a loop whose number of steps depends on the state, or is very large",
}
# The sign of the difference of the two sides for which each comparison holds, and the comparison of known numbers.
COMPARED: dict[str, tuple[int, Callable[..., Any]]] = {
    "gt": (1, np.greater),
    "ge": (1, np.greater_equal),
    "lt": (-1, np.less),
    "le": (-1, np.less_equal),
}
# The operations on known numbers that models need most. JAX evaluates the others.
KNOWN: dict[str, Callable[..., Any]] = {
    **{name: getattr(np, name) for name in ("exp", "log", "tanh", "sin", "cos", "sqrt", "sign", "floor")},
    **{"pow": np.power, "eq": np.equal, "ne": np.not_equal, "square": np.square},
    **{"and": np.bitwise_and, "or": np.bitwise_or, "not": np.invert},
    **{name: function for name, (_, function) in COMPARED.items()},
}


class Reader:
    """One evaluation of a program. Known values are arrays (1, *shape), in float64 if they are not integers."""

    def __init__(self, kinks: Kinks):
        self.kinks = kinks
        # The names of the functions that are being evaluated.
        self.inside: list[str] = []

    def read(self, jaxpr: Jaxpr, consts: Sequence[Any], args: Sequence[Any]) -> list[Any]:
        """The results of a program for its constants and arguments."""
        values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*map(lifted, consts), *args), strict=True))

        def value(var: Any) -> Any:
            return lifted(var.val) if isinstance(var, Literal) else values[var]

        for equation in jaxpr.eqns:
            found = self._equation(equation, [value(var) for var in equation.invars])
            values.update(zip(equation.outvars, found, strict=True))
        return [value(var) for var in jaxpr.outvars]

    def _equation(self, equation: JaxprEqn, args: list[Any]) -> list[Any]:
        """The results of one operation."""
        name, params = equation.primitive.name, equation.params
        loop = {"scan": self._scan, "while": self._while, "cond": self._cond}.get(name)
        if loop is not None:
            return loop(params, args)
        inner = next((params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in params), None)
        if inner is not None:
            self.inside.append(str(params.get("name", "")))
            found = self._run(inner, args)
            self.inside.pop()
            return found
        if name in PLACING:
            return self._placed(equation, args)
        tests = any(isinstance(one, Test) for one in args)
        out = self._tested(name, args) if tests else self._kinked(name, args, params)
        if out is None and not tests and name in LINEAR:
            out = LINEAR[name](args, params)
        if out is not None:
            return [out]
        if name == "scatter-add" and not tests and len(args[1]) == 1:
            # It is linear in the array and in what is added, so that each coefficient can be taken by itself.
            onto, more = alike(args[::2])
            columns = [self._bound(equation, [one, args[1][0], other])[0] for one, other in zip(onto, more, strict=True)]
            return [np.concatenate(columns)]
        if name in ("eq", "ne") and equation.invars[0] is equation.invars[1]:
            # A number is compared with itself to see whether it is NaN.
            return [np.full((1, *args[0].shape[1:]), name == "eq")]
        if tests or any(len(one) > 1 for one in args):
            raise self._refused(name)
        if name in KNOWN:
            return [KNOWN[name](*args)]
        return self._bound(equation, [one[0] for one in args])

    def _bound(self, equation: JaxprEqn, args: Sequence[Any]) -> list[np.ndarray]:
        """The results of an operation on known numbers, computed by JAX."""
        given = [jnp.asarray(one, var.aval.dtype) for one, var in zip(args, equation.invars, strict=True)]
        found = equation.primitive.bind(*given, **equation.params)
        return [lifted(one) for one in (found if equation.primitive.multiple_results else [found])]

    def _refused(self, name: str) -> NotPiecewiseLinear:
        """The error about an operation."""
        around = self._what("")
        said = SAID.get(name, f"{name} {OF}")
        return NotPiecewiseLinear(said + (f", in {around}" if around and around != name else ""))

    def _what(self, name: str) -> str:
        """What a user calls an operation: the outermost function of JAX in which it is."""
        return next((one for one in self.inside if one and not one.startswith("_")), name)

    # Programs inside programs.

    def _run(self, program: Any, args: Sequence[Any]) -> list[Any]:
        return self.read(getattr(program, "jaxpr", program), getattr(program, "consts", ()), args)

    def _scan(self, params: dict[str, Any], args: list[Any]) -> list[Any]:
        fixed, carried, length = params["num_consts"], params["num_carry"], params["length"]
        if length > LONGEST:
            raise self._refused("while")
        carry, rows = list(args[fixed : fixed + carried]), []
        for i in range(length)[:: -1 if params["reverse"] else 1]:
            out = self._run(params["jaxpr"], [*args[:fixed], *carry, *(one[:, i] for one in args[fixed + carried :])])
            carry = out[:carried]
            rows.append(out[carried:])
        rows = rows[:: -1 if params["reverse"] else 1]
        return [*carry, *(np.stack(alike(column), axis=1) for column in zip(*rows, strict=True))]

    def _while(self, params: dict[str, Any], args: list[Any]) -> list[Any]:
        tests, steps = params["cond_nconsts"], params["body_nconsts"]
        carry = list(args[tests + steps :])
        for _ in range(LONGEST):
            (goes_on,) = self._run(params["cond_jaxpr"], [*args[:tests], *carry])
            if isinstance(goes_on, Test):
                break
            if not goes_on[0]:
                return carry
            carry = self._run(params["body_jaxpr"], [*args[tests : tests + steps], *carry])
        raise self._refused("while")

    def _cond(self, params: dict[str, Any], args: list[Any]) -> list[Any]:
        branches, which, rest = params["branches"], args[0], args[1:]
        if not isinstance(which, Test):
            return self._run(branches[int(np.clip(which[0], 0, len(branches) - 1))], rest)
        no, yes = (self._run(branch, rest) for branch in branches)
        return [self._chosen(which, a, b, "cond") for a, b in zip(yes, no, strict=True)]

    # Operations that move or pick elements.

    def _placed(self, equation: JaxprEqn, args: list[Any]) -> list[Any]:
        name = equation.primitive.name
        if name == "select_n" and isinstance(args[0], Test):
            return [self._chosen(args[0], args[2], args[1], "where")]
        of = PLACING[name](len(args))
        tests = [isinstance(args[i], Test) for i in of]
        fixed = [one for i, one in enumerate(args) if i not in of]
        if any(tests) != all(tests) or any(isinstance(one, Test) or len(one) > 1 for one in fixed):
            raise self._refused(name)
        found = placed(equation, [one.margin if isinstance(one, Test) else one for one in args], of)
        return [*map(Test, found)] if any(tests) else found

    # Operations with kinks, and those on truth values.

    def _chosen(self, test: Test, yes: Any, no: Any, what: str) -> np.ndarray:
        """`yes` where a test holds, and `no` elsewhere."""
        if isinstance(yes, Test) or isinstance(no, Test):
            raise self._refused("and")
        margin, yes, no = ranked((test.margin, yes, no))
        return self.kinks.switch(margin, yes, no, self._what(what))

    def _larger(self, one: np.ndarray, other: np.ndarray, name: str) -> np.ndarray:
        """The larger one of two values. Its relus are those of their difference."""
        one, other = alike(ranked((one, other)))
        if len(one) == 1:
            return np.maximum(one, other)
        return self.kinks.switch(one - other, one, other, self._what(name))

    def _kinked(self, name: str, args: list[np.ndarray], params: dict[str, Any]) -> Any:
        """The result of an operation with kinks, or a comparison; `None` for other operations."""
        known = max(map(len, args), default=1) == 1
        match name:
            case "max":
                return self._larger(args[0], args[1], name)
            case "min":
                return -self._larger(-args[0], -args[1], name)
            case "abs":
                (x,) = args
                return np.abs(x) if known else self.kinks.switch(x, x, -x, self._what(name))
            case "clamp":
                return -self._larger(-self._larger(args[1], args[0], name), -args[2], name)
            case "reduce_max" | "reduce_min":
                sign, value = 1 if name == "reduce_max" else -1, args[0]
                for axis in sorted(params["axes"], reverse=True):
                    first, *rest = np.moveaxis(value, axis + 1, 0)
                    for other in rest:
                        first = sign * self._larger(sign * first, sign * other, name)
                    value = first
                return value
            case "gt" | "ge" | "lt" | "le" if not known:
                one, other = alike(ranked(args))
                return Test(COMPARED[name][0] * (one - other))
            case "is_finite" if not known:
                return np.full((1, *args[0].shape[1:]), True)

    def _tested(self, name: str, args: list[Any]) -> Any:
        """The result of an operation on truth values that depend on the state; `None` if it is not continuous."""
        match name:
            case "convert_element_type":
                # A truth value is also the number 0 or 1.
                return args[0]
            case "not":
                return Test(-args[0].margin)
            case "and" | "or":
                sign = 1 if name == "or" else -1
                one, other = (sign * (one.margin if isinstance(one, Test) else 2.0 * one - 1.0) for one in args)
                return Test(sign * self._larger(one, other, "where"))
            case "mul":
                test, other = args if isinstance(args[0], Test) else args[::-1]
                if not isinstance(other, Test):
                    return self._chosen(test, other, np.zeros((1, *other.shape[1:])), "a product with a step")


def lifted(value: Any) -> np.ndarray:
    """A known number or array as a value (1, *shape), in double precision."""
    array = np.asarray(value)
    return (array.astype(float) if array.dtype.kind == "f" else array)[None]
