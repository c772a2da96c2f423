"""`lupctl data download`: raw data, or what a person has to do to get it."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lupctl.cli.complete import complete_dataset
from lupctl.cli.options import DebugOption, DryRunOption, ForceOption, HomeOption, JsonOption, QuietOption
from lupctl.cli.output import print_json, print_table
from lupctl.core.errors import DataError, LupError, UsageError
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace, open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.download.plan import Plan, Wanted
    from lupctl.core.stages.download.run import DatasetResult
    from lupctl.core.stages.download.videos import VideosResult

SCHEMA = "lupctl.download/1"
JOBS = 4
NUM_NAMES = 5

DatasetsArgument = Annotated[
    list[str],
    typer.Argument(metavar="NAME", help="Datasets; lupctl data list names them.", autocompletion=complete_dataset),
]
AcceptOption = Annotated[
    bool, typer.Option("--accept-terms", help="You have read the terms of use that are printed, and keep to them.")
]
ListOption = Annotated[
    Path | None,
    typer.Option(
        "--list", help="Fetch the videos of this list (LUPerson's vnames.txt) with yt-dlp.", show_default=False
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(
        "--url",
        help="Fetch this file or archive as the dataset NAME: a mirror, or data of your own.",
        show_default=False,
    ),
]
ShaOption = Annotated[
    str | None, typer.Option("--sha256", metavar="HEX", help="What --url has to have.", show_default=False)
]
JobsOption = Annotated[int, typer.Option("--jobs", min=1, max=64, help="Files or videos at once.")]
RetryGoneOption = Annotated[
    bool, typer.Option("--retry-gone", help="With --list: ask again for videos that were gone.")
]


def download(
    names: DatasetsArgument,
    accept_terms: AcceptOption = False,
    video_list: ListOption = None,
    url: UrlOption = None,
    sha256: ShaOption = None,
    jobs: JobsOption = JOBS,
    retry_gone: RetryGoneOption = False,
    home: HomeOption = None,
    force: ForceOption = False,
    dry_run: DryRunOption = False,
    json: JsonOption = False,
    quiet: QuietOption = False,
    debug: DebugOption = False,
) -> None:
    """Downloads datasets into raw/, resumed, checked and unpacked; where only a person can, says how and exits with 3.

    Examples:

    `lupctl data download market1501 --accept-terms`

    `lupctl data download luperson --accept-terms` (the list of videos and the detections)

    `lupctl data download luperson --list vnames.txt --accept-terms --jobs 8` (the videos)

    `lupctl data download crops --url https://example.org/crops.zip --accept-terms`
    """
    workspace = open_workspace(home)
    progress = Progress(quiet=quiet)
    if len(names) > 1 and (url or video_list):
        raise UsageError(
            f"{'--url' if url else '--list'} goes with one dataset, {len(names)} were named", hint="name one dataset"
        )
    if sha256 and not url:
        raise UsageError("--sha256 goes with --url", hint="add --url, or leave --sha256 out")
    if video_list and url:
        raise UsageError("--list and --url are two ways to download", hint="leave one out")
    from lupctl.core.stages.download.plan import find_wanted, plan_download

    wanted = [find_wanted(workspace.raw, name, url=url or "", sha256=sha256 or "") for name in names]
    if not dry_run:
        _check_terms(wanted, accepted=accept_terms)
    if video_list:
        _download_videos(
            wanted[0], video_list, jobs=jobs, retry_gone=retry_gone, force=force, dry_run=dry_run, json=json,
            progress=progress,
        )  # fmt: skip
        return
    plans = [plan_download(one, force=force) for one in _once(wanted)]
    if dry_run:
        _show_plans(plans, json=json)
        return
    _download_files(plans, workspace, jobs=jobs, force=force, json=json, progress=progress)


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


def _once(wanted: "list[Wanted]") -> "list[Wanted]":
    """Two datasets that come in one archive are one download."""
    return list({one.folder: one for one in reversed(wanted)}.values())[::-1]


def _download_files(
    plans: "list[Plan]", workspace: Workspace, *, jobs: int, force: bool, json: bool, progress: Progress
) -> None:
    from lupctl.core.stages.download.plan import has_images, plan_download
    from lupctl.core.stages.download.run import download as stage

    for plan in plans:
        if plan.is_complete:
            progress.say(f"{plan.wanted.dataset}: {plan.wanted.folder} has all there is to download")
    results, errors = stage(plans, raw=workspace.raw, jobs=jobs, force=force, progress=progress)
    _show_results(plans, results, json=json)
    for plan in plans:
        if plan.wanted.links.images and plan.missing and not errors and not has_images(plan.wanted):
            progress.say(
                "\n".join(
                    [
                        f"{plan.wanted.dataset}: its images are not among these files; next:",
                        *_list(plan_download(plan.wanted).steps),
                    ]
                )
            )
    for plan in plans:
        if plan.is_by_hand:
            errors.append(
                DataError(
                    f"{plan.wanted.dataset}: no program may fetch it; the steps are on the output",
                    hint=f"follow them, then: lupctl data download {plan.wanted.dataset} --accept-terms",
                )
            )
    _raise_all(errors)


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
                      + [f"{path.name} (is there, would be unpacked)" for path in plan.archives]) or None,
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
        (result.dataset, result.state, file.name, round(file.bytes / 2**20, 1), file.sha256, _some(file.content))
        for result in results
        for file in result.files
    ]
    if cells:
        print_table("", ["dataset", "state", "file", "MiB", "sha256", "gave"], cells)
    _show_steps(by_hand)


def _some(names: Sequence[str]) -> str:
    """The first few of names that may be as many as an archive has files."""
    more = len(names) - NUM_NAMES
    return ", ".join(names[:NUM_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def _show_steps(plans: "list[Plan]") -> None:
    for plan in plans:
        if plan.steps:
            print("\n".join([f"{plan.wanted.dataset}, by hand:", *_list(plan.steps)]))


def _list(steps: list[str]) -> list[str]:
    return [f"  {number}. {step}" for number, step in enumerate(steps, 1)]


def _download_videos(
    wanted: "Wanted",
    video_list: Path,
    *,
    jobs: int,
    retry_gone: bool,
    force: bool,
    dry_run: bool,
    json: bool,
    progress: Progress,
) -> None:
    from lupctl.core.stages.download import videos as stage

    if wanted.dataset not in ("luperson", "luperson-nl"):
        raise UsageError(
            f"--list: {wanted.dataset} is not made of videos", hint="--list goes with luperson and luperson-nl"
        )
    plan = stage.plan_videos(wanted, stage.find_list(video_list, wanted.folder), retry_gone=retry_gone, force=force)
    if dry_run:
        left = len(plan.missing)
        counts = {"listed": plan.listed, "done": plan.done, "gone": plan.gone, "to_fetch": left, "folder": plan.folder}
        if json:
            print_json(SCHEMA, {"dry_run": True, "videos": counts})
        else:
            print_table("", ["what", "value"], list(counts.items()))
        return
    _show_videos(stage.fetch_videos(plan, jobs=jobs, progress=progress), json=json)


def _show_videos(result: "VideosResult", *, json: bool) -> None:
    if json:
        print_json(SCHEMA, {"dry_run": False, "videos": asdict(result)})
    else:
        rows = [
            ("listed", result.listed), ("done", result.done), ("gone", result.gone), ("failed", result.failed),
            ("fetched now", result.fetched), ("folder", result.folder), ("ledger", result.ledger),
        ]  # fmt: skip
        print_table("", ["what", "value"], rows)
    if result.failed:
        some = "; ".join(result.reasons)
        raise DataError(
            f"{result.failed:,} of {result.listed:,} videos failed and may come another time: {some}",
            hint="type the same command again",
        )


def _raise_all(errors: list[LupError]) -> None:
    if len(errors) == 1:
        raise errors[0]
    if errors:
        messages = "\n  ".join(error.message for error in errors)
        raise type(errors[0])(f"{len(errors)} failures:\n  {messages}", hint=errors[0].hint)
