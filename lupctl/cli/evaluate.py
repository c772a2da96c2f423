"""`lupctl eval`: scores of a run or of a features file."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_run
from lupctl.cli.dump import default_out, find_images
from lupctl.cli.options import (
    DebugOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
)
from lupctl.cli.resolve import find_checkpoint
from lupctl.cli.score_table import show_report
from lupctl.cli.show import print_json, print_table
from lupctl.core.choices import RerankBase, SameCamera
from lupctl.core.errors import DataError, GateError, UsageError
from lupctl.core.progress import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.metrics.rerank import RerankSettings
    from lupctl.core.stages.evaluate import EvaluationPlan

FEATURES_PATTERN = "*.features.h5"
PLAN_SCHEMA = "lupctl.eval-plan/1"

TargetArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[RUN|FEATURES]",
        help="A run's name or folder, or a features file [default: the newest fine-tuning run].",
        show_default=False,
        autocompletion=complete_run,
    ),
]
RerankOption = Annotated[bool, typer.Option("--rerank", help="Score once more after k-reciprocal re-ranking.")]
K1Option = Annotated[
    int | None, typer.Option("--k1", min=1, help="Neighbourhood of re-ranking [default: 20].", show_default=False)
]
K2Option = Annotated[
    int | None, typer.Option("--k2", min=1, help="Neighbours it averages over [default: 6].", show_default=False)
]
LambdaOption = Annotated[
    float | None,
    typer.Option("--lambda", min=0, max=1, help="Share of the original distance [default: 0.3].", show_default=False),
]
BaseOption = Annotated[
    RerankBase | None,
    typer.Option(
        "--rerank-base",
        help="Distance it starts from: d2 as published; d4, or (1 - cos)^2, as in LUPerson's tables [default: d2].",
        show_default=False,
    ),
]
SameCameraOption = Annotated[
    SameCamera,
    typer.Option(
        "--same-camera",
        help="Matches from the query's own camera: drop ignores them, as Market-1501 does; keep counts them as right.",
    ),
]
MinMapOption = Annotated[
    float | None,
    typer.Option(
        "--min-map", min=0, max=1, help="Exit with 4 when mAP without re-ranking is lower.", show_default=False
    ),
]
MinRank1Option = Annotated[
    float | None,
    typer.Option(
        "--min-rank1", min=0, max=1, help="Exit with 4 when rank-1 without re-ranking is lower.", show_default=False
    ),
]


@dataclass(frozen=True)
class Target:
    """What an argument of `eval` stands for.

    Args:
        run: the run's folder, where a run was meant.
        features: the features file; None for a run that has none yet.
    """

    run: Path | None
    features: Path | None


def evaluate(
    target: TargetArgument = None,
    rerank: RerankOption = False,
    k1: K1Option = None,
    k2: K2Option = None,
    weight: LambdaOption = None,
    rerank_base: BaseOption = None,
    same_camera: SameCameraOption = "drop",
    min_map: MinMapOption = None,
    min_rank1: MinRank1Option = None,
    device: DeviceOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Scores a run or a features file: mAP by both rules, mINP, CMC, intervals; writes report.json beside the features.

    Examples:

    `lupctl eval --rerank`

    `lupctl eval market1501-r50 --min-map 0.85 --json`

    `lupctl eval other.features.h5 --same-camera keep --out report.json`
    """
    settings = _rerank_settings(rerank, k1=k1, k2=k2, weight=weight, base=rerank_base)
    from lupctl.core.device import pick_device
    from lupctl.core.stages import evaluate as stage

    progress = Progress(quiet=quiet)
    where = pick_device(device)
    space = open_workspace(home)
    features = current_features(space, resolve_features(space, target, progress=progress), where, progress)
    if dry_run:
        plan = stage.plan_evaluation(features, out=out, rerank=settings, same_camera=same_camera)
        _show_plan(plan, json=json)
        return
    report = stage.evaluate(
        features,
        out=out,
        rerank=settings,
        same_camera=same_camera,
        device=where,
        command=["lupctl", *sys.argv[1:]],
        force=force,
        progress=progress,
    )
    show_report(report, stage.report_path(features, out), json=json)
    check_gates(
        [("mAP", report.scores.map, "--min-map", min_map), ("rank-1", report.scores.cmc[1], "--min-rank1", min_rank1)]
    )


def resolve_features(workspace: Workspace, target: str | None, *, progress: Progress) -> Target:
    """The features file a command means; says which run was taken when none was named.

    Args:
        workspace: where runs lie.
        target: a features file, a run's folder, a run's name, or None for the newest fine-tuning run.
        progress: takes the line that names the choice.

    Raises:
        DataError: nothing of that name, or no finished fine-tuning run.
        UsageError: the run holds features of several datasets.
    """
    if target is None:
        runs = workspace.finished_runs("finetune")
        if not runs:
            raise DataError(
                f"no finished fine-tuning run in {workspace.runs}", hint="make one: lupctl finetune market1501"
            )
        progress.say(f"run: {runs[0]} (the newest fine-tuning run)")
        return _target_of_run(runs[0])
    for path in (Path(target), workspace.runs / target):
        if path.is_file():
            return Target(run=None, features=path)
        if path.is_dir():
            return _target_of_run(path)
    raise DataError(
        f"{target}: neither a file, nor a folder, nor a run in {workspace.runs}",
        hint="lupctl eval without a name takes the newest fine-tuning run",
    )


def check_gates(gates: list[tuple[str, float, str, float | None]]) -> None:
    """Compares scores with what the user demanded.

    Args:
        gates: name of the score, its value, the option, and the least value the option names.

    Raises:
        GateError: one is lower; names every one that is.
    """
    missed = [
        f"{name} {score:.4f} is lower than the {least:g} that {option} demands"
        for name, score, option, least in gates
        if least is not None and score < least
    ]
    if missed:
        raise GateError("; ".join(missed), hint="train longer, or demand less")


def _target_of_run(run: Path) -> Target:
    found = sorted(run.glob(FEATURES_PATTERN))
    if len(found) > 1:
        raise UsageError(
            f"{run}: holds features of {len(found)} datasets ({', '.join(path.name for path in found)})",
            hint=f"name one: lupctl eval {found[0]}",
        )
    return Target(run=run, features=found[0] if found else None)


def current_features(space: Workspace, target: Target, device: "torch.device", progress: Progress) -> Path:
    """The features of a target; a run's are made when there are none, and made again when its network has changed."""
    if target.run is None:
        assert target.features is not None
        return target.features
    from lupctl.core.files import file_fingerprint
    from lupctl.core.formats.features import read_features_head
    from lupctl.core.stages.dump import DumpJob, dump

    checkpoint = find_checkpoint(space, str(target.run))
    features = target.features
    if features is not None:
        made_from = read_features_head(features).record["parents"].get("checkpoint")
        if made_from in (None, file_fingerprint(checkpoint)):
            return features
        progress.say(f"{features}: of an older network; made again")
    images = find_images(space, None, checkpoint)
    out = features or default_out(checkpoint, images)
    progress.say(f"features: {out} from {images}")
    job = DumpJob(checkpoint, images, out, force=features is not None, command=("lupctl", *sys.argv[1:]))
    return dump(job, device, progress).path


def _rerank_settings(
    wanted: bool, *, k1: int | None, k2: int | None, weight: float | None, base: RerankBase | None
) -> "RerankSettings | None":
    given = {"--k1": k1, "--k2": k2, "--lambda": weight, "--rerank-base": base}
    if not wanted:
        named = [option for option, value in given.items() if value is not None]
        if named:
            raise UsageError(f"{named[0]} has no meaning without --rerank", hint="add --rerank")
        return None
    from lupctl.core.metrics.rerank import RerankSettings

    default = RerankSettings()
    return RerankSettings(
        k1=default.k1 if k1 is None else k1,
        k2=default.k2 if k2 is None else k2,
        weight=default.weight if weight is None else weight,
        base=default.base if base is None else base,
    )


def _show_plan(plan: "EvaluationPlan", *, json: bool) -> None:
    rows: dict[str, object] = {
        "dataset": plan.dataset,
        "queries": plan.counts.queries,
        "queries_valid": plan.counts.valid,
        "gallery": plan.counts.gallery,
        "junk": plan.counts.junk,
        "distractors": plan.counts.distractors,
        "dimension": plan.dimension,
        "memory_bytes": plan.memory_bytes,
        "report": str(plan.report),
    }
    if json:
        print_json(PLAN_SCHEMA, rows)
        return
    shown = {**rows, "memory_bytes": f"at most {plan.memory_bytes / 2**20:,.0f} MiB"}
    print_table("would evaluate", ["what", "value"], [(key.replace("_bytes", ""), shown[key]) for key in shown])
