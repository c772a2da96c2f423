"""Every file that lupctl writes has the permissions that the user's umask gives."""

import os
import stat
from pathlib import Path

import pytest

from lupctl.core.system.disk.atomic import atomic_path, write_text
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options

PRE = f"pretrain --gpus 0 --workers 0 {' '.join(as_options(PRETRAIN))}"
FINE = f"finetune --recipe bot --gpus 0 --workers 0 {' '.join(as_options(FINETUNE))}"


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_every_file_of_a_whole_flow_has_the_mode_that_umask_gives(
    lupctl: Shell, market_folder: Path, tmp_path: Path, mask: int
) -> None:
    """From images to a report, and a search."""
    before = os.umask(mask)
    try:
        for line in (
            "data pack tiny-market --name a",
            f"{PRE} a --batch 8 --set bn_groups=2 --tensorboard",
            f"{FINE} a --batch 4 --set data.images=2 --set bn_groups=1 --out run",
            "eval run",
            "data info a --sheet sheet.png",
            "search run/a.features.h5 tiny-market/query/0003_c1s1_000101_00.jpg --sheet found.png",
        ):
            ran = lupctl(line)
            assert ran.code == 0, (line, ran.err)
    finally:
        os.umask(before)
    found = {name: mode for name, mode in modes(tmp_path).items() if not name.startswith("tiny-market")}
    kinds = {Path(name).suffix for name in found}
    assert kinds >= {".h5", ".toml", ".json", ".jsonl", ".safetensors", ".html", ".png"}
    assert any("tfevents" in name for name in found)
    assert {name: oct(mode) for name, mode in found.items() if mode != 0o666 & ~mask} == {}


@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_a_file_that_its_writer_kept_to_itself_is_shared_as_umask_says(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        with atomic_path(tmp_path / "own") as partial:
            partial.touch(mode=0o600)
        write_text(tmp_path / "text", "a")
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"own": 0o666 & ~mask, "text": 0o666 & ~mask}
