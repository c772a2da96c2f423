"""`lupctl.load`: a network for Python programs, by the names that the command line knows."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import Interpolation
from lupctl.core.errors import DataError, UsageError
from lupctl.core.resolve.checkpoints import RUN_ALONE, pick_checkpoint
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import open_workspace

if TYPE_CHECKING:
    from lupctl.core.stages.embed.network import LoadedNetwork, Threshold
    from lupctl.core.stages.embed.opened import Opened

StrPath = str | os.PathLike[str]


def load(
    name: StrPath | None = None,
    *,
    device: str | None = None,
    report: StrPath | None = None,
    home: StrPath | None = None,
    pixels: str | tuple[int, int] | None = None,
    mean: str | Sequence[float] | None = None,
    std: str | Sequence[float] | None = None,
    interpolation: Interpolation | None = None,
) -> "LoadedNetwork":
    """A network that gives features of images, as `lupctl dump` computes them.

    What an ONNX file of another program does not say of its images is said by the last four arguments; other networks
    know it themselves.

    Args:
        name: a run or its folder, a checkpoint's file, published weights that were downloaded, or a file in ONNX or
            OpenVINO's format, of `lupctl model export` or of another program; None for the newest run, as on the
            command line.
        device: `cpu`, `cuda` or `cuda:1`; None for a GPU if there is one.
        report: of this network, whose threshold `same` uses; None for that of its run.
        home: the workspace; None for `$LUPCTL_HOME`, else `./lup`.
        pixels: height and width of images, `256x128`; None for that of the file.
        mean, std: `imagenet`, or three numbers for RGB in [0, 1]: subtracted, and divided by.
        interpolation: filter of the resize; None for bilinear.

    Raises:
        DataError: there is no such network, it is damaged, or the report is of another one.
        DeviceError: there is no such device.
        UsageError: an ONNX file does not say how its images are prepared, and nobody else does; or another network is
            told.
    """
    from lupctl.core.system.disk.limits import limit_pixels

    limit_pixels()  # before OpenCV is imported
    from lupctl.core.ranking.retrieval.onnx.open import parse_foreign
    from lupctl.core.stages.embed.network import LoadedNetwork
    from lupctl.core.stages.embed.opened import open_checkpoint, open_exported
    from lupctl.core.system.jobs.device import pick_device

    foreign = parse_foreign(pixels, mean, std, interpolation)
    if name is not None and Path(name).suffix in RUN_ALONE:
        if device not in (None, "cpu"):
            what = RUN_ALONE[Path(name).suffix]
            raise UsageError(
                f"{name}: {what} network, which is computed on the CPU, not on {device}", hint="leave device out"
            )
        opened = open_exported(Path(name), foreign)
    else:
        space = open_workspace(None if home is None else Path(home))
        path = pick_checkpoint(space, None if name is None else os.fspath(name), Progress())
        foreign.refuse(f"{path}: a checkpoint says how its images are prepared")
        opened = open_checkpoint(path, pick_device(device))
    find = partial(_find_threshold, opened, None if report is None else Path(report))
    if report is None:
        return LoadedNetwork(opened, find)
    found = find()  # what was named is checked at once
    return LoadedNetwork(opened, lambda: found)


def _find_threshold(opened: "Opened", report: Path | None) -> "Threshold":
    """The threshold of the report that was named, else of the run's own.

    Raises:
        DataError: there is no such report, it is of another network, or has no threshold.
    """
    from lupctl.core.resolve.retrieval.limits import find_limits
    from lupctl.core.stages.embed.galleries import check_settings
    from lupctl.core.stages.embed.network import Threshold

    found = find_limits(opened.path, report, Progress(quiet=True), own=opened.fingerprint)
    if found.limits is None:
        raise DataError(found.reason, hint=f"make a report: {found.command}; or load(…, report=FILE)")
    check_settings(found.record, found.limits.report)
    return Threshold(found.limits, found.record)
