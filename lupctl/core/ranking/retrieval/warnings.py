"""What a person should know before believing scores."""

from collections.abc import Sequence

import torch

from lupctl.core.ranking.reranking.faiss_gpu import gpu_of
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.retrieval.answerable import Counts
from lupctl.core.system.progress.lines import Progress


def say_warnings(counts: Counts, rerank: RerankSettings | None, progress: Progress) -> None:
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


def say_where_faiss_runs(rerank: RerankSettings | None, devices: Sequence[torch.device], progress: Progress) -> None:
    """A line where faiss was asked for and cannot search on the GPU that computes all else."""
    unseen = [device for device in devices if device.type == "cuda" and gpu_of(device) is None]
    if rerank is not None and rerank.neighbours == "faiss" and unseen:
        progress.say(f"faiss does not see {unseen[0]}: it searches for re-ranking's neighbours on the CPU")
