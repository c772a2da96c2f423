"""Warnings that matter before trusting scores."""

from collections.abc import Sequence

import torch

from lupctl.core.ranking.reranking.faiss_gpu import gpu_of
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.retrieval.answerable import Counts
from lupctl.core.system.progress.lines import Progress


def say_warnings(counts: Counts, rerank: RerankSettings | None, progress: Progress) -> None:
    """Reports queries without a right answer, and warns of a gallery too small for re-ranking."""
    invalid = counts.queries - counts.valid
    if invalid:
        progress.say(
            f"{invalid} of {counts.queries} queries have no right answer ({counts.absent} show a person absent from "
            f"the gallery): mAP, mINP and CMC are over the other {counts.valid}, mAP official counts them as 0"
        )
    if rerank is not None and counts.gallery < rerank.k1:
        progress.warn(
            f"the gallery has {counts.gallery} images, fewer than k1 = {rerank.k1}: nearly all are each other's "
            "neighbours, so re-ranked scores say little; choose a smaller --k1"
        )


def say_where_faiss_runs(rerank: RerankSettings | None, devices: Sequence[torch.device], progress: Progress) -> None:
    """Reports it if faiss was requested but cannot use the GPU that computes everything else."""
    unseen = [device for device in devices if device.type == "cuda" and gpu_of(device) is None]
    if rerank is not None and rerank.neighbours == "faiss" and unseen:
        progress.say(f"faiss cannot use {unseen[0]}: it searches re-ranking's neighbours on the CPU")
