"""The demo: the whole flow in one command, and continued by the same command."""

import json
from pathlib import Path

import pytest

from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.ranking.reports.model.single import read_report
from lupctl.core.workspace import read_run
from tests.tools.shell import Shell


@pytest.mark.slow
def test_the_quick_demo(lupctl: Shell, tmp_path: Path) -> None:
    ran = lupctl("demo --quick --json")
    assert ran.code == 0, ran.err
    told = ran.json
    assert (told["schema"], told["home"]) == ("lupctl.demo/1", "lup-demo-quick")
    assert {line.partition("]")[0] for line in ran.err.splitlines() if line.startswith("[")} == {
        f"[{step}/5" for step in range(1, 6)
    }

    home = tmp_path / "lup-demo-quick"
    pack = open_pack(home / "packs" / "synthetic.h5")
    runs = {"scratch": home / "runs" / "finetune-from-scratch", "pre-trained": home / "runs" / "finetune-from-pretrain"}
    assert set(told["reports"]) == set(runs)
    facts = {title: read_run(run) for title, run in runs.items()}
    assert facts["scratch"]["steps"] == facts["pre-trained"]["steps"], "equal budgets"
    assert facts["scratch"]["images"] == facts["pre-trained"]["images"]
    assert "start" in facts["pre-trained"]["parents"]
    assert "start" not in facts["scratch"]["parents"]
    recipes = [(run / "recipe.toml").read_text().splitlines() for run in runs.values()]
    assert [line for line in recipes[0] if line not in recipes[1]] == ['start = "scratch"'], "and nothing else differs"

    for title, run in runs.items():
        report = read_report(run / "report.json")
        assert json.loads((run / "report.json").read_text()) == told["reports"][title]
        assert report.rerank is not None
        assert report.fingerprints["pack:synthetic"] == pack.fingerprint
        # What the run measured while it trained is what its dumped features give.
        assert report.scores.map == pytest.approx(facts[title]["scores"]["map"], abs=1e-4)
        assert len(read_features(run / "synthetic.features.h5").features) == report.counts.queries + int(
            (pack.samples.role == 3).sum()
        )
        assert report.scores.map > 0.1, "thirty persons and as many strangers: guessing gives a few per cent"
    scores = {title: told["reports"][title]["scores"] for title in runs}
    assert told["gain"]["map"] == pytest.approx(scores["pre-trained"]["map"] - scores["scratch"]["map"])
    assert told["gain"]["rank1"] == pytest.approx(scores["pre-trained"]["cmc"]["1"] - scores["scratch"]["cmc"]["1"])
    assert set(told["gain"]) == set(told["gain_ci95"]) == {"map", "map_rerank", "rank1"}
    for measure, (low, high) in told["gain_ci95"].items():
        assert low <= told["gain"][measure] <= high
        assert high - low > 0.02, "thirty persons do not settle it to a point"
    compared = lupctl(f"eval --compare {runs['scratch']} {runs['pre-trained']} --home {home} --json").json
    of_map = next(one for one in compared["differences"] if one["measure"] == "map" and not one["reranked"])
    assert told["gain"]["map"] == pytest.approx(of_map["value"])
    assert told["gain_ci95"]["map"] == pytest.approx(of_map["ci95"])

    before = {path: path.stat().st_mtime_ns for path in home.rglob("*") if path.suffix in (".safetensors", ".h5")}
    again = lupctl("demo --quick --json")
    assert again.code == 0, again.err
    assert again.err.count("already finished") == 3
    assert again.json["seconds"] < 0.3 * told["seconds"]
    assert again.json["gain"] == told["gain"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    table = lupctl("demo --quick").out
    assert "Pre-training changed mAP by" in table
    assert "fine-tuned from pre-trained, re-ranked" in table
    assert "standard deviation 2.5 points" in table
    page = Path(table.splitlines()[-1].removeprefix("Open this page in a browser: "))
    assert page == Path("lup-demo-quick/runs/finetune-from-pretrain/report.html")
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_dry_run_counts_and_makes_nothing(lupctl: Shell, tmp_path: Path) -> None:
    plan = lupctl("demo --quick --dry-run --json").json
    assert (plan["schema"], plan["home"]) == ("lupctl.demo-plan/1", "lup-demo-quick")
    assert plan["images"] > 3 * plan["train_persons"] + 2 * plan["unlabelled_persons"]
    whole = lupctl("demo --dry-run --seed 3 --json").json
    assert whole["home"] == "lup-demo-seed3"
    assert whole["images"] > 2 * plan["images"]
    assert lupctl("demo --dry-run --out elsewhere --json").json["home"] == "elsewhere"
    assert list(tmp_path.iterdir()) == []
