"""The views that a pre-training method gets."""

from lupctl.core.recipes.dino_sections import DinoSettings
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
        case DinoSettings():
            assert recipe.augment_second is not None, "filled in by `check_sections`"
            assert recipe.local is not None, "filled in by `check_sections`"
            own = recipe.local.model_dump()
            count, size = own.pop("count"), {key: own.pop(key) for key in ("height", "width")}
            second = build_view_plan(pixels, recipe.augment_second.model_dump())
            return (build_view_plan(pixels, augment), second, *[build_view_plan({**pixels, **size}, own)] * count)
