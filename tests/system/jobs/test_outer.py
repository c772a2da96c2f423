"""Jobs that torchrun, srun or several machines make up: which place a process has, who leads, and the same weights."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import DataError, DeviceError, UsageError
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.jobs import messages as dist
from lupctl.core.system.jobs.device import Placement, join_placement
from lupctl.core.system.jobs.outer import OuterJob, Rendezvous, find_outer_job, first_host, plan_rendezvous
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import RunFolder
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options, finetune_job, pretrain_job, read_state, run_forked

TORCHRUN = {"TORCHELASTIC_RUN_ID": "x", "RANK": "5", "LOCAL_RANK": "1", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {
    "SLURM_PROCID": "9", "SLURM_LOCALID": "1", "SLURM_NTASKS": "16", "SLURM_STEP_ID": "2", "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NODELIST": "gpu[07-08]",
}  # fmt: skip
MAIN = [sys.executable, "-c", "from lupctl.cli.app import main; main()"]


def test_a_process_alone_is_in_no_job() -> None:
    assert find_outer_job({}) is None
    assert find_outer_job(SRUN | {"SLURM_NTASKS": "1"}) is None
    batch_script = {key: value for key, value in SRUN.items() if key != "SLURM_STEP_ID"}
    assert find_outer_job(batch_script) is None, "the script of sbatch runs once, whatever --ntasks says"


def test_torchrun_says_who_is_who() -> None:
    assert find_outer_job(TORCHRUN) == OuterJob("torchrun", 5, 8, 4, {})


def test_srun_says_it_in_its_own_words() -> None:
    job = find_outer_job(SRUN)
    assert job is not None
    assert (job.launcher, job.rank, job.processes, job.local_processes) == ("srun", 9, 16, None)
    assert {key: job.variables[key] for key in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR")} == {
        "RANK": "9", "LOCAL_RANK": "1", "WORLD_SIZE": "16", "MASTER_ADDR": "gpu07",
    }  # fmt: skip
    ports = {find_outer_job(SRUN | {"SLURM_PROCID": str(n)}).variables["MASTER_PORT"] for n in range(16)}  # type: ignore[union-attr]
    assert len(ports) == 1
    assert 20_000 <= int(ports.pop()) < 40_000
    other = find_outer_job(SRUN | {"SLURM_STEP_ID": "3"})
    assert other is not None
    assert other.variables["MASTER_PORT"] != job.variables["MASTER_PORT"]
    told = find_outer_job(SRUN | {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500", "SLURM_STEP_NUM_TASKS": "4"})
    assert told is not None
    assert (told.variables["MASTER_ADDR"], told.variables["MASTER_PORT"], told.processes) == ("10.0.0.1", "29500", 4)


@pytest.mark.parametrize("missing", ["RANK", "WORLD_SIZE"])
def test_half_a_job_is_refused(missing: str) -> None:
    with pytest.raises(UsageError, match=f"not this one's place in it \\('{missing}'\\)"):
        find_outer_job({key: value for key, value in TORCHRUN.items() if key != missing})


@pytest.mark.parametrize(
    ("hosts", "first"),
    [("a", "a"), ("a,b", "a"), ("n[3-5]", "n3"), ("n[003,7-9],m1", "n003"), ("r[1-2]n[10-12],x", "r1n10"),
     ("login,n[1-2]", "login")],
)  # fmt: skip
def test_the_first_host_of_a_list(hosts: str, first: str) -> None:
    assert first_host(hosts) == first


def test_no_host_is_no_list() -> None:
    with pytest.raises(ValueError, match="no host in ''"):
        first_host("")


def test_devices_of_a_joined_job() -> None:
    here, outer = Placement("cuda", 8, ""), OuterJob("torchrun", 0, 32, 8)
    joined = join_placement(here, outer, asked=None)
    assert (joined.kind, joined.processes) == ("cuda", 32)
    assert joined.line == "device: 32 x cuda, one for each process that torchrun started"
    assert join_placement(here, outer, asked=8) == joined
    assert join_placement(here, OuterJob("srun", 0, 32, None), asked=5).processes == 32
    with pytest.raises(UsageError, match="4 devices per machine were asked for, and torchrun started 8"):
        join_placement(here, outer, asked=4)


@pytest.mark.parametrize(
    ("place", "visible", "index"), [(0, 1, 0), (3, 8, 3), (3, 1, 0), (7, 8, 7), (2, 2, None), (0, 0, None)]
)
def test_the_gpu_of_a_process(monkeypatch: pytest.MonkeyPatch, place: int, visible: int, index: int | None) -> None:
    """A scheduler that binds a task to one GPU shows it only that one."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: visible)
    monkeypatch.setenv("LOCAL_RANK", str(place))
    if index is None:
        with pytest.raises(DeviceError, match=f"process {place} of this machine has no GPU of its own; {visible} are"):
            dist.own_device("cuda")
    else:
        assert dist.own_device("cuda") == torch.device("cuda", index)
    assert dist.own_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((2, None, None), "--nodes 2: the machines need a place to meet"),
        ((None, "a:1", None), "--rdzv-endpoint a:1: only for several machines"),
        ((None, None, 0), "--node-rank 0: only for several machines"),
        ((1, "a:1", None), "--rdzv-endpoint a:1: only for several machines"),
        ((2, "a", None), "--rdzv-endpoint a: expected HOST:PORT"),
        ((2, ":29400", None), "--rdzv-endpoint :29400: expected HOST:PORT"),
        ((2, "a:1", 2), "--node-rank 2: machines are numbered from 0 to 1"),
    ],
)
def test_rendezvous_that_cannot_be(given: tuple[Any, Any, Any], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        plan_rendezvous(*given)
    assert caught.value.message.startswith(message)


def test_machines_meet_at_the_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    rendezvous = plan_rendezvous(4, "node1:29400", None)
    assert rendezvous == Rendezvous(4, "node1:29400", None, "lupctl-12")
    assert rendezvous.address == ("node1", 29400)
    assert plan_rendezvous(None, None, None) is None
    assert plan_rendezvous(1, None, None) is None
    assert Rendezvous(2, "127.0.0.1:1").local_address() == Rendezvous(2, "localhost:1").local_address() == "127.0.0.1"
    assert Rendezvous(2, "127.0.1.1:1").local_address() == "127.0.1.1", "the name that the other machines know"
    assert Rendezvous(2, "no-such-host.invalid:1").local_address() is None


def exchange(folder: Path) -> None:
    """What every process does with its rows of a batch of 12."""
    number, own = dist.world_size(), dist.rank()
    everything = torch.arange(24.0).view(12, 2)
    order = np.random.default_rng(3).permutation(12)
    found = {
        "exchanged": dist.exchange_rows(dist.own_share(everything), order),
        "expected": dist.own_share(everything[torch.from_numpy(order)]),
        "told": dist.share_from_first(f"from {own}"),
        "world": number,
    }
    torch.save(found, folder / f"{own}.pt")


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_rows_are_exchanged_for_those_of_another_order(tmp_path: Path, processes: int) -> None:
    if processes == 1:
        exchange(tmp_path)
    else:
        assert run_forked(exchange, tmp_path, processes=processes) == [0] * processes
    for number in range(processes):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert found["world"] == processes
        assert torch.equal(found["exchanged"], found["expected"])
        assert found["told"] == "from 0"


@pytest.fixture(scope="module")
def _warm() -> None:
    """What a fork must not be the first to do: import a compiler, which takes seconds, and end OpenCV's threads."""
    cv2.setNumThreads(1)
    torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)


def train_and_tell(given: tuple[Any, Path]) -> None:
    """A process of a joined job; leaves what it met."""
    job, folder = given
    try:
        facts = pretrain(job, Progress(quiet=True))
        (folder / f"{dist.rank()}.txt").write_text(f"{len(facts) > 0}")
    except (DataError, UsageError) as error:
        (folder / f"{dist.rank()}.txt").write_text(error.message)


@pytest.mark.usefixtures("_warm")
def test_all_processes_agree_where_one_leads(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run is made, the second found finished, the third refused for its recipe, in every process."""
    monkeypatch.setattr("lupctl.core.system.jobs.launch.joined_job", _already_joined)
    job = pretrain_job(crowd, tmp_path / "run", processes=2)
    told = []
    for this in (job, job, pretrain_job(crowd, tmp_path / "run", "seed=3", processes=2)):
        assert run_forked(train_and_tell, (this, tmp_path), processes=2) == [0, 0]
        told.append([(tmp_path / f"{number}.txt").read_text() for number in (0, 1)])
    assert told[0] == told[1] == ["True", "False"], "the facts belong to process 0"
    assert told[2][0] == told[2][1]
    assert "contains a run with recipe.seed = 1, but now it is 3" in told[2][0]


@pytest.mark.usefixtures("_warm")
def test_a_folder_in_use_is_refused_in_every_process(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lupctl.core.system.jobs.launch.joined_job", _already_joined)
    job = pretrain_job(crowd, tmp_path / "run", processes=2)
    with RunFolder(job.run).held():
        assert run_forked(train_and_tell, (job, tmp_path), processes=2) == [0, 0]
    for number in (0, 1):
        assert "another lupctl is training into this folder" in (tmp_path / f"{number}.txt").read_text()


class _already_joined:  # noqa: N801 - stands for a context manager function
    def __init__(self, kind: str, *, timeout: object = None) -> None:
        assert kind == "cpu"

    def __enter__(self) -> None:
        assert dist.world_size() == 2

    def __exit__(self, *what: object) -> None:
        return


def run_all(commands: list[tuple[list[str], dict[str, str]]], folder: Path) -> list[subprocess.CompletedProcess[str]]:
    """Runs commands side by side."""
    started = [
        subprocess.Popen(
            words, cwd=folder, env=os.environ | more, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for words, more in commands
    ]
    said = [process.communicate(timeout=240) for process in started]
    return [
        subprocess.CompletedProcess(process.args, process.returncode, *both)
        for process, both in zip(started, said, strict=True)
    ]


@pytest.mark.slow
def test_every_way_to_start_two_processes_gives_the_same_weights(crowd: Path, tmp_path: Path) -> None:
    shutil.copy(crowd, tmp_path / "crowd.h5")
    script = tmp_path / "start.py"
    script.write_text('from lupctl.cli.app import main\n\nif __name__ == "__main__":\n    main()\n')
    words = ["pretrain", "--data", "crowd.h5", "--gpus", "0", "--workers", "0", *as_options(PRETRAIN), "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", str(script)]  # fmt: skip
    step = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "0", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NODELIST": "127.0.0.1"}
    meet = ["--nodes", "2", "--rdzv-endpoint"]
    ports = [str(20_000 + (os.getpid() + offset) % 10_000) for offset in (1, 2)]
    ways: dict[str, list[tuple[list[str], dict[str, str]]]] = {
        "processes": [([*MAIN, *words, "processes", "--processes", "2"], {})],
        "torchrun": [([*torchrun, *words, "torchrun"], {})],
        "srun": [
            ([*MAIN, *words, "srun"], step | {"SLURM_PROCID": number, "SLURM_LOCALID": number}) for number in "01"
        ],
        "machines": [([*MAIN, *words, "machines", *meet, f"127.0.0.1:{ports[0]}"], {}) for _ in "01"],
        "numbered": [
            ([*MAIN, *words, "numbered", *meet, f"127.0.0.1:{ports[1]}", "--node-rank", number], {}) for number in "01"
        ],
    }
    found = {}
    for name, commands in ways.items():
        ran = run_all(commands, tmp_path)
        assert [done.returncode for done in ran] == [0] * len(commands), (name, ran)
        assert "".join(done.stdout for done in ran) == f"{name}\n", "the one that leads prints"
        found[name] = load_file(tmp_path / name / "checkpoint.safetensors")
    for name, weights in found.items():
        assert all(torch.equal(value, found["processes"][key]) for key, value in weights.items()), name


@pytest.mark.slow
def test_every_way_to_start_two_processes_fine_tunes_the_same(labelled: Path, tmp_path: Path) -> None:
    """And as one process does, over a slow epoch: faster ones blow rounding up. One prints the scores, once."""
    shutil.copy(labelled, tmp_path / "labelled.h5")
    script = tmp_path / "start.py"
    script.write_text('from lupctl.cli.app import main\n\nif __name__ == "__main__":\n    main()\n')
    settings = (
        *FINETUNE,
        "schedule.epochs=1",
        "optim.name=sgd",
        "optim.lr=0.01",
        "bn_groups=1",
    )
    words = [
        "finetune",
        "labelled.h5",
        "--from",
        "scratch",
        "--recipe",
        "bot",
        "--gpus",
        "0",
        "--workers",
        "0",
        "--json",
    ]
    words += [*as_options(settings), "--out"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", str(script)]  # fmt: skip
    step = {"SLURM_NTASKS": "2", "SLURM_STEP_ID": "1", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NODELIST": "127.0.0.1"}
    meet = ["--nodes", "2", "--rdzv-endpoint", f"127.0.0.1:{20_000 + (os.getpid() + 3) % 10_000}"]
    ways: dict[str, list[tuple[list[str], dict[str, str]]]] = {
        "one": [([*MAIN, *words, "one"], {})],
        "processes": [([*MAIN, *words, "processes", "--processes", "2"], {})],
        "torchrun": [([*torchrun, *words, "torchrun"], {})],
        "srun": [
            ([*MAIN, *words, "srun"], step | {"SLURM_PROCID": number, "SLURM_LOCALID": number}) for number in "01"
        ],
        "machines": [([*MAIN, *words, "machines", *meet], {}) for _ in "01"],
    }
    found = {}
    for name, commands in ways.items():
        ran = run_all(commands, tmp_path)
        assert [done.returncode for done in ran] == [0] * len(commands), (name, ran)
        (printed,) = [done.stdout for done in ran if done.stdout]
        assert json.loads(printed)["run"] == name, "the one that leads prints, once"
        assert "".join(done.stderr for done in ran).count("start: random weights") == 1
        found[name] = load_file(tmp_path / name / "checkpoint.safetensors")
    for name, weights in found.items():
        for key, value in weights.items():
            torch.testing.assert_close(value, found["one"][key], rtol=1e-4, atol=1e-5, msg=f"{name}: {key}")
        if name != "one":
            assert all(torch.equal(value, found["processes"][key]) for key, value in weights.items()), name


def fine_tune_and_tell(given: tuple[Any, Path]) -> None:
    """A process of a joined job; leaves what it met."""
    job, folder = given
    try:
        facts = finetune(job, Progress(quiet=True))
        (folder / f"{dist.rank()}.txt").write_text(f"{len(facts) > 0}")
    except (DataError, UsageError) as error:
        (folder / f"{dist.rank()}.txt").write_text(error.message)


@pytest.mark.usefixtures("_warm")
def test_fine_tuning_is_led_like_pre_training(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first run is made, the second found finished, the third refused for its recipe, in every process."""
    monkeypatch.setattr("lupctl.core.system.jobs.launch.joined_job", _already_joined)
    told = []
    for settings in ((), (), ("seed=3",)):
        job = finetune_job(labelled, tmp_path / "run", *settings, processes=2)
        assert run_forked(fine_tune_and_tell, (job, tmp_path), processes=2) == [0, 0]
        told.append([(tmp_path / f"{number}.txt").read_text() for number in (0, 1)])
    assert told[0] == told[1] == ["True", "False"], "the facts belong to process 0"
    assert told[2][0] == told[2][1]
    assert "contains a run with recipe.seed = 1, but now it is 3" in told[2][0]
    with RunFolder(job.run).held():
        assert run_forked(fine_tune_and_tell, (job, tmp_path), processes=2) == [0, 0]
    for number in (0, 1):
        assert "another lupctl is training into this folder" in (tmp_path / f"{number}.txt").read_text()


@pytest.mark.slow
def test_a_killed_process_ends_the_job_which_can_be_continued(crowd: Path, tmp_path: Path, lupctl: Shell) -> None:
    settings = (*PRETRAIN, "schedule.epochs=60", "saving.every_epochs=1")
    words = ["pretrain", "--data", str(crowd), "--gpus", "0", "--workers", "0", "--processes", "2"]
    words += [*as_options(settings), "--out", "run"]
    process = subprocess.Popen([*MAIN, *words], stderr=subprocess.PIPE, text=True)
    while not (tmp_path / "run" / "resume.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)
    tasks = Path(f"/proc/{process.pid}/task").glob("*/children")
    children = [int(number) for task in tasks for number in task.read_text().split()]
    trainers = [n for n in children if b"spawn_main" in Path(f"/proc/{n}/cmdline").read_bytes()]
    os.kill(max(trainers), signal.SIGKILL)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 75, err
    assert "of 2 died (exit code -9); all were stopped" in err
    assert "Traceback" not in err
    assert len(err.splitlines()) < 8, "PyTorch's launcher does not talk in between"
    assert "hint: type the same command again to continue from the last saved state" in err
    assert not any(is_running(number) for number in trainers)
    assert 0 < read_state(tmp_path / "run")["step"] < 120
    assert lupctl(" ".join(words)).code == 0


def is_running(number: int) -> bool:
    """Whether a process still works; one that nobody has asked for its end does not."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    except FileNotFoundError:
        return False


@pytest.mark.slow
def test_a_decoding_worker_of_one_process_that_dies_ends_the_job_with_its_image(crowd: Path, tmp_path: Path) -> None:
    settings = (*PRETRAIN, "schedule.epochs=400", "saving.every_epochs=1")
    words = ["pretrain", "--data", str(crowd), "--gpus", "0", "--workers", "1", "--processes", "2"]
    process = subprocess.Popen(
        [*MAIN, *words, *as_options(settings), "--out", str(tmp_path / "run")], stderr=subprocess.PIPE, text=True
    )
    while not (tmp_path / "run" / "resume.pt").exists():
        assert process.poll() is None
        time.sleep(0.01)

    def children(parent: int) -> list[int]:
        tasks = Path(f"/proc/{parent}/task").glob("*/children")
        return [int(number) for task in tasks for number in task.read_text().split()]

    workers = [worker for trainer in children(process.pid) for worker in children(trainer)]
    os.kill(max(workers), signal.SIGKILL)
    err = process.communicate(timeout=120)[1]
    assert process.returncode == 3, err
    assert f"a decoding worker died (killed by SIGKILL); its last image was {crowd}: image " in err
    assert "Traceback" not in err
    assert not any(is_running(number) for number in workers)
