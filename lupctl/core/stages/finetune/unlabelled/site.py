"""What the network is worth on the tracklets of its own training images, before training and afterwards."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.ranking.site.across import match_across
from lupctl.core.ranking.site.distances import SiteDistances, measure_distances
from lupctl.core.ranking.site.gather import gather_site
from lupctl.core.ranking.site.scores import SiteScores, compare_site, score_site
from lupctl.core.stages.finetune.setup import Setup
from lupctl.core.system.examples import count_things
from lupctl.core.system.jobs.messages import rank
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.log import LoopLog

# What is kept in the state of a run: the distances before training.
KEPT: Final = "site"
# How a score is called in a line.
TITLES: Final = {
    "auc": "AUC",
    "rank1": "rank-1",
    "found_at_0.01": "found at 1 false match in 100",
    "found_at_0.001": "at 1 in 1,000",
}


class SiteWatch:
    """Scores of the network on pairs of tracklets; training never sees them.

    Args:
        setup: of this process.
        kept: what `state` gave when the run stopped; empty for a new run.
        log: gets a row before training and one after.
        progress: gets a line for each.
    """

    def __init__(self, setup: Setup, *, kept: Mapping[str, Any], log: LoopLog, progress: Progress) -> None:
        self._setup, self._log, self._progress = setup, log, progress
        self._site = gather_site(setup.packs, setup.train.rows, setup.train.camera)
        self._before: NDArray[np.float32] | None = kept[KEPT].numpy() if KEPT in kept else None

    def begin(self, features: Tensor, damaged: Collection[int]) -> None:
        """Scores the network that training starts from.

        Args:
            features: (N, D) of the training images.
            damaged: those of them that mean nothing.
        """
        if self._site.pairs is None:
            hint = f"; {self._site.hint}" if self._site.hint else ""
            self._progress.say(f"site: nothing to expect is known before training, as {self._site.why_not}{hint}")
            return
        if rank() == 0:
            found = self._measure(features)
            self._before = found.distance
            scores = score_site(found.without(sorted(damaged)))
            self._write(scores, self._describe_across(features), step=1, title="before training")

    def finish(self, dump: Callable[[], tuple[Tensor, dict[int, str]]]) -> dict[str, Any]:
        """Scores the trained network: what belongs into the facts of the run, in process 0.

        Args:
            dump: gives the features of the training images, and those of them that are damaged; all processes call it.
        """
        if self._site.pairs is None:
            return {}
        features, damaged = dump()
        if rank():
            return {}
        found, left_out = self._measure(features), sorted(damaged)
        after = score_site(found.without(left_out))
        self._write(after, self._describe_across(features), step=self._setup.epochs.total, title="after training")
        facts = {"after": describe_scores(after)}
        if self._before is not None:
            before = SiteDistances(found.pairs, self._before).without(left_out)
            rise = compare_site(before, found.without(left_out))
            self._progress.say(f"site, after - before: {name_scores(rise, unit=' points', sign='+')}")
            facts |= {"before": describe_scores(score_site(before)), "rise": describe_scores(rise)}
        return {KEPT: facts}

    def state(self) -> dict[str, Any]:
        """The distances before training."""
        return {} if self._before is None else {KEPT: torch.from_numpy(self._before)}

    def _measure(self, features: Tensor) -> SiteDistances:
        assert self._site.pairs is not None
        return measure_distances(features.numpy(), self._site.pairs, device=self._setup.device)

    def _describe_across(self, features: Tensor) -> dict[str, float]:
        assert self._site.pairs is not None
        found = match_across(features.numpy(), self._site.pairs, device=self._setup.device)
        if found is None:
            return {}
        return {"site_across": len(found.pairs), "site_across_again": found.found_again}

    def _write(self, found: SiteScores, across: Mapping[str, float], *, step: int, title: str) -> None:
        """A row and a line; before training the row is of the first step, as that of the first clusters."""
        assert self._site.pairs is not None
        pairs = self._site.pairs
        scores = {f"site_{name}": value for name, value in found.scores.items()}
        self._log.write_row({"step": step, "epoch": self._setup.epochs.of(step - 1), **scores, **across})
        tracklets = count_things(pairs.num_tracklets, "tracklet")
        line = f"site, {title}: {name_scores(found)}; {tracklets}, {count_things(pairs.together, 'pair')} seen together"
        if across:
            number = count_things(int(across["site_across"]), "pair")
            line += f"; {number} of two cameras assumed, {across['site_across_again']:.1%} of them found again"
        self._progress.say(line)


def describe_scores(found: SiteScores) -> dict[str, dict[str, Any]]:
    """Scores and their intervals, as the facts of a run have them."""
    return {"scores": dict(found.scores), "ci95": {name: list(span) for name, span in found.ci95.items()}}


def name_scores(found: SiteScores, *, unit: str = "%", sign: str = "") -> str:
    """Scores in percent, or in points, with their intervals.

    >>> name_scores(SiteScores({"auc": 0.9, "rank1": 0.5}, {"auc": (0.8, 0.95)}))
    'AUC 90.0% (80.0 to 95.0), rank-1 50.0%'
    >>> name_scores(SiteScores({"auc": 0.02}, {}), unit=" points", sign="+")
    'AUC +2.0 points'
    """
    parts = []
    for name, score in found.scores.items():
        span = found.ci95.get(name)
        shown = "" if span is None else f" ({100 * span[0]:{sign}.1f} to {100 * span[1]:{sign}.1f})"
        parts.append(f"{TITLES[name]} {100 * score:{sign}.1f}{unit}{shown}")
    return ", ".join(parts)
