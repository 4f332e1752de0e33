"""Limit the threads of the host's linear algebra. The limit is one setting of the process, which its threads share."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
# One entry for each context that is active, and the object that restores the setting when the last one ends.
_inside: list[Any] = []
_limit: list[Any] = []


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Use one thread for linear algebra on the host inside this context, in all threads of the process.

    With several threads, sums would depend on their number, and for small matrices the threads would wait for one another.
    Also works as a decorator.
    """
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
    # Searching for the libraries takes 2 ms. All of them are loaded when this is first called, so one search suffices.
    return ThreadpoolController()
