"""`eval --all`: every network on every test set of a workspace, features made where they are missing."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.errors import DataError
from lupctl.core.formats.features.file import read_features_head
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.progress.lines import Progress
from tests.tools.drawn_packs import pack_drawn
from tests.tools.shell import Shell
from tests.tools.tiny.training import finetune_job, pretrain_job

QUIET = Progress(quiet=True)
SIZE: dict[str, Any] = {"cameras": 3, "shots": 2, "height": 32, "width": 16}


@pytest.fixture(scope="module")
def made(labelled: Path, crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two fine-tuning runs and a pre-training run; packs with and without queries, and one of a single camera."""
    home = tmp_path_factory.mktemp("made") / "lup"
    (home / "packs").mkdir(parents=True)
    shutil.copy(labelled, home / "packs" / "labelled.h5")
    shutil.copy(crowd, home / "packs" / "crowd.h5")
    other = SyntheticPlan(seed=9, train_persons=4, test_persons=5, **SIZE)
    pack_drawn(other, home / "packs" / "other.h5", dataset="other")
    pack_drawn(SyntheticPlan(train_persons=4, **SIZE), home / "packs" / "train.h5", dataset="train")
    pretrain(pretrain_job(crowd, home / "runs" / "pre"), QUIET)
    finetune(finetune_job(home / "packs" / "labelled.h5", home / "runs" / "one"), QUIET)
    finetune(finetune_job(home / "packs" / "other.h5", home / "runs" / "two"), QUIET)
    os.utime(home / "runs" / "one" / "run.json", (1_700_000_000,) * 2)
    return home


@pytest.fixture
def home(made: Path, lupctl: Shell, tmp_path: Path) -> Path:
    """A copy of it, as ./lup."""
    shutil.copytree(made, tmp_path / "lup")
    for run in (tmp_path / "lup" / "runs").iterdir():
        facts = json.loads((run / "run.json").read_text())
        if "pack" in facts:
            facts["pack"] = str(tmp_path / "lup" / "packs" / Path(facts["pack"]).name)
            at = (run / "run.json").stat()
            (run / "run.json").write_text(json.dumps(facts))
            os.utime(run / "run.json", ns=(at.st_atime_ns, at.st_mtime_ns))
    return Path("lup")


def test_features_in_bf16_are_used_and_named(lupctl: Shell, home: Path) -> None:
    made = lupctl("dump one labelled --precision bf16 --device cpu --workers 0")
    assert made.code == 0, made.err
    ran = lupctl("eval --all one --device cpu")
    assert "precision: one: the features of labelled were computed in bf16" in ran.out
    assert "the features of other" not in ran.out


def test_a_matrix(lupctl: Shell, home: Path) -> None:
    """Each cell holds what `dump` and `eval` of that pair give."""
    ran = lupctl("eval --all one two pre --device cpu --rerank --k1 6 --k2 2")
    assert ran.code == 0, ran.err
    path = home / "comparisons" / "all--one--two--pre.json"
    assert f"report: {path}" in ran.out
    assert f"report: {path.with_suffix('.html')}" in ran.out
    matrix = json.loads(path.read_text())
    assert matrix["schema"] == "lupctl.eval-all/1"
    assert [one["name"] for one in matrix["datasets"]] == ["labelled", "other"], "crowd and train have no queries"
    assert [one["name"] for one in matrix["runs"]] == ["one", "two", "pre"]
    seen = {run["name"]: [cell["trained_on"] for cell in run["cells"]] for run in matrix["runs"]}
    assert seen == {"one": [True, False], "two": [False, True], "pre": [False, False]}
    for run in matrix["runs"]:
        for cell in run["cells"]:
            line = f"dump {run['name']} {cell['dataset']} --out f.features.h5 --device cpu --force"
            assert lupctl(line).code == 0
            alone = lupctl("eval f.features.h5 --rerank --k1 6 --k2 2 --out r.json --no-page --force --json").json
            assert cell["scores"] == alone["scores"]
            assert cell["ci95"] == alone["ci95"]
            assert cell["rerank"] == alone["rerank"]
    table = [line for line in ran.out.splitlines() if line.strip().startswith(("one", "two", "pre"))]
    first = matrix["runs"][0]["cells"]
    shown = f"{100 * first[0]['scores']['map']:.2f} / {100 * first[0]['scores']['cmc']['1']:.2f} *"
    assert shown in table[0]
    assert " *" not in table[4]
    assert len(table) == 6, "each once more after re-ranking"
    page = path.with_suffix(".html").read_text()
    for value in (f"{100 * first[1]['scores']['map']:.2f}", "other mAP", "one, re-ranked"):
        assert value in page


def test_features_are_made_once_and_again_when_something_changed(lupctl: Shell, home: Path) -> None:
    line = "eval --all --device cpu"
    ran = lupctl(line)
    assert ran.code == 0, ran.err
    assert f"run: {home}/runs/two (the newest fine-tuning run)" in ran.err
    assert ran.err.count("features: ") == 2
    assert sorted(path.name for path in (home / "runs" / "two").glob("*.features.h5")) == [
        "labelled.features.h5",
        "other.features.h5",
    ]
    refused = lupctl(line)
    assert refused.code == 2
    assert f"{home}/comparisons/all--two.json: exists already" in refused.err
    again = lupctl(f"{line} --force --json")
    assert again.code == 0
    assert "features: " not in again.err
    (home / "packs" / "labelled.h5").unlink()
    pack_drawn(SyntheticPlan(seed=10, test_persons=5, **SIZE), home / "packs" / "labelled.h5", dataset="labelled")
    changed = lupctl(f"{line} --force --json")
    assert changed.err.count("features: ") == 1
    assert f"features: {home}/runs/two/labelled.features.h5 from {home}/packs/labelled.h5" in changed.err
    assert changed.json["runs"][0]["cells"][0] != again.json["runs"][0]["cells"][0]
    assert changed.json["runs"][0]["cells"][1] == again.json["runs"][0]["cells"][1]
    # The run's own test set is still what plain `eval` means.
    plain = lupctl("eval --device cpu --json --rerank --k1 5 --k2 2")
    assert (plain.code, plain.json["dataset"]) == (0, "other")
    cells = lupctl(f"{line} --force --json").json["runs"][0]["cells"]
    assert [cell["rerank"] for cell in cells] == [None, None], "what that report says beyond is not asked for here"
    assert cells[1]["scores"] == plain.json["scores"]


def test_checkpoints_beside_each_other_keep_their_features_apart(lupctl: Shell, home: Path) -> None:
    (home / "models").mkdir()
    for name in ("one", "two"):
        shutil.copy(home / "runs" / name / "checkpoint.safetensors", home / "models" / f"{name}.safetensors")
    ran = lupctl("eval --all lup/models/one.safetensors lup/models/two.safetensors --device cpu --json --out m.json")
    assert ran.code == 0, ran.err
    by_name = [run["cells"][0]["scores"]["map"] for run in ran.json["runs"]]
    runs = lupctl("eval --all one two --device cpu --json").json["runs"]
    assert by_name == [run["cells"][0]["scores"]["map"] for run in runs]
    assert by_name[0] != by_name[1]
    head = read_features_head(home / "models" / "one.labelled.features.h5")
    assert head.record["dataset"] == "labelled"


def test_what_is_planned_and_what_is_refused(lupctl: Shell, home: Path) -> None:
    plan = lupctl("eval --all one --dry-run --json").json
    assert plan == {
        "schema": "lupctl.eval-all-plan/1",
        "runs": ["one"],
        "datasets": ["labelled", "other"],
        "report": f"{home}/comparisons/all--one.json",
    }
    assert not list((home / "runs" / "one").glob("*.features.h5"))
    for line, message in (
        ("one one", "--all: a run is named twice in one one"),
        ("one --compare", "--compare has no meaning with --all"),
        ("one --min-map 0.5", "--min-map has no meaning with --all"),
    ):
        ran = lupctl(f"eval --all {line}")
        assert ran.code == 2
        assert message in ran.err
    assert "no checkpoint 'gone'" in lupctl("eval --all gone").err
    for name in ("labelled", "other"):
        (home / "packs" / f"{name}.h5").unlink()
    ran = lupctl("eval --all one")
    assert ran.code == 3
    assert f"{home}/packs: no pack with queries that can be answered" in ran.err
    assert "no finished fine-tuning run" in lupctl("eval --all --home nowhere").err


def test_many_long_names_make_no_name_that_no_disk_takes(lupctl: Shell, home: Path) -> None:
    names = [f"finetune-market1501-r50-from-pretrain-moco-r50-luperson-ids-0.1-seed{number}" for number in range(5)]
    for name in names:
        shutil.copytree(home / "runs" / "one", home / "runs" / name)
    ran = lupctl(f"eval --all {' '.join(names)} --dry-run --json")
    assert len(Path(ran.json["report"]).name) < 200
    other = lupctl(f"eval --all {' '.join(reversed(names))} --dry-run --json")
    assert other.json["report"] != ran.json["report"]


def test_a_comparison_of_a_whole_sweep_has_a_name(lupctl: Shell, home: Path) -> None:
    names = [f"finetune-labelled-r18-from-scratch-ids-0.{share}-repeat-full-seed{share}" for share in range(1, 6)]
    for number, name in enumerate(names):
        shutil.copytree(home / "runs" / ("two" if number % 2 else "one"), home / "runs" / name)
        if number % 2:
            shutil.copy(home / "runs" / "one" / "run.json", home / "runs" / name)
    ran = lupctl(f"eval --compare {' '.join(names)} --device cpu --json")
    assert ran.code == 0, ran.err
    assert [run["name"] for run in ran.json["runs"]] == names
    assert len(ran.json["differences"]) == 2 * 10
    (path,) = (home / "comparisons").glob("*.json")
    assert path.name.startswith(f"{names[0][:50]}--and-4-more-")


def test_a_name_that_no_disk_takes_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.json: cannot be written \(File name too long\)"):
        write_text(tmp_path / f"{'x' * 260}.json", "{}")


def test_speeds_are_taken_along(lupctl: Shell, home: Path) -> None:
    """Of the networks that were timed, by their fingerprints: a run that has changed since is another network."""
    timed = lupctl(
        "model bench one two --backend torch --device cpu --batch 2 --seconds 0 --out lup/comparisons --json"
    )
    assert timed.code == 0, timed.err
    (home / "comparisons" / "other.json").write_text("{}")
    shutil.copy(home / "runs" / "one" / "checkpoint.safetensors", home / "runs" / "two" / "checkpoint.safetensors")
    (home / "comparisons" / "damaged.json").write_text("{")
    ran = lupctl("eval --all one two pre --device cpu --json")
    assert (ran.code, "damaged.json: not a document of model bench" in ran.err) == (0, True)
    one, two, pre = (run["speeds"] for run in ran.json["runs"])
    assert one == [run for run in timed.json["runs"] if run["name"] == "one"]
    assert two == one  # it is this very network now
    assert pre == []
    page = (home / "comparisons" / "all--one--two--pre.html").read_text()
    assert "milliseconds of a pass over 2 images" in page
    table = lupctl("eval --all one --device cpu --force").out
    assert "as lupctl model bench measured" in table
