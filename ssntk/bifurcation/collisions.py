"""Collisions of equilibria with the borders of piecewise-linear models, and the bifurcations among them."""

import dataclasses

import numpy as np

from ssntk.bifurcation.events.kinds import BORDER_COLLISION, BOUNDARY_HOPF, NONSMOOTH_FOLD
from ssntk.models.clock import AbstractClock
from ssntk.piecewise.collision import born, counted_cycles
from ssntk.piecewise.over import Over
from ssntk.piecewise.pivot import Kink
from ssntk.results import Result, short

# What a collision is called at which the branch goes on. At others it turns: nonsmooth folds.
PERSISTENCE = "persistence"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Collision(Result):
    """A place at which a branch meets a border of a piecewise-linear model, at which a unit switches, or another kink of the
    vector field. The branch has a corner there.

    - `parameter`; `x` (n,), the state.
    - `unit`: the index of the signal that vanishes, a row of `C` of [`piecewise_linear`][]. For networks with one relu for
      each unit it is the unit. `units`: all signals that vanish at this place. For models that are not piecewise linear
      signals are not known: `None`, and none.
    - `delta`: det J' / det J, with the Jacobians J' behind and J before the border (for maps of F(x) - x), in the direction
      of travel. If it is negative, an odd number of real eigenvalues changes its sign there.
    - `kind`: `"persistence"`, if the branch goes on behind the border; `"nonsmooth-fold"`, if the parameter turns there:
      both parts of the branch lie on one side of the collision. If one signal vanishes, that is so if delta < 0.
    - `unstable`: the numbers of unstable modes before and behind the border.
    - `born`: for maps the cycles of orders 2 to 8 that exist beside the collision at one side of it only, {order: number};
      `None` if they were not counted, because several signals vanish at once or are not known. Empty for flows, of which
      none are counted.
    - `cycles`: the numbers of all such cycles beside the collision at lower and at higher parameters.

    The kinds follow Feigin; see di Bernardo, Budd, Champneys and Kowalczyk, *Piecewise-smooth Dynamical Systems* (2008).

    **Example:** dx/dt = -x + 2 relu(x) + p.

    ```python
    model = ssntk.VectorField(lambda t, x, u, p: -x + 2 * jax.nn.relu(x) + p["p"], {"p": 0.0}, 1)
    branch = ssntk.continuation(ssntk.Family(model, "p"), (-1.0, 1.0), x0=[-1.0])
    (fold,) = branch.collisions
    print(fold.kind, fold.delta, branch.status)  # nonsmooth-fold -1.0 left the span at p = -1
    ```
    """

    parameter: float
    x: np.ndarray
    unit: int | None
    delta: float
    kind: str
    unstable: tuple[int, int]
    born: dict[int, int] | None
    units: tuple[int, ...]
    cycles: tuple[dict[int, int], dict[int, int]] | None
    _brief = True

    def _headline(self) -> str:
        text = f"{self.kind} at p = {short(self.parameter)}: {self._switched()}delta = {short(self.delta)}"
        return f"{text}; {births(self.born)}" if self.born else text

    def _switched(self) -> str:
        """The beginning of a clause: which units switch, if that is known."""
        if self.unit is None:
            return ""
        return (
            f"unit {self.unit} switches, " if len(self.units) == 1 else f"units {', '.join(map(str, self.units))} switch, "
        )


def births(cycles: dict[int, int]) -> str:
    """A clause on the cycles that a collision gives birth to."""
    listed = ", ".join(f"{count} of {order} steps" for order, count in cycles.items())
    return f"cycles exist on one side only: {listed}"


def collision_of(system: Over, kink: Kink, parameter: float, rising: bool, unstable: tuple[int, int]) -> Collision:
    """A kink of a path in the user's units. `rising`: whether the parameter rises along the span."""
    counted = counted_cycles(system, kink) if system.dt else ({}, {})
    if counted is not None and not rising:
        counted = counted[1], counted[0]
    return Collision(
        parameter=parameter,
        x=kink.x * system.sizes,
        unit=kink.units[0],
        delta=kink.delta,
        kind=NONSMOOTH_FOLD.name if kink.turns else PERSISTENCE,
        unstable=unstable,
        born=None if counted is None else born(counted),
        units=kink.units,
        cycles=counted,
    )


def kind_at(collision: Collision, clock: AbstractClock) -> str | None:
    """The kind of bifurcation at a collision; `None` if neither stability nor cycles change there."""
    before, after = collision.unstable
    if collision.kind == NONSMOOTH_FOLD.name:
        return NONSMOOTH_FOLD.name
    if clock.flips_at is None:
        return BOUNDARY_HOPF.name if before != after else None
    return BORDER_COLLISION.name if before != after or collision.born else None
