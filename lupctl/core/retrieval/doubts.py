"""What a person should know before believing scores."""

from lupctl.core.metrics.rerank import RerankSettings
from lupctl.core.progress import Progress
from lupctl.core.retrieval.answerable import Counts


def say_doubts(counts: Counts, rerank: RerankSettings | None, progress: Progress) -> None:
    """Lines on queries that no gallery image answers, and on a gallery too small for re-ranking."""
    invalid = counts.queries - counts.valid
    if invalid:
        progress.say(
            f"{invalid} of {counts.queries} queries have no right answer ({counts.absent} show a person absent from "
            f"the gallery): mAP, mINP and CMC are over the other {counts.valid}, mAP official counts them as 0"
        )
    if rerank is not None and counts.gallery < rerank.k1:
        progress.warn(
            f"the gallery has {counts.gallery} images, fewer than k1 = {rerank.k1}: nearly all are neighbours of all, "
            "and re-ranked scores say little; --k1 takes fewer"
        )
