"""Downloading several datasets, and what is left for a person to do."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, LupError
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.stages.download.plan import Plan
    from lupctl.core.stages.download.run import DatasetResult
    from lupctl.core.stages.download.videos import VideosResult


def download_datasets(
    space: Workspace, plans: "Sequence[Plan]", *, jobs: int, force: bool, progress: Progress
) -> "tuple[list[DatasetResult], list[LupError]]":
    """Fetches what is missing, and says what comes next where the images are not among it.

    Args:
        space: the workspace.
        plans: what to do, one per folder.
        jobs: files at once.
        force: replaces what is there.
        progress: lines and bars.

    Returns:
        what was done, per dataset, and what went wrong; datasets that no program may fetch are among the latter.
    """
    from lupctl.core.stages.download.plan import has_images, plan_download
    from lupctl.core.stages.download.run import download

    for plan in plans:
        if plan.is_complete:
            progress.say(f"{plan.wanted.dataset}: {plan.wanted.folder} has all there is to download")
    results, errors = download(plans, raw=space.raw, jobs=jobs, force=force, progress=progress)
    for plan in plans:
        if plan.wanted.links.images and plan.missing and not errors and not has_images(plan.wanted):
            title = f"{plan.wanted.dataset}: its images are not among these files; next:"
            progress.say("\n".join([title, *number_steps(plan_download(plan.wanted).steps)]))
    by_hand: list[LupError] = [
        DataError(
            f"{plan.wanted.dataset}: no program may fetch it; the steps are on the output",
            hint=f"follow them, then: lupctl data download {plan.wanted.dataset} --accept-terms",
        )
        for plan in plans
        if plan.is_by_hand
    ]
    return results, [*errors, *by_hand]


def number_steps(steps: Sequence[str]) -> list[str]:
    """Lines of a list of things to do."""
    return [f"  {number}. {step}" for number, step in enumerate(steps, 1)]


def refuse_failed_videos(result: "VideosResult") -> None:
    """Ends a command whose videos did not all come.

    Raises:
        DataError: some failed, and may come another time.
    """
    if result.failed:
        some = "; ".join(result.reasons)
        raise DataError(
            f"{result.failed:,} of {result.listed:,} videos failed and may come another time: {some}",
            hint="type the same command again",
        )
