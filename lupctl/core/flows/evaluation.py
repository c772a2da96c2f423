"""One evaluation: the features it uses, and the scores it has to reach."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from lupctl.core.choices import ROLE_CODES, CameraUse
from lupctl.core.errors import DataError, GateError
from lupctl.core.flows.fresh_features import find_files, make_features
from lupctl.core.flows.sites import find_site, refuse_with_site
from lupctl.core.resolve.retrieval.attention import check_class_token, check_pictures, find_network
from lupctl.core.resolve.retrieval.features import find_images_of_features
from lupctl.core.resolve.retrieval.lineage import find_lineage, find_tested, lineage_of
from lupctl.core.resolve.retrieval.published import find_known_as
from lupctl.core.system.examples import count_things
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import CLUSTERS_NAME, Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.ranking.reports.model.single import Report
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.evaluate import EvaluationJob, EvaluationPlan
    from lupctl.core.stages.site import SitePlan


def take_features(
    space: Workspace,
    names: list[str],
    rules: "EvaluationJob",
    device: "torch.device",
    progress: Progress,
    *,
    images: str | None,
    cameras: CameraUse | None = None,
    published: str | None = None,
) -> "EvaluationJob":
    """The same evaluation with its features, made if a run has none, what they were made from, and its page's images.

    Args:
        space: where runs and packs are.
        names: a run, or features files of one network; none for the newest fine-tuning run.
        rules: how they are scored; its features, images and network are replaced.
        device: where missing features are computed.
        progress: lines and bars.
        images: the pack or folder with the images, as typed; None searches for it.
        cameras: the rule for the images' cameras, for a network that takes them; None takes features by any rule.
        published: the published network that it is, as the user says.

    Raises:
        DataError: a name matches nothing, no finished fine-tuning run, or the images named do not exist; or network or
            images for attention are not here.
        UsageError: several names that are not all files, a run with features of several datasets, features by another
            rule for cameras, a network without attention to show, or one that is not the published one.
    """
    from dataclasses import replace

    features, missing = find_files(
        space, names, progress, command=rules.command, elsewhere=_elsewhere(rules), cameras=cameras
    )
    check_queries(space, features, missing)
    if missing is not None:
        if rules.attention:
            check_class_token(missing.checkpoint)
        make_features(missing, device, progress)
    tested = find_tested(space, features)
    pictures: Path | None = None
    if rules.page:
        own = next((pack.path for pack in tested if pack.path is not None), None)
        pictures = own if images is None and own else find_images_of_features(space, images, features[0], progress)
    lineage = find_lineage(space, features[0])
    known_as = find_known_as(space, published, read_dataset(features), lineage)
    job = replace(rules, features=features, images=pictures, tested=tested, lineage=lineage, known_as=known_as)
    if not rules.attention:
        return job
    check_pictures(pictures, features[0])
    return replace(job, network=find_network(features[0], lineage))


def plan_features(
    space: Workspace,
    names: list[str],
    rules: "EvaluationJob",
    progress: Progress,
    *,
    images: str | None,
    cameras: CameraUse | None = None,
    published: str | None = None,
) -> "EvaluationPlan | SitePlan":
    """What an evaluation would rank; features that a run has not are counted from its pack, and nothing is written.

    Args:
        space, names, rules, progress, images, cameras, published: as `take_features` takes them.

    Raises:
        DataError, UsageError: as `take_features` and `plan_evaluation`, or `plan_site`.
    """
    from dataclasses import replace

    from lupctl.core.formats.features.foreign import read_any_head
    from lupctl.core.stages.dump.head import plan_head
    from lupctl.core.stages.evaluate import plan_evaluation
    from lupctl.core.stages.site import plan_site

    features, missing = find_files(
        space, names, progress, command=rules.command, elsewhere=_elsewhere(rules), cameras=cameras
    )
    check_queries(space, features, missing)
    if rules.page and images is not None:
        find_images_of_features(space, images, features[0], progress)
    job = replace(rules, features=features)
    if rules.attention and missing is not None:
        check_class_token(missing.checkpoint)
    elif rules.attention:
        find_network(features[0], find_lineage(space, features[0]))
    if missing is not None:
        progress.say(f"features: {missing.out} would be made from {missing.data}")
    if published is not None:
        lineage = find_lineage(space, features[0]) if missing is None else lineage_of(space, missing.checkpoint)
        dataset = read_dataset(features) if missing is None else str(plan_head(missing).record["dataset"])
        find_known_as(space, published, dataset, lineage)
    if len(features) == 1:
        head = read_any_head(features[0]) if missing is None else plan_head(missing)
        tested = [pack.path for pack in find_tested(space, features)] if missing is None else [missing.data]
        site = find_site(head.samples, tested)
        if site is not None:
            refuse_with_site(rules, site, {"--images": images})
            return plan_site(site, head, report=job.report)
        return plan_evaluation(job, progress, head=head)
    return plan_evaluation(job, progress)


def read_dataset(features: tuple[Path, ...]) -> str:
    """The name of the dataset that some features are of, as their report has it."""
    from lupctl.core.formats.features.foreign import read_any_record

    return " + ".join(dict.fromkeys(str(read_any_record(path).get("dataset", "unknown")) for path in features))


def check_queries(space: Workspace, features: tuple[Path, ...], missing: "DumpJob | None") -> None:
    """Refuses images without queries or tracklets where their run, on clusters, has a page that shows what can be seen.

    Args:
        space: the workspace.
        features: of the run.
        missing: the dump that makes them; None if they are there.

    Raises:
        DataError: there are none; names the page.
    """
    from lupctl.core.formats.features.foreign import read_any_head
    from lupctl.core.stages.dump.head import plan_head

    run = features[0].parent if missing is None else missing.checkpoint.parent
    page = run / CLUSTERS_NAME
    if not page.is_file():
        return
    samples = (read_any_head(features[0]) if missing is None else plan_head(missing)).samples
    packs = [pack.path for pack in find_tested(space, features)] if missing is None else [missing.data]
    if not (samples.role == ROLE_CODES["query"]).any() and find_site(samples, packs) is None:
        name, images = quote(run.name), count_things(len(samples), "image")
        raise DataError(
            f"{run}: no query among {images}, so the run cannot be scored on them; {page} shows its clusters",
            hint=f"lupctl search {name} PERSON.jpg finds a person there; on other test sets: lupctl eval --all {name}",
        )


def _elsewhere(rules: "EvaluationJob") -> Path | None:
    """The folder for features of a run that cannot be written to."""
    from lupctl.core.ranking.reports.model.single import report_path

    return None if rules.out is None else report_path(Path(), rules.out).parent


def fuller_report(job: "EvaluationJob", progress: Progress) -> "Report | None":
    """The report that is there, if it has all that a job without re-ranking would give, and re-ranked scores too.

    Users type `lupctl eval --rerank` and later `lupctl eval`, to see the scores again.
    """
    from lupctl.core.ranking.reports.build.published import beside_published
    from lupctl.core.ranking.reports.build.warnings import warned
    from lupctl.core.stages.evaluate import current_report

    if job.rerank is not None or job.force or job.attention or (job.page and not job.html.is_file()):
        return None
    old = current_report(job)
    if old is None or old.rerank is None or old.details is None:
        return None
    threshold = old.details.pairs.threshold
    if threshold is not None and threshold.wanted_fpr != job.wanted_fpr:
        return None
    progress.say(f"{job.report}: is there already, re-ranked too; shown as it is (--force scores again)")
    now = beside_published(warned(old, job.tested, job.lineage), job.known_as, job.tested)
    if now.warnings != old.warnings:
        progress.warn(
            f"{job.html}: its warnings are of earlier; those of today are below the table, and with --force in the page"
        )
    if now.published != old.published:
        progress.warn(f"{job.report}: what it says of published scores is of earlier; --force writes it again")
    return now


def check_gates(report: "Report", *, min_map: float | None, min_rank1: float | None) -> None:
    """Checks that scores without re-ranking reach what the user demanded.

    Raises:
        GateError: one or more are lower; all of them are named.
    """
    gates = (
        ("mAP", report.scores.map, "--min-map", min_map),
        ("rank-1", (report.single_shot or report.scores).cmc[1], "--min-rank1", min_rank1),
    )
    missed = [
        f"{name} {score:.4f} is lower than the {least:g} that {option} demands"
        for name, score, option, least in gates
        if least is not None and score < least
    ]
    if missed:
        raise GateError("; ".join(missed), hint="train longer, or demand less")
