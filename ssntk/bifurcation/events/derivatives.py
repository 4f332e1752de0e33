"""Directional derivatives for normal-form coefficients. No tensor of second or third derivatives is formed.

Normalisation: |r| = 1 and l^T r = 1, l not conjugated (Kuznetsov, *Elements of Applied Bifurcation Theory*, section 5.4).
B and C are the second and third derivative of f, and y is the coordinate along r, measured from the followed branch:

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
positive c3, are supercritical: the solution that is born is stable if the other modes are.
"""

from collections.abc import Callable

import jax
from jaxtyping import Array

Field = Callable[[Array], Array]


def second(field: Field, x: Array, a: Array, b: Array) -> Array:
    """B(a, b) (n,), the second derivative of a field along a and b, (n,) each."""
    return jax.jvp(lambda x: jax.jvp(field, (x,), (a,))[1], (x,), (b,))[1]


def third(field: Field, x: Array, a: Array, b: Array, c: Array) -> Array:
    """C(a, b, c) (n,), the third derivative of a field along a, b and c, (n,) each."""
    return jax.jvp(lambda x: second(field, x, a, b), (x,), (c,))[1]
