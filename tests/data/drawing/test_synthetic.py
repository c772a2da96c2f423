"""Drawn persons: the same bytes everywhere, honest labels, and a problem that colours alone do not solve."""

import hashlib
import re
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from lupctl.core.choices import DISTRACTOR, JUNK, ROLE_CODES, UNKNOWN_CAMERA
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.samples import Samples

SMALL = SyntheticPlan(
    seed=3, unlabelled_persons=12, scenes=4, train_persons=4, test_persons=3, cameras=4, distractors=5, junk=6
)
MARKET = re.compile(r"(bounding_box_train|query|bounding_box_test)/(-1|\d{4})_c(\d)s1_\d{6}_\d\d\.jpg")
SCENE = re.compile(r"scene(\d\d)/(\d{6})_(\d)\.jpg")


def decode(data: bytes) -> NDArray[np.uint8]:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return np.asarray(image, np.uint8)


def rows(samples: Samples, role: str) -> NDArray[np.intp]:
    return np.flatnonzero(samples.role == ROLE_CODES[role])  # type: ignore[index]


def digest(plan: SyntheticPlan) -> str:
    source = SyntheticSource(plan)
    whole = hashlib.sha256()
    for name in source.list_images().name:
        whole.update(name.encode() + source.read(name))
    return whole.hexdigest()


# the list of images


def test_the_list_is_sorted_by_role_and_name_and_has_no_name_twice() -> None:
    samples = SyntheticSource(SMALL).list_images()
    keys = list(zip(samples.role.tolist(), samples.name, strict=True))
    assert keys == sorted(keys)
    assert len(set(samples.name)) == len(samples)
    kinds = [column.dtype for column in (samples.person, samples.camera, samples.role)]
    assert kinds == [np.int64, np.int16, np.uint8]


def test_unlabelled_persons_have_two_to_four_images_in_one_scene_and_no_label() -> None:
    samples = SyntheticSource(SMALL).list_images()
    found = rows(samples, "unlabelled")
    assert set(samples.person[found]) == {-1}
    assert set(samples.camera[found]) == {UNKNOWN_CAMERA}
    matches = [SCENE.fullmatch(samples.name[index]) for index in found]
    shots = Counter(match.group(1, 2) for match in matches if match)
    assert len(shots) == 12
    assert sum(shots.values()) == len(found)
    assert set(shots.values()) <= {2, 3, 4}
    assert {scene for scene, _ in shots} == {"00", "01", "02", "03"}


def test_labelled_names_say_what_the_columns_say() -> None:
    samples = SyntheticSource(SMALL).list_images()
    folders = {"bounding_box_train": "train", "query": "query", "bounding_box_test": "gallery"}
    for index in np.flatnonzero(samples.role != ROLE_CODES["unlabelled"]):
        match = MARKET.fullmatch(samples.name[index])
        assert match is not None, samples.name[index]
        assert samples.role[index] == ROLE_CODES[folders[match[1]]]  # type: ignore[index]
        assert samples.person[index] == int(match[2])
        assert samples.camera[index] == int(match[3])


def test_train_and_test_share_no_person_and_the_counts_are_the_plan() -> None:
    samples = SyntheticSource(SMALL).list_images()
    train, query, gallery = (rows(samples, role) for role in ("train", "query", "gallery"))
    assert set(samples.person[train]) == {1, 2, 3, 4}
    assert set(samples.person[query]) == {5, 6, 7}
    assert set(samples.person[gallery]) == {5, 6, 7, JUNK, DISTRACTOR}
    assert np.count_nonzero(samples.person[gallery] == DISTRACTOR) == 5
    assert np.count_nonzero(samples.person[gallery] == JUNK) == 6
    tracks = Counter(zip(samples.person[train].tolist(), samples.camera[train].tolist(), strict=True))
    assert set(tracks.values()) == {SMALL.shots}


def test_every_query_has_a_right_answer_from_another_camera() -> None:
    for seed in range(20):
        plan = SyntheticPlan(seed=seed, test_persons=15, cameras=2 + seed % 5, shots=2)
        samples = SyntheticSource(plan).list_images()
        query, gallery = rows(samples, "query"), rows(samples, "gallery")
        assert set(samples.person[query]) == set(range(1, 16))
        for index in query:
            same = samples.person[gallery] == samples.person[index]
            other = samples.camera[gallery] != samples.camera[index]
            assert np.any(same & other)


def test_persons_are_missing_from_some_cameras_but_not_many() -> None:
    samples = SyntheticSource(SyntheticPlan(train_persons=300, cameras=6, shots=1)).list_images()
    # Two cameras are certain and four likely with 7/8: 5.5 on average, deviation of the mean 0.04.
    assert len(samples) / 300 == pytest.approx(5.5, abs=0.16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test_persons": 3, "cameras": 1}, "cameras is 1, expected 2 or more"),
        ({"test_persons": 3, "shots": 1}, "shots is 1, expected 2 or more"),
        ({"seed": -1}, "seed is -1, expected 0 or more"),
        ({"unlabelled_shots": 1}, "unlabelled_shots is 1, expected 2 or more"),
        ({"height": 8}, "height is 8, expected 32 or more"),
    ],
)
def test_a_plan_that_cannot_work_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        SyntheticPlan(**change)


def test_a_name_that_is_not_in_the_plan_is_refused() -> None:
    with pytest.raises(DataError, match=r"synthetic: the plan contains no image 'query/0099_c1s1_000001_00\.jpg'"):
        SyntheticSource(SMALL).read("query/0099_c1s1_000001_00.jpg")


def test_every_image_has_its_parts() -> None:
    source = SyntheticSource(SMALL)
    for name in source.list_images().name[::9]:
        assert source.read_parts(name).shape == (SMALL.height, SMALL.width)
        assert source.read_parts(name).max() <= 3
    with pytest.raises(DataError, match="the plan contains no image 'query/none'"):
        source.read_parts("query/none")


def test_facts_rebuild_the_plan() -> None:
    source = SyntheticSource(SMALL, dataset="people")
    assert source.dataset == "people"
    plan = source.facts["plan"]
    assert isinstance(plan, dict)
    assert SyntheticPlan(**plan) == SMALL


# Determinism


def test_a_fresh_process_draws_the_same_bytes() -> None:
    code = "from tests.data.drawing.test_synthetic import SMALL, digest; print(digest(SMALL))"
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
    )
    assert there.stdout.strip() == digest(SMALL)


def test_order_and_threads_do_not_matter() -> None:
    names = SyntheticSource(SMALL).list_images().name
    in_order = {name: SyntheticSource(SMALL).read(name) for name in names}
    source = SyntheticSource(SMALL)
    with ThreadPoolExecutor(8) as pool:
        together = dict(zip(names[::-1], pool.map(source.read, names[::-1]), strict=True))
    assert together == in_order


def test_the_global_random_state_is_neither_used_nor_moved() -> None:
    source = SyntheticSource(SMALL)
    name = source.list_images().name[0]
    np.random.seed(1)
    first, after = source.read(name), np.random.random()
    np.random.seed(1)
    assert np.random.random() == after
    assert source.read(name) == first


def test_parts_of_a_plan_do_not_change_each_other() -> None:
    alone = SyntheticSource(SyntheticPlan(seed=3, train_persons=4, cameras=4))
    whole = SyntheticSource(SMALL)
    for name in alone.list_images().name[::5]:
        assert alone.read(name) == whole.read(name)


def test_another_seed_draws_other_persons() -> None:
    one, two = SyntheticSource(SMALL), SyntheticSource(replace(SMALL, seed=4, effects=False))
    plain = SyntheticSource(replace(SMALL, effects=False))
    names = sorted(set(plain.list_images().name) & set(two.list_images().name))[:20]
    assert len(names) == 20
    for name in names:
        difference = cv2.absdiff(decode(plain.read(name)), decode(two.read(name)))
        assert difference.mean() > 5
        assert one.read(name) != plain.read(name)


# Pixels


@pytest.mark.parametrize("size", [(128, 64), (256, 128), (64, 32), (97, 41)])
def test_images_have_the_size_asked_for(size: tuple[int, int]) -> None:
    source = SyntheticSource(replace(SMALL, height=size[0], width=size[1]))
    for name in source.list_images().name[::17]:
        assert decode(source.read(name)).shape == (*size, 3)


def test_a_larger_image_shows_the_same_picture() -> None:
    small = SyntheticSource(replace(SMALL, effects=False))
    large = SyntheticSource(replace(SMALL, effects=False, height=256, width=128))
    for name in small.list_images().name[::9]:
        halved = cv2.resize(decode(large.read(name)), (64, 128), interpolation=cv2.INTER_AREA)
        assert cv2.absdiff(decode(small.read(name)), halved).mean() < 4


def test_backgrounds_differ_between_cameras_and_move_along_a_track() -> None:
    source = SyntheticSource(SyntheticPlan(train_persons=12, cameras=6, shots=2))
    samples = source.list_images()
    corners: dict[Any, Any] = {}
    for index, name in enumerate(samples.name):
        image = decode(source.read(name)).astype(float)
        key = int(samples.person[index]), int(samples.camera[index])
        corners.setdefault(key, []).append(np.concatenate([image[:30, :10], image[:30, -10:]]))
    moved = [np.abs(first - second).mean() for first, second in corners.values()]
    assert np.median(moved) > 8
    means = {camera: [c[0].mean() for (_, at), c in corners.items() if at == camera] for camera in range(1, 7)}
    assert np.std([np.mean(values) for values in means.values()]) > 5


# Difficulty


def colour_histograms(images: list[NDArray[np.uint8]]) -> NDArray[np.float64]:
    """Square roots of 8 x 8 x 8 colour histograms of three stripes, so that products are Bhattacharyya's."""
    found = []
    for image in images:
        parts = []
        for stripe in np.array_split(image, 3):
            counts = cv2.calcHist([stripe], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel()
            parts.append(counts / (3 * counts.sum()))
        found.append(np.sqrt(np.concatenate(parts)))
    return np.stack(found).astype(np.float64)


def mean_average_precision(similarity: NDArray[np.float64], samples: Samples) -> float:
    """Market-1501's rule, written out."""
    query, gallery = rows(samples, "query"), rows(samples, "gallery")
    scores = []
    for row, index in zip(similarity, query, strict=True):
        same = samples.person[gallery] == samples.person[index]
        counts = ~(same & (samples.camera[gallery] == samples.camera[index])) & (samples.person[gallery] != JUNK)
        ranked = same[counts][np.argsort(-row[counts], kind="stable")]
        hits = np.flatnonzero(ranked)
        scores.append(np.mean([(found + 1) / (place + 1) for found, place in enumerate(hits)]))
    return float(np.mean(scores))


def histogram_scores(plan: SyntheticPlan) -> tuple[float, float]:
    """mAP of colour histograms, and of chance."""
    source = SyntheticSource(plan)
    samples = source.list_images()
    features = colour_histograms([decode(source.read(name)) for name in samples.name])
    query, gallery = rows(samples, "query"), rows(samples, "gallery")
    similarity = features[query] @ features[gallery].T
    noise = np.random.default_rng(0).random(similarity.shape)
    return mean_average_precision(similarity, samples), mean_average_precision(noise, samples)


def test_a_colour_histogram_is_above_chance_and_far_from_solving_it() -> None:
    score, chance = histogram_scores(SyntheticPlan(test_persons=60, cameras=6, shots=2))
    assert chance < 0.04
    assert 2.5 * chance < score < 0.35


def test_without_camera_effects_persons_can_be_told_apart() -> None:
    score, _ = histogram_scores(SyntheticPlan(test_persons=60, cameras=6, shots=2, effects=False))
    assert score > 0.95
