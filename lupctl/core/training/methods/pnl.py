"""Pre-training with noisy labels, PNL, as LUPerson-NL's code has it (Fu et al. 2022, arXiv 2203.16533)."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lupctl.core.choices import ContrastForm, PnlPositives
from lupctl.core.system.jobs.messages import gather_interleaved, gather_plain, rank, world_size
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.system.jobs.shards import own_shard, spread
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.parts import each_part
from lupctl.core.training.engine.stopwatch import Clock, untimed
from lupctl.core.training.losses.contrastive import info_nce
from lupctl.core.training.losses.noisy_labels import (
    Scores,
    correct_labels,
    first_choices,
    label_nce,
    prototype_scores,
    score,
    scored_cross_entropy,
)
from lupctl.core.training.methods.keys import Keys, encode_keys
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.methods.prototypes import Prototypes
from lupctl.core.training.methods.queue import LabelledQueue
from lupctl.core.training.methods.shards import ShardedLinear
from lupctl.core.training.methods.teacher import average_parameters, copy_teacher
from lupctl.core.training.methods.watching import watch_features
from lupctl.core.training.nets.labelled import LabelledNetwork, Outputs
from lupctl.core.training.nets.networks import Embedding


@dataclass(frozen=True, kw_only=True)
class PnlRules:
    """Which parts a run has, from which epoch on, and their constants; epochs count from 0.

    Args:
        alpha, threshold: of the correction, see `correct_labels`.
        prototype_momentum: of the prototypes.
        prototype_epoch: first one whose loss compares with the prototypes, which fill from the start.
        correction_epoch: first one with corrected labels.
        positives_epoch: first one in which entries of the queue are positives; None for never.
        contrast_weight, prototype_weight: of the two losses; that of the classifier has weight 1.
        positives: whether those entries have the given label of an image, or its corrected one.
        contrast: form of the loss with several positives.
    """

    alpha: float
    threshold: float
    prototype_momentum: float
    prototype_epoch: int
    correction_epoch: int
    positives_epoch: int | None
    contrast_weight: float
    prototype_weight: float
    positives: PnlPositives
    contrast: ContrastForm


class _Compared(NamedTuple):
    """A part's loss, the labels that it was trained on, and scalars to log."""

    loss: Tensor
    label: Tensor
    scalars: dict[str, Tensor]


class Pnl(nn.Module):
    """A classifier, an averaged encoder with a labelled queue, and prototypes; each of them may be left out.

    The averaged encoder has no classifier: the published one averages it too, and never uses it.

    Args:
        student: the network to train.
        queue: K of the queue, with contrast; None without.
        classes: C of the prototypes; None without.
        dim: D of the contrastive space.
        rules: constants.
        seed: of the queue's first content and of the shuffling.
        persons: (C) the person whom most images of a class show, where it is known; for `purity` alone.
        sharded: every process of the job keeps some rows of the classifier and of the prototypes.
    """

    persons: Tensor | None

    def __init__(
        self,
        student: LabelledNetwork,
        *,
        queue: int | None,
        classes: int | None,
        dim: int,
        rules: PnlRules,
        seed: int,
        persons: Tensor | None = None,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self.student = student
        self.teacher = None if queue is None else copy_teacher(student.encoder)
        self.queue = None if queue is None else LabelledQueue(dim, queue, seed=seed)
        shard = own_shard(classes) if sharded and classes is not None else None
        self.prototypes = None if classes is None else Prototypes(classes, dim, shard=shard)
        self.classifier = None
        if sharded and student.classes is not None:
            self.classifier = ShardedLinear(student.classes.give_classifier())
        self.register_buffer("persons", persons, persistent=False)
        self.rules = rules
        self._seed = seed

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """The student, and the averaged encoder if there is contrast."""
        return (self.student,) if self.teacher is None else (self.student, self.teacher)

    @property
    def trained(self) -> list[nn.Module]:
        """The student, and the classifier that it gave away."""
        return [self.student, *([] if self.classifier is None else [self.classifier])]

    @property
    def kept(self) -> Embedding:
        """The student's encoder, without its classifier."""
        return self.student.encoder

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
        """Forward and backward pass of one step, part by part; then queue and prototypes move once.

        Args:
            given: a weak view for the student, and a strong one for the averaged encoder if there is contrast; labels
                if there is a classifier.
            now: its epoch decides the phase.
            gradients: of the student, whose parameters must have no gradients.
            precision: type of the forward pass.
            clock: measures keys, forward and backward.

        Returns:
            `loss`; `loss_class`, `loss_contrast` and `loss_prototype` before their weights, and `hits`, of the parts
            that there are; and of the labels `corrected`, `agreement`, `purity` and `purity_given`, see `_compare`. Of
            a watched step also what `watch_features` gives.
        """
        weak = given.views[0]
        label = torch.full((len(weak),), -1, device=weak.device) if given.label is None else given.label
        keys = None
        if self.teacher is not None:
            with clock("keys"), autocast(weak.device, precision):
                keys = encode_keys(self.teacher, given.views[1], now.step, seed=self._seed, parts=gradients.parts)
        found, queries, used, seen = list[_Compared](), list[Tensor](), list[Tensor](), list[Tensor]()
        for number, some in enumerate(each_part(self.student, gradients.parts)):
            truth = None if given.truth is None else given.truth[some]
            with gradients.part(number):
                with clock("forward"), autocast(weak.device, precision):
                    out = gradients(weak[some])
                    part = self._compare(out, label[some], None if keys is None else keys.own[some], now, truth)
                with clock("backward"):
                    part.loss.backward()  # type: ignore[no-untyped-call]
            found.append(part)
            used.append(part.label)
            if out.query is not None:
                queries.append(out.query.detach())
            elif out.hidden is not None:
                seen.append(out.hidden.detach())
            del out  # its logits are the largest tensors of a part, and the next part makes its own
        if self.classifier is not None:
            self.classifier.finish(gradients.parts)
        self._remember(keys, queries, used)
        scalars = {name: torch.stack([part.scalars[name] for part in found]).mean() for name in found[0].scalars}
        return scalars | (watch_features(queries or seen) if now.is_watched else {})

    def follow(self, now: Now) -> None:
        """Moves the averaged encoder towards the student's."""
        if self.teacher is not None:
            average_parameters(self.teacher, self.student.encoder, momentum=now.momentum)

    def _compare(self, out: Outputs, label: Tensor, key: Tensor | None, now: Now, truth: Tensor | None) -> _Compared:
        """Loss and corrected labels of a part, from queue and prototypes as they were before the step.

        Among the scalars are `corrected`, the share of images that were trained on another label than the given one;
        `agreement`, the share whose nearest prototype is that of the given label; and where the true persons are known
        `purity_given` and `purity`, the share of images whose label's main person they show, before and after.
        """
        rules = self.rules
        by_class, by_prototype = self._classify(out), self._compare_prototypes(out.query, now)
        # With shards, scores are those of all processes' images.
        is_sharded = self.classifier is not None
        given = target = gather_plain(label) if is_sharded else label
        if by_class is not None and by_prototype is not None and now.epoch >= rules.correction_epoch:
            target = correct_labels(given, by_class, by_prototype, alpha=rules.alpha, threshold=rules.threshold)
        used = target.view(world_size(), -1)[rank()] if is_sharded else target
        loss, scalars = torch.zeros((), device=label.device), dict[str, Tensor]()
        if by_class is not None:
            scalars["loss_class"] = scored_cross_entropy(by_class, target)
            loss = loss + scalars["loss_class"]
        if key is not None:
            wanted = used if rules.positives == "corrected" else label
            scalars["loss_contrast"], scalars["hits"] = self._contrast(out.query, key, wanted, now)
            loss = loss + rules.contrast_weight * scalars["loss_contrast"]
        if by_prototype is not None:
            # Not a constant 0: every parameter needs a gradient, and in some variants only this loss reaches the query.
            assert out.query is not None
            is_part = now.epoch >= rules.prototype_epoch
            scalars["loss_prototype"] = scored_cross_entropy(by_prototype, target) if is_part else 0 * out.query.sum()
            loss = loss + rules.prototype_weight * scalars["loss_prototype"]
            scalars["corrected"] = (used != label).float().mean()
            scalars["agreement"] = (first_choices(by_prototype) == given).float().mean()
        if self.persons is not None and truth is not None:
            scalars["purity_given"] = (self.persons[label] == truth).float().mean()
            scalars["purity"] = (self.persons[used] == truth).float().mean()
        return _Compared(
            loss, used, {"loss": loss.detach(), **{name: value.detach() for name, value in scalars.items()}}
        )

    def _compare_prototypes(self, query: Tensor | None, now: Now) -> Scores | None:
        """Scores of the prototypes; without gradient while they are not part of the loss."""
        if self.prototypes is None or query is None:
            return None
        with torch.set_grad_enabled(now.epoch >= self.rules.prototype_epoch):
            query = query if self.prototypes.shard is None else spread(query)
            return prototype_scores(query, self.prototypes.mean, now.temperature, self.prototypes.shard)

    def _classify(self, out: Outputs) -> Scores | None:
        """Scores of the classifier, wherever it is."""
        if self.classifier is None or out.hidden is None:
            return None if out.logits is None else score(out.logits)
        # In float32, in which gradients are summed over processes.
        return score(self.classifier(spread(out.hidden.float())), self.classifier.shard)

    def _contrast(self, query: Tensor | None, key: Tensor, label: Tensor, now: Now) -> tuple[Tensor, Tensor]:
        """Loss against the queue, and how often a query's own key was nearest."""
        assert query is not None
        assert self.queue is not None
        start = self.rules.positives_epoch
        if start is None or now.epoch < start:
            return info_nce(query, key, self.queue.features, now.temperature)
        same = self.queue.label[None] == label[:, None]
        return label_nce(query, key, self.queue.features, same, now.temperature, form=self.rules.contrast)

    def _remember(self, keys: Keys | None, queries: list[Tensor], used: list[Tensor]) -> None:
        """Moves queue and prototypes by the global batch, in its order."""
        label = gather_interleaved(torch.stack(used, dim=1).flatten(0, 1))
        if self.queue is not None and keys is not None:
            self.queue.push(keys.every, label)
        if self.prototypes is not None:
            query = gather_interleaved(torch.stack(queries, dim=1).flatten(0, 1))
            self.prototypes.update(query, label, momentum=self.rules.prototype_momentum)
