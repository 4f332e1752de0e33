"""Sites: where a leaf of theta meets a signal in a matrix product, `z = W a`.

At a site, the derivative along W (o, i) is an outer product: a cotangent at z (o,) times the signal a (i,). A backward sweep
therefore needs to carry only cotangents of the size of z. Sites are found in the traced computation. If a leaf is used in
any other way, it is differentiated without sites. `ssntk.kernel.sites.signals` checks that both derivatives are the same.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PyTree

from ssntk.models.theta import Theta

# Outer products with a small side cost nothing. A view is opened only if both sides are at least this large.
LEAST = 32


class View(NamedTuple):
    """Some entries of a leaf of theta. At a site they are a matrix, given as (o, i) positions in the raveled leaf."""

    leaf: int
    index: np.ndarray

    @property
    def key(self) -> tuple[int, tuple[int, ...], bytes]:
        return self.leaf, self.index.shape, self.index.tobytes()


class Site(NamedTuple):
    """A matrix product with a view of theta: `product(a) = W a`, for signals a (q, i) and answers z (q, o)."""

    view: View
    product: Callable[[Array], Array]


class Opened:
    """A function `(theta, *arguments) -> array`, traced once, whose sites can be reached."""

    def __init__(self, function: Callable[..., Array], theta: Sequence[Array], *arguments: PyTree):
        self.closed = jax.make_jaxpr(function)(list(theta), *arguments)
        self.views = [View(i, np.arange(leaf.size).reshape(leaf.shape)) for i, leaf in enumerate(theta)]
        self.met: list[View] = []
        self.elsewhere: set[int] = set()

        def look(site: Site, signal: Array) -> Array:
            self.met.append(site.view)
            return site.product(signal)

        jax.eval_shape(lambda *given: self(*given, dense=range(len(theta)), at_site=look), list(theta), *arguments)

    def __call__(
        self, theta: Sequence[Array], *arguments: PyTree, dense: Container[int], at_site: Callable[[Site, Array], Array]
    ) -> Array:
        """The function's value, if `at_site(site, signal)` replaces each matrix product with one of the leaves `dense`."""
        views = [view if view.leaf in dense else None for view in self.views] + [None] * len(arguments)
        given = [*theta, *arguments]
        (value,), (left,) = _evaluate(self.closed, given, views, at_site, self.elsewhere)
        if left is not None:
            self.elsewhere.add(left.leaf)
        return value


def _evaluate(
    closed: ClosedJaxpr,
    given: Sequence[ArrayLike],
    views: Sequence[View | None],
    at_site: Callable[[Site, Array], Array],
    elsewhere: set[int],
) -> tuple[list[Any], list[View | None]]:
    """The outputs of a traced function, and which of them are views.

    Leaves that meet anything but a site are added to `elsewhere`.
    """
    jaxpr = closed.jaxpr
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*closed.consts, *given], strict=True))
    known = {var: view for var, view in zip(jaxpr.invars, views, strict=True) if view is not None}

    def view_of(atom: Var | Literal) -> View | None:
        return None if isinstance(atom, Literal) else known.get(atom)

    def value_of(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        inputs, met = [value_of(atom) for atom in eqn.invars], [view_of(atom) for atom in eqn.invars]
        outputs, kept = None, [None] * len(eqn.outvars)
        if any(view is not None for view in met):
            if eqn.primitive.name in ("jit", "pjit"):
                outputs, kept = _evaluate(eqn.params["jaxpr"], inputs, met, at_site, elsewhere)
            elif eqn.primitive.name in _MOVED and met[0] is not None:
                moved = _MOVED[eqn.primitive.name](met[0].index, eqn.params)
                kept = [None if moved is None else View(met[0].leaf, moved)]
                if moved is None:
                    elsewhere.add(met[0].leaf)
            elif _is_site(eqn, met):
                outputs = [_at_site(eqn, inputs, met, at_site)]
            else:
                elsewhere.update(view.leaf for view in met if view is not None)
        if outputs is None:
            outputs = _alone(jaxpr, eqn)(values)
        values.update(zip(eqn.outvars, outputs, strict=True))
        known.update((var, view) for var, view in zip(eqn.outvars, kept, strict=True) if view is not None)
    return [value_of(atom) for atom in jaxpr.outvars], [view_of(atom) for atom in jaxpr.outvars]


def _alone(jaxpr: Jaxpr, eqn: JaxprEqn) -> Callable[[dict[Var, ArrayLike]], list[ArrayLike]]:
    """One step of a computation as a function of the values so far."""
    needed = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, Literal)))
    one = jaxpr.replace(constvars=[], invars=needed, outvars=eqn.outvars, eqns=[eqn], effects=eqn.effects)
    run = jaxpr_as_fun(ClosedJaxpr(one, []))
    return lambda values: run(*(values[atom] for atom in needed))


# Operations that only move entries, as functions of an array of positions. They return `None` if they cannot be applied.
_MOVED: dict[str, Callable[[np.ndarray, Mapping[str, Any]], np.ndarray | None]] = {
    "transpose": lambda index, params: index.transpose(params["permutation"]),
    "reshape": lambda index, params: index.reshape(params["new_sizes"]) if params.get("dimensions") is None else None,
    "squeeze": lambda index, params: index.squeeze(params["dimensions"]),
    "slice": lambda index, params: index[
        tuple(
            slice(*bounds)
            for bounds in zip(
                params["start_indices"], params["limit_indices"], params["strides"] or [1] * index.ndim, strict=True
            )
        )
    ],
}


def _is_site(eqn: JaxprEqn, met: Sequence[View | None]) -> bool:
    """Whether a step of the computation is a matrix product of a view with something that is not a view."""
    if eqn.primitive.name != "dot_general" or (met[0] is None) == (met[1] is None):
        return False
    contracted, batched = eqn.params["dimension_numbers"]
    view = met[0] if met[1] is None else met[1]
    dtypes = {atom.aval.dtype for atom in (*eqn.invars, *eqn.outvars)}
    if view is None or view.index.ndim != 2 or view.index.size == 0:
        return False
    return len(contracted[0]) == 1 and not batched[0] and len(dtypes) == 1


def _at_site(
    eqn: JaxprEqn, inputs: Sequence[ArrayLike], met: Sequence[View | None], at_site: Callable[[Site, Array], Array]
) -> Array:
    """Bring a product into the form `z = W a` with a (q, i) and z (q, o), call `at_site`, and bring its answer back."""
    left = met[0] is not None
    view, other = (met[0], inputs[1]) if left else (met[1], inputs[0])
    assert view is not None
    along_view, along_other = (axes[0] for axes in eqn.params["dimension_numbers"][0][:: 1 if left else -1])
    index = view.index if along_view == 1 else view.index.T
    size = index.shape[1]
    signal = jnp.moveaxis(other, along_other, -1)
    free = signal.shape[:-1]

    def product(signal: Array) -> Array:
        back = jnp.moveaxis(signal.reshape(*free, size), -1, along_other)
        pair = (inputs[0], back) if left else (back, inputs[1])
        answer = eqn.primitive.bind(*pair, **eqn.params)
        return (jnp.moveaxis(answer, 0, -1) if left else answer).reshape(-1, index.shape[0])

    answer = at_site(Site(View(view.leaf, index), product), signal.reshape(-1, size)).reshape(*free, index.shape[0])
    return jnp.moveaxis(answer, -1, 0) if left else answer


def held(site: Site, signal: Array, answer: Array) -> Array:
    """The answer of a site that is already known. Its value is as given; its derivative is `W da` and that of `answer`."""

    @jax.custom_jvp
    def value(signal: Array, answer: Array) -> Array:
        return answer

    @value.defjvp
    def _(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
        return primals[1], site.product(tangents[0]) + tangents[1]

    return value(signal, answer)


def used(function: Callable[..., Array], theta: Sequence[Array], *arguments: PyTree) -> tuple[int, ...]:
    """Which leaves of theta a function may depend on."""
    jaxpr = jax.make_jaxpr(function)(list(theta), *arguments).jaxpr
    there = {id(atom) for atom in (*jaxpr.outvars, *(atom for eqn in jaxpr.eqns for atom in eqn.invars))}
    return tuple(i for i, var in enumerate(jaxpr.invars[: len(theta)]) if id(var) in there)


class Cut(NamedTuple):
    """How theta is divided for a function: `views` are the parts that are met at sites, `raw` are the other leaves."""

    views: tuple[View, ...]
    raw: tuple[int, ...]

    @property
    def dense(self) -> frozenset[int]:
        return frozenset(view.leaf for view in self.views)

    def numbers(self, function: Opened) -> list[int]:
        """The number of the view at each site, in the order in which the function meets the sites."""
        keys = [view.key for view in self.views]
        return [keys.index(view.key) for view in function.met if view.leaf in self.dense]


def cut(function: Opened, theta: Sequence[Array]) -> Cut:
    """Divide theta at the sites of a function.

    A leaf is raw if a view of it is small, if it is also used outside of sites, or if two different views overlap.
    """
    views = {view.key: view for view in function.met}
    raw = function.elsewhere | {view.leaf for view in views.values() if min(view.index.shape) < LEAST}
    taken = [np.zeros(leaf.size, bool) for leaf in theta]
    for view in views.values():
        if taken[view.leaf][view.index].any():
            raw.add(view.leaf)
        taken[view.leaf][view.index] = True
    raw |= {i for i in range(len(theta)) if not taken[i].any()}
    chosen = sorted(
        (view for view in views.values() if view.leaf not in raw), key=lambda view: (view.leaf, view.index.min())
    )
    return Cut(tuple(chosen), tuple(sorted(raw)))


def uncut(leaves: Sequence[int]) -> Cut:
    """A `Cut` without views: all these leaves are raw."""
    return Cut((), tuple(leaves))


def columns_of(parts: Cut, theta: Theta, found: Sequence[Array], k: int) -> Float[Array, "k p"]:
    """One array (k, p) from the parts for each view (k, o, i) and then for each raw leaf (k, *shape); zeros elsewhere."""
    starts, arrays = theta.offsets, theta.arrays
    at = [starts[view.leaf] + view.index.ravel() for view in parts.views]
    at += [np.arange(starts[i], starts[i + 1]) for i in parts.raw]
    pieces = sorted(zip(at, found, strict=True), key=lambda piece: piece[0].min() if piece[0].size else 0)
    order = np.concatenate([index for index, _ in pieces]) if pieces else np.zeros(0, int)
    if not pieces:
        return jnp.zeros((k, starts[-1]), arrays[0].dtype if arrays else float)
    joined = jnp.concatenate([part.reshape(k, -1) for _, part in pieces], axis=1)
    if np.array_equal(order, np.arange(starts[-1])):
        return joined
    where = np.full(starts[-1], order.size)
    where[order] = np.arange(order.size)
    return jnp.take(jnp.pad(joined, ((0, 0), (0, 1))), where, axis=1)
