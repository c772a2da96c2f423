"""Two real processes against one: gathering, averaging, a step of pre-training, and what happens when one fails."""

import os
import signal
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lupctl.core.errors import CorruptImageError, LupError, StoppedError, UsageError
from lupctl.core.system.jobs.launch import launch
from lupctl.core.system.jobs.messages import (
    agree_to_stop,
    average_,
    gather_interleaved,
    gather_plain,
    gather_with_gradient,
    own_share,
    rank,
    sum_,
    world_size,
)
from lupctl.core.system.jobs.split import check_split
from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.losses.triplet import batch_hard_triplet
from lupctl.core.training.methods.moco import MoCo
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.nets.build import build_contrastive
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from tests.tools.networks import plan_network, projection
from tests.tools.tiny.training import name_it

LABEL = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1])
BATCH = 8


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def triplet_gradient() -> tuple[Tensor, Tensor]:
    """Loss and gradient of a shared weight, as a training step computes them."""
    weight = numbers(5, 4, seed=2).requires_grad_()
    features = own_share(numbers(BATCH, 5, seed=1)) @ weight
    label = own_share(LABEL)
    loss = batch_hard_triplet(features, label, gather_with_gradient(features), gather_plain(label), margin=0.3)
    loss.backward()
    total = loss.detach().clone()
    assert weight.grad is not None
    average_([weight.grad, total])
    return total, weight.grad


def pretrain_a_little() -> dict[str, Tensor]:
    """Three steps of momentum contrast, four batch-norm groups over all processes."""
    torch.manual_seed(5)
    method = MoCo(
        build_contrastive(plan_network(projection(6))),
        dim=6,
        queue=20,
        seed=3,
    )
    set_norm_groups(method, 4 // world_size())
    # Batch norm over two images blows rounding up; double precision leaves that of the loss alone, which is float32.
    method.student.double()
    method.teacher.double()
    optimizer = torch.optim.SGD(method.student.parameters(), lr=0.05, momentum=0.9)
    shared, losses = SharedGradients(method.student), []
    for step in range(3):
        first, second = (own_share(numbers(BATCH, 3, 64, 32, seed=10 * step + view)).double() for view in (0, 1))
        now = Now(step, 0, rate=0.05, decay=0.0, momentum=0.9, temperature=0.2)
        optimizer.zero_grad()
        found = method.learn(Given((first, second), keys=LABEL), now, shared, precision=torch.float32)
        optimizer.step()
        method.follow(now)
        losses.append(found["loss"])
    average_(losses)
    average_([value for value in method.buffers() if value.is_floating_point()])
    return {"losses": torch.stack(losses), **method.state_dict()}


def work_together(folder: Path) -> None:
    """What every process does; each leaves what it found."""
    everything = torch.arange(12.0).view(6, 2)
    share = own_share(everything)
    mixed = [
        torch.full((2, 3), float(rank())),
        torch.tensor(rank() * 10.0),
        torch.full((1,), rank(), dtype=torch.float64),
    ]
    average_(mixed)
    found = {
        "world": world_size(),
        "meets_at": os.environ["MASTER_ADDR"],
        "share": share,
        "gathered": gather_interleaved(share),
        "plain": gather_plain(share),
        "integers": gather_interleaved(own_share(LABEL)),
        "mixed": mixed,
        "total": sum_(torch.full((3,), 7.0 + rank())),
        "stop": [agree_to_stop(wanted, torch.device("cpu")) for wanted in (False, rank() == 1, True)],
        "triplet": triplet_gradient(),
        "pretrained": pretrain_a_little(),
    }
    torch.save(found, folder / f"{rank()}.pt")


def fail_with_an_image(folder: Path) -> None:
    """Process 1 meets a damaged image while process 0 waits for it."""
    if rank() == 1:
        raise CorruptImageError("pack.h5: image 3 is damaged", hint="make it again: lupctl data pack --force")
    gather_interleaved(torch.ones(2))


def fail_by_signal(folder: Path) -> None:
    """Process 1 is killed, as one that took too much memory."""
    if rank() == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    gather_interleaved(torch.ones(2))


def test_one_process_gathers_itself() -> None:
    rows = torch.arange(6.0).view(3, 2).requires_grad_()
    assert gather_interleaved(rows) is rows
    assert gather_with_gradient(rows) is rows
    assert torch.equal(own_share(rows), rows)
    values = [torch.ones(2)]
    average_(values)
    assert sum_(values[0]) is values[0]
    assert values[0].tolist() == [1, 1]
    assert (rank(), world_size()) == (0, 1)
    assert agree_to_stop(True, torch.device("cpu"))
    assert not agree_to_stop(False, torch.device("cpu"))


def test_one_process_is_called_right_here() -> None:
    met: list[int] = []
    launch(met.append, 5, processes=1, kind="cpu")
    assert met == [5]


@pytest.mark.slow
def test_two_processes_are_one(tmp_path: Path) -> None:
    launch(work_together, tmp_path, processes=2, kind="cpu")
    found = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in (0, 1)]
    everything = torch.arange(12.0).view(6, 2)
    for number, own in enumerate(found):
        assert own["world"] == 2
        assert own["meets_at"] == "127.0.0.1", "the machine's own name need not resolve"
        assert torch.equal(own["share"], everything[number::2])
        assert torch.equal(own["gathered"], everything)
        assert torch.equal(own["plain"], torch.cat([everything[0::2], everything[1::2]]))
        assert torch.equal(own["integers"], LABEL)
        assert [value.flatten().tolist() for value in own["mixed"]] == [[0.5] * 6, [5], [0.5]]
        assert [value.dtype for value in own["mixed"]] == [torch.float32, torch.float32, torch.float64]
        assert own["total"].tolist() == [15, 15, 15]
        assert own["stop"] == [False, True, True]

        loss, gradient = triplet_gradient()
        torch.testing.assert_close(own["triplet"][0], loss)
        torch.testing.assert_close(own["triplet"][1], gradient)
        assert float(gradient.abs().max()) > 0.01

    alone = pretrain_a_little()
    for own in found:
        assert own["pretrained"].keys() == alone.keys()
        for name, value in alone.items():
            torch.testing.assert_close(own["pretrained"][name], value, rtol=1e-3, atol=1e-4, msg=partial(name_it, name))
    for name, value in found[0]["pretrained"].items():
        if "num_batches" not in name:
            assert torch.equal(value, found[1]["pretrained"][name]), name
    assert float(alone["losses"].std()) > 1e-3


@pytest.mark.slow
def test_an_error_in_one_process_is_the_same_error_here(tmp_path: Path) -> None:
    with pytest.raises(CorruptImageError) as caught:
        launch(fail_with_an_image, tmp_path, processes=2, kind="cpu")
    assert caught.value.message == "pack.h5: image 3 is damaged"
    assert caught.value.hint == "make it again: lupctl data pack --force"
    assert caught.value.exit_code == 3


@pytest.mark.slow
def test_a_killed_process_is_named(tmp_path: Path) -> None:
    with pytest.raises(LupError) as caught:
        launch(fail_by_signal, tmp_path, processes=2, kind="cpu")
    assert caught.value.message == "process 1 of 2 died (exit code -9); all were stopped"
    assert "type the same command again" in caught.value.hint
    assert caught.value.exit_code == 75, "resumable, and no bug of ours"


@pytest.mark.parametrize(
    ("batch", "groups", "processes", "message"),
    [(2560, 8, 3, "a batch of 2560 does not divide among 3 devices"), (64, 4, 8, "bn_groups = 4 does not divide")],
)
def test_splits_that_do_not_come_out_are_refused(batch: int, groups: int, processes: int, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_split(batch, groups, processes)


def test_a_group_of_several_devices_where_that_is_possible() -> None:
    for groups, processes in ((1, 2), (1, 8), (2, 4), (4, 2)):
        check_split(64, groups, processes, spanning=True)
    with pytest.raises(UsageError, match="every device needs whole groups, or a whole part of one") as caught:
        check_split(48, 2, 3, spanning=True)
    assert "devices or processes that fit this recipe: 1, 2, 4, 6, 8, 12, 16, 24, 48;" in caught.value.hint


def test_the_published_split_comes_out() -> None:
    for processes in (1, 2, 4, 8):
        check_split(2560, 8, processes)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_job_that_is_stopped_while_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals, code: int
) -> None:
    """No process has had the time to leave word of it."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    def start(config: object, entry: object) -> object:
        def run(*given: object) -> None:
            raise SignalException("asked to stop", number)

        return run

    monkeypatch.setattr("torch.distributed.launcher.api.elastic_launch", start)
    with pytest.raises(StoppedError, match="stopped on request") as met:
        launch(work_together, tmp_path, processes=2, kind="cpu")
    assert met.value.exit_code == code
