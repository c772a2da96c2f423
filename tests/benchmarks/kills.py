"""Kills commands with SIGKILL at random moments, types them again, and compares what they leave.

    OMP_NUM_THREADS=1 python tests/benchmarks/kills.py --kills 17

`data pack`, `data build`, `pretrain` and `finetune` with two workers, `dump` and `eval` run once undisturbed, then so
many times each with a kill at a moment drawn between their start and that run's end. After a kill no process, no shared
memory and no half file may be there, and what was there before is as it was; the same command again has to end well and
leave the same bytes. Prints a line for each command, and each failure; 1 when there is one.
"""

import argparse
import hashlib
import json
import os
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from tests.tools.processes import in_session, own_shared_memory
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options
from tests.tools.tiny.videos import write_mot, write_video

GONE_S = 60.0
SIZE: dict[str, Any] = {"height": 32, "width": 16, "cameras": 2}
LONGER = ("schedule.epochs=8", "saving.every_epochs=2")
TRAINING = shlex.join(["--gpus", "0", "--workers", "2", *as_options((*PRETRAIN, *LONGER))])
TUNING = shlex.join(["--recipe", "bot", "--from", "scratch", "--gpus", "0", "--workers", "2"])
TUNING += " " + shlex.join(as_options((*FINETUNE, *LONGER)))


@dataclass(frozen=True)
class Victim:
    """A command that is killed.

    Args:
        line: its words.
        made: the files that it makes, whole or not at all.
    """

    line: str
    made: tuple[str, ...]


VICTIMS = {
    "pack": Victim("data pack images --layout market1501 --out labelled.h5", ("labelled.h5",)),
    "build": Victim("data build crops --videos videos --detections boxes --format mot", ("lup/packs/crops.h5",)),
    "pretrain": Victim(f"pretrain --data labelled.h5 --out pre {TRAINING}", ("pre/checkpoint.safetensors",)),
    "finetune": Victim(f"finetune labelled.h5 --out fine {TUNING}", ("fine/checkpoint.safetensors",)),
    "dump": Victim("dump fine labelled.h5 --workers 2 --device cpu --out f.features.h5", ("f.features.h5",)),
    "eval": Victim("eval f.features.h5 --rerank --out report.json", ("report.json", "report.html")),
}


def make_inputs(folder: Path, persons: int, frames: int) -> None:
    """A labelled dataset, and videos with boxes."""
    source = SyntheticSource(SyntheticPlan(train_persons=persons, test_persons=persons, shots=4, **SIZE))
    for name in source.list_images().name:
        path = folder / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(name))
    for name in ("a", "b"):
        write_video(folder / "videos" / f"{name}.avi", frames=frames)
        boxes = [(frame, (8.0, 10.0, 38.0, 90.0)) for frame in range(1, frames + 1)]
        write_mot(folder / "boxes" / f"{name}.txt", boxes)


def start(line: str, folder: Path, output: Path) -> "subprocess.Popen[bytes]":
    """A command in a session of its own."""
    with output.open("wb") as stream:
        return subprocess.Popen(
            ["lupctl", *shlex.split(line)], cwd=folder, stdout=stream, stderr=stream, start_new_session=True,
            env={**os.environ, "LUPCTL_HOME": str(folder / "lup"), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def content(path: Path) -> Any:
    """What has to be the same: the bytes, without the date and the times that a report names."""
    if path.suffix == ".json":
        return {key: value for key, value in json.loads(path.read_text()).items() if key not in {"created", "seconds"}}
    if path.suffix == ".html":
        return re.sub(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?", "", path.read_text())
    if path.suffix == ".h5":
        with h5py.File(path) as file:
            file.visit(lambda _: None)  # a half file does not open
    return path.read_bytes()


def hashes(folder: Path) -> dict[str, str]:
    """Every file of a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def kill_once(victim: Victim, before: Path, whole: dict[str, Any], folder: Path, delay_s: float) -> list[str]:
    """What is wrong after one kill, and after the same command again."""
    shutil.copytree(before, folder)
    inputs, shared, output = hashes(folder), own_shared_memory(), folder.with_suffix(".txt")
    process = start(victim.line, folder, output)
    time.sleep(delay_s)
    process.kill()
    process.wait()
    wrong, end = [], time.monotonic() + GONE_S
    while (left := in_session(process.pid)) and time.monotonic() < end:
        time.sleep(0.05)
    wrong += [f"left {one}" for one in left]
    for one in left:
        os.kill(int(one.partition(":")[0]), signal.SIGKILL)
    while (blocks := own_shared_memory() - shared) and time.monotonic() < end:
        time.sleep(0.2)
    wrong += [f"left shared memory {block.name}" for block in blocks]
    after = hashes(folder)
    wrong += [f"changed or lost {name}" for name, found in inputs.items() if after.get(name) != found]
    for name in victim.made:
        if (folder / name).exists() and content(folder / name) != whole[name]:
            wrong.append(f"half of {name}")
    again = start(victim.line, folder, output)
    if again.wait():
        return [*wrong, f"again: exit code {again.returncode}: {output.read_text()[-500:]}"]
    wrong += [f"again: another {name}" for name in victim.made if content(folder / name) != whole[name]]
    return wrong


def main() -> int:
    """Kills all of them; 1 when one leaves what it must not."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=17, help="of each command")
    parser.add_argument("--persons", type=int, default=40)
    parser.add_argument("--frames", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=list(VICTIMS), nargs="+", default=list(VICTIMS))
    parser.add_argument("--scratch", type=Path)
    options = parser.parse_args()
    chance, bad = random.Random(options.seed), 0
    wanted = list(VICTIMS)[: 1 + max(list(VICTIMS).index(name) for name in options.only)]
    with tempfile.TemporaryDirectory(dir=options.scratch) as name:
        # Every command runs at the same place, whose path is in records.
        there, kept = Path(name, "there"), Path(name, "kept")
        make_inputs(kept / "inputs", options.persons, options.frames)
        states = {"inputs": kept / "inputs"}
        last = "inputs"
        for command in wanted:
            victim, before = VICTIMS[command], states[last]
            shutil.copytree(before, there)
            began_at = time.monotonic()
            process = start(victim.line, there, there.with_suffix(".txt"))
            if process.wait():
                sys.exit(f"{command}: exit code {process.returncode}: {there.with_suffix('.txt').read_text()}")
            seconds = time.monotonic() - began_at
            whole = {made: content(there / made) for made in victim.made}
            states[command] = Path(shutil.copytree(there, kept / command))
            last = command
            shutil.rmtree(there)
            if command not in options.only:
                continue
            failures = []
            for number in range(options.kills):
                delay_s = chance.uniform(0, seconds)
                wrong = kill_once(victim, before, whole, there, delay_s)
                failures += [f"  kill {number} after {delay_s:.2f} s: {one}" for one in wrong]
                shutil.rmtree(there)
            print(f"{command:10} {seconds:6.1f} s undisturbed; {options.kills} kills, {len(failures)} failures")
            print(*failures, sep="\n", end="\n" if failures else "", flush=True)
            bad += len(failures)
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
