"""Builds the method that a recipe's section describes; methods are named here and nowhere else in training."""

from torch import Tensor

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.recipes.pretrain_sections import (
    MethodSettings,
    MocoSettings,
    PnlSettings,
    SimclrSettings,
    SupconSettings,
)
from lupctl.core.training.methods.batch import BatchContrast
from lupctl.core.training.methods.moco import MoCo
from lupctl.core.training.methods.pnl import Pnl, PnlRules
from lupctl.core.training.nets.build import build_contrastive
from lupctl.core.training.nets.labelled import build_labelled

# Every one of them is a `Method`.
AnyMethod = MoCo | Pnl | BatchContrast


def build_method(
    settings: MethodSettings, plan: NetworkPlan, *, seed: int, classes: int = 0, persons: Tensor | None = None
) -> AnyMethod:
    """A method with fresh networks.

    Args:
        settings: the method's section of a recipe.
        plan: of what is kept of the student, as `student_plan` describes it.
        seed: of the method's own random numbers; the weights come from torch's generator.
        classes: C, if the method uses labels.
        persons: (C) the main person of each class, where true persons are known; for the log alone.
    """
    match settings:
        case MocoSettings():
            return MoCo(build_contrastive(plan), dim=settings.dim, queue=settings.queue, seed=seed)
        case PnlSettings():
            return Pnl(
                build_labelled(plan, hidden=settings.hidden, classes=classes if settings.classifies else 0),
                queue=settings.queue if settings.contrasts else None,
                classes=classes if settings.has_prototypes else None,
                dim=settings.dim,
                rules=pnl_rules(settings),
                seed=seed,
                persons=persons,
                sharded=settings.sharded,
            )
        case SimclrSettings() | SupconSettings():
            uses_labels = isinstance(settings, SupconSettings)
            return BatchContrast(build_contrastive(plan), uses_labels=uses_labels, weight=settings.weight)


def pnl_rules(settings: PnlSettings) -> PnlRules:
    """The constants of a run, as its variant needs them."""
    return PnlRules(
        alpha=settings.alpha,
        threshold=settings.threshold,
        prototype_momentum=settings.prototype_momentum,
        prototype_epoch=settings.prototype_epoch,
        correction_epoch=settings.correction_epoch,
        positives_epoch=settings.positives_epoch if settings.variant == "ce+pro+lgc" else None,
        contrast_weight=settings.contrast_weight,
        prototype_weight=settings.prototype_weight,
        positives=settings.positives,
        contrast=settings.contrast,
    )
