"""What a sweep will compute: the features of every value, and which of them are there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lupctl.core.choices import CameraUse
from lupctl.core.errors import UsageError
from lupctl.core.resolve.data.images import sweep_folder
from lupctl.core.resolve.networks import features_path
from lupctl.core.resolve.retrieval.sweeps import Axis, find_swept, parse_sweep, sweep_path
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace

if TYPE_CHECKING:
    import torch

    from lupctl.core.formats.weights.header import CheckpointHeader
    from lupctl.core.formats.weights.settings import Settings
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.stages.evaluate import EvaluationJob, EvaluationPlan


@dataclass(frozen=True)
class SweepOrder:
    """A sweep with everything it needs found.

    Args:
        axis: what is varied; the network's own value is among the values.
        own: that value.
        base: what else is set.
        checkpoint, pack: network and test images.
        dumps: the features of each value.
        missing: those of them that have to be made.
        rules: how they are scored, by a protocol that is settled; its `out` is the JSON file of the sweep.
        plan: what scoring one of them means.
    """

    axis: Axis
    own: "Settings"
    base: "Settings"
    checkpoint: Path
    pack: Path
    dumps: "tuple[DumpJob, ...]"
    missing: "tuple[DumpJob, ...]"
    rules: "EvaluationJob"
    plan: "EvaluationPlan"


def order_sweep(
    space: Workspace,
    names: list[str],
    texts: tuple[str, Sequence[str]],
    rules: "EvaluationJob",
    device: "torch.device",
    progress: Progress,
    *,
    cameras: CameraUse | None,
) -> SweepOrder:
    """What a sweep will compute, with everything checked that can be checked without an image or a weight.

    Args:
        space: where runs and packs are.
        names: a run or a checkpoint, and a dataset or a pack; by default the newest fine-tuning run and its own.
        texts: what follows `--sweep`, and what follows each `--set`.
        rules: how features are scored; those are replaced.
        device: where features are computed; decides their precision.
        progress: lines and bars.
        cameras: the rule for the images' cameras, for a network that takes them.

    Raises:
        DataError: a name matches nothing, or the images cannot be scored.
        UsageError: the values cannot be read, or cannot be set of this network; or there are features in their place
            that were made with other options, or another sweep.
    """
    from dataclasses import replace

    from lupctl.core.formats.features.file import read_features_head
    from lupctl.core.formats.pack.read import open_pack
    from lupctl.core.formats.weights.header import read_header
    from lupctl.core.formats.weights.settings import own_value, parse_settings
    from lupctl.core.stages.dump.head import plan_head
    from lupctl.core.stages.evaluate import plan_evaluation
    from lupctl.core.stages.sweep import check_sweep_replaceable
    from lupctl.core.system.disk.atomic import check_writable, file_fingerprint

    axis, base = parse_sweep(texts[0]), parse_settings(texts[1])
    if axis.key in base.to_json():
        raise UsageError(f"--set {axis.key} and --sweep {texts[0]} both set {axis.key}", hint="leave --set out")
    checkpoint, pack = find_swept(space, names, texts[0], progress)
    header, fingerprint = read_header(checkpoint), file_fingerprint(checkpoint)
    axis = _with_own(axis, header, base, origin=str(checkpoint))
    own, out = own_value(header, axis.key), sweep_path(checkpoint, pack, axis.key, base.tag(), rules.out)
    check_writable(out)
    dumps, missing = [], []
    for value in axis.values:
        job = _plan_dump(checkpoint, pack, base | value, out, rules, cameras)
        if value == own and not base.given():
            job = _take_own(job, fingerprint, device)
        dumps.append(job)
        if not _is_made(job, fingerprint, device, progress, force=rules.force):
            missing.append(replace(job, force=job.out.is_file()))
    first = dumps[0]
    head = plan_head(first) if any(job.out == first.out for job in missing) else read_features_head(first.out)
    settled = replace(rules, features=(first.out,), out=out).settled(progress, head)
    plan = plan_evaluation(settled, Progress(quiet=True), head=head)
    if not rules.force:
        values = [value.to_json()[axis.key] for value in axis.values]
        parents = {"checkpoint": fingerprint, f"pack:{plan.dataset}": open_pack(pack).fingerprint}
        check_sweep_replaceable(
            out,
            parents=parents,
            base=base.to_json(),
            values=values,
            protocol=settled.rules,
            rerank=settled.rerank,
        )
    return SweepOrder(axis, own, base, checkpoint, pack, tuple(dumps), tuple(missing), settled, plan)


def _with_own(axis: Axis, header: "CheckpointHeader", base: "Settings", *, origin: str) -> Axis:
    """The values with the network's own one among them, all of which it can take.

    Raises:
        UsageError: it cannot take one.
    """
    from lupctl.core.formats.weights.applied import apply_settings
    from lupctl.core.formats.weights.settings import own_value

    # With a size, as a resize of positions alone is refused, which that of a sweep may go with.
    apply_settings(header, own_value(header, "size") | base, origin=origin)
    for value in axis.values:
        apply_settings(header, base | value, origin=origin, option="--sweep")
    own = own_value(header, axis.key)
    if own in axis.values:
        return axis
    values = [own, *axis.values]
    if axis.key == "semantic_weight":
        values.sort(key=lambda one: one.semantic_weight or 0.0)
    return Axis(axis.key, tuple(values))


def _plan_dump(
    checkpoint: Path,
    pack: Path,
    settings: "Settings",
    out: Path,
    rules: "EvaluationJob",
    cameras: CameraUse | None,
) -> "DumpJob":
    """The features of one value: in the run's folder, or beside the result where that cannot be written to."""
    from lupctl.core.stages.dump.job import DumpJob
    from lupctl.core.system.disk.atomic import is_writable

    name = f"{pack.resolve().stem}.{settings.tag()}.features.h5"
    path = sweep_folder(checkpoint) / name
    if not path.is_file() and not is_writable(path):
        path = out.parent / f"{checkpoint.parent.name}-{name}"
    return DumpJob(checkpoint, pack, path, cameras=cameras, settings=settings, command=rules.command)


def _take_own(job: "DumpJob", fingerprint: str, device: "torch.device") -> "DumpJob":
    """The dump of the own value, as `eval` makes it for the run, unless there are other features in that place."""
    from dataclasses import replace

    from lupctl.core.formats.weights.settings import Settings
    from lupctl.core.stages.dump.existing import find_fault
    from lupctl.core.system.disk.atomic import is_writable

    plain = replace(job, out=features_path(job.checkpoint, job.data), settings=Settings())
    if plain.out.is_file():
        return plain if find_fault(plain, fingerprint, device) is None else job
    return plain if is_writable(plain.out) else job


def _is_made(job: "DumpJob", fingerprint: str, device: "torch.device", progress: Progress, *, force: bool) -> bool:
    """Whether the features are there; says why some have to be made again.

    Raises:
        UsageError: there are some by other options, which somebody may need, and `force` is not given.
    """
    from lupctl.core.stages.dump.existing import find_fault

    if not job.out.is_file():
        return False
    fault = find_fault(job, fingerprint, device)
    if fault is None:
        return True
    if fault.is_chosen and not force:
        raise UsageError(
            f"{job.out}: {fault.text}, which a sweep does not make, and would be overwritten",
            hint="add --force, or move the file away",
        )
    progress.say(f"{job.out}: {fault.text}; made again")
    return False
