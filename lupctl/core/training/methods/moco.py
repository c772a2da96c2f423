"""Momentum contrast, version 2, as LUPerson trains it (Fu et al. 2021; He et al. 2020; Chen et al. 2020)."""

import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.precision import autocast
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.parts import each_part
from lupctl.core.training.engine.stopwatch import Clock, untimed
from lupctl.core.training.losses.contrastive import info_nce
from lupctl.core.training.methods.keys import Keys, encode_keys
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.methods.queue import FeatureQueue
from lupctl.core.training.methods.teacher import average_parameters, copy_teacher
from lupctl.core.training.methods.watching import watch_features
from lupctl.core.training.nets.networks import ContrastiveNetwork


class MoCo(nn.Module):
    """A student, a teacher that is its average, and a queue of the teacher's outputs.

    He et al. call them query and key encoder. The published code averages before it computes the keys; here the
    teacher is updated after the optimizer's step, which gives the same sequence of networks.

    Args:
        student: the network to train.
        dim: D of the contrastive space.
        queue: K negatives kept.
        seed: of the queue's first content and of the shuffling.
    """

    def __init__(self, student: ContrastiveNetwork, *, dim: int, queue: int, seed: int) -> None:
        super().__init__()
        self.student = student
        self.teacher = copy_teacher(student)
        self.queue = FeatureQueue(dim, queue, seed=seed)
        self._seed = seed

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """Student and teacher."""
        return self.student, self.teacher

    @property
    def trained(self) -> list[nn.Module]:
        """The student."""
        return [self.student]

    @property
    def kept(self) -> ContrastiveNetwork:
        """The student: LUPerson releases its query encoder."""
        return self.student

    def held(self, now: Now) -> list[nn.Parameter]:
        """None."""
        return []

    def learn(
        self,
        given: Given,
        now: Now,
        gradients: SharedGradients,
        *,
        precision: torch.dtype,
        clock: Clock = untimed,
    ) -> dict[str, Tensor]:
        """Forward and backward pass of one step, part by part; leaves shared gradients and an updated queue.

        With several parts, all queries are compared with the same old queue and the keys enter it together, as with one
        part. Only rounding differs from one part, as long as every part contains whole batch-norm groups.

        Args:
            given: two views; the student sees the first, the teacher the second.
            now: its step keys the shuffling.
            gradients: of the student, whose parameters must have no gradients.
            precision: type of the forward pass.
            clock: measures keys, forward and backward.

        Returns:
            `loss`, and `hits`: how often a query's own key was nearest; of a watched step also what `watch_features`
            gives.
        """
        first, second = given.views
        with clock("keys"), autocast(first.device, precision):
            keys = self.encode_keys(second, now.step, parts=gradients.parts)
        found, queries = [], []
        for number, some in enumerate(each_part(self.student, gradients.parts)):
            with gradients.part(number):
                with clock("forward"), autocast(first.device, precision):
                    query = gradients(first[some])
                    loss, hits = info_nce(query, keys.own[some], self.queue.features, now.temperature)
                with clock("backward"):
                    loss.backward()  # type: ignore[no-untyped-call]
            found.append(torch.stack([loss.detach(), hits]))
            queries.append(query.detach())
        self.queue.push(keys.every)
        loss, hits = torch.stack(found).mean(dim=0)
        return {"loss": loss, "hits": hits, **(watch_features(queries) if now.is_watched else {})}

    def follow(self, now: Now) -> None:
        """Moves the teacher towards the student."""
        average_parameters(self.teacher, self.student, momentum=now.momentum)

    def encode_keys(self, second: Tensor, step: int, *, parts: int = 1) -> Keys:
        """The keys of a whole batch, see `lupctl.core.training.methods.keys.encode_keys`."""
        return encode_keys(self.teacher, second, step, seed=self._seed, parts=parts)
