"""One direction of a branch of a piecewise-linear family: its points and kinks, as far as limits allow, and why it ends."""

import dataclasses

import numpy as np

from ssntk.bifurcation.sampled import Limit, Line, Points
from ssntk.errors import Outcome, Sentence
from ssntk.piecewise.pivot import End, Kink, Path


@dataclasses.dataclass(frozen=True)
class Half:
    """A path as far as it is kept.

    - `points`, and `patterns`, the regions of the pieces. `kinks`: each with the index of its point.
    - `ends`: the reasons why it ends, one for each direction; `last`: where the path itself ends, if nothing cut it.
    """

    points: Points
    patterns: tuple[np.ndarray, ...]
    kinks: tuple[tuple[int, Kink], ...]
    ends: tuple[Sentence, ...]
    last: tuple[End | None, ...]

    @classmethod
    def of(cls, line: Line, limit: Limit | None, points: Points, most: int) -> "Half":
        """A path that is cut at a limit, if there is one, and after `most` points."""
        path, count = line.path, len(points.q)
        kept, end = points, path.ends[0]
        said, last = says(line, path, most), end
        if limit is not None:
            kept = points.part(0, limit.after + 1)
            kept = Points(
                np.append(kept.q, limit.q),
                np.vstack([kept.x, limit.x]),
                np.append(kept.piece, points.piece[limit.after + 1]),
            )
            said, last = limit.says, None
        if len(kept.q) > most:
            kept = points.part(0, most)
            said, last = Outcome.max_steps.say(p=line.parameter(float(kept.q[-1])), most=most), None
        places = [int(np.flatnonzero(points.piece == number)[-1]) for number in range(len(path.kinks))]
        kinks = tuple((at, kink) for at, kink in zip(places, path.kinks, strict=True) if at < min(len(kept.q), count) - 1)
        return cls(kept, tuple(piece.pattern for piece in path.pieces), kinks, (said,), (last,))

    def reversed(self) -> "Half":
        """The same, travelled the other way. A border is again the last point of the piece before it."""
        count, piece = len(self.points.q), self.points.piece.copy()
        for at, _ in self.kinks:
            piece[at] += 1
        points = Points(self.points.q[::-1], self.points.x[::-1], len(self.patterns) - 1 - piece[::-1])
        kinks = tuple((count - 1 - at, kink.reversed()) for at, kink in self.kinks[::-1])
        return Half(points, self.patterns[::-1], kinks, self.ends, self.last)

    def followed_by(self, other: "Half") -> "Half":
        """This half and another one that starts where it ends."""
        shift, pieces = len(self.points.q) - 1, len(self.patterns)
        rest = other.points
        points = Points(
            np.concatenate([self.points.q[:-1], rest.q]),
            np.concatenate([self.points.x[:-1], rest.x]),
            np.concatenate([self.points.piece[:-1], pieces + rest.piece]),
        )
        kinks = (*self.kinks, *((at + shift, kink) for at, kink in other.kinks))
        return Half(points, self.patterns + other.patterns, kinks, other.ends + self.ends, other.last + self.last)


def says(line: Line, path: Path, most: int) -> Sentence:
    """Why a path ends, as a sentence."""
    end = path.ends[0]
    p = line.parameter(end.q)
    return end.outcome.say(p=p, most=most, count=len(end.units), ways=len(end.ways) + 1)
