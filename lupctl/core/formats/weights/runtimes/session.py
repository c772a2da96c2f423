"""A network's file that a runtime has open: what it takes, what it gives, and a call that runs it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from lupctl.core.choices import Runtime


@dataclass(frozen=True)
class Port:
    """An input or an output of a network.

    Args:
        name: as runs call it.
        kind: of its numbers, as numpy calls it; else as the runtime does.
        shape: a number, or None or a letter for any; None where the number of axes is not fixed.
    """

    name: str
    kind: str
    shape: tuple[int | str | None, ...] | None

    def __str__(self) -> str:
        """In words.

        >>> str(Port("rows", "int64", ("N", None)))
        'rows int64 (N, ?)'
        """
        axes = "any shape" if self.shape is None else ", ".join("?" if one is None else str(one) for one in self.shape)
        return f"{self.name} {self.kind} ({axes})"


class Session(Protocol):
    """A network that is open, ready to run on the CPU; threads may run it together."""

    @property
    def runtime(self) -> Runtime:
        """What runs it."""

    @property
    def inputs(self) -> tuple[Port, ...]:
        """All of them."""

    @property
    def outputs(self) -> tuple[Port, ...]:
        """All of them."""

    @property
    def metadata(self) -> Mapping[str, str]:
        """Texts that are kept in the file, by name."""

    def run(self, given: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """The outputs, from the inputs by name."""
