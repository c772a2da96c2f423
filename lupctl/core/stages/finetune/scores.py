"""The scores of a fine-tuning run: those that it records, and the best ones along the way, said for what they are."""

from collections.abc import Mapping, Sequence
from typing import Any

from lupctl.core.formats.pack.read import Pack
from lupctl.core.system.examples import count_things


def gather_scores(packs: Sequence[Pack], scores: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """A run's scores for its facts: those of its first pack and, if there are several packs, those of each."""
    own = {"scores": dict(scores.get(packs[0].dataset, {}))}
    return own if len(packs) == 1 else {**own, "all_scores": {name: dict(found) for name, found in scores.items()}}


def best_on_test(rows: Sequence[Mapping[str, Any]], dataset: str) -> dict[str, Any]:
    """The evaluation with the highest mAP, of two or more, the first of equals, as `run.json` has it; else nothing.

    It was selected on the test set, and its network is not kept.

    Args:
        rows: of the run's metrics.
        dataset: that is looked at, where there are several.
    """
    scored = [row for row in rows if "map" in row and row.get("dataset", dataset) == dataset]
    if len(scored) < 2:
        return {}
    best = max(scored, key=lambda row: float(row["map"]))
    found = {"epoch": best["epoch"] + 1, "map": best["map"], "rank1": best["rank1"], "of": len(scored)}
    return {"best_selected_on_test": found}


def describe_best(best: Mapping[str, Any]) -> str:
    """The best scores along the way as a line for the user.

    >>> describe_best({"epoch": 30, "map": 0.5, "rank1": 0.75, "of": 5})
    'best of 5 evaluations, selected on the test set: epoch 30, mAP 0.5000, rank-1 0.7500; the last network is kept'
    """
    found = f"epoch {best['epoch']}, mAP {best['map']:.4f}, rank-1 {best['rank1']:.4f}"
    evaluations = count_things(best["of"], "evaluation")
    return f"best of {evaluations}, selected on the test set: {found}; the last network is kept"
