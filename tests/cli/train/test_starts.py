"""The pre-training run that fine-tuning starts from where nobody named one, and the folders that runs are named by."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import pack_reference, write_checkpoint
from lupctl.core.formats.weights.plan import NetworkPlan, TrunkPlan
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.training.nets.build import build_network
from lupctl.core.workspace import CHECKPOINT_NAME, RUN_NAME
from tests.tools.networks import make_header, neck, no_head, tiny_vit
from tests.tools.shell import Shell

FINE = "finetune --gpus 0 --dry-run --set data.persons=4"
# The trunk of `small-vit`, in a tiny grid, and one with TransReID-SSL's stem.
SMALL: dict[str, Any] = {"dim": 192, "depth": 3, "heads": 3, "hidden": 768, "patch": 8, "stride": 8}
ICS: dict[str, Any] = {**SMALL, "stem": "ics", "patch": 16, "stride": 16}


def write_run(name: str, trunk: TrunkPlan, *, age: int, tuned_on: Path | None = None) -> None:
    """A finished run of a trunk in the workspace here, of pre-training or on a pack; the youngest is the newest."""
    folder = Path("lup/runs") / name
    folder.mkdir(parents=True)
    head = no_head() if tuned_on is None else neck(3)
    plan = NetworkPlan(trunk=trunk, pooling="token" if trunk.kind == "vit" else "avg", head=head)
    header = make_header(plan, stage="pretrain") if tuned_on is None else make_header(
        plan, data=(pack_reference(open_pack(tuned_on)),)
    )  # fmt: skip
    write_checkpoint(folder / CHECKPOINT_NAME, build_network(plan).state_dict(), header)
    marker = folder / RUN_NAME
    marker.write_text(json.dumps({"command": "pretrain" if tuned_on is None else "finetune"}))
    os.utime(marker, (1e9 - age, 1e9 - age))


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four runs of one architecture, from the newest to the oldest: another stem, depth, patch, and one that fits."""
    monkeypatch.chdir(tmp_path)
    write_run("ics", tiny_vit(**ICS), age=1)
    write_run("deep", tiny_vit(**{**SMALL, "depth": 4}), age=2)
    write_run("coarse", tiny_vit(**{**SMALL, "patch": 16, "stride": 16}), age=3)
    write_run("fits", tiny_vit(**{**SMALL, "stride": 4}), age=4)


@pytest.mark.usefixtures("runs")
def test_runs_that_do_not_fit_a_recipe_are_passed_over_and_named(lupctl: Shell, labelled: Path) -> None:
    ran = lupctl(f"{FINE} {labelled} --recipe small-vit --set vit.stride=8 --json")
    assert ran.code == 0, ran.err
    assert "start: not lup/runs/ics (vit-t depth 3 ics with patches of 16 pixels; the recipe says vit-t" in ran.err
    assert "start: not lup/runs/deep (vit-t depth 4; the recipe says vit-t depth 3)\n" in ran.err
    assert "start: not lup/runs/coarse (vit-t depth 3 with patches of 16 pixels; the recipe says vit" in ran.err
    assert "start: lup/runs/fits (the newest pre-training run of vit-t here that fits)\n" in ran.err


@pytest.mark.usefixtures("runs")
def test_without_a_recipe_the_newest_run_decides(lupctl: Shell, labelled: Path) -> None:
    ran = lupctl(f"{FINE} {labelled} --arch vit-t")
    assert ran.code == 0, ran.err
    assert "start: lup/runs/ics (the newest pre-training run of vit-t here)\nrecipe: cion-vit-t" in ran.err
    plain = lupctl(f"{FINE} {labelled} --arch vit-t --set vit.stem=patch --set vit.patch=8 --set vit.depth=4")
    assert plain.code == 0, plain.err
    assert "start: not lup/runs/ics (vit" in plain.err
    assert "start: lup/runs/deep (the newest pre-training run of vit-t here that fits)" in plain.err


@pytest.mark.usefixtures("runs")
def test_no_run_that_fits_is_one_error(lupctl: Shell, labelled: Path) -> None:
    ran = lupctl(f"{FINE} {labelled} --recipe small-vit --set vit.patch=32")
    assert ran.code == 3
    assert ran.err.count("start: not ") == 4
    assert "lup/runs: no finished pre-training run of vit-t to start from that fits; 4 of another kind" in ran.err
    assert "hint: lupctl pretrain --arch vit-t, or choose --from imagenet or --from scratch" in ran.err


def test_a_swin_of_other_blocks_is_passed_over(
    lupctl: Shell, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_run("deep", plan_swin("swin-u", depths=(1, 1, 1, 1), patch=2, semantic_weight=0.0), age=1)
    write_run("fits", plan_swin("swin-u", depths=(1, 1, 2, 2), patch=2), age=2)
    ran = lupctl(f"{FINE} {labelled} --recipe small-swin")
    assert ran.code == 0, ran.err
    assert "start: not lup/runs/deep (swin-u" in ran.err
    assert "start: lup/runs/fits (the newest pre-training run of swin-u here that fits)" in ran.err
    assert ran.err.count("controller: none, because fits has none") == 1


def test_another_site_starts_from_the_newest_run_on_another_dataset(
    lupctl: Shell, labelled: Path, crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    line = f"finetune {crowd} --labels clusters --recipe small-usl-vit --from finetuned --gpus 0 --dry-run"
    none = "lup/runs: no finished fine-tuning run of vit-t on another dataset than crowd to start from\nhint: "
    ran = lupctl(line)
    assert ran.code == 3
    assert f"{none}name a network that was fine-tuned elsewhere with --from; lupctl model list has" in ran.err
    packs = tmp_path / "lup/packs"
    packs.mkdir(parents=True)
    (packs / "staff.h5").symlink_to(labelled)
    write_run("before", tiny_vit(**SMALL), age=0)
    write_run("here", tiny_vit(**SMALL), age=1, tuned_on=crowd)
    assert f"{none}first lupctl finetune staff --arch vit-t, or name a network with --from\n" in lupctl(line).err
    write_run("there", tiny_vit(**SMALL), age=2, tuned_on=labelled)
    write_run("other", tiny_vit(**{**SMALL, "depth": 4}), age=1, tuned_on=labelled)
    ran = lupctl(f"{line} --json")
    assert ran.code == 0, ran.err
    assert "start: not lup/runs/other (vit-t depth 4" in ran.err
    which = "the newest fine-tuning run of vit-t here on another dataset than crowd that fits"
    assert f"start: lup/runs/there ({which})\n" in ran.err
    assert ran.json["start"] == "there"


@pytest.mark.parametrize("recipe", ["uda-vit-s", "uda-vit-s-ics"])
def test_recipes_for_another_site_take_no_pre_training(lupctl: Shell, crowd: Path, recipe: str) -> None:
    ran = lupctl(f"finetune {crowd} --labels clusters --recipe {recipe} --gpus 0 --dry-run")
    assert ran.code == 3
    arch = recipe.removeprefix("uda-")
    assert f"no finished fine-tuning run of {arch} on another dataset than crowd to start from" in ran.err


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("pretrain {crowd} --method dino --arch vit-s-ics --batch 16", "pretrain-dino-vit-s-ics-crowd"),
        ("pretrain {crowd} --method dino --arch vit-s --batch 16", "pretrain-dino-vit-s-crowd"),
        ("finetune {labelled} --arch vit-s-ics --from scratch --batch 16", "finetune-labelled-vit-s-ics-from-scratch"),
    ],
)
def test_a_run_is_named_after_its_stem(lupctl: Shell, crowd: Path, labelled: Path, line: str, name: str) -> None:
    ran = lupctl(f"{line.format(crowd=crowd, labelled=labelled)} --gpus 0 --dry-run --json")
    assert ran.code == 0, ran.err
    assert Path(ran.json["run"]).name == name.replace("labelled", labelled.stem)
