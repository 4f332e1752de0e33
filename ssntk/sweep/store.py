"""A sweep's results: a folder with one record for each point, which describes itself and is written completely or not at
all.

plan.json         the plan's hash, what it covers, the format, the versions that wrote it
branch.npz        of a sweep towards a bifurcation, the branch and its bifurcation
points/00007.npz  one measured or failed point
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any

import filelock
import numpy as np

from ssntk.bifurcation.point import Bifurcation
from ssntk.cycles.branch import CycleEvent
from ssntk.nouns import Values
from ssntk.results import Result, Speaks, Table
from ssntk.sweep import claims, header
from ssntk.sweep.abstract_plan import AbstractPlan
from ssntk.sweep.archive import read_arrays, set_aside, write, write_arrays
from ssntk.sweep.coverage import Header, coverage_of
from ssntk.sweep.dataset import as_dataset, write_netcdf
from ssntk.sweep.header import StoreError
from ssntk.sweep.kept_branch import AnyBranch, arrays_of, branch_of, event_of
from ssntk.sweep.schema import MISSING, misfit, stacked

DONE = "done"


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Status(Result):
    """How far a sweep is.

    - `done`, `failed` (with reasons), `missing`: the indices of points.
    - `set_aside`: files that are not records of this plan. When the sweep goes on, they are kept under another name.
    """

    total: int
    done: tuple[int, ...]
    failed: dict[int, str]
    missing: tuple[int, ...]
    set_aside: tuple[str, ...]

    def _headline(self) -> str:
        done, failed, missing = len(self.done), len(self.failed), len(self.missing)
        aside = f"; {len(self.set_aside)} files are no record of this plan" if self.set_aside else ""
        return f"{done} of {self.total} points done, {failed} failed, {missing} missing{aside}"

    def _tables(self) -> list[Table]:
        return [Table.of(("point", "failed"), list(self.failed.items()), 16)]


class Store(Speaks):
    """A folder of results. If the folder already holds a store, it is resumed. An empty folder or a new path begins one.

    **Example:**

    ```python
    family = ssntk.Family(ssntk.normal_forms.saddle_node(0.0), "mu")
    sweep = ssntk.Sweep(
        family, towards="saddle-node", span=(1.0, -1.0), distances=[0.1, 0.01], probe=ssntk.Probe([0.0, 1.0]), x0=[1.0]
    )
    store = ssntk.Store("kept")
    ssntk.run(sweep, store, progress=False)
    print(store.status())  # 2 of 2 points done, 0 failed, 0 missing
    ```
    """

    def __init__(self, path: str | os.PathLike[str]):
        """Raises `StoreError` if `path` is a file, or a folder that holds something other than a store."""
        self.path = pathlib.Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, not a folder")
        if self.path.is_dir() and not self._plan_file.exists():
            # A run that was killed before it wrote its plan may have left these.
            own = (".lock", "points", "branch.npz")
            left = [file for file in self.path.iterdir() if file.suffix != ".part" and file.name not in own]
            if left:
                raise StoreError(f"{self.path} is not empty and holds no sweep: name another folder")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Store) and self.path.absolute() == other.path.absolute()

    def __hash__(self) -> int:
        return hash(self.path.absolute())

    def _headline(self) -> str:
        return f"Store {self.path}: {self._said()}"

    def _said(self) -> str:
        try:
            return self.status()._headline()
        except (StoreError, OSError) as error:
            return str(error) if self._plan_file.exists() else "nothing yet"

    def _tables(self) -> list[Table]:
        try:
            return self.status()._tables()
        except (StoreError, OSError):
            return []

    @property
    def _plan_file(self) -> pathlib.Path:
        return self.path / "plan.json"

    @property
    def _branch_file(self) -> pathlib.Path:
        return self.path / "branch.npz"

    def _point_file(self, index: int) -> pathlib.Path:
        return self.path / "points" / f"{index:05d}.npz"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs out of the folder inside this context. If the process dies, the system lifts the lock.

        Raises `StoreError` if another run works in this folder, or if it cannot be written to.
        """
        try:
            (self.path / "points").mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout as error:
            raise StoreError(
                f"{self.path} is in use: another run is working there; wait for it, or name another folder"
            ) from error
        except (OSError, NotImplementedError) as error:
            raise StoreError(f"{self.path} cannot be written to: {error}") from error
        try:
            yield
        finally:
            lock.release()

    def plan(self) -> Header:
        """The contents of plan.json. Raises `StoreError` if there is none, if it cannot be read, or was changed by hand."""
        return header.read(self._plan_file)

    def total(self) -> int:
        """How many points the plan has."""
        plan = self.plan()
        return coverage_of(plan).total(plan)

    def shape(self) -> tuple[int, ...]:
        """How many values each axis of a grid has; for a sweep towards a bifurcation, how many distances there are."""
        plan = self.plan()
        return coverage_of(plan).shape(plan)

    def check(self, plan_hash: str, plan: AbstractPlan | None = None) -> bool:
        """Whether this store holds the plan. Raises `StoreError` if it holds another of which something was measured.

        `plan`: the plan itself, which knows the hashes that earlier versions gave it.
        """
        return claims.check(self.path, plan_hash, plan)

    def claim(self, plan_hash: str, said: Header, plan: AbstractPlan | None = None) -> None:
        """Make this the store of a plan, or check that it is. Raises `StoreError` if it holds another plan.

        `said`: the plan's `header`. If plan.json differs from it, plan.json is written again, with a warning.
        """
        try:
            (self.path / "points").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{self.path} cannot be written to: {error}") from error
        written = claims.claimed(self.path, plan_hash, said, plan)
        if written is not None:
            write(self._plan_file, written)

    def write_branch(self, branch: AnyBranch, number: int) -> None:
        """Write the branch, and which of its bifurcations the sweep goes towards, completely or not at all."""
        arrays = {**arrays_of(branch, number), "plan": np.asarray(self.plan()["hash"])}
        write_arrays(self._branch_file, arrays)

    def branch(self) -> AnyBranch | None:
        """The branch that was written; `None` if there is none, or if the file is damaged."""
        held = self._read(self._branch_file)
        return None if held is None else branch_of(held)

    def bifurcation(self) -> Bifurcation | CycleEvent:
        """The point that the sweep goes towards. Raises `StoreError` if it was not located yet."""
        branch, number = self.branch(), self._number()
        if branch is None or number is None:
            raise StoreError(f"{self.path} holds no branch yet")
        return event_of(branch, number)

    def _number(self) -> int | None:
        """Which of the branch's bifurcations the sweep goes towards."""
        held = self._read(self._branch_file)
        return None if held is None or branch_of(held) is None else int(held["number"])

    def write_point(self, index: int, record: Values) -> None:
        """Write one record, completely or not at all. If the point is measured already, its record is not changed."""
        plan = self.plan()
        held = self._record(index, plan)
        if held is not None and str(held["status"]) == DONE:
            return
        if held is None and self._point_file(index).exists():
            set_aside(self._point_file(index))
        named = {"format": header.FORMAT, "plan": plan["hash"], "index": index}
        named |= {"versions": json.dumps(header.versions())}
        write_arrays(self._point_file(index), named | record)

    def point(self, index: int) -> dict[str, np.ndarray] | None:
        """The record of one point; `None` if there is none of this plan and index."""
        return self._record(index, self.plan())

    def _record(self, index: int, plan: Header, strict: bool = False) -> dict[str, np.ndarray] | None:
        file = self._point_file(index)
        record = self._read(file, plan)
        if record is None or not _is_number(record.get("index"), index) or "status" not in record:
            return None
        wrong = misfit(plan, index, record)
        if wrong is not None and strict:
            raise StoreError(f"{file} does not fit its plan: {wrong}; run the sweep again, which puts it right")
        return record if wrong is None else None

    def records(
        self, total: int | None = None, *, strict: bool = False
    ) -> Iterator[tuple[int, dict[str, np.ndarray] | None]]:
        """The index and the record of every point, one after another. The record is `None` if there is none.

        If a record was not measured where plan.json says, it counts as none; with `strict` it raises `StoreError`.
        """
        plan = self.plan()
        for index in range(self.total() if total is None else total):
            yield index, self._record(index, plan, strict)
        beyond = self._beyond() if strict else None
        if beyond is not None:
            raise StoreError(f"{beyond} does not fit its plan, which has {self.total()} points; {header.ANEW}")

    def _beyond(self) -> pathlib.Path | None:
        """A record of this plan whose index lies beyond the last point, as if the header had lost some; else `None`."""
        plan, total = self.plan(), self.total()
        for file in sorted(self.path.glob("points/*.npz")):
            if file.stem.isdecimal() and int(file.stem) >= total:
                record = self._read(file, plan)
                if record is not None and _is_number(record.get("index"), int(file.stem)):
                    return file
        return None

    def status(self) -> Status:
        """Which points are done, failed and missing."""
        total = self.total()
        states = {index: None if record is None else str(record["status"]) for index, record in self.records(total)}
        there = {self._point_file(index).name for index, state in states.items() if state is not None}
        foreign = [file for file in self.path.glob("points/*.npz") if file.name not in there]
        if self._branch_file.exists() and self.branch() is None:
            foreign.append(self._branch_file)
        return Status(
            total=total,
            done=tuple(index for index, state in states.items() if state == DONE),
            failed={i: state.removeprefix("failed: ") for i, state in states.items() if state not in (DONE, None)},
            missing=tuple(index for index, state in states.items() if state is None),
            set_aside=tuple(
                str(file.relative_to(self.path)) for file in sorted([*self.path.rglob("*.set-aside*"), *foreign])
            ),
        )

    def set_aside(self, names: Iterable[str]) -> None:
        """Rename files that are not records of this plan, so that they are kept and never overwritten."""
        for name in names:
            if ".set-aside" not in name:
                set_aside(self.path / name)

    def merge(self, *others: "Store") -> Status:
        """Copy the records of other stores of the same plan, such as the parts that several machines measured.

        If this store is empty, it becomes one of that plan. Points that are already measured here do not change; a failed
        point is replaced by a measured one. Records are copied byte for byte. Raises `StoreError` if a store holds another
        plan.
        """
        if not others:
            raise ValueError("others must hold at least one store")
        with self.locked():
            # If nothing was measured, the header does not count.
            own = [self] if self._plan_file.exists() and any(self.path.glob("points/*.npz")) else []
            stores = [*own, *others]
            plans = [store.plan() for store in stores]
            for store, plan in zip(stores, plans, strict=True):
                if wrong := header.apart(plans[0], plan):
                    raise StoreError(f"{store.path} holds another plan than {stores[0].path}: {wrong}")
            together = header.together(plans)
            if not own or together != plans[0]:
                said = {name: value for name, value in together.items() if name not in header.OWN}
                rest = (together.get("identity"), together["versions"], together["older"])
                write(self._plan_file, header.written(together["hash"], said, *rest))
            status = self.status()
            self.set_aside(status.set_aside)
            done, failed = set(status.done), set(status.failed)
            for other in others:
                if self._read(self._branch_file) is None and other._read(other._branch_file) is not None:
                    write(self._branch_file, other._branch_file.read_bytes())
                for index, record in other.records(status.total):
                    measured = record is not None and str(record["status"]) == DONE
                    if record is None or index in done or (index in failed and not measured):
                        continue
                    write(self._point_file(index), other._point_file(index).read_bytes())
                    (done if measured else failed).add(index)
            return self.status()

    def arrays(self) -> dict[str, np.ndarray]:
        """Every variable as an array over the points (k, ...): by ascending distance, or for grids in C order of the axes.

        The other dimensions are those that `ssntk.sweep.record.variables_of` names. If a point lacks a variable, it is NaN.
        Some variables, such as those of blocks, belong to some plans only. They are left out if no record holds them.
        """
        plan = self.plan()
        order = coverage_of(plan).order(plan)
        kept = {index: record or MISSING for index, record in self.records(len(order), strict=True)}
        records = [kept[int(index)] for index in order]
        others = header.recorded(self.path).keys() - header.hashes(plan) if all(one is MISSING for one in records) else ()
        if others:
            raise StoreError(
                f"{self._plan_file} does not fit its records: hash is {plan['hash']}, and {min(others)} there; {header.ANEW}"
            )
        most = max(record["x_star"].size if "x_star" in record else plan["n_state"] for record in records)
        if most < plan["n_state"]:
            raise StoreError(
                f"{self._plan_file} does not fit its records: n_state is {plan['n_state']}, and {most} there; {header.ANEW}"
            )
        return stacked(plan, records)

    def axes(self) -> dict[str, np.ndarray]:
        """The values of each axis of a grid; empty for a sweep towards a bifurcation."""
        plan = self.plan()
        return coverage_of(plan).axes(plan)

    def to_xarray(self) -> Any:
        """The results as an `xarray.Dataset`. Failed points are NaN. Needs `ssntk[sweep]`.

        Dimensions are `point`, by ascending distance, or for grids the axes; and `mode`, of length n. `ntk_eigenvalues` are
        the first n eigenvalues of the trajectory kernel. All that were computed are `ntk_eigenvalues_all`, over `row`. Every
        variable has the attributes `long_name` and `units`. The units "state" and "time" are those of the model.
        """
        return as_dataset(self.plan(), self.arrays(), self.branch(), self._number())

    def to_netcdf(self, path: str | os.PathLike[str]) -> None:
        """Write `to_xarray()` as netCDF 4. A complex variable becomes two, `_real` and `_imag`. Needs `ssntk[sweep]`."""
        write_netcdf(self.to_xarray(), pathlib.Path(path))

    def _read(self, file: pathlib.Path, plan: Header | None = None) -> dict[str, np.ndarray] | None:
        """The arrays in a file of this plan; `None` if there is none, or if it is torn or belongs to another plan."""
        held = read_arrays(file)
        if held is None:
            return None
        return held if str(held.get("plan")) in header.hashes(self.plan() if plan is None else plan) else None


def _is_number(value: np.ndarray | None, number: int) -> bool:
    return value is not None and value.ndim == 0 and value.item() == number
