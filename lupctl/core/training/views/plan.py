"""The plan for the pixels of one view, and its draws for every sample of a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import EraseFill, Interpolation
from lupctl.core.training.views.drawn import ViewDraws
from lupctl.core.training.views.draws import SampleDraws

CROP_TRIES = 10
ERASE_TRIES, NOISE_TRIES = 100, 10
# Numbers for several tries cost little more than for one, and most images need more than one.
TRIES_AT_ONCE = 5
# 4 is AutoAugment's, 8 that of hidden cameras. A new switch takes a new one, so that no other number ever moves.
_CROP, _JITTER, _ERASE, _NOISE, _SOLARISE = 1, 2, 3, 5, 6


@dataclass(frozen=True)
class Jitter:
    """Colour jitter as torchvision defines it: factors U(1 - s, 1 + s), hue shift U(-h, h), random order.

    Args:
        p: probability for an image.
        brightness, contrast, saturation: strengths s.
        hue: strength h in turns, at most 0.5.
    """

    p: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0


@dataclass(frozen=True)
class ViewPlan:
    """How one view of an image is made; the defaults only resize and normalise, as evaluation does.

    The order is fixed: crop, jitter, grey, blur, solarise, flip, normalise, erase; erasing with black comes before
    normalising, and with `pad_after_flip` a mirrored image is padded and cut.

    Args:
        height, width: of the result, in pixels.
        mean, std: of RGB in [0, 1].
        interpolation: filter of the one resize, antialiased as in Pillow.
        crop_area: share of the image a random resized crop covers; None takes the whole image.
        crop_ratio: width over height of that crop, drawn log-uniformly.
        pad: black pixels added on each side after a whole-image resize; a random window is then cut from the result.
        pad_after_flip: the window is offset from the mirrored image, not from the image.
        flip, grey, blur, solarise: probabilities.
        blur_radius: standard deviation of the Gaussian in pixels of the result.
        erase: probability of erasing a rectangle.
        erase_fill: mean fills it with 0 in normalised space, black with pixels of 0, constant with three numbers in
            normalised space, noise with Gaussian noise there, drawn for each pixel and channel.
        erase_area: its share of the image.
        erase_aspect: its height over width, drawn uniformly; with noise, log-uniformly.
    """

    height: int
    width: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bilinear"
    crop_area: tuple[float, float] | None = None
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    pad: int = 0
    pad_after_flip: bool = False
    jitter: Jitter = field(default_factory=Jitter)
    grey: float = 0.0
    blur: float = 0.0
    blur_radius: tuple[float, float] = (0.1, 2.0)
    solarise: float = 0.0
    flip: float = 0.0
    erase: float = 0.0
    erase_area: tuple[float, float] = (0.02, 0.4)
    erase_aspect: tuple[float, float] = (0.3, 1 / 0.3)
    erase_fill: EraseFill = "mean"


def build_view_plan(pixels: Mapping[str, Any], augment: Mapping[str, Any] | None = None) -> ViewPlan:
    """The plan that a recipe's tables describe; without `augment`, the plan of evaluation.

    Args:
        pixels: height, width, mean, std, interpolation, and test_interpolation for evaluation if it differs.
        augment: the other fields of `ViewPlan`; an empty crop_area takes the whole image.
    """
    settings = {key: _as_tuple(value) for key, value in (augment or {}).items() if key != "jitter"}
    settings["crop_area"] = settings.get("crop_area") or None
    jitter = Jitter(**augment["jitter"]) if augment and "jitter" in augment else Jitter()
    given = {key: _as_tuple(value) for key, value in pixels.items() if key != "test_interpolation"}
    if augment is None and pixels.get("test_interpolation"):
        given["interpolation"] = pixels["test_interpolation"]
    return ViewPlan(**given, **settings, jitter=jitter)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def draw_views(
    plans: Sequence[ViewPlan], size: NDArray[np.int64], samples: NDArray[np.int64], *, seed: int, epoch: int
) -> list[ViewDraws]:
    """Draws every view of every sample.

    Args:
        plans: one per view; they may differ.
        size: (N, 2) height and width of the source images.
        samples: (N) the keys of the samples' numbers, below 2**32.
        seed, epoch: with the sample and the view, everything that the numbers depend on.
    """
    views_of: dict[ViewPlan, list[int]] = {}
    for view, plan in enumerate(plans):
        views_of.setdefault(plan, []).append(view)
    drawn: dict[int, ViewDraws] = {}
    for plan, views in views_of.items():
        # All views of a plan at once: the cost depends on the number of calls, not on the number of draws.
        numbers = np.array(views).repeat(len(samples))
        draws = SampleDraws(np.tile(samples, len(views)), seed=seed, epoch=epoch, view=numbers)
        together = draw_view(plan, np.tile(size, (len(views), 1)), draws)
        for position, view in enumerate(views):
            drawn[view] = together.part(position * len(samples), (position + 1) * len(samples))
    return [drawn[view] for view in range(len(plans))]


def draw_view(plan: ViewPlan, size: NDArray[np.int64], draws: SampleDraws) -> ViewDraws:
    """Draws everything one view needs.

    Every sample consumes the same numbers whatever is drawn for the others.

    Args:
        plan: the distributions.
        size: (N, 2) height and width of the source images.
        draws: the samples' own random streams.
    """
    number = len(size)
    switches = draws.uniform(8)
    box = np.zeros((number, 4), dtype=np.float32)
    box[:, 2:] = size
    if plan.crop_area is not None:
        box = draw_crop(size, plan.crop_area, plan.crop_ratio, draws)
    shift = np.zeros((number, 2), dtype=np.int32)
    if plan.pad:
        shift = np.floor(switches[:, 5:7] * (2 * plan.pad + 1)).astype(np.int32) - plan.pad
    low, high = plan.blur_radius
    radius = np.where(switches[:, 1] < plan.blur, low + switches[:, 2] * (high - low), 0.0)
    factors, order = draw_jitter(plan.jitter, switches[:, 7] < plan.jitter.p, draws)
    solarise = np.zeros(number, dtype=np.bool_)
    if plan.solarise > 0:
        solarise = draws.branch(_SOLARISE).uniform(1)[:, 0] < plan.solarise
    erase = np.zeros((number, 4), dtype=np.int32)
    if plan.erase > 0:
        erase = draw_erase(plan, switches[:, 4] < plan.erase, draws)
    noise = np.zeros((number, 2), dtype=np.int64)
    if plan.erase > 0 and plan.erase_fill == "noise":
        noise = np.floor(draws.branch(_NOISE).uniform(2) * 2.0**32).astype(np.int64)
    return ViewDraws(
        box=box,
        shift=shift,
        flip=switches[:, 3] < plan.flip,
        grey=switches[:, 0] < plan.grey,
        radius=radius.astype(np.float32),
        solarise=solarise,
        jitter=factors,
        jitter_order=order,
        erase=erase,
        noise=noise,
    )


def draw_crop(
    size: NDArray[np.int64], area: tuple[float, float], ratio: tuple[float, float], draws: SampleDraws
) -> NDArray[np.float32]:
    """Random resized crops with torchvision's rule: ten tries, then a central crop of the nearest legal ratio.

    Returns:
        (N, 4) top, left, height, width in whole source pixels.
    """
    box = central_crop(size, ratio)
    stream = draws.branch(_CROP)
    rows = np.arange(len(size))
    for _ in range(0, CROP_TRIES, TRIES_AT_ONCE):
        numbers = stream.uniform(4 * TRIES_AT_ONCE, rows=rows).reshape(-1, TRIES_AT_ONCE, 4)
        lines, columns = size[rows, :1].astype(np.float64), size[rows, 1:].astype(np.float64)
        target = lines * columns * _between(area, numbers[..., 0])
        aspect = _log_between(ratio, numbers[..., 1])
        width, height = np.rint(np.sqrt(target * aspect)), np.rint(np.sqrt(target / aspect))
        legal = (width > 0) & (width <= columns) & (height > 0) & (height <= lines)
        top = np.floor(numbers[..., 2] * (lines - height + 1))
        left = np.floor(numbers[..., 3] * (columns - width + 1))
        rows = _keep_first_legal(box, rows, legal, np.stack([top, left, height, width], axis=-1))
        if len(rows) == 0:
            break
    return box.astype(np.float32)


def central_crop(size: NDArray[np.int64], ratio: tuple[float, float]) -> NDArray[np.float64]:
    """The largest central crop whose width over height is in `ratio`; (N, 4) top, left, height, width."""
    rows, columns = size[:, 0].astype(np.float64), size[:, 1].astype(np.float64)
    shape = columns / rows
    width = np.where(shape > ratio[1], np.rint(rows * ratio[1]), columns)
    height = np.where(shape < ratio[0], np.rint(columns / ratio[0]), rows)
    return np.stack([(rows - height) // 2, (columns - width) // 2, height, width], axis=1)


def draw_jitter(
    jitter: Jitter, wanted: NDArray[np.bool_], draws: SampleDraws
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Factors (N, 4) and the order (N, 4) of brightness 0, contrast 1, saturation 2, hue 3; -1 where not jittered."""
    number = len(wanted)
    factors = np.tile(np.array([1, 1, 1, 0], dtype=np.float32), (number, 1))
    order = np.full((number, 4), -1, dtype=np.int64)
    if jitter.p == 0:
        return factors, order
    numbers = draws.branch(_JITTER).uniform(8)
    strengths = np.array([jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue])
    factors = (factors + (2 * numbers[:, :4] - 1) * strengths).astype(np.float32)
    order = np.where(wanted[:, None], np.argsort(numbers[:, 4:8], axis=1, kind="stable"), -1)
    return factors, order


def draw_erase(plan: ViewPlan, wanted: NDArray[np.bool_], draws: SampleDraws) -> NDArray[np.int32]:
    """Rectangles to erase: the first of up to 100 tries that is strictly smaller than the image.

    With noise it is timm's rule (RandomErasing, Wightman 2019): ten tries, and a log-uniform aspect.

    Returns:
        (N, 4) top, left, height, width in pixels of the result; zeros where nothing is erased.
    """
    found = np.zeros((len(wanted), 4), dtype=np.int32)
    stream = draws.branch(_ERASE)
    rows = np.flatnonzero(wanted)
    is_noise = plan.erase_fill == "noise"
    for _ in range(0, NOISE_TRIES if is_noise else ERASE_TRIES, TRIES_AT_ONCE):
        if len(rows) == 0:
            break
        numbers = stream.uniform(4 * TRIES_AT_ONCE, rows=rows).reshape(-1, TRIES_AT_ONCE, 4)
        area = plan.height * plan.width * _between(plan.erase_area, numbers[..., 0])
        aspect = (_log_between if is_noise else _between)(plan.erase_aspect, numbers[..., 1])
        height, width = np.rint(np.sqrt(area * aspect)), np.rint(np.sqrt(area / aspect))
        fits = (height < plan.height) & (width < plan.width) & (height > 0) & (width > 0)
        top = np.floor(numbers[..., 2] * (plan.height - height + 1))
        left = np.floor(numbers[..., 3] * (plan.width - width + 1))
        rows = _keep_first_legal(found, rows, fits, np.stack([top, left, height, width], axis=-1))
    return found


def _keep_first_legal(
    boxes: NDArray[Any], rows: NDArray[np.int64], legal: NDArray[np.bool_], tries: NDArray[np.float64]
) -> NDArray[np.int64]:
    """Writes the first legal one of each row's tries (M, T, 4) into its box; returns the rows that have none."""
    done = legal.any(axis=1)
    boxes[rows[done]] = tries[done, legal[done].argmax(axis=1)]
    return rows[~done]


def _between(bounds: tuple[float, float], share: NDArray[np.float64]) -> NDArray[np.float64]:
    return bounds[0] + share * (bounds[1] - bounds[0])


def _log_between(bounds: tuple[float, float], share: NDArray[np.float64]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = np.exp(_between((np.log(bounds[0]), np.log(bounds[1])), share))
    return found
