"""Which failures are recorded as those of a point: executors that stop, environments that fail, functions that fail.

Compiles grids of a few points, of one unit or three.
"""

import asyncio
import concurrent.futures
import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.random as jr
import numpy as np
import pytest
from helpers import QUICK

import ssntk

PROBE = ssntk.Probe(np.linspace(0.0, 2.0, 3))


class Cancels(concurrent.futures.Executor):
    """An executor that stops in its own way, at the first task or immediately."""

    def __init__(self, error, at_once):
        self.error, self.at_once = error, at_once

    def submit(self, *_):
        if self.at_once:
            raise self.error
        future = concurrent.futures.Future()
        future.set_exception(self.error)
        return future


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    "error", [concurrent.futures.CancelledError(), asyncio.CancelledError(), OSError("scheduler is gone"), TimeoutError()]
)
def test_an_executor_that_gives_up_keeps_what_was_measured(tmp_path, error, at_once):
    grid = ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0)), {"gain": [0.3, 0.5]}, probe=PROBE)
    with pytest.raises(RuntimeError, match=f"the executor gave up .{type(error).__name__}.*what was measured is kept in"):
        ssntk.run(grid, ssntk.Store(tmp_path), Cancels(error, at_once), progress=False)
    assert ssntk.Store(tmp_path).status().missing == (0, 1)


def test_a_fault_of_the_environment_is_not_the_points(tmp_path, monkeypatch):
    grid = ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0)), {"gain": [0.3, 0.5]}, probe=PROBE)

    def broken(*_):
        raise jax.errors.JaxRuntimeError("INVALID_ARGUMENT: Failed to deserialize StableHLO")

    monkeypatch.setattr(ssntk.Grid, "measure_batch", broken)
    with pytest.raises(RuntimeError, match="Failed to deserialize StableHLO; what was measured is kept in"):
        ssntk.run(grid, ssntk.Store(tmp_path), progress=False)
    assert ssntk.Store(tmp_path).status().missing == (0, 1)


def failing_above(limit, raised):
    """A grid of 4 gains, in one batch, whose field calls back a function that fails above a limit."""

    def host(p):
        if p > limit:
            raise raised
        return p

    @jax.custom_jvp
    def called(p):
        return jax.pure_callback(host, jax.ShapeDtypeStruct((), p.dtype), p, vmap_method="sequential")

    called.defjvp(lambda primals, tangents: (called(*primals), tangents[0]))

    def make(gain):
        return ssntk.VectorField(lambda t, x, u, p: -x + called(p) * jnp.tanh(x) + 0.1, jnp.asarray(gain), 1)

    return ssntk.Grid(make, {"gain": [0.3, 0.5, 0.7]}, probe=PROBE, integrator=QUICK)


def test_a_function_that_fails_at_one_point_fails_that_point_alone(tmp_path):
    store = ssntk.run(failing_above(0.6, ValueError("gain is\ntoo large")), ssntk.Store(tmp_path / "s"), progress=False)
    assert store.status().done == (0, 1)
    assert store.status().failed == {2: "ValueError: gain is\ntoo large"}
    # If the disk is full, or the program is asked to end, no point is the cause.
    with pytest.raises(RuntimeError, match=r"^OSError: \[Errno 28\] full; what was measured is kept in"):
        ssntk.run(failing_above(0.4, OSError(28, "full")), ssntk.Store(tmp_path / "disk"), progress=False)
    with pytest.raises(KeyboardInterrupt):
        ssntk.run(failing_above(0.4, KeyboardInterrupt()), ssntk.Store(tmp_path / "key"), progress=False)
    for name in ("disk", "key"):
        assert ssntk.Store(tmp_path / name).status().failed == {}


def test_a_check_in_a_model_fails_the_points_that_it_is_about(tmp_path):
    def field(t, x, u, p):
        x = eqx.error_if(x, p > 0.6, "gain is too large")
        return -x + p * jnp.tanh(x) + 0.1

    grid = ssntk.Grid(
        lambda gain: ssntk.VectorField(field, jnp.asarray(gain), 1), {"gain": [0.3, 0.7]}, probe=PROBE, integrator=QUICK
    )
    store = ssntk.run(grid, ssntk.Store(tmp_path), progress=False)
    assert store.status().done == (0,)
    assert store.status().failed == {1: "gain is too large"}


def test_an_executor_that_is_shut_down_ends_the_run(tmp_path):
    """An executor never reports the tasks that it cancels at shutdown as done."""
    axes = {"gain": np.linspace(0.1, 0.6, 30).tolist()}
    grid = ssntk.Grid(lambda gain: ssntk.CTRNN(3, 1, 1, gain=gain, key=jr.key(0)), axes, probe=PROBE, integrator=QUICK)
    assert len(grid.batches) > 2
    executor, begun = concurrent.futures.ThreadPoolExecutor(1), threading.Event()

    class Slow(concurrent.futures.Executor):
        def submit(self, fn, *args, **kwargs):
            return executor.submit(lambda: (begun.set(), threading.Event().wait(0.2), fn(*args, **kwargs))[-1])

    def stop():
        begun.wait()
        executor.shutdown(wait=False, cancel_futures=True)

    stopping = threading.Thread(target=stop)
    stopping.start()
    with pytest.raises(RuntimeError, match=r"the executor gave up .*what was measured is kept in"):
        ssntk.run(grid, ssntk.Store(tmp_path), Slow(), progress=False)
    stopping.join()
    executor.shutdown()
