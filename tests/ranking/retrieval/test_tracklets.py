"""Tracklets from the columns of a pack, and their similarity to a person, against plain loops."""

import numpy as np
import pytest
import torch

from lupctl.core.formats.pack.crops import CropColumns
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.ranking.retrieval.tracklets import (
    Tracklet,
    group_tracklets,
    seen_spans,
    similarities,
    spread_rows,
    tracklet_similarity,
)
from lupctl.core.system.strings import build_column

CPU = torch.device("cpu")


def make_crops(rows: list[tuple[str, int, int]]) -> tuple[Samples, CropColumns]:
    """Crops of (video, frame, person); a video "" is an image from none."""
    names = [f"{video}/{frame:08d}_{at:04d}.jpg" if video else f"{at}.jpg" for at, (video, frame, _) in enumerate(rows)]
    numbers = {video: number for number, video in enumerate(sorted({video for video, _, _ in rows} - {""}), start=1)}
    count = len(rows)
    samples = Samples(
        person=np.array([person for _, _, person in rows], np.int64), camera=np.zeros(count, np.int16),
        role=np.zeros(count, np.uint8), name=build_column(names),
    )  # fmt: skip
    columns = CropColumns(
        frame=np.array([frame for _, frame, _ in rows], np.int64),
        video=np.array([numbers.get(video, -1) for video, _, _ in rows], np.int32),
        score=np.full(count, np.nan, np.float32), box=np.zeros((count, 4), np.float32),
    )  # fmt: skip
    return samples, columns


def plain(tracklets: list[Tracklet]) -> list[tuple[str, int | None, list[int]]]:
    return [(one.video, one.person, one.rows.tolist()) for one in tracklets]


def test_crops_of_one_person_and_video_are_a_tracklet_in_the_order_of_frames() -> None:
    rows = [("b", 3, 5), ("a", 9, 5), ("a", 2, 5), ("a", 2, 1), ("a", 1, -1), ("", -1, 5), ("a", 8, -1), ("b", 1, 6)]
    samples, crops = make_crops(rows)
    everything = np.ones(len(rows), bool)
    found = group_tracklets(samples, crops, kept=everything, link=None)
    assert plain(found) == [
        ("", None, [5]), ("a", None, [4]), ("a", 5, [2, 1]), ("a", 1, [3]), ("a", None, [6]), ("b", 6, [7]),
        ("b", 5, [0]),
    ]  # fmt: skip
    some = everything.copy()
    some[[2, 7]] = False
    assert plain(group_tracklets(samples, crops, kept=some, link=None))[2:] == [
        ("a", 1, [3]), ("a", None, [6]), ("a", 5, [1]), ("b", 5, [0]),
    ]  # fmt: skip
    assert plain(group_tracklets(samples, None, kept=some, link=None)) == [
        ("", None, [row]) for row in (0, 1, 3, 4, 5, 6)
    ]
    nothing = np.zeros(len(rows), bool)
    assert group_tracklets(samples, crops, kept=nothing, link=None) == []
    assert group_tracklets(samples, None, kept=nothing, link=None) == []


def test_every_image_is_in_one_tracklet() -> None:
    rng = np.random.default_rng(0)
    rows = [(f"v{rng.integers(4)}", int(rng.integers(50)), int(rng.integers(-1, 6))) for _ in range(500)]
    samples, crops = make_crops(rows)
    found = group_tracklets(samples, crops, kept=np.ones(500, bool), link=None)
    assert sorted(np.concatenate([one.rows for one in found]).tolist()) == list(range(500))
    seen = {(one.video, one.person) for one in found if one.person is not None}
    assert seen == {(video, person) for video, _, person in rows if person >= 0}
    assert len(seen) == sum(one.person is not None for one in found)
    for one in found:
        assert {rows[row][0] for row in one.rows} == {one.video}
        frames = [rows[row][1] for row in one.rows]
        assert frames == sorted(frames)


def test_similarity_is_the_mean_over_pairs() -> None:
    rng = np.random.default_rng(1)
    pictures, images = rng.standard_normal((3, 16)), rng.standard_normal((9, 16))
    images[7] = 3 * pictures[1]  # the picture itself, at another length
    units = (pictures / np.linalg.norm(pictures, axis=1, keepdims=True)).astype(np.float32)
    cosine, is_picture = similarities(units, images.astype(np.float32), device=CPU)
    rows = np.array([1, 4, 5])
    pairs = [
        float(picture @ images[row] / np.linalg.norm(picture) / np.linalg.norm(images[row]))
        for row in rows
        for picture in pictures
    ]
    assert tracklet_similarity(cosine, Tracklet("a", 1, rows)) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert is_picture.tolist() == [row == 7 for row in range(9)]


def test_a_gap_ends_a_stay() -> None:
    assert seen_spans([1, 2, 3, 24, 25], rate=10.0) == [(1, 3), (24, 25)], "21 frames are more than two seconds"
    assert seen_spans([1, 2, 3, 23, 24], rate=10.0) == [(1, 24)], "20 are not"
    assert seen_spans([1, 2, 52, 103], rate=0.0) == [(1, 52), (103, 103)], "50 frames where the rate is unknown"
    assert seen_spans([0, 30, 60, 150, 241], rate=10.0, step=30) == [(0, 150), (241, 241)], "crops 30 frames apart"
    assert seen_spans([1, 200, 400], rate=10.0, step=1) == [(1, 1), (200, 200), (400, 400)]
    assert seen_spans([7], rate=25.0) == [(7, 7)]


def test_a_few_rows_of_many_are_spread_over_all() -> None:
    rows = np.arange(100, 200)
    few = spread_rows(rows, 8)
    assert (few[0], few[-1], len(set(few))) == (100, 199, 8)
    assert max(np.diff(few)) - min(np.diff(few)) <= 1
    assert spread_rows(rows[:3], 8) == [100, 101, 102]
