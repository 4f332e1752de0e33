"""What is said beside results: warnings and notes, each of them also to `logging.getLogger("ssntk")`.

Nothing is logged unless the program that uses the package asks for it, by `logging.basicConfig(level="INFO")` for example.
"""

import contextlib
import functools
import logging
import sys
import warnings

LOG = logging.getLogger("ssntk")
LOG.addHandler(logging.NullHandler())

# What stands between a user's line and what is called: this package, and what decorates its functions.
BETWEEN = ("ssntk", "contextlib", "equinox", "jax", "jaxtyping", "beartype")


def warn(text: str, category: type[Warning] = UserWarning) -> None:
    """Warn at the line outside of this package that called it."""
    LOG.warning(text)
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_globals.get("__name__", "ssntk").partition(".")[0] in BETWEEN:
        frame, level = frame.f_back, level + 1
    warnings.warn(text, category, stacklevel=level)


@functools.cache
def warn_once(text: str) -> None:
    """Said once in a process."""
    warn(text)


def note(text: str, *, shown: bool = True) -> None:
    """A line on standard error, if somebody reads it there; a run does not end because nobody does."""
    LOG.info(text)
    if shown:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(text, file=sys.stderr, flush=True)
