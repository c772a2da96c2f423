"""Exported networks: onnxruntime gives the features of `lupctl dump`, and nothing half right is left behind."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from lupctl.cli.manual import read_chapter
from lupctl.core.errors import UsageError
from lupctl.core.flows.loaded.load import load
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.weights.file import read_checkpoint, write_checkpoint
from lupctl.core.formats.weights.header import PackReference, describe_pixels
from lupctl.core.formats.weights.onnx import run_model
from lupctl.core.recipes.sections import Pixels
from lupctl.core.stages.export import source as stage
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.stages.export.record import find_terms
from lupctl.core.stages.export.run import export
from lupctl.core.training.nets.build import build_network
from tests.tools.nets.onnx_files import write_foreign
from tests.tools.networks import make_header, mgn_heads, neck, no_head, plan_network, projection
from tests.tools.shell import Shell
from tests.tools.tiny.images import draw_tiny

ROOT = Path(__file__).parents[3]
PLANS = {
    "none": plan_network(no_head()),
    "projection": plan_network(projection(8), pooling="gem"),
    "bnneck": plan_network(neck(5), last_stride=1, pooling="gem", ibn=True),
    "mgn": plan_network(mgn_heads(5, embedding=8), last_stride=1, pooling="gem"),
}
DIMS = {"none": 32, "projection": 32, "bnneck": 32, "mgn": 64}
TERMS = "for tests; free to use"


def make_checkpoint(path: Path, kind: str) -> Path:
    """A network of random weights whose batch norms remember other statistics than those of any batch."""
    torch.manual_seed(0)
    plan = PLANS[kind]
    network = build_network(plan)
    for norm in network.modules():
        if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
            assert norm.running_mean is not None
            assert norm.running_var is not None
            norm.running_mean.normal_(0, 0.1)
            norm.running_var.uniform_(0.5, 2)
    pixels = Pixels(
        height=96 if kind == "mgn" else 48, width=32, interpolation="bicubic", mean=(0.4, 0.3, 0.5), std=(0.2, 0.3, 0.1)
    )
    story = PackReference(dataset="tiny", fingerprint="sha256:1", images=3, source=None, terms=TERMS)
    header = make_header(plan, preprocessing=describe_pixels(pixels), parents={"pack:tiny": "sha256:1"}, data=(story,))
    write_checkpoint(path, network.state_dict(), header)
    return path


def draw_images(folder: Path, *, height: int, width: int) -> NDArray[np.uint8]:
    """Three PNGs, and their pixels."""
    folder.mkdir()
    images = np.stack([draw_tiny(seed, height, width) for seed in range(3)])
    for number, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{number}.png")
    return images


def open_session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = session.run(None, {"images": images})[0]
    return found


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint `bot.safetensors` and what was made of it, `bot.onnx`."""
    folder = tmp_path_factory.mktemp("made")
    checkpoint = make_checkpoint(folder / "bot.safetensors", "bnneck")
    export(ExportJob(checkpoint, folder / "bot.onnx", command=("lupctl", "model", "export")))
    return folder


def trace_again(patch: pytest.MonkeyPatch, made: Path) -> None:
    """Takes the graph that is there: tracing takes seconds, and is not what every test is about."""
    patch.setattr(stage, "trace", lambda encoder, given: onnx.load(made / "bot.onnx"))


@pytest.mark.parametrize("kind", PLANS)
def test_features_are_those_of_dump_with_unit_length(kind: str, lupctl: Shell, tmp_path: Path) -> None:
    made = read_checkpoint(make_checkpoint(tmp_path / "net.safetensors", kind))
    size = {"height": made.header.preprocessing.height, "width": made.header.preprocessing.width}
    images = draw_images(tmp_path / "photos", **size)
    ran = lupctl("model export net.safetensors --json")
    assert (ran.code, ran.err) == (0, ""), "the exporter's chatter stays inside"
    told = {key: ran.json[key] for key in ("schema", "path", "height", "width", "dim")}
    assert told == {"schema": "lupctl.export/1", "path": "net.onnx", **size, "dim": DIMS[kind]}
    assert ran.json["difference"] < 1e-5
    assert lupctl("dump net.safetensors photos --device cpu --workers 0 --out f.h5").code == 0
    raw = np.asarray(read_features(Path("f.h5")).features)
    wanted = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    session = open_session(Path("net.onnx"))
    found = run(session, images)
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 1e-4
    assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-5)
    assert np.abs(found[0] - found[1]).max() > 1e-2, "of other images other features"
    for count in (1, 2, 5):
        batch = images[np.arange(count) % 3]
        assert np.abs(run(session, batch) - found[np.arange(count) % 3]).max() < 1e-5


def test_a_loaded_export_is_the_network_that_it_was_made_from(made: Path, lupctl: Shell, tmp_path: Path) -> None:
    checkpoint, exported = load(made / "bot.safetensors", device="cpu"), load(made / "bot.onnx")
    images = draw_images(tmp_path / "photos", height=48, width=32)
    wanted = checkpoint.embed(images)
    assert np.abs(exported.embed(images) - wanted).max() < 1e-4
    assert (exported.size, exported.dimension) == (checkpoint.size, checkpoint.dimension)
    assert exported.trained_on == checkpoint.trained_on == ("tiny",)
    assert lupctl(f"dump {made / 'bot.safetensors'} photos --device cpu --workers 0 --out f.h5").code == 0
    assert exported.nearest(images, "f.h5", top=1).row.tolist() == [[0], [1], [2]], "features of the same network"
    other = draw_tiny(9, 96, 40)
    assert np.abs(exported.embed(other) - checkpoint.embed(other)).max() < 1e-2, "grey levels are whole after resizing"
    with pytest.raises(UsageError, match="features of mirrored images cannot be added"):
        exported.embed(images, flip=True)
    with pytest.raises(UsageError, match="its own record says how images are prepared"):
        load(made / "bot.onnx", mean="imagenet", std="imagenet")
    with pytest.raises(UsageError, match="a checkpoint says how its images are prepared"):
        load(made / "bot.safetensors", pixels="48x32")


def test_the_graph_is_plain_and_says_nothing_of_this_machine(made: Path) -> None:
    model = onnx.load(made / "bot.onnx")
    (taken,), (given,) = model.graph.input, model.graph.output
    assert (taken.name, given.name) == ("images", "features")
    assert taken.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    shape = [side.dim_param or side.dim_value for side in taken.type.tensor_type.shape.dim]
    assert shape == ["N", 48, 32, 3]
    assert model.opset_import[0].version >= 17
    assert not {"Gather", "Range", "Loop", "If"} & {node.op_type for node in model.graph.node}
    assert [path.name for path in made.iterdir() if path.suffix != ".safetensors"] == ["bot.onnx"], "weights inside"
    written = (made / "bot.onnx").read_bytes()
    for path in (ROOT, made, Path(torch.__file__).parent):
        assert str(path).encode() not in written


def test_the_metadata_has_everything_that_decides_the_features(made: Path, lupctl: Shell) -> None:
    checkpoint = read_checkpoint(made / "bot.safetensors")
    record = json.loads(open_session(made / "bot.onnx").get_modelmeta().custom_metadata_map["lupctl"])
    pixels = {
        "height": 48, "width": 32, "channels": "RGB", "interpolation": "bicubic", "mean": [0.4, 0.3, 0.5],
        "std": [0.2, 0.3, 0.1],
    }  # fmt: skip
    assert record["preprocessing"] == pixels
    assert record["images"] == {"type": "uint8", "layout": "NHWC", "channels": "RGB", "resize": "Pillow, bicubic"}
    assert record["features"] == {"dim": 32, "type": "float32", "length": 1, "distance": "1 - dot product"}
    assert record["parents"] == {"checkpoint": checkpoint.fingerprint}
    assert record["checkpoint_parents"] == {"pack:tiny": "sha256:1"}
    assert record["network"] == PLANS["bnneck"].to_json()
    assert record["data"] == [{"dataset": "tiny", "fingerprint": "sha256:1", "images": 3, "terms": TERMS}]
    assert record["terms"] == [f"tiny: {TERMS}"]
    assert (record["kind"], record["version"], record["stage"]) == ("onnx", checkpoint.header.version, "finetune")
    assert record["command"] == ["lupctl", "model", "export"]
    assert 0 <= record["check"]["difference"] < 1e-5
    assert (record["check"]["images"], record["check"]["tolerance"]) == (4, 1e-4)
    described = onnx.load(made / "bot.onnx").doc_string
    assert "images: (N, 48, 32, 3) uint8 RGB, resized as by Pillow, bicubic" in described
    assert TERMS in described
    shown = lupctl(f"model info {made / 'bot.onnx'} --json").json
    assert (shown["kind"], shown["preprocessing"], shown["check"]) == ("onnx", pixels, record["check"])
    assert TERMS in lupctl(f"model info {made / 'bot.onnx'}").out


def test_terms_of_published_weights_are_those_noted_when_they_were_fetched(tmp_path: Path) -> None:
    path = tmp_path / "published.safetensors"
    header = make_header(stage="convert", parents={"source": "sha256:2"})
    write_checkpoint(path, {"a": torch.zeros(1)}, header)
    assert find_terms(read_checkpoint(path)) == []
    for fingerprint, told in (("sha256:2", ["published: research only"]), ("sha256:3", [])):
        note = {"name": "published", "terms": "research only", "sha256": fingerprint}
        (tmp_path / "published.pth.json").write_text(json.dumps(note))
        assert find_terms(read_checkpoint(path)) == told


def test_the_same_again_gives_the_same_bytes_and_only_with_force(made: Path, lupctl: Shell) -> None:
    before = (made / "bot.onnx").read_bytes()
    ran = lupctl(f"model export {made / 'bot.safetensors'}")
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {made / 'bot.onnx'}: exists already and would be overwritten\nhint: add --force" in ran.err
    assert (made / "bot.onnx").read_bytes() == before
    export(ExportJob(made / "bot.safetensors", made / "bot.onnx", force=True, command=("lupctl", "model", "export")))
    assert (made / "bot.onnx").read_bytes() == before


def test_a_run_by_its_name_or_the_newest(
    made: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    trace_again(monkeypatch, made)
    run = tmp_path / "lup" / "runs" / "mine"
    run.mkdir(parents=True)
    (run / "checkpoint.safetensors").write_bytes((made / "bot.safetensors").read_bytes())
    (run / "run.json").write_text(json.dumps({"command": "finetune"}))
    plan = lupctl("model export mine --dry-run --json").json
    assert plan == {
        "schema": "lupctl.export-plan/1", "checkpoint": "lup/runs/mine/checkpoint.safetensors",
        "out": "lup/runs/mine/checkpoint.onnx", "network": "r18 width 4, gem pooling, head bnneck (finetune)",
        "height": 48, "width": 32, "about_bytes": (run / "checkpoint.safetensors").stat().st_size,
    }  # fmt: skip
    assert sorted(path.name for path in run.iterdir()) == ["checkpoint.safetensors", "run.json"]
    ran = lupctl("model export --out deep/mine.onnx")
    assert (ran.code, ran.out) == (0, "deep/mine.onnx\n")
    assert re.fullmatch(
        r"run: lup/runs/mine \(the newest fine-tuning run\)\n"
        r"r18 width 4, gem pooling, head bnneck \(finetune\): 32 numbers per image of 48 x 32, 0\.\d MiB\n"
        r"largest difference between onnxruntime and PyTorch: \d\.\de-\d\d\n",
        ran.err,
    )
    lost = lupctl("model export luperson-r50")
    assert (lost.code, "hint: lupctl model download luperson-r50 --accept-terms" in lost.err) == (3, True)


@pytest.mark.parametrize("package", ["onnx", "onnxruntime", "onnxscript"])
def test_without_the_extra(made: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    lines = [f"model export {made / 'bot.safetensors'} --out a.onnx"]
    reading = f"model info {made / 'bot.onnx'}"
    if package != "onnx":
        assert lupctl(reading).code == 0, "what an exported file says of itself needs the least"
    for line in (*lines, f"{lines[0]} --dry-run", *([reading] if package == "onnx" else [])):
        ran = lupctl(line)
        assert (ran.code, ran.out) == (2, "")
        assert ran.err == (
            f"error: an ONNX file needs the package {package}, which is not installed\n"
            "hint: pip install 'lupctl[export]'\n"
        )
    assert not Path("a.onnx").exists()


@pytest.mark.parametrize("wrong", [1e-3, np.nan])
def test_features_that_differ_leave_no_file(
    made: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, wrong: float
) -> None:
    real = run_model

    def tamper(path: Path, batches: list[Any]) -> Any:
        first, second = real(path, batches)
        second[2, 7] += wrong
        return [first, second]

    monkeypatch.setattr(stage, "run_model", tamper)
    trace_again(monkeypatch, made)
    Path("here.onnx").write_text("mine")
    for out in ("a.onnx", "here.onnx --force"):
        ran = lupctl(f"model export {made / 'bot.safetensors'} --out {out}")
        assert (ran.code, ran.out) == (3, "")
        told = "nan" if np.isnan(wrong) else "1.0e-03"
        assert f"not written; onnxruntime's features differ from PyTorch's by {told}, more than 1e-04" in ran.err
    assert [path.name for path in tmp_path.iterdir()] == ["here.onnx"]
    assert Path("here.onnx").read_text() == "mine"


def test_what_cannot_be_exported(made: Path, lupctl: Shell, tmp_path: Path) -> None:
    Path("broken.safetensors").write_bytes((made / "bot.safetensors").read_bytes()[:1000])
    torch.save({}, "foreign.pth")
    for line, code, message in (
        ("broken.safetensors", 3, "broken.safetensors: not a complete safetensors file"),
        ("foreign.pth", 3, "foreign.pth: a PyTorch file; a lupctl checkpoint was expected"),
        ("nowhere", 3, "no checkpoint 'nowhere'"),
        (f"{made / 'bot.onnx'} --out {made / 'bot.onnx'} --force", 2, "bot.onnx: is the network that would be"),
        (f"{made / 'bot.safetensors'} --out bot.pth", 2, "bot.pth: expected a name that ends in .onnx"),
    ):
        ran = lupctl(f"model export {line}")
        assert (ran.code, ran.out) == (code, "")
        assert message in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.safetensors", "foreign.pth"]


def test_the_default_file_is_never_the_network_itself(lupctl: Shell) -> None:
    write_foreign(Path("net.onnx"))
    how = "--pixels 32x16 --mean imagenet --std imagenet"
    before = Path("net.onnx").read_bytes()
    ran = lupctl(f"model export net.onnx {how}")
    assert (ran.code, ran.out) == (0, "net-lupctl.onnx\n"), ran.err
    assert Path("net.onnx").read_bytes() == before
    assert lupctl(f"model export net.onnx {how} --precision float16 --dry-run --json").json["out"] == "net.float16.onnx"


def test_hints_name_files_that_are_taken(made: Path, lupctl: Shell) -> None:
    write_foreign(Path("net.onnx"))
    how = "net.onnx --pixels 32x16 --mean imagenet --std imagenet"
    Path("a folder").mkdir()
    for line, out, message, meant in (
        (how, "net.onnx", "net.onnx: is the network that would be exported", "net-lupctl.onnx"),
        (how, ".", ".: expected a name that ends in .onnx", "net-lupctl.onnx"),
        (how, "'a folder'", "a folder: expected a name", "'a folder/net-lupctl.onnx'"),
        (f"{made / 'bot.safetensors'}", ".", ".: expected a name that ends in .onnx", "bot.onnx"),
        (f"{made / 'bot.safetensors'}", "'a folder/bot'", "expected a name", "'a folder/bot.onnx'"),
        (f"{made / 'bot.onnx'} --format openvino", "./.xml", "expected a name that ends in .xml", ".xml.xml"),
    ):
        ran = lupctl(f"model export {line} --out {out}")
        assert (ran.code, f"hint: --out {meant}\n" in ran.err) == (2, True), ran.err
        assert message in ran.err
        assert lupctl(f"model export {line} --out {meant} --dry-run").code == 0


def test_files_that_are_no_exports(made: Path, lupctl: Shell) -> None:
    Path("broken.onnx").write_bytes((made / "bot.onnx").read_bytes()[:5000])
    model = onnx.load(made / "bot.onnx")
    record = json.loads(model.metadata_props[0].value)
    onnx.helper.set_model_props(model, {"lupctl": json.dumps(record | {"format": 99})})
    onnx.save(model, "newer.onnx")
    del model.metadata_props[:]
    onnx.save(model, "foreign.onnx")
    for name, message in (
        ("gone", "there is no such file"), ("broken", "not a complete ONNX file"),
        ("foreign", "an ONNX file without lupctl's record"), ("newer", "format 99; this lupctl reads format 1"),
    ):  # fmt: skip
        ran = lupctl(f"model info {name}.onnx")
        assert (ran.code, f"error: {name}.onnx: {message}" in ran.err) == (3, True), ran.err


def test_the_lines_of_the_manual(made: Path, lupctl: Shell, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = re.findall(r"```python\n(import json.*?)```", read_chapter("models"), re.DOTALL)
    assert {line.split()[1] for line in block.splitlines() if line.startswith(("import", "from"))} == {
        "json", "numpy", "onnxruntime", "PIL"
    }  # fmt: skip
    Path("mgn.onnx").write_bytes((made / "bot.onnx").read_bytes())
    draw_images(tmp_path / "photos", height=128, width=56)
    for number, name in enumerate(("person.jpg", "other.jpg")):
        Image.open(f"photos/{number}.png").save(name, quality=100, subsampling=0)
    exec(compile(block, "models.md", "exec"), {})
    cosine = float(capsys.readouterr().out)
    for name in ("person.jpg", "other.jpg"):
        Image.open(name).save(Path("photos") / f"{name}.png")
    assert lupctl(f"dump {made / 'bot.safetensors'} photos --device cpu --workers 0 --out f.h5").code == 0
    features = read_features(Path("f.h5"))
    rows = [features.samples.name.index(f"{name}.jpg.png") for name in ("person", "other")]
    first, second = np.asarray(features.features)[rows]
    expected = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert cosine == pytest.approx(expected, abs=0.01), "Pillow rounds what it resized to whole grey levels"
    assert expected < 0.99
