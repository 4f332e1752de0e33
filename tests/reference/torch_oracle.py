"""Makes torch.npz: recurrent networks by PyTorch itself, in float64. `python torch_oracle.py` writes it anew.

Weights are uniform in +-scale by numpy's default_rng(seed), in the order of PyTorch's parameters, so that they do not depend
on PyTorch's version. For each network: its parameters, inputs (T, 3), hidden states (T, n), outputs (T, 2), the Jacobian
(2 T, p) of the outputs with respect to all parameters, by autograd, and the eigenvalues of J J^T. For the GRU also the fixed
points of its step under zero input, by Newton's method from 60 starts, the residuals of its step there, and its Jacobians.
"""

import importlib
import pathlib
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).with_name("torch.npz")
D, N, M, T = 3, 5, 2, 6
# kind: seed, scale of the weights, and how the layer is made.
CASES = {
    "rnn_tanh": (0, 0.8, "RNN", {"nonlinearity": "tanh"}),
    "rnn_relu": (1, 0.5, "RNN", {"nonlinearity": "relu"}),
    # The first seed from 2 on whose GRU has several fixed points.
    "gru": (13, 2.0, "GRU", {}),
    "lstm": (3, 1.0, "LSTM", {}),
}


def made():
    """All arrays of the file."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    found = {"provenance": np.array(f"torch {torch.__version__}, tests/reference/torch_oracle.py")}
    for case, (seed, scale, layer, options) in CASES.items():
        rng = np.random.default_rng(seed)
        net = torch.nn.ModuleDict({"core": getattr(torch.nn, layer)(D, N, **options), "fc": torch.nn.Linear(N, M)}).double()
        for name, parameter in net.named_parameters():
            parameter.data = torch.as_tensor(rng.uniform(-scale, scale, parameter.shape))
            found[f"{case}/weights/{name}"] = parameter.detach().numpy()
        us = rng.normal(size=(T, D))
        hidden = net["core"](torch.as_tensor(us)[:, None])[0][:, 0]
        outputs = net["fc"](hidden)
        rows = [torch.autograd.grad(one, list(net.parameters()), retain_graph=True) for one in outputs.ravel()]
        jacobian = np.stack([np.concatenate([block.numpy().ravel() for block in row]) for row in rows])
        found |= {f"{case}/us": us, f"{case}/hidden": hidden.detach().numpy(), f"{case}/outputs": outputs.detach().numpy()}
        found |= {f"{case}/jacobian": jacobian, f"{case}/eigenvalues": np.linalg.eigvalsh(jacobian @ jacobian.T)[::-1]}
        if case == "gru":
            found |= {f"{case}/fixed/{name}": value for name, value in fixed_points(torch, net["core"], rng).items()}
    return found


def fixed_points(torch, layer, rng):
    def step(h):
        return layer(torch.zeros(1, 1, D, dtype=torch.float64), h[None, None])[1][0, 0]

    points = []
    for start in rng.uniform(-1, 1, (60, N)):
        h = torch.as_tensor(start)
        for _ in range(60):
            jacobian = torch.autograd.functional.jacobian(step, h) - torch.eye(N)
            move = torch.linalg.solve(jacobian, step(h).detach() - h)
            # Damped, so that an iteration does not leave the box where the states of a GRU are.
            largest = float(move.abs().max())
            h = h - move * min(1.0, 0.5 / max(largest, 1e-15))
            if largest < 1e-14 or float(h.abs().max()) > 3:
                break
        if float((step(h).detach() - h).abs().max()) < 1e-12 and all(
            np.abs(h.numpy() - other).max() > 1e-6 for other in points
        ):
            points.append(h.detach().numpy())
    points = np.stack(sorted(points, key=tuple))
    left = np.array([float((step(torch.as_tensor(h)).detach() - torch.as_tensor(h)).abs().max()) for h in points])
    jacobians = [torch.autograd.functional.jacobian(step, torch.as_tensor(h)).numpy() for h in points]
    return {"x": points, "residual": left, "jacobian": np.stack(jacobians)}


if __name__ == "__main__":
    everything: dict[str, Any] = made()
    np.savez(FILE, **everything)
