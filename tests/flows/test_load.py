"""`lupctl.load`: networks by the names of the command line, and the threshold of a report."""

import json
import os
import re
import shutil
import subprocess
import sys
import traceback
from pathlib import Path

import numpy as np
import pytest

import lupctl
from lupctl.cli.manual import read_chapter
from lupctl.core.errors import DeviceError
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell
from tests.tools.tiny.footage import Stay, write_footage, write_stays
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import finetune_job

ROOT = Path(__file__).parents[2]
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def home(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with two runs, `fine` and `other`, and pictures of five persons. Shared: copy to change."""
    home = tmp_path_factory.mktemp("home")
    finetune(finetune_job(labelled, home / "runs" / "other", "seed=9", "schedule.epochs=1"), QUIET)
    finetune(finetune_job(labelled, home / "runs" / "fine"), QUIET)
    return home


@pytest.fixture
def scored(home: Path, labelled: Path, lupctl: Shell) -> Path:
    """The same with a report of `fine`."""
    if not (home / "runs/fine/report.json").is_file():
        assert lupctl(f"dump fine {labelled} --home {home} --device cpu --workers 0 --quiet").code == 0
        assert lupctl(f"eval {home}/runs/fine/labelled.features.h5 --home {home} --device cpu --quiet").code == 0
    return home


def test_the_names_of_the_command_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = home / "runs/fine/checkpoint.safetensors"
    for name in (path, str(path), path.parent):
        assert lupctl.load(name, device="cpu").path == path
    assert lupctl.load("fine", home=home, device="cpu").path == path
    assert capsys.readouterr().err == ""
    monkeypatch.setenv("LUPCTL_HOME", str(home))
    assert lupctl.load("other", device="cpu").path == home / "runs/other/checkpoint.safetensors"
    newest = lupctl.load(device="cpu")
    assert newest.path == path
    assert capsys.readouterr().err == f"run: {path.parent} (the newest fine-tuning run)\n"
    assert newest.trained_on == ("labelled",)
    monkeypatch.chdir(home.parent)
    monkeypatch.setenv("LUPCTL_HOME", home.name)
    assert lupctl.load("fine", device="cpu").path.is_file()


def test_errors_are_of_one_family_and_say_what_to_do(home: Path) -> None:
    with pytest.raises(lupctl.LupError, match="no checkpoint 'fin': neither a file") as caught:
        lupctl.load("fin", home=home)
    assert caught.value.hint == "did you mean fine?"
    shown = "".join(traceback.format_exception(caught.value)).splitlines()
    assert shown[-1] == "hint: did you mean fine?"
    with pytest.raises(DeviceError, match="cuda:99"):
        lupctl.load("fine", home=home, device="cuda:99")


def test_same_says_yes_or_no_by_the_report(scored: Path, labelled: Path) -> None:
    net = lupctl.load("fine", home=scored, device="cpu")
    report = json.loads((scored / "runs/fine/report.json").read_text(encoding="utf-8"))
    threshold = report["details"]["pairs"]["threshold"]
    features = read_features(scored / "runs/fine/labelled.features.h5")
    units = features.features / np.linalg.norm(features.features, axis=1, keepdims=True)
    answers = set()
    for row in range(1, 20):
        found = net.same(features.features[0], features.features[row])
        similarity = float(units[0] @ units[row])
        assert found.similarity == pytest.approx(similarity, abs=1e-6)
        assert found.is_same == (similarity >= 1 - threshold["chosen"]["threshold"])
        answers.add(bool(found))
    assert answers == {True, False}
    assert found.threshold == pytest.approx(1 - threshold["chosen"]["threshold"])
    assert found.false_matches == threshold["held_out"]["fpr"]
    assert found.missed == pytest.approx(1 - threshold["held_out"]["tpr"])
    assert (found.dataset, found.report) == ("labelled", str(scored / "runs/fine/report.json"))
    pack = open_pack(labelled)
    row_of = {name: row for row, name in enumerate(pack.samples.name)}
    one, two = (pack.read(row_of[features.samples.name[row]]) for row in (0, 4))
    by_image = net.same(one, two)
    assert by_image == net.same(one, [two])
    assert by_image.similarity == pytest.approx(float(units[0] @ units[4]), abs=1e-6)
    with pytest.raises(lupctl.LupError, match="3 images in two arguments"):
        net.same(one, [one, two])


def test_a_report_that_does_not_fit(scored: Path, tmp_path: Path) -> None:
    report = scored / "runs/fine/report.json"
    assert lupctl.load("fine", home=scored, report=report, device="cpu").same(np.eye(2, 32)[0], np.eye(2, 32)[0])
    with pytest.raises(lupctl.LupError, match="is of another network"):
        lupctl.load("other", home=scored, report=report, device="cpu")
    other = lupctl.load("other", home=scored, device="cpu")
    vector = np.ones(other.dimension)
    with pytest.raises(lupctl.LupError, match=r"report\.json does not exist, so no similarity is known") as caught:
        other.same(vector, vector)
    assert caught.value.hint.startswith(f"make a report: lupctl eval {scored}/runs/other")
    with pytest.raises(lupctl.LupError, match="gone"):
        lupctl.load("fine", home=scored, report=tmp_path / "gone.json", device="cpu")


def test_the_package_gives_its_names_and_no_other() -> None:
    assert {"load", "LoadedNetwork", "LupError"} == set(lupctl.__all__)
    with pytest.raises(AttributeError, match="module 'lupctl' has no attribute 'lode'"):
        lupctl.lode  # type: ignore[attr-defined]  # noqa: B018
    code = "import sys, lupctl\nlupctl.load\nprint(sorted({'torch', 'numpy', 'h5py', 'cv2'} & set(sys.modules)))"
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert ran.stdout == "[]\n", "not before a network is loaded"


def run_block(title: str, document: str | None = None) -> None:
    """Runs the Python of a section, of the chapter unless another text is given."""
    text = read_chapter("python") if document is None else document
    (block,) = re.findall(rf"^##? {title}\n.*?```python\n(.*?)```", text, re.DOTALL | re.MULTILINE)
    exec(compile(block, title, "exec"), {})


def test_the_front_page_runs(scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(scored / "runs" / "fine", tmp_path / "lup" / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.jpg", "b.jpg")):
        (tmp_path / name).write_bytes(encode_tiny(seed))
    run_block("From Python", (ROOT / "README.md").read_text(encoding="utf-8"))


def test_the_chapter_runs(
    scored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(scored / "runs" / "fine", tmp_path / "lup" / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lup/runs/mine/labelled.features.h5").rename(tmp_path / "lup/runs/mine/market1501.features.h5")
    for seed, name in enumerate(("person.jpg", "other.jpg")):
        (tmp_path / name).write_bytes(encode_tiny(seed))
    capsys.readouterr()
    run_block("From Python")
    out = capsys.readouterr().out
    assert re.search(r"^(not the )?same -?0\.\d+ 0\.\d+ 0\.\d+$", out, re.MULTILINE)
    assert out.count("bounding_box_test/") + out.count("query/") == 5


def test_the_tracker_of_the_chapter_runs(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person who comes back is most like the one who was there before."""
    pytest.importorskip("trackers", reason="needs lupctl[tracking]")
    stays = [Stay(1, 1, 12, 0), Stay(2, 1, 12, 2), Stay(1, 30, 44, 4), Stay(2, 30, 44, 1)]
    write_footage(tmp_path / "pets09-s2l1/pets09-s2l1.avi", stays, frames=44)
    write_stays(tmp_path / "pets09-s2l1/gt/gt.txt", stays)
    shutil.copytree(home / "runs" / "fine", tmp_path / "lup" / "runs" / "mine")
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    run_block("In a tracker")
    lines = capsys.readouterr().out.splitlines()
    pairs = {tuple(map(int, re.findall(r"track (\d+)", line))) for line in lines}
    assert len(pairs) == len(lines) == 4
    assert {(second, first) for first, second in pairs} == pairs, "two persons, each of two tracks"
