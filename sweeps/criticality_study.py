# %% [markdown]
# # How well do cheap numbers foretell a slow, fragile training?
#
# The thresholds of `ssntk.criticality` come from this study. It measures two effects on random networks of seven families,
# three sizes and three horizons. Then it determines which number, known before training, predicts them best. The effects
# are:
#
# - *amplification*: the largest eigenvalue of the trajectory kernel under a constant input and one at the critical
#   frequency, divided by that of the same drives filtered by leaks alone (dy/dt = -y / tau + F theta);
# - *learning rate*: the largest stable one, found by bisection on training steps, divided by the one that leaks alone allow.
#
# `python sweeps/criticality_study.py` resumes where it stopped, with one record for each network. `--summary` only draws.

# %%
import argparse
import json
import math
import os
import pathlib
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.optimize
import scipy.stats
from jax.lax import stop_gradient

import ssntk
from ssntk.critical.distance import CRITICAL, NEAR, relative_distance
from ssntk.kernel.steady_state import forcing
from ssntk.models.theta import theta_positions

HORIZONS = (5.0, 20.0, 100.0)
SIZES = {16: 20, 64: 10, 256: 1}  # units: networks a family
TIMES, AMPLITUDE, INPUTS = 11, 0.3, 2
INTEGRATOR = ssntk.Integrator(diffrax.Heun(), dt=0.25)
# A network is fragile if its kernel is this much larger, or its stable learning rate this much smaller, than by leaks alone.
FACTOR = 10.0


# %%
def ctrnn(weight: jax.Array, key: jax.Array) -> ssntk.CTRNN:
    n = len(weight)
    inputs, bias = jr.normal(key, (INPUTS + 1, n))[:INPUTS].T / INPUTS**0.5, 0.3 * jr.normal(jr.fold_in(key, 1), (n,))
    return ssntk.CTRNN.from_weights(weight, inputs, bias)


def gaussian(n: int, key: jax.Array, u: float) -> Any:
    return ctrnn((0.2 + 0.9 * u) * jr.normal(key, (n, n)) / n**0.5, key)


def orthogonal(n: int, key: jax.Array, u: float) -> Any:
    return ctrnn((0.3 + 0.75 * u) * jr.orthogonal(key, n), key)


def low_rank(n: int, key: jax.Array, u: float) -> Any:
    noise, left, across, angle = jr.split(key, 4)
    m, other = jr.normal(left, (n, 2)), jr.normal(across, (n, 2))
    alpha = 1.2 * jr.uniform(angle, (2,))
    vectors = jnp.cos(alpha)[None] * m + jnp.sin(alpha)[None] * other
    return ctrnn(0.4 * jr.normal(noise, (n, n)) / n**0.5 + (0.3 + 1.3 * u) * m @ vectors.T / n, key)


def chain(n: int, key: jax.Array, u: float) -> Any:
    return ctrnn((0.3 + 0.9 * u) * jnp.eye(n, k=-1) + 0.1 * jr.normal(key, (n, n)) / n**0.5, key)


def excitatory_inhibitory(n: int, key: jax.Array, u: float) -> Any:
    """Four excitatory units for each inhibitory one, with rows that are balanced on average."""
    signs = jnp.where(jnp.arange(n) % 5 == 4, -4.0, 1.0)
    return ctrnn((0.1 + 0.5 * u) * jnp.abs(jr.normal(key, (n, n))) * signs[None] / n**0.5, key)


def gru(n: int, key: jax.Array, u: float) -> Any:
    model = ssntk.GRUODE(n, INPUTS, 1, key=key)
    bias = 0.3 * jr.normal(jr.fold_in(key, 1), (3 * n,))
    return eqx.tree_at(lambda m: (m.weight, m.bias), model, ((0.2 + 2.3 * u) * model.weight, bias))


def diagonal(n: int, key: jax.Array, u: float) -> Any:
    """Decay rates spread over a range, whose lower end falls as u grows."""
    model, keys = ssntk.LinearSSM(n, INPUTS, 1, form="diagonal", key=key), jr.split(key, 2)
    decay = -jr.uniform(keys[0], (n // 2,)) * (0.5 + 4.5 * u)
    return eqx.tree_at(lambda m: (m.log_decay, m.frequency), model, (decay, jnp.pi * jr.uniform(keys[1], (n // 2,))))


FAMILIES: dict[str, Callable[[int, jax.Array, float], Any]] = {
    "gaussian": gaussian,
    "orthogonal": orthogonal,
    "low-rank": low_rank,
    "chain": chain,
    "excitatory-inhibitory": excitatory_inhibitory,
    "GRU": gru,
    "diagonal": diagonal,
}


# %%
class Leaks(ssntk.AbstractStateSpaceModel):
    """The states x of `model`, and its drives filtered by leaks alone: dy/dt = -y / tau + df/dtheta."""

    model: Any
    tau: jax.Array

    @property
    def n_state(self) -> int:
        return 2 * self.model.n_state

    @property
    def n_input(self) -> int:
        return self.model.n_input

    @property
    def n_output(self) -> int:
        return 2 * self.model.n_state

    def vector_field(self, t, x, u):
        state, filtered = jnp.split(x, 2)
        still = jax.tree.map(lambda leaf: stop_gradient(leaf) if eqx.is_array(leaf) else leaf, self.model)
        velocity = still.vector_field(t, state, u)
        drive = self.model.vector_field(t, stop_gradient(state), u) - stop_gradient(velocity)
        return jnp.concatenate([velocity, drive - filtered / stop_gradient(self.tau)])

    def trainable(self, of: str) -> Any:
        return self.model.trainable("state")


class Drive(eqx.Module):
    """A constant input and one at `frequency`, each in its own channel."""

    frequency: jax.Array

    def __call__(self, t: Any) -> jax.Array:
        return AMPLITUDE * jnp.diag(jnp.stack([jnp.ones_like(t), jnp.cos(self.frequency * t)]))


def probe_of(horizon: float, frequency: Any, x: Any, *, half: bool = False) -> ssntk.Probe:
    """A probe from the fixed point, under both inputs. If `half`, only the second half of the state is observed."""
    rows = len(x)
    mask = np.broadcast_to(np.arange(rows) >= rows // 2, (INPUTS, TIMES, rows)) if half else None
    return ssntk.Probe(np.linspace(0.0, horizon, TIMES), Drive(jnp.asarray(frequency)), x, mask=mask)


def top_eigenvalue(model: Any, probe: ssntk.Probe) -> float:
    return float(ssntk.ntk_spectrum(model, probe, k=1, integrator=INTEGRATOR, eigenvectors=False).eigenvalues[0])


def parted(model: Any) -> tuple[Any, Any]:
    """theta, and the rest of a model."""
    chosen = {id(leaf) for leaf in jax.tree.leaves(model.trainable("state"))}
    return eqx.partition(model, jax.tree.map(lambda leaf: id(leaf) in chosen, model))


@eqx.filter_jit
def states(model: Any, horizon: float, frequency: jax.Array, x: jax.Array) -> jax.Array:
    return ssntk.simulate(model, probe_of(horizon, frequency, x), integrator=INTEGRATOR)


@eqx.filter_jit
def losses(model: Any, horizon: float, frequency: jax.Array, x: jax.Array, targets: jax.Array, rate: jax.Array) -> jax.Array:
    """The loss before each of seven steps of gradient descent on theta."""
    theta, rest = parted(model)

    def loss(theta):
        return jnp.mean((states(eqx.combine(theta, rest), horizon, frequency, x) - targets) ** 2) / 2

    def step(theta, _):
        value, gradient = jax.value_and_grad(loss)(theta)
        return jax.tree.map(lambda p, g: p - rate * g, theta, gradient), value

    return jax.lax.scan(step, theta, length=7)[1]


def stable_rate(model: Any, horizon: float, frequency: jax.Array, x: jax.Array, key: jax.Array) -> float:
    """The largest learning rate with which the loss falls, by bisection of its logarithm to 5 %."""
    theta, rest = parted(model)
    leaves, structure = jax.tree.flatten(theta)
    keys = jr.split(key, len(leaves))
    moved = [p + 1e-3 * jr.normal(k, p.shape) / p.shape[-1] ** 0.5 for p, k in zip(leaves, keys, strict=True)]
    targets = states(eqx.combine(jax.tree.unflatten(structure, moved), rest), horizon, frequency, x)
    low, high = math.log(1e-6), math.log(1e5)
    while high - low > 0.05:
        middle = (low + high) / 2
        found = np.asarray(losses(model, horizon, frequency, x, targets, jnp.asarray(math.exp(middle))))
        low, high = (middle, high) if np.isfinite(found[-1]) and found[-1] < found[0] else (low, middle)
    return math.exp(low)


def numbers(model: Any, judged: ssntk.Criticality) -> dict[str, float]:
    """The numbers that are known before training, each larger if a bifurcation is farther away."""
    time, x = judged.time_scale, jnp.asarray(judged.x_star)
    forces = forcing(model, theta_positions(model, "state", None), x, jnp.zeros(model.n_input))
    by_theta, matrix = (np.asarray(part) for part in forces)
    # Solve on the host, since XLA is slow with so many right-hand sides.
    steady = ssntk.Spectrum.from_jacobian(jnp.asarray(np.linalg.solve(matrix, by_theta)), eigenvectors=False)
    weight = getattr(model, "weight", None)
    gain = math.nan if weight is None else float(jnp.linalg.norm(weight) / weight.shape[0] ** 0.5)
    return {
        "stability radius": judged.stability_radius * time,
        "spectral abscissa": -judged.spectral_abscissa * time,
        "smallest singular value": judged.sigma_min * time,
        "spectral radius": -float(np.abs(1 + time * np.linalg.eigvals(matrix)).max()),
        "gain": -gain,
        "condition number": -math.log10(float(steady.condition_number)),
        "participation ratio": float(steady.participation_ratio),
        "percentile": math.nan if judged.percentile is None else judged.percentile,
    }


def measure(family: str, n: int, seed: int) -> dict[str, Any]:
    key = jr.fold_in(jr.key(seed), n)
    model = FAMILIES[family](n, key, float(jr.uniform(jr.fold_in(key, 7))))
    record: dict[str, Any] = {"family": family, "n": n, "seed": seed}
    try:
        judged = ssntk.criticality(model, n_starts=16)
    except ssntk.NumericalError as error:
        return record | {"reason": str(error)}
    record |= {"kind": judged.kind, "time_scale": judged.time_scale, "frequency": judged.critical_frequency}
    if not judged.stable:
        return record | {"reason": "no stable fixed point"}
    record |= {"numbers": numbers(model, judged), "horizons": []}
    x, tau, frequency = (jnp.asarray(part) for part in (judged.x_star, judged.time_scale, judged.critical_frequency))
    for horizon in HORIZONS:
        both = probe_of(horizon, frequency, jnp.concatenate([x, 0 * x]), half=True)
        try:
            top, leaks = top_eigenvalue(model, probe_of(horizon, frequency, x)), top_eigenvalue(Leaks(model, tau), both)
            rate = stable_rate(model, horizon, frequency, x, key)
        except ssntk.NumericalError as error:
            record["horizons"].append({"horizon": horizon, "reason": str(error)})
            continue
        allowed = 2 * INPUTS * TIMES * n / leaks
        far = relative_distance(judged.stability_radius, judged.time_scale, horizon)
        record["horizons"].append(
            {"horizon": horizon, "amplification": top / leaks, "slowing": allowed / rate, "relative distance": far}
        )
    return record


def study(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    asked = [(f, n, s) for n, count in SIZES.items() for s in range(count) for f in FAMILIES]
    for i, (family, n, seed) in enumerate(asked):
        file = folder / f"{family}_{n}_{seed}.json"
        if file.exists():
            continue
        record = measure(family, n, seed)
        whole = file.with_suffix(".part")
        whole.write_text(json.dumps(record))
        os.replace(whole, file)
        print(f"{i + 1} of {len(asked)}: {family}, n = {n}, seed {seed}", flush=True)


# %%
def table(folder: pathlib.Path) -> list[dict[str, Any]]:
    """A row for each network and horizon that was measured."""
    rows = []
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        for at in record.get("horizons", []):
            if "slowing" in at:
                known = record["numbers"] | {"relative distance": at["relative distance"]}
                rows.append({name: record[name] for name in ("family", "n", "seed")} | at | {"numbers": known})
    return rows


def area(score: np.ndarray, fragile: np.ndarray) -> float:
    """The area under the ROC curve of "fragile if the score is small" (Mann and Whitney's U); NaN for one class only."""
    known = np.isfinite(score)
    bad, good = score[known & fragile], score[known & ~fragile]
    if not len(bad) or not len(good):
        return math.nan
    return float(scipy.stats.mannwhitneyu(good, bad).statistic / (len(bad) * len(good)))


def best_threshold(score: np.ndarray, fragile: np.ndarray) -> float:
    """The threshold with the largest sensitivity + specificity (Youden, 1950)."""
    at = np.unique(score[np.isfinite(score)])
    middles = (at[1:] + at[:-1]) / 2
    return float(max(middles, key=lambda t: (score < t)[fragile].mean() + (score >= t)[~fragile].mean()))


def summary(rows: list[dict[str, Any]], figure: pathlib.Path, truth: str = "slowing") -> None:
    names = list(rows[0]["numbers"])
    scores = {name: np.array([np.nan if (v := row["numbers"][name]) is None else v for row in rows]) for name in names}
    size, family = np.array([row[truth] for row in rows]), np.array([row["family"] for row in rows])
    network = np.unique([f"{row['family']} {row['n']} {row['seed']}" for row in rows], return_inverse=True)[1]
    fragile, rng = size >= FACTOR, np.random.default_rng(0)
    picks = [rng.integers(network.max() + 1, size=network.max() + 1) for _ in range(400)]
    members = [np.flatnonzero(network == i) for i in range(network.max() + 1)]
    print(f"{len(members)} networks, {len(rows)} rows, {fragile.mean():.2f} fragile by {truth}")
    print("number | AUC, 95 % interval over networks | AUC within each family, ascending | held-out balanced accuracy")
    areas = {}
    for name, score in sorted(scores.items(), key=lambda item: -area(item[1], fragile)):
        drawn = [area(score[at], fragile[at]) for pick in picks for at in [np.concatenate([members[i] for i in pick])]]
        within = sorted(x for f in FAMILIES if not math.isnan(x := area(score[family == f], fragile[family == f])))
        right = []
        for held in FAMILIES:
            mine, known = family == held, np.isfinite(score)
            if len(set(fragile[mine & known])) == 2:
                flagged = score < best_threshold(score[~mine], fragile[~mine])
                right.append((flagged[mine & fragile].mean() + (~flagged)[mine & ~fragile].mean()) / 2)
        areas[name] = area(score, fragile)
        low, high = np.nanpercentile(drawn, [2.5, 97.5])
        spread = " ".join(f"{x:.2f}" for x in within)
        print(f"{name} | {areas[name]:.3f} ({low:.3f} to {high:.3f}) | {spread} | {np.mean(right):.2f}")
    distance = scores["relative distance"]
    for factor in (3.0, FACTOR, 100.0):
        kept = {held: best_threshold(distance[family != held], (size >= factor)[family != held]) for held in FAMILIES}
        every, listed = best_threshold(distance, size >= factor), " ".join(f"{t:.2f}" for t in kept.values())
        print(f"{factor:g} times: threshold {every:.3f}; each family left out: {listed}")
    draw(rows, scores, areas, fragile, figure)


def fitted(known: np.ndarray, fragile: np.ndarray) -> np.ndarray:
    """The weights of a logistic regression of `fragile` on standardised numbers (rows, k), and its constant."""
    with_one = np.column_stack([known, np.ones(len(known))])

    def loss(w: np.ndarray) -> float:
        # A small penalty keeps the weights finite where the classes can be separated.
        return float(np.logaddexp(0, -np.where(fragile, 1, -1) * (with_one @ w)).mean() + 1e-3 * (w[:-1] ** 2).sum())

    return scipy.optimize.minimize(loss, np.zeros(with_one.shape[1])).x


def held_out(known: np.ndarray, fragile: np.ndarray, family: np.ndarray) -> np.ndarray:
    """What a logistic regression, fitted to the other families, says of each row's family."""
    said = np.empty(len(known))
    for held in np.unique(family):
        rest = family != held
        standard = (known - known[rest].mean(axis=0)) / known[rest].std(axis=0)
        weights = fitted(standard[rest], fragile[rest])
        said[~rest] = standard[~rest] @ weights[:-1] + weights[-1]
    return said


def added(rows: list[dict[str, Any]], truth: str = "slowing") -> None:
    """Print whether the percentile among random networks adds to the distance, where there is a percentile."""
    rows = [row for row in rows if row["numbers"].get("percentile", math.nan) >= 0]
    if not rows:
        return
    family, fragile = np.array([row["family"] for row in rows]), np.array([row[truth] >= FACTOR for row in rows])
    far, share = (np.array([row["numbers"][name] for row in rows]) for name in ("relative distance", "percentile"))
    # Of 200 random networks none may be nearer.
    odds = np.log((200 * share + 0.5) / (200 * (1 - share) + 0.5))
    alone = held_out(np.log(far)[:, None], fragile, family)
    both = held_out(np.column_stack([np.log(far), odds]), fragile, family)
    networks = np.unique([f"{row['family']} {row['n']} {row['seed']}" for row in rows], return_inverse=True)[1]
    members, rng, gains = [np.flatnonzero(networks == i) for i in range(networks.max() + 1)], np.random.default_rng(0), []
    for _ in range(400):
        at = np.concatenate([members[i] for i in rng.integers(len(members), size=len(members))])
        gains.append(area(-both[at], fragile[at]) - area(-alone[at], fragile[at]))
    low, high = np.nanpercentile(gains, [2.5, 97.5])
    gain = area(-both, fragile) - area(-alone, fragile)
    print(f"{len(rows)} rows with a percentile: held-out AUC of the distance {area(-alone, fragile):.3f}, with the", end=" ")
    print(f"percentile {area(-both, fragile):.3f}; difference {gain:.3f} ({low:.3f} to {high:.3f}) by {truth}")


def draw(rows: Any, scores: Any, areas: Any, fragile: np.ndarray, figure: pathlib.Path) -> None:
    import matplotlib.pyplot as plt

    drawing, (left, right) = plt.subplots(1, 2, figsize=(10, 4.6), layout="constrained")
    for name, value in sorted(areas.items(), key=lambda item: -item[1]):
        known = np.isfinite(scores[name])
        order = np.argsort(scores[name][known])
        hits = fragile[known][order]
        found, false = np.cumsum(hits) / hits.sum(), np.cumsum(~hits) / (~hits).sum()
        left.plot([0, *false], [0, *found], label=f"{name} ({value:.2f})", lw=2 if name == "relative distance" else 1)
    left.plot([0, 1], [0, 1], color="0.7", lw=0.8, ls=":")
    left.set(xlabel="share of sound networks flagged", ylabel="share of fragile networks flagged")
    left.legend(title="area under the curve", fontsize="small", loc="lower right")
    for name in FAMILIES:
        at = [(row["numbers"]["relative distance"], row["slowing"]) for row in rows if row["family"] == name]
        if at:
            right.plot(*zip(*at, strict=True), ".", ms=4, label=name)
    right.axhline(FACTOR, color="0.5", lw=0.8, ls="--")
    for level in (NEAR, CRITICAL):
        right.axvline(level, color="0.5", lw=0.8, ls=":")
    right.set(xscale="log", yscale="log", xlabel="relative distance (dotted: near-critical, critical)")
    right.set_ylabel("stable learning rate through leaks alone / measured")
    right.legend(fontsize="small")
    drawing.savefig(figure, dpi=90)
    plt.close(drawing)


if __name__ == "__main__":
    jax.config.update("jax_enable_x64", True)
    parser = argparse.ArgumentParser(description="Measure what foretells a fragile network; a second run resumes.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/criticality_study"))
    parser.add_argument("--summary", action="store_true", help="only the table and the figure of what was measured")
    asked = parser.parse_args()
    if not asked.summary:
        study(asked.out)
    found = table(asked.out)
    if not found:
        raise SystemExit(f"{asked.out} holds no record yet")
    for truth in ("amplification", "slowing"):
        summary(found, asked.out / "study.png", truth)
        added(found, truth)
