"""SOLIDER (Chen et al. 2023, arXiv 2303.17602): DINO that also learns where the parts of a body are."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lupctl.core.system.jobs.messages import sum_, world_size
from lupctl.core.training.clusters.body_parts import find_parts
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.parts import each_part
from lupctl.core.training.engine.stopwatch import Clock
from lupctl.core.training.losses.part_labels import part_loss
from lupctl.core.training.losses.self_distillation import GLOBAL_VIEWS
from lupctl.core.training.methods.dino import Dino, DinoRules, Taught, by_size
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.methods.semantic_draws import draw_part, draw_weights
from lupctl.core.training.nets.dino import DinoHead
from lupctl.core.training.nets.swin.solider import SemanticNetwork
from lupctl.core.training.nets.vit.blocks import view_keys


@dataclass(frozen=True)
class PartRules:
    """How body parts are found and learned.

    Args:
        parts: R.
        weight: of the loss on them.
        foreground: the least share of a map's tokens, not itself included, that must show a person.
        restarts: of k-means.
        cell: side in pixels of what a token of the last map shows.
    """

    parts: int
    weight: float
    foreground: float
    restarts: int
    cell: int


@dataclass(frozen=True)
class TaughtParts(Taught):
    """What the teacher says of the b images of a part of a batch, and of the bodies in them.

    Args:
        weight: (b) the drawn semantic weights, 0 or 1.
        labels: (2 * b, h, w) int64 of the tokens of the global views: 0 is around the person, then 1 to R downwards.
        kept: (2 * b) bool, which of these labels are used.
        share: factor on the sum of the losses of tokens: the mean over parts and processes is then the loss.
    """

    weight: Tensor
    labels: Tensor
    kept: Tensor
    share: Tensor


class Solider(Dino):
    """DINO whose images each have a semantic weight, drawn from 0 and 1; those with 1 also learn where body parts are.

    The teacher's last maps of the global views, with a weight of 1, are clustered into what is around a person and R
    parts from top to bottom. One part is painted over in copies of these views. From the student's maps of the copies
    and of the views themselves a head says which part each token shows, the painted one too.

    Args:
        student: the network to train.
        part_head: trained if its parameters require gradients; as published it is a random projection that stays.
        outputs, rules, seed: see `Dino`; weights and parts are drawn from the seed, too.
        part_rules: the constants.
    """

    student: SemanticNetwork
    teacher: SemanticNetwork

    def __init__(
        self,
        student: SemanticNetwork,
        part_head: DinoHead,
        *,
        outputs: int,
        rules: DinoRules,
        part_rules: PartRules,
        seed: int,
    ) -> None:
        super().__init__(student, outputs=outputs, rules=rules, seed=seed)
        self.part_rules = part_rules
        self.student.part_head = part_head  # after the teacher was copied, which has none

    def teach(self, given: Given, now: Now, parts: int, *, clock: Clock) -> tuple[Sequence[Taught], dict[str, Tensor]]:
        """As of `Dino`, with body parts; the share of global views whose parts are used is `kept`.

        A loss on tokens is the mean over those of all views that are kept in the whole step, wherever they are.
        """
        rules, found = self.part_rules, []
        for some in each_part(self.teacher, parts):
            share = given.part(some)
            with clock("targets"):
                crops = torch.cat(share.views[:GLOBAL_VIEWS])
                weight = draw_weights(self.image_keys(share.keys, now))
                weights = torch.cat([weight.new_ones(len(crops)), weight.repeat(GLOBAL_VIEWS)])
                seen = self.teacher(weights, crops, crops)
            with clock("labels"):
                bodies = find_parts(
                    seen.maps[: len(crops)],
                    parts=rules.parts,
                    foreground=rules.foreground,
                    restarts=rules.restarts,
                    seeds=0,
                )
            found.append((seen, weight, bodies))
        kept = sum_(torch.stack([bodies.kept.sum() for _, _, bodies in found]).sum())
        tokens = 2 * kept * found[0][2].labels[0].numel()  # those of the copies and of the views themselves
        factor = rules.weight * parts * world_size() / tokens.clamp(min=1).double()
        taught = [
            TaughtParts(seen.features, seen.logits, weight, bodies.labels, bodies.kept, factor)
            for seen, weight, bodies in found
        ]
        views = GLOBAL_VIEWS * len(given.keys) * world_size()
        return taught, {"kept": (kept.double() / views).float()}

    def run_student(
        self, given: Given, now: Now, taught: Taught, gradients: SharedGradients
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """As of `Dino`, with the loss on body parts as `semantic`."""
        assert isinstance(taught, TaughtParts)
        views, keys = given.views, self.image_keys(given.keys, now)
        weight = taught.weight.repeat(GLOBAL_VIEWS)
        # A copy of an image with a weight of 0 would count, and change nothing: the head does not see copies.
        rows = (taught.kept & (weight > 0)).nonzero()[:, 0]
        labels = taught.labels[rows]
        globals_ = torch.cat(views[:GLOBAL_VIEWS])[rows]
        part = draw_part(self.part_rules.parts, seed=self.seed, step=now.step)
        copies = paint_over(globals_, labels == part, self.part_rules.cell)
        own, beside = view_keys(keys, len(views) + GLOBAL_VIEWS).tensor_split([len(views) * len(keys)])
        self.key_depth(torch.cat([beside[rows], own]))
        weights = torch.cat([weight[rows], taught.weight.repeat(len(views))])
        out = gradients(weights, copies, *(torch.cat(group) for group in by_size(views)))
        tokens = torch.cat([out.maps[: len(rows)], out.maps[len(rows) + rows]])
        assert self.student.part_head is not None
        logits = self.student.part_head(tokens.permute(0, 2, 3, 1).flatten(0, 2))
        loss = part_loss(logits, labels.repeat(2, 1, 1).flatten())
        return out.logits, {"semantic": loss * taught.share.to(loss.dtype)}


def paint_over(images: Tensor, cells: Tensor, side: int) -> Tensor:
    """Images with the mean colour, 0 after normalising, where a cell of their map says so.

    Args:
        images: (n, 3, H, W).
        cells: (n, h, w) bool; those beyond an edge are cut.
        side: of a cell in pixels.
    """
    wide = cells.repeat_interleave(side, 1).repeat_interleave(side, 2)[:, : images.shape[2], : images.shape[3]]
    return images.masked_fill(wide[:, None], 0)
