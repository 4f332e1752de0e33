# %% [markdown]
# # Does a differential operator in the loss speed the decay of the kernel's eigenvalues?
#
# Gan, Li, Lin & Shi (2025, arXiv:2503.11029) find for feedforward networks that in most cases it does not. This study asks
# it of state-space models: a tanh network at two gains and a gated one, under a smooth and a rough input. Each operator's
# kernel L K L^T is compared with the plain kernel K of the same network.
#
# - The *exponent* is `Spectrum.decay_exponent` over a window of modes: the power alpha of `lambda_k ~ k^-alpha`.
# - A *difference* is the exponent of an operator minus that of the plain kernel of the same seed.
# - Intervals are 95 %, from bootstrap samples of the seeds. The sign test is over seeds, after a mean over conditions.
#
# `python sweeps/loss_operators.py` prints the tables, writes them as JSON, and draws the figure.

# %%
import argparse
import itertools
import json
import pathlib
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import scipy.stats

import ssntk
from ssntk.files import write_whole
from ssntk.kernel.observe.observations import Rate
from ssntk.kernel.rows import recorded_rows

# The leak time of every network is one. The unit of time is that.
UNITS, HORIZON, TIMES, SEEDS = 16, 20.0, 257, 10
NETWORKS, INPUTS = ("tanh RNN, gain 0.5", "tanh RNN, gain 0.95", "GRU"), ("sine", "rough")
WINDOW, WINDOWS = (10, 60), ((5, 30), (10, 60), (20, 100))
DECAY, FREQUENCY = 1.0, 1.0  # a of y' + a y, and w of y'' + w^2 y
# An operator multiplies what the solver and rounding leave in fast modes, so that modes near the floor are not fitted.
# Modes must be this many times larger.
CLEAR = 1e3


# %% Inputs, networks and laws
class Series(eqx.Module):
    """The input `sum_k amplitude_k sin(pi k t / horizon + phase_k)`, k from 1, to one channel of one probe."""

    amplitude: jax.Array
    phase: jax.Array
    horizon: float = eqx.field(static=True, default=HORIZON)

    def frequency(self) -> jax.Array:
        return jnp.pi * jnp.arange(1.0, len(self.amplitude) + 1) / self.horizon

    def __call__(self, t: Any) -> jax.Array:
        return jnp.sum(self.amplitude * jnp.sin(self.frequency() * t + self.phase))[None, None]


def drive(kind: str, key: jax.Array, harmonics: int = (TIMES - 1) // 2) -> Series:
    """A sine of four periods, or a rough path: amplitudes from N(0, 4) / k, as those of a random walk."""
    order, (first, second) = jnp.arange(1.0, harmonics + 1), jr.split(key)
    rough = 2 * jr.normal(first, (harmonics,)) / order
    return Series(
        jnp.where(order == 8, 1.0, 0.0) if kind == "sine" else rough, 2 * jnp.pi * jr.uniform(second, (harmonics,))
    )


def network(kind: str, key: jax.Array, n: int = UNITS) -> Any:
    if kind == "GRU":
        return ssntk.GRUODE(n, 1, 1, key=key)
    return ssntk.CTRNN(n, 1, 1, gain=float(kind.rpartition(" ")[2]), form="rate", key=key)


def theta(model: Any) -> tuple[jax.Array, ...]:
    """All weights and biases but that of the readout. The output therefore starts at zero whatever theta is."""
    return model.weight, model.input_weight, model.bias, model.readout_weight


class Decaying(ssntk.AbstractObservation):
    """y' + a y of an observation y."""

    of: ssntk.AbstractObservation
    a: jax.Array

    def rows(self, model):
        return self.of.rows(model)

    def look(self, model, t, x, u):
        return Rate(self.of).look(model, t, x, u) + self.a * self.of.look(model, t, x, u)


class Oscillating(ssntk.AbstractObservation):
    """y'' + w^2 y of an observation y, under one input that can be differentiated."""

    of: ssntk.AbstractObservation
    w: jax.Array
    drive: Callable[..., jax.Array]

    def rows(self, model):
        return self.of.rows(model)

    def look(self, model, t, x, u):
        t = jnp.asarray(t, x.dtype)
        one = jnp.ones_like(t)
        faster = jax.jvp(self.drive, (t,), (one,))[1][0]
        direction = one, model.vector_field(t, x, u), faster
        second = jax.jvp(lambda *at: Rate(self.of).look(model, *at), (t, x, u), direction)[1]
        return second + self.w**2 * self.of.look(model, t, x, u)


class FirstOrder(ssntk.AbstractLossOperator):
    """The residual of y' + a y = f. Its operator is d/dt + a."""

    a: jax.Array

    def observation(self, of):
        return Decaying(of, self.a)


class SecondOrder(ssntk.AbstractLossOperator):
    """The residual of y'' + w^2 y = f. Its operator is d^2/dt^2 + w^2."""

    w: jax.Array
    drive: Callable[..., jax.Array]

    def observation(self, of):
        return Oscillating(of, self.w, self.drive)


# What is observed, the plain kernel it is compared with, and the order: high frequencies w are multiplied by w^order.
ORDERS = {
    "plain": 0.0,
    "d/dt": 1.0,
    "d/dt + a": 1.0,
    "d²/dt² + w²": 2.0,
    "Sobolev(2)": 2.0,
    "Sobolev(1)": 1.0,
    "Sobolev(0.5)": 0.5,
    "Sobolev(-0.5)": -0.5,
    "Sobolev(-1)": -1.0,
    "plain, states": 0.0,
    "Residual": 1.0,
}
COMPARED = [name for name in ORDERS if not name.startswith("plain")]


def baseline(name: str) -> str:
    return "plain, states" if name == "Residual" else "plain"


def operators(input_: Series) -> dict[str, Any]:
    named = {name: ssntk.Sobolev(order) for name, order in ORDERS.items() if name.startswith("Sobolev")}
    laws = {"d/dt + a": FirstOrder(jnp.asarray(DECAY)), "d²/dt² + w²": SecondOrder(jnp.asarray(FREQUENCY), input_)}
    return {
        "plain": None,
        "d/dt": ssntk.TimeDerivative(),
        **laws,
        **named,
        "plain, states": None,
        "Residual": ssntk.Residual(),
    }


# %% Spectra
def probe(input_: Any, times: int = TIMES) -> ssntk.Probe:
    return ssntk.Probe(np.linspace(0.0, HORIZON, times), input_)


def integrator(times: int = TIMES, each: int = 2) -> ssntk.Integrator:
    """So many fixed steps in each save interval."""
    return ssntk.Integrator(diffrax.Tsit5(), dt=HORIZON / (times - 1) / each)


def by_units(model: Any, at: ssntk.Probe, operator: Any, steps: ssntk.Integrator) -> ssntk.Spectrum:
    """The spectrum of the kernel of the states averaged over units, as `ntk(average="units")`, from singular values."""
    lens = lambda m: theta(m)[:3]  # noqa: E731
    rows = recorded_rows(model, at, of="state", wrt=lens, loss_operator=operator, integrator=steps).matrix("auto")
    jacobian = np.asarray(rows).reshape(len(at.ts), -1) / model.n_state**0.5
    # With Q R of the transpose, the singular values are those of R.
    spectrum = ssntk.Spectrum.from_jacobian(jnp.asarray(np.linalg.qr(jacobian.T, mode="r").T), eigenvectors=False)
    return spectrum


def spectra(model: Any, input_: Any, names: Any, times: int = TIMES, each: int = 2) -> dict[str, ssntk.Spectrum]:
    """The spectrum of each operator: of the readout, or of the states averaged over units."""
    at, steps, found = probe(input_, times), integrator(times, each), {}
    for name, operator in operators(input_).items():
        if name not in names:
            continue
        if baseline(name) == "plain, states" or name == "plain, states":
            found[name] = by_units(model, at, operator, steps)
        else:
            asked = {"of": "readout", "wrt": theta, "loss_operator": operator, "integrator": steps}
            found[name] = ssntk.ntk_spectrum(model, at, eigenvectors=False, **asked)
    return found


def exponent(spectrum: ssntk.Spectrum, window: tuple[int, int]) -> list[float]:
    """alpha, half of its regression's interval, and how many modes of the window were fitted. NaN if fewer than three."""
    values = spectrum.eigenvalues
    clear = int((values > CLEAR * spectrum.floor * values[0]).sum())
    last = min(window[1], clear)
    if last - window[0] + 1 < 3:
        return [np.nan, np.nan, 0]
    alpha, (low, high) = spectrum.decay_exponent(window[0], last)
    return [alpha, (high - low) / 2, last - window[0] + 1]


def record(found: dict[str, ssntk.Spectrum]) -> dict[str, Any]:
    """What is kept of the spectra of one network."""
    kept = {}
    for name, spectrum in found.items():
        fits = {f"{first}-{last}": exponent(spectrum, (first, last)) for first, last in WINDOWS}
        values = (spectrum.eigenvalues / spectrum.eigenvalues[0]).tolist()
        ratio = float(spectrum.participation_ratio)
        kept[name] = {"fits": fits, "participation ratio": ratio, "eigenvalues": values, "floor": spectrum.floor}
    return kept


def drawn(kind: str, form: str, seed: int, harmonics: int = (TIMES - 1) // 2) -> tuple[Any, Series]:
    """The network and the input of a seed."""
    return network(kind, jr.key(seed)), drive(form, jr.key(1000 + seed), harmonics)


# %% Statistics over seeds
def interval(values: Any, samples: int = 10_000) -> tuple[float, float, float]:
    """The mean (seeds,), and its 95 % interval from bootstrap samples of the seeds."""
    array = np.asarray(values, float)
    picks = np.random.default_rng(0).integers(len(array), size=(samples, len(array)))
    low, high = np.percentile(array[picks].mean(axis=1), [2.5, 97.5])
    return float(array.mean()), float(low), float(high)


def sign_test(values: Any) -> tuple[int, int, float]:
    """How many values are negative, of how many that are not zero, and the two-sided p if either sign is as likely."""
    array = np.asarray(values, float)
    below, count = int((array < 0).sum()), int((array != 0).sum())
    return below, count, float(scipy.stats.binomtest(below, count).pvalue) if count else 1.0


def exponents(rows: dict[str, list[Any]], name: str, window: str) -> dict[str, np.ndarray]:
    """The exponents (seeds,) of an operator under each condition."""
    return {where: np.array([seed[name]["fits"][window][0] for seed in seeds]) for where, seeds in rows.items()}


def differences(rows: dict[str, list[Any]], name: str, window: str) -> dict[str, np.ndarray]:
    """The exponents (seeds,) of an operator minus those of the plain kernel, under each condition."""
    mine, plain = (exponents(rows, one, window) for one in (name, baseline(name)))
    return {where: mine[where] - plain[where] for where in rows}


def verdict(low: float, high: float) -> str:
    return "speeds it" if low > 0 else "slows it" if high < 0 else "neither"


def shown(values: Any) -> str:
    mean, low, high = interval(values)
    return f"{mean:.2f} ({low:.2f} to {high:.2f})"


def summary(rows: dict[str, list[Any]], window: str) -> list[dict[str, Any]]:
    """A row for each operator. Seeds are the sample: a seed's value is its mean over conditions."""
    told = []
    for name in ORDERS:
        alpha = np.mean(list(exponents(rows, name, window).values()), axis=0)
        ratio = [np.mean([seeds[i][name]["participation ratio"] for seeds in rows.values()]) for i in range(len(alpha))]
        row = {"operator": name, "exponent": interval(alpha), "participation ratio": interval(ratio)}
        if name in COMPARED:
            apart = differences(rows, name, window)
            per_seed, networks = np.mean(list(apart.values()), axis=0), np.concatenate(list(apart.values()))
            row |= {"difference": interval(per_seed), "sign test": sign_test(per_seed), "networks": sign_test(networks)}
            row |= {"expected": -2 * ORDERS[name], "verdict": verdict(*row["difference"][1:])}
        told.append(row)
    return told


# %% Tables
def said(value: tuple[float, float, float]) -> str:
    return f"{value[0]:.2f} ({value[1]:.2f} to {value[2]:.2f})"


def tables(rows: dict[str, list[Any]]) -> None:
    window = "-".join(map(str, WINDOW))
    print("\n| operator | exponent | difference from plain | if stationary | slower | seeds | participation ratio | decay |")
    print("|---|---|---|---|---|---|---|---|")
    for row in summary(rows, window):
        if "difference" in row:
            (below, count, _), (slower, seeds, p) = row["networks"], row["sign test"]
            middle = (
                f"{said(row['difference'])} | {row['expected']:g} | {below} of {count} | {slower} of {seeds}, p = {p:.2g}"
            )
        else:
            middle = "| | | "
        ratio = said(row["participation ratio"])
        print(f"| {row['operator']} | {said(row['exponent'])} | {middle} | {ratio} | {row.get('verdict', '')} |")
    print("\n| difference | " + " | ".join(rows) + " |\n|---|" + "---|" * len(rows))
    for name in (one for one in ORDERS):
        part = differences(rows, name, window) if name in COMPARED else exponents(rows, name, window)
        print(f"| {name} | " + " | ".join(map(shown, part.values())) + " |")
    print("\n| window | " + " | ".join(COMPARED) + " |\n|---|" + "---|" * len(COMPARED))
    for first, last in WINDOWS:
        name = f"{first}-{last}"
        every = {one: np.mean(list(differences(rows, one, name).values()), axis=0) for one in COMPARED}
        print(f"| {first} to {last} | " + " | ".join(map(shown, every.values())) + " |")


def fitted(rows: dict[str, list[Any]]) -> None:
    """The smallest number of modes that were fitted, and the median of the regression's own half intervals."""
    for first, last in WINDOWS:
        every = [seed[name]["fits"][f"{first}-{last}"] for seeds in rows.values() for seed in seeds for name in ORDERS]
        half = np.median([one[1] for one in every])
        print(f"modes {first} to {last}: at least {min(one[2] for one in every)} fitted; regression +-{half:.2f} (median)")


# %% The study
CONDITIONS = list(itertools.product(NETWORKS, INPUTS))
TRAINED = [("tanh RNN, gain 0.95", "rough"), ("GRU", "sine")]
# Another integration, and a larger network: what the differences must not depend on.
ROBUST = {"four steps in each interval": (UNITS, 4), "32 units": (32, 2)}
ROBUST_NAMES = ("plain", "d/dt", "d/dt + a", "d²/dt² + w²", "Sobolev(-1)")


def measure_all(seeds: int, conditions: list[tuple[str, str]]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {}
    for kind, form in conditions:
        rows[f"{kind}, {form}"] = []
        for seed in range(seeds):
            rows[f"{kind}, {form}"].append(record(spectra(*drawn(kind, form, seed), ORDERS)))
        print(f"measured: {kind}, {form}", flush=True)
    return rows


def measure_robust(seeds: int) -> dict[str, dict[str, list[Any]]]:
    kind, form, found = *TRAINED[0], {}
    for name, (units, each) in ROBUST.items():
        pairs = [(network(kind, jr.key(seed), units), drive(form, jr.key(1000 + seed))) for seed in range(seeds)]
        found[name] = {f"{kind}, {form}": [record(spectra(*pair, ROBUST_NAMES, each=each)) for pair in pairs]}
        print(f"measured: {name}", flush=True)
    return found


def measure_wide(seeds: int) -> dict[str, list[Any]]:
    """The states of a network of 32 units: in one of 16, the residual has few rows that depend on time in another way."""
    kind, form = CONDITIONS[0]
    pairs = [(network(kind, jr.key(seed), 32), drive(form, jr.key(1000 + seed))) for seed in range(seeds)]
    return {f"{kind}, {form}": [record(spectra(*pair, ("plain, states", "Residual"))) for pair in pairs]}


def kept(folder: pathlib.Path, name: str, make: Callable[[], Any], again: bool) -> Any:
    """What `make` returns, from its file if that exists and is not to be made again."""
    file = folder / f"{name}.json"
    if again or not file.exists():
        write_whole(file, json.dumps(make()).encode())
    return json.loads(file.read_text())


def run(folder: pathlib.Path, quick: bool, again: bool) -> None:
    import loss_operators_figure as figure
    import loss_operators_training as training

    folder.mkdir(parents=True, exist_ok=True)
    seeds, conditions = (3, CONDITIONS[3:4]) if quick else (SEEDS, CONDITIONS)
    trained = TRAINED[:1] if quick else TRAINED
    length = {"places": (1, 3), "adam_steps": 2} if quick else {}
    rows = kept(folder, "spectra", lambda: measure_all(seeds, conditions), again)
    tables(rows)
    fitted(rows)
    if not quick:
        for name, part in kept(folder, "robust", lambda: measure_robust(seeds), again).items():
            window = "-".join(map(str, WINDOW))
            told = [f"{one} {shown(*differences(part, one, window).values())}" for one in ROBUST_NAMES[1:]]
            print(f"{name}: " + ", ".join(told))
        wide = differences(kept(folder, "wide", lambda: measure_wide(seeds), again), "Residual", window)
        print("32 units, Residual: " + ", ".join(f"{where} {shown(value)}" for where, value in wide.items()))
    learned = {}
    for kind, form in trained:
        name = f"trained_{kind}_{form}".replace(" ", "_").replace(",", "")
        made = kept(folder, name, lambda k=kind, f=form: training.training(k, f, list(range(seeds)), **length), again)
        learned[f"{kind}, {form}"] = made
    training.tables(learned)
    figure.draw(rows, learned, folder / "loss_operators.png")


if __name__ == "__main__":
    import sys

    jax.config.update("jax_enable_x64", True)
    # The other files of the study import this one by its name, and must not run it a second time.
    sys.modules.setdefault("loss_operators", sys.modules[__name__])
    parser = argparse.ArgumentParser(description="Whether operators in the loss change how the kernel's eigenvalues decay.")
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("results/loss_operators"))
    parser.add_argument("--quick", action="store_true", help="three networks under one condition, three steps of training")
    parser.add_argument("--again", action="store_true", help="measure again what is in the folder")
    given = parser.parse_args()
    run(given.out / "quick" if given.quick else given.out, given.quick, given.again)
