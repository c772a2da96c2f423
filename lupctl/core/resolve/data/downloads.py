"""The data that `lupctl data download` fetches."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.errors import DataError, LupError, UsageError
from lupctl.core.resolve.data.datasets import Target
from lupctl.core.resolve.data.layouts import Reading
from lupctl.core.resolve.data.sources import build_target_source
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.stages.download.plan import Plan, Wanted
    from lupctl.core.stages.download.videos import VideosPlan

# Datasets whose images are cut from the videos that `--list` names.
OF_VIDEOS = ("luperson", "luperson-nl")
# Listing more images than any benchmark has takes too long for a look at what is there.
MOST_COUNTED = 200_000


def find_downloads(
    space: Workspace, names: Sequence[str], *, url: str | None, sha256: str | None, videos: bool
) -> "list[Wanted]":
    """The datasets to download.

    Args:
        space: the workspace.
        names: what was typed.
        url: fetched as the only one of them.
        sha256: checksum of the file at `url`.
        videos: `--list` is given, for the videos of the only one.

    Raises:
        DataError: a dataset that was withdrawn.
        UsageError: options that do not go together, or a dataset that is not known.
    """
    if len(names) > 1 and (url or videos):
        raise UsageError(
            f"{'--url' if url else '--list'} goes with one dataset, {len(names)} were named", hint="name one dataset"
        )
    if sha256 and not url:
        raise UsageError("--sha256 goes with --url", hint="leave --sha256 out, or add --url")
    if videos and url:
        raise UsageError("--list and --url are two ways to download", hint="leave --url out")
    from lupctl.core.stages.download.plan import find_wanted

    return [find_wanted(space.raw, name, url=url or "", sha256=sha256 or "") for name in names]


def plan_downloads(wanted: "Sequence[Wanted]", *, force: bool) -> "list[Plan]":
    """The plan for each; two datasets that come in one archive are one download."""
    from lupctl.core.stages.download.plan import plan_download

    once = list({one.folder: one for one in reversed(wanted)}.values())[::-1]
    return [plan_download(one, force=force) for one in once]


def find_cuts(plans: "Sequence[Plan]") -> "list[DataError]":
    """An error for each dataset that is in the workspace in part only, placed there by hand.

    What lupctl downloaded is complete, since its bytes were checked.
    """
    return [
        DataError(
            f"{plan.wanted.dataset}: {plan.wanted.folder} is another version or a cut of it: {found}; nothing was "
            "downloaded",
            hint=f"mv {plan.wanted.folder} {plan.wanted.folder}-cut, then type the same command again",
        )
        for plan in plans
        if plan.is_complete and (found := _different_counts(plan.wanted))
    ]


def _different_counts(wanted: "Wanted") -> str:
    """The counts of images that differ from the published ones; empty if none does, or if that is unknown."""
    from lupctl.core.data.catalog.datasets import find_entry
    from lupctl.core.data.checking.labels import count_images
    from lupctl.core.stages.download.plan import has_images, read_own_origin

    entry = find_entry(wanted.dataset)
    if entry is None or sum(entry.images.values()) > MOST_COUNTED or not has_images(wanted):
        return ""
    if read_own_origin(wanted.folder).get("files"):
        return ""
    try:
        target = Target(wanted.dataset, wanted.folder, wanted.folder)
        samples = build_target_source(target, Reading(), progress=Progress(quiet=True)).list_images()
    except LupError:
        return ""  # packing it will say what is wrong with its names
    counts = {role: count["images"] for role, count in count_images(samples, entry).items() if role != "all"}
    return ", ".join(
        f"{role} {count.found:,} of {count.expected:,} images"
        for role, count in counts.items()
        if count.expected is not None and count.found != count.expected
    )


def plan_listed_videos(wanted: "Wanted", video_list: Path, *, retry_gone: bool, force: bool) -> "VideosPlan":
    """The plan for the videos of a list.

    Args:
        wanted: the dataset.
        video_list: as typed; looked for in the dataset's folder too.
        retry_gone: tries videos again that were gone.
        force: fetches everything again.

    Raises:
        UsageError: the dataset is not cut from videos.
        DataError: no such list, or a line that is not an entry.
    """
    from lupctl.core.stages.download.videos import find_list, plan_videos

    if wanted.dataset not in OF_VIDEOS:
        raise UsageError(
            f"--list: {wanted.dataset} is not cut from videos", hint=f"--list goes with {' and '.join(OF_VIDEOS)}"
        )
    return plan_videos(wanted, find_list(video_list, wanted.folder), retry_gone=retry_gone, force=force)
