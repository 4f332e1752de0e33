"""Names for the types that recur."""

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Array, PyTree

# An array on the host, or one of JAX, which may be traced.
AnyArray: TypeAlias = np.ndarray | Array
# One real number or an array of them, and the same of complex numbers.
Real: TypeAlias = float | int | np.number | np.ndarray | Array
Number: TypeAlias = complex | float | int | np.number | np.bool_ | np.ndarray | Array
# One real number or an array of them on the host.
HostReal: TypeAlias = float | np.floating | np.ndarray
# What NumPy takes as a dtype.
DType: TypeAlias = np.dtype | type
# From a model to some of its leaves.
Lens: TypeAlias = Callable[[Any], PyTree]
# A function of each unit by itself.
Activation: TypeAlias = Callable[..., Array]
# An object of JSON: values of any kind by their names.
Json: TypeAlias = dict[str, Any]
# What is recorded of a point, by the names of the variables.
Values: TypeAlias = dict[str, Number | str]
