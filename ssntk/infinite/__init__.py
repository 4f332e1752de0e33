"""What is expected of random networks, in closed form: functions of numbers and numpy arrays, without a network."""

from ssntk.infinite.rest import (
    Crossing,
    condition_number,
    crossing,
    density,
    gain_at,
    participation_ratio,
    resolved,
    singular_values,
    stability_radius,
    trace,
)
from ssntk.infinite.trajectory import constant_drive, green, trajectory

__all__ = [
    "Crossing",
    "condition_number",
    "constant_drive",
    "crossing",
    "density",
    "gain_at",
    "green",
    "participation_ratio",
    "resolved",
    "singular_values",
    "stability_radius",
    "trace",
    "trajectory",
]
