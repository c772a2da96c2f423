"""Watching the outputs and the features of a run, and what is done when they collapse."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from torch import Tensor

from lupctl.core.errors import DataError
from lupctl.core.recipes.dino_sections import DinoSettings
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.pretrain_sections import MethodSettings
from lupctl.core.system.jobs.messages import share_from_first
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.curves import Epochs
from lupctl.core.training.engine.log import LoopLog
from lupctl.core.training.methods.collapse import Collapse, CollapseKind, CollapseRule
from lupctl.core.training.methods.watching import SAMPLES, WATCHED, read_samples

# Rows before these have passed, or the first epoch, are those of a network that is still like a fresh one.
FEWEST_STEPS: Final = 50
SAID: Final[Mapping[CollapseKind, str]] = {
    "one point": "collapsed to one point: all images look the same to the network",
    "uniform": "collapsed to uniform outputs: the targets say the same of every image, which is nothing",
}
# What published recipes have, where a run went further.
USUAL_CENTRE, USUAL_TEMPERATURE, USUAL_CLIP = 0.9, 0.04, 3.0


class Watch:
    """What the watched steps of a run leave, and whether their rows look like a collapse.

    A collapse is never sudden: the rows before it is named look like it already. Where it ends the run, the state on
    the disk from before the first of them stays, and none is written over it unless a later row looks sound again.

    Args:
        recipe: says what to do about one.
        epochs: of the run.
        rows: of its metrics, from before it was continued; only those of process 0 count.
        start: steps done before.

    Attributes:
        saved: steps done in the state on the disk, or on its way there; 0 if there is none.
    """

    def __init__(
        self, recipe: PretrainRecipe, epochs: Epochs, *, rows: Sequence[Mapping[str, Any]], start: int
    ) -> None:
        settings = recipe.settings
        self._recipe, self._epochs = recipe, epochs
        self._outputs = settings.outputs if isinstance(settings, DinoSettings) else None
        self.saved = start
        self._samples: dict[str, Tensor] = {}
        self._is_fresh = False
        rule = CollapseRule(
            outputs=self._outputs,
            epoch=epochs.mean_length,
            start=max(epochs.mean_length, FEWEST_STEPS),
        )
        for row in rows:
            rule.follow(row)
        self._rule = share_from_first(rule)

    @property
    def stops(self) -> bool:
        """Whether a collapse ends the run."""
        return self._recipe.watch.collapse == "stop"

    @property
    def keeps_saved(self) -> bool:
        """Whether the state on the disk must stay: it is from before what looks like the start of a collapse."""
        return self.stops and self._rule.is_suspicious and self.saved > 0

    def is_saving_due(self, done: int) -> bool:
        """Whether a state is due; at the end of every epoch if a collapse has to find one that is not old."""
        every = self._recipe.saving.every_epochs
        return self._epochs.is_due(done, 1 if self.stops else every) and done < self._epochs.total

    def is_probing_due(self, done: int) -> bool:
        """Whether features are scored after a step."""
        return self._epochs.is_due(done, self._recipe.probe.every_epochs) or done == self._epochs.total

    def keep(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The scalars of what `learn` returned; the rest of it is kept until a row is written."""
        samples = {name: value for name, value in found.items() if name in SAMPLES}
        self._samples = samples or self._samples
        return {name: value for name, value in found.items() if name not in SAMPLES}

    def read(self) -> dict[str, float]:
        """What a row says of the last watched step after the row before, empty without one; all processes call it."""
        samples, self._samples = self._samples, {}
        self._is_fresh = bool(samples)
        return read_samples(samples, outputs=self._outputs)

    def find_error(self, done: int, log: LoopLog, *, progress: Progress) -> DataError | None:
        """Looks at the row just written, if there is one. The first time that a collapse is certain, it says so.

        Args:
            done: steps done.
            log: gets a row about it.
            progress: gets a line about it.

        Returns:
            what ends the run, in all processes, if a collapse does.
        """
        is_fresh, self._is_fresh = self._is_fresh, False
        if not is_fresh or self._recipe.watch.collapse == "off":
            return None
        found = self._rule.follow({"step": done, **log.values})
        if found is None:
            return None
        epoch = self._epochs.of(done - 1)
        log.write_row({"step": done, "epoch": epoch, "collapse": found.kind, "collapsed_since": found.since})
        hint = advise(found.kind, self._recipe)
        if not self.stops:
            progress.warn(f"{describe(found)}; start over with {hint}")
            return None
        good = f"the state from before it, after step {self.saved}, is in {log.folder.resume}"
        return DataError(
            f"{describe(found)}; {good if self.saved else 'no state was saved before it'}",
            hint=f"start over with {hint}",
        )


def describe(collapse: Collapse) -> str:
    """A collapse as a line for the user."""
    return f"{SAID[collapse.kind]}, from step {collapse.since} to {collapse.step}"


def sum_up(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `run.json` has of a run's metrics: what its last watched step showed, and the collapses, if any."""
    last: Mapping[str, Any] = next((row for row in reversed(rows) if "rank" in row), {})
    collapses = [
        {"kind": row["collapse"], "since": row["collapsed_since"], "step": row["step"]}
        for row in rows
        if "collapse" in row
    ]
    return {name: last[name] for name in WATCHED if name in last} | ({"collapses": collapses} if collapses else {})


def advise(kind: CollapseKind, recipe: PretrainRecipe) -> str:
    """What to change against a collapse, the likeliest cause first, with the options to add to the command."""
    settings: MethodSettings = recipe.settings
    if isinstance(settings, DinoSettings):
        if kind == "one point" and settings.centre_momentum > 0.99:
            return f"a centre that follows the outputs, as in --force --set dino.centre_momentum={USUAL_CENTRE}"
        if kind == "uniform" and settings.temperature > USUAL_TEMPERATURE:
            return f"sharper targets, as in --force --set dino.temperature={USUAL_TEMPERATURE}"
    if recipe.optim.clip == 0:
        return f"clipped gradients, as in --force --set optim.clip={USUAL_CLIP}"
    return f"a smaller rate or a longer warm-up, as in --force --lr {recipe.optim.lr / 10:.1g}"
