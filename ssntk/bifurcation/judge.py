"""What Newton's iteration on an extended system found, judged: every number against its own rounding error."""

import dataclasses
from typing import Any

import numpy as np

from ssntk.bifurcation import extended
from ssntk.bifurcation.extended import BRANCH_POINT, PAIR, Solved
from ssntk.dynamics.stability import Eigenpair, eigenpair, judged_exponents, sorted_eigenvalues
from ssntk.errors import NumericalError
from ssntk.models.clock import AbstractClock


def start(kind: str, y: np.ndarray, q: Any, jacobian: np.ndarray, clock: AbstractClock) -> tuple[np.ndarray, np.ndarray]:
    """The unknowns of the extended system at a guess, and its border."""
    if not np.isfinite(jacobian).all():
        raise NumericalError("the Jacobian is not finite there")
    every = sorted_eigenvalues(jacobian)
    values = every
    if kind in PAIR:
        values = values[values.imag > 0]
        if values.size == 0:
            raise NumericalError("no complex pair of eigenvalues there")
        off = clock.rate(values)
    else:
        values = values[values.imag == 0] if (values.imag == 0).any() else values.real
        off = values.real if kind != "flip" else values.real + 2 / clock.unit
    if kind in ("saddle-node", BRANCH_POINT) and _meets(every):
        # A pair meets at zero, as in conservative systems.
        lefts, _, rights = np.linalg.svd(jacobian)
        pair = Eigenpair(0j, rights[-1], lefts[:, -1])
    else:
        pair = eigenpair(jacobian, complex(values[np.argmin(np.abs(off))]), every)
    start, border = extended.pack(kind, y, float(q), pair)
    if kind in PAIR:
        start[-2] = clock.frequency(pair.value)
    return start, border


# A complex pair is about to meet at zero if it is so many times nearer to it than any real eigenvalue.
MEETS = 10.0


def _meets(values: np.ndarray) -> bool:
    """Whether a pair among the eigenvalues (n,) is about to meet at zero, as pairs do in conservative systems."""
    real, least = np.abs(values[values.imag == 0]), np.abs(values).min()
    return bool(MEETS * least < real.min(initial=np.inf))


@dataclasses.dataclass(frozen=True)
class Read:
    """A point whose extended system is solved, and what its coefficient is computed from.

    `natural`: the terms that l.B(r, r) and its like are made of, which a coefficient that vanishes is compared with.
    """

    z: np.ndarray
    frequency: float
    right: np.ndarray
    left: np.ndarray
    arguments: tuple[np.ndarray, ...]
    exponents: np.ndarray
    doubts: np.ndarray
    natural: float
    residual: float
    width: float
    resonance: int | None
    defective: bool


def judge(kind: str, solved: Solved, clock: AbstractClock) -> Read | str:
    """The point that the unknowns describe with its eigenvectors from its own Jacobian, or why it is none.

    Everything is compared with its own rounding error: eigenvalues with what rounding does to each, sums with their terms.
    """
    unknowns, jacobian, slope = solved.y, solved.jacobian[:, :-1], solved.jacobian[:, -1]
    n = len(slope)
    y, q = unknowns[:n], unknowns[-1]
    eps = float(np.finfo(y.dtype).eps)
    finite = np.isfinite(unknowns).all() and np.isfinite(solved.jacobian).all()
    if not finite or not float(solved.correction) <= eps**0.6:
        return (
            "Newton's iteration on the extended system did not converge: its last correction was "
            f"{float(solved.correction):.2g} of the states' sizes, and {eps**0.6:.2g} is asked"
        )
    values, doubts = judged_exponents(jacobian, clock)
    frequency = 0.0
    if kind in PAIR:
        frequency = clock.wrapped(abs(float(unknowns[-2])))
    elif kind == "flip":
        frequency = clock.highest
    critical = complex(*clock.edge(frequency)) if kind in PAIR else complex(-2 / clock.unit) if kind == "flip" else 0j
    at = int(np.argmin(np.abs(values - 1j * frequency)))
    terms_of = np.abs(jacobian) + solved.curvature + solved.drift
    pair, defective = _critical_pair(kind, jacobian, critical, terms_of.sum(axis=1))
    if pair is None:
        return f"the critical eigenvalue {critical:.6g} is defective: its left and right eigenvectors are orthogonal"
    right, left = pair.right, pair.left
    weights = np.abs(left)
    terms = weights @ (np.abs(jacobian) @ (1 + np.abs(y)))
    natural = float(weights @ (terms_of @ np.abs(right)))
    # What is left after Newton's iteration, beside rounding. At the fold of a scalar model the Jacobian vanishes itself.
    left_over = (float(solved.correction) + 32 * eps) * natural
    doubt = max(float(doubts[at]), left_over)
    if defective:
        # A pair that meets there is as far apart as the root of any error.
        doubt = max(doubt, float(np.sqrt(left_over * np.abs(jacobian).sum(axis=1).max())))
    for end in clock.ends if kind in PAIR else ():
        if abs(frequency - end) <= NEAR * doubt:
            return f"the frequency tends to {'zero' if end == 0 else 'pi / dt'}, so it is no pair"
    if not abs(values[at] - 1j * frequency) <= NEAR * doubt:
        return f"the Jacobian has no such critical eigenvalue: the nearest is off by {abs(values[at] - 1j * frequency):.2g}"
    # Where the state is zero to rounding, so may be the slope, and its direction is noise.
    pushed = abs(left @ slope) > max(eps**0.4 * (weights @ np.abs(slope)), eps**0.8 * (terms + natural))
    if kind == "saddle-node" and not pushed:
        # The parameter does not push along the critical direction.
        return "the branch does not turn there: it is a branch point"
    if kind in ("saddle-node", BRANCH_POINT) and not defective and _vanishing(solved, values, np.maximum(doubts, doubt)) > 1:
        return "more than one eigenvalue vanishes there"
    # Eigenvectors are computed in double precision, and the model may not be.
    arguments: tuple[Any, ...] = (y, np.asarray(q), np.asarray(frequency, y.dtype))
    arguments += tuple(part.astype(np.result_type(y.dtype, np.complex64)) for part in (right, left))
    if kind == BRANCH_POINT:
        b, psi = float(unknowns[n]), np.abs(unknowns[n + 1 : -1])
        sizes = terms_of @ (1 + np.abs(y)) + np.abs(slope)
        if abs(b) > eps**0.6 * (psi @ sizes):
            return "the branches pass close by each other and do not cross"
        if pushed or pair.value.imag != 0:
            return "more than one eigenvalue vanishes there"
        arguments = (
            y,
            np.asarray(q),
            *(part.astype(y.dtype) for part in (right, left, _beside(jacobian, slope, right, left))),
        )
    resonance = None
    if kind == "neimark-sacker":
        turns = frequency * clock.unit / (2 * np.pi)
        off = {k: abs(k * turns - round(k * turns)) * 2 * np.pi for k in (3, 4)}
        resonance = next((k for k, angle in off.items() if angle <= max(NEAR * doubt * clock.unit, 16 * eps**0.5)), None)
    width = float((float(solved.correction) + 4 * eps) * (1 + abs(q)))
    z = np.append(y, q)
    residual = float(solved.residual)
    return Read(z, frequency, right, left, arguments, values, doubts, natural, residual, width, resonance, defective)


def _critical_pair(kind: str, jacobian: np.ndarray, critical: complex, rows: np.ndarray) -> tuple[Eigenpair | None, bool]:
    """The critical eigenpair, and whether it is defective: then the null vectors, if the kind can do with them. `rows` (n,):
    the terms of each row."""
    try:
        pair = eigenpair(jacobian, critical)
    except NumericalError:
        pair = None
    if kind in ("saddle-node", BRANCH_POINT) and (
        pair is None or np.linalg.norm(pair.left) * np.finfo(jacobian.dtype).eps ** 0.4 > 1
    ):
        null = _null_pair(jacobian, rows)
        return (null, True) if null is not None else (pair, False)
    return pair, False


def _null_pair(jacobian: np.ndarray, rows: np.ndarray) -> Eigenpair | None:
    """The null vectors of a matrix whose zero eigenvalue is defective, as it is in conservative systems, each of length one;
    `None` where the null space has more dimensions than one."""
    rows = np.where(rows > 0, rows, 1.0)
    lefts, values, rights = np.linalg.svd(jacobian / rows[:, None])
    if len(values) > 1 and values[-2] <= np.finfo(jacobian.dtype).eps ** 0.4:
        return None
    left = lefts[:, -1] / rows
    return Eigenpair(0j, rights[-1], left / np.linalg.norm(left))


def _vanishing(solved: Solved, values: np.ndarray, doubts: np.ndarray) -> int:
    """How many of the exponents (n,) are zero to their own error: that of the eigenvalue itself (n,), and that which the
    state has along its eigenvector. The smaller the eigenvalue, the less is the state known there."""
    jacobian, n = solved.jacobian[:, :-1], solved.curvature.shape[0]
    least = np.abs(values) <= NEAR * doubts
    terms = np.abs(jacobian) @ (1 + np.abs(solved.y[:n])) + np.abs(solved.jacobian[:, -1])
    unit = NEAR * 32 * float(np.finfo(solved.y.dtype).eps)
    size = float(np.abs(jacobian).sum(axis=1).max() + solved.curvature.sum(axis=1).max())
    for i in np.flatnonzero(~least & (np.abs(values) <= np.sqrt(unit) * size) & (values.imag == 0)):
        try:
            pair = eigenpair(jacobian, complex(values[i]))
        except NumericalError:
            least[i] = True
            continue
        weights = np.abs(pair.left)
        bends = float(weights @ (solved.curvature @ np.abs(pair.right)))
        least[i] = abs(values[i]) ** 2 <= unit * float(weights @ terms) * bends
    return int(least.sum())


# How many times its own rounding error a number may be before it counts as other than zero.
NEAR = 1e3


def _beside(jacobian: np.ndarray, slope: np.ndarray, right: np.ndarray, left: np.ndarray) -> np.ndarray:
    """The unit direction (n + 1,) that spans the kernel of (A, f_q) beside the critical one."""
    n = len(slope)
    matrix = np.zeros((n + 1, n + 1))
    matrix[:n, :n], matrix[:n, n], matrix[n, :n] = jacobian, left, right
    rows = np.abs(matrix).sum(axis=1)
    other = np.linalg.solve(matrix / rows[:, None], np.append(-slope, 0.0) / rows)[:n]
    return np.append(other, 1.0) / np.linalg.norm(np.append(other, 1.0))
