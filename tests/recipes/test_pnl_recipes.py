"""LUPerson-NL's recipes: the published constants of PNL and its baselines, and what belongs to which method."""

import pytest

from lupctl.core.errors import UsageError
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import PnlSettings, uses_labels
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain.job import student_plan
from lupctl.core.stages.pretrain.setup import build_curves
from lupctl.core.stages.pretrain.views import view_plans

PUBLISHED = {
    "method": "pnl", "bn_groups": 8, "data.batch": 1536, "optim.name": "sgd", "optim.lr": 0.4, "optim.momentum": 0.9,
    "optim.weight_decay": 1e-4, "schedule.epochs": 90, "schedule.kind": "steps", "schedule.milestones": (40, 80),
    "pixels.mean": (0.3452, 0.3070, 0.3114), "pixels.std": (0.2633, 0.2500, 0.2480), "pixels.height": 256,
    "pixels.width": 128, "pnl.variant": "ce+pro+lgc", "pnl.dim": 128, "pnl.hidden": 256, "pnl.queue": 65_536,
    "pnl.momentum": 0.999, "pnl.prototype_momentum": 0.999, "pnl.temperature": 0.07, "pnl.alpha": 0.5,
    "pnl.threshold": 0.8, "pnl.prototype_epoch": 1, "pnl.correction_epoch": 11, "pnl.positives_epoch": 15,
    "pnl.contrast_weight": 1.0, "pnl.prototype_weight": 1.0, "pnl.positives": "given", "pnl.contrast": "mean-of-logs",
    "pnl.sharded": False,
}  # fmt: skip


def resolve(name: str, *overrides: str) -> PretrainRecipe:
    recipe = resolve_recipe("pretrain", name, overrides=overrides)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


@pytest.mark.parametrize("arch", ["r50", "r101", "r152"])
def test_pnl_has_the_published_constants(arch: str) -> None:
    recipe = resolve("luperson-nl-pnl" if arch == "r50" else f"luperson-nl-pnl-{arch}")
    assert recipe.net.arch == arch
    for key, value in PUBLISHED.items():
        found = recipe.model_dump()
        for part in key.split("."):
            found = found[part]
        assert found == value, key
    rate = build_curves(recipe, steps_per_epoch=2).rate
    assert [rate.at(2 * epoch) for epoch in (0, 39, 40, 79, 80, 89)] == pytest.approx(
        [0.4, 0.4, 0.04, 0.04, 4e-3, 4e-3]
    )
    # The key's view is the one of LUPerson's contrast; the student's is a padded bicubic crop with a flip.
    weak, strong = view_plans(recipe)
    assert (weak.interpolation, weak.pad, weak.crop_area, weak.flip) == ("bicubic", 10, None, 0.5)
    assert (weak.grey, weak.blur, weak.erase, weak.jitter.p) == (0, 0, 0, 0)
    moco = view_plans(resolve("luperson-moco"))[1]
    assert vars(strong) == {**vars(moco), "mean": recipe.pixels.mean, "std": recipe.pixels.std}


def test_the_defaults_of_the_section_are_the_published_ones() -> None:
    named = {key.removeprefix("pnl."): value for key, value in PUBLISHED.items() if key.startswith("pnl.")}
    assert PnlSettings().model_dump() == named


def test_the_baselines_scale_their_rate_as_lars_does_there() -> None:
    simclr, supcon = resolve("luperson-nl-simclr"), resolve("luperson-nl-supcon")
    assert simclr.optim.name == supcon.optim.name == "lars"
    rate = build_curves(simclr, steps_per_epoch=1).rate
    # lr0 + (lr0 B / 256 - lr0) e / 10 in the warm-up, from 0.3 to 2.4; the cosine has no offset for it.
    assert [rate.at(epoch) for epoch in (0, 5, 100)] == pytest.approx([0.3, 1.35, 1.2])
    assert build_curves(supcon, steps_per_epoch=1).rate.at(0) == pytest.approx(0.1 * 2048 / 256)
    assert (simclr.settings.dim, supcon.settings.dim) == (128, 2048)
    assert (simclr.settings.temperature, supcon.settings.temperature) == (0.1, 0.07)


@pytest.mark.parametrize(
    ("variant", "labels", "views", "head"),
    [
        ("ce", True, 1, "none"),
        ("ic", False, 2, "projection"),
        ("ce+ic", True, 2, "projection"),
        ("ce+pro", True, 1, "projection"),
        ("ce+pro+lgc", True, 2, "projection"),
    ],
)
def test_a_variant_has_the_parts_that_it_names(variant: str, labels: bool, views: int, head: str) -> None:
    recipe = resolve("small-pnl", f"pnl.variant={variant}")
    assert uses_labels(recipe.settings) == labels
    assert len(view_plans(recipe)) == views
    assert student_plan(recipe).head.kind == head


@pytest.mark.parametrize(
    ("name", "entry", "message"),
    [
        ("luperson-nl-pnl", "moco.queue=5", "[moco] is a section of the method moco; this recipe's method is pnl"),
        ("luperson-moco", "augment_weak.pad=5", "[augment_weak] is a section of the method pnl"),
        ("luperson-nl-pnl", "pnl.threshold=0.4", "pnl.threshold: input should be greater than or equal to 0.5"),
        ("luperson-nl-pnl", "pnl.correction_epoch=0", "correction_epoch = 0 is before prototype_epoch = 1; labels are"),
        ("luperson-nl-pnl", "pnl.sharded=true optim.clip=1.0", "optim.clip = 1.0 cannot be combined with pnl.sharded"),
        ("luperson-nl-pnl", 'pnl.sharded=true optim.name="lars"', "optim.name = 'lars' cannot be combined with"),
        ("luperson-nl-pnl", "pnl.variant=ce+lgc", "pnl.variant: input should be 'ce', 'ic', 'ce+ic', 'ce+pro' or"),
    ],
)
def test_what_does_not_belong_together_is_refused(name: str, entry: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        resolve(name, *entry.split())
    assert message in caught.value.message
    assert "{" not in caught.value.message, "not the whole table"
