"""Our trunks by the names of timm, DINO and torchvision: loaded there, with the same features, and read back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file
from torchvision.models import resnet18

from lupctl.core.formats.weights.file import read_checkpoint, write_checkpoint
from lupctl.core.formats.weights.plan import NeckHead, NetworkPlan, NoHead
from lupctl.core.formats.weights.swin_plan import plan_swin
from lupctl.core.training.nets.build import build_network
from tests.references.solider import SHORT
from tests.references.solider import trunk_layout as swin_layout
from tests.references.transreid_layouts import TINY, trunk_layout
from tests.tools.networks import make_header, mgn_heads, neck, plan_network, projection
from tests.tools.shell import Shell
from tests.tools.transformers import HEIGHT, JPM, WIDTH, fill, plan_transformer, transformer_plans, write_transformer

NONE = NoHead(kind="none")
ICS: dict[str, Any] = {"stem": "ics", "patch": 16, "stride": 16, "rows": 4, "columns": 2}


def write_resnet(path: Path, head: Any, **more: Any) -> dict[str, torch.Tensor]:
    plan = plan_network(head, "r18", **more)
    network = build_network(plan)
    fill(network)
    write_checkpoint(path, network.state_dict(), make_header(plan))
    return network.state_dict()


@pytest.mark.parametrize("more", [{}, {"hidden": 96}, {"qkv_bias": False}], ids=str)
def test_timm_gives_the_same_features(lupctl: Shell, tmp_path: Path, more: dict[str, Any]) -> None:
    """The network is made by the line that the command prints, and takes every tensor strictly."""
    head = NeckHead(kind="bnneck", classes=5, feature="before")
    network = write_transformer(tmp_path / "a.safetensors", plan_transformer(head, **more))
    ran = lupctl("model convert a.safetensors --to timm --json")
    assert ran.code == 0, ran.err
    assert (ran.json["path"], ran.json["to"], ran.json["pixels"]["height"]) == ("a.pth", "timm", HEIGHT)
    assert {key.partition(".")[0] for key in ran.json["left_out"]} == {"head"}
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert len(state) == ran.json["tensors"] == len(network.state_dict()) - len(ran.json["left_out"])
    theirs = eval(ran.json["call"], {"timm": timm}).eval()
    theirs.load_state_dict(state, strict=True)
    images = torch.randn(3, 3, HEIGHT, WIDTH)
    with torch.no_grad():
        ours = network.backbone(images).token
        torch.testing.assert_close(theirs(images), ours, rtol=1e-4, atol=1e-5)
    lines = lupctl("model convert a.safetensors --to timm --out b.safetensors").err
    assert ran.json["call"] in lines
    assert all(torch.equal(value, state[key]) for key, value in load_file(tmp_path / "b.safetensors").items())


def test_positions_of_other_images_have_no_line(lupctl: Shell, tmp_path: Path) -> None:
    write_transformer(tmp_path / "a.safetensors", transformer_plans()["resized"])
    ran = lupctl("model convert a.safetensors --to timm --json")
    assert (ran.code, ran.json["call"]) == (0, None)


@pytest.mark.parametrize(("stem", "rows", "columns"), [("patch", 16, 8), ("patch", 14, 14), ("ics", 16, 8)])
def test_there_and_back_is_the_same(lupctl: Shell, tmp_path: Path, stem: str, rows: int, columns: int) -> None:
    sizes = {"dim": 64, "heads": 1, "hidden": 256, "patch": 16, "stride": 16, "rows": rows, "columns": columns}
    write_transformer(tmp_path / "a.safetensors", plan_transformer(NONE, **sizes, stem=stem))
    for ending in ("pth", "safetensors"):
        assert lupctl(f"model convert a.safetensors --to dino --out dino.{ending}").code == 0
        ran = lupctl(f"model convert dino.{ending} --out back.safetensors --start --force --json")
        assert ran.code == 0, ran.err
        assert (ran.json["ignored"], ran.json["missing"], ran.json["prefix"]) == ([], [], "")
        there, back = (read_checkpoint(tmp_path / name) for name in ("a.safetensors", "back.safetensors"))
        assert there.tensors.keys() == back.tensors.keys()
        assert all(
            value.numpy().tobytes() == back.tensors[key].numpy().tobytes() for key, value in there.tensors.items()
        )
        position = {"position": "bilinear"}
        assert back.header.network.trunk.model_copy(update=position) == there.header.network.trunk.model_copy(
            update=position
        )


@pytest.mark.parametrize("ics", [False, True])
def test_a_small_network_goes_out_under_its_published_names(lupctl: Shell, tmp_path: Path, ics: bool) -> None:
    """What TransReID-SSL's converter makes of a teacher: the same names and shapes, and no others."""
    size = replace(TINY, dim=64, hidden=256, depth=2, ics=ics)
    sizes = {"dim": 64, "heads": 1, "hidden": 256, "patch": 16, "stride": 16, "rows": 16, "columns": 8}
    plan = plan_transformer(projection(8), **sizes, depth=2, stem="ics" if ics else "patch")
    write_transformer(tmp_path / "a.safetensors", plan)
    ran = lupctl("model convert a.safetensors --to dino --out a.pth")
    assert ran.code == 0, ran.err
    assert "left out: head" in ran.err
    assert "network:" not in ran.err
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    assert {key: tuple(value.shape) for key, value in state.items()} == trunk_layout("", size)


def test_a_residual_trunk_has_the_same_names_everywhere(lupctl: Shell, tmp_path: Path) -> None:
    made = write_resnet(tmp_path / "a.safetensors", projection(8), width=64)
    found = {}
    for names in ("torchvision", "timm", "dino"):
        assert lupctl(f"model convert a.safetensors --to {names} --out {names}.pth").code == 0
        found[names] = torch.load(tmp_path / f"{names}.pth", weights_only=True)
        assert found[names].keys() == found["torchvision"].keys()
    assert all(torch.equal(value, made[f"backbone.{key}"]) for key, value in found["timm"].items())
    theirs = timm.create_model("resnet18", num_classes=0)
    theirs.load_state_dict(found["timm"], strict=True)
    missing, surplus = resnet18().load_state_dict(found["dino"], strict=False)
    assert (sorted(missing), surplus) == (["fc.bias", "fc.weight"], [])


def test_a_run_is_known_by_its_name(lupctl: Shell, tmp_path: Path) -> None:
    folder = tmp_path / "lup" / "runs" / "mine"
    folder.mkdir(parents=True)
    write_transformer(folder / "checkpoint.safetensors", plan_transformer(NONE))
    ran = lupctl("model convert mine --to timm")
    assert (ran.code, ran.out) == (0, "mine.pth\n"), ran.err
    again = lupctl("model convert mine --to timm")
    assert (again.code, "mine.pth" in again.err) == (2, True), "nothing is overwritten"
    assert lupctl("model convert mine --to timm --force").code == 0


def test_a_dry_run_writes_nothing(lupctl: Shell, tmp_path: Path) -> None:
    write_transformer(tmp_path / "a.safetensors", plan_transformer(NONE))
    plan = lupctl("model convert a.safetensors --to timm --dry-run --json").json
    assert (plan["schema"], plan["to"], plan["path"]) == ("lupctl.convert-plan/1", "timm", "a.pth")
    table = lupctl("model convert a.safetensors --to timm --dry-run").out
    assert "timm.models.VisionTransformer(img_size=(64, 32), patch_size=8" in table
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


WIDE: dict[str, Any] = {"patch": 16, "stride": 16, "rows": 24, "columns": 8}
REFUSED: dict[str, tuple[Any, str, str, str]] = {
    "ics": (plan_transformer(NONE, **ICS), "timm", "has the stem of convolutions (ICS)", "--to dino"),
    "ics in torchvision": (plan_transformer(NONE, **ICS), "torchvision", "is not a plain ResNet", "--to timm"),
    "cameras": (transformer_plans()["sie"], "timm", "side information of 3 cameras", "model export"),
    "stride": (plan_transformer(NONE, stride=6, rows=10, columns=5), "timm", "of 8 pixels at stride 6", "model export"),
    "stride for dino": (plan_transformer(NONE, stride=6, rows=10, columns=5), "dino", "at stride 6", "model export"),
    "parts": (transformer_plans()["parts"], "dino", "3 part tokens", "model export"),
    "jpm": (plan_transformer(JPM), "timm", "head jpm", "the run that it started from"),
    "scale": (plan_transformer(NONE, qk_scale=0.3), "timm", "a scale of 0.3", "model export"),
    "grid": (plan_transformer(NONE, **WIDE), "dino", "positions of 24 x 8", "--to timm"),
    "grid of ics": (plan_transformer(NONE, **WIDE, stem="ics"), "dino", "positions of 24 x 8", "pixels.height"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_others_cannot_have_is_refused(lupctl: Shell, tmp_path: Path, name: str) -> None:
    plan, names, message, hint = REFUSED[name]
    write_transformer(tmp_path / "a.safetensors", plan)
    ran = lupctl(f"model convert a.safetensors --to {names}")
    assert ran.code == 3, ran.err
    error, hinted = ran.err.splitlines()
    assert message in error
    assert hint in hinted
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize(
    ("head", "more", "message"),
    [
        (mgn_heads(5), {"last_stride": 1, "pooling": "gem"}, "head mgn"),
        (projection(8), {"ibn": True}, "has IBN"),
    ],
)
def test_residual_trunks_that_nobody_knows(
    lupctl: Shell, tmp_path: Path, head: Any, more: dict[str, Any], message: str
) -> None:
    write_resnet(tmp_path / "a.safetensors", head, **more)
    ran = lupctl("model convert a.safetensors --to timm")
    assert (ran.code, message in ran.err) == (3, True), ran.err


def test_options_of_foreign_files_are_refused(lupctl: Shell, tmp_path: Path) -> None:
    write_transformer(tmp_path / "a.safetensors", plan_transformer(NONE))
    ran = lupctl("model convert a.safetensors --to timm --encoder student --bgr")
    assert ran.code == 2
    assert "--bgr: for files of other programs" in ran.err
    assert "leave out --bgr and --encoder" in ran.err
    ran = lupctl("model convert gone --to timm")
    assert (ran.code, "no checkpoint 'gone'" in ran.err) == (3, True)


@pytest.mark.parametrize("controller", [True, False])
def test_a_swin_goes_out_as_a_teacher_of_solider_and_comes_back(
    lupctl: Shell, tmp_path: Path, controller: bool
) -> None:
    trunk = plan_swin("swin-u", semantic_weight=0.2 if controller else None)
    write_transformer(tmp_path / "a.safetensors", NetworkPlan(trunk=trunk, pooling="avg", head=neck(3)))
    ran = lupctl("model convert a.safetensors --to solider --out a.pth")
    assert ran.code == 0, ran.err
    state = torch.load(tmp_path / "a.pth", weights_only=True)
    layout = swin_layout("backbone.", SHORT, controller=controller)
    assert {key: tuple(value.shape) for key, value in state.items()} == layout
    assert lupctl("model convert a.pth --out back.safetensors --start").code == 0
    there, back = (read_checkpoint(tmp_path / name).tensors for name in ("a.safetensors", "back.safetensors"))
    assert back.keys() == {key for key in there if key.startswith("backbone.")}
    assert all(torch.equal(value, there[key]) for key, value in back.items())
    refused = lupctl("model convert a.safetensors --to timm --out b.pth")
    assert refused.code == 3
    assert "under timm names it would be another network" in refused.err
    assert "hint: --to solider" in refused.err
    write_resnet(tmp_path / "r.safetensors", projection(8), width=64)
    refused = lupctl("model convert r.safetensors --to solider --out b.pth")
    assert (refused.code, "r18 is not a Swin transformer; the solider names are for those" in refused.err) == (3, True)
