"""The views that a pre-training method gets."""

from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import MethodSettings, MocoSettings
from lupctl.core.training.views.plan import ViewPlan, build_view_plan


def view_plans(recipe: PretrainRecipe) -> tuple[ViewPlan, ...]:
    """How each view of an image is made, in the order in which the method indexes them."""
    pixels, augment = recipe.pixels.model_dump(), recipe.augment.model_dump()
    settings: MethodSettings = recipe.settings
    match settings:
        case MocoSettings():
            view = build_view_plan(pixels, augment)
            return view, view
