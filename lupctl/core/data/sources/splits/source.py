"""A source whose images get their roles from a split."""

import hashlib
from functools import cached_property
from typing import Final

import numpy as np

from lupctl.core.choices import ROLE_CODES, Role
from lupctl.core.data.sources.digest import source_digest
from lupctl.core.data.sources.records import Source
from lupctl.core.data.sources.splits.divide import divide
from lupctl.core.data.sources.splits.rule import SplitRule
from lupctl.core.data.sources.tree import sort_samples
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.split import SPLIT_KEY, PackSplit

TESTED_ROLES: Final[tuple[Role, ...]] = ("train", "query", "gallery")


class SplitSource:
    """The images of a source with labels and without queries, divided into train, query and gallery.

    Args:
        source: the images.
        rule: how they are divided.
    """

    def __init__(self, source: Source, rule: SplitRule) -> None:
        self._source = source
        self._rule = rule

    @property
    def dataset(self) -> str:
        """The name to store in the pack."""
        return self._source.dataset

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


def describe_split(split: PackSplit) -> list[str]:
    """The split in a few lines: what each role has, and what a user may not expect."""
    drawn = f", seed {split.seed}" if split.seed is not None else ""
    counts = [f"{role} {split.images[role]:,} images of {split.persons[role]:,} persons" for role in TESTED_ROLES]
    remarks = [line for count, line in _remarks(split) if count]
    return [f"split {split.rule}{drawn}: {', '.join(counts)}", *remarks]


def _remarks(split: PackSplit) -> list[tuple[int, str]]:
    alone = "are seen by one camera alone" if split.protocol == "market1501" else "have one image alone"
    reason = "have no query in it" if split.kind == "file" else f"{alone} there and are not searched for"
    both = f"{split.shared:,} persons are in train and in the test"
    shared = split.images["query"] if split.protocol != "market1501" else 0
    unlabelled = split.images["unlabelled"]
    return [
        (split.no_query, f"{split.no_query:,} persons of the gallery {reason}"),
        (shared, f"nobody is seen by two cameras, so matches from the query's own camera count as right: protocol "
         f"{split.protocol}"),
        (split.shared if split.closed_set else 0, f"a closed set by its split: {both}"),
        (0 if split.closed_set else split.shared, f"{both}; its scores will be too high"),
        (split.distractors, f"{split.distractors:,} images of person 0 are distractors in the gallery"),
        (unlabelled, f"{unlabelled:,} images without a person stay unlabelled"),
        (split.no_camera, f"{split.no_camera:,} images have no camera; they count as one camera"),
        (split.left_out, f"{split.left_out:,} images are not in {split.rule} and are left out"),
    ]  # fmt: skip
