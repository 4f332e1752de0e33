"""Rows of claims.py about random recurrent networks: at rest, at their first bifurcation, on trajectories."""

import numpy as np
import scipy.linalg
from claims_judge import Found, about, claim, exact, measured, sampled, slope

import ssntk
from ssntk import infinite
from ssntk.threads import one_blas_thread

# The number of units, and how many networks of it are drawn.
DRAWS = {8: 20_000, 16: 20_000, 32: 10_000, 64: 4000, 128: 2000, 256: 400, 512: 200}
QUICK_DRAWS = {8: 400, 32: 100, 128: 12}
ROOM = 2**21


def weights(seed: int, n: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, n)) / n**0.5


# %% Loss of stability at rest
@one_blas_thread()
def crossings(n: int, draws: int) -> tuple[np.ndarray, float]:
    """The gains at which random networks lose stability, and the share of them that does so by a real eigenvalue.

    Networks without an eigenvalue of positive real part never do: their gain is infinite.
    """
    random, top, real = np.random.default_rng(n), [], []
    left = draws
    while left:
        now = min(left, max(ROOM // n**2, 1))
        values = np.linalg.eigvals(random.standard_normal((now, n, n)) / n**0.5)
        first = np.take_along_axis(values, values.real.argmax(axis=1)[:, None], axis=1)[:, 0]
        top.append(first.real)
        real.append(first.imag == 0)
        left -= now
    largest = np.concatenate(top)
    gains = np.where(largest > 0, 1 / np.where(largest > 0, largest, 1.0), np.inf)
    return gains, float(np.concatenate(real).mean())


@claim(
    "crossing",
    "a random network loses its stability at rest at the gain 1",
    "1 + about 0.3 / sqrt n for n units, quartiles of 0.6 / sqrt n; a real eigenvalue crosses first in about half of them",
)
def crossing(quick: bool) -> Found:
    asked = QUICK_DRAWS if quick else DRAWS
    stated, large, shares = [], [], []
    print("    n      median   quartiles          real first   networks")
    for n, draws in asked.items():
        gains, share = crossings(n, draws)
        low, middle, high = np.quantile(gains, [0.25, 0.5, 0.75])
        print(f"    {n:<5}  {middle:.4f}   {low:.4f} to {high:.4f}   {share:.3f}        {draws}")
        check = measured(f"median gain, n = {n}", gains, (0.95, 1.05), median=True)
        stated.append(check)
        if n >= 128:
            large.append(check._replace(accepted=(0.8, 1.2) if quick else (0.95, 1.05)))
        error = 1.96 * (share * (1 - share) / draws) ** 0.5
        shares.append(
            exact(f"share of real eigenvalues, n = {n}", share, (0.3, 0.7))._replace(
                low=share - error, high=share + error, seeds=draws
            )
        )
    return Found(stated, large, shares)


@claim(
    "stability-radius",
    "a random network at rest is as far from instability as its spectral radius says, 1 - g",
    "(1 - g^2)^(3/2) / s_+, since random networks are not normal; the median of n units is larger by 1 + 1.7 g nu^(-2/3)",
)
@one_blas_thread()
def stability_radius(quick: bool) -> Found:
    n, seeds = 64 if quick else 128, 15 if quick else 40
    stated, instead = [], []
    for gain in (0.5, 0.8):
        radii = []
        for seed in range(seeds):
            matrix = gain * weights(seed, n) - np.eye(n)
            if np.linalg.eigvals(matrix).real.max() < 0:
                radii.append(float(ssntk.stability_radius(matrix)[0]))
        radii = np.array(radii)
        stated.append(
            measured(f"n = {n}, g = {gain}: median radius over 1 - g", radii / (1 - gain), (0.9, 1.1), median=True)
        )
        law = float(infinite.stability_radius(gain, n))
        instead.append(measured(f"n = {n}, g = {gain}: over the law", radii / law, (0.75, 1.35), median=True))
    return Found(stated, instead=instead)


@claim(
    "orthogonal",
    "orthogonal weights keep a network farther from instability than Gaussian ones of the same gain",
    "1 - g against (1 - g^2)^(3/2) / s_+: by 2.1 at g = 0.8 and 2.9 at g = 0.9",
)
@one_blas_thread()
def orthogonal(quick: bool) -> Found:
    n, gain, seeds = 64 if quick else 128, 0.8, 30 if quick else 40
    ratios, own = [], []
    for seed in range(seeds):
        gaussian = weights(seed, n)
        turned, upper = np.linalg.qr(gaussian)
        turned = turned * np.sign(np.diag(upper))
        own.append(np.linalg.svd(gain * turned - np.eye(n), compute_uv=False)[-1])
        ratios.append(own[-1] / np.linalg.svd(gain * gaussian - np.eye(n), compute_uv=False)[-1])
    return Found(
        [
            measured(
                f"n = {n}, g = {gain}: smallest singular value over that of Gaussian weights",
                ratios,
                (1.2, 9.0),
                median=True,
            )
        ],
        instead=[measured("the same over 1 - g", np.array(own) / (1 - gain), about(1.0, 0.1), median=True)],
    )


# %% The kernel at rest
@one_blas_thread()
def at_rest(gain: float, n: int, seeds: int) -> dict[str, np.ndarray]:
    """Measured over law of networks at rest: the two edges, the trace of the kernel and its participation ratio."""
    smallest, largest = infinite.singular_values(gain)
    nu = infinite.resolved(n, gain)
    rows = []
    for seed in range(seeds):
        s = np.linalg.svd(gain * weights(seed, n) - np.eye(n), compute_uv=False)
        k = s**-2.0
        rows.append(
            [
                s[-1] / smallest / (1 + 1.7 * gain * nu ** (-2 / 3)),
                s[0] / largest,
                k.mean() / infinite.trace(gain),
                k.sum() ** 2 / (k**2).sum() / n / infinite.participation_ratio(gain),
            ]
        )
    return dict(zip(("smallest", "largest", "trace", "participation ratio"), np.array(rows).T, strict=True))


@claim(
    "rest-spectrum",
    "the singular values of a random network's Jacobian end at the edges of an information-plus-noise matrix",
    "s_+ and (1 - g^2)^(3/2) / s_+ for nu = n (1 - g^2)^2 >= 20",
)
def rest_spectrum(quick: bool) -> Found:
    n, seeds = (64, 12) if quick else (256, 30)
    near, far = at_rest(0.95, 128, 40), at_rest(0.5 if quick else 0.6, n, seeds)
    edge = infinite.resolved(128, 0.95)
    bare = near["smallest"] * (1 + 1.7 * 0.95 * edge ** (-2 / 3))
    resolved = [
        measured(f"n = {n}: largest over law", far["largest"], (0.95, 1.05), median=True),
        measured(f"n = {n}: smallest over the law of n units", far["smallest"], (0.8, 1.2), median=True),
    ]
    return Found(
        [measured("n = 128, g = 0.95, nu = 1.2: smallest over law", bare, (0.8, 1.2), median=True), *resolved], resolved
    )


@claim(
    "rest-kernel",
    "the steady-state kernel at rest has the mean eigenvalue 1 / (1 - g^2) and the participation ratio n (1 - g^2)^2",
    "medians for nu >= 20; the mean of the trace does not exist",
)
def rest_kernel(quick: bool) -> Found:
    n, seeds = (64, 12) if quick else (256, 30)
    near, far = at_rest(0.95, 128, 40), at_rest(0.5 if quick else 0.6, n, seeds)
    names = ("trace", "participation ratio")
    resolved = [measured(f"n = {n}: {name} over law", far[name], (0.85, 1.15), median=True) for name in names]
    unresolved = [
        measured(f"n = 128, g = 0.95, nu = 1.2: {name} over law", near[name], (0.85, 1.15), median=True) for name in names
    ]
    return Found([*unresolved, *resolved], resolved)


# %% Trajectories
def traces(horizon: float, n: int, seeds: int) -> np.ndarray:
    """log tr K of networks at the gain 1 from rest under a constant drive, K the trajectory kernel of the biases."""
    times = np.linspace(0, horizon, 41)
    trapezoid = np.full(41, times[1])
    trapezoid[[0, -1]] /= 2
    found = []
    for seed in range(seeds):
        values, vectors = np.linalg.eig(weights(seed, n) - np.eye(n))
        inverse = np.linalg.inv(vectors)
        # |S(t)|^2 of S = int exp(A s) ds = V f(t) V^-1, with the eigenvalues f of S.
        both = (vectors.conj().T @ vectors).T * (inverse @ inverse.conj().T)
        f = np.expm1(values * times[:, None]) / values
        found.append(np.log(trapezoid @ np.einsum("ti,ij,tj->t", f, both, f.conj(), optimize=True).real))
    return np.array(found)


def quartiles(values: np.ndarray) -> float:
    """The distance of the quartiles: single networks are far from all others, so that the variance is of no use."""
    return float(np.subtract(*np.quantile(values, [0.75, 0.25])))


@claim(
    "trajectory-spread",
    "depth / width sets how far networks scatter: of recurrent ones the horizon over the number of units, T / n",
    "for shared weights at the gain 1 more nearly T^2 / n; the rank of the kernel is 13.5 n / T^2",
)
@one_blas_thread()
def trajectory_spread(quick: bool) -> Found:
    seeds = 150 if quick else 400
    start, linear, square = ((4, 16), (16, 64), (8, 64)) if quick else ((5, 32), (20, 128), (10, 128))
    first, *others = (traces(horizon, n, seeds) for horizon, n in (start, linear, square))

    def ratio(one: np.ndarray, other: np.ndarray) -> float:
        return quartiles(one) / quartiles(other)

    name = "quartiles of log tr K, (T, n) = "
    return Found(
        [sampled(f"{name}{linear} over {start}", [others[0], first], ratio, (0.8, 1.25))],
        instead=[
            sampled(f"{name}{square} over {start}", [others[1], first], ratio, (0.5, 1.25)),
            *(
                exact(f"law of the rank: PR T^2 / n at T = {t}", ratios * t**2, (12.0, 14.0))
                for t in (40, 80)
                for ratios in [infinite.trajectory(np.linspace(0, t, 401), 1.0)[1]]
            ),
        ],
    )


@claim(
    "recurrent-ntk",
    "a wide recurrent network with shared weights has a deterministic kernel, which a recursion over pairs of times gives",
    "ssntk.mean_field; one network scatters by O(n^(-1/2))",
)
@one_blas_thread()
def recurrent_ntk(quick: bool) -> Found:
    sizes, seeds, steps, gain = (24, 96) if quick else (50, 200), 12, 5, 1.2
    inputs = np.cos(np.arange(steps + 1.0))[:, None]
    ratios, off = {n: [] for n in sizes}, {n: [] for n in sizes}
    for n in sizes:
        for seed in range(seeds):
            random = np.random.default_rng(seed)
            w, u = random.standard_normal((n, n)) / n**0.5, random.standard_normal((n, 1))
            # The conditions of the law: numbers of zero mean and of the stated variance.
            u = (u - u.mean()) / u.std()
            model = ssntk.EulerMap(ssntk.CTRNN.from_weights(w, input_weight=u, gain=gain), dt=1.0)
            field = ssntk.mean_field(model, ssntk.Probe(np.arange(steps + 1.0), inputs[None])).kernel
            kernel = forward(w, u[:, 0], gain, inputs[:, 0])
            ratios[n].append(np.trace(kernel) / np.trace(field))
            off[n].append(np.linalg.norm(kernel - field) / np.linalg.norm(field))
    return Found(
        [
            measured(f"n = {sizes[1]}, g = {gain}, 5 steps: trace over the recursion", ratios[sizes[1]], (0.9, 1.1)),
            measured(f"relative distance of one network's kernel, n = {sizes[1]}", off[sizes[1]], (0.0, 0.2)),
            sampled(
                f"exponent of n in that distance, n = {sizes[0]} and {sizes[1]}",
                [off[n] for n in sizes],
                lambda *parts: slope(sizes, [part.mean() for part in parts]),
                (-1.0, -0.25),
            ),
        ]
    )


def forward(w: np.ndarray, u: np.ndarray, gain: float, inputs: np.ndarray) -> np.ndarray:
    """The kernel of x <- g W tanh(x) + u s + b from x = 0, averaged over the units; theta holds W, u and b.

    The sensitivity at time t is the sum over earlier steps s of P(t, s) times the signals v(s) that theta multiplies, with
    P(t, s) the product of the derivatives of the steps between. So the kernel is sum v(s).v(s') tr P(t, s) P(t', s')^T.
    """
    n, steps = len(w), len(inputs) - 1
    x, signals, after = np.zeros(n), [], [[]]
    for s in inputs[:-1]:
        activity = np.tanh(x)
        signals.append(np.concatenate([gain * activity, [s, 1.0]]))
        through = gain * w * (1 - activity**2)
        after.append([*(through @ before for before in after[-1]), np.eye(n)])
        x = gain * w @ activity + u * s
    overlap = np.array(signals) @ np.array(signals).T
    kernel = np.zeros((steps + 1, steps + 1))
    flat = [np.array(parts).reshape(len(parts), n * n) for parts in after]
    for t in range(1, steps + 1):
        for t2 in range(1, steps + 1):
            kernel[t, t2] = np.sum((flat[t] @ flat[t2].T) * overlap[:t, :t2]) / n
    return kernel


# %% Control
@claim(
    "training-gramian",
    "under gradient flow, e' = -K e, the kernel is proportional to the inverse of the observability Gramian",
    "W_o = K^(-1) / 2 if every error is observed",
)
def training_gramian(quick: bool) -> Found:
    worst = []
    for seed in range(12):
        root = np.random.default_rng(seed).standard_normal((10, 20))
        kernel = root @ root.T / 20
        gramian = scipy.linalg.solve_continuous_lyapunov(-kernel, -np.eye(10))
        worst.append(np.abs(2 * gramian @ kernel - np.eye(10)).max())
    return Found([exact("largest entry of 2 W_o K - 1, 12 kernels", max(worst), (0.0, 1e-8))])


@claim(
    "observability",
    "the kernel of a recurrent network is proportional to the inverse of the network's observability Gramian",
    "K = (A^T A)^(-1) at rest; for symmetric A it is 4 W_o^2, the square and not the inverse",
)
def observability(quick: bool) -> Found:
    alike, square = [], []
    for seed in range(20):
        matrix = 0.5 * weights(seed, 16) - np.eye(16)
        logs = []
        gramian = scipy.linalg.solve_continuous_lyapunov(matrix.T, -np.eye(16))
        for one in (np.linalg.inv(matrix.T @ matrix), gramian):
            values, vectors = np.linalg.eigh(one)
            log = (vectors * np.log(values)) @ vectors.T
            logs.append(log - np.trace(log) / 16 * np.eye(16))
        alike.append(np.sum(logs[0] * logs[1]) / np.linalg.norm(logs[0]) / np.linalg.norm(logs[1]))
        even = (matrix + matrix.T) / 2
        gramian = scipy.linalg.solve_continuous_lyapunov(even, -np.eye(16))
        square.append(np.abs(4 * gramian @ gramian @ even @ even - np.eye(16)).max())
    return Found(
        [measured("n = 16, g = 0.5: cosine of log K and log W_o, without their traces", alike, (-1.0, -0.9))],
        instead=[exact("symmetric A: largest entry of 4 W_o^2 K^(-1) - 1", max(square), (0.0, 1e-9))],
    )
