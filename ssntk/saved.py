"""Results as files: arrays and a header that names classes and fields. Nothing in a file is ever executed."""

import dataclasses
import importlib.metadata
import io
import json
import os
import pathlib
import zipfile
from typing import Any

import jax
import numpy as np

from ssntk.bifurcation.branch import Branch, BranchPoint
from ssntk.bifurcation.collisions import Collision
from ssntk.bifurcation.point import Bifurcation
from ssntk.collapse.channel import Channel
from ssntk.collapse.cycle import CycleKernel
from ssntk.collapse.cycle_signature import CycleSignature
from ssntk.collapse.detect import Detection
from ssntk.collapse.signature import Signature
from ssntk.critical.approach import Approach
from ssntk.critical.border import BorderMargin
from ssntk.critical.flag import Criticality
from ssntk.critical.retreat import Retreat
from ssntk.curves.collapse import KernelAlong
from ssntk.curves.curve import Codim2, Curve, CurvePoint
from ssntk.cycles.branch import CycleBranch, CycleEvent
from ssntk.cycles.orbit import Orbit
from ssntk.diagrams.diagram import Diagram
from ssntk.diagrams.kernel_map import KernelMap
from ssntk.diagrams.two_parameters import Region, TwoParameterDiagram
from ssntk.dynamics.fixed_points import FixedPoint, FixedPoints, SlowPoint, SlowPoints
from ssntk.dynamics.iterates import Cycle, Cycles
from ssntk.errors import is_traced
from ssntk.files import write_whole
from ssntk.infinite.mean_field import MeanField
from ssntk.kernel.choice import KernelPlan
from ssntk.kernel.spectrum import Rest, Spectrum
from ssntk.learning.drift import Drift, Seen
from ssntk.learning.monitor import MonitorRecord
from ssntk.learning.predict import LinearisedTraining, _Modes
from ssntk.models import normal_forms
from ssntk.models.base import AbstractStateSpaceModel, WithInput
from ssntk.models.cells import GRUCell, LSTMCell, TorchRNN
from ssntk.models.closed_loop import ClosedFlow, ClosedMap
from ssntk.models.ctrnn import CTRNN
from ssntk.models.family import Family
from ssntk.models.gru import GRUODE
from ssntk.models.iterated import Iterated
from ssntk.models.layers import Layers
from ssntk.models.linear import LinearSSM
from ssntk.models.low_rank import LowRankRNN, ReducedRNN
from ssntk.models.low_rank_layout import TorchLowRank
from ssntk.models.maps import EulerMap, MapWithInput
from ssntk.models.plane import Plane
from ssntk.models.plrnn import PLRNN
from ssntk.piecewise.form import PiecewiseLinear
from ssntk.results import Result, Results, field_names
from ssntk.sweep.codec import made
from ssntk.sweep.identity import digest
from ssntk.sweep.measurement import Measurement
from ssntk.sweep.store import Status

# The format is raised by one if earlier versions cannot read the new files. If files only have more fields, it is not
# raised.
FORMAT = 1
PACKAGES = ("ssntk", "jax", "numpy")
# All classes whose objects a file may hold, by the name that they have there.
_RESULTS = (
    *(Branch, BranchPoint, Diagram, Bifurcation, FixedPoint, FixedPoints, SlowPoint, SlowPoints, Channel, Detection),
    *(Signature, Approach, Retreat, Criticality, Spectrum, LinearisedTraining, MonitorRecord, Measurement, Status),
    *(Drift, KernelPlan, Cycle, Cycles, Orbit, CycleBranch, CycleEvent, CycleKernel, CycleSignature),
    *(Curve, CurvePoint, Codim2, KernelAlong, KernelMap, TwoParameterDiagram, Region),
    *(PiecewiseLinear, Collision, BorderMargin, MeanField),
)
_FORMS = (normal_forms.SaddleNode, normal_forms.Transcritical, normal_forms.Pitchfork, normal_forms.Hopf)
_LAYERS = (CTRNN, TorchRNN, GRUCell, LSTMCell, GRUODE, LinearSSM, LowRankRNN, TorchLowRank, ReducedRNN, PLRNN)
_AROUND = (WithInput, MapWithInput, EulerMap, Iterated, Layers, ClosedFlow, ClosedMap)
_PARTS = (Rest, Seen, _Modes, Family, Plane, *_AROUND, *_LAYERS, *_FORMS)
KNOWN: dict[str, type] = {kind.__name__: kind for kind in (*_RESULTS, *_PARTS)}
# The names of cells in files of earlier versions.
KNOWN |= {"GRU": GRUCell, "LSTM": LSTMCell}
# The modules in which the activations of models are looked up by name.
_FUNCTIONS = {"jax.numpy": jax.numpy, "jax.nn": jax.nn, "jax.lax": jax.lax}


def save(path: str | os.PathLike[str], result: Any, *, model: Any = None) -> pathlib.Path:
    """Write a result to a file. [`load`][] reads all of its fields back, to the last bit.

    The file is a `.npz` archive of arrays, and a header with the versions of ssntk, jax and numpy. It contains no pickle. It
    is written completely or not at all.

    **Arguments:**

    - `path`: the path of the file, which is replaced if it exists.
    - `result`: a result that a function of ssntk returned, or a tuple of such results.
    - `model`: the model that the result belongs to. Its hash is written, so that `load(path, model=...)` can compare it with
      another. If the result holds a model, that one is used.

    Raises `ValueError` if it is not a result. Also raises it if the result holds a model of the user's own class, since a
    file without pickle cannot hold its code. Raises `OSError` if the file cannot be written.

    **Example:**

    ```python
    points = ssntk.find_fixed_points(ssntk.normal_forms.pitchfork(1.0))
    ssntk.save("points.npz", points)
    print(ssntk.load("points.npz") == points)  # True
    ```
    """
    parts: Any = result if type(result) in (tuple, list, Results) else None
    for one in (result,) if parts is None else parts:
        if not isinstance(one, _RESULTS):
            raise ValueError(f"result must be what a function of ssntk returned, got {type(one).__name__}")
    if is_traced(result) or (isinstance(result, Result) and "while it is traced" in result._line()):
        raise ValueError("result must hold numbers, and cannot be saved while it is traced")
    arrays: dict[str, np.ndarray] = {}
    value = _encoded(result if parts is None else Results(parts), "result", arrays)
    own = getattr(result, "model", None) if model is None else model
    header = {
        "format": FORMAT,
        "holds": type(result).__name__,
        "versions": {name: importlib.metadata.version(name) for name in PACKAGES},
        "model": None if own is None else digest(own),
        "value": value,
    }
    buffer = io.BytesIO()
    text = json.dumps(header, allow_nan=False).encode()
    np.savez(buffer, allow_pickle=False, ssntk=np.frombuffer(text, np.uint8), **arrays)
    return write_whole(path, buffer.getvalue())


def load(path: Any, *, model: Any = None) -> Any:
    """The result that [`save`][] wrote to a file.

    Nothing in the file is executed, and only objects of ssntk's classes are made.

    **Arguments:** `model`: the model that the result should belong to. Default: any.

    Raises `ValueError`, which names `path`, if the file does not hold a result, if a later version wrote it in another
    format, or if it belongs to another model. Also raises it if the result is in double precision while JAX is limited to
    single precision. Raises `OSError` if the file cannot be read.

    **Example:**

    ```python
    points = ssntk.find_fixed_points(ssntk.normal_forms.pitchfork(1.0))
    ssntk.save("points.npz", points)
    print(ssntk.load("points.npz").n_unstable)  # [0 0 1]
    ```
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ValueError(f"path must be the path of a file, got {type(path).__name__}")
    file = pathlib.Path(path)
    if file.is_dir():
        raise ValueError(
            f"path must be a file that ssntk.save wrote, got the folder {file}; a sweep is opened by ssntk.Store"
        )
    header, arrays = _opened(file, file.read_bytes())
    if header["format"] > FORMAT:
        by = header.get("versions", {})
        raise ValueError(
            f"path {file} is in format {header['format']}, written by ssntk {by.get('ssntk', 'unknown')} and this version "
            f"reads format {FORMAT}: install a newer ssntk"
        )
    if model is not None and header.get("model") != digest(model):
        known = "is of another model" if header.get("model") else "does not know its model"
        raise ValueError(f"path {file} holds a result that {known}: save it with model=")
    try:
        result = _decoded(header["value"], arrays)
    except _NoDoubles:
        raise ValueError(
            f"path {file} holds a model in double precision: call jax.config.update('jax_enable_x64', True) first"
        ) from None
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"path {file} is damaged, or was changed: {type(error).__name__}: {error}") from error
    if not isinstance(result, (*_RESULTS, Results)):
        raise ValueError(f"path {file} is damaged, or was changed: it holds a {type(result).__name__}, which is no result")
    return result


class _NoDoubles(Exception):
    """A file holds a 64-bit array of JAX, but JAX is limited to 32 bits."""


def _opened(file: pathlib.Path, data: bytes) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """The header and the arrays of a file. Raises `ValueError`, which says what the file is, if it is not a result."""
    must = f"path must be a file that ssntk.save wrote, and {file} is"
    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise ValueError(f"{must} {'empty' if not data else f'not: it begins with {data[:8]!r}'}")
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    # Zip files and arrays raise many kinds of errors for damaged bytes, and for objects that only pickle can read.
    except Exception as error:
        raise ValueError(f"{must} an archive that cannot be read: {error}") from error
    if "ssntk" not in arrays:
        names = ", ".join(list(arrays)[:6]) or "nothing"
        raise ValueError(
            f"{must} an archive of {names}" + ("; a sweep is opened by ssntk.Store" if "plan" in arrays else "")
        )
    try:
        header = json.loads(arrays.pop("ssntk").tobytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{must} damaged: its header cannot be read") from error
    if not isinstance(header, dict) or not isinstance(header.get("format"), int) or "value" not in header:
        raise ValueError(f"{must} damaged: its header says no format")
    return header, arrays


def _encoded(value: object, where: str, arrays: dict[str, np.ndarray]) -> Any:
    """A value as JSON. Its arrays are added to `arrays`, under names of their own."""
    if value is None or type(value) in (bool, int, str):
        return value
    if type(value) is float:
        # Numbers are written as text, since JSON has no NaN.
        return {"float": repr(value)}
    if type(value) is complex:
        return {"complex": [repr(value.real), repr(value.imag)]}
    if isinstance(value, (np.ndarray, np.generic, jax.Array)) and np.dtype(value.dtype).kind in "biufcU":
        name = f"array{len(arrays)}"
        arrays[name] = np.asarray(value)
        kind = "jax" if isinstance(value, jax.Array) else "scalar" if isinstance(value, np.generic) else "numpy"
        return {"array": name, "of": kind}
    if type(value) in (tuple, list, Results):
        held: Any = value
        parts = [_encoded(one, f"{where}[{i}]", arrays) for i, one in enumerate(held)]
        return {type(value).__name__.lower(): parts}
    if type(value) is dict and all(isinstance(name, (str, int)) for name in value):
        pairs = [[name, _encoded(one, f"{where}[{name!r}]", arrays)] for name, one in value.items()]
        return {"dict": pairs}
    if KNOWN.get(type(value).__name__) is type(value):
        fields = {name: _encoded(part, f"{where}.{name}", arrays) for name, part in _fields(value).items()}
        return {"class": type(value).__name__, "fields": fields}
    for module, held in _FUNCTIONS.items():
        name = getattr(value, "__name__", None)
        if name is not None and getattr(held, name, None) is value:
            return {"function": f"{module}.{name}"}
    what = f"the function {value.__name__}" if hasattr(value, "__name__") else f"a {type(value).__name__}"
    own = isinstance(value, AbstractStateSpaceModel) and not type(value).__module__.startswith("ssntk.")
    own = " of a class of your own" if own else ""
    raise ValueError(f"{where} is {what}{own}, which no file without pickle can hold: pickle the result instead")


def _fields(value: object) -> dict[str, object]:
    if not dataclasses.is_dataclass(value) and not hasattr(value, "_fields"):
        return vars(value)
    skipped = getattr(value, "_transient", ())
    return {name: getattr(value, name) for name in field_names(value) if name not in skipped}


def _decoded(value: object, arrays: dict[str, np.ndarray]) -> Any:
    """The value that `_encoded` turned into JSON."""
    if not isinstance(value, dict):
        return value
    if "float" in value:
        return float(value["float"])
    if "complex" in value:
        return complex(*map(float, value["complex"]))
    if "array" in value:
        array = arrays[value["array"]]
        if value["of"] != "jax":
            return array[()] if value["of"] == "scalar" else array
        if array.dtype.itemsize > jax.dtypes.canonicalize_dtype(array.dtype).itemsize:
            raise _NoDoubles
        return jax.device_put(array)
    for name, kind in (("tuple", tuple), ("list", list), ("results", Results)):
        if name in value:
            return kind(_decoded(one, arrays) for one in value[name])
    if "dict" in value:
        return {name: _decoded(one, arrays) for name, one in value["dict"]}
    if "function" in value:
        module, _, name = value["function"].rpartition(".")
        function = getattr(_FUNCTIONS[module], name)
        if name.startswith("_") or not callable(function):
            raise KeyError(value["function"])
        return function
    kind = KNOWN[value["class"]]
    fields = {name: _decoded(one, arrays) for name, one in value["fields"].items()}
    if issubclass(kind, tuple):
        return kind(**fields)
    return made(kind, fields)
