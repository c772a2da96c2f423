"""Self-distillation without labels, DINO (Caron et al. 2021, arXiv 2104.14294), as TransReID-SSL trains it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.messages import sum_, world_size
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.parts import each_part
from lupctl.core.training.engine.stopwatch import Clock, untimed
from lupctl.core.training.losses.self_distillation import GLOBAL_VIEWS, self_distillation, teacher_targets
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.methods.teacher import average_parameters, copy_teacher
from lupctl.core.training.methods.watching import watch_outputs
from lupctl.core.training.nets.dino import DinoNetwork
from lupctl.core.training.nets.networks import Embedding
from lupctl.core.training.nets.vit.blocks import drop_keys, set_drop_path, view_keys


@dataclass(frozen=True)
class DinoRules:
    """The constants of a run; epochs count from 0.

    Args:
        student_temperature: of the student's outputs.
        centre_momentum: of the running mean of the teacher's outputs.
        frozen_epochs: number of epochs in which the last layer is not updated.
        drop_path: stochastic depth of the student.
    """

    student_temperature: float
    centre_momentum: float
    frozen_epochs: int
    drop_path: float


@dataclass(frozen=True)
class Taught:
    """What the teacher says of the b images of a part.

    Args:
        features: (2 * b, D), of the global views.
        logits: (2 * b, K).
    """

    features: Tensor
    logits: Tensor


# Targets, what the student says, and features: see `Dino._watch`.
Shown = tuple[Tensor, Tensor, Tensor]


class Dino(nn.Module):
    """A student that sees all crops, a teacher that is its average and sees the two global ones, and their centre.

    The teacher is in training mode, without stochastic depth: its batch norms take the statistics of its own passes.

    Args:
        student: the network to train.
        outputs: K.
        rules: the constants.
        seed: of the stochastic depth.
    """

    centre: Tensor

    def __init__(self, student: DinoNetwork, *, outputs: int, rules: DinoRules, seed: int) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy_teacher(student)
        self.register_buffer("centre", torch.zeros(outputs))
        self.rules = rules
        self.seed = seed
        set_drop_path(self.student, rules.drop_path)

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """Student and teacher."""
        return self.student, self.teacher

    @property
    def trained(self) -> list[nn.Module]:
        """The student."""
        return [self.student]

    @property
    def kept(self) -> Embedding:
        """The teacher without its head."""
        return self.teacher.embedding

    def held(self, now: Now) -> list[nn.Parameter]:
        """The last layer in the first epochs."""
        return list(self.student.head.last_layer.parameters()) if now.epoch < self.rules.frozen_epochs else []

    def learn(
        self,
        given: Given,
        now: Now,
        gradients: SharedGradients,
        *,
        precision: torch.dtype,
        clock: Clock = untimed,
    ) -> dict[str, Tensor]:
        """Forward and backward pass of one step, part by part; leaves shared gradients and a moved centre.

        Args:
            given: the two global views, then the local ones, which may be of another size.
            now: its temperature is the targets'.
            gradients: of the student, whose parameters must have no gradients.
            precision: type of the forward passes.
            clock: measures targets, forward and backward.

        Returns:
            `loss`; of a watched step also what `watch_outputs` gives.
        """
        with torch.no_grad(), autocast(given.keys.device, precision):
            taught, scalars = self.teach(given, now, gradients.parts, clock=clock)
        found, watched = [], []
        for number, some in enumerate(each_part(self.student, gradients.parts)):
            with gradients.part(number):
                with clock("forward"):
                    terms, shown = self._answer(given.part(some), now, taught[number], gradients, precision=precision)
                with clock("backward"):
                    terms["loss"].backward()  # type: ignore[no-untyped-call]
            found.append({name: term.detach() for name, term in terms.items()})
            if shown is not None:
                watched.append(shown)
        self._move_centre([part.logits for part in taught])
        scalars |= {name: torch.stack([terms[name] for terms in found]).mean() for name in found[0]}
        if watched:  # in the order of this process's share
            scalars |= watch_outputs(*(torch.stack(some, dim=1).flatten(0, 1) for some in zip(*watched, strict=True)))
        return scalars

    def teach(self, given: Given, now: Now, parts: int, *, clock: Clock) -> tuple[Sequence[Taught], dict[str, Tensor]]:
        """What the teacher says of this process's share of a step, part by part; and scalars to log.

        Args:
            given: the two global views first.
            now: the numbers of this step.
            parts: of the share.
            clock: measures targets.
        """
        with clock("targets"):
            shares = [
                self.teacher(torch.cat([view[some] for view in given.views[:GLOBAL_VIEWS]]))
                for some in each_part(self.teacher, parts)
            ]
        return [Taught(share.features, share.logits) for share in shares], {}

    def run_student(
        self, given: Given, now: Now, taught: Taught, gradients: SharedGradients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The student's logits for all views of a part, (V * b, K), and losses beside self-distillation by name.

        Args:
            given: the part.
            now: the numbers of this step.
            taught: what the teacher says of it.
            gradients: of the student.
        """
        self.key_depth(view_keys(self.image_keys(given.keys, now), len(given.views)))
        return gradients(*(torch.cat(group) for group in by_size(given.views))).logits, {}

    def follow(self, now: Now) -> None:
        """Moves the teacher towards the student."""
        for averaged, current in (
            (self.teacher.embedding, self.student.embedding),
            (self.teacher.head, self.student.head),
        ):
            average_parameters(averaged, current, momentum=now.momentum)

    def image_keys(self, keys: Tensor, now: Now) -> Tensor:
        """What the draws of some images in a step are functions of, (b)."""
        return drop_keys(keys, seed=self.seed, step=now.step)

    def key_depth(self, keys: Tensor) -> None:
        """Sets what the student's stochastic depth draws from: each crop of each image for itself."""
        if self.rules.drop_path:
            self.student.drop_keys = keys

    def _answer(
        self, given: Given, now: Now, taught: Taught, gradients: SharedGradients, *, precision: torch.dtype
    ) -> tuple[dict[str, Tensor], Shown | None]:
        """The losses of a part, `loss` the sum of all; and what a watched step shows.

        The logits end here: they are as large as all that the backward pass needs of them.
        """
        sharpness = self.rules.student_temperature
        with autocast(given.keys.device, precision):
            logits, more = self.run_student(given, now, taught, gradients)
        targets = teacher_targets(taught.logits, self.centre, now.temperature)
        loss = self_distillation(logits, targets, temperature=sharpness, views=len(given.views))
        shown = self._watch(targets, logits, taught.features) if now.is_watched else None
        for term in more.values():
            loss = loss + term
        return {"loss": loss, **more}, shown

    @torch.no_grad()
    def _watch(self, targets: Tensor, logits: Tensor, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of a part's b images: the first view's targets, what the student says of the second, the teacher's features.

        Args:
            targets: (2, b, K).
            logits: (V * b, K), of the student.
            features: (2 * b, D).
        """
        count = targets.shape[1]
        second = logits[count : 2 * count].float() / self.rules.student_temperature
        return targets[0], second.log_softmax(dim=1), features[:count]

    def _move_centre(self, logits: list[Tensor]) -> None:
        """c <- m c + (1 - m) mean of the outputs of all parts in all processes.

        In double precision, in which the sum does not depend on how the batch is shared; see `SharedGradients`.
        """
        total = sum_(torch.stack([part.sum(dim=0, dtype=torch.double) for part in logits]).sum(dim=0))
        count = sum(len(part) for part in logits) * world_size()
        self.centre.lerp_((total / count).to(self.centre.dtype), 1 - self.rules.centre_momentum)


def by_size(views: Sequence[Tensor]) -> list[list[Tensor]]:
    """Runs of neighbouring views of one size."""
    groups: list[list[Tensor]] = []
    for view in views:
        if groups and groups[-1][0].shape == view.shape:
            groups[-1].append(view)
        else:
            groups.append([view])
    return groups
