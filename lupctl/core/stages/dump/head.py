"""What the features of a dump will be, without computing them."""

from lupctl.core.formats.features.file import FeaturesHead
from lupctl.core.formats.weights.applied import apply_settings
from lupctl.core.formats.weights.header import CheckpointHeader, read_header
from lupctl.core.ranking.retrieval.cameras import CameraTable, camera_table
from lupctl.core.stages.dump.inputs import open_images
from lupctl.core.stages.dump.job import DumpJob
from lupctl.core.stages.dump.network import check_foreign, open_onnx_job
from lupctl.core.stages.dump.work import place_images
from lupctl.core.system.jobs.compiling import check_compiler
from lupctl.core.training.nets.meta import build_empty, embed_nothing


def plan_head(job: DumpJob) -> FeaturesHead:
    """Everything of the features that a job will write except the vectors; no image is decoded and no weight is read.

    Raises:
        DataError: there are no images of the wanted roles, or one is from none of the network's cameras and the rule
            refuses that.
        FormatError: the checkpoint's header is damaged.
        UsageError: there is a rule for cameras, and the network takes none; or it has nothing of what is set.
    """
    inputs = open_images(job.data, job.roles)
    place_images(job, inputs, _read_table(job))  # refuses what the dump would refuse
    if job.is_onnx:
        dim = open_onnx_job(job, "cpu").dimension
    else:
        header = _read_header(job)
        network, pixels = build_empty(header.network).eval(), header.preprocessing
        dim = embed_nothing(network, height=pixels.height, width=pixels.width, pooling=job.pooling).shape[1]
    record = {"dataset": inputs.dataset, **inputs.facts}
    return FeaturesHead((len(inputs.samples), dim), job.kind, inputs.samples, record)


def check_dump(job: DumpJob, kind: str) -> None:
    """Refuses settings that the network has not, and compiling without a compiler, before anything is started.

    Args:
        job: the dump.
        kind: of its devices, cpu or cuda.

    Raises:
        DeviceError: there is no compiler.
        FormatError: the checkpoint's header is damaged.
        UsageError: there are such settings.
    """
    if job.is_compiled:
        check_compiler(kind, asked="--compile", instead="leave out --compile")
    if job.is_onnx:
        open_onnx_job(job, kind)
    else:
        check_foreign(job)
        _read_header(job)


def plan_cameras(job: DumpJob) -> dict[str, str]:
    """The rule for cameras and the number of images it gives which row; nothing for a network that takes no cameras.

    Raises:
        DataError, FormatError, UsageError: as `plan_head`.
    """
    placed = place_images(job, open_images(job.data, job.roles), _read_table(job))
    return {} if placed is None else {"cameras": str(placed.count())}


def _read_table(job: DumpJob) -> CameraTable | None:
    """The cameras of the network."""
    if job.is_onnx:
        return open_onnx_job(job, "cpu").encoder.cameras
    return camera_table(_read_header(job), origin=str(job.checkpoint))


def _read_header(job: DumpJob) -> CheckpointHeader:
    """The header of the network with what is set."""
    return apply_settings(read_header(job.checkpoint), job.settings, origin=str(job.checkpoint))
