"""Rows of claims.py about feed-forward networks of infinite width, of two layers and deep."""

import numpy as np
from claims_judge import (
    NORMALISATION,
    Found,
    about,
    claim,
    cosines,
    exact,
    measured,
    on_sphere,
    ratio_of_eigenvalues,
    slope,
)

from ssntk import infinite

U = np.cos(1.0)
PAIR = np.array([[1.0, 0.0], [U, np.sin(1.0)]])


def finite(
    random: np.random.Generator,
    inputs: np.ndarray,
    width: int,
    depth: int,
    *,
    relu: bool = True,
    readout: float = 1.0,
    networks: tuple[int, ...] = (),
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel and covariance of the output (both (*networks, n, n)) with `depth` matrices of standard normal weights.

    Hidden layers are divided by the root of their width, so that their length is about one. The covariance is that over
    the last weights, of variance `readout`^2, given the others.
    """
    hidden, slopes, weights = [np.broadcast_to(inputs, (*networks, *inputs.shape))], [], []
    for _ in range(depth - 1):
        weights.append(random.standard_normal((*networks, width, hidden[-1].shape[-1])))
        before = hidden[-1] @ weights[-1].swapaxes(-1, -2)
        slopes.append((np.sqrt(2.0) * (before > 0) if relu else np.ones_like(before)) / width**0.5)
        hidden.append(before * slopes[-1])
    kernel = hidden[-1] @ hidden[-1].swapaxes(-1, -2)
    covariance = readout**2 * kernel
    last = readout * random.standard_normal((*networks, 1, hidden[-1].shape[-1]))
    back = np.broadcast_to(last, hidden[-1].shape)
    for layer in range(depth - 2, -1, -1):
        back = back * slopes[layer]
        kernel = kernel + (back @ back.swapaxes(-1, -2)) * (hidden[layer] @ hidden[layer].swapaxes(-1, -2))
        back = back @ weights[layer]
    return kernel, covariance


def several(seeds: int, inputs: np.ndarray, width: int, depth: int, **given: object) -> tuple[np.ndarray, np.ndarray]:
    """The same for seeds 0, 1, 2, ...: two arrays (seeds, n, n)."""
    drawn = [finite(np.random.default_rng(seed), inputs, width, depth, **given) for seed in range(seeds)]
    kernels, covariances = zip(*drawn, strict=True)
    return np.array(kernels), np.array(covariances)


# %% Two layers
@claim(
    "two-layer-ntk",
    "the kernel of two layers of ReLU is u arccos(-u) + sqrt(1 - u^2), up to a factor",
    "[2 u arccos(-u) + sqrt(1 - u^2)] / pi; without the 2 it is the covariance (NNGP)",
)
def two_layer_ntk(quick: bool) -> Found:
    kernels, covariances = several(12, PAIR, 10_000 if quick else 200_000, 2)
    kernel, covariance = (each[:, 0, 1] / np.sqrt(each[:, 0, 0] * each[:, 1, 1]) for each in (kernels, covariances))
    stated = (U * np.arccos(-U) + np.sqrt(1 - U**2)) / np.pi
    law = infinite.relu_ntk(U, 2) / infinite.relu_ntk(1.0, 2)
    return Found(
        [measured("kernel at the angle 1, over that at 0", kernel, about(stated, 0.02))],
        instead=[
            measured("the same against the law", kernel, about(law, 0.02)),
            measured("covariance at the angle 1, over that at 0", covariance, about(stated, 0.02)),
        ],
    )


@claim(
    "expectation-form",
    "the kernel of two layers is E v^2 x.x' E phi'phi' + E phi phi",
    "s^2 u k0 + k1 with k0 = arccos(-u) / pi, k1 = [u arccos(-u) + sqrt(1 - u^2)] / pi and s^2 = E v^2",
)
def expectation_form(quick: bool) -> Found:
    # Means over a fine grid of angles of the weights, which is another way than the closed forms.
    angle = (np.arange(200_000) + 0.5) * 2 * np.pi / 200_000
    one, other = np.cos(angle), np.cos(angle - 1.0)
    slopes = 2 * np.mean((one > 0) & (other > 0))
    product = 2 * 2 * np.mean(np.maximum(one, 0) * np.maximum(other, 0))
    checks = []
    for readout in (1.0, 2.0):
        kernels, _ = several(12, PAIR, 10_000 if quick else 100_000, 2, readout=readout)
        expected = readout**2 * U * slopes + product
        checks.append(measured(f"networks / formula, E v^2 = {readout**2:g}", kernels[:, 0, 1] / expected, (0.97, 1.03)))
    return Found(checks)


@claim(
    "nngp-equals-ntk",
    "covariance and kernel are equal for linear networks and differ for nonlinear ones",
    "L layers of linear units have Theta = L K, so that they are equal for one layer only",
)
def nngp_equals_ntk(quick: bool) -> Found:
    seeds, width = 12, 64 if quick else 512
    ratios = {}
    for depth in (1, 2, 3):
        kernels, covariances = several(seeds, PAIR[:1], width, depth, relu=False)
        ratios[depth] = kernels[:, 0, 0] / covariances[:, 0, 0]
    kernels, covariances = several(seeds, PAIR[:1], width, 2)
    unlike = measured("kernel / covariance, two layers of ReLU", (kernels / covariances)[:, 0, 0], (1.05, np.inf))
    one = measured("kernel / covariance, one linear layer", ratios[1], (0.99, 1.01))
    two, three = (measured(f"the same, {depth} linear layers", ratios[depth], (0.9, 1.1)) for depth in (2, 3))
    law = [two._replace(accepted=about(2.0, 0.15)), three._replace(accepted=about(3.0, 0.15))]
    return Found([one, two, three, unlike], [one, unlike], law)


@claim("fisher-dual", "J J^T and J^T J have the same non-zero eigenvalues", "the squared singular values of J")
def fisher_dual(quick: bool) -> Found:
    worst = []
    for seed in range(12):
        jacobian = np.random.default_rng(seed).standard_normal((15, 40))
        pair = [np.sort(np.linalg.eigvalsh(one))[-15:] for one in (jacobian @ jacobian.T, jacobian.T @ jacobian)]
        worst.append(np.abs(pair[0] / pair[1] - 1).max())
    return Found([exact("largest relative difference, 12 matrices", max(worst), (0.0, 1e-11))])


@claim(
    "symmetries",
    "the kernel ignores the order of hidden units, and shifts of the input of a convolution with a global average",
    "exact at every width",
)
def symmetries(quick: bool) -> Found:
    permuted, shifted = [], []
    for seed in range(12):
        random = np.random.default_rng(seed)
        first, last, x = random.standard_normal((30, 5)), random.standard_normal(30), random.standard_normal((4, 5))
        order = random.permutation(30)
        kernels = []
        for w, v in ((first, last), (first[order], last[order])):
            before = x @ w.T
            back = v * (before > 0)
            kernels.append(np.maximum(before, 0) @ np.maximum(before, 0).T + (back @ back.T) * (x @ x.T))
        permuted.append(np.abs(kernels[0] - kernels[1]).max() / np.abs(kernels[0]).max())
        # Circular convolutions of 16 places with filters of 3, ReLU, a mean over places and a readout.
        filters, v, signals = random.standard_normal((8, 3)), random.standard_normal(8), random.standard_normal((2, 16))
        rows = []
        for signal in (*signals, np.roll(signals[0], 5)):
            patches = np.stack([np.roll(signal, -k) for k in range(3)], axis=1)
            before = patches @ filters.T
            by_filter = np.einsum("p,kp,kd->pd", v, before > 0, patches, optimize=True) / 16
            rows.append(np.concatenate([np.maximum(before, 0).mean(axis=0), by_filter.ravel()]))
        shifted.append(abs((rows[0] - rows[2]) @ rows[1]) / (np.linalg.norm(rows[0]) * np.linalg.norm(rows[1])))
    return Found(
        [
            exact("relative change under a permutation, 12 networks", max(permuted), (0.0, 1e-13)),
            exact("relative change under a shift, 12 networks", max(shifted), (0.0, 1e-13)),
        ]
    )


# %% Deep networks at the edge of chaos
@claim(
    "condition-number",
    "the condition number of the kernel of n inputs is about 1 + n / 3",
    "1 + n / 3 as depth -> infinity at fixed n; at a fixed depth it grows faster than n",
)
def condition_number(quick: bool) -> Found:
    counts = (50, 100, 200) if quick else (100, 200, 400, 800)
    fixed = {n: [] for n in counts}
    for seed in range(10):
        points = on_sphere(np.random.default_rng(seed), counts[-1], 3)
        for n in counts:
            fixed[n].append(ratio_of_eigenvalues(infinite.relu_ntk(cosines(points[:n]), 3)))
    most = counts[-1]
    # Ten inputs in ten dimensions are far apart, so that the limit is near.
    depth = 1024 if quick else 16_384
    far = cosines(np.stack([on_sphere(np.random.default_rng(seed), 10, 10) for seed in range(12)]))
    deep = ratio_of_eigenvalues(infinite.relu_ntk(far, depth))
    exponents = [slope(counts, [fixed[n][seed] for n in counts]) for seed in range(10)]
    return Found(
        [
            measured(
                f"3 layers, n = {most} on a sphere: over 1 + n / 3",
                np.array(fixed[most]) / (1 + most / 3),
                (0.9, 1.1),
                median=True,
            )
        ],
        [
            measured(f"{depth} layers, n = 10 in ten dimensions: over 1 + n / 3", deep / (1 + 10 / 3), (0.95, 1.05)),
            *(
                exact(
                    f"4096 layers, n = {n}, all cosines 0: over 1 + n / 3",
                    infinite.relu_condition_number(n, 4096) / (1 + n / 3),
                    (0.98, 1.02),
                )
                for n in (10, 50, 200)
            ),
        ],
        [measured("3 layers, on a sphere: exponent of n", exponents, (1.2, 2.6))],
    )


@claim(
    "depth-correction",
    "the condition number differs from its limit by O(n xi / l) at depth l, with xi ~ log l",
    "(kappa - limit) l / (n log l) is about constant",
)
def depth_correction(quick: bool) -> Found:
    depths = np.array([256, 1024, 4096] if quick else [256, 1024, 4096, 16_384])
    checks = []
    for cosine in (0.0, 0.5):
        excess = np.array([infinite.relu_condition_number(50, d, cosine=cosine) - (1 + 50 / 3) for d in depths])
        found = slope(np.log(depths) / depths, excess)
        checks.append(exact(f"cosine {cosine:g}: exponent of (log l) / l in kappa - limit", found, (0.9, 1.1)))
        factor = excess[-1] * depths[-1] / (50 * np.log(depths[-1]))
        checks.append(exact(f"cosine {cosine:g}: factor of n (log l) / l at l = {depths[-1]}", factor, (0.7, 1.3)))
    return Found(checks)


def edges(n: int, depth: int) -> tuple[float, float]:
    """The smallest and the largest eigenvalue of n inputs of which all cosines are 0."""
    kernel = float(infinite.relu_ntk(0.0, depth))
    return depth - kernel, depth + (n - 1) * kernel


@claim(
    "smallest-eigenvalue",
    "the smallest eigenvalue of the kernel is 3 l / (4 n) at depth l",
    "3 l / 4 for K, so that the claim is about K / n",
    NORMALISATION,
)
def smallest_eigenvalue(quick: bool) -> Found:
    smallest = edges(50, 4096)[0]
    return Found(
        [exact("n = 50, l = 4096: smallest eigenvalue of K over the claim", smallest * 4 * 50 / (3 * 4096), (0.95, 1.05))],
        [exact("the same of K / n", smallest * 4 / (3 * 4096), (0.95, 1.05))],
    )


@claim(
    "largest-eigenvalue",
    "the largest eigenvalue of the kernel is 3 l / 4 at depth l",
    "l (n + 3) / 4 for K, l (n + 3) / (4 n) for K / n",
    NORMALISATION,
)
def largest_eigenvalue(quick: bool) -> Found:
    largest = edges(50, 4096)[1]
    return Found(
        [exact("n = 50, l = 4096: largest eigenvalue of K over the claim", largest * 4 / (3 * 4096), (0.95, 1.05))],
        [exact("the same of K / n", largest * 4 / (3 * 4096 * 50), (0.95, 1.05))],
        [exact("the same of K over l (n + 3) / 4", largest * 4 / (4096 * 53), (0.95, 1.05))],
    )


@claim(
    "deeper-is-better",
    "depth lowers the condition number, with diminishing returns",
    "true of inputs near each other; orthogonal inputs are best separated by few layers",
)
def deeper_is_better(quick: bool) -> Found:
    depths = (2, 8, 32, 128)
    found = []
    for seed in range(12):
        points = cosines(on_sphere(np.random.default_rng(seed), 50, 3))
        found.append([float(np.log2(ratio_of_eigenvalues(infinite.relu_ntk(points, depth)))) for depth in depths])
    dense = np.array(found)
    gains = -np.diff(dense, axis=1)
    # What one more layer gains, at the geometric middle of two depths.
    each = -np.diff(2**dense, axis=1) / np.diff(depths)
    orthogonal = [infinite.relu_condition_number(10, depth) for depth in (2, 8)]
    crowded = [
        measured(f"50 points on a sphere: log2 of kappa at {a} over {b} layers", gain, (0.1, np.inf))
        for a, b, gain in zip(depths, depths[1:], gains.T, strict=False)
    ]
    crowded += [
        measured(f"gain of a layer, {b} to {c} over {a} to {b}", late / early, (0.0, 0.5))
        for a, b, c, early, late in zip(depths, depths[1:], depths[2:], each.T, each.T[1:], strict=False)
    ]
    alone = exact(
        "10 orthogonal inputs: log2 of kappa at 2 over 8 layers", np.log2(orthogonal[0] / orthogonal[1]), (0.1, 1e9)
    )
    return Found([*crowded, alone], crowded)


@claim(
    "inverse-cosine-distance",
    "the kernel of a deep network is affine in the inverse cosine distances of its last activations",
    "K = A W + B off the diagonal, W = ((1 - rho) / 2)^(-1/2)",
)
def inverse_cosine_distance(quick: bool) -> Found:
    depths, n, found = ((16, 64, 256) if quick else (16, 64, 256, 1024)), 15 if quick else 40, []
    for seed in range(12):
        pairs = cosines(on_sphere(np.random.default_rng(seed), n, 3))[np.triu_indices(n, 1)]
        near = [((1 - infinite.relu_nngp(pairs, depth)) / 2) ** -0.5 for depth in depths]
        kernels = [infinite.relu_ntk(pairs, depth) for depth in depths]
        found.append([np.corrcoef(w, kernel)[0, 1] ** 2 for w, kernel in zip(near, kernels, strict=True)])
    by_depth = np.array(found).T
    rises = (np.diff(by_depth, axis=0) > 0).all(axis=0)
    return Found(
        [
            measured(f"R^2 of the fit, {depths[-1]} layers", by_depth[-1], (0.99, 1.0), median=True),
            exact(f"share of 12 sets of {n} points in which R^2 rises with the depth, {depths}", rises.mean(), (0.9, 1.0)),
        ],
        instead=[
            measured(f"R^2 of the fit, {depth} layers", part, (0.3, 1.0), median=True)
            for depth, part in zip(depths[:-1], by_depth, strict=False)
        ],
    )
