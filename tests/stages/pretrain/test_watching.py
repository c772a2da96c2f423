"""Watching pre-training: probes that change nothing, profiles that leave nothing, curves, and lines in a log."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.stages.pretrain.probe import neighbour_accuracy
from lupctl.core.stages.pretrain.profile import LOOP_PARTS, WORKER_PARTS, Profile, advise, profile
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.jobs.messages import average_, timing_messages
from lupctl.core.system.progress.lines import Progress
from lupctl.core.system.strings import build_column
from lupctl.core.training.engine import log as log_module
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.training.engine.stopwatch import Stopwatch
from tests.tools.drawn_packs import pack_drawn
from tests.tools.shell import Shell
from tests.tools.tiny.training import PRETRAIN, as_options, pretrain_job

QUIET = Progress(quiet=True)
CPU = torch.device("cpu")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_probe_changes_nothing(crowd: Path, labelled: Path, tmp_path: Path, workers: int) -> None:
    job = pretrain_job(crowd, tmp_path / "plain", "probe.every_epochs=1", workers=workers)
    pretrain(job, QUIET)
    after = torch.get_rng_state()
    probed = replace(job, run=tmp_path / "probed", probe=labelled)
    facts = pretrain(probed, QUIET)
    one, other = ((run / "checkpoint.safetensors").read_bytes() for run in (job.run, probed.run))
    assert one == other
    assert torch.equal(torch.get_rng_state(), after)
    rows = [row for row in read_metrics(probed.run) if "probe_map" in row]
    assert [(row["step"], row["epoch"]) for row in rows] == [(0, 0), (2, 0), (4, 1)]
    for row in rows:
        assert 0 < row["probe_map"] < 1
        assert 0 <= row["probe_rank1"] <= 1
        assert 0 <= row["probe_knn"] <= 1
    assert facts["probe_map"] == rows[-1]["probe_map"]


def test_a_probe_sees_what_evaluation_sees(crowd: Path, labelled: Path, tmp_path: Path, lupctl: Shell) -> None:
    """The last look is at the network that is kept, so `eval` of the run gives the same mAP."""
    words = (
        f"pretrain --data {crowd} --gpus 0 --workers 0 --out run --probe {labelled} {' '.join(as_options(PRETRAIN))}"
    )
    ran = lupctl(f"{words} --json")
    assert ran.code == 0, ran.err
    assert "probe after step 4: map 0." in ran.err
    assert lupctl(f"dump run {labelled} --device cpu --workers 0 --out run.features.h5").code == 0
    report = lupctl("eval run.features.h5 --device cpu --json").json
    assert report["scores"]["map"] == pytest.approx(ran.json["probe_map"], abs=1e-6)
    assert report["scores"]["cmc"]["1"] == pytest.approx(ran.json["probe_rank1"], abs=1e-6)


def test_a_probe_without_queries_is_refused_before_the_run(crowd: Path, tmp_path: Path, lupctl: Shell) -> None:
    with pytest.raises(DataError, match="quer"):
        pretrain(replace(pretrain_job(crowd, tmp_path / "run"), probe=crowd), QUIET)
    assert not (tmp_path / "run").exists()
    ran = lupctl(f"pretrain --data {crowd} --gpus 0 --probe gone {' '.join(as_options(PRETRAIN))}")
    assert ran.code == 3
    assert "no pack of 'gone'" in ran.err


def slow_vote(features: np.ndarray, samples: Samples) -> float:
    """One query after the other, one vote after the other."""
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    right, queries = 0, np.flatnonzero(samples.role == 2)
    for query in queries:
        votes: dict[int, float] = {}
        seen = []
        for image in np.flatnonzero(samples.role == 3):
            same = samples.person[image] == samples.person[query] and samples.camera[image] == samples.camera[query]
            if samples.person[image] != -1 and not same:
                seen.append((float(unit[query] @ unit[image]), int(samples.person[image])))
        for cosine, person in sorted(seen, reverse=True)[:20]:
            votes[person] = votes.get(person, 0.0) + math.exp(cosine / 0.07)
        right += max(votes, key=lambda person: votes[person]) == samples.person[query]
    return right / len(queries)


@pytest.mark.parametrize("seed", range(4))
def test_neighbours_vote_as_a_slow_count_does(seed: int) -> None:
    random = np.random.default_rng(seed)
    number = 90
    samples = Samples(
        person=random.integers(-1, 6, number).astype(np.int64),
        camera=random.integers(1, 4, number).astype(np.int16),
        role=np.where(np.arange(number) < 20, 2, 3).astype(np.uint8),
        name=build_column([f"{place}.jpg" for place in range(number)]),
    )
    samples.person[:20] = random.integers(1, 6, 20)
    features = random.normal(size=(number, 8)).astype(np.float32)
    features[:, :6] += 3 * np.eye(6)[np.clip(samples.person, 0, 5)]
    found = neighbour_accuracy(features, samples, device=CPU)
    assert found == pytest.approx(slow_vote(features, samples))
    assert 0.2 < found <= 1


def test_a_profile_says_where_the_time_went_and_keeps_nothing(crowd: Path, tmp_path: Path, lupctl: Shell) -> None:
    words = f"pretrain --data {crowd} --gpus 0 --workers 0 {' '.join(as_options(PRETRAIN))} --profile 3"
    started_at = time.perf_counter()
    ran = lupctl(f"{words} --json")
    passed = time.perf_counter() - started_at
    assert ran.code == 0, ran.err
    found = ran.json
    assert (found["schema"], found["steps"], found["batch"]) == ("lupctl.pretrain-profile/1", 3, 16)
    assert list(found["loop_s"]) == list(LOOP_PARTS)
    assert list(found["worker_s"]) == list(WORKER_PARTS)
    assert 0 < found["step_s"] < passed
    assert sum(found["shares"].values()) == pytest.approx(1, abs=0.15), "the parts are the step"
    assert all(found["loop_s"][name] > 0 for name in LOOP_PARTS if name != "communication")
    assert found["loop_s"]["communication"] == 0
    assert found["images_per_s"] == pytest.approx(16 / found["step_s"])
    assert len(found["advice"]) >= 1
    table = lupctl(words).out
    for name in (*LOOP_PARTS, *WORKER_PARTS, "images/s"):
        assert name in table
    assert list(tmp_path.iterdir()) == []


def measured(**seconds: float) -> Profile:
    loop = dict.fromkeys(LOOP_PARTS, 0.0) | {"forward": 0.1, "backward": 0.2} | seconds
    work = {"read": 0.1, "decode": 0.69, "draw": 0.1}
    return Profile(10, 64, sum(loop.values()), loop, work, workers=1, cores=4, kind="cpu")


def test_advice_follows_from_the_numbers() -> None:
    assert advise(measured())[0].startswith("backward takes 67%; the network is the limit: use a GPU")
    # A worker needs 0.89 s for what the loop works off in 0.3 s: three of them.
    hungry = advise(measured(wait=0.6))
    assert hungry[0] == "the loop waits for data 67% of the time; 3 workers would keep up: --workers 3"
    starved = advise(replace(measured(wait=0.6), cores=2))
    assert "3 workers would keep up, but there are only 2 cores: pack smaller images" in starved[0]
    assert "messages are the limit" in advise(measured(communication=0.5))[0]
    assert "drawing views is the limit" in advise(measured(transform=0.5))[0]
    assert "precision = bf16" in advise(replace(measured(), kind="cuda"))[0]
    assert len(advise(measured(wait=0.001))) == 1, "below two per cent nobody waits"


def test_a_stopwatch_gives_every_moment_to_one_section(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 1.0, 3.0, 7.0, 10.0, 20.0])
    monkeypatch.setattr("lupctl.core.training.engine.stopwatch.time.perf_counter", lambda: next(moments))
    clock = Stopwatch(CPU)
    with clock("outer"):  # 0
        with clock("inner"):  # 1 to 3
            pass
        with clock("inner"):  # 7 to 10
            pass
    assert clock.seconds == {"outer": 1 + 4 + 10, "inner": 2 + 3}


def test_messages_of_one_process_take_no_time() -> None:
    clock = Stopwatch(CPU)
    with timing_messages(clock):
        average_([torch.ones(3)])
    assert clock.seconds == {}


def test_a_profile_of_too_little_data_is_refused(crowd: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.batch = 64 is larger than the number of images, 36"):
        profile(pretrain_job(crowd, tmp_path / "run", "data.batch=64"), 2)


def test_curves_without_the_extra_are_one_line(
    crowd: Path, tmp_path: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lupctl.core.training.engine.board.find_spec", lambda name: None)
    ran = lupctl(f"pretrain --data {crowd} --gpus 0 --tensorboard --out run {' '.join(as_options(PRETRAIN))}")
    assert ran.code == 2
    assert ran.err.splitlines()[-2:] == [
        "error: --tensorboard: the package tensorboard is not installed", "hint: pip install tensorboard",
    ]  # fmt: skip
    assert not (tmp_path / "run").exists()


def test_curves_are_the_rows(crowd: Path, labelled: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    job = replace(pretrain_job(crowd, tmp_path / "run", "schedule.epochs=6"), tensorboard=True, probe=labelled)
    pretrain(job, QUIET)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    rows = read_metrics(job.run)
    for name in ("loss", "lr", "images_per_s", "data_wait", "probe_map"):
        points = [(point.step, point.value) for point in events.Scalars(name)]
        expected = [(row["step"], row[name]) for row in rows if name in row]
        assert [step for step, _ in points] == [step for step, _ in expected]
        assert [value for _, value in points] == pytest.approx([value for _, value in expected], rel=1e-5)


def test_a_log_without_a_terminal_is_told_now_and_then(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(log_module, "LINE_EVERY_S", 0.0)
    pretrain(pretrain_job(crowd, tmp_path / "run", "schedule.epochs=10"), Progress())
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("step ")]
    assert [line.partition(":")[0] for line in lines] == [f"step {step} of 20" for step in range(1, 21)]
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert f"loss {row['loss']:.3f}" in lines[9]
    assert " images/s, waiting for data " in lines[9]
    assert lines[9].endswith(" left")
    assert ", took " in lines[19]


def test_synthetic_data_is_drawn_for_a_profile_where_there_is_none(tmp_path: Path, lupctl: Shell) -> None:
    tiny = " ".join(as_options((*PRETRAIN, "data.batch=8", "bn_groups=2")))
    ran = lupctl(f"pretrain --profile 1 --data synthetic --gpus 0 --workers 0 {tiny} --json")
    assert ran.code == 0, ran.err
    assert "data: synthetic, images of 128 x 64 drawn for this command" in ran.err
    assert (ran.json["batch"], ran.json["steps"]) == (8, 1)
    assert ran.json["worker_s"]["decode"] > 0
    assert list(tmp_path.iterdir()) == [], "nothing is kept"
    ran = lupctl(f"pretrain --data synthetic --gpus 0 {tiny}")
    assert ran.code == 3
    assert "no pack of 'synthetic'" in ran.err


def test_synthetic_data_of_the_command_can_be_profiled(tmp_path: Path, lupctl: Shell) -> None:
    packs = tmp_path / "lup" / "packs"
    plan = SyntheticPlan(unlabelled_persons=13, scenes=3, height=32, width=16)
    pack_drawn(plan, packs / "synthetic.h5", dataset="synthetic")
    ran = lupctl(f"pretrain --profile 1 --data synthetic --gpus 0 --workers 0 {' '.join(as_options(PRETRAIN))}")
    assert ran.code == 0, ran.err
    assert not (tmp_path / "lup" / "runs").exists()
