"""Attention maps of a network beside the images of rank lists."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.errors import DataError
from lupctl.core.formats.features.cameras import read_counts
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.weights.settings import read_settings
from lupctl.core.ranking.reports.build.images import Images
from lupctl.core.ranking.reports.page.images import embed_heat
from lupctl.core.ranking.reports.page.ranklists import RankList, RankRow, Shown
from lupctl.core.ranking.retrieval.attention import look_at
from lupctl.core.ranking.retrieval.cameras import choose_rows
from lupctl.core.ranking.retrieval.extract import open_encoder
from lupctl.core.ranking.retrieval.inputs import JoinedFeatures
from lupctl.core.system.progress.lines import Progress

Look = Callable[[Sequence[str]], Mapping[str, str]]


def with_attention(lists: Sequence[RankList], look: Look) -> list[RankList]:
    """The same lists with the attention map of every image that has a picture.

    Args:
        lists: with pictures.
        look: gives small pictures of the maps by the names of images.

    Raises:
        DataError: none of the images has a picture.
    """
    names = [shown.name for one in lists for shown in _images_of(one) if shown.picture is not None]
    if lists and not names:
        raise DataError(
            "--attention: none of the images of the rank lists is in the pack or folder that should have them",
            hint="name the one that the features were made from: --images PACK",
        )
    maps = look(list(dict.fromkeys(names)))

    def add(shown: Shown) -> Shown:
        return replace(shown, attention=maps.get(shown.name) if shown.picture is not None else None)

    def add_to_row(row: RankRow) -> RankRow:
        first_right = None if row.first_right is None else add(row.first_right)
        return replace(row, nearest=tuple(map(add, row.nearest)), first_right=first_right)

    return [
        replace(
            one,
            query=add(one.query),
            plain=add_to_row(one.plain),
            reranked=None if one.reranked is None else add_to_row(one.reranked),
        )
        for one in lists
    ]


def _images_of(one: RankList) -> list[Shown]:
    rows = [row for row in (one.plain, one.reranked) if row is not None]
    return [one.query, *(shown for row in rows for shown in (*row.nearest, row.first_right) if shown is not None)]


def open_look(
    checkpoint: Path, features: JoinedFeatures, images: Images, *, device: torch.device, progress: Progress
) -> Look:
    """Attention maps as a network computes them for the images that some features were made from.

    Args:
        checkpoint: the network that made the features; with a class token, see `class_trunk`.
        features: say which camera each image is from, and what the network was told of it.
        images: gives encoded images by name.
        device: where the network runs; in float32, whatever type the features were computed in.
        progress: shows a bar.
    """
    encoder, _ = open_encoder(
        checkpoint, device=device, precision=torch.float32, settings=read_settings(features.record)
    )
    made = read_counts(features.record)
    row_of = {name: row for row, name in enumerate(features.samples.name)}
    # Of features of several datasets, the page has the images of the first.
    dataset = str(features.record.get("dataset", "")).partition(" + ")[0]

    def read(name: str) -> bytes:
        encoded = images(name)
        assert encoded is not None, "it has a picture"
        return encoded

    def pixels_of(name: str) -> NDArray[np.uint8]:
        return decode_rgb(read(name))

    def look(names: Sequence[str]) -> dict[str, str]:
        placed = choose_rows(
            encoder.cameras,
            features.samples.camera[np.array([row_of[name] for name in names], dtype=np.int64)],
            dataset=dataset,
            use=None if made is None else made.rule,
            network=str(checkpoint),
        )
        rows, drawn = None if placed is None else placed.rows, {}
        with progress.task("attention", total=len(names), unit="images") as bar:
            for name, heat in zip(names, look_at(encoder, map(pixels_of, names), rows), strict=True):
                drawn[name] = embed_heat(read(name), heat)
                bar.advance()
        return drawn

    return look
