"""Tensors from files that other programs wrote. Nothing in them is ever executed."""

import argparse
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from lupctl.core.choices import Encoder
from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk.limits import check_zip
from lupctl.core.system.disk.reading import say_missing

# Published files keep the network's tensors under these names, next to optimizer state and counters; a file of
# self-distillation has two networks, of which PersonViT's call the averaged one by other names, too.
WRAPPERS = ("state_dict", "model")
NETWORKS: dict[Encoder, tuple[str, ...]] = {
    "student": ("student",),
    "teacher": ("teacher", "module", "target_encoder"),
}


class _Number:
    """Takes the place of numpy's scalars and their types: what they would be made from is dropped."""

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, _: object) -> None:
        pass


# DINO's files keep the arguments of its command line, and numpy's numbers as rates of its optimizer. A namespace holds
# values and does nothing; of numpy, nothing is called.
HARMLESS: Final[tuple[Callable[..., Any] | tuple[Callable[..., Any], str], ...]] = (
    argparse.Namespace,
    *((_Number, name) for name in ("numpy.dtype", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar")),
)
SAFETENSORS = ".safetensors"
# Files that are no weights, and easily typed in their place.
OTHER_FILES = {".h5": "a pack or features", ".hdf5": "a pack or features", ".onnx": "an ONNX network"}


@dataclass(frozen=True)
class ForeignState:
    """The tensors of one network in a file.

    Args:
        tensors: by their keys in it; floating point as float32.
        inside: names of the dictionaries that they are in, from the outside; empty at the top level.
        beside: names of what these dictionaries are next to: another network, an optimizer, counters, DINO's centre.
    """

    tensors: dict[str, Tensor]
    inside: tuple[str, ...]
    beside: tuple[str, ...] = ()


def read_foreign(path: Path, *, encoder: Encoder | None = None) -> ForeignState:
    """The tensors of a `.pth` or safetensors file.

    A torch file is opened with `weights_only=True`, which builds tensors, plain containers and argument namespaces,
    drops numbers of numpy, and rejects all else.

    Args:
        path: the file.
        encoder: which network of a file of self-distillation: the trained one (q, student) or its average (k, teacher),
            from which published networks are made; None for the average.

    Raises:
        DataError: there is no such file.
        FormatError: it is neither of them, has no tensors, lacks the requested network, or contains objects that would
            have to be executed.
    """
    return _find_state(_read(path), path, encoder)


def read_pair(path: Path) -> dict[Encoder, ForeignState]:
    """Student and teacher of a file of self-distillation, in this order.

    Raises:
        DataError, FormatError: as `read_foreign`; or it does not have both.
    """
    loaded = _read(path)
    for one in WRAPPERS:
        loaded = loaded[one] if isinstance(loaded, Mapping) and isinstance(loaded.get(one), Mapping) else loaded
    asked: tuple[Encoder, ...] = ("student", "teacher")
    names = {name for one in asked for name in NETWORKS[one]} & set(loaded if isinstance(loaded, Mapping) else ())
    lacking = [one for one in asked if names.isdisjoint(NETWORKS[one])]
    if lacking:
        raise FormatError(
            f"{path}: has no {' and no '.join(lacking)}; a training checkpoint of self-distillation has student and "
            "teacher with their heads",
            hint="leave out --training to convert the one network that is there",
        )
    return {one: _find_state(loaded, path, one) for one in asked}


def _read(path: Path) -> Any:
    """What a file of weights has, before it is known where in it the tensors are.

    Raises:
        DataError: there is no such file.
        FormatError: it is of another kind, damaged, or contains objects that would have to be executed.
    """
    if not path.is_file():
        raise DataError(f"{path}: {say_missing(path)}", hint="name a weight file, as in market.pth")
    if path.suffix in OTHER_FILES:
        raise FormatError(
            f"{path}: {OTHER_FILES[path.suffix]}; weights were expected, as a .pth or .safetensors file",
            hint="lupctl model list",
        )
    return _read_safetensors(path) if path.suffix == SAFETENSORS else _read_torch(path)


def _find_state(loaded: Any, path: Path, encoder: Encoder | None) -> ForeignState:
    """The tensors in what a file has; see `read_foreign`."""
    asked: Encoder = "student" if encoder in ("q", "student") else "teacher"
    inside, beside = list[str](), list[str]()
    for name in (*WRAPPERS, *NETWORKS[asked]):
        if isinstance(loaded, Mapping) and isinstance(loaded.get(name), Mapping):
            check_pair(loaded, name, asked, path)
            beside += [str(other) for other in loaded if other != name]
            loaded = loaded[name]
            inside.append(name)
    tensors = {}
    if isinstance(loaded, Mapping):
        tensors = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
        if not tensors:
            check_other(loaded, asked, path)
    if not tensors:
        raise FormatError(
            f"{path}: contains {type(loaded).__name__} without tensors; expected the state of a network",
            hint="a published checkpoint has them at the top level or under 'model', 'state_dict' or 'teacher'",
        )
    plain = {key: value.float() if value.is_floating_point() else value for key, value in tensors.items()}
    return ForeignState(plain, tuple(inside), tuple(beside))


def check_other(loaded: Mapping[Any, Any], asked: Encoder, path: Path) -> None:
    """Fails if a file of self-distillation has only the network that was not asked for.

    Raises:
        FormatError: it has.
    """
    other: Encoder = "teacher" if asked == "student" else "student"
    found = next((name for name in NETWORKS[other] if isinstance(loaded.get(name), Mapping)), None)
    if found is not None:
        raise FormatError(f"{path}: has no {asked}, but a {found}", hint=f"--encoder {other} takes that")


def check_pair(loaded: Mapping[Any, Any], name: str, asked: Encoder, path: Path) -> None:
    """Fails if the two networks of a file of self-distillation differ in size: one is the average of the other.

    Args:
        loaded: what the file has.
        name: of the network in it that was asked for, or of what is around it.
        asked: which of the two that is.
        path: of the file, for the error.

    Raises:
        FormatError: they do; names the first tensor of two shapes.
    """
    other: Encoder = "teacher" if asked == "student" else "student"
    found = next((one for one in NETWORKS[other] if isinstance(loaded.get(one), Mapping)), None)
    if name not in NETWORKS[asked] or found is None:
        return
    mine, theirs = (_shapes(loaded[one]) for one in (name, found))
    for key in mine:
        if mine[key] != theirs.get(key, mine[key]):
            raise FormatError(
                f"{path}: {key} is {describe_shape(mine[key])} in its {name} and {describe_shape(theirs[key])} in its "
                f"{found}; one is the average of the other, so both have the same widths",
                hint="get the file again from where it was published",
            )


def _shapes(state: Mapping[Any, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors by their keys, without the prefix of distributed training."""
    return {
        str(key).removeprefix("module."): tuple(value.shape)
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def describe_shape(shape: tuple[int, ...]) -> str:
    """A shape as it is written.

    >>> describe_shape((2, 3)), describe_shape(())
    ('2 x 3', 'a number')
    """
    return " x ".join(map(str, shape)) or "a number"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError, ValueError) as error:
        raise FormatError(f"{path}: not a complete safetensors file ({error})", hint="download it again") from error


def _read_torch(path: Path) -> Any:
    if zipfile.is_zipfile(path):
        check_zip(path)
    try:
        # Warnings are about pickle protocols; what cannot be read is an error below.
        with warnings.catch_warnings(), torch.serialization.safe_globals(list(HARMLESS)):
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise FormatError(
            f"{path}: contains more than tensors and plain values ({_first_reason(error)}); it was not opened",
            hint="files that execute code when they are read are not trusted; get one with only the weights",
        ) from error
    except Exception as error:  # unpickling damaged bytes can raise anything, from the lack of memory to a bad index
        raise FormatError(
            f"{path}: not a complete torch file ({_first_reason(error)})", hint="download it again"
        ) from error


def _first_reason(error: Exception) -> str:
    """One line of torch's message, which is long."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    reason = next((line for line in lines if "GLOBAL" in line or "Unsupported" in line), lines[0] if lines else "")
    return reason.partition(". ")[0].removesuffix(".")[:160]
