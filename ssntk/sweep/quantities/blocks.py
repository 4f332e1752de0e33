"""The part of the trajectory kernel that belongs to each block of theta."""

from typing import ClassVar

import numpy as np

from ssntk.nouns import Values
from ssntk.sweep.measurement import Measurement
from ssntk.sweep.quantities.base import AbstractQuantity, Variable


def _of_blocks(meaning: str, label: str, *, units: str = "1", dims: tuple[str, ...] = ("block",)) -> Variable:
    return Variable(meaning, units, dims, always=False, label=label, section="blocks")


class BlocksQuantity(AbstractQuantity):
    """The spectrum of each requested block's part of the trajectory kernel. Records nothing if no block was requested."""

    name = "blocks"
    variables: ClassVar[dict[str, Variable]] = {
        "block_eigenvalues": _of_blocks(
            "eigenvalues of each block's part of the trajectory kernel",
            "Largest eigenvalue",
            units="state^2 time",
            dims=("block", "row"),
        ),
        "block_top_share": _of_blocks("of each block's part, lambda_1 / trace", "Share of the top mode"),
        "block_top_two_share": _of_blocks("of each block's part, (lambda_1 + lambda_2) / trace", "Of the top two"),
        "block_participation_ratio": _of_blocks("of each block's part", "Participation ratio"),
        "block_channel_participation_ratio": _of_blocks(
            "what the drive of the critical mode predicts of that; 0: not driven, NaN: unknown", "Predicted"
        ),
    }

    def finish(self, shared: Measurement, traced: None) -> Values:
        blocks = shared.blocks.values()
        if not blocks:
            return {}
        return {
            "block_eigenvalues": np.stack([np.asarray(block.eigenvalues) for block in blocks]),
            "block_top_share": np.stack([np.asarray(block.top_share) for block in blocks]),
            "block_top_two_share": np.stack([np.asarray(block.share(2)) for block in blocks]),
            "block_participation_ratio": np.stack([np.asarray(block.participation_ratio) for block in blocks]),
            "block_channel_participation_ratio": np.array(list(shared.channel_participation_ratio.values())),
        }
