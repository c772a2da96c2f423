"""Sections that only a pre-training recipe has."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Final, Self

from pydantic import Field, model_validator

from lupctl.core.choices import ContrastForm, CurveKind, Interpolation, Method, PnlPositives, PnlVariant
from lupctl.core.recipes.dino_sections import DinoSettings
from lupctl.core.recipes.sections import Augment, Optim, Positive, Range, Section, Share


class PretrainData(Section):
    """Images for pre-training.

    Args:
        packs: names in the workspace or paths; empty takes the workspace's unlabelled pack.
        batch: images per step over all devices.
        keep: the best of the images by their scores: up to 1 a share of them, above 1 a number; 0 is all.
        scores: file with the scores; empty takes the one beside each pack.
    """

    packs: tuple[str, ...] = ()
    batch: Annotated[int, Field(ge=2)] = 2560
    keep: Annotated[float, Field(ge=0)] = 0.0
    scores: str = ""

    @model_validator(mode="after")
    def _check_keep(self) -> Self:
        if self.keep > 1 and self.keep != int(self.keep):
            raise ValueError(f"keep = {self.keep}; a share up to 1 or a whole number of images is expected")
        return self


class MocoSettings(Section):
    """Momentum contrast.

    Args:
        dim: of the contrastive space.
        queue: negatives kept.
        momentum: of the key encoder.
        temperature: of the loss. LUPerson's released script uses 0.1; a survey reports 0.07 for the paper.
    """

    dim: Positive = 128
    queue: Positive = 65536
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    temperature: Annotated[float, Field(gt=0)] = 0.1


class PnlSettings(Section):
    """Pre-training with noisy labels (PNL). The defaults are those of the published code; epochs count from 0.

    Args:
        variant: the losses. ce classifies, ic contrasts with a queue, pro adds prototypes and corrected labels, and lgc
            lets the contrast take images with the same label as positives. ic needs no labels.
        dim: of the contrastive space, and of the prototypes.
        hidden: size of the layer before the classifier; 0 classifies the pooled feature itself.
        queue: keys kept.
        momentum: of the averaged encoder.
        temperature: of contrast and prototypes; the paper's is unknown.
        prototype_momentum: of the prototypes.
        alpha: weight of the classifier in a correction; that of the prototypes is the rest.
        threshold: what the mean of the two must exceed for a correction; at least 0.5, so that one class at most can.
        prototype_epoch: first epoch with the prototypes' loss; they fill from the start.
        correction_epoch: first epoch with corrected labels.
        positives_epoch: first epoch in which the queue has positives; 15 in the launch script, 12 in the code's parser.
        contrast_weight, prototype_weight: of these two losses.
        positives: which label of an image its positives have: given in the code, corrected in the paper.
        contrast: mean-of-logs in the code, log-of-mean in the paper, where the logarithm is outside the sum.
        sharded: every process keeps some rows of the classifier and of the prototypes instead of all of them; the same
            to rounding, with less memory.
    """

    variant: PnlVariant = "ce+pro+lgc"
    dim: Positive = 128
    hidden: Annotated[int, Field(ge=0)] = 256
    queue: Positive = 65536
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    temperature: Annotated[float, Field(gt=0)] = 0.07
    prototype_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    alpha: Share = 0.5
    threshold: Annotated[float, Field(ge=0.5, le=1)] = 0.8
    prototype_epoch: Annotated[int, Field(ge=0)] = 1
    correction_epoch: Annotated[int, Field(ge=0)] = 11
    positives_epoch: Annotated[int, Field(ge=0)] = 15
    contrast_weight: Annotated[float, Field(ge=0)] = 1.0
    prototype_weight: Annotated[float, Field(ge=0)] = 1.0
    positives: PnlPositives = "given"
    contrast: ContrastForm = "mean-of-logs"
    sharded: bool = False

    @property
    def classifies(self) -> bool:
        """Whether there is a classifier, and so a need of labels."""
        return self.variant != "ic"

    @property
    def contrasts(self) -> bool:
        """Whether there is a queue and an averaged encoder."""
        return self.variant in ("ic", "ce+ic", "ce+pro+lgc")

    @property
    def has_prototypes(self) -> bool:
        """Whether there are prototypes, and so corrections."""
        return self.variant in ("ce+pro", "ce+pro+lgc")

    @model_validator(mode="after")
    def _check_epochs(self) -> Self:
        if self.correction_epoch < self.prototype_epoch:
            raise ValueError(
                f"correction_epoch = {self.correction_epoch} is before prototype_epoch = {self.prototype_epoch}; "
                "labels are corrected by prototypes"
            )
        return self


class WeakAugment(Augment):
    """How the student's view is made: a padded crop and a flip, without erasing.

    Args:
        interpolation: of the one resize of this view; that of the other views is `pixels.interpolation`.
    """

    crop_area: Range | tuple[()] = ()
    pad: Annotated[int, Field(ge=0)] = 10
    grey: Share = 0.0
    blur: Share = 0.0
    erase: Share = 0.0
    interpolation: Interpolation = "bicubic"


class BatchSettings(Section):
    """Contrast within a batch, without a queue.

    Args:
        dim: of the contrastive space.
        temperature: of the loss.
        weight: of the loss.
    """

    dim: Positive = 128
    temperature: Annotated[float, Field(gt=0)] = 0.1
    weight: Annotated[float, Field(gt=0)] = 1.0


class SimclrSettings(BatchSettings):
    """SimCLR: the two views of an image are each other's only positives."""


class SupconSettings(BatchSettings):
    """Supervised contrast: all images with the same label are positives."""


MethodSettings = MocoSettings | PnlSettings | SimclrSettings | SupconSettings | DinoSettings
# The tables that belong to a method; a recipe has those of its own method and no others.
METHOD_SECTIONS: Final[Mapping[Method, Sequence[str]]] = {
    "moco": ("moco",),
    "pnl": ("pnl", "augment_weak"),
    "simclr": ("simclr",),
    "supcon": ("supcon",),
    "dino": ("dino", "augment_second", "local"),
    "solider": ("solider", "dino", "augment_second", "local"),
}


def uses_labels(settings: MethodSettings) -> bool:
    """Whether a method learns from labels."""
    match settings:
        case PnlSettings():
            return settings.classifies
        case SupconSettings():
            return True
        case MocoSettings() | SimclrSettings() | DinoSettings():
            return False


def shuffles_keys(settings: MethodSettings) -> bool:
    """Whether a method has an averaged encoder whose keys are shuffled among batch-norm groups."""
    match settings:
        case PnlSettings():
            return settings.contrasts
        case MocoSettings():
            return True
        case SimclrSettings() | SupconSettings() | DinoSettings():
            return False


def check_sections(
    tables: Mapping[str, Any], method: str, sections: Mapping[Any, Sequence[str]] = METHOD_SECTIONS
) -> dict[str, Any]:
    """The tables of a recipe, with the missing tables of its method added empty.

    >>> check_sections({"optim": {}}, "moco")
    {'optim': {}, 'moco': {}}
    >>> check_sections({"dino": {}}, "moco")
    Traceback (most recent call last):
    ...
    ValueError: [dino] is a section of the method dino; this recipe's method is moco

    Args:
        tables: of the recipe.
        method: its own.
        sections: by method.

    Raises:
        ValueError: a section of another method is present.
    """
    own = sections.get(method, ())
    for other, names in sections.items():
        for name in names:
            if name not in own and tables.get(name) is not None:
                raise ValueError(f"[{name}] is a section of the method {other}; this recipe's method is {method}")
    return {**tables, **{name: {} for name in own if tables.get(name) is None}}


class CurveSettings(Section):
    """How a number changes over the run, starting from the value of its own key.

    Args:
        kind: constant, or from there to `final` along a straight line or half a cosine.
        final: value at the end.
        epochs: length of the change, after which the value stays; 0 is the whole run.
    """

    kind: CurveKind = "constant"
    final: Annotated[float, Field(ge=0)] = 0.0
    epochs: Annotated[float, Field(ge=0)] = 0.0

    @model_validator(mode="after")
    def _check_constant(self) -> Self:
        if self.kind == "constant" and (self.final or self.epochs):
            raise ValueError("a constant curve has no final value and no epochs; kind = cosine or linear has")
        return self


class Curves(Section):
    """Numbers other than the learning rate that may change over the run, step by step.

    Args:
        decay: of the optimizer, from optim.weight_decay.
        momentum: of the averaged network, from the method's momentum.
        temperature: from the method's temperature.
    """

    decay: CurveSettings = CurveSettings()
    momentum: CurveSettings = CurveSettings()
    temperature: CurveSettings = CurveSettings()

    @model_validator(mode="after")
    def _check_ends(self) -> Self:
        if self.momentum.final > 1:
            raise ValueError(f"momentum.final = {self.momentum.final}; a share from 0 to 1 is expected")
        if self.temperature.kind != "constant" and self.temperature.final == 0:
            raise ValueError("temperature.final = 0; a temperature above 0 is expected")
        return self


class PretrainOptim(Optim):
    """The optimizer of pre-training.

    Args:
        accumulate: equal parts that a GPU processes one after another before it updates; `data.batch` stays the
            whole batch, so the update is the same and activations take less memory. Divides `bn_groups`. A CPU
            processes one batch-norm group at a time in any case.
    """

    accumulate: Positive = 1


class Probe(Section):
    """Scores of the backbone's features during training; has no effect on the training.

    Args:
        pack: labelled pack with queries and gallery, by name in the workspace or path; empty turns the probe off.
        every_epochs: how often; the end of the run is always probed.
    """

    pack: str = ""
    every_epochs: Positive = 10
