"""Decoding, transforms and copies to a device: right, and how fast."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.formats.images.codec import decode_rgb, encode_png
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.exercise.check import Outcome, SkippedError, Trial, WrongError
from lupctl.core.system.threads.cores import usable_cores
from lupctl.core.training.engine.stopwatch import time_calls
from lupctl.core.training.loading.host_copy import HostCopy
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import build_view_plan, draw_view

PERSONS: Final = 8
TIMED_S: Final = 0.3
# Grey levels that JPEG of quality 95 moves pixels of a drawn person by, on average, are about 2.
JPEG_LIMIT: Final = 6.0
# A GPU rounds sums in another order; a pixel of a normalised view is a number of about 1.
VIEW_LIMIT: Final = 1e-3
COPIED_BYTES: Final = 64 << 20
CPU: Final = torch.device("cpu")


def image_trials(recipe: FinetuneRecipe, device: torch.device) -> list[Trial]:
    """Decoding on the CPU, a recipe's transforms on a device, and copies to it."""
    size = f"{recipe.pixels.height} x {recipe.pixels.width}"
    return [
        Trial(f"decoding, {size}", partial(_decode, recipe)),
        Trial(f"transforms, {size}, {device}", partial(_transform, recipe, device)),
        Trial("pinned copies", partial(_copy, device)),
    ]


def draw_images(recipe: FinetuneRecipe) -> list[bytes]:
    """JPEGs of drawn persons of the recipe's size."""
    plan = SyntheticPlan(
        train_persons=PERSONS, cameras=1, shots=1, height=recipe.pixels.height, width=recipe.pixels.width
    )
    source = SyntheticSource(plan)
    return [source.read(name) for name in source.list_images().name]


def _decode(recipe: FinetuneRecipe, left_s: float) -> Outcome:
    """JPEG and PNG against each other, and images per second in one thread and in as many as there are cores.

    Raises:
        WrongError: pixels are not those that were encoded.
    """
    encoded, cores = draw_images(recipe), usable_cores()
    pixels = [decode_rgb(one) for one in encoded]
    if not all(np.array_equal(decode_rgb(encode_png(one)), one) for one in pixels):
        raise WrongError("a PNG does not give back the pixels that were encoded")
    one = time_calls(partial(_decode_all, encoded), CPU, budget_s=TIMED_S) / len(encoded)
    with ThreadPoolExecutor(cores) as pool:
        shares = [encoded] * cores
        call = partial(_decode_shares, pool, shares)
        all_ = time_calls(call, CPU, budget_s=TIMED_S) / (len(encoded) * cores)
    size = sum(map(len, encoded)) / len(encoded) / 1024
    return Outcome(
        f"PNG gives back its pixels; JPEGs of {size:,.0f} KiB",
        f"{1 / one:,.0f} images/s on one core, {1 / all_:,.0f} on {cores}",
        {"images_per_s_core": 1 / one, "images_per_s": 1 / all_, "cores": cores},
    )


def _decode_all(encoded: Sequence[bytes]) -> None:
    for one in encoded:
        decode_rgb(one)


def _decode_shares(pool: ThreadPoolExecutor, shares: Sequence[Sequence[bytes]]) -> None:
    list(pool.map(_decode_all, shares))


def _transform(recipe: FinetuneRecipe, device: torch.device, left_s: float) -> Outcome:
    """A training batch's views on the device against those of its images one by one on the CPU.

    Raises:
        WrongError: they differ.
    """
    images = np.stack([decode_rgb(one) for one in draw_images(recipe)])
    plan = build_view_plan(recipe.pixels.model_dump(), recipe.augment.model_dump())
    size = np.tile(images.shape[1:3], (len(images), 1))
    draws = draw_view(plan, size, SampleDraws(np.arange(len(images)), seed=recipe.seed, epoch=0, view=0)).tensors()
    pixels = torch.from_numpy(images)
    there, drawn = pixels.to(device), draws.to(device)
    found = make_view(plan, there, drawn).cpu()
    alone = [make_view(plan, pixels[row : row + 1], draws.part(row, row + 1)) for row in range(len(images))]
    off = float((found - torch.cat(alone)).abs().max())
    if not off <= (0.0 if device.type == "cpu" else VIEW_LIMIT):
        raise WrongError(f"pixels of a batch differ by up to {off:.0e} from those of its images one by one on the CPU")

    def transform() -> None:
        make_view(plan, there, drawn)

    spent = time_calls(transform, device, budget_s=TIMED_S) / len(images)
    result = f"a batch's pixels are those of its images one by one{'' if not off else f', to {off:.0e}'}"
    return Outcome(result, f"{1 / spent:,.0f} images/s", {"difference": off, "images_per_s": 1 / spent})


def _copy(device: torch.device, left_s: float) -> Outcome:
    """Copies from pinned and from other memory to a GPU and back.

    Raises:
        SkippedError: there is no GPU.
        WrongError: other numbers arrive.
    """
    if device.type != "cuda":
        raise SkippedError("no GPU: there is nothing to copy to")
    numbers = np.frombuffer(os.urandom(COPIED_BYTES), np.uint8)
    plain = torch.from_numpy(numbers.copy())
    pinned = plain.pin_memory()
    there = torch.empty_like(plain, device=device)

    def send(source: torch.Tensor) -> None:
        there.copy_(source, non_blocking=True)

    speeds = []
    for source in (pinned, plain):
        speeds.append(COPIED_BYTES / time_calls(partial(send, source), device, budget_s=TIMED_S) / 1e9)
        if not np.array_equal(_fetch(there), numbers):
            raise WrongError("what comes back is not what was sent")
    return Outcome(
        f"{COPIED_BYTES >> 20} MiB come back as they were",
        f"{speeds[0]:,.1f} GB/s pinned, {speeds[1]:,.1f} otherwise",
        {"pinned_gigabytes_per_s": speeds[0], "pageable_gigabytes_per_s": speeds[1]},
    )


def _fetch(there: torch.Tensor) -> NDArray[np.uint8]:
    """Bytes from a device, the way features come."""
    return HostCopy(there).wait()  # type: ignore[return-value]
