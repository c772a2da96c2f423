"""A library may not leave a stack for signals that is gone later."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

from lupctl.core.system.jobs.signal_stack import _Stack, kept_signal_stack
from tests.tools.nets.onnx_files import write_foreign

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="sigaltstack as glibc has it")
# The first network of a process: Ctrl-C after it is gone was a segmentation fault.
PROGRAM = """
import sys
from pathlib import Path
from lupctl.core.formats.weights.runtimes.open import open_session
from tests.system.jobs.test_signal_stack import read_stack
before = read_stack()
session = open_session(Path(sys.argv[1]), runtime="openvino")
print(read_stack() == before)
"""


def read_stack() -> tuple[int | None, int, int]:
    found = _Stack()
    assert ctypes.CDLL(None).sigaltstack(None, ctypes.byref(found)) == 0
    return found.begin, found.flags, found.size


def test_the_stack_of_before_is_back() -> None:
    before = read_stack()
    memory = ctypes.create_string_buffer(1 << 16)
    with kept_signal_stack():
        other = _Stack(ctypes.addressof(memory), 0, len(memory))
        assert ctypes.CDLL(None).sigaltstack(ctypes.byref(other), None) == 0
        assert read_stack() != before
    assert read_stack() == before


def test_openvino_leaves_none(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="needs lupctl[openvino]")
    path, root = write_foreign(tmp_path / "net.onnx"), Path(__file__).parents[3]
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(path)], capture_output=True, text=True, check=False, cwd=root
    )
    assert (ran.returncode, ran.stdout) == (0, "True\n"), ran.stderr
