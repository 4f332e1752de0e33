"""The linearisation at points of branches, and the detection of lines of equilibria, on which it is singular everywhere."""

import numpy as np
from jaxtyping import Array

from ssntk.zeros.base import AbstractZeros
from ssntk.zeros.stack import Members, Stack, each


def _linear(zeros: AbstractZeros, z: Array) -> tuple[Array, Array, Array]:
    """F (N,), dF/dz (N, N + 1) and the stability matrix (n, n) at a point."""
    residual, jacobian = zeros.linearised(z)
    return residual, jacobian, zeros.stability(z, jacobian)


_linearised = each(_linear)


def _readout(zeros: AbstractZeros, z: Array) -> Array:
    """The readout (m,) at a point."""
    return zeros.outputs(z)


_read = each(_readout)


def outputs_at(stack: Stack, member: int, z: np.ndarray) -> np.ndarray:
    """The readout (k, m) at points of a branch (k, n + 1). If it returns the states unchanged, nothing is compiled."""
    if stack.members[member].reads_itself:
        return z[:, :-1] * stack.scale[member]
    return _read(stack, np.full(len(z), member), z)


def branch_jacobians(stack: Stack, members: Members, z: np.ndarray) -> np.ndarray:
    """A and df/dq side by side (k, n, n + 1), at points of branches (k, n + 1)."""
    return _linearised(stack, members, z)[1]


def residuals(stack: Stack, members: Members, z: np.ndarray) -> np.ndarray:
    """F (k, N) at points (k, N + 1)."""
    return _linearised(stack, members, z)[0]


def stability_matrices(stack: Stack, members: Members, z: np.ndarray) -> np.ndarray:
    """The matrices (k, n, n) whose eigenvalues decide stability, at points of branches (k, N + 1)."""
    return _linearised(stack, members, z)[2]


def singular(stack: Stack, members: Members, z: np.ndarray) -> np.ndarray:
    """Whether A is singular, to the square root of the precision, at points z (k, n + 1): (k,). If so, there is a
    bifurcation or a line of equilibria."""
    if len(z) == 0:
        return np.zeros(0, bool)
    jacobians, rows = _with_rows(stack, members, z)
    finite = np.asarray(np.isfinite(jacobians).all(axis=(1, 2)) & np.isfinite(rows).all(axis=1))
    return np.array([ok and _null(*pair) is not None for ok, *pair in zip(finite, jacobians, rows, strict=True)])


def _with_rows(stack: Stack, members: Members, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A (k, n, n) at points z (k, n + 1), and the sizes (k, n) of the terms of its rows, which may cancel in A."""
    part = 1e-3 * (1 + np.abs(z[:, -1:]))
    aside = np.concatenate([z[:, :-1], z[:, -1:] + part], axis=1)
    jacobians = branch_jacobians(stack, np.repeat(members, 2), np.stack([z, aside], 1).reshape(-1, z.shape[1]))
    here, there = jacobians[::2], jacobians[1::2]
    changed = np.abs(there - here)[..., :-1].sum(axis=2) / part * (1 + np.abs(z[:, -1:]))
    rows = np.abs(here).sum(axis=2) + changed
    return here[..., :-1], np.where(rows > 0, rows, 1.0)


def on_a_line(stack: Stack, member: int, z: np.ndarray) -> bool:
    """Whether the equilibrium at z (n + 1,) lies on a line of equilibria at its parameter: whether there are others next to
    it along the null vector of A, at which A is singular too."""
    eps = float(np.finfo(z.dtype).eps)
    jacobians, terms = _with_rows(stack, [member], z[None])
    rows = terms[0]
    along = _null(jacobians[0], rows)
    if along is None:
        return False
    near = np.stack([np.append(z[:-1] + size * along, z[-1]) for size in (-0.1, -0.02, 0.02, 0.1)])
    places = near.copy()
    for _ in range(8):
        velocity, jacobians, _ = _linearised(stack, [member] * 4, places)
        if not np.isfinite(velocity).all() or not np.isfinite(jacobians).all():
            return False
        for place, value, matrix in zip(places, velocity, jacobians[..., :-1], strict=True):
            # Correct the point within the plane normal to the line.
            whole = np.concatenate([matrix / rows[:, None], along[None]])
            place[:-1] += np.linalg.lstsq(whole, np.append(-value / rows, 0.0), rcond=eps**0.5)[0]
    velocity, jacobians, _ = _linearised(stack, [member] * 4, places)
    rest = (np.abs(velocity) <= eps**0.75 * rows * (1 + np.abs(places[:, :-1]).max(axis=1, keepdims=True))).all()
    moved = np.linalg.norm(places - near, axis=1) <= 0.5 * np.linalg.norm(near - z, axis=1)
    return bool(rest and moved.all() and all(_null(matrix, rows) is not None for matrix in jacobians[..., :-1]))


def _null(matrix: np.ndarray, rows: np.ndarray) -> np.ndarray | None:
    """The unit null vector (n,) of a matrix (n, n), its rows scaled by their terms (n,); `None` if it is regular."""
    _, values, rights = np.linalg.svd(matrix / rows[:, None])
    return rights[-1] if values[-1] <= np.finfo(matrix.dtype).eps ** 0.5 else None
