"""Checkpoints and method files: safetensors with everything needed to use them in the header."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from lupctl.core.errors import FormatError
from lupctl.core.formats.pack.read import Pack
from lupctl.core.formats.weights.header import (
    HEADER_KEY,
    CheckpointHeader,
    Kind,
    PackReference,
    format_header,
    open_tensors,
    parse_header,
)
from lupctl.core.system.disk.atomic import atomic_path, file_fingerprint
from lupctl.core.system.examples import name_some


@dataclass(frozen=True)
class Checkpoint:
    """A network's tensors and their header.

    Args:
        path: the file.
        tensors: by key, on the CPU.
        header: what they are and how they were made.
    """

    path: Path
    tensors: dict[str, Tensor]
    header: CheckpointHeader

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the file."""
        return file_fingerprint(self.path)


def write_checkpoint(path: Path, tensors: Mapping[str, Tensor], header: CheckpointHeader) -> None:
    """Write a checkpoint completely or not at all; the same tensors and header give the same bytes.

    Args:
        path: the file.
        tensors: by key; copied to the CPU.
        header: of the network that they belong to.
    """
    _write(path, tensors, header, "checkpoint")


def write_method(path: Path, tensors: Mapping[str, Tensor], header: CheckpointHeader) -> None:
    """Write every network of a pre-training method, so that another method can start from them.

    Args:
        path: the file.
        tensors: by key, prefixed by the name of its network, as in `teacher.backbone.conv1.weight`; copied to the CPU.
        header: that of the checkpoint written next to it.
    """
    _write(path, tensors, header, "method")


def read_checkpoint(path: Path) -> Checkpoint:
    """A checkpoint with its tensors.

    Raises:
        DataError: there is no such file.
        FormatError: not a checkpoint of lupctl, cut short, of another format, or with an invalid header.
    """
    return _read(path, "checkpoint")


def read_method(path: Path) -> Checkpoint:
    """The tensors of every network of a pre-training method, prefixed by the networks' names.

    Raises:
        DataError: there is no such file.
        FormatError: not a method file of lupctl, cut short, of another format, or with an invalid header.
    """
    return _read(path, "method")


def _write(path: Path, tensors: Mapping[str, Tensor], header: CheckpointHeader, kind: Kind) -> None:
    plain = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
    with atomic_path(path) as partial:
        save_file(plain, partial, metadata={HEADER_KEY: format_header(header, kind)})


def _read(path: Path, kind: Kind) -> Checkpoint:
    with open_tensors(path, framework="pt") as file:
        header = parse_header(path, file.metadata(), kind)
        return Checkpoint(path, {key: file.get_tensor(key) for key in file.keys()}, header)  # noqa: SIM118


def load_strictly(
    network: nn.Module, tensors: Mapping[str, Tensor], *, origin: str, may_lack: tuple[str, ...] = ()
) -> int:
    """Load tensors into a network; every key must match in both directions.

    Args:
        network: modified; on the meta device it takes the tensors themselves instead of copying them.
        tensors: by the network's own keys.
        origin: the file, for the error.
        may_lack: prefixes of network keys that may be absent and then keep their values.

    Returns:
        number of loaded tensors.

    Raises:
        FormatError: a tensor is missing, unexpected or of another shape; nothing was loaded.
    """
    own = network.state_dict()
    missing = [key for key in own if key not in tensors and not key.startswith(may_lack)]
    surplus = [key for key in tensors if key not in own]
    reshaped = [key for key in own if key in tensors and own[key].shape != tensors[key].shape]
    problems = []
    for what, keys in (("missing", missing), ("not in the network", surplus), ("of another shape", reshaped)):
        if keys:
            problems.append(f"{len(keys)} {what} ({name_some(keys)})")
    if problems:
        raise FormatError(
            f"{origin}: does not fit the network: {'; '.join(problems)}",
            hint="choose the architecture and width that the file was trained with: --arch, --set net.width=",
        )
    given = {key: value.to(own[key].dtype) for key, value in tensors.items()}
    network.load_state_dict(given, strict=False, assign=any(value.is_meta for value in own.values()))
    return len(tensors)


def _without_truth(source: dict[str, Any]) -> dict[str, Any]:
    """What a pack's record says of its source, without the true person of every image, which the pack alone keeps."""
    noise = source.get("label_noise")
    if not isinstance(noise, dict):
        return source
    return {**source, "label_noise": {name: value for name, value in noise.items() if name != "true_persons"}}


def pack_reference(pack: Pack) -> PackReference:
    """What a checkpoint keeps of a pack it was trained on: name, fingerprint, size, source and terms."""
    source, terms = pack.record.get("source"), pack.record.get("terms")
    return PackReference(
        dataset=pack.dataset,
        fingerprint=pack.fingerprint,
        images=len(pack),
        source=_without_truth(source) if isinstance(source, dict) else None,
        terms=terms if isinstance(terms, str) else None,
    )
