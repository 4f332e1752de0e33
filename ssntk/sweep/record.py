"""What the record of a point holds: names, units and meanings, and how a measurement becomes one."""

from typing import Any, NamedTuple

import numpy as np

from ssntk.collapse.channel import Channel
from ssntk.sweep.measure import Measurement


class Variable(NamedTuple):
    """A variable of a record: what it is, its units, its dimensions beyond the point, and whether every plan has it."""

    meaning: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    dtype: type = float
    always: bool = True


# "state" and "time" stand for the units of the model's state and time; K_int is the kernel integrated over time.
VARIABLES = {
    "parameter": Variable("swept parameter", "parameter"),
    "distance": Variable("|p - p_c|", "parameter"),
    "x_star": Variable("fixed point", "state", ("mode",)),
    "residual": Variable("largest |f_i| at the fixed point", "state / time"),
    "jacobian_eigenvalues": Variable("eigenvalues of df/dx; of a map the multipliers", "1 / time", ("mode",), complex),
    "ntk_eigenvalues": Variable("eigenvalues of the trajectory kernel K_int", "state^2 time", ("row",)),
    "steady_state_eigenvalues": Variable("eigenvalues of the steady-state kernel", "state^2", ("mode",)),
    "condition_number": Variable("of the steady-state kernel"),
    "trajectory_condition_number": Variable("of the trajectory kernel"),
    "trajectory_condition_number_is_bound": Variable("1 where that is only a lower bound, else 0"),
    "effective_rank": Variable("exp(entropy) of the trajectory kernel's spectrum"),
    "participation_ratio": Variable("of the trajectory kernel"),
    "top_share": Variable("of the trajectory kernel, lambda_1 / trace"),
    "trace": Variable("of the trajectory kernel K_int", "state^2 time"),
    "kernel_over_time": Variable(
        "trajectory kernel at times t and t', summed over inputs and coordinates, not weighted",
        "state^2",
        ("time", "time_2"),
        always=False,
    ),
    "channel_kind": Variable("of the critical eigenvalue, 'real' or 'pair'", dtype=str),
    "channel_frequency": Variable("its angular frequency", "rad / time"),
    "channel_critical_eigenvalue": Variable("of df/dx; of a map the multiplier", "1 / time", dtype=complex),
    "channel_right": Variable("right eigenvector r, |r| = 1", "1", ("mode",), complex, always=False),
    "channel_left": Variable("left eigenvector l, l^T r = 1", "1", ("mode",), complex, always=False),
    "channel_share": Variable("of the trace of the states' trajectory kernel, what lies along the critical directions"),
    "channel_oblique_share": Variable("tr K_cc / tr K by the spectral projector; above 1 where non-normal"),
    "channel_cross_share": Variable("what the cross terms add to the trace, of the trace"),
    "channel_nonnormality": Variable("|l| |r|"),
    "channel_drive": Variable("|l^T F| at the critical frequency", "state / time"),
    "channel_top_eigenvalue": Variable("largest eigenvalue of the states' trajectory kernel", "state^2 time"),
    "channel_predicted_top_eigenvalue": Variable(
        "largest eigenvalue of its critical part, by the master law; NaN where no method predicts it", "state^2 time"
    ),
    "channel_mismatch": Variable("how far the critical part lies from its prediction, relatively"),
    "channel_departure": Variable("how far trajectories change the critical eigenvalue, times min(T, 1 / |Re lambda|)"),
    "channel_alignment": Variable("|cos| of the top state direction with the critical one"),
    "channel_parameter_alignment": Variable("|cos| of the top parameter direction with the drive's"),
    "channel_method": Variable("what stands behind the prediction", dtype=str),
    "channel_reason": Variable("and why", dtype=str),
    "block_eigenvalues": Variable(
        "eigenvalues of each block's part of the trajectory kernel", "state^2 time", ("block", "row"), always=False
    ),
    "block_participation_ratio": Variable("of each block's part", dims=("block",), always=False),
    "block_channel_participation_ratio": Variable(
        "what the drive of the critical mode predicts of that; 0: not driven, NaN: unknown", dims=("block",), always=False
    ),
    "block_top_share": Variable("of each block's part, lambda_1 / trace", dims=("block",), always=False),
    "block_top_two_share": Variable("of each block's part, (lambda_1 + lambda_2) / trace", dims=("block",), always=False),
    "seconds": Variable("wall time of the point, that of its batch shared out", "s"),
    "status": Variable("'done', or 'failed: ' and the reason", dtype=str),
}


def record_of(measured: Measurement) -> dict[str, Any]:
    """The variables of a measured point."""
    trajectory, steady = measured.trajectory, measured.steady_state
    return {
        "x_star": measured.x_star,
        "residual": measured.residual,
        "jacobian_eigenvalues": measured.jacobian_eigenvalues,
        "ntk_eigenvalues": np.asarray(trajectory.eigenvalues),
        "steady_state_eigenvalues": np.asarray(steady.eigenvalues),
        "condition_number": _known(steady.condition_number),
        "trajectory_condition_number": _known(trajectory.condition_number),
        "trajectory_condition_number_is_bound": trajectory.condition_number_is_bound,
        "effective_rank": _known(trajectory.effective_rank),
        "participation_ratio": np.asarray(trajectory.participation_ratio),
        "top_share": np.asarray(trajectory.top_share),
        "trace": np.asarray(trajectory.trace),
        "kernel_over_time": measured.kernel_over_time,
        **_channel_record(measured.channel),
    } | (_block_record(measured) if measured.blocks else {})


def _known(value: Any) -> np.ndarray:
    """What a spectrum of only the top modes does not know is NaN in a record."""
    return np.asarray(np.nan if value is None else value)


def _channel_record(channel: Channel | None) -> dict[str, Any]:
    names = [name.removeprefix("channel_") for name in VARIABLES if name.startswith("channel_")]
    return {} if channel is None else {f"channel_{name}": np.asarray(getattr(channel, name)) for name in names}


def _block_record(measured: Measurement) -> dict[str, Any]:
    blocks = measured.blocks.values()
    return {
        "block_eigenvalues": np.stack([np.asarray(block.eigenvalues) for block in blocks]),
        "block_participation_ratio": np.stack([np.asarray(block.participation_ratio) for block in blocks]),
        "block_channel_participation_ratio": np.array(list(measured.channel_participation_ratio.values())),
        "block_top_share": np.stack([np.asarray(block.top_share) for block in blocks]),
        "block_top_two_share": np.stack([np.asarray(block.share(2)) for block in blocks]),
    }
