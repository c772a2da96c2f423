"""The whole flow on drawn persons, with the stages of the public commands."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import SYNTHETIC, TRAINING_SEED
from lupctl.core.flows.fresh_features import current_features
from lupctl.core.resolve.retrieval.features import Target
from lupctl.core.resolve.retrieval.lineage import find_lineage, find_tested
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CHECKPOINT_NAME, Workspace

if TYPE_CHECKING:
    from lupctl.core.data.sources.synthetic import SyntheticPlan
    from lupctl.core.ranking.reports.model.single import Report

PRETRAIN_RECIPE, FINETUNE_RECIPE = RECIPES = ("demo-moco", "demo-bot")
# Titles of the two reports: what the fine-tuning of each starts from.
FROM_SCRATCH, PRETRAINED = "scratch", "pre-trained"


@dataclass(frozen=True)
class Scale:
    """The size of the demo.

    Args:
        unlabelled_persons, scenes: for pre-training.
        train_persons: the small labelled share.
        test_persons: for evaluation.
        pretrain_epochs, finetune_epochs: of the two recipes; None keeps theirs.
    """

    unlabelled_persons: int
    scenes: int
    train_persons: int
    test_persons: int
    pretrain_epochs: int | None = None
    finetune_epochs: int | None = None


FULL = Scale(unlabelled_persons=2500, scenes=48, train_persons=16, test_persons=60)
QUICK = Scale(
    unlabelled_persons=400, scenes=16, train_persons=16, test_persons=30, pretrain_epochs=15, finetune_epochs=20
)


@dataclass(frozen=True)
class Gain:
    """A difference of two scores, as a fraction, and its 95 % interval by a paired bootstrap over the queries."""

    value: float
    ci95: tuple[float, float]


@dataclass(frozen=True)
class DemoResult:
    """The results of the demo.

    Args:
        reports: of fine-tuning from scratch and from the pre-trained network.
        page: the report of the latter, as a page to look at.
        seconds: how long the demo took.
    """

    reports: "dict[str, Report]"
    page: Path
    seconds: float

    @property
    def gain(self) -> "dict[str, Gain]":
        """What pre-training adds to mAP, re-ranked mAP and rank-1, with the intervals that `eval --compare` gives."""
        from lupctl.core.ranking.reports.build.comparison import pair_differences

        pair = [(title, self.reports[title]) for title in (PRETRAINED, FROM_SCRATCH)]
        found = {
            f"{one.measure}{'_rerank' if one.reranked else ''}": Gain(one.value, one.ci95)
            for one in pair_differences(pair[0], pair[1])
        }
        return {name: found[name] for name in ("map", "map_rerank", "rank1")}


@dataclass(frozen=True)
class _Demo:
    """The arguments that all steps of one demo share."""

    space: Workspace
    scale: Scale
    seed: int
    force: bool
    command: tuple[str, ...]
    progress: Progress

    @property
    def pack(self) -> Path:
        return self.space.packs / f"{SYNTHETIC}.h5"


def demo_home(*, quick: bool, seed: int) -> Path:
    """The demo's own workspace, if none is named."""
    return Path(f"lup-demo{'-quick' if quick else ''}{f'-seed{seed}' if seed != TRAINING_SEED else ''}")


def plan_demo(space: Workspace, scale: Scale, seed: int) -> dict[str, object]:
    """The plan of the demo; nothing is drawn."""
    from lupctl.core.data.sources.synthetic import SyntheticSource

    plan = _plan_persons(scale, seed)
    return {
        "home": str(space.home),
        "images": len(SyntheticSource(plan).list_images()),
        "unlabelled_persons": plan.unlabelled_persons,
        "train_persons": plan.train_persons,
        "test_persons": plan.test_persons,
        "recipes": list(RECIPES),
    }


def run_demo(
    space: Workspace, scale: Scale, seed: int, *, force: bool, command: tuple[str, ...], progress: Progress
) -> DemoResult:
    """Draws, pre-trains, fine-tunes twice with the same budget, and evaluates both; continues where it was stopped.

    Args:
        space: the demo's own workspace.
        scale: size of the demo.
        seed: of the drawn persons and of the training.
        force: starts again from the beginning.
        command: for the records.
        progress: lines and bars.

    Raises:
        StoppedError: a stop was requested.
    """
    started_at = time.perf_counter()
    demo = _Demo(space, scale, seed, force, command, progress)
    _pack_persons(demo)
    backbone = _pretrain(demo)
    reports = {}
    for title, start in ((FROM_SCRATCH, None), (PRETRAINED, backbone)):
        run = _finetune(demo, start)
        reports[title] = _score(demo, run)
    return DemoResult(reports, page=run / "report.html", seconds=time.perf_counter() - started_at)


def _plan_persons(scale: Scale, seed: int) -> "SyntheticPlan":
    from lupctl.core.data.sources.synthetic import SyntheticPlan

    return SyntheticPlan(
        seed=seed,
        unlabelled_persons=scale.unlabelled_persons,
        scenes=scale.scenes,
        train_persons=scale.train_persons,
        test_persons=scale.test_persons,
        distractors=scale.test_persons,
        junk=scale.test_persons // 2,
        height=64,
        width=32,
    )


def _pack_persons(demo: _Demo) -> None:
    """Draws the persons into a pack, unless they are already there."""
    from lupctl.core.data.sources.synthetic import SyntheticSource
    from lupctl.core.stages.pack import pack, plan_pack

    source = SyntheticSource(_plan_persons(demo.scale, demo.seed))
    demo.progress.say(f"[1/5] drawing persons into {demo.pack}")
    if demo.force or plan_pack(source, out=demo.pack).state != "current":
        pack(source, out=demo.pack, progress=demo.progress, force=demo.force, command=demo.command)


def _pretrain(demo: _Demo) -> Path:
    """Pre-trains on the unlabelled persons; returns the run's folder."""
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.shipped import resolve_recipe
    from lupctl.core.stages.pretrain.job import PretrainJob
    from lupctl.core.stages.pretrain.run import pretrain
    from lupctl.core.system.jobs.device import Placement

    flags = {"seed": demo.seed, "schedule.epochs": demo.scale.pretrain_epochs, "data.packs": [SYNTHETIC]}
    recipe = resolve_recipe("pretrain", PRETRAIN_RECIPE, flags=flags)
    assert isinstance(recipe, PretrainRecipe)
    run = demo.space.runs / "pretrain"
    demo.progress.say(f"[2/5] pre-training without labels into {run}")
    job = PretrainJob(
        recipe=recipe,
        packs=(demo.pack,),
        run=run,
        placement=Placement("cpu", 1, ""),
        workers=None,
        command=demo.command,
        force=demo.force,
        quiet=demo.progress.quiet,
    )
    pretrain(job, demo.progress)
    return run


def _finetune(demo: _Demo, backbone: Path | None) -> Path:
    """Fine-tunes on the few labelled persons, with the same budget from either start; returns the run's folder."""
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.recipes.shipped import resolve_recipe
    from lupctl.core.stages.finetune.job import FinetuneJob
    from lupctl.core.stages.finetune.run import finetune
    from lupctl.core.system.jobs.device import Placement

    start = "scratch" if backbone is None else backbone.name
    flags = {"seed": demo.seed, "schedule.epochs": demo.scale.finetune_epochs, "data.packs": [SYNTHETIC]}
    recipe = resolve_recipe("finetune", FINETUNE_RECIPE, flags={**flags, "start": start})
    assert isinstance(recipe, FinetuneRecipe)
    run = demo.space.runs / f"finetune-from-{start}"
    demo.progress.say(f"[{3 if backbone is None else 4}/5] fine-tuning from {start} into {run}")
    job = FinetuneJob(
        recipe=recipe,
        packs=(demo.pack,),
        start=None if backbone is None else backbone / CHECKPOINT_NAME,
        run=run,
        placement=Placement("cpu", 1, ""),
        workers=None,
        command=demo.command,
        force=demo.force,
        quiet=demo.progress.quiet,
    )
    finetune(job, demo.progress)
    return run


def _score(demo: _Demo, run: Path) -> "Report":
    """Dumps a run's features and evaluates them, re-ranked too."""
    import torch

    from lupctl.core.ranking.reranking.rerank import RerankSettings
    from lupctl.core.stages.evaluate import EvaluationJob, evaluate

    demo.progress.say(f"[5/5] evaluating {run}")
    device = torch.device("cpu")
    found = next(iter(sorted(run.glob("*.features.h5"))), None)
    target = Target(run=run, features=found)
    features = current_features(demo.space, target, device, demo.progress, command=demo.command)
    job = EvaluationJob(
        features=(features,),
        rerank=RerankSettings(),
        images=demo.pack,
        tested=find_tested(demo.space, (features,)),
        lineage=find_lineage(demo.space, features),
        force=demo.force,
        command=demo.command,
    )
    return evaluate(job, [device], demo.progress)
