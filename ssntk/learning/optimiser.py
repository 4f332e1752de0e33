"""What an optimiser does to the gradient, read from its state. It is one of optax or of PyTorch; neither must be
installed."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.optimize
from jaxtyping import PyTree

from ssntk.errors import as_scalar
from ssntk.kernel.preconditioner import DECAY, EPSILON, adam_state, adams, aligned, diagonal
from ssntk.models.theta import Theta
from ssntk.nouns import AnyArray

# The default momentum of Adam.
ADAMS = 0.9
WHAT = "optimiser must be the state of optax.sgd or optax.adam, or a torch.optim SGD, Adam or AdamW"
# Keys of the parameter groups of torch's SGD, and of its Adam and AdamW. No other optimiser of torch has all of them.
SGD, ADAM = {"lr", "momentum", "dampening", "nesterov"}, {"lr", "betas", "eps", "amsgrad"}
INNER = ("inner_state", "inner_states", "inner_opt_state")


class Rule(NamedTuple):
    """The rule `v <- momentum v + weight g; theta <- theta - rate v / D`. Adam divides v by `1 - momentum^k` at its k-th
    step.

    - `rate`: NaN if it is not known.
    - `diagonal`: D (p,); `None` for ones.
    - `velocity`: v (p,); `None` for zeros.
    - `count`: how many steps Adam has made; `None` for gradient descent.
    - `known`: whether D is known; before Adam's first step it is not.
    """

    rate: float
    momentum: float = 0.0
    weight: float = 1.0
    diagonal: AnyArray | None = None
    velocity: np.ndarray | None = None
    count: int | None = None
    known: bool = True

    def limit(self, top: float) -> float:
        """The largest stable rate, if `top` is the largest eigenvalue of the curvature."""
        if not self.known:
            return np.nan
        return 2 * (1 + self.momentum) / (self.weight * top) if top > 0 else np.inf


def rule_of(theta: Theta, learning_rate: object, momentum: object, preconditioner: PyTree, optimiser: object) -> Rule:
    """The rule by which theta is trained. An explicit argument overrides what the optimiser's state says.

    Raises `ValueError`, which names the argument that is wrong.
    """
    rate = None if learning_rate is None else float(as_scalar(learning_rate, "learning_rate", positive=True))
    decay = None if momentum is None else float(as_scalar(momentum, "momentum"))
    if decay is not None and not 0 <= decay < 1:
        raise ValueError(f"momentum must lie in [0, 1), got {decay:g}")
    if optimiser is None:
        state = None if preconditioner is None else adam_state(preconditioner)
        if state is not None:
            found = _adam(theta, state, {}, decay, "preconditioner")
        else:
            found = Rule(np.nan, decay or 0.0, diagonal=diagonal(preconditioner, theta))
    elif preconditioner is not None:
        raise ValueError("optimiser and preconditioner must not both be given")
    elif hasattr(optimiser, "param_groups") and hasattr(optimiser, "state"):
        found = _torch(theta, optimiser, decay)
    else:
        found = _optax(theta, optimiser, decay)
    return found if rate is None else found._replace(rate=rate)


def _parts(state: object) -> Iterator[Any]:
    """The named parts of a state of optax, the outer ones first."""
    if isinstance(state, tuple) and hasattr(state, "_fields"):
        yield state
        state = [getattr(state, name) for name in INNER if hasattr(state, name)]
    for part in state.values() if isinstance(state, Mapping) else state if isinstance(state, (tuple, list)) else ():
        yield from _parts(part)


def _optax(theta: Theta, state: PyTree, decay: float | None) -> Rule:
    parts, said, trace = list(_parts(state)), {}, None
    if not parts:
        raise ValueError(f"{WHAT}; got {type(state).__name__}")
    for part in parts:
        fields = set(part._fields)
        if fields == {"init", "update"}:
            raise ValueError(f"{WHAT}; got the transformation itself: give the state that it makes and updates")
        if fields == {"trace"}:
            trace = part.trace
        elif not (fields <= {"count"} or fields == {"count", "mu", "nu"} or fields & {*INNER}):
            raise ValueError(f"{WHAT}; got {type(part).__name__}, for which no stable rate is known: give preconditioner=")
        said |= dict(getattr(part, "hyperparams", {}))
    adam = adam_state(state, "optimiser", fresh=True)
    if adam is not None:
        return _adam(theta, adam, said, decay, "optimiser")
    rate, decay = float(said.get("learning_rate", np.nan)), said.get("momentum", 0.0) if decay is None else decay
    if trace is None:
        return Rule(rate, float(decay))
    if not float(decay) > 0:
        raise ValueError("momentum must be given: the state of optax.sgd does not hold it")
    return Rule(rate, float(decay), velocity=np.asarray(aligned(trace, theta, "optimiser"), float))


def _adam(theta: Theta, state: PyTree, said: Mapping[str, Any], decay: float | None, name: str) -> Rule:
    rate, count = float(said.get("learning_rate", np.nan)), int(state.count)
    mean = float(said.get("b1", ADAMS)) if decay is None else decay
    velocity, square = (np.asarray(aligned(part, theta, name), float) for part in (state.mu, state.nu))
    if count == 0:
        return Rule(rate, mean, 1 - mean, known=False)
    size = adams(square, float(count), float(said.get("b2", DECAY)), float(said.get("eps", EPSILON)))
    return Rule(rate, mean, 1 - mean, _positive(size, name), velocity, count)


def _torch(theta: Theta, optimiser: Any, decay: float | None) -> Rule:
    groups = list(optimiser.param_groups)
    adam = all(set(group) >= ADAM for group in groups)
    if not groups or not (adam or all(set(group) >= SGD for group in groups)):
        raise ValueError(f"{WHAT}; got {type(optimiser).__name__}")
    if any(group.get("nesterov") or group.get("maximize") for group in groups):
        raise ValueError("optimiser must be without nesterov and maximize, for which no stable rate is known here")
    owned = [(tensor, group) for group in groups for tensor in group["params"]]
    owned = [owned[i] for i in _matched(theta, [_numbers(tensor) for tensor, _ in owned])]
    rules = {tuple(map(float, g["betas"])) if adam else (float(g["momentum"]), float(g["dampening"])) for _, g in owned}
    if len(rules) > 1:
        raise ValueError(f"optimiser must move all of theta with one momentum, got {sorted(rules)}")
    ((mean, other),) = rules
    mean = mean if decay is None else decay
    # Groups may have different rates. D expresses them, relative to the largest.
    rates = np.concatenate([np.full(_numbers(tensor).size, float(group["lr"])) for tensor, group in owned])
    # With a schedule that warms up, all rates are zero at first.
    if not ((rates > 0).all() or (rates == 0).all()):
        raise ValueError("optimiser must have positive learning rates; leave what does not move out of wrt")
    rate, states = float(rates.max()), [dict(optimiser.state.get(tensor, {})) for tensor, _ in owned]
    apart = None if (rates == rate).all() else rate / rates

    def held(name: str) -> np.ndarray | None:
        """A buffer of all tensors, raveled (p,); `None` if one has none."""
        found = [state.get(name) for state in states]
        return None if any(one is None for one in found) else np.concatenate([_numbers(one).ravel() for one in found])

    if not adam:
        # Torch does not dampen the first step of its momentum, but it dampens later ones.
        return Rule(rate, mean, 1 - other if mean > 0 else 1.0, apart, held("momentum_buffer") if mean > 0 else None)
    counts = {int(_numbers(state.get("step", 0))) for state in states}
    square = held("max_exp_avg_sq" if groups[0]["amsgrad"] else "exp_avg_sq")
    if square is None or 0 in counts:
        return Rule(rate, mean, 1 - mean, known=False)
    if len(counts) > 1:
        raise ValueError(f"optimiser must have moved all of theta equally often, got {sorted(counts)} steps")
    epsilon = np.concatenate([np.full(_numbers(tensor).size, float(group["eps"])) for tensor, group in owned])
    count = counts.pop()
    size = adams(square, float(count), other, 0.0) + epsilon
    return Rule(
        rate, mean, 1 - mean, _positive(size if apart is None else size * apart, "optimiser"), held("exp_avg"), count
    )


def _matched(theta: Theta, tensors: list[np.ndarray]) -> list[int]:
    """Which tensor belongs to which leaf of theta.

    Each leaf gets the tensor of its shape that is nearest in value; if several are equally near, in their order. If theta
    was read from the network, its values are those of the tensors.
    """
    values = [np.asarray(leaf, float) for leaf in theta.arrays]
    found: dict[int, int] = {}
    for shape in dict.fromkeys(leaf.shape for leaf in values):
        leaves = [i for i, leaf in enumerate(values) if leaf.shape == shape]
        these = [j for j, tensor in enumerate(tensors) if tensor.shape == shape]
        if len(these) < len(leaves):
            raise ValueError(
                f"optimiser must move all of theta, with leaves of the shapes {[leaf.shape for leaf in values]}, got "
                f"tensors of {[tensor.shape for tensor in tensors]}; say by wrt= what it moves"
            )
        apart = np.array([[np.linalg.norm(values[i] - tensors[j]) for j in these] for i in leaves])
        found |= {leaves[i]: these[j] for i, j in zip(*scipy.optimize.linear_sum_assignment(apart), strict=True)}
    return [found[i] for i in range(len(values))]


def _numbers(tensor: Any) -> np.ndarray:
    """A tensor or an array as a NumPy array."""
    if hasattr(tensor, "detach"):
        tensor = tensor.detach().cpu().double().numpy()
    try:
        return np.asarray(tensor, float)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{WHAT}; it holds a {type(tensor).__name__}, which is no array") from error


def _positive(size: np.ndarray, name: str) -> jax.Array:
    if not (size > 0).all():
        raise ValueError(f"{name} must have positive second moments, or an epsilon")
    return jax.device_put(size)
