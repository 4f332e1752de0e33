"""Warnings and notes. Each is also sent to `logging.getLogger("ssntk")`.

Nothing is logged unless the program that uses the package enables logging, as by `logging.basicConfig(level="INFO")`.
"""

import contextlib
import functools
import logging
import sys
import warnings

LOG = logging.getLogger("ssntk")
LOG.addHandler(logging.NullHandler())

# Packages whose frames lie between a user's line and a warning: this one, and those that decorate its functions.
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
    """Warn, but only once in a process for each text."""
    warn(text)


def note(text: str, *, shown: bool = True) -> None:
    """Log a line and, if `shown`, print it on standard error. If that is closed, nothing is raised."""
    LOG.info(text)
    if shown:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            print(text, file=sys.stderr, flush=True)
