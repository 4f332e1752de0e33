"""A training loop's bifurcations and its kernel, watched at little cost."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
from jaxtyping import PyTree

from ssntk.critical.flag import NearCriticalWarning, natural_time_scale, relative_distance, verdict
from ssntk.dynamics.fixed_points import FixedPoints, constant_input, find_fixed_points
from ssntk.dynamics.integrate import Integrator
from ssntk.dynamics.probe import Probe
from ssntk.dynamics.radius import nearest_edge
from ssntk.dynamics.scales import typical_sizes
from ssntk.dynamics.stability import edge, exponents, linearised
from ssntk.errors import NumericalError, as_array, as_choice, as_count, as_instance, as_scalar
from ssntk.kernel.preconditioner import adam_state
from ssntk.kernel.replay import saved_states
from ssntk.kernel.rows import rows_of
from ssntk.kernel.spectrum import Spectrum
from ssntk.learning.drift import Seen, drift, seen
from ssntk.models.base import AbstractStateSpaceModel, check_autonomous, dtype_of
from ssntk.models.euler_map import step_of
from ssntk.notices import warn

# Fixed points that are followed, and the states from which others are searched for at each record.
FOLLOWED, FRESH = 64, 8


class LearningRateWarning(UserWarning):
    """A learning rate is larger than the kernel allows."""


@dataclasses.dataclass(frozen=True)
class MonitorRecord:
    """What [`NTKMonitor`][] saw at one step.

    - `step`. `seconds`: what this record took.
    - `effective_rank`, `participation_ratio`, of the kernel over the probe; `top_eigenvalue`, of `J^T J / rows`, the
      curvature of the loss `mean(residual^2) / 2` (with a preconditioner D of `D^-1/2 J^T J D^-1/2 / rows`).
    - `max_learning_rate`: from which on descent on that loss overshoots. `learning_rate`: what was given, else NaN.
    - `relative_change`, `alignment`: of the kernel since the first record ([`Drift`][]).
    - `critical_eigenvalue`: of the fixed point that is nearest to a bifurcation, the growth exponent nearest to the edge, in
      1 / time; of a pair the one above the axis. `stability_radius`: of that point, negative where it is unstable.
      `x_star` (n,): that point. NaN where no fixed point is known.
    - `verdict`: as of [`criticality`][], over the probe's duration, of that point.
    - `n_fixed_points`, `n_stable`: how many are known. What is first found late was not necessarily born late.
    - `events`: what happened to the known fixed points since the last record, a sentence each: one gained or lost
      unstable directions, or is no longer there.
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


class NTKMonitor:
    """Watches a network in its training loop: how its kernel collapses and moves, and how near its fixed points come to a
    bifurcation.

    `monitor.update(step, model)` returns a [`MonitorRecord`][] at every `every`-th step and `None` at others, so that it may
    be called at each; `monitor(step, model)` is the same, wherever a callback is asked for. `monitor.records` holds all of
    them, and `monitor.arrays()` their fields as arrays over the records.

    It warns, once for each time that it comes to pass, where the learning rate exceeds what the kernel allows
    (`LearningRateWarning`) and where a known fixed point is near a bifurcation ([`NearCriticalWarning`][]).
    """

    def __init__(
        self,
        probe: Probe,
        every: int = 100,
        *,
        of: str = "readout",
        wrt: Callable[[Any], PyTree] | None = None,
        weights: Any = None,
        integrator: Integrator | None = None,
        u: Any = None,
        n_starts: int = 64,
        key: Any = None,
    ):
        """**Arguments:**

        - `probe`: the inputs whose kernel is watched; a few typical ones will do. A record costs a solve with its Jacobian
          (rows, p), one product of it with itself, and a search from the known fixed points.
        - `every`: steps between records.
        - `of`, `wrt`, `weights`, `integrator`: as in [`ntk`][], but of what the loss sees, the readout.
        - `u`: (d,) the constant input whose fixed points are followed; default zero.
        - `n_starts`, `key`: of the search at the first record ([`find_fixed_points`][]). Later ones start from the up to 64
          known fixed points nearest to a bifurcation, from where the probe's trajectories end, and from a few random states.

        Raises `ValueError` for arguments that do not fit.
        """
        self.probe = as_instance(probe, "probe", Probe)
        self.every = as_count(every, "every")
        self.of = as_choice(of, "of", ("state", "readout"))
        self.asked: dict[str, Any] = {"of": of, "wrt": wrt, "weights": weights, "integrator": integrator}
        self.u = None if u is None else as_array(u, "u", ("d",))
        self.n_starts, self.key = as_count(n_starts, "n_starts", least=2), key
        self.records: list[MonitorRecord] = []
        self.fixed_points: FixedPoints | None = None
        self._first: Seen | None = None
        self._warned: set[type[Warning]] = set()

    def update(
        self,
        step: Any,
        model: AbstractStateSpaceModel,
        *,
        learning_rate: Any = None,
        momentum: Any = None,
        preconditioner: Any = None,
    ) -> MonitorRecord | None:
        """The record of this step, or `None` where none is due.

        **Arguments:**

        - `learning_rate`: eta, to be held against `max_learning_rate`: `2 (1 + mu) / lambda_1` for `mean(residual^2) / 2`.
          For the mean squared error without the half give twice your rate.
        - `momentum`: mu of `optax.sgd`; with a state of Adam its b1, default 0.9.
        - `preconditioner`: (p,), or the optimiser's state that holds one of `optax.adam`.

        Raises `ValueError` for arguments that do not fit, `NumericalError` where the probe cannot be solved.
        """
        step = as_count(step, "step", least=0)
        if step % self.every:
            return None
        began = time.perf_counter()
        rate = np.nan if learning_rate is None else float(as_scalar(learning_rate, "learning_rate", positive=True))
        adam = preconditioner is not None and adam_state(preconditioner) is not None
        decay = (0.9 if adam else 0.0) if momentum is None else float(as_scalar(momentum, "momentum"))
        if not 0 <= decay < 1:
            raise ValueError(f"momentum must lie in [0, 1), got {decay:g}")
        rows = rows_of(model, self.probe, preconditioner=preconditioner, **self.asked)
        weights = rows.on_rows(rows.replay.probe.observed(jnp.ones((*rows.replay.shape[:3], 1), self.probe.ts.dtype)))
        scaled = np.asarray(rows.matrix()) / float(jnp.linalg.norm(weights))
        # The kernel itself is watched, whatever it is that preconditions it.
        matrix = scaled if rows.over_theta is None else scaled / np.asarray(rows.over_theta)
        now = seen(matrix)
        self._first = now if self._first is None else self._first
        if matrix.shape != self._first.jacobian.shape:
            raise ValueError(f"model must have p = {self._first.jacobian.shape[1]} as at first, got {matrix.shape[1]}")
        spectrum = _spectrum(now.gram)
        top = float(spectrum.eigenvalues[0] if matrix is scaled else np.linalg.norm(scaled, 2) ** 2)
        limit = 2 * (1 + decay) / (1 - decay if adam else 1) / top if top > 0 else np.inf
        point = self._nearest(model, np.asarray(saved_states(rows.replay.tracks))[:, -1])
        record = MonitorRecord(
            step=step,
            effective_rank=float(np.nan if spectrum.effective_rank is None else spectrum.effective_rank),
            participation_ratio=float(spectrum.participation_ratio),
            top_eigenvalue=top,
            max_learning_rate=limit,
            learning_rate=rate,
            **drift(self._first, now)._asdict(),
            **point,
            seconds=time.perf_counter() - began,
        )
        self.records.append(record)
        self._warn(record)
        return record

    __call__ = update

    def arrays(self) -> dict[str, np.ndarray]:
        """Each field of the records over the records (k, ...), but for the events."""
        names = [field.name for field in dataclasses.fields(MonitorRecord) if field.name != "events"]
        return {name: np.array([getattr(record, name) for record in self.records]) for name in names}

    def _nearest(self, model: AbstractStateSpaceModel, ends: np.ndarray) -> dict[str, Any]:
        """What a record says of the fixed points. A model that depends on time has none, and its first record says so."""
        before, events = self.fixed_points, ()
        unknown = {
            "critical_eigenvalue": complex(np.nan, np.nan),
            "stability_radius": np.nan,
            "x_star": np.full(model.n_state, np.nan),
            "verdict": "unknown",
        }
        try:
            check_autonomous(model)
        except ValueError as error:
            said = () if self.records else (f"no fixed points are followed: {error}",)
            return unknown | {"n_fixed_points": 0, "n_stable": 0, "events": said}
        if before is None or len(before) == 0:
            found = find_fixed_points(model, self.u, n_starts=self.n_starts, key=self.key)
        else:
            followed = _by_distance(before, step_of(model))[:FOLLOWED]
            found = find_fixed_points(model, self.u, starts=self._starts(model, before.x[followed], ends))
            events = _events(before, followed, found, step_of(model))
        self.fixed_points, counts = found, {"n_fixed_points": len(found), "n_stable": int(found.stable.sum())}
        if len(found) == 0:
            return unknown | counts | {"events": events}
        dt, u = step_of(model), constant_input(model, self.u)
        x = found.x[_by_distance(found, dt)[0]]
        matrix = np.asarray(linearised(model, jax.device_put(x), u)[1], float)
        touch, rates = nearest_edge(matrix, dt), exponents(matrix, dt)
        here = complex(*edge(touch.frequency, None))
        critical = complex(rates[np.argmin(np.abs(rates - here))])
        horizon = float(self.probe.ts[-1] - self.probe.ts[0])
        far = relative_distance(touch.radius, natural_time_scale(model, rates), horizon)
        known = {"critical_eigenvalue": critical, "stability_radius": touch.radius, "x_star": x, "verdict": verdict(far)}
        return known | counts | {"events": events}

    def _starts(self, model: AbstractStateSpaceModel, known: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """Known fixed points, where trajectories end, random states: always as many, so that nothing is compiled anew."""
        ends = ends[np.isfinite(ends).all(axis=1)][:FRESH]
        size = np.maximum(np.abs(known).max(axis=0), typical_sizes(model, constant_input(model, self.u), known[0]))
        noise = jr.normal(jr.key(len(self.records)), (FOLLOWED + 2 * FRESH, model.n_state), dtype_of(model))
        return np.concatenate([known, ends, size * np.asarray(noise)])[: FOLLOWED + 2 * FRESH]

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
            (
                near,
                NearCriticalWarning,
                f"step {record.step}: {record.verdict}, a fixed point has stability radius {record.stability_radius:.2g} "
                f"and the eigenvalue {record.critical_eigenvalue:.2g}: the loss may jump",
            ),
        ):
            if wrong and kind not in self._warned:
                warn(text, kind)
            (self._warned.add if wrong else self._warned.discard)(kind)


def _spectrum(gram: np.ndarray) -> Spectrum:
    """From the smaller of J J^T and J^T J: a fraction of the cost of singular values, and it sees the first modes."""
    if not np.isfinite(gram).all():
        raise NumericalError("the Jacobian over the probe is not finite, or too large")
    values = np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0)
    return Spectrum(values, float(len(gram) * np.finfo(gram.dtype).eps), None, 0)


def _growth(points: FixedPoints, dt: float | None) -> np.ndarray:
    """How fast the modes of each fixed point grow (k, n), in 1 / time."""
    if dt is None:
        return points.eigenvalues.real
    return np.log(np.maximum(np.abs(points.eigenvalues), np.finfo(float).tiny)) / dt


def _by_distance(points: FixedPoints, dt: float | None) -> np.ndarray:
    """The order of fixed points by how near an eigenvalue lies to the edge of stability."""
    return np.argsort(np.abs(_growth(points, dt)).min(axis=1), kind="stable")


def _events(before: FixedPoints, followed: np.ndarray, after: FixedPoints, dt: float | None) -> tuple[str, ...]:
    """What became of the fixed points that were followed: each is the nearest one now, unless that is nearer to another."""
    if len(after) == 0:
        return ("no fixed point is known any longer",)
    # Beside the largest that each state is anywhere.
    sizes = np.maximum(np.abs(before.x).max(axis=0), np.abs(after.x).max(axis=0))
    apart = np.linalg.norm((before.x[:, None] - after.x[None]) / np.where(sizes > 0, sizes, 1.0), axis=2)
    to, back = apart.argmin(axis=1), apart.argmin(axis=0)
    was, now = ((_growth(points, dt) > 0).sum(axis=1) for points in (before, after))
    said = []
    for i in followed:
        j = to[i]
        if back[j] != i:
            said.append(f"a fixed point with {was[i]} unstable directions is no longer there")
        elif was[i] != now[j]:
            said.append(f"a fixed point that had {was[i]} unstable directions has {now[j]}")
    return tuple(said)
