"""How fast a training view is made here and by the usual pipeline.

    OMP_NUM_THREADS=1 python tests/benchmarks/transform_speed.py --source 256x128 --result 256x128

Prints views per second on one thread with LUPerson's settings, from decoded pixels to a normalised tensor: this
project's batched transform (the drawing of its numbers included) beside torchvision's per-image pipeline on PIL images
with the same operations. The two take turns; medians of the rounds are printed.
"""

import argparse
import statistics
import time

import numpy as np
import torch
from PIL import Image, ImageFilter
from torchvision import transforms

from lupctl.core.loading.draws import SampleDraws
from lupctl.core.loading.transform import make_view
from lupctl.core.loading.views import ViewPlan, draw_view

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


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--source", default="256x128")
    parser.add_argument("--result", default="256x128")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    height, width = map(int, options.source.split("x"))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    coarse = np.random.default_rng(0).integers(0, 256, (options.batch, height // 8, width // 8, 3), dtype=np.uint8)
    pixels = np.stack([np.asarray(Image.fromarray(image).resize((width, height))) for image in coarse])
    size = np.tile(np.array([height, width], dtype=np.int64), (options.batch, 1))
    plan = luperson_plan(*map(int, options.result.split("x")))
    usual = usual_pipeline(plan.height, plan.width)
    source = torch.from_numpy(pixels)

    def ours(epoch: int) -> None:
        drawn = draw_view(plan, size, SampleDraws(np.arange(options.batch), seed=1, epoch=epoch, view=0))
        draws = {name: torch.from_numpy(getattr(drawn, name)) for name in drawn.__dataclass_fields__}
        make_view(plan, source, draws)

    def theirs(epoch: int) -> None:
        torch.stack([usual(Image.fromarray(image)) for image in pixels])

    spent: dict[str, list[float]] = {"batched": [], "per image": []}
    for epoch in range(options.rounds + 1):
        for name, run in (("batched", ours), ("per image", theirs)):
            started_at = time.perf_counter()
            run(epoch)
            if epoch:  # the first round warms up
                spent[name].append((time.perf_counter() - started_at) / options.batch)
    for name, seconds in spent.items():
        middle = statistics.median(seconds)
        print(
            f"{options.source} to {options.result}, {name}: {1 / middle:,.0f} views/s, {1e3 * middle:.2f} ms per view"
        )
    print(f"ratio: {statistics.median(a / b for a, b in zip(*spent.values(), strict=True)):.2f} of the usual time")


if __name__ == "__main__":
    main()
