"""Where a sweep's results lie: a folder with one atomic, self-describing record a point.

plan.json         the plan's hash, the format, the versions that wrote it
branch.npz        the branch and its bifurcation
points/00007.npz  one measured or failed point
"""

import dataclasses
import importlib.metadata
import io
import json
import os
import pathlib
import tempfile
from typing import Any

import numpy as np

from ssntk.bifurcation.continuation import Branch
from ssntk.bifurcation.locate import Bifurcation

FORMAT = 1
DONE = "done"

# What a record holds.
VARIABLES = {
    "parameter": "swept parameter",
    "distance": "|p - p_c|",
    "x_star": "fixed point, state units",
    "jacobian_eigenvalues": "eigenvalues of df/dx, 1/time",
    "ntk_eigenvalues": "eigenvalues of the trajectory kernel K_int",
    "steady_state_eigenvalues": "eigenvalues of the steady-state kernel",
    "condition_number": "of the steady-state kernel",
    "trajectory_condition_number": "of the trajectory kernel",
    "trajectory_condition_number_is_bound": "whether that is only a lower bound",
    "effective_rank": "exp(entropy) of the trajectory kernel's spectrum",
    "participation_ratio": "of the trajectory kernel",
    "top_share": "of the trajectory kernel",
    "trace": "of the trajectory kernel",
    "seconds": "wall time of the point",
    "status": "'done', or 'failed: ' and the reason",
}
_PER_MODE = ("jacobian_eigenvalues", "ntk_eigenvalues", "steady_state_eigenvalues")


class StoreError(RuntimeError):
    """A folder that cannot serve as the store of this plan."""


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a sweep is: point numbers `done`, `failed` (with reasons), `missing`; files that were `set_aside`."""

    total: int
    done: tuple[int, ...]
    failed: dict[int, str]
    missing: tuple[int, ...]
    set_aside: tuple[str, ...]


class Store:
    """A folder of results. Opening one that exists resumes it; an empty folder or a new path begins one."""

    def __init__(self, path: str | os.PathLike[str]):
        """Raises `StoreError` where `path` is a file, or a folder that holds something other than a store."""
        self.path = pathlib.Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file, not a folder")
        if self.path.is_dir() and any(self.path.iterdir()) and not self._plan_file.exists():
            raise StoreError(f"{self.path} is not empty and holds no sweep: name another folder")

    @property
    def _plan_file(self) -> pathlib.Path:
        return self.path / "plan.json"

    @property
    def _branch_file(self) -> pathlib.Path:
        return self.path / "branch.npz"

    def _point_file(self, index: int) -> pathlib.Path:
        return self.path / "points" / f"{index:05d}.npz"

    def plan(self) -> dict[str, Any]:
        """The contents of plan.json; `StoreError` where there is none or it cannot be read."""
        try:
            plan = json.loads(self._plan_file.read_text())
            if plan["format"] != FORMAT:
                raise StoreError(f"{self.path} has format {plan['format']}; this version reads format {FORMAT}")
            return plan
        except FileNotFoundError as error:
            raise StoreError(f"{self.path} holds no sweep") from error
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise StoreError(f"{self._plan_file} cannot be read: {error}") from error

    def claim(self, plan_hash: str, distances: np.ndarray, title: str) -> None:
        """Make this the store of a plan, or check that it is; `StoreError` where it holds another plan."""
        if self._plan_file.exists():
            held = self.plan()["hash"]
            if held != plan_hash:
                raise StoreError(
                    f"{self.path} holds another plan ({held}, not {plan_hash}): name another folder, or remove that one"
                )
            return
        (self.path / "points").mkdir(parents=True, exist_ok=True)
        versions = {name: importlib.metadata.version(name) for name in ("ssntk", "jax", "diffrax", "equinox", "numpy")}
        plan = {"format": FORMAT, "hash": plan_hash, "title": title, "distances": distances.tolist(), "versions": versions}
        _write(self._plan_file, json.dumps(plan, indent=1).encode())

    def write_branch(self, branch: Branch) -> None:
        """Keep the branch, atomically."""
        fields = {field.name: getattr(branch, field.name) for field in dataclasses.fields(Branch)}
        events = {name: [dataclasses.asdict(event) for event in fields.pop(name)] for name in ("bifurcations", "unresolved")}
        arrays = {name: np.asarray(value) for name, value in fields.items()}
        for name, found in events.items():
            arrays[f"{name}.count"] = np.asarray(len(found))
            for i, event in enumerate(found):
                # None is not an array: an empty string stands for it.
                arrays |= {f"{name}.{i}.{key}": np.asarray("" if value is None else value) for key, value in event.items()}
        _write_npz(self._branch_file, arrays)

    def branch(self) -> Branch | None:
        """The branch that was kept, or `None`; an unreadable file is set aside."""
        held = self._read(self._branch_file)
        if held is None:
            return None
        parts: dict[str, Any] = {}
        for field in dataclasses.fields(Branch):
            if field.name in ("bifurcations", "unresolved"):
                count = int(held[f"{field.name}.count"])
                parts[field.name] = tuple(_event(held, f"{field.name}.{i}.") for i in range(count))
            else:
                parts[field.name] = held[field.name]
        return Branch(**parts | {"status": str(parts["status"]), "steps": tuple(int(at) for at in parts["steps"])})

    def write_point(self, index: int, record: dict[str, Any]) -> None:
        """Keep one point, atomically."""
        _write_npz(self._point_file(index), {"plan": np.asarray(self.plan()["hash"]), **record})

    def point(self, index: int) -> dict[str, np.ndarray] | None:
        """The record of one point, or `None`; an unreadable file, or one of another plan, is set aside."""
        file = self._point_file(index)
        record = self._read(file)
        if record is not None and str(record.get("plan")) != self.plan()["hash"]:
            _set_aside(file)
            return None
        return record

    def status(self) -> Status:
        """What is done, failed and missing."""
        total = len(self.plan()["distances"])
        records = [self.point(index) for index in range(total)]
        failed = {
            i: str(record["status"]).removeprefix("failed: ")
            for i, record in enumerate(records)
            if record is not None and str(record["status"]) != DONE
        }
        return Status(
            total=total,
            done=tuple(i for i, record in enumerate(records) if record is not None and i not in failed),
            failed=failed,
            missing=tuple(i for i, record in enumerate(records) if record is None),
            set_aside=tuple(sorted(str(file.relative_to(self.path)) for file in self.path.rglob("*.unreadable"))),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Every variable, points by ascending distance: (k,) or (k, modes); what a point lacks is NaN."""
        distances = np.asarray(self.plan()["distances"])
        order = np.argsort(distances)
        records = [self.point(int(index)) or {"status": np.asarray("missing")} for index in order]
        out: dict[str, np.ndarray] = {"distance": distances[order]}
        for name in VARIABLES:
            if name in out:
                continue
            held = [record[name] for record in records if name in record]
            if name == "status":
                out[name] = np.asarray([str(record["status"]) for record in records])
                continue
            shape, dtype = (held[0].shape, held[0].dtype) if held else ((), np.dtype(float))
            dtype = np.dtype(float) if dtype.kind == "b" else dtype
            out[name] = np.stack([record.get(name, np.full(shape, np.nan)).astype(dtype) for record in records])
        return out

    def to_xarray(self) -> Any:
        """An `xarray.Dataset` over (point, mode), points by ascending distance, a failed point NaN. Needs `ssntk[sweep]`.

        `mode` runs over the n state dimensions; `ntk_eigenvalues` are the first n of the trajectory kernel, and all that
        were computed are `ntk_eigenvalues_all` over (point, row).
        """
        try:
            import xarray
        except ImportError as error:
            raise ImportError("Store.to_xarray needs xarray: install ssntk[sweep]") from error
        arrays = self.arrays()
        modes = arrays["x_star"].shape[1] if arrays["x_star"].ndim == 2 else 1
        variables = {}
        for name, values in arrays.items():
            if name in _PER_MODE and values.ndim == 2:
                variables[name] = (("point", "mode"), values[:, :modes], {"description": VARIABLES[name]})
                if name == "ntk_eigenvalues" and values.shape[1] > modes:
                    variables[f"{name}_all"] = (("point", "row"), values, {"description": f"all {VARIABLES[name]}"})
            else:
                dims = ("point", "mode")[: values.ndim]
                variables[name] = (dims, values, {"description": VARIABLES[name]})
        branch = self.branch()
        plan = self.plan()
        attributes = {
            "plan": plan["hash"],
            "title": plan["title"],
            **{f"version_{k}": v for k, v in plan["versions"].items()},
        }
        if branch is not None:
            attributes["branch"] = branch.status
        return xarray.Dataset(variables, attrs=attributes)

    def _read(self, file: pathlib.Path) -> dict[str, np.ndarray] | None:
        try:
            with np.load(file, allow_pickle=False) as archive:
                return {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return None
        except Exception:
            # Torn or foreign: whatever numpy and zipfile raise for it. Never deleted, never read as data.
            _set_aside(file)
            return None


def _event(held: dict[str, np.ndarray], prefix: str) -> Bifurcation:
    values: dict[str, Any] = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    values = {name: value if value.ndim else value.item() for name, value in values.items()}
    return Bifurcation(
        **values | {"criticality": values["criticality"] or None, "interval": tuple(values["interval"].tolist())}
    )


def _set_aside(file: pathlib.Path) -> None:
    file.replace(file.with_name(file.name + ".unreadable"))


def _write_npz(file: pathlib.Path, arrays: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    _write(file, buffer.getvalue())


def _write(file: pathlib.Path, data: bytes) -> None:
    """Write under another name, flush to the disk, then rename: a reader sees all of it or nothing."""
    with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", suffix=".part", delete=False) as part:
        part.write(data)
        part.flush()
        os.fsync(part.fileno())
    os.replace(part.name, file)
