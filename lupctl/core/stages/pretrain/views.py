"""The views that a pre-training method gets."""

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import (
    MethodSettings,
    MocoSettings,
    PnlSettings,
    SimclrSettings,
    SupconSettings,
)
from lupctl.core.training.views.plan import ViewPlan, build_view_plan


def view_plans(recipe: PretrainRecipe) -> tuple[ViewPlan, ...]:
    """How each view of an image is made, in the order in which the method indexes them."""
    pixels, augment = recipe.pixels.model_dump(), recipe.augment.model_dump()
    settings: MethodSettings = recipe.settings
    match settings:
        case MocoSettings() | SimclrSettings() | SupconSettings():
            view = build_view_plan(pixels, augment)
            return view, view
        case PnlSettings():
            assert recipe.augment_weak is not None, "filled in by `check_sections`"
            own = recipe.augment_weak.model_dump()
            weak = build_view_plan({**pixels, "interpolation": own.pop("interpolation")}, own)
            return (weak, build_view_plan(pixels, augment)) if settings.contrasts else (weak,)
