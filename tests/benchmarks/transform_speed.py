"""How fast a training view is made here and by the usual pipeline, and how many images a core delivers in each.

    OMP_NUM_THREADS=1 python tests/benchmarks/transform_speed.py --source 256x128 --result 256x128
    OMP_NUM_THREADS=1 python tests/benchmarks/transform_speed.py --pack market1501.h5
    OMP_NUM_THREADS=1 python tests/benchmarks/transform_speed.py --ten --source 256x128

LUPerson's settings, on one thread, in seconds of that thread's processor time. The usual pipeline is what published
code does: PIL decodes, and torchvision makes every view of every image by itself, in the decoding workers.

    view     one view, from decoded pixels to a normalised tensor (the drawing of its numbers included)
    worker   what a decoding worker does for one image and its two views: here reading with its checksum, decoding,
             stacking and drawing numbers, because pixels are transformed on the device; there everything

With --ten, the ten views of TransReID-SSL's DINO, two of the size of --result and eight of half of it each way:

    pixels   all views of images that are decoded and drawn already
    whole    reading, decoding, drawing, sending, and the pixels; to reach: 90 % of the rate of the pixels
    worker   the part of that which a decoding worker does, and so what a core feeds a GPU that makes the pixels
    usual    everything in the worker, as published: PIL and torchvision, one view after the other

Images are those of a pack, or drawn ones as JPEG of the size that --source says. Both sides see the same bytes and take
turns; medians of the rounds are printed.
"""

import argparse
import io
import pickle
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.stages.pack import pack
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import Batch, StepDataset
from lupctl.core.training.loading.samplers import ShuffledOrder
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.pixels import make_view, make_views
from lupctl.core.training.views.plan import Jitter, ViewPlan, draw_view

TO_REACH = 0.9
MEAN, STD = (0.3525, 0.3106, 0.3140), (0.2660, 0.2522, 0.2505)


class RandomBlur:
    """The published recipe's blur: PIL's Gaussian with a radius from 0.1 to 2."""

    def __call__(self, image: Image.Image) -> Image.Image:
        radius = float(np.random.uniform(0.1, 2.0))
        return image.filter(ImageFilter.GaussianBlur(radius))


def usual_pipeline(height: int, width: int) -> transforms.Compose:
    return transforms.Compose(
        [
            transforms.RandomResizedCrop((height, width), scale=(0.2, 1.0)),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([RandomBlur()], 0.5),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
            transforms.RandomErasing(0.5, scale=(0.02, 0.6)),
        ]
    )


def luperson_plan(height: int, width: int) -> ViewPlan:
    return ViewPlan(
        height,
        width,
        MEAN,
        STD,
        crop_area=(0.2, 1.0),
        grey=0.2,
        blur=0.5,
        flip=0.5,
        erase=0.5,
        erase_area=(0.02, 0.6),
    )


def dino_plans(height: int, width: int) -> tuple[ViewPlan, ...]:
    """The published views: two global ones, then eight local ones."""
    jitter = Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
    first = ViewPlan(
        height, width, MEAN, STD, "bicubic", crop_area=(0.4, 1.0), jitter=jitter, grey=0.2, blur=1.0, flip=0.5
    )
    local = replace(first, height=height // 2, width=width // 2, crop_area=(0.05, 0.4), blur=0.5)
    return first, replace(first, blur=0.1, solarise=0.2), *[local] * 8


def usual_dino(plan: ViewPlan) -> transforms.Compose:
    """One of these views in the published way."""
    cubic, colours = transforms.InterpolationMode.BICUBIC, transforms.ColorJitter(0.4, 0.4, 0.2, 0.1)
    return transforms.Compose(
        [
            transforms.RandomResizedCrop((plan.height, plan.width), scale=plan.crop_area, interpolation=cubic),
            transforms.RandomHorizontalFlip(),
            transforms.RandomApply([colours], 0.8),
            transforms.RandomGrayscale(0.2),
            transforms.RandomApply([RandomBlur()], plan.blur),
            transforms.RandomSolarize(128, plan.solarise),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def draw_pack(folder: Path, height: int, width: int) -> Path:
    source = SyntheticSource(SyntheticPlan(unlabelled_persons=150, height=height, width=width))
    return pack(source, out=folder / "drawn.h5", progress=Progress(quiet=True)).path


def run_round_robin(sides: Mapping[str, Callable[[int], object]], *, rounds: int, count: int) -> dict[str, list[float]]:
    """Processor seconds per item of every round of each side; a round before them warms up."""
    spent: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(rounds + 1):
        for name, run in sides.items():
            started_at = time.process_time()
            run(number)
            if number:
                spent[name].append((time.process_time() - started_at) / count)
    return spent


def say(what: str, spent: dict[str, list[float]]) -> None:
    """Prints the middle of each side, and of their ratios."""
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"{what}, {name}: {1e3 * middle:.2f} ms, {1 / middle:,.0f}/s")
    ratio = statistics.median(theirs / ours for ours, theirs in zip(*spent.values(), strict=True))
    print(f"{what}: {ratio:.2f} times as many as in the usual pipeline")


def measure_views(made: Pack, plan: ViewPlan, rounds: int, batch: int) -> None:
    """Both sides of a view, from pixels that are decoded already."""
    order = ShuffledOrder(len(made), batch=batch, seed=1)
    ready = StepDataset(PackImages([made]), order, (plan,), seed=1)[0]
    size = made.size[ready.rows.numpy()].astype(np.int64)
    images = [
        Image.fromarray(pixels[:height, :width].copy())
        for pixels, (height, width) in zip(ready.pixels.numpy(), size.tolist(), strict=True)
    ]
    usual = usual_pipeline(plan.height, plan.width)

    def ours(epoch: int) -> None:
        drawn = draw_view(plan, size, SampleDraws(np.arange(batch), seed=1, epoch=epoch, view=0))
        make_view(plan, ready.pixels, drawn.tensors())

    def theirs(epoch: int) -> None:
        torch.stack([usual(image) for image in images])

    say("view", run_round_robin({"here": ours, "usual": theirs}, rounds=rounds, count=batch))


def measure_workers(made: Pack, plan: ViewPlan, rounds: int, batch: int) -> None:
    """Both sides of a decoding worker's work."""
    order = ShuffledOrder(len(made), batch=batch, seed=1)
    dataset = StepDataset(PackImages([made]), order, (plan, plan), seed=1)
    usual = usual_pipeline(plan.height, plan.width)

    def theirs(step: int) -> None:
        views = []
        for row in order.rows(step).tolist():
            image = Image.open(io.BytesIO(made.read(row))).convert("RGB")
            views += [usual(image), usual(image)]
        torch.stack(views)

    say("worker", run_round_robin({"here": dataset.__getitem__, "usual": theirs}, rounds=rounds, count=batch))


def measure_ten(made: Pack, plans: tuple[ViewPlan, ...], rounds: int, batch: int) -> None:
    """The way of an image to its ten views, beside the work on pixels alone and beside the published way."""
    order = ShuffledOrder(len(made), batch=batch, seed=1)
    dataset = StepDataset(PackImages([made]), order, plans, seed=1)
    usual = [usual_dino(plan) for plan in plans]
    nothing = torch.empty(0, dtype=torch.uint8)  # pixels stay where the worker has decoded them; the rest is sent

    def work(step: int) -> Batch:
        decoded = dataset[step]
        sent: Batch = pickle.loads(pickle.dumps(replace(decoded, pixels=nothing)))
        return replace(sent, pixels=decoded.pixels)

    def pixels(step: int) -> None:
        make_views(plans, ready[step].pixels, ready[step].views)

    def whole(step: int) -> None:
        decoded = work(step)
        make_views(plans, decoded.pixels, decoded.views)

    def theirs(step: int) -> None:
        for row in order.rows(step).tolist():
            image = Image.open(io.BytesIO(made.read(row))).convert("RGB")
            for transform in usual:
                transform(image)

    ready = [dataset[step] for step in range(rounds + 1)]
    sides = {"pixels": pixels, "whole": whole, "worker": work, "usual": theirs}
    spent = run_round_robin(sides, rounds=rounds, count=batch)
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(f"ten views, {name}: {1e3 * middle:.2f} ms, {1 / middle:,.0f} images/s of a core")
    for name, other, reach in (("whole", "pixels", f" (to reach: {TO_REACH})"), ("worker", "usual", "")):
        ratio = statistics.median(two / one for one, two in zip(spent[name], spent[other], strict=True))
        print(f"ten views: {name} has {ratio:.3f} times the rate of {other}{reach}")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pack", type=Path, help="images of this pack instead of drawn ones")
    parser.add_argument("--source", default="256x128", help="height and width of drawn images")
    parser.add_argument("--result", default="256x128")
    parser.add_argument("--ten", action="store_true", help="DINO's ten views")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    height, width = map(int, options.source.split("x"))
    plan = luperson_plan(*map(int, options.result.split("x")))
    with tempfile.TemporaryDirectory() as folder:
        made = open_pack(options.pack or draw_pack(Path(folder), height, width))
        middle = np.median(made.size, axis=0).astype(int).tolist()
        encoded = made.num_bytes / len(made) / 1024
        print(f"images of {middle[0]}x{middle[1]} and {encoded:.1f} KiB to views of {options.result}")
        if options.ten:
            measure_ten(made, dino_plans(plan.height, plan.width), options.rounds, options.batch)
            return
        measure_views(made, plan, options.rounds, options.batch)
        measure_workers(made, plan, options.rounds, options.batch)


if __name__ == "__main__":
    main()
