"""Measurements of networks at one fixed point each, in compiled batches."""

import concurrent.futures
import contextlib
import dataclasses
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree

from ssntk.collapse.channel import channel_of, seen_weights
from ssntk.collapse.drive import channel_participation_ratio, critical_drive
from ssntk.collapse.law import Carried, carried
from ssntk.collapse.mode import Mode, mode_of
from ssntk.compiled import Compiled, Held
from ssntk.critical.warned import border_at
from ssntk.dynamics.integrate import Integrator, Trajectory, check_solved, steps_of
from ssntk.dynamics.metric import as_metric, in_metric, rows_in_metric
from ssntk.dynamics.probe import FittedProbe, Probe
from ssntk.dynamics.refine import check_settled, polish
from ssntk.dynamics.stability import exponents
from ssntk.errors import NumericalError, as_array, as_choice, as_count, as_instance, outside_jit
from ssntk.kernel.replay import Replay, recorded, saved_states
from ssntk.kernel.rows import Rows, time_weights
from ssntk.kernel.spectrum import Spectrum
from ssntk.kernel.steady_state import forcing, response_of
from ssntk.kernel.top import Leading, leading, smaller_gram, top_of
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, check_model, dtype_of
from ssntk.models.theta import Positions, block_positions, columns, size, theta_positions
from ssntk.precision import watch_precision
from ssntk.sweep.measurement import Measurement as Measurement
from ssntk.sweep.quantities.base import AbstractQuantity, Settled
from ssntk.sweep.quantities.standard import STANDARD, as_quantities, own_of
from ssntk.sweep.record import checked
from ssntk.sweep.save_times import shown_of
from ssntk.threads import one_blas_thread

# A batch holds at most this many points, so that little is lost with one, and no more points than fit into this many bytes.
MOST_TOGETHER, BATCH_BYTES = 8, 2**28


@outside_jit
def measure(
    model: AbstractStateSpaceModel,
    probe: Probe,
    x_star: Any,
    *,
    wrt: Callable[[Any], PyTree] | None = None,
    of: str = "state",
    blocks: Any = None,
    critical_frequency: float | None = None,
    integrator: Integrator | None = None,
    modes: int | None = None,
    scale: Any = None,
    quantities: Any = (),
) -> Measurement:
    """Measure `model` at the fixed point near `x_star` (n,). The input at the fixed point is zero, or what the model adds.

    **Arguments:**

    - `probe`: inputs and save times. If its `x0` is `None`, trajectories start at x*.
    - `wrt`, `of`, `integrator`: as in [`parameter_jacobian`][]. The steady-state kernel is always that of the state.
    - `blocks`: parts of theta that are also measured separately: attributes of the model, or a dict from names to lenses.
    - `critical_frequency`: the frequency of the critical eigenvalue [radians / time], 0 if it is real. Default: that of the
      eigenvalue that grows fastest.
    - `modes`: how many of the largest eigenvalues of the trajectory kernel are computed; default all. Its trace and
      participation ratio are exact in both cases.
    - `scale`: (n,) positive numbers, or one [state]: the metric of the states. Rows of states are then D^-1 J with
      D = diag(scale), and the channel is that of D^-1 A D. Rows of the readout do not change. Default: ones.
    - `quantities`: your own ([`AbstractQuantity`][]). The standard ones are always measured too.

    Raises `ValueError` for arguments that do not fit and for a model that depends on time. Raises `NumericalError` if there
    is no fixed point, or if a solve fails.

    **Example:** the steady-state kernel 1 / (4 mu).

    ```python
    model = ssntk.normal_forms.saddle_node(0.01)
    found = ssntk.measure(model, ssntk.Probe([0.0, 1.0]), [0.1])
    print(found.steady_state.eigenvalues.round(3))  # [25.]
    ```
    """
    asked = Asked.checked(
        model,
        probe,
        wrt=wrt,
        of=of,
        blocks=blocks,
        integrator=integrator,
        modes=modes,
        scale=scale,
        quantities=quantities,
    )
    x = as_array(x_star, "x_star", (model.n_state,)).astype(dtype_of(model))
    (found,) = measure_together(asked, [model], [x], critical_frequency=critical_frequency, room=1)
    if not isinstance(found, Measurement):
        raise found
    return found


# The arguments of `measure` that a plan has as fields, under the same names.
MEASURED = ("wrt", "of", "blocks", "integrator", "modes", "scale", "quantities")


class Asked(NamedTuple):
    """What is measured at every point, checked against one model that represents all."""

    probe: FittedProbe
    at_rest: bool
    of: str
    theta: Positions
    of_states: Positions
    blocks: dict[str, Positions]
    integrator: Integrator
    grid: Array | None
    # The trapezoid weights: of every save time (T,), and of what is observed of every input (B, T).
    trapezoid: Array
    weights: Array
    modes: int | None
    # The metric of the states (n,), or `None` for ones.
    metric: Array | None = None
    quantities: tuple[AbstractQuantity, ...] = STANDARD

    @classmethod
    def checked(
        cls,
        model: AbstractStateSpaceModel,
        probe: Any,
        *,
        wrt: Callable[[Any], PyTree] | None,
        of: str,
        blocks: object,
        integrator: Integrator | None,
        modes: int | None,
        scale: object = None,
        quantities: object = (),
    ) -> "Asked":
        """Check the arguments. Raises `ValueError`, which names the one that does not fit."""
        as_choice(of, "of", ("state", "readout"))
        check_model(model)
        metric = as_metric(scale, model.n_state)
        check_autonomous(model)
        watch_precision(dtype_of(model))
        theta, of_states = theta_positions(model, of, wrt), theta_positions(model, "state", wrt)
        parts = block_positions(model, of, wrt, blocks)
        at_rest = as_instance(probe, "probe", Probe).x0 is None
        probe = probe.fit(model)
        probe.check_mask(model.n_output if of == "readout" else model.n_state)
        integrator, grid = steps_of(model, integrator, probe)
        if modes is not None:
            rows = probe.n_batch * probe.ts.shape[0] * (model.n_output if of == "readout" else model.n_state)
            if as_count(modes, "modes") > rows:
                raise ValueError(f"modes must be at most {rows}, the number of rows, got {modes}")
        seen = probe if probe.mask is None or probe.mask.ndim < 3 else eqx.tree_at(lambda p: p.mask, probe, None)
        trapezoid, weights = time_weights(probe.ts, "trapezoid"), jax.device_put(seen_weights(seen))
        assert trapezoid is not None
        kept = None if metric is None else jax.device_put(metric.astype(dtype_of(model)))
        return cls(
            probe=probe,
            at_rest=at_rest,
            of=of,
            theta=theta,
            of_states=of_states,
            blocks=parts,
            integrator=integrator,
            grid=grid,
            trapezoid=trapezoid,
            weights=weights,
            modes=modes,
            metric=kept,
            quantities=as_quantities(quantities),
        )

    @property
    def sizes(self) -> np.ndarray | None:
        """The metric of the states on the host."""
        return None if self.metric is None else np.asarray(self.metric)

    @property
    def follows_a_mode(self) -> bool:
        """Whether the critical mode has a channel. It has none if a mask hides some coordinates and not others."""
        return self.probe.mask is None or self.probe.mask.ndim < 3

    def bytes(self, model: AbstractStateSpaceModel) -> int:
        """How many bytes one point takes, for a model of these sizes: J, the channel's prediction, and the recorded
        steps."""
        times, batch, n = self.probe.ts.shape[0], self.probe.n_batch, model.n_state
        each = (n if self.of == "state" else n + model.n_output) + 4
        steps = self.integrator.max_steps if self.grid is None else self.grid.shape[0]
        return 8 * batch * (times * each * size(model, self.theta) + (n + 1) * steps)

    def together(self, model: AbstractStateSpaceModel) -> int:
        """How many points are measured in one batch, for a model of these sizes."""
        return int(np.clip(BATCH_BYTES // self.bytes(model), 1, MOST_TOGETHER))


def measure_together(
    asked: Asked, models: Sequence[Any], xs: Sequence[Any], *, critical_frequency: float | None = None, room: int
) -> list[Measurement | Exception]:
    """Measure models of one shape near one state each, in a batch with `room` for that many points.

    If there are fewer points than `room`, the last one is repeated, so that batches of any size share one compilation. The
    result of a point does not depend on the others. If a point fails, its error is returned.
    """
    assert len(models) <= room
    filled = [min(i, len(models) - 1) for i in range(room)]
    starts = jax.device_put(np.stack([np.asarray(xs[i]) for i in filled]))
    arrays = [eqx.filter(models[i], eqx.is_array) for i in filled]
    arrays = jax.tree.map(lambda *leaves: jax.device_put(np.stack(leaves)), *arrays)
    stacked, held = Held(arrays, Held.of(models[0]).rest), Held.of(asked)
    points = _record(stacked, starts, held)
    near = None if critical_frequency is None else complex(*models[0].clock.edge(critical_frequency))
    modes: list[Mode | None] = [None] * room
    for i, matrix in enumerate(np.asarray(points.jacobian)[: len(models)]):
        # A point without a channel still has spectra.
        with contextlib.suppress(NumericalError, np.linalg.LinAlgError):
            modes[i] = mode_of(in_metric(matrix, asked.sizes), models[0].clock, near)
    known = next((mode for mode in modes if mode is not None), None)
    answers = None
    if known is not None and asked.follows_a_mode:
        filled_modes = [_in_units(known if mode is None else mode, asked.sizes) for mode in modes]
        each = jax.tree.map(lambda *parts: np.stack(parts), *filled_modes)
        answers = _carry(stacked, points.start, points.tracks[0], each, held)
    host = jax.tree.map(np.asarray, (points, answers))

    def finished(i: int) -> Measurement | Exception:
        point, answer = jax.tree.map(lambda leaf: leaf[i], host)
        try:
            return _measured(asked, models[i], point, modes[i], answer)
        except FAILURES as error:
            return error

    with one_blas_thread():
        if _cores() == 1:
            return list(map(finished, range(len(models))))
        with concurrent.futures.ThreadPoolExecutor(_cores()) as threads:
            return list(threads.map(finished, range(len(models))))


def prepare(asked: Asked, model: AbstractStateSpaceModel, room: int) -> None:
    """Compile the code that measures points of this model, with any values of its arrays, in batches of `room` points."""

    def like(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((room, *shape), dtype)

    models, held, n, dtype = Held.of(model), Held.of(asked), (model.n_state,), np.dtype(dtype_of(model))
    models = Held(jax.tree.map(lambda leaf: like(leaf.shape, leaf.dtype), models.arrays), models.rest)
    points = _record.prepare(models, like(n, dtype), held)
    if asked.follows_a_mode:
        pair = np.result_type(dtype, np.complex64)
        mode = Mode(like((), pair), like(n, pair), like(n, pair), like((), dtype))
        _carry.prepare(models, points.start, points.tracks[0], mode, held)


def _each(one: Callable[[PyTree], PyTree], points: PyTree) -> PyTree:
    """Apply `one` to every point of a batch: side by side on an accelerator. On a CPU that gains nothing, and all points
    would wait for the slowest, so they follow one another there."""
    return jax.lax.map(one, points) if jax.default_backend() == "cpu" else jax.vmap(one)(points)


def _cores() -> int:
    """How many points are finished side by side on the host: as many as the process may have threads, or cores."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() and int(asked) > 0 else os.cpu_count() or 1


# The errors with which a point may fail. Any other is a mistake in the program.
FAILURES = (NumericalError, ValueError, ArithmeticError, np.linalg.LinAlgError)


class _Point(NamedTuple):
    """What is computed of a point on the device: the fixed point, A (n, n) and F (n, p) there, the starts of its
    trajectories, and, for the states and perhaps the readouts, the recorded steps and the weighted rows of J."""

    x: Any
    move: Any
    velocity: Any
    jacobian: Any
    by_theta: Any
    start: Any
    tracks: tuple[Trajectory, ...]
    rows: tuple[Any, ...] | None
    # What each quantity of the user's own computes on the device, by its name.
    own: dict[str, PyTree]


def _replays(asked: Asked, model: Any, start: np.ndarray | Array, tracks: Sequence[Trajectory | None]) -> list[Replay]:
    """The recorded solves, with the states and with what else is observed. If there are no tracks yet, they are solved."""
    seen = eqx.tree_at(lambda p: p.x0, asked.probe, start)
    out = []
    for observed, track in zip(_observations(asked), tracks, strict=True):
        # A mask over readouts says nothing about states.
        apart = observed != asked.of and seen.mask is not None and seen.mask.ndim == 3
        probe = eqx.tree_at(lambda p: p.mask, seen, None) if apart else seen
        at = asked.of_states if observed == "state" else asked.theta
        if track is None:
            out.append(recorded(model, at, probe, asked.integrator, asked.grid, observed))
        else:
            out.append(Replay(model, at, probe, asked.integrator, track, observed))
    return out


def _observations(asked: Asked) -> tuple[str, ...]:
    return ("state",) if asked.of == "state" else ("state", asked.of)


def _recorded(models: Held, starts: Array, held: Held) -> _Point:
    """Solve every point's network from its fixed point, and differentiate if steps can be replayed."""
    asked: Asked = held.tree

    def one(point: tuple[PyTree, Array]) -> _Point:
        model, near = Held(point[0], models.rest).tree, point[1]
        still = jnp.zeros(model.n_input, near.dtype)
        x, move, velocity, _ = polish(model, near, still)
        # If there is no fixed point, the solve starts from something finite, and its result is not used.
        rest = jnp.where(jnp.isfinite(x).all(), x, near)
        by_theta, jacobian = forcing(model, asked.of_states, rest, still)
        start = jnp.broadcast_to(rest, (asked.probe.n_batch, rest.size)) if asked.at_rest else asked.probe.x0
        replays = _replays(asked, model, start, [None for _ in _observations(asked)])
        rows = tuple(_rows(asked, replay) for replay in replays) if replays[0].replayable else None
        settled = Settled(model, rest, jacobian, by_theta, replays[0].probe, replays[0].tracks)
        return _Point(
            x=x,
            move=move,
            velocity=velocity,
            jacobian=jacobian,
            by_theta=by_theta,
            start=start,
            tracks=tuple(replay.tracks for replay in replays),
            rows=rows,
            own={quantity.name: quantity.traced(settled) for quantity in own_of(asked.quantities)},
        )

    return _each(one, (models.arrays, starts))


_record = Compiled(_recorded)


def _in_units(mode: Mode, metric: np.ndarray | None) -> Mode:
    """A mode of D^-1 A D as a mode of A. It still has l^T r = 1, so products that are linear in l and r do not change."""
    if metric is None:
        return mode
    return mode._replace(right=mode.right * metric, left=mode.left / metric)


def _rows(asked: Asked, replay: Replay) -> Array:
    """The rows of J with trapezoid weights, (B T m, p). Rows of states are in the metric of the states."""
    over_state = None if asked.metric is None or not replay.observation.direct else 1 / asked.metric
    return Rows(replay, jnp.sqrt(asked.trapezoid).astype(replay.probe.ts.dtype), None, over_state).matrix()


def _carried(models: Held, starts: Array, tracks: Trajectory, modes: Mode, held: Held) -> Carried:
    """The prediction of the master law for every point's critical mode, along its recorded steps."""
    asked: Asked = held.tree

    def one(point: tuple[PyTree, Array, Trajectory, Mode]) -> Carried:
        model = Held(point[0], models.rest).tree
        probe = eqx.tree_at(lambda p: p.x0, asked.probe, point[1])
        return carried(Replay(model, asked.of_states, probe, asked.integrator, point[2], "state"), point[3])

    return _each(one, (models.arrays, starts, tracks, modes))


_carry = Compiled(_carried)


def _measured(asked: Asked, model: Any, point: _Point, mode: Mode | None, answer: Carried | None) -> Measurement:
    """Finish a measurement on the host. Raises one of `FAILURES`."""
    clock = model.clock
    check_settled(point.x, point.move, point.velocity)
    replays = _replays(asked, model, jax.device_put(point.start), point.tracks)
    for replay in replays:
        check_solved(replay.tracks.result, asked.integrator, saved_states(replay.tracks))
    weighted = [np.asarray(_rows(asked, replay)) for replay in replays] if point.rows is None else point.rows
    rows, probe, channel = weighted[-1], replays[0].probe, None
    gram = smaller_gram(rows)
    known = None if asked.modes is None else leading(gram, asked.modes)
    if answer is not None and mode is not None:
        with contextlib.suppress(NumericalError):
            of_states = (known or leading(gram, 1)) if len(weighted) == 1 else None
            channel = channel_of(probe.ts, np.asarray(asked.weights), clock, weighted[0], mode, answer, of_states)
    spectra, predicted = {}, {}
    if asked.blocks:
        drive = None
        if mode is not None:
            unfit = eqx.tree_at(lambda p: p.x0, probe, jax.device_put(point.start))
            drive = critical_drive(model, asked.theta, unfit, jax.device_put(point.x), complex(mode.value))
        for name, block in asked.blocks.items():
            chosen = columns(model, asked.theta, block)
            spectra[name] = _spectrum(rows[:, chosen], asked.modes)
            predicted[name] = np.nan if drive is None else channel_participation_ratio(drive[:, chosen])
    steady = rows_in_metric(response_of(point.jacobian, point.by_theta), asked.sizes)
    measured = Measurement(
        x_star=point.x,
        residual=float(np.abs(point.velocity).max()),
        jacobian_eigenvalues=clock.reported(exponents(point.jacobian, clock)),
        trajectory=_spectrum(rows, asked.modes, gram, known),
        steady_state=Spectrum.from_jacobian(steady, eigenvectors=False),
        kernel_over_time=_over_time(asked, rows, gram),
        blocks=spectra,
        channel_participation_ratio=predicted,
        channel=channel,
        border=border_at(model, asked.of_states, point.x, jnp.zeros(model.n_input, dtype_of(model))),
    )
    own = [
        checked(quantity, quantity.finish(measured, point.own[quantity.name]), model.n_state)
        for quantity in own_of(asked.quantities)
    ]
    return dataclasses.replace(measured, quantities={name: value for one in own for name, value in one.items()})


def _spectrum(rows: np.ndarray, modes: int | None, gram: np.ndarray | None = None, known: Leading | None = None) -> Spectrum:
    """All eigenvalues, from the singular values of the rows; or the first `modes`, from their smaller Gram matrix. The Gram
    matrix and its first eigenpairs may be known already."""
    if modes is None:
        return Spectrum.from_jacobian(rows, eigenvectors=False)
    gram = smaller_gram(rows) if gram is None else gram
    return top_of(gram, known or leading(gram, modes), modes, max(rows.shape))


def _over_time(asked: Asked, rows: np.ndarray, gram: np.ndarray) -> np.ndarray:
    """The kernel over (some of) the save times, summed over inputs and coordinates, from the weighted rows (B T m, p)."""
    batch, times = asked.probe.n_batch, asked.probe.ts.shape[0]
    shown = shown_of(times)
    if len(rows) <= rows.shape[1]:
        # That Gram matrix is the kernel.
        kernel = gram.reshape(batch, times, -1, batch, times, len(rows) // (batch * times))
        summed = np.sum([np.trace(kernel[b, :, :, b], axis1=1, axis2=3) for b in range(batch)], axis=0)
        summed = summed[np.ix_(shown, shown)]
    else:
        each = rows.reshape(batch, times, -1)
        # Copies of J take much memory.
        each = each if shown.size == times else each[:, shown]
        summed = sum(flat @ flat.T for flat in each)
    weights = np.sqrt(np.asarray(asked.trapezoid))[shown]
    return summed / np.outer(weights, weights)
