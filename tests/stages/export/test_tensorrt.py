"""Exports to TensorRT: an ONNX file that it can read, and what a stand-in for trtexec was asked for and left behind.

TensorRT itself is not here: what is tested is lupctl's side of it.
"""

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from lupctl.core.stages.export.quantize.search import cosines
from tests.tools.nets.exported import write_exported
from tests.tools.nets.onnx_files import run, write_foreign
from tests.tools.shell import Shell

SHAPES = [f"--{name}Shapes=images:{count}x64x32x3" for name, count in (("min", 1), ("opt", 8), ("max", 64))]
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 64, 32, 3), dtype=np.uint8)
WRITES = """
for word in "$@"; do case "$word" in
--onnx=*) test -s "${word#--onnx=}" || exit 9 ;;
--saveEngine=*) echo engine > "${word#--saveEngine=}" ;;
esac; done
echo "$@" > words.txt
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `net.safetensors` and `net.onnx`."""
    return write_exported(tmp_path_factory.mktemp("made"))


@pytest.fixture(autouse=True)
def nothing_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No trtexec but the one that a test writes."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}/usr/bin{os.pathsep}/bin")


def write_trtexec(script: str, *, first: str = "#!/bin/sh\n") -> None:
    """A program of this name in the folder `bin`."""
    Path("bin/trtexec").write_text(first + script)
    Path("bin/trtexec").chmod(0o755)


def left() -> list[str]:
    """What is in this folder."""
    return sorted(path.name for path in Path().iterdir() if path.name != "bin")


def test_without_trtexec_the_file_is_written_and_its_command_is_printed(made: Path, lupctl: Shell) -> None:
    line = f"model export {made / 'net.safetensors'} --format tensorrt"
    ran = lupctl(f"{line} --out a.onnx --json")
    assert ran.code == 0, ran.err
    assert lupctl(f"{line} --out b.onnx --dry-run --json").json["engine"] == "not built, trtexec is not here"
    wanted = ["trtexec", "--onnx=a.onnx", "--saveEngine=a.engine", "--stronglyTyped", *SHAPES, "--skipInference"]
    assert ran.json["tensorrt"] == {"engine": None, "command": wanted}
    assert left() == ["a.onnx"]
    said = lupctl(f"{line} --out a.onnx --force")
    assert (said.code, said.out) == (0, "a.onnx\n")
    assert (
        f"no engine was built, trtexec is not here; on the machine that will run it: {shlex.join(wanted)}" in said.err
    )
    graph = onnx.load("a.onnx").graph
    takers = [node.op_type for node in graph.node if "images" in node.input]
    assert takers == ["Cast"], "TensorRT takes bytes in no other operation"
    assert np.abs(run(Path("a.onnx"), IMAGES) - run(made / "net.onnx", IMAGES)).max() < 1e-6
    assert lupctl("model info a.onnx --json").json["kind"] == "onnx"


def test_with_trtexec_the_engine_is_next_to_the_file(made: Path, lupctl: Shell) -> None:
    write_trtexec(WRITES)
    ran = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx --json")
    assert ran.code == 0, ran.err
    assert "engine: built by" in ran.err
    assert ran.json["tensorrt"]["engine"] == "a.engine"
    assert Path("a.engine").read_text() == "engine\n"
    words = Path("words.txt").read_text().split()
    assert [word for word in words if "a." not in word] == [*ran.json["tensorrt"]["command"][3:]], "the same flags"
    assert left() == ["a.engine", "a.onnx", "words.txt"]
    dumped = lupctl("dump a.engine labelled")
    assert (dumped.code, "a.engine: an engine of TensorRT, which lupctl does not run" in dumped.err) == (3, True)
    assert "name what it was built from, such as a.onnx" in dumped.err
    again = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx")
    assert (again.code, "a.engine: exists already" in again.err) == (2, True)
    Path("bin/trtexec").unlink()
    planned = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx --force --dry-run --json").json
    assert planned["engine"] == "not built, trtexec is not here; a.engine is removed, it is of an earlier export"
    assert Path("a.engine").exists()
    alone = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx --force")
    assert (alone.code, "a.engine: removed, it was of an earlier export\n" in alone.err) == (0, True)
    assert left() == ["a.onnx", "words.txt"], "the engine was of another file"


def test_a_folder_at_the_place_of_the_engine(made: Path, lupctl: Shell) -> None:
    Path("a.engine").mkdir()
    ran = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx --force")
    assert (ran.code, left()) == (2, ["a.engine"])
    assert ran.err.startswith("error: a.engine: is a folder, and would be overwritten by a file\nhint: "), "no work yet"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        (
            "echo '[I] reading'; echo '[E] no GPU' >&2; echo '[E] Engine set up failed'; echo '&&&& FAILED'; exit 1",
            "a.engine: not written; trtexec ended with 1 ([E] no GPU; [E] Engine set up failed)",
        ),
        ("printf 'half\\377' ; kill -9 $$", "a.engine: not written; trtexec was ended by signal 9 (half\ufffd)"),
        ("exit 0", "a.engine: not written; trtexec wrote no file"),
        ("exit 3", "a.engine: not written; trtexec ended with 3\n"),
    ],
)
def test_a_failed_build_writes_nothing(script: str, message: str, made: Path, lupctl: Shell) -> None:
    write_trtexec(script)
    ran = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx")
    assert (ran.code, ran.out) == (3, "")
    assert f"error: {message}" in ran.err
    assert "hint: --format onnx" in ran.err
    assert left() == []


def test_a_trtexec_that_is_no_program(made: Path, lupctl: Shell) -> None:
    write_trtexec("", first="#!/no/such/shell\n")
    ran = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx")
    assert (ran.code, left()) == (3, [])
    assert "trtexec: cannot be run (No such file or directory)" in ran.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("signal", "code"), [("TERM", 75), ("INT", 130)])
def test_stopped_while_trtexec_runs(signal: str, code: int, made: Path, lupctl: Shell) -> None:
    write_trtexec(f"{WRITES}\necho $$ > process.txt\nkill -{signal} $PPID\nexec sleep 60")
    started_at = time.monotonic()
    ran = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx")
    assert (ran.code, ran.out) == (code, "")
    assert "a.engine: not written, stopped on request" in ran.err
    assert time.monotonic() - started_at < 50
    assert left() == ["process.txt", "words.txt"]
    with pytest.raises(ProcessLookupError):
        os.kill(int(Path("process.txt").read_text()), 0)


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_a_script_named_trtexec_started_ends_with_it(made: Path, lupctl: Shell) -> None:
    write_trtexec("mkfifo held; sleep 60 9<>held &\nkill -TERM $PPID; wait")
    ran = lupctl(f"model export {made / 'net.onnx'} --format tensorrt --out a.onnx")
    assert (ran.code, left()) == (75, ["held"])
    pipe, until = os.open("held", os.O_RDONLY | os.O_NONBLOCK), time.monotonic() + 5
    is_held = True
    while is_held and time.monotonic() < until:
        try:
            is_held = os.read(pipe, 1) != b""
        except BlockingIOError:  # somebody has it open
            time.sleep(0.02)
    os.close(pipe)
    assert not is_held


def test_a_network_of_fixed_batches_has_no_shapes(lupctl: Shell, tmp_path: Path) -> None:
    write_foreign(tmp_path / "net.onnx", batch=2)
    how = "--mean imagenet --std imagenet"
    ran = lupctl(f"model export net.onnx {how} --format tensorrt --out a.onnx --json")
    assert ran.code == 0, ran.err
    assert not [word for word in ran.json["tensorrt"]["command"] if "Shapes" in word]
    write_foreign(tmp_path / "any.onnx", sides=("h", "w"))
    ran = lupctl(f"model export any.onnx {how} --pixels 32x16 --format tensorrt --out b.onnx --json")
    assert "--optShapes=images:8x3x32x16" in ran.json["tensorrt"]["command"]


def test_int8_is_as_tensorrt_takes_it_and_proved_here(made: Path, labelled: Path, lupctl: Shell) -> None:
    line = f"model export {made / 'net.onnx'} --precision int8 --calibrate {labelled}"
    ran = lupctl(f"{line} --format tensorrt --prove {labelled} --out a.onnx --json")
    assert ran.code == 0, ran.err
    assert "proof: onnxruntime runs the ONNX file; TensorRT itself is not run" in ran.err
    assert ran.json["proof"]["map"]["after"] > 0
    assert ran.json["record"]["quantization"]["corrected_biases"] == 19
    graph = onnx.load("a.onnx").graph
    constants: dict[str, Any] = {one.name: one for one in graph.initializer}
    pairs = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [constants[node.input[2]] for node in pairs if len(node.input) > 2]
    weights = [constants[node.input[0]].data_type for node in pairs if len(node.input) < 3]
    assert set(weights) == {TensorProto.INT8}
    assert {one.data_type for one in zeros} == {TensorProto.INT8}
    assert not any(numpy_helper.to_array(one).any() for one in zeros), "ranges around 0"
    convs = [node for node in graph.node if node.op_type == "Conv"]
    assert len(convs) == 20
    given = {node.output[0]: node.op_type for node in graph.node}
    (small,) = [node for node in convs if node.input[1] in constants]
    assert given[small.input[0]] == "Relu", "a layer in float takes what was not rounded"
    convs.remove(small)
    assert {constants[node.input[2]].data_type for node in convs} == {TensorProto.FLOAT}, "biases"
    assert {given[name] for node in convs for name in node.input[:2]} == {"DequantizeLinear"}
    assert [node.op_type for node in graph.node if "images" in node.input] == ["Cast"]
    assert lupctl(f"{line} --out b.onnx").code == 0
    wanted = run(made / "net.onnx", IMAGES)
    assert cosines(run(Path("a.onnx"), IMAGES), wanted).min() > 0.98
    assert np.abs(run(Path("a.onnx"), IMAGES) - wanted).max() > 1e-4, "int8 is another network"
