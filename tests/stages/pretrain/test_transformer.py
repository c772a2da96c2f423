"""Pre-training a vision transformer: on any number of processes, continued, and with less memory."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import StoppedError
from lupctl.core.formats.weights.header import read_header
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain import loop, step
from lupctl.core.stages.pretrain.job import PretrainJob
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.progress.lines import Progress
from tests.tools.tiny.training import run_forked, signal_at

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
TINY = (
    "vit.depth=2", "pixels.height=32", "pixels.width=16", "data.batch=16", "bn_groups=4", "moco.dim=16",
    "moco.queue=40", "schedule.epochs=2", "schedule.warmup_epochs=1", "saving.every_epochs=0",
)  # fmt: skip


def transformer_job(pack: Path, run: Path, *settings: str, processes: int = 1) -> PretrainJob:
    """Four steps of a tiny vision transformer."""
    recipe = resolve_recipe("pretrain", "small-moco-vit", overrides=(*TINY, *settings))
    assert isinstance(recipe, PretrainRecipe)
    placement = Placement("cpu", processes, "")
    return PretrainJob(recipe=recipe, packs=(pack,), run=run, placement=placement, workers=0, command=())


@pytest.fixture(scope="module")
def whole(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(transformer_job(crowd, run), QUIET)
    return run


def test_a_checkpoint_keeps_the_trunk_and_its_grid(whole: Path) -> None:
    plan = read_header(whole / CHECKPOINT).network
    assert plan.trunk.kind == "vit"
    assert (plan.trunk.arch, plan.trunk.depth, plan.trunk.patch) == ("vit-t", 2, 8)
    assert (plan.trunk.rows, plan.trunk.columns, plan.pooling, plan.head.kind) == (4, 2, "token", "projection")
    assert load_file(whole / CHECKPOINT)["head.out.weight"].shape == (16, 192)


def test_any_number_of_processes_gives_the_same_bits(crowd: Path, whole: Path, tmp_path: Path) -> None:
    """There is no batch norm in it, whose statistics other networks share."""
    job = transformer_job(crowd, tmp_path / "two", processes=2)
    job.run.mkdir()
    assert run_forked(loop.train_job, job, processes=2) == [0, 0]
    one, two = (load_file(run / CHECKPOINT) for run in (whole, job.run))
    assert all(torch.equal(value, two[key]) for key, value in one.items())


def test_stopped_and_continued_is_the_same_to_the_bit(
    crowd: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = transformer_job(crowd, tmp_path / "run")
    with monkeypatch.context() as patch:
        signal_at(patch, step, 3)
        with pytest.raises(StoppedError, match="after step 3 of 4"):
            pretrain(job, QUIET)
    pretrain(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()


def test_blocks_computed_again_change_nothing(crowd: Path, whole: Path, tmp_path: Path) -> None:
    pretrain(transformer_job(crowd, tmp_path / "run", "net.checkpoint_activations=true"), QUIET)
    one, other = (load_file(run / CHECKPOINT) for run in (whole, tmp_path / "run"))
    assert all(torch.equal(value, other[key]) for key, value in one.items())
