"""No file, name or answer of a server brings a command down: generated cases through the real command.

A case is a kind and a number, which decide everything in it. One that fails is run again, and shown whole, by
`python -m tests.hostile KIND NUMBER`.
"""

import importlib
import os
import sys
import time
from collections.abc import Iterator
from random import Random

import pytest
import typer
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lupctl.cli.app import app
from lupctl.cli.failures import check
from tests.hostile.kinds.all import KINDS
from tests.hostile.runner import Runner, check_text, running

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and watches processes as Linux has them")
# Of each kind, in the default run.
FEW = 9
# The slow run is of as many parts of each kind as make ten thousand cases, unless the environment says fewer, as CI
# does for its time; none of the parts takes minutes.
PARTS, PART = int(os.environ.get("LUPCTL_HOSTILE_PARTS") or 12), 47
# Those of which it makes sense to leave out one thing after another until what fails is small.
STRUCTURED = ("notes", "recipes", "boxes", "checkpoints", "tables")


@pytest.fixture(scope="module")
def runner(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    with running(tmp_path_factory.mktemp("hostile")) as started:
        yield started


@pytest.fixture(scope="session")
def first() -> int:
    """The first number of the slow cases: the day's, unless the environment says another."""
    return int(os.environ.get("LUPCTL_HOSTILE_SEED") or time.strftime("%Y%m%d")) * 1_000_000


@pytest.mark.parametrize("kind", sorted({maker.__module__ for maker in KINDS.values()}))
def test_the_commands_can_be_read(kind: str) -> None:
    """A command line with a mistake of ours would end before it meets what is hostile."""
    module, root = importlib.import_module(kind), typer.main.get_command(app)
    lines = [line for name, text in vars(module).items() if name.endswith("COMMANDS") for line in text.split("\n")]
    for line in filter(None, lines):
        words = line.format(**dict.fromkeys(("name", "run", "path", "kind"), "mot"), word="1")
        error = check(root, words.split())
        assert error is None or "{word}" in line, (line, error)


def run_cases(runner: Runner, kind: str, numbers: range) -> None:
    failures = []
    for number in numbers:
        ran = runner.run(KINDS[kind], Random(f"{kind} {number}"))
        if ran.wrong:
            said = ran.err[-500:].encode("unicode_escape").decode()
            failures.append(
                f"python -m tests.hostile {kind} {number}: {'; '.join(ran.wrong)}: {ran.case.words}: {said}"
            )
    assert not failures, f"{len(failures)} of {len(numbers)} cases failed\n" + "\n".join(failures)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_cases(runner: Runner, kind: str) -> None:
    run_cases(runner, kind, range(FEW))


@pytest.mark.parametrize("kind", STRUCTURED)
def test_a_case_that_fails_is_made_small(runner: Runner, kind: str) -> None:
    @settings(max_examples=6, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.randoms(use_true_random=False))
    def check(draw: Random) -> None:
        ran = runner.run(KINDS[kind], draw)
        assert not ran.wrong, (ran.case.words, ran.err)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_cases_of_the_day(runner: Runner, first: int, kind: str, part: int) -> None:
    begin = first + part * PART
    print(f"{kind}: cases {begin} to {begin + PART - 1}; LUPCTL_HOSTILE_SEED={first // 1_000_000} runs them again")
    run_cases(runner, kind, range(begin, begin + PART))


def test_a_runner_notices(runner: Runner) -> None:
    """What the checks are for: each is seen when it happens."""
    from tests.hostile.runner import Case, Place

    def outside(_: Random, place: Place) -> Case:
        return Case(["recipe", "list", "--json"], codes=(3,))

    def escaping(_: Random, place: Place) -> Case:
        (place.work.parent / "home" / "x").write_text("")
        place.marker.write_text("")
        return Case(["recipe", "list", "--json"])

    def changing(_: Random, place: Place) -> Case:
        place.take("lup")
        return Case(["run", "rm", "fine", "--yes", "--home", "lup"])

    assert runner.run(outside, Random(0)).wrong == ["exit code 0; one of (3,) was promised"]
    assert runner.run(escaping, Random(0)).wrong == ["EXECUTED", "files outside: ['home/x']"]
    (lost,) = runner.run(changing, Random(0)).wrong
    assert "lup/runs/fine" in lost


@pytest.mark.parametrize(
    ("code", "out", "err", "wrong"),
    [
        (3, "", "a note\nerror: a: damaged\n  more of it\nhint: make it again\n", []),
        (0, "done\n", "", []),
        (3, "", "error: a\n", ["1 error lines and 0 hints"]),
        (3, "", "error: a\nhint: b\nhint: c\n", ["1 error lines and 2 hints"]),
        (3, "", "error: a\nhint: b\nand more\n", ["1 error lines and 1 hints"]),
        (3, "", "error: a\nb\nhint: c\n", ["an error of several lines"]),
        (0, "", "error: a\nhint: b\n", ["an error after success"]),
        (1, "", "Traceback (most recent call last):\nerror: a\nhint: b\n", ["traceback on stderr"]),
        (0, "\x1b]0;title\x07\n", "", ["a raw control character '\\x1b' on stdout"]),
        (0, "\u202egpj.exe\n", "", ["a raw control character '\\u202e' on stdout"]),
        (3, "", f"error: {'a' * 5_000}\nhint: b\n", ["a line of 5007 characters on stderr"]),
    ],
)
def test_what_is_printed_is_checked(code: int, out: str, err: str, wrong: list[str]) -> None:
    assert list(check_text(code, out, err)) == wrong
