"""A workspace with a converted network that the catalogue knows, on a benchmark as small as a drawn pack."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
import torch

from lupctl.core.choices import Interpolation
from lupctl.core.data.catalog.datasets import CatalogEntry
from lupctl.core.data.catalog.published import Project, PublishedWeights, Score
from lupctl.core.data.catalog.testing import Reranking, Testing
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import describe_pixels
from lupctl.core.formats.weights.plan import NetworkPlan
from lupctl.core.recipes.sections import Pixels
from lupctl.core.training.nets.build import build_network
from tests.tools.networks import make_header, neck, plan_network
from tests.tools.transformers import fill

NAME: Final = "planet-r18-labelled"
SOURCE: Final = "sha256:" + "5" * 64
SIZE: Final = (48, 24)
# All places that look at the catalogue; those that take it from the last one when they are imported come first.
CATALOGUES: Final = (
    "lupctl.core.ranking.reports.build.published.PUBLISHED",
    "lupctl.core.stages.weights.PUBLISHED",
    "lupctl.core.data.catalog.weights.PUBLISHED",
)
WAY: Final = Testing(
    interpolation="bilinear", flip=False, distance="cosine", cameras=False, reranking=Reranking(20, 6, 0.3, "d4")
)


@dataclass(frozen=True)
class Known:
    """The workspace, and what the catalogue says."""

    home: Path
    patch: pytest.MonkeyPatch

    def publish(self, mean: float, rank1: float, *, dataset: str = "labelled", **changes: Any) -> PublishedWeights:
        """Puts scores of the network into the catalogue, with changes of its entry."""
        plain = PublishedWeights(
            NAME, Project("Planet", "https://example.org/planet", "free"), "a small network", "re-id model", "drive:x",
            size=SIZE, scores=(Score(dataset, mean, rank1),), testing=WAY,
        )  # fmt: skip
        found = replace(plain, **changes)
        for place in CATALOGUES:
            self.patch.setattr(place, (found,))
        return found

    def count(self, *, more: int = 0) -> None:
        """Says that the drawn pack is a benchmark of as many images, or of more."""
        role = open_pack(self.home / "packs" / "labelled.h5").samples.role
        images = {"query": int((role == 2).sum()) + more, "gallery": int((role == 3).sum()) + more}
        entry = CatalogEntry("market1501", "Drawn-12", "market1501", images=images)  # type: ignore[arg-type]
        self.patch.setattr("lupctl.core.ranking.reports.build.published.find_entry", lambda name: entry)


def write_known(home: Path, *, filter_: Interpolation = "bilinear", network: NetworkPlan | None = None) -> Path:
    """The converted network among the models; returns its checkpoint."""
    plan = network or plan_network(neck(6))
    torch.manual_seed(3)
    built = build_network(plan).eval()
    fill(built)
    pixels = describe_pixels(Pixels(height=SIZE[0], width=SIZE[1], interpolation=filter_, test_interpolation=filter_))
    header = make_header(plan, stage="convert", parents={"source": SOURCE}, preprocessing=pixels)
    path = home / "models" / f"{NAME}.safetensors"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, built.state_dict(), header)
    return path
