"""Features in bfloat16 on request: it is recorded, said with what it costs, and said of what is made from them."""

from pathlib import Path

import numpy as np
import pytest
import torch

from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.features.precision import read_precisions
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.stages.dump.existing import find_fault
from lupctl.core.stages.dump.job import DumpJob
from lupctl.core.stages.find.job import FindJob
from lupctl.core.stages.find.run import find
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.jobs import precision
from lupctl.core.system.jobs.precision import CpuBf16
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell
from tests.tools.tiny.training import finetune_job

CPU, QUIET = torch.device("cpu"), Progress(quiet=True)
SAID = "the features of labelled were computed in {}: scores differ a little from float32's"


@pytest.fixture
def run(labelled_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoint of a run; what is written with it goes to an empty folder."""
    monkeypatch.chdir(tmp_path)
    return labelled_run


@pytest.fixture(scope="module")
def labelled_run(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("space") / "runs/fine"
    finetune(finetune_job(labelled, folder), QUIET)
    return folder / "checkpoint.safetensors"


def dump(lupctl: Shell, run: Path, pack: Path, name: str, options: str = "") -> str:
    """What a dump says."""
    ran = lupctl(f"dump {run} {pack} --out {name}.features.h5 --device cpu --workers 0 {options}")
    assert ran.code == 0, ran.err
    return ran.err


def test_bf16_is_asked_for_recorded_and_near_float32(lupctl: Shell, run: Path, labelled: Path) -> None:
    """This processor has no fast bf16 in tests: a line says how slow it is. By itself a dump is in float32."""
    assert "precision" not in dump(lupctl, run, labelled, "wide")
    said = dump(lupctl, run, labelled, "half", "--precision bf16")
    assert "precision: bf16; slow on this processor: " in said
    assert " times as long as float32" in said
    wide, half = read_features(Path("wide.features.h5")), read_features(Path("half.features.h5"))
    assert [one.record["precision"] for one in (wide, half)] == ["float32", "bfloat16"]
    unit, other = (one.features / np.linalg.norm(one.features, axis=1, keepdims=True) for one in (wide, half))
    apart = 1 - (unit * other).sum(axis=1)
    assert 1e-7 < apart.max() < 1e-2
    job = DumpJob(run, labelled, Path("half.features.h5"))
    fault = find_fault(job, file_fingerprint(run), CPU)
    assert fault is not None
    assert fault.text == "computed in bf16, here in float32"


def test_bf16_where_it_is_fast_is_only_named(
    lupctl: Shell, run: Path, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "measure_cpu", lambda: CpuBf16("AMX", 6.0))
    said = dump(lupctl, run, labelled, "half", "--precision bf16")
    assert "precision: bf16\n" in said
    assert "precision" not in dump(lupctl, run, labelled, "wide"), "auto is float32 however fast bf16 is"


def test_scores_say_what_they_were_computed_in(lupctl: Shell, run: Path, labelled: Path) -> None:
    dump(lupctl, run, labelled, "wide")
    dump(lupctl, run, labelled, "half", "--precision bf16")
    ran = lupctl("eval half.features.h5 --device cpu --out half.json")
    assert f"precision: {SAID.format('bf16')}" in ran.out
    assert SAID.format("bf16").replace("'", "&#39;") in Path("half.html").read_text(encoding="utf-8")
    report = lupctl("eval half.features.h5 --device cpu --out half.json --json").json
    assert {"kind": "precision", "text": SAID.format("bf16")} in report["warnings"]
    wide = lupctl("eval wide.features.h5 --device cpu --out wide.json --json").json
    assert "precision" not in [warning["kind"] for warning in wide["warnings"]]
    both = lupctl("eval --compare wide.features.h5 half.features.h5 --device cpu --out both.json")
    assert both.code == 0, both.err
    assert f"precision: half.features.h5: {SAID.format('bf16')}" in both.out
    assert "precision: wide" not in both.out


def test_queries_and_gallery_in_two_precisions_are_scored_and_named(lupctl: Shell, run: Path, labelled: Path) -> None:
    dump(lupctl, run, labelled, "query", "--role query")
    dump(lupctl, run, labelled, "gallery", "--role gallery --precision bf16")
    ran = lupctl("eval query.features.h5 gallery.features.h5 --device cpu --out both.json")
    assert ran.code == 0, ran.err
    assert f"precision: {SAID.format('float32 and bf16')}" in ran.out
    report = lupctl("eval query.features.h5 gallery.features.h5 --device cpu --out both.json --json").json
    assert read_precisions(report["provenance"]["features"]) == ("float32", "bf16")


def test_a_search_among_features_of_another_precision(
    lupctl: Shell, run: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pack = open_pack(labelled)
    Path("asked.jpg").write_bytes(pack.read(len(pack) - 1))
    for name, options in (("wide", ""), ("half", "--precision bf16")):
        dump(lupctl, run, labelled, name, options)
        line = f"{name}.features.h5: computed in bf16, the queries in float32: distances differ a little"
        ran = lupctl(f"search {name}.features.h5 asked.jpg --from {run} --device cpu --top 3")
        assert ran.code == 0, ran.err
        assert (line in ran.err) == (name == "half")
        job = FindJob((Path("asked.jpg"),), run, Path(f"{name}.features.h5"), labelled, "labelled", link=False)
        find(job, CPU, Progress())
        assert (line in capsys.readouterr().err) == (name == "half")
