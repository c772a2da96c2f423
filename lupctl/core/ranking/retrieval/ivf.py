"""A faiss index of a features file, built once and kept next to it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.errors import FormatError
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.faiss_gpu import MOST_ON_GPU, gpu_of, move_index
from lupctl.core.system.disk.atomic import atomic_path, file_fingerprint, write_text
from lupctl.core.system.documents import parse_json
from lupctl.core.system.progress.lines import Progress

INDEX_SUFFIX = ".ivf.faiss"
# As many lists as faiss advises for up to a million vectors, 4 * sqrt(N), with at least 39 vectors each to train on.
LISTS_PER_ROOT, LEAST_PER_LIST = 4, 39
# One list in sixteen is searched, but at least 8.
LISTS_A_PROBE, LEAST_PROBES = 16, 8
SEED = 0


def index_path(features_path: Path) -> Path:
    """Path of the index of a features file; a JSON file next to it records what it was built from."""
    return features_path.with_name(features_path.name + INDEX_SUFFIX)


def open_index(features_path: Path, gallery: Callable[[], UnitRows], *, progress: Progress) -> Any:
    """The inverted-file index of a gallery by inner products of unit vectors, built if there is none for the features.

    Args:
        features_path: the features' file.
        gallery: reads all rows, in order; called only if the index has to be built.
        progress: reports the build, and shows a bar.

    Raises:
        FormatError: the features are damaged, or the existing index cannot be read.
        DataError: the index cannot be written.
    """
    path, fingerprint = index_path(features_path), file_fingerprint(features_path)
    index: Any
    if is_current(path, fingerprint):
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise FormatError(
                f"{path}: cannot be read ({str(error).splitlines()[0]})", hint=f"remove {path}; it will be built again"
            ) from error
    else:
        index = build_index(gallery(), progress=progress)
        progress.say(f"index: {path} ({index.nlist} lists, built now and kept)")
        with atomic_path(path) as partial:
            partial.write_bytes(faiss.serialize_index(index).tobytes())
        write_text(
            _facts_path(path), json.dumps({"features": fingerprint, "lists": index.nlist}, sort_keys=True) + "\n"
        )
    index.nprobe = min(index.nlist, max(LEAST_PROBES, index.nlist // LISTS_A_PROBE))
    return index


def search_index(
    index: Any, queries: NDArray[np.float32], count: int, *, device: torch.device
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Inner products and rows of the best entries, (Q, count) each; row -1 where the probed lists have fewer.

    Args:
        index: as `open_index` gives it.
        queries: (Q, D) unit vectors.
        count: entries per query.
        device: the search runs on a GPU if faiss can use it and the numbers are within faiss's limits.

    Raises:
        DeviceError: the GPU has too little memory for the index.
    """
    count = min(count, index.ntotal)
    number = gpu_of(device)
    if number is not None and max(count, index.nprobe) <= MOST_ON_GPU:
        index = move_index(index, number)
    found: tuple[NDArray[np.float32], NDArray[np.int64]] = index.search(queries, count)
    return found


def is_current(path: Path, fingerprint: str) -> bool:
    """Whether an index was built from the features with this fingerprint."""
    try:
        facts = parse_json(_facts_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return path.is_file() and isinstance(facts, dict) and facts.get("features") == fingerprint


def build_index(gallery: UnitRows, *, progress: Progress) -> Any:
    """Trains the lists and adds all rows, a block at a time."""
    lists = max(1, min(round(LISTS_PER_ROOT * len(gallery) ** 0.5), len(gallery) // LEAST_PER_LIST))
    quantizer = faiss.IndexFlatIP(gallery.dimension)
    index = faiss.IndexIVFFlat(quantizer, gallery.dimension, lists, faiss.METRIC_INNER_PRODUCT)
    # faiss trains on at most 256 vectors per list; they are drawn here, so that no more are gathered.
    count = min(len(gallery), 256 * lists)
    some = np.sort(np.random.default_rng(SEED).choice(len(gallery), count, replace=False))
    index.train(_rows_at(gallery, some))
    with progress.task("index", total=len(gallery), unit="images") as task:
        for start, stop in gallery.blocks():
            index.add(gallery.unit(start, stop).cpu().numpy())
            task.advance(stop - start)
    return index


def _rows_at(gallery: UnitRows, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    vectors: NDArray[np.float32] = gallery.unit_at(torch.from_numpy(rows).to(gallery.device)).cpu().numpy()
    return vectors


def _facts_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")
