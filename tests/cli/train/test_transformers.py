"""Typing what trains vision transformers: the recipes that are picked, plans, and starts of the other family."""

from pathlib import Path
from typing import Any

import pytest

from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.plan import HeadPlan, NetworkPlan
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.training.nets.build import build_network
from tests.tools.networks import jpm_head, make_header, no_head, plan_network, plan_vit, projection
from tests.tools.shell import Shell

PLAN = "finetune --gpus 0 --dry-run --set data.persons=4"
FINE = f"{PLAN} --json"


def write_start(path: Path, head: HeadPlan | None = None, **changes: Any) -> None:
    """A checkpoint of a vision transformer with one block; of a residual network where nothing is said."""
    plan = plan_network(projection(8))
    stage = changes.pop("stage", "convert")
    if changes:
        trunk = ViTPlan.model_validate({**plan_vit("vit-s", height=256, width=128).model_dump(), "depth": 2, **changes})
        plan = NetworkPlan(trunk=trunk, pooling="token", head=head or no_head())
    write_checkpoint(path, build_network(plan).state_dict(), make_header(plan, stage=stage))


def test_a_plan_of_transreid(lupctl: Shell, labelled: Path) -> None:
    ran = lupctl(f"{FINE} {labelled} --recipe transreid-vit-b-s12-sie-jpm --from scratch")
    assert ran.code == 0, ran.err
    plan = ran.json
    assert (plan["schema"], plan["arch"], plan["epochs"]) == ("lupctl.finetune-plan/1", "vit-b", 120)
    assert plan["cameras"] == [1, 2, 3]
    # The published file has 103,661,037 values: less `base.fc`, the last block and norm that nothing uses, 751 - 6
    # rows of each of five classifiers, three cameras, and the buffers of five necks.
    unused = 768 * 1000 + 1000 + 7_087_872 + 2 * 768
    assert plan["parameters"] == 103_661_037 - unused - 5 * 745 * 768 - 3 * 768 - 5 * (2 * 768 + 1)
    assert 16 * plan["parameters"] + 16 * 50e6 < plan["memory_bytes"] < 10 * 2**30, "of 16 images"
    table = lupctl(f"{PLAN} {labelled} --recipe transreid-vit-b-s12-sie-jpm --from scratch")
    assert "3: 1, 2, 3" in table.out
    assert "cameras" not in lupctl(f"{PLAN} {labelled} --recipe bot --from scratch").out


@pytest.mark.parametrize(
    ("line", "recipe"),
    [
        ("--arch vit-b --from scratch", "transreid-vit-b"),
        ("--arch vit-s --from scratch", "transreid-ssl-vit-s"),
        ("--set net.arch=vit-t --from scratch", "transreid-ssl-vit-s"),
        ("--arch vit-b --from imagenet", "transreid-vit-b"),
    ],
)
def test_an_architecture_picks_its_recipe(lupctl: Shell, labelled: Path, line: str, recipe: str) -> None:
    ran = lupctl(f"{FINE} {labelled} {line}")
    assert ran.code == 0, ran.err
    assert f"recipe: {recipe} (the default for this start" in ran.err
    assert ran.json["arch"] in line


@pytest.mark.parametrize(
    ("changes", "recipe"),
    [
        ({"dim": 384}, "transreid-ssl-vit-s"),
        ({"stem": "ics"}, "transreid-ssl-vit-s-ics"),
        ({"parts": 3}, "pass-vit-s"),
        ({"dim": 192, "heads": 3, "hidden": 768, "stem": "ics"}, "cion-vit-t"),
        ({"dim": 768, "heads": 12, "hidden": 3072, "rows": 14, "columns": 14}, "transreid-vit-b"),
        ({"dim": 768, "heads": 12, "hidden": 3072}, "personvit-b"),
        ({"dim": 768, "heads": 12, "hidden": 3072, "stage": "pretrain"}, "personvit-b"),
        ({"dim": 384, "head": jpm_head(4)}, "transreid-vit-b-s12-sie-jpm"),
        ({"patch": 8, "stride": 8, "rows": 32, "columns": 16}, "transreid-ssl-vit-s"),
    ],
)
def test_a_start_picks_its_recipe(
    lupctl: Shell, labelled: Path, tmp_path: Path, changes: dict[str, Any], recipe: str
) -> None:
    write_start(tmp_path / "start.safetensors", **changes)
    ran = lupctl(f"{FINE} {labelled} --from {tmp_path / 'start.safetensors'} --set vit.drop_path=0.2")
    assert ran.code == 0, ran.err
    assert f"recipe: {recipe} (the default for this start" in ran.err


@pytest.mark.parametrize(
    ("changes", "line", "message"),
    [
        ({}, "--recipe small-vit", "a residual network (r18 width 4); the recipe trains a vision transformer (vit-t)"),
        ({}, "--arch vit-s", "a residual network (r18 width 4); the recipe trains a vision transformer (vit-s)"),
        ({"depth": 2}, "--recipe bot", "a vision transformer (vit-s depth 2); the recipe trains a residual network"),
        ({"depth": 2}, "--arch r50", "a vision transformer (vit-s depth 2); the recipe trains a residual network"),
        ({"depth": 2}, "", "a vision transformer (vit-s depth 2); the recipe trains a residual network"),
    ],
)
def test_a_start_of_the_other_family_is_one_clear_error(
    lupctl: Shell, labelled: Path, tmp_path: Path, changes: dict[str, Any], line: str, message: str
) -> None:
    write_start(tmp_path / "start.safetensors", **changes)
    line = line or "--recipe mgn-imagenet"
    ran = lupctl(f"{FINE} {labelled} {line} --from {tmp_path / 'start.safetensors'}")
    assert ran.code == 2
    assert message in ran.err
    assert ran.err.count("error: ") == ran.err.count("hint: ") == 1


def test_pretraining_takes_a_transformer(lupctl: Shell, crowd: Path) -> None:
    ran = lupctl(f"pretrain {crowd} --method moco --arch vit-s --batch 16 --gpus 0 --dry-run --json")
    assert ran.code == 0, ran.err
    assert "recipe: luperson-moco-vit (the default for momentum contrast of vision transformers)" in ran.err
    assert ran.json["arch"] == "vit-s"


def test_a_recipe_shows_the_sections_of_its_network(lupctl: Shell) -> None:
    shown = lupctl("recipe show transreid-vit-b-s12-sie-jpm").out
    for line in ("[vit]", "stride = 12", "[sie]", "cameras = true", "[jpm]", "shift = 5", 'pooling = "token"'):
        assert f"{line}\n" in shown
    assert not any(f"[{name}]" in lupctl("recipe show bot").out for name in ("vit", "sie", "jpm"))
    refused = lupctl("recipe show bot --set vit.stride=12")
    assert refused.code == 2
    assert "[vit] is a section of vit-t, vit-s and vit-b; this recipe's net.arch is r50" in refused.err


def test_a_start_of_no_named_size_is_refused_as_such(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    write_start(tmp_path / "start.safetensors", dim=192, heads=3, hidden=384)
    ran = lupctl(f"{FINE} {labelled} --from {tmp_path / 'start.safetensors'}")
    assert ran.code == 2
    assert "192 features, 3 heads and an MLP of 384, which is none of vit-t, vit-s, vit-b\nhint: lupctl" in ran.err


@pytest.mark.parametrize(
    ("recipe", "is_said"),
    [("small-moco", True), ("small-moco-vit", False), ("small-moco-vit --set vit.stem=ics", True)],
)
def test_shared_statistics_are_those_of_batch_norm(lupctl: Shell, labelled: Path, recipe: str, is_said: bool) -> None:
    """A vision transformer has none, but in the stem of convolutions."""
    sizes = "--set vit.patch=16 --set vit.stride=16" if "ics" in recipe else ""
    one = f"--set bn_groups=1 --set data.batch=8 --set moco.queue=16 {sizes}"
    ran = lupctl(f"pretrain {labelled} --recipe {recipe} {one} --gpus 0 --dry-run")
    assert ran.code == 0, ran.err
    assert ("batch norm: one group" in ran.err) == is_said
