"""The normal forms of four elementary bifurcations, with fixed points in closed form. Other code is tested against them.

Source: Kuznetsov, *Elements of Applied Bifurcation Theory*, chapters 3 and 7.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ssntk.errors import as_array, as_scalar
from ssntk.models.base import AbstractStateSpaceModel


class _NormalForm(AbstractStateSpaceModel):
    """What the four models share: they have no input, the state is the output, and every attribute is in theta."""

    @property
    def n_input(self) -> int:
        return 0

    @property
    def n_output(self) -> int:
        return self.n_state


class _OneState(_NormalForm):
    """The three models whose state is one number."""

    @property
    def n_state(self) -> int:
        return 1


class SaddleNode(_OneState):
    """`dx/dt = mu - x^2`.

    **Example:**

    ```python
    print(ssntk.normal_forms.saddle_node(4.0).fixed_points().ravel())  # [-2.  2.]
    ```
    """

    mu: Float[Array, ""]

    def vector_field(self, t: Any, x: Float[Array, " 1"], u: Float[Array, " 0"]) -> Float[Array, " 1"]:
        return self.mu - x**2

    def fixed_points(self) -> np.ndarray:
        """`x = +- sqrt(mu)`, ascending, (k, 1); none for mu < 0. The larger one is stable."""
        return _quadratic_roots(-1.0, 0.0, float(self.mu))


class Transcritical(_OneState):
    """`dx/dt = mu x - x^2 + h`.

    **Example:**

    ```python
    print(ssntk.normal_forms.transcritical(3.0).fixed_points().max())  # 3.0
    ```
    """

    mu: Float[Array, ""]
    h: Float[Array, ""]

    def vector_field(self, t: Any, x: Float[Array, " 1"], u: Float[Array, " 0"]) -> Float[Array, " 1"]:
        return self.mu * x - x**2 + self.h

    def fixed_points(self) -> np.ndarray:
        """The real roots, ascending, (k, 1); 0 and mu if h is zero."""
        return _quadratic_roots(-1.0, float(self.mu), float(self.h))


class Pitchfork(_OneState):
    """`dx/dt = mu x - x^3 + h`.

    **Example:**

    ```python
    print(ssntk.normal_forms.pitchfork(-4.0).fixed_points().shape)  # (1, 1)
    ```
    """

    mu: Float[Array, ""]
    h: Float[Array, ""]

    def vector_field(self, t: Any, x: Float[Array, " 1"], u: Float[Array, " 0"]) -> Float[Array, " 1"]:
        return self.mu * x - x**3 + self.h

    def fixed_points(self) -> np.ndarray:
        """The real roots, ascending, (k, 1); 0 and `+- sqrt(mu)` if h is zero."""
        return _cubic_roots(-1.0, 0.0, float(self.mu), float(self.h))


class Hopf(_NormalForm):
    """`dz/dt = (mu + i omega) z - (1 + i shear) z |z|^2 + h`, with z = x[0] + i x[1] and h = h[0] + i h[1].

    For h = 0 and mu > 0 there is a limit cycle of radius sqrt(mu) and angular frequency omega - shear mu.

    **Example:**

    ```python
    model = ssntk.normal_forms.hopf(-0.5, 2.0)
    print(ssntk.find_fixed_points(model).eigenvalues)  # [[-0.5+2.j -0.5-2.j]]
    ```
    """

    mu: Float[Array, ""]
    omega: Float[Array, ""]
    shear: Float[Array, ""]
    h: Float[Array, " 2"]

    @property
    def n_state(self) -> int:
        return 2

    def vector_field(self, t: Any, x: Float[Array, " 2"], u: Float[Array, " 0"]) -> Float[Array, " 2"]:
        turned = jnp.stack([-x[1], x[0]])
        square = x @ x
        return (self.mu - square) * x + (self.omega - self.shear * square) * turned + self.h

    def fixed_points(self) -> np.ndarray:
        """The fixed points (k, 2). If h is zero, the origin only.

        The circle of further fixed points that exists for h = 0 and omega = shear mu is left out. If h is not zero, they are
        `z = -h / (mu + i omega - (1 + i shear) s)`, with the roots s = |z|^2 of a cubic.
        """
        linear, cubic = complex(self.mu, self.omega), complex(1.0, self.shear)
        drive = complex(float(self.h[0]), float(self.h[1]))
        if drive == 0:
            return np.zeros((1, 2))
        # s |linear - cubic s|^2 = |h|^2
        squares = _cubic_roots(abs(cubic) ** 2, -2 * (linear * cubic.conjugate()).real, abs(linear) ** 2, -(abs(drive) ** 2))
        z = -drive / (linear - cubic * squares[squares[:, 0] > 0, 0])
        points = np.stack([z.real, z.imag], axis=1)
        # If the linear and the cubic term nearly cancel, the quotient loses digits. Newton's iteration restores them.
        for _ in range(4):
            points = np.array([x - np.linalg.solve(self._jacobian(x), self._field(x)) for x in points])
        return points

    def _field(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(self.vector_field(0.0, jnp.asarray(x), jnp.zeros(0)))

    def _jacobian(self, x: np.ndarray) -> np.ndarray:
        return np.asarray(jax.jacfwd(lambda x: self.vector_field(0.0, x, jnp.zeros(0)))(jnp.asarray(x)))


def _quadratic_roots(a: float, b: float, c: float) -> np.ndarray:
    """The real roots of `a x^2 + b x + c`, ascending, (k, 1); a double root counts once."""
    square = b**2 - 4 * a * c
    if square < 0:
        return np.zeros((0, 1))
    # Compute one root from a sum that does not cancel, and the other one from the product of the roots.
    larger = -(b + np.copysign(np.sqrt(square), b)) / 2
    return np.unique([larger / a, c / larger if larger != 0 else 0.0])[:, None]


def _cubic_roots(*coefficients: float) -> np.ndarray:
    """The real roots of a cubic, highest power first, ascending, (k, 1); a double root counts once."""
    roots = np.roots(coefficients)
    # Rounding splits a double root by the square root of the rounding error.
    width = np.sqrt(np.finfo(float).eps) * np.abs(roots).max()
    real = np.sort(roots.real[np.abs(roots.imag) <= width])
    return real[np.insert(np.diff(real) > width, 0, True)][:, None]


def saddle_node(mu: Any) -> SaddleNode:
    """`dx/dt = mu - x^2`: a saddle-node at mu = 0.

    **Example:** the two points +-2 and their eigenvalues -2 x.

    ```python
    print(ssntk.find_fixed_points(ssntk.normal_forms.saddle_node(4.0)).eigenvalues.real.ravel().round(6))  # [-4.  4.]
    ```
    """
    return SaddleNode(as_scalar(mu, "mu"))


def transcritical(mu: Any, h: Any = 0.0) -> Transcritical:
    """`dx/dt = mu x - x^2 + h`: transcritical at mu = 0 for h = 0.

    **Example:** of the fixed points 0 and mu, the second is stable for mu > 0.

    ```python
    points = ssntk.find_fixed_points(ssntk.normal_forms.transcritical(3.0))
    print(points.x[points.stable].round(6))  # [[3.]]
    ```
    """
    return Transcritical(as_scalar(mu, "mu"), as_scalar(h, "h"))


def pitchfork(mu: Any, h: Any = 0.0) -> Pitchfork:
    """`dx/dt = mu x - x^3 + h`: a supercritical pitchfork at mu = 0 for h = 0.

    **Example:** for mu > 0 zero is unstable, and the points on both sides of it are stable.

    ```python
    print(ssntk.find_fixed_points(ssntk.normal_forms.pitchfork(4.0)).n_unstable)  # [0 0 1]
    ```
    """
    return Pitchfork(as_scalar(mu, "mu"), as_scalar(h, "h"))


def hopf(mu: Any, omega: Any, shear: Any = 0.0, h: Any = (0.0, 0.0)) -> Hopf:
    """The supercritical Hopf normal form (see [`Hopf`][]): bifurcation at mu = 0 for h = 0, angular frequency omega.

    **Example:**

    ```python
    model = ssntk.normal_forms.hopf(-0.5, 2.0)
    print(round(float(ssntk.criticality(model).critical_frequency), 6))  # 2.0
    ```
    """
    return Hopf(as_scalar(mu, "mu"), as_scalar(omega, "omega"), as_scalar(shear, "shear"), as_array(h, "h", (2,)))
