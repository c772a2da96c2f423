"""The probe without labels: which images it takes, what it counts, and that it changes nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lupctl.core.choices import Role
from lupctl.core.formats.pack.crops import CropFacts
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.stages.pretrain.tracklets import Sequences, pick_sequences, same_group
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import read_metrics
from tests.tools.tiny.images import TinyImages
from tests.tools.tiny.training import pretrain_job

CPU = torch.device("cpu")
QUIET = Progress(quiet=True)
BOX = (0.0, 0.0, 16.0, 32.0)
# Of a crop: video, person, frame.
Crop = tuple[int, int, int]
# Two persons for five frames in each of two videos, with the same numbers; and somebody who passes by.
FILMED: list[Crop] = [
    *((video, person, frame) for video in (1, 2) for person in (1, 2) for frame in range(0, 50, 10)),
    (1, 3, 7),
]


def write_crops(path: Path, images: list[bytes], crops: list[Crop], *, role: Role = "train") -> Pack:
    rows = [
        PackedImage(
            encoded, 32, 16, f"{video}/{frame:08d}_{number:04d}.jpg", person=person, role=role, camera=video,
            crop=CropFacts(frame, video, 0.9, BOX),
        )
        for number, (encoded, (video, person, frame)) in enumerate(zip(images, crops, strict=True))
    ]  # fmt: skip
    return open_pack(write_pack(path, sorted(rows, key=lambda row: row.name), dataset=path.stem))


def pick(*packs: Pack) -> Sequences | None:
    return pick_sequences(packs, np.arange(sum(map(len, packs))), seed=1)


def slow_share(features: np.ndarray, group: np.ndarray, place: np.ndarray) -> float:
    """One image after the other."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    right, counted = 0, 0
    for one in range(len(unit)):
        best, answer, answers = -2.0, -1, 0
        for other in range(len(unit)):
            if group[one] == group[other] and abs(place[one] - place[other]) <= 1:
                continue
            answers += int(group[one] == group[other])
            if unit[one] @ unit[other] > best:
                best, answer = float(unit[one] @ unit[other]), int(group[other])
        if answers:
            counted, right = counted + 1, right + int(answer == group[one])
    return right / counted


@pytest.mark.parametrize("seed", range(3))
def test_neighbours_are_counted_as_a_slow_loop_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    sizes = random.integers(3, 7, 60)
    group = np.repeat(np.arange(60), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    features = (random.normal(size=(60, 8))[group] + random.normal(size=(len(group), 8))).astype(np.float32)
    found = same_group(features, group, place, device=CPU)
    assert found == pytest.approx(slow_share(features, group, place))
    assert 0.05 < found < 0.95


def test_the_next_frames_are_no_candidates() -> None:
    """Neighbours in time are nearest; the others of the tracklet are further away than a stranger."""
    angle = np.array([0.0, 0.1, 2.0, 0.3])
    features = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert same_group(features, np.array([1, 1, 1, 2]), np.array([0, 1, 2, 0]), device=CPU) == 0
    # The middle one has no answer left, and a single image none at all: neither counts.
    far = np.array([0.0, 3.0, 0.2, 1.5])
    features = np.stack([np.cos(far), np.sin(far)], axis=1).astype(np.float32)
    assert same_group(features, np.array([1, 1, 1, 2]), np.array([0, 1, 2, 0]), device=CPU) == 1


def test_tracklets_of_videos(tmp_path: Path, tiny_images: TinyImages) -> None:
    """A person of two videos is two tracklets; of each the images are spread over its length, in order."""
    pack = write_crops(tmp_path / "a.h5", tiny_images(len(FILMED)), FILMED)
    found = pick(pack)
    assert found is not None
    assert found.kind == "tracklet"
    assert len(found.rows) == 16, "four of each; one image is no tracklet"
    frames = [int(pack.samples.name[row].split("/")[1].split("_")[0]) for row in found.rows]
    for number in np.unique(found.group):
        own = found.group == number
        rows = found.rows[own]
        assert len({(pack.samples.camera[row], pack.samples.person[row]) for row in rows}) == 1
        assert [frame for frame, is_own in zip(frames, own, strict=True) if is_own] == [0, 10, 30, 40]
        assert found.place[own].tolist() == [0, 1, 2, 3]


def test_videos_where_nobody_has_a_number(tmp_path: Path, tiny_images: TinyImages) -> None:
    crops = [(video, -1, frame) for video, _, frame in FILMED]
    one = write_crops(tmp_path / "a.h5", tiny_images(len(crops)), crops, role="unlabelled")
    two = write_crops(tmp_path / "b.h5", tiny_images(len(crops)), crops, role="unlabelled")
    found = pick(one, two)
    assert found is not None
    assert found.kind == "video"
    assert len(np.unique(found.group)) == 4, "videos of two packs are different ones"
    assert sorted(found.rows.tolist()) == list(range(2 * len(crops)))


def test_packs_that_know_neither(crowd: Path, labelled: Path, tmp_path: Path, tiny_images: TinyImages) -> None:
    assert pick(open_pack(crowd)) is None
    assert pick(open_pack(labelled)) is None, "persons of labelled images are for the labelled probe"
    alone = write_crops(tmp_path / "a.h5", tiny_images(5), [(1, 1, frame) for frame in range(5)])
    assert pick(alone) is None, "a single tracklet is always right"
    # Unlabelled images with numbers, but without videos: a person before a camera.
    rows = [
        PackedImage(encoded, 32, 16, f"{number:03d}.jpg", person=number // 4, camera=1)
        for number, encoded in enumerate(tiny_images(12))
    ]
    found = pick(open_pack(write_pack(tmp_path / "b.h5", rows, dataset="b")))
    assert found is not None
    assert (found.kind, len(found.rows)) == ("tracklet", 12)


def test_few_images_of_many_tracklets(tmp_path: Path, tiny_images: TinyImages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lupctl.core.stages.pretrain.tracklets.MOST_IMAGES", 8)
    pack = write_crops(tmp_path / "a.h5", tiny_images(len(FILMED)), FILMED)
    found = pick(pack)
    assert found is not None
    assert len(found.rows) == 8
    assert len({tuple(pick_sequences([pack], np.arange(len(pack)), seed=seed).rows) for seed in range(6)}) > 1  # type: ignore[union-attr]


def test_the_probe_changes_nothing(tmp_path: Path, tiny_images: TinyImages, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on where the pack knows tracklets; a damaged image does not end the run."""
    images = tiny_images(len(FILMED))
    images[3] = images[3][:20]
    pack = write_crops(tmp_path / "a.h5", images, FILMED)
    job = pretrain_job(pack.path, tmp_path / "run", "data.batch=8", "probe.every_epochs=1")
    facts = pretrain(job, QUIET)
    rows = [row for row in read_metrics(job.run) if "probe_tracklet" in row]
    assert [row["step"] for row in rows] == [0, 2, 4]
    assert all(0 <= row["probe_tracklet"] <= 1 for row in rows)
    assert facts["probe_tracklet"] == rows[-1]["probe_tracklet"]
    with monkeypatch.context() as patch:
        patch.setattr("lupctl.core.stages.pretrain.probe.pick_sequences", lambda *given, **more: None)
        plain = replace(job, run=tmp_path / "plain")
        assert "probe_tracklet" not in pretrain(plain, QUIET)
    one, other = ((run / "checkpoint.safetensors").read_bytes() for run in (job.run, plain.run))
    assert one == other
