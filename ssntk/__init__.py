"""Bifurcations of recurrent networks, and what they do to learning.

Importing this changes no global configuration. Kernels near a bifurcation need double precision:
`jax.config.update("jax_enable_x64", True)`.
"""

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from ssntk.bifurcation.continuation import Branch as Branch
from ssntk.bifurcation.continuation import continuation as continuation
from ssntk.bifurcation.continuation import continuation_ensemble as continuation_ensemble
from ssntk.bifurcation.diagram import Diagram as Diagram
from ssntk.bifurcation.diagram import bifurcation_diagram as bifurcation_diagram
from ssntk.bifurcation.family import Family as Family
from ssntk.bifurcation.locate import Bifurcation as Bifurcation
from ssntk.bifurcation.locate import locate as locate
from ssntk.collapse import laws as laws
from ssntk.collapse.channel import Channel as Channel
from ssntk.collapse.channel import bifurcation_channel as bifurcation_channel
from ssntk.collapse.detect import Detection as Detection
from ssntk.collapse.detect import detect_from_ntk as detect_from_ntk
from ssntk.collapse.signature import Signature as Signature
from ssntk.collapse.signature import frequency_signature as frequency_signature
from ssntk.critical.approach import Approach as Approach
from ssntk.critical.approach import approach as approach
from ssntk.critical.flag import Criticality as Criticality
from ssntk.critical.flag import NearCriticalWarning as NearCriticalWarning
from ssntk.critical.flag import criticality as criticality
from ssntk.critical.flag import criticality_ensemble as criticality_ensemble
from ssntk.critical.flag import warn_if_near_critical as warn_if_near_critical
from ssntk.critical.retreat import Retreat as Retreat
from ssntk.critical.retreat import retreat as retreat
from ssntk.dynamics.fixed_points import FixedPoints as FixedPoints
from ssntk.dynamics.fixed_points import find_fixed_points as find_fixed_points
from ssntk.dynamics.integrate import Integrator as Integrator
from ssntk.dynamics.integrate import simulate as simulate
from ssntk.dynamics.probe import Probe as Probe
from ssntk.dynamics.probe import Sinusoid as Sinusoid
from ssntk.dynamics.radius import stability_radius as stability_radius
from ssntk.errors import NumericalError as NumericalError
from ssntk.kernel.choice import kernel_plan as kernel_plan
from ssntk.kernel.frequency import frequency_ntk as frequency_ntk
from ssntk.kernel.jacobian import initial_state_jacobian as initial_state_jacobian
from ssntk.kernel.jacobian import parameter_jacobian as parameter_jacobian
from ssntk.kernel.loss_operators import Residual as Residual
from ssntk.kernel.loss_operators import Sobolev as Sobolev
from ssntk.kernel.loss_operators import TimeDerivative as TimeDerivative
from ssntk.kernel.ntk import fisher as fisher
from ssntk.kernel.ntk import ntk as ntk
from ssntk.kernel.ntk import ntk_blocks as ntk_blocks
from ssntk.kernel.ntk import ntk_spectrum as ntk_spectrum
from ssntk.kernel.operator import ntk_operator as ntk_operator
from ssntk.kernel.spectrum import Spectrum as Spectrum
from ssntk.kernel.steady_state import steady_state_ntk as steady_state_ntk
from ssntk.models import normal_forms as normal_forms
from ssntk.models.base import AbstractStateSpaceModel as AbstractStateSpaceModel
from ssntk.models.ctrnn import CTRNN as CTRNN
from ssntk.models.euler_map import EulerMap as EulerMap
from ssntk.models.from_torch import from_torch as from_torch
from ssntk.models.gru import GRUODE as GRUODE
from ssntk.models.linear import LinearSSM as LinearSSM
from ssntk.models.low_rank import LowRankRNN as LowRankRNN
from ssntk.models.neural_ode import NeuralODE as NeuralODE
from ssntk.models.vector_field import VectorField as VectorField
from ssntk.sweep.measure import Measurement as Measurement
from ssntk.sweep.measure import measure as measure
from ssntk.sweep.plan import Sweep as Sweep
from ssntk.sweep.run import run as run
from ssntk.sweep.store import Store as Store
from ssntk.sweep.store import StoreError as StoreError

if TYPE_CHECKING:
    from ssntk import plot as plot

__version__ = importlib.metadata.version("ssntk")


def __getattr__(name: str) -> Any:
    # pyplot takes half a second to import, which a training script that only asks for a verdict should not pay.
    if name == "plot":
        return importlib.import_module("ssntk.plot")
    raise AttributeError(f"module 'ssntk' has no attribute {name!r}")
