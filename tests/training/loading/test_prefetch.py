"""Batches that are copied to a device before they are asked for, with streams that take notes instead of a GPU."""

import os
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import pytest
import torch

from lupctl.core.training.loading.loaders import Batch, default_workers
from lupctl.core.training.loading.prefetch import on_device
from tests.tools.neutral_draws import neutral_draws

CUDA = torch.device("cuda", 0)


def batch_of(number: int) -> Batch:
    rows = torch.tensor([number, number])
    draws = neutral_draws(torch.ones(2, 2))
    return Batch(pixels=torch.full((2, 1, 1, 3), number), rows=rows, keys=rows, views=(draws,))


class Notes:
    """What would happen on a GPU, in order."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.seen: list[str] = []
        self._copying = False
        self._copies = 0
        patch.setattr(torch.cuda, "Stream", lambda device: self)
        patch.setattr(torch.cuda, "stream", self.entered)
        patch.setattr(torch.cuda, "current_stream", lambda device: self)
        patch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: self.seen.append("kept"))

    @contextmanager
    def entered(self, stream: object) -> Iterator[None]:
        self._copying = True
        yield
        self._copying = False

    def record_event(self) -> str:
        return f"copy {self._copies}"

    def wait_event(self, event: str) -> None:
        assert not self._copying, "the stream that computes waits, not the one that copies"
        self.seen.append(f"wait for {event}")


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Notes:
    made = Notes(monkeypatch)

    def copy(batch: Batch, device: torch.device) -> Batch:
        assert made._copying, "copies have a stream of their own"
        assert device == CUDA
        made._copies = int(batch.rows[0])
        made.seen.append(f"copy {made._copies}")
        return batch

    monkeypatch.setattr(Batch, "to", copy)
    return made


def test_a_batch_is_copied_while_the_one_before_it_is_worked_on(notes: Notes) -> None:
    for batch in on_device((batch_of(number) for number in range(3)), CUDA):
        notes.seen.append(f"work on {int(batch.rows[0])}")
    seen = [note for note in notes.seen if note != "kept"]
    assert seen == [
        "copy 0", "copy 1", "wait for copy 0", "work on 0",
        "copy 2", "wait for copy 1", "work on 1", "wait for copy 2", "work on 2",
    ]  # fmt: skip
    assert notes.seen.count("kept") == 3 * 3, "pixels, rows and keys of three batches; draws are kept where they move"


def test_draws_are_kept_until_the_stream_has_used_them_but_for_those_of_the_host(notes: Notes) -> None:
    moved = neutral_draws(torch.ones(2, 2)).to(torch.device("meta"))
    moved.record_stream(torch.cuda.current_stream(CUDA))
    assert notes.seen.count("kept") == 6, "box, shift, flip, jitter, erase, noise"


def test_what_goes_wrong_in_the_loader_is_not_lost(notes: Notes) -> None:
    def batches() -> Generator[Batch, None, None]:
        yield batch_of(0)
        raise ValueError("a worker died")

    with pytest.raises(ValueError, match="a worker died"):
        list(on_device(batches(), CUDA))


@pytest.mark.parametrize("device", [torch.device("cpu"), CUDA])
def test_the_loader_ends_with_the_loop(notes: Notes, device: torch.device) -> None:
    ended = []

    def batches() -> Generator[Batch, None, None]:
        try:
            yield from (batch_of(number) for number in range(9))
        finally:
            ended.append(True)

    given = on_device(batches(), device)
    assert int(next(given).rows[0]) == 0
    given.close()
    assert ended == [True]


def test_a_cpu_gets_the_batches_as_they_are(notes: Notes) -> None:
    made = [batch_of(number) for number in range(3)]
    given = list(on_device((batch for batch in made), torch.device("cpu")))
    assert all(one is other for one, other in zip(given, made, strict=True))
    assert notes.seen == []


@pytest.mark.parametrize(
    ("cores", "processes", "expected"), [(16, None, (16, 8)), (64, "8", (8, 4)), (4, "8", (1, 1)), (64, None, (16, 32))]
)
def test_processes_of_one_machine_share_its_cores(
    monkeypatch: pytest.MonkeyPatch, cores: int, processes: str | None, expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)), raising=False)
    if processes is None:
        monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    else:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", processes)
    assert (default_workers(CUDA), default_workers(torch.device("cpu"))) == expected
