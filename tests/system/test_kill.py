"""Packing that is killed: the same command again completes, and what it leaves equals an uninterrupted one's."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lupctl.core.formats.pack import write_shard as shard_writer
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.record import reserve_space
from tests.tools.shell import Shell
from tests.tools.tiny.images import TinyImages, encode_tiny

SHARD_BYTES = 9_000
# Runs a command in forked children. Child k kills itself without a word at the k-th of the moments that matter: before
# an image is added, and before each change of a name, of a folder, or of what is safe on the disk. After each kill the
# command runs again in another child. Prints what each left.
DRIVER = """
import json, os, shutil, signal, sys
from pathlib import Path
from lupctl.cli.app import main
from lupctl.core.formats.pack import write as pack_writer
from lupctl.core.formats.pack import write_shard as shard_writer
import lupctl.core.data.sources.build, lupctl.core.stages.pack  # once, not per child
import rich.box, rich.console, rich.table

def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes().hex() if path.is_file() else None
            for path in sorted(folder.rglob("*"))}

def run(arguments, kill_at=None):
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    moments = [0]
    def counted(function):
        def wrapped(*given, **named):
            moments[0] += 1
            if moments[0] == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*given, **named)
        return wrapped
    for owner, names in ((Path, ("replace", "rmdir", "unlink", "mkdir")), (os, ("fsync",)), (shutil, ("rmtree",)),
                         (shard_writer.ShardWriter, ("add",))):
        for name in names:
            setattr(owner, name, counted(getattr(owner, name)))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    sys.argv = ["lupctl", *arguments]
    code = 1
    try:
        main()
    except SystemExit as left:
        code = left.code or 0
    finally:
        os._exit(code)

before, arguments, step = Path(sys.argv[1]), sys.argv[3:], int(sys.argv[2])
packs = Path("lup/packs")

def reset():
    shutil.rmtree(packs, ignore_errors=True)
    if before.exists():
        shutil.copytree(before, packs)

reset()
assert run(arguments) == 0
whole = tree(packs)
found, at = [], 1
while True:
    reset()
    status = run(arguments, kill_at=at)
    if not os.WIFSIGNALED(status):
        assert status == 0, status
        break
    again = run(arguments)
    found.append([at, again, tree(packs) == whole])
    at += step
print(json.dumps({"files": sorted(whole), "found": found}))
"""


@pytest.fixture
def crops(tmp_path: Path, tiny_images: TinyImages) -> Path:
    """A workspace with 40 images in two folders."""
    for row, image in enumerate(tiny_images(40)):
        path = tmp_path / "lup" / "raw" / "crops" / f"{row % 2}" / f"{row:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
    return tmp_path


def kill_everywhere(home: Path, before: Path, *arguments: str, step: int) -> dict[str, list[object]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, str(before), str(step), *arguments],
        cwd=home,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "LUPCTL_HOME": "", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[object]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize("step", [11, pytest.param(1, marks=pytest.mark.slow)])
def test_killed_while_packing_shards(crops: Path, step: int) -> None:
    arguments = (
        "data", "pack", "crops", "--layout", "images",
        "--shard-bytes", str(SHARD_BYTES), "--workers", "1", "--quiet",
    )  # fmt: skip
    ran = kill_everywhere(crops, crops / "nothing", *arguments, step=step)
    assert ran["files"] == ["crops", *(f"crops/{row:05d}.h5" for row in range(len(ran["files"]) - 1))]
    assert len(ran["files"]) >= 4, "several shards"
    assert len(ran["found"]) >= 60 // step
    assert [moment for moment in ran["found"] if moment[1:] != [0, True]] == []  # type: ignore[index]


@pytest.mark.slow
@pytest.mark.parametrize("there", ["file", "shards"])
@pytest.mark.parametrize("comes", ["file", "shards"])
def test_killed_while_a_pack_takes_the_place_of_another(crops: Path, lupctl: Shell, there: str, comes: str) -> None:
    """At every moment, whatever lies there and whatever comes."""
    sizes = {"file": 2**30, "shards": SHARD_BYTES}
    assert lupctl(f"data pack crops --layout images --quiet --shard-bytes {sizes[there]}").code == 0
    (crops / "lup" / "packs").rename(crops / "before")
    (crops / "lup" / "raw" / "crops" / "0" / "zz.jpg").write_bytes(encode_tiny(99))
    line = (
        "data", "pack", "crops", "--layout", "images",
        "--force", "--shard-bytes", str(sizes[comes]), "--workers", "1", "--quiet",
    )  # fmt: skip
    ran = kill_everywhere(crops, crops / "before", *line, step=1)
    assert (ran["files"] == ["crops.h5"]) == (comes == "file")
    assert len(ran["found"]) >= 40
    assert [moment for moment in ran["found"] if moment[1:] != [0, True]] == []  # type: ignore[index]


@pytest.mark.parametrize("full_at", [1, 2, 3])
def test_a_disk_that_fills_up_at_any_shard(
    crops: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    """Finished shards stay, no pack appears; with space again the same command gives the uninterrupted pack's bytes."""
    line = f"data pack crops --layout images --quiet --shard-bytes {SHARD_BYTES}"
    packs = crops / "lup" / "packs"
    assert lupctl(line).code == 0
    whole = {path.name: path.read_bytes() for path in (packs / "crops").iterdir()}
    (packs / "crops").rename(crops / "whole")
    real_reserve, calls = reserve_space, 0

    def reserve(stream: object, *, begin: int, num_bytes: int) -> None:
        nonlocal calls
        calls += 1
        if calls == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real_reserve(stream, begin=begin, num_bytes=num_bytes)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(shard_writer, "reserve_space", reserve)
        ran = lupctl(line)
    assert ran.code == 3
    assert "error: lup/packs/crops.h5: the disk is full" in ran.err
    assert "then type the same command again" in ran.err
    waiting = sorted(path.name for path in packs.rglob("*") if path.is_file())
    assert waiting == [f"{row:05d}.h5" for row in range(full_at - 1)]
    assert lupctl(line).code == 0
    assert {path.name: path.read_bytes() for path in (packs / "crops").iterdir()} == whole
    assert [path.name for path in packs.iterdir()] == ["crops"]
    assert len(open_pack(packs / "crops")) == 40
