"""The quick evaluation during training: the full one's numbers, and nothing changed."""

from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch

from lupctl.core.choices import JUNK, ROLE_CODES, SameCamera
from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.errors import DataError
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.ranking.retrieval.extract import Encoder, extract_features
from lupctl.core.ranking.retrieval.quick import evaluating, score_pack
from lupctl.core.ranking.retrieval.score import score
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.nets.build import build_reid
from lupctl.core.training.nets.networks import ReidNetwork
from lupctl.core.training.views.plan import ViewPlan
from tests.tools.drawn_packs import pack_drawn
from tests.tools.networks import neck, plan_network

CPU = torch.device("cpu")
VIEW = ViewPlan(32, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Junk and distractors among the gallery, more images than one chunk holds."""
    plan = SyntheticPlan(
        train_persons=2, test_persons=16, cameras=3, shots=4, distractors=9, junk=20, height=32, width=16
    )
    return open_pack(pack_drawn(plan, tmp_path_factory.mktemp("quick") / "p.h5", dataset="quick"))


@pytest.fixture
def network() -> ReidNetwork:
    """In training, but for its trunk, which is frozen; batch norm's statistics far from what it began with."""
    torch.manual_seed(3)
    made = build_reid(plan_network(neck(2), last_stride=1))
    with torch.no_grad():
        made.train()
        made(torch.randn(16, 3, 32, 16))
    made.backbone.eval()
    return made


def full_scores(network: ReidNetwork, pack: Pack, same_camera: SameCamera) -> object:
    """As `dump` and `eval` do it: junk is embedded like everything else, and scored with it."""
    rows = np.flatnonzero(np.isin(pack.samples.role, [ROLE_CODES["query"], ROLE_CODES["gallery"]]))
    network.eval()
    features = extract_features(
        Encoder(network, VIEW, CPU, torch.float32), PackImages([pack], rows), chunk=128, workers=0, flip=False,
        progress=Progress(quiet=True),
    )  # fmt: skip
    scored = score(features, pack.samples.select(rows), device=CPU, same_camera=same_camera)
    return scored.scores, scored.counts


@pytest.mark.parametrize("same_camera", get_args(SameCamera))
@pytest.mark.parametrize("workers", [0, 1])
def test_the_scores_are_those_of_the_full_evaluation(
    network: ReidNetwork, pack: Pack, same_camera: SameCamera, workers: int
) -> None:
    encoder = Encoder(network, VIEW, CPU, torch.float32)
    found = score_pack(encoder, pack, workers=workers, same_camera=same_camera)
    assert found.counts.junk == 20
    assert found.counts.distractors == 9
    assert (found.scores, found.counts) == full_scores(network, pack, same_camera)
    assert 0 < found.scores.map < 1
    other = get_args(SameCamera)[same_camera == "drop"]
    assert found.scores != score_pack(encoder, pack, workers=0, same_camera=other).scores


def test_junk_is_not_embedded(network: ReidNetwork, pack: Pack) -> None:
    found = score_pack(Encoder(network, VIEW, CPU, torch.float32), pack, workers=0)
    assert len(found.features) == len(found.samples) == found.counts.queries + found.counts.gallery
    assert not (found.samples.person == JUNK).any()
    assert set(found.samples.role.tolist()) == {ROLE_CODES["query"], ROLE_CODES["gallery"]}
    assert found.samples.name[0] == pack.samples.name[int(np.flatnonzero(pack.samples.role == ROLE_CODES["query"])[0])]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_network_in_training_stays_as_it_was(network: ReidNetwork, pack: Pack, workers: int) -> None:
    modes = [module.training for module in network.modules()]
    weights = {name: value.clone() for name, value in network.state_dict().items()}
    assert len(set(modes)) == 2
    before = torch.get_rng_state()
    score_pack(Encoder(network, VIEW, CPU, torch.float32), pack, workers=workers)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in network.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in network.state_dict().items())


def test_modes_come_back_after_an_error(network: ReidNetwork) -> None:
    modes = [module.training for module in network.modules()]
    seen: list[bool] = []

    def fail() -> None:
        with evaluating(network):
            seen.extend(module.training for module in network.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen == [False] * len(modes)
    assert [module.training for module in network.modules()] == modes


def test_a_pack_without_queries_is_refused_before_an_image_is_read(
    network: ReidNetwork, crowd: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*given: object) -> Iterator[object]:
        raise AssertionError("an image was read")

    monkeypatch.setattr(PackImages, "decode", read)
    with pytest.raises(DataError, match="there is no query"):
        score_pack(Encoder(network, VIEW, CPU, torch.float32), open_pack(crowd), workers=0)
