"""DINO's step as TransReID-SSL trains it, from its definitions, pair by pair and tensor by tensor.

Caron et al. 2021 (arXiv 2104.14294, algorithm 1) with the settings of Luo et al. 2021 (arXiv 2111.12084). One process,
one part, numbers of the type of the tensors: float64 gives a reference without rounding. The order of a step is

    teacher - student - loss - centre - backward - clipping - last layer dropped - AdamW - averaging

The trunk is whatever turns (B, 3, H, W) into (B, D).
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

GLOBAL_VIEWS = 2


@dataclass(frozen=True, kw_only=True)
class ReferenceRules:
    """Constants of a run; `steps` are those of one epoch, and the defaults are the published ones."""

    steps: int
    epochs: int = 100
    warmup_epochs: int = 10
    rate: float = 1e-3
    final_rate: float = 1e-6
    decay: float = 0.04
    final_decay: float = 0.4
    momentum: float = 0.996
    final_momentum: float = 1.0
    student_temperature: float = 0.1
    teacher_temperature: float = 0.04
    centre_momentum: float = 0.9
    clip: float = 3.0
    frozen_epochs: int = 1

    def rate_at(self, step: int) -> float:
        """From 0 to the whole rate over the warm-up, both ends included, and then along a cosine."""
        warmup = self.warmup_epochs * self.steps
        if step < warmup:
            return self.rate * step / (warmup - 1)
        return _cosine(self.rate, self.final_rate, step - warmup, self.epochs * self.steps - warmup)

    def decay_at(self, step: int) -> float:
        """Weight decay of the parameters that have any."""
        return _cosine(self.decay, self.final_decay, step, self.epochs * self.steps)

    def momentum_at(self, step: int) -> float:
        """Share of the teacher that stays."""
        return _cosine(self.momentum, self.final_momentum, step, self.epochs * self.steps)


def _cosine(start: float, end: float, step: int, steps: int) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * step / steps))


class ReferenceHead(nn.Module):
    """Three linear layers with GELU between them, unit length, and prototypes of unit length.

    Args:
        layers: weight and bias of the three, copied.
        last: (K, bottleneck), copied; the length of its rows does not matter, and gets decay all the same.
    """

    def __init__(self, layers: Sequence[tuple[Tensor, Tensor]], last: Tensor) -> None:
        super().__init__()
        first, second, third = (_linear(weight, bias) for weight, bias in layers)
        self.mlp = nn.Sequential(first, nn.GELU(), second, nn.GELU(), third)
        self.last_layer = weight_norm(_linear(last, None))
        gain, direction = _gain_and_direction(self.last_layer)
        with torch.no_grad():
            direction.copy_(last)
            gain.fill_(1)
        gain.requires_grad_(False)

    @property
    def last(self) -> nn.Parameter:
        """(K, bottleneck), the trained parameter of the last layer."""
        return _gain_and_direction(self.last_layer)[1]

    def forward(self, features: Tensor) -> Tensor:
        """(n, D) to (n, K)."""
        out: Tensor = self.last_layer(F.normalize(self.mlp(features), dim=-1, p=2))
        return out


def _gain_and_direction(layer: nn.Module) -> tuple[nn.Parameter, nn.Parameter]:
    gain, direction = layer.get_submodule("parametrizations.weight").parameters()
    return gain, direction


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    outputs, inputs = weight.shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None, dtype=weight.dtype)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None:
            layer.bias.copy_(bias)
    return layer


class ReferenceNetwork(nn.Module):
    """Trunk and head over crops of several sizes.

    Args:
        trunk: (B, 3, H, W) to (B, D).
        head: (n, D) to (n, K).
    """

    def __init__(self, trunk: nn.Module, head: ReferenceHead) -> None:
        super().__init__()
        self.trunk = trunk
        self.head = head

    def forward(self, crops: Sequence[Tensor]) -> Tensor:
        """Crops of (b, 3, H, W) to (crops * b, K), those of the first crop first.

        Neighbours of one width go through the trunk together, the features of all through the head.
        """
        features = torch.empty(0, dtype=crops[0].dtype, device=crops[0].device)
        start = 0
        while start < len(crops):
            end = start
            while end < len(crops) and crops[end].shape[-1] == crops[start].shape[-1]:
                end += 1
            found = self.trunk(torch.cat(list(crops[start:end])))
            features = torch.cat([features, found]) if start else found
            start = end
        out: Tensor = self.head(features)
        return out


def reference_dino_loss(
    student: Tensor, teacher: Tensor, centre: Tensor, *, views: int, student_temperature: float, temperature: float
) -> Tensor:
    """Mean over pairs of a global view of the teacher and another view of the student, of the mean cross entropy.

    Args:
        student: (views * b, K), with gradient.
        teacher: (2 * b, K).
        centre: (K).
        views: of the student; its first two are the teacher's.
        student_temperature, temperature: of student and teacher.
    """
    of_student = (student / student_temperature).chunk(views)
    of_teacher = F.softmax((teacher - centre) / temperature, dim=-1).detach().chunk(GLOBAL_VIEWS)
    total, pairs = torch.zeros((), dtype=student.dtype, device=student.device), 0
    for its_view, target in enumerate(of_teacher):
        for view in range(views):
            if view == its_view:
                continue
            entropy = torch.sum(-target * F.log_softmax(of_student[view], dim=-1), dim=-1)
            total = total + entropy.mean()
            pairs += 1
    return total / pairs


class DinoReference:
    """A run: two networks, a centre, an optimizer.

    Args:
        student: trained from here on; the teacher starts as its copy.
        rules: constants.
    """

    def __init__(self, student: ReferenceNetwork, rules: ReferenceRules) -> None:
        self.student = student.train()
        self.teacher = copy.deepcopy(student).train()
        for parameter in self.teacher.parameters():
            parameter.requires_grad = False
        self.rules = rules
        self.centre = torch.zeros_like(student.head.last[:, 0]).detach()
        with_decay, without = list[nn.Parameter](), list[nn.Parameter]()
        for name, parameter in self.student.named_parameters():
            if parameter.requires_grad:
                is_vector = name.endswith(".bias") or parameter.dim() == 1
                (without if is_vector else with_decay).append(parameter)
        groups: list[dict[str, Any]] = [{"params": with_decay}, {"params": without, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups)

    def step(self, views: Sequence[Tensor], step: int) -> Tensor:
        """One whole step, counted from 0 over the run; its loss, without gradient.

        Args:
            views: each (b, 3, H, W), the two global ones first.
            step: decides every scheduled number.
        """
        loss = self.learn(views)
        self.update(step)
        return loss

    def learn(self, views: Sequence[Tensor]) -> Tensor:
        """Loss, without gradient; the centre moves, and the gradients of the student are what backward left."""
        rules = self.rules
        of_teacher = self.teacher(views[:GLOBAL_VIEWS])
        of_student = self.student(views)
        loss = reference_dino_loss(
            of_student, of_teacher, self.centre, views=len(views),
            student_temperature=rules.student_temperature, temperature=rules.teacher_temperature,
        )  # fmt: skip
        mean = torch.sum(of_teacher, dim=0) / len(of_teacher)
        self.centre = self.centre * rules.centre_momentum + mean * (1 - rules.centre_momentum)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach()

    def update(self, step: int) -> None:
        """Clipping, the last layer's gradient, AdamW, and the teacher."""
        rules = self.rules
        for number, group in enumerate(self.optimizer.param_groups):
            group["lr"] = rules.rate_at(step)
            if number == 0:
                group["weight_decay"] = rules.decay_at(step)
        for parameter in self.student.parameters():
            if parameter.grad is not None:
                factor = rules.clip / (parameter.grad.norm(2) + 1e-6)
                if factor < 1:
                    parameter.grad.mul_(factor)
        if step < rules.frozen_epochs * rules.steps:
            self.student.head.last.grad = None
        self.optimizer.step()
        momentum = rules.momentum_at(step)
        with torch.no_grad():
            for averaged, current in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
                averaged.mul_(momentum).add_((1 - momentum) * current)
