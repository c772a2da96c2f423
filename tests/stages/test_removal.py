"""`lupctl data rm`: what goes, what stays, and what a killed removal leaves."""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from lupctl.core.formats.pack.lock import part_folder
from lupctl.core.stages.removal import plan_removal, remove_data
from lupctl.core.system.disk.removal import count_bytes, remove_aside, remove_leftovers, remove_tree
from lupctl.core.training.engine.runs import RunFolder
from lupctl.core.workspace import Workspace
from tests.tools.lock_holders import lock_holders
from tests.tools.shell import Shell

HOME = Path("lup")
SPACE = Workspace(HOME)


@pytest.fixture
def holder() -> Iterator[Callable[[Path], None]]:
    """Starts processes that hold lock files, and ends them."""
    with lock_holders() as hold:
        yield hold


@pytest.fixture
def full(lupctl: Shell, crowd: Path, labelled: Path, tmp_path: Path) -> Shell:
    """A workspace with raw data and a pack of a, a sharded pack b, raw data c that is a link, and a link in a's."""
    (HOME / "packs/b").mkdir(parents=True)
    shutil.copy(crowd, HOME / "packs/a.h5")
    for number in range(2):
        shutil.copy(labelled, HOME / f"packs/b/{number}.h5")
    (HOME / "raw/a/deep").mkdir(parents=True)
    far = tmp_path / "far"
    far.mkdir()
    (far / "photo.jpg").write_text("mine")
    for name in ("a/1.jpg", "a/deep/2.jpg"):
        (HOME / "raw" / name).write_text("12345")
    (HOME / "raw/a/linked").symlink_to(far)
    (HOME / "raw/a/photo.jpg").symlink_to(far / "photo.jpg")
    (HOME / "raw/c").symlink_to(far)
    return lupctl


def there() -> set[str]:
    return {f"{path.parent.name}/{path.name}" for kind in ("packs", "raw") for path in (HOME / kind).iterdir()}


WHOLE = {"packs/a.h5", "packs/b", "raw/a", "raw/c"}


@pytest.mark.parametrize(
    ("line", "gone"),
    [
        ("a", {"packs/a.h5"}),
        ("a.h5", {"packs/a.h5"}),
        ("lup/packs/a.h5", {"packs/a.h5"}),
        ("b", {"packs/b"}),
        ("a --raw", {"raw/a"}),
        ("c --raw", {"raw/c"}),
        ("a --pack --raw", {"packs/a.h5", "raw/a"}),
        ("a b a", {"packs/a.h5", "packs/b"}),
        ("b c --pack --raw", {"packs/b", "raw/c"}),
    ],
)
def test_what_is_named_goes_and_nothing_else(full: Shell, tmp_path: Path, line: str, gone: set[str]) -> None:
    dry = full(f"data rm {line} --dry-run --json")
    assert (dry.code, dry.json["schema"]) == (0, "lupctl.data-rm-plan/1"), dry.err
    assert there() == WHOLE
    assert {Path(row["path"]).relative_to(HOME).as_posix() for row in dry.json["removed"]} == gone
    ran = full(f"data rm {line} --yes --json")
    assert (ran.code, ran.json["removed"]) == (0, dry.json["removed"]), ran.err
    assert there() == WHOLE - gone
    assert (tmp_path / "far/photo.jpg").read_text() == "mine"
    assert ran.json["bytes"] == sum(row["bytes"] for row in ran.json["removed"])
    sizes = {"packs/a.h5": 0, "raw/a": 10}
    for row in ran.json["removed"]:
        name = Path(row["path"]).relative_to(HOME).as_posix()
        assert row["bytes"] > sizes.get(name, 0)


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("gone", "gone: no pack in lup", "lupctl data list shows what is here"),
        ("c", "c: no pack here, only raw data", "lupctl data rm c --raw"),
        ("b --raw", "b: no raw data here, only a pack", "lupctl data rm b"),
        ("a gone", "gone: no pack in lup", ""),
        ("../far", "../far: no pack in lup", ""),
        ("../far --raw", "../far: no raw data in lup", ""),
        (". --raw", ".: no raw data in lup", ""),
        (".. --raw --pack", "..: no pack or raw data in lup", ""),
        ("far/photo.jpg", "far/photo.jpg: no pack in lup", ""),
        ("a/deep --raw", "a/deep: no raw data in lup", ""),
    ],
)
def test_what_is_not_there_is_an_error_and_all_stays(full: Shell, line: str, message: str, hint: str) -> None:
    ran = full(f"data rm {line} --yes")
    assert (ran.code, ran.out) == (3, "")
    assert f"error: {message}" in ran.err
    assert hint in ran.err
    assert there() == WHOLE
    assert Path("far/photo.jpg").is_file()


def test_it_asks_and_says_what_it_means(full: Shell) -> None:
    ran = full("data rm a c --raw")
    assert ran.code == 2
    assert "error: removing raw data of 2 datasets, " in ran.err
    assert ran.err.endswith("hint: lupctl data rm a c --raw --yes\n")
    assert "lup/raw/c: a link; what it names stays" in ran.err
    assert "lup/raw/c: there is no pack of it; these images are then nowhere in lup" in ran.err
    assert "lup/raw/a: there is no pack" not in ran.err
    assert "lup/packs/b: its raw data is not there to make it again from" in full("data rm b").err
    assert there() == WHOLE


def test_datasets_that_share_their_raw_data(full: Shell) -> None:
    (HOME / "raw/cuhk03-np/labeled").mkdir(parents=True)
    ran = full("data rm cuhk03-labeled --raw --yes")
    assert ran.code == 0, ran.err
    assert "lup/raw/cuhk03-np: cuhk03-detected is read from it too" in ran.err
    assert not (HOME / "raw/cuhk03-np").exists()


def test_data_in_use_stays(full: Shell, holder: Any) -> None:
    run = RunFolder(HOME / "runs/mine")
    run.write_setup({"inputs": {"pack:a": "sha256:1"}}, 'stage = "pretrain"\n')
    ran = full("data rm a --dry-run")
    assert "lup/runs/mine: stopped, and needs a to continue" in ran.err
    holder(run.path / ".lock")
    ran = full("data rm b a --yes")
    assert ran.code == 2
    assert "error: a: lup/runs/mine is training on it" in ran.err
    holder(HOME / "packs/.b.lock")
    ran = full("data rm b --yes")
    assert ran.code == 3
    assert "b: another process is packing it" in ran.err
    (HOME / "raw/a/.lupctl-part").mkdir()
    holder(HOME / "raw/a/.lupctl-part/lock")
    ran = full("data rm a --raw --yes")
    assert ran.code == 3
    assert "lup/raw/a: another lupctl is downloading into it" in ran.err
    assert there() == WHOLE | {"packs/.b.lock"}


def test_an_unfinished_pack_can_be_removed(full: Shell) -> None:
    part = part_folder(HOME / "packs/new.h5")
    part.mkdir()
    (part / "0.h5").write_text("half")
    ran = full("data rm new --yes --json")
    assert (ran.code, ran.json["bytes"]) == (0, 4), ran.err
    assert there() == WHOLE


def test_the_verdict_goes_with_its_pack(full: Shell) -> None:
    assert full("data verify lup/packs/a.h5").code == 0
    assert (HOME / "packs/.verified/a.h5.json").is_file()
    assert full("data rm a --yes").code == 0
    assert not (HOME / "packs/.verified/a.h5.json").exists()


@pytest.mark.parametrize("name", ["a", "b"])
@pytest.mark.parametrize("kind", ["pack", "raw"])
@pytest.mark.parametrize("step", ["rename", "rmtree"])
def test_a_killed_removal_leaves_nothing_half(
    full: Shell, monkeypatch: pytest.MonkeyPatch, name: str, kind: Any, step: str
) -> None:
    """The step ends as if the process had; the pack is then whole or gone, and the next removal takes the rest."""
    if (name, kind) == ("b", "raw"):
        shutil.copytree(HOME / "raw/a", HOME / "raw/b", symlinks=True)
    (removal,) = plan_removal(SPACE, [name], [kind])
    before = {path.name for path in removal.path.rglob("*")}

    def die(*given: Any, **more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path if step == "rename" else shutil, step, die)
        with pytest.raises(KeyboardInterrupt):
            remove_data(removal)
    assert removal.path.exists() == (step == "rename")
    assert {path.name for path in removal.path.rglob("*")} == (before if step == "rename" else set())
    assert [pack.name for pack in SPACE.pack_paths()] == (
        ["a.h5", "b"] if step == "rename" or kind == "raw" else [{"a": "b", "b": "a.h5"}[name]]
    )
    other = "b" if name == "a" else "a"
    if kind == "raw":
        (HOME / "raw" / other).mkdir(exist_ok=True)
    (next_one,) = plan_removal(SPACE, [other], [kind])
    remove_data(next_one)
    assert not [path.name for path in removal.path.parent.iterdir() if path.name.endswith("removed")]


def test_trees_go_without_following_links(tmp_path: Path) -> None:
    far = tmp_path / "far"
    far.mkdir()
    (far / "a").write_text("123")
    (tmp_path / "link").symlink_to(far)
    (tmp_path / "loose").symlink_to(tmp_path / "nowhere")
    (tmp_path / "tree/below").mkdir(parents=True)
    (tmp_path / "tree/below/file").write_text("12")
    (tmp_path / "tree/below/link").symlink_to(far)
    assert count_bytes(tmp_path / "tree") == 2 + (tmp_path / "tree/below/link").lstat().st_size
    for name in ("tree", "link", "loose", "absent"):
        remove_tree(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["far"]  # noqa: PTH208
    assert (far / "a").read_text() == "123"


def test_what_is_moved_aside_is_gone_for_good_the_next_time(tmp_path: Path) -> None:
    for name in ("a", "b", "keep"):
        (tmp_path / name).mkdir()
    aside = tmp_path / ".x.lupctl-removed"
    (aside / "a").mkdir(parents=True)
    remove_aside([tmp_path / "a", tmp_path / "absent", tmp_path / "b"], "x")
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
    aside.mkdir()
    remove_leftovers(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["keep"]
