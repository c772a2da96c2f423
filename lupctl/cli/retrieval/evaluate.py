"""`lupctl eval`: scores of a run or of features files."""

import sys
from typing import TYPE_CHECKING

from lupctl.cli.options import (
    DebugOption,
    DeviceOption,
    DryRunOption,
    ForceOption,
    GpusOption,
    HomeOption,
    JsonOption,
    OutOption,
    QuietOption,
)
from lupctl.cli.output import print_json, print_table
from lupctl.cli.retrieval.compare import compare_runs
from lupctl.cli.retrieval.everywhere import score_everywhere
from lupctl.cli.retrieval.options import (
    AllOption,
    AlphaOption,
    AqeOption,
    BaseOption,
    CompareOption,
    DbaOption,
    DrawsOption,
    ImagesOption,
    K1Option,
    K2Option,
    LambdaOption,
    MinMapOption,
    MinRank1Option,
    NeighboursOption,
    PageOption,
    PersonsOption,
    ProtocolOption,
    RerankOption,
    SameCameraOption,
    SeedOption,
    TargetsArgument,
    ThresholdOption,
    expansion_settings,
    parse_persons,
    parse_threshold,
    pick_protocol,
    refuse_with_all,
    rerank_settings,
)
from lupctl.cli.retrieval.tables import show_report
from lupctl.core.errors import GateError
from lupctl.core.flows.fresh_features import resolve_files
from lupctl.core.resolve.features import find_pictures
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.evaluate import EvaluationPlan

PLAN_SCHEMA = "lupctl.eval-plan/1"


def evaluate(
    targets: TargetsArgument = None,
    rerank: RerankOption = False,
    k1: K1Option = None,
    k2: K2Option = None,
    weight: LambdaOption = None,
    rerank_base: BaseOption = None,
    neighbours: NeighboursOption = None,
    protocol: ProtocolOption = "market1501",
    same_camera: SameCameraOption = None,
    draws: DrawsOption = None,
    seed: SeedOption = None,
    persons: PersonsOption = None,
    aqe: AqeOption = 0,
    dba: DbaOption = 0,
    alpha: AlphaOption = None,
    threshold: ThresholdOption = "eer",
    images: ImagesOption = None,
    page: PageOption = True,
    min_map: MinMapOption = None,
    min_rank1: MinRank1Option = None,
    device: DeviceOption = None,
    gpus: GpusOption = None,
    out: OutOption = None,
    home: HomeOption = None,
    compare: CompareOption = False,
    every: AllOption = False,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Scores a run or a features file: mAP by both rules, mINP, CMC, intervals; writes report.json and report.html.

    Examples:

    `lupctl eval --rerank`

    `lupctl eval finetune-market1501-r50-from-imagenet --min-map 0.85 --json`

    `lupctl eval other.features.h5 --same-camera keep --out report.json`

    `lupctl eval --compare baseline candidate`

    `lupctl eval --all baseline candidate`

    `lupctl eval viper.features.h5 --protocol single-shot --persons half`
    """
    if every:
        refuse_with_all(compare=compare, images=images, min_map=min_map, min_rank1=min_rank1)
    settings = rerank_settings(rerank, k1=k1, k2=k2, weight=weight, base=rerank_base, neighbours=neighbours)
    rule = pick_protocol(protocol, same_camera, draws=draws, seed=seed, persons=persons)
    tested = parse_persons(persons)
    expansion = expansion_settings(aqe, dba, alpha)
    wanted_fpr = parse_threshold(threshold)
    from lupctl.core.stages import evaluate as stage
    from lupctl.core.system.jobs.device import pick_devices

    progress = Progress(quiet=quiet)
    where = pick_devices(device, gpus)
    space = open_workspace(home)
    names = targets or []
    features = () if compare or every else resolve_files(space, names, where[0], progress)
    job = stage.EvaluationJob(
        features=features,
        out=out,
        rerank=settings,
        protocol=rule,
        shots=10 if draws is None else draws,
        seed=seed or 0,
        persons=tested,
        expansion=expansion,
        wanted_fpr=wanted_fpr,
        images=find_pictures(space, images, features[0]) if page and features else None,
        page=page,
        force=force,
        command=("lupctl", *sys.argv[1:]),
    )
    if compare:
        compare_runs(space, names, job, where, progress, dry_run=dry_run, json=json)
        return
    if every:
        score_everywhere(space, names, job, where, progress, dry_run=dry_run, json=json)
        return
    if dry_run:
        _show_plan(stage.plan_evaluation(job, progress), json=json)
        return
    report = stage.evaluate(job, where, progress)
    show_report(report, [job.report, job.html] if page else [job.report], json=json)
    rank1 = (report.single_shot or report.scores).cmc[1]
    check_gates(
        [
            ("mAP", report.scores.map, "--min-map", min_map),
            ("rank-1", rank1, "--min-rank1", min_rank1),
        ]
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
