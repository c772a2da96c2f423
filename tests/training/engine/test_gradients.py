"""Gradients of parts and processes, against the gradient of everything at once."""

import gc
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from lupctl.core.system.jobs.messages import rank
from lupctl.core.training.engine import gradients
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.parts import each_part
from lupctl.core.training.engine.state import running_statistics
from tests.tools.tiny.training import run_forked

PARTS = 2
SMALL_BUCKETS = partial(DistributedDataParallel, bucket_cap_mb=336 / 2**20)


def build() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.Tanh())]
    return nn.Sequential(*layers).double()


def images_of(number: int, part: int) -> torch.Tensor:
    """What process `number` has in a part: no two have the same."""
    return torch.randn(5, 6, generator=torch.Generator().manual_seed(10 * number + part)).double()


def work(folder: Path) -> None:
    network = build()
    network[4].requires_grad_(False)  # as in a frozen start: no gradient, in no process
    sent: list[int] = []
    start = dist.all_reduce

    def note(message: torch.Tensor, **given: Any) -> Any:
        sent.append(message.numel())
        return start(message, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "DistributedDataParallel", SMALL_BUCKETS)
        patch.setattr(dist, "all_reduce", note)
        shared = SharedGradients(network, parts=PARTS)
        for step in range(3):  # after the first, DistributedDataParallel has other buckets
            network.zero_grad(set_to_none=True)
            for part in range(PARTS):
                assert sum(sent) == 126 * step, "nothing leaves before the last part of a step"
                with shared.part(part):
                    shared(images_of(rank(), part)).square().mean().backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    torch.save({"found": found, "sent": sent}, folder / f"{rank()}.pt")


def test_the_mean_of_three_processes(tmp_path: Path) -> None:
    assert run_forked(work, tmp_path, processes=3) == [0, 0, 0]
    network = build()
    network[4].requires_grad_(False)
    places = [(number, part) for number in range(3) for part in range(PARTS)]
    sum(network(images_of(*place)).square().mean() for place in places).backward()  # type: ignore[union-attr]
    for number in range(3):
        kept = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert sum(kept["sent"]) == 3 * 126, "three layers of 42 numbers in three steps, none of the frozen one"
        assert len(kept["sent"]) > 3, "in more than one message a step"
        assert len(kept["found"]) == 6
        for name, gradient in kept["found"].items():
            torch.testing.assert_close(gradient, network.get_parameter(name).grad / len(places), rtol=0, atol=1e-12)


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_one_process_sends_nothing(parts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gradients, "dist", None)
    network, alone = build(), build()
    network[4].requires_grad_(False)
    shared = SharedGradients(network, parts=parts)
    for _ in range(2):  # sums of one step are none of the next
        network.zero_grad(set_to_none=True)
        for part in range(parts):
            with shared.part(part):
                shared(images_of(0, part)).square().mean().backward()
    sum(alone(images_of(0, part)).square().mean() / parts for part in range(parts)).backward()  # type: ignore[union-attr]
    for (name, one), other in zip(network.named_parameters(), alone.parameters(), strict=True):
        if name.startswith("4."):
            assert one.grad is None
        else:
            torch.testing.assert_close(one.grad, other.grad, rtol=0, atol=1e-14)


def test_sums_do_not_round_by_their_order() -> None:
    """In single precision 1 + 2^-24 - 1 is 0 or 2^-24, by which two come first."""
    found = []
    for order in ([1.0, 2.0**-24, -1.0], [1.0, -1.0, 2.0**-24], [2.0**-24, 1.0, -1.0]):
        scale = nn.Linear(1, 1, bias=False)
        shared = SharedGradients(scale, parts=3)
        for part, value in enumerate(order):
            with shared.part(part):
                shared(torch.tensor([[value]])).sum().backward()
        assert scale.weight.grad is not None
        found.append(scale.weight.grad.item())
    assert found == [pytest.approx(2.0**-24 / 3, rel=1e-6)] * 3
    assert len(set(found)) == 1


def test_messages_leave_before_the_backward_pass_is_over(tmp_path: Path) -> None:
    assert run_forked(watch, tmp_path, processes=2) == [0, 0]


def watch(_: Path) -> None:
    network = build()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gradients, "DistributedDataParallel", SMALL_BUCKETS)
        sent, seen = [], []
        real = gradients._send

        # torch reads the annotation, and wants this one.
        def send(sums: Any, bucket: dist.GradBucket) -> torch.futures.Future[torch.Tensor]:  # type: ignore[name-defined]
            sent.append(bucket.index())
            return real(sums, bucket)

        patch.setattr(gradients, "_send", send)
        shared = SharedGradients(network)
        network.get_parameter("0.weight").register_hook(lambda gradient: seen.append(len(sent)))
        for _again in range(2):
            with shared.part(0):
                shared(images_of(rank(), 0)).square().mean().backward()
    assert seen[-1] >= 2, "the last layers' gradients were on their way when the first layer's came"


def test_a_thawed_network_is_shared_anew_and_the_old_way_is_gone(tmp_path: Path) -> None:
    assert run_forked(thaw, tmp_path, processes=2) == [0, 0]


def thaw(_: Path) -> None:
    network = build()
    network[0].requires_grad_(False)
    shared = SharedGradients(network)
    gone = weakref.ref(shared._parallel)
    with shared.part(0):
        shared(images_of(rank(), 0)).square().mean().backward()
    assert network[0].weight.grad is None
    network.zero_grad(set_to_none=True)
    network[0].requires_grad_(True)
    shared = SharedGradients(network)
    gc.collect()
    assert gone() is None
    with shared.part(0):
        shared(images_of(rank(), 0)).square().mean().backward()
    expected = build()
    sum(expected(images_of(number, 0)).square().mean() / 2 for number in range(2)).backward()  # type: ignore[union-attr]
    for own, other in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-12)


def test_parts_of_convolutions_in_channels_last(tmp_path: Path) -> None:
    """A bucket keeps a gradient in the layout of its parameter."""
    assert run_forked(convolve, tmp_path, processes=2) == [0, 0]


def build_convolutions() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Tanh(), nn.Conv2d(8, 4, 3)).double()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def pictures_of(number: int, part: int) -> torch.Tensor:
    return torch.randn(2, 3, 9, 7, generator=torch.Generator().manual_seed(10 * number + part)).double()


def convolve(_: Path) -> None:
    network, expected = build_convolutions(), build_convolutions()
    shared = SharedGradients(network, parts=PARTS)
    for part in range(PARTS):
        with shared.part(part):
            shared(pictures_of(rank(), part)).square().mean().backward()
    places = [(number, part) for number in range(2) for part in range(PARTS)]
    sum(expected(pictures_of(*place)).square().mean() / 4 for place in places).backward()  # type: ignore[union-attr]
    for own, other in zip(network.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=0, atol=1e-12)


def test_running_statistics_do_not_round_by_the_number_of_processes(tmp_path: Path) -> None:
    """Twelve groups: neither they nor the parts of four processes are a power of two."""
    assert run_forked(normalise, tmp_path, processes=4) == [0] * 4
    alone = normalised(range(12))
    for number in range(4):
        for kept, value in zip(torch.load(tmp_path / f"{number}.pt", weights_only=True), alone, strict=True):
            assert torch.equal(kept, value)


def normalised(groups: range) -> list[torch.Tensor]:
    norm = nn.BatchNorm1d(4096)
    values = [torch.randn(4, 4096, generator=torch.Generator().manual_seed(group)) for group in groups]
    images = torch.stack(values, dim=1).flatten(0, 1)  # image i is in group i mod parts
    for some in each_part(norm, len(groups)):
        norm(images[some])
    return running_statistics(norm)


def normalise(folder: Path) -> None:
    torch.save(normalised(range(rank(), 12, 4)), folder / f"{rank()}.pt")


class Message:
    """One on its way, whose peer may be gone."""

    def __init__(self, waited: list[str], name: str) -> None:
        self._waited, self._name = waited, name

    def wait(self) -> None:
        self._waited.append(self._name)
        raise RuntimeError("connection closed by peer")


def test_an_error_in_a_backward_pass_waits_for_messages_that_are_on_their_way() -> None:
    """What a message calls would find a Python that has ended: a crash, which looks like a kill from outside."""
    shared, waited = SharedGradients(nn.Linear(1, 1)), list[str]()

    def fail() -> None:
        with shared.part(0):
            sent: list[Any] = shared._sums.sent
            sent.extend([Message(waited, "first"), Message(waited, "second")])
            raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        fail()
    assert waited == ["first", "second"]
    assert shared._sums.sent == []
    with shared.part(0):
        left: list[Any] = shared._sums.sent
        left.append(Message(waited, "third"))
    assert len(waited) == 2, "whoever ends well has been waited for by DistributedDataParallel"
    assert shared._sums.sent == []
