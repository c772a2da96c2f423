"""One or several features files, read for one evaluation."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.features.cameras import CAMERAS_KEY, CameraCounts, read_counts, sum_counts
from lupctl.core.formats.features.file import FeaturesHead
from lupctl.core.formats.features.foreign import is_made_elsewhere, read_any_features, read_any_head
from lupctl.core.formats.features.precision import join_precisions
from lupctl.core.formats.pack.samples import Samples, concatenate_samples
from lupctl.core.formats.weights.settings import Settings, read_settings
from lupctl.core.ranking.metrics.stacked import StackedRows
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.progress.lines import Progress

SHOWN = len("sha256:") + 12


@dataclass(frozen=True)
class JoinedFeatures:
    """Features of one network from one or several files.

    Args:
        vectors: N rows, not normalised.
        samples: person, camera and role of each image, in the same order.
        record: of the first file, with the datasets and the parents of all.
    """

    vectors: StackedRows
    samples: Samples
    record: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.samples)


def read_joined(paths: Sequence[Path], *, progress: Progress) -> JoinedFeatures:
    """The rows of all files, one file after the other; vectors that can be mapped from a file stay on disk.

    Args:
        paths: features files of one network, at least one.
        progress: warns if the network is unknown.

    Raises:
        DataError: a file does not exist or is damaged, or the features are of different networks or lengths.
        UsageError: a file is named twice.
    """
    heads = check_joinable(paths, progress=progress) if len(paths) > 1 else []
    parts = [read_any_features(path) for path in paths]
    return JoinedFeatures(
        vectors=StackedRows([part.features for part in parts]),
        samples=concatenate_samples([part.samples for part in parts]),
        record=join_records(heads) if heads else parts[0].record,
    )


def read_joined_head(paths: Sequence[Path], *, progress: Progress) -> FeaturesHead:
    """The same as `read_joined` without the vectors.

    Raises:
        DataError, UsageError: as `read_joined`.
    """
    if len(paths) == 1:
        return read_any_head(paths[0])
    heads = check_joinable(paths, progress=progress)
    samples: Samples = concatenate_samples([head.samples for head in heads])
    return FeaturesHead(
        shape=(len(samples), heads[0].shape[1]),
        type_name=heads[0].type_name,
        samples=samples,
        record=join_records(heads),
    )


def check_joinable(paths: Sequence[Path], *, progress: Progress) -> list[FeaturesHead]:
    """Refuses files whose distances to each other would be meaningless.

    Raises:
        DataError, UsageError: as `read_joined`.
    """
    prints = [file_fingerprint(path) if path.is_file() else str(path) for path in paths]
    for index, (path, digest) in enumerate(zip(paths, prints, strict=True)):
        if digest in prints[:index]:
            raise UsageError(f"{path}: the same features are given twice", hint=f"lupctl eval {path}")
    heads = [read_any_head(path) for path in paths]
    for path, head in zip(paths[1:], heads[1:], strict=True):
        if head.shape[1] != heads[0].shape[1]:
            raise DataError(
                f"{path}: {head.shape[1]} values per image, but {paths[0]} has {heads[0].shape[1]}; "
                "features of one network were expected",
                hint="dump both with the same checkpoint: lupctl dump RUN DATASET",
            )
        _check_network(path, network_of(head.record), paths[0], network_of(heads[0].record))
        _check_rule(path, read_counts(head.record), paths[0], read_counts(heads[0].record))
        _check_settings(path, read_settings(head.record), paths[0], read_settings(heads[0].record))
    if any(is_made_elsewhere(head.record) for head in heads):
        progress.warn("features made elsewhere name no network: these may come from different ones")
    return heads


def network_of(record: Mapping[str, Any]) -> str | None:
    """Fingerprint of the checkpoint that made some features; None where the record names none."""
    found = (record.get("parents") or {}).get("checkpoint")
    return None if found is None else str(found)


def join_records(heads: Sequence[FeaturesHead]) -> dict[str, Any]:
    """The record of the first file, with the datasets, the parents, the precisions and the counts of cameras of all."""
    datasets = list(dict.fromkeys(str(head.record.get("dataset", "unknown")) for head in heads))
    parents: dict[str, Any] = {}
    for head in heads:
        parents |= head.record.get("parents") or {}
    counts = [made for head in heads if (made := read_counts(head.record)) is not None]
    cameras = {CAMERAS_KEY: asdict(sum_counts(counts))} if counts else {}
    precision = join_precisions([head.record for head in heads])
    return {**heads[0].record, "dataset": " + ".join(datasets), "parents": parents, **precision, **cameras}


def _check_rule(path: Path, made: CameraCounts | None, first: Path, other: CameraCounts | None) -> None:
    """Features with and without a camera's row are not comparable; by `known` and `mean` a known camera has its own."""
    if made is not None and other is not None and (made.rule == "none") != (other.rule == "none"):
        raise DataError(
            f"{path}: by the rule {made.rule} for cameras, but {first} by {other.rule}; distances between features "
            "with and without a camera's row mean little",
            hint=f"dump both by one rule: lupctl dump RUN DATASET --cameras {other.rule}",
        )


def _check_settings(path: Path, found: Settings, first: Path, expected: Settings) -> None:
    """A network with another setting is another network."""
    if found != expected:
        said, wanted = (" ".join(one.given()) or "nothing" for one in (found, expected))
        more = "".join(f" --set {one}" for one in expected.given())
        raise DataError(
            f"{path}: made with {said} set, but {first} with {wanted}; distances between features of two networks mean "
            "nothing",
            hint=f"dump both with the same settings: lupctl dump RUN DATASET{more}",
        )


def _check_network(path: Path, network: str | None, first: Path, expected: str | None) -> None:
    if network != expected:
        found, wanted = (value[:SHOWN] if value else "no network at all" for value in (network, expected))
        raise DataError(
            f"{path}: made by checkpoint {found}, but {first} by {wanted}; distances between features of two "
            "networks mean nothing",
            hint="dump both with the same checkpoint: lupctl dump RUN DATASET",
        )
