"""Clusters of a training set beside one search for its nearest neighbours, and beside all pairs; run by hand.

    OMP_NUM_THREADS=1 python tests/benchmarks/cluster_speed.py                 Market-1501's size (to reach: 3 searches)
    OMP_NUM_THREADS=1 python tests/benchmarks/cluster_speed.py --images 4000 8000 16000 32621 --rounds 1
    OMP_NUM_THREADS=1 python tests/benchmarks/cluster_speed.py --images 5000 --dense

Clusters are everything between features and labels: neighbours, encodings, the graph of Jaccard distances up to eps,
and DBSCAN on it. With --dense, all pairs of the same encodings are compared in one matrix and DBSCAN gets that. Each
size and way runs in a process of its own, whose memory above what it had with the features is printed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.ranking.clustering.density import Density, find_clusters
from lupctl.core.ranking.clustering.graph import neighbour_graph
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.neighbours import find_neighbours
from lupctl.core.ranking.reranking.rerank import RerankSettings, encode_neighbours, jaccard_distances

SETTINGS, DENSITY = RerankSettings(k1=30, k2=6), Density(eps=0.6, least=4)
IMAGES_OF_A_PERSON = 17


def draw_features(count: int, dim: int) -> NDArray[np.float32]:
    """(N, D) features around a direction for each person, spread so that neighbours are mostly of one person."""
    rng = np.random.default_rng(0)
    persons = max(2, count // IMAGES_OF_A_PERSON)
    centres = rng.standard_normal((persons, dim), dtype=np.float32)
    return centres[rng.integers(0, persons, count)] + 1.6 * rng.standard_normal((count, dim), dtype=np.float32)


def cluster_all_pairs(pool: UnitRows) -> NDArray[np.int64]:
    """Clusters by a matrix of all distances."""
    from sklearn.cluster import DBSCAN

    neighbours = find_neighbours(pool, count=SETTINGS.num_neighbours)
    encoding = encode_neighbours(pool, neighbours, SETTINGS)
    everyone = range(len(pool))
    distance = jaccard_distances(encoding, everyone, encoding.transposed(everyone)).clip(min=0)
    made = DBSCAN(eps=DENSITY.eps, min_samples=DENSITY.least, metric="precomputed").fit(distance)
    found: NDArray[np.int64] = made.labels_
    return found


def peak_bytes() -> int:
    """The most memory that this process ever had."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(count: int, dim: int, rounds: int, *, dense: bool) -> dict[str, float]:
    """Processor seconds of a search and of clusters, in turns, and the memory of the clusters."""
    from sklearn.cluster import DBSCAN  # importing it is not clustering

    assert DBSCAN
    pool = UnitRows(draw_features(count, dim), np.arange(count), device=torch.device("cpu"))
    before = peak_bytes()
    seconds: dict[str, list[float]] = {"search": [], "clusters": []}
    for _ in range(rounds):
        began = time.process_time()
        find_neighbours(pool, count=SETTINGS.num_neighbours)
        searched = time.process_time()
        if dense:
            labels = cluster_all_pairs(pool)
        else:
            labels = find_clusters(neighbour_graph(pool, SETTINGS, eps=DENSITY.eps), DENSITY)
        seconds["search"].append(searched - began)
        seconds["clusters"].append(time.process_time() - searched)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {**medians, "mib": (peak_bytes() - before) / 2**20, "found": float(labels.max() + 1)}


def main() -> None:
    """Prints a line for each size and way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--images", type=int, nargs="+", default=[12936])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--dense", action="store_true", help="also by a matrix of all pairs")
    parser.add_argument("--one", choices=["graph", "dense"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.images[0], options.dim, options.rounds, dense=options.one == "dense")))
        return
    print("| images | way | search s | clusters s | of a search | MiB | clusters |\n|---|---|---|---|---|---|---|")
    for count in options.images:
        for way in ("graph", "dense") if options.dense else ("graph",):
            given = ["--images", str(count), "--dim", str(options.dim), "--rounds", str(options.rounds), "--one", way]
            done = subprocess.run([sys.executable, __file__, *given], check=True, capture_output=True, text=True)
            got = json.loads(done.stdout)
            ratio = got["clusters"] / got["search"]
            cells = [f"{count:,}", way, f"{got['search']:.2f}", f"{got['clusters']:.2f}", f"{ratio:.2f}"]
            cells += [f"{got['mib']:.0f}", f"{got['found']:.0f}"]
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
