"""`lupctl eval`: scores of a run or of features files."""

from collections.abc import Mapping
from dataclasses import replace
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
    ProcessesOption,
    QuietOption,
    SettingOption,
)
from lupctl.cli.output import print_json, print_table
from lupctl.cli.retrieval.compare import run_comparison
from lupctl.cli.retrieval.everywhere import run_everywhere
from lupctl.cli.retrieval.explain import explain_scores
from lupctl.cli.retrieval.options import (
    DEFAULT_THRESHOLD,
    AllOption,
    AlphaOption,
    AqeOption,
    AttentionOption,
    BaseOption,
    CamerasOption,
    CompareOption,
    DbaOption,
    DrawsOption,
    ExplainOption,
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
    PublishedOption,
    RerankOption,
    SameCameraOption,
    SeedOption,
    SweepOption,
    TargetsArgument,
    ThresholdOption,
    parse_persons,
    parse_threshold,
)
from lupctl.cli.retrieval.site import run_site, show_site_plan
from lupctl.cli.retrieval.sweep import sweep_values
from lupctl.cli.retrieval.tables import show_report
from lupctl.core.choices import SHOT_DRAWS, SHOT_SEED, CameraUse, Protocol, SameCamera
from lupctl.core.flows.evaluation import check_gates, fuller_report, plan_features, take_features
from lupctl.core.flows.sites import take_site
from lupctl.core.resolve.retrieval.attention import refuse_attention
from lupctl.core.resolve.retrieval.evaluation import (
    expansion_settings,
    pick_protocol,
    refuse_cameras,
    refuse_with_all,
    rerank_settings,
)
from lupctl.core.resolve.retrieval.explaining import refuse_with_explain
from lupctl.core.resolve.retrieval.published import refuse_published
from lupctl.core.resolve.retrieval.sweeps import refuse_with_sweep
from lupctl.core.system.command_line import recorded_command
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.stages.evaluate import EvaluationJob, EvaluationPlan
    from lupctl.core.stages.site import SitePlan

PLAN_SCHEMA = "lupctl.eval-plan/1"


def evaluate(
    targets: TargetsArgument = None,
    rerank: RerankOption = False,
    k1: K1Option = None,
    k2: K2Option = None,
    weight: LambdaOption = None,
    rerank_base: BaseOption = None,
    neighbours: NeighboursOption = None,
    protocol: ProtocolOption = None,
    same_camera: SameCameraOption = None,
    draws: DrawsOption = None,
    seed: SeedOption = None,
    persons: PersonsOption = None,
    aqe: AqeOption = 0,
    dba: DbaOption = 0,
    alpha: AlphaOption = None,
    threshold: ThresholdOption = DEFAULT_THRESHOLD,
    cameras: CamerasOption = None,
    sweep: SweepOption = None,
    set_: SettingOption = None,
    published: PublishedOption = None,
    explain: ExplainOption = False,
    images: ImagesOption = None,
    page: PageOption = True,
    attention: AttentionOption = False,
    min_map: MinMapOption = None,
    min_rank1: MinRank1Option = None,
    device: DeviceOption = None,
    gpus: GpusOption = None,
    processes: ProcessesOption = None,
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

    `lupctl eval finetune-market1501-r50-from-imagenet --min-map 0.85 --json`

    `lupctl eval --rerank`, `lupctl eval --compare baseline candidate`, `lupctl eval --sweep semantic_weight=0:1:0.1`
    """
    single = {"--compare": compare, "--images": images, "--min-map": min_map, "--min-rank1": min_rank1}
    alone = {"--all": every, "--attention": attention, "--threshold": threshold != DEFAULT_THRESHOLD, **single}
    named = {"--published": published, "--explain": explain}
    refuse_with_sweep(sweep, {**alone, **named}, {"--set": set_, "--processes": processes})
    refuse_with_explain(explain, {**alone, "--rerank": rerank, "--aqe": aqe, "--dba": dba, "--no-page": not page})
    _refuse_several(single, cameras=cameras, published=published, attention=attention, page=page, every=every)
    settings = rerank_settings(rerank, k1=k1, k2=k2, weight=weight, base=rerank_base, neighbours=neighbours)
    rule = _pick_rule(protocol, same_camera, draws=draws, seed=seed, persons=persons, threshold=threshold)
    from lupctl.core.system.jobs.device import pick_devices

    progress, space, names = Progress(quiet=quiet), open_workspace(home), targets or []
    rules = replace(rule, out=out, rerank=settings, expansion=expansion_settings(aqe, dba, alpha), page=page)
    rules = replace(rules, attention=attention, force=force, command=recorded_command())
    devices = pick_devices(device, gpus)
    if sweep is not None:
        texts, where = (sweep, set_ or []), (device, gpus, processes)
        sweep_values(space, names, texts, rules, where, progress, cameras=cameras, dry_run=dry_run, json=json)
    elif compare or every:
        run = run_comparison if compare else run_everywhere
        run(space, names, rules, devices, progress, dry_run=dry_run, json=json)
    elif explain:
        asked = (cameras, published)
        explain_scores(space, names, rules, devices, progress, asked=asked, dry_run=dry_run, json=json)
    elif dry_run:
        plan = plan_features(space, names, rules, progress, images=images, cameras=cameras, published=published)
        _show_plan(plan, json=json)
    else:
        job = take_features(
            space, names, rules, devices[0], progress, images=images, cameras=cameras, published=published
        )
        _score(job, devices, progress, {**single, "--published": published}, gates=(min_map, min_rank1), json=json)


def _refuse_several(
    single: Mapping[str, object],
    *,
    cameras: CameraUse | None,
    published: str | None,
    attention: bool,
    page: bool,
    every: bool,
) -> None:
    """Refuses what can be asked of one evaluation alone, where several runs or datasets are evaluated.

    Raises:
        UsageError: it was.
    """
    compare = bool(single["--compare"])
    refuse_with_all(every, single)
    refuse_cameras(cameras, compare=compare, every=every)
    refuse_published(published, compare=compare, every=every)
    refuse_attention(attention, page=page, compare=compare, every=every)


def _score(
    job: "EvaluationJob",
    devices: "list[torch.device]",
    progress: Progress,
    single: Mapping[str, object],
    *,
    gates: tuple[float | None, float | None],
    json: bool,
) -> None:
    """Scores features, or takes the report that is there, and prints it; of a site without queries its thresholds.

    Args:
        job: the evaluation.
        devices: where.
        progress: lines and bars.
        single: options for a single report, which mean nothing without queries.
        gates: mAP and rank-1 that are demanded.
        json: one JSON object instead of the table.

    Raises:
        GateError: a score is lower than demanded.
    """
    from lupctl.core.stages.evaluate import evaluate as score

    site = take_site(job, single)
    if site is not None:
        run_site(site, devices[0], json=json)
        return
    report = fuller_report(job, progress) or score(job, devices, progress)
    show_report(report, [job.report, job.html] if job.page else [job.report], json=json)
    check_gates(report, min_map=gates[0], min_rank1=gates[1])


def _pick_rule(
    protocol: Protocol | None,
    same_camera: SameCamera | None,
    *,
    draws: int | None,
    seed: int | None,
    persons: str | None,
    threshold: str,
) -> "EvaluationJob":
    """An evaluation of nothing yet, by the rule and the threshold that the options name.

    Raises:
        UsageError: they contradict each other, or name none.
    """
    rule = pick_protocol(protocol, same_camera, draws=draws, seed=seed, persons=persons)
    tested, wanted_fpr = parse_persons(persons), parse_threshold(threshold)
    from lupctl.core.stages.evaluate import EvaluationJob

    return EvaluationJob(
        features=(),
        protocol=rule,
        shots=SHOT_DRAWS if draws is None else draws,
        seed=SHOT_SEED if seed is None else seed,
        persons=tested,
        wanted_fpr=wanted_fpr,
    )


def _show_plan(plan: "EvaluationPlan | SitePlan", *, json: bool) -> None:
    from lupctl.core.stages.site import SitePlan

    if isinstance(plan, SitePlan):
        show_site_plan(plan, json=json)
        return
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
