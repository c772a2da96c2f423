"""Whether filtering pays: a small pre-training on each of several shares of the best images, and a probe of each."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any, Final

from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.training.folders import choose_run
from lupctl.core.resolve.training.pretraining import resolve
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.stages.pretrain.job import PretrainJob
    from lupctl.core.system.jobs.device import Placement

# Keys that count epochs, of which a smaller share of the images needs more for the same number of steps.
WHOLE_EPOCHS: Final = (
    "schedule.epochs", "saving.every_epochs", "dino.frozen_epochs", "pnl.prototype_epoch", "pnl.correction_epoch",
    "pnl.positives_epoch",
)  # fmt: skip
PARTS_OF_EPOCHS: Final = (
    "schedule.warmup_epochs", "schedule.hold_epochs", "curves.decay.epochs", "curves.momentum.epochs",
    "curves.temperature.epochs",
)  # fmt: skip


@dataclass(frozen=True)
class CurveRequest:
    """What is to be tried.

    Args:
        pack: with its scores.
        scores: the file.
        shares: of the best images, each above 0 and up to 1.
        recipe: of pre-training, a shipped name or a TOML file.
        overrides: `--set` entries.
        probe: labelled pack that the features are looked at with.
        workers: decoding processes per device; None picks.
        force: starts runs over.
        quiet: no lines, no bars.
        command: the command line, for the record.
    """

    pack: Path
    scores: Path
    shares: tuple[float, ...]
    recipe: str
    overrides: tuple[str, ...]
    probe: Path
    workers: int | None = None
    force: bool = False
    quiet: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurvePoint:
    """What came out for one share.

    Args:
        share: of the images.
        images: so many.
        epochs: of its run.
        steps: of its run; about as many for every share.
        probe_map, probe_rank1, probe_knn: of the frozen features at the end.
        run: its folder.
    """

    share: float
    images: int
    epochs: int
    steps: int
    probe_map: float
    probe_rank1: float
    probe_knn: float
    run: Path


def parse_shares(text: str) -> tuple[float, ...]:
    """From `--curve` to shares, each once, the smallest first.

    >>> parse_shares("1,0.25,0.5")
    (0.25, 0.5, 1.0)

    Raises:
        UsageError: one is no number above 0 and up to 1.
    """
    shares = set()
    for word in text.split(","):
        try:
            share = float(word)
        except ValueError:
            share = 0.0
        if not 0 < share <= 1:
            raise UsageError(
                f"--curve {text}: {word.strip()!r} is no share above 0 and up to 1", hint="--curve 0.25,0.5,0.75,1"
            )
        shares.add(share)
    return tuple(sorted(shares))


def plan_curve(
    space: Workspace, request: CurveRequest, placement: "Placement", progress: Progress
) -> "list[tuple[float, PretrainJob]]":
    """The run for each share; nothing is trained.

    All runs have as many steps as the whole pack has with the recipe's own epochs, to less than an epoch: with as many
    epochs, a smaller share would be trained for fewer steps, and the curve would show that.

    Raises:
        DataError: there are no scores, or those of another pack.
        UsageError: an unknown key, a value that is not allowed, or a share that is too small for a batch.
    """
    from lupctl.core.stages.pretrain.job import PretrainJob, describe_setup, plan_pretraining

    if not request.scores.exists():
        raise DataError(
            f"{request.scores}: there are no scores of {request.pack} to try shares of",
            hint=f"lupctl data score {quote(str(request.pack))} --before RUN --after RUN",
        )

    def job_of(share: float, stretched: dict[str, Any]) -> "PretrainJob":
        recipe = resolve(request.recipe, {**_flags(request, share), **stretched}, list(request.overrides))
        return PretrainJob(
            recipe=recipe,
            packs=(request.pack,),
            run=space.runs / f"curve-{request.pack.stem}-{Path(request.recipe).stem}-{share:g}",
            placement=placement,
            workers=request.workers,
            command=request.command,
            probe=request.probe,
            force=request.force,
            quiet=request.quiet,
        )

    whole = job_of(1.0, {})
    steps = plan_pretraining(whole).steps_per_epoch
    assert steps is not None
    jobs = []
    for share in request.shares:
        own = plan_pretraining(job_of(share, {})).steps_per_epoch
        assert own is not None
        job = job_of(share, _stretch(whole.recipe, steps / own))
        run = choose_run(job.run, partial(describe_setup, job), force=job.force, progress=progress)
        jobs.append((share, replace(job, run=run)))
    return jobs


def run_curve(jobs: "Sequence[tuple[float, PretrainJob]]", progress: Progress) -> list[CurvePoint]:
    """Pre-trains what is not finished yet.

    Returns:
        a point for each share.

    Raises:
        DataError: packs are missing or damaged, or a loss is no longer finite.
        StoppedError: a request to stop; the same command continues.
    """
    from lupctl.core.stages.pretrain.run import pretrain

    points = []
    for share, job in jobs:
        progress.say(f"share {share:g}: {job.run}")
        facts = pretrain(job, progress)
        points.append(
            CurvePoint(
                share=share,
                images=int(facts["images"]),
                epochs=job.recipe.schedule.epochs,
                steps=int(facts["steps"]),
                probe_map=float(facts["probe_map"]),
                probe_rank1=float(facts["probe_rank1"]),
                probe_knn=float(facts["probe_knn"]),
                run=job.run,
            )
        )
    return points


def _flags(request: CurveRequest, share: float) -> dict[str, Any]:
    return {
        "data.batch": None,
        "data.packs": [str(request.pack)],
        "data.keep": share,
        "data.scores": str(request.scores),
        "probe.pack": str(request.probe),
    }


def _stretch(recipe: "PretrainRecipe", factor: float) -> dict[str, Any]:
    """The recipe keys that count epochs, each times a factor; a run is probed at its end alone."""
    from lupctl.core.recipes.text import recipe_tables

    tables = recipe_tables(recipe)
    flags: dict[str, Any] = {}
    for key in (*WHOLE_EPOCHS, *PARTS_OF_EPOCHS):
        *sections, name = key.split(".")
        table: Any = tables
        for section in sections:
            table = table.get(section) or {}
        value = table.get(name)
        if value:
            flags[key] = max(1, round(value * factor)) if key in WHOLE_EPOCHS else value * factor
    if recipe.schedule.milestones:
        flags["schedule.milestones"] = [round(epoch * factor) for epoch in recipe.schedule.milestones]
    return {**flags, "probe.every_epochs": flags["schedule.epochs"]}
