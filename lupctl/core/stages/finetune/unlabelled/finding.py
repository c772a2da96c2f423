"""Finds the clusters of a training set in the features of the network that is being trained."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.errors import DataError
from lupctl.core.ranking.clustering.density import NOISE, Density, find_clusters
from lupctl.core.ranking.clustering.graph import neighbour_graph
from lupctl.core.ranking.clustering.quality import Quality, describe_clusters, silhouettes
from lupctl.core.ranking.clustering.tracing import mean_of_each
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reranking.rerank import RerankSettings
from lupctl.core.ranking.reranking.sparse import SparseRows
from lupctl.core.ranking.retrieval.extract import Encoder, embed_steadily
from lupctl.core.ranking.retrieval.quick import CHUNK, evaluating
from lupctl.core.recipes.cluster_sections import ClusterSettings
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.setup import Setup
from lupctl.core.system.examples import count_things
from lupctl.core.system.jobs.messages import gather_plain, gather_texts, rank, world_size
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import ChunkDataset
from lupctl.core.training.nets.build import Classifying
from lupctl.core.training.views.plan import build_view_plan

# What is tried when a distance gives too few clusters, to name one that gives more.
TRIED: Final = tuple(round(0.05 * number, 2) for number in range(1, 20))
# Mean cosine of the features of a network that gives every image the same one, but for rounding.
COLLAPSED: Final = 0.9999
OTHER_START: Final = "name another start with --from"


@dataclass(frozen=True)
class Found:
    """Clusters of a training set.

    Args:
        label: (N), `NOISE` for an image in none.
        sureness: (C) mean silhouette of each cluster.
        quality: what is seen of them.
    """

    label: NDArray[np.int64]
    sureness: NDArray[np.float64]
    quality: Quality


def dump_training_set(
    network: Classifying, recipe: FinetuneRecipe, setup: Setup, *, is_start: bool = False
) -> tuple[Tensor, dict[int, str]]:
    """Unit features of all training images as in evaluation, in every process.

    The processes share the images. Neither the network's modes nor torch's random state change.

    Args:
        network: to embed them with.
        recipe: how the network sees them.
        setup: of this process.
        is_start: whether it is the network that training starts from, for the hint.

    Returns:
        (N, D) float32 on the CPU; and the images that cannot be decoded, whose features mean nothing, with the reasons.

    Raises:
        DataError: a feature has no direction.
    """
    view = build_view_plan(recipe.pixels.model_dump())
    encoder = Encoder(network, view, setup.device, setup.scoring)
    cameras = None if setup.cameras is None else setup.cameras.rows
    images = PackImages(setup.packs, setup.train.rows)
    dataset = ChunkDataset(images, view, chunk=CHUNK, lenient=True, cameras=cameras)
    count, processes = len(setup.train.rows), world_size()
    share = -(-len(dataset) // processes)  # chunks of a process; the last one has fewer
    mine = range(rank() * share, min((rank() + 1) * share, len(dataset)))
    parts, damaged = [], set[str]()
    with evaluating(network), torch.random.fork_rng(devices=[]):
        for lines, vectors in embed_steadily(encoder, dataset, mine, workers=setup.workers, flip=False):
            parts.append(vectors)
            damaged.update(lines)
    width = gather_plain(torch.tensor([parts[0].shape[1] if parts else 0], device=setup.device)).max()
    own = torch.zeros(share * CHUNK, int(width))
    if parts:
        found = torch.from_numpy(np.concatenate(parts))
        own[: len(found)] = found
    # Shares lie side by side, and all but the last ones are full.
    features = gather_plain(own.to(setup.device)).cpu()[:count]
    norm = features.norm(dim=1, keepdim=True)
    if not bool((torch.isfinite(norm) & (norm > 0)).all()):
        raise DataError(
            "features of the training images have no direction: zero or not finite",
            hint=OTHER_START if is_start else "a lower --lr",
        )
    reasons = (line.partition(": ") for line in sorted(gather_texts(damaged)))
    return features / norm, {int(image): reason for image, _, reason in reasons}


def find(features: Tensor, camera: NDArray[np.int16], recipe: FinetuneRecipe, device: torch.device) -> Found:
    """The clusters of (N, D) unit features.

    Args:
        features: on the CPU.
        camera: (N), -1 for none.
        recipe: how clusters are found, and how many a batch takes.
        device: where neighbours are searched for.

    Raises:
        DataError: there are too few for a batch; names a setting that gives enough, where there is one.
    """
    settings = recipe.clusters
    assert settings is not None
    pool = UnitRows(features.numpy(), np.arange(len(features)), device=device)
    encoding = RerankSettings(k1=settings.k1, k2=settings.k2)
    graph = neighbour_graph(pool, encoding, eps=settings.eps)
    label = find_clusters(graph, Density(settings.eps, settings.least))
    silhouette = silhouettes(label, graph)
    quality = describe_clusters(label, silhouette, camera)
    if quality.clusters < recipe.data.persons:
        if float(features.double().mean(dim=0).norm()) > COLLAPSED:
            raise DataError(
                f"all {count_things(len(features), 'image')} have nearly the same feature: the network has "
                "collapsed, or they are copies of one",
                hint=f"{OTHER_START}, or pack images that differ",
            )
        raise _too_few(neighbour_graph(pool, encoding, eps=max(TRIED)), settings, quality, recipe)
    return Found(label, mean_of_each(silhouette, label), quality)


def _too_few(graph: SparseRows, settings: ClusterSettings, quality: Quality, recipe: FinetuneRecipe) -> DataError:
    """What is wrong where there are fewer clusters than a batch takes, and what helps.

    Args:
        graph: of all pairs up to the largest distance that is tried.
        settings: of the clusters.
        quality: of those that were found.
        recipe: says how many a batch takes.
    """
    wanted = recipe.data.persons
    images = count_things(len(graph), "image")
    counts = {eps: len(set(find_clusters(graph, Density(eps, settings.least)).tolist()) - {NOISE}) for eps in TRIED}
    best = max(counts, key=lambda eps: (counts[eps], -abs(eps - settings.eps)))
    noise = f", {quality.noise:.0%} of them in none" if quality.noise else ""
    message = f"clusters.eps = {settings.eps:g} finds {count_things(quality.clusters, 'cluster')} in {images}{noise}; "
    message += f"a batch takes {wanted}"
    enough = [eps for eps in TRIED if counts[eps] >= wanted]
    if enough:
        near = min(enough, key=lambda eps: abs(eps - settings.eps))
        return DataError(message, hint=f"--set clusters.eps={near:g} finds {counts[near]}")
    if counts[best] >= 2:
        looser = "" if best == settings.eps else f"--set clusters.eps={best:g} "
        return DataError(message, hint=f"{looser}--set data.persons={counts[best]}")
    return DataError(message, hint="no eps finds two clusters: more images, or another start with --from")
