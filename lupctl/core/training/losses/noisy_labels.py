"""Losses and correction for labels of which some are wrong (PNL: Fu et al. 2022, arXiv 2203.16533)."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from lupctl.core.choices import ContrastForm
from lupctl.core.system.jobs.shards import Shard, first_choice, pick_columns, shared_logsumexp


class Scores(NamedTuple):
    """Logits of a classifier, with their normalisation, which loss and correction share.

    Args:
        logits: (B, C), or those of this process's classes.
        norm: (B), log of the sum of all their exponentials, without gradient.
        shard: this process's classes; None for all of them.
    """

    logits: Tensor
    norm: Tensor
    shard: Shard | None = None


def score(logits: Tensor, shard: Shard | None = None) -> Scores:
    """The scores of (B, C) logits, in float32 or better.

    Args:
        logits: (B, C), or those of this process's classes.
        shard: these classes.
    """
    logits = logits if logits.dtype == torch.double else logits.float()
    return Scores(logits, logits.detach().logsumexp(dim=1) if shard is None else shared_logsumexp(logits), shard)


def prototype_scores(query: Tensor, prototypes: Tensor, temperature: float, shard: Shard | None = None) -> Scores:
    """Cosines with the prototypes over T, as the logits of a classifier; only the query gets a gradient.

    Args:
        query: (B, D) of unit length.
        prototypes: (C, D) of unit length, or 0 for a class that was never seen.
        temperature: T.
        shard: the classes of these prototypes; None for all.
    """
    with torch.autocast(query.device.type, enabled=False):
        # The query is divided, which is smaller: a division of the logits would cost another pass over all classes.
        return score((query / temperature) @ prototypes.T, shard)


def scored_cross_entropy(scores: Scores, label: Tensor) -> Tensor:
    """Mean cross entropy of (B) labels."""
    loss: Tensor = _CrossEntropy.apply(scores.logits, scores.norm, label, scores.shard)
    return loss


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy from a normalisation that is known, with one map of (B, C) in the backward pass and none before.

    Composed of torch's own functions it takes two more, which are gigabytes for many thousands of classes.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, norm: Tensor, label: Tensor, shard: Shard | None) -> Tensor:
        ctx.save_for_backward(logits, norm, label)
        ctx.start = 0 if shard is None else shard.start
        return (norm - _pick(Scores(logits, norm, shard), label[:, None])[:, 0]).mean()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        logits, norm, label = ctx.saved_tensors
        share = (logits - norm[:, None]).exp_()  # softmax minus one-hot, over B
        own = label[:, None] - ctx.start
        is_inside = (own >= 0) & (own < logits.shape[1])
        share.scatter_add_(1, own.clamp(0, logits.shape[1] - 1), -is_inside.to(share.dtype))
        return share.mul_(gradient / len(label)), None, None, None


@torch.no_grad()
def correct_labels(label: Tensor, by_class: Scores, by_prototype: Scores, *, alpha: float, threshold: float) -> Tensor:
    """The label on which classifier and prototypes agree strongly enough, else the given one.

        u = alpha softmax(p) + (1 - alpha) softmax(s);    argmax u where max u > t, else the given label

    A share above t >= 1/2 belongs to one class at most, and then to the classifier's first choice or to that of the
    prototypes. So only those two classes are computed, in two passes over the logits.

    Args:
        label: (B) as given.
        by_class: p, of the classifier.
        by_prototype: s, of the prototypes.
        alpha: weight of the classifier.
        threshold: t, at least 0.5.
    """
    assert threshold >= 0.5
    choices = torch.stack([first_choices(by_class), first_choices(by_prototype)], dim=1)  # (B, 2)
    share = alpha * _shares(by_class, choices) + (1 - alpha) * _shares(by_prototype, choices)
    best, place = share.max(dim=1)
    chosen = choices.gather(1, place[:, None])[:, 0]
    return torch.where(best > threshold, chosen, label)


@torch.no_grad()
def first_choices(scores: Scores) -> Tensor:
    """(B) the class of the largest logit."""
    return scores.logits.argmax(dim=1) if scores.shard is None else first_choice(scores.logits, scores.shard)


def _shares(scores: Scores, choices: Tensor) -> Tensor:
    return (_pick(scores, choices) - scores.norm[:, None]).exp()


def _pick(scores: Scores, choices: Tensor) -> Tensor:
    """(B, n) logits of some classes."""
    if scores.shard is None:
        return scores.logits.gather(1, choices)
    return pick_columns(scores.logits, choices, scores.shard)


def label_nce(
    query: Tensor, key: Tensor, queue: Tensor, same: Tensor, temperature: float, *, form: ContrastForm
) -> tuple[Tensor, Tensor]:
    """InfoNCE in which entries of the queue with the same label are positives, as the own key is.

    The softmax runs over the own key and the whole queue. With P_i the positives of image i,

        mean-of-logs:   loss = mean over i of -(1 / |P_i|) sum over P_i of log softmax_ij
        log-of-mean:    loss = mean over i of -log( (1 / |P_i|) sum over P_i of softmax_ij )

    which are L_out and L_in of Khosla et al. (2020, arXiv 2004.11362, eq. 2 and 3).

    Args:
        query: (B, D) of unit length, with gradient.
        key: (B, D) of unit length.
        queue: (D, K), columns of unit length.
        same: (B, K), whether an entry of the queue is a positive.
        temperature: T.
        form: the published code has mean-of-logs, the paper log-of-mean.

    Returns:
        the loss, and the share of images whose own key is nearer than every entry of the queue.
    """
    with torch.autocast(query.device.type, enabled=False):
        own = (query * key).sum(dim=1, keepdim=True)  # (B, 1)
        logits = torch.cat([own, query @ queue], dim=1) / temperature  # (B, 1 + K)
    positive = torch.cat([torch.ones_like(same[:, :1]), same], dim=1)
    count = positive.sum(dim=1)
    norm = logits.logsumexp(dim=1)
    with torch.no_grad():
        hits = (logits.argmax(dim=1) == 0).float().mean()
    if form == "log-of-mean":
        inside = logits.masked_fill(~positive, float("-inf")).logsumexp(dim=1)
        return (norm - inside + count.log()).mean(), hits
    return (norm - (logits * positive).sum(dim=1) / count).mean(), hits
