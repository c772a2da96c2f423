"""Exports in int8, float16 and OpenVINO's format: what they cost, what is recorded, and when nothing is written."""

import os
import signal
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.errors import DataError
from lupctl.core.flows.loaded.load import load
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.stages.export.calibration import IMAGES, choose_calibration
from lupctl.core.stages.export.proof import compare
from lupctl.core.stages.export.quantize.bias import correct_biases, mean_output, measure_means
from lupctl.core.stages.export.quantize.floats import leave_in_float
from lupctl.core.stages.export.quantize.graph import choose_layers, find_layers, fold
from lupctl.core.stages.export.quantize.int8 import measure_ranges, quantize
from lupctl.core.stages.export.quantize.rounding import cut_patches, measure_moments, round_rows, round_weights
from lupctl.core.stages.export.quantize.search import compute, cosines, find_floats
from lupctl.core.system.progress.lines import Progress
from tests.tools.drawn_packs import pack_drawn, repack
from tests.tools.nets.exported import write_exported
from tests.tools.nets.onnx_files import write_foreign
from tests.tools.shell import Shell

HOW = "--pixels 32x16 --mean 0.4,0.5,0.6 --std 0.2,0.3,0.25"
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a checkpoint `net.safetensors` of random weights, and `net.onnx` made of it."""
    return write_exported(tmp_path_factory.mktemp("made"))


@pytest.fixture(scope="module")
def graph(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return fold(made / "net.onnx", tmp_path_factory.mktemp("fold"))


@pytest.fixture(scope="module")
def batches() -> list[dict[str, Any]]:
    random = np.random.default_rng(0)
    return [{"images": random.integers(0, 256, (4, 64, 32, 3), dtype=np.uint8)} for _ in range(4)]


@pytest.fixture(scope="module")
def ranges(graph: Any, batches: list[dict[str, Any]]) -> Any:
    return measure_ranges(graph, find_layers(graph, name="net"), batches, "percentile")


def test_layers_have_the_names_of_their_modules(graph: Any) -> None:
    layers = find_layers(graph, name="net")
    names = list(layers.weighted.values())
    assert names[:2] == ["backbone.conv1", "backbone.layer1.0.conv1"]
    assert len(names) == 20, "the convolutions of a ResNet-18"
    kinds = {node.name: node.op_type for node in graph.graph.node}
    assert "BatchNormalization" not in {kinds[name] for name in (*layers.weighted, *layers.between)}
    assert {kinds[name] for name in layers.between} == {"Relu", "MaxPool"}
    assert {"Cast", "Sub", "ReduceL2"} <= {kinds[name] for name in layers.outside}


def test_int8_keeps_directions_and_a_corrected_bias_keeps_more(
    graph: Any, ranges: Any, batches: list[dict[str, Any]]
) -> None:
    wanted = compute(graph, batches)
    quantized = quantize(ranges)
    kept = cosines(compute(quantized, batches), wanted)
    assert 0.9 < kept.mean() < 0.99999
    weights = [one for one in quantized.graph.initializer if one.data_type == onnx.TensorProto.INT8 and one.dims]
    assert max(int(np.abs(numpy_helper.to_array(one)).max()) for one in weights) <= 64, "seven bits"
    assert sum(len(one.dims) == 4 for one in weights) == 20, "no weight is left in float"
    count = correct_biases(quantized, graph, ranges.layers, measure_means(graph, ranges.layers, batches))
    assert count == 20
    assert cosines(compute(quantized, batches), wanted).mean() > kept.mean()
    better = quantize(ranges)
    assert round_weights(better, graph, ranges.layers, measure_moments(graph, ranges.layers, batches), QUIET) == 20
    assert cosines(compute(better, batches), wanted).mean() > kept.mean()


def test_layers_in_float_again(graph: Any, ranges: Any, batches: list[dict[str, Any]]) -> None:
    wanted, quantized = compute(graph, batches), quantize(ranges)
    whole = 1 - cosines(compute(quantized, batches), wanted).mean()
    names = list(ranges.layers.weighted)
    errors = [
        1 - cosines(compute(leave_in_float(quantized, graph, some), batches), wanted).mean()
        for some in (names[:10], names)
    ]
    assert errors[1] < errors[0] < whole
    assert errors[1] < whole / 5
    back = leave_in_float(quantized, graph, names)
    assert not [one for one in back.graph.initializer if one.data_type == onnx.TensorProto.INT8 and len(one.dims) == 4]


def test_the_mean_of_an_output_is_that_of_a_convolution_far_from_borders() -> None:
    random = np.random.default_rng(0)
    for groups, kernel in ((1, 3), (2, 1), (4, 3)):
        weights = random.standard_normal((8, 4 // groups, kernel, kernel))
        mean = random.standard_normal(4)
        images = torch.from_numpy(np.broadcast_to(mean[None, :, None, None], (1, 4, 9, 9)).copy())
        found = nn.functional.conv2d(images, torch.from_numpy(weights), groups=groups)[0, :, 3, 3].numpy()
        assert mean_output(weights, mean) == pytest.approx(found)


def test_patches_are_what_a_convolution_multiplies() -> None:
    random = np.random.default_rng(0)
    maps = random.standard_normal((2, 4, 9, 7)).astype(np.float32)
    for groups, kernel, stride, pad, dilation in ((1, 3, 2, 1, 1), (2, 1, 1, 0, 1), (4, 3, 1, 2, 2)):
        weights = random.standard_normal((8, 4 // groups, kernel, kernel)).astype(np.float32)
        wanted = nn.functional.conv2d(
            torch.from_numpy(maps), torch.from_numpy(weights), None, stride, pad, dilation, groups
        ).numpy()
        rows = cut_patches(
            maps, (kernel, kernel), groups=groups, strides=(stride,) * 2, pads=(pad,) * 4, dilations=(dilation,) * 2
        )
        found = np.einsum("gpi,goi->gop", rows, weights.reshape(groups, 8 // groups, -1)).reshape(8, -1)
        assert found == pytest.approx(wanted.transpose(1, 0, 2, 3).reshape(8, -1), abs=1e-4)


@pytest.mark.parametrize("groups", [1, 3])
def test_rounding_for_inputs_changes_outputs_less(groups: int) -> None:
    random = np.random.default_rng(0)
    inputs = random.standard_normal((groups, 500, 4)) @ random.standard_normal((groups, 4, 12))
    inputs += 0.1 * random.standard_normal(inputs.shape)
    rows, steps = random.uniform(-1, 1, (6 * groups, 12)), np.full(6 * groups, 1 / 20)
    moments = inputs.transpose(0, 2, 1) @ inputs

    def error(numbers: Any) -> float:
        lost = (numbers * steps[:, None] - rows).reshape(groups, 6, 12)
        return float((np.einsum("gpi,goi->gop", inputs, lost) ** 2).mean())

    nearest = np.rint(rows / steps[:, None])
    found = round_rows(rows, steps, moments)
    assert error(found) < 0.6 * error(nearest)
    assert np.abs(found - nearest).max() <= 8
    alone = round_rows(rows, steps, np.broadcast_to(np.eye(12), (groups, 12, 12)))
    assert (alone == nearest).all(), "inputs that have nothing in common"
    assert (round_rows(rows, steps, np.zeros((groups, 12, 12))) == nearest).all(), "nor those that are always 0"
    assert np.abs(round_rows(100 * rows, steps, moments)).max() == 64, "seven bits"


def test_layers_that_would_not_get_smaller(tmp_path: Path, labelled: Path, lupctl: Shell) -> None:
    write_foreign(tmp_path / "net.onnx")
    graph = fold(tmp_path / "net.onnx", tmp_path)
    layers = find_layers(graph, name="net")
    assert choose_layers(graph, layers, name="net") == layers
    weights = next(one for one in graph.graph.initializer if one.name == "w")
    weights.CopyFrom(numpy_helper.from_array(np.zeros((20, 4, 1, 1), np.float32), "w"))
    with pytest.raises(DataError, match="net: no layer is smaller in int8") as caught:
        choose_layers(graph, layers, name="net")
    assert "--precision float16" in caught.value.hint


def test_the_search_ends_where_no_layer_is_worth_it() -> None:
    names = [f"layer{number}" for number in range(64)]

    def error_without(hurts: dict[str, float]) -> Any:
        return lambda kept: sum(hurts.get(name, 0.0005) for name in names if name not in kept)

    found = find_floats(names, error_without({"layer37": 0.2}), QUIET)
    assert found.floats == ("layer37",)
    assert found.trials < 40, "not one for each layer"
    spread = find_floats(names, error_without({}), QUIET)
    assert (spread.floats, spread.trials) == ((), 9), "an error of all layers ends after two rounds of four groups"
    assert find_floats(names, lambda kept: 0.001, QUIET).trials == 1
    with_two = find_floats(names, error_without({"layer3": 0.3, "layer60": 0.4}), QUIET)
    assert set(with_two.floats) == {"layer3", "layer60"}
    assert list(with_two.errors) == sorted(with_two.errors, reverse=True)


def test_calibration_takes_training_images_and_never_tested_ones(labelled: Path, tmp_path: Path) -> None:
    chosen = choose_calibration(labelled, labelled)
    role = open_pack(labelled).samples.role
    assert (role[chosen.rows] == ROLE_CODES["train"]).all()
    assert len(chosen.rows) == min(IMAGES, int((role == ROLE_CODES["train"]).sum()))
    assert (chosen.rows == choose_calibration(labelled, None).rows).all(), "the same ones every time"


@pytest.mark.parametrize("format_", ["onnx", "openvino"])
def test_int8_is_proved_and_recorded(format_: str, made: Path, labelled: Path, lupctl: Shell) -> None:
    suffix = {"onnx": "onnx", "openvino": "xml"}[format_]
    line = f"model export {made / 'net.onnx'} --format {format_} --precision int8 --calibrate {labelled}"
    ran = lupctl(f"{line} --prove {labelled} --max-drop 100 --out small.{suffix} --json")
    assert ran.code == 0, ran.err
    proof = ran.json["proof"]
    record = lupctl(f"model info small.{suffix} --json").json
    assert record["proof"] == proof
    assert record["check"]["difference"] == ran.json["difference"] > 1e-4, "of this file, not of the graph before it"
    assert "tolerance" not in record["check"]
    assert (record["kind"], record["precision"]) == (format_, "int8")
    story = record["quantization"]
    assert story["calibration"]["fingerprint"] == open_pack(labelled).fingerprint
    assert (story["calibration"]["images"], story["layers"], story["rule"]) == (36, 19, "percentile 99.999")
    assert (story["rounded_layers"], story["corrected_biases"], story["small_layers"]) == (19, 19, 1)
    assert ran.json["bytes"] == sum(path.stat().st_size for path in Path().glob("small.*"))
    # The same numbers as by hand.
    assert lupctl(f"dump {made / 'net.onnx'} {labelled} --out a.features.h5 --workers 0 --quiet").code == 0
    assert lupctl(f"dump small.{suffix} {labelled} --out b.features.h5 --workers 0 --quiet").code == 0
    for name, side in (("a", "before"), ("b", "after")):
        scores = lupctl(f"eval {name}.features.h5 --out {name}.json --device cpu --json").json["scores"]
        assert proof["map"][side] == pytest.approx(scores["map"], abs=1e-6)
        assert proof["rank1"][side] == pytest.approx(scores["cmc"]["1"], abs=1e-6)
    found, wanted = (np.asarray(read_features(Path(f"{name}.features.h5")).features) for name in "ba")
    assert cosines(found, wanted).mean() == pytest.approx(proof["cosines"]["own_mean"], abs=1e-5)
    assert np.abs(found - wanted).max() > 1e-4, "int8 is another network"
    # ... whose thresholds are its own.
    exported, whole = load(f"small.{suffix}"), load(made / "net.onnx")
    assert exported.dimension == whole.dimension
    heads = [read_features(Path(f"{name}.features.h5")).record["parents"]["checkpoint"] for name in "ab"]
    assert heads[0] != heads[1]


def test_too_large_a_drop_writes_nothing(
    made: Path, labelled: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def lose(before: Any, after: Any) -> Any:
        found = compare(before, after)
        return replace(found, map=replace(found.map, difference=-0.0123))

    monkeypatch.setattr("lupctl.core.stages.export.proof.compare", lose)
    line = f"model export {made / 'net.onnx'} --prove {labelled}"
    ran = lupctl(f"{line} --max-drop 0.5 --out small.onnx")
    assert (ran.code, ran.out) == (4, "")
    told = "small.onnx: not written; mAP on labelled drops by 1.23 points, more than the 0.5 that --max-drop allows"
    assert told in ran.err
    assert "hint: --precision float32, or --max-drop 1.3" in lupctl(f"{line} --precision float16 --max-drop 0.5").err
    assert "hint: --max-drop 1.3" in ran.err, "there is nothing more exact"
    assert list(tmp_path.iterdir()) == []
    assert lupctl(f"{line} --max-drop 1.5 --out small.onnx").code == 0


def test_halves_move_features_little(made: Path, lupctl: Shell) -> None:
    ran = lupctl(f"model export {made / 'net.onnx'} --precision float16 --out half.onnx --json")
    assert ran.code == 0, ran.err
    assert 0 < ran.json["difference"] < 2e-3
    assert ran.json["bytes"] < 0.6 * (made / "net.onnx").stat().st_size
    half = lupctl("model info half.onnx --json").json["check"]
    assert half == {"images": 4, "onnxruntime": version("onnxruntime"), "difference": ran.json["difference"]}
    assert lupctl(f"model export {made / 'net.onnx'} --format openvino --precision float16 --out half.xml").code == 0
    assert lupctl(f"model export {made / 'net.onnx'} --format openvino --out whole.xml").code == 0
    whole = lupctl("model info whole.xml --json").json["check"]
    assert (whole["tolerance"], whole["openvino"]) == (1e-4, version("openvino")), "its own, not that of net.onnx"
    assert Path("half.bin").stat().st_size < 0.6 * Path("whole.bin").stat().st_size
    again = lupctl("model export half.onnx --precision int8 --calibrate labelled --out a.onnx")
    assert again.code == 3, "there is no such pack here"


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 75), ("SIGINT", 130)])
@pytest.mark.parametrize("place", ["export.precision.measure_ranges", "dump.run.wait_for_all", "export.proof.compare"])
def test_stopped_on_the_way(
    place: str, name: str, code: int, made: Path, labelled: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(*given: Any, **more: Any) -> None:
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(0.5)

    monkeypatch.setattr(f"lupctl.core.stages.{place}", ask)
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)  # else a mistake would end the tests
    try:
        line = f"model export {made / 'net.onnx'} --precision int8 --calibrate {labelled} --prove {labelled}"
        ran = lupctl(f"{line} --out small.onnx --quiet")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (ran.code, ran.out) == (code, "")
    assert ran.err == "error: small.onnx: not written, stopped on request\nhint: type the same command again\n"
    assert list(Path().iterdir()) == []


def test_a_network_of_another_program_keeps_its_way_of_being_fed(labelled: Path, lupctl: Shell, tmp_path: Path) -> None:
    write_foreign(tmp_path / "net.onnx", sides=("h", "w"))
    line = f"model export net.onnx {HOW} --precision int8 --calibrate {labelled}"
    ran = lupctl(f"{line} --out small.onnx --json")
    assert ran.code == 0, ran.err
    assert ran.json["record"]["preprocessing"]["mean"] == [0.4, 0.5, 0.6]
    whole = load("net.onnx", pixels="32x16", mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    small = load("small.onnx")
    assert small.size == (32, 16)
    pack = open_pack(labelled)
    images = [pack.read(row) for row in range(6)]
    assert cosines(small.embed(images), whole.embed(images)).min() > 0.99
    twice = lupctl(f"model export small.onnx --precision int8 --calibrate {labelled} --out b.onnx")
    assert (twice.code, "small.onnx: is in int8 already" in twice.err) == (2, True)


@pytest.mark.parametrize(
    ("more", "code", "message", "hint"),
    [
        ("--precision int8", 2, "takes the ranges of its numbers from images of a pack", "or --precision float16"),
        ("--calibrate {labelled}", 2, "float32 has no ranges to take from images", "leave it out"),
        ("--calibration entropy", 2, "--calibration: float32 has no ranges to take from images", "--calibrate PACK"),
        ("--max-drop 0.5", 2, "--max-drop: a drop is found by a test", "add --prove DATASET"),
        ("--precision int8 --calibrate {tested}", 3, "has no training and no unlabelled images", "--calibrate PACK"),
        ("--prove {trained}", 3, "has no queries to prove anything with", "--prove PACK"),
        ("--precision int8 --calibrate {mixed} --prove {tested}", 3, "a test on them would prove nothing", "of other"),
        ("--format openvino --out a.onnx", 2, "expected a name that ends in .xml", "--out a.xml"),
    ],
)
def test_what_is_refused(
    more: str, code: int, message: str, hint: str, made: Path, labelled: Path, lupctl: Shell, tmp_path: Path
) -> None:
    small: dict[str, Any] = {"cameras": 2, "shots": 2, "height": 32, "width": 16}
    packs = {
        "labelled": labelled,
        "tested": pack_drawn(SyntheticPlan(test_persons=4, **small), tmp_path / "tested.h5", dataset="tested"),
        "trained": pack_drawn(SyntheticPlan(train_persons=4, **small), tmp_path / "trained.h5", dataset="trained"),
    }
    if "{mixed}" in more:
        trained: dict[Role, Role] = {"query": "train", "gallery": "train"}
        packs["mixed"] = repack(packs["tested"], tmp_path / "mixed.h5", trained, dataset="mixed")
    before = sorted(path.name for path in tmp_path.iterdir())
    out = "" if "--out" in more else "--out a.onnx"
    ran = lupctl(f"model export {made / 'net.onnx'} {out} {more.format(**packs)}")
    assert (ran.code, ran.out) == (code, ""), ran.err
    assert message in ran.err
    assert hint in ran.err
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_without_openvino(made: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    ran = lupctl(f"model export {made / 'net.onnx'} --format openvino --out a.xml")
    assert (ran.code, ran.out) == (2, "")
    assert "needs the package openvino, which is not installed\nhint: pip install 'lupctl[openvino]'" in ran.err


def test_openvino_files_that_cannot_be_run(made: Path, labelled: Path, lupctl: Shell) -> None:
    assert lupctl(f"model export {made / 'net.onnx'} --format openvino --out net.xml").code == 0
    weights = Path("net.bin").read_bytes()
    line = f"dump net.xml {labelled} --out f.h5 --workers 0"
    again = lupctl("model export net.xml --out b.onnx")
    assert (again.code, "exported to OpenVINO already" in again.err) == (2, True)
    Path("net.bin").write_bytes(weights[: len(weights) // 2])
    assert (lupctl(line).code, "net.xml: OpenVINO cannot" in lupctl(line).err) == (3, True)
    Path("net.bin").unlink()
    lost = lupctl(line)
    assert (lost.code, "its weights are in net.bin, and there is no such file" in lost.err) == (3, True)
    Path("net.bin").write_bytes(weights)
    text = Path("net.xml").read_text()
    Path("net.xml").write_text(text[: len(text) // 2])
    assert lupctl(line).code == 3
    assert not Path("f.h5").exists()
    assert lupctl("model info net.xml").code == 3
    Path("net.xml").write_bytes(text.encode().replace(b'type="Convolution"', b'type="Convol\xb3tion"', 1))
    assert lupctl("model info net.xml").code == 3, "what OpenVINO says of it is no text"


@pytest.mark.skipif(sys.platform == "win32", reason="limits of the system")
def test_a_disk_with_no_room_for_openvino(made: Path, labelled: Path, lupctl: Shell, tmp_path: Path) -> None:
    """OpenVINO itself says no more than "iostream error"; its graph in text is larger than that in ONNX."""
    import resource

    line = f"model export {made / 'net.onnx'} --format openvino --precision int8 --calibrate {labelled} --out net.xml"
    assert lupctl(f"{line} --quiet").code == 0
    kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    most, before = len(kept["net.xml"]) - 1, resource.getrlimit(resource.RLIMIT_FSIZE)
    assert most > (made / "net.onnx").stat().st_size, "the files on the way fit"
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        ran = lupctl(f"{line} --force")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert (ran.code, ran.out) == (3, "")
    assert "error: net.xml: this disk, or this account, does not allow a file this large" in ran.err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == kept, "what was there is there"
