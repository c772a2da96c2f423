"""Detection of images that are identical byte for byte."""

from bisect import insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lupctl.core.choices import ROLE_CODES
from lupctl.core.data.checking.labels import Finding, Severity
from lupctl.core.formats.pack.samples import Samples
from lupctl.core.system.examples import NUM_EXAMPLES, count_things

TEST_ROLES = (ROLE_CODES["query"], ROLE_CODES["gallery"])


@dataclass
class _Group:
    """Rows with the same bytes: the first three, the count, and the splits they are in."""

    rows: list[int] = field(default_factory=list)
    count: int = 0
    in_train: bool = False
    in_test: bool = False

    def add(self, row: int, role: int) -> None:
        if len(self.rows) < 3:
            self.rows.append(row)
        self.count += 1
        self.in_train |= role == ROLE_CODES["train"]
        self.in_test |= role in TEST_ROLES


@dataclass
class _Tally:
    """The number of groups, and the first five of them."""

    count: int = 0
    groups: list[list[int]] = field(default_factory=list)

    def add(self, group: _Group) -> None:
        self.count += 1
        insort(self.groups, group.rows)
        del self.groups[NUM_EXAMPLES:]


def check_copies(samples: Samples, keys: NDArray[np.uint64], digest: Callable[[int], bytes]) -> list[Finding]:
    """Findings about images with the same bytes: an error if one is in train and another in query or gallery.

    Memory use is that of sorting the keys, however many copies there are.

    Args:
        samples: labels of N images.
        keys: (N) equal for equal bytes, rarely equal otherwise; 0 for images that are not compared.
        digest: a reliable checksum of one row's bytes; called only for rows whose keys are equal.
    """
    across, within = _Tally(), _Tally()
    for rows in _equal_rows(keys):
        groups: dict[bytes, _Group] = {}
        for row in rows.tolist():
            groups.setdefault(digest(row), _Group()).add(row, int(samples.role[row]))
        for group in groups.values():
            if group.count > 1:
                (across if group.in_train and group.in_test else within).add(group)
    findings = []
    if across.count:
        what = "in train and, byte for byte, also in query or gallery; scores would be too high"
        findings.append(_found(samples, "error", "copies-across", across, what))
    if within.count:
        findings.append(_found(samples, "warning", "copies", within, "there more than once, byte for byte"))
    return findings


def _equal_rows(keys: NDArray[np.uint64]) -> Iterator[NDArray[np.int64]]:
    """The rows of every key that occurs more than once, in ascending order."""
    order = np.argsort(keys, kind="stable")
    ranked = keys[order]
    same = np.flatnonzero((ranked[1:] == ranked[:-1]) & (ranked[1:] != 0))  # positions whose successor is equal
    begins = same[np.diff(same, prepend=-2) > 1]
    ends = same[np.diff(same, append=len(keys) + 1) > 1] + 2
    for begin, end in zip(begins.data, ends.data, strict=True):
        yield order[begin:end]


def _found(samples: Samples, severity: Severity, what: str, tally: _Tally, message: str) -> Finding:
    examples = [" = ".join(samples.name[row] for row in rows) for rows in tally.groups]
    return Finding(severity, what, f"{count_things(tally.count, 'image')} {message}", tally.count, examples)
