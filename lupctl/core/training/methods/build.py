"""Builds the method that a recipe's section describes; methods are named here and nowhere else in training."""

from torch import Tensor

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.recipes.dino_sections import DinoSettings
from lupctl.core.recipes.pretrain_sections import (
    MethodSettings,
    MocoSettings,
    PnlSettings,
    SimclrSettings,
    SupconSettings,
)
from lupctl.core.recipes.solider_sections import SoliderSettings
from lupctl.core.training.methods.batch import BatchContrast
from lupctl.core.training.methods.dino import Dino, DinoRules
from lupctl.core.training.methods.moco import MoCo
from lupctl.core.training.methods.pnl import Pnl, PnlRules
from lupctl.core.training.methods.solider import PartRules, Solider
from lupctl.core.training.nets.build import build_contrastive
from lupctl.core.training.nets.dino import build_dino
from lupctl.core.training.nets.labelled import build_labelled
from lupctl.core.training.nets.swin.solider import build_part_head, build_semantic
from lupctl.core.training.nets.trunk import Trunk

# Every one of them is a `Method`.
AnyMethod = MoCo | Pnl | BatchContrast | Dino | Solider


def build_method(
    settings: MethodSettings,
    plan: NetworkPlan,
    *,
    seed: int,
    drop_path: float = 0.0,
    classes: int = 0,
    persons: Tensor | None = None,
    solider: SoliderSettings | None = None,
) -> AnyMethod:
    """A method with fresh networks.

    Args:
        settings: the method's section of a recipe.
        plan: of what is kept of the student, as `student_plan` describes it.
        seed: of the method's own random numbers; the weights come from torch's generator.
        drop_path: stochastic depth of the student, if the method has any.
        classes: C, if the method uses labels.
        persons: (C) the main person of each class, where true persons are known; for the log alone.
        solider: of a recipe of SOLIDER, whose other section is that of DINO.
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
        case DinoSettings():
            rules = DinoRules(
                student_temperature=settings.student_temperature,
                centre_momentum=settings.centre_momentum,
                frozen_epochs=settings.frozen_epochs,
                drop_path=drop_path,
            )
            if solider is not None:
                return build_solider(settings, solider, plan, rules=rules, seed=seed)
            head = {"hidden": settings.hidden, "bottleneck": settings.bottleneck, "outputs": settings.outputs}
            return Dino(build_dino(plan, **head), outputs=settings.outputs, rules=rules, seed=seed)


def build_solider(
    settings: DinoSettings, solider: SoliderSettings, plan: NetworkPlan, *, rules: DinoRules, seed: int
) -> Solider:
    """SOLIDER with fresh networks.

    Args:
        settings: of its heads and of their comparison.
        solider: of its body parts.
        plan: of what is kept of the student: a Swin with a semantic controller.
        rules: the constants of DINO.
        seed: of its own random numbers.
    """
    assert isinstance(plan.trunk, SwinPlan)
    head = {"hidden": settings.hidden, "bottleneck": settings.bottleneck, "outputs": settings.outputs}
    student = build_semantic(plan, **head)
    part_head = build_part_head(
        plan.trunk.dims[-1], parts=solider.parts, hidden=solider.part_hidden, bottleneck=solider.part_bottleneck
    )
    return Solider(
        student,
        part_head.requires_grad_(solider.part_head == "trained"),
        outputs=settings.outputs,
        rules=rules,
        part_rules=PartRules(
            parts=solider.parts,
            weight=solider.weight,
            foreground=solider.foreground,
            restarts=solider.restarts,
            cell=plan.trunk.cell,
        ),
        seed=seed,
    )


def trained_trunk(method: AnyMethod) -> Trunk:
    """The trunk that takes gradients, which is not always the one that is kept."""
    return method.student.embedding.backbone if isinstance(method, Dino) else method.kept.backbone


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
