"""Coefficients of the normal forms of zero-Hopf and double-Hopf points of flows, in the user's units of states and time.

They are those of Kuznetsov, *Elements of Applied Bifurcation Theory*, sections 8.5 and 8.6. Vectors are normalised as in
`ssntk.bifurcation.events.derivatives`.
"""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from ssntk.bifurcation.events.derivatives import second, third
from ssntk.compiled import Compiled, Held
from ssntk.curves.coefficients import normalised
from ssntk.curves.follow import Point
from ssntk.curves.kinds import DOUBLE_HOPF, ZERO_HOPF
from ssntk.curves.system import System

# A quadratic coefficient below this part of the pair's rate, per amplitude of the states' sizes, is zero: branches cross.
ZERO = 1e-9


class _Field(NamedTuple):
    """A field (n,) at an equilibrium x (n,), with its derivative (n, n)."""

    at: Any
    x: Array
    matrix: Array

    def form(self, *vectors: Array) -> Array:
        """B(a, b) or C(a, b, c) (n,) along complex vectors (n,)."""
        derivative = functools.partial(second if len(vectors) == 2 else third, self.at, self.x)
        every = list(itertools.product((0, 1), repeat=len(vectors)))
        # The real and the imaginary parts, in all combinations at once: one trace for all takes less time to compile.
        parts = [jnp.stack([vector.real, vector.imag])[at] for vector, at in zip(vectors, np.array(every).T, strict=True)]
        terms = jax.vmap(derivative)(*parts)
        powers = np.array([1j ** sum(at) for at in every])
        real, imaginary = (jnp.asarray(part, self.x.dtype) @ terms for part in (powers.real, powers.imag))
        return jax.lax.complex(real, imaginary)

    def solved(self, frequency: Array, side: Array) -> Array:
        """(i w - A)^-1 of a vector (n,)."""
        return jnp.linalg.solve(self.shifted(frequency), side)

    def shifted(self, frequency: Array) -> Array:
        """i w - A."""
        return jax.lax.complex(-self.matrix, frequency * jnp.eye(len(self.x), dtype=self.x.dtype))

    def bordered(self, frequency: Array, right: Array, left: Array, side: Array) -> Array:
        """The same if i w is an eigenvalue, without the part along its eigenvector."""
        corner = jnp.zeros((1, 1), right.dtype)
        whole = jnp.block([[self.shifted(frequency), right[:, None]], [left[None], corner]])
        return jnp.linalg.solve(whole, jnp.append(side - left @ side * right, corner[0, 0]))[:-1]


def _zero_hopf(field: _Field, w: Array, q0: Array, p0: Array, q1: Array, p1: Array) -> Array:
    """b, c, d and e of dx/dt = b x^2 + c |z|^2 + ..., dz/dt = (i w + d x + e x^2) z + ..., to which terms of third order are
    reduced by a change of the states and of time."""
    form, rest = field.form, jnp.zeros_like(w)
    conj = q1.conj()
    alone, pair, mixed = form(q0, q0), form(q1, conj), form(q0, q1)
    g200, g011, g110 = (p0 @ alone).real, (p0 @ pair).real, (p1 @ mixed).real
    h200, h011 = (field.bordered(rest, q0, p0, side) for side in (alone, pair))
    h110, h020 = field.bordered(w, q1, p1, mixed), field.solved(2 * w, form(q1, q1))
    g300 = (p0 @ (form(q0, q0, q0) + 3 * form(q0, h200))).real
    g111 = (p0 @ (form(q0, q1, conj) + form(q1, h110.conj()) + form(conj, h110) + form(q0, h011))).real
    g210 = (p1 @ (form(q0, q0, q1) + 2 * form(q0, h110) + form(q1, h200))).real
    g021 = (p1 @ (form(q1, q1, conj) + 2 * form(q1, h011) + form(conj, h020))).real
    e = (g210 + g110 * (g021 / g011 - g300 / g200 + g111 / g011) - g021 * g200 / (2 * g011)) / 2
    return jnp.stack([g200 / 2, g011, g110, e])


def _double_hopf(field: _Field, w: Array, q1: Array, p1: Array, v: Array, q2: Array, p2: Array) -> Array:
    """p11, p12, p21 and p22 of d|z1|/dt = |z1| (p11 |z1|^2 + p12 |z2|^2), d|z2|/dt = |z2| (p21 |z1|^2 + p22 |z2|^2)."""
    form = field.form
    bar1, bar2 = q1.conj(), q2.conj()
    h1100, h0011 = (field.solved(jnp.zeros_like(w), form(*pair)) for pair in ((q1, bar1), (q2, bar2)))
    h2000, h0020 = field.solved(2 * w, form(q1, q1)), field.solved(2 * v, form(q2, q2))
    h1010, h1001 = field.solved(w + v, form(q1, q2)), field.solved(w - v, form(q1, bar2))
    g2100 = p1 @ (form(q1, q1, bar1) + form(h2000, bar1) + 2 * form(h1100, q1))
    g1011 = p1 @ (form(q1, q2, bar2) + form(h1010, bar2) + form(h1001, q2) + form(h0011, q1))
    g1110 = p2 @ (form(q1, bar1, q2) + form(h1100, q2) + form(h1010, bar1) + form(h1001.conj(), q1))
    g0021 = p2 @ (form(q2, q2, bar2) + form(h0020, bar2) + 2 * form(h0011, q2))
    return jnp.stack([g2100.real / 2, g1011.real, g1110.real, g0021.real / 2])


def _expanded(kind: str, held: Held, z: Array, *modes: Array) -> Array:
    system: System = held.tree

    def at(y: Array) -> Array:
        return system.at(jnp.concatenate([y, z[-2:]])) / system.unit

    field = _Field(at, z[:-2], jax.jacfwd(at)(z[:-2]))
    return (_zero_hopf if kind == ZERO_HOPF else _double_hopf)(field, *modes)


@functools.cache
def _expansion(kind: str) -> Compiled:
    return Compiled(functools.partial(_expanded, kind), seldom=True)


def two_modes(kind: str, held: Held, point: Point) -> dict[str, float]:
    """The coefficients at a zero-Hopf or a double-Hopf point of a flow by name; none at points of other kinds, and where
    branches cross."""
    if kind not in (ZERO_HOPF, DOUBLE_HOPF) or held.tree.step:
        return {}
    system: System = held.tree
    matrix, dtype = np.asarray(point.matrix, float), point.z.dtype
    values, right = np.linalg.eig(matrix)
    left = np.linalg.inv(right)
    pairs = [i for i in np.argsort(np.abs(values.real)) if values[i].imag > 0][: 1 if kind == ZERO_HOPF else 2]
    # The faster pair is the first one.
    pairs.sort(key=lambda i: -values[i].imag)
    every = [int(np.argmin(np.abs(values))), *pairs] if kind == ZERO_HOPF else pairs
    modes: list[Any] = []
    for i in every:
        vectors = (part.astype(np.result_type(dtype, np.complex64)) for part in normalised(system, right[:, i], left[i]))
        rate = [np.asarray(values[i].imag / float(system.unit), dtype)]
        modes += [*vectors] if kind == ZERO_HOPF and not modes else [*rate, *vectors]
    if kind == ZERO_HOPF:
        # Its frequency comes first.
        modes = [modes[2], *modes[:2], *modes[3:]]
    with np.errstate(all="ignore"):
        found = np.asarray(_expansion(kind)(held, point.z, *modes), float)
        if kind == DOUBLE_HOPF:
            p11, p12, p21, p22 = found
            return {"p11": float(p11), "p22": float(p22), "theta": float(p12 / p22), "delta": float(p21 / p11)}
        b, c, d, e = found
        size = np.linalg.norm(np.asarray(modes[1]))
        if not min(abs(b), abs(c)) > ZERO * float(modes[0]) * size or not np.isfinite(e):
            return {}
        return {"s": float(np.sign(b * c)), "theta": float(d / b), "e": float(e)}
