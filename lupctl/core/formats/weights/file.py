"""Checkpoints: tensors in safetensors, and in the header everything needed to use them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lupctl.core.errors import DataError, FormatError
from lupctl.core.formats.pack.read import Pack
from lupctl.core.system.disk.atomic import atomic_path, file_fingerprint

CHECKPOINT_FORMAT = 1
HEADER_KEY = "lupctl"


@dataclass(frozen=True)
class Checkpoint:
    """A network's tensors and their story.

    Args:
        path: the file.
        tensors: by key, on the CPU.
        header: the JSON object of the header: format, stage, recipe, network, preprocessing, classes, parents.
    """

    path: Path
    tensors: dict[str, Tensor]
    header: dict[str, Any]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return file_fingerprint(self.path)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    """Writes a checkpoint whole or not at all; the same tensors and header give the same bytes.

    Args:
        path: the file.
        tensors: by key; copied to the CPU.
        header: see `Checkpoint`; format, kind and version are added.
    """
    full = {**header, "format": CHECKPOINT_FORMAT, "kind": "checkpoint", "version": version("lupctl")}
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with atomic_path(path) as partial:
        save_file(plain, partial, metadata={HEADER_KEY: json.dumps(full, sort_keys=True, ensure_ascii=False)})


def read_header(path: Path) -> dict[str, Any]:
    """The header of a checkpoint, without its tensors.

    Raises:
        DataError: there is no such file.
        FormatError: not a checkpoint of lupctl, cut short, or of another format.
    """
    with _open(path) as file:
        return _parse_header(path, file.metadata())


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint with its tensors.

    Raises:
        DataError: there is no such file.
        FormatError: not a checkpoint of lupctl, cut short, or of another format.
    """
    with _open(path) as file:
        header = _parse_header(path, file.metadata())
        return Checkpoint(path, {key: file.get_tensor(key) for key in file.keys()}, header)  # noqa: SIM118


def _open(path: Path) -> Any:
    if not path.is_file():
        raise DataError(
            f"{path}: there is no such file; expected a checkpoint", hint="lupctl finetune DATASET makes one"
        )
    try:
        return safe_open(path, framework="pt")
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(
            f"{path}: not a whole safetensors file ({error})", hint="train again, or copy the file again"
        ) from error


def _parse_header(path: Path, metadata: Mapping[str, str] | None) -> dict[str, Any]:
    text = (metadata or {}).get(HEADER_KEY)
    if text is None:
        raise FormatError(
            f"{path}: a safetensors file without lupctl's header; the network inside is unknown",
            hint="name a checkpoint that lupctl pretrain or lupctl finetune wrote",
        )
    try:
        header = json.loads(text)
    except json.JSONDecodeError as error:
        raise FormatError(f"{path}: lupctl's header is no JSON ({error})", hint="copy the file again") from error
    if not isinstance(header, dict):
        raise FormatError(f"{path}: lupctl's header is no JSON object", hint="copy the file again")
    if header.get("format") != CHECKPOINT_FORMAT:
        raise FormatError(
            f"{path}: checkpoint format {header.get('format')}; this lupctl reads format {CHECKPOINT_FORMAT}",
            hint="train again with this lupctl",
        )
    return dict(header)


def load_strictly(
    network: nn.Module, tensors: Mapping[str, Tensor], *, origin: str, may_lack: Sequence[str] = ()
) -> int:
    """Puts tensors into a network; every key must fit in both directions.

    Args:
        network: is changed; on the meta device it takes the tensors themselves instead of copying them.
        tensors: by the network's own keys.
        origin: the file, for the error.
        may_lack: prefixes of network keys that may be absent and then keep their values.

    Returns:
        how many tensors were loaded.

    Raises:
        FormatError: a tensor is missing, left over or of another shape; nothing was loaded.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in tensors and not key.startswith(tuple(may_lack))]
    surplus = [key for key in tensors if key not in own]
    reshaped = [key for key in own if key in tensors and own[key].shape != tensors[key].shape]
    problems = []
    for what, keys in (("missing", missing), ("not in the network", surplus), ("of another shape", reshaped)):
        if keys:
            problems.append(f"{len(keys)} {what} ({', '.join(keys[:5])}{', …' if len(keys) > 5 else ''})")
    if problems:
        raise FormatError(
            f"{origin}: does not fit the network: {'; '.join(problems)}",
            hint="choose the architecture and width the file was trained with: --arch, --set net.width=",
        )
    given = {key: value.to(own[key].dtype) for key, value in tensors.items()}
    network.load_state_dict(given, strict=False, assign=any(value.is_meta for value in own.values()))
    return len(tensors)


def pack_story(pack: Pack) -> dict[str, Any]:
    """What a checkpoint keeps of a pack it was trained on: name, fingerprint, size, source and terms."""
    kept: dict[str, Any] = {key: pack.record[key] for key in ("source", "terms") if key in pack.record}
    return {"dataset": pack.dataset, "fingerprint": pack.fingerprint, "images": len(pack), **kept}
