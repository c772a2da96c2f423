"""The numbers drawn for a view."""

import math
import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torchvision.transforms import RandomResizedCrop

from lupctl.core.training.views.drawn import ViewDraws
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.plan import (
    Jitter,
    ViewPlan,
    build_view_plan,
    central_crop,
    draw_crop,
    draw_erase,
    draw_jitter,
    draw_view,
    draw_views,
)

PLAN = ViewPlan(
    height=256,
    width=128,
    mean=(0.3525, 0.3106, 0.3140),
    std=(0.2660, 0.2522, 0.2505),
    crop_area=(0.2, 1.0),
    jitter=Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1),
    grey=0.2,
    blur=0.5,
    flip=0.5,
    erase=0.5,
    erase_area=(0.02, 0.6),
)
RATIO = (3 / 4, 4 / 3)


def stream(number: int, *, seed: int = 3) -> SampleDraws:
    return SampleDraws(np.arange(number), seed=seed, epoch=0, view=0)


def sizes(number: int, height: int, width: int) -> NDArray[np.int64]:
    return np.tile(np.array([height, width], dtype=np.int64), (number, 1))


def torchvision_crops(number: int, height: int, width: int, area: tuple[float, float]) -> NDArray[np.float64]:
    """What torchvision itself draws: (N, 4) top, left, height, width."""
    torch.manual_seed(0)
    image = torch.empty(1, height, width)
    drawn = [RandomResizedCrop.get_params(image, list(area), list(RATIO)) for _ in range(number)]
    return np.array(drawn, dtype=np.float64)


def largest_gap(left: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """Kolmogorov and Smirnov's statistic: the largest distance of two empirical distributions."""
    grid = np.sort(np.concatenate([left, right]))
    below = [np.searchsorted(np.sort(side), grid, side="right") / len(side) for side in (left, right)]
    return float(np.abs(below[0] - below[1]).max())


@pytest.mark.parametrize(("height", "width"), [(256, 128), (128, 64), (64, 64), (100, 333)])
def test_crops_follow_torchvisions_distribution(height: int, width: int) -> None:
    """Including the tries that do not fit, which bend area and aspect on a tall image."""
    number = 4000
    ours = draw_crop(sizes(number, height, width), (0.2, 1.0), RATIO, stream(number)).astype(np.float64)
    theirs = torchvision_crops(number, height, width, (0.2, 1.0))
    # The 99.99 % point of the statistic for two samples of 4,000 is 2.23 * sqrt(2 / 4000) = 0.05.
    for measure in (
        lambda box: box[:, 2] * box[:, 3] / (height * width),
        lambda box: box[:, 3] / box[:, 2],
        lambda box: box[:, 0] / height,
        lambda box: box[:, 1] / width,
        lambda box: box[:, 0] + box[:, 2],
    ):
        assert largest_gap(measure(ours), measure(theirs)) < 0.05


def test_the_first_legal_try_counts() -> None:
    """The ten tries of torchvision's loop, on the same numbers, one image at a time."""
    number, height, width = 300, 256, 128
    ours = draw_crop(sizes(number, height, width), (0.2, 1.0), RATIO, stream(number))
    tries = stream(number).branch(1).uniform(40).reshape(number, 10, 4)
    late = 0
    for box, numbers in zip(ours, tries, strict=True):
        for place, (u_area, u_ratio, u_top, u_left) in enumerate(numbers):
            area = height * width * (0.2 + 0.8 * u_area)
            aspect = math.exp(math.log(3 / 4) + u_ratio * (math.log(4 / 3) - math.log(3 / 4)))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                late += place > 0
                assert box.tolist() == [int(u_top * (height - h + 1)), int(u_left * (width - w + 1)), h, w]
                break
    assert late > 50  # many tall images need a second try


@pytest.mark.parametrize(
    ("height", "width"), [(2000, 10), (10, 2000), (300, 100), (101, 300), (7, 9), (1, 50), (50, 1)]
)
def test_fallback_equals_torchvisions(height: int, width: int) -> None:
    """A target area of the whole image cannot be met at a legal ratio by a long one, so all ten tries fail."""
    torch.manual_seed(0)
    if RATIO[0] <= width / height <= RATIO[1]:
        expected = (0, 0, height, width)
    else:
        expected = RandomResizedCrop.get_params(torch.empty(1, height, width), [1.0, 1.0], list(RATIO))
        assert draw_crop(sizes(1, height, width), (1.0, 1.0), RATIO, stream(1)).tolist() == [list(map(float, expected))]
    assert central_crop(sizes(1, height, width), RATIO).tolist() == [list(map(float, expected))]


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 700), st.integers(1, 700)), min_size=1, max_size=6),
    st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)).map(sorted),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
    st.integers(0, 2**40),
)
def test_crops_always_lie_inside(
    shapes: list[tuple[int, int]], area: list[float], ratio: list[float], seed: int
) -> None:
    size = np.array(shapes, dtype=np.int64)
    box = draw_crop(size, (area[0], area[1]), (ratio[0], ratio[1]), stream(len(size), seed=seed))
    assert (box == np.floor(box)).all()
    assert (box[:, :2] >= 0).all()
    assert (box[:, 2:] >= 0).all()
    assert (box[:, :2] + box[:, 2:] <= size).all()
    # A side of 0 is torchvision's too, in the fallback for one-pixel images with an extreme ratio.
    plain = (size.min(axis=1) >= 10) | ((ratio[0] <= 1) & (ratio[1] >= 1))
    assert (box[plain, 2:] >= 1).all()


def test_view_draws_of_a_sample_do_not_depend_on_its_company() -> None:
    """Erasing takes more tries for some than for others; nothing of that may leak."""
    rows = np.array([90, 17, 3, 55, 41], dtype=np.int64)
    size = np.array([[256, 128], [64, 32], [300, 300], [90, 200], [10, 500]], dtype=np.int64)
    plan = replace(PLAN, pad=4, erase_area=(0.3, 0.99))
    together = draw_view(plan, size, SampleDraws(rows, seed=5, epoch=2, view=1))
    for place, row in enumerate(rows):
        alone = draw_view(plan, size[place : place + 1], SampleDraws(np.array([row]), seed=5, epoch=2, view=1))
        for name in ViewDraws.__dataclass_fields__:
            np.testing.assert_array_equal(getattr(together, name)[place], getattr(alone, name)[0], err_msg=name)


LARGE, LOCAL, OTHER = (
    PLAN,
    replace(PLAN, height=128, width=64, crop_area=(0.05, 0.4)),
    replace(PLAN, pad=4, jitter=Jitter()),
)


@pytest.mark.parametrize(
    "plans",
    [[LARGE], [LARGE, LARGE], [LARGE, LOCAL], [LARGE, LARGE, *[LOCAL] * 8], [LOCAL, LARGE, OTHER, LOCAL, LARGE], []],
    ids=["one", "two alike", "two", "two and eight", "in turns", "none"],
)
@pytest.mark.parametrize("number", [1, 7])
def test_views_drawn_together_are_those_drawn_one_by_one(plans: list[ViewPlan], number: int) -> None:
    rows = np.random.default_rng(1).integers(0, 2**32, number)
    size = np.random.default_rng(2).integers(20, 300, (number, 2))
    together = draw_views(plans, size, rows, seed=5, epoch=2)
    assert len(together) == len(plans)
    for view, (plan, found) in enumerate(zip(plans, together, strict=True)):
        alone = draw_view(plan, size, SampleDraws(rows, seed=5, epoch=2, view=view))
        for name in ViewDraws.__dataclass_fields__:
            ours, theirs = getattr(found, name), getattr(alone, name)
            assert ours.dtype == theirs.dtype
            np.testing.assert_array_equal(ours, theirs, err_msg=f"{view}: {name}")


def test_equal_plans_are_drawn_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def count(plan: ViewPlan, size: NDArray[np.int64], draws: SampleDraws) -> ViewDraws:
        drawn.append(len(size))
        return draw_view(plan, size, draws)

    monkeypatch.setattr("lupctl.core.training.views.plan.draw_view", count)
    draw_views([LARGE, LOCAL, LARGE, *[LOCAL] * 7], sizes(3, 64, 32), np.arange(3), seed=5, epoch=2)
    assert drawn == [2 * 3, 8 * 3]


def test_draws_stay_what_they_are_as_tensors() -> None:
    drawn = draw_view(PLAN, sizes(6, 64, 32), stream(6))
    tensors = drawn.tensors()
    for found, shift in (
        (tensors.arrays(), 0), (tensors.to(torch.device("cpu")).arrays(), 0), (tensors.part(2, 5).arrays(), 2),
        (drawn.part(2, 5), 2),
    ):  # fmt: skip
        for name, values in vars(found).items():
            whole = getattr(drawn, name)
            assert values.dtype == whole.dtype
            np.testing.assert_array_equal(values, whole[shift : shift + len(values)], err_msg=name)


def test_switches_come_with_their_probabilities_and_independently() -> None:
    number = 8000
    drawn = draw_view(PLAN, sizes(number, 256, 128), stream(number))
    switches = {
        "grey": (drawn.grey, 0.2),
        "flip": (drawn.flip, 0.5),
        "blur": (drawn.radius > 0, 0.5),
        "jitter": (drawn.jitter_order[:, 0] >= 0, 0.8),
        "erase": (drawn.erase[:, 2] > 0, 0.5),
    }
    for name, (on, p) in switches.items():
        assert abs(on.mean() - p) < 5 * math.sqrt(p * (1 - p) / number), name
    correlation = np.corrcoef(np.stack([on for on, _ in switches.values()]).astype(float))
    assert np.abs(correlation - np.eye(5)).max() < 5 / math.sqrt(number)
    radius = drawn.radius[drawn.radius > 0].astype(np.float64)
    assert 0.1 <= radius.min() < 0.11
    assert 1.99 < radius.max() <= 2.0
    assert largest_gap(radius, np.linspace(0.1, 2.0, 4000)) < 0.05


def test_probabilities_of_0_and_1_are_certain() -> None:
    number = 500
    never = draw_view(ViewPlan(256, 128, PLAN.mean, PLAN.std), sizes(number, 80, 40), stream(number))
    assert not never.flip.any()
    assert not never.grey.any()
    assert not never.radius.any()
    assert not never.erase.any()
    assert not never.shift.any()
    assert (never.jitter_order == -1).all()
    assert (never.box == [0, 0, 80, 40]).all()
    always = draw_view(replace(PLAN, flip=1.0, grey=1.0, blur=1.0, erase=1.0), sizes(number, 80, 40), stream(number))
    assert always.flip.all()
    assert always.grey.all()
    assert (always.radius >= 0.1).all()
    assert (always.erase[:, 2:] > 0).all()


def test_padding_shifts_are_uniform_over_both_directions() -> None:
    number, pad = 21 * 600, 10
    shift = draw_view(replace(PLAN, pad=pad), sizes(number, 64, 32), stream(number)).shift
    for direction in range(2):
        values, counts = np.unique(shift[:, direction], return_counts=True)
        assert values.tolist() == list(range(-10, 11))
        # Chi-square with 20 degrees of freedom: 56 is passed once in 30,000 times.
        assert float(((counts - 600) ** 2 / 600).sum()) < 56
    assert abs(np.asarray(np.corrcoef(shift.T))[0, 1]) < 5 / math.sqrt(number)


def slow_erase(plan: ViewPlan, numbers: NDArray[np.float64]) -> list[int]:
    """The published loop: up to 100 tries, strictly smaller than the image, aspect h / w uniform."""
    for u_area, u_aspect, u_top, u_left in numbers.reshape(100, 4):
        area = plan.height * plan.width * (plan.erase_area[0] + u_area * (plan.erase_area[1] - plan.erase_area[0]))
        aspect = plan.erase_aspect[0] + u_aspect * (plan.erase_aspect[1] - plan.erase_aspect[0])
        h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if h < plan.height and w < plan.width:
            return [int(u_top * (plan.height - h + 1)), int(u_left * (plan.width - w + 1)), h, w]
    return [0, 0, 0, 0]


def test_erasing_takes_the_first_try_that_fits() -> None:
    plan = replace(PLAN, erase_area=(0.3, 0.9))
    found = draw_erase(plan, np.ones(200, dtype=bool), stream(200))
    numbers = stream(200).branch(3).uniform(400)
    assert found.tolist() == [slow_erase(plan, row) for row in numbers]
    needed_more = sum(slow_erase(plan, row) != slow_erase(plan, np.roll(row, -4)) for row in numbers)
    assert needed_more > 20


def test_erasing_gives_up_after_its_tries() -> None:
    plan = replace(PLAN, height=4, width=400, erase_area=(0.9, 0.95), erase_aspect=(3.0, 3.3))
    assert not draw_erase(plan, np.ones(20, dtype=bool), stream(20)).any()


@settings(max_examples=150, deadline=None)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.tuples(st.floats(0.001, 1), st.floats(0.001, 1)).map(sorted),
    st.tuples(st.floats(0.1, 10), st.floats(0.1, 10)).map(sorted),
    st.integers(0, 2**40),
)
def test_erased_rectangles_always_lie_inside(
    height: int, width: int, area: list[float], aspect: list[float], seed: int
) -> None:
    plan = replace(PLAN, height=height, width=width, erase_area=(area[0], area[1]), erase_aspect=(aspect[0], aspect[1]))
    wanted = np.arange(12) % 3 != 0
    found = draw_erase(plan, wanted, stream(12, seed=seed))
    assert not found[~wanted].any()
    there = found[found[:, 2] > 0]
    assert (there[:, :2] >= 0).all()
    assert (there[:, 0] + there[:, 2] <= height).all()
    assert (there[:, 1] + there[:, 3] <= width).all()
    assert (there[:, 2] < height).all()
    assert (there[:, 3] < width).all()
    assert (there[:, 3] > 0).all()


def test_both_edges_are_reached() -> None:
    found = draw_erase(replace(PLAN, height=8, width=8), np.ones(3000, dtype=bool), stream(3000))
    assert found[:, :2].min(axis=0).tolist() == [0, 0]
    assert (found[:, 0] + found[:, 2]).max() == 8
    assert (found[:, 1] + found[:, 3]).max() == 8


def test_jitter_orders_are_permutations_each_as_likely() -> None:
    number = 24 * 400
    factors, order = draw_jitter(PLAN.jitter, np.ones(number, dtype=bool), stream(number))
    assert (np.sort(order, axis=1) == [0, 1, 2, 3]).all()
    _, counts = np.unique(order, axis=0, return_counts=True)
    assert len(counts) == 24
    # Chi-square with 23 degrees of freedom: 61 is passed once in 30,000 times.
    assert float(((counts - 400) ** 2 / 400).sum()) < 61
    for column, (low, high) in enumerate([(0.6, 1.4), (0.6, 1.4), (0.6, 1.4), (-0.1, 0.1)]):
        assert largest_gap(factors[:, column].astype(np.float64), np.linspace(low, high, 9000)) < 0.035
        assert low - 1e-6 <= factors[:, column].min()
        assert factors[:, column].max() <= high + 1e-6


def test_jitter_spares_the_images_it_should() -> None:
    number = 5000
    size = sizes(number, 8, 8)
    order = draw_view(replace(PLAN, jitter=replace(PLAN.jitter, p=0.3)), size, stream(number)).jitter_order
    spared = (order == -1).all(axis=1)
    assert ((order == -1).any(axis=1) == spared).all()  # whole images, never single operations
    assert abs(spared.mean() - 0.7) < 0.04


def test_a_plan_from_a_recipes_tables() -> None:
    pixels = {"height": 64, "width": 32, "mean": [0.1, 0.2, 0.3], "std": [1, 2, 3], "interpolation": "bicubic"}
    plain = build_view_plan(pixels)
    assert plain == ViewPlan(64, 32, (0.1, 0.2, 0.3), (1, 2, 3), "bicubic")
    assert plain.crop_area is None
    augment = {"crop_area": [0.2, 1.0], "flip": 0.5, "jitter": {"p": 0.8, "hue": 0.1}, "erase_area": [0.02, 0.6]}
    full = build_view_plan(pixels, augment)
    assert (full.crop_area, full.flip, full.jitter, full.erase_area) == (
        (0.2, 1.0),
        0.5,
        Jitter(p=0.8, hue=0.1),
        (0.02, 0.6),
    )
    assert build_view_plan(pixels, {"crop_area": []}).crop_area is None


def _numpy_state() -> list[int]:
    state: Any = np.random.get_state()
    return list(state[1])


def test_crops_do_not_touch_global_generators() -> None:
    before = (random.getstate(), torch.random.get_rng_state(), _numpy_state())
    draw_view(PLAN, sizes(10, 64, 32), stream(10))
    assert random.getstate() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert _numpy_state() == before[2]
