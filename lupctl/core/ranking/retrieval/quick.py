"""Scores of a network on a labelled pack while it trains: nothing is written, and training continues unaffected."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lupctl.core.choices import SameCamera
from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.metrics.scores import Scores
from lupctl.core.ranking.retrieval.answerable import Counts, check_answerable, gallery_rows, query_rows
from lupctl.core.ranking.retrieval.cameras import choose_rows
from lupctl.core.ranking.retrieval.extract import Encoder, extract_features
from lupctl.core.ranking.retrieval.score import score
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import PackImages

CHUNK = 128


@dataclass(frozen=True, kw_only=True)
class QuickScores:
    """The result of a quick evaluation on a pack's queries and gallery.

    Args:
        scores: as `lupctl eval` computes them from the features of a dump.
        counts: of the pack, junk included.
        features: (N, D) float32 of the queries and of the gallery without junk, not normalised.
        samples: (N) person, camera and role of these images.
    """

    scores: Scores
    counts: Counts
    features: NDArray[np.float32]
    samples: Samples


def score_pack(encoder: Encoder, pack: Pack, *, workers: int, same_camera: SameCamera = "drop") -> QuickScores:
    """Embeds the queries and the gallery of a pack and scores them.

    Junk is not embedded: no rule counts it. A network that takes cameras gets them by the default rule. The mode of
    every module of the network and torch's random state are restored afterwards.

    Args:
        encoder: its network may be in training.
        pack: labelled.
        workers: decoding processes.
        same_camera: whether to ignore the query's person seen by the query's camera or to count it as right.

    Raises:
        DataError: the query set cannot be scored (see `check_answerable`), or features have no direction.
        CorruptImageError: an image cannot be decoded.
    """
    counts = check_answerable(pack.samples, same_camera=same_camera)
    rows = np.concatenate([query_rows(pack.samples), gallery_rows(pack.samples)])
    placed = choose_rows(
        encoder.cameras, pack.samples.camera[rows], dataset=pack.dataset, use=None, network="the network"
    )
    # Opening a loader draws a number from torch's generator.
    with evaluating(encoder.network), torch.random.fork_rng(devices=[]):
        features = extract_features(
            encoder,
            PackImages([pack], rows),
            chunk=CHUNK,
            workers=workers,
            flip=False,
            progress=Progress(quiet=True),
            cameras=None if placed is None else placed.rows,
        )
    samples = pack.samples.select(rows)
    scored = score(features, samples, device=encoder.device, same_camera=same_camera)
    return QuickScores(scores=scored.scores, counts=counts, features=features, samples=samples)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Puts a network in evaluation mode; afterwards restores the mode of each module, frozen ones included."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
