"""`lupctl eval`: tables, JSON, which features it takes, and its exit codes."""

import json
import os
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from lupctl.cli.app import main
from lupctl.core.formats.features.file import Features, read_features, write_features
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.record import build_record
from lupctl.core.ranking.reports.model.single import read_report
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.strings import build_column


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


class Command:
    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.home, self._monkeypatch, self._capsys = home, monkeypatch, capsys

    def __call__(self, *words: object) -> Outcome:
        # The page has tests of its own; drawing it takes longer than all the rest.
        argv = ["lupctl", "eval", *map(str, words), "--no-page", "--home", str(self.home), "--device", "cpu"]
        self._monkeypatch.setattr(sys, "argv", argv)
        try:
            main()
            code = 0
        except SystemExit as exit_:
            code = int(exit_.code or 0)
        return Outcome(code, *self._capsys.readouterr())


@pytest.fixture
def run_eval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path / "lup", monkeypatch, capsys)


def write_toy(path: Path, *, cameras: int = 3, spoil: bool = False, absent: int = 0) -> Path:
    rng = np.random.default_rng(0)
    person = np.tile(np.arange(1, 13), 10)
    role = np.where(np.arange(120) < 24, 2, 3).astype(np.uint8)
    person[:absent] = 99
    features = (rng.standard_normal((100, 16))[person] + 0.9 * rng.standard_normal((120, 16))).astype(np.float32)
    if spoil:
        features[7] = np.nan
    samples = Samples(
        person=person.astype(np.int64),
        camera=rng.integers(0, cameras, 120).astype(np.int16),
        role=role,
        name=build_column([f"{row:03d}.jpg" for row in range(120)]),
    )
    record = build_record(
        "features", 1, command=["lupctl", "dump"], parents={"pack": "sha256:" + "a" * 64}, facts={"dataset": "toy"}
    )
    write_features(path, Features(features, samples, record))
    return path


def make_run(home: Path, name: str, *, age_s: int, command: str = "finetune") -> Path:
    run = home / "runs" / name
    run.mkdir(parents=True)
    (run / "checkpoint.safetensors").write_bytes(b"weights")
    (run / "run.json").write_text(json.dumps({"command": command}))
    stamp = 1_700_000_000 - age_s
    os.utime(run / "run.json", (stamp, stamp))
    return run


@pytest.mark.parametrize(("facts", "title"), [({"dataset_version": "v2"}, "msmt17 V2"), ({}, "msmt17 ")])
def test_the_version_of_a_dataset_is_named(
    run_eval: Command, tmp_path: Path, facts: dict[str, str], title: str
) -> None:
    toy = read_features(write_toy(tmp_path / "toy.features.h5"))
    record = build_record("features", 1, command=[], facts={"dataset": "msmt17", **facts})
    write_features(tmp_path / "msmt17.features.h5", Features(toy.features, toy.samples, record))
    assert run_eval(tmp_path / "msmt17.features.h5").out.splitlines()[0].startswith(title)
    assert read_report(tmp_path / "report.json").provenance.features.get("dataset_version") == facts.get(
        "dataset_version"
    )


def test_the_table_shows_all_that_belongs_together(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5")
    outcome = run_eval(features, "--rerank", "--k1", 8, "--k2", 3, "--lambda", 0.25)
    assert outcome.code == 0, outcome.err
    report = read_report(tmp_path / "report.json")
    assert report.rerank is not None
    assert (report.rerank.k1, report.rerank.k2, report.rerank.weight, report.rerank.base) == (8, 3, 0.25, "d2")
    for text in (
        "mAP official", "mINP", "rank-1", "rank-5", "rank-10", "rank-20", "valid queries 24 / 24",
        "re-ranked: k1=8 k2=3 lambda=0.25 base=d2", "95 % interval", "protocol: market1501", "pack sha256:aaaa",
        f"{100 * report.scores.map:.4g}", f"{100 * report.rerank.scores.map:.4g}", str(tmp_path / "report.json"),
    ):  # fmt: skip
        assert text in outcome.out, text
    assert report.fingerprints == {"features": file_fingerprint(features), "pack": "sha256:" + "a" * 64}
    assert report.provenance.features["dataset"] == report.dataset == "toy"
    assert report.provenance.command[:2] == ["lupctl", "eval"]


def test_json_is_the_report(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5")
    outcome = run_eval(features, "--json", "--out", tmp_path / "other.json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == json.loads((tmp_path / "other.json").read_text())
    assert json.loads(outcome.out)["schema"] == "lupctl.report/1"
    assert json.loads(outcome.out)["rerank"] is None
    assert not (tmp_path / "report.json").exists()


def test_a_gate_that_is_not_met_is_four_and_still_reports(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5")
    outcome = run_eval(features, "--min-map", 0.999, "--json")
    assert outcome.code == 4
    score = json.loads(outcome.out)["scores"]["map"]
    assert f"error: mAP {score:.4f} is lower than the 0.999 that --min-map demands" in outcome.err
    assert (tmp_path / "report.json").is_file()
    assert run_eval(features, "--min-map", score, "--force").code == 0


def test_each_gate_is_named_by_its_option(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5")
    outcome = run_eval(features, "--min-rank1", 1, "--min-map", 0.999, "--json")
    scores = json.loads(outcome.out)["scores"]
    assert scores["cmc"]["1"] < 1
    assert outcome.code == 4
    assert outcome.err.splitlines() == [
        (
            f"error: mAP {scores['map']:.4f} is lower than the 0.999 that --min-map demands; "
            f"rank-1 {scores['cmc']['1']:.4f} is lower than the 1 that --min-rank1 demands"
        ),
        "hint: train longer, or demand less",
    ]
    outcome = run_eval(features, "--min-rank1", 1, "--force")
    assert outcome.code == 4
    assert "mAP" not in outcome.err
    assert run_eval(features, "--min-rank1", scores["cmc"]["1"], "--force").code == 0


def test_a_report_is_not_overwritten_without_force(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5")
    assert run_eval(features).code == 0
    before = (tmp_path / "report.json").read_bytes()
    # The same scores and more beside them: nothing is lost.
    assert run_eval(features, "--rerank").code == 0
    ranked = (tmp_path / "report.json").read_bytes()
    assert ranked != before
    for plain in (run_eval(features), run_eval(features, "--no-page")):
        assert plain.code == 0, "all that was asked for is in the report that is there"
        assert "is there already, re-ranked too; shown as it is (--force scores again)" in plain.err
        assert "re-ranked: k1=20" in plain.out
        assert (tmp_path / "report.json").read_bytes() == ranked
    for other in (["--rerank", "--k1", "10"], ["--rerank", "--same-camera", "keep"], ["--threshold", "0.01"]):
        outcome = run_eval(features, *other)
        assert outcome.code == 2
        assert "report.json: exists already" in outcome.err
        assert (tmp_path / "report.json").read_bytes() == ranked
    assert run_eval(features, "--force").code == 0
    assert (tmp_path / "report.json").read_bytes() != ranked
    (tmp_path / "report.json").write_text("mine", encoding="utf-8")
    assert run_eval(features, "--rerank").code == 2
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == "mine"


def test_dry_run_counts_and_touches_nothing(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5", absent=4)
    outcome = run_eval(features, "--dry-run", "--json", "--rerank")
    plan = json.loads(outcome.out)
    assert plan["schema"] == "lupctl.eval-plan/1"
    assert (plan["queries"], plan["queries_valid"], plan["gallery"], plan["dimension"]) == (24, 20, 96, 16)
    assert 120 * 16 * 4 < plan["memory_bytes"] < 2**23
    assert [entry.name for entry in tmp_path.iterdir()] == [features.name]
    assert "would evaluate" in run_eval(features, "--dry-run").out


def test_persons_absent_from_the_gallery_are_said(run_eval: Command, tmp_path: Path) -> None:
    outcome = run_eval(write_toy(tmp_path / "toy.features.h5", absent=4))
    assert outcome.code == 0
    assert "4 of 24 queries have no right answer (4 show a person absent from the gallery)" in outcome.err
    assert "valid queries 20 / 24" in outcome.out
    report = read_report(tmp_path / "report.json")
    assert (report.counts.queries_valid, report.counts.queries_absent) == (20, 4)
    assert report.scores.map_official < report.scores.map * 20 / 24 + 1e-9


def test_one_camera_data_is_refused_and_can_be_kept(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5", cameras=1)
    outcome = run_eval(features)
    assert outcome.code == 3
    assert "error: 0 of 24 queries have a right answer: every image has camera 0" in outcome.err
    assert "hint: " in outcome.err
    assert "--same-camera keep" in outcome.err
    assert run_eval(features, "--dry-run").code == 3
    assert run_eval(features, "--same-camera", "keep").code == 0
    assert read_report(tmp_path / "report.json").protocol.same_camera == "keep"


def test_broken_features_are_three(run_eval: Command, tmp_path: Path) -> None:
    outcome = run_eval(write_toy(tmp_path / "toy.features.h5", spoil=True))
    assert outcome.code == 3
    assert "1 of 120 features are NaN, infinite or beyond float32: row 7 (007.jpg)" in outcome.err
    assert not (tmp_path / "report.json").exists()
    text = tmp_path / "text.features.h5"
    text.write_text("no features")
    outcome = run_eval(text)
    assert outcome.code == 3
    assert "text.features.h5: not an HDF5 file" in outcome.err


def test_the_newest_finetuning_run_is_taken_and_named(run_eval: Command) -> None:
    old = make_run(run_eval.home, "old", age_s=100)
    new = make_run(run_eval.home, "new", age_s=10)
    make_run(run_eval.home, "pre", age_s=1, command="pretrain")
    write_toy(old / "toy.features.h5")
    write_toy(new / "toy.features.h5")
    outcome = run_eval()
    assert outcome.code == 0, outcome.err
    assert f"run: {new} (the newest fine-tuning run)" in outcome.err
    assert (new / "report.json").is_file()
    assert not (old / "report.json").exists()
    assert run_eval("old", "--quiet").err == ""
    assert (old / "report.json").is_file()
    assert run_eval(old, "--force").code == 0


def test_nothing_to_evaluate_is_three(run_eval: Command) -> None:
    outcome = run_eval()
    assert outcome.code == 3
    assert f"no finished fine-tuning run in {run_eval.home / 'runs'}" in outcome.err
    assert "hint: lupctl " in outcome.err
    outcome = run_eval("nowhere")
    assert outcome.code == 3
    assert "nowhere: neither a file, nor a folder, nor a run" in outcome.err
    make_run(run_eval.home, "small-bot", age_s=1)
    assert "hint: did you mean small-bot?" in run_eval("small-bott").err
    assert "hint: lupctl eval small-bot, the newest run here" in run_eval("xyz").err


def test_features_of_several_datasets_have_to_be_named(run_eval: Command) -> None:
    run = make_run(run_eval.home, "both", age_s=1)
    write_toy(run / "a.features.h5")
    write_toy(run / "b.features.h5")
    outcome = run_eval("both")
    assert outcome.code == 2
    assert "holds features of 2 datasets (a.features.h5, b.features.h5)" in outcome.err
    assert run_eval(run / "b.features.h5").code == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--k1", "3"), "--k1 has no meaning without --rerank"),
        (("--neighbours", "faiss"), "--neighbours has no meaning without --rerank"),
        (("--rerank", "--neighbours", "near"), "near"),
        (("--rerank", "--lambda", "1.5"), "equal to 1\n"),
        (("--rerank", "--k1", "0"), "equal to 1\n"),
        (("--rerank", "--rerank-base", "d3"), "d3"),
        (("--min-map", "85"), "equal to 1\n"),
    ],
)
def test_impossible_options_are_two(run_eval: Command, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    outcome = run_eval(write_toy(tmp_path / "toy.features.h5"), *words)
    assert outcome.code == 2
    assert message in outcome.err


def test_lupersons_base_is_named_and_changes_the_scores(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5")
    scores = []
    for base in ("d2", "d4"):
        outcome = run_eval(features, "--rerank", "--rerank-base", base, "--json", "--force")
        payload = json.loads(outcome.out)["rerank"]
        assert payload["base"] == base
        scores.append(payload["scores"])
    assert scores[0] != scores[1]


def test_the_search_for_neighbours_is_named_and_changes_nothing(run_eval: Command, tmp_path: Path) -> None:
    features = write_toy(tmp_path / "toy.features.h5")
    found = {}
    for words in ((), ("--neighbours", "exact"), ("--neighbours", "faiss")):
        outcome = run_eval(features, "--rerank", *words, "--json", "--force")
        assert outcome.code == 0, outcome.err
        ranked = json.loads(outcome.out)["rerank"]
        name = words[-1] if words else "exact"
        assert ranked["neighbours"] == name
        found[name] = ranked["scores"]
    assert found["faiss"]["map"] == pytest.approx(found["exact"]["map"], abs=1e-5)
    assert found["faiss"]["cmc"] == found["exact"]["cmc"]
    # The report of faiss lies there: by another search that is asked for it would be lost, by the default renewed.
    assert run_eval(features, "--rerank", "--neighbours", "exact").code == 2
    outcome = run_eval(features, "--rerank")
    assert outcome.code == 0
    assert "re-ranking's neighbours: exact search" in outcome.out
    assert "re-ranking's neighbours: faiss" in run_eval(features, "--rerank", "--neighbours", "faiss", "--force").out
    assert "re-ranking's" not in run_eval(features, "--force").out
    sizes = [
        json.loads(run_eval(features, "--rerank", "--neighbours", name, "--force", "--dry-run", "--json").out)
        for name in ("exact", "faiss")
    ]
    assert sizes[1]["memory_bytes"] > sizes[0]["memory_bytes"]
