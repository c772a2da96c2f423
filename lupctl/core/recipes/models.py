"""What a recipe can say. Values are frozen; what follows from them is computed where it is used."""

import re
from typing import Annotated, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from lupctl.core.choices import (
    Arch,
    EraseFill,
    Interpolation,
    Method,
    OptimizerName,
    PersonOrder,
    Pooling,
    Precision,
    ReidHead,
    SameCamera,
    ScheduleKind,
    ScheduleUnit,
    SubsetKind,
    TripletMining,
)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Range = tuple[float, float]
Colour = tuple[float, float, float]

SUBSET_KINDS: tuple[SubsetKind, ...] = get_args(SubsetKind)
RATIO = re.compile(r"0?\.\d+|[01](?:\.\d+)?")

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
LUPERSON_MEAN: Colour = (0.3525, 0.3106, 0.3140)
LUPERSON_STD: Colour = (0.2660, 0.2522, 0.2505)
LUPERSON_NL_MEAN: Colour = (0.3452, 0.3070, 0.3114)
LUPERSON_NL_STD: Colour = (0.2633, 0.2500, 0.2480)
MGN_HEIGHT_STEP = 96


class Section(BaseModel):
    """A table of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Net(Section):
    """The trunk.

    Args:
        arch: depth.
        width: channels of the stem; 64 in every published network.
        last_stride: stride of the last stage.
        pooling: from the last map to a vector.
    """

    arch: Arch = "r50"
    width: Annotated[int, Field(ge=4, le=512)] = 64
    last_stride: Literal[1, 2] = 2
    pooling: Pooling = "avg"


class PretrainNet(Net):
    """The trunk, and how pre-training runs it; the last two change memory and speed, the result only by rounding.

    Args:
        compile: lets torch.compile translate both encoders; the first steps then take minutes.
        checkpoint_activations: keeps the outputs of residual blocks alone and computes the rest again in the backward
            pass, a third more work for a fraction of the memory.
    """

    compile: bool = False
    checkpoint_activations: bool = False


class FinetuneNet(Net):
    """The trunk and what stands behind it.

    Args:
        head: bnneck (bag of tricks) or mgn (three branches, eight heads, their own pooling).
        ibn: the trunk has IBN-a.
        embedding: features of one of the heads of mgn.
        extra_bn: mgn's batch norm on each branch's map, on in the networks that start from LUPerson.
    """

    head: ReidHead = "bnneck"
    ibn: bool = False
    embedding: Positive = 256
    extra_bn: bool = False


class Pixels(Section):
    """Size and constants of network input; RGB in [0, 1].

    Args:
        height, width: of the network's input.
        mean, std: subtracted and divided by.
        interpolation: of the one resize, antialiased as in Pillow.
    """

    height: Annotated[int, Field(ge=16, le=2048)] = 256
    width: Annotated[int, Field(ge=8, le=2048)] = 128
    mean: Colour = LUPERSON_MEAN
    std: Colour = LUPERSON_STD
    interpolation: Interpolation = "bilinear"


class JitterSettings(Section):
    """Colour jitter: factors U(1 - s, 1 + s), hue U(-h, h) turns, with probability p."""

    p: Share = 0.0
    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1


class Augment(Section):
    """How a training view is made, in this order: crop, jitter, grey, blur, flip, normalise, erase.

    Args:
        crop_area: share of the image a random resized crop covers; empty takes the whole image.
        crop_ratio: width over height of that crop.
        pad: pixels of black around the resized image, from which a window is cut.
        jitter: colour jitter.
        grey, blur, flip, erase: probabilities.
        blur_radius: standard deviation in pixels.
        erase_area: largest and smallest share of the erased rectangle.
        erase_aspect: height over width of the erased rectangle.
        erase_fill: mean erases after normalising, with 0; black before it, with pixels of 0.
    """

    crop_area: Range | tuple[()] = (0.2, 1.0)
    crop_ratio: Range = (0.75, 1.3333333333333333)
    pad: Annotated[int, Field(ge=0)] = 0
    jitter: JitterSettings = JitterSettings()
    grey: Share = 0.2
    blur: Share = 0.5
    blur_radius: Range = (0.1, 2.0)
    flip: Share = 0.5
    erase: Share = 0.5
    erase_area: Range = (0.02, 0.6)
    erase_aspect: Range = (0.3, 3.3333333333333335)
    erase_fill: EraseFill = "mean"


class Optim(Section):
    """The optimizer.

    Args:
        name: sgd, adam, adamw or lars.
        lr: base learning rate; nothing multiplies it, not even with lars.
        momentum: of sgd and lars.
        weight_decay: on every parameter; with lars on none that has one dimension.
        clip: largest gradient norm; 0 does not clip.
    """

    name: OptimizerName = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.3
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    clip: Annotated[float, Field(ge=0)] = 0.0


class PretrainOptim(Optim):
    """The optimizer of pre-training.

    Args:
        accumulate: equal parts that a device works through one after the other before it updates; `data.batch` stays
            the whole batch, so the update is the same and the memory of activations falls. Divides `bn_groups`.
    """

    accumulate: Positive = 1


class ScheduleSettings(Section):
    """The learning rate over time; see `lupctl.core.train.optim.Schedule`."""

    epochs: Positive = 200
    kind: ScheduleKind = "cosine"
    unit: ScheduleUnit = "epoch"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    warmup_factor: Share = 0.01
    hold_epochs: Annotated[float, Field(ge=0)] = 0.0
    milestones: tuple[int, ...] = ()
    final: Share = 0.0


class MocoSettings(Section):
    """Momentum contrast.

    Args:
        dim: of the contrastive space.
        queue: negatives kept.
        momentum: of the key encoder.
        temperature: of the loss. LUPerson's released script says 0.1; 0.07 is told second-hand of the paper.
    """

    dim: Positive = 128
    queue: Positive = 65536
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.999
    temperature: Annotated[float, Field(gt=0)] = 0.1


class PretrainData(Section):
    """Images for pre-training.

    Args:
        packs: names in the workspace or paths; empty takes the workspace's unlabelled pack.
        batch: images per step over all devices.
    """

    packs: tuple[str, ...] = ()
    batch: Annotated[int, Field(ge=2)] = 2560


class FinetuneData(Section):
    """Images for fine-tuning.

    Args:
        packs: names in the workspace or paths; of several, persons and cameras are kept apart, and the first one's
            queries are the run's own test.
        persons: P persons per batch.
        images: K images of each; the batch over all devices is P x K.
        subset: ids:R (a share of the persons), images:R (every person keeps one), a split file, or empty for all.
        subset_seed: another seed, another part; apart from `seed`, so that runs can share a subset.
        repeat: how often an epoch goes through the subset, 1 or more, fractions allowed; full makes an epoch as long
            as on the whole set. (LUPerson's authors suggest 2 or 3 for tiny splits.)
        order: epochs begin a new pass over the persons each, stream goes on from pass to pass as fast-reid does,
            cameras is its other sampler, which takes a person's images from different cameras.
    """

    packs: tuple[str, ...] = ()
    persons: Annotated[int, Field(ge=2)] = 16
    images: Annotated[int, Field(ge=2)] = 4
    subset: str = ""
    subset_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    repeat: float | Literal["full"] = 1.0

    @field_validator("repeat", mode="before")
    @classmethod
    def _check_repeat(cls, repeat: object) -> object:
        if repeat == "full" or (type(repeat) in (int, float) and 1 <= repeat <= 10_000):  # type: ignore[operator]
            return repeat
        raise ValueError("a number from 1 to 10,000, or full, is expected")

    @field_validator("subset")
    @classmethod
    def _check_subset(cls, subset: str) -> str:
        kind, colon, ratio = subset.partition(":")
        if colon and kind in SUBSET_KINDS and not (RATIO.fullmatch(ratio) and 0 < float(ratio) <= 1):
            raise ValueError(f"{kind}:R takes a share R above 0 and up to 1, as in {kind}:0.1")
        return subset

    order: PersonOrder = "epochs"


class Saving(Section):
    """When a run writes the file it can continue from.

    Args:
        every_epochs: 0 leaves it to the end and to requests to stop.
    """

    every_epochs: Annotated[int, Field(ge=0)] = 1


class Losses(Section):
    """An identity loss and a triplet loss; mgn takes the mean of each over its heads and features.

    Args:
        smoothing: of the identity loss's labels.
        margin: of the hard triplet; 0 is the soft margin.
        mining: hard takes the hardest candidates, weighted weighs all (AGW), without margin.
        identity, triplet: weights.
        circle_scale, circle_margin: of mgn's circle logits.
    """

    smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    margin: Annotated[float, Field(ge=0)] = 0.3
    mining: TripletMining = "hard"
    identity: Annotated[float, Field(ge=0)] = 1.0
    triplet: Annotated[float, Field(ge=0)] = 1.0
    circle_scale: Annotated[float, Field(gt=0)] = 64.0
    circle_margin: Annotated[float, Field(ge=0, le=1)] = 0.35


class Evaluation(Section):
    """Scores while fine-tuning.

    Args:
        every_epochs: 0 evaluates at the end only.
        same_camera: matches from the query's own camera: drop ignores them, keep counts them as right.
    """

    every_epochs: Annotated[int, Field(ge=0)] = 0
    same_camera: SameCamera = "drop"


class Probe(Section):
    """A look at the backbone's features while it trains; changes nothing in the training.

    Args:
        pack: labelled pack with queries and gallery, by name in the workspace or path; empty looks at none.
        every_epochs: how often; the end of the run is always looked at.
    """

    pack: str = ""
    every_epochs: Positive = 10


class PretrainRecipe(Section):
    """Everything that decides the result of a pre-training run.

    Args:
        stage: always pretrain.
        method: of self-supervision.
        seed: of weights, order and augmentation.
        bn_groups: equal parts of the global batch with batch-norm statistics of their own.
        precision: auto takes bf16 where the device has it.
    """

    stage: Literal["pretrain"] = "pretrain"
    method: Method = "moco"
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    bn_groups: Positive = 8
    precision: Precision = "auto"
    net: PretrainNet = PretrainNet()
    data: PretrainData = PretrainData()
    pixels: Pixels = Pixels()
    augment: Augment = Augment()
    moco: MocoSettings = MocoSettings()
    optim: PretrainOptim = PretrainOptim()
    schedule: ScheduleSettings = ScheduleSettings()
    saving: Saving = Saving()
    probe: Probe = Probe()

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        check_divides("bn_groups", self.bn_groups, "data.batch", self.data.batch)
        if self.bn_groups % self.optim.accumulate:
            raise ValueError(
                f"optim.accumulate = {self.optim.accumulate} does not divide bn_groups = {self.bn_groups}; "
                "a part of a batch needs whole groups"
            )
        if self.net.compile and self.net.checkpoint_activations:
            raise ValueError("net.compile and net.checkpoint_activations exclude each other")
        return self


class FinetuneRecipe(Section):
    """Everything that decides the result of a fine-tuning run.

    Args:
        stage: always finetune.
        start: a run, a checkpoint file, imagenet, scratch, or empty for the newest pre-training run here.
        seed, bn_groups, precision: as in pre-training.
        freeze_epochs: the pre-trained parts stand still for so many epochs and one step.
        auto_augment_epochs: AutoAugment's ImageNet policy comes before all other augmentation, with a probability that
            falls from 1 to 0 over so many epochs; 0 does without.
    """

    stage: Literal["finetune"] = "finetune"
    start: str = ""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    bn_groups: Positive = 1
    precision: Precision = "auto"
    freeze_epochs: Annotated[float, Field(ge=0)] = 0.0
    auto_augment_epochs: Annotated[float, Field(ge=0)] = 0.0
    net: FinetuneNet = FinetuneNet(last_stride=1)
    data: FinetuneData = FinetuneData()
    pixels: Pixels = Pixels(mean=IMAGENET_MEAN, std=IMAGENET_STD)
    augment: Augment = Augment(crop_area=(), pad=10, grey=0.0, blur=0.0, flip=0.5, erase=0.5, erase_area=(0.02, 0.4))
    losses: Losses = Losses()
    optim: Optim = Optim(name="adam", lr=3.5e-4, weight_decay=5e-4)
    schedule: ScheduleSettings = ScheduleSettings(
        epochs=120, kind="steps", warmup_epochs=10, warmup_factor=0.1, milestones=(40, 70)
    )
    evaluation: Evaluation = Evaluation()
    saving: Saving = Saving(every_epochs=10)

    @model_validator(mode="after")
    def _check_groups(self) -> Self:
        check_divides("bn_groups", self.bn_groups, "data.persons * data.images", self.data.persons * self.data.images)
        return self

    @model_validator(mode="after")
    def _check_stripes(self) -> Self:
        if self.net.head == "mgn" and self.pixels.height % MGN_HEIGHT_STEP:
            raise ValueError(
                f"pixels.height = {self.pixels.height} is no multiple of {MGN_HEIGHT_STEP}, "
                "as mgn needs to cut its maps into two and three stripes"
            )
        return self


Recipe = PretrainRecipe | FinetuneRecipe


def check_divides(key: str, groups: int, batch_key: str, batch: int) -> None:
    """Refuses groups of unequal size, or of one image, which has no variance."""
    if batch % groups or batch // groups < 2:
        raise ValueError(f"{key} = {groups} does not cut {batch_key} = {batch} into equal parts of two or more")
