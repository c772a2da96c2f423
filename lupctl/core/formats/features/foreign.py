"""Features made by other programs: an HDF5 file without lupctl's record, or a NumPy archive."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import h5py
import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.errors import FormatError
from lupctl.core.formats.features.file import (
    FEATURES_SUFFIX,
    TYPES,
    Features,
    FeaturesHead,
    map_matrix,
    read_features,
    read_features_head,
    read_features_record,
)
from lupctl.core.formats.pack.samples import COLUMN_TYPES, GROUP, Samples
from lupctl.core.formats.record import DAMAGE, RECORD_ATTRIBUTE, check_columns
from lupctl.core.system.disk.limits import check_zip
from lupctl.core.system.strings import build_column

ARCHIVE_SUFFIX = ".npz"
ARCHIVE_ROLES: Final[tuple[Role, ...]] = ("query", "gallery")
ARRAYS = tuple(f"{role}_{what}" for role in ARCHIVE_ROLES for what in ("features", "persons", "cameras"))
HINT = "an .npz has {}; an HDF5 file has features and samples/person, camera, role (2 query, 3 gallery)".format(
    ", ".join(ARRAYS)
)
MADE_ELSEWHERE = "made_elsewhere"


def read_any_features(path: Path) -> Features:
    """Read a features file of lupctl, or one made elsewhere, whose record then says little more than `made_elsewhere`.

    Vectors of other number types are converted to float32. Images without names are named after their rows.

    Raises:
        DataError: there is no such file.
        FormatError: it is neither of them, or its parts do not fit together.
    """
    if is_archive(path):
        return _read_archive(path)
    if is_bare(path):
        return _read_bare(path)
    return read_features(path)


def read_any_head(path: Path) -> FeaturesHead:
    """The head of such a file; the vectors of lupctl's own files are not read.

    Raises:
        DataError, FormatError: as `read_any_features`.
    """
    if not (is_archive(path) or is_bare(path)):
        return read_features_head(path)
    features = read_any_features(path)
    rows, dimension = features.features.shape
    return FeaturesHead(
        shape=(rows, dimension),
        type_name=features.features.dtype.name,
        samples=features.samples,
        record=features.record,
    )


def read_any_record(path: Path) -> Mapping[str, Any]:
    """The record of such a file; neither its samples nor its vectors are read.

    Raises:
        DataError, FormatError: as `read_any_features`.
    """
    return _record_of(path) if is_archive(path) or is_bare(path) else read_features_record(path)


def is_made_elsewhere(record: Mapping[str, Any]) -> bool:
    """Whether a record was made up for a file that had none."""
    return bool(record.get(MADE_ELSEWHERE))


def is_archive(path: Path) -> bool:
    """Whether a path is a NumPy archive."""
    return path.suffix == ARCHIVE_SUFFIX and path.is_file()


def is_bare(path: Path) -> bool:
    """Whether a path is an HDF5 file with features and without lupctl's record."""
    if not path.is_file():
        return False
    try:
        with h5py.File(path, "r", locking=False) as file:
            return RECORD_ATTRIBUTE not in file.attrs and "features" in file and GROUP in file
    except DAMAGE:
        return False  # the strict reader reports whatever is wrong with it


def _read_archive(path: Path) -> Features:
    if not zipfile.is_zipfile(path):
        raise FormatError(f"{path}: not a NumPy archive, or cut short", hint=HINT)
    check_zip(path)
    try:
        with np.load(path, allow_pickle=False) as archive:
            missing = [name for name in ARRAYS if name not in archive.files]
            if missing:
                raise FormatError(f"{path}: has no {missing[0]} (it has {', '.join(archive.files)})", hint=HINT)
            arrays = {name: archive[name] for name in ARRAYS}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: not readable as a NumPy archive ({error})", hint=HINT) from error
    parts = []
    for role in ARCHIVE_ROLES:
        vectors = _as_vectors(arrays[f"{role}_features"], path, f"{role}_features")
        person = _as_numbers(arrays[f"{role}_persons"], path, f"{role}_persons", len(vectors), "person")
        camera = _as_numbers(arrays[f"{role}_cameras"], path, f"{role}_cameras", len(vectors), "camera")
        parts.append((role, vectors, person, camera))
    (_, queries, *_), (_, gallery, *_) = parts
    if queries.shape[1] != gallery.shape[1]:
        raise FormatError(
            f"{path}: query_features has {queries.shape[1]} values per row and gallery_features {gallery.shape[1]}; "
            "features of one network all have the same length",
            hint=HINT,
        )
    samples = Samples(
        person=np.concatenate([person for _, _, person, _ in parts]),
        camera=np.concatenate([camera for *_, camera in parts]),
        role=np.concatenate([np.full(len(vectors), ROLE_CODES[role], np.uint8) for role, vectors, *_ in parts]),
        name=build_column(f"{role} {row}" for role, vectors, *_ in parts for row in range(len(vectors))),
    )
    return Features(features=np.concatenate([queries, gallery]), samples=samples, record=_record_of(path))


def _read_bare(path: Path) -> Features:
    try:
        with h5py.File(path, "r", locking=False) as file:
            check_columns(file, path)
            missing = [column for column in COLUMN_TYPES if f"{GROUP}/{column}" not in file]
            if missing:
                raise FormatError(f"{path}: has no {GROUP}/{missing[0]}", hint=HINT)
            vectors = _as_vectors(_open_matrix(file["features"], path), path, "features")
            columns = {
                column: _as_numbers(file[f"{GROUP}/{column}"][()], path, f"{GROUP}/{column}", len(vectors), column)
                for column in COLUMN_TYPES
            }
            named = f"{GROUP}/name" in file
            names = (
                [str(name) for name in file[f"{GROUP}/name"].asstr()[()]]
                if named
                else [f"row {row}" for row in range(len(vectors))]
            )
    except DAMAGE as error:
        raise FormatError(f"{path}: damaged ({error})", hint=HINT) from error
    if len(names) != len(vectors):
        raise FormatError(f"{path}: {len(names)} names for {len(vectors)} features", hint=HINT)
    samples = Samples(
        person=columns["person"], camera=columns["camera"], role=columns["role"], name=build_column(names)
    )
    return Features(features=vectors, samples=samples, record=_record_of(path))


def _open_matrix(dataset: h5py.Dataset, path: Path) -> NDArray[Any]:
    """A floating-point matrix, memory-mapped if possible; anything else as it is."""
    is_matrix = dataset.ndim == 2 and dataset.dtype.kind == "f"
    return map_matrix(dataset, path) if is_matrix else np.asarray(dataset[()])


def _as_vectors(values: NDArray[Any], path: Path, name: str) -> NDArray[Any]:
    if values.ndim != 2 or values.dtype.kind != "f":
        raise FormatError(
            f"{path}: {name} is {values.dtype} of shape {values.shape}; a floating-point matrix was expected",
            hint=HINT,
        )
    # A float64 beyond the range of float32 becomes infinite, which scoring rejects with the name of the image.
    with np.errstate(over="ignore"):
        return values if values.dtype.name in TYPES and values.dtype.isnative else values.astype(np.float32)


def _as_numbers(values: NDArray[Any], path: Path, name: str, count: int, column: str) -> NDArray[Any]:
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise FormatError(
            f"{path}: {name} is {values.dtype} of shape {values.shape}; {count} whole numbers were expected, "
            "one for each row of features",
            hint=HINT,
        )
    kind = COLUMN_TYPES[column]
    ends = np.iinfo(kind)
    if count and not (ends.min <= int(values.min()) and int(values.max()) <= ends.max):
        raise FormatError(
            f"{path}: {name} ranges from {values.min()} to {values.max()}; {ends.min} to {ends.max} was expected",
            hint=HINT,
        )
    return values.astype(kind)


def _record_of(path: Path) -> dict[str, Any]:
    return {MADE_ELSEWHERE: True, "dataset": path.name.removesuffix(FEATURES_SUFFIX).removesuffix(ARCHIVE_SUFFIX)}
