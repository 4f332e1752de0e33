"""Limit the threads of the host's linear algebra. The limit is one setting of the process, which its threads share."""

import contextlib
import functools
import threading
from collections.abc import Iterator
from typing import Any

from threadpoolctl import ThreadpoolController

_lock = threading.Lock()
# One entry for each context that is active, and the libraries with the numbers of threads to restore when the last one ends.
_inside: list[Any] = []
_before: list[tuple[Any, int]] = []


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Use one thread for linear algebra on the host inside this context, in all threads of the process.

    With several threads, sums would depend on their number, and for small matrices the threads would wait for one another.
    Also works as a decorator.
    """
    me = object()
    with _lock:
        if not _inside:
            # The library's own context takes 0.7 ms, as long as some computations here.
            for library in _blas().lib_controllers:
                count = library.get_num_threads()
                if count is not None:
                    _before.append((library, count))
                    library.set_num_threads(1)
        _inside.append(me)
    try:
        yield
    finally:
        with _lock:
            _inside.remove(me)
            if not _inside:
                for library, count in _before:
                    library.set_num_threads(count)
                _before.clear()


@functools.cache
def _blas() -> ThreadpoolController:
    # Searching for the libraries takes 2 ms. All of them are loaded when this is first called, so one search suffices.
    return ThreadpoolController()
