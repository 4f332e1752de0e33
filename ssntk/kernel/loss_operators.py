"""Where pickles of earlier versions look for the loss operators, which stand in `ssntk.kernel.observe`."""

from ssntk.kernel.observe.residual import Residual as Residual
from ssntk.kernel.observe.sobolev import Sobolev as Sobolev
from ssntk.kernel.observe.time_derivative import TimeDerivative as TimeDerivative
