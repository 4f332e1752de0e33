"""Results as flat dictionaries of arrays, and back. The arrays have the names of the fields.

If a class has gained a field since a file was written, the field takes its default. If it has lost one, the field is
skipped. So a class may change without a change of the format.
"""

import dataclasses
import enum
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

T = TypeVar("T")
Arrays = Mapping[str, np.ndarray]
# None is written as an empty text, since an array cannot be None. No field of these results is otherwise an empty text.
NONE = ""
_hints = functools.cache(typing.get_type_hints)


def encode(value: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """The arrays of a dataclass, by the names of its fields.

    The field `steps` of the part `bifurcations.0` is called `bifurcations.0.steps`. If a field and its default are `None`,
    the field is left out.
    """
    out: dict[str, np.ndarray] = {}
    for field in dataclasses.fields(value):
        held, name = getattr(value, field.name), f"{prefix}{field.name}"
        if held is None and field.default is None and not prefix:
            continue
        if isinstance(held, tuple) and (_part(type(value), field.name) or any(map(dataclasses.is_dataclass, held))):
            out[f"{name}.count"] = np.asarray(len(held))
            for i, one in enumerate(held):
                out |= encode(one, f"{name}.{i}.")
        elif _counts(type(value), field.name) and held is not None:
            # Counts by number. A field holds one such dictionary or several.
            several = (held,) if isinstance(held, dict) else held
            out |= {f"{name}.{i}": np.array([*one.items()], int).reshape(-1, 2) for i, one in enumerate(several)}
        elif isinstance(held, enum.Enum):
            out[name] = np.asarray(held.name)
        elif dataclasses.is_dataclass(held):
            out |= {f"{name}.class": np.asarray(type(held).__name__)} | encode(held, f"{name}.")
        elif isinstance(held, dict):
            out |= {f"{name}.{key}": np.asarray(one) for key, one in held.items()}
        else:
            out[name] = np.asarray(NONE if held is None else held)
    return out


def decode(kind: type[T], held: Arrays, prefix: str = "") -> T:
    """The dataclass that `encode` made these arrays of.

    Raises `KeyError` if a field without a default is missing, `TypeError` or `ValueError` if one is not what it must be.
    """
    hints = _hints(kind)
    fields = {}
    for field in dataclasses.fields(typing.cast(Any, kind)):
        name, hint = f"{prefix}{field.name}", hints[field.name]
        part = _part(kind, field.name)
        if f"{name}.count" in held and part is not None:
            fields[field.name] = tuple(decode(part, held, f"{name}.{i}.") for i in range(int(held[f"{name}.count"])))
        elif _counts(kind, field.name) and f"{name}.0" in held:
            several = [held[key] for i in range(2) if (key := f"{name}.{i}") in held]
            tables = tuple({int(key): int(count) for key, count in one} for one in several)
            fields[field.name] = tables if len(several) > 1 else next(iter(tables))
        elif f"{name}.class" in held:
            fields[field.name] = decode(_classes(hint)[str(held[f"{name}.class"])], held, f"{name}.")
        elif name in held:
            fields[field.name] = _decoded(hint, held[name])
        elif typing.get_origin(hint) is dict and (own := [key for key in held if key.startswith(f"{name}.")]):
            fields[field.name] = {key.removeprefix(f"{name}."): held[key] for key in own}
    return made(kind, fields)


def made(kind: type[T], fields: Mapping[str, object]) -> T:
    """An object with these fields, and with the defaults of others.

    Its `__init__` is not called, since the fields were checked and converted before. Raises `KeyError`, which names the
    field, if one without a default is missing.
    """
    one = object.__new__(kind)
    known = dict(fields)
    for name, default in defaults(kind).items():
        if name not in known and default is dataclasses.MISSING:
            raise KeyError(f"{kind.__name__} without its {name!r}")
        object.__setattr__(one, name, known.pop(name) if name in known else default)
    if known and dataclasses.is_dataclass(kind):
        raise KeyError(f"{kind.__name__} has no field {next(iter(known))!r}")
    for name, value in known.items():
        object.__setattr__(one, name, value)
    return one


def defaults(kind: type) -> dict[str, object]:
    """For each field of a dataclass, its value if an earlier version did not write it; `MISSING` if there is none."""
    if not dataclasses.is_dataclass(kind):
        return {}
    lost = getattr(kind, "_transient", ())
    return {field.name: None if field.name in lost else _default(field) for field in dataclasses.fields(kind)}


def _default(field: dataclasses.Field[Any]) -> object:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _part(kind: type, name: str) -> type | None:
    """The dataclass of the entries, if a field is a tuple of dataclasses, as `tuple[Bifurcation, ...]` is; else `None`."""
    hint = _hints(kind)[name]
    parts = typing.get_args(hint) if typing.get_origin(hint) is tuple else ()
    return parts[0] if parts and isinstance(parts[0], type) and dataclasses.is_dataclass(parts[0]) else None


def _classes(hint: object) -> dict[str, Any]:
    """The dataclasses that a field of this type may hold, by name."""
    return {
        one.__name__: one
        for one in (hint, *typing.get_args(hint))
        if isinstance(one, type) and dataclasses.is_dataclass(one)
    }


def _counts(kind: type, name: str) -> bool:
    """Whether a field holds dictionaries from numbers to numbers, or `None`."""
    return "dict[int, int]" in str(_hints(kind)[name])


def _decoded(hint: object, array: np.ndarray) -> object:
    """An array as a field of the type `hint`."""
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if types.NoneType in kinds or hint is Any:
        if array.ndim == 0 and array.dtype.kind == "U" and array.item() == NONE:
            return None
        kinds = tuple(kind for kind in kinds if kind is not types.NoneType)
    (kind, *_) = kinds
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return kind[array.item()]
    if typing.get_origin(kind) is tuple:
        if array.ndim != 1:
            raise ValueError(f"a tuple must be a list of numbers, got shape {array.shape}")
        return tuple(array.tolist())
    if kind in (bool, int, float, complex, str):
        if array.ndim:
            raise ValueError(f"a {kind.__name__} must be one value, got shape {array.shape}")
        return kind(array.item())
    if kind is np.ndarray:
        return array
    # Fields that may be traced elsewhere are plain numbers here.
    return array.item() if array.ndim == 0 else array
