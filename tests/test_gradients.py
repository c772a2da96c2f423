"""Gradients averaged while the backward pass goes on, in three processes."""

from pathlib import Path

import pytest
import torch
from tiny_training import run_forked
from torch import nn

from lupctl.core.dist import Averaging, rank
from lupctl.core.train import gradients
from lupctl.core.train.gradients import SharedGradients


def build() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [layer for _ in range(4) for layer in (nn.Linear(6, 6), nn.Tanh())]
    return nn.Sequential(*layers).double()


def local_loss(network: nn.Module, number: int, part: int) -> torch.Tensor:
    """What process `number` makes of its images: no two have the same."""
    images = torch.randn(5, 6, generator=torch.Generator().manual_seed(10 * number + part)).double()
    return network(images).square().mean()


def work(folder: Path) -> None:
    network = build()
    shared = SharedGradients(network.parameters(), bucket_bytes=336)
    network[4].requires_grad_(False)  # as in a frozen start: no gradient, in no process
    sent: list[int] = []
    start = Averaging.__init__

    def note(self: Averaging, tensors: list[torch.Tensor]) -> None:
        sent.append(len(tensors))
        start(self, tensors)

    Averaging.__init__ = note  # type: ignore[method-assign]
    for step in range(2):
        network.zero_grad(set_to_none=True)
        local_loss(network, rank(), 0).backward()
        assert len(sent) == 3 * step, "nothing leaves before the last part of a step"
        with shared.shared():
            local_loss(network, rank(), 1).backward()
    found = {name: parameter.grad for name, parameter in network.named_parameters() if parameter.grad is not None}
    torch.save({"found": found, "sent": sent}, folder / f"{rank()}.pt")


def test_the_mean_of_three_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_forked(work, tmp_path, processes=3) == [0, 0, 0]
    network = build()
    network[4].requires_grad_(False)
    sum(local_loss(network, number, part) for number in range(3) for part in range(2)).backward()  # type: ignore[union-attr]
    for number in range(3):
        kept = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        assert kept["sent"] == [2, 2, 2] * 2, "a message per layer and step, none for the frozen one"
        assert len(kept["found"]) == 6
        for name, gradient in kept["found"].items():
            torch.testing.assert_close(gradient, network.get_parameter(name).grad / 3, rtol=0, atol=1e-12)


def test_one_process_sends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build()
    shared = SharedGradients(network.parameters())
    monkeypatch.setattr(gradients, "Averaging", None)
    with shared.shared():
        local_loss(network, 0, 0).backward()
    alone = build()
    local_loss(alone, 0, 0).backward()
    for one, other in zip(network.parameters(), alone.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_messages_leave_before_the_backward_pass_is_over(tmp_path: Path) -> None:
    assert run_forked(watch, tmp_path, processes=2) == [0, 0]


def watch(_: Path) -> None:
    network = build()
    shared = SharedGradients(network.parameters(), bucket_bytes=336)
    seen = []
    network[0].weight.register_hook(lambda gradient: seen.append(shared._next))
    with shared.shared():
        local_loss(network, rank(), 0).backward()
    assert seen[0] >= 2, "the last layers' gradients were on their way when the first layer's came"
