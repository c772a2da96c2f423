"""Batch norms of which several processes share one group, against one process that has all images."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from lupctl.core.system.jobs.messages import average_, own_share, rank, world_size
from lupctl.core.training.engine.parts import share_statistics
from lupctl.core.training.nets.resnet.norms import GroupedBatchNorm1d, GroupedBatchNorm2d, share_norm_groups
from tests.tools.tiny.training import run_forked

BATCH = 12


class Tiny(nn.Module):
    """A batch norm of each kind, with a layer in between."""

    def __init__(self) -> None:
        super().__init__()
        self.first = GroupedBatchNorm2d(3)
        self.second = GroupedBatchNorm1d(3)
        with torch.no_grad():
            for norm in (self.first, self.second):
                norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
                norm.bias.copy_(torch.tensor([0.1, 0.0, -0.3]))

    def forward(self, images: Tensor) -> Tensor:
        return self.second(torch.relu(self.first(images)).mean(dim=(2, 3)))  # type: ignore[no-any-return]


def learn(given: tuple[Path, int]) -> None:
    """Two steps of a process on its share of the batch; leaves what came of it."""
    folder, groups = given
    torch.manual_seed(0)
    network = Tiny().double().train()
    share_norm_groups(network, groups)
    images = torch.randn(BATCH, 3, 5, 4, dtype=torch.double) * 3 + 50  # far from zero, where squares cancel
    target = torch.randn(BATCH, 3, dtype=torch.double)
    own = own_share(images).clone().requires_grad_()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    for _ in range(2):
        own.grad = None
        optimizer.zero_grad()
        loss = (network(own) - own_share(target)).pow(2).mean()
        loss.backward()
        average_([parameter.grad for parameter in network.parameters() if parameter.grad is not None])
        optimizer.step()
        share_statistics(network)
    assert own.grad is not None
    torch.save({"state": network.state_dict(), "grad": own.grad / world_size()}, folder / f"{rank()}.pt")


@pytest.mark.parametrize(("processes", "groups"), [(2, 1), (4, 1), (4, 2), (2, 2), (2, 4)])
def test_a_group_in_several_processes_is_one(tmp_path: Path, processes: int, groups: int) -> None:
    (tmp_path / "one").mkdir()
    learn((tmp_path / "one", groups))
    assert run_forked(learn, (tmp_path, groups), processes=processes) == [0] * processes
    alone = torch.load(tmp_path / "one" / "0.pt", weights_only=True)
    assert alone["state"]["first.running_mean"].abs().min() > 1
    assert alone["grad"].abs().max() > 1e-4
    for number in range(processes):
        found = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        for key, value in alone["state"].items():
            torch.testing.assert_close(found["state"][key], value, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(found["grad"], alone["grad"][number::processes], rtol=1e-8, atol=1e-12)
