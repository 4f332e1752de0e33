"""Pictures of results. Every function takes results and returns the axes it drew into."""

from ssntk.plot.canvas import plt as plt
from ssntk.plot.collapse_figure import collapse
from ssntk.plot.curves import bifurcation_curves
from ssntk.plot.diagram import bifurcation_diagram
from ssntk.plot.judged import verdicts
from ssntk.plot.kernel_map import kernel_map
from ssntk.plot.monitoring import monitor
from ssntk.plot.phases import phase_diagram
from ssntk.plot.points import fixed_points
from ssntk.plot.spectra import eigenvalues, kernel, spectrum
from ssntk.plot.styles import style

__all__ = [
    "bifurcation_curves",
    "bifurcation_diagram",
    "collapse",
    "eigenvalues",
    "fixed_points",
    "kernel",
    "kernel_map",
    "monitor",
    "phase_diagram",
    "spectrum",
    "style",
    "verdicts",
]


def __dir__() -> list[str]:
    """The names of the plots only."""
    return __all__
