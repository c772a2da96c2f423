"""`lupctl eval --compare`: the paired bootstrap against a slow one, what can be compared, and what is written."""

import json
from pathlib import Path

import numpy as np
import pytest

from lupctl.core.formats.features.file import Features, write_features
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.record import build_record
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.strings import build_column
from tests.tools.shell import Shell


def write_toy(path: Path, *, noise: float, seed: int = 0, cameras: int = 3, drop: int = 0) -> Path:
    """Features of the same images, noisier or less so."""
    rng = np.random.default_rng(5)
    person = np.tile(np.arange(1, 13), 10)
    centres, dirt = rng.standard_normal((13, 16)), np.random.default_rng(seed).standard_normal((120, 16))
    samples = Samples(
        person=person.astype(np.int64),
        camera=(np.arange(120) // 12 % cameras).astype(np.int16),
        role=np.where(np.arange(120) < 36, 2, 3).astype(np.uint8),
        name=build_column([f"{row:03d}.jpg" for row in range(120)]),
    ).select(np.arange(drop, 120))
    vectors = (centres[person] + noise * dirt)[drop:].astype(np.float32)
    record = build_record("features", 1, command=["lupctl", "dump"], facts={"dataset": "toy"})
    path.parent.mkdir(parents=True, exist_ok=True)
    write_features(path, Features(vectors, samples, record))
    return path


def test_differences_are_those_of_a_slow_paired_bootstrap(lupctl: Shell, tmp_path: Path) -> None:
    write_toy(tmp_path / "a.features.h5", noise=1.6)
    write_toy(tmp_path / "b.features.h5", noise=1.2, seed=1)
    ap = {}
    for name in "ab":
        report = lupctl(f"eval {name}.features.h5 --no-page --json --out {name}.json --device cpu").json
        queries = report["details"]["queries"]
        ap[name] = np.array([queries["ap"], [rank == 1 for rank in queries["first_rank"]]], float)
    ran = lupctl("eval --compare a.features.h5 b.features.h5 --json --out ab.json --device cpu")
    assert ran.code == 0, ran.err
    assert ran.json == json.loads((tmp_path / "ab.json").read_text())
    assert ran.json["schema"] == "lupctl.compare/1"
    assert [run["name"] for run in ran.json["runs"]] == ["a.features.h5", "b.features.h5"]
    gap = ap["b"] - ap["a"]
    rng = np.random.default_rng(9)
    means = np.array([gap[:, rng.integers(0, 36, 36)].mean(axis=1) for _ in range(4000)])
    found = {one["measure"]: one for one in ran.json["differences"]}
    assert set(found) == {"map", "rank1"}
    for row, measure in enumerate(("map", "rank1")):
        one = found[measure]
        assert (one["run"], one["other"], one["reranked"]) == ("b.features.h5", "a.features.h5", False)
        assert one["value"] == pytest.approx(gap[row].mean())
        assert one["ci95"] == pytest.approx(np.quantile(means[:, row], [0.025, 0.975]), abs=0.02)
        assert one["exceeds"] == (one["ci95"][0] > 0 or one["ci95"][1] < 0)
    assert found["map"]["exceeds"]
    # Paired, the interval is narrower than those of both runs together.
    widths = [np.diff(run["ci95"]["map"])[0] for run in ran.json["runs"]]
    assert np.diff(found["map"]["ci95"])[0] < sum(widths)


def test_a_run_against_its_own_copy_is_no_difference(lupctl: Shell, tmp_path: Path) -> None:
    write_toy(tmp_path / "x" / "a.features.h5", noise=1.6)
    write_toy(tmp_path / "y" / "a.features.h5", noise=1.6)
    ran = lupctl("eval --compare x/a.features.h5 y/a.features.h5 --rerank --k1 8 --device cpu --json")
    assert [(one["value"], one["ci95"], one["exceeds"]) for one in ran.json["differences"]] == [(0, [0, 0], False)] * 4
    assert [one["reranked"] for one in ran.json["differences"]] == [False, False, True, True]


def test_runs_are_found_reused_and_written(lupctl: Shell, tmp_path: Path) -> None:
    for name, noise in (("one", 1.6), ("two", 1.2), ("three", 0.9)):
        write_toy(tmp_path / "lup" / "runs" / name / "toy.features.h5", noise=noise)
        (tmp_path / "lup" / "runs" / name / "checkpoint.safetensors").write_bytes(b"weights")
    assert lupctl("eval one --no-page --device cpu").code == 0
    before = file_fingerprint(tmp_path / "lup/runs/one/report.json")
    ran = lupctl("eval --compare one two three --device cpu")
    assert ran.code == 0, ran.err
    assert "one: scored again" not in ran.err
    assert "two: scored again" in ran.err
    assert not (tmp_path / "lup/runs/two/report.json").exists()
    assert file_fingerprint(tmp_path / "lup/runs/one/report.json") == before
    for text in ("A: one", "B: two", "C: three", "more than luck", "comparisons/one--two--three.html"):
        assert text in ran.out
    page = (tmp_path / "lup/comparisons/one--two--three.html").read_text()
    stored = json.loads((tmp_path / "lup/comparisons/one--two--three.json").read_text())
    assert [run["name"] for run in stored["runs"]] == ["one", "two", "three"]
    for at, one in enumerate(stored["differences"]):
        assert f'data-key="differences.{at}.value" data-value="{one["value"]}">{100 * one["value"]:.2f}<' in page
    assert len(stored["differences"]) == 6
    assert all(f">{tag}</text>" in page for tag in "ABC"), "the chart names the runs by their tags"
    ran = lupctl("eval --compare one two three --device cpu")
    assert (ran.code, "exists already" in ran.err) == (2, True)
    plan = lupctl("eval --compare one two --dry-run --json --device cpu").json
    assert plan["runs"] == ["one", "two"]
    assert not (tmp_path / "lup/comparisons/one--two.json").exists()
    # Another rule asks for other scores, and the stored report does not give them.
    assert "one: scored again" in lupctl("eval --compare one two --same-camera keep --device cpu").err


def test_runs_of_several_seeds_have_a_mean(lupctl: Shell, tmp_path: Path) -> None:
    for name, noise, seed in (("half", 1.6, 1), ("half-seed2", 1.6, 2), ("half-seed3", 1.6, 3), ("all", 1.2, 1)):
        write_toy(tmp_path / "lup" / "runs" / name / "toy.features.h5", noise=noise, seed=seed)
        (tmp_path / "lup" / "runs" / name / "checkpoint.safetensors").write_bytes(b"weights")
    ran = lupctl("eval --compare lup/runs/half lup/runs/half-seed2 lup/runs/half-seed3 lup/runs/all --device cpu")
    assert ran.code == 0, ran.err
    (stored,) = (json.loads(path.read_text()) for path in (tmp_path / "lup/comparisons").glob("*.json"))
    (group,) = stored["seeds"]
    shares = [run["scores"]["map"] for run in stored["runs"][:3]]
    mean = sum(shares) / 3
    spread = (sum((share - mean) ** 2 for share in shares) / 2) ** 0.5
    assert (group["name"], group["runs"]) == ("half", [f"lup/runs/half{end}" for end in ("", "-seed2", "-seed3")])
    assert (group["map_mean"], group["map_sd"]) == pytest.approx((mean, spread))
    assert spread > 0.001
    assert f"{100 * mean:.2f} ({100 * spread:.2f})" in ran.out
    (page,) = (path.read_text() for path in (tmp_path / "lup/comparisons").glob("*.html"))
    assert f'data-key="seeds.0.map_mean" data-value="{group["map_mean"]}"' in page


@pytest.mark.parametrize(
    ("change", "reason"),
    [({"drop": 1}, "ranked different queries"), ({"cameras": 2}, "ranked different queries")],
)
def test_other_queries_are_not_compared(lupctl: Shell, tmp_path: Path, change: dict[str, int], reason: str) -> None:
    write_toy(tmp_path / "a.features.h5", noise=1)
    write_toy(tmp_path / "b.features.h5", noise=1, **change)
    ran = lupctl("eval --compare a.features.h5 b.features.h5 --device cpu")
    assert (ran.code, ran.out) == (3, "")
    assert f"a.features.h5 and b.features.h5 {reason}, so their scores cannot be compared" in ran.err


@pytest.mark.parametrize("names", ["", "a.features.h5", "a.features.h5 a.features.h5"])
def test_one_run_is_no_comparison(lupctl: Shell, tmp_path: Path, names: str) -> None:
    write_toy(tmp_path / "a.features.h5", noise=1)
    ran = lupctl(f"eval --compare {names} --device cpu")
    assert (ran.code, ran.out) == (2, "")
    assert "--compare takes two or more different runs" in ran.err


def test_a_run_named_in_two_ways_is_one(lupctl: Shell, tmp_path: Path) -> None:
    write_toy(tmp_path / "a.features.h5", noise=1)
    ran = lupctl(f"eval --compare a.features.h5 {tmp_path / 'a.features.h5'} --device cpu")
    assert (ran.code, ran.out) == (2, "")
    assert "are the same run" in ran.err


def test_files_of_one_name_in_two_folders_are_no_seeds_of_one_run(lupctl: Shell, tmp_path: Path) -> None:
    for noise, run in enumerate(["a", "b"], start=1):
        (tmp_path / run).mkdir()
        write_toy(tmp_path / run / "toy.features.h5", noise=noise)
    ran = lupctl("eval --compare a/toy.features.h5 b/toy.features.h5 --device cpu --json")
    assert ran.code == 0, ran.err
    assert json.loads(ran.out)["seeds"] == []
