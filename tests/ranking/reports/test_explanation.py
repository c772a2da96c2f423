"""Which cause is named: the nearest to published scores, of those whose intervals contain the gaps."""

import pytest

from lupctl.core.ranking.reports.build.explanation import pick_cause
from lupctl.core.ranking.reports.model.explanation import Cause, Trial, TrialDifference
from lupctl.core.ranking.reports.model.single import ReportInterval, ReportScores

OWN, PUBLISHED = (0.80, 0.90), (0.82, 0.92)
GAPS = (0.02, 0.02)


def trial(cause: Cause, scores: tuple[float, float], *, width: float = 0.01, is_paired: bool = True) -> Trial:
    """A trial with these scores, and intervals of some width on either side."""

    def difference(score: float, own: float) -> TrialDifference | None:
        gap = score - own
        return TrialDifference(value=gap, ci95=(gap - width, gap + width), exceeds=True) if is_paired else None

    mean, rank1 = scores
    return Trial(
        cause=cause,
        ours="a",
        tried="b",
        is_published=False,
        scores=ReportScores(map=mean, map_official=mean, minp=mean, cmc={1: rank1}),
        ci95=ReportInterval(map=(mean - width, mean + width), rank1=(rank1 - width, rank1 + width), draws=1, seed=0),
        map_difference=difference(mean, OWN[0]),
        rank1_difference=difference(rank1, OWN[1]),
        map_left=PUBLISHED[0] - mean,
        rank1_left=PUBLISHED[1] - rank1,
        command=None,
    )


@pytest.mark.parametrize("is_paired", [True, False])
def test_the_nearest_that_contains_both_gaps(is_paired: bool) -> None:
    near, nearer = (
        trial("flip", (0.815, 0.925), is_paired=is_paired), trial("filter", (0.821, 0.919), is_paired=is_paired)
    )  # fmt: skip
    far = trial("size", (0.86, 0.92), is_paired=is_paired)
    assert pick_cause([near, nearer, far], GAPS) == ("explained", "filter")
    assert pick_cause([far], GAPS) == ("not explained", None)
    assert pick_cause([], GAPS) == ("not explained", None)


def test_both_scores_have_to_fit() -> None:
    assert pick_cause([trial("flip", (0.82, 0.90))], GAPS) == ("not explained", None)
    assert pick_cause([trial("flip", (0.80, 0.92))], GAPS) == ("not explained", None)


def test_a_trial_that_is_no_nearer_closes_nothing() -> None:
    wide = trial("flip", (0.79, 0.89), width=0.1)
    assert pick_cause([wide], GAPS) == ("not explained", None)


def test_published_scores_are_rounded() -> None:
    exact = trial("flip", (0.8204, 0.9196), width=0.0)
    assert pick_cause([exact], GAPS) == ("explained", "flip")
    assert pick_cause([trial("flip", (0.8208, 0.92), width=0.0)], GAPS) == ("not explained", None)
    assert pick_cause([exact], (0.0004, -0.0004)) == ("no gap", None)
    assert pick_cause([exact], None) == ("not compared", None)
