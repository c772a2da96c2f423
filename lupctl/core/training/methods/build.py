"""Builds the method that a recipe's section describes; methods are named here and nowhere else in training."""

from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.recipes.pretrain_sections import MethodSettings, MocoSettings
from lupctl.core.training.methods.moco import MoCo
from lupctl.core.training.nets.build import build_contrastive

# Every one of them is a `Method`.
AnyMethod = MoCo


def build_method(settings: MethodSettings, plan: NetworkPlan, *, seed: int) -> AnyMethod:
    """A method with fresh networks.

    Args:
        settings: the method's section of a recipe.
        plan: of the student, as `student_plan` describes it.
        seed: of the method's own random numbers; the weights come from torch's generator.
    """
    match settings:
        case MocoSettings():
            return MoCo(build_contrastive(plan), dim=settings.dim, queue=settings.queue, seed=seed)
