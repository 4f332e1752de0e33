# %% [markdown]
# # How lazy is a state-space network, and is its kernel an inverse Gramian?
#
# In the limit of many units a network is lazy: its kernel does not depend on the draw of its weights, and does not change in
# training. How fast is that limit reached far from a bifurcation, and near one? And is the kernel of a fixed point the
# inverse of the observability Gramian W_o, which solves `A^T W_o + W_o A = -C^T C`?
#
# `python examples/width_and_control.py --quick` is a quick run; the default takes a few minutes.

# %%
import argparse
import pathlib

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
from scipy.linalg import solve_continuous_lyapunov
from scipy.optimize import brentq

import ssntk

jax.config.update("jax_enable_x64", True)
parser = argparse.ArgumentParser(description="Kernels against width, and against the observability Gramian.")
parser.add_argument("--quick", action="store_true", help="tiny networks and few seeds")
parser.add_argument("--out", type=pathlib.Path, default="results/width_and_control", help="folder (default %(default)s)")
chosen = parser.parse_args()
quick = chosen.quick
chosen.out.mkdir(parents=True, exist_ok=True)
draw = np.random.default_rng(0)

# %% A. Width: three smooth inputs and targets, the same for every network, in steps of DT from x = 0. Inputs are weak, so
# that states stay near x = 0, where the distance from the bifurcation is set. Training ends at the fraction LEFT of the
# loss.
WIDTHS = [8, 16] if quick else [16, 32, 64, 128, 256, 512]
TRAINED, MOST_STEPS = (2, 20) if quick else (12, 400)
DT, RATE, LEFT = 0.25, 0.02, 0.25
TIMES = np.linspace(0.0, 20.0, 11)
waves = np.sin(draw.uniform(0.2, 1.0, (3, 1, 2)) * TIMES[:, None] + draw.uniform(0, 2 * np.pi, (3, 1, 2)))
PROBE = ssntk.Probe(TIMES, 0.2 * draw.normal(size=(3, 1, 2)) * waves)
TARGET = 0.5 * np.sin(np.pi * TIMES / TIMES[-1]) * np.array([[1.0], [0.8], [0.6]])


def seeds(n):
    """The number of networks of n units: more if they are cheap, since the estimate of the spread is uncertain."""
    return 6 if quick else min(400, 25_600 // n)


def network(n, seed, near):
    """A network at gain 0.5, or if `near`, at the gain at which its slowest mode at x = 0 decays at RATE. Also whether that
    mode is a pair."""
    model = ssntk.CTRNN(n, 2, 1, key=jr.key(10_000 * n + seed))
    eigenvalues = np.linalg.eigvals(np.asarray(model.weight))

    def growth(gain):
        return np.log(np.abs(1 + DT * (gain * eigenvalues - 1))) / DT

    gain = brentq(lambda gain: growth(gain).max() + RATE, 0.2, 5.0) if near else 0.5
    pair = abs(eigenvalues[np.argmax(growth(gain))].imag) > 1e-9
    return ssntk.EulerMap(eqx.tree_at(lambda m: m.gain, model, jnp.asarray(gain)), DT), pair


def scales(model):
    """D of the NTK parametrisation, in which sqrt(n) times the recurrent and readout weights are trained."""
    widths = (model.n_state, 1.0, 1.0, model.n_state, 1.0)
    return [jnp.full(leaf.shape, width) for leaf, width in zip(model.trainable("readout"), widths, strict=True)]


def kernel(model):
    diagonal = jnp.concatenate([scale.ravel() for scale in scales(model)])
    return np.asarray(ssntk.ntk(model, PROBE, of="readout", preconditioner=diagonal))


@eqx.filter_jit
def train(model, rate):
    """The model after gradient descent, the remaining fraction of the loss, and the number of steps."""

    def put(theta):
        return eqx.tree_at(lambda m: m.trainable("readout"), model, theta)

    def loss(theta):
        given = jax.vmap(jax.vmap(put(theta).readout))(ssntk.simulate(put(theta), PROBE))
        return 0.5 * jnp.sum((given[..., 0] - TARGET) ** 2)

    def step(carry):
        theta, gradient, begin, _, count = carry
        theta = [leaf - rate * g / d for leaf, g, d in zip(theta, gradient, scales(model), strict=True)]
        now, gradient = jax.value_and_grad(loss)(theta)
        return theta, gradient, jnp.where(count < 0, now, begin), now, count + 1

    # Step -1 moves nothing. With it the gradient is compiled only once.
    theta = list(model.trainable("readout"))
    theta, _, begin, end, count = jax.lax.while_loop(
        lambda carry: (carry[3] > LEFT * carry[2]) & (carry[4] < MOST_STEPS),
        step,
        (theta, jax.tree.map(jnp.zeros_like, theta), 1.0, jnp.inf, -1),
    )
    return put(theta), end / begin, count


def spread(kernels):
    """The standard deviation over seeds divided by the mean, as Frobenius norms."""
    return np.sqrt(np.var(kernels, axis=0, ddof=1).sum()) / np.linalg.norm(np.mean(kernels, axis=0))


def geometric_mean(drifts):
    return np.exp(np.mean(np.log(drifts)))


def exponent(statistic, samples):
    """The slope of the logarithm of a statistic over log n, and its standard error from 200 bootstraps over seeds."""
    drawn = [[s[draw.integers(len(s), size=len(s))] for s in samples] for _ in range(200)]
    fits = [np.polyfit(np.log(WIDTHS), np.log([statistic(s) for s in sets]), 1)[0] for sets in (samples, *drawn)]
    return fits[0], np.std(fits[1:])


lazy = {}
for label, near in (("far: gain 0.5", False), (f"near: decay {RATE:g}", True)):
    kernels, drifts = [], []
    for n in WIDTHS:
        models, pairs = zip(*(network(n, seed, near) for seed in range(seeds(n))), strict=True)
        before = np.array([kernel(model) for model in models])
        tops = np.linalg.eigvalsh(before)[:, -1]
        trained, left, counts = zip(*map(train, models[:TRAINED], 1 / tops[:TRAINED]), strict=True)
        change = np.array([kernel(model) for model in trained]) - before[:TRAINED]
        drift = np.linalg.norm(change, axis=(1, 2)) / np.linalg.norm(before[:TRAINED], axis=(1, 2))
        print(
            f"{label:<16} n = {n:3d}: spread {spread(before):.3f} (top eigenvalue {tops.std(ddof=1) / tops.mean():.3f}), "
            f"drift {geometric_mean(drift):.4f} ({drift.min():.4f} to {drift.max():.4f}), {np.median(counts):.0f} steps, "
            f"at most {max(left):.2f} of the loss left, slowest mode a pair in {sum(pairs)} of {seeds(n)}",
            flush=True,
        )
        kernels.append(before)
        drifts.append(drift)
    lazy[label] = ((spread, kernels), (geometric_mean, drifts))
    for name, (slope, deviation) in zip(("spread", "drift"), (exponent(*part) for part in lazy[label]), strict=True):
        print(f"{label}: {name} ~ n^({slope:.2f} +- {deviation:.2f})")

# %% B. The observability Gramian, and the kernels of a fixed point. In these models every weight drives one unit, and all
# units have the same inputs: F F^T = c I, so that K* = c (A^T A)^-1.
UNITS, READOUTS, DRAWS = (6, 2, 1) if quick else (16, 4, 20)
IDENTITY = np.eye(UNITS)


def gramian(A, C):
    return solve_continuous_lyapunov(A.T, -C.T @ C)


def compare(K, W):
    """The cosine of log K and log W without their traces, the best q in K ~ W^q, and |cos| of K's first eigenvector with W's
    first and last."""
    (K_values, K_vectors), (W_values, W_vectors) = np.linalg.eigh(K), np.linalg.eigh(W)
    overlaps = (K_vectors.T @ W_vectors) ** 2
    K_logs, W_logs = (np.log(values) - np.log(values).mean() for values in (K_values, W_values))
    inner = K_logs @ overlaps @ W_logs
    return inner / np.sqrt(K_logs @ K_logs * (W_logs @ W_logs)), inner / (W_logs @ W_logs), *np.sqrt(overlaps[-1, [-1, 0]])


def at_rest(case, seed):
    """(model, x*, u, A, C): a random network at a stable fixed point; `near`: the rightmost eigenvalue is -RATE."""
    u = np.zeros(2) if case == "tanh, near" else np.array([1.0, 0.5])
    kind = ssntk.LinearSSM if case.startswith("linear") else ssntk.CTRNN
    model = kind(UNITS, 2, READOUTS, key=jr.key(seed))
    weight = np.asarray(model.weight)
    first = np.linalg.eigvals(weight).real.max()
    if case == "linear, symmetric":
        weight = (weight + weight.T) / 2
    elif case == "linear, near":
        weight = weight - (first + RATE) * IDENTITY
    elif kind is ssntk.CTRNN:
        weight = weight * ((1 - RATE) / first if case == "tanh, near" else 0.5)
    model = eqx.tree_at(lambda m: m.weight, model, jnp.asarray(weight))
    if kind is ssntk.LinearSSM:
        x = jnp.linalg.solve(model.weight, -model.input_weight @ u)
    else:
        x = jnp.asarray(ssntk.find_fixed_points(model, u, n_starts=4).x[0]) if u.any() else jnp.zeros(UNITS)
    A = np.asarray(jax.jacfwd(lambda x: model.vector_field(0.0, x, jnp.asarray(u)))(x))
    return model, x, u, A, np.asarray(jax.jacfwd(model.readout)(x))


def white_kernel(model, x, u=None, nodes=2000):
    """P = int K(w) dw / 2 pi, the covariance of the state when theta is white noise, with w = tan(phi)."""
    phi = (np.arange(nodes) + 0.5) * np.pi / 2 / nodes
    kernels = np.asarray(ssntk.frequency_ntk(model, x, np.tan(phi), u=u).real)
    return np.sum(kernels / np.cos(phi)[:, None, None] ** 2, axis=0) / (2 * nodes)


def trajectory_kernel(model, x, u):
    """int S S^T dt from x* on, (n, n): the sum of the diagonal blocks of K_int."""
    K = ssntk.ntk(model, ssntk.Probe(TIMES, [u], x), weights="trapezoid", integrator=ssntk.Integrator(dt=DT))
    return np.einsum("tatb->ab", np.asarray(K).reshape(TIMES.size, UNITS, TIMES.size, UNITS))


def initial_state_fisher(model, x, u, horizon=100.0):
    """int J^T J dt with J = dy/dx0, by the Gauss-Legendre rule, until all has decayed."""
    nodes, weights = (part * horizon / 2 for part in np.polynomial.legendre.leggauss(60 if quick else 300))
    probe = ssntk.Probe(np.append(0.0, nodes + horizon / 2), [u], x)
    J = np.asarray(ssntk.initial_state_jacobian(model, probe, of="readout", integrator=ssntk.Integrator(dt=0.1)))[0, 1:]
    return np.einsum("t,tma,tmb->ab", weights, J, J)


def forced_by(A, F):
    """The linear system dx/dt = A x + F theta."""
    return ssntk.VectorField(lambda t, x, u, theta: A @ x + F @ theta, jnp.zeros(F.shape[1]), len(A))


CASES = ["linear, symmetric", "linear", "linear, near", "tanh", "tanh, near"][: 1 if quick else None]
errors, found = {}, {}
for case in CASES:
    for seed in range(DRAWS):
        model, x, u, A, C = at_rest(case, seed)
        steady = np.asarray(ssntk.steady_state_ntk(model, x, u=u))
        c, W, full = np.trace(A @ steady @ A.T) / UNITS, gramian(A, C), gramian(A, IDENTITY)
        pairs = {"K* = c (A^T A)^-1": (steady, c * np.linalg.inv(A.T @ A))}
        if not case.endswith("near"):
            P = white_kernel(model, x, u)
            pairs["theta white: A P + P A^T = -F F^T"] = P, solve_continuous_lyapunov(A, -c * IDENTITY)
            pairs["theta = x0: J^T J = W_o"] = initial_state_fisher(model, x, u), W
            F = np.linalg.solve(W, C.T)
            pairs["F = W_o^-1 C^T: P = W_o^-1"] = white_kernel(forced_by(A, F), np.zeros(UNITS)), np.linalg.inv(W)
        if case == "linear, symmetric":
            pairs["A symmetric, C = I: K* = 4 c W_o^2"] = steady, 4 * c * full @ full
            pairs["A symmetric, C = I: P = c W_o"] = P, c * full
        for name, (one, other) in pairs.items():
            errors[name] = max(errors.get(name, 0.0), np.linalg.norm(one - other) / np.linalg.norm(other))
        for name, K in (("K*", steady), ("K_int", trajectory_kernel(model, x, u))):
            for observed, gram in (("C = I", full), (f"{READOUTS} readouts", W)):
                found.setdefault((observed, case, name), []).append(compare(K, gram))
for name, value in errors.items():
    print(f"{name}: largest relative error {value:.1e}")
for (observed, case, name), rows in found.items():
    low, (cosine, q, first, last), high = np.quantile(rows, [0, 0.5, 1], axis=0)
    print(
        f"{observed:<10} {case:<17} {name:<5}: cosine {cosine:+.2f} ({low[0]:+.2f} to {high[0]:+.2f}), power {q:+.2f}, "
        f"first eigenvector on the first of W_o {first:.2f}, on its last {last:.2f}"
    )

# %% Towards the bifurcation of x = 0 in the gain, where F F^T = I: a real eigenvalue reaches the axis (pitchfork) or a pair
DISTANCES = np.geomspace(1e-2, 1e-5, 7)
laws = {}
for seed in range(DRAWS):
    weight = np.asarray(ssntk.CTRNN(UNITS, 0, 1, key=jr.key(seed)).weight)
    eigenvalues = np.linalg.eigvals(weight)
    first = eigenvalues[np.argmax(eigenvalues.real)]
    tops = []
    for gain in (1 - DISTANCES) / first.real:
        K = np.asarray(ssntk.steady_state_ntk(ssntk.CTRNN.from_weights(weight, gain=gain), np.zeros(UNITS)))
        W = gramian(gain * weight - IDENTITY, IDENTITY)
        tops.append([np.linalg.eigvalsh(matrix)[-1] for matrix in (K, W, np.linalg.inv(W))])
    slopes = np.polyfit(np.log(DISTANCES), np.log(tops), 1)[0]
    laws.setdefault("pair" if first.imag else "real eigenvalue", []).append((*slopes, compare(K, W)[2]))
for kind, rows in laws.items():
    low, middle, high = np.quantile(rows, [0, 0.5, 1], axis=0)
    print(f"{kind} at the axis, {len(rows)} networks, exponents of the distance, median (range):")
    for name, column in zip(("K*", "W_o", "W_o^-1"), np.transpose([low, middle, high]), strict=False):
        print("  {name:<6} {1:+.3f} ({0:+.3f} to {2:+.3f})".format(*column, name=name))
    print(f"  cosine of the first eigenvectors of K* and W_o {middle[3]:.2f} ({low[3]:.2f} to {high[3]:.2f})")

# %% The figure
figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), layout="constrained", width_ratios=(1, 1, 1.25))
for (label, parts), colour in zip(lazy.items(), ("#0072B2", "#D55E00"), strict=True):
    for ax, (statistic, samples) in zip(axes, parts, strict=False):
        ax.loglog(WIDTHS, [statistic(sample) for sample in samples], "o-", color=colour, label=label)
    axes[1].loglog(np.repeat(WIDTHS, TRAINED), np.ravel(parts[1][1]), ".", color=colour, alpha=0.4, markersize=4, zorder=1)
labels = "standard deviation over seeds / mean", "change of the kernel in training / kernel"
for ax, label in zip(axes, labels, strict=False):
    low, high = ax.get_ylim()
    ax.loglog(WIDTHS, high * (np.asarray(WIDTHS) / WIDTHS[0]) ** -0.5, ":", color="black", label="slope -1/2")
    ax.set(xlabel="units $n$", ylabel=label, ylim=(low, 5 * high))
    ax.set_xticks(WIDTHS, [str(n) for n in WIDTHS])
    ax.minorticks_off()
    ax.legend(frameon=False, fontsize="small", loc="upper right")
for observed, colour, shift in (("C = I", "#009E73", -0.12), (f"{READOUTS} readouts", "#CC79A7", 0.12)):
    cosines = [[row[0] for row in found[observed, case, "K*"]] for case in CASES]
    places = np.repeat(np.arange(len(CASES)) + shift, DRAWS)
    axes[2].plot(np.ravel(cosines), places, ".", color=colour, label=f"$W_o$ of {observed}")
axes[2].axvline(-1, color="black", linestyle=":", label=r"$K^* \propto W_o^{-1}$")
axes[2].set_yticks(range(len(CASES)), CASES)
axes[2].set(xlim=(-1.1, 1.1), ylim=(len(CASES) - 0.5, -0.5), xlabel="cosine of log $K^*$ and log $W_o$, less their traces")
axes[2].legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(0.05, 0.5))
for ax in axes:
    ax.spines[["top", "right"]].set_visible(False)
figure.savefig(chosen.out / "width_and_control.png", dpi=110)
print(chosen.out / "width_and_control.png")
