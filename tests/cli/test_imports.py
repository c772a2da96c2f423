"""What a command imports: nothing heavy before its body runs, and in its body only what it needs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from tests.tools.tiny.training import pretrain_job

ROOT = Path(__file__).parents[2]
CLI = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT / "lupctl" / "cli").rglob("*.py")
    if path.name != "__init__.py"
)
HEAVY = {
    "torch", "torchvision", "numpy", "h5py", "cv2", "faiss", "pydantic", "safetensors", "matplotlib", "jinja2", "onnx",
}  # fmt: skip
# Typer itself imports pydantic, where it is installed, as soon as it has read a command's options.
TYPERS = {"pydantic"}
MODULES_AT_THE_END = """
import atexit, json, sys
atexit.register(lambda: print(json.dumps(sorted(sys.modules)), file=sys.stderr))
"""
MAIN = "from lupctl.cli.app import main\nmain()"


def modules_after(code: str, *arguments: str, folder: Path, **variables: str) -> set[str]:
    """Every module that is loaded when a fresh interpreter has run `code` as `lupctl ARGUMENTS`."""
    ran = subprocess.run(
        [sys.executable, "-c", f"{MODULES_AT_THE_END}\nsys.argv[0] = 'lupctl'\n{code}", *arguments],
        capture_output=True, text=True, check=True, cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "LUPCTL_HOME": str(folder / "lup"), **variables},
    )  # fmt: skip
    return set(json.loads(ran.stderr.splitlines()[-1]))


def rooms(modules: set[str], room: str) -> list[str]:
    """The loaded modules of one room."""
    return sorted(name for name in modules if name == room or name.startswith(f"{room}."))


def test_the_commands_import_nothing_heavy_and_no_data(tmp_path: Path) -> None:
    loaded = modules_after("\n".join(f"import {name}" for name in CLI), folder=tmp_path)
    assert set(CLI) <= loaded
    assert not HEAVY & loaded
    assert rooms(loaded, "lupctl.core.data") == []
    assert rooms(loaded, "lupctl.core.stages") == []


def test_lupctl_alone_is_nearly_nothing(tmp_path: Path) -> None:
    loaded = modules_after("import lupctl", folder=tmp_path)
    assert rooms(loaded, "lupctl") == ["lupctl"]
    assert not {*HEAVY, "typer", "rich"} & loaded


@pytest.mark.parametrize(
    "line", ["--help", "dump --help", "eval --help", "search --help", "finetune --help", "data --help"]
)
def test_help_imports_nothing_heavy_and_no_data(line: str, tmp_path: Path) -> None:
    loaded = modules_after(MAIN, *line.split(), folder=tmp_path)
    assert not (HEAVY - TYPERS) & loaded
    assert rooms(loaded, "lupctl.core.data") == []
    if line == "--help":
        assert not TYPERS & loaded


@pytest.mark.parametrize("line", ["dump x m", "finetune m", "data pack m", "data info m", "pretrain --data m"])
def test_completing_a_dataset_imports_no_data(line: str, tmp_path: Path) -> None:
    words = f"lupctl {line}"
    loaded = modules_after(
        MAIN, folder=tmp_path, _LUPCTL_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(words.count(" "))
    )
    assert "lupctl.cli.complete" in loaded
    assert not (HEAVY - TYPERS) & loaded
    assert rooms(loaded, "lupctl.core.data") == []


def test_a_dump_of_a_pack_imports_no_raw_data_and_no_painter(crowd: Path, tmp_path: Path) -> None:
    pretrain(pretrain_job(crowd, tmp_path / "lup" / "runs" / "mine"), Progress(quiet=True))
    line = ["dump", "mine", str(crowd), "--device", "cpu", "--workers", "0", "--quiet"]
    loaded = modules_after(MAIN, *line, folder=tmp_path)
    assert (tmp_path / "lup" / "runs" / "mine" / "crowd.features.h5").is_file()
    assert "lupctl.core.stages.dump" in loaded
    assert rooms(loaded, "lupctl.core.data.drawing") == []
    assert rooms(loaded, "lupctl.core.data.sources") == []


def test_packing_a_folder_imports_its_layout_alone(market_folder: Path, tmp_path: Path) -> None:
    loaded = modules_after(MAIN, "data", "pack", str(market_folder), "--quiet", folder=tmp_path)
    assert "lupctl.core.data.sources.layouts.market1501" in loaded
    assert "lupctl.core.data.sources.layouts.lmdb_folder" not in loaded
    assert rooms(loaded, "lupctl.core.data.drawing") == []
