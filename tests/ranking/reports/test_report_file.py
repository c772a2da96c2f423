"""Reports: what is written comes back, sorted; anything else is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from lupctl.core.errors import DataError, FormatError
from lupctl.core.ranking.reports.model.single import (
    Report,
    ReportCounts,
    ReportInterval,
    ReportProtocol,
    ReportProvenance,
    ReportRerank,
    ReportScores,
    read_report,
    report_payload,
    write_report,
)


def make_report(**changes: Any) -> Report:
    scores = ReportScores(map=0.5, map_official=0.25, minp=1 / 3, cmc={1: 0.5, 5: 0.75, 10: 1.0, 20: 1.0})
    parts: dict[str, Any] = {
        "dataset": "toy",
        "counts": ReportCounts(
            queries=4, queries_valid=3, queries_absent=1, query_persons=2, gallery=30, junk=2, distractors=5
        ),
        "scores": scores,
        "rerank": ReportRerank(k1=20, k2=6, weight=0.3, base="d2", scores=scores),
        "ci95": ReportInterval(map=(0.4, 0.6), rank1=(0.3, 0.7), draws=1000, seed=0),
        "protocol": ReportProtocol(name="market1501", same_camera="drop"),
        "fingerprints": {"features": "sha256:00", "pack": "sha256:11"},
        "provenance": ReportProvenance(version="0", command=["lupctl", "eval"], features={"kind": "features"}),
    }
    return Report(**{**parts, **changes})


@pytest.mark.parametrize("changes", [{}, {"rerank": None}])
def test_round_trip(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = tmp_path / "report.json"
    report = make_report(**changes)
    write_report(path, report)
    assert read_report(path) == report
    first = path.read_bytes()
    write_report(path, read_report(path))
    assert path.read_bytes() == first


def test_keys_are_sorted_and_named_as_users_know_them(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_report(path, make_report())
    content = json.loads(path.read_text())
    assert list(content) == sorted(content)
    assert content["schema"] == "lupctl.report/1"
    assert set(content) == {
        "camera_use", "ci95", "counts", "dataset", "details", "fingerprints", "protocol", "provenance", "published",
        "rerank", "schema", "scores", "single_shot", "training", "warnings",
    }  # fmt: skip
    assert content["scores"] == {
        "cmc": {"1": 0.5, "10": 1.0, "20": 1.0, "5": 0.75},
        "map": 0.5,
        "map_official": 0.25,
        "minp": 1 / 3,
    }
    assert content["rerank"] == {
        "base": "d2", "k1": 20, "k2": 6, "lambda": 0.3, "neighbours": "exact", "scores": content["scores"],
    }  # fmt: skip
    assert content["protocol"]["same_camera"] == "drop"


def test_a_report_from_before_faiss_was_exact(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    payload = report_payload(make_report())
    del payload["rerank"]["neighbours"]
    path.write_text(json.dumps(payload))
    assert read_report(path) == make_report()
    payload["rerank"]["neighbours"] = "annoy"
    path.write_text(json.dumps(payload))
    with pytest.raises(FormatError, match=r"rerank.neighbours: Input should be 'exact' or 'faiss'"):
        read_report(path)


def test_a_report_from_before_warnings_does_not_say_that_there_are_none(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    payload = report_payload(make_report(warnings=[]))
    assert payload["warnings"] == []
    del payload["warnings"], payload["training"]
    path.write_text(json.dumps(payload))
    assert read_report(path).warnings is None
    path.write_text(json.dumps({**payload, "warnings": [{"kind": "mood", "text": "bad"}]}))
    with pytest.raises(FormatError, match=r"warnings.0.kind: Input should be 'overlap', "):
        read_report(path)


def test_a_score_that_is_not_a_number_is_never_written() -> None:
    with pytest.raises(ValidationError, match="finite number"):
        ReportScores(map=float("nan"), map_official=0, minp=0, cmc={})


def test_missing_and_foreign_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    with pytest.raises(DataError, match="there is no such file"):
        read_report(path)
    path.write_text("{")
    with pytest.raises(FormatError, match=r"report\.json: not a report of schema lupctl\.report/1"):
        read_report(path)
    write_report(path, make_report())
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "schema": "lupctl.report/2"}))
    with pytest.raises(FormatError, match=r"schema: Input should be 'lupctl\.report/1'") as caught:
        read_report(path)
    assert "lupctl eval --force" in caught.value.hint
    path.write_text(json.dumps({**content, "extra": 1}))
    with pytest.raises(FormatError, match="extra"):
        read_report(path)
