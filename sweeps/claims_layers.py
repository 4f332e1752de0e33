"""Rows of claims.py about feed-forward networks: wide, deep, and of finite width."""

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
    sampled,
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


# %% Finite width
@claim(
    "finite-width",
    "corrections of finite width N are O(1 / N)",
    "the mean over networks differs by O(1 / N); one network scatters by N^(-1/2)",
)
def finite_width(quick: bool) -> Found:
    # The mean of one entry: two inputs at the angle of 120 degrees, small widths, since its noise falls slower than it.
    pair, seeds = np.array([[1.0, 0.0], [-0.5, 0.75**0.5]]), 5000 if quick else 100_000
    entry = infinite.relu_ntk(-0.5, 4)
    bias = [finite(np.random.default_rng(width), pair, width, 4, networks=(seeds,))[0][:, 0, 1] / entry for width in (8, 16)]
    widths, seeds, depth = ((32, 64, 128), 150, 3) if quick else ((64, 128, 256, 512), 400, 3)
    inputs = on_sphere(np.random.default_rng(7), 20, 10)
    limit = np.linalg.eigvalsh(infinite.relu_ntk(cosines(inputs), depth))[0]
    smallest, alone = [], []
    for width in widths:
        kernels, _ = several(seeds, inputs, width, depth)
        smallest.append(np.linalg.eigvalsh(kernels)[:, 0] / limit)
        alone.append(kernels[:, 0, 0] / depth)
    return Found(
        [
            sampled(
                "exponent of N in the mean of Theta - its limit, cosine -1/2, 4 layers, N = 8 and 16",
                bias,
                lambda *parts: slope((8, 16), [abs(part.mean() - 1) for part in parts]),
                (-1.4, -0.6),
            ),
        ],
        instead=[
            sampled(
                f"exponent of N in 1 - mean of lambda_min / limit, 20 inputs, N = {widths[0]} to {widths[-1]}",
                smallest,
                lambda *parts: slope(widths, [max(1 - part.mean(), 1e-9) for part in parts]),
                (-1.2, -0.7),
            ),
            sampled(
                "exponent of N in the standard deviation of Theta(x, x)",
                alone,
                lambda *parts: slope(widths, [part.std() for part in parts]),
                (-0.65, -0.35),
            ),
            measured(f"mean of Theta(x, x) over its limit, N = {widths[0]}", alone[0], (0.95, 1.05)),
            measured(f"mean of lambda_min / limit, N = {widths[-1]}, {depth} layers", smallest[-1], (0.8, 1.0)),
        ],
    )


@claim(
    "depth-over-width",
    "the relative variance of Theta(x, x) is set by depth / width and grows exponentially with it",
    "log(1 + variance) N / L is about constant, L hidden layers of width N",
)
def depth_over_width(quick: bool) -> Found:
    cells, seeds = (((2, 16), (4, 32), (8, 32)), 400) if quick else (((4, 32), (8, 64), (16, 128), (16, 64)), 2000)
    one = np.ones((1, 1))
    samples = [several(seeds, one, width, hidden + 1)[0][:, 0, 0] for hidden, width in cells]

    def rate(hidden: int, width: int, part: np.ndarray) -> float:
        return float(np.log1p(part.var() / part.mean() ** 2) * width / hidden)

    checks = [
        sampled(
            f"rate at {cells[i]} over that at {cells[0]}",
            [samples[i], samples[0]],
            lambda a, b, i=i: rate(*cells[i], a) / rate(*cells[0], b),
            (0.6, 1.6),
        )
        for i in range(1, len(cells))
    ]
    return Found(checks, instead=[sampled(f"rate at {cells[0]}", samples[:1], lambda a: rate(*cells[0], a), (2.0, 6.0))])


@claim(
    "parameter-budget",
    "at P parameters and depth L the width is N = P / L, and there is a best depth",
    "N = sqrt(P / L), since a layer has N^2 weights; then a best depth exists",
)
def parameter_budget(quick: bool) -> Found:
    budget, seeds, depths = (10_000, 10, (2, 4, 8, 16, 32)) if quick else (100_000, 20, (2, 4, 8, 16, 32))

    def parameters(depth: int, width: int) -> int:
        return (depth - 1) * width**2 + 2 * width

    inputs = on_sphere(np.random.default_rng(3), 20, 3)
    kappa = []
    for depth in depths:
        kernels, _ = several(seeds, inputs, round((budget / depth) ** 0.5), depth)
        kappa.append(np.log(ratio_of_eigenvalues(kernels)))
    best = int(np.argmin([np.median(part) for part in kappa]))
    inner = min(max(best, 1), len(depths) - 2)
    ends = [(depths[end], kappa[end]) for end in (0, len(depths) - 1)]
    return Found(
        [exact("weights of 8 layers of width P / L, over P = 1e6", parameters(8, 10**6 // 8) / 1e6, (0.5, 2.0))],
        [],
        [
            exact("the same of width sqrt(P / L)", parameters(8, round((10**6 / 8) ** 0.5)) / 1e6, (0.5, 2.0)),
            *(
                measured(f"log of kappa at depth {end} over that at depth {depths[inner]}, P = {budget:g}", part, (0, 1e9))
                for end, other in ends
                for part in [other - kappa[inner]]
            ),
        ],
    )


@claim(
    "linear-resnet",
    "covariance and kernel of a linear residual network grow exponentially with depth",
    "(1 + s^2)^L and L s^2 (1 + s^2)^(L - 1) for L blocks h + s W h",
)
def linear_resnet(quick: bool) -> Found:
    n, blocks, s, seeds = (50, 8, 0.5, 12) if quick else (300, 8, 0.5, 40)
    found = []
    for seed in range(seeds):
        random = np.random.default_rng(seed)
        layers = [np.eye(n) + s * random.standard_normal((n, n)) / n**0.5 for _ in range(blocks)]
        states = [np.ones(n)]
        for layer in layers:
            states.append(layer @ states[-1])
        behind, trace = np.eye(n), 0.0
        for layer, state in zip(layers[::-1], states[-2::-1], strict=True):
            trace += s**2 * np.sum(behind**2) / n * (state @ state) / n
            behind = behind @ layer
        found.append([states[-1] @ states[-1] / n, trace])
    nngp, ntk = infinite.linear_residual(blocks, s)
    return Found(
        [
            measured(name, column / law, (0.75, 1.25) if quick else (0.9, 1.1))
            for name, column, law in zip(
                ("covariance / law, 8 blocks", "kernel / law"), np.array(found).T, (nngp, ntk), strict=True
            )
        ]
    )


# %% Training
@claim(
    "mode-decay",
    "under gradient descent the error of a mode decays as (1 - rate lambda)^k",
    "exact if the kernel does not move, hence for wide networks",
)
def mode_decay(quick: bool) -> Found:
    steps, widths = 60, (32, 2048) if quick else (32, 512, 8192)
    inputs = on_sphere(np.random.default_rng(5), 8, 4)
    off = {width: [] for width in widths}
    for width in widths:
        for seed in range(12):
            random = np.random.default_rng(seed)
            target = random.standard_normal(8)
            w, v = random.standard_normal((width, 4)), random.standard_normal(width)
            scale = (2 / width) ** 0.5

            def output(w: np.ndarray, v: np.ndarray, scale: float = scale) -> tuple[np.ndarray, ...]:
                before = inputs @ w.T
                hidden, back = scale * np.maximum(before, 0), scale * v * (before > 0)
                return hidden @ v, hidden, back

            first, hidden, back = output(w, v)
            values, vectors = np.linalg.eigh(hidden @ hidden.T + (back @ back.T) * (inputs @ inputs.T))
            rate = 0.5 / values[-1]
            expected = vectors @ ((1 - rate * values) ** steps * (vectors.T @ (first - target)))
            for _ in range(steps):
                out, hidden, back = output(w, v)
                error = out - target
                w, v = w - rate * (back * error[:, None]).T @ inputs, v - rate * hidden.T @ error
            off[width].append(np.linalg.norm(output(w, v)[0] - target - expected) / np.linalg.norm(first - target))
    said = [
        measured(f"error of the prediction over the first error, {steps} steps, N = {n}", off[n], (0.0, 0.02), median=True)
        for n in widths
    ]
    return Found(said, said[-1:])
