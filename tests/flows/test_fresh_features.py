"""Features of a run that are made when they are needed: where they go when the run cannot be written to."""

import errno
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest

from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell
from tests.tools.tiny.training import finetune_job


def refuse_writes(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Makes a folder look like one on a read-only disk; the tests may run as root, who can write anywhere."""
    real: Any = tempfile.NamedTemporaryFile

    def named(*given: Any, dir: Any = None, **more: Any) -> Any:
        if Path(dir).resolve() == folder.resolve():
            raise OSError(errno.EROFS, "Read-only file system")
        return real(*given, dir=dir, **more)

    patch.setattr(tempfile, "NamedTemporaryFile", named)


def test_features_of_a_run_that_cannot_be_written_to(
    lupctl: Shell, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "lup" / "runs" / "fine"
    finetune(finetune_job(labelled, run, "schedule.epochs=1"), Progress(quiet=True))
    before = sorted(path.name for path in run.iterdir())
    refuse_writes(monkeypatch, run)
    (tmp_path / "mine").mkdir()
    for out, report in (("mine", "mine/report.json"), ("mine/second.json", "mine/second.json")):
        ran = lupctl(f"eval fine --out {out} --device cpu")
        assert ran.code == 0, ran.err
        assert f"report: {report}" in ran.out
        # The second evaluation finds the features of the first.
        assert ("features: mine/fine-labelled.features.h5 from " in ran.err) == (out == "mine")
    assert sorted(path.name for path in run.iterdir()) == before
    assert json.loads((tmp_path / "mine/report.json").read_text())["dataset"] == "labelled"
    # Another run's do not take their place.
    other = tmp_path / "lup" / "runs" / "other"
    finetune(finetune_job(labelled, other, "schedule.epochs=1", "seed=8"), Progress(quiet=True))
    refuse_writes(monkeypatch, other)
    assert lupctl("eval other --out mine/other.json --device cpu").code == 0
    made = {run: tmp_path / f"mine/{run}-labelled.features.h5" for run in ("fine", "other")}
    assert made["fine"].read_bytes() != made["other"].read_bytes()
    # Those of an older network are made again.
    shutil.copy(made["other"], made["fine"])
    assert lupctl("eval fine --out mine/third.json --device cpu").code == 0
    reports = [json.loads((tmp_path / f"mine/{name}.json").read_text()) for name in ("second", "third")]
    assert reports[0]["fingerprints"] == reports[1]["fingerprints"]


def test_the_hint_for_a_run_that_cannot_be_written_to_works(
    lupctl: Shell, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "lup" / "runs" / "fine"
    finetune(finetune_job(labelled, run, "schedule.epochs=1"), Progress(quiet=True))
    assert lupctl("eval fine --device cpu").code == 0, "features are there"
    (run / "report.json").unlink()
    refuse_writes(monkeypatch, run)
    ran = lupctl("eval fine --device cpu")
    assert ran.code == 3
    assert "fine/report.json: cannot be written (Read-only file system)" in ran.err
    assert ran.err.endswith("hint: name another place with --out or --home\n")
    assert lupctl("eval fine --device cpu --out mine.json").code == 0
    assert (tmp_path / "mine.html").is_file()


def test_a_dry_run_makes_no_features(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    run = tmp_path / "lup" / "runs" / "fine"
    finetune(finetune_job(labelled, run, "schedule.epochs=1"), Progress(quiet=True))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    ran = lupctl("eval fine --dry-run --device cpu")
    assert ran.code == 0, ran.err
    assert f"features: lup/runs/fine/labelled.features.h5 would be made from {labelled}" in ran.err
    planned = lupctl("eval fine --dry-run --json --device cpu").json
    again = lupctl("eval --dry-run --json --device cpu --out mine.json").json
    assert again["report"] == "mine.json"
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == before
    assert lupctl("eval fine --device cpu").code == 0
    assert lupctl("eval fine --dry-run --json --force --device cpu").json == planned
    # Those of an older network are not touched either.
    (run / "report.json").unlink()
    other = tmp_path / "lup" / "runs" / "other"
    finetune(finetune_job(labelled, other, "schedule.epochs=1", "seed=8"), Progress(quiet=True))
    shutil.copy(run / "labelled.features.h5", other)
    stale = (other / "labelled.features.h5").read_bytes()
    assert "would be made" in lupctl("eval other --dry-run --device cpu").err
    picture = next((tmp_path / "lup").rglob("*.json"))
    assert lupctl(f"search other {picture} --dry-run --json --device cpu").json["gallery"].endswith("made first")
    assert (other / "labelled.features.h5").read_bytes() == stale


def test_features_of_other_data_are_not_taken_for_those_of_a_run(lupctl: Shell, labelled: Path, tmp_path: Path) -> None:
    run = tmp_path / "lup" / "runs" / "fine"
    finetune(finetune_job(labelled, run, "schedule.epochs=1"), Progress(quiet=True))
    shutil.copy(labelled, tmp_path / "other.h5")
    assert lupctl("dump fine other.h5 --device cpu").code == 0
    ran = lupctl("eval --device cpu")
    assert ran.code == 0, ran.err
    assert "features: lup/runs/fine/labelled.features.h5 from " in ran.err
    assert lupctl("eval --device cpu --out new/place").code == 0
    assert sorted(path.name for path in (tmp_path / "new/place").iterdir()) == ["report.html", "report.json"]
