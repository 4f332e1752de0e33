"""What every plan of a sweep can do, so that whoever runs, stores or shows one need not know its kind."""

import abc
from collections.abc import Sequence
from typing import Any, ClassVar

from ssntk.bifurcation.branch import Branch
from ssntk.sweep.coverage import AbstractCoverage, Header
from ssntk.sweep.identity import hashed
from ssntk.sweep.measurement import Measurement

# Of a point the values that it is measured at, and what was measured or why not.
Found = tuple[dict[str, Any], Measurement | Exception]


class AbstractPlan(abc.ABC):
    """Points that are measured alike, cut into batches.

    - `coverage`: how plan.json says what it covers, and which figure shows it. `traced_parts`: those of its identity that
      follow from what JAX traces of functions, which another version of JAX may trace otherwise.
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
        """The points that are measured together. They are cut by the plan, not by what is left to do."""

    @property
    @abc.abstractmethod
    def samples(self) -> tuple[tuple[int, ...], ...]:
        """Batches that stand for all, for an estimate of how long they take."""

    @abc.abstractmethod
    def header(self) -> Header:
        """What a store says of the plan, as JSON has it."""

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
        """Look up now whatever is otherwise looked up when it is first needed, and may show that the plan is wrong."""
        return None

    def prepare(self) -> None:
        """Compile what measures the points, as far as it does not depend on what `begin` finds."""
        return None

    def follow(self) -> Branch | None:
        """The branch that the plan leads along, with its bifurcation; `None` if it needs none."""
        return None

    def number(self, branch: Branch) -> int:
        """Which of the branch's bifurcations the plan leads to."""
        raise ValueError(f"a {type(self).__name__} leads to no bifurcation")

    def begin(self, branch: Branch | None) -> Any:
        """What its points have in common, from its branch: the `context` of `measure_batch`."""
        return None

    @abc.abstractmethod
    def measure_batch(self, context: Any, indices: Sequence[int]) -> list[Found]:
        """For each of the points of (a part of) a batch its values, and what was measured or why not."""
