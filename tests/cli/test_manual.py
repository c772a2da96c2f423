"""The manual in the terminal, piped, as JSON, and inside the wheel."""

import os
import shlex
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lupctl.cli.manual import TOPICS, manual_folder
from tests.tools.shell import Shell

ROOT = Path(__file__).parents[2]
PYTHON = f"{shlex.quote(sys.executable)} -c 'from lupctl.cli.app import main; main()'"


def test_the_chapters_are_listed(lupctl: Shell) -> None:
    ran = lupctl("manual")
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    listed = [line.split()[0] for line in lines if line.split() and line.split()[0] in TOPICS]
    assert listed == list(TOPICS)
    assert lines[-1] == "read one: lupctl manual TOPIC"
    found = lupctl("manual --json").json
    assert found["schema"] == "lupctl.manual/1"
    assert [chapter["topic"] for chapter in found["chapters"]] == list(TOPICS)
    assert all(chapter["summary"] in ran.out for chapter in found["chapters"])


@pytest.mark.parametrize("topic", TOPICS)
def test_a_piped_chapter_is_its_text(lupctl: Shell, topic: str) -> None:
    ran = lupctl(f"manual {topic}")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == (manual_folder() / f"{topic}.md").read_text(encoding="utf-8")
    found = lupctl(f"manual {topic} --json").json
    assert (found["schema"], found["topic"], found["text"]) == ("lupctl.manual-chapter/1", topic, ran.out)


@pytest.mark.parametrize(
    ("typed", "message", "hint"),
    [
        ("evalution", "the manual has no chapter 'evalution'; did you mean 'evaluation'?", "lupctl manual evaluation"),
        ("Data", "the manual has no chapter 'Data'; did you mean 'data'?", "lupctl manual data"),
        ("../data", "the manual has no chapter '../data'; did you mean 'data'?", "lupctl manual data"),
        ("qqq", "the manual has no chapter 'qqq'", "lupctl manual"),
    ],
)
def test_a_chapter_that_there_is_not(lupctl: Shell, typed: str, message: str, hint: str) -> None:
    ran = lupctl(f"manual {typed}")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == f"error: {message}\nhint: {hint}\n"


def test_a_reader_that_has_seen_enough() -> None:
    ran = subprocess.run(
        f"{PYTHON} manual evaluation | head -3; echo ${{PIPESTATUS[0]}}",
        shell=True, capture_output=True, text=True, check=True, executable="/bin/bash",
    )  # fmt: skip
    assert ran.stderr == ""
    assert ran.stdout.startswith("# Evaluation\n")
    assert ran.stdout.endswith("\n0\n")


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
@pytest.mark.parametrize("plain", [False, True], ids=["colours", "NO_COLOR"])
def test_a_terminal_gets_a_pager(tmp_path: Path, plain: bool) -> None:
    """$PAGER is a program that notes what it was given."""
    pager = tmp_path / "pager"
    pager.write_text('#!/bin/sh\ncat > "$SHOWN"\n')
    pager.chmod(0o755)
    shown = tmp_path / "shown.txt"
    env = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "MANPAGER", "COLUMNS")}
    env |= {"PAGER": str(pager), "SHOWN": str(shown), "TERM": "xterm-256color", "COLUMNS": "90"}
    code = (
        "import pty, sys\n"
        "command = [sys.executable, '-c', 'from lupctl.cli.app import main; main()', 'manual', 'people']\n"
        "sys.exit(pty.spawn(command) >> 8)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=env | ({"NO_COLOR": "1"} if plain else {}), capture_output=True, text=True,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    text = shown.read_text(encoding="utf-8")
    assert "People in the images" in text
    assert "# People" not in text, "rendered"
    assert ("\x1b[" in text) is not plain
    if plain:
        assert max(map(len, text.splitlines())) <= 90
        assert "**" not in text


def test_the_wheel_holds_the_manual_and_the_recipes(tmp_path: Path) -> None:
    pytest.importorskip("hatchling", reason="only with the extra dev")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)],
        cwd=ROOT, check=True, capture_output=True,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    files = {path for folder in ("lupctl", "recipes") for path in (ROOT / folder).rglob("*") if path.is_file()}
    kept = {path for path in files if path.suffix in (".md", ".png", ".toml", ".py", ".j2", ".css", ".js", ".typed")}
    expected = {path.relative_to(ROOT).as_posix() for path in kept}
    expected = {name if name.startswith("lupctl/") else f"lupctl/{name}" for name in expected}
    assert {"lupctl/manual/start.md", "lupctl/manual/report.png", "lupctl/recipes/finetune/bot.toml"} <= expected
    assert expected <= names
    assert not [name for name in names if name.startswith("tests/")]
