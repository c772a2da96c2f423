"""Whether a run has collapsed, to one point or to uniform outputs: a rule over the rows of its metrics."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

CollapseKind = Literal["one point", "uniform"]

# Of features: a mean cosine above 0.999, or fewer than two directions. Both, because rounding spreads one point a
# little into every direction.
POINT_SPREAD, POINT_RANK = 0.03, 2.0
# Nats. Targets that are on average on fewer than 1.65 prototypes, or that say next to nothing of which image it is.
POINT_MEAN: Final = 0.5
NO_INFORMATION: Final = 0.02
# A collapse lasts: it is named when every row for so long has looked like it. Both in steps.
SHORTEST, LONGEST = 30, 200


@dataclass(frozen=True)
class Collapse:
    """A collapse that has been named.

    Args:
        kind: all features or all targets are the same, or the targets say nothing.
        since: steps done at the first row that looked like it.
        step: steps done when it was named.
    """

    kind: CollapseKind
    since: int
    step: int


class CollapseRule:
    """Follows the rows of a run; the same rows give the same answer, so that a continued run goes on as it was.

    Fresh networks give all images much the same features, and uniform outputs: rows before `start` are not judged.

    Args:
        outputs: K of the targets; None for a method without any.
        epoch: steps of an epoch. A collapse is named when it has lasted so long, but at least 30 and at most 200 steps.
        start: steps done at the first row that counts.
    """

    def __init__(self, *, outputs: int | None, epoch: int, start: int) -> None:
        self._most_entropy = None if outputs is None else math.log(outputs)
        self._length = min(max(epoch, SHORTEST), LONGEST)
        self._start = start
        self._kind: CollapseKind | None = None
        self._since = 0
        self._is_named = False

    @property
    def is_suspicious(self) -> bool:
        """Whether the last row looked like a collapse."""
        return self._kind is not None

    def follow(self, row: Mapping[str, float]) -> Collapse | None:
        """Takes the next row of the metrics; a collapse once it has lasted long enough, and once only.

        Args:
            row: with its step; one in which nothing was watched changes nothing.
        """
        step = int(row["step"])
        if "rank" not in row or step < self._start:
            return None
        kind = self._recognise(row)
        if kind != self._kind:
            self._kind, self._since, self._is_named = kind, step, False
        if kind is None or self._is_named or step - self._since < self._length:
            return None
        self._is_named = True
        return Collapse(kind, self._since, step)

    def _recognise(self, row: Mapping[str, float]) -> CollapseKind | None:
        """What a single row looks like."""
        if row["spread"] < POINT_SPREAD or row["rank"] < POINT_RANK:
            return "one point"
        if self._most_entropy is None or "information" not in row:
            return None
        entropy, information = row["teacher_entropy"], row["information"]
        if entropy + information < min(POINT_MEAN, self._most_entropy / 2):
            return "one point"
        if information < NO_INFORMATION:
            return "uniform" if entropy > self._most_entropy / 2 else "one point"
        return None
