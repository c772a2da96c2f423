"""Building crops of a real video against opening it and seeking to each frame that has boxes.

Example: LUPCTL_REAL_DATA=../shared/data python tests/benchmarks/build_speed.py

Seeking is what LUPerson's script does: one capture, `set(CAP_PROP_POS_FRAMES)` and `read` for each frame with boxes,
then the same rounding and JPEG encoding, each crop into a file of its own. With --reopen it opens the video for each
frame. The build is the whole command's work: reading the detections, one pass over the video, the part, and the pack.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from lupctl.core.data.video.boxes import clip_boxes, round_boxes
from lupctl.core.data.video.mot import read_mot
from lupctl.core.stages.build.job import BuildJob, Cutting
from lupctl.core.stages.build.run import build
from lupctl.core.system.progress.lines import Progress


def seek_to_each(video: Path, detections: Path, out: Path, *, reopen: bool, most_frames: int) -> tuple[int, int]:
    """Numbers of frames and crops, of at most `most_frames` frames with boxes at even distances."""
    boxes = read_mot(detections)
    corners = round_boxes(boxes.box)
    capture = cv2.VideoCapture(str(video))
    num_crops = 0
    frames = np.unique(boxes.frame)
    if len(frames) > most_frames:
        frames = frames[np.linspace(0, len(frames) - 1, most_frames).round().astype(int)]
    for frame in frames.tolist():
        if reopen:
            capture = cv2.VideoCapture(str(video))
        capture.set(cv2.CAP_PROP_POS_FRAMES, frame - 1)
        done, picture = capture.read()
        assert done
        height, width = picture.shape[:2]
        inside = clip_boxes(corners[boxes.frame == frame], height=height, width=width)
        for number, (left, top, right, bottom) in enumerate(inside.tolist()):
            cv2.imwrite(str(out / f"{frame:08d}_{number:04d}.jpg"), picture[top:bottom, left:right])
            num_crops += 1
    return len(frames), num_crops


def seconds_of(work: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    work()
    return time.perf_counter() - started_at


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reopen", action="store_true", help="open the video anew for each frame")
    parser.add_argument(
        "--frames", type=int, default=10**9, help="seek to so many frames only, at even distances, and scale the time"
    )
    args = parser.parse_args()
    root = Path(os.environ["LUPCTL_REAL_DATA"], "pets09-s2l1")
    video, detections = root / "pets09-s2l1.avi", root / "gt" / "gt.txt"
    total = len(np.unique(read_mot(detections).frame))
    seeking, building = [], []
    with tempfile.TemporaryDirectory() as scratch:
        for number in range(args.rounds):
            out = Path(scratch, f"files{number}")
            out.mkdir()
            started_at = time.perf_counter()
            frames, crops = seek_to_each(video, detections, out, reopen=args.reopen, most_frames=args.frames)
            seeking.append((time.perf_counter() - started_at) * total / frames)
            pack = Path(scratch, f"{number}.h5")
            job = BuildJob("speed", root, detections, pack, Cutting(boxes_from="mot"))
            building.append(seconds_of(lambda job=job: build(job, Progress(quiet=True))))  # type: ignore[misc]
    print(f"{total} frames with boxes, {frames} sought ({crops:,} crops); seconds: best, median of {args.rounds}")
    for name, spent in (("seeking", seeking), ("build", building)):
        print(f"  {name:8} {min(spent):7.2f} {statistics.median(spent):7.2f}")
    best, median = min(seeking) / min(building), statistics.median(seeking) / statistics.median(building)
    print(f"  times    {best:7.1f} {median:7.1f}")


if __name__ == "__main__":
    main()
