"""The part of a limit cycle's kernel that belongs to its critical Floquet mode, and its law."""

from typing import NamedTuple

import numpy as np

from ssntk.collapse.cycle import checked_orbit
from ssntk.collapse.cycle_signature import Drive
from ssntk.cycles.orbit import Orbit
from ssntk.dynamics.metric import as_metric
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import Theta
from ssntk.nouns import Lens
from ssntk.threads import one_blas_thread


class CycleChannel(NamedTuple):
    """The critical Floquet mode of a cycle, and how parameters that oscillate at its frequency w drive it.

    The mode's amplitude c obeys `c' = (lambda - i w) c + l^T F`, with the exponent lambda, the periodic left mode l and
    F = df/dtheta. So its mean is `-<l^T F> / (lambda - i w)`, and the kernel of the mode alone has one eigenvalue.

    - `multiplier` mu and `exponent` lambda [1 / time] = log(mu) / P. `frequency` w = |Im lambda| [rad / time]: zero for a
      positive multiplier, pi / P for a negative one.
    - `response` [state^2]: the largest eigenvalue of the kernel at that frequency: of the shape kernel at w = 0, else of the
      transverse response as in [`cycle_signature`][].
    - `predicted` [state^2]: that of the mode alone, `<|r|^2> |<l^T F>|^2 / |lambda - i w|^2`.
    - `share`: the part of that kernel's trace that lies along the mode. At w = 0 the mode is taken at fixed phase, as the
      shape kernel is.
    """

    multiplier: complex
    exponent: complex
    frequency: float
    response: float
    predicted: float
    share: float


@one_blas_thread()
def cycle_channel(
    model: AbstractStateSpaceModel,
    orbit: Orbit,
    multiplier: complex,
    shape_top: float,
    *,
    wrt: Lens | None,
    scale: object,
) -> CycleChannel:
    """The channel of the mode whose multiplier is nearest to the given one. `shape_top`: the largest eigenvalue of the shape
    kernel, which is the response at frequency zero."""
    checked, theta = checked_orbit(model, orbit, None), Theta.of(model, wrt)
    metric = as_metric(scale, model.n_state)
    drive = Drive.of(theta, checked, np.ones(model.n_state) if metric is None else metric)
    rate, right, left = _mode(drive, multiplier)
    omega = abs(rate.imag)
    still = omega * drive.period < 1e-12
    if still:
        right, rows = _at_fixed_phase(drive, right), _shape(drive)
    else:
        rows = drive.moves(omega)[0] / drive.metric[:, None]
    right = right / drive.metric
    size = float(drive.weights @ (np.abs(right) ** 2).sum(axis=1))
    # The mode runs through the drive's phase, too.
    turns = np.exp(1j * omega * drive.starts)[:, None] * right
    along = np.einsum("k,ki,kip->p", drive.weights, turns.conj(), rows)
    whole = float(np.einsum("k,kip->", drive.weights, np.abs(rows) ** 2))
    driven = _driven(drive, left, rate)
    return CycleChannel(
        multiplier=complex(np.exp(rate * drive.period)),
        exponent=rate / drive.unit,
        frequency=omega / drive.unit,
        response=shape_top if still else drive.at(np.array([omega / drive.unit]))[0, 1],
        predicted=size * float((np.abs(driven) ** 2).sum()) / abs(rate - 1j * omega) ** 2,
        share=float((np.abs(along) ** 2).sum()) / (size * whole) if whole > 0 else np.nan,
    )


def _mode(drive: Drive, multiplier: complex) -> tuple[complex, np.ndarray, np.ndarray]:
    """The exponent in working units, with an imaginary part that is not negative, and the periodic right and left modes
    (N, n) at the points, l^T r = 1. Modes that are real have real factors."""
    start = drive.velocity[0]
    # Of the round modulo the velocity, so that a multiplier near the trivial one is told from it.
    basis = np.linalg.qr(np.column_stack([start, np.eye(len(start))]))[0]
    whole = np.eye(len(start))
    for one in drive.propagators:
        whole = one @ whole
    inner = basis.T @ whole @ basis
    values, vectors = np.linalg.eig(inner[1:, 1:])
    values = values.astype(complex)
    at = int(np.abs(values - multiplier).argmin())
    lefts, vector, mu = np.linalg.inv(vectors)[at], vectors[:, at], complex(values[at])
    if mu.imag < 0:
        lefts, vector = lefts.conj(), vector.conj()
    mu = complex(mu.real, abs(mu.imag))
    # M (Q y + b f) = mu (Q y + b f), for what M Q y has along f.
    slide = (inner[0, 1:] @ vector) / (mu - 1) * (basis[:, 0] @ start) / (start @ start)
    right = basis[:, 1:] @ vector + slide * start
    rate = complex(np.log(mu)) / drive.period
    rights, after = [], right
    for one, time in zip(drive.propagators, drive.starts, strict=True):
        rights.append(after * np.exp(-rate * time))
        after = one @ after
    before, backwards = basis[:, 1:] @ lefts, []
    for one, time in zip(drive.propagators[::-1], drive.starts[::-1], strict=True):
        before = before @ one
        backwards.append(before * np.exp(-rate * (drive.period - time)))
    return rate, np.stack(rights), np.stack(backwards[::-1])


def _driven(drive: Drive, left: np.ndarray, rate: complex) -> np.ndarray:
    """<l^T F> (p,) over the period."""
    after = np.roll(left, -1, axis=0)
    ends = np.append(drive.starts[1:], drive.period)
    # The forces of an interval, as they act until its end, where l is known.
    n = left.shape[1]
    fades = np.repeat(np.exp(-rate * (ends[:, None] - drive.times)), n, axis=1)
    pushed = np.einsum("ki,kij->kj", after, drive.pushed) * fades
    return np.einsum("kj,kjp->p", pushed, drive.columns.astype(complex)) / drive.period


def _at_fixed_phase(drive: Drive, right: np.ndarray) -> np.ndarray:
    """The mode without its mean along the velocity: how the orbit's shape changes, as at a fold, where the mode itself
    becomes the velocity if the period depends on the amplitude."""
    along = drive.velocity[:-1]
    weighted = drive.weights[:, None] * along / drive.metric**2
    return right - along * (weighted * right).sum() / (weighted * along).sum()


def _shape(drive: Drive) -> np.ndarray:
    """X (N, n, p) at fixed phase, the least one, over the metric."""
    moved, along = (part.real for part in drive.moves(0.0))
    summed = np.cumsum(np.vstack([np.zeros_like(along[:1]), along[:-1]]), axis=0)
    summed = summed - (drive.starts / drive.period)[:, None] * along.sum(axis=0)
    velocity = drive.velocity[:-1]
    x = moved + velocity[:, :, None] * summed[:, None]
    weighted = drive.weights[:, None] * velocity / drive.metric**2
    mean = np.einsum("ki,kip->p", weighted, x) / (weighted * velocity).sum()
    return (x - velocity[:, :, None] * mean) / drive.metric[:, None]
