"""The network of a dump: that of a checkpoint, or one in ONNX or OpenVINO's format."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lupctl.core.errors import UsageError
from lupctl.core.formats.weights.header import CheckpointHeader, describe_network
from lupctl.core.formats.weights.runtimes.open import FORMAT_OF
from lupctl.core.ranking.retrieval.cameras import CameraTable, camera_table
from lupctl.core.ranking.retrieval.onnx.open import OnnxNetwork, open_onnx
from lupctl.core.stages.dump.job import DumpJob


@dataclass(frozen=True)
class DumpNetwork:
    """What the features of a network say of it.

    Args:
        fingerprint: of its checkpoint.
        description: in words.
        cameras: its table; None if it takes none.
        recipe: of its training, where it is known.
        facts: the network and how its images are prepared, for the record.
    """

    fingerprint: str
    description: str
    cameras: CameraTable | None
    recipe: Mapping[str, Any] | None
    facts: dict[str, Any]


def describe_checkpoint(header: CheckpointHeader, fingerprint: str, *, origin: str) -> DumpNetwork:
    """The network of a checkpoint."""
    facts = {"network": header.network.to_json(), "preprocessing": header.preprocessing.to_json()}
    table = camera_table(header, origin=origin)
    return DumpNetwork(fingerprint, describe_network(header), table, header.recipe, facts)


def describe_onnx(found: OnnxNetwork) -> DumpNetwork:
    """A network in ONNX or OpenVINO's format."""
    encoder, view = found.encoder, found.encoder.view
    facts = {
        "network": {"kind": FORMAT_OF[encoder.session.runtime], "input": str(encoder.images)},
        "preprocessing": {
            "height": view.height, "width": view.width, "channels": "RGB", "mean": list(encoder.mean),
            "std": list(encoder.std), "interpolation": view.interpolation,
        },
    }  # fmt: skip
    return DumpNetwork(found.fingerprint, found.description, encoder.cameras, None, facts)


def open_onnx_job(job: DumpJob, kind: str) -> OnnxNetwork:
    """The network of a job that a runtime runs, which asks for nothing that the runtime does not do.

    Args:
        job: the dump.
        kind: of its devices, cpu or cuda.

    Raises:
        UsageError, DataError, FormatError: as `open_onnx`; or the job asks for something else.
    """
    asked = (
        (kind != "cpu", "a GPU", "--device cpu"),
        (bool(job.settings.given()), "--set", "leave out --set"),
        (job.is_compiled, "--compile", "leave out --compile"),
        (job.precision == "bf16", "--precision bf16", "leave out --precision"),
    )
    for is_asked, what, hint in asked:
        if is_asked:
            raise UsageError(
                f"{job.checkpoint}: {job.runtime} computes it as it is, on the CPU, and not with {what}", hint
            )
    found = open_onnx(job.checkpoint, job.foreign)
    if job.flip and found.is_unit:
        raise UsageError(
            f"{job.checkpoint}: an exported network, whose features of mirrored images cannot be added",
            "leave out --flip",
        )
    return found


def check_foreign(job: DumpJob) -> None:
    """Refuses to be told how images are prepared for a checkpoint, which says so itself.

    Raises:
        UsageError: it is told.
    """
    job.foreign.refuse(f"{job.checkpoint}: a checkpoint says how its images are prepared")
