"""Contrast within a batch, the baselines without a queue: SimCLR (arXiv 2002.05709) and SupCon (arXiv 2004.11362)."""

import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.messages import gather_interleaved, own_share, world_size
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.parts import each_part, statistics_kept
from lupctl.core.training.engine.stopwatch import Clock, untimed
from lupctl.core.training.losses.batch_contrast import batch_contrast
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.methods.watching import watch_features
from lupctl.core.training.nets.networks import ContrastiveNetwork


class BatchContrast(nn.Module):
    """A student that sees both views of the whole batch.

    Batch-norm groups hold both views of their images. A loss over the whole batch needs all features before any part
    can go backward. With several parts, features are therefore computed once without gradient, and every part is run
    again for its share of the loss's gradient (Gao et al. 2021, arXiv 2101.06983): the update of one part, for a third
    more work.

    Args:
        student: the network to train.
        uses_labels: images with the same label are positives too.
        weight: of the loss.
    """

    def __init__(self, student: ContrastiveNetwork, *, uses_labels: bool, weight: float) -> None:
        super().__init__()
        self.student = student
        self.uses_labels = uses_labels
        self._weight = weight

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """The student alone."""
        return (self.student,)

    @property
    def trained(self) -> list[nn.Module]:
        """The student."""
        return [self.student]

    @property
    def kept(self) -> ContrastiveNetwork:
        """The student."""
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
        """Forward and backward pass of one step.

        Args:
            given: two views; labels if the method uses them.
            now: its temperature.
            gradients: of the student, whose parameters must have no gradients.
            precision: type of the forward pass.
            clock: measures forward and backward.

        Returns:
            `loss`, and `hits`: how often an image's other view was its nearest neighbour in the batch; of a watched
            step also what `watch_features` gives.
        """
        first, second = given.views
        parts = gradients.parts
        ahead = None if parts == 1 else self._look_ahead(first, second, parts, precision, clock)
        loss = hits = slope = torch.zeros(())
        seen = []
        for number, some in enumerate(each_part(self.student, parts)):
            with gradients.part(number):
                with clock("forward"), autocast(first.device, precision):
                    features = _two_views(gradients(torch.cat([first[some], second[some]])))  # (b / parts, 2, D)
                if number == 0:
                    local = features.detach() if ahead is None else ahead
                    loss, hits, slope = self._compare(local, given.label, now, parts)
                with clock("backward"):
                    features.backward(slope[some])  # type: ignore[no-untyped-call]
            seen.append(features.detach()[:, 0])
        return {"loss": loss, "hits": hits, **(watch_features(seen) if now.is_watched else {})}

    def follow(self, now: Now) -> None:
        """Nothing follows the student."""

    @torch.no_grad()
    def _look_ahead(self, first: Tensor, second: Tensor, parts: int, precision: torch.dtype, clock: Clock) -> Tensor:
        """(b, 2, D) features of all parts, from a pass that leaves running statistics as they were."""
        with statistics_kept(self.student), clock("forward"), autocast(first.device, precision):
            seen = [
                _two_views(self.student(torch.cat([first[part::parts], second[part::parts]]))) for part in range(parts)
            ]
        return torch.stack(seen, dim=1).flatten(0, 1)

    def _compare(self, local: Tensor, label: Tensor | None, now: Now, parts: int) -> tuple[Tensor, Tensor, Tensor]:
        """Loss over the whole batch, hits, and the gradient of this process's features, (b, 2, D).

        Every process computes the same loss. The gradient is scaled by the number of parts of all processes, because
        their gradients will be averaged.
        """
        every = gather_interleaved(local).requires_grad_()  # (B, 2, D)
        own = torch.arange(len(every), device=every.device)
        if self.uses_labels:
            assert label is not None
            own = gather_interleaved(label)
        with torch.enable_grad():
            loss = self._weight * batch_contrast(every.flatten(0, 1), own.repeat_interleave(2), now.temperature)
            (slope,) = torch.autograd.grad(loss, every)
        with torch.no_grad():
            flat = every.flatten(0, 1)
            similar = (flat @ flat.T).fill_diagonal_(-torch.inf)
            other = torch.arange(len(flat), device=flat.device) ^ 1
            hits = (similar.argmax(dim=1) == other).float().mean()
        return loss.detach(), hits, own_share(slope) * (parts * world_size())


def _two_views(features: Tensor) -> Tensor:
    """(2 b, D), all first views before all second views, to (b, 2, D)."""
    return torch.stack(features.chunk(2), dim=1)
