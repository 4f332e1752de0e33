"""Normal-form coefficients, by directional derivatives: no tensor of second or third derivatives is formed.

Normalisation: |r| = 1 and l^T r = 1 (Kuznetsov, *Elements of Applied Bifurcation Theory*, section 5.4).
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from ssntk.bifurcation.family import Family
from ssntk.dynamics.stability import field_at, state_jacobian


def _second(field: Callable[[Array], Array], x: Array, a: Array, b: Array) -> Array:
    """D^2 f(a, b)."""
    return jax.jvp(lambda x: jax.jvp(field, (x,), (a,))[1], (x,), (b,))[1]


def _third(field: Callable[[Array], Array], x: Array, a: Array, b: Array, c: Array) -> Array:
    """D^3 f(a, b, c)."""
    return jax.jvp(lambda x: _second(field, x, a, b), (x,), (c,))[1]


@eqx.filter_jit
def fold_coefficient(
    family: Family, u: Array, parameter: Array, x: Array, right: Float[Array, " n"], left: Float[Array, " n"]
) -> Float[Array, ""]:
    """a = l^T D^2 f(r, r) / 2: on the centre manifold `dy/dt = l^T f_p (p - p_c) + a y^2`."""
    model = family(parameter)
    return left @ _second(lambda x: field_at(model, x, u), x, right, right) / 2


@eqx.filter_jit
def first_lyapunov(
    family: Family,
    u: Array,
    parameter: Array,
    x: Array,
    frequency: Array,
    right: Complex[Array, " n"],
    left: Complex[Array, " n"],
) -> Float[Array, ""]:
    """l1 (Kuznetsov, formula 5.34): negative for a supercritical Hopf.

    The normal form `dz/dt = i omega z - z |z|^2` has l1 = -2 / omega.
    """
    model = family(parameter)

    def field(x: Array) -> Array:
        return field_at(model, x, u)

    a, b = right.real, right.imag
    jacobian = state_jacobian(model, x, u)
    aa, ab, bb = (_second(field, x, *pair) for pair in ((a, a), (a, b), (b, b)))
    mean = -jnp.linalg.solve(jacobian, aa + bb)
    shifted = jax.lax.complex(-jacobian, 2 * frequency * jnp.eye(x.shape[0], dtype=x.dtype))
    double = jnp.linalg.solve(shifted, jax.lax.complex(aa - bb, 2 * ab))

    def mixed(v: Array, w: Array) -> Array:
        """D^2 f(v, w) of complex directions."""
        real = _second(field, x, v.real, w.real) - _second(field, x, v.imag, w.imag)
        return jax.lax.complex(real, _second(field, x, v.real, w.imag) + _second(field, x, v.imag, w.real))

    aaa, aab, abb, bbb = (_third(field, x, *three) for three in ((a, a, a), (a, a, b), (a, b, b), (b, b, b)))
    total = jax.lax.complex(aaa + abb, aab + bbb) + 2 * mixed(right, mean.astype(right.dtype)) + mixed(right.conj(), double)
    return (left @ total).real / (2 * frequency)
