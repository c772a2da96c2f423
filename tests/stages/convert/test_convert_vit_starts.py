"""What a fine-tuning of vision transformers starts from: ImageNet, DeiT, and DINO in every wrapping."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.models.vision_transformer import VisionTransformer

from lupctl.core.formats.weights.file import read_checkpoint
from tests.references.transreid import Said, parts_feature, slow_tokens
from tests.references.transreid_layouts import TINY, Layout, dino_layout, draw_state, imagenet_layout, trunk_layout
from tests.tools.converted import check_features, draw_images, restore, widened
from tests.tools.shell import Shell

SHALLOW = replace(TINY, depth=2)
OLD_SMALL = replace(TINY, dim=768, depth=8, hidden=2304, qkv_bias=False, tokens=196)


@pytest.mark.parametrize(
    ("ics", "prefix", "encoder"), [(True, "module.", ""), (False, "", "--encoder teacher"), (False, "", "--encoder k")]
)
def test_a_dino_checkpoint_gives_its_teacher(
    lupctl: Shell, tmp_path: Path, ics: bool, prefix: str, encoder: str
) -> None:
    size = replace(SHALLOW, ics=ics)
    write_dino(tmp_path / "a.pth", size, prefix)
    ran = lupctl(f"model convert a.pth --out a.safetensors --json --start {encoder}")
    assert ran.code == 0, ran.err
    assert (ran.json["use"], ran.json["inside"], ran.json["prefix"]) == (
        "initialisation", ["teacher"], f"{prefix}backbone.",
    )  # fmt: skip
    assert {key.removeprefix(prefix).partition(".")[0] for key in ran.json["ignored"]} == {"head"}
    assert ran.json["beside"] == ["student", "optimizer", "epoch", "args", "dino_loss", "fp16_scaler"]
    teacher = draw_state(dino_layout(size, outputs=8, hidden=16, prefix=prefix), seed=1)
    network, header = restore("a.safetensors")
    assert header.network.head.kind == "none"
    assert ran.json["trunk"]["position"] == "dino"
    images = draw_images((256, 128))
    wanted = slow_tokens(widened(teacher), images.double(), Said(heads=2), prefix=f"{prefix}backbone.")[:, 0]
    check_features(network, images, None, wanted)


def write_dino(path: Path, size: Any, prefix: str) -> None:
    """A checkpoint as DINO's code writes it, arguments of its command line included."""
    content = {
        "student": draw_state(dino_layout(size, outputs=8, hidden=16, prefix="module."), seed=2),
        "teacher": draw_state(dino_layout(size, outputs=8, hidden=16, prefix=prefix), seed=1),
        "optimizer": {"state": {}, "param_groups": [{"lr": np.float64(1e-3), "params": [0]}]},
        "epoch": 100,
        "args": argparse.Namespace(arch="vit_small", lr=0.0005, local_crops_scale=(0.05, 0.4), use_fp16=True),
        "dino_loss": {"center": torch.zeros(1, 8)},
        "fp16_scaler": {"scale": 65536.0, "growth_factor": 2.0},
    }
    torch.save(content, path)


@pytest.mark.parametrize("encoder", ["", "--encoder student"])
def test_a_teacher_and_a_student_of_different_widths_are_refused(lupctl: Shell, tmp_path: Path, encoder: str) -> None:
    """One is the average of the other; the file is of no training."""
    write_dino(tmp_path / "wide.pth", SHALLOW, "")
    loaded = torch.load(tmp_path / "wide.pth", weights_only=False)
    narrow = replace(SHALLOW, dim=SHALLOW.dim // 2)
    loaded["student"] = draw_state(dino_layout(narrow, outputs=8, hidden=16, prefix="module."), seed=2)
    torch.save(loaded, tmp_path / "wide.pth")
    ran = lupctl(f"model convert wide.pth --out a.safetensors {encoder}")
    assert (ran.code, ran.out) == (3, "")
    assert "wide.pth: backbone.cls_token is 1 x 1 x" in ran.err
    assert "both have the same widths\nhint: get the file again" in ran.err
    assert not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("encoder", ["student", "q"])
def test_the_student_can_be_asked_for(lupctl: Shell, tmp_path: Path, encoder: str) -> None:
    write_dino(tmp_path / "a.pth", SHALLOW, "")
    ran = lupctl(f"model convert a.pth --out a.safetensors --json --encoder {encoder}")
    assert (ran.code, ran.json["inside"], ran.json["prefix"]) == (0, ["student"], "module.backbone.")
    assert ran.json["matched"] + len(ran.json["ignored"]) == len(dino_layout(SHALLOW, outputs=8, hidden=16))
    said = lupctl(f"model convert a.pth --out b.safetensors --encoder {encoder}").err
    assert "taken from student, which has beside it: teacher, optimizer" in said
    student = draw_state(dino_layout(SHALLOW, outputs=8, hidden=16, prefix="module."), seed=2)
    assert torch.equal(
        read_checkpoint(Path("a.safetensors")).tensors["backbone.cls_token"], student["module.backbone.cls_token"]
    )


@pytest.mark.parametrize("wrapper", ["teacher", "module", "target_encoder", "model", "state_dict", ""])
def test_a_start_is_found_in_every_wrapping(lupctl: Shell, tmp_path: Path, wrapper: str) -> None:
    state = draw_state(dino_layout(SHALLOW, outputs=8, hidden=16, prefix="module."))
    torch.save({wrapper: state, "epoch": 3} if wrapper else state, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json")
    assert (ran.code, ran.json["inside"]) == (0, [wrapper] if wrapper else []), ran.err
    tensors = read_checkpoint(Path("a.safetensors")).tensors
    assert torch.equal(tensors["backbone.norm.bias"], state["module.backbone.norm.bias"])


STARTS: dict[str, tuple[Layout, str, str]] = {
    "timm": (imagenet_layout(replace(SHALLOW, tokens=196)), "", "vit 128/2/2"),
    "deit": (imagenet_layout(replace(SHALLOW, tokens=196), distilled=True), "", "vit 128/2/2"),
    "flat backbone": (trunk_layout("", SHALLOW), "", "vit 128/2/2"),
    "pass": (dino_layout(replace(SHALLOW, parts=True), outputs=8, hidden=16), "backbone.", "vit 128/2/2 3 part tokens"),
}


@pytest.mark.parametrize("name", STARTS)
def test_a_start_gives_its_class_token(lupctl: Shell, tmp_path: Path, name: str) -> None:
    layout, prefix, description = STARTS[name]
    state = draw_state(layout)
    torch.save(state, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json --start")
    assert ran.code == 0, ran.err
    assert (ran.json["network"], ran.json["use"], ran.json["arch"]) == ("trunk", "initialisation", description)
    assert ran.json["matched"] + len(ran.json["ignored"]) == len(state)
    network, header = restore("a.safetensors")
    pixels = header.preprocessing
    assert pixels.mean == (0.485, 0.456, 0.406)
    if name == "deit":
        assert "positions: the second row is that of the distillation token; both are left out" in ran.err
        state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], state["pos_embed"][:, 2:]], dim=1)
    images = draw_images((pixels.height, pixels.width))
    tokens = slow_tokens(widened(state), images.double(), Said(heads=2), prefix=prefix)
    wanted = parts_feature([tokens[:, number] for number in range(4)]) if name == "pass" else tokens[:, 0]
    check_features(network, images, None, wanted)


@pytest.mark.parametrize("is_published", [True, False])
def test_torchvision_s_names_are_known(lupctl: Shell, tmp_path: Path, is_published: bool) -> None:
    """Its network gives the class token that ours gives with its tensors; the published file has older names."""
    torch.manual_seed(5)
    theirs = VisionTransformer(224, 16, 2, 2, 128, 256, num_classes=10).eval()
    torch.nn.init.normal_(theirs.class_token)
    torch.nn.init.normal_(theirs.encoder.layers[0].mlp[0].bias)
    state = theirs.state_dict()
    for new, old in (("mlp.0.", "mlp.linear_1."), ("mlp.3.", "mlp.linear_2.")) if is_published else ():
        state = {key.replace(new, old): value for key, value in state.items()}
    torch.save(state, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json --start")
    assert ran.code == 0, ran.err
    assert (ran.json["arch"], ran.json["ignored"]) == ("vit 128/2/2", ["heads.head.weight", "heads.head.bias"])
    assert ran.json["matched"] + 2 == len(state)
    network, _ = restore("a.safetensors")
    theirs.heads = torch.nn.Identity()
    images = draw_images((224, 224))
    with torch.no_grad():
        check_features(network, images, None, theirs.double()(images.double()))
    torch.save({**state, "encoder.more": state["class_token"]}, tmp_path / "b.pth")
    assert "1 not in the network (encoder.more)" in lupctl("model convert b.pth").err


def test_patches_as_a_matrix_are_the_same(lupctl: Shell, tmp_path: Path) -> None:
    state = draw_state(imagenet_layout(replace(SHALLOW, tokens=196)))
    whole = state["patch_embed.proj.weight"]
    state["patch_embed.proj.weight"] = whole.flatten(1)
    torch.save(state, tmp_path / "a.pth")
    assert lupctl("model convert a.pth --out a.safetensors").code == 0
    assert torch.equal(read_checkpoint(Path("a.safetensors")).tensors["backbone.patch_embed.proj.weight"], whole)


@pytest.mark.slow
def test_timm_s_first_small_network_is_known_by_its_numbers(lupctl: Shell, tmp_path: Path) -> None:
    """Eight heads of 96, no bias of queries, keys and values, and products scaled by the whole width."""
    state = draw_state(imagenet_layout(OLD_SMALL))
    torch.save(state, tmp_path / "vit_small_p16_224.pth")
    ran = lupctl("model convert vit_small_p16_224.pth --out a.safetensors --json")
    assert ran.code == 0, ran.err
    trunk = ran.json["trunk"]
    assert (trunk["heads"], trunk["qkv_bias"], trunk["hidden"]) == (8, False, 2304)
    assert trunk["qk_scale"] == pytest.approx(768**-0.5, rel=1e-12)
    assert "vit 768/8/8: timm's first small network" in ran.err
    images = draw_images((224, 224), 1)
    wanted = slow_tokens(state, images, Said(heads=8, scale=768**-0.5))[:, 0].double()
    network, _ = restore("a.safetensors")
    check_features(network, images, None, wanted)


def test_info_says_which_network_of_a_checkpoint_it_describes(lupctl: Shell, tmp_path: Path) -> None:
    write_dino(tmp_path / "b.pth", SHALLOW, "")
    found = lupctl("model info b.pth --json").json
    assert (found["inside"], found["network"]["head"]["kind"], found["differences"]) == (["teacher"], "none", 0)
