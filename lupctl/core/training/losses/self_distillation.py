"""Self-distillation over crops, DINO (Caron et al. 2021, arXiv 2104.14294, eq. 1 to 3 and algorithm 1)."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# The teacher sees these, which are the first of the student's views.
GLOBAL_VIEWS = 2


@torch.no_grad()
def teacher_targets(teacher: Tensor, centre: Tensor, temperature: float) -> Tensor:
    """q = softmax((g - c) / T) of every output of the teacher, in float32 or better.

    Args:
        teacher: (2 b, K) logits, those of the first view first.
        centre: (K), c.
        temperature: T.

    Returns:
        (2, b, K) probabilities.
    """
    with torch.autocast(teacher.device.type, enabled=False):
        shifted = _widen(teacher).sub(centre).div_(temperature)
        return shifted.softmax(dim=1).view(GLOBAL_VIEWS, -1, shifted.shape[1])


def self_distillation(student: Tensor, targets: Tensor, *, temperature: float, views: int) -> Tensor:
    """Mean cross entropy between each target and every view of the student but the target's own.

        loss = mean over the 2 (V - 1) pairs (t, v), v != t, and over b images of -q_t . log softmax(s_v / T)

    As a target sums to 1, a term is logsumexp(s_v / T) - q_t . s_v / T. So the terms come from one batched product of
    targets and logits, and the gradient from the softmax and the targets. One map of (V b, K) is made: the softmax,
    which becomes the gradient in place. So the backward pass can be taken once.

    Args:
        student: (V b, K) logits, those of the first view first, with gradient.
        targets: (2, b, K) probabilities for the first two views.
        temperature: T.
        views: V, at least 2.
    """
    loss: Tensor = _SelfDistillation.apply(student, targets, temperature, views)
    return loss


class _SelfDistillation(torch.autograd.Function):
    """The loss above, in float32 or better; targets get no gradient."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, targets: Tensor, temperature: float, views: int) -> Tensor:
        with torch.autocast(student.device.type, enabled=False):
            logits = _widen(student)
            share = logits / temperature
            torch.softmax(share, dim=1, out=share)
            # From the largest entry of each row: logsumexp would take the exponentials again, into another map.
            norm = logits.amax(dim=1).div_(temperature).sub_(share.amax(dim=1).log_())
            split = logits.view(views, -1, logits.shape[1])  # (V, b, K)
            terms = torch.baddbmm(
                norm.view(views, -1).T[:, None], targets.transpose(0, 1), split.permute(1, 2, 0), alpha=-1 / temperature
            )  # (b, 2, V)
        ctx.share, ctx.targets, ctx.dtype = share.view_as(split), targets, student.dtype
        ctx.weight = 1 / (GLOBAL_VIEWS * (views - 1) * len(terms))
        own = terms.diagonal(dim1=1, dim2=2)
        ctx.slope = ctx.weight / temperature
        loss: Tensor = (terms.sum() - own.sum()) * ctx.weight
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        share, ctx.share = ctx.share, None
        assert share is not None, "the first backward pass used up what a second one needs"
        slope = gradient * ctx.slope
        with torch.autocast(share.device.type, enabled=False):
            other = ctx.targets.flip(0).mul_(-slope)  # of a global view: the target of the other one
            common, first, rest = other.sum(dim=0), share[:GLOBAL_VIEWS], share[GLOBAL_VIEWS:]
            torch.addcmul(other, first, slope, out=first)
            torch.addcmul(common, rest, GLOBAL_VIEWS * slope, out=rest)
        return share.flatten(0, 1).to(ctx.dtype), None, None, None


def _widen(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.double else logits.float()
