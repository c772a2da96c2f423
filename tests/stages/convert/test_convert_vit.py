"""Vision transformers as they are published: recognised, converted, and equal to a slow transcription of each."""

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from lupctl.core.formats.weights.file import read_checkpoint
from lupctl.core.formats.weights.header import describe_network
from tests.references.transreid import Said, slow_feature
from tests.references.transreid_layouts import (
    TINY,
    Layout,
    Size,
    draw_state,
    reid_layout,
)
from tests.tools.converted import check_features, draw_images, restore, widened
from tests.tools.shell import Shell
from tests.tools.tiny.images import draw_tiny

CLASSES = 5
TWO_HEADS = Said(heads=2)


@dataclass(frozen=True)
class File:
    """One published file and what it is.

    Args:
        layout: of its tensors.
        size: of its images.
        said: for the reference.
        cameras: rows of two images, with side information.
        description: of the network that it becomes.
    """

    layout: Layout
    description: str
    size: tuple[int, int] = (256, 128)
    said: Said = TWO_HEADS
    cameras: tuple[int, ...] | None = None


FINE_TUNED = {
    "transreid": File(reid_layout(TINY, classes=CLASSES), "vit 128/3/2, token pooling, head bnneck"),
    "transreid at 384": File(
        reid_layout(replace(TINY, tokens=192), classes=CLASSES), "vit 128/3/2, token pooling, head bnneck", (384, 128)
    ),
    "transreid with cameras": File(
        reid_layout(replace(TINY, cameras=15), classes=CLASSES), "vit 128/3/2 15 cameras, token pooling, head bnneck",
        cameras=(0, 14),
    ),
    "transreid with everything": File(
        reid_layout(replace(TINY, tokens=210, cameras=6), classes=CLASSES, jpm=True),
        "vit 128/3/2 stride 12 6 cameras, token pooling, head jpm", said=Said(heads=2, stride=12), cameras=(5, 2),
    ),
    "jpm at 384": File(
        reid_layout(replace(TINY, tokens=310), classes=CLASSES, jpm=True),
        "vit 128/3/2 stride 12, token pooling, head jpm", (384, 128), Said(heads=2, stride=12),
    ),
    "jpm at stride 11": File(
        reid_layout(replace(TINY, tokens=242), classes=CLASSES, jpm=True),
        "vit 128/3/2 stride 11, token pooling, head jpm", said=Said(heads=2, stride=11),
    ),
    "transreid-ssl with ics": File(
        reid_layout(replace(TINY, ics=True), classes=CLASSES), "vit 128/3/2 ics, token pooling, head bnneck"
    ),
    "pass": File(
        reid_layout(replace(TINY, parts=True), classes=CLASSES), "vit 128/3/2 3 part tokens, parts pooling, head parts"
    ),
    "pass at 384": File(
        reid_layout(replace(TINY, parts=True, tokens=192), classes=CLASSES),
        "vit 128/3/2 3 part tokens, parts pooling, head parts", (384, 128),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FINE_TUNED)
def test_a_fine_tuned_file_gives_its_published_feature(lupctl: Shell, tmp_path: Path, name: str) -> None:
    file = FINE_TUNED[name]
    state = draw_state(file.layout)
    distributed = "module." if name == "transreid with everything" else ""
    torch.save({f"{distributed}{key}": value for key, value in state.items()}, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json --reid")
    assert ran.code == 0, ran.err
    assert ran.json["matched"] + len(ran.json["ignored"]) == len(state)
    assert (ran.json["use"], ran.json["classes"], ran.json["missing"]) == ("re-id model", CLASSES, [])
    network, header = restore("a.safetensors")
    assert describe_network(header) == f"{file.description} (convert)"
    pixels = header.preprocessing
    assert ((pixels.height, pixels.width), pixels.mean, pixels.std) == (file.size, (0.5,) * 3, (0.5,) * 3)
    assert pixels.interpolation == "bilinear"
    assert header.cameras == tuple(range(1, len(state.get("base.sie_embed", ())) + 1))
    images = draw_images(file.size)
    wanted = slow_feature(widened(state), images.double(), file.said, cameras=list(file.cameras or ()) or None)
    check_features(network, images, file.cameras, wanted)


def test_only_what_published_code_does_not_use_is_left_out(lupctl: Shell, tmp_path: Path) -> None:
    torch.save(draw_state(FINE_TUNED["transreid with everything"].layout), tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json")
    last = {key for key in FINE_TUNED["transreid with everything"].layout if key.startswith("base.blocks.2.")}
    assert len(last) == 12
    assert set(ran.json["ignored"]) == last | {"base.norm.weight", "base.norm.bias", "base.fc.weight", "base.fc.bias"}
    torch.save(draw_state(FINE_TUNED["pass"].layout), tmp_path / "b.pth")
    assert lupctl("model convert b.pth --out b.safetensors --json").json["ignored"] == [
        "base.fc.weight",
        "base.fc.bias",
    ]


def test_what_no_tensor_says_is_said_aloud(lupctl: Shell, tmp_path: Path) -> None:
    torch.save(draw_state(FINE_TUNED["transreid with everything"].layout), tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert ran.code == 0
    assert (
        "grid: 210 positions are taken for 21 x 10 (256 x 128 at stride 12), as published; --size and --stride of"
        in ran.err
    )
    assert "cameras: 6 rows of side information, for cameras 1 to 6; factor 3, as published" in ran.err
    assert "using mean (0.5, 0.5, 0.5), std (0.5, 0.5, 0.5) and bilinear (as published)" in ran.err
    assert "jpm vit 128/3/2 stride 12 6 cameras (re-id model): 87 tensors matched, 16 ignored" in ran.err
    assert "used: base.*; left out: base.blocks.* (12), base.norm.* (2), base.fc.* (2)" in ran.err
    said = lupctl("model convert a.pth --out b.safetensors --size 256x128 --stride 12")
    assert said.code == 0
    assert "grid:" not in said.err


def test_a_plan_is_a_table_of_what_the_file_is(lupctl: Shell, tmp_path: Path) -> None:
    named = Size(dim=192, depth=2, hidden=768, tokens=210, cameras=6)
    torch.save(draw_state(reid_layout(named, classes=CLASSES, jpm=True)), tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --dry-run")
    assert ran.code == 0, ran.err
    rows = {line[2:].partition("  ")[0]: line[2:].partition("  ")[2].strip() for line in ran.out.splitlines()}
    assert rows["arch"] == "vit-t"
    assert rows["description"] == "vit-t depth 2 stride 12 6 cameras"
    assert rows["head"] == "kind jpm, classes 5, feature before, shift 5, groups 2, parts 4"
    assert rows["cameras"] == "1, 2, 3, 4, 5, 6"
    assert rows["ignored"] == "base.blocks.* (12), base.norm.* (2), base.fc.* (2)"
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert "jpm vit-t depth 2 stride 12 6 cameras (re-id model): " in ran.err


@pytest.mark.parametrize(
    ("options", "size", "stride", "grid"),
    [
        ("--size 256x128 --stride 12", (256, 128), 12, (21, 10)),
        ("--size 260x128", (260, 128), 12, (21, 10)),
        ("--stride 12", (256, 128), 12, (21, 10)),
        ("--size 352x184 --stride 16", (352, 184), 16, (22, 11)),
        ("--size 128x256 --stride 12", (128, 256), 12, (10, 21)),
    ],
)
def test_size_and_stride_overrule(
    lupctl: Shell, tmp_path: Path, options: str, size: tuple[int, int], stride: int, grid: tuple[int, int]
) -> None:
    count = grid[0] * grid[1]
    state = draw_state(reid_layout(replace(TINY, tokens=count), classes=CLASSES))
    torch.save(state, tmp_path / "a.pth")
    ran = lupctl(f"model convert a.pth --out a.safetensors --json {options}")
    assert ran.code == 0, ran.err
    trunk = ran.json["trunk"]
    assert ((trunk["rows"], trunk["columns"]), trunk["stride"]) == (grid, stride)
    network, header = restore("a.safetensors")
    assert (header.preprocessing.height, header.preprocessing.width) == size
    images = draw_images(size)
    check_features(network, images, None, slow_feature(widened(state), images.double(), Said(heads=2, stride=stride)))


def test_dumped_features_are_those_of_the_published_evaluation(lupctl: Shell, tmp_path: Path) -> None:
    """RGB, Pillow's bilinear, (x / 255 - 0.5) / 0.5, the concatenation before the necks."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(3):
        Image.fromarray(draw_tiny(number, 120, 56)).save(photos / f"{number}.png")
    state = draw_state(reid_layout(replace(TINY, tokens=210), classes=CLASSES, jpm=True))
    torch.save(state, tmp_path / "a.pth")
    assert lupctl("model convert a.pth --out a.safetensors").code == 0
    ran = lupctl(f"dump a.safetensors {photos} --out f.features.h5 --workers 0 --json")
    assert (ran.code, ran.json["images"], ran.json["dim"]) == (0, 3, 5 * TINY.dim), ran.err
    with h5py.File("f.features.h5") as file:
        features = file["features"][()]
    pixels = []
    for path in sorted(photos.iterdir()):
        image = Image.open(path).convert("RGB").resize((128, 256), Image.Resampling.BILINEAR)
        pixels.append((torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255 - 0.5) / 0.5)
    wanted = slow_feature(state, torch.stack(pixels), Said(heads=2, stride=12)).numpy()
    cosine = (features * wanted).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(wanted, axis=1)
    assert cosine.min() > 0.99999
    other = slow_feature(state, torch.stack(pixels), Said(heads=2, stride=12), after=True).numpy()
    assert ((features * other).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(other, axis=1)).max() < 0.999


def test_bgr_turns_the_first_convolution(lupctl: Shell, tmp_path: Path) -> None:
    for name, key in (("transreid", "proj"), ("transreid-ssl with ics", "conv.0")):
        state = draw_state(FINE_TUNED[name].layout)
        torch.save(state, tmp_path / "a.pth")
        assert lupctl("model convert a.pth --out a.safetensors --bgr --force").code == 0
        tensors = read_checkpoint(Path("a.safetensors")).tensors
        turned = state[f"base.patch_embed.{key}.weight"].flip(1)
        assert torch.equal(tensors[f"backbone.patch_embed.{key}.weight"], turned)


def test_info_describes_files_and_checkpoints(lupctl: Shell, tmp_path: Path) -> None:
    torch.save(draw_state(FINE_TUNED["transreid with everything"].layout), tmp_path / "a.pth")
    published = lupctl("model info a.pth --json").json
    assert (published["kind"], published["network"]["head"]["kind"], published["differences"]) == (
        "published",
        "jpm",
        0,
    )
    assert published["notes"][0].startswith("grid: 210 positions are taken for 21 x 10")
    assert lupctl("model convert a.pth --out a.safetensors").code == 0
    own = lupctl("model info a.safetensors --json").json
    assert (own["network"]["trunk"]["rows"], own["network"]["trunk"]["cameras"]) == (21, 6)
    assert own["network"]["head"] == {
        "kind": "jpm", "classes": CLASSES, "feature": "before", "shift": 5, "groups": 2, "parts": 4,
    }  # fmt: skip
