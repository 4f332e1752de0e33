"""The figure of the study of loss operators, one column wide."""

import pathlib
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from loss_operators import COMPARED, INPUTS, ORDERS, WINDOW, differences, interval
from loss_operators_training import BANDS, LOSSES

COLOURS = {"plain": "#222222", "d/dt": "#0072B2", "d²/dt² + w²": "#009E73", "Sobolev(-1)": "#D55E00", "d/dt + a": "#0072B2"}
SHOWN = ("plain", "d/dt", "d²/dt² + w²", "Sobolev(-1)")
FORMS = {"sine": ("#CC79A7", "s"), "rough": ("#0072B2", "o")}


def spectra_of(ax: Any, rows: dict[str, list[Any]]) -> None:
    where = next((name for name in rows if name == "tanh RNN, gain 0.95, rough"), next(iter(rows)))
    for name in SHOWN:
        # Networks differ in how many eigenvalues are known; the shortest list is shown.
        lists = [seed[name]["eigenvalues"] for seed in rows[where]]
        values = np.median([one[: min(map(len, lists))] for one in lists], axis=0)[:120]
        ax.loglog(np.arange(1, len(values) + 1), values, color=COLOURS[name], linewidth=1, label=name)
    ax.axvspan(*WINDOW, color="0.92", linewidth=0)
    ax.text(np.sqrt(WINDOW[0] * WINDOW[1]), 0.95, "fitted", ha="center", va="top", transform=ax.get_xaxis_transform())
    ax.set(xlabel=r"mode $k$", ylabel=r"$\lambda_k\,/\,\lambda_1$", xlim=(1, 120))
    ax.text(0.03, 0.05, where, transform=ax.transAxes)


def by_operator(ax: Any, rows: dict[str, list[Any]]) -> None:
    window = "-".join(map(str, WINDOW))
    for place, form in enumerate(INPUTS):
        colour, marker = FORMS[form]
        part = {where: seeds for where, seeds in rows.items() if where.endswith(form)}
        if not part:
            continue
        for row, name in enumerate(COMPARED):
            value, low, high = interval(np.mean(list(differences(part, name, window).values()), axis=0))
            height = -row - 0.26 * (place - 0.5)
            ax.plot([low, high], [height, height], color=colour, linewidth=1)
            ax.plot(value, height, marker, color=colour, markersize=3, label=form if row == 0 else None, linestyle="none")
    expected = [-2 * ORDERS[name] for name in COMPARED]
    ax.plot(expected, -np.arange(len(COMPARED)), "|", color="0.45", markersize=9, label="if stationary")
    ax.axvline(0, color="0.6", linewidth=0.6, linestyle=":")
    ax.set_yticks(-np.arange(len(COMPARED)), COMPARED)
    ax.set(xlabel="exponent minus that of the plain kernel", ylim=(-len(COMPARED) + 0.4, 0.6))


def by_band(ax: Any, learned: dict[str, list[Any]]) -> None:
    where, seeds = next(iter(learned.items()))
    places, predicted = np.arange(len(BANDS)), "frozen kernel"
    for shift, loss in zip((-0.08, 0.08), LOSSES, strict=True):
        last = [seed[loss][-1] for seed in seeds]
        now, expected = (np.array([one[name]["output"] for one in last]) for name in ("measured", "predicted"))
        low, middle, high = np.percentile(now, [25, 50, 75], axis=0)
        ax.plot(
            places + shift, np.median(expected, axis=0), color=COLOURS[loss], linewidth=0.8, linestyle="--", label=predicted
        )
        predicted = None
        errors = np.stack([middle - low, high - middle])
        ax.errorbar(places + shift, middle, errors, fmt="o", color=COLOURS[loss], markersize=3, linewidth=1, label=loss)
    ax.set_yscale("log")
    ax.set_xticks(places, [f"{first} to {last}" for first, last in BANDS])
    ax.set(
        xlabel="cosine modes of the output", ylabel=f"share of the error after {last_steps(seeds)} steps", xlim=(-0.4, 3.4)
    )
    ax.text(0.97, 0.05, where, ha="right", transform=ax.transAxes)


def last_steps(seeds: list[Any]) -> int:
    return seeds[0][LOSSES[0]][-1]["steps"]


def draw(rows: dict[str, list[Any]], learned: dict[str, list[Any]], figure: pathlib.Path) -> None:
    plt.rcParams |= {"font.size": 7, "axes.labelsize": 7, "legend.fontsize": 6.5}
    drawing = plt.figure(figsize=(85 / 25.4, 175 / 25.4))
    top = drawing.add_axes((0.17, 0.725, 0.79, 0.235))
    middle = drawing.add_axes((0.27, 0.385, 0.69, 0.255))
    bottom = drawing.add_axes((0.17, 0.055, 0.79, 0.235))
    spectra_of(top, rows)
    by_operator(middle, rows)
    by_band(bottom, learned)
    for ax, columns in ((top, 4), (middle, 3), (bottom, 3)):
        ax.spines[["top", "right"]].set_visible(False)
        ax.legend(
            frameon=False, loc="lower right", bbox_to_anchor=(1.0, 0.99), ncols=columns, columnspacing=1.0, handlelength=1.2
        )
    drawing.savefig(figure, dpi=200)
    plt.close(drawing)
    print(f"\nfigure in {figure}")
