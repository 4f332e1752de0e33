"""The covariance of a random network at two times, and its neural tangent kernel, by Euler steps in both times."""

import dataclasses
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ssntk.infinite.gaussian import AbstractMeans


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """A random network as the recursion sees it. Signals are the states at the start, the inputs, and the bias, F of them.

    - `units`: n. `gain`: the factor of the recurrent weights as it is written in the model.
    - `coupling`: gain^2 n Var(W). `readout`: n Var(W_o).
    - `overlap` (F, F): the mean over the units of products of what two signals add to a unit: the states x0 of each of
      B inputs, the d columns of `input_weight`, and the bias.
    - `rate`: whether the model has the rate form.
    - `trained`: how many arrays of each kind belong to theta: `weight`, `input_weight`, `bias`, `readout_weight`,
      `readout_bias`.
    """

    units: int
    gain: float
    coupling: float
    readout: float
    overlap: np.ndarray
    rate: bool
    trained: dict[str, int]


class Solved(NamedTuple):
    """What is expected at the save times: three arrays (T, B, T, B) and the kernel of the readout (T, B, T, B)."""

    covariance: np.ndarray
    activity: np.ndarray
    state: np.ndarray
    output: np.ndarray


def solved(
    ensemble: Ensemble,
    means: AbstractMeans,
    steps: Float[np.ndarray, " N"],
    inputs: Float[np.ndarray, "B times d"],
    saved: np.ndarray,
) -> Solved:
    """March along one time, and for each step along the other.

    **Arguments:** `steps`: the lengths of the Euler steps, divided by tau. `inputs`: the inputs at the N + 1 times. `saved`
    (T,): the indices of the save times among these.

    A Euler step is `x <- (1 - h) x + h I`. So the products of two states follow from those of two I by the same filter in
    either time. At the row of time k the products with all times up to k are known, and those with later times by symmetry.
    """
    march = _March(ensemble, means, steps, inputs)
    rows = [march.row(k) for k in range(len(steps) + 1)]
    return Solved(*(_at(part, saved) for part in zip(*rows, strict=True)))


def _at(rows: tuple[np.ndarray, ...], saved: np.ndarray) -> np.ndarray:
    """The rows (B, B, k + 1) of all times as a symmetric array (T, B, T, B) at the save times."""
    batch = rows[0].shape[0]
    whole = np.empty((len(saved), batch, len(saved), batch))
    for i, k in enumerate(saved):
        part = rows[k][:, :, saved[: i + 1]]
        whole[i, :, : i + 1] = np.moveaxis(part, 2, 1)
        whole[: i + 1, :, i] = np.moveaxis(part, (2, 1, 0), (0, 1, 2))
    return whole


class _March:
    """The rows of one recursion. A row holds products (B, B, k + 1) of time k with the times up to it."""

    def __init__(self, ensemble: Ensemble, means: AbstractMeans, steps: np.ndarray, inputs: np.ndarray):
        self.ensemble, self.means, self.steps = ensemble, means, steps
        batch, count = inputs.shape[0], len(steps)
        driven = np.concatenate([inputs, np.ones((batch, count + 1, 1))], axis=2)
        overlap = ensemble.overlap
        self.drive = np.einsum("bkf,fg,clg->bckl", driven, overlap[batch:, batch:], driven, optimize=True)
        self.start = overlap[:batch, :batch]
        self.with_start = np.einsum("bkf,fc->kbc", driven, overlap[batch:, :batch])
        trained = ensemble.trained
        self.exact = trained["bias"] + trained["input_weight"] * np.einsum("bkf,clf->bckl", inputs, inputs, optimize=True)
        # The filter of one time: what each source adds to each later state, and what is left of the start.
        self.left = np.cumprod(np.concatenate([[1.0], 1 - steps]))
        self.filter = np.zeros((count + 1, count))
        for k in range(count):
            self.filter[k + 1, :k] = (1 - steps[k]) * self.filter[k, :k]
            self.filter[k + 1, k] = steps[k]
        # The products of states and of sensitivities in the present row; the variances of the activation's argument.
        self.state, self.theta = self.start[:, :, None], np.zeros((batch, batch, 1))
        self.variance = np.zeros((batch, count + 1))

    def row(self, k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """The covariance, the activity and both kernels of time k with the times up to it. Call it for k = 0, 1, 2, ..."""
        ensemble, coupling = self.ensemble, self.ensemble.coupling
        state, theta = self.state, self.theta
        seen = self.drive[:, :, k, : k + 1]
        covariance = coupling * state + seen if ensemble.rate else state
        self.variance[:, k] = np.maximum(np.diagonal(covariance[:, :, k]), 0)
        deviation = np.sqrt(self.variance[:, : k + 1])
        shape = covariance.shape
        first = np.broadcast_to(deviation[:, None, k:], shape)
        second = np.broadcast_to(deviation[None, :, :], shape)
        product, slopes = self.means(first, second, covariance)
        # A quadrature treats the two numbers of a pair differently, but at one time (b, c) and (c, b) are one pair.
        for part in (product, slopes):
            part[:, :, k] = (part[:, :, k] + part[:, :, k].T) / 2
        activity = state if ensemble.rate else product
        recurrent = ensemble.trained["weight"] * ensemble.units * ensemble.gain**2 * activity
        direct = recurrent + self.exact[:, :, k, : k + 1]
        if ensemble.rate:
            source, tangent, through = product, slopes * (direct + coupling * theta), theta
        else:
            source, tangent, through = coupling * product + seen, direct + coupling * slopes * theta, slopes * theta
        output = ensemble.readout * through + ensemble.trained["readout_bias"]
        output = output + ensemble.trained["readout_weight"] * ensemble.units * activity
        if k < len(self.steps):
            # The states at the start are independent of the recurrent weights.
            begun = np.zeros_like(self.start) if ensemble.rate else self.with_start[k]
            self.state = self._next(k, state, source, begun)
            self.theta = self._next(k, theta, tangent, np.zeros_like(self.start))
        return covariance, activity, theta, output

    def _next(self, k: int, now: np.ndarray, source: np.ndarray, begun: np.ndarray) -> np.ndarray:
        """The products of time k + 1 with all times up to it, from those of time k and the products of the sources."""
        h = self.steps[k]
        # The products of the source of time k with the states up to time k + 1.
        crossed = source @ self.filter[: k + 2, : k + 1].T + begun[:, :, None] * self.left[: k + 2]
        after = np.empty((*now.shape[:2], k + 2))
        after[:, :, : k + 1] = (1 - h) * now + h * crossed[:, :, : k + 1]
        after[:, :, k + 1] = (1 - h) * after[:, :, k].T + h * crossed[:, :, k + 1]
        return after
