"""A recorded quantity: its variables, how they are computed, and their names in tables, pages, pictures and files."""

import abc
import types
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Trajectory
from ssntk.dynamics.probe import FittedProbe
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.nouns import HostReal, Values
from ssntk.sweep.measurement import Measurement


class Variable(NamedTuple):
    """One variable of a record, declared once: files, tables, pages, pictures and the documentation read it from here.

    - `meaning`: what it is, in words; `long_name` in netCDF.
    - `units`: in terms of the model's own, such as `"state / time"`; `"1"` for a number without units.
    - `dims`: its dimensions at one point. `"mode"` has the n entries of the state, `"block"` the requested blocks, `"time"`
      and `"time_2"` the save times that are shown. Any other dimension is as long as the longest record.
    - `dtype`: `float`, `complex` or `str`. `always`: whether every record has it.
    - `label`: its name on pages and in pictures; if it has several entries, the name of the first one. `short`: the heading
      of its column in a printed table. Default: its name.
    - `section`: where a page shows it: `"overview"` among the numbers of a point and in phase diagrams, `"point"` among the
      numbers alone, `"channel"` and `"blocks"` in those tables, `""` nowhere by itself.
    - `log`: whether its scale is logarithmic.
    - `first`: the name of its first entry, if pages and pictures show that one.

    **Example:**

    ```python
    speed = ssntk.Variable("speed at the fixed point", "state / time", label="Speed |f|", log=True)
    print(speed.units, speed.section)  # state / time overview
    ```
    """

    meaning: str
    units: str = "1"
    dims: tuple[str, ...] = ()
    dtype: type = float
    always: bool = True
    label: str = ""
    short: str = ""
    section: str = "overview"
    log: bool = False
    first: str = ""


class Settled(NamedTuple):
    """A network at its fixed point and along its trajectories, on the device, for `AbstractQuantity.traced`.

    - `model`, `x` (n,): the network, and its fixed point.
    - `jacobian` (n, n), `by_theta` (n, p): df/dx and df/dtheta there.
    - `probe`: the inputs, save times and starts (`probe.x0`, (B, n)) of the trajectories.
    - `tracks`: the recorded solve.
    """

    model: AbstractStateSpaceModel
    x: Float[Array, " n"]
    jacobian: Float[Array, "n n"]
    by_theta: Float[Array, "n p"]
    probe: FittedProbe
    tracks: Trajectory


class AbstractQuantity(eqx.Module):
    """A quantity that a sweep records at every point.

    To make your own quantity, define `name`, `variables` and `finish` in a subclass, and also `traced` if it needs the
    network. Pass an instance in `quantities=` to [`measure`][], [`Sweep`][] or [`Grid`][]. Its variables are then in the
    records, in `to_xarray` and netCDF, in the printed table and on the page of the report.

    - `name`: an identifier.
    - `variables`: a dict from the names of its variables to what they are ([`Variable`][]).
    - `panel`: the title of a panel on the page of a sweep towards a bifurcation. The panel draws the quantity's numbers over
      the distance. Default: no panel.

    The hash of a plan depends on the code of the class and on its fields. If you change these, the plan is another one.

    **Example:**

    ```python
    class Slowest(ssntk.AbstractQuantity):
        name = "slowest"
        variables = {"slowest": ssntk.Variable("slowest time scale at the fixed point", "time")}

        def finish(self, shared, traced):
            return {"slowest": -1 / shared.jacobian_eigenvalues[0].real}

    model, probe = ssntk.normal_forms.saddle_node(0.25), ssntk.Probe([0.0, 1.0])
    measured = ssntk.measure(model, probe, [0.5], quantities=(Slowest(),))
    print(measured.quantities["slowest"])  # 1.0
    ```
    """

    name: ClassVar[str]
    variables: ClassVar[Mapping[str, Variable]]
    panel: ClassVar[str | None] = None

    def traced(self, point: Settled) -> PyTree:
        """A pytree of arrays that is computed on the device, inside the compiled measurement; `None` if none is needed."""
        return None

    @abc.abstractmethod
    def finish(self, shared: Measurement, traced: PyTree) -> Values:
        """The value of each variable, on the host.

        **Arguments:** `shared`: the standard measurement of the point; its `quantities` are still empty. `traced`: what
        `traced` returned at this point, as NumPy arrays.

        If a variable is left out, it is not recorded at this point. If you raise [`NumericalError`][], the point is recorded
        as failed.
        """


# The variables of a record that are not measured: where the point lies, and whether it failed and how long it took.
PLACE = types.MappingProxyType(
    {
        "parameter": Variable("swept parameter", "parameter", section=""),
        "distance": Variable("|p - p_c|", "parameter", section=""),
    }
)
OUTCOME = types.MappingProxyType(
    {
        "seconds": Variable("wall time of the point, that of its batch shared out", "s", label="Wall time", section="point"),
        "status": Variable("'done', or 'failed: ' and the reason", dtype=str, section=""),
    }
)


def known(value: HostReal | None) -> np.ndarray:
    """A number of a spectrum, for a record: NaN if it needs all modes and only the top ones are known."""
    return np.asarray(np.nan if value is None else value)
