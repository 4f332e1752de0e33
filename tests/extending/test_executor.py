"""A user's own executor, in one file. `run` needs only its method `submit`, which returns a future."""

import concurrent.futures
import threading

import numpy as np
from helpers import fold_sweep

import ssntk


class LastFirst:
    """An executor with one thread, which runs the last submitted task first."""

    def __init__(self):
        self.waiting, self.ready = [], threading.Condition()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def submit(self, fn, /, *args, **kwargs):
        future = concurrent.futures.Future()
        with self.ready:
            self.waiting.append((future, fn, args, kwargs))
            self.ready.notify()
        return future

    def work(self):
        while True:
            with self.ready:
                self.ready.wait_for(lambda: self.waiting)
                future, fn, args, kwargs = self.waiting.pop()
            if fn is None:
                return
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:
                future.set_exception(error)


def test_a_sweep_runs_in_it(tmp_path):
    executor, here = LastFirst(), ssntk.Store(tmp_path / "here")
    # Batches of 8 points: several of them.
    distances = np.geomspace(1e-1, 1e-4, 20)
    store = ssntk.run(fold_sweep(distances=distances), ssntk.Store(tmp_path / "own"), executor, progress=False)
    executor.submit(None)
    expected = ssntk.run(fold_sweep(distances=distances), here, progress=False).arrays()
    found = store.arrays()
    assert store.status().missing == ()
    assert found.keys() == expected.keys()
    for name in expected.keys() - {"seconds"}:
        np.testing.assert_array_equal(found[name], expected[name])
