"""Merges several sources into one without labels, for pre-training."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import JUNK, ROLE_CODES, UNKNOWN_CAMERA
from lupctl.core.data.sources.digest import NAMES, source_digest
from lupctl.core.data.sources.records import CheckedSource, Source
from lupctl.core.errors import UsageError
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.strings import StringColumnBuilder, sort_rows

LEARNABLE = (ROLE_CODES["unlabelled"], ROLE_CODES["train"])


@dataclass(frozen=True)
class _Part:
    """One of the sources.

    Args:
        source: the source.
        images: number of its images that are used.
        left_out: number of its query and gallery images.
        digest: of the whole source.
        num_bytes: of the images that are used, estimated from their share; None if they are drawn.
    """

    source: Source
    images: int
    left_out: int
    digest: str
    num_bytes: int | None


class MergedSource:
    """The unlabelled and training images of several sources; images are named `dataset/original name`.

    Persons and cameras of different datasets are unrelated, so they are dropped. Query and gallery images are left out:
    features pre-trained on them would score too high on them.

    Args:
        parts: in any order, each with a different dataset name.
        dataset: the name to store in the pack.

    Raises:
        UsageError: two parts have the same name.
    """

    def __init__(self, parts: Sequence[Source], *, dataset: str) -> None:
        # `a-b/1.jpg` < `a/1.jpg`: the parts are in the order of their images' names.
        self._sources = {part.dataset: part for part in sorted(parts, key=lambda part: f"{part.dataset}/")}
        self._dataset = dataset
        if len(self._sources) < len(parts):
            names = [part.dataset for part in parts]
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(
                f"two of the merged datasets are named {twice}; their images could not be told apart",
                hint="pack one of them under another --name, then merge that pack",
            )

    @property
    def dataset(self) -> str:
        """The name to store in the pack."""
        return self._dataset

    @property
    def facts(self) -> dict[str, object]:
        """The parts with everything known about each, for the pack's record."""
        _, parts = self._merged
        terms = [(part.source.dataset, str(part.source.facts.get("terms", ""))) for part in parts]
        return {
            "layout": "merged",
            "terms": "; ".join(f"{dataset}: {text or 'not known'}" for dataset, text in terms),
            "parts": [
                {
                    **_without_names(part.source.facts),
                    "dataset": part.source.dataset,
                    "images": part.images,
                    "left_out": part.left_out,
                    "digest": part.digest,
                }
                for part in parts
            ],
        }

    @property
    def left_out(self) -> dict[str, int]:
        """The number of query and gallery images of each part that has any."""
        return {part.source.dataset: part.left_out for part in self._merged[1] if part.left_out}

    def list_images(self) -> Samples:
        """The images of all parts, sorted by name.

        Raises:
            DataError: raised by a part.
        """
        return self._merged[0]

    def read(self, name: str) -> bytes:
        """The encoded image with a given name; may be called from several threads at once."""
        dataset, _, inside = name.partition("/")
        return self._sources[dataset].read(inside)

    def read_checked(self, name: str) -> tuple[bytes, int, int] | None:
        """The same with its height and width if the part is a pack, else None."""
        dataset, _, inside = name.partition("/")
        part = self._sources[dataset]
        return part.read_checked(inside) if isinstance(part, CheckedSource) else None

    def digest(self, samples: Samples) -> tuple[str, int | None]:
        """A digest of all parts, and the approximate bytes of the images that are used."""
        _, parts = self._merged
        digest = hashlib.sha256(json.dumps([[part.source.dataset, part.digest] for part in parts]).encode())
        sizes = [part.num_bytes for part in parts if part.num_bytes is not None]
        return f"sha256:{digest.hexdigest()}", sum(sizes) if len(sizes) == len(parts) else None

    @cached_property
    def _merged(self) -> tuple[Samples, list[_Part]]:
        names = StringColumnBuilder()
        parts = []
        for dataset, source in self._sources.items():
            samples = source.list_images()
            rows = _learnable_rows(samples)
            for row in rows.data:
                names.append(f"{dataset}/{samples.name[row]}")
            digest, num_bytes = source_digest(source, samples)
            used_bytes = None if num_bytes is None else num_bytes * len(rows) // max(len(samples), 1)
            parts.append(_Part(source, len(rows), len(samples) - len(rows), digest, used_bytes))
        count = len(names)
        merged = Samples(
            name=names.build(),
            person=np.full(count, JUNK, np.int64),
            camera=np.full(count, UNKNOWN_CAMERA, np.int16),
            role=np.full(count, ROLE_CODES["unlabelled"], np.uint8),
        )
        return merged, parts


def _without_names(facts: dict[str, object]) -> dict[str, object]:
    """What is known about a part, without the names of persons and cameras: the merged images have no labels."""
    return {
        key: _without_names(value) if key == "source" and isinstance(value, dict) else value
        for key, value in facts.items()
        if key not in NAMES
    }


def _learnable_rows(samples: Samples) -> NDArray[np.int64]:
    """Rows that may be trained on, in the order of their names."""
    rows = np.flatnonzero(np.isin(samples.role, LEARNABLE))
    return rows[sort_rows(samples.name.take(rows))]
