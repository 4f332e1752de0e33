"""Models with two parameters, and curves of bifurcations on their planes."""

import jax.numpy as jnp

import ssntk

Family = ssntk.Family


def families(fn, n, **values):
    """Families over p1 and over p2 of one model."""
    model = ssntk.VectorField(lambda t, x, u, p: fn(x, p), {name: float(value) for name, value in values.items()}, n)
    return Family(model, "p1"), Family(model, "p2")


def followed(both, kind, span, spans, index=0, **options):
    """The curve from a bifurcation of this kind on the branch over p1."""
    branch = ssntk.continuation(both[0], span, **options)
    found = [one for one in branch.bifurcations if one.kind == kind]
    return ssntk.bifurcation_curve(Family.plane(*both), found[index], spans)


def cusp_form(x, p):
    return p["p1"] + p["p2"] * x - x**3


def takens_form(x, p):
    return jnp.stack([x[1], p["p1"] + p["p2"] * x[0] + x[0] ** 2 - x[0] * x[1]])


def bautin_form(x, p):
    r = x @ x
    turned = jnp.stack([-x[1], x[0]])
    return p["p1"] * x + 2.0 * turned + r * (p["p2"] * x - 0.7 * turned) - r**2 * x


def coupled(x, p):
    """Two units that excite and inhibit each other. The numbers below are of a solution with 40 digits (mpmath)."""
    first = -x[0] + 2.5 * jnp.tanh(x[0]) - 2.0 * jnp.tanh(x[1]) + p["p1"]
    return jnp.stack([first, (-x[1] + 2.0 * jnp.tanh(x[0]) + p["p2"] - 1.0) / 2.0])
