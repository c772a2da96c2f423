"""The known causes of other scores, as changes of one evaluation."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any, get_args

from lupctl.core.choices import CameraUse, Interpolation, PositionResize, Precision
from lupctl.core.errors import DataError
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    from lupctl.core.data.catalog.published import PublishedWeights
    from lupctl.core.data.catalog.testing import Testing
    from lupctl.core.formats.weights.header import Preprocessing
    from lupctl.core.formats.weights.settings import Settings
    from lupctl.core.ranking.reports.model.explanation import Cause, NotTried
    from lupctl.core.stages.dump.job import DumpJob

MSMT17 = "msmt17"
FLIPPED = {True: "with mirrored images", False: "without mirrored images"}


@dataclass(frozen=True)
class Change:
    """One thing that is changed about some features.

    Args:
        cause: what.
        ours, tried: from what, and to what, in words.
        is_published: whether that is the published way.
        settings: what is set of the network.
        flip, cameras, precision: of the dump; None leaves them.
        pack: other images; None leaves them.
        is_euclidean: whether the same features are ranked by their Euclidean distances.
    """

    cause: "Cause"
    ours: str
    tried: str
    is_published: bool
    settings: "Settings | None" = None
    flip: bool | None = None
    cameras: CameraUse | None = None
    precision: Precision | None = None
    pack: Path | None = None
    is_euclidean: bool = False

    @property
    def needs_dump(self) -> bool:
        """Whether the network has to run again."""
        return any(one is not None for one in (self.settings, self.flip, self.cameras, self.precision, self.pack))

    def apply(self, job: "DumpJob") -> "DumpJob":
        """The dump with this change."""
        from lupctl.core.formats.weights.settings import Settings

        asked = self.settings or Settings()
        foreign, settings = job.foreign, job.settings | asked
        if job.is_onnx:  # its images are prepared as it is told
            foreign = replace(
                foreign,
                size=asked.size or foreign.size,
                interpolation=asked.interpolation or foreign.interpolation,
            )
            settings = job.settings
        return replace(
            job,
            foreign=foreign,
            settings=settings,
            flip=job.flip if self.flip is None else self.flip,
            cameras=self.cameras or job.cameras,
            precision=self.precision or job.precision,
            data=self.pack or job.data,
        )


def list_changes(
    space: Workspace,
    record: Mapping[str, Any],
    pixels: "Preprocessing",
    job: "DumpJob",
    weights: "PublishedWeights | None",
) -> "tuple[list[Change], list[NotTried]]":
    """What can be changed about some features, one thing at a time; and what cannot, and why.

    Args:
        space: where another version of the data set may be.
        record: of the features.
        pixels: how their images were prepared.
        job: the dump that made them.
        weights: the published network that it is, if it is one.
    """
    from lupctl.core.data.catalog.testing import UNKNOWN_TESTING
    from lupctl.core.ranking.reports.model.explanation import NotTried

    testing = UNKNOWN_TESTING if weights is None else weights.testing
    changes = [
        *_sizes(pixels, weights),
        *_filters(pixels, testing.interpolation),
        _mirrored(job.flip, testing.flip),
        *_cameras(record, testing.cameras),
        *_exact(job),
        *_settings(record, pixels, testing),
    ]
    kept, left = list[Change](), list[NotTried]()
    for change in changes:
        reason = _find_obstacle(change, job)
        if reason is None:
            kept.append(change)
        else:
            left.append(NotTried(cause=change.cause, reason=reason))
    if testing.distance in (None, "euclidean"):
        tried = "Euclidean, of features as they come"
        kept.append(Change("distance", "cosine", tried, testing.distance == "euclidean", is_euclidean=True))
    version = _other_version(space, record, testing.msmt17)
    kept += [version] if isinstance(version, Change) else []
    left += [version] if isinstance(version, NotTried) else []
    return [*kept, *_all_at_once(kept)], left


def _sizes(pixels: "Preprocessing", weights: "PublishedWeights | None") -> Iterator[Change]:
    from lupctl.core.formats.weights.settings import Settings

    own, wanted = (pixels.height, pixels.width), None if weights is None else weights.tested_size
    if wanted is not None and own != wanted:
        shown = [f"{height} x {width}" for height, width in (own, wanted)]
        yield Change("size", shown[0], shown[1], True, Settings(size=wanted))


def _filters(pixels: "Preprocessing", published: Interpolation | None) -> Iterator[Change]:
    from lupctl.core.formats.weights.settings import Settings

    for other in get_args(Interpolation):
        if other != pixels.interpolation:
            yield Change("filter", pixels.interpolation, other, other == published, Settings(interpolation=other))


def _mirrored(own: bool, published: bool | None) -> Change:
    return Change("flip", FLIPPED[own], FLIPPED[not own], published is (not own), flip=not own)


def _cameras(record: Mapping[str, Any], published: bool | None) -> Iterator[Change]:
    """Without the rows of cameras, or with them."""
    from lupctl.core.formats.features.cameras import read_counts

    counts = read_counts(record)
    if counts is None:
        return
    if counts.rule == "none":
        yield Change("cameras", "none", "mean", published is True, cameras="mean")
    else:
        yield Change("cameras", counts.rule, "none", published is False, cameras="none")


def _exact(job: "DumpJob") -> Iterator[Change]:
    """In float32, where features were computed in bf16; what the projects computed in is not known."""
    if job.precision == "bf16":
        yield Change("precision", "bf16", "float32", False, precision="float32")


def _settings(record: Mapping[str, Any], pixels: "Preprocessing", testing: "Testing") -> Iterator[Change]:
    from lupctl.core.formats.weights.settings import Settings
    from lupctl.core.formats.weights.swin_plan import SwinPlan
    from lupctl.core.formats.weights.vit_plan import ViTPlan
    from lupctl.core.ranking.reports.build.published import read_trunk

    trunk = read_trunk(record)
    if isinstance(trunk, SwinPlan) and trunk.semantic_weight is not None:
        own, other = trunk.semantic_weight, testing.semantic_weight
        if other is not None and own != other:
            yield Change("semantic weight", f"{own:g}", f"{other:g}", True, Settings(semantic_weight=other))
    if isinstance(trunk, ViTPlan) and trunk.grid(pixels.height, pixels.width) != (trunk.rows, trunk.columns):
        for resize in get_args(PositionResize):
            if resize != trunk.position:
                is_published = resize == testing.position
                settings = Settings(position=resize)
                yield Change("resize of positions", trunk.position, resize, is_published, settings)


def _find_obstacle(change: Change, job: "DumpJob") -> str | None:
    """Why a change cannot be made of this network; None if it can."""
    from lupctl.core.errors import LupError
    from lupctl.core.formats.weights.applied import apply_settings
    from lupctl.core.formats.weights.header import read_header
    from lupctl.core.stages.dump.network import open_onnx_job

    changed = change.apply(job)
    try:
        if changed.is_onnx:
            open_onnx_job(changed, "cpu")
        else:
            apply_settings(read_header(job.checkpoint), changed.settings, origin=job.checkpoint.name)
    except LupError as error:
        return error.message
    return None


def _other_version(space: Workspace, record: Mapping[str, Any], published: str | None) -> "Change | NotTried | None":
    """MSMT17 in its other version, where a pack of it is here; only a record tells the two apart."""
    from lupctl.core.formats.pack.read import read_pack_record
    from lupctl.core.ranking.reports.build.published import read_version
    from lupctl.core.ranking.reports.model.explanation import NotTried

    if record.get("dataset") != MSMT17:
        return None
    own = read_version(record)
    if own is None:
        reason = "nothing in the pack tells V1 and V2 apart; who knows packs it with lupctl data pack --version"
        return NotTried(cause="version", reason=reason)
    other = "v2" if own == "v1" else "v1"
    for path in space.pack_paths():
        try:
            found = read_pack_record(path)
        except DataError:
            continue
        version = (found.get("source") or {}).get("version")
        if found.get("dataset") == MSMT17 and version == other:
            return Change("version", own.upper(), other.upper(), other == published, pack=path)
    return NotTried(cause="version", reason=f"the pack is {own.upper()}, and no pack of {other.upper()} is here")


def _all_at_once(changes: list[Change]) -> Iterator[Change]:
    """All of the published way that is not ours, where that is more than one thing."""
    from lupctl.core.formats.weights.settings import Settings

    published = [one for one in changes if one.is_published]
    if len(published) < 2:
        return
    settings = Settings()
    for one in published:
        settings |= one.settings or Settings()
    yield Change(
        "all of these",
        "",
        ", ".join(f"{one.cause} {one.tried}" for one in published),
        True,
        settings if settings.given() else None,
        flip=next((one.flip for one in published if one.flip is not None), None),
        cameras=next((one.cameras for one in published if one.cameras is not None), None),
        pack=next((one.pack for one in published if one.pack is not None), None),
        is_euclidean=any(one.is_euclidean for one in published),
    )


def write_command(job: "DumpJob", out: str) -> str:
    """The command that makes such features."""
    foreign = job.foreign
    words = ["lupctl", "dump", str(job.checkpoint), str(job.data)]
    words += ["--flip"] if job.flip else []
    words += ["--cameras", job.cameras] if job.cameras else []
    words += [] if job.is_onnx else ["--precision", job.precision]
    words += ["--type", job.kind] if job.kind != "float32" else []
    words += [word for one in job.settings.given() for word in ("--set", one)]
    if foreign.size is not None:
        words += ["--pixels", f"{foreign.size[0]}x{foreign.size[1]}"]
    for option, colour in (("--mean", foreign.mean), ("--std", foreign.std)):
        words += [option, ",".join(map(str, colour))] if colour is not None else []
    words += ["--interpolation", foreign.interpolation] if foreign.interpolation else []
    return join([*words, "--out", out])
