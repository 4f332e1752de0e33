"""Fields that oscillate, and SciPy's integration of a flow and its variation over one period."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.integrate

import ssntk


def hopf(t, x, u, p):
    """z' = (mu + i om) z - (1 + i b) z |z|^2: a circle of radius sqrt(mu), with a closed form for all that is asked."""
    growth = p["mu"] - x @ x
    turning = p["om"] - p["b"] * (x @ x)
    return jnp.stack([growth * x[0] - turning * x[1], turning * x[0] + growth * x[1]])


def van_der_pol(t, x, u, mu):
    return jnp.stack([x[1], mu * (1 - x[0] ** 2) * x[1] - x[0]])


def roessler(t, x, u, c):
    return jnp.stack([-x[1] - x[2], x[0] + 0.2 * x[1], 0.2 + x[2] * (x[0] - c)])


def lorenz(t, x, u, rho):
    return jnp.stack([10 * (x[1] - x[0]), x[0] * (rho - x[2]) - x[1], x[0] * x[1] - 8 / 3 * x[2]])


def langford(t, x, u, a):
    """A circle at z = 0.7 with r^2 = 0.6 + 0.7 a - 0.7^3 / 3, whose period is 2 pi / 3.5; a torus beyond a = 0.49."""
    z = x[2]
    return jnp.stack(
        [(z - 0.7) * x[0] - 3.5 * x[1], 3.5 * x[0] + (z - 0.7) * x[1], 0.6 + a * z - z**3 / 3 - x[0] ** 2 - x[1] ** 2]
    )


def network(seed, n, states=1.0, rate=1.0):
    """x' = rate (-x + W tanh(x / states) + b), with a rotation in a random plane that makes it oscillate."""
    rng = np.random.default_rng(seed)
    weight = 0.5 * rng.normal(size=(n, n)) / np.sqrt(n)
    plane = np.linalg.qr(rng.normal(size=(n, 2)))[0]
    weight = weight + 1.8 * plane @ np.array([[1, -1], [1, 1]]) @ plane.T
    return ssntk.VectorField(units, (jnp.asarray(weight), jnp.asarray(0.05 * rng.normal(size=n)), states, rate), n, 0)


def units(t, x, u, p):
    weight, bias, states, rate = p
    return rate * states * (-x / states + weight @ jnp.tanh(x / states) + bias)


def monodromy(model, orbit):
    """Where the flow leads from the orbit's first point in a period, and the derivative, by SciPy with tight tolerances."""
    n = model.n_state
    field = jax.jit(lambda x: model.vector_field(0.0, x, jnp.zeros(0)))
    slope = jax.jit(jax.jacfwd(field))

    def both(t, y):
        x, tangent = y[:n], y[n:].reshape(n, n)
        return np.concatenate([field(x), (slope(x) @ tangent).ravel()])

    begin = np.concatenate([orbit.x[0], np.eye(n).ravel()])
    end = scipy.integrate.solve_ivp(both, (0, orbit.period), begin, method="DOP853", rtol=1e-12, atol=1e-12).y[:, -1]
    return end[:n], end[n:].reshape(n, n)


def nontrivial(matrix):
    """The eigenvalues without the one nearest to 1, the largest first."""
    values = np.linalg.eigvals(matrix)
    values = np.delete(values, np.abs(values - 1).argmin())
    return values[np.argsort(-np.abs(values))]
