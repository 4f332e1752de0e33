"""The study of loss operators: networks that are trained on their output or on the residual of a law.

The output y of a network is to obey y' + a y = u, its input. It can be trained on y - y*, with y* the solution of the law,
or on the residual y' + a y - u, for which no solution needs to be known.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.fft
from loss_operators import (
    DECAY,
    WINDOW,
    FirstOrder,
    Series,
    differences,
    drawn,
    integrator,
    interval,
    probe,
    record,
    said,
    sign_test,
    spectra,
    theta,
)

import ssntk
from ssntk.kernel.observe.observations import Readout
from ssntk.kernel.rows import recorded_rows

TIMES, PLACES = 129, (1, 3, 10, 30, 100)
LOSSES = ("plain", "d/dt + a")
# Cosine mode k completes k half periods in the horizon.
BANDS = ((1, 4), (5, 8), (9, 16), (17, 32))
ADAM, ADAM_STEPS = 3e-3, 300
MEASURED = ("plain", "d/dt", "d/dt + a", "d²/dt² + w²", "Sobolev(-1)")


def solution(input_: Series, times: jax.Array, a: float = DECAY) -> jax.Array:
    """y* (T,) with y' + a y = u and y(0) = 0."""
    w, size = input_.frequency(), input_.amplitude / (a**2 + input_.frequency() ** 2)
    angle = w[None] * times[:, None] + input_.phase[None]
    forced = jnp.sum(size[None] * (a * jnp.sin(angle) - w[None] * jnp.cos(angle)), axis=1)
    return forced - forced[0] * jnp.exp(-a * times)


def errors(chosen: Any, rest: Any, input_: Series, steps: ssntk.Integrator) -> jax.Array:
    """y - y* and y' + a y - u at the save times: (2, T)."""
    model, at = eqx.combine(chosen, rest), probe(input_, TIMES)
    times = jnp.asarray(at.ts)
    states = ssntk.simulate(model, at, integrator=steps)[0]
    law = FirstOrder(jnp.asarray(DECAY)).observation(Readout())
    inputs = jax.vmap(lambda t: input_(t)[0])(times)
    left = jax.vmap(lambda t, x, u: law.look(model, t, x, u)[0])(times, states, inputs) - inputs[:, 0]
    return jnp.stack([jax.vmap(model.readout)(states)[:, 0] - solution(input_, times), left])


def parted(model: Any) -> tuple[Any, Any]:
    """theta, and the rest of a model or of a batch of models."""
    chosen = {id(leaf) for leaf in theta(model)}
    return eqx.partition(model, jax.tree.map(lambda leaf: id(leaf) in chosen, model))


@eqx.filter_jit
def measured(chosen: Any, rest: Any, inputs: Series) -> jax.Array:
    """The errors of a batch: (seeds, 2, T)."""
    return eqx.filter_vmap(lambda c, r, i: errors(c, r, i, integrator(TIMES, 1)))(chosen, rest, inputs)


@eqx.filter_jit
def descended(chosen: Any, rest: Any, inputs: Series, which: int, rates: jax.Array, count: jax.Array) -> Any:
    """theta of a batch after `count` steps of gradient descent on half the sum of squares of one of the two errors."""

    def one(chosen, rest, input_, rate):
        slope = jax.grad(lambda c: jnp.sum(errors(c, rest, input_, integrator(TIMES, 1))[which] ** 2) / 2)
        return jax.lax.fori_loop(0, count, lambda _, c: jax.tree.map(lambda p, g: p - rate * g, c, slope(c)), chosen)

    return eqx.filter_vmap(one)(chosen, rest, inputs, rates)


@eqx.filter_jit
def adam(chosen: Any, rest: Any, inputs: Series, count: jax.Array) -> Any:
    """theta of a batch after `count` steps of Adam on the mean square of the residual."""
    rule = optax.adam(ADAM)

    def one(chosen, rest, input_):
        slope = jax.grad(lambda c: jnp.mean(errors(c, rest, input_, integrator(TIMES, 1))[1] ** 2) / 2)

        def step(_, carried):
            c, state = carried
            change, state = rule.update(slope(c), state)
            return optax.apply_updates(c, change), state

        return jax.lax.fori_loop(0, count, step, (chosen, rule.init(chosen)))[0]

    return eqx.filter_vmap(one)(chosen, rest, inputs)


class Frozen(NamedTuple):
    """The rows (T, p) of both errors at the start."""

    rows: list[np.ndarray]

    @staticmethod
    def of(model: Any, input_: Series) -> "Frozen":
        asked = {"of": "readout", "wrt": theta, "integrator": integrator(TIMES, 1)}
        operators = None, FirstOrder(jnp.asarray(DECAY))
        at = probe(input_, TIMES)
        return Frozen([np.asarray(recorded_rows(model, at, loss_operator=op, **asked).matrix("auto")) for op in operators])

    def rate(self, which: int) -> float:
        """Half of the largest stable learning rate."""
        return float(1 / np.linalg.norm(self.rows[which], 2) ** 2)

    def after(self, start: np.ndarray, which: int, steps: int) -> np.ndarray:
        """Both errors (2, T) after so many steps on one of them, if the kernel does not move."""
        left, sizes, right = np.linalg.svd(self.rows[which], full_matrices=False)
        with np.errstate(divide="ignore"):
            # The first mode has eta lambda = 1 and is learned in one step.
            learned = -np.expm1(steps * np.log1p(-np.minimum((sizes / sizes[0]) ** 2, 1.0)))
        change = -right.T @ (learned / np.maximum(sizes, np.finfo(float).tiny) * (left.T @ start[which]))
        return np.stack([error + rows @ change for error, rows in zip(start, self.rows, strict=True)])


def shares(now: np.ndarray, start: np.ndarray) -> list[float]:
    """What is left of the squares of an error (T,) in each band of cosine modes."""
    after, before = (scipy.fft.dct(one, norm="ortho") ** 2 for one in (now, start))
    return [float(after[first : last + 1].sum() / before[first : last + 1].sum()) for first, last in BANDS]


def training(kind: str, form: str, seeds: list[int], places: tuple[int, ...] = PLACES, adam_steps: int = ADAM_STEPS) -> Any:
    """For each seed: what is left of both errors in each band, measured and predicted, and the spectra after Adam."""
    pairs = [drawn(kind, form, seed) for seed in seeds]
    batch, inputs = (
        jax.tree.map(lambda *x: jnp.stack(x) if eqx.is_array(x[0]) else x[0], *part) for part in zip(*pairs, strict=True)
    )
    chosen, rest = parted(batch)
    start = np.asarray(measured(chosen, rest, inputs))
    frozen = [Frozen.of(*pair) for pair in pairs]
    rows: list[dict[str, Any]] = [{loss: [] for loss in LOSSES} for _ in seeds]
    for which, loss in enumerate(LOSSES):
        rates, now, before = jnp.asarray([one.rate(which) for one in frozen]), chosen, 0
        for place in places:
            now, before = descended(now, rest, inputs, which, rates, jnp.asarray(place - before)), place
            found = np.asarray(measured(now, rest, inputs))
            for i, row in enumerate(rows):
                expected = frozen[i].after(start[i], which, place)
                parts = {"measured": found[i], "predicted": expected}
                told: dict[str, Any] = {"steps": place}
                for name, both in parts.items():
                    total = [float(np.sum(both[j] ** 2) / np.sum(start[i, j] ** 2)) for j in range(2)]
                    told[name] = {
                        "total": total,
                        "output": shares(both[0], start[i, 0]),
                        "residual": shares(both[1], start[i, 1]),
                    }
                row[loss].append(told)
    trained = adam(chosen, rest, inputs, jnp.asarray(adam_steps))
    after = np.asarray(measured(trained, rest, inputs))
    for i, row in enumerate(rows):
        row["left by Adam"] = float(np.sum(after[i, 1] ** 2) / np.sum(start[i, 1] ** 2))
        model = jax.tree.map(lambda leaf, i=i: leaf[i] if eqx.is_array(leaf) else leaf, eqx.combine(trained, rest))
        row["trained"] = record(spectra(model, pairs[i][1], MEASURED))
    return rows


def tables(learned: dict[str, list[Any]]) -> None:
    """What is left of the output's error in each band, the prediction, and the exponents after training."""
    heads = [f"modes {first} to {last}" for first, last in BANDS]
    print("\n| network, input | loss | steps | " + " | ".join(heads) + " |\n|---|---|---|" + "---|" * len(BANDS))
    for where, seeds in learned.items():
        for i in range(len(seeds[0]["plain"])):
            for loss in LOSSES:
                parts = [
                    [np.median([seed[loss][i][name]["output"][b] for seed in seeds]) for name in ("measured", "predicted")]
                    for b in range(len(BANDS))
                ]
                told = " | ".join(f"{now:.2g} ({expected:.2g})" for now, expected in parts)
                print(f"| {where} | {loss} | {seeds[0][loss][i]['steps']} | {told} |")
    for where, seeds in learned.items():
        print(f"\n{where}: share of the error after {seeds[0]['plain'][-1]['steps']} steps on d/dt + a over that on plain")
        for b, head in enumerate(heads):
            ratio = [
                np.log(s["d/dt + a"][-1]["measured"]["output"][b] / s["plain"][-1]["measured"]["output"][b]) for s in seeds
            ]
            below, count, p = sign_test(ratio)
            value, low, high = np.exp(interval(ratio))
            print(f"{head}: {value:.2f} ({low:.2f} to {high:.2f}), below 1 in {below} of {count}, p = {p:.2g}")
        off = [
            abs(np.log10(s[loss][i]["measured"]["total"][j] / s[loss][i]["predicted"]["total"][j]))
            for s in seeds
            for j, loss in enumerate(LOSSES)
            for i in range(len(s[loss]))
        ]
        print(f"loss, measured / predicted: a factor of {10 ** np.median(off):.2f} (median), {10 ** max(off):.2f} (largest)")
        adam_left = np.median([seed["left by Adam"] for seed in seeds])
        print(f"after Adam {adam_left:.2g} of the residual's squares is left; exponents then, differences from plain")
        trained = {where: [seed["trained"] for seed in seeds]}
        window = "-".join(map(str, WINDOW))
        for name in MEASURED[1:]:
            value = next(iter(differences(trained, name, window).values()))
            print(f"{name}: {said(interval(value))}, {sign_test(value)}")
