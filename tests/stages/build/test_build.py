"""Building packs of crops: what is cut, what is left out and said, and that nothing depends on how it was run."""

import errno
import hashlib
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lupctl.core.formats.pack.crops import read_crops
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.stages.build.part import build_part
from tests.tools.shell import Ran, Shell
from tests.tools.tiny.images import decode_bgr
from tests.tools.tiny.videos import (
    Entry,
    luperson_frames,
    number_of,
    write_json,
    write_mot,
    write_pickle,
    write_pictures,
    write_video,
)

BOX = (40.0, 15.0, 90.0, 92.0)  # away from the frame's white corner
MAIN = "from lupctl.cli.app import main; main()"


def entries(*frames: int) -> list[Entry]:
    return [(frame, BOX) for frame in frames]


def frames_in(pack: Pack) -> dict[str, int]:
    """Which frame each crop really shows, by name."""
    return {name: number_of(decode_bgr(pack.read(row))) for row, name in enumerate(pack.samples.name)}


def hashes(path: Path) -> dict[str, str]:
    """SHA-256 of the file, or of each file in the folder."""
    files = sorted(path.glob("*")) if path.is_dir() else [path]
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def reasons(ran: Ran) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for entry in ran.json["quarantined"]:
        found.setdefault(entry["name"], []).append(entry["reason"])
    return found


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process takes longer than these videos do; tests that want several say --workers."""
    monkeypatch.setattr("lupctl.core.stages.build.run.pick_workers", lambda: 1)


@pytest.fixture
def streets() -> Path:
    """Four videos of 12 frames with LUPerson's names and boxes, in the current folder's `videos` and `dets`."""
    for name in ("cn+wuhan+aaaaaaaaaaa", "us+rome+-bbbbbbbbbb", "us+rome+ccccccccccc", "us+troy+ddddddddddd"):
        country, city, _ = name.split("+")
        write_video(Path("videos", country, city, f"{name}.mp4"))
        write_pickle(Path("dets", f"{name}.pkl"), luperson_frames(entries(1, 3, 3, 8)))
    return Path("dets")


BUILD = "data build luperson --videos videos --detections dets --json"


def test_luperson_counts_frames_from_one(lupctl: Shell, streets: Path) -> None:
    ran = lupctl(BUILD)
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["schema"] == "lupctl.build/1"
    assert (ran.json["videos"], ran.json["boxes"], ran.json["images"], ran.json["persons"]) == (4, 16, 16, 0)
    assert (ran.json["roles"]["unlabelled"], ran.json["cameras"], ran.json["quarantined"]) == (16, 0, [])
    pack = open_pack(Path(ran.json["path"]))
    shown = frames_in(pack)
    assert shown["us/rome/-bbbbbbbbbb/00000003_0001.jpg"] == 2
    assert all(shown[name] == int(name.split("/")[-1][:8]) - 1 for name in shown)
    assert len({name.rsplit("/", 1)[0] for name in shown}) == 4
    assert pack.samples.name == sorted(pack.samples.name)
    assert pack.size[0].tolist() == [77, 50]
    crops = read_crops(pack.path, hint="")
    assert crops is not None
    assert (crops[4].frame, crops[4].video, crops[4].box) == (1, 2, BOX)
    assert crops[4].score == pytest.approx(0.9)
    assert pack.record["terms"] != ""
    assert pack.record["source"]["cutting"]["rules"]["min_score"] == 0.72
    assert not list(Path("lup/packs").glob(".*"))


def test_luperson_nl_counts_from_zero_and_numbers_persons_over_all_videos(lupctl: Shell) -> None:
    for name, pid in (("us+rome+aaaaaaaaaaa", 700), ("us+rome+bbbbbbbbbbb", 12)):
        write_video(Path("videos", f"{name}.avi"))
        write_pickle(Path("dets", f"{name}.pkl"), luperson_frames(entries(0, 5), pid=pid))
    ran = lupctl("data build luperson-nl --videos videos --detections dets --json")
    assert ran.code == 0, ran.err
    assert (ran.json["images"], ran.json["persons"], ran.json["roles"]["train"]) == (4, 2, 4)
    pack = open_pack(Path(ran.json["path"]))
    assert pack.samples.person.tolist() == [700, 700, 12, 12]
    assert list(frames_in(pack).values()) == [0, 5, 0, 5]
    assert pack.samples.camera.tolist() == [-1] * 4


def test_persons_of_different_videos_are_different(lupctl: Shell) -> None:
    for name in ("hall", "yard"):
        write_video(Path("videos", f"{name}.avi"))
        write_mot(Path("dets", f"{name}.txt"), entries(1, 2, 2, 3), persons=[5, 5, 9, -1])
    ran = lupctl("data build own --videos videos --detections dets --format mot --json")
    assert ran.code == 0, ran.err
    pack = open_pack(Path(ran.json["path"]))
    assert pack.samples.role.tolist() == [0, 0, 1, 1, 1, 1, 1, 1]
    assert pack.samples.person.tolist() == [-1, -1, 1, 1, 2, 3, 3, 4]
    assert pack.samples.camera.tolist() == [1, 2, 1, 1, 1, 2, 2, 2]
    assert list(frames_in(pack).values()) == [2, 2, 0, 1, 1, 0, 1, 1]
    ran = lupctl(
        "data build own --videos videos --detections dets --format mot --global-ids --cameras none --json --force"
    )
    pack = open_pack(Path(ran.json["path"]))
    assert pack.samples.person.tolist() == [-1, -1, 5, 5, 9, 5, 5, 9]
    assert pack.samples.camera.tolist() == [-1] * 8


def test_sequences_of_pictures(lupctl: Shell) -> None:
    write_pictures(Path("set/A/img1"), [1, 2, 4])
    write_mot(Path("set/A/gt/gt.txt"), entries(1, 2, 3, 4, 9))
    ran = lupctl("data build own --videos set --detections set --format mot --json")
    assert ran.code == 0, ran.err
    assert list(frames_in(open_pack(Path(ran.json["path"]))).items()) == [
        ("A/00000001_0000.jpg", 0), ("A/00000002_0000.jpg", 1), ("A/00000004_0000.jpg", 3),
    ]  # fmt: skip
    assert reasons(ran) == {
        "A": [
            "1 box in frames that cannot be read (frame 3)",
            "1 box in frames 9 to 9 without a picture: it ends with frame 4",
        ]
    }
    assert ran.json["dropped"] == {"unreadable frame": 1, "behind the end": 1}
    assert lupctl("data verify own --deep --json").json["sound"]


def test_coco_of_videos_and_of_pictures(lupctl: Shell) -> None:
    write_video(Path("videos/a.avi"))
    write_pictures(Path("videos/b"), [0, 1, 2], first=0)
    images = [{"id": 1, "file_name": "b/000001.png"}, {"id": 2, "file_name": "b/000002.png"}]
    boxes = [{"image_id": image, "bbox": [40, 20, 30, 60]} for image in (1, 2)]
    write_json(Path("b.json"), {"images": images, "annotations": boxes})
    ran = lupctl("data build own --videos videos/b --detections b.json --json")
    assert list(frames_in(open_pack(Path(ran.json["path"]))).values()) == [1, 2]
    ran = lupctl("data build own2 --videos videos/a.avi --detections b.json --json")
    assert ran.code == 3
    assert "its boxes are for picture files, but it is a video file" in ran.err
    write_json(Path("a.json"), [{"image_id": 4, "bbox": [40, 20, 30, 60]}])
    ran = lupctl("data build own3 --videos videos/a.avi --detections a.json --json")
    assert list(frames_in(open_pack(Path(ran.json["path"]))).values()) == [4]
    ran = lupctl("data build own4 --videos videos/a.avi --detections a.json --first-frame 1 --json")
    assert list(frames_in(open_pack(Path(ran.json["path"]))).values()) == [3]


def test_one_pickle_of_many_videos(lupctl: Shell, streets: Path) -> None:
    whole = lupctl(BUILD).json["fingerprint"]
    content = {path.stem: luperson_frames(entries(1, 3, 3, 8)) for path in streets.iterdir()}
    write_pickle(Path("dets.pkl"), content)
    ran = lupctl("data build luperson --videos videos --detections dets.pkl --json --out one.h5 --workers 2")
    assert ran.json["fingerprint"] == whole


def test_filters_and_every_frame(lupctl: Shell) -> None:
    write_video(Path("v/a.avi"))
    narrow = [(frame, (40.0, 20.0, 60.0, 90.0)) for frame in range(1, 13)]
    write_pickle(Path("a.pkl"), luperson_frames([*entries(*range(1, 13)), *narrow]))
    line = "data build luperson --videos v --detections a.pkl --json"
    ran = lupctl(f"{line} --every 5")
    assert (ran.json["boxes"], ran.json["images"]) == (24, 3)
    assert ran.json["dropped"] == {"width": 12, "other frame": 9}
    assert list(frames_in(open_pack(Path(ran.json["path"]))).values()) == [0, 5, 10]
    assert lupctl(f"{line} --filters none --out all.h5").json["images"] == 24
    ran = lupctl(f"{line} --min-score 0.95 --out none.h5")
    assert ran.code == 3
    assert "no crops from 24 boxes in 1 video (score 24)" in ran.err


def test_whatever_is_wrong_is_counted_and_named(lupctl: Shell) -> None:
    nan = float("nan")
    for name in ("boxes", "short", "cut", "wrong", "nobody", "evil"):
        write_video(Path(f"v/{name}.avi"))
    whole = Path("v/cut.avi").read_bytes()
    Path("v/cut.avi").write_bytes(whole[: len(whole) * 8 // 10])
    Path("v/broken.mp4").write_bytes(b"not a video")
    write_video(Path("v/short.avi"), 12).with_suffix(".mkv").write_bytes(b"twin")
    boxes: list[Entry] = [
        *entries(1), (2, (50.0, 20.0, 50.0, 90.0)), (2, (90.0, 20.0, 50.0, 90.0)), (4, (0, nan, 5, 9)), (0, BOX),
        (5, (-60.0, 20.0, -1.0, 90.0)), (6, (-5.0, 20.0, 60.0, 90.0)),
    ]  # fmt: skip
    write_mot(Path("d/boxes.txt"), boxes)
    write_mot(Path("d/short.txt"), entries(1, 12, 13, 14, 14))
    write_mot(Path("d/cut.txt"), entries(1, 12))
    write_mot(Path("d/wrong.txt"), [(1, (100.0, 50.0, 200.0, 150.0))] * 2)
    write_mot(Path("d/broken.txt"), entries(1, 2))
    write_mot(Path("d/gone.txt"), entries(1))
    Path("d/evil.txt").write_text("import os")
    line = "data build own --videos v --detections d --format mot --json"
    ran = lupctl(line)
    assert ran.code == 0, ran.err
    (end,) = [int(reason.split("it ends with frame ")[1].split()[0]) for reason in reasons(ran)["cut"]]
    promise = "in its header (cut short?)"
    assert reasons(ran) == {
        "boxes": [
            "1 box not pixels of a video (frame 4)",
            "2 boxes empty or inverted (frame 2)",
            "1 box in frames before number 1, which is the first (frame 0)",
            "1 box completely outside (frame 5)",
        ],
        "broken": ["cannot be opened as a video"],
        "cut": [f"1 box in frames 12 to 12 without a picture: it ends with frame {end} of the 12 {promise}"],
        "evil": [next(reason for reason in reasons(ran)["evil"] if "not MOTChallenge text" in reason)],
        "gone": ["detections without a video"],
        "nobody": ["no detections"],
        "short": [
            "short.mkv has the same name as short.avi",
            "3 boxes in frames 13 to 14 without a picture: it ends with frame 12",
        ],
    }
    assert ran.json["dropped"] == {
        "not a number": 1, "empty": 2, "before the first frame": 1, "outside of the frame": 1, "behind the end": 4,
        "video left out": 2,
    }  # fmt: skip
    assert ran.json["boxes"] == ran.json["images"] + sum(ran.json["dropped"].values())
    assert (ran.json["images"], ran.json["clipped"]) == (7, 3)
    assert ran.json["warnings"] == [
        {"name": "boxes", "reason": "66.7 % of its 3 boxes leave the frame of 128 x 96: wrong stream?"},
        {"name": "wrong", "reason": "100.0 % of its 2 boxes leave the frame of 128 x 96: wrong stream?"},
    ]
    assert "warning: 11 problems with videos or detections: " in ran.err
    assert "warning: 2 videos may not fit the boxes: boxes: 66.7 %" in ran.err
    strict = lupctl(f"{line} --strict --out strict.h5")
    assert strict.code == 3
    assert "11 problems with videos or detections, and --strict is set: " in strict.err
    assert not Path("strict.h5").exists()
    assert lupctl(f"{line} --out strict.h5").json["fingerprint"] == ran.json["fingerprint"]


def test_frames_that_are_missing_inside_are_told(lupctl: Shell) -> None:
    """Four frames are cut out of the file, and the decoder says nothing: frame 9 then shows frame 13."""
    whole = write_video(Path("v/a.avi"), 14).read_bytes()
    chunks = [place.start() for place in re.finditer(rb"00dc", whole)]
    Path("v/a.avi").write_bytes(whole[: chunks[4]] + whole[chunks[8] :])
    write_mot(Path("a.txt"), entries(1, 9))
    ran = lupctl("data build own --videos v --detections a.txt --json")
    assert ran.code == 0, ran.err
    assert list(frames_in(open_pack(Path(ran.json["path"]))).values()) == [0, 12]
    assert ran.json["warnings"] == [
        {
            "name": "a",
            "reason": "10 of the 14 frames in its header: some are missing or the frame rate varies, so boxes "
            "may show another moment",
        }
    ]


def test_a_wrong_stream_of_luperson_is_left_out(lupctl: Shell, streets: Path) -> None:
    beyond = [(1, (100.0, 20.0, 160.0, 96.0)), *entries(*range(2, 11))]
    write_pickle(streets / "us+rome+ccccccccccc.pkl", luperson_frames(beyond))
    ran = lupctl(f"{BUILD} --filters none")
    assert reasons(ran) == {
        "us/rome/ccccccccccc": ["left out: 10.0 % of its 10 boxes leave the frame of 128 x 96: wrong stream?"]
    }
    assert (ran.json["images"], ran.json["dropped"]) == (12, {"video left out": 10})
    assert "warning: 1 problem with videos or detections: us/rome/ccccccccccc: left out: 10.0 %" in ran.err
    ran = lupctl(f"{BUILD} --filters none --max-outside 0.2 --force")
    assert (ran.json["images"], ran.json["clipped"], len(ran.json["warnings"])) == (22, 1, 1)


def test_a_pickle_that_wants_to_run_something(lupctl: Shell, streets: Path) -> None:
    (streets / "us+rome+ccccccccccc.pkl").write_bytes(b"cos\nmkdir\n(S'harm'\ntR.")
    ran = lupctl(BUILD)
    assert reasons(ran).keys() == {"us/rome/ccccccccccc"}
    assert "asks for os.mkdir" in reasons(ran)["us/rome/ccccccccccc"][0]
    assert (ran.json["images"], Path("harm").exists()) == (12, False)


def test_the_same_bytes_however_it_is_run(lupctl: Shell, streets: Path) -> None:
    line = f"{BUILD} --shard-bytes 3000"
    assert lupctl(f"{line} --workers 1").code == 0
    alone = hashes(Path("lup/packs/luperson"))
    assert len(alone) > 2
    shutil.rmtree("lup")
    assert lupctl(f"{line} --workers 2 --quiet").code == 0
    assert hashes(Path("lup/packs/luperson")) == alone
    shutil.rmtree("lup")
    first = lupctl(f"{line} --shard 2/3")
    assert (first.code, first.json["state"], first.json["videos_done"]) == (0, "partial", 1)
    assert not Path("lup/packs/luperson").exists()
    assert lupctl(f"{line} --shard=1/3").json["videos_done"] == 3
    last = lupctl(f"{line} --shard 3/3")
    assert (last.json["state"], last.json["images"]) == ("built", 16)
    assert hashes(Path("lup/packs/luperson")) == alone
    assert lupctl(f"{line} --shard 2/3").json["state"] == "up to date"


def test_a_pack_that_is_there(lupctl: Shell, streets: Path) -> None:
    first = lupctl(BUILD)
    again = lupctl(BUILD)
    assert (again.code, again.json["state"]) == (0, "up to date")
    assert again.err == "luperson: lup/packs/luperson.h5 is up to date\n"
    varying = {"state", "seconds"}
    assert {key: value for key, value in again.json.items() if key not in varying} == {
        key: value for key, value in first.json.items() if key not in varying
    }
    write_pickle(streets / "us+rome+ccccccccccc.pkl", luperson_frames(entries(1)))
    changed = lupctl(BUILD)
    assert changed.code == 2
    assert "luperson.h5: already exists and was made from other videos or in another way" in changed.err
    assert lupctl(f"{BUILD} --force").json["images"] == 13


def test_only_what_changed_is_done_again(lupctl: Shell, streets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lupctl.core.stages.build import workers

    lupctl(f"{BUILD} --shard 1/2")
    lupctl(f"{BUILD} --shard 1/2")  # nothing is left to do in it
    write_pickle(streets / "cn+wuhan+aaaaaaaaaaa.pkl", luperson_frames(entries(1)))
    done = []

    def note(task: Any, cutting: Any, *, check_stop: Any) -> Any:
        done.append(task.name)
        return build_part(task, cutting, check_stop=check_stop)

    monkeypatch.setattr(workers, "build_part", note)
    ran = lupctl(f"{BUILD} --workers 1")
    assert done == ["cn/wuhan/aaaaaaaaaaa", "us/rome/-bbbbbbbbbb", "us/troy/ddddddddddd"]
    assert "continuing after 1 video finished before" in ran.err
    assert ran.json["images"] == 13


SLOWED = """
import time
from lupctl.core.stages.build import assemble, part
from lupctl.core.formats.pack.write import PackWriter
cut, add = part.cut_crops, PackWriter.add
def cut_slowly(*given):
    for found in cut(*given):
        time.sleep({frame_s})
        yield found
def add_slowly(self, image):
    time.sleep({crop_s})
    add(self, image)
part.cut_crops, PackWriter.add = cut_slowly, add_slowly
"""


def start(line: str, *, frame_s: float = 0.0, crop_s: float = 0.0) -> subprocess.Popen[str]:
    code = SLOWED.format(frame_s=frame_s, crop_s=crop_s) + MAIN
    return subprocess.Popen([sys.executable, "-c", code, *line.split()], stderr=subprocess.PIPE, text=True)


def wait_for(pattern: str, running: "subprocess.Popen[str]") -> None:
    for _ in range(1200):
        if list(Path("lup/packs").glob(pattern)):
            return
        assert running.poll() is None, running.communicate()
        time.sleep(0.025)
    raise AssertionError(f"{pattern} did not come")


@pytest.mark.parametrize(
    ("pattern", "slow"),
    [
        (".luperson.build/*.json", {"frame_s": 0.1}),  # one video is done, the next is being cut
        (".luperson.part/00001.h5", {"crop_s": 0.1}),  # two shards are done, the third is being written
    ],
)
def test_a_killed_build_goes_on_to_the_same_bytes(
    lupctl: Shell, streets: Path, pattern: str, slow: dict[str, float]
) -> None:
    line = f"{BUILD} --shard-bytes 3000 --workers 1"
    lupctl(line)
    whole = hashes(Path("lup/packs/luperson"))
    shutil.rmtree("lup")
    running = start(line, **slow)
    wait_for(pattern, running)
    running.kill()
    running.communicate()
    assert not Path("lup/packs/luperson").exists()
    ran = lupctl(line)
    assert ran.code == 0, ran.err
    assert "continuing after" in ran.err
    assert hashes(Path("lup/packs/luperson")) == whole
    assert [path.name for path in Path("lup/packs").iterdir()] == ["luperson"]


@pytest.mark.parametrize(("number", "code", "workers"), [(signal.SIGTERM, 75, 1), (signal.SIGINT, 130, 1)])
def test_a_build_that_is_asked_to_stop(
    lupctl: Shell, streets: Path, number: signal.Signals, code: int, workers: int
) -> None:
    line = f"{BUILD} --workers {workers}"
    running = start(line, frame_s=0.1)
    wait_for(".luperson.build/*.json", running)
    running.send_signal(number)
    _, err = running.communicate(timeout=30)
    assert running.returncode == code
    assert "stopped on request after 1 of 4 videos; the build can be continued" in err
    assert "hint: type the same command again" in err
    assert lupctl(line).json["images"] == 16


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_stop_with_their_parent(lupctl: Shell, streets: Path, number: signal.Signals) -> None:
    line = f"{BUILD} --workers 2"
    for copy in range(12):
        shutil.copy("videos/us/rome/us+rome+ccccccccccc.mp4", f"videos/us+rome+{copy:011d}.mp4")
        shutil.copy("dets/us+rome+ccccccccccc.pkl", f"dets/us+rome+{copy:011d}.pkl")
    running = start(line)
    wait_for(".luperson.build/part-*", running)
    running.send_signal(number)
    running.communicate(timeout=30)  # returns when the last worker has let go of stderr
    assert running.returncode in (75, -signal.SIGKILL, 0)
    assert lupctl(line).json["images"] == 64


def test_a_full_disk_is_one_line(lupctl: Shell, streets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, image: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("lupctl.core.formats.pack.write_shard.ShardWriter.add", fail)
        ran = lupctl(f"{BUILD} --workers 1")
    assert ran.code == 3
    assert "the disk is full" in ran.err
    assert {path.name for path in Path("lup/packs/.luperson.build").iterdir()} == {"lock"}
    assert lupctl(BUILD).json["images"] == 16


def test_two_builds_of_one_pack_do_not_meet(lupctl: Shell, streets: Path) -> None:
    running = start(f"{BUILD} --workers 1", frame_s=0.2)
    wait_for(".luperson.build/part-*", running)
    ran = lupctl(BUILD)
    running.kill()
    running.communicate()
    assert ran.code == 3
    assert ran.err.splitlines()[-2:] == [
        "error: lup/packs/luperson.h5: another process is building it",
        "hint: wait until it is done, or stop it",
    ]


def test_tracklets_become_persons_over_all_videos(lupctl: Shell) -> None:
    pytest.importorskip("trackers", reason="needs lupctl[tracking]")
    for name in ("hall", "yard"):
        write_video(Path("v", f"{name}.avi"))
        write_mot(Path("d", f"{name}.txt"), [*entries(*range(1, 13)), (5, (0.0, 40.0, 9.0, 60.0))], persons=[-1] * 13)
    ran = lupctl("data build own --videos v --detections d --format mot --track --min-track 5 --every 3 --json")
    assert ran.code == 0, ran.err
    assert (ran.json["images"], ran.json["persons"]) == (6, 2)  # frames 4, 7 and 10; a tracklet begins with its second
    pack = open_pack(Path(ran.json["path"]))
    assert pack.samples.person.tolist() == [1, 1, 1, 2, 2, 2]
    assert list(frames_in(pack).values()) == [3, 6, 9] * 2
    assert ran.json["dropped"] == {"no tracklet": 4, "other frame": 16}


def test_a_detector_in_place_of_detections(lupctl: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from lupctl.core.stages.build import part

    class Stub:
        def find(self, pictures: list[Any]) -> list[dict[str, Any]]:
            found = {"box": np.array([BOX]), "score": np.array([0.9]), "keypoints": np.full((1, 17), np.nan)}
            return [found for _ in pictures]

    monkeypatch.setattr(part, "_load_detector", lambda kind, weights, device: Stub())
    write_video(Path("v/a.avi"))
    ran = lupctl("data build own --videos v --detector fasterrcnn --every 5 --json")
    assert ran.code == 0, ran.err
    assert list(frames_in(open_pack(Path(ran.json["path"]))).items()) == [
        ("a/00000000_0000.jpg", 0), ("a/00000005_0000.jpg", 5), ("a/00000010_0000.jpg", 10),
    ]  # fmt: skip


def test_a_detector_without_weights_ends_the_build(
    lupctl: Shell, streets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **more: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    ran = lupctl("data build own --videos videos --detector fasterrcnn-mobile")
    assert ran.code == 3
    error, hint = ran.err.splitlines()[-2:]
    assert error == "error: --detector fasterrcnn-mobile: its weights cannot be downloaded (no route to host)"
    assert hint.startswith("hint: download https://")


def test_what_would_be_built(lupctl: Shell, streets: Path) -> None:
    Path("dets/us+rome+ccccccccccc.pkl").unlink()
    ran = lupctl(f"{BUILD} --dry-run")
    assert ran.code == 0, ran.err
    assert (ran.json["schema"], ran.json["videos"], ran.json["done"]) == ("lupctl.build-plan/1", 3, 0)
    assert ran.json["left_out"] == ["us/rome/ccccccccccc: no detections"]
    assert not Path("lup").exists()


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("x --videos videos", 3, "lup/raw/x/detections: there are no detections"),
        ("x --videos videos --detections dets", 2, "dets: unclear format of detections"),
        ("luperson --videos videos --detections nowhere", 3, "nowhere: there are no such detections"),
        ("luperson --videos nowhere --detections dets", 3, "nowhere: there is no such folder of videos"),
        ("luperson", 3, "lup/raw/luperson/videos: there is no such folder of videos"),
        ("luperson --videos videos --detections dets --aspect 5:1", 2, "--aspect 5:1: smallest and largest"),
        ("luperson --videos videos --detections dets --shard 3/2", 2, "--shard 3/2: a job's number from 1"),
        ("luperson --videos videos --detections dets --min-track 5", 2, "--min-track filters tracklets"),
        ("luperson --videos videos --detections dets --detector fasterrcnn", 2, "--detector finds the boxes"),
        ("luperson --videos videos --detections dets --detector-weights a", 2, "--detector-weights needs a detector"),
        ("x --videos videos --detector fasterrcnn --detector-weights a", 2, "--detector-weights a: there is no such"),
        ("../x --videos videos --detections dets", 2, "'../x' is not a valid dataset name"),
        ("luperson --videos videos --detections dets --out a.hdf", 2, "a.hdf: the name of a pack must end in .h5"),
        ("luperson-nl --videos videos --detections dets", 3, "has no pid; this is LUPerson, whose frames start at 1"),
        ("luperson --videos videos/cn --detections dets/us+troy+ddddddddddd.pkl", 0, ""),
        ("luperson --videos videos --detections dets/us+troy+ddddddddddd.pkl", 3, "has the boxes of one video, but"),
    ],
)
def test_commands_that_cannot_be(lupctl: Shell, streets: Path, line: str, code: int, message: str) -> None:
    ran = lupctl(f"data build {line}")
    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert code == 0 or ran.err.splitlines()[-1].startswith("hint: ")


def test_names_that_fit_nothing(lupctl: Shell) -> None:
    write_video(Path("v/a.avi"))
    write_mot(Path("d/b.txt"), entries(1))
    ran = lupctl("data build own --videos v --detections d --format mot")
    assert ran.code == 3
    assert "d: none of its 1 files or entries (b) has the name of one of the 1 videos (a)" in ran.err
    write_video(Path("v/a/x.avi"))
    assert (
        "is in a folder with the same name as the video a"
        in lupctl("data build own --videos v --detections d --format mot").err
    )


def test_missing_packages_are_one_line(lupctl: Shell, streets: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for option, extra in (("--track", "tracking"), ("--executor ray", "cluster")):
        ran = lupctl(f"{BUILD} {option}")
        assert ran.code == 2
        assert ran.err.splitlines()[-1] == f"hint: pip install 'lupctl[{extra}]'"


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_bytes(lupctl: Shell, streets: Path) -> None:
    ray = pytest.importorskip("ray", reason="needs lupctl[cluster]")
    assert lupctl(BUILD).code == 0
    alone = hashes(Path("lup/packs/luperson.h5"))
    shutil.rmtree("lup")
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        ran = lupctl(f"{BUILD} --executor ray")
    finally:
        ray.shutdown()
    assert ran.code == 0, ran.err
    assert hashes(Path("lup/packs/luperson.h5")) == alone


@pytest.mark.real
def test_a_real_video(lupctl: Shell, real_data: Path) -> None:
    root = real_data / "pets09-s2l1"
    ran = lupctl(f"data build pets09 --videos {root} --detections {root}/gt/gt.txt --format mot --json")
    assert ran.code == 0, ran.err
    assert (ran.json["images"], ran.json["persons"], ran.json["clipped"]) == (4650, 19, 20)
    assert (ran.json["quarantined"], ran.json["dropped"], ran.json["warnings"]) == ([], {}, [])
    pack = open_pack(Path(ran.json["path"]))
    assert pack.samples.name[0] == "pets09-s2l1/00000001_0000.jpg"
    assert json.loads(lupctl("data verify pets09 --deep --json").out)["sound"]
