"""The loss operators under the name of earlier versions, which pickles look for. They are in `ssntk.kernel.observe`."""

from ssntk.kernel.observe.residual import Residual as Residual
from ssntk.kernel.observe.sobolev import Sobolev as Sobolev
from ssntk.kernel.observe.time_derivative import TimeDerivative as TimeDerivative
