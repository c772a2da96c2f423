"""Clusters instead of persons, found anew before each epoch (Dai et al. 2021, arXiv 2103.11568; TransReID-SSL)."""

from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.errors import DataError
from lupctl.core.ranking.clustering.density import NOISE
from lupctl.core.ranking.clustering.quality import agreement, purity
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.stages.finetune.job import build_order
from lupctl.core.stages.finetune.setup import Setup, open_batches
from lupctl.core.stages.finetune.unlabelled.finding import Found, dump_training_set, find
from lupctl.core.stages.finetune.unlabelled.history import History
from lupctl.core.stages.finetune.unlabelled.page import build_page, whom
from lupctl.core.stages.finetune.unlabelled.site import SiteWatch
from lupctl.core.system.disk.atomic import write_text
from lupctl.core.system.examples import count_things
from lupctl.core.system.jobs.messages import decide_first, gather_interleaved, rank
from lupctl.core.system.jobs.precision import autocast
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.curves import Epochs, even_epochs
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.loading.loaders import Batch
from lupctl.core.training.loading.samplers import StepOrder
from lupctl.core.training.loading.streams import number_positions
from lupctl.core.training.losses.cluster_memory import ClusterMemory, cluster_directions
from lupctl.core.training.nets.build import Classifying


class ClusterOrder:
    """The steps of one epoch on its clusters, among all steps of the run.

    Args:
        order: of the images in clusters.
        length: steps of an epoch.
        batch: images of a step.
    """

    def __init__(self, order: StepOrder, *, length: int, batch: int) -> None:
        self._order, self._length, self._batch = order, length, batch

    def epochs(self, count: int) -> Epochs:
        """All of one length."""
        return even_epochs(self._length, count)

    def epoch_of(self, step: int) -> int:
        """The epoch of a step."""
        return step // self._length

    def rows(self, step: int) -> NDArray[np.int64]:
        """(B) images of a step, counted among those in clusters."""
        return self._order.rows(step)

    def draw_keys(self, step: int) -> NDArray[np.int64]:
        """The positions in the epoch: an image that occurs twice is augmented differently."""
        return number_positions(step % self._length, self._batch)


class ClusterLabels:
    """The clusters of an epoch, and the memory that the loss compares features with.

    Args:
        setup: of this process; its persons are not looked at, but for a number that is shown.
        recipe: its clusters and order.
        network: in training; its feature after the neck is compared.
        kept: what `state` gave when the run stopped; empty for a new run.
        log: gets a row for each clustering.
        progress: gets a line for each.
    """

    def __init__(
        self,
        setup: Setup,
        recipe: FinetuneRecipe,
        network: Classifying,
        *,
        kept: Mapping[str, Any],
        log: LoopLog,
        progress: Progress,
    ) -> None:
        assert recipe.clusters is not None
        self._setup, self._recipe, self._network = setup, recipe, network
        self._settings, self._log, self._progress = recipe.clusters, log, progress
        self._label: NDArray[np.int64] | None = kept["label"].numpy() if kept else None
        self._memory: ClusterMemory | None = self._remember(kept["memory"]) if kept else None
        self._sureness: NDArray[np.float64] = kept["sureness"].numpy() if kept else np.empty(0)
        self._history = History(recipe.schedule.epochs, kept["history"] if kept else {})
        self._site = SiteWatch(setup, kept=kept, log=log, progress=progress)
        self._label_of = torch.empty(0)
        self._batches: Generator[Batch, None, None] | None = None
        self._seen: tuple[Tensor, Tensor] | None = None

    def begin(self, step: int) -> None:
        """Finds the clusters of an epoch, where it begins; opens the batches of what is left of it.

        Raises:
            DataError: there are too few clusters for a batch.
        """
        epochs = self._setup.epochs
        epoch = epochs.of(step)
        if step == epochs.begins[epoch]:
            before = self._label
            features, damaged = dump_training_set(self._network, self._recipe, self._setup, is_start=step == 0)
            self._log.note_damage(tuple(damaged.values()))
            if step == 0:
                self._site.begin(features, damaged)
            found, directions = self._find_first(features, damaged, epoch=epoch)
            self._label, self._memory = found.label, self._remember(directions)
            self._sureness = found.sureness
            self._history.add(epoch, found.label)
            self._say(found, before, step=step, epoch=epoch)
        assert self._label is not None
        inside = np.flatnonzero(self._label != NOISE)
        own_label = self._label[inside]
        self._label_of = torch.from_numpy(own_label).to(self._setup.device)
        order = build_order(self._recipe, own_label, self._setup.train.camera[inside])
        batch = self._recipe.data.persons * self._recipe.data.images
        own = ClusterOrder(order, length=self._settings.steps, batch=batch)
        self.close()
        steps = range(step, epochs.begins[epoch + 1])
        self._batches = open_batches(self._setup, self._recipe, own, steps, among=inside)

    def take(self) -> Batch:
        """This process's share of the next batch."""
        assert self._batches is not None
        return next(self._batches)

    def measure(self, pixels: Tensor, batch: Batch, forward: Callable[..., Any]) -> dict[str, Tensor]:
        """The loss of a step, and the share of its images that are nearest to their own cluster."""
        assert self._memory is not None
        given = () if batch.cameras is None else (batch.cameras,)
        with autocast(pixels.device, self._setup.precision):
            after = forward(pixels, *given)[1]
        features, target = F.normalize(after.float(), dim=1), self._label_of[batch.rows]
        self._seen = features.detach(), target
        nearest = self._memory.nearest(features.detach())
        return {"loss": self._memory(features, target), "accuracy": (nearest == target).float().mean()}

    def follow(self) -> None:
        """Moves the memory towards the features of the step, those of all processes."""
        assert self._memory is not None
        assert self._seen is not None
        features, target = self._seen
        self._memory.follow(gather_interleaved(features), gather_interleaved(target))

    def state(self) -> dict[str, Any]:
        """The clusters of the epoch, and the memory; and what the network was like before training."""
        assert self._label is not None
        assert self._memory is not None
        return {
            "label": torch.from_numpy(self._label),
            "memory": self._memory.memory,
            "sureness": torch.from_numpy(self._sureness),
            "history": self._history.state(),
            **self._site.state(),
        }

    def show(self, done: int) -> Path:
        """Writes the page of the clusters so far."""
        assert self._label is not None
        labels = self._history.labels() | {self._setup.epochs.of(done - 1): self._label}
        path = self._log.folder.clusters
        page = build_page(self._setup, self._recipe, path.parent, labels=labels, sureness=self._sureness)
        write_text(path, page)
        return path

    def finish(self) -> dict[str, Any]:
        """Scores on the tracklets of the training images, where there are any."""
        return self._site.finish(lambda: dump_training_set(self._network, self._recipe, self._setup))

    def close(self) -> None:
        """Ends the loading of batches."""
        if self._batches is not None:
            self._batches.close()

    def _find_first(self, features: Tensor, damaged: Collection[int], *, epoch: int) -> tuple[Found, Tensor]:
        """The clusters that process 0 finds, in all of them. Where it finds too few, a run that had enough shows them.

        Raises:
            DataError: there are too few clusters for a batch.
        """
        try:
            return decide_first(lambda: self._find(features, damaged))
        except DataError as error:
            if epoch == 0:
                raise
            path = self._log.folder.clusters
            if rank() == 0:
                self.show(self._setup.epochs.begins[epoch])
            raise DataError(
                f"epoch {epoch + 1}: {error.message}; {path} shows the clusters until then", hint=error.hint
            ) from error

    def _find(self, features: Tensor, damaged: Collection[int]) -> tuple[Found, Tensor]:
        """The clusters of unit features, and their directions, whose means need several times the features' memory.

        A damaged image is in no cluster, and does not count.
        """
        sound = np.setdiff1d(np.arange(len(features)), sorted(damaged))
        some = features[torch.from_numpy(sound)] if damaged else features
        found = find(some, self._setup.train.camera[sound], self._recipe, self._setup.device)
        directions = cluster_directions(some, torch.from_numpy(found.label), count=found.quality.clusters)
        label = np.full(len(features), NOISE)
        label[sound] = found.label
        return replace(found, label=label), directions

    def _remember(self, directions: Tensor) -> ClusterMemory:
        one = self._settings
        memory = ClusterMemory(
            directions,
            momentum=one.momentum,
            temperature=one.temperature,
            update=one.update,
            images=self._recipe.data.images,
        )
        return memory.to(self._setup.device)

    def _say(self, found: Found, before: NDArray[np.int64] | None, *, step: int, epoch: int) -> None:
        """Writes and prints what is seen of an epoch's clusters; purity is for showing and used nowhere."""
        quality = found.quality
        row = {name: value for name, value in asdict(quality).items() if value == value}
        if before is not None:
            row["stability"] = agreement(found.label, before)
        person = whom(self._setup)
        if (person >= 0).any():
            row["purity"] = purity(found.label, person)
        # The first step on them, counted from 1: a run that continues before it drops this row, and writes it again.
        self._log.write_row({"step": step + 1, "epoch": epoch, **row})
        line = f"epoch {epoch + 1}: {count_things(quality.clusters, 'cluster')}, median {quality.median_size:g} images"
        line += f", noise {quality.noise:.1%}"
        line += f", silhouette {row['silhouette']:.3f}" if "silhouette" in row else ""
        line += f", {quality.cameras:.1f} cameras each" if "cameras" in row else ""
        line += f", stability {row['stability']:.3f}" if before is not None else ""
        line += f"; purity {row['purity']:.1%} (by labels that training does not see)" if "purity" in row else ""
        self._progress.say(line)
