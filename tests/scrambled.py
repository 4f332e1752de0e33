"""Normal forms of limit cycles in coordinates nobody picked: a random smooth change of coordinates in four dimensions.

The normal form lives in y, where its cycle, modes and period have closed forms; the model's states are x = bend(y). Periods
and multipliers do not depend on coordinates, and vectors v at y become bend'(y) v.
"""

import jax
import jax.numpy as jnp
import numpy as np

import ssntk

N = 4
# Points of the closed forms on one period: their means are accurate to rounding.
POINTS = 512


def coordinates(rng, bent=0.4):
    """A random change of coordinates; `bent` = 0: a rotation."""
    turns = [np.linalg.qr(rng.normal(size=(N, N)))[0] for _ in range(2)]
    sizes = np.exp(bent * rng.uniform(-1, 1, N))
    mixing = rng.normal(size=(4, 2, 2)) * np.array([bent, 0.7, bent, 0.7])[:, None, None]
    parts = {"first": turns[0], "mixing": mixing, "second": turns[1] * sizes, "shift": bent * rng.normal(size=N)}
    return {name: jnp.asarray(part) for name, part in parts.items()}


def bend(c, y):
    x = c["first"] @ y
    low = x[:2] + c["mixing"][0] @ jnp.tanh(c["mixing"][1] @ x[2:])
    high = x[2:] + c["mixing"][2] @ jnp.tanh(c["mixing"][3] @ low)
    return c["second"] @ jnp.concatenate([low, high]) + c["shift"]


def unbend(c, x):
    # The columns of `second` are orthogonal.
    sizes = jnp.sum(c["second"] ** 2, axis=0)
    v = c["second"].T @ (x - c["shift"]) / sizes
    high = v[2:] - c["mixing"][2] @ jnp.tanh(c["mixing"][3] @ v[:2])
    low = v[:2] - c["mixing"][0] @ jnp.tanh(c["mixing"][1] @ high)
    return c["first"].T @ jnp.concatenate([low, high])


@jax.jit
def bent(c, y):
    """States (N, n) of points y (N, n), and the derivative bend'(y) (N, n, n)."""
    return jax.vmap(lambda one: bend(c, one))(y), jax.vmap(jax.jacfwd(lambda one: bend(c, one)))(y)


def field(t, x, u, p):
    """One of the normal forms in the coordinates p["c"], by the weights p["which"], and generic forces, of the
    amounts p["h"]. All are one field, so that it is compiled once."""
    y = unbend(p["c"], x)
    forms = jnp.stack([_radial(y, p), _moebius(y, p), _leaf(y, p)])
    flow = jax.jvp(lambda one: bend(p["c"], one), (y,), (p["which"] @ forms,))[1]
    return flow + p["h"] @ forces(p, x)


def forces(p, x):
    return jnp.tanh(jnp.einsum("hij,j->hi", p["wind"], x) + p["calm"])


def _radial(y, p):
    """z' = z (mu + b R + d R^2 + i (om + c R - s cos phi)), R = |z|^2, and two directions that contract."""
    b, d, om, c, s = p["radial"]
    size = y[:2] @ y[:2]
    growth, turning = p["mu"] + b * size + d * size**2, om + c * size - s * y[0] / jnp.sqrt(size)
    z = growth * y[:2] + turning * jnp.stack([-y[1], y[0]])
    return jnp.concatenate([z, -p["rates"] * y[2:]])


def _moebius(y, p):
    """A circle of radius one; w = (r - 1) + i y2 obeys w' = (s + i nu) w + d exp(i phi) conj(w), phi' = om + shear (r - 1).

    For nu = om / 2 the multipliers are -exp((s +- d) P), for d = 0 exp((s +- i nu) P)."""
    s, nu, d, om, shear = p["moebius"]
    r = jnp.sqrt(y[:2] @ y[:2])
    e, off, up = y[:2] / r, r - 1, y[2]
    out = s * off - nu * up + d * (e[0] * off + e[1] * up)
    rise = s * up + nu * off + d * (e[1] * off - e[0] * up)
    z = out * e + r * (om + shear * off) * jnp.stack([-e[1], e[0]])
    return jnp.concatenate([z, jnp.stack([rise, -p["rates"][1] * y[3]])])


def leaf(y, s, k, e):
    """A field with the loop x^2 (1 - x) = y^2 at e = 0, a homoclinic orbit of the origin, whose eigenvalues are -k +- 2 s.

    It is s (2 y, 2 x - 3 x^2) - k (x (1 - x), y (1 - 3 x / 2)), which for s = k = 1 is example 6.1 of Kuznetsov's book."""
    x, y = y
    out = 2 * s * y - k * x * (1 - x)
    return out, s * (2 * x - 3 * x**2) - k * y * (1 - 1.5 * x) - e * x


def _leaf(y, p):
    s, k = p["leaf"]
    return jnp.concatenate([jnp.stack(leaf(y[:2], s, k, p["mu"])), -p["rates"] * y[2:]])


ZERO = {"radial": [-1.0, 0.0, 1.0, 0.0, 0.0], "moebius": [-1.0, 0.0, 0.0, 1.0, 0.0], "leaf": [1.0, 1.0]}


def system(name, rng, c, form, mu=0.0):
    """A model with the parameters `form` and `mu` of a normal form, and three generic forces at rest."""
    params = {one: jnp.asarray(form if one == name else rest, float) for one, rest in ZERO.items()}
    params |= {
        "which": jnp.asarray([float(one == name) for one in ZERO]),
        "mu": jnp.asarray(float(mu)),
        "rates": jnp.asarray(rng.uniform(0.5, 2.0, 2)),
        "h": jnp.zeros(3),
        "wind": jnp.asarray(rng.normal(size=(3, N, N))),
        "calm": jnp.asarray(rng.normal(size=(3, N))),
        "c": c,
    }
    return ssntk.VectorField(field, params, N, 0)


def only_mu(model):
    return model.params["mu"]


def all_of_it(model):
    return model.params["mu"], model.params["radial"]


def only_forces(model):
    return model.params["h"]


class Radial:
    """The cycle of `_radial` in closed form, with POINTS phases (for s = 0 equal steps of time)."""

    def __init__(self, c, form, mu):
        b, d, om, shear, s = form
        self.size = size = -mu / b if d == 0 else (-b - np.sqrt(max(b**2 - 4 * mu * d, 0.0))) / (2 * d)
        slope = b + 2 * d * size
        self.exponent, self.speed_of_phase, self.shear = 2 * size * slope, om + shear * size, shear
        with np.errstate(divide="ignore"):
            self.period = 2 * np.pi / np.sqrt(self.speed_of_phase**2 - s**2)
        phases = np.linspace(0, 2 * np.pi, POINTS, endpoint=False)
        self.y = np.zeros((POINTS, N))
        self.y[:, 0], self.y[:, 1] = np.sqrt(size) * np.cos(phases), np.sqrt(size) * np.sin(phases)
        self.around = self.y[:, [1, 0, 2, 3]] * np.array([-1.0, 1.0, 1.0, 1.0])
        self.turning = self.speed_of_phase - s * np.cos(phases)
        self.x, self.slope = (np.asarray(part) for part in bent(c, self.y))
        self.velocity = self.push(self.turning[:, None] * self.around)
        # The integral over a period of |f|^2 by steps of phase, dt = dphi / turning, and the mean.
        self.action = (np.sum(self.push(self.around) ** 2, axis=1) * self.turning).mean() * 2 * np.pi
        self.speed = self.action / self.period
        # How R is driven, by mu, b and d.
        self.drive = 2 * size * np.array([1.0, size, size**2])
        with np.errstate(divide="ignore", invalid="ignore"):
            moved = -np.array([1.0, size, size**2]) / slope
            cube = 2 * np.pi / (self.speed_of_phase**2 - s**2) ** 1.5
            along, across = -self.speed_of_phase * cube, s * cube
            self.gradient = np.array([*(along * shear * moved), along, along * size, across])

    def push(self, v):
        return np.einsum("kij,kj->ki", self.slope, v)

    def least(self, v):
        """The mean square of a vector along the cycle (s = 0), without its part along the velocity."""
        v = self.push(v)
        return (v**2).sum(1).mean() - (v * self.velocity).sum(1).mean() ** 2 / self.speed
