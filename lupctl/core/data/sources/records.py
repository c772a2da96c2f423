"""A dataset before it is packed: which images it has, and how to read one."""

from typing import Protocol, runtime_checkable

from lupctl.core.formats.pack.samples import Samples


class Source(Protocol):
    """A dataset that can be packed."""

    @property
    def dataset(self) -> str:
        """The name to store in the pack."""

    @property
    def facts(self) -> dict[str, object]:
        """Where the images come from (layout, root, seed, terms), for the pack's record."""

    def list_images(self) -> Samples:
        """Every image that belongs to the dataset, sorted by (role, name); reads names only, never pixels."""

    def read(self, name: str) -> bytes:
        """The encoded image with a given name; may be called from several threads at once."""


@runtime_checkable
class CheckedSource(Protocol):
    """A source with images that were decoded before and have had a checksum since, such as a pack."""

    def read_checked(self, name: str) -> tuple[bytes, int, int] | None:
        """The encoded image with a given name, its height and width; None if it has to be decoded first."""


@runtime_checkable
class DigestedSource(Protocol):
    """A source with a better sign of change than the sizes and times of its files."""

    def digest(self, samples: Samples) -> tuple[str, int | None]:
        """See `lupctl.core.data.sources.digest.source_digest`."""


@runtime_checkable
class BlockSource(Protocol):
    """A source that reads many images at once faster than one at a time."""

    def read_block(self, begin: int, end: int) -> list[memoryview] | None:
        """The encoded images of rows `begin` to `end - 1` of its list; None if one is missing.

        They are valid until the next call in the same thread.
        """


@runtime_checkable
class AheadSource(Protocol):
    """A source whose images are in one file, roughly in the order of its list."""

    def read_ahead(self, row: int) -> None:
        """Asks the system to fetch what follows the image of a row from the disk, without waiting for it."""
