"""Swin transformers as SOLIDER and ImageNet publish them: recognised, converted, refused, and equal to a reference."""

import argparse
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lupctl.core.formats.weights.file import read_checkpoint
from lupctl.core.formats.weights.header import describe_network
from lupctl.core.training.nets.foreign.recognise import recognise
from tests.references.solider import (
    BASE,
    SHORT,
    SMALL,
    TINY,
    Layout,
    Sizes,
    State,
    draw_state,
    slow_feature,
    table_rows,
    teacher_layout,
    trunk_layout,
    tuned_layout,
)
from tests.tools.converted import check_features, draw_images, restore, widened
from tests.tools.shell import Ran, Shell

CLASSES = 5
TUNED = tuned_layout(SHORT, classes=CLASSES)
TEACHER = teacher_layout(SHORT, outputs=8, hidden=16)


def constant(weight: float, count: int = 2) -> Tensor:
    return torch.full((count,), weight, dtype=torch.float64)


# What is read


@pytest.mark.parametrize("controller", [True, False])
@pytest.mark.parametrize("distributed", ["", "module."])
def test_a_fine_tuned_file_gives_its_published_feature(
    lupctl: Shell, tmp_path: Path, controller: bool, distributed: str
) -> None:
    state = draw_state(tuned_layout(SHORT, classes=CLASSES, controller=controller))
    torch.save({f"{distributed}{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json --reid")
    assert ran.code == 0, ran.err
    assert ran.json["matched"] + len(ran.json["ignored"]) == len(state)
    assert (ran.json["use"], ran.json["classes"], ran.json["missing"]) == ("re-id model", CLASSES, [])
    dead = {re.sub(r"\d", "N", key.removeprefix(distributed)) for key in ran.json["ignored"]}
    assert dead == {
        "base.normN.weight", "base.normN.bias", "base.stages.N.blocks.N.attn.w_msa.relative_position_index",
        *(f"base.semantic_embed_{kind}.N.{name}" for kind in "wb" for name in ("weight", "bias") if controller),
    }  # fmt: skip
    assert ("semantic weight: 0.2 for every image, as published" in ran.err) == controller
    network, header = restore("a.safetensors")
    weight = " semantic weight 0.2" if controller else ""
    assert describe_network(header) == f"swin-u{weight}, avg pooling, head bnneck (convert)"
    pixels = header.preprocessing
    assert ((pixels.height, pixels.width), pixels.mean, pixels.std) == ((384, 128), (0.5,) * 3, (0.5,) * 3)
    assert pixels.interpolation == "bilinear"
    if not distributed:
        images = draw_images((128, 64))
        weights = constant(0.2) if controller else None
        check_features(
            network, images, None, slow_feature(widened(state), images.double(), SHORT.heads, weights=weights)
        )


@pytest.mark.parametrize(
    ("encoder", "wrapping"),
    [("", "checkpoint"), ("--encoder teacher", "checkpoint"), ("--encoder student", "checkpoint"),
     ("", "teacher alone"), ("", "trunk alone")],
)  # fmt: skip
def test_a_teacher_in_every_wrapping(lupctl: Shell, tmp_path: Path, encoder: str, wrapping: str) -> None:
    student = draw_state(teacher_layout(SHORT, outputs=8, hidden=16, prefix="module."), seed=2)
    teacher = draw_state(TEACHER, seed=1)
    taken = {key.removeprefix("module."): value for key, value in student.items()} if "student" in encoder else teacher
    trunk = {key.removeprefix("backbone."): value for key, value in taken.items() if key.startswith("backbone.")}
    args = argparse.Namespace(arch="swin_tiny", semantic_weight=1.0)
    checkpoint = {"student": student, "teacher": teacher, "epoch": 100, "args": args, "fp16_scaler": {"scale": 1.0}}
    contents = {"checkpoint": checkpoint, "teacher alone": teacher, "trunk alone": trunk}
    torch.save(contents[wrapping], tmp_path / "a.pth")
    ran = lupctl(f"model convert a.pth --out a.safetensors --json --start {encoder}")
    assert ran.code == 0, ran.err
    assert (ran.json["use"], ran.json["description"]) == ("initialisation", "swin-u semantic weight 0")
    assert len([key for key in ran.json["ignored"] if "head." in key]) == (0 if wrapping == "trunk alone" else 8)
    network, header = restore("a.safetensors")
    assert (header.network.head.kind, header.preprocessing.height) == ("none", 256)
    images = draw_images((64, 32))
    wanted = slow_feature(widened(trunk), images.double(), SHORT.heads, prefix="", weights=constant(0.0))
    check_features(network, images, None, wanted)


def look(layout: Layout) -> str:
    """What tensors of such shapes are; no number in them but the indices is read."""
    index = table_rows()
    state = {key: index if key.endswith("_index") else torch.empty(shape) for key, shape in layout.items()}
    found = recognise(state, origin="file")
    assert (found.differences, found.missing) == ((), ())
    assert found.matched + len(found.ignored) == len(layout)
    return f"{found.plan.trunk.arch} {found.plan.head.kind} {found.plan.trunk.to_json()['semantic_weight']}"


def test_sizes_are_told_by_shapes() -> None:
    for sizes, name in ((TINY, "swin-t"), (SMALL, "swin-s"), (BASE, "swin-b")):
        assert look(tuned_layout(sizes, classes=751)) == f"{name} bnneck 0.2"
        assert look(teacher_layout(sizes, outputs=64)) == f"{name} none 0.0"
        assert look(trunk_layout("", sizes, controller=False)) == f"{name} none None"


def microsoft(state: State) -> State:
    """A trunk under Microsoft's names, with the channels of merged neighbours in its order, and its classifier."""
    found = {}
    for key, value in state.items():
        name = key.replace("stages.", "layers.").replace(".attn.w_msa.", ".attn.").replace("norm3.", "norm.")
        name = name.replace(".ffn.layers.0.0.", ".mlp.fc1.").replace(".ffn.layers.1.", ".mlp.fc2.")
        name = name.replace("patch_embed.projection.", "patch_embed.proj.")
        if key.startswith(("norm0", "norm1", "norm2")):
            continue
        if ".downsample." in key:
            channels = value.shape[-1] // 4
            # Of channel c and place p, counted by columns: ours is at 4 c + p counted by rows.
            order = [4 * channel + place for place in (0, 2, 1, 3) for channel in range(channels)]
            value = value[..., order]
        found[name] = value
    found |= {"head.weight": torch.randn(10, 256), "head.bias": torch.randn(10)}
    found["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return found


def in_timm(state: State) -> State:
    """The same as timm writes it: merging begins a stage, the classifier is in a head, and no buffers."""

    def rename(key: str) -> str:
        key = re.sub(r"layers\.(\d)\.downsample", lambda found: f"layers.{int(found[1]) + 1}.downsample", key)
        return key.replace("head.", "head.fc.")

    return {rename(key): value for key, value in state.items() if not key.endswith(("_index", "attn_mask"))}


def in_torchvision(state: State) -> State:
    """The same as torchvision writes it: everything in one sequence, indices in one row."""
    found = {}
    for key, value in state.items():
        name = re.sub(r"layers\.(\d)\.blocks\.", lambda match: f"features.{2 * int(match[1]) + 1}.", key)
        name = re.sub(r"layers\.(\d)\.downsample\.", lambda match: f"features.{2 * int(match[1]) + 2}.", name)
        name = name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")
        name = name.replace("patch_embed.proj.", "features.0.0.").replace("patch_embed.norm.", "features.0.2.")
        if not name.endswith("attn_mask"):
            found[name] = value.flatten() if name.endswith("_index") else value
    return found


DIALECTS: dict[str, Callable[[State], State]] = {
    "microsoft": microsoft,
    "timm": lambda state: in_timm(microsoft(state)),
    "torchvision": lambda state: in_torchvision(microsoft(state)),
}


@pytest.mark.parametrize("dialect", DIALECTS)
def test_imagenet_weights_in_three_dialects(lupctl: Shell, tmp_path: Path, dialect: str) -> None:
    state = draw_state(trunk_layout("", SHORT, controller=False), seed=4)
    torch.save({"model": DIALECTS[dialect](state)}, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json --start")
    assert ran.code == 0, ran.err
    assert f"swin-u: keys as {dialect} writes them" in ran.err
    assert ran.json["description"] == "swin-u"
    assert ran.json["pixels"]["height"] == ran.json["pixels"]["width"] == 224
    tensors = read_checkpoint(Path("a.safetensors")).tensors
    assert {key.removeprefix("backbone.") for key in tensors} == {
        key for key in state if not key.startswith(("norm0", "norm1", "norm2")) and not key.endswith("_index")
    }
    assert all(torch.equal(value, state[key.removeprefix("backbone.")]) for key, value in tensors.items())


def test_dialects_are_those_of_the_libraries() -> None:
    import timm
    import torchvision

    with torch.device("meta"):
        theirs = {
            "timm": timm.create_model("swin_tiny_patch4_window7_224"),
            "torchvision": torchvision.models.swin_t(weights=None),
        }
    for dialect, network in theirs.items():
        state = {key: torch.empty(value.shape) for key, value in network.state_dict().items()}
        index = table_rows().flatten()
        found = recognise({key: index if "_index" in key else value for key, value in state.items()}, origin="file")
        assert (found.plan.trunk.arch, found.differences, found.notes[0].partition(" as ")[2].split()[0]) == (
            "swin-t", (), dialect,
        )  # fmt: skip


# What is refused


def refuse(lupctl: Shell, content: object, options: str = "", *, code: int = 3) -> Ran:
    """The command on a file with such content, which must fail and leave nothing."""
    torch.save(content, "a.pth")
    ran = lupctl(f"model convert a.pth --out a.safetensors {options}")
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert not Path("a.safetensors").exists()
    return ran


def test_a_start_is_no_re_id_model_and_the_reverse(lupctl: Shell, tmp_path: Path) -> None:
    ran = refuse(lupctl, draw_state(TEACHER), "--reid")
    assert "a.pth: a pre-trained swin-u semantic weight 0 trunk without heads, not a re-id model" in ran.err
    ran = refuse(lupctl, draw_state(TUNED), "--start")
    assert (
        "a.pth: a re-id model, swin-u semantic weight 0.2 with head bnneck, fine-tuned already; not a start" in ran.err
    )


Change = Callable[[State], object]
HEADS = {"base.stages.0.blocks.0.attn.w_msa.relative_position_bias_table": torch.zeros(169, 4)}
TABLE = "base.stages.2.blocks.1.attn.w_msa.relative_position_bias_table"


@pytest.mark.parametrize(
    ("change", "message", "row"),
    [
        (lambda state: state.pop("base.norm3.bias"), "1 missing (base.norm3.bias)", "base.norm3.bias - 256"),
        (lambda state: state.pop("bottleneck.weight"), "1 missing (bottleneck.weight)", "bottleneck.weight - 256"),
        (
            lambda state: state.pop("base.semantic_embed_w.1.bias"),
            "nearest is swin-u semantic weight 0.2 with head bnneck, but 1 missing (base.semantic_embed_w.1.bias)",
            "base.semantic_embed_w.1.bias - 128",
        ),
        (lambda state: state.update(extra=torch.zeros(2, 3)), "1 not in the network (extra)", "extra 2 x 3 -"),
        (
            lambda state: state.update({"head.weight": torch.zeros(2)}),
            "1 not in the network (head.weight)", "head.weight 2 -",
        ),
        (
            lambda state: state.update({TABLE: torch.zeros(529, 4)}), f"1 of another shape ({TABLE})",
            f"{TABLE} 529 x 4 169 x 4",
        ),
        (
            lambda state: [state.pop(key) for key in list(state) if key.startswith("base.stages.2.blocks.0.")],
            "swin-u semantic weight 0.2 with head bnneck, but 13 missing (base.stages.2.blocks.0.norm1.weight",
            "base.stages.2.blocks.0.norm1.weight - 128",
        ),
    ],
    ids=["norm", "neck", "controller", "surplus", "surplus of a re-id model", "table", "block"],
)  # fmt: skip
def test_a_partial_fit_names_the_nearest_and_the_published_keys(
    lupctl: Shell, tmp_path: Path, change: Change, message: str, row: str
) -> None:
    state = draw_state(TUNED)
    change(state)
    ran = refuse(lupctl, state)
    table, _, error = ran.err.partition("error: ")
    assert message in error
    assert row in " ".join(table.split())


def test_the_nearest_of_the_published_sizes_is_named(lupctl: Shell, tmp_path: Path) -> None:
    """A Swin-S without two of its blocks; one of no published width is what its tensors say."""

    def zeros(sizes: Sizes, lost: tuple[str, ...]) -> State:
        layout = trunk_layout("", sizes, controller=False)
        return {
            key: torch.zeros(shape) for key, shape in layout.items() if not key.startswith(lost) and "_in" not in key
        }

    state = zeros(SMALL, ("stages.2.blocks.16.", "stages.2.blocks.17."))
    assert "nearest is swin-s, but 26 missing (stages.2.blocks.16." in refuse(lupctl, state).err
    other = Sizes(16, (1, 1, 2, 1), (1, 1, 2, 4))
    state = zeros(other, ("stages.3.blocks.0.ffn.layers.1.bias",))
    assert "nearest is swin 16 depths 1-1-2-1, but 1 missing (stages.3.blocks.0.ffn" in refuse(lupctl, state).err


def test_an_index_of_another_kind(lupctl: Shell, tmp_path: Path) -> None:
    state = draw_state(TUNED)
    key = "base.stages.0.blocks.0.attn.w_msa.relative_position_index"
    state[key] = state[key].T.contiguous()
    assert f"a.pth: {key} is not the index of windows of 7 x 7 tokens" in refuse(lupctl, state).err


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: [state.pop(key) for key in list(state) if ".stages.3." in key], "26 missing"),
        (lambda state: state.update({TABLE: torch.full((169, 4), float("nan"))}), "1 tensor with numbers that are not"),
        (
            lambda state: state.update({"base.patch_embed.projection.weight": torch.zeros(6, 3, 4, 4), **HEADS}),
            "tensors of no possible Swin transformer: 4 heads do not divide a dim of 6",
        ),
        (lambda state: [state.pop(key) for key in list(state) if ".stages.0." in key], "tensors of an unknown network"),
        (
            lambda state: [state.pop(key) for key in list(state) if key.endswith("_table")],
            "tensors of no possible Swin transformer: window: input should be greater than or equal to 2",
        ),
        (
            lambda state: state.update(dict.fromkeys(HEADS, torch.zeros(169))),
            f"1 of another shape ({next(iter(HEADS))})",
        ),
        (
            lambda state: state.update({"base.patch_embed.projection.weight": torch.zeros(32)}),
            "of another shape (base.patch_embed.projection.weight",
        ),
    ],
    ids=["no last stage", "not finite", "heads", "no first stage", "no tables", "flat table", "flat patches"],
)
def test_tensors_that_make_no_network(lupctl: Shell, tmp_path: Path, change: Change, message: str) -> None:
    state = draw_state(TUNED)
    change(state)
    assert message in refuse(lupctl, state).err


def test_options_of_other_networks(lupctl: Shell, tmp_path: Path) -> None:
    state = draw_state(TUNED)
    ran = refuse(lupctl, state, "--size 256x128")
    assert "a.pth: a Swin transformer, which takes images of any size; --size and --stride are for vision" in ran.err
    assert "has one network, not a trained one and its average" in refuse(lupctl, state, "--encoder student").err
    renamed = {f"net.{key}": value for key, value in state.items()}
    assert "a Swin transformer's tensors under the prefix 'net.base.'" in refuse(lupctl, renamed).err
    assert lupctl("model convert a.pth").code == 3
    torch.save(state, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --recipe bot --json")
    assert (ran.code, ran.json["pixels"]["height"], ran.json["pixels"]["constants_from"]) == (0, 256, "bot")
