"""Sections that recipes of both stages have. Values are frozen; derived values are computed where they are used."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from lupctl.core.choices import (
    Arch,
    ClipScope,
    EraseFill,
    Interpolation,
    OptimizerName,
    Pooling,
    ScheduleKind,
    ScheduleUnit,
)

Share = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(gt=0)]
Range = tuple[float, float]
Colour = tuple[float, float, float]

IMAGENET_MEAN: Colour = (0.485, 0.456, 0.406)
IMAGENET_STD: Colour = (0.229, 0.224, 0.225)
LUPERSON_MEAN: Colour = (0.3525, 0.3106, 0.3140)
LUPERSON_STD: Colour = (0.2660, 0.2522, 0.2505)
LUPERSON_NL_MEAN: Colour = (0.3452, 0.3070, 0.3114)
LUPERSON_NL_STD: Colour = (0.2633, 0.2500, 0.2480)
# Shares of the base rate at the start of the warm-up and at the end.
TRANSREID_SCHEDULE = {"warmup_factor": 0.01, "final": 0.002}
DINO_SCHEDULE = {"unit": "step", "warmup_factor": 0.0}


class MisfitError(ValueError):
    """Values that do not fit each other.

    Args:
        message: names the keys.
        hint: what to type.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class Section(BaseModel):
    """A table of a recipe: frozen, and closed to unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Net(Section):
    """The trunk, and how training runs it; the last two affect memory and speed, and the result only by rounding.

    Args:
        arch: a ResNet of some depth, a vision transformer or a Swin of some size, or an OSNet of some width.
        width: channels of a ResNet's stem; 64 in every published network.
        last_stride: stride of a ResNet's last stage.
        pooling: from the last map to a vector. A vision transformer also has token, its class token, which is its
            default, and parts, class token and mean of its part tokens.
        compile: compiles the networks that are trained, and an averaged one, with torch.compile; the first step then
            takes a minute or more.
        checkpoint_activations: keeps only the outputs of residual or transformer blocks and recomputes the rest in the
            backward pass: a third more work for a fraction of the memory.
    """

    arch: Arch = "r50"
    width: Annotated[int, Field(ge=4, le=512)] = 64
    last_stride: Literal[1, 2] = 2
    pooling: Pooling = "avg"
    compile: bool = False
    checkpoint_activations: bool = False


class Pixels(Section):
    """Size and constants of network input; RGB in [0, 1].

    Args:
        height, width: of the network's input.
        mean, std: subtracted and divided by.
        interpolation: of the one resize, antialiased as in Pillow.
        test_interpolation: the same for evaluation, and for whoever uses the checkpoint; empty takes `interpolation`.
    """

    height: Annotated[int, Field(ge=16, le=2048)] = 256
    width: Annotated[int, Field(ge=8, le=2048)] = 128
    mean: Colour = LUPERSON_MEAN
    std: Colour = LUPERSON_STD
    interpolation: Interpolation = "bilinear"
    test_interpolation: Interpolation | Literal[""] = ""


class JitterSettings(Section):
    """Colour jitter: factors U(1 - s, 1 + s), hue U(-h, h) turns, with probability p."""

    p: Share = 0.0
    brightness: Share = 0.4
    contrast: Share = 0.4
    saturation: Share = 0.4
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.1


class Augment(Section):
    """How a training view is made, in this order: crop, jitter, grey, blur, solarise, flip, normalise, erase.

    Args:
        crop_area: share of the image a random resized crop covers; empty takes the whole image.
        crop_ratio: width over height of that crop.
        pad: pixels of black around the resized image, from which a window is cut.
        pad_after_flip: flips before that and not after it: the same views, each as often, from other random numbers.
        jitter: colour jitter.
        grey, blur, solarise, flip, erase: probabilities; solarising inverts what is brighter than half.
        blur_radius: standard deviation in pixels.
        erase_area: smallest and largest share of the erased rectangle.
        erase_aspect: height over width of the erased rectangle.
        erase_fill: mean erases after normalising, with 0; black before it, with pixels of 0; constant after it, with
            0.485, 0.456 and 0.406; noise after it, with normally distributed numbers, a rectangle whose aspect is drawn
            from the same range by its logarithm.
    """

    crop_area: Range | tuple[()] = (0.2, 1.0)
    crop_ratio: Range = (0.75, 1.3333333333333333)
    pad: Annotated[int, Field(ge=0)] = 0
    pad_after_flip: bool = False
    jitter: JitterSettings = JitterSettings()
    grey: Share = 0.2
    blur: Share = 0.5
    blur_radius: Range = (0.1, 2.0)
    solarise: Share = 0.0
    flip: Share = 0.5
    erase: Share = 0.5
    erase_area: Range = (0.02, 0.6)
    erase_aspect: Range = (0.3, 3.3333333333333335)
    erase_fill: EraseFill = "mean"


class Optim(Section):
    """The optimizer.

    Args:
        name: sgd, adam, amsgrad, adamw or lars.
        lr: base learning rate; it is never scaled, not even with lars.
        momentum: of sgd and lars.
        weight_decay: on every parameter; with lars, not on those of one dimension.
        vector_rate, vector_decay: factors on rate and decay for parameters of one dimension: biases, and the scales
            and shifts of norms.
        bias_rate: factor on the rate of biases, the shifts of norms too, on top of vector_rate; their decay stays.
        clip: largest gradient norm; 0 turns clipping off.
        clip_scope: all takes the norm of all gradients together, tensor that of each tensor.
    """

    name: OptimizerName = "sgd"
    lr: Annotated[float, Field(gt=0)] = 0.3
    momentum: Share = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    vector_rate: Annotated[float, Field(ge=0)] = 1.0
    vector_decay: Annotated[float, Field(ge=0)] = 1.0
    bias_rate: Annotated[float, Field(ge=0)] = 1.0
    clip: Annotated[float, Field(ge=0)] = 0.0
    clip_scope: ClipScope = "all"


class ScheduleSettings(Section):
    """The learning rate over time; see `lupctl.core.training.engine.curves.RateCurve`.

    With kind = transreid, `warmup_factor` is 0.01 and `final` 0.002 where they are not given; with kind = dino,
    `warmup_factor` is 0 and `unit` step.
    """

    epochs: Positive = 200
    kind: ScheduleKind = "cosine"
    unit: ScheduleUnit = "epoch"
    warmup_epochs: Annotated[float, Field(ge=0)] = 0.0
    warmup_factor: Share = 0.01
    hold_epochs: Annotated[float, Field(ge=0)] = 0.0
    milestones: tuple[int, ...] = ()
    final: Share = 0.0
    lag: bool = False

    @model_validator(mode="before")
    @classmethod
    def _fill_kind(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("kind") == "transreid":
            return {**TRANSREID_SCHEDULE, **settings}
        if isinstance(settings, dict) and settings.get("kind") == "dino":
            return {**DINO_SCHEDULE, **settings}
        return settings

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.lag and self.kind != "transreid":
            raise ValueError(f"lag = true needs kind = 'transreid'; kind is '{self.kind}'")
        if self.kind == "transreid" and self.unit != "epoch":
            raise ValueError("kind = 'transreid' has one rate for each epoch; unit = 'epoch' is expected")
        if self.kind == "dino" and self.unit != "step":
            raise ValueError("kind = 'dino' has one rate for each step; unit = 'step' is expected")
        if self.hold_epochs and self.kind in ("transreid", "dino"):
            start = "from the start" if self.kind == "transreid" else "when the warm-up ends"
            raise ValueError(f"hold_epochs and kind = '{self.kind}' cannot be combined; its cosine falls {start}")
        return self


class Saving(Section):
    """When a run writes the file it can continue from.

    Args:
        every_epochs: 0 writes it only at the end and on requests to stop.
    """

    every_epochs: Annotated[int, Field(ge=0)] = 1
