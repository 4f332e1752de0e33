"""A training loop's bifurcations and its kernel, watched at little cost."""

import contextlib
import dataclasses
import importlib
import json
import os
import time
from collections.abc import Callable
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
from ssntk.models.theta import Theta
from ssntk.models.torch_layout import as_numpy, looks_like_torch, weights_of
from ssntk.notices import warn
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
    """What [`NTKMonitor`][] saw at one step.

    - `step`. `loss`: what was given, else NaN.
    - `seconds`: what this record took, and `compile_seconds`: the part of it in which JAX traced and compiled.
    - `effective_rank`, `participation_ratio`, of the kernel over the probe; `top_eigenvalue`, of `J^T J / rows`, the
      curvature of the loss `mean(residual^2) / 2`, times 2 for `"mse"` and 2 rows for `"sum"` (with a preconditioner D of
      `D^-1/2 J^T J D^-1/2`). NaN before Adam's first step, which decides on D.
    - `max_learning_rate`: from which on descent on that loss overshoots. `learning_rate`: what was given, or what the
      optimiser holds, else NaN.
    - `relative_change`, `alignment`: of the kernel since the first record ([`Drift`][]).
    - `stability_radius`: of the stable fixed point that is nearest to a bifurcation, in 1 / time. If none is stable
      (`stable`), that of the nearest one, negative. `x_star` (n,): that point. `critical_eigenvalue`: its growth exponent
      nearest to the edge, in 1 / time; of a pair the one above the axis. NaN where no fixed point is known.
    - `verdict`: as of [`criticality`][], over the probe's duration, of that point. `reason`: that in a sentence.
    - `saddle_eigenvalue`: the growth exponent nearest to the edge of stability among those of the unstable fixed points, in
      1 / time; NaN where none is known. It enters no verdict.
    - `n_fixed_points`, `n_stable`: how many are known. What is first found late was not necessarily born late.
    - `events`: what happened to the known fixed points since the last record, a sentence each: one gained or lost
      unstable directions, or is no longer there, or some are new.

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
    # What older pickles lack.
    saddle_eigenvalue: complex = NAN
    stable: bool = True
    reason: str = ""
    loss: float = np.nan
    compile_seconds: float = np.nan

    def to_json(self) -> str:
        """One line: NaN and infinity as null, complex numbers as [real, imaginary]."""

        def plain(value: Any) -> Any:
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
    """Watches a network in its training loop: how its kernel collapses and moves, and how near its fixed points come to a
    bifurcation.

    `monitor.update(step, model)` returns a [`MonitorRecord`][] where one is due and `None` at other steps, so that it may
    be called at each; `monitor(step, model)` is the same, wherever a callback is asked for. `monitor.records` holds all of
    them, `monitor.arrays()` their fields as arrays over the records, and `monitor.plot()` draws them.

    It warns, once for each time that it comes to pass, where the learning rate exceeds what the kernel allows
    (`LearningRateWarning`) and where a stable fixed point is near a bifurcation ([`NearCriticalWarning`][]); if none is
    stable, where the nearest one is.

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
        wrt: Callable[[Any], PyTree] | None = None,
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

        - `probe`: the inputs whose kernel is watched; a few typical ones will do. A record costs a solve with its Jacobian
          (rows, p), one product of it with itself, and a search from the known fixed points.
        - `every`: steps between records, or `"auto"`: the first at once, later ones as soon as all of them together will
          have taken at most 5 % of the time of training since then. Time in which records compile does not count.
        - `of`, `wrt`, `weights`, `integrator`: as in [`ntk`][], but of what the loss sees, the readout.
        - `u`: (d,) the constant input whose fixed points are followed; default zero.
        - `n_starts`, `key`: of the search at the first record ([`find_fixed_points`][]). Later ones start from the up to 64
          known fixed points nearest to a bifurcation, from where the probe's trajectories end, and from a few random states.
        - `loss`: what the learning rate belongs to, as in [`linearised_training`][]. `"sum"` grows with the number of
          residuals: the probe must then be all of a batch.
        - `targets`: (B, T, m), for a `loss` of two arguments.
        - `log`: the path of a file to which each record is appended, one JSON object a line. NaN and infinity are null in
          it, complex numbers [real, imaginary].

        Raises `ValueError` for arguments that do not fit.
        """
        self.probe = as_instance(probe, "probe", Probe)
        self._pace = Pace(every)
        self.every = self._pace.every
        self.of = as_choice(of, "of", ("state", "readout"))
        self.asked: dict[str, Any] = {"of": of, "wrt": wrt, "weights": weights, "integrator": integrator}
        self.u = None if u is None else as_array(u, "u", ("d",))
        self.loss = as_loss(loss)
        self.targets = None if targets is None else as_array(targets, "targets", ("B", "T", "m"))
        if takes_targets(loss) and targets is None:
            raise ValueError("targets must be given for a loss that takes them, got None")
        self.log = None if log is None else _as_log(log)
        self._followed = Followed(self.u, as_count(n_starts, "n_starts", least=2), key)
        self.records: list[MonitorRecord] = []
        self._first: Seen | None = None
        self._warned: set[type[Warning]] = set()

    @property
    def fixed_points(self) -> FixedPoints | None:
        """Those that are known; `None` before the first record."""
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
        """The record of this step, or `None` where none is due.

        **Arguments:**

        - `model`: as it is at this step; also a PyTorch module or state_dict ([`from_torch`][]).
        - `loss`: the training loss, a number, which the record keeps.
        - `learning_rate`: eta, to be held against `max_learning_rate`, `2 (1 + mu) / top_eigenvalue`. Default: what the
          optimiser holds.
        - `momentum`, `preconditioner`, `optimiser`: as in [`linearised_training`][]. Before Adam's first step no stable rate
          is known, and the record's is NaN.

        Raises `ValueError` for arguments that do not fit, `NumericalError` where the probe cannot be solved, or weights are
        not finite; what was recorded stays.
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
        # What is still being computed is the training's time.
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
        """Each field of the records over the records (k, ...), but for the events."""
        names = [field.name for field in dataclasses.fields(MonitorRecord) if field.name != "events"]
        return {name: np.array([getattr(record, name) for record in self.records]) for name in names}

    def plot(self, loss: Any = None) -> Any:
        """`ssntk.plot.monitor` of this monitor. `loss`: the training loss at each step; default: that of the records."""
        # Pictures are a floor above.
        return importlib.import_module("ssntk.plot").monitor(self, loss=loss)

    def _measured(
        self, step: int, model: Any, learning_rate: Any, momentum: Any, preconditioner: Any, optimiser: Any
    ) -> dict[str, Any]:
        """What a record says, but for what it took."""
        theta = Theta.of(model, self.asked["wrt"], self.of)
        rule = rule_of(theta, learning_rate, momentum, preconditioner, optimiser)
        rows = recorded_rows(model, self.probe, preconditioner=rule.diagonal, **self.asked)
        scaled, _ = loss_rows(model, rows, self.of, self.loss, self.targets)
        # The kernel itself is watched, whatever it is that preconditions it.
        matrix = scaled if rows.over_theta is None else scaled / np.asarray(rows.over_theta)
        # On a busy machine threads of LAPACK wait for one another: a small matrix took forty times as long with two.
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
        """Say what is wrong where it was not wrong at the last record."""
        fast = record.learning_rate > record.max_learning_rate
        near = record.verdict in ("near-critical", "critical")
        for wrong, kind, text in (
            (
                fast,
                LearningRateWarning,
                f"step {record.step}: the learning rate {record.learning_rate:.3g} exceeds {record.max_learning_rate:.3g}, "
                "beyond which the kernel's first mode grows; lower it, or use ssntk.low_rank_natural_gradient",
            ),
            (near, NearCriticalWarning, f"step {record.step}: {record.reason}: the loss may jump"),
        ):
            if wrong and kind not in self._warned:
                warn(text, kind)
            (self._warned.add if wrong else self._warned.discard)(kind)


def _as_loss_value(value: Any) -> float:
    """The training loss as a number, which may be infinite where training diverges; NaN where there is none."""
    try:
        # A tensor of PyTorch warns where it is asked for a number with its gradient.
        value = value.detach() if hasattr(value, "detach") else value
        return np.nan if value is None else float(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"loss must be a number in update, got {type(value).__name__}") from error


def _as_log(path: Any) -> str:
    """A file that can be written to, which is made if it is not there."""
    try:
        file = os.path.abspath(os.fspath(path))
        with open(file, "ab"):
            return str(file)
    except (TypeError, OSError) as error:
        raise ValueError(f"log must be the path of a file that can be written, got {path!r}: {error}") from error


def _spectrum(gram: np.ndarray, dtype: Any) -> Spectrum:
    """From the smaller of J J^T and J^T J, J in this precision: a fraction of the cost of singular values, and it sees the
    first modes."""
    if not np.isfinite(gram).all():
        raise NumericalError("the Jacobian over the probe is not finite, or too large")
    values = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    return Spectrum(values, float(len(gram) * np.finfo(dtype).eps), None, 0)


def _check_finite(step: int, model: Any) -> None:
    """`NumericalError` if training has left the numbers."""
    if looks_like_torch(model):
        held = [as_numpy(one, name) for name, one in weights_of(model).items() if hasattr(one, "shape")]
    else:
        held = [np.asarray(leaf) for leaf in jax.tree.leaves(model) if eqx.is_inexact_array(leaf)]
    if not all(np.isfinite(array).all() for array in held):
        raise NumericalError(f"the weights are not finite at step {step}: training diverged; earlier records are kept")
