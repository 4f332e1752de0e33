"""The other curve through a point of codimension two, which begins at the point itself."""

from typing import Any

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Array

from ssntk.bifurcation.events.kinds import FLIP, HOPF, NEIMARK_SACKER, SADDLE_NODE
from ssntk.bifurcation.point import Bifurcation
from ssntk.curves import kinds
from ssntk.curves.curve import Codim2
from ssntk.dynamics.stability import state_jacobian
from ssntk.models.base import dtype_of
from ssntk.models.plane import Plane

# The kinds of the two curves that pass through each kind of point. All of them are regular there.
_FOLD, _FLIP, _PAIR, _TORUS = SADDLE_NODE.name, FLIP.name, HOPF.name, NEIMARK_SACKER.name
THROUGH = {
    kinds.BOGDANOV_TAKENS: (_FOLD, _PAIR),
    kinds.ZERO_HOPF: (_FOLD, _PAIR),
    kinds.DOUBLE_HOPF: (_PAIR, _PAIR),
    "1:1 resonance": (_FOLD, _TORUS),
    "1:2 resonance": (_FLIP, _TORUS),
    "fold-flip": (_FOLD, _FLIP),
    "fold-neimark-sacker": (_FOLD, _TORUS),
    "flip-neimark-sacker": (_FLIP, _TORUS),
    "double-neimark-sacker": (_TORUS, _TORUS),
}


def starts_at(plane: Plane, u: Array, point: Codim2, sizes: np.ndarray) -> list[Bifurcation]:
    """The two bifurcations of codimension one that a point consists of, each of which a curve can be followed from. `sizes`
    (n,): typical sizes of the states."""
    if point.kind not in THROUGH:
        return []
    p1, p2 = (float(p) for p in point.parameters)
    model, dtype = plane(p1, p2), dtype_of(plane.model)
    x = jax.device_put(np.asarray(point.x, dtype))
    # In sizes, so that the vectors do not depend on the units of the states.
    matrix = np.asarray(state_jacobian(model, x, u), float) / sizes[:, None] * sizes
    found = []
    for kind, frequency in zip(THROUGH[point.kind], _frequencies(plane, point), strict=True):
        edge = complex(*plane.clock.edge(frequency))
        count = 2 if kind in (_PAIR, _TORUS) else 1
        right, left = (_vectors(one, edge, count) for one in (matrix, matrix.T))
        found.append(_bifurcation(kind, p1, point, frequency, right * sizes, left / sizes))
    return found


def _frequencies(plane: Plane, point: Codim2) -> tuple[float, float]:
    """The frequency of each of the two curves through a point."""
    clock, own = plane.clock, float(point.frequency)
    values = np.asarray(point.eigenvalues, complex)
    # Pairs, those nearest to the edge of stability first.
    pairs = values[values.imag > 0]
    ranked = pairs[np.argsort(np.abs(clock.shown_rate(pairs)))]
    known = [float(clock.frequency(complex(clock.given(value)))) for value in ranked[:2]]
    if point.kind in (kinds.DOUBLE_HOPF, "double-neimark-sacker") and len(known) == 2:
        return known[0], known[1]
    turning = {_FOLD: 0.0, _FLIP: clock.flips_at}
    first, second = (float(turning.get(kind, own) or 0.0) for kind in THROUGH[point.kind])
    return first, second


def _vectors(matrix: np.ndarray, edge: complex, count: int) -> np.ndarray:
    """A critical eigenvector (n,), or for a pair a basis of its invariant subspace as real and imaginary part. The subspace
    is well defined where the two eigenvectors are one."""
    if count == 1:
        return np.linalg.svd(matrix - edge.real * np.eye(len(matrix)))[2][-1]
    values = np.linalg.eigvals(matrix)
    off = np.minimum(np.abs(values - edge), np.abs(values - edge.conjugate()))
    nearest = np.sort(off)
    most = np.inf if len(off) == 2 else (nearest[1] + nearest[2]) / 2
    basis: Any = scipy.linalg.schur(
        matrix,
        output="real",
        sort=lambda re, im: min(abs(complex(re, im) - edge), abs(complex(re, im) - edge.conjugate())) <= most,
    )[1]
    return basis[:, 0] + 1j * basis[:, 1]


def _bifurcation(
    kind: str, parameter: float, point: Codim2, frequency: float, right: np.ndarray, left: np.ndarray
) -> Bifurcation:
    return Bifurcation(
        kind=kind,
        parameter=parameter,
        x=np.asarray(point.x),
        frequency=frequency,
        right=right / np.linalg.norm(right),
        left=left / np.linalg.norm(left),
        coefficient=np.nan,
        criticality=None,
        residual=np.nan,
        interval=(parameter, parameter),
        converged=True,
        reason=f"at a {point.kind} point",
    )
