"""A dataset before it is packed: what images there are, and how to get the bytes of one."""

from typing import Protocol, runtime_checkable

from lupctl.core.formats.pack.samples import Samples


class Source(Protocol):
    """Something that can be packed."""

    @property
    def dataset(self) -> str:
        """The name the pack will carry."""

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from (layout, root, seed, terms), for the pack's record."""

    def list_images(self) -> Samples:
        """Every image that belongs to the dataset, sorted by (role, name); reads names only, never pixels."""

    def read(self, name: str) -> bytes:
        """The encoded image of one name; may be called from several threads at once."""


@runtime_checkable
class CheckedSource(Protocol):
    """A source some of whose images were decoded before and are guarded by a checksum since, as those of a pack."""

    def read_checked(self, name: str) -> tuple[bytes, int, int] | None:
        """The encoded image of one name with its height and width; None where it has to be decoded to know."""


@runtime_checkable
class DigestedSource(Protocol):
    """A source that knows better than its files' sizes and times whether it has changed."""

    def digest(self, samples: Samples) -> tuple[str, int | None]:
        """As `lupctl.core.data.sources.digest.source_digest`."""


@runtime_checkable
class BlockSource(Protocol):
    """A source that reads many images at once faster than one by one."""

    def read_block(self, begin: int, end: int) -> list[memoryview] | None:
        """The encoded images of rows `begin` to `end - 1` of its own list; None where one is missing.

        They are valid until the next call in the same thread.
        """


@runtime_checkable
class AheadSource(Protocol):
    """A source whose images lie in one file, about in the order of its list."""

    def read_ahead(self, row: int) -> None:
        """Has the system fetch what lies behind the image of a row from the disk, and does not wait for it."""
