"""Sections of self-distillation with several crops (DINO), and of what watches any pre-training."""

from typing import Annotated

from pydantic import Field

from lupctl.core.choices import CollapseRule
from lupctl.core.recipes.sections import (
    Augment,
    JitterSettings,
    MisfitError,
    Net,
    Pixels,
    Positive,
    Range,
    Section,
    Share,
)
from lupctl.core.recipes.vit_sections import VitNet

PUBLISHED_JITTER = JitterSettings(p=0.8, saturation=0.2)


class DinoSettings(Section):
    """Self-distillation without labels (DINO). The defaults are those of TransReID-SSL.

    Args:
        outputs: K of the head's last layer, which both networks are compared in.
        hidden, bottleneck: widths of the head's two layers before it, and of what it normalises.
        momentum: of the averaged network.
        temperature: of the averaged network's outputs.
        student_temperature: of the trained network's outputs.
        centre_momentum: of the mean output that is subtracted from the averaged network's.
        frozen_epochs: number of epochs at the start in which the last layer stays as it is.
    """

    outputs: Annotated[int, Field(ge=2)] = 65536
    hidden: Positive = 2048
    bottleneck: Positive = 256
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.996
    temperature: Annotated[float, Field(gt=0)] = 0.04
    student_temperature: Annotated[float, Field(gt=0)] = 0.1
    centre_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    frozen_epochs: Annotated[int, Field(ge=0)] = 1


class SecondAugment(Augment):
    """How the second global view is made; `augment` is for the first."""

    crop_area: Range | tuple[()] = (0.4, 1.0)
    jitter: JitterSettings = PUBLISHED_JITTER
    blur: Share = 0.1
    erase: Share = 0.0
    solarise: Share = 0.2


class LocalAugment(Augment):
    """How small views of small parts are made, which the trained network alone sees.

    Args:
        count: number of them; 0 for none.
        height, width: in pixels.
    """

    count: Annotated[int, Field(ge=0, le=32)] = 8
    height: Annotated[int, Field(ge=16, le=2048)] = 128
    width: Annotated[int, Field(ge=8, le=2048)] = 64
    crop_area: Range | tuple[()] = (0.05, 0.4)
    jitter: JitterSettings = PUBLISHED_JITTER
    erase: Share = 0.0


class Watch(Section):
    """What is done when features or outputs collapse, to one point or to uniform outputs.

    Args:
        collapse: warn says so once; stop also ends the run, at the last good state; off does not look.
    """

    collapse: CollapseRule = "warn"


def check_views(net: Net, vit: VitNet | None, pixels: Pixels, local: LocalAugment) -> None:
    """Refuses views that do not fit each other, or a grid of patches.

    Raises:
        MisfitError: names the key, and a value that fits.
    """
    wholes, smalls = (("height", pixels.height), ("width", pixels.width)), (local.height, local.width)
    for (key, whole), small in zip(wholes, smalls, strict=True):
        if local.count and small > whole:
            raise MisfitError(
                f"local.{key} = {small} is larger than pixels.{key} = {whole}; local views are parts of an image",
                hint=f"--set local.{key}={_fit(whole // 2, vit)}",
            )
        if vit is None or vit.stride != vit.patch:  # patches that overlap have no exact size
            continue
        for section, size in (("pixels", whole), *((("local", small),) if local.count else ())):
            if size % vit.patch:
                raise MisfitError(
                    f"{section}.{key} = {size} is no multiple of {net.arch}'s patch of {vit.patch} pixels",
                    hint=f"--set {section}.{key}={_fit(size, vit)}",
                )


def _fit(size: int, vit: VitNet | None) -> int:
    """The largest multiple of a patch up to a size, at least one."""
    patch = 1 if vit is None else vit.patch
    return max(size // patch, 1) * patch
