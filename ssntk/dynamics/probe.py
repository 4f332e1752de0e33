"""The probe of a network: its inputs, its initial states and the times at which its states are saved."""

import contextlib
from collections.abc import Callable
from typing import Any

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float

from ssntk.errors import as_array, as_scalar, is_traced, traceable
from ssntk.models.base import AbstractStateSpaceModel, dtype_of
from ssntk.models.maps import AbstractMap
from ssntk.nouns import Real


class Sinusoid(eqx.Module):
    """The inputs `u_b(t) = amplitude_b sin(frequency t + phase)`, for `Probe(ts, us=...)`.

    - `amplitude`: (B, d), in input units. `phase`: in rad.
    - `frequency`: in rad per unit time. `None` stands for the frequency of the bifurcation, which a sweep fills in.

    **Example:**

    ```python
    print(ssntk.Sinusoid([[2.0]], frequency=np.pi)(0.5))  # [[2.]]
    ```
    """

    amplitude: Float[Array, "B d"]
    frequency: Float[Array, ""] | None
    phase: Float[Array, ""]

    def __init__(self, amplitude: Any, frequency: Any = None, phase: Any = 0.0):
        """Raises `ValueError` that names the argument that is wrong. A given `frequency` must be positive."""
        self.amplitude = as_array(amplitude, "amplitude", ("B", "d"))
        self.frequency = None if frequency is None else as_scalar(frequency, "frequency", positive=True)
        self.phase = as_scalar(phase, "phase")

    def __call__(self, t: Real) -> Float[Array, "B d"]:
        if self.frequency is None:
            raise ValueError("us has no frequency: only a sweep knows that of its bifurcation")
        t = as_array(t, "t", (), finite=False)
        amplitude, frequency, phase = (part.astype(t.dtype) for part in (self.amplitude, self.frequency, self.phase))
        return amplitude * jnp.sin(frequency * t + phase)


Inputs = Float[Array, "B d"] | Float[Array, "B T d"] | Callable[..., Array]
Mask = Bool[Array, " T"] | Bool[Array, "B T"] | Bool[Array, "B T rows"]


class AbstractProbe(eqx.Module):
    """Save times, inputs, initial states and a mask, as a user gives them or fitted to a model."""

    ts: eqx.AbstractVar[Float[Array, " T"]]
    us: eqx.AbstractVar[Inputs | None]
    mask: eqx.AbstractVar[Mask | None]
    hold: eqx.AbstractVar[bool]

    def aligned(self, targets: Float[Array, "..."]) -> Float[Array, "..."]:
        """`targets` as (B, T, m). If they have T - 1 times, a row is put in front for the initial time, which is masked."""
        short = targets.ndim == 3 and targets.shape[1] == self.ts.shape[0] - 1
        if not short or self.mask is None or is_traced(self.mask):
            return targets
        first = self.mask[0] if self.mask.ndim == 1 else self.mask[:, 0]
        return targets if bool(np.any(first)) else jnp.pad(targets, ((0, 0), (1, 0), (0, 0)))

    def targets(self, value: Any, shape: tuple[int | str, ...] = ("B", "T", "m")) -> Float[Array, "B T m"]:
        """The user's `targets`, checked and aligned. What is masked is zero, and may have been NaN."""
        found = self.aligned(as_array(value, "targets", finite=False))
        mask = self.mask
        if mask is not None and found.ndim == 3 and found.shape[1] == self.ts.shape[0]:
            seen = mask[None, :, None] if mask.ndim == 1 else mask.reshape(*mask.shape[:2], -1)
            if all(a in (1, b) for a, b in zip(seen.shape, found.shape, strict=True)):
                found = (jnp if is_traced(found, seen) else np).where(seen, found, np.zeros((), found.dtype))
        if mask is None and not is_traced(found) and not np.isfinite(np.asarray(found)).all():
            raise ValueError("targets must be finite, got NaN or infinity: mask what is not known by the probe's mask")
        return as_array(found, "targets", shape)

    def during(self, b: int | Array, t0: Array, t1: Array) -> Callable[..., Float[Array, " d"]]:
        """Input number `b` during a step from t0 to t1, as a function of time. A held input is constant there."""
        drive = self.input(b)
        if not self.hold:
            return drive
        # Times on the edge of a save interval belong to two intervals, but the middle of a step to one.
        held = drive((t0 + t1) / 2)
        return lambda t: held

    def input(self, b: int | Array) -> Callable[..., Float[Array, " d"]]:
        """Input number `b` (int or traced) as a function of time, t -> (d,). The probe must be fitted to a model."""
        us = self.us
        if us is None:
            raise ValueError("the probe must be fit to a model first")
        if callable(us):
            dtype = self.ts.dtype
            return lambda t: jnp.asarray(us(t))[b].astype(dtype)
        if us.ndim == 2:
            return lambda t: us[b]
        if self.hold:
            return lambda t: us[b][jnp.maximum(jnp.searchsorted(self.ts, t, side="right") - 1, 0)]
        line = diffrax.LinearInterpolation(self.ts, us[b])
        return lambda t: line.evaluate(t)

    def check_mask(self, rows: int) -> None:
        """Raise `ValueError` if there is a mask that does not fit this number of rows per time."""
        if self.mask is not None and self.mask.ndim == 3 and self.mask.shape[2] != rows:
            raise ValueError(f"mask must have {rows} rows per time, got {self.mask.shape[2]}")

    def observed(self, rows: Float[Array, "b T m p"], first: int = 0) -> Float[Array, "b T m p"]:
        """`rows` of the inputs from number `first` on, with the masked ones set to zero."""
        if self.mask is None:
            return rows
        b, t, m, _ = rows.shape
        self.check_mask(m)
        mask = self.mask[None, :, None] if self.mask.ndim == 1 else self.mask[first : first + b].reshape(b, t, -1)
        return jnp.where(jnp.broadcast_to(mask, (b, t, m))[..., None], rows, 0)


class FittedProbe(AbstractProbe):
    """A probe fitted to one model: in the model's dtype, with an input and an initial state for each of B solves."""

    ts: Float[Array, " T"]
    us: Inputs
    x0: Float[Array, "B n"]
    mask: Mask | None
    n_batch: int = eqx.field(static=True)
    hold: bool = eqx.field(static=True, default=False)


class Probe(AbstractProbe):
    """B inputs, B initial states and T save times.

    `ts[0]` is the initial time, at which x = x0. The rows of the parameter Jacobian are zero there, but are kept.

    **Example:**

    ```python
    probe = ssntk.Probe(np.linspace(0.0, 5.0, 11), np.ones((3, 2)))  # 3 constant inputs to 2 channels, from zero states
    print(probe.n_batch, probe.ts.shape)  # 3 (11,)
    ```
    """

    ts: Float[Array, " T"]
    us: Inputs | None
    x0: Float[Array, " n"] | Float[Array, "B n"] | None
    mask: Mask | None
    hold: bool = eqx.field(static=True, default=False)

    def __init__(self, ts: Any, us: Any = None, x0: Any = None, *, mask: Any = None, hold: Any = False):
        """**Arguments:**

        - `ts`: (T,) increasing save times, T >= 2, in units of time.
        - `us`: (B, d) constant inputs; or (B, T, d) inputs at the times `ts`, linear in between; or a callable t -> (B, d),
          such as a [`Sinusoid`][]; or `None` for no input.
        - `x0`: (n,) or (B, n) initial states. Default: the zero state; in a sweep and in `measure`, the fixed point x*.
        - `mask`: (T,), (B, T) or (B, T, rows per time) booleans: whether each row is observed. Other rows are set to zero;
          targets may be NaN there.
        - `hold`: whether inputs (B, T, d) are held from each time in `ts` until the next, as in experiments and in trained
          networks, in place of being linear in between. The last one is then used by no step.

        Raises `ValueError` that names the argument that is wrong.
        """
        # A training loop may make its probes inside jit. Known times must stay known there, since fixed steps are counted
        # from them.
        with contextlib.nullcontext() if is_traced(ts) else jax.ensure_compile_time_eval():
            self.ts = as_array(ts, "ts", ("T",))
        if self.ts.shape[0] < 2:
            raise ValueError(f"ts must hold the initial time and at least one more, got {self.ts.shape[0]}")
        if not isinstance(self.ts, Tracer) and not bool((np.diff(np.asarray(self.ts)) > 0).all()):
            raise ValueError("ts must be strictly increasing")
        self.us = us if us is None or callable(us) else as_array(us, "us")
        self.x0 = None if x0 is None else as_array(x0, "x0")
        if self.us is not None and not callable(self.us):
            if self.us.ndim not in (2, 3):
                raise ValueError(f"us must have shape (B, d) or (B, T, d), got {self.us.shape}")
            if self.us.ndim == 3 and self.us.shape[1] != self.ts.shape[0]:
                raise ValueError(f"us must have one sample per time, {self.ts.shape[0]}, got {self.us.shape[1]}")
        if not isinstance(hold, (bool, np.bool_)):
            raise ValueError(f"hold must be True or False, got {hold!r}")
        if hold and getattr(self.us, "ndim", 0) != 3:
            raise ValueError("hold needs inputs us (B, T, d), sampled at the times ts")
        self.hold = bool(hold)
        if self.x0 is not None and self.x0.ndim not in (1, 2):
            raise ValueError(f"x0 must have shape (n,) or (B, n), got {self.x0.shape}")
        batches = {name: size for name, size in (("us", self._us_batch()), ("x0", self._x0_batch())) if size is not None}
        if len(set(batches.values())) > 1:
            raise ValueError(f"us and x0 must have the same B, got {batches['us']} and {batches['x0']}")
        if 0 in batches.values():
            raise ValueError(f"{next(iter(batches))} must hold at least one input, got B = 0")
        self.mask = None
        if mask is not None:
            try:
                mask = jnp.asarray(mask)
            except (TypeError, ValueError) as error:
                raise ValueError(f"mask must be a boolean array, got {type(mask).__name__}") from error
            head = (self.ts.shape[0],) if mask.ndim == 1 else (self.n_batch, self.ts.shape[0])
            if mask.dtype != bool or mask.ndim not in (1, 2, 3) or mask.shape[: len(head)] != head:
                raise ValueError(
                    f"mask must be boolean of shape (T,), (B, T) or (B, T, rows per time) with B = {self.n_batch} "
                    f"and T = {self.ts.shape[0]}, got {mask.dtype} {mask.shape}"
                )
            self.mask = mask

    @classmethod
    def steps(cls, us: Any, h0: Any = None, *, dt: Any = 1.0, mask: Any = None) -> "Probe":
        """A probe for maps with one input for each step, and an output after each, as in `nn.RNN(batch_first=True)`.

        Output k has seen input k. T inputs lead through T + 1 states, so that this probe has T + 1 save times, 0, dt, ...,
        T dt. The initial state, at the first of them, is masked. `simulate(model, probe)[:, 1:]` are the T states of
        `nn.RNN`.

        **Arguments:**

        - `us`: (B, T, d), or (T, d) for one trial, T >= 1: one input a step.
        - `h0`: the initial state, (n,), (B, n), or (1, B, n) as in PyTorch. Default: zero.
        - `dt`: the step of the map, in units of time. A map with another step is refused.
        - `mask`: (T,), (B, T) or (B, T, rows per time) booleans: whether each output is observed. Default: all are.

        With this probe the `targets` of [`linearised_training`][] may be (B, T, m). Raises `ValueError` that names the
        argument that is wrong.

        ```python
        network = ssntk.EulerMap(ssntk.CTRNN.from_weights([[0.5]], [[1.0]], form="rate"), 1.0)
        probe = ssntk.Probe.steps(jnp.ones((1, 3, 1)))
        print(ssntk.simulate(network, probe)[0, 1:, 0].round(4))  # [0.7616 0.8811 0.8938]
        ```
        """
        us = as_array(us, "us")
        us = us[None] if us.ndim == 2 else us
        if us.ndim != 3 or us.shape[1] == 0:
            raise ValueError(f"us must have shape (B, T, d) or (T, d), with T >= 1, got {us.shape}")
        if h0 is not None:
            h0 = as_array(h0, "h0")
            h0 = h0[0] if h0.ndim == 3 and h0.shape[0] == 1 else h0
            if h0.ndim not in (1, 2) or (h0.ndim == 2 and len(h0) != len(us)):
                raise ValueError(f"h0 must have shape (n,), (B, n) or (1, B, n) with B = {len(us)}, got {h0.shape}")
        ts = float(as_scalar(dt, "dt", positive=True)) * np.arange(us.shape[1] + 1)
        observed = np.arange(len(ts)) > 0
        if mask is not None:
            mask = np.asarray(mask)
            shapes = us.shape[1:2] if mask.ndim == 1 else us.shape[:2]
            if mask.dtype != bool or mask.ndim not in (1, 2, 3) or mask.shape[: len(shapes)] != shapes:
                raise ValueError(
                    f"mask must be boolean of shape (T,), (B, T) or (B, T, rows per time) with B = {len(us)} and "
                    f"T = {us.shape[1]}, the number of outputs, got {mask.dtype} {mask.shape}"
                )
            axis = min(mask.ndim - 1, 1)
            observed = np.concatenate([np.zeros_like(mask.take([0], axis)), mask], axis=axis)
        # The input at the last save time is used by no step: repeat the last one.
        return Steps(ts, jnp.concatenate([us, us[:, -1:]], axis=1), h0, mask=observed, step=float(ts[1]))

    def _us_batch(self) -> int | None:
        us = self.us
        if us is None:
            return None
        if isinstance(us, Sinusoid):
            return us.amplitude.shape[0]
        if callable(us):
            try:
                with traceable("us(t)"):
                    out = jax.eval_shape(lambda t: jnp.asarray(us(t)), self.ts[0])
            except Exception as error:
                raise ValueError(f"us must be a callable t -> (B, d) written with jax.numpy: {error}") from error
            if len(out.shape) != 2 or not jnp.issubdtype(out.dtype, jnp.floating):
                raise ValueError(f"us must be a callable t -> (B, d) of real numbers, got {out.dtype} {out.shape}")
            return out.shape[0]
        return us.shape[0]

    def _x0_batch(self) -> int | None:
        return self.x0.shape[0] if self.x0 is not None and self.x0.ndim == 2 else None

    @property
    def n_batch(self) -> int:
        """B, the number of inputs."""
        return self._us_batch() or self._x0_batch() or 1

    def at_frequency(self, frequency: float) -> "Probe":
        """This probe with `frequency` [rad per unit time] filled in, if its [`Sinusoid`][] was made without one."""
        if not isinstance(self.us, Sinusoid) or self.us.frequency is not None:
            return self
        if not frequency > 0:
            raise ValueError("us has no frequency, and neither has the bifurcation: a sinusoidal input needs one")
        return eqx.tree_at(lambda p: p.us, self, Sinusoid(self.us.amplitude, frequency, self.us.phase))

    def fit(self, model: AbstractStateSpaceModel) -> FittedProbe:
        """This probe in the model's dtype, with `x0` (B, n) and `us` filled in; `ValueError` if sizes do not match."""
        n, d, dtype, batch = model.n_state, model.n_input, dtype_of(model), self.n_batch
        us = np.zeros((batch, d)) if self.us is None else self.us
        width = (jax.eval_shape(us, self.ts[0]) if callable(us) else us).shape[-1]
        if width != d:
            raise ValueError(f"us must have width {d}, the model's n_input, got {width}")
        x0 = np.zeros(n) if self.x0 is None else self.x0
        if x0.shape[-1] != n:
            raise ValueError(f"x0 must have width {n}, the model's n_state, got {x0.shape[-1]}")

        def put(array: Any, shape: tuple[int, ...]) -> Array:
            # If the values are known, broadcast on the host, which compiles nothing.
            known = not is_traced(array)
            array = np.broadcast_to(array, shape) if known else jnp.broadcast_to(array, shape)
            return jax.device_put(array.astype(dtype)) if known else array.astype(dtype)

        with contextlib.nullcontext() if is_traced(self.ts) else jax.ensure_compile_time_eval():
            ts = self.ts.astype(dtype)
        return FittedProbe(
            ts=ts,
            us=us if callable(us) else put(us, us.shape),
            x0=put(x0, (batch, n)),
            mask=self.mask,
            n_batch=batch,
            hold=self.hold,
        )


class Steps(Probe):
    """The probe that [`Probe.steps`][] returns, with one input for each step of a map."""

    step: float = eqx.field(static=True, default=1.0)

    def __init__(self, ts: Any, us: Any, x0: Any, *, mask: Any, step: float):
        super().__init__(ts, us, x0, mask=mask)
        self.step = step

    def fit(self, model: AbstractStateSpaceModel) -> FittedProbe:
        dt = model.clock.dt
        if isinstance(model, AbstractMap) and abs(model.dt - self.step) > 1e-9 * model.dt:
            raise ValueError(
                f"probe was made by Probe.steps for maps with dt = {self.step:g}, and the model has dt = {dt:g}, so that an "
                f"input would last for other than one step: give Probe.steps(..., dt={dt:g})"
            )
        return super().fit(model)
