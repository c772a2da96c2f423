"""A probe without labels: whether the nearest neighbour of an image is from the same tracklet, or the same video."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.formats.pack.crops import read_crops
from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.pack.shards import HINT
from lupctl.core.ranking.metrics.ranking import chunk_ranges
from lupctl.core.ranking.retrieval.extract import Encoder, embed_chunks
from lupctl.core.ranking.retrieval.quick import evaluating
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import ChunkDataset

CHUNK: Final = 128
# Images that are looked at, and of each tracklet or video: few of many, so that most neighbours could be wrong ones.
MOST_IMAGES: Final = 2000
PER_TRACKLET, PER_VIDEO = 4, 40
# Fewer leave no neighbour that is not adjacent.
FEWEST: Final = 3
UNKNOWN: Final = -1

SequenceKind = Literal["tracklet", "video"]


@dataclass(frozen=True)
class Sequences:
    """Images of which it is known who was filmed together.

    Args:
        kind: what a group is.
        rows: (N) of the concatenated packs.
        group: (N) number of its tracklet or video.
        place: (N) position in time among the images of its group.
    """

    kind: SequenceKind
    rows: NDArray[np.int64]
    group: NDArray[np.int64]
    place: NDArray[np.int64]


def pick_sequences(packs: Sequence[Pack], rows: NDArray[np.int64], *, seed: int) -> Sequences | None:
    """Images for the probe from the training images; None if no pack knows tracklets or videos.

    A tracklet is a person in a video that `data build` cut crops from, or, among unlabelled images, a person before a
    camera. Where there is no tracklet of three images, videos take their place. From each, a few images are taken that
    are spread evenly over its length, from groups in an order that the seed decides.

    Args:
        packs: in the order in which their rows are numbered.
        rows: of the concatenated packs, those that are trained on.
        seed: of the order.
    """
    tracklet, video, frame = (np.concatenate(column)[rows] for column in zip(*_number_groups(packs), strict=True))
    kinds: tuple[tuple[SequenceKind, NDArray[np.int64], int], ...] = (
        ("tracklet", tracklet, PER_TRACKLET),
        ("video", video, PER_VIDEO),
    )
    for kind, group, most in kinds:
        picked = _pick(group, frame, most=most, random=np.random.default_rng(seed))
        if picked is not None:
            chosen = np.concatenate(picked)
            return Sequences(
                kind, rows[chosen], group[chosen], np.concatenate([np.arange(len(part)) for part in picked])
            )
    return None


def _number_groups(packs: Sequence[Pack]) -> list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Tracklet, video and frame of every image, pack by pack; -1 is unknown, and numbers of two packs differ."""
    found, given = [], 0
    for pack in packs:
        crops, person = read_crops(pack.path, hint=HINT), pack.samples.person
        frame = np.arange(len(pack)) if crops is None else crops.frame
        video = np.full(len(pack), UNKNOWN) if crops is None else crops.video.astype(np.int64)
        scene = np.where(video >= 0, video, pack.samples.camera)
        is_named = (person >= 0) & ((video >= 0) | (pack.samples.role == ROLE_CODES["unlabelled"]))
        scenes, scene_of = np.unique(scene, return_inverse=True)
        persons, person_of = np.unique(person, return_inverse=True)
        numbers = scene_of * len(persons) + person_of
        found.append(
            (np.where(is_named, numbers + given, UNKNOWN), np.where(video >= 0, video + given, UNKNOWN), frame)
        )
        given += max(len(scenes) * len(persons), int(video.max(initial=0)) + 1)
    return found


def _pick(
    group: NDArray[np.int64], frame: NDArray[np.int64], *, most: int, random: np.random.Generator
) -> list[NDArray[np.int64]] | None:
    """Positions of images, group by group and in the order of time; None if there are fewer than two groups."""
    order = np.lexsort((frame, group))
    order = order[np.searchsorted(group[order], 0) :]
    if len(order) == 0:
        return None
    parts = [part for part in np.split(order, np.flatnonzero(np.diff(group[order])) + 1) if len(part) >= FEWEST]
    chosen = [parts[at] for at in random.permutation(len(parts))[: MOST_IMAGES // most].tolist()]
    if len(chosen) < 2:
        return None
    return [part[np.linspace(0, len(part) - 1, min(most, len(part))).round().astype(int)] for part in chosen]


def probe_sequences(encoder: Encoder, packs: Sequence[Pack], sequences: Sequences, *, workers: int) -> dict[str, float]:
    """`probe_tracklet` or `probe_video`, see `same_group`; it changes nothing in the network or in random numbers.

    Images that cannot be decoded do not count.
    """
    dataset = ChunkDataset(PackImages(packs, sequences.rows), encoder.view, chunk=CHUNK, lenient=True)
    features, damaged = list[NDArray[np.float32]](), list[int]()
    with evaluating(encoder.network), torch.random.fork_rng(devices=[]):
        for lines, vectors in embed_chunks(encoder, dataset, range(len(dataset)), workers=workers, flip=False):
            features.append(vectors)
            damaged += [int(line.partition(":")[0]) for line in lines]
    kept = np.setdiff1d(np.arange(len(sequences.rows)), damaged)
    share = same_group(
        np.concatenate(features)[kept], sequences.group[kept], sequences.place[kept], device=encoder.device
    )
    return {f"probe_{sequences.kind}": share}


def same_group(
    features: NDArray[np.float32], group: NDArray[np.int64], place: NDArray[np.int64], *, device: torch.device
) -> float:
    """Share of images whose nearest neighbour by cosine is of the same group.

    The images before and after one in its own group are no candidates: they may show the same moment. An image for
    which no other of its group is left does not count; it stays a candidate for others.

    Args:
        features: (N, D), not necessarily normalised.
        group: (N) numbers.
        place: (N) position in time among the images of a group.
        device: where cosines are computed.
    """
    unit = torch.nn.functional.normalize(torch.from_numpy(features).to(device), dim=1)
    groups, places = torch.from_numpy(group).to(device), torch.from_numpy(place).to(device)
    right = counted = 0
    for start, stop in chunk_ranges(len(unit), CHUNK):
        same = groups[start:stop, None] == groups
        adjacent = same & ((places[start:stop, None] - places).abs() <= 1)
        nearest = (unit[start:stop] @ unit.T).masked_fill(adjacent, -torch.inf).argmax(dim=1)
        has_answer = (same & ~adjacent).any(dim=1)
        right += int((has_answer & (groups[nearest] == groups[start:stop])).sum())
        counted += int(has_answer.sum())
    return right / max(counted, 1)
