"""A word about single precision, in which what lies near a bifurcation cannot be told from what is rounding."""

import numpy as np

from ssntk.notices import warn
from ssntk.nouns import DType

# The end of what is said of an event that was not located.
HINT = "; in float32: try jax_enable_x64"
# What was said already.
_said: set[str] = set()


class PrecisionWarning(UserWarning):
    """Something was located or judged in float32, and may be missing or wrong for that.

    **Example:**

    ```python
    import warnings

    warnings.simplefilter("error", ssntk.PrecisionWarning)  # float32 is never computed in without notice
    print(issubclass(ssntk.PrecisionWarning, UserWarning))  # True
    ```
    """


def watch_precision(dtype: DType) -> None:
    """Warn, once in a process, that numbers of this type are looked at in single precision."""
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
    """Forget that it was said, so that it is said once more."""
    _said.clear()


def in_precision(reason: str, dtype: DType) -> str:
    """A reason for which something was not found, with a hint if it was looked for in single precision."""
    return reason + HINT if np.dtype(dtype) == np.float32 and not reason.endswith(HINT) else reason
