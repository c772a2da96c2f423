"""TransReID's views: padded after the flip, erased with noise, and another filter at test time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torchvision import transforms

from lupctl.core.formats.weights.header import describe_pixels
from lupctl.core.recipes.sections import Augment, Pixels
from lupctl.core.training.loading.slots import WorkerSlots, stack_images
from lupctl.core.training.views.draws import SampleDraws, philox
from lupctl.core.training.views.noise import fill_noise, gaussian_noise, largest_rectangle, philox_blocks
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import ViewPlan, build_view_plan, draw_erase, draw_view
from tests.tools.neutral_draws import neutral_draws

PLAN = ViewPlan(
    height=48, width=24, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), interpolation="bicubic", pad=10,
    pad_after_flip=True, flip=0.5, erase=0.5, erase_area=(0.02, 1 / 3), erase_fill="noise",
)  # fmt: skip


def picture(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def stream(number: int, *, seed: int = 3) -> SampleDraws:
    return SampleDraws(np.arange(number), seed=seed, epoch=0, view=0)


def sizes(number: int, height: int, width: int) -> NDArray[np.int64]:
    return np.tile(np.array([height, width], dtype=np.int64), (number, 1))


# Padding after the flip


def test_a_flip_comes_before_the_padded_crop_and_black_before_normalisation() -> None:
    """Against Pillow and torchvision, step by step in the published order, at the size of the image."""
    plan, number = replace(PLAN, erase=0.0, interpolation="bilinear"), 40
    images = [picture(48, 24, seed=seed) for seed in range(number)]
    pixels, size, _ = stack_images(images, WorkerSlots(), count=number)
    draws = draw_view(plan, size, stream(number)).tensors()
    views = make_view(plan, pixels, draws)
    finish = transforms.Compose([transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.5] * 3)])
    for place, image in enumerate(images):
        made = Image.fromarray(image)
        made = ImageOps.mirror(made) if draws.flip[place] else made
        made = ImageOps.expand(made, border=10, fill=0)
        rows, columns = draws.shift[place].tolist()
        made = made.crop((10 + columns, 10 + rows, 34 + columns, 58 + rows))
        torch.testing.assert_close(views[place], finish(made), atol=1e-6, rtol=0)
    off = draws.shift[:, 1] != 0
    assert (off & draws.flip).sum() > 10
    assert views.min() == -1, "zeros in the image's own range, which is -1 in the network's"


def test_images_that_are_not_flipped_are_cut_as_before() -> None:
    number = 12
    pixels, size, _ = stack_images([picture(30, 20, seed=seed) for seed in range(number)], WorkerSlots(), count=number)
    before, after = (replace(PLAN, erase=0.0, pad_after_flip=late) for late in (False, True))
    draws = draw_view(after, size, stream(number)).tensors()
    again = draw_view(before, size, stream(number)).tensors()
    assert all(torch.equal(value, getattr(again, name)) for name, value in vars(draws).items())
    one, other = make_view(before, pixels, draws), make_view(after, pixels, draws)
    same = torch.tensor([torch.equal(left, right) for left, right in zip(one, other, strict=True)])
    assert torch.equal(same, ~draws.flip | (draws.shift[:, 1] == 0))


# Noise


def slow_box(plan: ViewPlan, numbers: NDArray[np.float64]) -> list[int]:
    """timm's loop: ten tries, both sides shorter than the image's, aspect by its logarithm."""
    for u_area, u_aspect, u_top, u_left in numbers.reshape(10, 4):
        area = plan.height * plan.width * (plan.erase_area[0] + u_area * (plan.erase_area[1] - plan.erase_area[0]))
        low, high = math.log(plan.erase_aspect[0]), math.log(plan.erase_aspect[1])
        aspect = math.exp(low + u_aspect * (high - low))
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < plan.height and w < plan.width:
            return [int(u_top * (plan.height - h + 1)), int(u_left * (plan.width - w + 1)), h, w]
    return [0, 0, 0, 0]


def test_the_rectangle_is_timms() -> None:
    plan = replace(PLAN, erase_area=(0.4, 0.97))
    found = draw_erase(plan, np.ones(400, dtype=bool), stream(400)).tolist()
    expected = [slow_box(plan, row) for row in stream(400).branch(3).uniform(40)]
    assert found == expected
    assert 5 < expected.count([0, 0, 0, 0]) < 200, "some fail ten times and stay as they are"


@pytest.mark.parametrize("seed", [(0, 0), (0xFFFFFFFF, 0xFFFFFFFF), (0xA4093822, 0x299F31D0)])
def test_its_generator_is_that_of_all_draws(seed: tuple[int, int]) -> None:
    blocks = np.array([0, 1, 2, 3000, 2**32 - 1])
    counter = np.zeros((5, 4), np.uint32)
    counter[:, 0] = blocks
    expected = philox(counter, seed).astype(np.int64)
    words = philox_blocks(torch.from_numpy(blocks), torch.tensor([[7, 9], seed]))
    assert np.array_equal(torch.stack(words, dim=2)[1].numpy(), expected)


def test_noise_is_normal_and_without_memory() -> None:
    noise = gaussian_noise(torch.tensor([[1, 2], [1, 3]]), 400_000).double()
    for moment, expected in ((1, 0.0), (2, 1.0), (3, 0.0), (4, 3.0)):
        deviation = math.sqrt({1: 1, 2: 2, 3: 15, 4: 96}[moment] / noise.numel())
        assert float((noise**moment).mean()) == pytest.approx(expected, abs=5 * deviation)
    # Kolmogorov and Smirnov's statistic; its 99.99 % point is 2.23 / sqrt(N).
    ordered = noise.flatten().sort().values
    place = (torch.arange(len(ordered)) + 0.5) / len(ordered)
    assert float((torch.special.ndtr(ordered) - place).abs().max()) < 2.23 / math.sqrt(len(ordered))
    for lag in (1, 2, 3, 4, 7, 8):
        assert abs(float((noise[:, lag:] * noise[:, :-lag]).mean())) < 5 / math.sqrt(noise.numel())
    assert abs(float((noise[0] * noise[1]).mean())) < 5 / math.sqrt(400_000)


def slow_fill(view: torch.Tensor, rectangle: list[int], seed: torch.Tensor) -> torch.Tensor:
    """One image, pixel by pixel."""
    top, left, height, width = rectangle
    made, noise = view.clone(), iter(gaussian_noise(seed[None], 3 * height * width)[0].tolist())
    for row in range(top, top + height):
        for column in range(left, left + width):
            for channel in range(3):
                made[channel, row, column] = next(noise)
    return made


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 9)] * 4), min_size=1, max_size=4), st.integers(0, 3))
def test_a_rectangle_is_filled_and_nothing_else(shapes: list[tuple[int, int, int, int]], more: int) -> None:
    """Alone, with others, and where the largest possible rectangle is larger, as on an accelerator."""
    view = torch.randn(len(shapes), 3, 18, 18, generator=torch.Generator().manual_seed(1))
    seeds = torch.arange(2 * len(shapes)).view(-1, 2) * 77
    boxes = [list(box) if box[2] * box[3] else [0, 0, 0, 0] for box in shapes]
    filled = fill_noise(view.clone(), torch.tensor(boxes, dtype=torch.int32), seeds, most=81 + more)
    for place, box in enumerate(boxes):
        assert torch.equal(filled[place], slow_fill(view[place], box, seeds[place]))


def test_an_accelerator_gets_the_same_without_being_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the size of the largest rectangle is not read; what is too much must change nothing."""

    number = 30
    plan = replace(PLAN, erase=1.0)
    draws = draw_view(plan, sizes(number, 48, 24), stream(number)).tensors()
    view = torch.randn(number, 3, 48, 24, generator=torch.Generator().manual_seed(1))
    here = fill_noise(view.clone(), draws.erase, draws.noise, most=0)
    area = (draws.erase[:, 2] * draws.erase[:, 3]).long()
    assert int(area.max()) <= largest_rectangle(plan)
    monkeypatch.setattr("lupctl.core.training.views.noise.is_quick_to_read", lambda view: False)
    there = fill_noise(view.clone(), draws.erase, draws.noise, most=largest_rectangle(plan))
    assert torch.equal(here, there)


@settings(max_examples=100, deadline=None)
@given(st.integers(2, 200), st.integers(2, 200), st.floats(0.01, 1.0), st.floats(1.0, 9.0), st.integers(0, 2**40))
def test_no_rectangle_is_larger_than_the_largest(
    height: int, width: int, area: float, aspect: float, seed: int
) -> None:
    plan = replace(PLAN, height=height, width=width, erase_area=(area / 2, area), erase_aspect=(1 / aspect, aspect))
    found = draw_erase(plan, np.ones(50, dtype=bool), stream(50, seed=seed))
    assert (found[:, 2] * found[:, 3]).max() <= largest_rectangle(plan)


def test_noise_comes_after_normalisation_and_is_each_images_own() -> None:
    plan = replace(PLAN, pad=0, flip=0.0, erase=1.0, height=40, width=40, interpolation="bilinear")
    pixels, size, _ = stack_images([np.full((40, 40, 3), 255, np.uint8)] * 3, WorkerSlots(), count=3)
    boxes = torch.tensor([[2, 3, 30, 20], [2, 3, 30, 20], [0, 0, 0, 0]], dtype=torch.int32)
    draws = replace(neutral_draws(torch.from_numpy(size)), erase=boxes, noise=torch.tensor([[1, 1], [1, 2], [0, 0]]))
    views = make_view(plan, pixels, draws)
    inside = views[:2, :, 2:32, 3:23]
    assert abs(float(inside.mean())) < 0.1
    assert float(inside.std()) == pytest.approx(1, abs=0.05), "in the network's own units"
    assert float((inside[0] * inside[1]).mean()) == pytest.approx(0, abs=0.12)
    assert float((inside[:, 0] * inside[:, 1]).mean()) == pytest.approx(0, abs=0.12), "each channel has its own"
    outside = torch.ones(3, 3, 40, 40, dtype=torch.bool)
    outside[:2, :, 2:32, 3:23] = False
    assert (views[outside] == 1).all()


def test_a_view_with_noise_is_as_alone() -> None:
    """One process sees an image beside others than two do, and a resumed run draws again what it drew."""
    images = [picture(*shape, seed=seed) for seed, shape in enumerate([(80, 30), (20, 90), (64, 32), (5, 5)] * 4)]
    pixels, size, _ = stack_images(images, WorkerSlots(), count=len(images))
    draws = draw_view(PLAN, size, stream(len(images))).tensors()
    together = make_view(PLAN, pixels, draws)
    assert 3 < int((draws.erase[:, 2] > 0).sum()) < 13
    for place, image in enumerate(images):
        one = SampleDraws(np.array([place]), seed=3, epoch=0, view=0)
        alone = draw_view(PLAN, size[place : place + 1], one).tensors()
        assert torch.equal(together[place], make_view(PLAN, torch.from_numpy(image[None]), alone)[0]), place
    seeds = {tuple(seed) for seed in draws.noise.tolist()}
    assert len(seeds) == len(images)
    later = draw_view(PLAN, size, SampleDraws(np.arange(len(images)), seed=3, epoch=1, view=0)).noise
    assert not seeds & {tuple(seed) for seed in later.tolist()}


def test_noise_takes_no_numbers_from_the_other_draws() -> None:
    """Switches, windows and rectangles of a view are those of the same plan that erases with zeros."""
    number = 50
    one, other = (
        draw_view(replace(PLAN, erase_fill=fill), sizes(number, 48, 24), stream(number)) for fill in ("noise", "mean")
    )  # type: ignore[arg-type]
    assert not other.noise.any()
    for name in ("box", "shift", "flip", "grey", "radius", "jitter", "jitter_order"):
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
    assert np.array_equal(one.erase[:, 2] > 0, other.erase[:, 2] > 0)


# Filters


def test_training_and_evaluation_have_their_own_filter() -> None:
    pixels = Pixels(height=48, width=24, interpolation="bicubic", test_interpolation="bilinear")
    given = pixels.model_dump()
    assert build_view_plan(given, Augment().model_dump()).interpolation == "bicubic"
    assert build_view_plan(given).interpolation == describe_pixels(pixels).interpolation == "bilinear"
    plain = pixels.model_copy(update={"test_interpolation": ""})
    assert build_view_plan(plain.model_dump()).interpolation == describe_pixels(plain).interpolation == "bicubic"
