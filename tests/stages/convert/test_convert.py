"""Published weights: recognised, compared tensor by tensor, refused in part, and never executed."""

import os
import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from lupctl.core.choices import Encoder
from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.foreign import read_foreign
from lupctl.core.formats.weights.header import read_header
from lupctl.core.formats.weights.plan import ResNetPlan
from lupctl.core.training.nets.foreign.recognise import recognise
from tests.references.mgn import published_layout, slow_feature
from tests.tools.networks import mgn_heads
from tests.tools.published import MEAN, STD, published
from tests.tools.shell import Shell
from tests.tools.tiny.images import draw_tiny

# Batch norms: 1 + 3 * 3 + 1 + 4 * 3 + 1 + 4 in the stem, 5 * 3 + 3 * 3 + 1 in each branch, 8 necks, 3 extra.
COUNTERS = 28 + 3 * 25 + 8 + 3


@pytest.fixture
def market(tmp_path: Path) -> Path:
    """A file as the projects release it."""
    path = tmp_path / "market.pth"
    torch.save({"model": published(), "optimizer": {"state": {}}, "scheduler": {"last_epoch": 3}, "iteration": 7}, path)
    return path


@pytest.mark.parametrize("extra_bn", [True, False])
@pytest.mark.parametrize("arch", ["r50", "r101", "r152"])
def test_every_published_layout_is_recognised_by_its_shapes(arch: str, extra_bn: bool) -> None:
    layout = published_layout(arch, extra_bn=extra_bn, classes=751)
    state = {f"module.{key}": torch.empty(shape, device="meta") for key, shape in layout.items()}
    for key in ("pixel_mean", "pixel_std"):
        state[f"module.{key}"] = torch.ones(1, 3, 1, 1)
    found = recognise(state, origin="file")
    trunk = found.plan.trunk
    assert (trunk.arch, trunk.width, trunk.last_stride, found.matched) == (arch, 64, 1, len(layout))
    assert found.plan.head == mgn_heads(751, embedding=256, extra_bn=extra_bn)
    assert (found.ignored, found.missing, found.differences) == ((), (), ())


def test_a_published_model_becomes_a_checkpoint(lupctl: Shell, market: Path) -> None:
    ran = lupctl(f"model convert {market} --out mgn.safetensors --json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["schema"] == "lupctl.convert/1"
    wanted = published()
    told = {key: ran.json[key] for key in ("path", "network", "arch", "use", "width", "extra_bn", "classes", "matched")}
    assert told == {
        "path": "mgn.safetensors", "network": "mgn", "arch": "r50", "use": "re-id model", "width": 4,
        "extra_bn": True, "classes": 5, "matched": 699,
    }  # fmt: skip
    assert len(wanted) == 699
    assert (ran.json["ignored"], ran.json["missing"]) == ([], [])
    tensors = load_file("mgn.safetensors")
    assert set(tensors) == {key for key in wanted if not key.startswith("pixel_")}
    assert all(torch.equal(value, wanted[key]) for key, value in tensors.items())
    pixels = read_header(Path("mgn.safetensors")).preprocessing
    assert (pixels.height, pixels.width, pixels.interpolation) == (384, 128, "bicubic")
    assert [255 * value for value in pixels.mean] == pytest.approx(MEAN, rel=1e-6)
    assert [255 * value for value in pixels.std] == pytest.approx(STD, rel=1e-6)
    assert ran.json["pixels"]["constants_from"] == "file"


def test_its_features_are_those_of_the_published_evaluation(lupctl: Shell, market: Path, tmp_path: Path) -> None:
    """RGB, Pillow's bicubic to 384 x 128, (x - mean) / std of 255, the network by its definition, not normalised."""
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, suffix in enumerate(("png", "jpg", "png")):
        Image.fromarray(draw_tiny(number, 120, 56)).save(photos / f"{number}.{suffix}")
    assert lupctl(f"model convert {market} --out mgn.safetensors").code == 0
    ran = lupctl(f"dump mgn.safetensors {photos} --out f.features.h5 --workers 0 --json")
    assert (ran.code, ran.json["images"], ran.json["dim"]) == (0, 3, 2048)
    with h5py.File("f.features.h5") as file:
        features = file["features"][()]
    assert features.dtype == np.float32
    pixels = []
    for path in sorted(photos.iterdir()):
        image = Image.open(path).convert("RGB").resize((128, 384), Image.Resampling.BICUBIC)
        raw = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        pixels.append((raw - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1))
    with torch.no_grad():
        expected = slow_feature(published(), torch.stack(pixels)).numpy()
    cosine = (features * expected).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99999
    assert np.linalg.norm(features, axis=1) == pytest.approx(np.linalg.norm(expected, axis=1), rel=1e-2)
    assert np.linalg.norm(features, axis=1).min() > 1.5
    with torch.no_grad():
        turned = slow_feature(published(), torch.stack(pixels).flip(1)).numpy()
    wrong = (features * turned).sum(1) / np.linalg.norm(features, axis=1) / np.linalg.norm(turned, axis=1)
    assert wrong.max() < 0.9999, "BGR would give other features"


Change = Callable[[dict[str, Tensor]], object]


def drop(*starts: str) -> Change:
    def change(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.startswith(starts)]:
            del state[key]

    return change


def drop_ending(end: str) -> Change:
    def change(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.endswith(end)]:
            del state[key]

    return change


def halve(state: dict[str, Tensor]) -> None:
    state.update({key: value.half() for key, value in state.items() if value.is_floating_point()})


@pytest.mark.parametrize(
    ("change", "matched", "ignored", "missing", "classes"),
    [
        (drop_ending("classifier.weight"), 691, 0, 8, 0),
        (drop("b21_head.classifier"), 691, 7, 1, 0),
        (lambda state: state.update({"b1_head.classifier.weight": torch.zeros(9, 256)}), 691, 8, 0, 0),
        (drop_ending("num_batches_tracked"), 699 - COUNTERS, 0, COUNTERS, 5),
        (drop("pixel_"), 697, 0, 2, 5),
        (drop("heads_extra_bn_"), 684, 0, 0, 5),
        (halve, 699, 0, 0, 5),
    ],
    ids=["no classifiers", "seven classifiers", "classifiers disagree", "no counters", "no pixels", "no extra",
         "half"],
)  # fmt: skip
def test_what_may_be_absent(
    lupctl: Shell, tmp_path: Path, change: Change, matched: int, ignored: int, missing: int, classes: int
) -> None:
    state = published()
    change(state)
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json")
    assert ran.code == 0, ran.err
    assert (ran.json["matched"], len(ran.json["ignored"]), len(ran.json["missing"])) == (matched, ignored, missing)
    assert ran.json["classes"] == classes
    assert {value.dtype for value in load_file("a.safetensors").values()} == {torch.float32, torch.int64}
    if "pixel_mean" not in state:
        assert ran.err == "pixels: a.pth has no constants; using those of mgn-luperson\n"
        assert ran.json["pixels"]["constants_from"] == "mgn-luperson"
        assert [255 * value for value in ran.json["pixels"]["mean"]] == pytest.approx(MEAN, abs=1e-4)
    if "pixel_mean" in state:
        return
    named = lupctl("model convert a.pth --out b.safetensors --recipe mgn-luperson-nl --json").json["pixels"]["mean"]
    assert [255 * value for value in named] == pytest.approx((88.026, 78.285, 79.407))


def widen(state: dict[str, Tensor]) -> None:
    state["b2.1.0.conv1.weight"] = torch.zeros(7, 64, 1, 1)


@pytest.mark.parametrize(
    ("change", "message", "row"),
    [
        (drop("b3.1.2.conv2"), "1 missing (b3.1.2.conv2.weight)", "b3.1.2.conv2.weight  -            32 x 32 x 3 x 3"),
        (drop("b22_head.pool"), "1 missing (b22_head.pool_layer.p)", "b22_head.pool_layer.p  -            1"),
        (drop("heads_extra_bn_b2.weight"), "1 missing (heads_extra_bn_b2.weight)", "heads_extra_bn_b2.weight"),
        (drop("b2.0.4"), "15 missing (b2.0.4.conv1.weight, b2.0.4.bn1.weight,", "b2.0.4.bn1.weight"),
        (lambda state: state.update(extra=torch.zeros(2, 3)), "1 not in the network (extra)", "extra   2 x 3        -"),
        (widen, "1 of another shape (b2.1.0.conv1.weight)", "b2.1.0.conv1.weight  7 x 64 x 1 x 1"),
    ],
    ids=["convolution", "power", "half of extra", "block", "surplus", "shape"],
)  # fmt: skip
def test_a_partial_fit_is_an_error_with_a_table(
    lupctl: Shell, tmp_path: Path, change: Change, message: str, row: str
) -> None:
    state = published()
    change(state)
    torch.save({"model": state}, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json")
    assert (ran.code, ran.out) == (3, "")
    table, error = ran.err.split("error: ")
    assert error.startswith("a.pth: nearest is mgn r50 of width 4, with extra batch norm, but ")
    assert message in error
    assert table.startswith("tensor")
    assert " ".join(row.split()) in " ".join(table.split())
    assert not Path("a.safetensors").exists()


def test_a_depth_that_nobody_has_names_the_nearest(lupctl: Shell, tmp_path: Path) -> None:
    state = published(arch="r101")
    for branch in (1, 2, 3):
        drop(f"b{branch}.0.20.", f"b{branch}.0.21.")(state)
    torch.save(state, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert ran.code == 3
    assert "nearest is mgn r101 of width 4, with extra batch norm, but 90 missing (b1.0.20.conv1.weight," in ran.err
    assert len(ran.err.split("error: ")[0].splitlines()) == 11


class Trap:
    """What a hostile file holds: unpickling it would write a file."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch trapped",)


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_hostile_file_is_refused_and_nothing_is_executed(lupctl: Shell, tmp_path: Path, protocol: str) -> None:
    content = {"model": published(), "trap": Trap()}
    path = tmp_path / "a.pth"
    if protocol == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps({"model": 1, "trap": Trap()}))
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert (ran.code, ran.out) == (3, "")
    assert "error: a.pth: contains more than tensors and plain values (" in ran.err
    assert "it was not opened" in ran.err
    assert not Path("trapped").exists()
    assert not Path("a.safetensors").exists()
    pickle.loads(pickle.dumps(Trap()))
    assert Path("trapped").exists(), "the trap itself works"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.pth", None, "gone.pth: there is no such file"),
        ("a.pth", b"", "a.pth: not a complete torch file"),
        ("a.pth", b"PK\x03\x04 and nothing more", "a.pth: not a complete torch file"),
        ("a.safetensors", b"\x08\x00\x00\x00", "a.safetensors: not a complete safetensors file"),
        ("a.h5", b"\x89HDF", "a.h5: a pack or features; weights were expected, as a .pth or .safetensors file"),
        ("a.onnx", b"onnx", "a.onnx: an ONNX network; weights were expected, as a .pth or .safetensors file"),
    ],
)
def test_files_that_are_none(lupctl: Shell, tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    ran = lupctl(f"model convert {name} --out b.safetensors")
    assert ran.code == 3
    assert f"error: {message}" in ran.err


def test_a_file_cut_short_is_none(market: Path) -> None:
    market.write_bytes(market.read_bytes()[:-1000])
    with pytest.raises(FormatError, match=r"market\.pth: not a complete torch file"):
        read_foreign(market)


@pytest.mark.parametrize("content", [{"model": 3}, [1, 2], {"a": {"b": 1}}])
def test_files_without_tensors(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(FormatError, match="without tensors; expected the state of a network"):
        read_foreign(tmp_path / "a.pth")


def test_tensors_of_nothing_known(lupctl: Shell, tmp_path: Path) -> None:
    torch.save({"blocks.0.attn.qkv.weight": torch.zeros(2)}, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert ran.code == 3
    assert "1 tensors of an unknown network (blocks.0.attn.qkv.weight)" in ran.err


# Pre-trained trunks


@cache
def trunk(prefix: str = "", *, arch: str = "resnet50") -> dict[str, Tensor]:
    """torchvision's own network in its own keys, in float32."""
    torch.manual_seed(5)
    made = getattr(torchvision.models, arch)(weights=None)
    state = {key: value for key, value in made.state_dict().items() if not key.startswith("fc.")}
    return {f"{prefix}{key}": value for key, value in state.items()}


def moco() -> dict[str, Tensor]:
    heads = {f"fc.{layer}.{name}": torch.zeros(2) for layer in (0, 2) for name in ("weight", "bias")}
    query = {**trunk(arch="resnet18"), **heads}
    key = {name: value + 1 if value.is_floating_point() else value for name, value in query.items()}
    state = {f"module.encoder_q.{name}": value for name, value in query.items()}
    state |= {f"module.encoder_k.{name}": value for name, value in key.items()}
    return {**state, "module.queue": torch.zeros(128, 4), "module.queue_ptr": torch.zeros(1, dtype=torch.int64)}


def pnl() -> dict[str, Tensor]:
    state = moco()
    for side in ("q", "k"):
        for name in ("embed_fc", "classifier", "fc1", "fc2"):
            state[f"module.encoder_{side}.{name}.weight"] = torch.zeros(2, 2)
        for layer in (0, 2):
            del state[f"module.encoder_{side}.fc.{layer}.weight"], state[f"module.encoder_{side}.fc.{layer}.bias"]
    return {**state, "module.queue_id": torch.zeros(4, 1), "module.prototypes": torch.zeros(3, 128)}


@pytest.mark.parametrize("prefix", ["", "module.", "encoder_q.", "module.encoder_q.", "backbone.", "module.backbone."])
def test_a_backbone_is_an_initialisation(lupctl: Shell, tmp_path: Path, prefix: str) -> None:
    torch.save(trunk(prefix, arch="resnet18"), tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json")
    assert ran.code == 0, ran.err
    told = {key: ran.json[key] for key in ("network", "arch", "use", "matched", "ignored", "missing")}
    assert told == {
        "network": "trunk", "arch": "r18", "use": "initialisation", "matched": len(trunk(arch="resnet18")),
        "ignored": [], "missing": [],
    }  # fmt: skip
    tensors = load_file("a.safetensors")
    for key, value in trunk(arch="resnet18").items():
        assert torch.equal(tensors[f"backbone.{key}"], value)
    assert read_header(Path("a.safetensors")).network.head.kind == "none"


@pytest.mark.parametrize(
    ("build", "recipe", "mean"), [(moco, "luperson-moco", 0.3525), (pnl, "mgn-luperson-nl", 0.3452)]
)
def test_a_training_checkpoint_gives_its_query_encoder(
    lupctl: Shell, tmp_path: Path, build: Callable[[], dict[str, Tensor]], recipe: str, mean: float
) -> None:
    state = build()
    torch.save({"epoch": 3, "arch": "resnet18", "state_dict": state, "optimizer": {}}, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors --json")
    assert ran.code == 0, ran.err
    assert f"using those of {recipe}" in ran.err
    assert ran.json["pixels"]["mean"][0] == pytest.approx(mean)
    assert (ran.json["pixels"]["height"], ran.json["pixels"]["interpolation"]) == (256, "bilinear")
    assert ran.json["matched"] + len(ran.json["ignored"]) == len(state)
    assert {"module.queue", "module.encoder_k.conv1.weight"} <= set(ran.json["ignored"])
    assert torch.equal(load_file("a.safetensors")["backbone.conv1.weight"], state["module.encoder_q.conv1.weight"])
    assert "module.encoder_q.fc.0.bias" in ran.json["ignored"] or "module.encoder_q.fc1.weight" in ran.json["ignored"]


@pytest.mark.parametrize("encoder", ["q", "k"])
@pytest.mark.parametrize(("arch", "trunks"), [("r50", 318), ("r101", 624), ("r152", 930)])
def test_pnl_training_checkpoints_of_every_depth(arch: str, trunks: int, encoder: Encoder) -> None:
    with torch.device("meta"):
        layers = {key for key in trunk_shapes(arch) if not key.startswith("fc.")}
        heads = {"embed_fc.weight": (256, 2048), "embed_fc.bias": (256,), "classifier.weight": (7, 256)}
        heads |= {"classifier.bias": (7,), "fc1.weight": (2048, 2048), "fc1.bias": (2048,)}
        heads |= {"fc2.weight": (128, 2048), "fc2.bias": (128,)}
        shapes = {key: trunk_shapes(arch)[key] for key in layers} | heads
        state = {f"module.encoder_{side}.{key}": torch.empty(shape) for side in "qk" for key, shape in shapes.items()}
        own = {"queue": (128, 8), "queue_id": (8, 1), "queue_ptr": (1,), "prototypes": (7, 128)}
        state |= {f"module.{key}": torch.empty(shape) for key, shape in own.items()}
    found = recognise(state, origin="file", encoder=encoder)
    assert isinstance(found.plan.trunk, ResNetPlan)
    assert (found.plan.trunk.arch, found.plan.trunk.width, found.matched) == (arch, 64, trunks)
    assert (found.differences, found.missing, found.prefix) == ((), (), f"module.encoder_{encoder}.")
    assert set(found.ignored) == {key for key in state if key.removeprefix(found.prefix) not in layers}


@pytest.mark.parametrize(("encoder", "side"), [("student", "q"), ("teacher", "k"), (None, "q")])
def test_trained_and_averaged_have_two_names_each(encoder: Encoder | None, side: str) -> None:
    assert recognise(moco(), origin="file", encoder=encoder).prefix == f"module.encoder_{side}."


@cache
def trunk_shapes(arch: str) -> dict[str, tuple[int, ...]]:
    """torchvision's shapes of a depth."""
    with torch.device("meta"):
        made = getattr(torchvision.models, f"resnet{arch.removeprefix('r')}")(weights=None)
    return {key: tuple(value.shape) for key, value in made.state_dict().items()}


@pytest.mark.parametrize(("name", "mean"), [("lupws_r18", 0.3452), ("lup_moco_r18", 0.3525)])
def test_a_bare_backbone_is_known_by_its_published_name(lupctl: Shell, tmp_path: Path, name: str, mean: float) -> None:
    torch.save(trunk("", arch="resnet18"), tmp_path / f"{name}.pth")
    ran = lupctl(f"model convert {name}.pth --out a.safetensors --json")
    assert ran.code == 0, ran.err
    assert ran.json["pixels"]["mean"][0] == pytest.approx(mean)
    assert f"{name}.pth has no constants; using those of" in ran.err


def test_the_encoder_that_was_taken_is_said_and_can_be_the_other(lupctl: Shell, tmp_path: Path) -> None:
    torch.save(moco(), tmp_path / "a.pth")
    for encoder, left in (("q", (4, 124)), ("k", (124, 4))):
        ran = lupctl(f"model convert a.pth --out a.safetensors --force --encoder {encoder}")
        assert ran.code == 0, ran.err
        told = (
            f"left out: module.encoder_q.* ({left[0]}), module.encoder_k.* ({left[1]}), module.queue, module.queue_ptr"
        )
        assert f"used: module.encoder_{encoder}.*; {told}\n" in ran.err
        tensors = load_file("a.safetensors")
        assert len(tensors) == 120
        for key in ("conv1.weight", "layer4.1.bn2.running_var"):
            assert torch.equal(tensors[f"backbone.{key}"], moco()[f"module.encoder_{encoder}.{key}"])


@pytest.mark.parametrize("prefix", ["net.encoder.", "student.backbone."])
def test_a_trunk_behind_an_unknown_prefix_is_refused_by_it(lupctl: Shell, tmp_path: Path, prefix: str) -> None:
    torch.save(trunk(prefix, arch="resnet18"), tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert (ran.code, Path("a.safetensors").exists()) == (3, False)
    assert (
        f"a.pth: a ResNet's tensors under the prefix {prefix!r}, which is not one of the published prefixes" in ran.err
    )
    assert "hint: save the state again without it" in ran.err


def test_a_safetensors_file_cut_short_is_none(lupctl: Shell, tmp_path: Path) -> None:
    save_file(trunk(arch="resnet18"), tmp_path / "a.safetensors")
    whole = (tmp_path / "a.safetensors").read_bytes()
    for length in (0, 7, 100, len(whole) // 2, len(whole) - 1):
        (tmp_path / "a.safetensors").write_bytes(whole[:length])
        ran = lupctl("model convert a.safetensors --out b.safetensors")
        assert (ran.code, Path("b.safetensors").exists()) == (3, False)
        assert "error: a.safetensors: not a complete safetensors file" in ran.err
        assert "hint: download it again" in ran.err


def test_a_trunk_is_refused_where_a_reid_model_is_wanted(lupctl: Shell, tmp_path: Path, labelled: Path) -> None:
    torch.save(moco(), tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --reid --out a.safetensors")
    assert (ran.code, Path("a.safetensors").exists()) == (3, False)
    assert "a.pth: a pre-trained r18 trunk without heads, not a re-id model" in ran.err
    assert "lupctl finetune DATASET --from a.safetensors" in ran.err
    assert lupctl("model convert a.pth --out a.safetensors").code == 0
    ran = lupctl(f"finetune {labelled} --from a.safetensors --gpus 0 --set data.persons=4 --dry-run --json")
    assert ran.code == 0, ran.err
    assert (ran.json["arch"], ran.json["start"]) == ("r18", "a.safetensors")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("layer3.0.bn2.running_var"), "1 missing (backbone.layer3.0.bn2.running_var)"),
        (lambda state: state.update(more=torch.zeros(1)), "1 not in the network (more)"),
        (lambda state: state.update({"bn1.bias": torch.zeros(3)}), "1 of another shape (backbone.bn1.bias)"),
    ],
)
def test_a_trunk_in_part_is_refused(lupctl: Shell, tmp_path: Path, change: Change, message: str) -> None:
    state = dict(trunk(arch="resnet18"))
    change(state)
    torch.save(state, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert ran.code == 3
    assert f"a.pth: nearest is trunk r18 of width 64, but {message}" in ran.err


def test_fine_tuning_goes_on_from_a_published_model(lupctl: Shell, market: Path, labelled: Path) -> None:
    assert lupctl(f"model convert {market} --out mgn.safetensors").code == 0
    sizes = "--set pixels.height=96 --set pixels.width=32 --set data.persons=4 --set data.images=4"
    epochs = "--set schedule.epochs=1 --set schedule.warmup_epochs=0 --set optim.lr=1e-30"
    ran = lupctl(f"finetune {labelled} --from mgn.safetensors --gpus 0 --workers 0 {sizes} {epochs} --out run")
    assert ran.code == 0, ran.err
    assert "start: 689 tensors from mgn.safetensors, heads included; new classifiers" in ran.err
    tensors, wanted = load_file("run/checkpoint.safetensors"), published()
    assert torch.equal(tensors["b31_head.bottleneck.0.weight"], wanted["b31_head.bottleneck.0.weight"])
    assert tensors["b31_head.classifier.weight"].shape == (6, 256)
    header = read_header(Path("run/checkpoint.safetensors"))
    assert [255 * value for value in header.preprocessing.std] == pytest.approx(STD, rel=1e-6)
    ran = lupctl(f"finetune {labelled} --from mgn.safetensors --recipe bot --gpus 0 --dry-run")
    assert ran.code == 2
    assert "an mgn of three branches; the recipe's net.head is bnneck" in ran.err


# Blue, green, red


def test_bgr_is_noticed_by_imagenets_constants_and_turned_round(lupctl: Shell, tmp_path: Path) -> None:
    state = published(extra_bn=False)
    state["pixel_mean"] = torch.tensor([103.53, 116.28, 123.675]).view(1, 3, 1, 1)
    state["pixel_std"] = torch.tensor([57.375, 57.12, 58.395]).view(1, 3, 1, 1)
    save_file({key: value.contiguous() for key, value in state.items()}, tmp_path / "a.safetensors")
    ran = lupctl("model convert a.safetensors --out b.safetensors")
    assert ran.code == 3
    assert "in the order blue, green, red; lupctl feeds networks RGB" in ran.err
    assert "--bgr" in ran.err
    assert lupctl("model convert a.safetensors --bgr --out b.safetensors").code == 0
    assert torch.equal(load_file("b.safetensors")["backbone.0.weight"], state["backbone.0.weight"].flip(1))
    pixels = read_header(Path("b.safetensors")).preprocessing
    assert pixels.mean == pytest.approx((0.485, 0.456, 0.406))
    assert pixels.std == pytest.approx((0.229, 0.224, 0.225))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_pixel_constants_that_are_no_numbers_are_refused(lupctl: Shell, tmp_path: Path, value: float) -> None:
    state = published()
    state["pixel_std"] = torch.tensor([58.0, value, 57.0]).view(1, 3, 1, 1)
    torch.save(state, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out b.safetensors")
    assert (ran.code, "a.pth: its pixel constants are not finite numbers" in ran.err) == (3, True), ran.err
    assert not Path("b.safetensors").exists()


# The command


def test_nothing_is_overwritten_or_written_in_vain(lupctl: Shell, market: Path, tmp_path: Path) -> None:
    ran = lupctl(f"model convert {market} --dry-run --json")
    assert (ran.code, ran.json["schema"], ran.json["matched"]) == (0, "lupctl.convert-plan/1", 699)
    assert not (tmp_path / "lup").exists()
    ran = lupctl(f"model convert {market}")
    assert (ran.code, ran.out) == (0, "lup/models/market.safetensors\n")
    assert ran.err == "mgn r50 width 4 (re-id model): 699 tensors matched, 0 ignored, 0 optional ones missing\n"
    assert lupctl(f"model convert {market}").code == 2
    assert lupctl(f"model convert {market} --force --quiet").err == ""
    again = lupctl("model convert lup/models/market.safetensors --out again.safetensors")
    assert (again.code, "is already a checkpoint of lupctl" in again.err) == (2, True)
    assert lupctl(f"dump market {market.parent} --out a.features.h5 --dry-run").code in (0, 3), "found by its name"
