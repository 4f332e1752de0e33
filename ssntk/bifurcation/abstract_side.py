"""The interface of the stable side of a bifurcation."""

import abc
import dataclasses

import numpy as np

from ssntk.bifurcation.point import Bifurcation


@dataclasses.dataclass(frozen=True)
class AbstractSide(abc.ABC):
    """The stable side of a bifurcation, outwards from it until the parameter turns or stability ends."""

    bifurcation: Bifurcation

    @abc.abstractmethod
    def at_distance(self, distance: float) -> tuple[float, np.ndarray]:
        """The stable equilibrium at |p - p_c| = distance, as (parameter, x (n,)).

        Raises `NumericalError` if the side does not reach so far, or if no stable equilibrium is found there.
        """
