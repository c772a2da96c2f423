"""Export of a checkpoint's network as an ONNX file, checked to give the same features."""

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from lupctl.core.errors import DataError
from lupctl.core.formats.weights.file import Checkpoint
from lupctl.core.formats.weights.header import describe_network
from lupctl.core.formats.weights.onnx import (
    CAMERAS,
    INPUT,
    OUTPUT,
    check_model,
    forget_origins,
    run_model,
    write_model,
)
from lupctl.core.ranking.retrieval.extract import Encoder, open_encoder
from lupctl.core.stages.export.cameras import GivenCamera, choose_camera
from lupctl.core.stages.export.job import ExportJob, ExportResult, check_job
from lupctl.core.stages.export.record import TOLERANCE, build_record, describe_file
from lupctl.core.stages.export.trial import draw_batches, embed_units, largest_difference
from lupctl.core.system.disk.atomic import atomic_path, check_writable
from lupctl.core.training.nets.standalone import StandaloneNetwork

# The oldest operator set that torch writes without translation.
OPSET: Final = 18


def plan_export(job: ExportJob) -> dict[str, Any]:
    """What an export would write; reads the checkpoint and builds its network.

    Raises:
        UsageError: see `check_job`.
        FormatError: not a checkpoint, or of a network that this lupctl does not know.
    """
    check_job(job)
    encoder, checkpoint = open_cpu(job.checkpoint)
    given = choose_camera(encoder, job)
    return {
        "checkpoint": str(job.checkpoint),
        "out": str(job.out),
        "network": describe_network(checkpoint.header),
        "height": encoder.view.height,
        "width": encoder.view.width,
        **({} if given is None else {"cameras": given.rule}),
        "about_bytes": job.checkpoint.stat().st_size,  # an upper limit: classifiers are not exported
    }


def export(job: ExportJob) -> ExportResult:
    """Write the network, with pixel constants before it and normalisation after it, and compare it with PyTorch.

    Raises:
        UsageError: see `check_job`.
        FormatError: not a checkpoint, or of a network that this lupctl does not know.
        DataError: onnxruntime gives different features; no file is written then.
    """
    check_job(job)
    encoder, checkpoint = open_cpu(job.checkpoint)
    check_writable(job.out)
    given = choose_camera(encoder, job)
    batches = draw_batches(encoder, given)
    wanted = [embed_units(encoder, batch, given) for batch in batches]
    record = build_record(job, encoder, checkpoint, given, tried=wanted)
    description = describe_file(record, checkpoint.header)
    with atomic_path(job.out) as partial:
        with silenced():
            model = trace(encoder, given)
        write_model(partial, model, record, description=description)
        difference = largest_difference(run_model(partial, batches), wanted)
        if not difference <= TOLERANCE:  # also true for NaN
            raise DataError(
                f"{job.out}: not written; onnxruntime's features differ from PyTorch's by {difference:.1e}, "
                f"more than {TOLERANCE:.0e}",
                hint="try other versions of onnxruntime and onnxscript; lupctl dump gives the right features",
            )
        record["check"]["difference"] = difference
        write_model(partial, model, record, description=description)
        check_model(partial)
    return ExportResult(
        path=job.out,
        bytes=job.out.stat().st_size,
        network=describe_network(checkpoint.header),
        height=encoder.view.height,
        width=encoder.view.width,
        dim=record["features"]["dim"],
        difference=difference,
        record=record,
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


@contextmanager
def silenced() -> Iterator[None]:
    """Suppress what the exporter writes to stdout, stderr, warnings and logs."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
