"""What is exported: the network as an ONNX graph in float32, and the features that it has to give."""

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.weights.file import Checkpoint
from lupctl.core.formats.weights.header import describe_network
from lupctl.core.formats.weights.onnx import (
    CAMERAS,
    INPUT,
    OUTPUT,
    RECORD_KEY,
    Inputs,
    forget_origins,
    parse_record,
    run_model,
    write_model,
)
from lupctl.core.ranking.retrieval.cameras import takes_none
from lupctl.core.ranking.retrieval.extract import Encoder, open_encoder
from lupctl.core.ranking.retrieval.onnx.open import open_onnx
from lupctl.core.stages.export.cameras import GivenCamera, choose_camera
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.stages.export.quiet import silenced
from lupctl.core.stages.export.record import TOLERANCE, build_foreign_record, build_record, describe_file
from lupctl.core.stages.export.trial import SEED, draw_batches, embed_units, largest_difference
from lupctl.core.training.nets.standalone import StandaloneNetwork

# The oldest operator set that torch writes without translation.
OPSET: Final = 18


@dataclass(frozen=True)
class Source:
    """A network that is ready to be written in any format and precision.

    Args:
        model: its graph in float32, an `onnx.ModelProto`.
        network: its description.
        height, width: of its images.
        record, description: of the file, without what is not known yet, such as its check.
        batches: images of random pixels.
        wanted: their features, of each batch.
        given: as cameras; None for a network that takes none.
    """

    model: Any
    network: str
    height: int
    width: int
    record: dict[str, Any]
    description: str
    batches: list[Inputs]
    wanted: list[NDArray[np.float32]]
    given: GivenCamera | None = None


def open_source(job: ExportJob, folder: Path) -> Source:
    """The network of a job; that of a checkpoint is traced, and compared with PyTorch.

    Args:
        job: names it.
        folder: for files that are needed on the way.

    Raises:
        UsageError, DataError, FormatError: as `export`.
    """
    return _open_foreign(job) if job.is_foreign else _open_checkpoint(job, folder)


def _open_checkpoint(job: ExportJob, folder: Path) -> Source:
    job.foreign.refuse(f"{job.checkpoint}: a checkpoint says how its images are prepared")
    encoder, checkpoint = open_cpu(job.checkpoint)
    given = choose_camera(encoder, job)
    batches = draw_batches(encoder, given)
    wanted = [embed_units(encoder, batch, given) for batch in batches]
    record = build_record(job, encoder, checkpoint, given, dim=wanted[0].shape[1])
    with silenced():
        model = trace(encoder, given)
    path, description = folder / "float32.onnx", describe_file(record, checkpoint.header)
    write_model(path, model, record, description=description)
    difference = largest_difference(run_model(path, batches), wanted)
    path.unlink()
    if not difference <= TOLERANCE:  # also true for NaN
        raise DataError(
            f"{job.out}: not written; onnxruntime's features differ from PyTorch's by {difference:.1e}, "
            f"more than {TOLERANCE:.0e}",
            hint="try other versions of onnxruntime and onnxscript; lupctl dump gives the right features",
        )
    return Source(
        model=model,
        network=describe_network(checkpoint.header),
        height=encoder.view.height,
        width=encoder.view.width,
        record=record,
        description=description,
        batches=batches,
        wanted=wanted,
        given=given,
    )


def _open_foreign(job: ExportJob) -> Source:
    import onnx

    if job.cameras is not None:
        raise takes_none(job.cameras, str(job.checkpoint))
    found = open_onnx(job.checkpoint, job.foreign)
    encoder, view = found.encoder, found.encoder.view
    text = encoder.session.metadata.get(RECORD_KEY)
    record = build_foreign_record(job, found) if text is None else parse_record(text, job.checkpoint)
    if record.get("precision", "float32") != "float32":
        raise UsageError(
            f"{job.checkpoint}: is in {record['precision']} already; a network in float32 was expected",
            hint="name what it was made from",
        )
    random = np.random.default_rng(SEED)
    images = torch.from_numpy(random.random((4, 3, view.height, view.width), dtype=np.float32))
    rows = None if encoder.cameras is None else torch.zeros(len(images), dtype=torch.int64)
    batches = [inputs for inputs, _ in encoder.prepare(images, rows)]
    return Source(
        model=onnx.load(str(job.checkpoint)),
        network=found.description,
        height=view.height,
        width=view.width,
        record=record | {"version": version("lupctl"), "command": list(job.command)},
        description=f"Person re-identification, {found.description}, exported by lupctl {version('lupctl')}.",
        batches=batches,
        wanted=[encoder.session.run(batch)[0] for batch in batches],
    )


def open_cpu(path: Path) -> tuple[Encoder, Checkpoint]:
    """A checkpoint's network on the CPU, in float32."""
    return open_encoder(path, device=torch.device("cpu"), precision=torch.float32)


def trace(encoder: Encoder, given: GivenCamera | None) -> Any:
    """The graph as an `onnx.ModelProto` with the weights inside, for batches of any size."""
    view, camera = encoder.view, None if given is None else given.row
    network = StandaloneNetwork(encoder.network, mean=view.mean, std=view.std, camera=camera).eval()
    # Attention with biases that may need a gradient is taken apart in another way than it is traced.
    network.requires_grad_(False)
    # Two images: a batch size of 1 would be treated as a constant.
    example: dict[str, Tensor] = {INPUT: torch.zeros(2, view.height, view.width, 3, dtype=torch.uint8)}
    if given is not None and given.row is None:
        example[CAMERAS] = torch.zeros(2, dtype=torch.int64)
    batch = torch.export.Dim("N", min=1)
    program = torch.onnx.export(
        network,
        tuple(example.values()),
        dynamo=True,
        opset_version=OPSET,
        input_names=list(example),
        output_names=[OUTPUT],
        dynamic_shapes={name: {0: batch} for name in example},
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    forget_origins(model)
    return model
