"""Watching the kernel and the fixed points of a network while it is trained, at little cost."""

import contextlib
import dataclasses
import importlib
import json
import os
import time
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PyTree

from ssntk.critical.flag import NearCriticalWarning
from ssntk.dynamics.fixed_points import FixedPoints
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.errors import NumericalError, as_array, as_choice, as_count, as_instance
from ssntk.files import append_line
from ssntk.kernel.replay import saved_states
from ssntk.kernel.rows import recorded_rows
from ssntk.kernel.spectrum import Spectrum
from ssntk.learning.drift import Seen, drift, seen
from ssntk.learning.followed import NAN, Followed
from ssntk.learning.losses import as_loss, loss_rows, takes_targets
from ssntk.learning.optimiser import rule_of
from ssntk.learning.pace import Pace, compiling
from ssntk.models.as_model import as_model
from ssntk.models.base import AbstractStateSpaceModel
from ssntk.models.theta import Theta
from ssntk.models.torch_layout import as_numpy, looks_like_torch, weights_of
from ssntk.notices import warn
from ssntk.nouns import DType, Lens
from ssntk.results import Result, Speaks, Table, counted, short
from ssntk.threads import one_blas_thread

# Up to this side a matrix is decomposed by one thread.
SMALL = 1024


class LearningRateWarning(UserWarning):
    """A learning rate is larger than the kernel allows.

    **Example:**

    ```python
    import warnings

    warnings.simplefilter("error", ssntk.LearningRateWarning)  # a training that would diverge stops
    print(issubclass(ssntk.LearningRateWarning, UserWarning))  # True
    ```
    """


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MonitorRecord(Result):
    """What [`NTKMonitor`][] recorded at one step.

    - `step`: the step. `loss`: the training loss that was passed, else NaN.
    - `seconds`: how long this record took [s]. `compile_seconds`: the part of it in which JAX traced and compiled [s].
    - `effective_rank`, `participation_ratio`: of the kernel over the probe.
    - `top_eigenvalue`: the largest eigenvalue of `J^T J / rows`, which is the curvature of the loss `mean(residual^2) / 2`.
      It is multiplied by 2 for `"mse"`, and by 2 rows for `"sum"`. With a preconditioner D, it is that of `D^-1/2 J^T J
      D^-1/2`. NaN before Adam's first step, which determines D.
    - `max_learning_rate`: above it, gradient descent on that loss overshoots. `learning_rate`: the one that was passed, or
      that the optimiser holds, else NaN.
    - `relative_change`, `alignment`: of the kernel since the first record ([`Drift`][]).
    - `x_star` (n,): the stable fixed point that is nearest to a bifurcation. If no fixed point is stable, the nearest of
      all; `stable` says which.
    - `stability_radius`: of that point [1 / time]; negative if it is unstable.
    - `critical_eigenvalue`: its growth exponent that is nearest to the edge of stability [1 / time]; for a pair, the one
      above the axis. NaN if no fixed point is known.
    - `verdict`: of [`criticality`][] for that point, over the probe's duration. `reason`: the verdict in a sentence.
    - `saddle_eigenvalue`: the growth exponent nearest to the edge of stability among all unstable fixed points [1 / time].
      NaN if none is known. The verdict does not use it.
    - `n_fixed_points`, `n_stable`: how many fixed points are known, and how many of them are stable. A point that is found
      late may have existed before.
    - `events`: what happened to the known fixed points since the last record, a sentence each. A point may have gained or
      lost unstable directions, it may have vanished, or some may be new.

    **Example:**

    ```python
    monitor = ssntk.NTKMonitor(ssntk.Probe(np.linspace(0.0, 2.0, 5)), every=1)
    record = monitor.update(0, ssntk.CTRNN.from_weights(0.5 * np.eye(2)), learning_rate=0.1)
    print(record.step, record.verdict, record.n_stable)  # 0 regular 1
    ```
    """

    step: int
    effective_rank: float
    participation_ratio: float
    top_eigenvalue: float
    max_learning_rate: float
    learning_rate: float
    relative_change: float
    alignment: float
    critical_eigenvalue: complex
    stability_radius: float
    x_star: np.ndarray
    verdict: str
    n_fixed_points: int
    n_stable: int
    events: tuple[str, ...]
    seconds: float
    # Pickles of earlier versions lack this field.
    saddle_eigenvalue: complex = NAN
    stable: bool = True
    reason: str = ""
    loss: float = np.nan
    compile_seconds: float = np.nan

    def to_json(self) -> str:
        """One line: NaN and infinity as null, complex numbers as [real, imaginary]."""

        def plain(value: object) -> object:
            if isinstance(value, (complex, np.complexfloating)):
                return [plain(value.real), plain(value.imag)]
            if isinstance(value, (float, np.floating)):
                return float(value) if np.isfinite(value) else None
            return [plain(one) for one in value] if isinstance(value, (tuple, np.ndarray)) else value

        fields = dataclasses.fields(self)
        return json.dumps({field.name: plain(getattr(self, field.name)) for field in fields}, allow_nan=False)

    _brief = True

    def _headline(self) -> str:
        points = f"{counted(self.n_fixed_points, 'fixed point')}, {self.n_stable} stable"
        rate = f"learning rates below {short(self.max_learning_rate)}"
        return f"step {self.step}: {self.verdict}; {points}; {rate}" + "".join(f"; {event}" for event in self.events)


class NTKMonitor(Speaks):
    """Watches a network in its training loop: how its kernel changes, and how near its fixed points are to a bifurcation.

    Call `monitor.update(step, model)` at every step. It returns a [`MonitorRecord`][] if one is due, else `None`.
    `monitor(step, model)` does the same, so that a monitor can serve as a callback. `monitor.records` holds all records,
    `monitor.arrays()` returns their fields as arrays, and `monitor.plot()` draws them.

    The monitor warns if the learning rate exceeds what the kernel allows (`LearningRateWarning`). It also warns if a stable
    fixed point is near a bifurcation ([`NearCriticalWarning`][]); if no fixed point is stable, the nearest one counts. Each
    warning is given once, and again only after its cause has gone and come back.

    **Example:**
    ```python
    model = ssntk.CTRNN(n_state=8, n_input=1, n_output=2, key=jax.random.key(0))
    monitor = ssntk.NTKMonitor(ssntk.Probe(np.linspace(0.0, 4.0, 9), np.ones((1, 1))), every=10, loss="mse")
    record = monitor.update(0, model, loss=0.3, learning_rate=0.1)
    print(round(record.max_learning_rate, 3), record.verdict)  # 0.446 regular
    ```
    """

    def _headline(self) -> str:
        often = f"one in {self.every} steps" if isinstance(self.every, int) else "as often as is cheap"
        return f"NTKMonitor: {counted(len(self.records), 'record')}, {often}"

    def _tables(self) -> list[Table]:
        rows = [
            (r.step, r.verdict, r.critical_eigenvalue, f"{r.n_fixed_points} ({r.n_stable})", r.max_learning_rate, r.events)
            for r in self.records[-16:]
        ]
        columns = ("step", "verdict", "critical eigenvalue", "fixed points (stable)", "max learning rate", "events")
        return [Table.of(columns, [(*row[:-1], "; ".join(row[-1])) for row in rows], 16)]

    def __init__(
        self,
        probe: Probe,
        every: Any = 100,
        *,
        of: str = "readout",
        wrt: Lens | None = None,
        weights: Any = None,
        integrator: Integrator | None = None,
        u: Any = None,
        n_starts: int = 64,
        key: Any = None,
        loss: Any = "half-mse",
        targets: Any = None,
        log: Any = None,
    ):
        """**Arguments:**

        - `probe`: the inputs whose kernel is watched; a few typical ones suffice. A record costs a solve with its Jacobian
          (rows, p), one product of the Jacobian with itself, and a search from the known fixed points.
        - `every`: the number of steps between records, or `"auto"`. With `"auto"`, the first record is made at once. Later
          ones are made so that all records together take at most 5 % of the time of training, compilation aside.
        - `of`, `wrt`, `weights`, `integrator`: as in [`ntk`][]. The default of `of` is the readout, which the loss sees.
        - `u` (d,): the constant input whose fixed points are followed; default zero.
        - `n_starts`, `key`: of the search at the first record ([`find_fixed_points`][]). Later searches start from up to 64
          known fixed points nearest to a bifurcation, from the ends of the probe's trajectories, and from random states.
        - `loss`: the loss that the learning rate belongs to, as in [`linearised_training`][]. `"sum"` grows with the number
          of residuals, so the probe must then hold a whole batch.
        - `targets` (B, T, m): needed if `loss` is a function of two arguments.
        - `log`: the path of a file. Each record is appended to it as a line of JSON. NaN and infinity become null, and a
          complex number becomes [real, imaginary].

        Raises `ValueError` for arguments that do not fit.
        """
        self.probe = as_instance(probe, "probe", Probe)
        self._pace = Pace(every)
        self.every = self._pace.every
        self.of = as_choice(of, "of", ("state", "readout"))
        self.asked: dict[str, Any] = {"of": of, "wrt": wrt, "weights": weights, "integrator": integrator}
        self.u = None if u is None else as_array(u, "u", ("d",))
        self.loss = as_loss(loss)
        self.targets = None if targets is None else self.probe.targets(targets)
        if takes_targets(loss) and targets is None:
            raise ValueError("targets must be given for a loss that takes them, got None")
        self.log = None if log is None else _as_log(log)
        self._followed = Followed(self.u, as_count(n_starts, "n_starts", least=2), key)
        self.records: list[MonitorRecord] = []
        self._first: Seen | None = None
        self._warned: set[type[Warning]] = set()

    @property
    def fixed_points(self) -> FixedPoints | None:
        """The fixed points that are known; `None` before the first record."""
        return self._followed.points

    def update(
        self,
        step: Any,
        model: Any,
        *,
        loss: Any = None,
        learning_rate: Any = None,
        momentum: Any = None,
        preconditioner: Any = None,
        optimiser: Any = None,
        **others: Any,
    ) -> MonitorRecord | None:
        """The record of this step, or `None` if none is due.

        **Arguments:**

        - `model`: the model at this step; also a PyTorch module or state_dict ([`from_torch`][]).
        - `loss`: the training loss, a number, which the record keeps.
        - `learning_rate`: eta, which is compared with `max_learning_rate`, `2 (1 + mu) / top_eigenvalue`, where mu is the
          momentum. Default: what the optimiser holds.
        - `momentum`, `preconditioner`, `optimiser`: as in [`linearised_training`][]. Before Adam's first step the largest
          stable rate is not known, and is NaN in the record.

        Raises `ValueError` for arguments that do not fit. Raises `NumericalError` if the probe cannot be solved, or if
        weights are not finite; earlier records are kept.
        """
        for name in others:
            meant = ": use optimiser=" if name.lower().startswith(("opt", "state")) else ""
            raise TypeError(f"update has no argument {name!r}{meant}")
        step = as_count(step, "step", least=0)
        if not self._pace.due(step):
            return None
        given = _as_loss_value(loss)
        _check_finite(step, model)
        model = as_model(model)
        # Training may still be computing. That time must not count as the record's.
        jax.block_until_ready(eqx.filter(model, eqx.is_array))
        began = time.perf_counter()
        with compiling() as compiled:
            fields = self._measured(step, model, learning_rate, momentum, preconditioner, optimiser)
        seconds = time.perf_counter() - began
        self._pace.took(seconds, compiled.seconds)
        record = MonitorRecord(
            step=step, loss=given, seconds=seconds, compile_seconds=min(compiled.seconds, seconds), **fields
        )
        self.records.append(record)
        if self.log is not None:
            append_line(self.log, record.to_json())
        self._warn(record)
        return record

    __call__ = update

    def arrays(self) -> dict[str, np.ndarray]:
        """Each field of the records but `events`, as an array over the records (k, ...)."""
        names = [field.name for field in dataclasses.fields(MonitorRecord) if field.name != "events"]
        return {name: np.array([getattr(record, name) for record in self.records]) for name in names}

    def plot(self, loss: Any = None) -> Any:
        """`ssntk.plot.monitor` of this monitor. `loss`: the training loss at each step; default: that of the records."""
        # Pictures are on a higher floor, so they are imported by name.
        return importlib.import_module("ssntk.plot").monitor(self, loss=loss)

    def _measured(
        self,
        step: int,
        model: AbstractStateSpaceModel,
        learning_rate: object,
        momentum: object,
        preconditioner: PyTree,
        optimiser: object,
    ) -> dict[str, Any]:
        """The fields of a record, except the times that it took."""
        theta = Theta.of(model, self.asked["wrt"], self.of)
        rule = rule_of(theta, learning_rate, momentum, preconditioner, optimiser)
        rows = recorded_rows(model, self.probe, preconditioner=rule.diagonal, **self.asked)
        scaled, _ = loss_rows(model, rows, self.of, self.loss, self.targets)
        # The drift is that of the kernel without its preconditioner.
        matrix = scaled if rows.over_theta is None else scaled / np.asarray(rows.over_theta)
        # On a busy machine LAPACK's threads wait for one another: with two, a small matrix took forty times as long.
        with one_blas_thread() if min(matrix.shape) < SMALL else contextlib.nullcontext():
            now = seen(matrix)
            self._first = now if self._first is None else self._first
            if matrix.shape != self._first.jacobian.shape:
                raise ValueError(f"model must have p = {self._first.jacobian.shape[1]} as at first, got {matrix.shape[1]}")
            spectrum, moved = _spectrum(now.gram, rows.replay.probe.ts.dtype), drift(self._first, now)
            top = float(spectrum.eigenvalues[0] if matrix is scaled else np.linalg.norm(scaled, 2) ** 2)
        ends = np.asarray(saved_states(rows.replay.tracks))[:, -1]
        look = self._followed.look(model, ends, step, float(self.probe.ts[-1] - self.probe.ts[0]))
        return {
            "effective_rank": float(np.nan if spectrum.effective_rank is None else spectrum.effective_rank),
            "participation_ratio": float(spectrum.participation_ratio),
            "top_eigenvalue": top if rule.known else np.nan,
            "max_learning_rate": rule.limit(top),
            "learning_rate": rule.rate,
            **moved._asdict(),
            **look._asdict(),
        }

    def _warn(self, record: MonitorRecord) -> None:
        """Warn of what is wrong now and was not wrong at the last record."""
        fast = record.learning_rate > record.max_learning_rate
        near = record.verdict in ("near-critical", "critical")
        for wrong, kind, text in (
            (
                fast,
                LearningRateWarning,
                f"step {record.step}: the learning rate {record.learning_rate:.3g} exceeds {record.max_learning_rate:.3g}, "
                "beyond which the kernel's first mode grows and the loss may jump; lower it, or use "
                "ssntk.low_rank_natural_gradient",
            ),
            (near, NearCriticalWarning, f"step {record.step}: {record.reason}: the stable learning rate may fall"),
        ):
            if wrong and kind not in self._warned:
                warn(text, kind)
            (self._warned.add if wrong else self._warned.discard)(kind)


def _as_loss_value(value: Any) -> float:
    """The training loss as a number; NaN if there is none. It may be infinite, if training diverges."""
    try:
        # A tensor of PyTorch with a gradient warns if it is converted to a number.
        value = value.detach() if hasattr(value, "detach") else value
        return np.nan if value is None else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"loss must be a number in update, got {type(value).__name__}") from error


def _as_log(path: Any) -> str:
    """The path of a file that can be written to. The file is made if it does not exist."""
    try:
        file = os.path.abspath(os.fspath(path))
        with open(file, "ab"):
            return str(file)
    except (TypeError, OSError) as error:
        raise ValueError(f"log must be the path of a file that can be written, got {path!r}: {error}") from error


def _spectrum(gram: np.ndarray, dtype: DType) -> Spectrum:
    """The spectrum from the smaller of J J^T and J^T J, with J in the precision `dtype`.

    This costs a fraction of the singular values of J, and resolves the first modes, which is all that is needed.
    """
    if not np.isfinite(gram).all():
        raise NumericalError("the Jacobian over the probe is not finite, or too large")
    values = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    return Spectrum(values, float(len(gram) * np.finfo(dtype).eps), None, 0)


def _check_finite(step: int, model: PyTree) -> None:
    """Raise `NumericalError` if a parameter of the model is not finite."""
    if looks_like_torch(model):
        held = [as_numpy(one, name) for name, one in weights_of(model).items() if hasattr(one, "shape")]
    else:
        held = [np.asarray(leaf) for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)]
    if not all(np.isfinite(array).all() for array in held):
        raise NumericalError(f"the weights are not finite at step {step}: training diverged; earlier records are kept")
