"""A dump that is killed goes on after its last finished chunk, and leaves the bytes of an undisturbed one."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lupctl.core.formats.features.chunks import FeatureChunks, chunks_path, open_chunks, story_line
from lupctl.core.formats.features.file import read_features
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.networks import ReidNetwork
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import finetune_job

QUIET = Progress(quiet=True)
OUT = Path("f.h5")
CHUNKS = Path(".f.h5.chunks")


@pytest.fixture(scope="module")
def run(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuned network; its pack has 34 queries and gallery images, 7 chunks of 5."""
    made = tmp_path_factory.mktemp("runs") / "fine"
    finetune(finetune_job(labelled, made), QUIET)
    return made


def killed(lupctl: Shell, line: str, monkeypatch: pytest.MonkeyPatch, moment: Callable[[FeatureChunks], bool]) -> None:
    """Types a command in a process that dies without a word before a chunk is added of which `moment` is true."""
    append = FeatureChunks.append

    def dying(self: FeatureChunks, number: int, vectors: np.ndarray, left_out: list[str]) -> None:
        if moment(self):
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, number, vectors, left_out)

    with monkeypatch.context() as patch:
        patch.setattr(FeatureChunks, "append", dying)
        process = multiprocessing.get_context("fork").Process(target=lupctl, args=(line,))
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    assert not OUT.exists()


def count_images(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images every forward pass sees from now on."""
    embed, seen = ReidNetwork.embed, list[int]()

    def counting(self: ReidNetwork, images: Tensor, cameras: Tensor | None = None) -> Tensor:
        seen.append(len(images))
        return embed(self, images, cameras)

    monkeypatch.setattr(ReidNetwork, "embed", counting)
    return seen


@pytest.mark.parametrize(("chunks", "workers", "torn"), [(1, 0, 0), (1, 0, 1), (4, 1, 0), (4, 1, 40), (4, 0, 400)])
def test_a_killed_dump_goes_on(
    lupctl: Shell, run: Path, monkeypatch: pytest.MonkeyPatch, chunks: int, workers: int, torn: int
) -> None:
    """The last chunk may be half on the disk, as after a power cut; then it is computed again."""
    line = f"dump {run} --out f.h5 --device cpu --chunk 5 --workers {workers} --json"
    whole = lupctl(line)
    assert whole.code == 0, whole.err
    wanted = OUT.read_bytes()
    assert [path.name for path in Path().iterdir()] == ["f.h5"], "nothing else is left"
    OUT.unlink()
    killed(lupctl, line, monkeypatch, lambda found: found.done == chunks)
    size = CHUNKS.stat().st_size
    with CHUNKS.open("r+b") as stream:
        stream.truncate(size - torn)
    seen = count_images(monkeypatch)
    ran = lupctl(line)
    assert ran.code == 0, ran.err
    done = chunks - (torn > 0)
    assert sum(seen) == 34 - 5 * done
    said = f".f.h5.chunks: {done} of 7 chunks are done; continuing"
    assert (said in ran.err) == (done > 0)
    assert OUT.read_bytes() == wanted
    assert ran.json == whole.json
    assert [path.name for path in Path().iterdir()] == ["f.h5"]


@pytest.mark.parametrize(
    "change", ["--chunk 4", "--flip", "--type float16", "--role gallery", "--precision bf16", "checkpoint"]
)
def test_chunks_of_something_else_are_thrown_away(
    lupctl: Shell, run: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    line = f"dump {run} {labelled} --out f.h5 --device cpu --chunk 5 --workers 0"
    other = f"{line} {change}"
    if change == "checkpoint":
        finetune(finetune_job(labelled, tmp_path / "two", "seed=2"), QUIET)
        other = line.replace(str(run), "two")
    assert lupctl(other).code == 0
    wanted = OUT.read_bytes()
    OUT.unlink()
    killed(lupctl, line, monkeypatch, lambda found: found.done == 3)
    ran = lupctl(other)
    assert ran.code == 0, ran.err
    assert ".f.h5.chunks: of another network, other images or options; started again" in ran.err
    assert OUT.read_bytes() == wanted
    assert not CHUNKS.exists()


def test_a_folder_with_files_that_are_no_images(
    lupctl: Shell, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(9):
        (folder / f"{number}.jpg").write_bytes(encode_tiny(number) if number not in (1, 6) else b"I am no image")
    line = f"dump {run} photos --out f.h5 --device cpu --chunk 2 --workers 1 --json"
    whole = lupctl(line)
    wanted = OUT.read_bytes()
    assert [one.partition(":")[0] for one in whole.json["quarantine"]] == ["1.jpg", "6.jpg"]
    assert read_features(OUT).samples.name == [f"{number}.jpg" for number in (0, 2, 3, 4, 5, 7, 8)]
    OUT.unlink()
    killed(lupctl, line, monkeypatch, lambda found: found.done == 2)
    ran = lupctl(line)
    assert (ran.code, ran.json) == (0, whole.json)
    assert OUT.read_bytes() == wanted
    OUT.unlink()
    killed(lupctl, line, monkeypatch, lambda found: found.done == 2)
    (folder / "0.jpg").write_bytes(encode_tiny(77))
    assert "started again" in lupctl(line).err, "an image was replaced"
    assert OUT.read_bytes() != wanted


def test_two_dumps_into_one_file(lupctl: Shell, run: Path) -> None:
    with open_chunks(OUT, {}, "float32", count=1):
        ran = lupctl(f"dump {run} --out f.h5 --device cpu")
    assert ran.code == 3
    assert "error: f.h5: another lupctl is writing these features" in ran.err


@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.lists(st.text("ab:é \t", max_size=5), max_size=3)), max_size=5),
    st.integers(0, 200),
    st.sampled_from(["float32", "float16"]),
)
def test_what_is_whole_is_read_again(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[int, list[str]]], cut: int, kind: str
) -> None:
    """Chunks of any lengths, cut anywhere: all that end before the cut are there, and nothing else."""
    out = tmp_path_factory.mktemp("chunks") / "f.h5"
    made = [np.random.default_rng(number).normal(size=(rows, 3)) for number, (rows, _) in enumerate(parts)]
    ends, story = [], {"of": "this"}
    begun = open_chunks(out, story, kind, count=len(parts))
    chunks = begun.__enter__()
    for number, (vectors, (_, lines)) in enumerate(zip(made, parts, strict=True)):
        chunks.append(number, vectors.astype(np.float32), lines)
        ends.append(chunks_path(out).stat().st_size)
    assert begun.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None) is False
    if not parts:
        assert not chunks_path(out).exists()
        return
    first = len(story_line(story, kind))
    left = max(first, ends[-1] - cut)
    os.truncate(chunks_path(out), left)
    whole = sum(end <= left for end in ends)
    with open_chunks(out, story, kind, count=whole) as chunks:
        assert chunks.done == whole
        named = [lines for _, lines in parts[:whole] if "\n".join(lines)]
        assert [lines for _, lines in sorted(chunks.left_out.items())] == named
        for vectors, wanted in zip(chunks.each(), made[:whole], strict=True):
            assert np.array_equal(vectors, wanted.astype(np.float32).astype(kind))
    assert not chunks_path(out).exists()
