"""What the images of a fine-tuning run are taken to show, and the loss that follows from it."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.criterion import measure
from lupctl.core.stages.finetune.job import build_order
from lupctl.core.stages.finetune.setup import Setup, open_batches
from lupctl.core.stages.finetune.teacher import Teacher
from lupctl.core.training.loading.loaders import Batch
from lupctl.core.training.nets.build import Classifying


class Supervision(Protocol):
    """Batches and their loss."""

    def begin(self, step: int) -> None:
        """Comes before the first step of every epoch, and before that of a run that continues."""

    def take(self) -> Batch:
        """This process's share of the next batch."""

    def measure(self, pixels: Tensor, batch: Batch, forward: Callable[..., Any]) -> dict[str, Tensor]:
        """The scalars of a step, with `loss` among them.

        Args:
            pixels: (B, 3, H, W), the views of the batch.
            batch: that they are made from.
            forward: runs the network.
        """

    def follow(self) -> None:
        """Comes after the optimizer's step."""

    def state(self) -> dict[str, Any]:
        """What a run needs to continue here, besides network and optimizer."""

    def finish(self) -> dict[str, Any]:
        """Comes after the last step, in all processes; gives what belongs into the facts of the run."""

    def show(self, done: int) -> Path | None:
        """Writes a page of what was taken for labels in `done` steps, in process 0; None where there is none."""

    def close(self) -> None:
        """Ends the loading of batches."""


class PersonLabels:
    """The persons that the packs name.

    Args:
        setup: of this process.
        recipe: its order and losses.
        network: in training.
        start: the first step.
        teacher: that is learned from besides; None for none.
    """

    def __init__(
        self, setup: Setup, recipe: FinetuneRecipe, network: Classifying, *, start: int, teacher: Teacher | None = None
    ) -> None:
        self._recipe, self._network, self._precision, self._teacher = recipe, network, setup.precision, teacher
        self._label_of = torch.from_numpy(setup.train.label).to(setup.device)
        order = build_order(recipe, setup.train.label, setup.train.camera)
        self._batches = open_batches(setup, recipe, order, range(start, setup.epochs.total))

    def begin(self, step: int) -> None:
        """Nothing changes."""

    def take(self) -> Batch:
        """This process's share of the next batch."""
        return next(self._batches)

    def measure(self, pixels: Tensor, batch: Batch, forward: Callable[..., Any]) -> dict[str, Tensor]:
        """The losses of `criterion`, with that of the teacher if there is one."""
        target = self._label_of[batch.rows]
        return measure(
            self._recipe,
            self._network,
            pixels,
            target,
            self._precision,
            cameras=batch.cameras,
            taught=None if self._teacher is None else self._teacher.embed(pixels),
            forward=forward,
        )

    def follow(self) -> None:
        """Nothing follows."""

    def state(self) -> dict[str, Any]:
        """Nothing: everything is a function of the recipe and the step."""
        return {}

    def finish(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def show(self, done: int) -> None:
        """Nothing: they are the packs'."""

    def close(self) -> None:
        """Ends the loading of batches."""
        self._batches.close()
