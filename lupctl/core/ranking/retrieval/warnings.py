"""Warnings that matter before trusting scores."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from lupctl.core.formats.features.precision import read_precisions
from lupctl.core.ranking.reranking.faiss_gpu import gpu_of
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.retrieval.answerable import Counts
from lupctl.core.system.examples import count_things
from lupctl.core.system.jobs.precision import name_precision
from lupctl.core.system.progress.lines import Progress


def describe_unanswered(counts: Counts) -> str:
    """How many queries have no right answer, and what that means for the scores; empty if all have one."""
    invalid = counts.queries - counts.valid
    if not invalid:
        return ""
    has, show = ("has" if invalid == 1 else "have"), ("shows" if counts.absent == 1 else "show")
    return (
        f"{invalid} of {counts.queries} queries {has} no right answer ({counts.absent} {show} a person absent from "
        f"the gallery): mAP, mINP and CMC are over the other {counts.valid}, mAP official counts them as 0"
    )


def describe_small_gallery(counts: Counts, k1: int | None) -> str:
    """Why re-ranked scores say little; empty if they were not asked for, or if the gallery is large enough."""
    if k1 is None or counts.gallery >= k1:
        return ""
    return (
        f"the gallery has {count_things(counts.gallery, 'image')}, fewer than k1 = {k1}: nearly all are each "
        "other's neighbours, so re-ranked scores say little; choose a smaller --k1"
    )


def say_warnings(counts: Counts, rerank: RerankSettings | None, progress: Progress) -> None:
    """Reports queries without a right answer, and warns of a gallery too small for re-ranking."""
    unanswered, small = describe_unanswered(counts), describe_small_gallery(counts, rerank.k1 if rerank else None)
    if unanswered:
        progress.say(unanswered)
    if small:
        progress.warn(small)


def say_where_faiss_runs(rerank: RerankSettings | None, devices: Sequence[torch.device], progress: Progress) -> None:
    """Reports it if faiss was requested but cannot use the GPU that computes everything else."""
    unseen = [device for device in devices if device.type == "cuda" and gpu_of(device) is None]
    if rerank is not None and rerank.neighbours == "faiss" and unseen:
        progress.say(f"faiss cannot use {unseen[0]}: it searches re-ranking's neighbours on the CPU")


def say_other_precision(features: Path, record: Mapping[str, Any], queries: torch.dtype, progress: Progress) -> None:
    """Reports it if features that are searched were computed in another number type than the queries."""
    found = read_precisions(record)
    if found and found != (name_precision(queries),):
        progress.say(
            f"{features}: computed in {' and '.join(found)}, the queries in {name_precision(queries)}: distances "
            "differ a little from those in one precision"
        )
