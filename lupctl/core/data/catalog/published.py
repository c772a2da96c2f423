"""What is known about a published network: what it is, where it comes from, its terms and its scores."""

import os
from dataclasses import dataclass
from typing import Final, Literal

from lupctl.core.data.catalog.testing import UNKNOWN_TESTING, Testing

WeightsUse = Literal["initialisation", "re-id model"]
HUB: Final = "https://huggingface.co"
HUB_VARIABLE: Final = "HF_ENDPOINT"  # as in the hub's own client, for those who reach only a mirror


@dataclass(frozen=True)
class Score:
    """What is published for a network on one benchmark.

    Args:
        dataset: the benchmark.
        map, rank1: fractions, without re-ranking.
        reranked: the same after re-ranking, where they are known.
    """

    dataset: str
    map: float
    rank1: float
    reranked: tuple[float, float] | None = None


@dataclass(frozen=True)
class Project:
    """Who publishes weights.

    Args:
        name: of the project.
        page: its page.
        terms: terms of use of the weights.
    """

    name: str
    page: str
    terms: str


@dataclass(frozen=True)
class PublishedWeights:
    """One published network.

    Args:
        name: what a user types.
        project: who publishes it.
        what: a short description.
        use: whether it is a re-id model, or a trunk to start fine-tuning from.
        address: `drive:` and a Google Drive id, `hub:OWNER/REPOSITORY/PATH` of a file on the Hugging Face hub, or the
            address of a page where only a person can download it.
        steps: for such a page: what to do there; empty if lupctl can download the file.
        size: height and width of its input, where they are published.
        stride: of its patches, where its input could be cut in several ways.
        scores: published for it; for a start, what fine-tuning from it gave its authors.
        testing: how these were measured.
    """

    name: str
    project: Project
    what: str
    use: WeightsUse
    address: str
    steps: str = ""
    size: tuple[int, int] | None = None
    stride: int | None = None
    scores: tuple[Score, ...] = ()
    testing: Testing = UNKNOWN_TESTING

    @property
    def tested_size(self) -> tuple[int, int] | None:
        """Height and width of the images that its scores were measured on; None if they are not known."""
        return self.testing.size or (self.size if self.use == "re-id model" else None)

    def score_on(self, dataset: str) -> Score | None:
        """What is published for it on a benchmark, if anything is."""
        return next((one for one in self.scores if one.dataset == dataset), None)

    @property
    def is_direct(self) -> bool:
        """Whether lupctl can download it."""
        return not self.steps

    @property
    def drive_id(self) -> str | None:
        """Its Google Drive id, if it is there."""
        return self.address.removeprefix("drive:") if self.address.startswith("drive:") else None

    @property
    def url(self) -> str:
        """The address of the file: to be opened in a browser, and on the hub also to be fetched."""
        if self.drive_id is not None:
            return f"https://drive.google.com/file/d/{self.drive_id}/view"
        return self._on_hub("resolve/main") or self.address

    @property
    def listing(self) -> str:
        """The page to open in a browser if the file cannot be fetched; on the hub, the list of all files."""
        return (self._on_hub("tree/main") or "").rpartition("/")[0] or self.url

    @property
    def origin(self) -> str:
        """Where it comes from, in a few words."""
        if not self.is_direct:
            return "by hand"
        return "Google Drive" if self.drive_id is not None else "Hugging Face"

    def _on_hub(self, part: str) -> str | None:
        if not self.address.startswith("hub:"):
            return None
        owner, repository, path = self.address.removeprefix("hub:").split("/", 2)
        return f"{os.environ.get(HUB_VARIABLE, HUB).rstrip('/')}/{owner}/{repository}/{part}/{path}"
