"""From videos to crops: which frame, which pixels, which boxes; tracklets; detectors."""

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lupctl.core.data.video.boxes import are_inside, build_boxes, clip_boxes, round_boxes
from lupctl.core.data.video.crops import Crop, Missed, cut_crops
from lupctl.core.data.video.filters import PUBLISHED, FilterRules, drop_unwanted, pick_filters
from lupctl.core.data.video.frames import VideoFile, open_frames
from lupctl.core.data.video.stream_check import describe_misfit, outside_share
from lupctl.core.data.video.tracking import drop_short, link_tracklets
from lupctl.core.errors import DataError, FormatError
from tests.tools.tiny.images import decode_bgr
from tests.tools.tiny.videos import HEIGHT, WIDTH, draw_frame, number_of, write_pictures, write_video


@pytest.mark.parametrize("name", ["a.avi", "a.mp4"])
def test_wanted_frames_are_the_right_ones(tmp_path: Path, name: str) -> None:
    frames = open_frames(write_video(tmp_path / name, 12))
    assert (frames.height, frames.width, frames.promised, frames.rate) == (HEIGHT, WIDTH, 12, 10)
    found = [(number, number_of(picture)) for number, picture in frames.pictures([0, 1, 5, 11]) if picture is not None]
    assert found == [(0, 0), (1, 1), (5, 5), (11, 11)]
    assert frames.passed == 12
    frames.close()


def test_frames_are_passed_once_and_only_the_wanted_ones_become_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    class Counted:
        def __init__(self, capture: cv2.VideoCapture) -> None:
            self.capture = capture

        def __getattr__(self, name: str) -> object:
            calls.append(name)
            return getattr(self.capture, name)

    frames = VideoFile(write_video(tmp_path / "a.avi", 12))
    monkeypatch.setattr(frames, "_capture", Counted(frames._capture))
    assert [number for number, _ in frames.pictures([3, 9])] == [3, 9]
    assert (calls.count("grab"), calls.count("retrieve"), calls.count("set"), calls.count("read")) == (9, 2, 0, 0)


def test_a_video_that_ends_early_says_how_far_it_came(tmp_path: Path) -> None:
    whole = write_video(tmp_path / "a.avi", 12).read_bytes()
    (tmp_path / "cut.avi").write_bytes(whole[: len(whole) * 8 // 10])
    frames = open_frames(tmp_path / "cut.avi")
    found = [number for number, picture in frames.pictures(range(12)) if picture is not None]
    assert found == list(range(frames.passed))
    assert 3 <= frames.passed < 10
    assert frames.promised == 12


@pytest.mark.parametrize("content", [b"", b"no video at all", b"\x00\x00\x00\x18ftypmp42" + bytes(200)])
def test_what_is_no_video(tmp_path: Path, capfd: pytest.CaptureFixture[str], content: bytes) -> None:
    (tmp_path / "a.mp4").write_bytes(content)
    with pytest.raises(DataError, match=r"a.mp4: cannot be opened as a video"):
        open_frames(tmp_path / "a.mp4")
    assert capfd.readouterr().err == ""


def test_a_folder_of_pictures_counts_by_names(tmp_path: Path) -> None:
    frames = open_frames(write_pictures(tmp_path / "a", [1, 2, 4]))
    found = [(number, None if picture is None else number_of(picture)) for number, picture in frames.pictures(range(9))]
    assert found == [(0, 0), (1, 1), (2, None), (3, 3)]
    assert (frames.promised, frames.passed, frames.first_name) == (4, 4, 1)
    from_zero = open_frames(write_pictures(tmp_path / "b", [0, 1], first=0))
    assert [number for number, _ in from_zero.pictures(range(9))] == [0, 1]
    assert from_zero.first_name == 0


def test_pictures_without_numbers_of_their_own_count_in_order(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for number, name in enumerate(["left.png", "right.png"]):
        cv2.imwrite(str(tmp_path / "a" / name), draw_frame(number))
    frames = open_frames(tmp_path / "a")
    assert [number_of(picture) for _, picture in frames.pictures(range(9)) if picture is not None] == [0, 1]


def test_a_picture_that_does_not_decode_is_a_frame_without_pixels(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "a", [1, 2])
    (folder / "000002.png").write_bytes(b"none")
    assert [picture is None for _, picture in open_frames(folder).pictures(range(2))] == [False, True]
    (folder / "000001.png").write_bytes(b"none")
    with pytest.raises(DataError, match=r"000001.png: does not decode"):
        open_frames(folder)


def test_rounding_is_half_to_even_then_cut_at_the_edges() -> None:
    rounded = round_boxes(np.array([[0.5, 1.5, 2.5, 3.5], [-3.4, -0.5, 200.0, 95.51]]))
    assert rounded.tolist() == [[0, 2, 2, 4], [-3, 0, 200, 96]]
    assert clip_boxes(rounded, height=HEIGHT, width=WIDTH).tolist() == [[0, 2, 2, 4], [0, 0, 128, 96]]


@given(
    st.lists(st.tuples(*[st.floats(-300, 300, width=32)] * 4), min_size=1, max_size=20),
    st.integers(1, 200),
    st.integers(1, 200),
)
def test_clipped_boxes_lie_inside_and_boxes_inside_stay(
    corners: list[tuple[float, float, float, float]], height: int, width: int
) -> None:
    box = np.array(corners, np.float64)
    rounded = round_boxes(box)
    clipped = clip_boxes(rounded, height=height, width=width)
    assert ((clipped >= 0) & (clipped <= [width, height, width, height])).all()
    ordered = (box[:, 2:] >= box[:, :2]).all(axis=1)
    inside = are_inside(box, height=height, width=width) & ordered
    assert (clipped[inside] == rounded[inside]).all()


def test_crops_are_rows_y_and_columns_x_of_their_frame(tmp_path: Path) -> None:
    boxes = build_boxes(
        [1, 1, 3, 3],
        [[0.4, 0.4, 15.6, 20.5], [40.0, 30.0, 60.0, 90.0], [-20.0, -5.0, 8.0, 40.0], [200.0, 0.0, 220.0, 50.0]],
    )
    (first, second) = cut_crops(open_frames(write_video(tmp_path / "a.avi", 5)), boxes, boxes.frame)
    cut, plain, clipped, gone = [*first, *second]
    assert isinstance(cut, Crop)
    assert (cut.row, cut.height, cut.width) == (0, 20, 16)
    pixels = cv2.imdecode(np.frombuffer(cut.encoded, np.uint8), cv2.IMREAD_COLOR)
    assert pixels is not None
    assert pixels.shape == (20, 16, 3)
    assert pixels[:14].mean() > 240  # the white square at the left top
    assert pixels[17:].mean() < 70
    assert isinstance(plain, Crop)
    assert (plain.height, plain.width) == (60, 20)
    assert number_of(decode_bgr(plain.encoded)) == 1
    assert isinstance(clipped, Crop)
    assert (clipped.row, clipped.height, clipped.width) == (2, 40, 8)
    assert gone == Missed(3, "outside")


def test_a_crop_is_a_jpeg_of_quality_95(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "a", [1])
    boxes = build_boxes([0], [[0, 0, 64, 64]])
    ((cut,),) = cut_crops(open_frames(folder), boxes, boxes.frame)
    assert isinstance(cut, Crop)
    expected = cv2.imencode(".jpg", draw_frame(0)[:64, :64], [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()
    assert cut.encoded == expected


def test_published_filters() -> None:
    box = [[0, 0, 50, 100], [0, 0, 50, 100], [0, 0, 48, 100], [0, 0, 49, 73], [0, 0, 50, 250], [0, 0, 50, 251]]
    score = [0.9, 0.72, 0.9, 0.9, 0.9, 0.9]
    kept, dropped = drop_unwanted(build_boxes(range(6), box, score=score), PUBLISHED)
    assert kept.frame.tolist() == [0, 4]
    assert dropped == {"score": 1, "width": 1, "aspect": 2}


def test_keypoints_that_have_to_be_seen() -> None:
    seen = np.ones((5, 17))
    seen[1, :5] = 0  # no head
    seen[2, 6] = 0  # one shoulder
    seen[3, 11:] = 0  # no legs
    seen[4, 12:] = 0  # one hip is enough
    kept, dropped = drop_unwanted(build_boxes(range(5), np.ones((5, 4)), keypoints=seen), FilterRules(min_keypoint=0.5))
    assert (kept.frame.tolist(), dropped) == ([0, 4], {"keypoints": 3})


def test_filters_that_cannot_judge_say_so() -> None:
    boxes = build_boxes([0], [[0, 0, 50, 100]])
    with pytest.raises(DataError, match="its boxes have no scores, so --min-score cannot be applied"):
        drop_unwanted(boxes, PUBLISHED)
    with pytest.raises(DataError, match="no keypoint scores"):
        drop_unwanted(boxes, FilterRules(min_keypoint=0.1))


def test_which_filters_are_the_default() -> None:
    assert pick_filters(None, "luperson") == pick_filters(None, None) == PUBLISHED
    assert pick_filters(None, "mot") == pick_filters(None, "luperson-nl") == pick_filters(None, "coco") == FilterRules()
    assert pick_filters("none", "luperson") == FilterRules()
    assert pick_filters("published", "mot") == PUBLISHED


def test_boxes_of_another_stream_are_told() -> None:
    fine = build_boxes(range(40), [[600, 200, 640, 360]] * 40)
    assert describe_misfit(fine, height=360, width=640) == ""
    assert outside_share(fine, height=360, width=640) == 0
    few = build_boxes(range(40), [[600, 200, 640, 360]] * 38 + [[600, 200, 641, 360]] * 2)
    assert describe_misfit(few, height=360, width=640) == ""
    assert outside_share(few, height=360, width=640) == pytest.approx(0.05)
    large = build_boxes(range(4), [[1000, 200, 1040, 360], [0, 0, 9, 9]] * 2)
    assert describe_misfit(large, height=360, width=640) == (
        "50.0 % of its 4 boxes leave the frame of 640 x 360: wrong stream?"
    )
    assert describe_misfit(fine, height=1080, width=1920) == (
        "its 40 boxes reach no further than 640 x 360 of 1920 x 1080 pixels: was a smaller stream used for them?"
    )
    assert describe_misfit(build_boxes([], []), height=1, width=1) == ""


def walkers(frames: int, *, gap: range = range(0)) -> tuple[list[int], list[list[float]], list[int]]:
    """Two people who walk past each other in two lanes; the first is not seen in some frames."""
    frame, box, person = list[int](), list[list[float]](), list[int]()
    for number in range(frames):
        for who, left, top in ((1, 10 + 4 * number, 10), (2, 300 - 4 * number, 200)):
            if who == 1 and number in gap:
                continue
            frame.append(number)
            box.append([left, top, left + 40, top + 100])
            person.append(who)
    return frame, box, person


def test_tracklets_are_the_persons() -> None:
    pytest.importorskip("trackers", reason="needs lupctl[tracking]")
    frame, box, person = walkers(40, gap=range(15, 20))
    linked = link_tracklets(build_boxes(frame, box), rate=10)
    assert linked.frame.tolist() == sorted(frame)
    truth = build_boxes(frame, box, person=person).person
    known = linked.person > 0
    assert known.mean() > 0.9
    pairs = set(zip(linked.person[known].tolist(), truth[known].tolist(), strict=True))
    assert sorted(tracklet for tracklet, _ in pairs) == [1, 2]
    assert {who for _, who in pairs} == {1, 2}


def test_a_tracklet_ends_where_nobody_is_seen_for_long() -> None:
    pytest.importorskip("trackers", reason="needs lupctl[tracking]")
    frame = [*range(10), *range(10**9, 10**9 + 10)]  # the gap is not stepped through to its end
    linked = link_tracklets(build_boxes(frame, [[0, 0, 40, 100]] * 20), rate=10)
    assert len(set(linked.person[:10].tolist()) & set(linked.person[10:].tolist()) - {-1}) == 0
    assert link_tracklets(build_boxes([], []), rate=0).person.tolist() == []


def test_short_tracklets_are_left_out() -> None:
    boxes = build_boxes(range(6), np.ones((6, 4)), person=[1, 1, 1, 2, -1, 1])
    kept, dropped = drop_short(boxes, min_frames=2)
    assert (kept.person.tolist(), dropped) == ([1, 1, 1, 1], {"no tracklet": 1, "short tracklet": 1})
    assert drop_short(kept, min_frames=4)[1] == {}


@pytest.mark.real
def test_tracklets_of_a_real_video_hold_one_person_each(real_data: Path) -> None:
    pytest.importorskip("trackers", reason="needs lupctl[tracking]")
    from lupctl.core.data.video.mot import read_mot

    boxes = read_mot(real_data / "pets09-s2l1" / "gt" / "gt.txt")
    linked = link_tracklets(replace(boxes, person=np.full(len(boxes), -1)), rate=10)
    known = linked.person > 0
    counts = np.zeros((linked.person.max() + 1, 20), int)
    np.add.at(counts, (linked.person[known], boxes.person[known]), 1)
    assert known.mean() > 0.99
    assert counts.max(axis=1).sum() / known.sum() > 0.99


@pytest.mark.slow
def test_weights_of_a_detector(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch
    import torchvision

    from lupctl.core.data.video.detector import PersonDetector, detect_boxes

    torch.manual_seed(0)
    network = torchvision.models.detection.fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=2
    )
    torch.save({"model": network.state_dict()}, tmp_path / "two.pth")
    detector = PersonDetector("fasterrcnn-mobile", weights=tmp_path / "two.pth", device="cpu")
    boxes = detect_boxes(open_frames(write_video(tmp_path / "a.avi", 6)), detector, every=5, check_stop=lambda: None)
    assert set(boxes.frame.tolist()) == {0, 5}  # an untrained one finds something everywhere
    assert boxes.score.min() > 0
    assert are_inside(boxes.box, height=HEIGHT, width=WIDTH).all()
    with pytest.raises(FormatError, match=r"two.pth: not weights of torchvision's fasterrcnn_resnet50_fpn_v2"):
        PersonDetector("fasterrcnn", weights=tmp_path / "two.pth", device="cpu")
    (tmp_path / "none.safetensors").write_bytes(b"none")
    with pytest.raises(FormatError, match=r"none.safetensors: not a complete safetensors file"):
        PersonDetector("fasterrcnn-mobile", weights=tmp_path / "none.safetensors")

    def no_network(*args: object, **more: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    with pytest.raises(DataError, match=r"its weights cannot be downloaded .no route to host") as told:
        PersonDetector("fasterrcnn-mobile", device="cpu")
    assert told.value.hint.startswith("download https://")
    assert told.value.hint.endswith("then add --detector-weights FILE")


def test_a_detector_gives_persons_and_their_keypoints(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from lupctl.core.data.video import detector as module

    seen: list[torch.Tensor] = []

    class Stub(torch.nn.Module):
        def forward(self, batch: list[torch.Tensor]) -> list[dict[str, torch.Tensor]]:
            seen.extend(batch)
            return [
                {
                    "boxes": torch.tensor([[0.0, 1, 2, 3], [4, 5, 6, 7]]), "labels": torch.tensor([1, 3]),
                    "scores": torch.tensor([0.5, 0.9]), "keypoints_scores": torch.arange(34.0).reshape(2, 17),
                }
                for _ in batch
            ]  # fmt: skip

    monkeypatch.setattr(module, "_build_published", lambda kind: Stub())
    made = module.PersonDetector("keypointrcnn", device="cpu")
    picture = np.zeros((4, 6, 3), np.uint8)
    picture[..., 0] = 255  # blue
    (found,) = made.find([picture])
    assert (found["box"].tolist(), found["score"].tolist()) == ([[0, 1, 2, 3]], [0.5])
    assert found["keypoints"].tolist() == [list(range(17))]
    assert seen[0].shape == (3, 4, 6)
    assert seen[0].amax(dim=(1, 2)).tolist() == [0, 0, 1]
