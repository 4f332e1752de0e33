"""The part of the trajectory kernel that belongs to the critical mode."""

from typing import Any, ClassVar

import numpy as np

from ssntk.nouns import Values
from ssntk.sweep.measurement import Measurement
from ssntk.sweep.quantities.base import AbstractQuantity, Variable


def _of_channel(meaning: str, units: str = "1", *, label: str = "", **rest: Any) -> Variable:
    """A variable of the channel. If it has a label, the page lists it in the table of the critical mode."""
    return Variable(meaning, units, label=label, section="channel" if label else "", **rest)


class ChannelQuantity(AbstractQuantity):
    """The channel of the critical mode, as in `Measurement.channel`. Records nothing if the point has none."""

    name = "channel"
    variables: ClassVar[dict[str, Variable]] = {
        "channel_kind": _of_channel("of the critical eigenvalue, 'real' or 'pair'", dtype=str),
        "channel_frequency": _of_channel("its angular frequency", "rad / time", label="Angular frequency"),
        "channel_critical_eigenvalue": _of_channel("of df/dx; of a map the multiplier", "1 / time", dtype=complex),
        "channel_right": _of_channel("right eigenvector r, |r| = 1", dims=("mode",), dtype=complex, always=False),
        "channel_left": _of_channel("left eigenvector l, l^T r = 1", dims=("mode",), dtype=complex, always=False),
        "channel_share": _of_channel(
            "of the trace of the states' trajectory kernel, what lies along the critical directions",
            label="Share of the trace along the critical directions",
        ),
        "channel_oblique_share": _of_channel(
            "tr K_cc / tr K by the spectral projector; above 1 if non-normal", label="Share by the spectral projector"
        ),
        "channel_cross_share": _of_channel(
            "what the cross terms add to the trace, of the trace", label="Share of the cross terms"
        ),
        "channel_nonnormality": _of_channel("|l| |r|", label="Non-normality |l| |r|"),
        "channel_drive": _of_channel(
            "|l^T F| at the critical frequency", "state / time", label="Drive |lᵀF| at the critical frequency"
        ),
        "channel_top_eigenvalue": _of_channel(
            "largest eigenvalue of the states' trajectory kernel", "state^2 time", label="Largest eigenvalue, measured"
        ),
        "channel_predicted_top_eigenvalue": _of_channel(
            "largest eigenvalue of its critical part, by the master law; NaN if no method predicts it",
            "state^2 time",
            label="Largest eigenvalue of the critical part, by the master law",
        ),
        "channel_mismatch": _of_channel(
            "how far the critical part lies from its prediction, relatively",
            label="Relative mismatch of the critical part",
        ),
        "channel_departure": _of_channel(
            "how far trajectories change the critical eigenvalue, times min(T, 1 / |Re lambda|)",
            label="Departure of the critical eigenvalue along trajectories",
        ),
        "channel_alignment": _of_channel(
            "|cos| of the top state direction with the critical one", label="Alignment |cos| of the top state direction"
        ),
        "channel_parameter_alignment": _of_channel(
            "|cos| of the top parameter direction with the drive's",
            label="Alignment |cos| of the top parameter direction",
        ),
        "channel_method": _of_channel("what stands behind the prediction", dtype=str),
        "channel_reason": _of_channel("and why", dtype=str),
    }

    def finish(self, shared: Measurement, traced: None) -> Values:
        if shared.channel is None:
            return {}
        return {name: np.asarray(getattr(shared.channel, name.removeprefix("channel_"))) for name in self.variables}
