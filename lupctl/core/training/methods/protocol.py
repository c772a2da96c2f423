"""The interface of a pre-training method: networks and a loss, independent of time, data and files."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from lupctl.core.training.engine.gradients import SharedGradients
from lupctl.core.training.engine.stopwatch import Clock
from lupctl.core.training.nets.networks import Embedding


@dataclass(frozen=True)
class Now:
    """Every scheduled number of one step, computed from the recipe.

    Args:
        step: counted from 0 at the start of the run.
        epoch: counted from 0.
        rate, decay: of the optimizer, before the scales of its groups.
        momentum: of the averaged network.
        temperature: of its targets.
        is_watched: whether `learn` also returns what `lupctl.core.training.methods.watching` says of the outputs.
    """

    step: int
    epoch: int
    rate: float
    decay: float
    momentum: float
    temperature: float
    is_watched: bool = False


@dataclass(frozen=True)
class Given:
    """This process's share of a step.

    Args:
        views: each (b, 3, H, W), in the order of the view plans; sizes may differ from view to view.
        keys: (b) int64, the keys of these images' random draws.
        label: (b) int64 classes 0..C-1, if the method uses labels.
        truth: (b) int64 true persons, if the data set knows them besides its noisy labels; for the log alone.
    """

    views: tuple[Tensor, ...]
    keys: Tensor
    label: Tensor | None = None
    truth: Tensor | None = None

    def part(self, some: slice) -> "Given":
        """Some of these images."""
        label, truth = (None if known is None else known[some] for known in (self.label, self.truth))
        return Given(tuple(view[some] for view in self.views), self.keys[some], label, truth)


class Method(Protocol):
    """A method; each is an `nn.Module` whose state is what a resumed run needs."""

    @property
    def student(self) -> nn.Module:
        """The network that takes the gradients; DistributedDataParallel wraps exactly this one."""

    @property
    def encoders(self) -> tuple[nn.Module, ...]:
        """All networks that run forward, the student first."""

    @property
    def trained(self) -> list[nn.Module]:
        """The modules that the optimizer updates, the student first."""

    @property
    def kept(self) -> Embedding:
        """The network that the checkpoint keeps and the probe evaluates."""

    def held(self, now: Now) -> list[nn.Parameter]:
        """Trained parameters that this step's update leaves as they are, as if they had no gradient."""

    def learn(
        self, given: Given, now: Now, gradients: SharedGradients, *, precision: torch.dtype, clock: Clock
    ) -> dict[str, Tensor]:
        """Targets, forward pass, loss, backward pass, and the method's own state; the optimizer's step is the caller's.

        If a batch is processed in parts, every part sees the state from before the step. Queues, centres and prototypes
        are updated once, at the end, from what was gathered in the order of the global batch.

        Args:
            given: this process's share.
            now: the numbers of this step.
            gradients: of the student; says how many parts there are.
            precision: type of the forward pass.
            clock: measures the parts of the step.

        Returns:
            scalars to log, including `loss`; and in a step that is watched, what `watching` makes of it.
        """

    def follow(self, now: Now) -> None:
        """Updates the averaged network; called after the optimizer's step."""

    def state_dict(self) -> dict[str, Any]:
        """As of `nn.Module`."""

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> Any:
        """As of `nn.Module`."""
