"""Published networks, which lie beside the project, in shared/, with sources and licences. They are not copied."""

import numpy as np
import pytest
from helpers import ROOT

import ssntk

FOLDER = ROOT.parent / "shared" / "reference" / "networks"
needed = pytest.mark.skipif(not FOLDER.exists(), reason="the published networks lie beside the project, in shared/")


def weights(name):
    return {key: np.asarray(value, float) for key, value in ssntk.load_weights(FOLDER / name).items()}


def sine_generator():
    """A CTRNN of 250 units that was trained to generate sines."""
    held = {name.rpartition("cell/")[2]: array for name, array in weights("ctrnn_jax_params_example.bin").items()}
    return ssntk.CTRNN.from_weights(
        held["recurrent_kernel/kernel"].T,
        held["input_kernel/kernel"].T,
        held["recurrent_kernel/bias"],
        readout_weight=held["output_kernel/kernel"].T,
        readout_bias=held["output_kernel/bias"],
    )
