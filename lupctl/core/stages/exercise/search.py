"""Ranks and nearest neighbours on each device against slow and plain ways to the same."""

import time
from functools import partial
from typing import Any, Final

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.metrics.labels import ImageLabels
from lupctl.core.ranking.metrics.ranking import Ranking, cosine_distances, rank_queries
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.faiss_gpu import gpu_of
from lupctl.core.ranking.reranking.faiss_neighbours import find_neighbours_by_faiss
from lupctl.core.ranking.reranking.neighbours import find_neighbours
from lupctl.core.stages.exercise.check import Outcome, SkippedError, Trial, WrongError

CPU: Final = torch.device("cpu")
SEED: Final = 0
QUERIES, GALLERY, PERSONS, CAMERAS = 100, 1000, 40, 6
# So long that vectors of -1 and 1 have a length that is a whole number: cosines are exact, and many are equal.
EXACT_DIM: Final = 64
DIM: Final = 512
NEIGHBOURS: Final = 30
# Of a cosine in float32. TF32, which must not be used for distances, is off by 1e-4 and more.
CLOSE: Final = 5e-6


def search_trials(device: torch.device) -> list[Trial]:
    """Ranks, cosines and faiss's neighbours on a device."""
    return [
        Trial(f"ranks, {device}", partial(_rank, device)),
        Trial(f"cosines, {device}", partial(_compare, device)),
        Trial(f"faiss's neighbours, {device}", partial(_search, device)),
    ]


def draw_labels(count: int, *, seed: int) -> ImageLabels:
    """Persons and cameras of so many images."""
    random = np.random.default_rng(seed)
    persons = random.integers(1, PERSONS + 1, count).astype(np.int64)
    return ImageLabels(person=persons, camera=random.integers(1, CAMERAS + 1, count).astype(np.int16))


def rank_plainly(cosines: NDArray[Any], queries: ImageLabels, gallery: ImageLabels) -> tuple[list[int], list[float]]:
    """First rank and average precision of each query, one after the other, from a stable sort of the whole gallery."""
    firsts, precisions = [], []
    for row, (person, camera) in enumerate(zip(queries.person, queries.camera, strict=True)):
        is_own = gallery.person == person
        keep = ~(is_own & (gallery.camera == camera))
        order = np.argsort(-cosines[row][keep], kind="stable")
        ranks = np.flatnonzero(is_own[keep][order]) + 1
        firsts.append(int(ranks[0]))
        precisions.append(float(np.mean(np.arange(1, len(ranks) + 1) / ranks)))
    return firsts, precisions


def _rank(device: torch.device, left_s: float) -> Outcome:
    """Ranks of galleries with many ties against a stable sort.

    Raises:
        WrongError: a rank differs.
    """
    signs = np.random.default_rng(SEED).choice([-1.0, 1.0], (QUERIES + GALLERY, EXACT_DIM)).astype(np.float32)
    queries, gallery = draw_labels(QUERIES, seed=1), draw_labels(GALLERY, seed=2)
    began_at = time.perf_counter()
    found = _rank_on(device, signs, queries, gallery)
    spent = time.perf_counter() - began_at
    firsts, precisions = rank_plainly(signs[:QUERIES] @ signs[QUERIES:].T, queries, gallery)
    wrong = int((found.first_rank != np.array(firsts)).sum())
    off = float(np.abs(found.ap_step - np.array(precisions)).max())
    if wrong or not off <= 1e-12:
        raise WrongError(f"{wrong} of {QUERIES} first ranks are wrong, and average precisions by up to {off:.0e}")
    return Outcome(
        f"those of {QUERIES} queries among {GALLERY:,} images are a plain sort's, ties too",
        f"{spent * 1e3:,.0f} ms",
        {"milliseconds": spent * 1e3},
    )


def _rank_on(device: torch.device, features: NDArray[Any], queries: ImageLabels, gallery: ImageLabels) -> Ranking:
    rows = np.arange(len(features))
    asked, searched = (UnitRows(features, some, device=device) for some in (rows[:QUERIES], rows[QUERIES:]))
    return rank_queries(cosine_distances(asked, searched), queries, gallery)


def _compare(device: torch.device, left_s: float) -> Outcome:
    """Cosines against float64.

    Raises:
        WrongError: they differ by more than the rounding of float32.
    """
    features = np.random.default_rng(SEED).standard_normal((GALLERY, DIM), dtype=np.float32)
    rows = UnitRows(features, np.arange(GALLERY), device=device)
    found = rows.cosines(rows.unit(0, QUERIES)).cpu().double()
    wide = torch.nn.functional.normalize(torch.from_numpy(features).double(), dim=1)
    off = float((found - wide[:QUERIES] @ wide.T).abs().max())
    if not off <= CLOSE:
        raise WrongError(f"off by up to {off:.0e}; at most {CLOSE:.0e} is the rounding of float32")
    return Outcome(f"at most {off:.0e} from float64", "", {"difference": off})


def _search(device: torch.device, left_s: float) -> Outcome:
    """faiss's neighbours against our own exact pass.

    Raises:
        SkippedError: faiss cannot use the GPU.
        WrongError: neighbours differ.
    """
    if device.type == "cuda" and gpu_of(device) is None:
        raise SkippedError(f"faiss {faiss.__version__} sees {faiss.get_num_gpus()} GPUs; it searches on the CPU")
    features = np.random.default_rng(SEED).standard_normal((GALLERY, DIM), dtype=np.float32)
    pool = UnitRows(features, np.arange(GALLERY), device=device)
    began_at = time.perf_counter()
    exact = find_neighbours(pool, count=NEIGHBOURS)
    between_at = time.perf_counter()
    found = find_neighbours_by_faiss(pool, count=NEIGHBOURS)
    ended_at = time.perf_counter()
    same = float((found.index == exact.index).double().mean())
    off = float((found.cosine - exact.cosine).abs().max())
    if same < 1 or not off <= CLOSE:
        raise WrongError(f"{1 - same:.2%} of the neighbours are others, and cosines are off by up to {off:.0e}")
    return Outcome(
        f"{NEIGHBOURS} neighbours of {GALLERY:,} images are the exact pass's",
        f"{(ended_at - between_at) * 1e3:,.0f} ms, exact pass {(between_at - began_at) * 1e3:,.0f} ms",
        {"faiss_ms": (ended_at - between_at) * 1e3, "exact_ms": (between_at - began_at) * 1e3},
    )
