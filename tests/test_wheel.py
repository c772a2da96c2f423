"""The wheel: what is inside, and that it works where nothing of the checkout is in reach."""

import faulthandler
import re
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Callable
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[1]
# Code, the manual and its picture, recipes, and what report pages are made of.
KINDS = {".txt", ".py", ".md", ".png", ".toml", ".j2", ".js", ".css", ".typed"}
MOST_BYTES = 4 << 20
# A minute of an idle machine, and many of a busy one: more than pytest's own limit for a test.
PATIENCE_S = 1500
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    out = tmp_path_factory.mktemp("dist")
    line = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(out)]
    subprocess.run(line, cwd=ROOT, check=True, capture_output=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture
def installed(wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a program of an environment that has the wheel, in an empty folder.

    Its dependencies are those of the environment of the tests, by a path file. The path files of that environment have
    no effect there, and one of them is lupctl's own if it was installed with `pip install -e`.
    """
    environment, empty = tmp_path / "venv", tmp_path / "empty"
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    monkeypatch.delenv("PYTHONPATH", raising=False)
    monkeypatch.delenv("LUPCTL_HOME", raising=False)
    line = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index"]
    subprocess.run([*line, str(wheel)], check=True, capture_output=True)
    (packages,) = environment.glob("lib/python*/site-packages")
    theirs = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (packages / "dependencies.pth").write_text("".join(f"{path}\n" for path in sorted(theirs)))
    empty.mkdir()

    def run(program: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([environment / "bin" / program, *arguments], cwd=empty, capture_output=True, text=True)

    return run


def read_requirements(text: str) -> dict[str, str]:
    """Names and versions of a list of requirements."""
    lines = [line.partition("#")[0].partition(";")[0].strip() for line in text.splitlines()]
    found = [re.fullmatch(r"([\w.-]+)(.*)", line) for line in lines if line]
    return {match[1]: match[2] for match in found if match is not None}


def test_the_wheel_holds_the_package_and_the_recipes_and_nothing_else(wheel: Path) -> None:
    with ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if ".dist-info/" not in name]
    package = [path for path in (ROOT / "lupctl").rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    expected = {path.relative_to(ROOT).as_posix() for path in package}
    expected |= {f"lupctl/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "recipes").rglob("*.toml")}
    assert len(names) == len(set(names))
    assert set(names) == expected
    assert {Path(name).suffix for name in names} == KINDS
    assert wheel.stat().st_size < MOST_BYTES


def test_the_list_for_a_cpu_is_that_of_the_package_without_cuda() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    own = read_requirements("\n".join(project["dependencies"]))
    assert own.pop("faiss-gpu")
    text = (ROOT / "lupctl" / "requirements-cpu.txt").read_text(encoding="utf-8")
    assert read_requirements(text) == own
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("#   pip")]
    assert line.removeprefix("#   ") in readme.replace(".venv/bin/", "")


@pytest.mark.slow
def test_an_empty_environment_runs_the_demo_from_the_wheel(installed: Run, tmp_path: Path) -> None:
    where = installed("python", "-c", "import lupctl; print(lupctl.__path__[0])").stdout.strip()
    assert Path(where).is_relative_to(tmp_path), "it is the wheel that is tested"
    for line, part in (
        ("--help", "lupctl demo"), ("recipe list", "small-bot"), ("manual", "evaluation"),
        ("manual start", "Getting started"), ("recipe show luperson-moco", "queue = 65536"),
    ):  # fmt: skip
        ran = installed("lupctl", *line.split())
        assert (ran.returncode, ran.stderr) == (0, "")
        assert part in ran.stdout
    faulthandler.dump_traceback_later(PATIENCE_S, exit=True)
    ran = installed("lupctl", "demo", "--quick")
    assert ran.returncode == 0, ran.stderr
    assert "Pre-training changed mAP by" in ran.stdout
    pages = sorted((tmp_path / "empty").glob("lup-demo-quick/runs/*/report.html"))
    assert len(pages) == 2
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert "<style>" in text
        assert "<script" in text
        assert "data:image/" in text
    assert [path.name for path in (tmp_path / "empty").iterdir()] == ["lup-demo-quick"]


@pytest.mark.slow
def test_what_the_wheel_asks_for_is_what_it_gets_here(installed: Run) -> None:
    """The versions that its metadata asks for, against those that the tests run with."""
    ran = installed("python", "-m", "pip", "check")
    assert "lupctl" not in ran.stdout
    assert "No module named pip" not in ran.stderr
