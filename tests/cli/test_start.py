"""Other ways to the command than its own name, and what the package says of itself."""

import subprocess
import sys
from importlib.resources import files
from pathlib import Path


def test_the_package_is_a_command(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "lupctl"]
    done = subprocess.run([*line, "recipe", "list"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "luperson-moco" in done.stdout
    done = subprocess.run([*line, "dump", "nowhere"], capture_output=True, text=True, timeout=60, cwd=tmp_path)
    assert done.returncode in (2, 3)
    assert done.stderr.startswith("error: ")


def test_types_are_shipped() -> None:
    assert (files("lupctl") / "py.typed").is_file()
