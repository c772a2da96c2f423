"""One check of an exercise: what is tried, what came of it, and the time there is for all of them."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from lupctl.core.errors import LupError

Status = Literal["ok", "failed", "skipped"]


@dataclass(frozen=True)
class Check:
    """One row of an exercise.

    Args:
        what: its name.
        result: what came of it, or why it failed or was skipped.
        figure: the speed, in words.
        status: ok, failed or skipped.
        numbers: the figures by name, with their units, for programs.
    """

    what: str
    result: str
    figure: str = ""
    status: Status = "ok"
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What a trial found when all was well.

    Args:
        result, figure, numbers: as in `Check`.
    """

    result: str
    figure: str = ""
    numbers: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Trial:
    """Something to try.

    Args:
        what: its name.
        attempt: does it; is given the seconds that are left for it.
    """

    what: str
    attempt: Callable[[float], Outcome]


class SkippedError(Exception):
    """This machine has nothing to try it on; the reason in words."""


class WrongError(Exception):
    """What this machine computes is wrong; how much, in words."""


class Budget:
    """The time for an exercise.

    Args:
        seconds: for all of its trials together.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._started_at = time.perf_counter()

    @property
    def spent_s(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._started_at

    @property
    def left_s(self) -> float:
        """Seconds that are left; 0 when there are none."""
        return max(0.0, self.seconds - self.spent_s)


def run_trial(trial: Trial, budget: Budget) -> Check:
    """Tries it, whatever comes of that: an error is a failed check, and no error of the exercise.

    Args:
        trial: what is tried.
        budget: once it is spent, nothing more is tried.
    """
    if not budget.left_s:
        return Check(trial.what, f"the {budget.seconds:.0f} s of the exercise were over", status="skipped")
    try:
        found = trial.attempt(budget.left_s)
    except SkippedError as reason:
        return Check(trial.what, str(reason), status="skipped")
    except LupError as error:
        return Check(trial.what, error.message, status="failed")
    except Exception as error:  # of whatever library is broken here: that is what the exercise is to find
        return Check(trial.what, _describe(error), status="failed")
    return Check(trial.what, found.result, found.figure, numbers=found.numbers)


def _describe(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return (
        line if isinstance(error, WrongError) else f"{type(error).__name__}: {line}" if line else type(error).__name__
    )
