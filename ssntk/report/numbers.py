"""Numbers as the data of a page hold them."""

from typing import Any

import numpy as np


def number(value: Any, digits: int = 6) -> float | int | None:
    """A number with so many digits; `None` if it is not known or not finite."""
    if value is None or not np.isfinite(value):
        return None
    rounded = float(f"{float(value):.{digits}g}")
    # Whole numbers are written without ".0", which would be a sixth of the page.
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded
