"""What is expected of a random network: closed forms, as functions of numbers, and the mean field of trajectories."""

from ssntk.infinite.layers import harmonic_spectrum as harmonic_spectrum
from ssntk.infinite.layers import linear_residual as linear_residual
from ssntk.infinite.layers import relu_condition_number as relu_condition_number
from ssntk.infinite.layers import relu_nngp as relu_nngp
from ssntk.infinite.layers import relu_ntk as relu_ntk

__all__ = [
    "harmonic_spectrum",
    "linear_residual",
    "relu_condition_number",
    "relu_nngp",
    "relu_ntk",
]
