"""Typing what trains and brings along OSNets: the recipes that are picked, downloads, files of torchreid, and hints."""

import shlex
from pathlib import Path
from typing import Any

import gdown
import numpy as np
import pytest
import torch

from lupctl.core.choices import OsnetArch
from lupctl.core.data.catalog.weights import PUBLISHED
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.weights.file import read_checkpoint, write_checkpoint
from lupctl.core.recipes.osnet_sections import OSNET_ARCHS
from lupctl.core.resolve.training.transformers import OF_OSNET
from lupctl.core.training.nets.build import build_network
from tests.references.osnet import OSNETS, draw_state
from tests.tools.nets.onnx_files import run
from tests.tools.networks import make_header, neck, plan_network
from tests.tools.shell import Shell
from tests.tools.tiny.images import draw_tiny

PLAN = "finetune --gpus 0 --dry-run --set data.persons=4"
FINE = f"{PLAN} --json"


def save_file(path: Path, arch: str = "osnet-x0.25", *, classes: int = 751, prefix: str = "", seed: int = 0) -> None:
    """A network as torchreid saves it after training: with its counters beside it."""
    state = {f"{prefix}{key}": value for key, value in draw_state(OSNETS[arch], seed=seed, classes=classes).items()}
    torch.save({"state_dict": state, "epoch": 60, "rank1": np.float64(0.9), "optimizer": {}}, path)


def hint_of(err: str) -> str:
    (line,) = [line for line in err.splitlines() if line.startswith("hint: ")]
    return line.removeprefix("hint: ")


@pytest.mark.parametrize("arch", OSNET_ARCHS)
def test_an_architecture_picks_its_recipe(lupctl: Shell, labelled: Path, arch: OsnetArch) -> None:
    # Two persons with 8 images: the default batch has more images than the pack.
    ran = lupctl(f"{FINE} {labelled} --arch {arch} --from scratch --set data.images=2")
    assert ran.code == 0, ran.err
    assert f"recipe: {OF_OSNET[arch]} (the default for this start; --recipe small-osnet is for a CPU)" in ran.err
    assert ran.json["arch"] == arch
    assert ran.json["parameters"] == OSNETS[arch].parameters + 513 * 6


def test_a_file_of_torchreid_comes_along(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    save_file(tmp_path / "model.pth.tar-60", prefix="module.")
    ran = lupctl("model convert model.pth.tar-60 --out mine.safetensors --json --reid")
    assert ran.code == 0, ran.err
    assert "classifier of 751 persons left out: features do not need it" in ran.err
    assert (ran.json["arch"], ran.json["network"], ran.json["use"]) == ("osnet-x0.25", "fc", "re-id model")
    assert (ran.json["inside"], ran.json["missing"], ran.json["matched"]) == (["state_dict"], [], 565)
    assert ran.json["ignored"] == ["module.classifier.weight", "module.classifier.bias"]
    pixels = ran.json["pixels"]
    assert (pixels["height"], pixels["width"], pixels["interpolation"]) == (256, 128, "bilinear")
    assert pixels["mean"] == [0.485, 0.456, 0.406]
    info = lupctl("model info mine.safetensors --json")
    assert info.json["network"]["trunk"] == {"kind": "osnet", "arch": "osnet-x0.25"}
    tuned = lupctl(f"{FINE} {labelled} --from mine.safetensors --set data.images=2")
    assert tuned.code == 0, tuned.err
    assert "recipe: osnet-x0.25 (the default for this start" in tuned.err
    assert tuned.json["arch"] == "osnet-x0.25"
    # The start decides the width that a named recipe has otherwise.
    wide = lupctl(f"{FINE} {labelled} --recipe osnet --from mine.safetensors --set data.images=2")
    assert (wide.code, wide.json["arch"]) == (0, "osnet-x0.25"), wide.err


def test_its_features_are_those_of_an_export(lupctl: Shell, tmp_path: Path) -> None:
    save_file(tmp_path / "ain.pth", "osnet-ain-x0.25")
    assert lupctl("model convert ain.pth --out ain.safetensors").code == 0
    (tmp_path / "photos").mkdir()
    images = np.stack([draw_tiny(seed, 64, 32) for seed in range(3)])
    from PIL import Image

    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
    line = "dump ain.safetensors photos --device cpu --workers 0 --out f.features.h5 --set size=64x32"
    assert lupctl(line).code == 0
    raw = np.asarray(read_features(Path("f.features.h5")).features)
    assert raw.shape == (3, 512)
    assert raw.min() == 0
    refused = lupctl("dump ain.safetensors photos --device cpu --out g.features.h5 --set size=16x16")
    assert refused.code == 2
    assert "takes no images of 16 x 16: a cell of its last map shows 16 x 16 pixels" in refused.err
    assert hint_of(refused.err) == "--set size=256x128"


@pytest.mark.slow
def test_exported(lupctl: Shell, tmp_path: Path) -> None:
    """onnxruntime gives what dump gives, at the size that the network was trained at."""
    from PIL import Image

    for arch in ("osnet-x0.25", "osnet-ain-x0.25"):
        save_file(tmp_path / "net.pth", arch)
        assert lupctl("model convert net.pth --out net.safetensors --force").code == 0
        ran = lupctl("model export net.safetensors --json --force")
        assert ran.code == 0, ran.err
        assert (ran.json["dim"], ran.json["height"], ran.json["width"]) == (512, 256, 128)
        (tmp_path / "photos").mkdir(exist_ok=True)
        images = np.stack([draw_tiny(seed, 256, 128) for seed in range(3)])
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "photos" / f"{number}.png")
        assert lupctl("dump net.safetensors photos --device cpu --workers 0 --out f.features.h5 --force").code == 0
        raw = np.asarray(read_features(Path("f.features.h5")).features)
        found = run(Path("net.onnx"), images)
        assert np.abs(found - raw / np.linalg.norm(raw, axis=1, keepdims=True)).max() < 1e-5


def test_imagenet_files_are_starts(
    lupctl: Shell, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the error to the command that its hint names, and on to a plan."""
    asked: list[str] = []

    def download(*, id: str, output: str, **more: Any) -> str:
        asked.append(id)
        save_file(Path(output), classes=1000)
        return output

    monkeypatch.setattr(gdown, "download", download)
    ran = lupctl(f"{PLAN} {labelled} --arch osnet-x0.25 --from imagenet")
    assert ran.code == 2
    assert "torchvision has no ImageNet weights of OSNets" in ran.err
    words = shlex.split(hint_of(ran.err).partition(", then")[0])
    got = lupctl(shlex.join(words[1:]))
    assert got.code == 0, got.err
    assert asked == ["1rb8UN5ZzPKRc_xvtHlyDh-cSz88YX9hs"]
    assert "ImageNet's number; this is a start, not a re-id model" in got.err
    tuned = lupctl(f"{FINE} {labelled} --arch osnet-x0.25 --from osnet-x0.25-imagenet --set data.images=2")
    assert tuned.code == 0, tuned.err
    save_file(tmp_path / "imagenet.pth", classes=1000)
    refused = lupctl("model convert imagenet.pth --out a.safetensors --reid")
    assert (refused.code, "not a re-id model" in refused.err) == (3, True)
    save_file(tmp_path / "market.pth")
    refused = lupctl("model convert market.pth --out a.safetensors --start")
    assert (refused.code, "fine-tuned already; not a start" in refused.err) == (3, True)


def test_files_that_are_refused(lupctl: Shell, tmp_path: Path) -> None:
    state = draw_state(OSNETS["osnet-ain-x0.25"])
    torch.save({key: value for key, value in state.items() if key != "conv2.0.IN.weight"}, tmp_path / "a.pth")
    ran = lupctl("model convert a.pth --out a.safetensors")
    assert ran.code == 3
    assert "nearest is osnet-ain-x0.25 with head fc, but 1 missing (conv2.0.IN.weight)" in ran.err
    assert "conv2.0.IN.weight  -            64" in ran.err
    torch.save({**state, "fc.1.running_var": torch.full((512,), float("nan"))}, tmp_path / "b.pth")
    ran = lupctl("model convert b.pth --out b.safetensors")
    assert (ran.code, "numbers that are not finite (fc.1.running_var)" in ran.err) == (3, True)
    save_file(tmp_path / "c.pth")
    ran = lupctl("model convert c.pth --out c.safetensors --size 256x128")
    assert (ran.code, "an OSNet, which takes images of any size" in ran.err) == (3, True)
    assert not list(tmp_path.glob("*.safetensors"))


@pytest.mark.parametrize("arch", ["osnet-x0.25", "osnet-ibn-x1.0", "osnet-ain-x0.25"])
def test_back_to_torchreid(lupctl: Shell, tmp_path: Path, arch: str) -> None:
    """The file that came along comes back, but for its classifier."""
    save_file(tmp_path / "a.pth", arch)
    assert lupctl("model convert a.pth --out a.safetensors").code == 0
    ran = lupctl("model convert a.safetensors --to torchreid --out b.pth --json")
    assert ran.code == 0, ran.err
    given = torch.load(tmp_path / "a.pth", weights_only=False)["state_dict"]
    found = torch.load(tmp_path / "b.pth", weights_only=True)
    assert found.keys() == {key for key in given if not key.startswith("classifier.")}
    assert all(torch.equal(value, given[key]) for key, value in found.items())
    assert (ran.json["tensors"], ran.json["left_out"]) == (len(found), [])
    refused = lupctl("model convert a.safetensors --to torchvision --out c.pth")
    assert (refused.code, hint_of(refused.err)) == (3, "--to torchreid"), refused.err


def test_other_networks_have_no_names_of_torchreid(lupctl: Shell, tmp_path: Path) -> None:
    plan = plan_network(neck(3))
    write_checkpoint(tmp_path / "a.safetensors", build_network(plan).state_dict(), make_header(plan))
    refused = lupctl("model convert a.safetensors --to torchreid --out c.pth")
    assert (refused.code, hint_of(refused.err)) == (3, "--to torchvision"), refused.err


def test_bgr_turns_the_stem(lupctl: Shell, tmp_path: Path) -> None:
    save_file(tmp_path / "a.pth")
    assert lupctl("model convert a.pth --out rgb.safetensors").code == 0
    assert lupctl("model convert a.pth --out bgr.safetensors --bgr").code == 0
    rgb, bgr = (read_checkpoint(Path(f"{name}.safetensors")).tensors for name in ("rgb", "bgr"))
    key = "backbone.conv1.conv.weight"
    assert torch.equal(rgb[key].flip(1), bgr[key])
    assert all(torch.equal(value, bgr[name]) for name, value in rgb.items() if name != key)


@pytest.mark.parametrize(
    ("line", "code", "message", "hint"),
    [
        ("--labels clusters --arch osnet-x1.0", 2, "osnet-x1.0: no recipe trains it on clusters", "--recipe usl-r50"),
        ("--recipe mgn-luperson --arch osnet-x0.5", 2, "is of residual networks; net.arch is osnet-x0.5", "lupctl"),
        ("--arch osnet-x2.0", 2, "osnet-x2.0", ""),
    ],
)
def test_lines_that_are_refused(lupctl: Shell, labelled: Path, line: str, code: int, message: str, hint: str) -> None:
    ran = lupctl(f"{PLAN} {labelled} --from scratch {line}")
    assert (ran.code, message in ran.err) == (code, True), ran.err
    assert hint in ran.err


def test_pre_training_takes_them_too(lupctl: Shell, labelled: Path) -> None:
    line = f"pretrain --data {labelled} --arch osnet-x0.25 --gpus 0 --dry-run --set data.batch=16 --set bn_groups=2"
    ran = lupctl(f"{line} --json")
    assert ran.code == 0, ran.err
    assert ran.json["arch"] == "osnet-x0.25"
    refused = lupctl(f"{line} --method solider")
    assert refused.code == 2
    assert "solider" in refused.err
    refused = lupctl(f"{line} --set net.width=32")
    assert (refused.code, "net.width = 32 is of residual networks" in refused.err) == (2, True)


def test_published_names_are_networks_and_scores_are_fractions() -> None:
    own = [one for one in PUBLISHED if one.project.name == "torchreid"]
    assert {one.use for one in own} == {"initialisation", "re-id model"}
    for one in own:
        assert any(one.name.startswith(f"{arch}-") for arch in OSNET_ARCHS), one.name
        assert all(0 < score.map < score.rank1 < 1 for score in one.scores), one.name
    scores = {one.name: [(score.dataset, score.map, score.rank1) for score in one.scores] for one in own}
    assert scores["osnet-x1.0-market1501"] == [("market1501", 0.826, 0.942)]
    assert scores["osnet-ain-x1.0-msmt17-all"] == [("market1501", 0.433, 0.701), ("dukemtmc", 0.527, 0.711)]
    assert scores["osnet-ibn-x1.0-for-cuhk03-detected"] == [("cuhk03-detected", 0.254, 0.257)]
    assert scores["osnet-ain-x0.25-imagenet"] == []
