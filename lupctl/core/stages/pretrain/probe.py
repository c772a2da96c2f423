"""Evaluation of the backbone's features during training."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.choices import SameCamera
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import packed_same_camera
from lupctl.core.ranking.metrics.ranking import chunk_ranges
from lupctl.core.ranking.retrieval.answerable import gallery_rows, query_rows
from lupctl.core.ranking.retrieval.extract import Encoder
from lupctl.core.ranking.retrieval.quick import score_pack
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.stages.pretrain.setup import Setup
from lupctl.core.stages.pretrain.tracklets import Sequences, pick_sequences, probe_sequences
from lupctl.core.system.jobs.messages import rank
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.views.plan import build_view_plan

CHUNK = 128
NEIGHBOURS, SHARPNESS = 20, 0.07


@dataclass(frozen=True)
class Probes:
    """What features are looked at with; neither in other processes than the first.

    Args:
        pack: labelled, if one was named.
        sequences: training images that were filmed together, where the packs know.
    """

    pack: Pack | None = None
    sequences: Sequences | None = None


def open_probes(setup: Setup, labelled: Path | None, *, seed: int) -> Probes:
    """The probes of a run; process 0 does their work.

    Args:
        setup: the data.
        labelled: the pack that was named, if any.
        seed: of the choice of sequences.

    Raises:
        DataError: the labelled pack is missing or damaged.
    """
    if rank() > 0:
        return Probes()
    pack = None if labelled is None else open_pack(labelled)
    return Probes(pack, pick_sequences(setup.packs, setup.images.rows, seed=seed))


def probe_backbone(network: Embedding, recipe: PretrainRecipe, setup: Setup, probes: Probes) -> dict[str, float]:
    """Score a network's pooled features; it changes nothing in the network or in the random numbers of the training.

    Returns:
        `probe_map`, `probe_rank1` and `probe_knn` on the labelled pack, and `probe_tracklet` or `probe_video` of
        sequences, as fractions; without either, empty.
    """
    encoder = Encoder(network, build_view_plan(recipe.pixels.model_dump()), setup.device, setup.scoring)
    scores: dict[str, float] = {}
    if probes.pack is not None:
        same_camera = packed_same_camera(probes.pack.record)
        found = score_pack(encoder, probes.pack, workers=setup.workers, same_camera=same_camera)
        scores |= {"probe_map": found.scores.map, "probe_rank1": found.scores.cmc[1]}
        scores["probe_knn"] = neighbour_accuracy(
            found.features, found.samples, device=setup.device, same_camera=same_camera
        )
    if probes.sequences is not None:
        scores |= probe_sequences(encoder, setup.packs, probes.sequences, workers=setup.workers)
    return scores


def neighbour_accuracy(
    features: NDArray[np.float32], samples: Samples, *, device: torch.device, same_camera: SameCamera = "drop"
) -> float:
    """Share of queries whose person wins the vote of the nearest gallery images (Wu et al. 2018, arXiv 1805.01978).

    The 20 nearest images vote with weight exp(cosine / 0.07). Images of the query's person from the query's camera do
    not vote, as in Market-1501's rule, unless they are kept.

    Args:
        features: (N, D), not necessarily normalised.
        samples: who is in the N images; only query and gallery images count.
        device: where cosines are computed.
        same_camera: whether such images vote.
    """
    queries, gallery = query_rows(samples), gallery_rows(samples)
    unit = torch.nn.functional.normalize(torch.from_numpy(features).to(device), dim=1)
    person, camera = (
        torch.from_numpy(column.astype(np.int64)).to(device) for column in (samples.person, samples.camera)
    )
    known = unit[torch.from_numpy(gallery).to(device)]
    right = 0
    for start, stop in chunk_ranges(len(queries), CHUNK):
        some = torch.from_numpy(queries[start:stop]).to(device)
        cosine = unit[some] @ known.T
        if same_camera == "drop":
            own = (person[some, None] == person[gallery]) & (camera[some, None] == camera[gallery])
            cosine = cosine.masked_fill(own, -torch.inf)
        right += int((_vote(cosine, person[gallery]) == person[some]).sum())
    return right / len(queries)


def _vote(cosine: Tensor, person: Tensor) -> Tensor:
    """(B) the person with the largest total weight among the nearest votes, from (B, G) cosines."""
    nearest, index = cosine.topk(min(NEIGHBOURS, cosine.shape[1]), dim=1)
    weight, voted = (nearest / SHARPNESS).exp(), person[index]
    # (B, k, k): for each vote the weight of all votes for the same person.
    total = (weight[:, None, :] * (voted[:, :, None] == voted[:, None, :])).sum(dim=2)
    return voted.gather(1, total.argmax(dim=1, keepdim=True))[:, 0]
