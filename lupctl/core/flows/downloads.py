"""Downloading several datasets, and the steps left to do by hand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, LupError
from lupctl.core.resolve.data.downloads import find_cuts
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.stages.download.plan import Plan
    from lupctl.core.stages.download.run import DatasetResult
    from lupctl.core.stages.download.videos import VideosResult


def download_datasets(
    space: Workspace,
    plans: "Sequence[Plan]",
    *,
    jobs: int,
    force: bool,
    timeout_s: float | None,
    progress: Progress,
) -> "tuple[list[DatasetResult], list[LupError]]":
    """Downloads what is missing, and reports the next steps if the images are not among it.

    Args:
        space: the workspace.
        plans: what to do, one per folder.
        jobs: files at once.
        force: replaces existing files.
        timeout_s: longest time for each file; None for one that grows with its size.
        progress: lines and bars.

    Returns:
        what was done, per dataset, and the errors; datasets to be downloaded by hand are among the latter.
    """
    from lupctl.core.stages.download.plan import has_images, plan_download
    from lupctl.core.stages.download.run import download
    from lupctl.core.system.fetch.transfer import Patience

    cuts = [] if force else find_cuts(plans)
    for plan in plans:
        if plan.is_complete and not any(cut.message.startswith(f"{plan.wanted.dataset}: ") for cut in cuts):
            progress.say(f"{plan.wanted.dataset}: everything to download is already in {plan.wanted.folder}")
    patience = Patience(whole_s=timeout_s)
    results, errors = download(plans, raw=space.raw, jobs=jobs, force=force, progress=progress, patience=patience)
    for plan in plans:
        if plan.wanted.links.images and plan.missing and not errors and not has_images(plan.wanted):
            title = f"{plan.wanted.dataset}: its images are not among these files; next:"
            for line in (title, *number_steps(plan_download(plan.wanted).steps)):
                progress.say(line)
    by_hand: list[LupError] = [
        DataError(
            f"{plan.wanted.dataset}: it has to be downloaded by hand; the steps are on stdout",
            hint=f"follow them, then: lupctl data download {plan.wanted.dataset} --accept-terms",
        )
        for plan in plans
        if plan.is_by_hand
    ]
    return results, [*errors, *by_hand, *cuts]


def number_steps(steps: Sequence[str]) -> list[str]:
    """The steps as numbered lines."""
    return [f"  {number}. {step}" for number, step in enumerate(steps, 1)]


def refuse_failed_videos(result: "VideosResult") -> None:
    """Ends a command in which videos failed.

    Raises:
        DataError: some failed, and may work another time.
    """
    if result.failed:
        some = "; ".join(result.reasons)
        raise DataError(
            f"{result.failed:,} of {result.listed:,} videos failed and may work another time: {some}",
            hint="type the same command again",
        )
