"""Makes torch.npz and torch_layers.npz: recurrent networks by PyTorch itself, in float64. `python torch_oracle.py` writes
torch_layers.npz anew, and with the argument `all` both.

Weights are uniform in +-scale by numpy's default_rng(seed), in the order of PyTorch's parameters, so that they do not depend
on PyTorch's version. For each network: its parameters, inputs (T, 3), hidden states (T, n), outputs (T, 2), the Jacobian
(2 T, p) of the outputs with respect to all parameters, by autograd, and the eigenvalues of J J^T. For the GRU also the fixed
points of its step under zero input, by Newton's method from 60 starts, the residuals of its step there, and its Jacobians.

torch_layers.npz holds stacks of 1 to 3 layers of each kind, with and without biases, called kind/layers/bias. The inputs
us (T, 2) are those of all. For each: its parameters in one row, in PyTorch's order; the states (T + 1, s) of all layers,
each layer's h and then its c, of which the first are random; its outputs (T, 1) from there; and the derivative (p,) of the
last output with respect to all parameters, by autograd.
"""

import importlib
import itertools
import pathlib
import sys
from typing import Any

import numpy as np

FILE = pathlib.Path(__file__).with_name("torch.npz")
STACKS = FILE.with_name("torch_layers.npz")
D, N, M, T = 3, 5, 2, 6
# kind: seed, scale of the weights, and how the layer is made.
CASES = {
    "rnn_tanh": (0, 0.8, "RNN", {"nonlinearity": "tanh"}),
    "rnn_relu": (1, 0.5, "RNN", {"nonlinearity": "relu"}),
    # The first seed from 2 on whose GRU has several fixed points.
    "gru": (13, 2.0, "GRU", {}),
    "lstm": (3, 1.0, "LSTM", {}),
}


def stacks():
    """All arrays of torch_layers.npz."""
    torch = importlib.import_module("torch")
    torch.set_num_threads(1)
    d, n, m, steps = 2, 3, 1, 4
    us = np.random.default_rng(100).normal(size=(steps, d))
    found = {"provenance": np.array(f"torch {torch.__version__}, tests/reference/torch_oracle.py"), "us": us}
    inputs = torch.as_tensor(us)[:, None]
    for seed, (case, layers, bias) in enumerate(itertools.product(CASES, (1, 2, 3), (True, False))):
        _, _, layer, options = CASES[case]
        rng = np.random.default_rng(200 + seed)
        core = getattr(torch.nn, layer)(d, n, layers, bias=bias, **options)
        net = torch.nn.ModuleDict({"core": core, "fc": torch.nn.Linear(n, m, bias=bias)}).double()
        for parameter in net.parameters():
            parameter.data = torch.as_tensor(rng.uniform(-1, 1, parameter.shape))
        parts = 2 if layer == "LSTM" else 1
        start = [torch.as_tensor(rng.uniform(-1, 1, (layers, 1, n))) for _ in range(parts)]
        outputs = net["fc"](core(inputs, tuple(start) if parts == 2 else start[0])[0])[:, 0]
        row = torch.autograd.grad(outputs[-1, 0], list(net.parameters()))
        states = [start]
        for u in inputs:
            after = core(u[None], tuple(states[-1]) if parts == 2 else states[-1][0])[1]
            states.append([part.detach() for part in (after if parts == 2 else [after])])
        name = f"{case}/{layers}/{'bias' if bias else 'none'}"
        found[f"{name}/weights"] = np.concatenate([one.detach().numpy().ravel() for one in net.parameters()])
        # Of each layer first h and then c.
        found[f"{name}/states"] = np.stack([torch.stack(one, dim=1).numpy().ravel() for one in states])
        found[f"{name}/outputs"] = outputs.detach().numpy()
        found[f"{name}/row"] = np.concatenate([block.numpy().ravel() for block in row])
    return found


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
    everything: dict[str, Any] = stacks()
    np.savez_compressed(STACKS, **everything)
    if "all" in sys.argv[1:]:
        everything = made()
        np.savez(FILE, **everything)
