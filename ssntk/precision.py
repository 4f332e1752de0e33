"""Warn about single precision, in which results near a bifurcation cannot be distinguished from rounding errors."""

import numpy as np

from ssntk.notices import warn
from ssntk.nouns import DType

# The end of the reason why an event was not located.
HINT = "; in float32: try jax_enable_x64"
# The warnings that were given already.
_said: set[str] = set()


class PrecisionWarning(UserWarning):
    """A result was computed in float32. Points may be missing, and verdicts may be wrong.

    **Example:**

    ```python
    import warnings

    warnings.simplefilter("error", ssntk.PrecisionWarning)  # float32 is never computed in without notice
    print(issubclass(ssntk.PrecisionWarning, UserWarning))  # True
    ```
    """


def watch_precision(dtype: DType) -> None:
    """Warn, once in a process, if `dtype` is single precision."""
    if np.dtype(dtype) != np.float32 or _said:
        return
    _said.add("float32")
    warn(
        "in float32 what lies near a bifurcation is known to three or four digits alone, the square root of its rounding "
        'error: points may be missed, unresolved or misjudged; jax.config.update("jax_enable_x64", True) before the first '
        "array is made computes in float64",
        PrecisionWarning,
    )


def unsaid_again() -> None:
    """Forget that the warning was given, so that it is given once more."""
    _said.clear()


def in_precision(reason: str, dtype: DType) -> str:
    """The reason why something was not found, with a hint if it was searched for in single precision."""
    return reason + HINT if np.dtype(dtype) == np.float32 and not reason.endswith(HINT) else reason
