"""Trunks forward and backward on a device, in float32 and bfloat16, against float64 on the CPU."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
from torch import Tensor, nn

from lupctl.core.formats.weights.plan import TrunkPlan
from lupctl.core.stages.exercise.check import Outcome, Trial, WrongError
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.training.nets.build import build_trunk
from lupctl.core.training.nets.trunk import Trunk

IMAGES: Final = 4
HEIGHT, WIDTH = 96, 48
SEED: Final = 0
GPU_ROUNDS: Final = 5
# The largest relative differences from float64 that are rounding. Those of gradients grow with every ReLU that rounding
# switches: an R18 in training has 4e-6 and 4e-6 in float32 on a CPU, 0.04 and 0.39 in bfloat16; TF32 is in between.
# Numbers that were never computed are off by 1 and more.
FEATURE_LIMITS: Final = {torch.float32: 0.02, torch.bfloat16: 0.15}
GRADIENT_LIMITS: Final = {torch.float32: 0.1, torch.bfloat16: 0.7}
# bfloat16 rounds so many times as much. A trunk of random weights that makes much of little, as a deep and narrow one
# with norms over a few pixels, does so with either: what its difference in float32 makes of that is no fault.
COARSER: Final = 65536
# From so many convolutions on, the order of a map in memory decides the speed.
FEWEST_CONVOLUTIONS: Final = 8


@dataclass(frozen=True)
class Pass:
    """Result of one forward and backward pass.

    Args:
        features: all outputs of the trunk, float64 on the CPU.
        gradient: of all parameters, in one vector, likewise.
    """

    features: Tensor
    gradient: Tensor


def trunk_trials(plans: Mapping[str, TrunkPlan], device: torch.device) -> list[Trial]:
    """What is tried of each trunk on a device."""
    trials = []
    for name, plan in plans.items():
        tried = Tried(plan, device)
        trials.append(Trial(f"{name}, float32, {device}", partial(tried.compare, torch.float32)))
        trials.append(Trial(f"{name}, bf16, {device}", partial(tried.compare, torch.bfloat16)))
        if tried.is_convolutional:
            trials.append(Trial(f"{name}, channels last, {device}", tried.reorder))
    return trials


class Tried:
    """A trunk with random weights, and what it gives in float64.

    Args:
        plan: of the trunk.
        device: where it is tried.
    """

    def __init__(self, plan: TrunkPlan, device: torch.device) -> None:
        self.plan, self.device = plan, device
        self._reference: Pass | None = None
        self._plain_s = 0.0
        self._rounding: dict[str, float] = {}

    @property
    def is_convolutional(self) -> bool:
        """Whether most of it are convolutions."""
        with torch.device("meta"):
            trunk = build_trunk(self.plan)
        return sum(isinstance(part, nn.Conv2d) for part in trunk.modules()) >= FEWEST_CONVOLUTIONS

    def compare(self, kind: torch.dtype, left_s: float) -> Outcome:
        """A pass in this type against float64.

        Raises:
            WrongError: it differs by more than rounding.
        """
        trunk, images = self._start()
        known = self._rounding if kind == torch.bfloat16 else {}
        result, numbers = judge(run_pass(trunk, images, kind), self._expected(), kind, known)
        spent = self._time(trunk, images, kind)
        if kind == torch.float32:
            self._plain_s, self._rounding = spent, numbers
            return self._outcome(result, numbers, spent, "")
        return self._outcome(result, numbers, spent, "float32")

    def reorder(self, left_s: float) -> Outcome:
        """A pass with channels last against float64.

        Raises:
            WrongError: it differs by more than rounding.
        """
        trunk, images = self._start()
        trunk = trunk.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
        result, numbers = judge(run_pass(trunk, images, torch.float32), self._expected(), torch.float32, {})
        return self._outcome(result, numbers, self._time(trunk, images, torch.float32), "channels first")

    def _start(self) -> tuple[Trunk, Tensor]:
        """The trunk in training mode, and images for it; the same in every pass."""
        torch.manual_seed(SEED)
        trunk = build_trunk(self.plan).train()
        images = torch.randn(IMAGES, 3, HEIGHT, WIDTH)
        return trunk.to(self.device), images.to(self.device)

    def _expected(self) -> Pass:
        if self._reference is None:
            trunk, images = self._start()
            self._reference = run_pass(trunk.cpu().double(), images.cpu().double(), torch.float64)
        return self._reference

    def _time(self, trunk: Trunk, images: Tensor, kind: torch.dtype) -> float:
        """Seconds of a pass; the one that was compared has warmed up."""
        spent = []
        for _ in range(1 if self.device.type == "cpu" else GPU_ROUNDS):
            began_at = time.perf_counter()
            run_pass(trunk, images, kind)
            spent.append(time.perf_counter() - began_at)
        return min(spent)

    def _outcome(self, result: str, numbers: dict[str, float], spent: float, than: str) -> Outcome:
        figure = f"{IMAGES / spent:,.0f} images/s"
        if than and self._plain_s:
            figure += f", {self._plain_s / spent:.1f} times {than}"
        return Outcome(result, figure, {**numbers, "images_per_s": IMAGES / spent})


def run_pass(trunk: Trunk, images: Tensor, kind: torch.dtype) -> Pass:
    """Forward and backward of a fixed random weighting of all outputs."""
    trunk.zero_grad(set_to_none=True)
    cameras = torch.zeros(len(images), dtype=torch.int64, device=images.device) if trunk.needs_cameras else None
    wide = torch.float64 if kind == torch.float64 else torch.float32
    with autocast(images.device, kind):
        features = torch.cat([part.flatten(1).to(wide) for part in trunk(images, cameras) if part is not None], dim=1)
    weights = torch.randn(features.shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
    (features * weights.to(features)).sum().backward()  # type: ignore[no-untyped-call]
    gradients = [own.grad.flatten() for own in trunk.parameters() if own.grad is not None]
    return Pass(features.detach().double().cpu(), torch.cat(gradients).double().cpu())


def judge(
    found: Pass, expected: Pass, kind: torch.dtype, rounding: Mapping[str, float]
) -> tuple[str, dict[str, float]]:
    """How far a pass is from the one in float64, in words and numbers.

    Args:
        found, expected: the passes.
        kind: of the first one.
        rounding: the numbers of a pass in float32, for one in bfloat16; else none.

    Raises:
        WrongError: by more than rounding, or it has numbers that are not finite.
    """
    features = relative(found.features, expected.features)
    gradient = relative(found.gradient, expected.gradient)
    line = f"features {features:.0e}, gradients {gradient:.0e} from float64"
    most = max(FEATURE_LIMITS[kind], COARSER * rounding.get("features_difference", 0.0))
    steepest = max(GRADIENT_LIMITS[kind], COARSER * rounding.get("gradients_difference", 0.0))
    # Also wrong where they are NaN.
    if not (features <= most and gradient <= steepest):
        raise WrongError(f"{line}; at most {most:.2g} and {steepest:.2g} are rounding")
    return line, {"features_difference": features, "gradients_difference": gradient}


def relative(found: Tensor, expected: Tensor) -> float:
    """Length of the difference over the length of what is expected.

    >>> relative(torch.tensor([3.0, 4.0]), torch.tensor([3.0, 5.0])) == 1 / 34**0.5
    True
    """
    return float((found.double() - expected.double()).norm() / expected.double().norm())
