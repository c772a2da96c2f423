"""`lupctl dump` of networks in ONNX: the features of `lupctl.load`, scored and compared like any others."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from lupctl.core.choices import ROLE_CODES
from lupctl.core.flows.loaded.load import load
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.stages.export.run import export
from lupctl.core.training.nets.build import build_network
from tests.tools.nets.exported import write_exported
from tests.tools.nets.onnx_files import DIM, write_foreign
from tests.tools.networks import make_header, neck, plan_network
from tests.tools.shell import Shell

HOW = "--pixels 32x16 --mean 0.4,0.5,0.6 --std 0.2,0.3,0.25"


@pytest.mark.parametrize("processes", ["", "--gpus 0 --processes 2"])
def test_features_of_a_foreign_network(processes: str, labelled: Path, lupctl: Shell, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "net.onnx", sides=("h", "w"))
    ran = lupctl(f"dump net.onnx {labelled} {HOW} --out f.features.h5 --workers 0 --chunk 16 --json {processes}")
    assert ran.code == 0, ran.err
    assert ran.json["network"] == "ONNX network (images: float32, N x 3 x H x W)"
    features = read_features(Path("f.features.h5"))
    assert features.features.shape[1] == ran.json["dim"] == DIM
    net = load(path, pixels="32x16", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    pack = open_pack(labelled)
    row_of = {name: row for row, name in enumerate(pack.samples.name)}
    units = features.features / np.linalg.norm(features.features, axis=1, keepdims=True)
    assert np.abs(net.embed(pack.read(row_of[name]) for name in features.samples.name) - units).max() < 1e-6
    assert net.nearest(units[:3], "f.features.h5", top=1).row.tolist() == [[0], [1], [2]]
    assert features.record["network"] == {"kind": "onnx", "input": "images: float32, N x 3 x H x W"}
    pixels = features.record["preprocessing"]
    assert (pixels["height"], pixels["mean"], pixels["interpolation"]) == (32, [0.4, 0.5, 0.6], "bilinear")


def test_it_is_scored_and_gives_a_threshold(labelled: Path, lupctl: Shell, tmp_path: Path) -> None:
    write_foreign(tmp_path / "net.onnx", kind="uint8", layout="NHWC", batch=4)
    plan = lupctl(f"dump net.onnx {labelled} --out f.features.h5 --dry-run --json")
    tested = int((open_pack(labelled).samples.role >= ROLE_CODES["query"]).sum())
    assert (plan.code, plan.json["images"]) == (0, tested), plan.err
    assert not Path("f.features.h5").exists()
    assert lupctl(f"dump net.onnx {labelled} --out f.features.h5 --quiet").code == 0
    ran = lupctl("eval f.features.h5 --out . --device cpu --json")
    assert ran.code == 0, ran.err
    assert 0 < ran.json["scores"]["map"] <= 1
    assert "ONNX network, images: uint8, 4 x 32 x 16 x 3" in Path("report.html").read_text(encoding="utf-8")
    vectors = read_features(Path("f.features.h5")).features
    assert load("net.onnx", report="report.json").same(vectors[0], vectors[0])


@pytest.mark.parametrize(
    ("more", "message", "hint"),
    [
        ("--pixels 32x16", "takes pixels of float32, and the mean and", "--mean imagenet --std imagenet; or 0,0,0"),
        ("--mean imagenet --std imagenet", "takes images of any size", "--pixels 256x128, height by width"),
        (f"{HOW} --set size=64x32", "as it is, on the CPU, and not with --set", "leave out --set"),
        (f"{HOW} --precision bf16", "and not with --precision bf16", "leave out --precision"),
        (f"{HOW} --cameras none", "--cameras none: net.onnx takes no cameras", "leave out --cameras"),
    ],
)
def test_what_is_missing_or_too_much_is_said(
    more: str, message: str, hint: str, labelled: Path, lupctl: Shell, tmp_path: Path
) -> None:
    write_foreign(tmp_path / "net.onnx", sides=("h", "w"))
    ran = lupctl(f"dump net.onnx {labelled} --out f.features.h5 {more}")
    assert (ran.code, ran.out) == (2, "")
    assert message in ran.err
    assert f"hint: {hint}" in ran.err
    assert not list(tmp_path.glob("*.h5"))


def test_a_file_that_is_not_there(labelled: Path, lupctl: Shell) -> None:
    ran = lupctl(f"dump gone.onnx {labelled} {HOW}")
    assert (ran.code, "no checkpoint 'gone.onnx'" in ran.err) == (3, True)


def test_a_checkpoint_is_told_nothing(labelled: Path, lupctl: Shell, tmp_path: Path) -> None:
    plan = plan_network(neck(5))
    write_checkpoint(tmp_path / "net.safetensors", build_network(plan).state_dict(), make_header(plan))
    ran = lupctl(f"dump net.safetensors {labelled} --out f.features.h5 --pixels 32x16")
    assert (ran.code, ran.out) == (2, "")
    assert "a checkpoint says how its images are prepared" in ran.err
    assert "hint: leave out --pixels, --mean, --std and --interpolation" in ran.err
    assert not list(tmp_path.glob("*.h5"))


@pytest.fixture
def home(made: Path, labelled: Path, lupctl: Shell, tmp_path: Path) -> Path:
    """A workspace with a pack, an exported network in both formats and int8, and pictures of one person."""
    (tmp_path / "lup" / "packs").mkdir(parents=True)
    shutil.copy(labelled, tmp_path / "lup" / "packs")
    for path in made.iterdir():
        shutil.copy(path, tmp_path)
    pack = open_pack(labelled)
    rows = np.flatnonzero(pack.samples.role == ROLE_CODES["query"])[:2]
    for row in rows:
        Path(f"person{row}.jpg").write_bytes(pack.read(int(row)))
    return Path("lup")


@pytest.fixture(scope="module")
def made(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = write_exported(tmp_path_factory.mktemp("made"))
    export(ExportJob(folder / "net.onnx", folder / "net.xml", format="openvino"))
    export(ExportJob(folder / "net.onnx", folder / "small.onnx", precision="int8", calibrate=labelled))
    return folder


@pytest.mark.parametrize("network", ["net.onnx", "net.xml", "small.onnx"])
def test_search_with_a_network_that_runs_alone(network: str, home: Path, lupctl: Shell) -> None:
    assert lupctl(f"dump {network} labelled --out f.features.h5 --quiet").code == 0
    pictures = sorted(Path().glob("person*.jpg"))
    line = " ".join(map(str, pictures))
    ran = lupctl(f"search f.features.h5 {line} --from {network} --top 3 --device cpu --json")
    assert ran.code == 0, ran.err
    assert ran.json["checkpoint"] == network
    found = [[hit["name"] for hit in one["hits"]] for one in ran.json["queries"]]
    nearest = load(network).nearest([str(path) for path in pictures], "f.features.h5", top=4)
    names = read_features(Path("f.features.h5")).samples.name
    for one, rows in zip(found, nearest.row, strict=True):
        assert one == [names[row] for row in rows[1:]], "the picture itself is left out"
    other = {"small.onnx": "net.onnx"}.get(network, "small.onnx")
    refused = lupctl(f"search f.features.h5 {line} --from {other} --device cpu")
    assert (refused.code, "distances between features of two networks mean nothing" in refused.err) == (3, True)


@pytest.mark.parametrize("network", ["net.onnx", "net.xml", "small.onnx"])
def test_the_network_that_made_features_is_found(network: str, home: Path, lupctl: Shell) -> None:
    assert lupctl(f"dump {network} labelled --out f.features.h5 --quiet").code == 0
    picture = min(Path().glob("person*.jpg"))
    ran = lupctl(f"search f.features.h5 {picture} --device cpu --json")
    assert (ran.code, ran.json["checkpoint"]) == (0, network), ran.err
    assert f"network: {network} (it made the gallery)" in ran.err
    assert lupctl("eval f.features.h5 --explain --dry-run --json --device cpu").json["network"] == network
    warned = [one["text"] for one in lupctl("eval f.features.h5 --no-page --json").json["warnings"]]
    assert not any("not checked" in text for text in warned), "what it was exported from is here"
    before = Path("f.features.h5").read_bytes()
    for more in ("--no-page", "--explain"):
        lost = lupctl(f"eval f.features.h5 --out f.features.h5 --force {more} --device cpu")
        assert (lost.code, "is what this command reads" in lost.err) == (2, True), lost.err
    assert Path("f.features.h5").read_bytes() == before
    refused = lupctl(f"eval {network}")
    assert refused.code == 3
    assert f"hint: lupctl dump {network} labelled" in refused.err


def test_a_foreign_network_is_found_and_says_nothing_of_its_training(lupctl: Shell, home: Path) -> None:
    write_foreign(Path("other.onnx"), sides=("h", "w"))
    line = "dump other.onnx labelled --pixels 32x16 --mean imagenet --std imagenet --out o.features.h5 --quiet"
    assert lupctl(line).code == 0
    ran = lupctl(f"search o.features.h5 {min(Path().glob('person*.jpg'))} --device cpu --json")
    assert (ran.code, ran.json["checkpoint"]) == (0, "other.onnx"), ran.err
    warned = [one["text"] for one in lupctl("eval o.features.h5 --no-page --json").json["warnings"]]
    assert any(text.endswith("of another program, and does not say what it was trained on") for text in warned)
    Path("other.onnx").unlink()
    assert lupctl(f"search o.features.h5 {min(Path().glob('person*.jpg'))} --device cpu").code == 3


def test_search_prepares_pictures_as_the_gallery_was(home: Path, lupctl: Shell) -> None:
    write_foreign(Path("foreign.onnx"), sides=("h", "w"))
    assert lupctl(f"dump foreign.onnx labelled {HOW} --out f.features.h5 --quiet").code == 0
    (picture, *_) = sorted(Path().glob("person*.jpg"))
    ran = lupctl(f"search f.features.h5 {picture} --from foreign.onnx --top 3 --device cpu --json")
    assert ran.code == 0, ran.err
    assert ran.json["queries"][0]["left_out"], "its own image is as near as can be"
    write_foreign(Path("bytes.onnx"), kind="uint8")
    assert lupctl("dump bytes.onnx labelled --out g.features.h5 --quiet").code == 0
    assert lupctl(f"search g.features.h5 {picture} --from bytes.onnx --device cpu").code == 0


@pytest.mark.parametrize("network", ["net.xml", "small.onnx"])
def test_find_with_a_network_that_runs_alone(network: str, home: Path, lupctl: Shell) -> None:
    (picture, *_) = sorted(Path().glob("person*.jpg"))
    line = f"find {picture} --in labelled --run {network} --device cpu --workers 0 --json --out page.html"
    ran = lupctl(line)
    assert ran.code == 0, ran.err
    assert ran.json["tracklets"]
    assert Path("page.html").is_file()
    again = lupctl(f"{line} --force")
    assert again.json["tracklets"] == ran.json["tracklets"]
    assert "from labelled" not in again.err, "features are used again"


def test_eval_all_with_networks_that_run_alone(home: Path, lupctl: Shell) -> None:
    ran = lupctl("eval --all net.safetensors net.onnx net.xml small.onnx --device cpu --json")
    assert ran.code == 0, ran.err
    scores = {one["name"]: one["cells"][0]["scores"]["map"] for one in ran.json["runs"]}
    assert scores["net.onnx"] == pytest.approx(scores["net.xml"], abs=0.02)
    for name in ("net.onnx", "net.xml", "small.onnx"):
        features = Path(f"{name}.labelled.features.h5")
        assert lupctl(f"eval {features} --device cpu --json --out {name}.json").json["scores"]["map"] == scores[name]


def test_a_file_that_does_not_say_how_images_are_prepared(home: Path, lupctl: Shell) -> None:
    write_foreign(Path("foreign.onnx"), sides=("h", "w"))
    (picture, *_) = sorted(Path().glob("person*.jpg"))
    for line in (f"find {picture} --in labelled --run foreign.onnx", "eval --all foreign.onnx"):
        ran = lupctl(f"{line} --device cpu")
        assert (ran.code, ran.out) == (2, "")
        assert ran.err.splitlines()[-2] == "error: foreign.onnx: does not say how its images are prepared"
        hint = ran.err.splitlines()[-1].removeprefix("hint: write it into a copy: lupctl ")
    made = lupctl(hint.replace("256x128", "32x16"))
    assert (made.code, made.out) == (0, "foreign-lupctl.onnx\n"), made.err
    assert lupctl("eval --all foreign-lupctl.onnx --device cpu").code == 0
