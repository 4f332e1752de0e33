"""Orbits by collocation: on each of N intervals a polynomial of degree m that satisfies the equation at the Gauss points.

Ascher, Mattheij and Russell, *Numerical Solution of Boundary Value Problems*, 1995, section 5; Doedel's AUTO made the method
standard for periodic orbits. The error at the ends of the intervals is of order 2 m. The states within an interval are
eliminated from Newton's equations, so that only the N ends are left, which `chain` joins.
"""

import functools

import numpy as np


@functools.cache
def gauss(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The Gauss points c (m,) in [0, 1], and the weights a (m, m) and b (m,) of the integrals from 0 to c and to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(degree)
    c = (nodes + 1) / 2
    # Integrate the Lagrange polynomials: those of degree below m are integrated exactly.
    powers = np.arange(1, degree + 1)
    vandermonde = c[:, None] ** (powers - 1)
    a = (c[:, None] ** powers / powers) @ np.linalg.inv(vandermonde)
    return c, a, weights / 2


def at_parts(degree: int, parts: np.ndarray) -> np.ndarray:
    """The weights (k, m + 1) of an interval's first state and its states at the Gauss points, for values at `parts` (k,)."""
    nodes = np.concatenate([[0.0], gauss(degree)[0]])
    weights = np.ones((len(parts), len(nodes)))
    for i, node in enumerate(nodes):
        for j, other in enumerate(nodes):
            if i != j:
                weights[:, i] *= (parts - other) / (node - other)
    return weights


def values(times: np.ndarray, mesh: np.ndarray, ends: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """The orbit at `times` (k,) in [0, 1): `mesh` (N + 1,), states at its points (N, n) and within intervals (N, m, n)."""
    at = np.clip(np.searchsorted(mesh, times, side="right") - 1, 0, len(mesh) - 2)
    parts = (times - mesh[at]) / np.diff(mesh)[at]
    nodes = np.concatenate([ends[:, None], inner], axis=1)
    return np.einsum("ki,kin->kn", at_parts(inner.shape[1], parts), nodes[at])


def adapted(mesh: np.ndarray, ends: np.ndarray, inner: np.ndarray, count: int) -> np.ndarray:
    """A mesh (count + 1,) on which the error is the same everywhere, by the derivatives of order m + 1.

    These are differences of the derivatives of order m, which are constant on each interval.
    """
    widths, degree = np.diff(mesh), inner.shape[1]
    nodes = np.concatenate([[0.0], gauss(degree)[0]])
    highest = 1 / np.array([np.prod(node - np.delete(nodes, i)) for i, node in enumerate(nodes)])
    steep = np.einsum("i,jin->jn", highest, np.concatenate([ends[:, None], inner], axis=1)) / widths[:, None] ** degree
    apart = (widths + np.roll(widths, -1)) / 2
    bends = np.linalg.norm((np.roll(steep, -1, axis=0) - steep) / apart[:, None], axis=1)
    density = ((bends + np.roll(bends, 1)) / 2) ** (1 / (degree + 1))
    # A part of the mesh is even, so that quiet stretches keep their intervals.
    density = density + 0.1 * (density @ widths) + np.finfo(float).tiny
    total = np.concatenate([[0.0], np.cumsum(density * widths)])
    return np.interp(np.linspace(0, total[-1], count + 1), total, mesh)
