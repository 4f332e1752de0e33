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
import zipfile
import zlib
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
    "jacobian_eigenvalues": "eigenvalues of df/dx, 1/time; of a map the multipliers",
    "ntk_eigenvalues": "eigenvalues of the trajectory kernel K_int",
    "steady_state_eigenvalues": "eigenvalues of the steady-state kernel",
    "condition_number": "of the steady-state kernel",
    "trajectory_condition_number": "of the trajectory kernel",
    "trajectory_condition_number_is_bound": "1 where that is only a lower bound, else 0",
    "effective_rank": "exp(entropy) of the trajectory kernel's spectrum",
    "participation_ratio": "of the trajectory kernel",
    "top_share": "of the trajectory kernel",
    "trace": "of the trajectory kernel",
    "channel_kind": "of the critical eigenvalue, 'real' or 'pair'",
    "channel_frequency": "its angular frequency, rad per unit time",
    "channel_critical_eigenvalue": "of df/dx, 1/time; of a map the multiplier",
    "channel_share": "of the trace of the states' trajectory kernel, what lies along the critical directions",
    "channel_oblique_share": "tr K_cc / tr K by the spectral projector; above 1 where non-normal",
    "channel_cross_share": "what the cross terms add to the trace",
    "channel_nonnormality": "|l| |r|",
    "channel_drive": "|l^T F| at the critical frequency",
    "channel_top_eigenvalue": "of the states' trajectory kernel",
    "channel_predicted_top_eigenvalue": "of its critical part, by the master law; NaN where no method predicts it",
    "channel_mismatch": "how far the critical part lies from its prediction, relatively",
    "channel_departure": "how far the trajectories change the critical eigenvalue, times min(T, 1 / |Re lambda|)",
    "channel_alignment": "|cos| of the top state direction with the critical one",
    "channel_parameter_alignment": "|cos| of the top parameter direction with the drive's",
    "channel_method": "what stands behind the prediction",
    "channel_reason": "and why",
    "block_eigenvalues": "eigenvalues of each block's part of the trajectory kernel",
    "block_participation_ratio": "of each block's part",
    "block_channel_participation_ratio": "what the drive of the critical mode predicts of that; 0: not driven, NaN: unknown",
    "block_top_share": "of each block's part, lambda_1 / trace",
    "block_top_two_share": "of each block's part, (lambda_1 + lambda_2) / trace",
    "seconds": "wall time of the point",
    "status": "'done', or 'failed: ' and the reason",
}
_PER_MODE = ("jacobian_eigenvalues", "ntk_eigenvalues", "steady_state_eigenvalues")


class StoreError(RuntimeError):
    """A folder that cannot serve as the store of this plan."""


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a sweep is: point numbers `done`, `failed` (with reasons) and `missing`.

    `set_aside`: files that are no record of this plan; they are kept under another name when their point is measured.
    """

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
        if self.path.is_dir() and not self._plan_file.exists():
            # A run that was killed before it had written its plan may have left these.
            left = [
                file for file in self.path.iterdir() if file.suffix != ".part" and file.name not in ("points", "branch.npz")
            ]
            if left:
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
            names = ("format", "hash", "title", "distances", "n_state", "versions")
            return {name: plan[name] for name in names} | {"blocks": plan.get("blocks", []), "dt": plan.get("dt")}
        except FileNotFoundError as error:
            raise StoreError(f"{self.path} holds no sweep") from error
        except (ValueError, KeyError, TypeError) as error:
            raise StoreError(f"{self._plan_file} cannot be read: {error}") from error

    def check(self, plan_hash: str) -> bool:
        """Whether this store holds the plan; `StoreError` where it holds another, unless nothing was measured of that."""
        if not self._plan_file.exists():
            return False
        held = self.plan()["hash"]
        if held == plan_hash:
            return True
        if any(self.path.glob("points/*.npz")):
            raise StoreError(
                f"{self.path} holds another plan ({held}, not {plan_hash}): name another folder, or remove that one"
            )
        return False

    def claim(
        self,
        plan_hash: str,
        distances: np.ndarray,
        n_state: int,
        title: str,
        blocks: tuple[str, ...] = (),
        dt: float | None = None,
    ) -> None:
        """Make this the store of a plan, or check that it is; `StoreError` where it holds another plan.

        `dt`: the step of a map, `None` for a flow.
        """
        (self.path / "points").mkdir(parents=True, exist_ok=True)
        if self.check(plan_hash):
            return
        versions = {name: importlib.metadata.version(name) for name in ("ssntk", "jax", "diffrax", "equinox", "numpy")}
        plan = {"format": FORMAT, "hash": plan_hash, "title": title, "distances": distances.tolist(), "n_state": n_state}
        _write(self._plan_file, json.dumps(plan | {"blocks": blocks, "dt": dt, "versions": versions}, indent=1).encode())

    def write_branch(self, branch: Branch, number: int) -> None:
        """Keep the branch, and which of its bifurcations is swept towards, atomically."""
        fields = {field.name: getattr(branch, field.name) for field in dataclasses.fields(Branch)}
        events = {name: [dataclasses.asdict(event) for event in fields.pop(name)] for name in ("bifurcations", "unresolved")}
        arrays = {name: np.asarray(value) for name, value in fields.items()} | {"number": np.asarray(number)}
        arrays["plan"] = np.asarray(self.plan()["hash"])
        for name, found in events.items():
            arrays[f"{name}.count"] = np.asarray(len(found))
            for i, event in enumerate(found):
                # None is not an array: an empty string stands for it.
                arrays |= {f"{name}.{i}.{key}": np.asarray("" if value is None else value) for key, value in event.items()}
        _write_npz(self._branch_file, arrays)

    def branch(self) -> Branch | None:
        """The branch that was kept, or `None`."""
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

    def bifurcation(self) -> Bifurcation:
        """The point that is swept towards; `StoreError` where it was not located yet."""
        held, branch = self._read(self._branch_file), self.branch()
        if held is None or branch is None:
            raise StoreError(f"{self.path} holds no branch yet")
        return branch.bifurcations[int(held["number"])]

    def write_point(self, index: int, record: dict[str, Any]) -> None:
        """Keep one point, atomically."""
        _write_npz(self._point_file(index), {"plan": np.asarray(self.plan()["hash"]), "index": np.asarray(index), **record})

    def point(self, index: int) -> dict[str, np.ndarray] | None:
        """The record of one point, or `None` where there is none of this plan and number."""
        record = self._read(self._point_file(index))
        return record if record is not None and record.get("index") == index and "status" in record else None

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
            set_aside=tuple(
                str(file.relative_to(self.path))
                for file in sorted([*self.path.rglob("*.set-aside*"), *self.path.glob("points/*.npz")])
                if not (file.suffix == ".npz" and file.stem.isdigit() and int(file.stem) < total and records[int(file.stem)])
            ),
        )

    def arrays(self) -> dict[str, np.ndarray]:
        """Every variable, points by ascending distance: (k,), (k, modes), (k, blocks) or (k, blocks, rows).

        What a point lacks is NaN. Those of blocks are there where the plan asked for blocks.
        """
        plan = self.plan()
        distances, n = np.asarray(plan["distances"]), plan["n_state"]
        order = np.argsort(distances)
        records = [self.point(int(index)) or {"status": np.asarray("missing")} for index in order]
        rows = max((record["ntk_eigenvalues"].size for record in records if "ntk_eigenvalues" in record), default=n)
        shapes = {"x_star": (n,), "jacobian_eigenvalues": (n,), "steady_state_eigenvalues": (n,), "ntk_eigenvalues": (rows,)}
        shapes |= {name: (len(plan["blocks"]),) for name in VARIABLES if name.startswith("block_")}
        shapes["block_eigenvalues"] += (rows,)
        out: dict[str, np.ndarray] = {"distance": distances[order]}
        for name in VARIABLES:
            if name.startswith("block_") and not plan["blocks"]:
                continue
            if name == "status":
                out[name] = np.asarray([str(record["status"]) for record in records])
            elif name in ("channel_kind", "channel_method", "channel_reason"):
                out[name] = np.asarray([str(record.get(name, "")) for record in records])
            elif name not in out:
                # A flag is a number here, so that a failed point can be NaN.
                dtype = complex if name in ("jacobian_eigenvalues", "channel_critical_eigenvalue") else float
                nothing = np.full(shapes.get(name, ()), np.nan)
                out[name] = np.stack([np.asarray(record.get(name, nothing), dtype) for record in records])
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
        modes = self.plan()["n_state"]
        variables = {}
        for name, values in arrays.items():
            if name in _PER_MODE:
                variables[name] = (("point", "mode"), values[:, :modes], {"description": VARIABLES[name]})
                if name == "ntk_eigenvalues" and values.shape[1] > modes:
                    variables[f"{name}_all"] = (("point", "row"), values, {"description": f"all {VARIABLES[name]}"})
            else:
                dims = ("point", "block", "row") if name.startswith("block_") else ("point", "mode")
                dims = dims[: values.ndim]
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
        return xarray.Dataset(variables, {"block": plan["blocks"]} if plan["blocks"] else None, attributes)

    def _read(self, file: pathlib.Path) -> dict[str, np.ndarray] | None:
        """The arrays in a file of this plan; `None` where there is none, or where it is torn or foreign."""
        try:
            # Opened here: numpy leaves a file open where it finds it torn.
            with file.open("rb") as handle, np.load(handle, allow_pickle=False) as archive:
                held = {name: archive[name] for name in archive.files}
        except FileNotFoundError:
            return None
        except (zipfile.BadZipFile, zlib.error, ValueError, EOFError, KeyError, AttributeError):
            return None
        except OSError as error:
            # No word about what the file holds: it must not count as missing, and be measured again over it.
            raise StoreError(f"{file} cannot be read: {error}") from error
        return held if str(held.get("plan")) == self.plan()["hash"] else None


def _event(held: dict[str, np.ndarray], prefix: str) -> Bifurcation:
    values: dict[str, Any] = {name.removeprefix(prefix): value for name, value in held.items() if name.startswith(prefix)}
    values = {name: value if value.ndim else value.item() for name, value in values.items()}
    nothing = {name: value for name in ("criticality", "tangents") if isinstance(value := values.get(name, ""), str)}
    values |= {name: value or None for name, value in nothing.items()}
    values["interval"] = tuple(values["interval"].tolist())
    return Bifurcation(**values)


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
    if file.exists() and file.suffix == ".npz":
        # Only what is no record of this plan is ever written over: it is kept.
        number = sum(1 for _ in file.parent.glob(f"{file.name}.set-aside*"))
        os.replace(file, file.with_name(f"{file.name}.set-aside{number}"))
    os.replace(part.name, file)
