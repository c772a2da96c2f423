"""A source whose images get their roles from a split."""

import hashlib
from functools import cached_property

import numpy as np

from lupctl.core.choices import ROLE_CODES
from lupctl.core.data.sources.digest import source_digest
from lupctl.core.data.sources.records import CheckedSource, Source
from lupctl.core.data.sources.splits.divide import divide
from lupctl.core.data.sources.splits.rule import SplitRule
from lupctl.core.data.sources.tree import sort_samples
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import SPLIT_KEY, PackSplit


class SplitSource:
    """The images of a source with labels and without queries, divided into train, query and gallery.

    Args:
        source: the images.
        rule: how they are divided.
        dataset: the name to store in the pack.
    """

    def __init__(self, source: Source, rule: SplitRule, *, dataset: str) -> None:
        self._source = source
        self._rule = rule
        self._dataset = dataset

    @property
    def dataset(self) -> str:
        """The name to store in the pack."""
        return self._dataset

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from, and how they were divided, for the pack's record."""
        return {**self._source.facts, SPLIT_KEY: self.split.model_dump(mode="json")}

    @property
    def split(self) -> PackSplit:
        """How they were divided."""
        return self._divided[1]

    def list_images(self) -> Samples:
        """The images with their new roles, sorted by (role, name).

        Raises:
            UsageError, DataError: raised by the source, or they cannot be divided by this rule.
        """
        return self._divided[0]

    def read(self, name: str) -> bytes:
        """The encoded image with a given name; may be called from several threads at once."""
        return self._source.read(name)

    def read_checked(self, name: str) -> tuple[bytes, int, int] | None:
        """The same with its height and width if the source is a pack, else None."""
        return self._source.read_checked(name) if isinstance(self._source, CheckedSource) else None

    def digest(self, samples: Samples) -> tuple[str, int | None]:
        """A digest of the source, the rule and the roles; and about how many bytes the images have."""
        whole = self._listed
        digest, num_bytes = source_digest(self._source, whole)
        # The path of a split file may change, its content may not.
        rule = self._rule.text if self._rule.path is None else self.split.digest
        mixed = hashlib.sha256(f"{digest} {rule} {self.split.seed} {self.split.protocol}".encode())
        mixed.update(np.ascontiguousarray(samples.role).data)
        for part in samples.name.joined():
            mixed.update(part)
        used = None if num_bytes is None else num_bytes * len(samples) // max(len(whole), 1)
        return f"sha256:{mixed.hexdigest()}", used

    @cached_property
    def _listed(self) -> Samples:
        return self._source.list_images()

    @cached_property
    def _divided(self) -> tuple[Samples, PackSplit]:
        samples = self._listed
        role, split = divide(samples, self._rule, dataset=self.dataset)
        kept = Samples(person=samples.person, camera=samples.camera, role=role, name=samples.name)
        if split.left_out:
            kept = kept.select(np.flatnonzero(role != ROLE_CODES["unlabelled"]))
        return sort_samples(kept), split
