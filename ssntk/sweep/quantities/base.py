"""A recorded quantity: its variables, how they are computed, and what tables, pages, pictures and files call them."""

import abc
import types
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float, PyTree

from ssntk.dynamics.integrate import Trajectory
from ssntk.dynamics.probe import Probe
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.sweep.measurement import Measurement


class Variable(NamedTuple):
    """One variable of a record, declared once: files, tables, pages, pictures and the documentation read it from here.

    - `meaning`: a sentence; `long_name` in netCDF.
    - `units`: of the model's own, such as `"state / time"`; `"1"` for a number.
    - `dims`: its dimensions at one point. `"mode"` has the n entries of the state, `"block"` the requested blocks, `"time"`
      and `"time_2"` the shown save times; any other name has as many entries as the longest record.
    - `dtype`: `float`, `complex` or `str`. `always`: whether every record has it.
    - `label`: what a page or a picture calls it (of several entries: the first one); `short`: the heading of its column in
      a printed table. Default: its name.
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
    probe: Probe
    tracks: Trajectory


class AbstractQuantity(eqx.Module):
    """What is recorded of every point of a sweep, declared once.

    A quantity of your own is a subclass with `name`, `variables` and `finish`, and, if it needs the network, `traced`. Pass
    it as `quantities=` to [`measure`][], [`Sweep`][] or [`Grid`][]. Its variables are then in the records, in `to_xarray`
    and netCDF, in the printed table and on the page of the report; nothing else has to be written.

    - `name`: an identifier.
    - `variables`: for each name of a variable what it is ([`Variable`][]).
    - `panel`: the title of a panel on the page of a sweep towards a bifurcation, which draws its numbers over the distance.
      Default: none.

    A plan with such a quantity is another plan: its hash follows from the code of the class and from its fields.

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
        """What is computed on the device, inside the compiled measurement: arrays, or `None`."""
        return None

    @abc.abstractmethod
    def finish(self, shared: Measurement, traced: PyTree) -> dict[str, Any]:
        """The value of each variable, on the host.

        **Arguments:** `shared`: what all quantities have in common, its own `quantities` still empty. `traced`: what
        `traced` returned at this point, as NumPy arrays.

        A variable that is left out is not recorded at this point. Raise [`NumericalError`][] if the point has none: it is
        then recorded as failed.
        """


# What the record of a point holds beside what is measured: where it lies, and what became of it.
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


def known(value: Any) -> np.ndarray:
    """A number of a spectrum as a record has it: NaN if a spectrum of only the top modes does not know it."""
    return np.asarray(np.nan if value is None else value)
