"""Listing published networks, and describing weight files."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from lupctl.core.choices import nearest_name
from lupctl.core.data.catalog.published import PublishedWeights
from lupctl.core.data.catalog.weights import PUBLISHED
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.weights.file import read_checkpoint, read_method
from lupctl.core.formats.weights.foreign import read_foreign
from lupctl.core.formats.weights.header import Kind, has_header, is_method
from lupctl.core.formats.weights.onnx import ONNX_SUFFIX, read_record
from lupctl.core.formats.weights.openvino import read_openvino_record
from lupctl.core.formats.weights.runtimes.open import network_bytes, runs_alone
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.disk.reading import say_missing
from lupctl.core.system.examples import name_some
from lupctl.core.training.nets.foreign.recognise import recognise

SAFETENSORS = ".safetensors"


def find_weights(name: str) -> PublishedWeights:
    """The published network with a given name.

    Raises:
        UsageError: there is none.
    """
    for one in PUBLISHED:
        if one.name == name:
            return one
    guess = nearest_name(name, [one.name for one in PUBLISHED])
    raise UsageError(f"no published model {name!r}", hint=f"did you mean {guess}?" if guess else "lupctl model list")


def list_weights(models: Path) -> list[dict[str, Any]]:
    """All published networks, what is known about each, and whether it is in the workspace."""
    return [
        {
            "name": one.name,
            "what": one.what,
            "use": one.use,
            "size": write_input_size(one),
            "stride": one.stride,
            "scores": [asdict(score) for score in one.scores],
            "project": one.project.name,
            "page": one.project.page,
            "terms": one.project.terms,
            "from": one.origin,
            "url": one.url,
            "convert": convert_line(one, models),
            "here": (models / f"{one.name}{SAFETENSORS}").is_file(),
        }
        for one in PUBLISHED
    ]


def write_input_size(one: PublishedWeights) -> str | None:
    """Height and width of a network's input, as in 256x128; None if they are not published."""
    return f"{one.size[0]}x{one.size[1]}" if one.size else None


def convert_line(one: PublishedWeights, models: Path) -> str:
    """The command that makes a checkpoint of the downloaded file."""
    out = models / f"{one.name}{SAFETENSORS}"
    grid = f" --size {write_input_size(one)} --stride {one.stride}" if one.stride else ""
    return f"lupctl model convert {models / f'{one.name}.pth'} --out {out}{grid}"


def describe_weights(path: Path) -> dict[str, Any]:
    """Description of a weight file: a checkpoint or method file of lupctl, an exported one, or a published one.

    Raises:
        UsageError: an exported file, and the extra for it is missing.
        DataError: there is no such file.
        FormatError: it is damaged, has no known network, or would have to be executed.
    """
    if not path.is_file():
        raise DataError(f"{path}: {say_missing(path)}", hint="lupctl model list, or name a weight file")
    if runs_alone(path):
        whole = read_record(path) if path.suffix == ONNX_SUFFIX else read_openvino_record(path)
        record = {key: value for key, value in whole.items() if key not in ("format", "kind", "recipe")}
        return {"path": str(path), "kind": whole["kind"], "bytes": network_bytes(path), **record}
    if has_header(path):
        kind: Kind = "method" if is_method(path) else "checkpoint"
        checkpoint = read_method(path) if kind == "method" else read_checkpoint(path)
        header = checkpoint.header.model_dump(mode="json", exclude_none=True)
        kept = ("stage", "network", "preprocessing", "cameras", "parents", "data", "kept", "command", "version")
        return {
            "path": str(path),
            "kind": kind,
            "tensors": len(checkpoint.tensors),
            "values": count_values(checkpoint.tensors),
            "bytes": path.stat().st_size,
            **{key: header[key] for key in kept if key in header},
            "sha256": checkpoint.fingerprint,
        }
    state = read_foreign(path)
    found = recognise(state.tensors, origin=str(path), inside=state.inside)
    used = {key: value for key, value in state.tensors.items() if key not in set(found.ignored)}
    broken = name_some(key for key, value in used.items() if not value.isfinite().all())
    return {
        "path": str(path),
        "kind": "published",
        "tensors": len(state.tensors),
        "values": count_values(state.tensors),
        "bytes": path.stat().st_size,
        "inside": list(state.inside),
        "beside": list(state.beside),
        "network": found.plan.to_json(),
        "notes": [*found.notes, *([f"not finite, so that model convert refuses it: {broken}"] if broken else [])],
        "matched": found.matched,
        "ignored": list(found.ignored),
        "missing": list(found.missing),
        "differences": len(found.differences),
        "sha256": file_fingerprint(path),
    }


def count_values(tensors: Mapping[str, Tensor]) -> int:
    """Total number of values in all tensors."""
    return sum(value.numel() for value in tensors.values())
