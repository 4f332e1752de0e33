"""What all results share: a summary of one screen, equality by value, and tables for other programs.

A class of results defines a headline and tables. Its printed text, its display in a notebook and its `summary` are made from
these. If a class defines neither, it is shown by its name and its fields.
"""

import csv
import dataclasses
import html
import importlib
import inspect
import io
import operator
import os
import pathlib
import pickle
import textwrap
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import cloudpickle
import jax
import numpy as np
from jax.core import Tracer

from ssntk.compiled import by_name
from ssntk.errors import is_traced
from ssntk.files import write_whole
from ssntk.hints import member_hint

# The largest number of columns of a line, of letters in a cell, and of entries up to which an array is shown in full.
WIDTH, CELL, NUMBERS = 110, 78, 4


class Table(NamedTuple):
    """A table of text: the names of its columns (empty for a list of fields), its rows, and the number of rows left out."""

    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]
    more: int = 0

    @classmethod
    def of(cls, columns: Sequence[str], rows: Sequence[Sequence[object]], most: int) -> "Table":
        """A table with the first `most` of the rows."""
        return cls(tuple(columns), [tuple(short(cell) for cell in row) for row in rows[:most]], max(len(rows) - most, 0))

    def lines(self) -> list[str]:
        """The table as text."""
        shown = [self.columns, *self.rows] if self.columns else self.rows
        widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
        lines = [
            "  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in shown
        ]
        return lines + ([f"  ... and {self.more} more"] if self.more else [])

    def html(self) -> str:
        """The table as HTML."""

        def row(cells: Sequence[str], tag: str) -> str:
            return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

        head = row(self.columns, "th") if self.columns else ""
        more = f"<p>... and {self.more} more</p>" if self.more else ""
        return f"<table>{head}{''.join(row(cells, 'td') for cells in self.rows)}</table>{more}"


def short(value: object, digits: int = 6) -> str:
    """Any value as a short text: numbers to six digits, arrays by their shape and range."""
    if isinstance(value, Tracer):
        text = f"traced {value.dtype}{list(value.shape)}"
    elif value is None or isinstance(value, (str, bool, int)):
        text = str(value)
    elif isinstance(value, Speaks):
        text = " ".join(value._line().split())
    elif isinstance(value, (np.ndarray, np.generic, jax.Array, float, complex)) and not _is_key(value):
        text = _array(np.asarray(value), digits)
    elif isinstance(value, dict):
        text = f"{len(value)}: {', '.join(map(str, value))}" if value else "none"
    elif isinstance(value, (tuple, list)):
        few = len(value) <= NUMBERS and not any(isinstance(one, Speaks) for one in value)
        text = f"({', '.join(short(one, digits) for one in value)})" if few else f"{len(value)} of {type(value[0]).__name__}"
    elif dataclasses.is_dataclass(value):
        # The text of a model would be long: show its class only.
        text = type(value).__name__
    else:
        text = repr(value)
    return text if len(text) <= CELL else text[: CELL - 3] + "..."


def _array(array: np.ndarray | np.generic, digits: int) -> str:
    """An array of NumPy as text."""
    if array.dtype.kind not in "biufc":
        return f"{array.dtype} {array.shape}"
    if array.ndim == 0:
        value = array.item()
        if isinstance(value, complex) and value.imag == 0:
            value = value.real
        return f"{value:.{digits}g}" if isinstance(value, (float, complex)) else str(value)
    if array.ndim == 1 and array.size <= NUMBERS:
        return "[" + ", ".join(_array(one, digits) for one in array) + "]"
    if array.dtype.kind == "b":
        return f"{array.shape}, {int(array.sum())} true"
    finite = array[np.isfinite(array)]
    if finite.size == 0 or array.dtype.kind == "c":
        return f"{array.shape}" + (" complex" if array.dtype.kind == "c" else "")
    bad = f", {array.size - finite.size} not finite" if finite.size < array.size else ""
    return f"{array.shape} in [{finite.min():.{digits}g}, {finite.max():.{digits}g}]{bad}"


def counted(number: int, what: str) -> str:
    """A number with its noun: `1 branch`, `3 branches`, `2 quantities`."""
    plural = what[:-1] + "ies" if what[-1] == "y" else what + ("es" if what.endswith(("ch", "s")) else "s")
    return f"{number} {what if number == 1 else plural}"


class Speaks:
    """An object whose text consists of a headline and tables."""

    # Whether `print` shows the headline only, as for objects that come in long lists. `summary` shows everything.
    _brief: ClassVar[bool] = False

    def _headline(self) -> str:
        """The most important facts in one line."""
        return type(self).__name__

    def _tables(self) -> list[Table]:
        """The tables that follow the headline."""
        return []

    def _line(self) -> str:
        return self._headline()

    def summary(self) -> str:
        """The result as text, on one screen."""
        lines = textwrap.wrap(self._line(), WIDTH, subsequent_indent="  ", break_long_words=False)
        for table in self._tables():
            lines += table.lines() if table.rows else []
        return "\n".join(lines)

    def __repr__(self) -> str:
        return f"<{self._line()}>" if self._brief else self.summary()

    def _repr_html_(self) -> str:
        tables = "".join(table.html() for table in self._tables() if table.rows)
        return f"<div><p>{html.escape(self._line())}</p>{tables}</div>"


class Result(Speaks):
    """The result of a function: a frozen dataclass, declared with `eq=False, repr=False`.

    Two results are equal if they have the same class and all their fields are equal: arrays to the last bit, with NaN equal
    to NaN. Results have no hash, since arrays have none.
    """

    # Fields that neither a pickle nor a file can hold. They are `None` after reading.
    _transient: ClassVar[tuple[str, ...]] = ()
    # The name of the function of ssntk.plot that draws the result.
    _picture: ClassVar[str] = ""

    def _tables(self) -> list[Table]:
        hidden = (*self._transient, "reason")
        held = [(name, getattr(self, name)) for name in field_names(self) if name not in hidden and name[0] != "_"]
        return [Table((), [(name, short(value)) for name, value in held])]

    def _line(self) -> str:
        # While JAX traces the result, its numbers are not known.
        held = [getattr(self, name, None) for name in field_names(self)]
        return f"{type(self).__name__}, while it is traced" if is_traced(held) else self._headline()

    def __eq__(self, other: object) -> bool:
        return same(self, other) if type(other) is type(self) else NotImplemented

    __hash__ = None  # pyright: ignore[reportAssignmentType]

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}{member_hint(name)}", name=name, obj=self)

    def __getstate__(self) -> dict[str, Any]:
        return {name: None if name in self._transient else getattr(self, name) for name in field_names(self)}


class Holder(Result):
    """A result that holds a model, or a user's own functions."""

    def __reduce__(self) -> tuple[Callable[[type, bytes], object], tuple[type, bytes]]:
        written = io.BytesIO()
        ByName(written).dump(self.__getstate__())
        return _read_back, (type(self), written.getvalue())


def _read_back(kind: type, data: bytes) -> object:
    made = object.__new__(kind)
    made.__dict__.update(pickle.loads(data))
    return made


class ByName(cloudpickle.Pickler):
    """Pickles functions by name if they can be imported, and by value otherwise, as those of a script."""

    def reducer_override(self, obj: object) -> Any:
        # Pickle cannot write compiled functions such as `jax.numpy.tanh`. A copy by cloudpickle would not be recognised as
        # the same function, so that code would be compiled again.
        name = None if isinstance(obj, type) else by_name(obj)
        return super().reducer_override(obj) if name is None else name


class Pictured(Result):
    """A result that is drawn by a function of [`ssntk.plot`][ssntk.plot.bifurcation_diagram]."""

    def plot(self, *arguments: Any, **options: Any) -> Any:
        """Draw the result by its function in `ssntk.plot`, which takes these arguments."""
        # Import by name: results lie on a floor below the pictures, and programs that draw nothing must not wait for pyplot.
        picture = getattr(importlib.import_module("ssntk.plot"), self._picture)
        known = inspect.signature(picture).parameters
        takes_any = any(one.kind is one.VAR_KEYWORD for one in known.values())
        for name in options:
            if not takes_any and name not in known:
                raise TypeError(f"plot has no argument {name!r}{member_hint(name)}; known are {', '.join([*known][1:])}")
        return picture(self, *arguments, **options)


class Tabular(Result):
    """A result that can be written as a table for other programs, with one row for each point."""

    def _columns(self) -> dict[str, tuple[tuple[str, ...], np.ndarray]]:
        """For each variable its dimensions, of which the first is `point`, and its values."""
        raise NotImplementedError

    def _attributes(self) -> dict[str, Any]:
        return {}

    def _events(self) -> Sequence[Any]:
        """The bifurcations, for which `to_xarray` has a dimension of its own."""
        return ()

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` with the dimensions point, state, output and mode, and, if there are bifurcations, event.

        Raises `ImportError` if xarray is not installed: `pip install 'ssntk[sweep]'` installs it.
        """
        try:
            xarray = importlib.import_module("xarray")
        except ImportError as error:
            raise ImportError("to_xarray needs xarray: pip install 'ssntk[sweep]'") from error
        data = dict(self._columns())
        events = self._events()
        if events:
            for name in ("kind", "criticality"):
                data[f"event_{name}"] = ("event",), np.array([getattr(event, name) or "" for event in events])
            for name in ("parameter", "coefficient", "frequency"):
                data[f"event_{name}"] = ("event",), np.array([float(getattr(event, name)) for event in events])
            data["event_x"] = ("event", "state"), np.stack([np.asarray(event.x) for event in events])
        return xarray.Dataset(data, attrs=self._attributes())

    def to_csv(self, path: str | os.PathLike[str]) -> pathlib.Path:
        """Write a header and one row for each point. A complex number takes two columns, `_real` and `_imag`.

        The file is written completely or not at all. Raises `OSError` if it cannot be written.
        """
        names: list[str] = []
        columns: list[list[int | float]] = []
        for name, (_, values) in self._columns().items():
            flat = values.reshape(len(values), int(np.prod(values.shape[1:])))
            for i in range(flat.shape[1]):
                own, column = f"{name}_{i}" if values.ndim > 1 else name, flat[:, i]
                parts = (
                    {f"{own}_real": column.real, f"{own}_imag": column.imag} if np.iscomplexobj(column) else {own: column}
                )
                names += parts
                # The text of Python's numbers can be read back to the last bit.
                columns += [part.astype(int if part.dtype.kind == "b" else part.dtype).tolist() for part in parts.values()]
        written = io.StringIO()
        writer = csv.writer(written, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
        return write_whole(path, written.getvalue().encode())


class Collection(Result):
    """A result that holds points. It supports `len`, indexing and iteration. A slice returns a tuple of points."""

    def _item(self, i: int) -> object:
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, at: Any) -> Any:
        if isinstance(at, slice):
            return tuple(self._item(i) for i in range(*at.indices(len(self))))
        try:
            i = operator.index(at)
        except TypeError as error:
            raise TypeError(f"an index must be an integer or a slice, got {type(at).__name__}: index the arrays") from error
        if not -len(self) <= i < len(self):
            raise IndexError(f"index {i} is out of range: there {_are(len(self))}")
        return self._item(i % len(self))

    def __iter__(self) -> Iterator[Any]:
        return (self._item(i) for i in range(len(self)))


class Results(Speaks, tuple[Any, ...]):
    """A tuple of results that is printed as one line for each."""

    def _headline(self) -> str:
        if not self:
            return "no results"
        many = getattr(type(self[0]), "_many", None)
        return f"{len(self)} of {type(self[0]).__name__}" + (f": {many(self)}" if many else "")

    def _tables(self) -> list[Table]:
        return [Table.of(("#", "result"), list(enumerate(self)), 16)]


def _are(count: int) -> str:
    return "is 1" if count == 1 else f"are {count}" if count else "are none"


def field_names(value: Any) -> tuple[str, ...]:
    """The names of the fields of a dataclass or named tuple."""
    return getattr(value, "_fields", None) or tuple(field.name for field in dataclasses.fields(value))


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal: arrays to the last bit, NaN equal to NaN, dataclasses field by field."""
    if one is other:
        return True
    if is_traced(one, other):
        # While JAX traces them, values are not known.
        return False
    if all(isinstance(value, (np.ndarray, np.generic, jax.Array, float, complex)) for value in (one, other)):
        first, second = (jax.random.key_data(v) if _is_key(v) else v for v in (one, other))
        first, second = np.asarray(first), np.asarray(second)
        if first.shape != second.shape:
            return False
        equal = np.asarray(first == second)
        if first.dtype.kind in "fc" and second.dtype.kind in "fc":
            equal = equal | (np.isnan(first) & np.isnan(second))
        return bool(equal.all())
    if type(one) is not type(other):
        return False
    if isinstance(one, (tuple, list)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(value, other[name]) for name, value in one.items())
    if dataclasses.is_dataclass(one):
        skipped = getattr(one, "_transient", ())
        names = (name for name in field_names(one) if name not in skipped)
        return all(same(getattr(one, name, None), getattr(other, name, None)) for name in names)
    if type(one).__eq__ is object.__eq__ and hasattr(one, "__dict__"):
        return same(vars(one), vars(other)) if not callable(one) else False
    return bool(one == other)


def _is_key(value: object) -> bool:
    return hasattr(value, "dtype") and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key)
