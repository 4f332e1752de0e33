"""What phase diagrams say of random networks, against networks. Compiles the measurement of 32 and 64 units, once each."""

from typing import ClassVar

import jax.random as jr
import matplotlib.pyplot as plt
import numpy as np
import pytest
from helpers import QUICK

import ssntk

GAINS = [0.45, 0.5, 0.55, 0.6, 0.65, 0.7]


class Radius(ssntk.AbstractQuantity):
    """The stability radius at the fixed point."""

    name = "radius"
    variables: ClassVar = {"radius": ssntk.Variable("stability radius at the fixed point", "1 / time")}

    def traced(self, point):
        return point.jacobian

    def finish(self, shared, traced):
        return {"radius": float(ssntk.stability_radius(traced)[0])}


def network(gain, n, seed):
    return ssntk.CTRNN(int(n), 0, 1, gain=gain, key=jr.key(int(seed)))


@pytest.mark.slow
def test_the_radius_falls_to_a_third_where_the_diagram_says(tmp_path):
    """The median of twelve networks, between the gains of the grid; the line is drawn at the gain of the law."""
    axes = {"gain": GAINS, "n": [32, 64], "seed": list(range(12))}
    grid = ssntk.Grid(network, axes, probe=ssntk.Probe([0.0, 1.0]), integrator=QUICK, modes=2, quantities=(Radius(),))
    store = ssntk.run(grid, ssntk.Store(tmp_path), progress=False)
    panels = ssntk.plot.phase_diagram(store, x="gain", y="n", theory=True)
    (line,) = (line for line in panels[0].get_lines() if "0.33" in line.get_label())
    drawn = np.asarray(line.get_xdata(), float)[::3]
    radius = np.median(store.to_xarray().radius.to_numpy(), axis=2)
    for i, gain in enumerate(drawn):
        measured = np.interp(-0.33, -radius[:, i], GAINS)
        assert gain == pytest.approx(measured, abs=0.03)
    plt.close("all")
