"""Export of a checkpoint's network as an ONNX file, checked to give the same features."""

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray

from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.weights.file import Checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, describe_network
from lupctl.core.formats.weights.onnx import (
    INPUT,
    ONNX_FORMAT,
    ONNX_SUFFIX,
    OUTPUT,
    check_model,
    check_packages,
    forget_origins,
    run_model,
    write_model,
)
from lupctl.core.ranking.retrieval.extract import Encoder, open_encoder
from lupctl.core.system.disk.atomic import atomic_path, check_absent, check_writable
from lupctl.core.training.nets.standalone import StandaloneNetwork
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import draw_views

# The oldest operator set that torch writes without translation.
OPSET: Final = 18
# For a feature of unit length. Two libraries that sum in different orders differ by about 1e-7.
TOLERANCE: Final = 1e-4
TRIED_BATCHES: Final = (1, 3)
SEED: Final = 0


@dataclass(frozen=True)
class ExportJob:
    """The settings of one export.

    Args:
        checkpoint: the network.
        out: the ONNX file.
        force: overwrite.
        command: the command line, for the record.
    """

    checkpoint: Path
    out: Path
    force: bool = False
    command: tuple[str, ...] = ()


@dataclass(frozen=True)
class ExportResult:
    """The result of an export.

    Args:
        path, bytes: the file and its size.
        network: its description.
        height, width: of the images it takes.
        dim: length of a feature.
        difference: largest difference between onnxruntime and PyTorch over all values of all features.
        record: the record in the file's metadata.
    """

    path: Path
    bytes: int
    network: str
    height: int
    width: int
    dim: int
    difference: float
    record: dict[str, Any]


def plan_export(job: ExportJob) -> dict[str, Any]:
    """What an export would write; reads the checkpoint and builds its network.

    Raises:
        UsageError: see `check_job`.
        FormatError: not a checkpoint, or of a network that this lupctl does not know.
    """
    check_job(job)
    encoder, checkpoint = open_cpu(job.checkpoint)
    return {
        "checkpoint": str(job.checkpoint),
        "out": str(job.out),
        "network": describe_network(checkpoint.header),
        "height": encoder.view.height,
        "width": encoder.view.width,
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
    batches = draw_batches(encoder)
    wanted = [embed_units(encoder, batch) for batch in batches]
    record = build_record(job, encoder, checkpoint, dim=wanted[0].shape[1])
    description = describe_file(record, checkpoint.header)
    with atomic_path(job.out) as partial:
        with silenced():
            model = trace(encoder)
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


def check_job(job: ExportJob) -> None:
    """Report at once the errors that would otherwise come up after all the work.

    Raises:
        UsageError: the extra is missing, the output exists, or its name does not end in .onnx.
    """
    check_packages()
    check_absent(job.out, force=job.force)
    if job.out.suffix != ONNX_SUFFIX:
        raise UsageError(f"{job.out}: expected a name that ends in {ONNX_SUFFIX}", hint=f"--out {job.out.stem}.onnx")


def open_cpu(path: Path) -> tuple[Encoder, Checkpoint]:
    """A checkpoint's network on the CPU, in float32."""
    return open_encoder(path, device=torch.device("cpu"), precision=torch.float32)


def trace(encoder: Encoder) -> Any:
    """The graph as an `onnx.ModelProto` with the weights inside, for batches of any size."""
    view = encoder.view
    network = StandaloneNetwork(encoder.network, mean=view.mean, std=view.std).eval()
    # Two images: a batch size of 1 would be treated as a constant.
    example = torch.zeros(2, view.height, view.width, 3, dtype=torch.uint8)
    program = torch.onnx.export(
        network,
        (example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=[INPUT],
        output_names=[OUTPUT],
        dynamic_shapes={INPUT: {0: torch.export.Dim("N", min=1)}},
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


def draw_batches(encoder: Encoder) -> list[NDArray[np.uint8]]:
    """A few images of random pixels, the same in every run, in batches of different sizes."""
    random = np.random.default_rng(SEED)
    size = (encoder.view.height, encoder.view.width, 3)
    return [random.integers(0, 256, (count, *size), dtype=np.uint8) for count in TRIED_BATCHES]


@torch.no_grad()
def embed_units(encoder: Encoder, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Features as `lupctl dump` computes them, divided by their length: (B, H, W, 3) to (B, D)."""
    count = len(images)
    size = np.full((count, 2), images.shape[1:3], dtype=np.int64)
    (draws,) = draw_views([encoder.view], size, np.arange(count), seed=SEED, epoch=0)
    features = encoder.network.embed(make_view(encoder.view, torch.from_numpy(images), draws.tensors()))
    units: NDArray[np.float32] = torch.nn.functional.normalize(features.float(), dim=1).numpy()
    return units


def largest_difference(found: list[NDArray[np.float32]], wanted: list[NDArray[np.float32]]) -> float:
    """Largest absolute difference over all values of all features; NaN if any value is NaN."""
    return float(np.abs(np.concatenate(found) - np.concatenate(wanted)).max())


def build_record(job: ExportJob, encoder: Encoder, checkpoint: Checkpoint, *, dim: int) -> dict[str, Any]:
    """Everything that determines the features, and what the network was made from."""
    header, view = checkpoint.header, encoder.view
    return {
        "format": ONNX_FORMAT,
        "kind": "onnx",
        "version": version("lupctl"),
        "command": list(job.command),
        "recipe": header.recipe,
        "stage": header.stage,
        "network": header.network.to_json(),
        "preprocessing": header.preprocessing.to_json(),
        "images": {"type": "uint8", "layout": "NHWC", "channels": "RGB", "resize": f"Pillow, {view.interpolation}"},
        "features": {"dim": dim, "type": "float32", "length": 1, "distance": "1 - dot product"},
        "check": {
            "images": sum(TRIED_BATCHES),
            "tolerance": TOLERANCE,
            "torch": str(torch.__version__),
            "onnxruntime": version("onnxruntime"),
        },
        "parents": {"checkpoint": checkpoint.fingerprint},
        "checkpoint_parents": header.parents,
        "data": [pack.model_dump(mode="json", exclude_none=True) for pack in header.data],
        "terms": find_terms(checkpoint),
    }


def find_terms(checkpoint: Checkpoint) -> list[str]:
    """Known terms of the data that a network was trained on, and of a published file that it was converted from.

    The note that `lupctl model download` writes about a file is next to the checkpoint made from it.
    """
    terms = [f"{one.dataset}: {one.terms}" for one in checkpoint.header.data if one.terms]
    path = checkpoint.path.with_suffix(".pth.json")
    if path.is_file():
        note = json.loads(path.read_text(encoding="utf-8"))
        if note.get("sha256") == checkpoint.header.parents.get("source"):
            terms.append(f"{note['name']}: {note['terms']}")
    return terms


def describe_file(record: dict[str, Any], header: CheckpointHeader) -> str:
    """Description of the file in a few lines, for viewers."""
    images, features, pixels = record["images"], record["features"], record["preprocessing"]
    return (
        f"Person re-identification, {describe_network(header)}, exported by lupctl {record['version']}.\n"
        f"{INPUT}: (N, {pixels['height']}, {pixels['width']}, 3) uint8 RGB, resized as by {images['resize']}.\n"
        f"{OUTPUT}: (N, {features['dim']}) float32 of unit length; the distance of two is {features['distance']}.\n"
        f"Terms: {'; '.join(record['terms']) or 'not known'}."
    )
