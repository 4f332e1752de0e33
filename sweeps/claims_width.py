"""Rows of claims.py about feed-forward networks of finite width: corrections, a budget of parameters, and training."""

import numpy as np
from claims_judge import Found, claim, cosines, exact, measured, on_sphere, ratio_of_eigenvalues, sampled, slope
from claims_layers import finite, several

from ssntk import infinite


# %% Finite width
@claim(
    "finite-width",
    "corrections of finite width N are O(1 / N)",
    "the mean over networks differs by O(1 / N); one network scatters by N^(-1/2)",
)
def finite_width(quick: bool) -> Found:
    # The mean of one entry: two inputs at the angle of 120 degrees, small widths, since its noise falls slower than it.
    pair, seeds = np.array([[1.0, 0.0], [-0.5, 0.75**0.5]]), 60_000 if quick else 100_000
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
