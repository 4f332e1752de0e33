"""Predictions at a probe that is not trained on, and how they scatter over random initialisations.

Let theta be where training starts. The outputs at the probe are linearised there, `y = y(theta) + J' d` (rows', p), as those
that are trained on. Training of so many steps moves theta by a known d, which gives the predictions.

If training started from theta + z, it would move theta by another d. The descent is linear, and it leaves the share e of the
error along each singular direction v of the loss' Jacobian, so that theta ends at z - v (1 - e) v.z beside its place.
So with z ~ N(0, S^2) the predictions have the covariance P S^2 P^T, with P = J' (1 - sum v (1 - e) v^T). No eigenvalue is
divided by, so that small ones need no floor.
"""

from typing import Any, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ssntk.dynamics.integrate import steps_of
from ssntk.dynamics.probe import Probe
from ssntk.errors import as_array, as_instance
from ssntk.kernel.rows import Checked, asked_of
from ssntk.learning.losses import outputs_of
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.maps import AbstractMap


class Descended(NamedTuple):
    """What training does to theta, in the linear approximation.

    - `change` (p,): how far theta moves.
    - `right` (k, p): the right singular vectors of the loss' Jacobian J D^(-1/2), one in each row.
    - `left` (k,): the share of the error along each of them that is left at the end.
    - `over` (p,): D^(-1/2), with D what the gradient is divided by.
    """

    change: np.ndarray
    right: np.ndarray
    left: np.ndarray
    over: np.ndarray


class Unseen(NamedTuple):
    """A question about a probe that is not trained on, checked, and nothing solved yet.

    - `test`: the probe's question. `scatter` (p,): the standard deviation of each parameter over initialisations.
    """

    test: Checked
    scatter: np.ndarray

    @staticmethod
    def of(model: AbstractStateSpaceModel, test: Any, init_std: Any, **asked: Any) -> "Unseen | None":
        """The question, or `None` without one. Raises `ValueError`, which names the argument that is wrong."""
        if test is None:
            if init_std is not None:
                raise ValueError("init_std needs a probe test: it is the scatter of the initialisations there")
            return None
        # All outputs are predicted, whether or not they are hidden.
        shown = eqx.tree_at(lambda p: p.mask, as_instance(test, "test", Probe), None, is_leaf=lambda leaf: leaf is None)
        try:
            fitted = shown.fit(model)
            if isinstance(model, AbstractMap) and asked.get("integrator") is None:
                # A map takes its own steps, which need no compiled code to be checked.
                steps_of(model, None, fitted)
        except ValueError as error:
            raise ValueError(f"test must be a probe that fits the model: {error}") from error
        checked = asked_of(model, shown, **asked)
        checked.check_jacobian()
        checked.check_kernel()
        size = checked.theta.size
        given = np.asarray(as_array(1.0 if init_std is None else init_std, "init_std"), float)
        if given.shape not in ((), (size,)):
            raise ValueError(f"init_std must be a number or have shape ({size},), one for each parameter, got {given.shape}")
        if (given < 0).any():
            raise ValueError(f"init_std must not be negative, got {given.min():g}")
        return Unseen(checked, np.broadcast_to(given, (size,)))

    def after(self, of: str, method: str, ended: Descended) -> tuple[Float[np.ndarray, "B T m"], Float[np.ndarray, "R R"]]:
        """The predictions after training, and their covariance."""
        rows = self.test.recorded()
        outputs = np.asarray(outputs_of(self.test.theta.model, rows.replay, of), float)
        jacobian = np.asarray(rows.matrix(method), float)
        # What diverges becomes infinite or NaN, as it should.
        with np.errstate(over="ignore", invalid="ignore"):
            prediction = outputs + (jacobian @ ended.change).reshape(outputs.shape)
            scaled = jacobian * ended.over
            along = scaled @ ended.right.T
            # Directions that are trained and those that are not are kept apart, so that a small share left is not rounded.
            spread = (scaled - along @ ended.right) + (along * ended.left) @ ended.right
            # `over` is of J D^(-1/2), and initialisations scatter in theta.
            spread = spread * (self.scatter / ended.over)
            return prediction, spread @ spread.T
