"""A word while code is being compiled: the first call of each kind takes seconds, and nobody should wonder why.

JAX tells how long each compilation took. That costs nothing between compilations, and nothing is looked at after it was
said once.
"""

import functools
import multiprocessing
import sys
from types import CodeType, FrameType

import jax.monitoring

from ssntk.notices import note

# Seconds of compiling in one call before it is said.
PATIENCE = 3.0
COMPILED = "/jax/core/compile/backend_compile_duration"


class _Listener:
    """Adds up what each call of this package compiles, until it has said so."""

    def __init__(self) -> None:
        self.said = self.quiet = False
        self.call: tuple[int, CodeType] | None = None
        self.seconds = 0.0

    def __call__(self, event: str, duration_secs: float, **_: object) -> None:
        if event != COMPILED or self.said:
            return
        call = _outermost()
        # What a user's own program compiles is not ours to speak of.
        if call is None:
            return
        identity = id(call), call.f_code
        if identity != self.call:
            self.call, self.seconds = identity, 0.0
        self.seconds += duration_secs
        if self.seconds >= PATIENCE:
            self.said = True
            what = f"ssntk: compiling{_name(call)} ... first calls take a while, {self.seconds:.0f} s so far; "
            note(what + "later ones reuse it", shown=not self.quiet and is_terminal())


def _outermost() -> FrameType | None:
    """The frame of the function of this package that was called from outside; `None` if there is no such call."""
    frame: FrameType | None = sys._getframe(1)
    found = None
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        if name.partition(".")[0] == "ssntk" and name != __name__:
            found = frame
        frame = frame.f_back
    return found


def _name(call: FrameType) -> str:
    """What was called, as it is written; nothing for the command line and for threads."""
    # What decorates a function holds it under this name.
    wrapped = call.f_locals.get("function")
    name = getattr(wrapped, "__qualname__", call.f_code.co_qualname).partition(".<locals>")[0]
    inside = call.f_globals.get("__name__", "") in ("ssntk.cli", "ssntk.__main__", "__main__")
    return "" if inside or name.startswith(("_", "<")) else f" {name}"


def is_terminal() -> bool:
    """Whether somebody reads standard error as it is written; a notebook does not count, nor does a process of many."""
    try:
        return multiprocessing.parent_process() is None and sys.stderr.isatty()
    except (AttributeError, ValueError, OSError):
        return False


LISTENER = _Listener()


@functools.cache
def listen() -> None:
    """Begin to add up, in this process."""
    jax.monitoring.register_event_duration_secs_listener(LISTENER)
