"""One step of momentum contrast against a slow one written from the published order of things."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.methods.moco import MoCo
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.nets.build import build_contrastive
from lupctl.core.training.nets.networks import ContrastiveNetwork
from lupctl.core.training.nets.resnet.norms import set_norm_groups
from tests.tools.networks import plan_network, projection

DIM, MOMENTUM, TEMPERATURE = 6, 0.9, 0.2


class Plain(nn.Module):
    """An encoder in which no image sees another."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * 4 * 2, DIM)

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.normalize(self.linear(images.flatten(1)), dim=1)


def build_plain(*, queue: int, seed: int = 3) -> MoCo:
    torch.manual_seed(1)
    encoder = Plain()
    return MoCo(encoder, dim=DIM, queue=queue, seed=seed)  # type: ignore[arg-type]


def build_small(*, queue: int, groups: int = 1) -> MoCo:
    torch.manual_seed(1)
    encoder: ContrastiveNetwork = build_contrastive(plan_network(projection(DIM)))
    method = MoCo(encoder, dim=DIM, queue=queue, seed=3)
    set_norm_groups(method, groups)
    # Batch norm over two or four images blows rounding up; in double precision the comparisons can be tight.
    method.student.double()
    method.teacher.double()
    return method.train()


def views(batch: int, *, seed: int, size: tuple[int, int] = (4, 2)) -> tuple[Tensor, Tensor]:
    """Two views of each image, in the encoder's precision: double for those that are large enough for a trunk."""
    generator = torch.Generator().manual_seed(seed)
    kind = torch.float32 if size == (4, 2) else torch.float64
    first, second = (torch.randn(batch, 3, *size, generator=generator, dtype=kind) for _ in range(2))
    return first, second


def disturb(network: nn.Module, seed: int) -> None:
    """Stands for an optimizer's step."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def take(method: MoCo, first: Tensor, second: Tensor, step: int) -> dict[str, Tensor]:
    """What comes between two steps of an optimizer: the teacher follows the last one, then a step is learnt."""
    now = Now(step, 0, rate=0.0, decay=0.0, momentum=MOMENTUM, temperature=TEMPERATURE)
    method.follow(now)
    method.student.zero_grad()
    given = Given((first, second), keys=torch.arange(len(first)))
    return method.learn(given, now, SharedGradients(method.student), precision=torch.float32)


class Watched:
    """What the key encoder was given, and so in which order."""

    def __init__(self, method: MoCo) -> None:
        self.images = torch.empty(0)
        method.teacher.register_forward_pre_hook(self._keep)

    def _keep(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self.images = inputs[0].clone()

    def order_of(self, second: Tensor) -> list[int]:
        """Entry i is the image that stood at place i."""
        return [int((second == image).flatten(1).all(1).nonzero().item()) for image in self.images]


class Reference:
    """The published step, one thing after the other."""

    def __init__(self, method: MoCo) -> None:
        self.teacher = copy.deepcopy(method.teacher)
        self.queue = method.queue.features.clone()
        self.pointer = 0

    def step(self, student: nn.Module, first: Tensor, second: Tensor, order: list[int]) -> tuple[float, float, Tensor]:
        query = student(first)
        with torch.no_grad():
            for theta_k, theta_q in zip(self.teacher.parameters(), student.parameters(), strict=True):
                theta_k.copy_(MOMENTUM * theta_k + (1 - MOMENTUM) * theta_q)
            shuffled = self.teacher(torch.stack([second[place] for place in order]))
            keys = torch.empty_like(shuffled)
            for place, image in enumerate(order):
                keys[image] = shuffled[place]
            loss, hits = 0.0, 0
            for q, k in zip(query, keys, strict=True):
                logits = torch.tensor([float(q @ k), *(float(q @ column) for column in self.queue.T)]) / TEMPERATURE
                loss -= float(logits.log_softmax(0)[0])
                hits += bool(logits[0] > logits[1:].max())
            for key in keys:  # one column at a time; the pointer may rest behind the last one
                if self.pointer == self.queue.shape[1]:
                    self.pointer = 0
                self.queue[:, self.pointer] = key
                self.pointer += 1
        return loss / len(first), hits / len(first), keys


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_steps_are_the_published_ones(groups: int) -> None:
    """Five steps with batch norm: 8 images into a queue of 20, so that it wraps twice."""
    method = build_small(queue=20, groups=groups)
    watched, reference = Watched(method), Reference(method)
    for step in range(5):
        disturb(method.student, step)
        first, second = views(8, seed=step, size=(32, 16))
        twin = copy.deepcopy(method.student)
        result = take(method, first, second, step)
        loss, hits, _ = reference.step(twin, first, second, watched.order_of(second))
        assert result["loss"].item() == pytest.approx(loss, rel=1e-5)
        assert result["hits"].item() == pytest.approx(hits)
        torch.testing.assert_close(method.queue.features, reference.queue, rtol=1e-5, atol=1e-6)
        assert int(method.queue.pointer) == reference.pointer
        for (name, own), expected in zip(
            method.teacher.state_dict().items(), reference.teacher.state_dict().values(), strict=True
        ):
            torch.testing.assert_close(own, expected, rtol=1e-8, atol=1e-10, msg=name)
    assert reference.pointer == 20  # 8, 16, 4, 12, 20


def test_keys_come_from_the_averaged_encoder_and_face_the_old_queue() -> None:
    """With a large learning rate, a key before the average and one after it are far apart."""
    method = build_plain(queue=10)
    disturb(method.student, 5)
    before, old_queue = copy.deepcopy(method.teacher), method.queue.features.clone()
    first, second = views(4, seed=1)
    result = take(method, first, second, 0)
    with torch.no_grad():
        weight = MOMENTUM * before.get_parameter("linear.weight") + (1 - MOMENTUM) * method.student.get_parameter(
            "linear.weight"
        )
        torch.testing.assert_close(method.teacher.get_parameter("linear.weight"), weight)
        keys = method.teacher(second)
        assert not torch.allclose(keys, before(second))
        torch.testing.assert_close(method.queue.features[:, :4], keys.T)
        logits = torch.cat([(method.student(first) * keys).sum(1)[:, None], method.student(first) @ old_queue], 1)
        expected = -(logits / TEMPERATURE).log_softmax(1)[:, 0].mean()
    assert torch.equal(method.queue.features[:, 4:], old_queue[:, 4:])
    assert result["loss"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_buffers_are_not_averaged() -> None:
    method = build_small(queue=8)
    for module in method.student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.fill_(1e6)
    take(method, *views(4, seed=2, size=(32, 16)), 0)
    for name, value in method.teacher.named_buffers():
        if name.endswith("running_mean"):
            assert float(value.abs().max()) < 100, name


def test_only_the_query_encoder_gets_a_gradient() -> None:
    method = build_plain(queue=8)
    first, second = views(4, seed=2)
    second.requires_grad_()
    take(method, first, second, 0)
    assert float(method.student.get_parameter("linear.weight").grad.abs().sum()) > 0
    assert method.teacher.get_parameter("linear.weight").grad is None
    assert second.grad is None
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())


@pytest.mark.parametrize("batch", [4, 5, 7, 12, 16])
def test_the_queue_wraps_where_the_batch_does_not_divide_it(batch: int) -> None:
    """12 columns; with 4 and 12 the pointer comes to rest behind the last, with 5 and 7 a batch is split."""
    method = build_plain(queue=12)
    expected, pointer, seen_end = method.queue.features.clone(), 0, False
    history: list[Tensor] = []
    for step in range(9):
        first, second = views(batch, seed=step)
        take(method, first, second, step)
        with torch.no_grad():
            keys = method.teacher(second)
        history.extend(keys)
        if batch <= 12:
            for key in keys:
                pointer = 0 if pointer == 12 else pointer
                expected[:, pointer] = key
                pointer += 1
            torch.testing.assert_close(method.queue.features, expected)
            assert int(method.queue.pointer) == pointer
            seen_end = seen_end or pointer == 12
        torch.testing.assert_close(method.queue.features.norm(dim=0), torch.ones(12))
        if len(history) >= 12:
            # The newest 12 keys, whatever their places: nothing lost, nothing twice.
            newest = torch.stack(history[-12:])
            nearest = (newest @ method.queue.features).argmax(dim=1)
            assert sorted(nearest.tolist()) == list(range(12))
            torch.testing.assert_close(method.queue.features.T[nearest], newest)
    assert seen_end == (batch in (4, 12))


def test_the_queue_begins_as_seeded_unit_columns() -> None:
    first, same, other = build_plain(queue=50), build_plain(queue=50), build_plain(queue=50, seed=4)
    torch.testing.assert_close(first.queue.features.norm(dim=0), torch.ones(50))
    assert torch.equal(first.queue.features, same.queue.features)
    assert not torch.equal(first.queue.features, other.queue.features)
    # Directions are spread evenly: the mean of 50 unit vectors has length about 1 / sqrt(50).
    assert float(first.queue.features.mean(1).norm()) < 0.4
    assert int(first.queue.pointer) == 0


def test_shuffling_gives_keys_back_in_the_images_order() -> None:
    method = build_plain(queue=16)
    watched = Watched(method)
    moved = 0
    for step in range(6):
        first, second = views(8, seed=step)
        take(method, first, second, step)
        order = watched.order_of(second)
        assert sorted(order) == list(range(8))
        moved += order != list(range(8))
        start = int(method.queue.pointer) - 8
        with torch.no_grad():
            torch.testing.assert_close(method.queue.features[:, start : start + 8], method.teacher(second).T)
    assert moved >= 5


def test_shuffling_separates_a_key_from_the_company_of_its_query() -> None:
    """With two groups, image i's query shares statistics with i mod 2; about half of the keys change group."""
    method = build_small(queue=16, groups=2)
    watched = Watched(method)
    changed, orders = 0, set()
    for step in range(10):
        _, second = views(16, seed=step, size=(32, 16))
        twin = copy.deepcopy(method.teacher)
        take(method, _, second, step)
        order = watched.order_of(second)
        orders.add(tuple(order))
        others = {image for place, image in enumerate(order) if place % 2 != image % 2}
        changed += len(others)
        # The queue holds the whole batch; keys whose group's company changed differ from the unshuffled ones.
        with torch.no_grad():
            for theta_k, theta_q in zip(twin.parameters(), method.student.parameters(), strict=True):
                theta_k.lerp_(theta_q, 1 - MOMENTUM)
            unshuffled = twin(second)
        assert not torch.allclose(method.queue.features.T, unshuffled, atol=1e-3)
    assert len(orders) == 10
    # 160 keys, each changing with probability 1/2: 5 standard deviations are 32.
    assert 48 < changed < 112


def test_the_permutation_is_a_function_of_seed_and_step() -> None:
    _, second = views(8, seed=0)
    orders: dict[Any, Any] = {}
    for seed in (3, 4):
        for step in (0, 1):
            for _ in range(2):
                method = build_plain(queue=16, seed=seed)
                watched = Watched(method)
                take(method, second, second, step)
                orders.setdefault((seed, step), set()).add(tuple(watched.order_of(second)))
    assert all(len(found) == 1 for found in orders.values())
    assert len(set().union(*orders.values())) == 4


def test_a_state_put_back_continues_the_same() -> None:
    method = build_small(queue=20, groups=2)
    for step in range(2):
        take(method, *views(8, seed=step, size=(32, 16)), step)
    copied = build_small(queue=20, groups=2)
    copied.load_state_dict(method.state_dict())
    for step in range(2, 4):
        batch = views(8, seed=step, size=(32, 16))
        left, right = take(method, *batch, step), take(copied, *batch, step)
        assert torch.equal(left["loss"], right["loss"])
    assert torch.equal(method.queue.features, copied.queue.features)
    assert torch.equal(method.queue.pointer, copied.queue.pointer)
