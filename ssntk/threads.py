"""How many threads the host's linear algebra has: one setting of the process, which several may ask for at once."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
# How many are inside, and what restores the setting when the last of them leaves.
_inside: list[Any] = []
_limit: list[Any] = []


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """One thread for each product of matrices on the host while this lasts, in whatever thread: sums over several depend on
    their number, and those of small matrices wait for one another. Works as a decorator too."""
    me = object()
    with _lock:
        if not _inside:
            _limit.append(_blas().limit(limits=1))
        _inside.append(me)
    try:
        yield
    finally:
        with _lock:
            _inside.remove(me)
            if not _inside:
                _limit.pop().restore_original_limits()


@functools.cache
def _blas() -> ThreadpoolController:
    # Looking for the libraries takes 2 ms each time; by now all are loaded.
    return ThreadpoolController()
