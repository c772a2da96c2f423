"""Nobody is told that somebody's network was run, and nothing is kept at home for that."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tools.nets.onnx_files import write_foreign

PROGRAM = """
import sys
from pathlib import Path
from lupctl.core.formats.weights.runtimes.open import open_session
open_session(Path(sys.argv[1]), runtime=sys.argv[2])
"""


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_runtime_keeps_and_reports_nothing(tmp_path: Path, runtime: str) -> None:
    pytest.importorskip(runtime, reason="needs lupctl[export,openvino]")
    path, root = write_foreign(tmp_path / "net.onnx"), Path(__file__).parents[2]
    places = {name: tmp_path / name for name in ("HOME", "TMPDIR", "XDG_CACHE_HOME")}
    for place in places.values():
        place.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path), runtime], check=True, cwd=root,
        env={**environment, **{name: str(place) for name, place in places.items()}},
    )  # fmt: skip
    assert [found for place in places.values() for found in place.rglob("*")] == []
