"""A model with two scalar parameters: two families of one model."""

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

from ssntk.errors import as_array
from ssntk.models.clock import AbstractClock

# Directions whose cosine is within this of one are parallel.
PARALLEL = 1e-6


class Plane(eqx.Module):
    """Two families of one model, as a model with two scalar parameters: `plane(p1, p2)` is the model at (p1, p2).

    [`Family.plane`][] makes it. `first` and `second` are the families. `base` is the pair of parameters at which the shared
    model lies: the value of an attribute in the model, and 0 for lines and inputs. So `first(p)` is `plane(p, base[1])`, and
    `second(p)` is `plane(base[0], p)`.

    **Example:**

    ```python
    model = ssntk.normal_forms.hopf(-0.5, 1.0)
    plane = ssntk.Family.plane(ssntk.Family(model, "mu"), ssntk.Family(model, "omega"))
    print(plane.base, plane(0.25, 2.0).omega)  # (-0.5, 1.0) 2.0
    ```
    """

    first: Any
    second: Any

    @property
    def dt(self) -> float | None:
        """The step for maps; `None` for models in continuous time."""
        return self.first.dt

    @property
    def clock(self) -> AbstractClock:
        """The clock of the model."""
        return self.first.clock

    @property
    def model(self) -> Any:
        """The model that both families share."""
        return self.first.model

    @property
    def base(self) -> tuple[float, float]:
        """The parameters (p1, p2) of the shared model."""
        return _base(self.first), _base(self.second)

    def across(self, second: Any) -> Any:
        """The family over p1 alone, at p2 = `second`."""
        return self.first.of(self.second(second))

    def __call__(self, first: Any, second: Any) -> Any:
        """The model at the parameters p1 = `first` and p2 = `second`."""
        return self.across(second)(first)


def plane_of(first: Any, second: Any) -> Plane:
    """The plane of two families, which are known to be families. `ValueError` if they span none."""
    if not eqx.tree_equal(first.model, second.model):
        raise ValueError("family2 must be of the same model as family1, with the same values of all its numbers")
    same = f"family2 must move another parameter than family1: both move {_said(first)}"
    moves = {first.moves, second.moves}
    if moves == {"input"}:
        if _parallel(first.direction, second.direction):
            raise ValueError(same)
        if np.array_equal(np.asarray(first.offset), np.asarray(second.offset)):
            # The inputs of both are added, and a common offset counts once.
            second = eqx.tree_at(lambda family: family.offset, second, jnp.zeros_like(second.offset))
    elif moves == {"line"}:
        if set(first.at) == set(second.at):
            order = [second.at.index(at) for at in first.at]
            if _parallel(first.direction, [second.direction[i] for i in order]):
                raise ValueError(same)
    elif "input" not in moves and set(first.at) & set(second.at):
        raise ValueError(same)
    return Plane(first, second)


def spans_of(spans: Any) -> np.ndarray:
    """The ends (2, 2) of both parameters, lower ends first. `ValueError` if there are none."""
    try:
        first, second = spans
    except (TypeError, ValueError) as error:
        raise ValueError("spans must be a pair (span1, span2), each the two ends of a parameter") from error
    ends = np.stack(
        [np.sort(np.asarray(as_array(one, f"spans[{i}]", (2,)), float)) for i, one in enumerate((first, second))]
    )
    for i in np.flatnonzero(ends[:, 0] == ends[:, 1]):
        raise ValueError(f"spans[{i}] must not be empty, got ({ends[i, 0]:g}, {ends[i, 1]:g})")
    return ends


def _parallel(first: Any, second: Any) -> bool:
    one, other = (np.concatenate([np.ravel(np.asarray(part, float)) for part in parts]) for parts in (first, second))
    with np.errstate(all="ignore"):
        one, other = one / np.abs(one).max(), other / np.abs(other).max()
        return bool(abs(one @ other) >= (1 - PARALLEL) * np.linalg.norm(one) * np.linalg.norm(other))


def _base(family: Any) -> float:
    """The parameter at which a family is its own model."""
    if family.moves != "attribute":
        return 0.0
    return float(np.asarray(family.value).reshape(()))


def _said(family: Any) -> str:
    return {"attribute": "the same scalar", "line": "along the same direction", "input": "the same input"}[family.moves]
