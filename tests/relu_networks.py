"""Random ReLU networks in several forms, and brute force over all their regions. Several tests share these."""

import itertools

import numpy as np

import ssntk

GAINS = (0.7, 1.5, 2.5)


def drawn(seed, most=8):
    """The numbers of a random network: weights, bias, direction, and leaks of a map."""
    random = np.random.default_rng(seed)
    n = int(random.integers(2, most + 1))
    weight = GAINS[seed % 3] * random.standard_normal((n, n)) / np.sqrt(n)
    return weight, random.standard_normal(n), random.standard_normal(n), random.uniform(-0.6, 0.6, n)


def form(kind, weight, bias, leak=None):
    """A x + B relu(C x + c) + h of a network: "current", "rate", "map" (PLRNN) or "euler" (of the rate form)."""
    n = len(weight)
    one, nothing = np.eye(n), np.zeros(n)
    if kind == "map":
        return ssntk.PiecewiseLinear(np.diag(leak), weight, one, nothing, bias, 1.0)
    if kind == "current":
        return ssntk.PiecewiseLinear(-one, weight, one, nothing, bias, None)
    if kind == "rate":
        return ssntk.PiecewiseLinear(-one, one, weight, bias, nothing, None)
    return ssntk.PiecewiseLinear(0.3 * one, 0.7 * one, weight, bias, nothing, 0.7)


def moving(seed, what, kind, most=8):
    """A network as a function of q in [0, 1], which moves its input, its gain, one weight, or weights and bias smoothly."""
    weight, bias, way, leak = drawn(seed, most)

    def make(q):
        if what == "input":
            return form(kind, weight, bias + (6 * q - 3) * way, leak)
        if what == "gain":
            return form(kind, (0.1 + 2.5 * q) * weight, bias, leak)
        if what == "weight":
            return form(kind, weight + (8 * q - 4) * np.eye(len(bias))[[0]].T * np.eye(len(bias))[[1]], bias, leak)
        return form(kind, np.sinh(1.5 * q) * weight, bias + np.tanh(4 * q - 2) * way, leak)

    return make


def patterns_of(system):
    """The patterns of all fixed points of a form, by solving in each of its 2^m regions."""
    every = np.array(list(itertools.product((False, True), repeat=len(system.c))))
    right = system.h + (every * system.c) @ system.B.T
    x = -np.linalg.solve(system.pull + (system.B * every[:, None, :]) @ system.C, right[..., None])[..., 0]
    return every[((x @ system.C.T + system.c > 0) == every).all(axis=1)]


def cycles_of(system, order):
    """The number of cycles of prime order k of a map, by solving for all words of regions."""
    every = np.array(list(itertools.product((False, True), repeat=len(system.c))))
    jacobians = system.A + (system.B * every[:, None, :]) @ system.C
    rights = system.h + (every * system.c) @ system.B.T
    found = 0
    for word in itertools.product(range(len(every)), repeat=order):
        if any(word[j:] + word[:j] <= word for j in range(1, order)):
            continue
        whole, held = np.eye(len(system.h)), np.zeros(len(system.h))
        for at in word:
            whole, held = jacobians[at] @ whole, jacobians[at] @ held + rights[at]
        x = np.linalg.solve(np.eye(len(held)) - whole, held)
        good = True
        for at in word:
            good = good and bool(((system.signals(x) > 0) == every[at]).all())
            x = jacobians[at] @ x + rights[at]
        found += good
    return found
