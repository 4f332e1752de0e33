"""A grid: networks at every combination of some values, such as gain x input x seed, each measured at a fixed point."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ssntk.dynamics.fixed_points import constant_input, find_fixed_points
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe, Sinusoid
from ssntk.errors import NumericalError, Outcome, as_array, as_choice, as_instance
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.maps import with_input
from ssntk.models.theta import check_blocks
from ssntk.models.torch_layout import what_to_write
from ssntk.nouns import AnyArray, Lens
from ssntk.sweep.abstract_plan import AbstractPlan, Found
from ssntk.sweep.coverage import Header, OverAxes
from ssntk.sweep.identity import Traced, digest, digests, probe_parts, uniform
from ssntk.sweep.measure import MEASURED, Asked, measure_together
from ssntk.sweep.older import older
from ssntk.sweep.quantities.standard import VARIABLES, as_quantities, own_of
from ssntk.sweep.record import said_of
from ssntk.sweep.save_times import times_shown

# Names in a store's dataset that an axis must not have.
RESERVED_AXES = {*VARIABLES, "mode", "row", "block", "time", "time_2", "point", "ntk_eigenvalues_all"}

# Larger grids fit neither into memory nor onto disks.
MOST_POINTS = 10**7
# The values of some axes at one point.
Place = dict[str, Any]


class _Group(eqx.Module):
    """Points whose models have the same shapes: their indices, and the values that all of them share."""

    indices: tuple[int, ...]
    fixed: Place
    asked: Asked
    model: AbstractStateSpaceModel
    room: int


@dataclasses.dataclass(frozen=True, eq=False)
class Grid(AbstractPlan):
    """Networks at every combination of the values of some axes, each measured at a fixed point.

    - `make`: a function that returns a model. It is called with a value of every axis by its name, as in
      `make(gain=1.2, seed=3)`. If JAX can trace it in an axis, as in `CTRNN(16, 1, 1, gain=gain, key=jax.random.key(seed))`,
      all models are made by one compiled call; they must be the same as without tracing. Otherwise, as with sizes and names,
      the function is called with each value of that axis.
    - `axes`: for each name a list of distinct values, numbers or strings.
    - `probe`: inputs and save times. If its `x0` is `None`, trajectories start at the point's x*.
    - `x0` (n,): where Newton's iteration for x* starts; default zero. If it does not converge, x* is the first point of
      `find_fixed_points`. If that finds none, the point is recorded as failed.
    - `u` (d,): a constant input, added to that of the probe.
    - `wrt`, `of`, `integrator`: as in `parameter_jacobian`. `blocks`, `modes`, `scale`, `quantities`: as
      in `measure`.

    Points are numbered in C order: the last axis varies fastest. Raises `ValueError`, which names the field that is wrong.

    **Example:**

    ```python
    def make(gain):
        return ssntk.CTRNN.from_weights(gain * jnp.eye(2))


    grid = ssntk.Grid(make, {"gain": [0.2, 0.5, 0.9]}, probe=ssntk.Probe([0.0, 1.0]))
    print(grid.size, grid.values(2))  # 3 {'gain': 0.9}
    ```
    """

    coverage = OverAxes()
    traced_parts = (*AbstractPlan.traced_parts, "make")
    make: Any
    axes: Any
    _: dataclasses.KW_ONLY
    probe: Probe
    x0: Any = None
    u: Any = None
    wrt: Lens | None = None
    of: str = "state"
    blocks: Any = None
    integrator: Integrator | None = None
    modes: int | None = None
    scale: Any = None
    quantities: Any = ()

    def __post_init__(self):
        if not callable(self.make):
            raise ValueError(f"make must be a function that returns a model, got {type(self.make).__name__}")
        as_instance(self.probe, "probe", Probe)
        as_choice(self.of, "of", ("state", "readout"))
        if isinstance(self.probe.us, Sinusoid) and self.probe.us.frequency is None:
            raise ValueError("probe.us must have a frequency: a grid has no bifurcation to take it from")
        quantities = as_quantities(self.quantities)
        axes = _axes(self.axes, {name for one in own_of(quantities) for name in one.variables})
        # Equal plans must compare equal, however their fields were written.
        vectors = {name: getattr(self, name) for name in ("x0", "u", "scale")}
        held = {name: None if value is None else _vector(value, name) for name, value in vectors.items()}
        vars(self).update(held, blocks=check_blocks(self.blocks) or None, quantities=quantities, axes=axes)
        if self.size > MOST_POINTS:
            raise ValueError(f"axes must have at most {MOST_POINTS} points together, got {' x '.join(map(str, self.shape))}")
        steps = {group.model.clock.dt for group in self.groups}
        if len(steps) > 1:
            raise ValueError(f"make must return flows, or maps of one step, got steps of {steps}: sweep them apart")

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values each axis has."""
        return tuple(len(values) for values in self.axes.values())

    @property
    def size(self) -> int:
        """How many points there are."""
        return math.prod(self.shape)

    def values(self, index: int) -> Place:
        """The value of every axis at the point number `index`."""
        at = np.unravel_index(index, self.shape)
        return {name: values[i].item() for i, (name, values) in zip(at, self.axes.items(), strict=True)}

    @functools.cached_property
    def groups(self) -> tuple[_Group, ...]:
        """The points, grouped by the shapes of their models."""
        fixed = [name for name in self.axes if not self._moves(name)]
        if not self._traces(tuple(name for name in self.axes if name not in fixed)):
            fixed = list(self.axes)
        numbers = np.arange(self.size).reshape(self.shape)
        moving = tuple(i for i, name in enumerate(self.axes) if name not in fixed)
        still = [len(self.axes[name]) for name in fixed]
        by_shape: dict[Hashable, list[tuple[Place, AbstractStateSpaceModel, list[int]]]] = {}
        for at in np.ndindex(*still):
            chosen = dict(zip(fixed, at, strict=True))
            each = tuple(chosen.get(name, slice(None)) for name in self.axes)
            values = {name: self.axes[name][i].item() for name, i in chosen.items()}
            indices = numbers[each].ravel().tolist()
            model = self._model(self.values(indices[0]))
            by_shape.setdefault(self._signature(model), []).append((values, model, indices))
        out = []
        for parts in by_shape.values():
            asked, model = self._asked(parts[0][1]), parts[0][1]
            if moving or len(parts) == 1:
                out += [_Group(tuple(part[2]), part[0], asked, model, asked.together(model)) for part in parts]
            else:
                # No axis can be traced, so models are made one by one. Those of one shape are measured together.
                indices = tuple(index for part in parts for index in part[2])
                out.append(_Group(indices, dict.fromkeys(self.axes), asked, model, asked.together(model)))
        return tuple(out)

    @functools.cached_property
    def batches(self) -> tuple[tuple[int, ...], ...]:
        """The points that are measured together. The plan alone determines them, not what is left to do."""
        cut = ((group.indices, at, group.room) for group in self.groups for at in range(0, len(group.indices), group.room))
        return tuple(indices[at : at + room] for indices, at, room in cut)

    @property
    def samples(self) -> tuple[tuple[int, ...], ...]:
        """For each shape of models a batch that represents all of that shape, to estimate how long a run takes."""
        by_shape = {self._signature(group.model): group.indices[: group.room] for group in self.groups}
        return tuple(by_shape.values())

    def header(self) -> Header:
        """What a store's plan.json says about the plan."""
        names = sorted({type(group.model).__name__ for group in self.groups})
        return {
            "kind": self.coverage.kind,
            "title": f"{' and '.join(names)} over {' x '.join(self.axes)}",
            "axes": {name: values.tolist() for name, values in self.axes.items()},
            "n_state": max(group.model.n_state for group in self.groups),
            "ts": times_shown(self.probe.ts).tolist(),
            "blocks": list(self.blocks or ()),
            "dt": self.groups[0].model.clock.dt,
            "quantities": said_of(own_of(self.quantities)),
        }

    def hash(self) -> str:
        """The identity of the plan, 16 hexadecimal digits: a SHA-256 of all that its results depend on.

        `make` enters by the operations that JAX traces of it, or by the models that it makes if it cannot be traced.
        """
        return super().hash()

    @functools.cached_property
    def identity(self) -> dict[str, str]:
        """The digest of each part of the plan that its results depend on, by its name."""
        if self.u is not None and not self.u.any():
            with contextlib.suppress(ValueError):
                return dataclasses.replace(self, u=None).identity
        parts: dict[str, PyTree] = {"axes": list(self.axes.items()), **probe_parts(self.probe, self.probe)}
        parts |= {name: getattr(self, name) for name in ("u", "of", "modes")}
        parts |= {"x0": None if self.x0 is None or not self.x0.any() else self.x0, "scale": uniform(self.scale)}
        made, asked = [], [group.asked for group in self.groups]
        for group in self.groups:
            if set(group.fixed) == set(self.axes):
                own: object = [jax.tree.leaves(eqx.filter(self._model(self.values(i)), eqx.is_array)) for i in group.indices]
            else:
                own = Traced(self._maker(group.fixed), self._abstract(group.fixed))
            made.append((_computed(group.model), group.indices, group.model.clock.dt, own))
        parts["make"] = made
        parts["integrator"] = [one.integrator for one in asked]
        parts["wrt"] = [(one.theta, one.of_states) for one in asked]
        parts["quantities"] = list(own_of(self.quantities)) or None
        parts["blocks"] = [list(one.blocks.items()) for one in asked] if self.blocks else None
        return digests(parts)

    def older_hashes(self) -> set[str]:
        """The identities that earlier versions would have given this plan."""
        probe = self.probe

        def parts(traced: Callable[..., list[object]]) -> Iterator[object]:
            yield from ("grid", *self.axes, *self.axes.values(), self.of, self.modes, self.x0, self.u)
            yield from (probe.ts, probe.x0, probe.mask, *([] if self.scale is None else ["scale", self.scale]))
            for group in self.groups:
                us, asked = group.asked.probe.us, group.asked
                yield from traced(us, jax.ShapeDtypeStruct((), probe.ts.dtype)) if callable(us) else [us]
                yield from (*traced(*_field(group.model)), group.indices, group.model.clock.dt, repr(asked.integrator))
                yield from (asked.theta, asked.of_states, sorted(asked.blocks.items()))
                if set(group.fixed) == set(self.axes):
                    for index in group.indices:
                        yield from jax.tree.leaves(eqx.filter(self._model(self.values(index)), eqx.is_array))
                else:
                    yield from traced(self._maker(group.fixed), self._abstract(group.fixed))

        return older(parts)

    def measure_batch(self, _: None, indices: Sequence[int]) -> list[Found]:
        """For each of these points of a batch: its values of the axes, and its measurement or error."""
        group = next(group for group in self.groups if indices[0] in group.indices)
        places = [self.values(index) for index in indices]
        static = eqx.partition(group.model, eqx.is_array)[1]
        if set(group.fixed) == set(self.axes):
            # The structure must be the group's own. A function that was made again would be compiled again.
            frame = jax.tree.structure(eqx.filter(group.model, eqx.is_array))
            leaves = [jax.tree.leaves(eqx.filter(self._model(values), eqx.is_array)) for values in places]
            models = [eqx.combine(jax.tree.unflatten(frame, own), static) for own in leaves]
        else:
            filled = [places[min(i, len(places) - 1)] for i in range(group.room)]
            moving = {name: np.array([values[name] for values in filled]) for name in self.axes if name not in group.fixed}
            key = tuple(sorted(group.fixed.items()))
            arrays = jax.tree.map(_on_host, self._compiled(key)(moving))
            if key not in self._compared:
                self._compare(places[0], jax.tree.map(lambda leaf: leaf[0], arrays))
                self._compared.add(key)
            each = (jax.tree.map(lambda leaf, i=i: leaf[i], arrays) for i in range(len(places)))
            models = [eqx.combine(jax.device_put(own), static) for own in each]
        start = np.zeros(group.model.n_state) if self.x0 is None else np.asarray(self.x0)
        starts: list[np.ndarray] = [start.astype(dtype_of(group.model))] * len(models)
        found = measure_together(group.asked, models, starts, room=group.room)
        lost = []
        for i, (model, result) in enumerate(zip(models, found, strict=True)):
            bad = [leaf for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf) and not np.isfinite(leaf).all()]
            if bad:
                found[i] = ValueError("the model that make returns holds NaN or infinity")
            elif isinstance(result, NumericalError) and result.outcome is Outcome.no_fixed_point:
                points = find_fixed_points(model).x
                if len(points) == 0:
                    found[i] = NumericalError("no fixed point was found, neither from x0 nor from random starts")
                else:
                    starts[i] = points[0].astype(starts[i].dtype)
                    lost.append(i)
        if lost:
            again = measure_together(group.asked, [models[i] for i in lost], [starts[i] for i in lost], room=group.room)
            for i, result in zip(lost, again, strict=True):
                found[i] = result
        axes = [{f"axis_{name}": value for name, value in values.items()} for values in places]
        return list(zip(axes, found, strict=True))

    def _asked(self, model: AbstractStateSpaceModel) -> Asked:
        how: dict[str, Any] = {name: getattr(self, name) for name in MEASURED}
        if self.x0 is not None:
            as_array(self.x0, "x0", (model.n_state,))
        return Asked.checked(model, self.probe, **how)

    def _model(self, values: Place) -> AbstractStateSpaceModel:
        try:
            model = self.make(**values)
        except (TypeError, AttributeError, LookupError, ArithmeticError, AssertionError) as error:
            said = str(error) if type(error) is TypeError else f"{type(error).__name__}: {error}".removesuffix(": ")
            raise ValueError(f"make cannot be called with {', '.join(values)}: {said}") from error
        if not isinstance(model, AbstractStateSpaceModel):
            raise ValueError(f"make must return a model, got {type(model).__name__}{what_to_write(model)}")
        model = jax.tree.map(lambda leaf: jnp.asarray(leaf) if isinstance(leaf, (float, np.ndarray)) else leaf, model)
        return model if self.u is None else with_input(model, constant_input(model, self.u))

    def _maker(self, fixed: Place) -> Callable[[Place], PyTree]:
        """A function from the values of the other axes to the arrays of the model."""
        return lambda values: eqx.filter(self._model(fixed | values), eqx.is_array)

    def _compiled(self, fixed: tuple[tuple[str, Any], ...]) -> Callable[[Place], PyTree]:
        """The compiled function that makes models. It is kept as long as the grid itself."""
        if fixed not in self._makers:
            make = self._maker(dict(fixed))
            self._makers[fixed] = jax.jit(lambda values: jax.lax.map(make, values))
        return self._makers[fixed]

    def __getstate__(self) -> dict[str, object]:
        # Compiled functions do not leave their process.
        return {name: value for name, value in vars(self).items() if name not in ("_makers", "_traced")}

    def _signature(self, model: AbstractStateSpaceModel) -> tuple[object, ...]:
        """Two models have the same signature if they compute the same, except for the values of their arrays."""
        arrays, rest = eqx.partition(model, _is_array)
        shapes = tuple((leaf.shape, str(leaf.dtype)) for leaf in jax.tree.leaves(arrays))
        # If everything but the values of arrays is equal, the traced operations are equal too.
        key = shapes, tuple(jax.tree.leaves(rest)), jax.tree.structure(rest)
        try:
            computed = self._traced.get(key)
            if computed is None:
                computed = self._traced[key] = digest(_computed(model))
        # Some objects have no hash, or cannot be compared.
        except (TypeError, ValueError):
            computed = digest(_computed(model))
        return shapes, model.clock.dt, model.n_state, model.n_input, model.n_output, computed

    @functools.cached_property
    def _traced(self) -> dict[Hashable, str]:
        return {}

    @functools.cached_property
    def _makers(self) -> dict[Hashable, Callable[[Place], PyTree]]:
        return {}

    @functools.cached_property
    def _compared(self) -> set[Hashable]:
        """The groups in which a traced model was compared with one that was not traced."""
        return set()

    def _compare(self, values: Place, traced: PyTree) -> None:
        """Raise `ValueError` if `make` returns another model when it is traced."""
        expected = jax.tree_util.tree_leaves_with_path(eqx.filter(self._model(values), eqx.is_array))
        for (path, own), other in zip(expected, jax.tree.leaves(traced), strict=True):
            own, other = (jax.random.key_data(one) if _is_key(one) else one for one in (own, other))
            # Compiled code may round differently, but must not differ otherwise.
            loose = float(np.finfo(own.dtype).eps) ** 0.5 if jnp.issubdtype(own.dtype, jnp.floating) else 0.0
            if not np.allclose(own, other, rtol=loose, atol=loose * float(np.abs(own).max(initial=0)), equal_nan=True):
                where = jax.tree_util.keystr(path)
                raise ValueError(f"make must return the same model when JAX traces it: with {values}, {where} differs")

    def _abstract(self, fixed: Place) -> dict[str, jax.ShapeDtypeStruct]:
        return {
            name: jax.ShapeDtypeStruct((), jax.dtypes.canonicalize_dtype(values.dtype))
            for name, values in self.axes.items()
            if name not in fixed
        }

    def _moves(self, name: str) -> bool:
        """Whether models can be made by tracing in this axis. Raises `ValueError` if one of its values gives no model.

        Tracing skips the checks of constructors, and cannot change what a model holds apart from its arrays. So all models
        along the axis are also made without tracing. They must compute the same, except for the values of their arrays.
        """
        seen = set()
        for value in self.axes[name]:
            at = self.values(0) | {name: value.item()}
            try:
                seen.add(self._signature(self._model(at)))
            except ValueError as error:
                raise ValueError(f"axes[{name!r}] holds {value}, of which no model can be made: {error}") from error
        return len(seen) == 1 and self._traces((name,))

    def _traces(self, names: tuple[str, ...]) -> bool:
        """Whether models can be made by tracing in these axes, and are then the same as without tracing."""
        if any(self.axes[name].dtype.kind not in "if" for name in names):
            return False
        fixed = {name: value for name, value in self.values(0).items() if name not in names}
        made: list[tuple[PyTree, PyTree]] = []

        def build(values: Place) -> PyTree:
            made.append(eqx.partition(self._model(fixed | values), eqx.is_array))
            return made[-1][0]

        try:
            arrays = jax.eval_shape(build, self._abstract(fixed))
            return self._signature(eqx.combine(arrays, made[-1][1])) == self._signature(self._model(self.values(0)))
        # A function that cannot be traced may raise any error.
        except Exception:
            return False


def _vector(value: Any, name: str) -> np.ndarray:
    """`value` as an array; a scale may be one number for all states."""
    return np.asarray(as_array(value, name, () if name == "scale" and np.ndim(value) == 0 else ("n",)))


def _axes(axes: Any, taken: set[str]) -> dict[str, np.ndarray]:
    if not isinstance(axes, Mapping) or not axes:
        raise ValueError(f"axes must be a dict of names and values, got {type(axes).__name__}")
    out = {}
    for name, values in axes.items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"axes must be named as arguments are, got {name!r}")
        if name in RESERVED_AXES or name in taken:
            raise ValueError(f"axes must not be named {name!r}, which records hold: rename that argument of make")
        array = np.asarray(list(values) if isinstance(values, range) else values)
        if array.dtype.kind == "f":
            array = array.astype(float)
        elif array.dtype.kind in "iu":
            array = array.astype(int)
        elif array.dtype.kind != "U":
            raise ValueError(f"axes[{name!r}] must be a list of numbers or of strings, got {array.dtype}")
        if array.ndim != 1 or array.size == 0 or np.unique(array).size < array.size:
            raise ValueError(f"axes[{name!r}] must be a list of at least one value, all distinct")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ValueError(f"axes[{name!r}] must be finite")
        out[name] = array
    return out


def _computed(model: AbstractStateSpaceModel) -> Traced:
    """The operations of the field and the readout of a model, without the values of its arrays."""
    return Traced(*_field(model))


def _field(model: AbstractStateSpaceModel) -> list[PyTree]:
    """The field and the readout as a function of a model's arrays, t, x and u, and the shapes of these."""
    arrays, static = eqx.partition(model, _is_array)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arrays)
    dtype = jax.eval_shape(lambda arrays: jnp.zeros((), dtype_of(eqx.combine(arrays, static))), shapes).dtype
    sizes = [jax.ShapeDtypeStruct(shape, dtype) for shape in ((), (model.n_state,), (model.n_input,))]

    def field(arrays: PyTree, t: Array, x: Array, u: Array) -> tuple[Array, Array]:
        model = eqx.combine(arrays, static)
        return model.vector_field(t, x, u), model.readout(x)

    return [field, shapes, *sizes]


def _is_key(leaf: AnyArray | np.generic) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _on_host(leaf: Array) -> AnyArray:
    """A leaf as a NumPy array. Random keys, which NumPy does not have, stay as they are."""
    return leaf if _is_key(leaf) else np.asarray(leaf)


def _is_array(leaf: object) -> bool:
    """Whether this is an array of a model, or represents one in a model that was only traced."""
    return eqx.is_array(leaf) or isinstance(leaf, jax.ShapeDtypeStruct)
