"""Ten views of an image: solarised or not, each with its own probabilities, and made together where that is faster."""

import math
from contextlib import nullcontext
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from lupctl.core.training.loading.slots import WorkerSlots, stack_images
from lupctl.core.training.views.colours import solarise
from lupctl.core.training.views.drawn import DrawTensors, ViewDraws
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.pixels import make_view, make_views
from lupctl.core.training.views.plan import Jitter, ViewPlan, draw_view, draw_views

JITTER = Jitter(p=0.8, brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1)
# TransReID-SSL's: two global views and eight local ones.
FIRST = ViewPlan(
    height=256, width=128, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), interpolation="bicubic",
    crop_area=(0.4, 1.0), jitter=JITTER, grey=0.2, blur=1.0, blur_radius=(0.1, 2.0), flip=0.5,
)  # fmt: skip
SECOND = replace(FIRST, blur=0.1, solarise=0.2)
LOCAL = replace(FIRST, height=128, width=64, crop_area=(0.05, 0.4), blur=0.5)
PUBLISHED = (FIRST, SECOND, *[LOCAL] * 8)
# The same, small enough to look at pixel by pixel.
SMALL = tuple(replace(plan, height=plan.height // 8, width=plan.width // 8) for plan in PUBLISHED)
ERASED = replace(SMALL[1], solarise=0.5, erase=0.5, pad=3)


def picture(height: int, width: int, *, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def sizes(number: int, height: int, width: int) -> NDArray[np.int64]:
    return np.tile(np.array([height, width], dtype=np.int64), (number, 1))


def images_and_draws(plans: tuple[ViewPlan, ...]) -> tuple[torch.Tensor, tuple[DrawTensors, ...]]:
    """Images of several sizes, and the draws of their views."""
    images = [picture(*shape, seed=seed) for seed, shape in enumerate([(64, 32), (50, 60), (130, 64), (40, 20)] * 2)]
    pixels, size, _ = stack_images(images, WorkerSlots(), count=len(images))
    drawn = draw_views(plans, size, np.arange(len(images)), seed=4, epoch=1)
    return pixels, tuple(view.tensors() for view in drawn)


def gap_to_uniform(values: NDArray[np.float64], low: float, high: float) -> float:
    """Kolmogorov's distance, times the root of the number of values: above 2.2 once in 16,000 times."""
    number = len(values)
    share = (np.sort(values) - low) / (high - low)
    steps = np.arange(number + 1) / number
    return float(max(np.abs(share - steps[:-1]).max(), np.abs(share - steps[1:]).max()) * math.sqrt(number))


# Solarise


def test_solarise_is_pillows_on_every_level() -> None:
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    expected = np.asarray(ImageOps.solarize(Image.fromarray(levels)), dtype=np.int64)
    view = torch.from_numpy(levels).permute(2, 0, 1)[None] / 255
    ours = solarise(view, torch.tensor([True]))[0].permute(1, 2, 0)
    np.testing.assert_array_equal(np.rint(ours.double().numpy() * 255), expected)
    assert expected[7, 15, 0] == 127  # the last that stays, and the first that does not
    assert expected[8, 0, 0] == 127


def test_solarise_inverts_from_a_half_on_and_only_where_it_is_drawn() -> None:
    view = torch.rand(5, 3, 6, 4, generator=torch.Generator().manual_seed(1))
    view[0, 0, 0, :2] = torch.tensor([0.5, 0.49999997])
    wanted = torch.tensor([True, False, True, True, False])
    made = solarise(view.clone(), wanted)
    assert torch.equal(made[~wanted], view[~wanted])
    assert torch.equal(made[wanted], torch.where(view[wanted] >= 0.5, 1 - view[wanted], view[wanted]))


# The numbers that decide


def test_each_number_has_its_own_place_in_the_generator() -> None:
    """Those of every recipe there is: a switch that took a number of another would move all pixels."""
    number, plan = 64, replace(FIRST, pad=5, solarise=0.3, blur=0.6, erase=0.5, erase_fill="noise", crop_area=None)
    stream = SampleDraws(np.arange(number), seed=7, epoch=2, view=3)
    drawn = draw_view(plan, sizes(number, 300, 150), stream)
    stream = SampleDraws(np.arange(number), seed=7, epoch=2, view=3)
    word = stream.uniform(8).T
    np.testing.assert_array_equal(drawn.grey, word[0] < 0.2)
    np.testing.assert_array_equal(drawn.radius, np.where(word[1] < 0.6, 0.1 + 1.9 * word[2], 0).astype(np.float32))
    np.testing.assert_array_equal(drawn.flip, word[3] < 0.5)
    assert not drawn.erase[word[4] >= 0.5].any()
    np.testing.assert_array_equal(drawn.shift, np.floor(11 * word[5:7].T).astype(np.int32) - 5)
    np.testing.assert_array_equal(drawn.jitter_order[:, 0] >= 0, word[7] < 0.8)
    crop = SampleDraws(np.arange(number), seed=7, epoch=2, view=3)
    box = draw_view(replace(LOCAL, crop_area=(0.2, 0.2), crop_ratio=(1.0, 1.0)), sizes(number, 1000, 1000), crop).box
    one = stream.branch(1).uniform(4)
    np.testing.assert_array_equal(box[:, :2], np.floor(one[:, 2:] * (1001 - 447)))
    two = stream.branch(2).uniform(8)
    np.testing.assert_array_equal(drawn.jitter[:, 0], (1 + (2 * two[:, 0] - 1) * 0.4).astype(np.float32))
    assert (drawn.erase[:, 2] > 0)[word[4] < 0.5].any()  # its place is branch 3: `test_erasing_takes_the_first_try`
    np.testing.assert_array_equal(drawn.noise, np.floor(stream.branch(5).uniform(2) * 2.0**32))
    np.testing.assert_array_equal(drawn.solarise, stream.branch(6).uniform(1)[:, 0] < 0.3)


def test_solarise_moves_no_other_number_and_no_other_pixel() -> None:
    with_it, without = ERASED, replace(ERASED, solarise=0.0)
    pixels, drawn = images_and_draws((with_it, without))
    assert 0 < int(drawn[0].solarise.sum()) < len(pixels)
    assert not drawn[1].solarise.any()
    stream = SampleDraws(np.arange(len(pixels)), seed=4, epoch=1, view=0)
    size = pixels.new_tensor([[64, 32], [50, 60], [130, 64], [40, 20]] * 2, dtype=torch.long).numpy()
    other = draw_view(without, size, stream).tensors()
    for field in fields(ViewDraws):
        if field.name != "solarise":
            assert torch.equal(getattr(drawn[0], field.name), getattr(other, field.name)), field.name
    same = ~drawn[0].solarise
    one, two = make_view(with_it, pixels, drawn[0]), make_view(without, pixels, other)
    assert torch.equal(one[same], two[same])
    assert not torch.equal(one[~same], two[~same])


def test_every_published_view_has_its_own_probabilities() -> None:
    """Over 4,000 images, each with its ten views; 5 deviations are passed once in two million times."""
    number = 4000
    drawn = draw_views(PUBLISHED, sizes(number, 1000, 1000), np.arange(number), seed=11, epoch=0)
    switches = np.stack([[view.flip, view.grey, view.jitter_order[:, 0] >= 0, view.radius > 0, view.solarise]
                         for view in drawn]).astype(float)  # fmt: skip
    blur, solarised = [1.0, 0.1, *[0.5] * 8], [0.0, 0.2, *[0.0] * 8]
    for view in range(10):
        wanted = [0.5, 0.2, 0.8, blur[view], solarised[view]]
        for name, on, p in zip(("flip", "grey", "jitter", "blur", "solarise"), switches[view], wanted, strict=True):
            assert abs(on.mean() - p) <= 5 * math.sqrt(p * (1 - p) / number), (view, name)
    varied = switches.reshape(50, number)
    varied = varied[varied.std(axis=1) > 0]
    assert len(varied) == 10 * 3 + 9 + 1
    assert np.abs(np.corrcoef(varied) - np.eye(40)).max() < 5 / math.sqrt(number)  # between views, too


def test_every_published_view_has_its_own_distributions() -> None:
    number = 4000
    drawn = draw_views(PUBLISHED, sizes(number, 2000, 2000), np.arange(number), seed=12, epoch=0)
    for view, found in enumerate(drawn):
        box = found.box.astype(np.float64)
        area, aspect = box[:, 2] * box[:, 3] / 4e6, np.log(box[:, 3] / box[:, 2])
        if view < 2:  # a crop of more than three quarters may be too wide for the image, and is then drawn again
            assert 0.399 < area.min() < 0.41  # sides are rounded
            assert 0.95 < area.max() <= 1
            small = area < 0.74
            assert gap_to_uniform(area[small], 0.4, 0.74) < 2.2
            aspect = aspect[small]
        else:
            assert gap_to_uniform(area, 0.05, 0.4) < 2.2
        assert gap_to_uniform(aspect, math.log(3 / 4), math.log(4 / 3)) < 2.2
        for side in range(2):
            room = 2000 - box[:, 2 + side]
            place = (box[room > 200, side] + 0.5) / (room[room > 200] + 1)
            assert gap_to_uniform(place, 0, 1) < 2.2
        assert gap_to_uniform(found.radius[found.radius > 0].astype(float), 0.1, 2.0) < 2.2
        jittered = found.jitter[found.jitter_order[:, 0] >= 0].astype(float)
        for column, strength in enumerate((0.4, 0.4, 0.2, 0.1)):
            centre = 1 if column < 3 else 0
            assert gap_to_uniform(jittered[:, column], centre - strength, centre + strength) < 2.2


# The pixels of all views


@pytest.mark.parametrize("plans", [SMALL, (SMALL[2], ERASED, SMALL[2], ERASED), (SMALL[0],)])
def test_views_made_together_are_those_made_one_by_one(plans: tuple[ViewPlan, ...]) -> None:
    pixels, drawn = images_and_draws(plans)
    together = make_views(plans, pixels, drawn)
    for plan, own, view in zip(plans, drawn, together, strict=True):
        assert torch.equal(view, make_view(plan, pixels, own))


@pytest.mark.parametrize("plans", [SMALL, (SMALL[2], ERASED, SMALL[2], ERASED)])
def test_an_accelerator_makes_the_same_views(plans: tuple[ViewPlan, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole images are read, all views of a plan are made at once, and no size is looked up: the same bits."""
    pixels, drawn = images_and_draws(plans)
    expected = make_views(plans, pixels, drawn)
    for module in ("pixels", "resizing", "noise"):
        monkeypatch.setattr(f"lupctl.core.training.views.{module}.is_quick_to_read", lambda tensor: False)
    for view, other in zip(make_views(plans, pixels, drawn), expected, strict=True):
        assert torch.equal(view, other)


def test_views_are_made_without_reading_from_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are no numbers on torch's meta device, which has no autocast either: whatever waits for one fails there."""
    monkeypatch.setattr(torch, "autocast", lambda *given, **named: nullcontext())
    nothing = torch.device("meta")
    plans = (*SMALL, ERASED, replace(ERASED, erase_fill="noise"), replace(ERASED, erase_fill="black"))
    pixels, drawn = images_and_draws(plans)
    views = make_views(plans, pixels.to(nothing), [draws.to(nothing) for draws in drawn])
    assert [view.shape[2:] for view in views] == [(plan.height, plan.width) for plan in plans]
    with pytest.raises((NotImplementedError, RuntimeError)):
        views[0].mean().item()


def test_a_small_crop_costs_what_it_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A twentieth of a large image is read, not the rest of it."""
    read: list[int] = []
    copy = torch.Tensor.copy_

    def count(self: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        read.append(source.numel())
        return copy(self, source)

    pixels = torch.from_numpy(picture(400, 200))[None]
    plan = replace(SMALL[2], crop_area=(0.05, 0.05))
    drawn = draw_view(plan, sizes(1, 400, 200), SampleDraws(np.arange(1), seed=3, epoch=0, view=0)).tensors()
    monkeypatch.setattr(torch.Tensor, "copy_", count)
    make_view(plan, pixels, drawn)
    assert read == [3 * int(drawn.box[0, 2] * drawn.box[0, 3])]
    assert read[0] < 0.06 * pixels.numel()
