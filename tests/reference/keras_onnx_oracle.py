"""Makes keras_onnx.npz: recurrent layers by Keras and by the reference evaluator of ONNX, in float64.

`KERAS_BACKEND=jax JAX_ENABLE_X64=1 python keras_onnx_oracle.py` writes it anew. It needs keras, jax and onnx.

Weights, inputs us (T, 2) and first states are random by numpy's default_rng. For each case: its weights, by the names that
the framework gives them; the states (T + 1, s), h and then c, of which the first is random; and for Keras the outputs (T, 1)
of a Dense layer. Cases are called keras/layer/options and onnx/operator/options.
"""

import importlib
import pathlib
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).with_name("keras_onnx.npz")
D, N, M, T = 2, 3, 1, 4
KERAS = {
    "keras/SimpleRNN/bias": ("SimpleRNN", {}),
    "keras/SimpleRNN/none": ("SimpleRNN", {"use_bias": False}),
    "keras/GRU/after": ("GRU", {}),
    "keras/GRU/before": ("GRU", {"reset_after": False}),
    "keras/GRU/none": ("GRU", {"use_bias": False}),
    "keras/GRU/none before": ("GRU", {"use_bias": False, "reset_after": False}),
    "keras/LSTM/bias": ("LSTM", {}),
    "keras/LSTM/none": ("LSTM", {"use_bias": False}),
}
# Operator, gates, attributes, and whether it has biases.
ONNX = {
    "onnx/RNN/bias": ("RNN", 1, {}, True),
    "onnx/RNN/none": ("RNN", 1, {}, False),
    "onnx/GRU/before": ("GRU", 3, {"linear_before_reset": 0}, True),
    "onnx/GRU/after": ("GRU", 3, {"linear_before_reset": 1}, True),
    "onnx/GRU/none": ("GRU", 3, {"linear_before_reset": 0}, False),
    "onnx/LSTM/bias": ("LSTM", 4, {}, True),
    "onnx/LSTM/none": ("LSTM", 4, {}, False),
}


def of_keras(us):
    keras = importlib.import_module("keras")
    keras.config.set_floatx("float64")
    # Keras promotes types as JAX without x64 does, so that it would compute float64 weights in float32.
    importlib.import_module("keras.src.backend.common.dtypes").BIT64_TO_BIT32_DTYPE.pop("float64")
    found = {"keras": np.array(f"keras {keras.__version__}, tests/reference/keras_onnx_oracle.py")}
    for seed, (case, (kind, options)) in enumerate(KERAS.items()):
        rng = np.random.default_rng(300 + seed)
        # The name is given, since Keras counts layers in a process.
        layer = getattr(keras.layers, kind)(N, return_sequences=True, name=kind.lower(), **options)
        dense = keras.layers.Dense(M, name="dense")
        model = keras.Sequential([keras.layers.Input((None, D)), layer, dense], name="net")
        model.set_weights([rng.uniform(-1, 1, weight.shape) for weight in model.weights])
        found |= {f"{case}/weights/{weight.path}": np.asarray(weight.value) for weight in model.weights}
        state = [rng.uniform(-1, 1, (1, N)) for _ in range(2 if kind == "LSTM" else 1)]
        states, outputs = [np.concatenate(state, axis=1)[0]], []
        for u in us:
            state = layer.cell(u[None], state)[1]
            states.append(np.concatenate([np.asarray(part) for part in state], axis=1)[0])
            outputs.append(np.asarray(dense(state[0]))[0])
        found |= {f"{case}/states": np.stack(states), f"{case}/outputs": np.stack(outputs)}
    return found


def of_onnx(us):
    onnx = importlib.import_module("onnx")
    helper, double = onnx.helper, onnx.TensorProto.DOUBLE
    evaluator = importlib.import_module("onnx.reference").ReferenceEvaluator
    found = {"onnx": np.array(f"onnx {onnx.__version__}, tests/reference/keras_onnx_oracle.py")}
    for seed, (case, (kind, gates, attributes, bias)) in enumerate(ONNX.items()):
        rng = np.random.default_rng(400 + seed)
        shapes = {"W": (1, gates * N, D), "R": (1, gates * N, N)} | ({"B": (1, 2 * gates * N)} if bias else {})
        weights = {name: rng.uniform(-1, 1, shape) for name, shape in shapes.items()}
        starts = ["h", "c"] if kind == "LSTM" else ["h"]
        ends = ["", *(f"{name}_after" for name in starts)]
        given = ["X", "W", "R", "B" if bias else "", "", *starts]
        node = helper.make_node(kind, given, ends, hidden_size=N, **attributes)
        values = [helper.make_tensor_value_info(name, double, None) for name in given if name]
        after = [helper.make_tensor_value_info(name, double, None) for name in ends[1:]]
        graph = helper.make_graph([node], case.replace("/", "_"), values, after)
        network = evaluator(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 14)]))
        state = [rng.uniform(-1, 1, (1, 1, N)) for _ in starts]
        states = [np.concatenate(state, axis=2).ravel()]
        for u in us:
            state = network.run(None, {"X": u[None, None]} | weights | dict(zip(starts, state, strict=True)))
            states.append(np.concatenate(state, axis=2).ravel())
        found |= {f"{case}/weights/{kind.lower()}_{name}": weight for name, weight in weights.items()}
        found[f"{case}/states"] = np.stack(states)
    return found


def made():
    """All arrays of the file."""
    us = np.random.default_rng(300).normal(size=(T, D))
    return {"us": us, **of_keras(us), **of_onnx(us)}


if __name__ == "__main__":
    everything: dict[str, Any] = made()
    np.savez_compressed(FILE, **everything)
