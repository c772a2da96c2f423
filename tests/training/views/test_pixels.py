"""Pixels of a whole batch against Pillow, torchvision and slow loops, one image at a time."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from lupctl.core.choices import Interpolation
from lupctl.core.training.loading.slots import WorkerSlots, stack_images
from lupctl.core.training.views.colours import jitter_colours, luma
from lupctl.core.training.views.drawn import DrawTensors
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.pixels import blur, erase, make_view
from lupctl.core.training.views.plan import Jitter, ViewPlan, draw_view
from lupctl.core.training.views.resizing import resize_taps
from tests.tools.neutral_draws import neutral_draws

FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
NEUTRAL = ViewPlan(height=64, width=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
FULL = ViewPlan(
    height=64,
    width=32,
    mean=(0.3525, 0.3106, 0.3140),
    std=(0.2660, 0.2522, 0.2505),
    crop_area=(0.2, 1.0),
    jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    grey=0.3,
    blur=0.5,
    flip=0.5,
    erase=0.5,
    erase_area=(0.02, 0.6),
)


def picture(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    """Hard edges and noise: the worst that a filter meets."""
    generator = np.random.default_rng(seed)
    noise = generator.integers(0, 256, (height, width, 3), dtype=np.uint8)
    blocks = np.kron(
        generator.integers(0, 2, (-(-height // 4), -(-width // 4), 3), dtype=np.uint8) * 255,
        np.ones((4, 4, 1), dtype=np.uint8),
    )[:height, :width]
    half = np.arange(width)[None, :, None] < width // 2
    return np.where(half, noise, blocks).astype(np.uint8)


def draws_of(size: NDArray[np.int64], **changes: object) -> DrawTensors:
    """Draws that leave the whole image alone, but for what is named."""
    neutral = neutral_draws(torch.from_numpy(size))
    changed = {name: torch.as_tensor(value).to(getattr(neutral, name).dtype) for name, value in changes.items()}
    assert all(len(value) == len(size) for value in changed.values())
    return replace(neutral, **changed)


def view_of(plan: ViewPlan, image: NDArray[np.uint8], **changes: object) -> Tensor:
    """One image's view, (3, H, W)."""
    pixels, size, _ = stack_images([image], WorkerSlots(), count=1)
    return make_view(plan, pixels, draws_of(size, **changes))[0]


def real_draws(plan: ViewPlan, size: NDArray[np.int64], *, seed: int = 4) -> DrawTensors:
    return draw_view(plan, size, SampleDraws(np.arange(len(size)), seed=seed, epoch=0, view=0)).tensors()


def grey_levels(view: Tensor) -> NDArray[np.int64]:
    """(3, H, W) in [0, 1] as (H, W, 3) whole grey levels."""
    return np.rint(view.permute(1, 2, 0).double().numpy() * 255).astype(np.int64)


def pillow_resize(image: Image.Image, width: int, height: int, interpolation: Interpolation) -> Image.Image:
    """Across, then down, in two calls.

    Older Pillow does it so in one call as well, and published evaluations ran on that. Version 13 goes down first where
    that is cheaper, which moves bicubic by many grey levels at hard edges: each pass cuts off what it overshoots.
    """
    across = image.resize((width, image.height), FILTERS[interpolation])
    return across.resize((width, height), FILTERS[interpolation])


# Resizing

BOXES = [None, (0, 0, 40, 20), (13, 5, 31, 17), (30, 20, 34, 28), (0, 7, 96, 50), (95, 0, 1, 1)]
SHAPES = [(64, 32), (256, 128), (37, 53), (8, 100), (96, 48)]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("box", BOXES)
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_resize_is_pillows(
    height: int, width: int, box: tuple[int, int, int, int] | None, interpolation: Interpolation
) -> None:
    """Up and down, whole images and crops; Pillow rounds to 8 bits between the directions, hence one level."""
    image = picture(96, 60)
    top, left, tall, wide = box or (0, 0, 96, 60)
    wide = min(wide, 60 - left)
    cut = Image.fromarray(image).crop((left, top, left + wide, top + tall))
    expected = np.asarray(pillow_resize(cut, width, height, interpolation), dtype=np.int64)
    plan = replace(NEUTRAL, height=height, width=width, interpolation=interpolation)
    ours = grey_levels(view_of(plan, image, box=[[top, left, tall, wide]]))
    assert np.abs(ours - expected).max() <= 1
    assert (ours != expected).mean() < 0.25


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.tuples(st.integers(1, 60), st.integers(1, 60)),
    st.sampled_from(["bilinear", "bicubic"]),
    st.integers(0, 1000),
)
def test_resize_is_pillows_for_any_sizes(
    source: tuple[int, int], result: tuple[int, int], interpolation: Interpolation, seed: int
) -> None:
    image = picture(*source, seed=seed)
    expected = np.asarray(pillow_resize(Image.fromarray(image), *result[::-1], interpolation), dtype=np.int64)
    plan = replace(NEUTRAL, height=result[0], width=result[1], interpolation=interpolation)
    assert np.abs(grey_levels(view_of(plan, image)) - expected).max() <= 1


@pytest.mark.parametrize("source", [(128, 64), (90, 50), (256, 128), (160, 128), (256, 100)])
def test_resize_is_pillows_in_one_call(source: tuple[int, int]) -> None:
    """Where every version goes across first: enlarging to the size that networks see, as from Market-1501."""
    image = picture(*source)
    for interpolation in ("bilinear", "bicubic"):
        expected = np.asarray(Image.fromarray(image).resize((128, 256), FILTERS[interpolation]), dtype=np.int64)
        plan = replace(NEUTRAL, height=256, width=128, interpolation=interpolation)
        assert np.abs(grey_levels(view_of(plan, image)) - expected).max() <= 1


def test_same_size_changes_nothing() -> None:
    image = picture(64, 32)
    for interpolation in ("bilinear", "bicubic"):
        np.testing.assert_array_equal(grey_levels(view_of(replace(NEUTRAL, interpolation=interpolation), image)), image)


def test_resize_weights_sum_to_one_and_stay_in_the_crop() -> None:
    start, length = torch.tensor([0.0, 5.0, 11.0]), torch.tensor([20.0, 3.0, 9.0])
    index, weight = resize_taps(start, length, torch.zeros(3, dtype=torch.int32), 7, 20, "bicubic")
    assert index.shape == weight.shape == (3, 7, 12)  # 4 pixels, stretched by 20 / 7
    torch.testing.assert_close(weight.sum(2), torch.ones(3, 7))
    for row, (first, count) in enumerate(zip(start.int().tolist(), length.int().tolist(), strict=True)):
        outside = (index[row] < first) | (index[row] >= first + count)
        assert not weight[row][outside].any()
        assert len(set(index[row][weight[row] != 0].tolist())) == count


# Padding and flip


@pytest.mark.parametrize("shift", [(0, 0), (-10, 10), (10, -10), (3, 0), (0, -7), (-1, -2)])
def test_padding_and_window_are_those_of_numpy(shift: tuple[int, int]) -> None:
    image = picture(64, 32)
    padded = np.pad(image, ((10, 10), (10, 10), (0, 0)))
    window = padded[10 + shift[0] : 74 + shift[0], 10 + shift[1] : 42 + shift[1]]
    np.testing.assert_array_equal(grey_levels(view_of(replace(NEUTRAL, pad=10), image, shift=[shift])), window)


def test_padding_is_black_before_normalisation() -> None:
    plan = replace(NEUTRAL, pad=10, mean=(0.5, 0.25, 0.125), std=(0.5, 0.25, 0.25))
    view = view_of(plan, np.full((64, 32, 3), 255, dtype=np.uint8), shift=[(-4, 0)])
    torch.testing.assert_close(view[:, :4, 0], torch.tensor([-1.0, -1.0, -0.5])[:, None].expand(3, 4))
    torch.testing.assert_close(view[:, 4:, 0], torch.tensor([1.0, 3.0, 3.5])[:, None].expand(3, 60))


def test_padding_then_flip_is_done_in_that_order() -> None:
    image = picture(64, 32)
    padded = np.pad(image, ((10, 10), (10, 10), (0, 0)))
    view = view_of(replace(NEUTRAL, pad=10), image, shift=[(2, 5)], flip=[True])
    np.testing.assert_array_equal(grey_levels(view), padded[12:76, 15:47][:, ::-1])


def test_flip_mirrors_columns_of_the_chosen_images_only() -> None:
    images = [picture(64, 32, seed=seed) for seed in range(3)]
    pixels, size, _ = stack_images(images, WorkerSlots(), count=len(images))
    view = make_view(NEUTRAL, pixels, draws_of(size, flip=[False, True, False]))
    for place, image in enumerate(images):
        np.testing.assert_array_equal(grey_levels(view[place]), image[:, ::-1] if place == 1 else image)


# Colours


def test_grey_is_pillows() -> None:
    image = picture(64, 32)
    expected = np.asarray(Image.fromarray(image).convert("L"), dtype=np.int64)
    view = view_of(replace(NEUTRAL, grey=0.5), image, grey=[True])
    assert torch.equal(view[0], view[1])
    assert torch.equal(view[0], view[2])
    assert np.abs(grey_levels(view)[:, :, 0] - expected).max() <= 1
    assert (grey_levels(view)[:, :, 0] != expected).mean() < 0.01
    np.testing.assert_array_equal(grey_levels(view_of(replace(NEUTRAL, grey=0.5), image)), image)


def test_luma_weights() -> None:
    levels = luma(torch.eye(3).view(3, 3, 1, 1)).flatten()
    torch.testing.assert_close(levels, torch.tensor([0.299, 0.587, 0.114]))


def jitter_one(image: Tensor, order: list[int], factors: list[float]) -> Tensor:
    return jitter_colours(image[None], torch.tensor([factors]), torch.tensor([order]))[0]


@pytest.mark.parametrize("factor", [0.0, 0.4, 0.8, 1.0, 1.3, 1.9])
def test_brightness_contrast_and_saturation_are_torchvisions(factor: float) -> None:
    """torchvision weighs red by 0.2989 where Pillow, which published code ran on, has 0.299: at most 1e-4 apart."""
    image = torch.from_numpy(picture(40, 30)).permute(2, 0, 1) / 255
    none = -1
    ours = jitter_one(image, [0, none, none, none], [factor, 9.0, 9.0, 9.0])
    torch.testing.assert_close(ours, reference.adjust_brightness(image, factor), atol=1e-5, rtol=0)
    loose = 1e-5 + 1e-4 * abs(1 - factor)
    ours = jitter_one(image, [none, 1, none, none], [9.0, factor, 9.0, 9.0])
    torch.testing.assert_close(ours, reference.adjust_contrast(image, factor), atol=loose, rtol=0)
    ours = jitter_one(image, [none, none, 2, none], [9.0, 9.0, factor, 9.0])
    torch.testing.assert_close(ours, reference.adjust_saturation(image, factor), atol=loose, rtol=0)


@pytest.mark.parametrize("factor", [0.0, 0.6, 1.4])
def test_contrast_and_saturation_by_their_definitions(factor: float) -> None:
    image = torch.from_numpy(picture(12, 10)).permute(2, 0, 1) / 255
    grey = 0.299 * image[0] + 0.587 * image[1] + 0.114 * image[2]
    contrast = (factor * image + (1 - factor) * grey.mean()).clamp(0, 1)
    torch.testing.assert_close(jitter_one(image, [1, -1, -1, -1], [1, factor, 1, 0]), contrast, atol=1e-6, rtol=0)
    saturation = (factor * image + (1 - factor) * grey).clamp(0, 1)
    torch.testing.assert_close(jitter_one(image, [2, -1, -1, -1], [1, 1, factor, 0]), saturation, atol=1e-6, rtol=0)


@pytest.mark.parametrize("turns", [-0.5, -0.1, 0.0, 0.07, 1 / 3, 0.5])
def test_hue_is_torchvisions(turns: float) -> None:
    image = torch.from_numpy(picture(40, 30)).permute(2, 0, 1) / 255
    special = torch.tensor([[0.0, 0, 0], [1, 1, 1], [0.5, 0.5, 0.5], [1, 1, 0], [0, 1, 1], [1, 0, 1], [0.2, 0.2, 0.7]])
    image[:, 0, :7] = special.T
    ours = jitter_one(image, [3, -1, -1, -1], [1, 1, 1, turns])
    torch.testing.assert_close(ours, reference.adjust_hue(image, turns), atol=1e-5, rtol=0)


def test_a_third_of_a_turn_makes_red_green() -> None:
    red = torch.tensor([0.9, 0.1, 0.1]).view(3, 1, 1)
    torch.testing.assert_close(
        jitter_one(red, [3, -1, -1, -1], [1, 1, 1, 1 / 3]).flatten(), torch.tensor([0.1, 0.9, 0.1])
    )


def test_every_image_has_its_own_order_of_operations() -> None:
    steps = {
        0: reference.adjust_brightness,
        1: reference.adjust_contrast,
        2: reference.adjust_saturation,
        3: reference.adjust_hue,
    }
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [-1, -1, -1, -1], [2, 0, 3, 1]]
    factors = [
        [1.4, 0.6, 1.3, 0.1],
        [0.6, 1.4, 0.7, -0.1],
        [1.2, 1.4, 0.6, 0.05],
        [1.4, 1.4, 1.4, 0.1],
        [0.8, 1, 1.4, -0.08],
    ]
    images = torch.stack([torch.from_numpy(picture(24, 20, seed=seed)).permute(2, 0, 1) / 255 for seed in range(5)])
    before = images.clone()
    ours = jitter_colours(images, torch.tensor(factors), torch.tensor(orders))
    assert torch.equal(images, before)
    for image, order, own, result in zip(images, orders, factors, ours, strict=True):
        for operation in order:
            if operation >= 0:
                image = steps[operation](image, own[operation])
        torch.testing.assert_close(result, image, atol=3e-4, rtol=0)
        if order[0] < 0:
            assert torch.equal(result, image)


# Blur


def slow_blur(image: NDArray[np.float64], radius: float) -> NDArray[np.float64]:
    """Gaussian of an (H, W) image out to three deviations, edges repeated: a plain sum for every pixel."""
    reach = max(1, int(3 * radius + 0.5))
    steps = np.arange(-reach, reach + 1)
    kernel = np.exp(-(steps**2) / (2 * radius**2))
    kernel /= kernel.sum()
    height, width = image.shape
    result = np.zeros_like(image)
    for row in range(height):
        for column in range(width):
            for dy, a in zip(steps, kernel, strict=True):
                for dx, b in zip(steps, kernel, strict=True):
                    y, x = min(max(row + dy, 0), height - 1), min(max(column + dx, 0), width - 1)
                    result[row, column] += a * b * image[y, x]
    return result


@pytest.mark.parametrize("radius", [0.1, 0.5, 1.0, 2.0])
def test_blur_is_a_gaussian_with_repeated_edges(radius: float) -> None:
    image = torch.rand(3, 14, 9, generator=torch.Generator().manual_seed(1))
    ours = blur(image[None].clone(), torch.tensor([radius]))[0]
    expected = np.stack([slow_blur(channel, radius) for channel in image.double().numpy()])
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-6)


def test_blur_of_an_image_does_not_depend_on_the_others() -> None:
    """One process sees the image beside others than two processes do."""
    images = torch.rand(4, 3, 32, 16, generator=torch.Generator().manual_seed(2))
    radius = torch.tensor([0.4, 2.0, 0.0, 1.1])
    together = blur(images.clone(), radius)
    for place in range(4):
        alone = blur(images[place : place + 1].clone(), radius[place : place + 1])
        torch.testing.assert_close(together[place], alone[0], atol=1e-6, rtol=0)
    assert torch.equal(together[2], images[2])


def test_blur_keeps_the_mean_level_of_flat_images_and_widens_an_edge() -> None:
    flat = torch.full((1, 3, 20, 10), 0.37)
    torch.testing.assert_close(blur(flat.clone(), torch.tensor([2.0])), flat)
    edge = torch.zeros(1, 3, 40, 40)
    edge[:, :, :, 20:] = 1
    slope = blur(edge, torch.tensor([2.0]))[0, 0, 20].diff()
    places = torch.arange(39) + 0.5 - 19.5
    # The slope of a blurred edge is the kernel itself; cut at three deviations its own is a little below 2.
    assert float((slope * places).sum()) == pytest.approx(0, abs=0.51)
    spread = math.sqrt(float((slope * (places - (slope * places).sum()) ** 2).sum()))
    assert 1.9 < spread < 2.0


# Erasing


def test_erase_sets_the_rectangle_and_nothing_else() -> None:
    view = torch.rand(3, 3, 16, 8) + 1
    rectangle = torch.tensor([[2, 1, 5, 4], [0, 0, 0, 0], [15, 7, 1, 1]], dtype=torch.int32)
    expected = view.clone()
    expected[0, :, 2:7, 1:5] = 0
    expected[2, :, 15:, 7:] = 0
    assert torch.equal(erase(view.clone(), rectangle), expected)


def test_erasing_comes_after_normalisation() -> None:
    plan = replace(NEUTRAL, erase=0.5, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    view = view_of(plan, np.full((64, 32, 3), 255, dtype=np.uint8), erase=[[1, 2, 3, 4]])
    assert (view == 0).sum() == 3 * 3 * 4
    assert (view[:, 1:4, 2:6] == 0).all()
    assert torch.unique(view).tolist() == [0.0, 2.0]


def test_erasing_with_black_comes_before_normalisation() -> None:
    plan = replace(NEUTRAL, erase=0.5, erase_fill="black", mean=(0.5, 0.25, 0.0), std=(0.25, 0.25, 0.5))
    view = view_of(plan, np.full((64, 32, 3), 255, dtype=np.uint8), erase=[[1, 2, 3, 4]])
    for channel, (erased, kept) in enumerate([(-2.0, 2.0), (-1.0, 3.0), (0.0, 2.0)]):
        assert (view[channel, 1:4, 2:6] == erased).all()
        assert (view[channel] == kept).sum() == 64 * 32 - 3 * 4


# A whole view


def slow_view(plan: ViewPlan, image: NDArray[np.uint8], draws: DrawTensors, place: int) -> NDArray[np.float64]:
    """The steps of the published recipe for one image, each as plainly as it can be said; (3, H, W)."""
    top, left, height, width = (int(value) for value in draws.box[place])
    cut = Image.fromarray(image).crop((left, top, left + width, top + height))
    pixels = pillow_resize(cut, plan.width, plan.height, plan.interpolation)
    rows, columns = draws.shift[place].tolist()
    if plan.pad:
        padded = ImageOps.expand(pixels, border=plan.pad, fill=0)
        x, y = plan.pad + columns, plan.pad + rows
        pixels = padded.crop((x, y, x + plan.width, y + plan.height))
    view = torch.from_numpy(np.array(pixels)).permute(2, 0, 1) / 255
    steps = (
        reference.adjust_brightness,
        reference.adjust_contrast,
        reference.adjust_saturation,
        reference.adjust_hue,
    )
    for operation in draws.jitter_order[place].tolist():
        if operation >= 0:
            view = steps[operation](view, float(draws.jitter[place, operation]))
    array = view.double().numpy()
    if draws.grey[place]:
        array = np.repeat(np.tensordot([0.299, 0.587, 0.114], array, axes=1)[None], 3, axis=0)
    if draws.radius[place] > 0:
        array = np.stack([slow_blur(channel, float(draws.radius[place])) for channel in array])
    if draws.solarise[place]:
        array = np.where(array >= 0.5, 1 - array, array)
    if draws.flip[place]:
        array = array[:, :, ::-1]
    top, left, height, width = draws.erase[place].tolist()
    if plan.erase_fill == "black":
        array[:, top : top + height, left : left + width] = 0
    array = (array - np.array(plan.mean)[:, None, None]) / np.array(plan.std)[:, None, None]
    if plan.erase_fill == "constant":
        array[:, top : top + height, left : left + width] = np.array([0.485, 0.456, 0.406])[:, None, None]
    if plan.erase_fill == "mean":
        array[:, top : top + height, left : left + width] = 0
    return array


@pytest.mark.parametrize(
    "plan",
    [
        replace(FULL, jitter=Jitter(), height=40, width=20),
        replace(FULL, height=40, width=20),
        replace(FULL, height=40, width=20, interpolation="bicubic", solarise=0.5, blur=0.9, erase=0.0),
        replace(FULL, crop_area=None, pad=6, interpolation="bicubic", grey=0, blur=0, height=40, width=20),
        replace(
            FULL,
            crop_area=None,
            pad=10,
            interpolation="bicubic",
            grey=0,
            blur=0,
            jitter=Jitter(),
            erase_fill="black",
            height=40,
            width=20,
        ),
        replace(FULL, jitter=Jitter(), erase_fill="constant", height=40, width=20),
    ],
    ids=["luperson", "jitter", "dino", "bag-of-tricks", "mgn", "clusters"],
)
def test_a_whole_view_is_that_of_a_slow_pipeline(plan: ViewPlan) -> None:
    """Images of different sizes in one batch, all steps on, most combinations drawn."""
    images = [picture(*shape, seed=seed) for seed, shape in enumerate([(64, 32), (50, 60), (130, 64), (40, 20)] * 4)]
    pixels, size, _ = stack_images(images, WorkerSlots(), count=len(images))
    draws = real_draws(plan, size)
    views = make_view(plan, pixels, draws)
    assert views.shape == (16, 3, 40, 20)
    assert views.dtype == torch.float32
    for place, image in enumerate(images):
        expected = slow_view(plan, image, draws, place)
        # Pillow's rounding is one grey level, and jitter (at most 1.4 * 1.4 * 1.4 of it) makes three of that.
        levels = 3.5 if plan.jitter.p else 1.2
        gap = np.abs(views[place].double().numpy() - expected)
        assert gap.max() < levels / 255 / min(plan.std)
        assert gap.mean() < 0.5 / 255 / min(plan.std)


@pytest.mark.parametrize("plan", [FULL, replace(FULL, crop_area=None, pad=6, interpolation="bicubic")])
def test_images_of_different_sizes_in_one_batch_are_each_as_alone(plan: ViewPlan) -> None:
    """The rest of a slot is poisoned: nothing of it may be read."""
    images = [picture(*shape, seed=seed) for seed, shape in enumerate([(80, 30), (20, 90), (64, 32), (5, 5)] * 3)]
    pixels, size, _ = stack_images(images, WorkerSlots(), count=len(images))
    for slot, (height, width) in zip(pixels, size, strict=True):
        slot[height:] = 255
        slot[:, width:] = 255
    draws = real_draws(plan, size)
    together = make_view(plan, pixels, draws)
    for place, image in enumerate(images):
        alone = make_view(plan, torch.from_numpy(image[None]), draws.part(place, place + 1))
        assert torch.equal(together[place], alone[0]), place


@pytest.mark.parametrize("chunk_pixels", [1, 10_000, 10**9])
def test_the_work_may_be_cut_anywhere(chunk_pixels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, size, _ = stack_images([picture(50 + seed, 40, seed=seed) for seed in range(11)], WorkerSlots(), count=11)
    draws = real_draws(FULL, size)
    whole = make_view(FULL, torch.as_tensor(pixels), draws)
    monkeypatch.setattr("lupctl.core.training.views.pixels.CHUNK_PIXELS", chunk_pixels)
    assert torch.equal(make_view(FULL, torch.as_tensor(pixels), draws), whole)


def test_no_images_give_no_views() -> None:
    empty = real_draws(FULL, np.array([[64, 32]])).part(0, 0)
    assert make_view(FULL, torch.zeros(0, 64, 32, 3, dtype=torch.uint8), empty).shape == (0, 3, 64, 32)


def test_the_source_is_left_alone() -> None:
    pixels, size, _ = stack_images([picture(64, 32, seed=seed) for seed in range(6)], WorkerSlots(), count=6)
    source = pixels
    before = source.clone()
    make_view(FULL, source, real_draws(FULL, size))
    assert torch.equal(source, before)


def test_a_view_is_never_made_in_half_precision() -> None:
    """bfloat16 has 8 bits for the whole of [0.5, 1]; a training step may be under autocast when it makes its view."""
    pixels, size, _ = stack_images([picture(100, 50, seed=seed) for seed in range(6)], WorkerSlots(), count=6)
    draws = real_draws(FULL, size)
    plain = make_view(FULL, pixels, draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = make_view(FULL, pixels, draws)
    assert torch.equal(plain, inside)
