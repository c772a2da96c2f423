"""Tensors out of files that other programs wrote. Nothing in them is ever executed."""

import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lupctl.core.errors import DataError, FormatError

# Under these names published files keep the network's tensors, beside optimizer and counters.
WRAPPERS = ("state_dict", "model")
SAFETENSORS = ".safetensors"


def read_foreign(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.pth` or safetensors file, by the keys they have there; floating point as float32.

    A file of torch is opened with `weights_only=True`, which builds tensors and plain containers and refuses all else.

    Raises:
        DataError: there is no such file.
        FormatError: it is neither, holds objects that would have to be executed, or no tensors.
    """
    if not path.is_file():
        raise DataError(f"{path}: there is no such file", hint="name a file of weights, as in market.pth")
    loaded: Any = _read_safetensors(path) if path.suffix == SAFETENSORS else _read_torch(path)
    for name in WRAPPERS:
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            loaded = loaded[name]
    tensors = {}
    if isinstance(loaded, Mapping):
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not tensors:
        raise FormatError(
            f"{path}: holds {type(loaded).__name__} without tensors; expected a network's state",
            hint="a published checkpoint has them at the top or under 'model' or 'state_dict'",
        )
    return {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path}: not a whole safetensors file ({error})", hint="download it again") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():  # about pickle protocols; what cannot be read is an error below
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path}: holds more than tensors and plain values ({_first_reason(error)}); it was not opened",
            hint="a file that needs code to be read is not trusted; get one with weights alone",
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise FormatError(
            f"{path}: not a whole file of torch ({_first_reason(error)})", hint="download it again"
        ) from error


def _first_reason(error: Exception) -> str:
    """One line of what torch says, which is long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else "")
    return told.partition(". ")[0].removesuffix(".")[:160]
