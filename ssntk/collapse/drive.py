"""The drive of the critical mode: at a bifurcation only a drive with power at the critical frequency is amplified."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from ssntk.dynamics.probe import FittedProbe, Probe, Sinusoid
from ssntk.dynamics.scales import typical_sizes
from ssntk.dynamics.stability import eigenpair, state_jacobian
from ssntk.errors import NumericalError
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import Positions, Theta


def critical_drive(
    model: AbstractStateSpaceModel,
    at: Positions,
    probe: Probe | FittedProbe,
    x_star: Float[Array, " n"],
    near: complex | float,
) -> Complex[np.ndarray, "B p"] | None:
    """l^T F at the critical frequency, for each input: the direction in theta that drives the critical mode, with its size.

    F = df/dtheta, and l is the left eigenvector of the eigenvalue of df/dx nearest to `near`, at `x_star`: a fixed point for
    zero input, at which trajectories start. A real eigenvalue is driven by the constant `l^T F(x*, u_b)`. A pair, or the
    flip of a map, is driven by a [`Sinusoid`][] in resonance with it: to first order, by the amplitude of `l^T F` along the
    response `(i w - A)^-1 (df/du) u`. Source: the master law, `J_c(t) = r int exp(lambda (t - s)) l^T F(s) ds` (Hazelden and
    Shea-Brown, arXiv:2605.12763).

    **Returns:** (B, p), each input weighted by the square root of the fraction of its rows that is observed. Zero if the
    mode is not driven. `None` if the drive is not known: for other inputs, other starts, a sinusoid out of resonance, or a
    defective eigenvalue.
    """
    probe, clock = probe if isinstance(probe, FittedProbe) else probe.fit(model), model.clock
    jacobian = np.asarray(_jacobian(model, x_star))
    try:
        value, _, left = eigenpair(jacobian, near)
    except NumericalError:
        return None
    us, b, n, dtype = probe.us, probe.n_batch, model.n_state, x_star.dtype
    rest = np.asarray(x_star)
    if not at_rest(model, np.asarray(probe.x0), rest):
        return None
    constant = np.zeros((b, model.n_input)) if callable(us) else np.asarray(us)
    if constant.ndim == 3 or (callable(us) and not isinstance(us, Sinusoid)):
        return None
    seen = np.sqrt(np.asarray(probe.observed(jnp.ones((b, probe.ts.shape[0], 1, 1), dtype))).mean(axis=(1, 2, 3)))
    rate = complex(clock.growth(np.array([value]))[0])
    if rate.imag == 0:
        by = jax.device_put((left.astype(dtype), constant.astype(dtype)))
        return seen[:, None] * np.asarray(_forcing(model, at, x_star, *by), complex)
    size = np.zeros((b, model.n_input), complex)
    response = np.zeros((b, n), complex)
    if isinstance(us, Sinusoid):
        assert us.frequency is not None
        frequency, horizon = float(us.frequency), float(probe.ts[-1] - probe.ts[0])
        if abs(frequency - abs(rate.imag)) > max(abs(rate.real), 2 * np.pi / horizon):
            return None
        size = -1j * np.exp(1j * float(us.phase)) * np.asarray(us.amplitude)
        turning = complex(*clock.edge(frequency))
        response = np.linalg.solve(turning * np.eye(n) - jacobian, np.asarray(_by_input(model, x_star)) @ size.T).T

    def moved(left: np.ndarray, dx: np.ndarray, du: np.ndarray) -> np.ndarray:
        by = jax.device_put(tuple(part.astype(dtype) for part in (left, dx, du)))
        return np.asarray(_moved_forcing(model, at, x_star, *by))

    # Take the eigenvalue of the pair above the axis, which turns in the same direction as the input.
    left = left if value.imag >= 0 else left.conj()
    by_real, by_imag = ((response.real, size.real), (response.imag, size.imag))
    drive = moved(left.real, *by_real) - moved(left.imag, *by_imag)
    drive = drive + 1j * (moved(left.real, *by_imag) + moved(left.imag, *by_real))
    # At pi / dt, the frequency of a flip, a sampled sinusoid has only its cosine part.
    return seen[:, None] * (drive.real + 0j if value.imag == 0 else drive)


def at_rest(model: AbstractStateSpaceModel, starts: np.ndarray, rest: np.ndarray) -> bool:
    """Whether states `starts` (B, n) are the fixed point `rest` (n,), to 1e-9 of the sizes of the states.

    A size is the value of the state at the fixed point; if that is not enough, its typical size from the vector field.
    """
    apart = np.abs(starts - rest).max(axis=0)
    if (apart <= 1e-9 * np.abs(rest)).all():
        return True
    sizes = typical_sizes(model, jnp.zeros(model.n_input, rest.dtype), rest)
    return bool((apart <= 1e-9 * sizes).all())


def channel_participation_ratio(drive: np.ndarray) -> float:
    """The participation ratio of the amplified part of the kernel, from the drive of the critical mode.

    The phase of a pair runs through all values. The kernel of that part over parameters is therefore proportional to `sum_b
    Re(q_b) Re(q_b)^T + Im(q_b) Im(q_b)^T`. For one input the ratio is 2 / (1 + rho^2) with rho = |q^T q| / |q|^2 (not
    conjugated): 1 for a real mode, at most 2 for a pair. All inputs are assumed to have been amplified equally long.

    **Arguments:** `drive`: q (B, p), complex, as `critical_drive` returns it.

    Returns 0 if the mode is not driven.
    """
    scale = np.abs(drive).max(initial=0.0)
    if scale == 0:
        return 0.0
    squares = np.square(np.linalg.svd(np.concatenate([drive.real, drive.imag]) / scale, compute_uv=False))
    return float(squares.sum() ** 2 / np.square(squares).sum())


@eqx.filter_jit
def _jacobian(model: AbstractStateSpaceModel, x: Array) -> Array:
    return state_jacobian(model, x, jnp.zeros(model.n_input, x.dtype))


@eqx.filter_jit
def _by_input(model: AbstractStateSpaceModel, x: Array) -> Array:
    """df/du at zero input, (n, d)."""
    time = jnp.zeros((), x.dtype)
    return jax.jacfwd(lambda u: model.vector_field(time, x, u))(jnp.zeros(model.n_input, x.dtype))


def _pulled(model: AbstractStateSpaceModel, at: Positions, left: Array, x: Array, u: Array) -> Array:
    """left^T df/dtheta, (p,)."""
    theta, time = Theta(model, at), jnp.zeros((), x.dtype)
    _, pull = jax.vjp(lambda leaves: theta.put(leaves).vector_field(time, x, u), theta.arrays)
    return theta.ravel(pull(left)[0])


@eqx.filter_jit
def _forcing(model: AbstractStateSpaceModel, at: Positions, x: Array, left: Array, us: Array) -> Array:
    """left^T F at x for every input, (B, p)."""
    return jax.vmap(lambda u: _pulled(model, at, left, x, u))(us)


@eqx.filter_jit
def _moved_forcing(model: AbstractStateSpaceModel, at: Positions, x: Array, left: Array, dx: Array, du: Array) -> Array:
    """The derivative of left^T F at x and zero input along (dx, du), each (B, .): (B, p)."""
    zero = jnp.zeros(model.n_input, x.dtype)

    def along(dx: Array, du: Array) -> Array:
        return jax.jvp(lambda x, u: _pulled(model, at, left, x, u), (x, zero), (dx, du))[1]

    return jax.vmap(along)(dx, du)
