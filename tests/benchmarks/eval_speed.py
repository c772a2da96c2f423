"""How fast `eval` is against the bare matrix product and an exact search on the same threads, and what memory it takes.

    OMP_NUM_THREADS=1 python tests/benchmarks/eval_speed.py
    OMP_NUM_THREADS=2 python tests/benchmarks/eval_speed.py --size msmt17 --repeats 1

Features are random: Market-1501's size is 3,368 queries x 15,913 gallery images x 2,048, MSMT17's 11,659 x 82,161.
Targets: without re-ranking, with and without the page's details (pairs, cameras), at most 1.3 times the product, the
faster one of torch's and numpy's, and 0.75 GiB beyond the features; re-ranking at most 2 times (MSMT17: 2.5) an exact
search of faiss for the 21 nearest of all images among themselves, and 1 GiB (MSMT17: 3). Each figure stands as wall
clock / CPU time of the process; on a machine that others use too, the second with one thread is the one that repeats.
Memory is the resident set, read every 2 ms by a thread, less what it was before. What is compared takes turns.
Re-ranking with `--neighbours faiss`, which searches twice, has no target.
"""

import argparse
import math
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch

from lupctl.core.choices import NeighbourSearch
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.retrieval.score import DetailSettings, score
from lupctl.core.system.strings import build_column

DIMENSION, CAMERAS, NEAREST = 2_048, 6, 21
PAGE_BYTES = 4096
PRODUCT_ROWS = 1_000
CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """A dataset's size, and the targets that belong to it."""

    queries: int
    gallery: int
    persons: int
    search_ratio: float
    rerank_gib: float
    ratio: float = 1.3
    gib: float = 0.75


SIZES = {
    "market1501": Size(3_368, 15_913, 750, 2.0, 1.0),
    "msmt17": Size(11_659, 82_161, 3_060, 2.5, 3.0),
    # Shows that this script works; so small, calls and threads cost more than the work.
    "tiny": Size(60, 300, 30, math.inf, math.inf, math.inf, math.inf),
}


@dataclass(frozen=True)
class Cost:
    """What a call took."""

    wall_s: float
    cpu_s: float
    peak_gib: float

    def __str__(self) -> str:
        return f"{self.wall_s:.2f} s / {self.cpu_s:.2f} s CPU"


class PeakMemory:
    """The largest resident set while the block runs, beyond that at its start."""

    def __enter__(self) -> "PeakMemory":
        self._before = resident_bytes()
        self.peak_bytes = 0
        self._is_done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._is_done.wait(0.002):
            self.peak_bytes = max(self.peak_bytes, resident_bytes() - self._before)


def resident_bytes() -> int:
    """The process's resident set."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * PAGE_BYTES


def measured(work: Callable[[], object]) -> Cost:
    """What a call takes."""
    with PeakMemory() as memory:
        started_at, cpu_before = time.perf_counter(), time.process_time()
        work()
        wall_s, cpu_s = time.perf_counter() - started_at, time.process_time() - cpu_before
    return Cost(wall_s, cpu_s, memory.peak_bytes / 2**30)


def draw_features(size: Size) -> tuple[np.ndarray, Samples]:
    """Random features and who is on them; queries first."""
    rng = np.random.default_rng(0)
    count = size.queries + size.gallery
    samples = Samples(
        person=rng.integers(1, size.persons + 1, count),
        camera=rng.integers(1, CAMERAS + 1, count).astype(np.int16),
        role=np.where(np.arange(count) < size.queries, 2, 3).astype(np.uint8),
        name=build_column([f"{row:06d}.jpg" for row in range(count)]),
    )
    return rng.standard_normal((count, DIMENSION), dtype=np.float32), samples


def torch_product(queries: np.ndarray, gallery: np.ndarray) -> None:
    """All inner products, some rows at a time."""
    right = torch.from_numpy(gallery).T
    out = torch.empty(PRODUCT_ROWS, len(gallery))
    for start in range(0, len(queries), PRODUCT_ROWS):
        some = torch.from_numpy(queries[start : start + PRODUCT_ROWS])
        torch.mm(some, right, out=out[: len(some)])


def numpy_product(queries: np.ndarray, gallery: np.ndarray) -> None:
    """The same by numpy."""
    out = np.empty((PRODUCT_ROWS, len(gallery)), np.float32)
    for start in range(0, len(queries), PRODUCT_ROWS):
        some = queries[start : start + PRODUCT_ROWS]
        np.matmul(some, gallery.T, out=out[: len(some)])


def median_ratio(costs: list[Cost], references: list[Cost]) -> tuple[float, float]:
    """Medians of wall clock and CPU time against what ran beside it."""
    pairs = list(zip(costs, references, strict=True))
    return (
        statistics.median(cost.wall_s / other.wall_s for cost, other in pairs),
        statistics.median(cost.cpu_s / other.cpu_s for cost, other in pairs),
    )


def main() -> int:
    """Prints the figures; 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=list(SIZES), default="market1501")
    parser.add_argument("--repeats", type=int, default=3, help="turns of what is compared")
    parser.add_argument("--no-rerank", action="store_true", help="leave re-ranking out")
    options = parser.parse_args()
    size = SIZES[options.size]
    features, samples = draw_features(size)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}", flush=True)
    is_met = evaluation_meets(features, samples, size, repeats=options.repeats)
    if not options.no_rerank:
        is_met &= rerank_meets(features, samples, size, repeats=options.repeats)
    return int(not is_met)


def evaluation_meets(features: np.ndarray, samples: Samples, size: Size, *, repeats: int) -> bool:
    """Whether scoring stays within the targets."""
    queries, gallery = features[: size.queries], features[size.queries :]
    torch_product(queries[:200], gallery[:200])  # the first products set the libraries up
    products, plain, detailed = [], [], []
    for _ in range(repeats):
        both = measured(lambda: torch_product(queries, gallery)), measured(lambda: numpy_product(queries, gallery))
        products.append(min(both, key=lambda cost: cost.cpu_s))
        plain.append(measured(lambda: score(features, samples, device=CPU)))
        detailed.append(measured(lambda: score(features, samples, device=CPU, details=DetailSettings())))
        print(f"product: torch {both[0]}, numpy {both[1]}; eval {plain[-1]}, with details {detailed[-1]}", flush=True)
    ratio, peak = median_ratio(plain, products), max(cost.peak_gib for cost in plain + detailed)
    with_details = median_ratio(detailed, products)
    print(f"eval: median ratio {ratio[0]:.2f} / {ratio[1]:.2f} CPU (target {size.ratio})")
    print(f"eval with details: median ratio {with_details[0]:.2f} / {with_details[1]:.2f} CPU (target {size.ratio})")
    print(f"eval: peak {peak:.2f} GiB (target {size.gib})", flush=True)
    return max(ratio + with_details) <= size.ratio and peak <= size.gib


def search_cost(features: np.ndarray) -> Cost:
    """What an exact search of faiss takes for the nearest of all images among themselves."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    return measured(lambda: faiss.knn(unit, unit, NEAREST, metric=faiss.METRIC_INNER_PRODUCT))


def rerank_cost(features: np.ndarray, samples: Samples, neighbours: NeighbourSearch) -> Cost:
    """What scoring and re-ranking take together."""
    settings = RerankSettings(neighbours=neighbours)
    cost = measured(lambda: score(features, samples, device=CPU, rerank=settings))
    print(f"scoring and re-ranking, {neighbours}: {cost}, peak {cost.peak_gib:.2f} GiB", flush=True)
    return cost


def rerank_meets(features: np.ndarray, samples: Samples, size: Size, *, repeats: int) -> bool:
    """Whether scoring and re-ranking together stay within the targets."""
    faiss.omp_set_num_threads(torch.get_num_threads())
    searches, rerankings, by_faiss = [], [], []
    for _ in range(repeats):
        searches.append(search_cost(features))
        print(f"search {searches[-1]}", flush=True)
        rerankings.append(rerank_cost(features, samples, "exact"))
        by_faiss.append(rerank_cost(features, samples, "faiss"))
    ratio, peak = median_ratio(rerankings, searches), max(cost.peak_gib for cost in rerankings)
    with_faiss = median_ratio(by_faiss, searches)
    print(f"re-ranking: median ratio {ratio[0]:.2f} / {ratio[1]:.2f} CPU (target {size.search_ratio})")
    print(f"re-ranking: peak {peak:.2f} GiB (target {size.rerank_gib})")
    print(f"re-ranking by faiss: median ratio {with_faiss[0]:.2f} / {with_faiss[1]:.2f} CPU", flush=True)
    return max(ratio) <= size.search_ratio and peak <= size.rerank_gib


if __name__ == "__main__":
    sys.exit(main())
