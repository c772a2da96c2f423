"""Typing what trains Swin transformers: the recipes that are picked, and what a start decides."""

from pathlib import Path
from typing import Any

import pytest

from lupctl.core.choices import SwinArch
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.training.nets.build import build_network
from tests.tools.networks import make_header, no_head, plan_network, projection
from tests.tools.shell import Shell

PLAN = "finetune --gpus 0 --dry-run --set data.persons=4"
FINE = f"{PLAN} --json"


def write_start(path: Path, arch: SwinArch = "swin-u", **changes: Any) -> None:
    """A checkpoint of a pre-trained Swin with a controller unless the changes say otherwise."""
    trunk = plan_swin(arch, **{"semantic_weight": 0.0, "depths": (1, 1, 1, 1), **changes})
    plan = NetworkPlan(trunk=trunk, pooling="avg", head=no_head())
    write_checkpoint(path, build_network(plan).state_dict(), make_header(plan, stage="convert"))


def test_a_plan_of_solider(lupctl: Shell, labelled: Path) -> None:
    ran = lupctl(f"{FINE} {labelled} --recipe solider-swin-t --from scratch")
    assert ran.code == 0, ran.err
    assert "controller: none, because scratch has none; --set swin.semantic_weight=0.2 --set swin.train" in ran.err
    # The published number, less what no feature depends on, less the controller; and the head.
    controller = 2 * 3 * (192 + 384 + 768)
    assert ran.json["parameters"] == 27_533_370 - 5952 - controller + 2 * 768 + 6 * 768
    assert 16 * ran.json["parameters"] + 16 * 100e6 < ran.json["memory_bytes"] < 10 * 2**30, "of 16 images"


@pytest.mark.parametrize(
    ("line", "recipe"),
    [
        ("--arch swin-u --from scratch", "small-swin"),
        ("--arch swin-t --from scratch", "solider-swin-t"),
        ("--set net.arch=swin-b --from scratch", "solider-swin-b"),
        ("--arch swin-s --from imagenet", "solider-swin-s"),
    ],
)
def test_an_architecture_picks_its_recipe(lupctl: Shell, labelled: Path, line: str, recipe: str) -> None:
    ran = lupctl(f"{FINE} {labelled} {line}")
    assert ran.code == 0, ran.err
    small = "" if recipe == "small-swin" else "; --recipe small-swin is for a CPU"
    assert f"recipe: {recipe} (the default for this start{small})" in ran.err
    assert ran.json["arch"] in line


def test_a_start_decides_patches_blocks_and_controller(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    with_one, without = tmp_path / "with.safetensors", tmp_path / "without.safetensors"
    write_start(with_one, patch=2)
    write_start(without, semantic_weight=None)
    ran = lupctl(f"{FINE} {labelled} --from {with_one}")
    assert ran.code == 0, ran.err
    assert "recipe: small-swin" in ran.err
    assert "controller" not in ran.err
    bare = lupctl(f"{FINE} {labelled} --from {without}")
    assert bare.code == 0, bare.err
    assert f"controller: none, because {without} has none" in bare.err
    # Patches of 16 pixels and not of 4, and no layers of two numbers with as many outputs as the later stages.
    assert ran.json["parameters"] - bare.json["parameters"] == 3 * 2 * (64 + 128 + 256) - 3 * 32 * (16 - 4)
    new = lupctl(f"{FINE} {labelled} --from {without} --set swin.train_controller=true")
    assert new.code == 0, new.err
    assert "controller" not in new.err
    refused = lupctl(f"{PLAN} {labelled} --from {without} --set swin.semantic_weight=0.5")
    assert refused.code == 2
    assert "without a semantic controller; swin.semantic_weight = 0.5 needs one" in refused.err


def test_weights_of_another_size_are_named(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    """The rate of a recipe is for its architecture, and so it is not trained with another one's weights."""
    write_start(tmp_path / "s.safetensors", "swin-s", depths=())
    ran = lupctl(f"{PLAN} {labelled} --recipe solider-swin-b --from {tmp_path / 's.safetensors'}")
    assert ran.code == 2
    assert "swin-s semantic weight 0; the recipe says swin-b semantic weight 0.2" in ran.err
    assert "hint: --arch swin-s" in ran.err
    ran = lupctl(f"{PLAN} {labelled} --arch swin-b --from {tmp_path / 's.safetensors'}")
    assert (ran.code, "swin-s semantic weight 0; the recipe says swin-b" in ran.err) == (2, True)
    ran = lupctl(f"{FINE} {labelled} --from {tmp_path / 's.safetensors'}")
    assert (ran.code, ran.json["arch"]) == (0, "swin-s")


def test_starts_of_other_families_are_named(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    path = tmp_path / "r18.safetensors"
    plan = plan_network(projection(8))
    write_checkpoint(path, build_network(plan).state_dict(), make_header(plan, stage="pretrain"))
    ran = lupctl(f"{PLAN} {labelled} --recipe small-swin --from {path}")
    assert ran.code == 2
    assert f"{path}: a residual network (r18 width 4); the recipe trains a Swin transformer (swin-u)" in ran.err
    swin = tmp_path / "swin.safetensors"
    write_start(swin)
    ran = lupctl(f"{PLAN} {labelled} --recipe bot --from {swin}")
    assert ran.code == 2
    assert (
        "a Swin transformer (swin-u depths 1-1-1-1 semantic weight 0); the recipe trains a residual network" in ran.err
    )
    assert "vit-s" in lupctl(f"{PLAN} {labelled} --recipe transreid-ssl-vit-s --from {swin}").err
