"""Finds persons in frames with torchvision's detectors."""

import itertools
import sys
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray
from torch import Tensor, nn

from lupctl.core.choices import Detector
from lupctl.core.data.video.boxes import NUM_KEYPOINTS, Boxes, build_boxes
from lupctl.core.data.video.frames import Frames
from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.weights.foreign import read_foreign
from lupctl.core.system.jobs.device import pick_device
from lupctl.core.system.printing import as_drawn

MODELS: Final[dict[Detector, str]] = {
    "fasterrcnn": "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn-mobile": "fasterrcnn_mobilenet_v3_large_320_fpn",
    "keypointrcnn": "keypointrcnn_resnet50_fpn",
}
CLASS_BIAS = "roi_heads.box_predictor.cls_score.bias"
HINT = "a state dict (.pth or .safetensors) of that network was expected"
PERSON = 1  # in torchvision's categories, after the background
MOST_CATEGORIES = 10_000
BATCH = 4
Stop = Callable[[], None]


class PersonDetector:
    """A network that finds persons.

    Args:
        kind: which of torchvision's detectors.
        weights: a weights file; by default torchvision's own, downloaded once.
        device: `cpu`, `cuda` or `cuda:N`; by default a GPU if there is one.

    Raises:
        DataError: the weights cannot be downloaded or read.
        FormatError: they belong to another network.
    """

    def __init__(self, kind: Detector, *, weights: Path | None = None, device: str | None = None) -> None:
        self._device = pick_device(device)
        network = _build_published(kind) if weights is None else _build_from_file(kind, weights)
        self._network = network.eval().to(self._device)

    @torch.inference_mode()
    def find(self, pictures: list[NDArray[np.uint8]]) -> list[dict[str, NDArray[np.float64]]]:
        """For each frame, BGR (H, W, 3), `box` (n, 4), `score` (n) and `keypoints` (n, 17) of its persons."""
        batch = [self._to_input(picture) for picture in pictures]
        return [_persons_of(found) for found in self._network(batch)]

    def _to_input(self, picture: NDArray[np.uint8]) -> Tensor:
        rgb = torch.from_numpy(np.ascontiguousarray(picture[..., ::-1])).to(self._device)
        return rgb.permute(2, 0, 1).float() / 255


def detect_boxes(frames: Frames, detector: PersonDetector, *, every: int, check_stop: Stop) -> Boxes:
    """All persons in every `every`-th frame of a video, frames counted from 0.

    Args:
        frames: the open video; it is read through once.
        detector: finds the persons.
        every: 1 for every frame.
        check_stop: called between batches; may raise.
    """
    found: list[tuple[int, dict[str, NDArray[np.float64]]]] = []
    pending: list[tuple[int, NDArray[np.uint8]]] = []
    for number, picture in frames.pictures(itertools.count(0, every)):
        check_stop()
        if picture is not None:
            pending.append((number, picture))
        if len(pending) == BATCH:
            found += _find_all(detector, pending)
            pending = []
    found += _find_all(detector, pending)
    return build_boxes(
        np.concatenate([np.full(len(one["score"]), number) for number, one in found] or [np.zeros(0, np.int64)]),
        np.concatenate([one["box"] for _, one in found] or [np.zeros((0, 4))]),
        score=np.concatenate([one["score"] for _, one in found] or [np.zeros(0)]),
        keypoints=np.concatenate([one["keypoints"] for _, one in found] or [np.zeros((0, NUM_KEYPOINTS))]),
    )


def _find_all(
    detector: PersonDetector, pending: list[tuple[int, NDArray[np.uint8]]]
) -> list[tuple[int, dict[str, NDArray[np.float64]]]]:
    if not pending:
        return []
    found = detector.find([picture for _, picture in pending])
    return [(number, one) for (number, _), one in zip(pending, found, strict=True)]


def _persons_of(found: Mapping[str, Tensor]) -> dict[str, NDArray[np.float64]]:
    is_person = found["labels"] == PERSON
    count = int(is_person.sum())
    scores = found.get("keypoints_scores")
    return {
        "box": found["boxes"][is_person].double().cpu().numpy(),
        "score": found["scores"][is_person].double().cpu().numpy(),
        "keypoints": np.full((count, NUM_KEYPOINTS), np.nan)
        if scores is None
        else scores[is_person].double().cpu().numpy(),
    }


def _build_published(kind: Detector) -> nn.Module:
    try:
        with redirect_stderr(as_drawn(sys.stderr)):  # for torch's bar
            return _build(kind, weights="DEFAULT")
    except (OSError, RuntimeError) as error:  # no network, no such page, or a damaged file
        url = torchvision.models.get_model_weights(MODELS[kind]).DEFAULT.url
        raise DataError(
            f"--detector {kind}: its weights cannot be downloaded ({error})",
            hint=f"download {url} on another machine, then add --detector-weights FILE",
        ) from error


def _build_from_file(kind: Detector, path: Path) -> nn.Module:
    """A detector with weights from a file, with as many categories as the file has; person is number 1."""
    weights = read_foreign(path).tensors
    bias = weights.get(CLASS_BIAS)
    if bias is None or not 1 < bias.numel() <= MOST_CATEGORIES:
        raise FormatError(f"{path}: not weights of torchvision's {MODELS[kind]} (no {CLASS_BIAS})", hint=HINT)
    network = _build(kind, num_classes=bias.numel())
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise FormatError(f"{path}: not weights of torchvision's {MODELS[kind]}: {error}", hint=HINT) from error
    return network


def _build(kind: Detector, *, weights: str | None = None, num_classes: int | None = None) -> nn.Module:
    build = torchvision.models.get_model_builder(MODELS[kind])
    made = build(weights=weights, weights_backbone=None, num_classes=num_classes)
    assert isinstance(made, nn.Module)
    return made
