"""PNL on clusters with wrong labels: what it corrects is wrong, and what it makes of it is right."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.methods.pnl import Pnl, PnlRules
from lupctl.core.training.methods.protocol import Given, Now
from lupctl.core.training.nets.labelled import ClassBranch, LabelledNetwork
from lupctl.core.training.nets.networks import ContrastiveNetwork
from lupctl.core.training.nets.pooling import Average
from lupctl.core.training.nets.trunk import Maps, Trunk

PERSONS, IMAGES, BATCH, STEPS, EPOCHS = 10, 400, 50, 8, 30


class Flat(Trunk):
    """A trunk of one linear layer, which is trained in seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.num_features = 32
        self.linear = nn.Linear(24, 32)

    def forward(self, images: Tensor, cameras: Tensor | None = None) -> Maps:
        return Maps(torch.relu(self.linear(images.flatten(1)))[:, :, None, None], None)

    def all_blocks(self) -> list[nn.Module]:
        return []


def train(label: Tensor, truth: Tensor, images: Tensor, *, rules: PnlRules) -> Sequence[dict[str, float]]:
    """The scalars of every step."""
    torch.manual_seed(0)
    encoder = ContrastiveNetwork(Flat(), Average(), dim=16)
    network = LabelledNetwork(encoder, ClassBranch(32, hidden=32, classes=PERSONS))
    persons = torch.arange(PERSONS)
    method = Pnl(network, queue=200, classes=PERSONS, dim=16, rules=rules, seed=1, persons=persons)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    generator = torch.Generator().manual_seed(2)
    found = []
    for step in range(STEPS * EPOCHS):
        rows = torch.randperm(IMAGES, generator=generator)[:BATCH]
        weak, strong = (images[rows] + 0.3 * torch.randn(BATCH, 3, 4, 2, generator=generator) for _ in range(2))
        now = Now(step, step // STEPS, rate=0.0, decay=0.0, momentum=0.9, temperature=0.2)
        given = Given((weak, strong), keys=rows, label=label[rows], truth=truth[rows])
        scalars = method.learn(given, now, SharedGradients(network), precision=torch.float32)
        optimizer.step()
        optimizer.zero_grad()
        method.follow(now)
        found.append({name: value.item() for name, value in scalars.items()})
    return found


def test_wrong_labels_are_corrected_and_right_ones_are_not() -> None:
    """Three of ten labels are wrong; from epoch 10 on, most of them are trained on as if they were right."""
    generator = torch.Generator().manual_seed(3)
    truth = torch.arange(IMAGES) % PERSONS
    centres = torch.randn(PERSONS, 3, 4, 2, generator=generator)
    images = centres[truth] + 0.3 * torch.randn(IMAGES, 3, 4, 2, generator=generator)
    is_wrong = torch.rand(IMAGES, generator=generator) < 0.3
    other = (truth + torch.randint(1, PERSONS, (IMAGES,), generator=generator)) % PERSONS
    label = torch.where(is_wrong, other, truth)
    rules = PnlRules(
        alpha=0.5, threshold=0.6, prototype_momentum=0.9, prototype_epoch=1, correction_epoch=10, positives_epoch=15,
        contrast_weight=1.0, prototype_weight=1.0, positives="given", contrast="mean-of-logs",
    )  # fmt: skip
    found = train(label, truth, images, rules=rules)
    before, after = found[: 10 * STEPS], found[-5 * STEPS :]
    assert all(row["corrected"] == 0 and row["purity"] == row["purity_given"] for row in before)
    purity, given = (sum(row[name] for row in after) / len(after) for name in ("purity", "purity_given"))
    assert abs(given - 0.7) < 0.06
    assert purity > 0.95
    corrected = sum(row["corrected"] for row in after) / len(after)
    assert abs(corrected - (1 - given)) < 0.05, "the wrong ones, and no others"
    assert found[-1]["loss_class"] < found[10 * STEPS - 1]["loss_class"] - 0.3
