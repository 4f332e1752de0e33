"""Rows of claims.py about spectra: spheres, circles, tori and Gaussian inputs, and operators that act on the kernel."""

import numpy as np
import scipy.fft
import scipy.sparse.linalg
import scipy.special
from claims_judge import NORMALISATION, Found, about, claim, cosines, exact, measured, on_sphere, slope

from ssntk import infinite


def harmonics(depth: int, sphere: int, degree: int) -> np.ndarray:
    """The eigenvalues of the kernel of `depth` layers of ReLU on a sphere of this dimension, by degree."""
    return infinite.harmonic_spectrum(lambda u: infinite.relu_ntk(u, depth), sphere, degree)


def circle(n: int, depth: int = 3) -> np.ndarray:
    """The first row of the kernel on n evenly spaced points of the circle."""
    return np.asarray(infinite.relu_ntk(np.cos(2 * np.pi * np.arange(n) / n), depth))


# %% Decay
@claim(
    "decay-by-depth",
    "eigenvalues on one sphere fall as l^-(d + 1) for two layers, and by one power less for deep networks",
    "l^-d on S^(d - 1), which is l^-(d + 1) on S^d, whatever the depth",
)
def decay_by_depth(quick: bool) -> Found:
    degrees = np.arange(60, 161, 2)
    exponents = {
        (sphere, depth): slope(degrees, harmonics(depth, sphere, 160)[degrees]) for sphere in (1, 2, 3) for depth in (2, 10)
    }
    return Found(
        [
            exact(
                f"S^{sphere}: exponent of 10 layers minus that of 2",
                exponents[sphere, 10] - exponents[sphere, 2],
                (0.8, 1.2),
            )
            for sphere in (1, 2, 3)
        ],
        instead=[
            exact(f"S^{sphere}, {depth} layers: exponent", found, about(-(sphere + 1), 0.05))
            for (sphere, depth), found in exponents.items()
        ],
    )


def factor(depth: int) -> float:
    """How much larger the eigenvalues near degree 300 are on the sphere than those of two layers; means of even and odd."""
    found, two = (harmonics(each, 2, 301)[300:].mean() for each in (depth, 2))
    return float(found / two)


@claim(
    "depth-factor-quadratic",
    "the factor C of the decay C l^-d grows quadratically with the depth L",
    "C = L (L - 1) / 2 times that of two layers",
)
def depth_factor_quadratic(quick: bool) -> Found:
    return Found(
        [
            exact(f"factor of {depth} layers over L (L - 1) / 2", factor(depth) / (depth * (depth - 1) / 2), (0.95, 1.05))
            for depth in (3, 4, 8, 16)
        ]
    )


@claim(
    "depth-factor-linear",
    "the factor C of the decay C l^-d is proportional to the depth L",
    "true of Theta / L, whose factor is proportional to L - 1",
    NORMALISATION,
)
def depth_factor_linear(quick: bool) -> Found:
    ratio = factor(32) / factor(16)
    return Found(
        [exact("factor of Theta, 32 layers over 16", ratio, about(2.0, 0.1))],
        [exact("factor of Theta / L, 32 layers over 16", ratio / 2, about(2.0, 0.1))],
    )


@claim(
    "spectral-bias",
    "harmonics of a lower degree have larger eigenvalues, so that they are learned first",
    "true of even degrees alone; odd ones from 3 on are zero for two layers, and smaller than the next even ones for three",
)
def spectral_bias(quick: bool) -> Found:
    spectra = {depth: harmonics(depth, 2, 40) for depth in (2, 3, 10)}

    def rise(depth: int, step: int) -> float:
        return float(np.max(spectra[depth][step::step] / spectra[depth][:-step:step]))

    return Found(
        [
            exact(f"{depth} layers: largest rise from a degree to the next", np.max(np.diff(one)) / one[0], (-1, 0))
            for depth, one in spectra.items()
        ],
        [
            exact(f"{depth} layers: largest ratio of an even degree to the last even one", rise(depth, 2), (0.0, 1.0))
            for depth in spectra
        ],
    )


@claim(
    "gaussian-inputs",
    "for Gaussian inputs the kernel is diagonal in Hermite polynomials, with exponentially falling eigenvalues",
    "neither: the kernel has a corner where inputs meet, so that eigenvalues fall as i^-2 in one dimension",
)
def gaussian_inputs(quick: bool) -> Found:
    n = 600 if quick else 1600
    x = np.linspace(-7, 7, n)
    weight = np.exp(-(x**2) / 2) * (x[1] - x[0]) / np.sqrt(2 * np.pi)
    points = np.stack([x, np.ones(n)], axis=1)
    length = np.linalg.norm(points, axis=1)
    kernel = np.outer(length, length) * infinite.relu_ntk(cosines(points / length[:, None]), 3)
    values = np.linalg.eigvalsh(np.sqrt(weight)[:, None] * kernel * np.sqrt(weight))[::-1]
    polynomials = np.stack([scipy.special.eval_hermitenorm(k, x) / np.sqrt(scipy.special.factorial(k)) for k in range(30)])
    inside = (polynomials * weight) @ kernel @ (polynomials * weight).T
    share = np.linalg.norm(inside - np.diag(np.diag(inside))) / np.linalg.norm(inside)
    index = np.arange(10, 61)
    fits = {
        name: np.corrcoef(by, np.log(values[index]))[0, 1] ** 2
        for name, by in (("power", np.log(index + 1.0)), ("exponential", index))
    }
    return Found(
        [
            exact("norm off the diagonal, over the whole norm", share, (0.0, 0.01)),
            exact(
                "R^2 of an exponential minus that of a power, modes 11 to 61", fits["exponential"] - fits["power"], (0, 1)
            ),
        ],
        instead=[
            exact("exponent of the index", slope(index + 1.0, values[index]), about(-2.0, 0.1)),
            exact("R^2 of a power", fits["power"], (0.999, 1.0)),
        ],
    )


@claim(
    "matrix-operator",
    "eigenvalues of the kernel's matrix are not those of its operator",
    "they differ by the factor n and by a sampling error that falls as n^(-1/2)",
)
def matrix_operator(quick: bool) -> Found:
    counts, operator = ((50, 100, 200) if quick else (100, 400, 1600)), harmonics(3, 2, 2)
    expected = np.repeat(operator, [1, 3, 5])
    off = {n: [] for n in counts}
    for seed in range(12):
        points = on_sphere(np.random.default_rng(seed), counts[-1], 3)
        for n in counts:
            kernel = infinite.relu_ntk(cosines(points[:n]), 3) / n
            top = scipy.sparse.linalg.eigsh(kernel, 9, v0=np.ones(n))[0]
            off[n].append(np.sqrt(np.mean((np.sort(top)[::-1] / expected - 1) ** 2)))
    exponents = [slope(counts, [off[n][seed] for n in counts]) for seed in range(12)]
    return Found(
        [measured(f"relative difference of K / n, 9 largest, n = {counts[0]}", off[counts[0]], (0.01, 1.0))],
        instead=[
            measured(f"the same, n = {counts[-1]}", off[counts[-1]], (0.0, 0.1)),
            measured("exponent of n", exponents, (-0.7, -0.3)),
        ],
    )


# %% Operators
@claim(
    "sobolev-decay",
    "under a Sobolev loss of order s eigenvalues on S^(d - 1) fall as l^(s - d), with the symbol (1 + l)^(2 s)",
    "l^(2 s - d) with that symbol; l^(s - d) with (1 + sqrt(l (l + d - 2)))^s",
    NORMALISATION,
)
def sobolev_decay(quick: bool) -> Found:
    degrees = np.arange(200, 401, 2)
    kernel = harmonics(3, 2, 400)[degrees]
    doubled = slope(degrees, kernel * (1.0 + degrees) ** 4)
    single = {s: slope(degrees, kernel * (1 + np.sqrt(degrees * (degrees + 1.0))) ** s) for s in (0, 1, 2, 3, 4)}
    return Found(
        [exact("S^2, s = 2: exponent with (1 + l)^(2 s)", doubled, (-1.1, -0.9))],
        [exact(f"S^2, s = {s}: exponent with the other symbol", found, (s - 3.1, s - 2.9)) for s, found in single.items()],
        [exact("S^2, s = 2: exponent with (1 + l)^(2 s), against 2 s - d", doubled, (0.9, 1.1))],
    )


def sobolev(points: np.ndarray, degree: int) -> np.ndarray:
    """The matrix of (1 + l)^2 on functions of points on S^2, up to this degree: sum (2 l + 1) (1 + l)^2 P_l / n."""
    u, found = cosines(points), 0.0
    for k in range(degree + 1):
        found = found + (2 * k + 1) * (1 + k) ** 2 * scipy.special.eval_legendre(k, u)
    return found / len(points)


def commutator(one: np.ndarray, other: np.ndarray) -> float:
    product = one @ other
    return float(np.linalg.norm(product - product.T) / np.linalg.norm(product))


def on_circle(angles: np.ndarray, order: float) -> tuple[np.ndarray, np.ndarray]:
    """The kernel and the matrix of (1 + k)^order at these angles of a circle."""
    n = len(angles)
    between = angles[:, None] - angles
    modes = sum((1.0 + k) ** order * (1 if k == 0 else 2) * np.cos(k * between) for k in range(n // 2))
    last = (1.0 + n // 2) ** order * np.cos(n // 2 * between)
    kernel = infinite.relu_ntk(np.clip(np.cos(between), -1, 1), 3)
    return np.asarray(kernel), (modes + last) / n


@claim(
    "commutator",
    "the matrices of the kernel and of a Sobolev operator commute",
    "the operators do; matrices do on grids that a group maps onto themselves",
)
def commuting(quick: bool) -> Found:
    sphere, line = [], []
    for seed in range(12):
        random = np.random.default_rng(seed)
        points = on_sphere(random, 150, 3)
        sphere.append(commutator(infinite.relu_ntk(cosines(points), 3), sobolev(points, 10)))
        line.append(commutator(*on_circle(random.uniform(0, 2 * np.pi, 64), 2.0)))
    grid = commutator(*on_circle(2 * np.pi * np.arange(64) / 64, 2.0))
    return Found(
        [
            measured("relative commutator, 150 random points on a sphere", sphere, (0.0, 1e-10)),
            measured("the same, 64 random points on a circle", line, (0.0, 1e-10)),
        ],
        [exact("the same, 64 evenly spaced points on a circle", grid, (0.0, 1e-10))],
    )


@claim(
    "pairs-by-rank",
    "the i-th eigenvalue of K P is that of K times that of P",
    "true if pairs are formed by eigenvector, not by rank",
)
def pairs_by_rank(quick: bool) -> Found:
    n = 64
    kernel, operator = on_circle(2 * np.pi * np.arange(n) / n, 2.0)
    both = kernel @ operator
    product = np.sort(np.linalg.eigvalsh((both + both.T) / 2))[::-1]
    ranked = np.sort(np.linalg.eigvalsh(kernel))[::-1] * np.sort(np.linalg.eigvalsh(operator))[::-1]
    # On an evenly spaced circle the Fourier modes are the eigenvectors of both.
    paired = np.sort(scipy.fft.fft(kernel[0]).real * scipy.fft.fft(operator[0]).real)[::-1]
    return Found(
        [exact("largest relative error, by rank", np.abs(ranked / product - 1).max(), (0.0, 0.01))],
        [exact("the same, by eigenvector", np.abs(paired / product - 1).max(), (0.0, 1e-10))],
    )


@claim("torus-fft", "on a grid of a torus the FFT diagonalises the kernel", "the eigenvalues are the FFT of one row")
def torus_fft(quick: bool) -> Found:
    n = 16
    angle = 2 * np.pi * np.arange(n) / n
    a, b = (each.ravel() for each in np.meshgrid(angle, angle, indexing="ij"))
    u = (np.cos(a[:, None] - a) + np.cos(b[:, None] - b)) / 2
    u[np.arange(n * n), np.arange(n * n)] = 1.0
    kernel = np.asarray(infinite.relu_ntk(np.clip(u, -1, 1), 3))
    by_fft = np.sort(scipy.fft.fft2(kernel[0].reshape(n, n)).real.ravel())
    values = np.linalg.eigvalsh(kernel)
    return Found([exact("largest difference over the largest eigenvalue", np.abs(by_fft / values - 1).max(), (0.0, 1e-10))])


@claim(
    "tuned-order",
    "the order s of a Sobolev loss should grow with the number of inputs; the condition number of P_s is not known",
    "the best s falls towards dimension + 1; the condition number of P_s is (1 + k_max)^s",
)
def tuned_order(quick: bool) -> Found:
    best, flattened = [], []
    counts = (32, 128, 512, 2048)
    for n in counts:
        values = scipy.fft.rfft(circle(n)).real
        modes = 1.0 + np.arange(n // 2 + 1)

        def spread(s: float, values: np.ndarray = values, modes: np.ndarray = modes) -> float:
            both = values * modes**s
            return float(np.log(both.max() / both.min()))

        fine = np.arange(0.0, 4.0, 0.005)
        at = float(fine[np.argmin([spread(s) for s in fine])])
        best.append(at)
        flattened.append(spread(at) - spread(0.0))
    operator = np.linalg.eigvalsh(on_circle(2 * np.pi * np.arange(64) / 64, 2.0)[1])
    return Found(
        [
            exact(f"best s at n = {more} minus that at n = {n}", b - a, (0.0, 4.0))
            for n, more, a, b in zip(counts, counts[1:], best, best[1:], strict=False)
        ],
        instead=[
            *(exact(f"best s, n = {n}", s, (2.0, 2.6)) for n, s in zip(counts, best, strict=True)),
            exact("n = 2048: log10 of kappa at the best s over kappa at s = 0", flattened[-1] / np.log(10), (-9.0, -3.0)),
            exact("kappa of P_s over (1 + k_max)^s, n = 64, s = 2", operator[-1] / operator[0] / 33**2, about(1.0, 1e-9)),
        ],
    )


@claim(
    "loss-derivative",
    "a differential operator in the loss does not make eigenvalues fall faster",
    "K becomes D D' K: d/dt raises the exponent by 2, so that they fall more slowly",
)
def loss_derivative(quick: bool) -> Found:
    # The second difference of the kernel in the angle, which knows nothing of modes.
    n = 4096
    row = circle(n)
    step = 2 * np.pi / n
    derived = -(np.roll(row, 1) - 2 * row + np.roll(row, -1)) / step**2
    modes = np.arange(10, 61)
    before, after = (slope(modes, scipy.fft.rfft(one).real[modes]) for one in (row, derived))
    return Found(
        [exact("exponent under d/dtheta minus that of the kernel itself", after - before, (0.0, 9.0))],
        instead=[
            exact("circle, 3 layers, modes 10 to 60: exponent of the kernel", before, about(-2.0, 0.1)),
            exact("the same under d/dtheta", after, (-0.2, 0.2)),
        ],
    )
