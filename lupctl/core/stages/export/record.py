"""What an exported file says about itself."""

from importlib.metadata import version
from typing import Any, Final

import torch

from lupctl.core.choices import Runtime
from lupctl.core.data.catalog.origin import read_note
from lupctl.core.formats.weights.file import Checkpoint
from lupctl.core.formats.weights.header import CheckpointHeader, describe_network
from lupctl.core.formats.weights.onnx import CAMERAS, INPUT, ONNX_FORMAT, OUTPUT
from lupctl.core.ranking.retrieval.extract import Encoder
from lupctl.core.ranking.retrieval.onnx.open import OnnxNetwork
from lupctl.core.stages.export.cameras import GivenCamera
from lupctl.core.stages.export.job import ExportJob
from lupctl.core.system.disk.atomic import file_fingerprint

# For a feature of unit length. Two libraries that sum in different orders differ by about 1e-7.
TOLERANCE: Final = 1e-4


def build_record(
    job: ExportJob,
    encoder: Encoder,
    checkpoint: Checkpoint,
    given: GivenCamera | None,
    *,
    dim: int,
) -> dict[str, Any]:
    """Everything that determines the features, and what the network was made from.

    Args:
        job, encoder, checkpoint: of the export.
        given: as cameras.
        dim: length of a feature.
    """
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
        **({} if given is None else {CAMERAS: given.to_json()}),
        "features": {"dim": dim, "type": "float32", "length": 1, "distance": "1 - dot product"},
        "parents": {"checkpoint": checkpoint.fingerprint},
        "checkpoint_parents": header.parents,
        "data": [pack.model_dump(mode="json", exclude_none=True) for pack in header.data],
        "terms": find_terms(checkpoint),
    }


def build_foreign_record(job: ExportJob, found: OnnxNetwork) -> dict[str, Any]:
    """The same of a network of another program, as far as it is known."""
    encoder, view = found.encoder, found.encoder.view
    return {
        "format": ONNX_FORMAT,
        "kind": "onnx",
        "recipe": None,
        "stage": "foreign",
        "network": {"kind": "onnx", "input": str(encoder.images)},
        "preprocessing": {
            "height": view.height, "width": view.width, "channels": "RGB", "mean": list(encoder.mean),
            "std": list(encoder.std), "interpolation": view.interpolation,
        },
        "images": {
            "type": encoder.images.kind, "layout": encoder.images.layout, "channels": "RGB",
            "resize": f"Pillow, {view.interpolation}",
        },
        "features": {"dim": found.dimension, "type": "float32", "length": None, "distance": "1 - cosine"},
        "parents": {"network": file_fingerprint(job.checkpoint)},
        "checkpoint_parents": {},
        "data": [],
        "terms": [],
    }  # fmt: skip


def describe_check(job: ExportJob, runtime: Runtime, *, images: int, difference: float) -> dict[str, Any]:
    """What a file's features were compared with: its own, not those of a graph on the way to it.

    Args:
        job: of the export.
        runtime: that ran the file.
        images: of random pixels.
        difference: see `ExportResult`.
    """
    versions = {"onnxruntime": version("onnxruntime")} if job.is_foreign else {"torch": str(torch.__version__)}
    return {
        "images": images,
        **({"tolerance": TOLERANCE} if job.precision == "float32" else {}),
        **versions,
        runtime: version(runtime),
        "difference": difference,
    }


def find_terms(checkpoint: Checkpoint) -> list[str]:
    """Known terms of the data that a network was trained on, and of a published file that it was converted from.

    The note that `lupctl model download` writes about a file is next to the checkpoint made from it.
    """
    terms = [f"{one.dataset}: {one.terms}" for one in checkpoint.header.data if one.terms]
    path = checkpoint.path.with_suffix(".pth.json")
    if path.is_file():
        note = read_note(path)
        if note["sha256"] == checkpoint.header.parents.get("source"):
            terms.append(f"{note['name']}: {note['terms']}")
    return terms


def describe_file(record: dict[str, Any], header: CheckpointHeader) -> str:
    """Description of the file in a few lines, for viewers."""
    images, features, pixels = record["images"], record["features"], record["preprocessing"]
    cameras = "" if CAMERAS not in record else f"{describe_cameras(record[CAMERAS])}\n"
    return (
        f"Person re-identification, {describe_network(header)}, exported by lupctl {record['version']}.\n"
        f"{INPUT}: (N, {pixels['height']}, {pixels['width']}, 3) uint8 RGB, resized as by {images['resize']}.\n"
        f"{cameras}"
        f"{OUTPUT}: (N, {features['dim']}) float32 of unit length; the distance of two is {features['distance']}.\n"
        f"Terms: {'; '.join(record['terms']) or 'not known'}."
    )


def describe_cameras(cameras: dict[str, Any]) -> str:
    """What the record of an exported network with a table of cameras means for whoever runs it, in one line."""
    others = ", ".join(f"{row} {name}" for name, row in cameras["other_rows"].items())
    if cameras["row"] is None:
        return f"{CAMERAS}: (N) int64, rows of its table of {cameras['rows']} cameras; {others}."
    name = next((name for name, row in cameras["other_rows"].items() if row == cameras["row"]), "")
    what = {"mean": "the mean of all cameras' rows", "unknown": "the row learned for unknown cameras"}
    return f"Cameras: every image gets {what.get(name, 'no camera row')}."
