"""`lupctl demo`: the whole flow on drawn persons, by the stages of the public commands."""

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lupctl.cli.options import DebugOption, DryRunOption, ForceOption, JsonOption, OutOption, QuietOption
from lupctl.cli.output import print_json, print_plan, print_table
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.data.sources.synthetic import SyntheticPlan
    from lupctl.core.ranking.reports.model.single import Report

RECIPES = ("demo-moco", "demo-bot")
STARTS = {"scratch": "scratch", "pre-trained": "pretrain"}


@dataclass(frozen=True)
class Scale:
    """How much work the demo is.

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

QuickOption = Annotated[
    bool, typer.Option("--quick", help="The same flow, smaller: under a minute, scores mean little.")
]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of the drawn persons and of the training.")]


def demo(
    quick: QuickOption = False,
    seed: SeedOption = 1,
    out: OutOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Draws persons, pre-trains on them without labels, fine-tunes with and without that, and compares.

    Runs on a CPU. The same command continues where it was stopped.

    Example: `lupctl demo`
    """
    from lupctl.core.data.sources.synthetic import SyntheticPlan

    scale = QUICK if quick else FULL
    space = Workspace(out or Path(f"lup-demo{'-quick' if quick else ''}{f'-seed{seed}' if seed != 1 else ''}"))
    plan = SyntheticPlan(
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
    if dry_run:
        show_plan(space, plan, json=json)
        return
    started_at = time.perf_counter()
    progress = Progress(quiet=quiet)
    pack_persons(space, plan, force=force, progress=progress)
    backbone = pretrain_backbone(space, scale, seed, force=force, quiet=quiet, progress=progress)
    reports = {}
    for title, start in STARTS.items():
        origin = backbone if start == "pretrain" else None
        run = finetune_network(space, scale, seed, origin, force=force, quiet=quiet, progress=progress)
        reports[title] = score_run(space, run, force=force, progress=progress)
    show_result(space, reports, seconds=time.perf_counter() - started_at, json=json)


def pack_persons(space: Workspace, plan: "SyntheticPlan", *, force: bool, progress: Progress) -> None:
    """Draws the persons into a pack, unless the same ones lie there."""
    from lupctl.core.data.sources.synthetic import SyntheticSource
    from lupctl.core.stages.pack import pack, plan_pack

    source = SyntheticSource(plan)
    out = space.packs / "synthetic.h5"
    progress.say(f"[1/5] drawing persons into {out}")
    if force or plan_pack(source, out=out).state != "current":
        pack(source, out=out, progress=progress, force=force, command=command_line())


def pretrain_backbone(
    space: Workspace, scale: Scale, seed: int, *, force: bool, quiet: bool, progress: Progress
) -> Path:
    """Pre-trains on the unlabelled persons; returns the run's folder."""
    from lupctl.core.recipes.models import PretrainRecipe
    from lupctl.core.recipes.shipped import resolve_recipe
    from lupctl.core.stages.pretrain.job import PretrainJob
    from lupctl.core.stages.pretrain.run import pretrain
    from lupctl.core.system.jobs.device import Placement

    flags = {"seed": seed, "schedule.epochs": scale.pretrain_epochs, "data.packs": ["synthetic"]}
    recipe = resolve_recipe("pretrain", "demo-moco", flags=flags)
    assert isinstance(recipe, PretrainRecipe)
    run = space.runs / "pretrain"
    progress.say(f"[2/5] pre-training without labels into {run}")
    job = PretrainJob(
        recipe=recipe,
        packs=(space.pack_path("synthetic"),),
        run=run,
        placement=Placement("cpu", 1, ""),
        workers=None,
        command=command_line(),
        force=force,
        quiet=quiet,
    )
    pretrain(job, progress)
    return run


def finetune_network(
    space: Workspace, scale: Scale, seed: int, backbone: Path | None, *, force: bool, quiet: bool, progress: Progress
) -> Path:
    """Fine-tunes on the few labelled persons, with the same budget from either start; returns the run's folder."""
    from lupctl.core.recipes.models import FinetuneRecipe
    from lupctl.core.recipes.shipped import resolve_recipe
    from lupctl.core.stages.finetune.job import FinetuneJob
    from lupctl.core.stages.finetune.run import finetune
    from lupctl.core.system.jobs.device import Placement

    start = "scratch" if backbone is None else backbone.name
    flags = {"seed": seed, "schedule.epochs": scale.finetune_epochs, "data.packs": ["synthetic"], "start": start}
    recipe = resolve_recipe("finetune", "demo-bot", flags=flags)
    assert isinstance(recipe, FinetuneRecipe)
    run = space.runs / f"finetune-from-{start}"
    progress.say(f"[{3 if backbone is None else 4}/5] fine-tuning from {start} into {run}")
    job = FinetuneJob(
        recipe=recipe,
        packs=(space.pack_path("synthetic"),),
        start=None if backbone is None else backbone / "checkpoint.safetensors",
        run=run,
        placement=Placement("cpu", 1, ""),
        workers=None,
        command=command_line(),
        force=force,
        quiet=quiet,
    )
    finetune(job, progress)
    return run


def score_run(space: Workspace, run: Path, *, force: bool, progress: Progress) -> "Report":
    """Dumps a run's features and evaluates them, re-ranked too."""
    import torch

    from lupctl.core.flows.fresh_features import current_features
    from lupctl.core.ranking.reranking.rerank import RerankSettings
    from lupctl.core.resolve.features import Target
    from lupctl.core.stages.evaluate import EvaluationJob, evaluate

    progress.say(f"[5/5] evaluating {run}")
    device = torch.device("cpu")
    found = next(iter(sorted(run.glob("*.features.h5"))), None)
    features = current_features(space, Target(run=run, features=found), device, progress)
    job = EvaluationJob((features,), rerank=RerankSettings(), force=force, command=tuple(command_line()))
    return evaluate(job, [device], progress)


def show_result(space: Workspace, reports: dict[str, "Report"], *, seconds: float, json: bool) -> None:
    """Prints the one table at the end."""
    from lupctl.core.ranking.reports.model.single import report_payload

    plain = {title: report.scores for title, report in reports.items()}
    ranked = {title: report.rerank.scores for title, report in reports.items() if report.rerank is not None}
    gain = {"map": plain["pre-trained"].map - plain["scratch"].map}
    gain["map_rerank"] = ranked["pre-trained"].map - ranked["scratch"].map
    gain["rank1"] = plain["pre-trained"].cmc[1] - plain["scratch"].cmc[1]
    if json:
        payload: dict[str, Any] = {title: report_payload(report) for title, report in reports.items()}
        print_json("lupctl.demo/1", {"home": str(space.home), "seconds": seconds, "gain": gain, "reports": payload})
        return
    rows = []
    for title, report in reports.items():
        low, high = report.ci95.map
        for scores, name in ((plain[title], ""), (ranked[title], ", re-ranked")):
            cells = [scores.map, scores.map_official, scores.minp, scores.cmc[1], scores.cmc[5]]
            interval = "" if name else f"{100 * low:.1f} to {100 * high:.1f}"
            rows.append((f"fine-tuned from {title}{name}", *(f"{100 * cell:.2f}" for cell in cells), interval))
    chosen = next(iter(reports.values())).rerank
    assert chosen is not None
    first = f"Pre-training changed mAP by {100 * gain['map']:+.2f} points, rank-1 by {100 * gain['rank1']:+.2f},"
    note = f"{first} re-ranked mAP by {100 * gain['map_rerank']:+.2f}.\nRe-ranking: k1={chosen.k1}, k2={chosen.k2}, "
    note += f"lambda={chosen.weight}, base={chosen.base}, neighbours={chosen.neighbours}. {seconds:.0f} s in all.\n"
    note += f"Packs, runs, features and reports: {space.home}"
    columns = ["%", "mAP", "mAP official", "mINP", "rank-1", "rank-5", "mAP, 95 %"]
    print_table("Drawn persons, equal fine-tuning budgets", columns, rows, note=note)


def show_plan(space: Workspace, plan: "SyntheticPlan", *, json: bool) -> None:
    """Prints what the demo would do."""
    from lupctl.core.data.sources.synthetic import SyntheticSource

    counts = {"images": len(SyntheticSource(plan).list_images()), "unlabelled_persons": plan.unlabelled_persons}
    persons = {"train_persons": plan.train_persons, "test_persons": plan.test_persons}
    print_plan(
        "lupctl.demo-plan/1",
        "would run the demo",
        {"home": str(space.home), **counts, **persons, "recipes": list(RECIPES)},
        json=json,
    )


def command_line() -> tuple[str, ...]:
    """What was typed, for the records."""
    return ("lupctl", *sys.argv[1:])
