"""Normal-form coefficients, by directional derivatives: no tensor of second or third derivatives is formed.

Normalisation: |r| = 1 and l^T r = 1, l not conjugated (Kuznetsov, *Elements of Applied Bifurcation Theory*, section 5.4).
With B and C the second and third derivative of f, and y the coordinate along r from the branch that is followed:

| kind | coefficient | on the centre manifold |
|---|---|---|
| saddle-node | a = l.B(r, r) / 2 | dy/dt = l.f_p (p - p_c) + a y^2 |
| transcritical | a, the same | dy/dt = c (p - p_c) y + a y^2 |
| pitchfork | b3 = l.(C(r, r, r) - 3 B(r, A^-1 B(r, r))) / 6 | dy/dt = c (p - p_c) y + b3 y^3 |
| Hopf | l1 = Re l.G / (2 omega) | dr/dt = c (p - p_c) r + omega l1 r^3 |
| flip | c3 = l.(C(r, r, r) - 3 B(r, A^-1 B(r, r))) dt / 6 | y -> -(1 + ...) y + c3 y^3 |
| Neimark-Sacker | d = Re(exp(-i omega dt) l.G) dt / 2 | r -> (1 + ...) r + d r^3 |

with G = C(r, r, conj r) - 2 B(r, A^-1 B(r, conj r)) + B(conj r, (s(2 omega) - A)^-1 B(r, r)). For the map x + dt f the
saddle-node, transcritical and pitchfork coefficients are those of the map, dt times those of f. Negative b3, l1 and d, and
positive c3, are supercritical: what is born is stable where the other modes are.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ssntk.bifurcation.bordered import Problem
from ssntk.bifurcation.extended import PAIR
from ssntk.models.clock import AbstractClock


def _second(field: Callable[[Array], Array], x: Array, a: Array, b: Array) -> Array:
    """B(a, b)."""
    return jax.jvp(lambda x: jax.jvp(field, (x,), (a,))[1], (x,), (b,))[1]


def _third(field: Callable[[Array], Array], x: Array, a: Array, b: Array, c: Array) -> Array:
    """C(a, b, c)."""
    return jax.jvp(lambda x: _second(field, x, a, b), (x,), (c,))[1]


def coefficient(
    problem: Problem,
    x: Array,
    p: Array,
    frequency: Array,
    right: Complex[Array, " n"],
    left: Complex[Array, " n"],
    kind: str,
) -> Float[Array, ""]:
    """The coefficient of a saddle-node, a Hopf, a flip or a Neimark-Sacker point."""
    clock = problem.clock

    def field(x: Array) -> Array:
        return problem.at(x, p)

    if kind in PAIR:
        total = left @ _pair_terms(field, x, frequency, right, clock)
        if clock.flips_at is None:
            return total.real / (2 * frequency)
        dt = clock.unit
        turned = jnp.cos(frequency * dt) * total.real + jnp.sin(frequency * dt) * total.imag
        return turned * dt / 2
    r, l = right.real, left.real  # noqa: E741
    if kind == "saddle-node":
        return l @ _second(field, x, r, r) / 2 * clock.unit
    curved = -jnp.linalg.solve(jax.jacfwd(field)(x), _second(field, x, r, r))
    return l @ (_third(field, x, r, r, r) + 3 * _second(field, x, r, curved)) / 6 * clock.unit


def crossing(problem: Problem, x: Array, p: Array, right: Array, left: Array, other: Array) -> Array:
    """(a, l.D2f(r, t), l.D2f(t, t), b3) at a branch point; `other`, t (n + 1,), spans the kernel of (A, f_p) beside r."""
    z = jnp.append(x, p)

    def field(z: Array) -> Array:
        return problem.at(z[:-1], z[-1])

    along = jnp.append(right, jnp.zeros_like(p))
    quadratic, mixed, beside = (_second(field, z, *pair) for pair in ((along, along), (along, other), (other, other)))
    n = x.shape[0]
    # Bordered, since A is singular; what lies along l is zero at a pitchfork.
    matrix = jnp.zeros((n + 1, n + 1), x.dtype)
    matrix = matrix.at[:n, :n].set(jax.jacfwd(lambda x: problem.at(x, p))(x)).at[:n, n].set(left).at[n, :n].set(right)
    curved = jnp.linalg.solve(matrix, jnp.append(-quadratic, jnp.zeros_like(p)))[:n]
    cubic = _third(field, z, along, along, along) + 3 * _second(field, z, along, jnp.append(curved, jnp.zeros_like(p)))
    step = problem.clock.unit
    return step * jnp.stack([left @ quadratic / 2, left @ mixed, left @ beside, left @ cubic / 6])


def _pair_terms(
    field: Callable[[Array], Array], x: Array, frequency: Array, right: Complex[Array, " n"], clock: AbstractClock
) -> Complex[Array, " n"]:
    """G."""
    a, b = right.real, right.imag
    jacobian = jax.jacfwd(field)(x)
    aa, ab, bb = (_second(field, x, *pair) for pair in ((a, a), (a, b), (b, b)))
    mean = -jnp.linalg.solve(jacobian, aa + bb)
    grow, turn = clock.edge(2 * frequency, jnp)
    identity = jnp.eye(x.shape[0], dtype=x.dtype)
    double = jnp.linalg.solve(jax.lax.complex(grow * identity - jacobian, turn * identity), jax.lax.complex(aa - bb, 2 * ab))

    def mixed(v: Array, w: Array) -> Array:
        """B(v, w) of complex directions."""
        real = _second(field, x, v.real, w.real) - _second(field, x, v.imag, w.imag)
        return jax.lax.complex(real, _second(field, x, v.real, w.imag) + _second(field, x, v.imag, w.real))

    aaa, aab, abb, bbb = (_third(field, x, *three) for three in ((a, a, a), (a, a, b), (a, b, b), (b, b, b)))
    cubic = jax.lax.complex(aaa + abb, aab + bbb)
    return cubic + 2 * mixed(right, mean.astype(right.dtype)) + mixed(right.conj(), double)
