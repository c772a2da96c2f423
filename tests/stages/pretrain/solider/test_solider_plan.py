"""What a short command for Swin transformers means, and what SOLIDER refuses in one line."""

from pathlib import Path

import pytest

from lupctl.core.errors import UsageError
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.resolve.training.pretraining import default_recipe
from lupctl.core.stages.pretrain.job import student_plan
from lupctl.core.stages.pretrain.memory import estimate_memory
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell

QUIET = Progress(quiet=True)


def resolve(name: str, *settings: str) -> PretrainRecipe:
    recipe = resolve_recipe("pretrain", name, overrides=settings)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


@pytest.mark.parametrize(
    ("arch", "method", "recipe"),
    [
        ("swin-t", None, "dino-swin-t"),
        ("swin-s", "dino", "dino-swin-s"),
        ("swin-b", "solider", "solider-swin-b"),
        ("swin-u", None, "small-dino-swin"),
        ("swin-u", "solider", "small-solider"),
        (None, "solider", "solider-swin-t"),
        ("vit-s", "dino", "dino-vit-s"),
        ("r50", None, "luperson-moco"),
    ],
)
def test_an_architecture_has_its_recipe(arch: str | None, method: str | None, recipe: str) -> None:
    assert default_recipe(arch, method, QUIET) == recipe  # type: ignore[arg-type]


def test_the_plan_of_the_published_recipe(lupctl: Shell) -> None:
    """Without a start or data; copies of the global views and the second head need more memory than dino."""
    said = lupctl("pretrain --method solider --arch swin-t --gpus 8 --dry-run --json")
    assert said.code == 0
    found = said.json
    assert (found["arch"], found["batch"], found["batch_per_device"], found["rate"]) == ("swin-t", 384, 48, 7.5e-5)
    assert (found["epochs"], found["start"]) == (10, None)
    assert "start: unknown; lup/runs: no finished run of dino with the networks of this recipe" in said.err
    assert "hint: lupctl pretrain --method dino --arch swin-t, or choose --from scratch" in said.err
    scratch = lupctl("pretrain --method solider --arch swin-t --gpus 8 --dry-run --json --from scratch")
    assert (scratch.json["epochs"], scratch.json["rate"], scratch.json["start"]) == (100, 7.5e-4, "scratch")
    assert "schedule: 100 epochs at a rate of 0.00075 from scratch, those of dino-swin-t" in scratch.err
    own = lupctl("pretrain --method solider --arch swin-t --gpus 8 --dry-run --json --from scratch --epochs 30")
    assert (own.json["epochs"], own.json["rate"]) == (30, 7.5e-4)
    assert "schedule: 30 epochs at a rate of 0.00075 from scratch; dino-swin-t has 100 epochs at 0.00075" in own.err
    short = lupctl("pretrain --method solider --arch swin-t --gpus 8 --dry-run --json --from scratch --epochs 8")
    assert "schedule: made for 100 epochs; schedule.warmup_epochs = 10 reaches past the end of 8" in short.err


@pytest.mark.parametrize(
    ("line", "recipe"),
    [
        ("--method solider --recipe small-moco", "small-solider"),
        ("--method solider --recipe small-pnl --set data.batch=32", "small-solider"),
        ("--set method=solider --recipe small-moco", "small-solider"),
        ("--method solider --recipe small-moco --arch swin-b", "solider-swin-b"),
        ("--method solider --recipe small-moco --arch r50", "small-solider"),
    ],
)
def test_a_recipe_of_another_method_is_one_error_with_the_recipe_to_take(lupctl: Shell, line: str, recipe: str) -> None:
    said = lupctl(f"pretrain {line} --dry-run")
    assert said.code == 2
    own = "small-pnl: a recipe of pnl" if "pnl" in line else "small-moco: a recipe of moco"
    assert f"error: {own}, whose section and trunk are not those of solider\n" in said.err
    hint = said.err.splitlines()[-1].removeprefix("hint: ")
    assert hint == f"--recipe {recipe}" + (", without --arch" if "r50" in line else "")
    words = line.replace("--recipe small-moco", "").replace("--recipe small-pnl", "").replace("--arch r50", "")
    assert lupctl(f"pretrain {words} {hint.partition(',')[0]} --dry-run --gpus 0").code == 0


def test_memory_counts_copies_and_the_head_for_parts() -> None:
    dino, solider = resolve("dino-swin-t"), resolve("solider-swin-t")
    kept, trained, without = (
        estimate_memory(recipe, student_plan(recipe), processes=8, parts=1, is_half=True)
        for recipe in (solider, resolve("solider-swin-t", "solider.part_head=trained"), dino)
    )
    # Two more global views for the trunk, beside two and eight of a quarter: half as many activations again.
    assert 1.1 < kept / without < 1.5
    head = 4 * (768 * 2048 + 2048 * 2048 + 2048 * 256 + 256 * 4 + 2 * 2048 + 256)
    assert trained - kept == 4 * head


def test_a_start_is_of_solider_alone(lupctl: Shell) -> None:
    said = lupctl("pretrain --arch r50 --from scratch --dry-run")
    assert said.code == 2
    assert "--from scratch: moco begins from random weights; only the method solider takes a start" in said.err


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (["net.arch=r50"], "method = solider trains swin-u, swin-t, swin-s and swin-b; this recipe's net.arch is r50",
         "--arch swin-t"),
        (["net.arch=vit-s"], "this recipe's net.arch is vit-s", "--arch swin-t"),
        (["swin.semantic_weight=none"], "has no semantic controller", "--set swin.semantic_weight=0.0"),
        (["swin.semantic_weight=1.5"], "swin.semantic_weight: a number from 0 to 1, or none, is expected", None),
        (["pixels.height=32", "pixels.width=16", "local.height=32", "local.width=16"],
         "give a last map of 1 x 1, too small for solider.parts = 3", "--set pixels.height=256 --set pixels.width=128"),
        (["solider.parts=0"], "solider.parts", None),
        (["solider.part_head=none"], "solider.part_head", None),
        (["solider.foreground=1"], "solider.foreground", None),
        (["moco.queue=64"], "[moco] is a section of the method moco; this recipe's method is solider", None),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused(settings: list[str], message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        resolve("solider-swin-t", *settings)
    assert message in caught.value.message
    if hint is not None:
        assert caught.value.hint == hint


def test_other_methods_have_no_part_of_it() -> None:
    with pytest.raises(
        UsageError, match=r"\[solider\] is a section of the method solider; this recipe's method is dino"
    ):
        resolve("dino-swin-t", "solider.parts=3")


def test_a_name_of_two_stages_needs_one(lupctl: Shell, tmp_path: Path) -> None:
    said = lupctl("recipe show solider-swin-t")
    assert said.code == 2
    assert "solider-swin-t: both stages have a recipe of this name" in said.err
    assert "hint: lupctl recipe show solider-swin-t --stage pretrain" in said.err
    assert 'method = "solider"' in lupctl("recipe show solider-swin-t --stage pretrain").out
    assert "[losses]" in lupctl("recipe show solider-swin-t --stage finetune").out
