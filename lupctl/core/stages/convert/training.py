"""Conversion of a training checkpoint of SOLIDER: its second stage begins from both networks and their heads."""

from typing import Any

from lupctl.core.errors import FormatError
from lupctl.core.formats.weights.file import write_method
from lupctl.core.formats.weights.foreign import read_pair
from lupctl.core.formats.weights.header import CheckpointHeader, describe_pixels
from lupctl.core.formats.weights.plan import describe_trunk
from lupctl.core.formats.weights.swin_plan import SwinPlan
from lupctl.core.stages.convert.refusals import check_finite, mismatch, refuse_own
from lupctl.core.stages.convert.run import ConvertJob
from lupctl.core.system.disk.atomic import check_absent, file_fingerprint
from lupctl.core.training.nets.foreign.solider import recognise_trained


def convert_training(job: ConvertJob, *, dry: bool = False) -> dict[str, Any]:
    """Recognise student and teacher with their heads in a file, and write them as a method file.

    What else the file has is left out: SOLIDER's second stage begins with a new centre and a new optimizer, as
    published. Nothing in it is executed.

    Args:
        job: what to convert; of its options those of one network have no meaning here.
        dry: only recognise and compare.

    Returns:
        what was recognised, as the command prints it.

    Raises:
        UsageError: the output exists, or the file is already a checkpoint.
        FormatError: the file is damaged, would have to be executed, or has no two networks of this kind.
        MismatchError: tensors are missing, unexpected or of another shape.
    """
    check_absent(job.out, force=job.force)
    refuse_own(job.source)
    states = read_pair(job.source)
    found = {name: recognise_trained(state.tensors, origin=f"{job.source}: {name}") for name, state in states.items()}
    for name, one in found.items():
        if one.differences:
            raise mismatch(job.source, one, where=f"{name}: ")
        check_finite(job.source, one, states[name].tensors)
    student, teacher = found.values()
    if student.plan != teacher.plan:
        raise FormatError(
            f"{job.source}: its student is {describe_trunk(student.plan.trunk)} and its teacher "
            f"{describe_trunk(teacher.plan.trunk)}; one is the average of the other",
            hint="get the file again from where it was published",
        )
    tensors = {f"{name}.{key}": value for name, one in found.items() for key, value in one.tensors.items()}
    assert teacher.pixels is not None, "those of a Swin's pre-training"
    if not dry:
        header = CheckpointHeader(
            stage="convert",
            command=job.command,
            recipe=None,
            network=teacher.plan,
            preprocessing=describe_pixels(teacher.pixels),
            classes=(),
            parents={"source": file_fingerprint(job.source)},
            data=(),
        )
        write_method(job.out, tensors, header)
    trunk, last = teacher.plan.trunk, teacher.tensors["head.last_layer.weight"]
    assert isinstance(trunk, SwinPlan)
    return {
        "path": str(job.out),
        "networks": list(found),
        "arch": trunk.arch or describe_trunk(trunk),
        "description": describe_trunk(trunk),
        "use": "start of solider",
        "trunk": trunk.to_json(),
        "head": {
            "outputs": last.shape[0],
            "hidden": len(teacher.tensors["head.mlp.0.weight"]),
            "bottleneck": last.shape[1],
        },
        "matched": sum(one.matched for one in found.values()),
        "ignored": [f"{name}.{key}" for name, one in found.items() for key in one.ignored],
        "beside": [name for name in states["student"].beside if name not in found],
    }
