"""Fine-tuning vision transformers: losses, cameras, stochastic depth, several processes, and resuming."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import DataError, StoppedError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.header import read_header
from lupctl.core.formats.weights.plan import JpmHead, PartsHead
from lupctl.core.formats.weights.vit_plan import ViTPlan
from lupctl.core.recipes.finetune_sections import Losses
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.cameras import image_cameras, pick_cameras
from lupctl.core.stages.finetune.criterion import measure_jpm
from lupctl.core.stages.finetune.job import plan_finetuning
from lupctl.core.stages.finetune.persons import pick_rows
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.finetune.speed import time_step
from lupctl.core.system.progress.lines import Progress
from tests.tools.tiny.training import compute_in_double, read_state, run_forked, signal_at, transformer_job

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
UNKNOWN = "sie.unknown=0.3"
# 192 features, 2 blocks of which the last comes twice, 21 patches and the class token, 3 cameras and the unknown one.
BLOCK = 4 * 192 + 3 * 192 * 192 + 3 * 192 + 192 * 192 + 192 + 2 * 4 * 192 * 192 + 4 * 192 + 192
JPM_PARAMETERS = 3 * BLOCK + 2 * 2 * 192 + (3 * 64 + 1) * 192 + 23 * 192 + 4 * 192 + 5 * (2 * 192 + 6 * 192)


@pytest.fixture(scope="module")
def whole(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of five steps with cameras, jigsaw patches and stochastic depth that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(transformer_job(labelled, run, UNKNOWN), QUIET)
    return run


def slow_losses(features: torch.Tensor, logits: torch.Tensor, target: list[int]) -> tuple[float, float]:
    """Identity and triplet loss by their definitions, image by image, for soft margins and no smoothing."""
    count, heads, _ = features.shape
    identity, triplet = [0.0] * heads, [0.0] * heads
    for head in range(heads):
        for one in range(count):
            shares = torch.softmax(logits[one, head].double(), dim=0)
            identity[head] -= float(shares[target[one]].log()) / count
            away = [float((features[one, head] - features[other, head]).norm()) for other in range(count)]
            farthest = max(away[other] for other in range(count) if target[other] == target[one])
            nearest = min(away[other] for other in range(count) if target[other] != target[one])
            triplet[head] += float(np.log1p(np.exp(farthest - nearest))) / count
    return tuple(0.5 * found[0] + 0.5 * sum(found[1:]) / (heads - 1) for found in (identity, triplet))  # type: ignore[return-value]


def test_losses_weigh_the_global_feature_as_much_as_all_local_ones() -> None:
    torch.manual_seed(3)
    features, logits = torch.randn(6, 5, 8), torch.randn(6, 5, 3)
    target = [0, 1, 2, 2, 0, 1]
    found = measure_jpm(Losses(smoothing=0.0, margin=0.0), features, logits, torch.tensor(target))
    identity, triplet = slow_losses(features, logits, target)
    assert float(found["identity"]) == pytest.approx(identity, rel=1e-5)
    assert float(found["triplet"]) == pytest.approx(triplet, rel=1e-5)
    right = (logits[:, 0].argmax(dim=1) == torch.tensor(target)).float().mean()
    assert float(found["accuracy"]) == pytest.approx(float(right)), "of the global feature"


def test_a_run_keeps_what_its_network_needs(labelled: Path, whole: Path) -> None:
    header = read_header(whole / CHECKPOINT)
    assert header.cameras == (1, 2, 3)
    assert header.network.head == JpmHead(kind="jpm", classes=6, feature="before", shift=5, groups=2, parts=4)
    trunk = header.network.trunk
    assert isinstance(trunk, ViTPlan)
    assert (trunk.arch, trunk.depth, trunk.patch, trunk.stride) == ("vit-t", 2, 8, 4)
    assert (trunk.rows, trunk.columns, trunk.cameras, trunk.unknown_camera) == (7, 3, 3, True)
    assert header.preprocessing.interpolation == "bilinear", "at test"
    assert header.recipe is not None
    assert (header.recipe["sie"], header.recipe["vit"]) == (
        {"cameras": True, "scale": 3.0, "unknown": 0.3},
        {"stem": "patch", "patch": 8, "stride": 4, "depth": 2, "parts": 0, "position": "bilinear", "drop_path": 0.4},
    )
    tensors = load_file(whole / CHECKPOINT)
    assert tensors["backbone.sie_embed"].shape == (3, 1, 192)
    assert not any(key.startswith(("backbone.blocks.1.", "backbone.norm.")) for key in tensors), "nothing unused"
    facts = json.loads((whole / "run.json").read_text())
    assert facts["loss"] == pytest.approx(facts["identity"] + facts["triplet"])
    assert 1 / 17 < facts["scores"]["map"] < 1


def test_every_part_of_the_network_learns(labelled: Path, whole: Path, tmp_path: Path) -> None:
    finetune(transformer_job(labelled, tmp_path / "run", UNKNOWN, "optim.lr=1e-30"), QUIET)
    before, after = (load_file(run / CHECKPOINT) for run in (tmp_path / "run", whole))
    same = [key for key, value in before.items() if torch.equal(value, after[key])]
    frozen = {f"head.necks.{number}.bias" for number in range(5)}
    counted = {f"head.necks.{number}.num_batches_tracked" for number in range(5)}
    assert set(same) == frozen | counted


def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = transformer_job(labelled, tmp_path / "run", UNKNOWN)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 4)
        with pytest.raises(StoppedError, match="stopped on request after step 4 of 5"):
            finetune(job, QUIET)
    assert read_state(job.run)["step"] == 4
    torch.manual_seed(99)
    finetune(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()


@pytest.mark.parametrize(
    ("recipe", "settings"),
    [
        ("transreid-vit-b-s12-sie-jpm", (UNKNOWN,)),
        ("pass-vit-s", ("bn_groups=2",)),
        ("cion-vit-t", ("vit.patch=16", "vit.stride=16", "bn_groups=2")),
    ],
)
def test_two_processes_are_one(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str, settings: tuple[str, ...]
) -> None:
    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    one, two = (transformer_job(labelled, tmp_path / name, *settings, recipe=recipe) for name in ("one", "two"))
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    for key, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][key], rtol=1e-9, atol=1e-9), key
    facts = [json.loads((job.run / "run.json").read_text()) for job in (one, two)]
    for key in ("loss", "identity", "triplet", "accuracy"):
        assert facts[0][key] == pytest.approx(facts[1][key], rel=1e-5), key


def test_stochastic_depth_is_drawn_by_seed_and_can_be_off(labelled: Path, whole: Path, tmp_path: Path) -> None:
    weights = {}
    for name, settings in (("off", ("vit.drop_path=0",)), ("less", ("vit.drop_path=0.2",))):
        finetune(transformer_job(labelled, tmp_path / name, UNKNOWN, *settings), QUIET)
        weights[name] = load_file(tmp_path / name / CHECKPOINT)["head.b1.0.mlp.fc1.weight"]
    weights["whole"] = load_file(whole / CHECKPOINT)["head.b1.0.mlp.fc1.weight"]
    assert not torch.equal(weights["off"], weights["less"])
    assert not torch.equal(weights["less"], weights["whole"])


def test_part_tokens_have_a_neck_each(labelled: Path, tmp_path: Path) -> None:
    job = transformer_job(labelled, tmp_path / "run", recipe="pass-vit-s")
    finetune(job, QUIET)
    header = read_header(job.run / CHECKPOINT)
    assert header.network.head == PartsHead(kind="parts", classes=6, feature="before")
    assert header.network.pooling == "parts"
    tensors = load_file(job.run / CHECKPOINT)
    assert tensors["head.classifier.weight"].shape == (6, 2 * 192)
    assert tensors["backbone.part_tokens"].shape == (1, 3, 192)
    assert len({key.split(".")[2] for key in tensors if key.startswith("head.necks.")}) == 4


def test_a_plan_counts_parameters_and_cameras(labelled: Path, tmp_path: Path) -> None:
    plan = plan_finetuning(transformer_job(labelled, tmp_path / "run", UNKNOWN))
    assert plan.parameters == JPM_PARAMETERS
    assert plan.cameras == (1, 2, 3)
    assert plan.memory_bytes > 4 * 4 * plan.parameters
    assert plan_finetuning(transformer_job(labelled, tmp_path / "run", "sie.cameras=false")).cameras == ()


def test_a_step_is_timed_with_all_of_it(labelled: Path, tmp_path: Path) -> None:
    recipe = transformer_job(labelled, tmp_path / "run", UNKNOWN).recipe
    assert 0 < time_step(recipe, torch.device("cpu"), budget_s=0.01) < 30


def test_one_camera_has_no_embedding(labelled: Path, tmp_path: Path) -> None:
    samples = open_pack(labelled).samples
    names = [name for row, name in enumerate(samples.name) if samples.role[row] == 1 and samples.camera[row] == 2]
    (tmp_path / "one.txt").write_text("\n".join(names))
    settings = (f"data.subset={tmp_path / 'one.txt'}", "data.images=2")
    with pytest.raises(UsageError, match="all from one camera, and an embedding of cameras has no meaning") as caught:
        finetune(transformer_job(labelled, tmp_path / "run", *settings), QUIET)
    assert caught.value.hint == "--set sie.cameras=false"
    with pytest.raises(UsageError) as caught:
        plan_finetuning(transformer_job(labelled, tmp_path / "run", *settings, UNKNOWN))
    assert caught.value.hint == "--set sie.cameras=false --set sie.unknown=0"
    assert not (tmp_path / "run").exists()
    plan = plan_finetuning(transformer_job(labelled, tmp_path / "run", *settings, "sie.cameras=false"))
    assert (plan.cameras, plan.images) == ((), 12)


def test_images_without_a_camera_need_a_row(labelled: Path, tmp_path: Path) -> None:
    job = transformer_job(labelled, tmp_path / "run")
    packs = [open_pack(labelled)]
    packs[0].samples.camera[packs[0].samples.camera == 2] = -1
    train = pick_rows(job.recipe, packs)
    assert (train.cameras, sorted(set(train.camera.tolist()))) == ((1, 3), [-1, 0, 1])
    with pytest.raises(DataError, match="12 training images of 36 without a camera") as caught:
        pick_cameras(job.recipe, train)
    assert "--set sie.unknown=0.1" in caught.value.hint
    learned = transformer_job(labelled, tmp_path / "run", UNKNOWN).recipe
    cameras = image_cameras(learned, train)
    assert cameras is not None
    assert (cameras.unknown, cameras.hidden) == (2, 0.3)
    assert cameras.rows.tolist() == [2 if camera < 0 else camera for camera in train.camera.tolist()]
