"""What is expected of random networks, in closed form: functions of numbers and numpy arrays, without a network."""

from ssntk.infinite.layers import harmonic_spectrum as harmonic_spectrum
from ssntk.infinite.layers import linear_residual as linear_residual
from ssntk.infinite.layers import relu_condition_number as relu_condition_number
from ssntk.infinite.layers import relu_nngp as relu_nngp
from ssntk.infinite.layers import relu_ntk as relu_ntk
from ssntk.infinite.linear import constant_drive as constant_drive
from ssntk.infinite.linear import green as green
from ssntk.infinite.linear import trajectory as trajectory
from ssntk.infinite.rest import Crossing as Crossing
from ssntk.infinite.rest import condition_number as condition_number
from ssntk.infinite.rest import crossing as crossing
from ssntk.infinite.rest import density as density
from ssntk.infinite.rest import gain_at as gain_at
from ssntk.infinite.rest import participation_ratio as participation_ratio
from ssntk.infinite.rest import resolved as resolved
from ssntk.infinite.rest import singular_values as singular_values
from ssntk.infinite.rest import stability_radius as stability_radius
from ssntk.infinite.rest import trace as trace

__all__ = [
    "Crossing",
    "condition_number",
    "constant_drive",
    "crossing",
    "density",
    "gain_at",
    "green",
    "harmonic_spectrum",
    "linear_residual",
    "participation_ratio",
    "relu_condition_number",
    "relu_nngp",
    "relu_ntk",
    "resolved",
    "singular_values",
    "stability_radius",
    "trace",
    "trajectory",
]
