"""Downloading published networks, describing weight files, and exporting trunks under torchvision's names."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lupctl.core.choices import nearest_name
from lupctl.core.data.catalog.weights import PUBLISHED, PublishedWeights
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.weights.file import read_checkpoint
from lupctl.core.formats.weights.foreign import read_foreign
from lupctl.core.formats.weights.header import HEADER_KEY, format_header, has_header
from lupctl.core.formats.weights.onnx import ONNX_SUFFIX, read_record
from lupctl.core.system.disk.atomic import atomic_path, check_absent, file_fingerprint, write_text
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
    """All published networks, and whether each is in the workspace."""
    return [
        {
            "name": one.name,
            "what": one.what,
            "from": "Google Drive" if one.is_direct else "by hand",
            "terms": one.terms,
            "here": (models / f"{one.name}{SAFETENSORS}").is_file(),
        }
        for one in PUBLISHED
    ]


def fetch_weights(one: PublishedWeights, models: Path, *, accepted: bool, force: bool) -> Path:
    """The published file, downloaded into a workspace's models; an earlier download is used as it is.

    No checksum is published. The checksum of the first download is kept next to the file and compared from then on.

    Returns:
        `models/<name>.pth`.

    Raises:
        DataError: the terms were not accepted, it can only be fetched by hand, the download failed, or the file
            differs from the first download.
    """
    out, note = models / f"{one.name}.pth", models / f"{one.name}.pth.json"
    if out.is_file() and not force:
        return out
    if not one.is_direct:
        raise DataError(
            f"{one.name}: lupctl cannot download it; open {one.location} (code {one.code}) in a browser and save it as "
            f"{out}",
            hint=f"then: lupctl model convert {out} --out {models / f'{one.name}{SAFETENSORS}'}",
        )
    if not accepted:
        raise DataError(f"{one.name}: terms of use: {one.terms} ({one.page})", hint="agree with --accept-terms")
    with atomic_path(out) as partial:
        _fetch_drive(one, partial)
        fingerprint = file_fingerprint(partial)
        known = json.loads(note.read_text(encoding="utf-8"))["sha256"] if note.is_file() else fingerprint
        if known != fingerprint:
            raise DataError(
                f"{one.name}: the file differs from the first download ({fingerprint}, then {known})",
                hint=f"check {one.page}; to accept the new file, remove {note}",
            )
    facts = {"name": one.name, "url": one.url, "page": one.page, "terms": one.terms, "sha256": fingerprint}
    write_text(note, json.dumps(facts, indent=2, sort_keys=True) + "\n")
    return out


def _fetch_drive(one: PublishedWeights, path: Path) -> None:
    import gdown
    from gdown.exceptions import DownloadError, FileURLRetrievalError
    from requests import RequestException

    try:
        fetched = gdown.download(id=one.location, output=str(path), quiet=True, use_cookies=False)
    except (FileURLRetrievalError, DownloadError, RequestException, OSError) as error:
        if isinstance(error, OSError) and not isinstance(error, RequestException) and error.errno is not None:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise DataError(
            f"{one.name}: Google Drive did not deliver it ({reason})",
            hint=f"open {one.url} in a browser, save it, then: lupctl model convert FILE",
        ) from error
    if fetched is None or not path.is_file():
        raise DataError(f"{one.name}: Google Drive delivered nothing", hint=f"open {one.url} in a browser")


def describe_weights(path: Path) -> dict[str, Any]:
    """Description of a weight file: a checkpoint of lupctl, an exported one, or a published file that can be converted.

    Raises:
        UsageError: an exported file, and the extra for it is missing.
        DataError: there is no such file.
        FormatError: it is damaged, has no known network, or would have to be executed.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file", hint="lupctl model list, or name a weight file")
    if path.suffix == ONNX_SUFFIX:
        record = {key: value for key, value in read_record(path).items() if key not in ("format", "kind", "recipe")}
        return {"path": str(path), "kind": "onnx", "bytes": path.stat().st_size, **record}
    if has_header(path):
        checkpoint = read_checkpoint(path)
        header = checkpoint.header.model_dump(mode="json", exclude_none=True)
        kept = ("stage", "network", "preprocessing", "cameras", "parents", "data", "command", "version")
        return {
            "path": str(path),
            "kind": "checkpoint",
            "tensors": len(checkpoint.tensors),
            "values": count_values(checkpoint.tensors),
            "bytes": path.stat().st_size,
            **{key: header[key] for key in kept},
            "sha256": checkpoint.fingerprint,
        }
    state = read_foreign(path)
    found = recognise(state.tensors, origin=str(path), inside=state.inside)
    return {
        "path": str(path),
        "kind": "published",
        "tensors": len(state.tensors),
        "values": count_values(state.tensors),
        "bytes": path.stat().st_size,
        "inside": list(state.inside),
        "network": found.plan.to_json(),
        "notes": list(found.notes),
        "matched": found.matched,
        "ignored": list(found.ignored),
        "missing": list(found.missing),
        "differences": len(found.differences),
        "sha256": file_fingerprint(path),
    }


def count_values(tensors: Mapping[str, Tensor]) -> int:
    """Total number of values in all tensors."""
    return sum(value.numel() for value in tensors.values())


def export_trunk(source: Path, out: Path, *, force: bool) -> int:
    """Write a checkpoint's trunk as a flat state under torchvision's names, without pooling and heads.

    Args:
        source: a checkpoint of lupctl.
        out: `.pth` for torch.load, or `.safetensors`, whose header keeps the checkpoint's header.
        force: overwrite.

    Returns:
        number of tensors written.

    Raises:
        UsageError: `out` exists, or has another ending.
        FormatError: not a checkpoint of lupctl, or torchvision has no names for its trunk.
    """
    check_absent(out, force=force)
    if out.suffix not in (".pth", SAFETENSORS):
        raise UsageError(f"{out}: expected a name that ends in .pth or .safetensors", hint="--out r50.pth")
    checkpoint = read_checkpoint(source)
    prefix = "backbone."
    trunk = {key.removeprefix(prefix): value for key, value in checkpoint.tensors.items() if key.startswith(prefix)}
    if "conv1.weight" not in trunk or "layer4.0.conv1.weight" not in trunk:
        head = checkpoint.header.network.head.kind
        raise FormatError(
            f"{source}: a network with head {head} whose trunk is not a plain ResNet; torchvision has no names for it",
            hint="name a checkpoint of lupctl pretrain, or of finetune without mgn",
        )
    plain = {key: value.contiguous() for key, value in sorted(trunk.items())}
    with atomic_path(out) as partial:
        if out.suffix == ".pth":
            torch.save(plain, partial)
        else:
            header = format_header(checkpoint.header, "checkpoint")
            save_file(plain, partial, metadata={f"{HEADER_KEY}_source": header})
    return len(plain)
