"""`lupctl data download`: raw data, or the steps to get it by hand."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.cli.options import (
    DebugOption,
    DryRunOption,
    ForceOption,
    HomeOption,
    JsonOption,
    QuietOption,
    TimeoutOption,
)
from lupctl.cli.output import print_json, print_table
from lupctl.core.errors import DataError, raise_all
from lupctl.core.flows.downloads import download_datasets, number_steps, refuse_failed_videos
from lupctl.core.resolve.data.downloads import find_downloads, plan_downloads, plan_listed_videos
from lupctl.core.system.examples import name_some
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.download.plan import Plan, Wanted
    from lupctl.core.stages.download.run import DatasetResult
    from lupctl.core.stages.download.videos import VideosPlan, VideosResult

SCHEMA = "lupctl.download/1"
JOBS = 4

DatasetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="NAME", help="Datasets, as in lupctl data list.", autocompletion=complete_dataset),
]
AcceptOption = Annotated[
    bool, typer.Option("--accept-terms", help="You have read the printed terms of use, and will keep to them.")
]
ListOption = Annotated[
    Path | None,
    typer.Option(
        "--list", help="Download the videos of this list (LUPerson's vnames.txt) with yt-dlp.", show_default=False
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Download this file or archive as the dataset NAME: a mirror, or your own data.",
        show_default=False,
    ),
]
ShaOption = Annotated[
    str | None, typer.Option("--sha256", metavar="HEX", help="Checksum of the file at --url.", show_default=False)
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Files or videos at once.")]
RetryGoneOption = Annotated[bool, typer.Option("--retry-gone", help="With --list: try videos again that were gone.")]


def download(
    names: DatasetsArgument,
    accept_terms: AcceptOption = False,
    video_list: ListOption = None,
    url: UrlOption = None,
    sha256: ShaOption = None,
    jobs: JobsOption = JOBS,
    retry_gone: RetryGoneOption = False,
    timeout: TimeoutOption = None,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Downloads datasets into raw/, resumed, checked, unpacked; gives the steps and exits with 3 if only you can do it.

    Examples:

    `lupctl data download market1501 --accept-terms`

    `lupctl data download luperson --accept-terms` (the list of videos and the detections)

    `lupctl data download luperson --list vnames.txt --accept-terms --jobs 8` (the videos)

    `lupctl data download crops --url https://example.org/crops.zip --accept-terms`
    """
    space, progress = open_workspace(home), Progress(quiet=quiet)
    wanted = find_downloads(space, names, url=url, sha256=sha256, videos=video_list is not None)
    if not dry_run:
        _check_terms(wanted, accepted=accept_terms)
    if video_list is not None:
        plan = plan_listed_videos(wanted[0], video_list, retry_gone=retry_gone, force=force)
        if dry_run:
            _show_videos_plan(plan, json=json)
        else:
            from lupctl.core.stages.download.videos import fetch_videos
            from lupctl.core.system.fetch.transfer import Patience

            result = fetch_videos(plan, jobs=jobs, progress=progress, patience=Patience(whole_s=timeout))
            _show_videos(result, json=json)
            refuse_failed_videos(result)
        return
    plans = plan_downloads(wanted, force=force)
    if dry_run:
        _show_plans(plans, json=json)
        return
    results, errors = download_datasets(space, plans, jobs=jobs, force=force, timeout_s=timeout, progress=progress)
    _show_results(plans, results, json=json)
    raise_all(errors)


def _check_terms(wanted: "list[Wanted]", *, accepted: bool) -> None:
    if accepted:
        return
    for one in wanted:
        print(f"{one.dataset}: {one.terms}")
        if one.published:
            print(f"  published: {one.published}")
    raise DataError(
        "these are images of people: the terms of use above have to be accepted first",
        hint="read them, then add --accept-terms",
    )


def _show_plans(plans: "list[Plan]", *, json: bool) -> None:
    rows: list[dict[str, object]] = []
    for plan in plans:
        one = plan.wanted
        rows.append(
            {
                "dataset": one.dataset,
                "folder": one.folder,
                "state": "complete" if plan.is_complete else "by hand" if plan.is_by_hand else "would be downloaded",
                "missing": [{"name": file.name, "address": file.address, "what": file.what} for file in plan.missing],
                "archives": [path.name for path in plan.archives],
                "terms": one.terms,
                "steps": plan.steps if plan.is_by_hand else [],
            }
        )
    if json:
        print_json(SCHEMA, {"dry_run": True, "datasets": rows})
        return
    cells = [
        (
            row["dataset"],
            row["state"],
            ", ".join([f"{file.name or file.what} ({file.address})" for file in plan.missing]
                      + [f"{path.name} (is here, would be unpacked)" for path in plan.archives]) or None,
            row["folder"],
        )
        for row, plan in zip(rows, plans, strict=True)
    ]  # fmt: skip
    print_table("", ["dataset", "state", "files", "folder"], cells)
    _show_steps([plan for plan in plans if plan.is_by_hand])


def _show_results(plans: "list[Plan]", results: "list[DatasetResult]", *, json: bool) -> None:
    failed = {result.dataset for result in results if result.state == "failed"}
    by_hand = [plan for plan in plans if plan.is_by_hand or plan.wanted.dataset in failed]
    if json:
        steps = {plan.wanted.dataset: plan.steps for plan in by_hand}
        rows: list[dict[str, object]] = [
            {**asdict(result), "steps": steps.get(result.dataset, [])} for result in results
        ]
        rows += [
            {"dataset": plan.wanted.dataset, "folder": plan.wanted.folder, "state": "by hand", "steps": plan.steps}
            for plan in by_hand
            if plan.is_by_hand
        ]
        print_json(SCHEMA, {"dry_run": False, "datasets": rows})
        return
    cells = [
        (result.dataset, result.state, file.name, round(file.bytes / 2**20, 1), file.sha256, name_some(file.content))
        for result in results
        for file in result.files
    ]
    if cells:
        print_table("", ["dataset", "state", "file", "MiB", "sha256", "gave"], cells)
    _show_steps(by_hand)


def _show_steps(plans: "list[Plan]") -> None:
    for plan in plans:
        if plan.steps:
            print("\n".join([f"{plan.wanted.dataset}, by hand:", *number_steps(plan.steps)]))


def _show_videos_plan(plan: "VideosPlan", *, json: bool) -> None:
    left = len(plan.missing)
    counts = {"listed": plan.listed, "done": plan.done, "gone": plan.gone, "to_fetch": left, "folder": plan.folder}
    if json:
        print_json(SCHEMA, {"dry_run": True, "videos": counts})
    else:
        print_table("", ["what", "value"], list(counts.items()))


def _show_videos(result: "VideosResult", *, json: bool) -> None:
    if json:
        print_json(SCHEMA, {"dry_run": False, "videos": asdict(result)})
    else:
        rows = [
            ("listed", result.listed), ("done", result.done), ("gone", result.gone), ("failed", result.failed),
            ("fetched now", result.fetched), ("folder", result.folder), ("ledger", result.ledger),
        ]  # fmt: skip
        print_table("", ["what", "value"], rows)
