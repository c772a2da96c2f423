"""`model bench`: sizes against their definitions, passes that are passes, and what is refused."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lupctl.core.flows.machine import bench as flow
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.formats.weights.runtimes.open import network_fingerprint
from lupctl.core.recipes.sections import Pixels
from lupctl.core.stages.bench import memory, run
from lupctl.core.stages.bench.checkpoint import TorchRunner, count_flops, count_parameters, describe_checkpoint
from lupctl.core.stages.bench.graph import count_flops as count_graph_flops
from lupctl.core.stages.bench.graph import count_weights
from lupctl.core.stages.bench.model import Contender, Subject
from lupctl.core.stages.bench.onnx_file import OnnxRunner, describe_onnx
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.stages.export.run import export
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_network
from tests.tools.nets.onnx_files import DIM, HEIGHT, PATCH, WIDTH, write_foreign
from tests.tools.networks import make_header, neck, plan_network, tiny_vit
from tests.tools.shell import Shell

CPU, QUIET = torch.device("cpu"), Progress(quiet=True)
PLANS = {
    "resnet": plan_network(neck(5), last_stride=1),
    "vit": NetworkPlan(trunk=tiny_vit(rows=2, columns=1), pooling="token", head=neck(5)),
}


@pytest.fixture(scope="module", params=PLANS)
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network, with what was exported from it next to it."""
    path = make_checkpoint(tmp_path_factory.mktemp("bench") / f"{request.param}.safetensors", PLANS[request.param])
    export(ExportJob(path, path.with_suffix(".onnx")))
    return path


def header_of(plan: NetworkPlan) -> CheckpointHeader:
    return make_header(plan, preprocessing=describe_pixels(Pixels(height=32, width=16)))


def make_checkpoint(path: Path, plan: NetworkPlan) -> Path:
    torch.manual_seed(0)
    write_checkpoint(path, build_network(plan).state_dict(), header_of(plan))
    return path


def product(height: int, width: int, more: int) -> onnx.ModelProto:
    """(1, 3, height, width) by a convolution of 2 x 2 to 4 channels in 1 group, then a product with (4, more)."""
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["maps"]),
        helper.make_node("GlobalAveragePool", ["maps"], ["pooled"]),
        helper.make_node("Reshape", ["pooled", "shape"], ["rows"]),
        helper.make_node("Gemm", ["rows", "m"], ["features"], transB=1),
    ]
    constants = [
        numpy_helper.from_array(np.ones((4, 3, 2, 2), np.float32), "w"),
        numpy_helper.from_array(np.ones((more, 4), np.float32), "m"),
        numpy_helper.from_array(np.array([-1, 4]), "shape"),
    ]
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, height, width])],
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, ["n", more])],
        constants,
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_flops_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(product(8, 6, 10), str(path))
    given = {"images": np.zeros((1, 3, 8, 6), np.float32)}
    # 7 x 5 places of 4 channels, each of 3 x 2 x 2 products; then 10 numbers of 4 products.
    assert count_graph_flops(path, given) == 2 * (7 * 5 * 4 * 12 + 10 * 4)
    assert count_weights(path) == 4 * 3 * 2 * 2 + 10 * 4  # and not the two numbers of the shape
    assert count_graph_flops(path, {"images": np.zeros((2, 3, 8, 6), np.float32)}) == 4 * (7 * 5 * 4 * 12 + 10 * 4)
    # What does not run, and what may hide anything, is not known.
    assert count_graph_flops(path, {"images": np.zeros((1, 2, 8, 6), np.float32)}) is None
    model = product(8, 6, 10)
    model.graph.node[0].domain = "com.example"
    onnx.save(model, str(path))
    assert count_graph_flops(path, given) is None


def test_sizes_of_a_foreign_network(tmp_path: Path) -> None:
    found = describe_onnx("o", write_foreign(tmp_path / "o.onnx", batch=4), None)
    assert (found.height, found.width, found.parameters) == (HEIGHT, WIDTH, DIM * 3 * PATCH * PATCH)
    # Of one image, although it always takes four.
    assert found.flops == 2 * DIM * (HEIGHT // PATCH) * (WIDTH // PATCH) * 3 * PATCH * PATCH


def test_an_export_has_the_sizes_of_its_network(checkpoint: Path) -> None:
    torch_, onnx_ = describe_checkpoint("a", checkpoint), describe_onnx("b", checkpoint.with_suffix(".onnx"), None)
    assert torch_.flops is not None
    assert onnx_.flops is not None
    # A graph computes the last block for all tokens, where PyTorch does without all but the first one's.
    most = torch_.flops if checkpoint.stem == "resnet" else 1.5 * torch_.flops
    assert torch_.flops <= onnx_.flops <= most
    assert torch_.fingerprint == onnx_.fingerprint
    assert (torch_.height, torch_.width) == (onnx_.height, onnx_.width)
    # Norms are folded into convolutions, and constants of pixels and positions come in.
    assert abs(torch_.parameters - onnx_.parameters) < 0.1 * torch_.parameters


def test_parameters_are_those_of_features() -> None:
    plan = PLANS["resnet"]
    network = build_network(plan)
    network.eval().embed(torch.zeros(1, 3, 32, 16)).sum().backward()
    used = sum(value.numel() for value in network.parameters() if value.grad is not None)
    frozen = sum(value.numel() for value in network.parameters() if not value.requires_grad)
    header = header_of(plan)
    assert count_parameters(header) == used + frozen
    assert count_flops(header) == count_flops(header_of(plan_network(neck(500), last_stride=1)))


def test_passes_give_features(checkpoint: Path) -> None:
    found = TorchRunner(checkpoint, CPU).prepare(3)()
    exported = checkpoint.with_suffix(".onnx")
    ours: Any = OnnxRunner(exported, (32, 16), "onnxruntime").prepare(3)()
    theirs: Any = OnnxRunner(exported, (32, 16), "openvino").prepare(3)()
    # Other random pixels than PyTorch's, but the same network: unit features of the same length.
    assert isinstance(found, torch.Tensor)
    assert found.shape == ours[0].shape
    torch.testing.assert_close(found.norm(dim=1), torch.ones(3))
    np.testing.assert_allclose(np.linalg.norm(ours[0], axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(ours[0], theirs[0], atol=1e-5)


def sleeper(name: str, seconds: float, log: list[str], only: int | None = None) -> Contender:
    """A network that takes so long for each image."""

    class Sleeper:
        def __init__(self) -> None:
            self.only = only

        def prepare(self, batch: int) -> Callable[[], object]:
            return lambda: (log.append(name), time.sleep(batch * seconds))

    subject = Subject(name, Path(name), "", "", 2, 1, 0, None)
    return Contender(subject, "torch", Sleeper)


def test_passes_take_turns() -> None:
    log: list[str] = []
    timed, notes = run.time_contenders(
        [sleeper("slow", 0.004, log), sleeper("quick", 0.001, log)], [1, 3], CPU, seconds=0.0, progress=QUIET
    )  # fmt: skip
    assert notes == []
    assert [(one.name, one.batch, one.rounds) for one in timed] == [
        ("slow", 1, 5), ("quick", 1, 5), ("slow", 3, 5), ("quick", 3, 5)
    ]  # fmt: skip
    # Each warms up with 1, 2, 1 and 3 images, twice; then rounds whose first one changes.
    assert log[:16] == ["slow"] * 8 + ["quick"] * 8
    assert log[16:22] == ["slow", "quick", "quick", "slow", "slow", "quick"]
    for one in timed:
        assert one.median_ms <= one.p95_ms
        assert one.images_per_s == pytest.approx(1e3 * one.batch / one.median_ms)
    assert 4 <= timed[0].median_ms < 40
    assert timed[2].median_ms >= 12


def test_a_fixed_batch_is_the_only_one() -> None:
    timed, notes = run.time_contenders(
        [sleeper("four", 0.0, [], only=4), sleeper("any", 0.0, [])], [1, 4], CPU, seconds=0.0, progress=QUIET
    )  # fmt: skip
    assert [(one.name, one.batch) for one in timed] == [("four", 4), ("any", 4), ("any", 1)]
    assert notes == ["four: always takes 4 images, so only that is run"]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is known on Linux alone")
def test_memory_is_that_of_a_pass() -> None:
    meter = memory.HostMemory()
    before = meter.start()
    numbers = np.ones(8 << 20)  # 64 MiB
    del numbers
    peak = meter.above(before)
    assert peak is not None
    assert 62 << 20 <= peak < 80 << 20  # the kernel counts pages in lots
    meter.start()
    assert meter.above(before) < 16 << 20
    assert meter.free() > 1 << 20
    # An absent file of the kernel is nothing that is known.
    assert memory._read_line(Path("/no/such/file"), "VmRSS:") == 0


def test_the_command(lupctl: Shell, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "net.safetensors", PLANS["resnet"])
    write_foreign(tmp_path / "o.onnx", sides=("h", "w"))
    ran = lupctl("model bench net.safetensors o.onnx --batch 1,3 --seconds 0 --json --pixels 64x32 --out kept")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["schema"] == "lupctl.bench/1"
    assert [one["name"] for one in ran.json["networks"]] == ["net.safetensors", "o.onnx"]
    assert [(one["height"], one["width"]) for one in ran.json["networks"]] == [(32, 16), (64, 32)]
    assert ran.json["machine"]["threads"] == 1
    assert set(ran.json["machine"]["versions"]) == {"torch", "onnxruntime", "openvino"}
    seen = {(one["name"], one["backend"], one["batch"]) for one in ran.json["runs"]}
    all_of_them = [("net.safetensors", "torch")]
    all_of_them += [
        (name, runtime) for name in ("net.safetensors", "o.onnx") for runtime in ("onnxruntime", "openvino")
    ]
    assert seen == {(name, backend, batch) for name, backend in all_of_them for batch in (1, 3)}
    assert json.loads((tmp_path / "kept" / "bench.json").read_text()) == ran.json
    assert lupctl("model bench o.onnx --batch 1 --seconds 0 --out kept").code == 2  # it exists
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "net.safetensors", "o.onnx"]


def test_a_network_in_openvino_format(lupctl: Shell, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "net.safetensors", PLANS["resnet"])
    for name in ("net.onnx", "net.xml"):
        kind = "openvino" if name == "net.xml" else "onnx"
        assert lupctl(f"model export net.safetensors --format {kind} --out {name}").code == 0
    ran = lupctl("model bench net.onnx net.xml --batch 2 --seconds 0 --json --out kept")
    assert (ran.code, ran.err) == (0, "")
    seen = [(one["name"], one["backend"]) for one in ran.json["runs"]]
    assert sorted(seen) == [("net.onnx", "onnxruntime"), ("net.onnx", "openvino"), ("net.xml", "openvino")]
    whole, graph = ran.json["networks"]
    assert [graph[key] for key in ("height", "width", "flops")] == [whole[key] for key in ("height", "width", "flops")]
    assert graph["parameters"] == pytest.approx(whole["parameters"], rel=0.02), "norms are folded"
    assert graph["fingerprint"] == whole["fingerprint"], "of the checkpoint, whose features both give"
    row = next(
        line for line in lupctl("model bench net.xml --batch 1 --seconds 0").out.splitlines() if "net.xml" in line
    )
    assert row.split()[:3] == ["net.xml", "openvino", "1"]
    refused = lupctl("model bench net.xml --backend onnxruntime")
    assert (refused.code, refused.err) == (
        2, "error: net.xml: run by openvino, not by onnxruntime\nhint: --backend openvino --device cpu\n"
    )  # fmt: skip
    Path("net.bin").unlink()
    assert lupctl("model bench net.xml").code == 3


def test_int8_is_a_network_of_its_own(lupctl: Shell, tmp_path: Path, labelled: Path) -> None:
    make_checkpoint(tmp_path / "net.safetensors", PLANS["resnet"])
    write_foreign(tmp_path / "o.onnx")
    line = f"--precision int8 --calibrate {labelled}"
    assert lupctl(f"model export net.safetensors {line} --out a.onnx").code == 0
    assert lupctl(f"model export o.onnx --mean imagenet --std imagenet {line} --out b.onnx").code == 0
    ran = lupctl("model bench net.safetensors a.onnx b.onnx --batch 1 --seconds 0 --json --backend onnxruntime")
    assert ran.code == 0, ran.err
    prints = [one["fingerprint"] for one in ran.json["networks"]]
    assert len(set(prints)) == 3, "its mAP is not that of the checkpoint"
    assert prints[1] == network_fingerprint(tmp_path / "a.onnx")


def test_the_table(lupctl: Shell, tmp_path: Path) -> None:
    write_foreign(tmp_path / "o.onnx", batch=2)
    ran = lupctl("model bench o.onnx --seconds 0")
    assert (ran.code, ran.err) == (0, "o.onnx: always takes 2 images, so only that is run\n")
    row = next(line.split() for line in ran.out.splitlines() if "o.onnx" in line)
    assert row[:3] == ["o.onnx", "onnxruntime", "2"]
    assert row[-2:] == ["0.00", "0.00"]  # millions of parameters, and GFLOPs
    assert "one thread each, in turns; onnxruntime 1." in ran.out


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("net.safetensors --batch 0", 2, "--batch 0: numbers of images from 1 were expected, not '0'"),
        ("net.safetensors --batch a", 2, "--batch a: numbers of images from 1 were expected, not 'a'"),
        ("net.safetensors --batch 1,,2", 2, "--batch 1,,2: numbers of images"),
        ("net.safetensors --batch 99999999", 2, "--batch 99999999: numbers of images"),
        ("net.safetensors --batch 9999999 --backend torch", 5, "--batch 9999999: net.safetensors takes about"),
        ("net.safetensors net.safetensors", 2, "net.safetensors: named twice"),
        ("net.safetensors ./net.safetensors", 2, "net.safetensors and ./net.safetensors: the same file"),
        ("net.safetensors --backend tensorrt", 2, "--backend tensorrt: torch, onnxruntime"),
        ("o.onnx --backend torch", 2, "o.onnx: run by onnxruntime or openvino, not by torch"),
        ("net.safetensors --device cuda", 5, "--device cuda: this machine has"),
        ("net.safetensors --pixels 64x32", 2, "--pixels: a checkpoint says how large its images are"),
        ("o.onnx --pixels 64x32", 2, "o.onnx: takes images of 32x16, not of 64x32"),
        ("o.onnx --pixels 64", 2, "--pixels 64: height and width were expected"),
        ("any.onnx", 2, "any.onnx: takes images of any size"),
        ("nothing.onnx", 3, "no checkpoint 'nothing.onnx'"),
        ("broken.onnx", 3, "broken.onnx: not a complete ONNX file"),
        ("nothing", 3, "no checkpoint 'nothing'"),
    ],
)
def test_what_is_refused(lupctl: Shell, tmp_path: Path, line: str, code: int, message: str) -> None:
    make_checkpoint(tmp_path / "net.safetensors", PLANS["resnet"])
    write_foreign(tmp_path / "o.onnx")
    write_foreign(tmp_path / "any.onnx", sides=("h", "w"))
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x08")
    ran = lupctl(f"model bench {line} --seconds 0")
    assert ran.code == code
    assert ran.err.splitlines()[0].startswith(f"error: {message}")
    assert ran.err.splitlines()[1].startswith("hint: ")


def test_two_files_of_one_name_are_two_networks(lupctl: Shell, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write_foreign(tmp_path / folder / "o.onnx")
    ran = lupctl("model bench a/o.onnx b/o.onnx --batch 1 --seconds 0 --json --backend onnxruntime")
    assert [one["name"] for one in ran.json["runs"]] == ["a/o.onnx", "b/o.onnx"]


def test_a_backend_that_is_missing(lupctl: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_checkpoint(tmp_path / "net.safetensors", PLANS["resnet"])
    monkeypatch.setattr(flow, "_lacking", lambda name: "" if name == "torch" else "onnx")
    ran = lupctl("model bench net.safetensors --batch 1 --seconds 0 --json")
    assert [one["backend"] for one in ran.json["runs"]] == ["torch"]
    assert ran.err.splitlines() == [
        "onnxruntime: left out, onnx is not installed; pip install 'lupctl[export]'",
        "openvino: left out, onnx is not installed; pip install 'lupctl[export,openvino]'",
    ]
    assert ran.json["notes"] == ran.err.splitlines()
    ran = lupctl("model bench net.safetensors --backend torch,onnxruntime")
    assert (ran.code, ran.err.splitlines()[0]) == (
        2, "error: --backend onnxruntime: needs onnx, which is not installed"
    )  # fmt: skip
    assert ran.err.splitlines()[1] == "hint: pip install 'lupctl[export]'"
    write_foreign(tmp_path / "o.onnx")
    assert lupctl("model bench o.onnx").code == 2


@pytest.mark.slow
def test_an_exported_network_is_faster_than_eager(lupctl: Shell, tmp_path: Path) -> None:
    """The reach: 1.3 times at one image; measured side by side, so that other work slows both."""
    make_checkpoint(tmp_path / "net.safetensors", plan_network(neck(5), "r50", width=64, last_stride=1))
    runs = lupctl("model bench net.safetensors --batch 1 --seconds 5 --json --device cpu").json["runs"]
    found = {one["backend"]: one["median_ms"] for one in runs}
    assert found["torch"] / found["onnxruntime"] > 1.1
