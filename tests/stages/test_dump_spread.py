"""A dump that is spread over processes, shards or machines leaves the bytes of one process, and nothing else."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch

from lupctl.core.formats.features.chunk_file import ChunkFile
from lupctl.core.formats.features.chunks import FeatureChunks, chunks_path, hold_features
from lupctl.core.formats.features.file import read_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.ranking.retrieval import extract
from lupctl.core.ranking.retrieval.extract import Encoder, embed_steadily
from lupctl.core.recipes.sections import Pixels
from lupctl.core.stages.dump import run as stage
from lupctl.core.stages.dump.job import DumpJob, Shard, fit_processes
from lupctl.core.stages.dump.run import dump
from lupctl.core.stages.dump.work import open_work
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.jobs.messages import rank
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import ChunkDataset
from lupctl.core.training.nets.build import build_network
from lupctl.core.training.views.plan import build_view_plan
from tests.tools.networks import make_header, neck, plan_network
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import finetune_job, run_forked

QUIET = Progress(quiet=True)
CPU = torch.device("cpu")
OUT = Path("f.h5")
MAIN = [sys.executable, "-c", "from lupctl.cli.app import main; main()"]


@pytest.fixture(scope="module")
def run(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned network; its pack has 34 queries and gallery images, 7 chunks of 5."""
    made = tmp_path_factory.mktemp("runs") / "fine"
    finetune(finetune_job(labelled, made), QUIET)
    return made


@pytest.fixture(scope="module")
def other(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another network."""
    made = tmp_path_factory.mktemp("others") / "other"
    finetune(finetune_job(labelled, made, "seed=2"), QUIET)
    return made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Nine files, of which two are no images."""
    made = tmp_path / "photos"
    made.mkdir()
    for number in range(9):
        (made / f"{number}.jpg").write_bytes(encode_tiny(number) if number not in (1, 6) else b"I am no image")
    return made


def job_of(run: Path, data: Path, out: Path, *, chunk: int = 5) -> DumpJob:
    return DumpJob(run / "checkpoint.safetensors", data, out, chunk=chunk, workers=0)


def dump_quietly(job: DumpJob) -> None:
    """One process of a joined job."""
    dump(job, CPU, QUIET)


def here() -> list[str]:
    return sorted(path.name for path in Path().iterdir())


@pytest.mark.parametrize("kind", ["float32", "float16"])
@pytest.mark.parametrize("processes", [2, 3])
@pytest.mark.usefixtures("lupctl")
def test_processes_leave_the_bytes_of_one(run: Path, labelled: Path, processes: int, kind: str) -> None:
    job = replace(job_of(run, labelled, OUT), kind=kind)  # type: ignore[arg-type]
    dump(job, CPU, QUIET)
    wanted = OUT.read_bytes()
    OUT.unlink()
    assert run_forked(dump_quietly, job, processes=processes) == [0] * processes
    assert OUT.read_bytes() == wanted
    assert here() == ["f.h5"], "nothing else is left"


def test_more_processes_than_chunks(run: Path, labelled: Path, lupctl: Shell) -> None:
    job = job_of(run, labelled, OUT, chunk=20)
    dump(job, CPU, QUIET)
    wanted = OUT.read_bytes()
    OUT.unlink()
    assert run_forked(dump_quietly, job, processes=3) == [0] * 3
    assert OUT.read_bytes() == wanted
    assert here() == ["f.h5"]


@pytest.mark.parametrize("shards", [1, 2, 7])
@pytest.mark.parametrize("joins", ["last", "again"])
def test_shards_become_the_bytes_of_one(run: Path, lupctl: Shell, shards: int, joins: str) -> None:
    """The one that finishes last joins them; where they come from several places, the command without --shard does."""
    line = f"dump {run} --out f.h5 --device cpu --chunk 5 --workers 0"
    assert lupctl(line).code == 0
    wanted = OUT.read_bytes()
    OUT.unlink()
    numbers = [*range(2, shards + 1), 1]
    for place, number in enumerate(numbers):
        elsewhere = Path(f"machine{number}") / OUT if joins == "again" else OUT
        ran = lupctl(f"{line.replace('f.h5', str(elsewhere))} --shard {number}/{shards} --json")
        assert ran.code == 0, ran.err
        is_last = place == len(numbers) - 1
        if joins == "again" and shards > 1:
            assert ran.json["path"] == f"machine{number}/f.h5.shard-{number}-of-{shards}"
            assert ran.json["missing"] == [n for n in range(1, shards + 1) if n != number]
            assert f"shard {number}/{shards} is written; still missing: " in ran.err
            shutil.move(ran.json["path"], Path(ran.json["path"]).name)
        elif joins == "last":
            assert OUT.exists() == is_last
            assert ran.json["images"] == 34 if is_last else ran.json["images"] < 34
    if joins == "again" and shards > 1:
        ran = lupctl(line)
        assert (ran.code, ran.out) == (0, "f.h5\n"), ran.err
        assert f"f.h5: joined from {shards} shards" in ran.err
    if joins == "last" or shards > 1:
        assert OUT.read_bytes() == wanted
        assert [name for name in here() if not name.startswith("machine")] == ["f.h5"], "the shards are gone"


def test_a_shard_in_several_processes(run: Path, labelled: Path, lupctl: Shell) -> None:
    whole = job_of(run, labelled, OUT)
    dump(whole, CPU, QUIET)
    wanted = OUT.read_bytes()
    OUT.unlink()
    for number in (1, 2):
        assert run_forked(dump_quietly, replace(whole, shard=Shard(number, 2)), processes=2) == [0, 0]
    assert OUT.read_bytes() == wanted
    assert here() == ["f.h5"]


def test_files_that_are_no_images_are_left_out_everywhere(run: Path, folder: Path, lupctl: Shell) -> None:
    job = job_of(run, folder, OUT, chunk=2)
    dump(job, CPU, QUIET)
    wanted = OUT.read_bytes()
    assert read_features(OUT).samples.name == [f"{number}.jpg" for number in (0, 2, 3, 4, 5, 7, 8)]
    OUT.unlink()
    assert run_forked(dump_quietly, job, processes=2) == [0, 0]
    assert OUT.read_bytes() == wanted
    OUT.unlink()
    for number in (3, 1, 2):
        result = dump(replace(job, shard=Shard(number, 3)), CPU, QUIET)
    assert [line.partition(":")[0] for line in result.quarantine] == ["1.jpg", "6.jpg"]
    assert OUT.read_bytes() == wanted
    for path in folder.iterdir():
        path.write_text("I am no image")
    OUT.unlink()
    assert run_forked(dump_quietly, job, processes=2) == [1, 1], "an error in every process"
    for number in (1, 2):
        ran = lupctl(f"dump {run} photos --out f.h5 --device cpu --chunk 2 --shard {number}/2")
    assert ran.code == 3
    assert "photos: none of the 9 files is an image" in ran.err
    assert here() == ["f.h5.shard-1-of-2", "f.h5.shard-2-of-2", "photos"]


def dump_and_die(job: DumpJob) -> None:
    """The second process is killed before its second chunk."""
    append = ChunkFile.append

    def dying(self: ChunkFile, number: int, vectors: np.ndarray, left_out: list[str]) -> int:
        if rank() == 1 and number == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return append(self, number, vectors, left_out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ChunkFile, "append", dying)
        dump(job, CPU, QUIET)


@pytest.mark.parametrize("torn", [0, 30])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_a_killed_job_has_finished_is_kept(
    run: Path, labelled: Path, lupctl: Shell, capsys: pytest.CaptureFixture[str], processes: int, torn: int
) -> None:
    """Also for another number of processes than before, and with the last chunk half on the disk."""
    job = job_of(run, labelled, OUT)
    dump(job, CPU, QUIET)
    wanted = OUT.read_bytes()
    OUT.unlink()
    codes = run_forked(dump_and_die, job, processes=2)
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    assert here() == [".f.h5.chunks", ".f.h5.chunks-1"]
    os.truncate(chunks_path(OUT, 1), chunks_path(OUT, 1).stat().st_size - torn)
    if processes == 1:
        capsys.readouterr()
        dump(job, CPU, Progress())
        done = 4 - (torn > 0)  # 0 to 2 of the first process, and 3
        assert f".f.h5.chunks: {done} of 7 chunks are done; continuing" in capsys.readouterr().err
    else:
        assert run_forked(dump_quietly, job, processes=processes) == [0] * processes
    assert OUT.read_bytes() == wanted
    assert here() == ["f.h5"]


def test_chunks_of_another_dump_are_thrown_away_in_every_file(
    run: Path, other: Path, labelled: Path, lupctl: Shell, capsys: pytest.CaptureFixture[str]
) -> None:
    job = job_of(run, labelled, OUT)
    dump(job, CPU, QUIET)
    wanted = OUT.read_bytes()
    OUT.unlink()
    run_forked(dump_and_die, job_of(other, labelled, OUT), processes=2)
    dump(job, CPU, Progress())
    assert "of another network, other images or options; started again" in capsys.readouterr().err
    assert OUT.read_bytes() == wanted
    assert here() == ["f.h5"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_dump_that_is_stopped_keeps_what_it_has(
    run: Path, labelled: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    line = f"dump {run} --out f.h5 --device cpu --chunk 5 --workers 1"
    assert lupctl(line).code == 0
    wanted = OUT.read_bytes()
    OUT.unlink()
    append = FeatureChunks.append

    def stopping(self: FeatureChunks, chunk: int, vectors: np.ndarray, left_out: list[str]) -> None:
        append(self, chunk, vectors, left_out)
        if chunk == 2:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureChunks, "append", stopping)
        ran = lupctl(line)
    assert ran.code == (75 if number == signal.SIGTERM else 130)
    assert ran.err == (
        "error: stopped on request after chunk 3 of 7; the dump can be continued\nhint: type the same command again\n"
    )
    assert here() == [".f.h5.chunks"]
    ran = lupctl(line)
    assert ".f.h5.chunks: 3 of 7 chunks are done" in ran.err
    assert OUT.read_bytes() == wanted


@pytest.mark.parametrize("shard", ["3/2", "0/2", "0/0", "x", "1", "1/2/3", "-1/2", "1/2 ", "१/२x"])
def test_shards_that_cannot_be(run: Path, lupctl: Shell, shard: str) -> None:
    ran = lupctl(f"dump {run} --out f.h5 --device cpu '--shard={shard}'")
    assert ran.code == 2
    assert ran.err == (
        f"error: --shard {shard}: a shard's number from 1 and the number of shards were expected\nhint: --shard 1/8\n"
    )


def test_more_shards_than_chunks(run: Path, lupctl: Shell) -> None:
    for more in ("", " --dry-run"):
        ran = lupctl(f"dump {run} --out f.h5 --device cpu --chunk 5 --shard 9/40{more}")
        assert ran.code == 2
        assert "error: --shard 9/40: 34 images in chunks of 5 are 7 chunks, too few for 40 shards" in ran.err
        assert "hint: at most 7 shards, or a smaller --chunk" in ran.err
    assert here() == []


def test_devices_that_are_named_twice(run: Path, lupctl: Shell) -> None:
    ran = lupctl(f"dump {run} --device cpu --gpus 0")
    assert ran.code == 2
    assert "error: --device cpu and --gpus 0 both name devices\nhint: leave --gpus out" in ran.err
    ran = lupctl(f"dump {run} --gpus 99")
    assert ran.code == 5


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ("checkpoint", "checkpoint"),
        ("--flip", "flip"),
        ("--type float16", "type"),
        ("--chunk 6", "chunk"),
        ("--role gallery", "images"),
    ],
)
def test_shards_of_different_dumps(
    run: Path, other: Path, labelled: Path, lupctl: Shell, change: str, key: str
) -> None:
    line = f"dump {run} {labelled} --out f.h5 --device cpu --chunk 5"
    first = line.replace(str(run), str(other)) if change == "checkpoint" else f"{line} {change}"
    assert lupctl(f"{first} --shard 1/2").code == 0
    for more in (" --shard 2/2", "", " --shard 2/2"):
        ran = lupctl(f"{line}{more}")
        assert ran.code == 3
        assert f"error: f.h5.shard-1-of-2: of {key} " in ran.err
        assert "hint: make it again: the same command with --shard 1/2 --force" in ran.err
    assert here() == ["f.h5.shard-1-of-2", "f.h5.shard-2-of-2"], "both are kept"
    ran = lupctl(f"{line} --shard 1/2")
    assert ran.code == 2
    assert "f.h5.shard-1-of-2: exists already and would be overwritten" in ran.err
    assert lupctl(f"{line} --shard 1/2 --force").code == 0
    joined = OUT.read_bytes()
    assert lupctl(f"{line} --force").code == 0
    assert OUT.read_bytes() == joined


@pytest.mark.parametrize("key", ["device", "precision", "torch", "version"])
def test_shards_of_different_machines(run: Path, lupctl: Shell, monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    line = f"dump {run} --out f.h5 --device cpu --chunk 5"
    real = open_work

    def of_another(job: DumpJob, device: torch.device) -> object:
        work = real(job, device)
        return replace(work, story={**work.story, key: "another"})

    with monkeypatch.context() as patch:
        patch.setattr(stage, "open_work", of_another)
        assert lupctl(f"{line} --shard 2/2").code == 0
    ran = lupctl(f"{line} --shard 1/2")
    assert ran.code == 3
    assert f"error: f.h5.shard-2-of-2: of {key} 'another', " in ran.err


def test_a_shard_that_is_missing(run: Path, lupctl: Shell) -> None:
    line = f"dump {run} --out f.h5 --device cpu --chunk 5"
    for number in (1, 3):
        assert lupctl(f"{line} --shard {number}/4").code == 0
    ran = lupctl(line)
    assert ran.code == 3
    assert "error: f.h5: 2 of 4 shards are missing (2, 4)\n" in ran.err
    assert "hint: make it: the same command with --shard 2/4, or all of it here: with --force" in ran.err
    ran = lupctl(f"{line} --shard 1/4")
    assert ran.code == 0
    assert "f.h5.shard-1-of-4: already finished; --force computes it again" in ran.err
    assert lupctl(f"{line} --shard 1/2").code == 0
    ran = lupctl(line)
    assert ran.code == 3
    assert "error: f.h5: shards of 2 and of 4 are there" in ran.err
    assert lupctl(f"{line} --force").code == 0
    assert here() == ["f.h5"], "what was computed elsewhere is not wanted any more"


def test_a_shard_that_is_damaged(run: Path, lupctl: Shell) -> None:
    line = f"dump {run} --out f.h5 --device cpu --chunk 5"
    shard = Path("f.h5.shard-1-of-2")
    assert lupctl(f"{line} --shard 1/2").code == 0
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    ran = lupctl(f"{line} --shard 2/2")
    assert ran.code == 3
    assert "error: f.h5.shard-1-of-2: " in ran.err
    assert "hint: make it again: the same command with --shard 1/2 --force" in ran.err
    shutil.copy("f.h5.shard-2-of-2", shard)
    ran = lupctl(line)
    assert ran.code == 3
    assert "error: f.h5.shard-1-of-2: of checkpoint None" in ran.err, "the other one under its name"
    shard.write_bytes(whole)
    with h5py.File(shard, "r+") as file:
        file.attrs["lupctl"] = file.attrs["lupctl"].replace('"quarantine": []', '"quarantine": 3')
    assert lupctl(line).code == 3
    assert not OUT.exists()


def test_two_jobs_on_one_shard(run: Path, lupctl: Shell) -> None:
    line = f"dump {run} --out f.h5 --device cpu --chunk 5"
    with hold_features(Path("f.h5.shard-1-of-2")):
        ran = lupctl(f"{line} --shard 1/2")
        assert ran.code == 3
        assert "error: f.h5.shard-1-of-2: another lupctl is writing these features" in ran.err
        assert lupctl(f"{line} --shard 2/2").code == 0, "the other one is free"
    with hold_features(OUT):
        ran = lupctl(f"{line} --shard 1/2")
    assert ran.code == 3
    assert "error: f.h5: another lupctl is writing these features" in ran.err
    assert here() == ["f.h5.shard-1-of-2", "f.h5.shard-2-of-2"]
    assert lupctl(f"{line} --shard 1/2").code == 0
    assert here() == ["f.h5"]


def test_the_plan_of_a_spread_dump(run: Path, labelled: Path, lupctl: Shell) -> None:
    line = f"dump {run} --out f.h5 --gpus 0 --chunk 5 --dry-run --json"
    plan = lupctl(f"{line} --processes 2").json
    assert (plan["images"], plan["processes"], plan["images_per_process"]) == (34, 2, 20)
    plan = lupctl(f"{line} --processes 2 --shard 2/2").json
    assert (plan["images"], plan["images_per_process"]) == (19, 10)
    assert (plan["shard"], plan["images_of_all_shards"], plan["out"]) == ("2/2", 34, "f.h5.shard-2-of-2")
    assert "processes" not in lupctl(line).json
    assert lupctl(f"{line} --processes 50").json["processes"] == 7, "a chunk each"
    job = job_of(run, labelled, OUT)
    eight = Placement("cuda", 8, "device: 8 x cuda")
    assert fit_processes(job, eight, is_asked=False).processes == 1, "not worth the start of more"
    fitted = fit_processes(job, eight, is_asked=True)
    assert (fitted.processes, fitted.line) == (7, "device: 8 x cuda; 7 of them for 7 chunks of 5 images")
    assert fit_processes(replace(job, chunk=1), replace(eight, processes=3), is_asked=True).line == eight.line
    assert here() == []


@pytest.mark.parametrize("chunk", [3, 40])
def test_threads_move_no_bit(labelled: Path, chunk: int) -> None:
    """This network does round by the threads of a pass, where that has few images."""
    torch.manual_seed(1)
    network = build_network(plan_network(neck(3), "r50", width=16)).eval()
    view = build_view_plan(Pixels(height=128, width=64).model_dump())
    encoder = Encoder(network, view, CPU, torch.float32)
    dataset = ChunkDataset(PackImages([open_pack(labelled)]), encoder.view, chunk=chunk)
    before, found = torch.get_num_threads(), []
    cv2.setNumThreads(1)
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            parts = [one for _, one in embed_steadily(encoder, dataset, range(len(dataset)), workers=0, flip=False)]
            assert [len(one) for one in parts[:-1]] == [chunk] * (len(parts) - 1)
            found.append(np.concatenate(parts))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert len(found[0]) == len(open_pack(labelled))
    assert found[0].std() > 0
    assert all(np.array_equal(one, found[0]) for one in found[1:])
    assert extract.GROUP == 16


@pytest.mark.slow
def test_every_way_to_start_two_processes_gives_the_same_bytes(run: Path, lupctl: Shell, tmp_path: Path) -> None:
    words = ["dump", str(run), "--gpus", "0", "--chunk", "5", "--json", "--out"]
    assert lupctl(" ".join([*words, "one.h5"])).code == 0
    script = tmp_path / "start.py"
    script.write_text('from lupctl.cli.app import main\n\nif __name__ == "__main__":\n    main()\n')
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d",
                "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1", str(script)]  # fmt: skip
    ways = {
        "processes.h5": [*MAIN, *words, "processes.h5", "--processes", "2"],
        "torchrun.h5": [*torchrun, *words, "torchrun.h5"],
    }
    for name, command in ways.items():
        ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=240)
        assert ran.returncode == 0, ran.stderr
        assert ran.stdout.count("lupctl.dump/1") == 1, "the one that leads prints"
        assert Path(name).read_bytes() == Path("one.h5").read_bytes(), name
    assert not list(Path().glob(".*chunks*"))


@pytest.fixture(scope="module")
def slow_network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that takes some seconds for the images of `labelled`."""
    torch.manual_seed(0)
    plan = plan_network(neck(3), "r50", width=64)
    path = tmp_path_factory.mktemp("slow") / "slow.safetensors"
    write_checkpoint(path, build_network(plan).state_dict(), make_header(plan, classes=(1, 2, 3)))
    return path


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_spread_dump_is_stopped_whole(
    slow_network: Path, labelled: Path, lupctl: Shell, number: signal.Signals, code: int
) -> None:
    """Also by Ctrl-C, which every process of the terminal's group gets at once."""
    words = [
        "dump",
        str(slow_network),
        str(labelled),
        "--gpus",
        "0",
        "--processes",
        "2",
        "--chunk",
        "1",
        "--out",
        "f.h5",
    ]
    with Path("stderr.txt").open("w") as stream:
        process = subprocess.Popen([*MAIN, *words, "--workers", "1"], stderr=stream, start_new_session=True)
    deadline = time.monotonic() + 120
    while not all(path.exists() and path.stat().st_size > 20_000 for path in (chunks_path(OUT), chunks_path(OUT, 1))):
        assert process.poll() is None, Path("stderr.txt").read_text()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    if number == signal.SIGINT:
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    assert process.wait(timeout=90) == code, Path("stderr.txt").read_text()
    said = Path("stderr.txt").read_text()
    assert "error: stopped on request" in said
    assert "Traceback" not in said
    assert is_empty(process.pid), "nobody of its group is left"
    assert not OUT.exists()
    ran = lupctl(
        " ".join(["dump", str(slow_network), str(labelled), "--device", "cpu", "--chunk", "1", "--out", "f.h5"])
    )
    assert ran.code == 0
    assert " of 34 chunks are done; continuing" in ran.err
    assert len(read_features(OUT)) == 34


def is_empty(group: int) -> bool:
    """Whether a group of processes has none any more, after a moment."""
    for _ in range(100):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.05)
    return False
