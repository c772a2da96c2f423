"""Boxes of frames through `LoadedNetwork.embed` beside forward passes over ready tensors; run on a quiet machine.

    python tests/benchmarks/embed_speed.py                 1,000 boxes of 125 frames, R50 (to reach: at least 0.90)
    python tests/benchmarks/embed_speed.py --each          the same, a frame at a time, as in a tracker

Eight boxes on each frame of 768 x 576 pixels, 60 to 300 pixels high; everything from the frames to features of unit
length, beside passes of 32 images, or of a frame's eight with `--each`. Both are measured in turns in one process, in
processor time of one thread (OMP_NUM_THREADS=1); the median of the rounds counts. A ratio of 0.9 means nine tenths of
the bare throughput.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

import lupctl
from lupctl.core.choices import ResNetArch
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.formats.weights.plan import NeckHead, NetworkPlan, ResNetPlan
from lupctl.core.ranking.retrieval.extract import Encoder
from lupctl.core.recipes.sections import Pixels
from lupctl.core.training.nets.build import build_network

FRAME = (576, 768)
PER_FRAME = 8
BATCH = 32


def open_random(folder: Path, arch: ResNetArch, width: int, height: int) -> lupctl.LoadedNetwork:
    """A network of random weights for images twice as high as wide."""
    trunk = ResNetPlan(kind="resnet", arch=arch, width=width, last_stride=1, ibn=False)
    plan = NetworkPlan(trunk=trunk, pooling="avg", head=NeckHead(kind="bnneck", classes=2))
    header = CheckpointHeader(
        stage="finetune", command=(), recipe=None, network=plan, classes=(), parents={}, data=(),
        preprocessing=describe_pixels(Pixels(height=height, width=height // 2)),
    )  # fmt: skip
    write_checkpoint(folder / "net.safetensors", build_network(plan).state_dict(), header)
    return lupctl.load(folder / "net.safetensors", device="cpu")


def draw_frames(count: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames of random pixels, and boxes of persons on them; some leave the frame."""
    random = np.random.default_rng(0)
    frames = [random.integers(0, 256, (*FRAME, 3), dtype=np.uint8) for _ in range(count)]
    boxes = []
    for _ in frames:
        high = random.uniform(60, 300, PER_FRAME)
        left, top = random.uniform(-20, FRAME[1] - 60, PER_FRAME), random.uniform(-20, FRAME[0] - 60, PER_FRAME)
        boxes.append(np.stack([left, top, left + high / 2.5, top + high], axis=1))
    return frames, boxes


def processor_seconds(work: Callable[[], object]) -> float:
    started_at = time.process_time()
    work()
    return time.process_time() - started_at


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="r50")
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--height", type=int, default=256)
    parser.add_argument("--frames", type=int, default=125)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--each", action="store_true", help="a frame at a time")
    given = parser.parse_args()
    frames, boxes = draw_frames(given.frames)
    count = given.frames * PER_FRAME
    with tempfile.TemporaryDirectory() as folder:
        net = open_random(Path(folder), given.arch, given.width, given.height)
    encoder = net._opened.encoder
    assert isinstance(encoder, Encoder)
    step = PER_FRAME if given.each else min(BATCH, count)
    ready = torch.randn(step, 3, *net.size)

    def embed() -> None:
        if given.each:
            for frame, own in zip(frames, boxes, strict=True):
                net.embed(frame, boxes=own)
        else:
            assert len(net.embed(frames, boxes=boxes)) == count

    def pass_bare() -> None:
        for begin in range(0, count, step):
            encoder.embed(ready[: count - begin])

    embed(), pass_bare()
    ratios = []
    for number in range(given.rounds):
        works = (pass_bare, embed) if number % 2 else (embed, pass_bare)
        spent = {work.__name__: processor_seconds(work) for work in works}
        ratios.append(spent["pass_bare"] / spent["embed"])
        print(f"embed {spent['embed']:.2f} s, bare passes {spent['pass_bare']:.2f} s for {count} boxes")
    print(f"throughput: {statistics.median(ratios):.3f} of the bare passes ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main()
