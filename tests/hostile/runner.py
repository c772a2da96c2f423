"""Runs hostile cases through the real command, and says what each did that it must not."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.hostile.loaded import MEMORY_BYTES, Outcome, Request
from tests.hostile.stock import make_stock
from tests.tools.flaky_server import Server, serving

# Done, usage or recipe, data. Nothing that these cases do is about gates or devices, nor may it stop a run.
PROMISED = (0, 2, 3)
# The longest line that an error may be.
MOST_LINE = 4_096
# What a terminal would act on instead of showing it; lines end, and tables of plain text have tabs.
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069]")
# Of a case's folder.
PLACES = frozenset({"work", "home", "tmp", "out", "err"})


@dataclass(frozen=True)
class Case:
    """A command, typed where hostile files are.

    Args:
        words: the command line after `lupctl`.
        variables: of the environment.
        file_bytes: see `Request`.
        disk_bytes: see `Request`.
        codes: exit codes that are right.
        changes: files, and folders with all in them, that the command is meant to replace or remove.
    """

    words: list[str]
    variables: Mapping[str, str] = field(default_factory=dict)
    file_bytes: int | None = None
    disk_bytes: int | None = None
    codes: tuple[int, ...] = PROMISED
    changes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where a case is made.

    Args:
        work: an empty folder, where the command will run.
        stock: valid files to take from; see `tests.hostile.stock`.
        marker: a file that must not appear: what hostile programs would make.
        server: for what is fetched.
        can_mount: whether there may be a small disk.
    """

    work: Path
    stock: Path
    marker: Path
    server: Server
    can_mount: bool

    def serve(self, name: str, content: bytes, **more: Any) -> str:
        """Puts a file on the server; gives its address."""
        self.server.pages.clear()
        self.server.add(f"/{name.partition('?')[0]}", content, **more)
        return self.server.url(f"/{name}")

    def take(self, name: str, to: str | None = None) -> Path:
        """Copies a file or folder of the stock; gives the copy."""
        source, copy = self.stock / name, self.work / (to or name)
        copy.parent.mkdir(parents=True, exist_ok=True)
        return Path(shutil.copytree(source, copy) if source.is_dir() else shutil.copy(source, copy))


Maker = Callable[[Random, Place], Case]


def pick_command(draw: Random, lines: str, **names: str) -> list[str]:
    """The words of one of several command lines.

    Args:
        draw: decides which.
        lines: one after another; `{x}` is replaced.
        names: by what.
    """
    # Words are split first: what takes their place may have spaces.
    return [word.format(**names) for word in draw.choice(lines.strip().splitlines()).split()]


@dataclass(frozen=True)
class Ran:
    """What a case did.

    Args:
        case: the command.
        outcome: how it ended.
        out, err: what it printed.
        wrong: what is wrong with that, one line each.
    """

    case: Case
    outcome: Outcome
    out: str
    err: str
    wrong: list[str]


class Runner:
    """Runs cases one after another."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path, server: Server) -> None:
        self.process, self.server = process, server
        self.stock, self.root = folder / "stock", folder / "root"
        self.stock.mkdir()
        self.root.mkdir()
        make_stock(self.stock)
        self.can_mount = bool(self._answer()["mounts"])
        self.marker = self.root / "executed"
        kept = self.run(self._keep_features, Random(0))
        assert kept.outcome.code == 0, kept.err

    def _keep_features(self, _: Random, place: Place) -> Case:
        """Adds the features of the run `fine` to the stock."""
        place.take("lup")
        out = str(self.stock / "lup" / "fine.features.h5")
        return Case(["dump", "fine", "labelled", "--workers", "0", "--device", "cpu", "--out", out])

    def run(self, maker: Maker, draw: Random) -> Ran:
        """Makes a case, runs it, and cleans up."""
        folder = self.root / "case"
        for name in ("work", "home", "tmp"):
            (folder / name).mkdir(parents=True)
        try:
            case = maker(draw, Place(folder / "work", self.stock, self.marker, self.server, self.can_mount))
            before = _snapshot(folder / "work", case.changes)
            outcome = self.type_in(folder, case)
            out, err = ((folder / name).read_bytes().decode(errors="replace") for name in ("out", "err"))
            wrong = [
                *check_outcome(case, outcome),
                *check_text(outcome.code, out, err),
                *check_files(folder, self.marker, before, _snapshot(folder / "work", case.changes)),
            ]
            return Ran(case, outcome, out, err, wrong)
        finally:
            for path in self.root.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def type_in(self, folder: Path, case: Case) -> Outcome:
        """Runs a command in a folder."""
        request = Request(str(folder), case.words, dict(case.variables), case.file_bytes, case.disk_bytes)
        assert self.process.stdin is not None
        print(json.dumps(asdict(request)), file=self.process.stdin, flush=True)
        return Outcome(**self._answer())

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())


@contextmanager
def running(folder: Path) -> Iterator[Runner]:
    """A runner that works in an empty folder."""
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "tests.hostile.loaded"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONUTF8": "1", "NO_COLOR": "1"},
    )
    with process, serving() as server:
        yield Runner(process, folder, server)
        assert process.stdin is not None
        process.stdin.close()


def check_outcome(case: Case, outcome: Outcome) -> Iterator[str]:
    """What is wrong with how a command ended."""
    if outcome.timed_out:
        yield f"hung: killed after {outcome.seconds:.0f} s"
    elif outcome.code not in case.codes:
        yield f"exit code {outcome.code}; one of {case.codes} was promised"
    if outcome.peak_bytes > MEMORY_BYTES:
        yield f"used {outcome.peak_bytes / 2**30:.1f} GiB"
    if outcome.left:
        yield f"left processes: {outcome.left}"


def check_text(code: int, out: str, err: str) -> Iterator[str]:
    """What is wrong with what a command printed: a failure is one error and one hint at the end of stderr."""
    for name, text in (("stdout", out), ("stderr", err)):
        if "Traceback" in text:
            yield f"traceback on {name}"
        if found := CONTROL.search(text):
            yield f"a raw control character {found[0]!a} on {name}"
        if text and max(map(len, text.splitlines())) > MOST_LINE and name == "stderr":
            yield f"a line of {max(map(len, text.splitlines()))} characters on {name}"
    lines = err.splitlines()
    errors = [row for row, line in enumerate(lines) if line.startswith("error: ")]
    hints = [row for row, line in enumerate(lines) if line.startswith("hint: ")]
    if code == 0 and errors:
        yield "an error after success"
    if code > 0 and not (len(errors) == len(hints) == 1 and hints[0] == len(lines) - 1):
        yield f"{len(errors)} error lines and {len(hints)} hints"
    elif code > 0 and not all(line.startswith("  ") for line in lines[errors[0] + 1 : hints[0]]):
        yield "an error of several lines"


def check_files(folder: Path, marker: Path, before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the files that a command left."""
    if marker.exists():
        yield "EXECUTED"
    outside = [path.name for path in marker.parent.iterdir() if path not in (folder, marker)]
    outside += [path.name for path in folder.iterdir() if path.name not in PLACES]
    outside += [f"{name}/{path.name}" for name in ("home", "tmp") for path in (folder / name).iterdir()]
    if outside:
        yield f"files outside: {sorted(outside)[:5]}"
    lost = [name for name, content in before.items() if after.get(name) != content]
    if lost:
        yield f"files lost or changed: {lost[:5]}"


def _snapshot(folder: Path, without: tuple[str, ...]) -> dict[str, Any]:
    """What every file in a folder contains."""
    found = {}
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            relative = str(path.relative_to(folder))
            if any(relative == one or relative.startswith(f"{one}/") for one in without):
                continue
            found[relative] = _content(path)
    return found


def _content(path: Path) -> Any:
    if path.is_symlink():
        return path.readlink()
    return path.read_bytes() if path.is_file() and path.stat().st_size < 1 << 26 else path.stat().st_mode
