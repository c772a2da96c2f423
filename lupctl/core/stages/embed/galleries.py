"""The gallery of a search from Python: a features file, or vectors."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.features.foreign import read_any_features
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.weights.settings import read_settings
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.retrieval.inputs import SHOWN, network_of
from lupctl.core.ranking.retrieval.score import check_directions
from lupctl.core.stages.embed.opened import Opened


@dataclass(frozen=True)
class Gallery:
    """What is searched.

    Args:
        units: its G features.
        samples: who is on each image; None for vectors alone.
        record: of the features file.
    """

    units: UnitRows
    samples: Samples | None = None
    record: Mapping[str, Any] = field(default_factory=dict)


def open_gallery(opened: Opened, gallery: Any, device: torch.device) -> Gallery:
    """The gallery of a network.

    Args:
        opened: the network.
        gallery: a features file, or (G, D) numbers.
        device: where cosines are computed.

    Raises:
        DataError: there is no such file, it is empty, of another network, or has features without a direction.
        UsageError: the numbers are no such matrix.
    """
    if isinstance(gallery, str | os.PathLike):
        return _open_file(opened, Path(gallery), device)
    vectors = read_vectors(gallery, opened.dimension, what="gallery")
    if not len(vectors):
        raise UsageError("gallery: has no rows", hint="net.embed(images) makes some")
    return Gallery(check_vectors(vectors, device, what="gallery"))


def is_vectors(given: Any) -> bool:
    """Whether something is features and no images: floating-point numbers in one or two dimensions, on any side of 0.

    A grey image may be one, too, and then is taken for features; as uint8 it is none.
    """
    return isinstance(given, np.ndarray | Tensor) and given.ndim in (1, 2) and "float" in str(given.dtype)


def read_vectors(given: Any, dimension: int, *, what: str) -> NDArray[np.float32]:
    """(N, D) float32; a single vector is one row.

    Raises:
        UsageError: it is none.
    """
    array = given.detach().float().cpu().numpy() if isinstance(given, Tensor) else np.asarray(given)
    vectors = array[None] if array.ndim == 1 else array
    if vectors.ndim != 2 or vectors.dtype.kind != "f" or vectors.shape[1] != dimension:
        raise UsageError(
            f"{what}: {array.dtype} of shape {array.shape}; features (N, {dimension}) of this network were expected",
            hint="net.embed(images) makes them",
        )
    return np.ascontiguousarray(vectors, np.float32)


def check_vectors(vectors: NDArray[np.float32], device: torch.device, *, what: str) -> UnitRows:
    """The same as unit vectors.

    Raises:
        DataError: one has no direction.
    """
    units = UnitRows(vectors, np.arange(len(vectors)), device=device)
    broken = np.flatnonzero(~np.isfinite(units.norm) | (units.norm == 0))
    if len(broken):
        raise DataError(
            f"{what}: row {int(broken[0])} is a feature without a direction, as NaN or zeros are",
            hint="use another network, or leave it out",
        )
    return units


def _open_file(opened: Opened, path: Path, device: torch.device) -> Gallery:
    features = read_any_features(path)
    samples, record = features.samples, features.record
    if not len(samples):
        raise DataError(f"{path}: has no images", hint=f"lupctl dump {opened.path} DATASET --force")
    made_by = network_of(record)
    if made_by is None:
        warnings.warn(f"{path}: names no network, so it is unknown whether {opened.path} made it", stacklevel=4)
    elif made_by != opened.fingerprint:
        raise DataError(
            f"{path}: made by checkpoint {made_by[:SHOWN]}, but {opened.path} is {opened.fingerprint[:SHOWN]}; "
            "distances between features of two networks mean nothing",
            hint="load the network that made it",
        )
    check_settings(record, str(path))
    if features.features.shape[1] != opened.dimension:
        raise DataError(
            f"{path}: {features.features.shape[1]} values per image, but {opened.path} gives {opened.dimension}",
            hint="load the network that made it",
        )
    check_directions(features.features, samples, device=device)
    return Gallery(UnitRows(features.features, np.arange(len(samples)), device=device), samples, record)


def check_settings(record: Mapping[str, Any], origin: str) -> None:
    """Refuses features of a network of which something was set: a loaded one is as it was trained.

    Raises:
        DataError: they are such features.
    """
    given = read_settings(record).given()
    if given:
        raise DataError(
            f"{origin}: made with {' '.join(given)} set of the network, and a loaded one is as it was trained",
            hint="lupctl dump without --set makes features of the network as it was trained",
        )
