"""Detections in each format, the names of videos, and which detections belong to which video."""

import os
import pickle
from pathlib import Path, PurePosixPath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lupctl.core.data.video.boxes import build_boxes
from lupctl.core.data.video.coco import read_coco
from lupctl.core.data.video.detections import read_detections, read_video_detections
from lupctl.core.data.video.listing import find_detections, find_videos, match_names, video_name
from lupctl.core.data.video.mot import read_mot
from lupctl.core.data.video.pickles import read_pickle
from lupctl.core.errors import DataError, FormatError
from tests.tools.tiny.videos import luperson_frames, write_json, write_mot, write_pickle, write_pictures

BOX = (10.0, 20.0, 40.0, 80.0)


def test_luperson_sample(tmp_path: Path) -> None:
    """The sample that https://github.com/DengpanFu/LUPerson/issues/8 shows."""
    info = {
        "bbox": np.array([618.625, 81.75, 1031.375, 709.25], np.float32), "conf": 0.9488,
        "pose": np.zeros((17, 2), np.float32), "prob": np.linspace(0, 1, 17, dtype=np.float32)[:, None],
    }  # fmt: skip
    found = read_pickle(write_pickle(tmp_path / "a.pkl", {1819: [[0, info]]}), "luperson")
    boxes = found[""]
    assert (boxes.frame.tolist(), boxes.index.tolist(), boxes.person.tolist()) == ([1819], [0], [-1])
    assert boxes.box.tolist() == [[618.625, 81.75, 1031.375, 709.25]]
    assert boxes.score[0] == np.float32(0.9488)
    assert boxes.keypoints[0, 8] == 0.5


def test_frames_of_a_pickle_are_sorted_and_keep_their_numbers(tmp_path: Path) -> None:
    content = {
        9: [[3, {"bbox": np.arange(4.0), "conf": 0.5}]],
        2: [[7, {"bbox": [1, 2, 3, 4]}], [5, {"bbox": [0] * 4}]],
    }
    boxes = read_pickle(write_pickle(tmp_path / "a.pkl", content), "luperson")[""]
    assert boxes.frame.tolist() == [2, 2, 9]
    assert boxes.index.tolist() == [7, 5, 3]
    assert np.isnan(boxes.score).tolist() == [True, True, False]
    assert np.isnan(boxes.keypoints).all()


def test_one_collection_is_not_taken_for_the_other(tmp_path: Path) -> None:
    """Their frames begin with 1 and with 0: one read as the other would cut every box from the next frame."""
    with_pid = write_pickle(tmp_path / "nl.pkl", luperson_frames([(0, BOX)], pid=7))
    without = write_pickle(tmp_path / "lup.pkl", luperson_frames([(1, BOX)]))
    assert read_pickle(with_pid, "luperson-nl")[""].person.tolist() == [7]
    with pytest.raises(FormatError, match="frame 0: has a pid; this is LUPerson-NL, whose frames start at 0") as told:
        read_pickle(with_pid, "luperson")
    assert told.value.hint == "--format luperson-nl"
    with pytest.raises(FormatError, match="frame 1: has no pid; this is LUPerson"):
        read_pickle(without, "luperson-nl")


def test_a_pickle_of_many_videos(tmp_path: Path) -> None:
    content = {"us+rome+abcdefghijk": luperson_frames([(1, BOX)]), "us+rome+-bcdefghijk.mp4": luperson_frames([])}
    path = write_pickle(tmp_path / "dets.pkl", content)
    found = read_detections(path, "luperson")
    assert {name: len(boxes) for name, boxes in found.items()} == {"us/rome/abcdefghijk": 1, "us/rome/-bcdefghijk": 0}
    assert len(read_video_detections(path, "luperson", "us/rome/abcdefghijk")) == 1
    with pytest.raises(DataError, match="contains 2 videos; us/rome/x is not among them"):
        read_video_detections(path, "luperson", "us/rome/x")


class Attack:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_a_pickle_that_wants_to_run_something_is_refused(tmp_path: Path) -> None:
    content = {1: [[0, {"bbox": Attack(tmp_path / "harm")}]]}
    with pytest.raises(DataError, match=r"posix.mkdir|nt.mkdir"):
        read_pickle(write_pickle(tmp_path / "a.pkl", content), "luperson")
    assert not (tmp_path / "harm").exists()
    assert pickle.loads((tmp_path / "a.pkl").read_bytes())  # it does what it wants where it is let
    assert (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "contains a list; a dict was expected"),
        ({1: [[0]]}, "frame 1 has an unexpected structure"),
        ({1: [[0, {"conf": 1}]]}, "frame 1 has an unexpected structure .'bbox'."),
        ({1: [[0, {"bbox": [1, 2, 3]}]]}, "a bbox of 3 numbers"),
        ({1: [[0, {"bbox": [1, 2, 3, 4], "prob": [1.0]}]]}, "prob of 1 keypoints"),
        ({"a": 5}, "a: contains a int; a dict by frame was expected"),
    ],
)
def test_pickles_of_another_layout(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_pickle(write_pickle(tmp_path / "a.pkl", content), "luperson")


def test_mot(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_bytes(
        b"\xef\xbb\xbf2,5,10.5,20,30,60,0,1.5,2,0\r\n1,-1,-3,0,10,20,0.5,-1,-1,-1\r\n2,7,1,1,2,2,1,0,0,0\r\n\r\n"
    )
    boxes = read_mot(path)
    assert boxes.frame.tolist() == [1, 2, 2]
    assert boxes.index.tolist() == [0, 0, 1]
    assert boxes.box.tolist() == [[-3, 0, 7, 20], [10.5, 20, 40.5, 80], [1, 1, 3, 3]]
    assert boxes.score.tolist() == [0.5, 0, 1]
    assert boxes.person.tolist() == [-1, 5, 7]
    assert boxes.left_out == {}


def test_mot_with_classes_keeps_pedestrians(tmp_path: Path) -> None:
    path = tmp_path / "gt.txt"
    path.write_text("1,1,0,0,5,9,1,1,0.8\n1,2,0,0,5,9,0,3,1\n2,3,0,0,5,9,0,7,1\n")
    boxes = read_mot(path)
    assert (boxes.person.tolist(), boxes.left_out) == ([1], {"other class": 2})


def test_mot_without_scores_and_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1,1,0,0,5,9\n")
    assert np.isnan(read_mot(tmp_path / "a.txt").score).all()
    (tmp_path / "b.txt").write_text("\n \n")
    assert len(read_mot(tmp_path / "b.txt")) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,1,0,0,5\n", "5 columns, at least 6"),
        ("1,1,0,0,5,9\n2,1,0,0,x,9\n", "not MOTChallenge text .*'x'"),
        ("1,1,0,0,5,9\n2,1,0,0,5\n", "not MOTChallenge text"),
        ("1,1,0,0,5,9\n2.5,1,0,0,5,9\n", "line 2: frame and id must be whole numbers"),
        ("1,1,0,0,5,9\nnan,1,0,0,5,9\n", "line 2: frame and id must be whole numbers"),
        ("1 1 0 0 5 9\n", "not MOTChallenge text"),
    ],
)
def test_mot_that_is_none(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(FormatError, match=message):
        read_mot(tmp_path / "a.txt")


def test_coco_with_videos(tmp_path: Path) -> None:
    content = {
        "categories": [{"id": 3, "name": "car"}, {"id": 8, "name": "Person"}],
        "videos": [{"id": 1, "name": "hall/a"}, {"id": 2, "name": "b.mp4"}, {"id": 3, "name": "c"}],
        "images": [
            {"id": 10, "video_id": 1, "frame_id": 4}, {"id": 11, "video_id": 1, "frame_id": 0},
            {"id": 12, "video_id": 2, "frame_id": 0},
        ],
        "annotations": [
            {"image_id": 10, "category_id": 8, "bbox": [1, 2, 3, 4], "track_id": 5, "score": 0.5},
            {"image_id": 10, "category_id": 3, "bbox": [1, 2, 3, 4]},
            {"image_id": 11, "category_id": 8, "bbox": [0, 0, 9, 9], "keypoints": [0, 0, 2] * 17},
        ],
    }  # fmt: skip
    found = read_detections(write_json(tmp_path / "a.json", content), "coco")
    assert {name: len(boxes) for name, boxes in found.items()} == {"hall/a": 2, "b": 0}
    boxes = found["hall/a"]
    assert (boxes.frame.tolist(), boxes.person.tolist(), boxes.left_out) == ([0, 4], [-1, 5], {"other class": 1})
    assert boxes.box.tolist() == [[0, 0, 9, 9], [1, 2, 4, 6]]
    assert boxes.keypoints[0].tolist() == [2.0] * 17
    assert not boxes.named_frames


def test_coco_of_picture_files(tmp_path: Path) -> None:
    content = {
        "images": [{"id": 1, "file_name": "a/img1/000003.jpg"}, {"id": 2, "file_name": "b/frame_12.png"}],
        "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}, {"image_id": 2, "bbox": [1, 2, 3, 4]}],
    }
    found = read_coco(write_json(tmp_path / "a.json", content))
    assert {name: (boxes.frame.tolist(), boxes.named_frames) for name, boxes in found.items()} == {
        "a": ([3], True), "b": ([12], True),
    }  # fmt: skip


def test_coco_results(tmp_path: Path) -> None:
    content = [
        {"image_id": 7, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.25},
        {"image_id": 7, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5},
    ]
    boxes = read_coco(write_json(tmp_path / "a.json", content))[""]
    assert (boxes.frame.tolist(), boxes.score.tolist(), boxes.left_out) == ([7], [0.25], {"other class": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"images": []}, "unexpected structure .KeyError: 'annotations'"),
        ({"images": [], "annotations": [{"image_id": 1, "bbox": [1, 2, 3, 4]}]}, "unexpected structure .KeyError: 1"),
        ({"images": [{"id": 1, "file_name": "a/b.jpg"}], "annotations": []}, "a/b.jpg has no number, and there is no"),
        ([{"image_id": 1, "bbox": [1, 2, 3]}], "unexpected structure"),
        ([{"image_id": 1, "bbox": [1, 2, 3, 4], "keypoints": [1, 2]}], "2 numbers for 17 keypoints"),
    ],
)
def test_coco_that_is_none(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_coco(write_json(tmp_path / "a.json", content))  # type: ignore[arg-type]
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(FormatError, match="not JSON"):
        read_coco(tmp_path / "b.json")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-1, 9)), max_size=30))
def test_boxes_are_sorted_by_frame_and_stay_in_order_within(rows: list[tuple[int, int]]) -> None:
    boxes = build_boxes([frame for frame, _ in rows], [[0, 0, 1, 1]] * len(rows), person=[person for _, person in rows])
    expected = sorted(rows, key=lambda row: row[0])
    assert list(zip(boxes.frame.tolist(), boxes.person.tolist(), strict=True)) == expected
    for frame in set(boxes.frame.tolist()):
        assert boxes.index[boxes.frame == frame].tolist() == list(range(int((boxes.frame == frame).sum())))


def test_frames_by_the_nanoseconds_of_a_clock() -> None:
    stamp = 1_723_456_789_012_345_678
    assert build_boxes([stamp + 1, stamp], [[0, 0, 1, 1]] * 2).frame.tolist() == [stamp, stamp + 1]
    for wrong in (2**63, 0.5, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="a frame that is no whole number of 64 bits"):
            build_boxes([wrong], [[0, 0, 1, 1]])


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def test_videos_below_a_folder(tmp_path: Path) -> None:
    touch(
        tmp_path, "us/rome/us+rome+-0UsgiQiPbY.mp4", "us/rome/us+rome+-0UsgiQiPbY.info.json", "a-b/x.AVI", "a/x.mkv",
        "a/thumbnail.jpg", ".hidden/y.mp4", "part.mp4.part", "straße/über.mp4",
    )  # fmt: skip
    write_pictures(tmp_path / "seq" / "img1", [1])
    write_pictures(tmp_path / "stills", [1])
    names = [video.name for video in find_videos(tmp_path)]
    assert names == ["a-b/x", "a/x", "seq", "stills", "straße/über", "us/rome/-0UsgiQiPbY"]
    assert [video.name for video in find_videos(tmp_path / "seq")] == ["seq"]
    (only,) = find_videos(tmp_path / "seq" / "img1")
    assert (only.name, only.path) == ("seq", tmp_path / "seq" / "img1")
    assert [video.name for video in find_videos(tmp_path / "a" / "x.mkv")] == ["x"]


def test_videos_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder of videos"):
        find_videos(tmp_path / "nowhere")
    touch(tmp_path, "readme.txt")
    with pytest.raises(DataError, match=r"contains no video .*no folder of pictures"):
        find_videos(tmp_path)


def test_a_folder_that_links_to_itself_is_walked_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "again").symlink_to(tmp_path, target_is_directory=True)
    assert [video.name for video in find_videos(tmp_path)] == ["a"]


def test_detections_below_a_folder(tmp_path: Path) -> None:
    touch(tmp_path, "us+rome+-0UsgiQiPbY.pkl", "cam/a.pkl", "readme.txt")
    assert set(find_detections(tmp_path, "luperson")) == {"us/rome/-0UsgiQiPbY", "cam/a"}
    with pytest.raises(DataError, match=r"contains no \*.json, which --format coco reads"):
        find_detections(tmp_path, "coco")
    touch(tmp_path, "us/rome/-0UsgiQiPbY.pkl")
    with pytest.raises(DataError, match="both belong to video us/rome/-0UsgiQiPbY"):
        find_detections(tmp_path, "luperson")


def test_ground_truth_of_sequences_is_taken_before_their_detections(tmp_path: Path) -> None:
    touch(tmp_path, "a/gt/gt.txt", "a/det/det.txt", "b/gt/gt.txt", "notes.txt")
    assert find_detections(tmp_path, "mot") == {"a": tmp_path / "a/gt/gt.txt", "b": tmp_path / "b/gt/gt.txt"}
    for name in "ab":
        (tmp_path / name / "gt/gt.txt").unlink()
    assert find_detections(tmp_path, "mot") == {"a": tmp_path / "a/det/det.txt"}
    (tmp_path / "a/det/det.txt").unlink()
    assert find_detections(tmp_path, "mot") == {"notes": tmp_path / "notes.txt"}


def test_names_are_matched_whole_then_by_their_last_part() -> None:
    assert match_names(["v/a", "w/a", "b"], ["a", "x/b"]) == {"b": "x/b"}  # two videos may be meant by a
    assert match_names(["v/a", "a"], ["a"]) == {"a": "a"}
    assert match_names([], ["a"]) == {}


def test_only_three_fields_are_a_place() -> None:
    assert video_name(PurePosixPath("x/a+b.mp4")) == "x/a+b"
    assert video_name(PurePosixPath("a+b+c+d.pkl")) == "a+b+c+d"
    assert video_name(PurePosixPath("a++c.pkl")) == "a++c"
    assert video_name(PurePosixPath("x/a+b+c.pkl")) == "a/b/c"


def test_a_mot_file_is_of_one_video(tmp_path: Path) -> None:
    path = write_mot(tmp_path / "a.txt", [(1, BOX)])
    assert read_video_detections(path, "mot", "whatever").box.tolist() == [list(BOX)]
