"""Ends a command at every call of every step of it, each time in a process of its own, and types it again.

Run as `python kill_points.py FOLDER STEPS WORD...`; STEPS are names with commas between, or `all`; the words are the
command's. Named steps are tried at their first call, all of them at every call. Prints one JSON object: how often a
process was ended at each step, and the steps after which the second run left something else than an undisturbed one.
"""

import importlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

STEPS = [
    "lupctl.core.stages.download.run.file_digests",
    "lupctl.core.stages.download.run.unpack_into_slot",
    "lupctl.core.stages.download.hashes.KnownHashes.remember",
    "lupctl.core.stages.download.run.write_origin",
    "lupctl.core.stages.download.run.move_unpacked",
    "lupctl.core.stages.download.run.move_file",
    "shutil.rmtree",
    "pathlib.Path.replace",
    "pathlib.Path.rename",
    "pathlib.Path.unlink",
    "pathlib.Path.write_bytes",
    "os.fsync",
]
KILLED = 9
MOST_CALLS = 12


def find(step: str) -> tuple[Any, str]:
    """The module or class that holds a step, and its name there."""
    owner, _, name = step.rpartition(".")
    try:
        return importlib.import_module(owner), name
    except ImportError:
        module, _, kind = owner.rpartition(".")
        return getattr(importlib.import_module(module), kind), name


def in_a_process(function: Callable[[], None]) -> int:
    """The exit code of a process that does it."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        try:
            function()
        except SystemExit as left:
            os._exit(left.code if isinstance(left.code, int) else 1)
        except BaseException:
            os._exit(99)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def dying(real: Callable[..., Any], when: str, count: int) -> Callable[..., Any]:
    """The same function, which ends the process before or after its `count`-th call."""
    calls = [0]

    def call(*given: Any, **more: Any) -> Any:
        if when == "before":
            calls[0] += 1
            if calls[0] == count:
                os._exit(KILLED)
            return real(*given, **more)
        result = real(*given, **more)
        calls[0] += 1
        if calls[0] == count:
            os._exit(KILLED)
        return result

    return call


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    folder, names, *words = sys.argv[1:]
    steps = [step for step in STEPS if names == "all" or step.rpartition(".")[2] in names.split(",")]
    most_calls = MOST_CALLS if names == "all" else 1
    check(Path(folder), steps, most_calls, words)


def check(folder: Path, steps: list[str], most_calls: int, words: list[str]) -> None:
    """Prints what was found."""
    from lupctl.cli.app import main as lupctl
    from lupctl.core.stages.download import run, videos  # noqa: F401  # once, for all processes

    def type_command(home: Path, patch: tuple[str, str, int] | None = None) -> int:
        def work() -> None:
            if patch is not None:
                owner, name = find(patch[0])
                setattr(owner, name, dying(getattr(owner, name), *patch[1:]))
            sys.argv = ["lupctl", *words, "--home", str(home)]
            lupctl()

        return in_a_process(work)

    assert type_command(folder / "whole") == 0
    whole = tree(folder / "whole")
    ended: dict[str, int] = {}
    different: list[str] = []
    for step in steps:
        for when in ("before", "after"):
            for count in range(1, most_calls + 1):
                home = folder / f"{step}-{when}-{count}"
                if type_command(home, (step, when, count)) != KILLED:
                    break
                ended[step] = ended.get(step, 0) + 1
                if type_command(home) != 0 or tree(home) != whole:
                    different.append(f"{when} call {count} of {step}")
    print(json.dumps({"ended": ended, "different": different}))


if __name__ == "__main__":
    main()
