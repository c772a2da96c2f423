"""PNL's step from its definitions: one sample, one queue entry and one prototype at a time, in double precision.

Published order (Fu et al. 2022, arXiv 2203.16533, as their code has it): contrast with the old queue, scores with the
old prototypes, correction, then the queue, then one prototype after the other in the order of the batch, then all
prototypes to unit length.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ReferenceRules:
    """Constants of a run; epochs count from 0."""

    temperature: float = 0.07
    alpha: float = 0.5
    threshold: float = 0.8
    prototype_momentum: float = 0.999
    prototype_epoch: int = 1
    correction_epoch: int = 11
    positives_epoch: int = 15
    contrast_weight: float = 1.0
    prototype_weight: float = 1.0
    positives: str = "given"
    contrast: str = "mean-of-logs"


@dataclass(frozen=True)
class ReferenceStep:
    """What one step gives: losses with gradient, and the labels that it trained on."""

    loss: Tensor
    loss_class: Tensor
    loss_contrast: Tensor
    loss_prototype: Tensor
    label: list[int]


class PnlReference:
    """Queue and prototypes of a run.

    Args:
        queue: (D, K), its random content at the start.
        classes: C.
        rules: constants.
    """

    def __init__(self, queue: Tensor, *, classes: int, rules: ReferenceRules) -> None:
        self.rules = rules
        self.queue = [column.double().clone() for column in queue.T]
        self.queue_label = [-1] * len(self.queue)
        self.pointer = 0
        self.prototypes = [torch.zeros(len(queue), dtype=torch.double) for _ in range(classes)]

    def step(self, query: Tensor, logits: Tensor, keys: Tensor, label: list[int], *, epoch: int) -> ReferenceStep:
        """Losses of a whole batch; queue and prototypes move.

        Args:
            query: (B, D), with gradient.
            logits: (B, C), with gradient.
            keys: (B, D).
            label: as given.
            epoch: decides the phase.
        """
        rules, count = self.rules, len(label)
        zero = torch.zeros((), dtype=torch.double)
        of_class, of_contrast, of_prototype, used = zero, zero, zero, list[int]()
        for i in range(count):
            scores = torch.stack([query[i] @ prototype for prototype in self.prototypes]) / rules.temperature
            target = label[i]
            if epoch >= rules.correction_epoch:
                target = self._correct(logits[i].detach(), scores.detach(), label[i])
            used.append(target)
            of_class = of_class - _log_softmax(logits[i])[target]
            if epoch >= rules.prototype_epoch:
                of_prototype = of_prototype - _log_softmax(scores)[target]
            wanted = target if rules.positives == "corrected" else label[i]
            of_contrast = of_contrast + self._contrast(query[i], keys[i], wanted, epoch)
        for i in range(count):
            self._enqueue(keys[i].detach(), used[i])
        for i in range(count):
            old = self.prototypes[used[i]]
            self.prototypes[used[i]] = (
                rules.prototype_momentum * old + (1 - rules.prototype_momentum) * query[i].detach()
            )
        for number, prototype in enumerate(self.prototypes):
            if prototype.norm() > 0:
                self.prototypes[number] = prototype / prototype.norm()
        of_class, of_contrast, of_prototype = of_class / count, of_contrast / count, of_prototype / count
        loss = of_class + rules.contrast_weight * of_contrast + rules.prototype_weight * of_prototype
        return ReferenceStep(loss, of_class, of_contrast, of_prototype, used)

    def _correct(self, logits: Tensor, scores: Tensor, given: int) -> int:
        by_class, by_prototype = _log_softmax(logits).exp(), _log_softmax(scores).exp()
        best, most = given, -1.0
        for number in range(len(logits)):
            share = self.rules.alpha * float(by_class[number]) + (1 - self.rules.alpha) * float(by_prototype[number])
            if share > most:
                best, most = number, share
        return best if most > self.rules.threshold else given

    def _contrast(self, query: Tensor, key: Tensor, label: int, epoch: int) -> Tensor:
        similar = [query @ key, *(query @ column for column in self.queue)]
        shares = _log_softmax(torch.stack(similar) / self.rules.temperature)
        positives = [0]
        if epoch >= self.rules.positives_epoch:
            positives += [1 + place for place, kept in enumerate(self.queue_label) if kept == label]
        if self.rules.contrast == "log-of-mean":
            total = torch.zeros((), dtype=torch.double)
            for place in positives:
                total = total + shares[place].exp()
            return -(total / len(positives)).log()
        total = torch.zeros((), dtype=torch.double)
        for place in positives:
            total = total - shares[place]
        return total / len(positives)

    def _enqueue(self, key: Tensor, label: int) -> None:
        if self.pointer == len(self.queue):
            self.pointer = 0
        self.queue[self.pointer], self.queue_label[self.pointer] = key, label
        self.pointer += 1


def _log_softmax(scores: Tensor) -> Tensor:
    shifted = scores - scores.detach().max()
    return shifted - shifted.exp().sum().log()


def reference_supervised_contrast(features: Tensor, label: list[int], temperature: float) -> Tensor:
    """L_out of Khosla et al. 2020 (eq. 2), anchor by anchor, over (N, D) features of unit length."""
    total = torch.zeros((), dtype=torch.double)
    for i in range(len(label)):
        others = [j for j in range(len(label)) if j != i]
        shares = _log_softmax(torch.stack([features[i] @ features[j] for j in others]) / temperature)
        own = [shares[place] for place, j in enumerate(others) if label[j] == label[i]]
        total = total - sum(own, torch.zeros((), dtype=torch.double)) / len(own)
    return total / len(label)
