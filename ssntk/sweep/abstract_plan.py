"""The interface of every plan. Code that runs, stores or shows a sweep need not know which kind of plan it is."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

from ssntk.sweep.coverage import AbstractCoverage, Header
from ssntk.sweep.cycle_measurement import CycleMeasurement
from ssntk.sweep.identity import hashed
from ssntk.sweep.kept_branch import AnyBranch
from ssntk.sweep.measurement import Measurement

# The values at which a point is measured, and its measurement, or the error with which it failed.
Found = tuple[dict[str, Any], Measurement | CycleMeasurement | Exception]


class AbstractPlan(abc.ABC):
    """A plan: points that are measured in the same way, divided into batches.

    - `coverage`: how plan.json describes the points, and which figure shows them.
    - `traced_parts`: the parts of the identity that depend on what JAX traces. Another version of JAX may trace the same
      functions to other operations.
    """

    coverage: ClassVar[AbstractCoverage]
    traced_parts: ClassVar[tuple[str, ...]] = ("probe.us",)

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """How many points there are."""

    @property
    @abc.abstractmethod
    def batches(self) -> tuple[tuple[int, ...], ...]:
        """The points that are measured together. The plan alone determines them, not what is left to do."""

    @property
    @abc.abstractmethod
    def samples(self) -> tuple[tuple[int, ...], ...]:
        """Batches that represent all others, to estimate how long a run takes."""

    @abc.abstractmethod
    def header(self) -> Header:
        """What a store's plan.json says about the plan."""

    @property
    @abc.abstractmethod
    def identity(self) -> dict[str, str]:
        """The digest of each part of the plan that its results depend on, by its name."""

    def hash(self) -> str:
        """The identity of the plan, 16 hexadecimal digits: a SHA-256 of all that its results depend on."""
        return hashed(self.identity)

    def older_hashes(self) -> set[str]:
        """The identities that earlier versions would have given this plan."""
        return set()

    def settle(self) -> None:
        """Compute now what is otherwise computed when it is first needed, if it may show that the plan is wrong."""
        return None

    def prepare(self) -> None:
        """Compile the code that measures the points, as far as it does not depend on the result of `begin`."""
        return None

    def follow(self) -> AnyBranch | None:
        """The branch that the plan follows, with its bifurcation; `None` if the plan needs no branch."""
        return None

    def number(self, branch: AnyBranch) -> int:
        """Which of the branch's bifurcations the plan leads to."""
        raise ValueError(f"a {type(self).__name__} leads to no bifurcation")

    def begin(self, branch: AnyBranch | None) -> Any:
        """What all points have in common, given the plan's branch. `measure_batch` takes it as `context`."""
        return None

    @abc.abstractmethod
    def measure_batch(self, context: Any, indices: Sequence[int]) -> list[Found]:
        """For each of these points of a batch: its values, and its measurement or error."""
