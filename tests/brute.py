"""The solutions of piecewise-linear equations by all sign patterns, written without the code of the package."""

import numpy as np
from helpers import ROOT

MAPS = ROOT.parent / "shared" / "reference" / "maps.json"


def all_patterns(m):
    """All patterns (2^m, m) of m signs."""
    return (np.arange(2**m)[:, None] >> np.arange(m)) & 1 == 1


def points(A, B, C, c, h):
    """The zeros (k, n) of A x + B relu(C x + c) + h, with the Jacobians (k, n, n) there, in general position."""
    on = all_patterns(len(c))
    J = A + (B * on[:, None, :]) @ C
    x = np.linalg.solve(J, -(h + (B * on[:, None, :]) @ c)[..., None])[..., 0]
    good = ((x @ C.T + c > 0) == on).all(axis=1)
    return x[good], J[good]


def orbits(A, B, C, c, h, k):
    """The points x (j, n) with F^k(x) = x of the map F = A x + B relu(C x + c) + h, with itineraries (j, k, m).

    Each is the fixed point of a product of k affine maps whose orbit has the signs that were assumed.
    """
    on = all_patterns(k * len(c)).reshape(-1, k, len(c))
    M, v = np.broadcast_to(np.eye(len(A)), (len(on), *A.shape)), np.zeros((len(on), len(A)))
    for j in range(k):
        B_on = B * on[:, j, None, :]
        step = A + B_on @ C
        M, v = step @ M, (step @ v[..., None])[..., 0] + B_on @ c + h
    start = x = np.linalg.solve(np.eye(len(A)) - M, v[..., None])[..., 0]
    good = np.ones(len(on), bool)
    for j in range(k):
        s = x @ C.T + c
        good &= ((s > 0) == on[:, j]).all(axis=1)
        x = x @ A.T + np.maximum(s, 0) @ B.T + h
    return start[good], on[good]


def count(A, B, C, c, h, k):
    """The number of cycles of prime period k."""
    _, on = orbits(A, B, C, c, h, k)
    prime = [not any((np.roll(one, q, axis=0) == one).all() for q in range(1, k) if k % q == 0) for one in on]
    assert sum(prime) % k == 0
    return sum(prime) // k
