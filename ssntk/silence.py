"""Print a note while code is being compiled, so that users know why the first call of each kind takes seconds.

JAX reports how long each compilation took. This costs nothing between compilations. After the note was printed once, the
reports are ignored.
"""

import functools
import multiprocessing
import sys
from types import CodeType, FrameType

import jax.monitoring

from ssntk.notices import note

# The note is printed once a call has spent this time on compilation [s].
PATIENCE = 3.0
COMPILED = "/jax/core/compile/backend_compile_duration"


class _Listener:
    """Adds up the time that each call of this package spends on compilation, until the note is printed."""

    def __init__(self) -> None:
        self.said = self.quiet = False
        self.call: tuple[int, CodeType] | None = None
        self.seconds = 0.0

    def __call__(self, event: str, duration_secs: float, **_: object) -> None:
        if event != COMPILED or self.said:
            return
        call = _outermost()
        # The user's own program is compiling: that does not count.
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
    """The name of the function that was called; empty for the command line and for threads."""
    # Decorators hold the function that they wrap in a variable of this name.
    wrapped = call.f_locals.get("function")
    name = getattr(wrapped, "__qualname__", call.f_code.co_qualname).partition(".<locals>")[0]
    module = call.f_globals.get("__name__", "")
    inside = module.startswith("ssntk.cli.") or module in ("ssntk.__main__", "__main__")
    return "" if inside or name.startswith(("_", "<")) else f" {name}"


def is_terminal() -> bool:
    """Whether standard error is a terminal. A notebook is none, and a process that another one started does not count."""
    try:
        return multiprocessing.parent_process() is None and sys.stderr.isatty()
    except (AttributeError, ValueError, OSError):
        return False


LISTENER = _Listener()


@functools.cache
def listen() -> None:
    """Begin to listen to JAX's reports in this process."""
    jax.monitoring.register_event_duration_secs_listener(LISTENER)
