"""Fine-tuning Swin transformers: starts, the controller that stays, several processes, and resuming."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torchvision.models import swin_t

from lupctl.core.errors import StoppedError, UsageError
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import read_header
from lupctl.core.formats.weights.plan import HeadPlan, NetworkPlan
from lupctl.core.formats.weights.swin_plan import SwinPlan, plan_swin
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.checks import check_start
from lupctl.core.stages.finetune.job import FinetuneJob, plan_finetuning
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.finetune.speed import time_step
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_network
from tests.tools.networks import make_header, neck, no_head, plan_network
from tests.tools.tiny.training import compute_in_double, read_state, run_forked, signal_at, swin_job

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
CONTROLLER = "backbone.semantic_embed_"
NEW = ("swin.train_controller=true",)
NONE = ("swin.semantic_weight=none",)
# The trunk of `swin_job`.
TRUNK = plan_swin("swin-u", depths=(1, 1, 2, 1), patch=2, window=4, semantic_weight=0.0)


def write_start(path: Path, head: HeadPlan, **changes: Any) -> dict[str, torch.Tensor]:
    """A checkpoint with random weights; returns its tensors."""
    torch.manual_seed(7)
    plan = NetworkPlan(trunk=SwinPlan.model_validate({**TRUNK.model_dump(), **changes}), pooling="avg", head=head)
    network = build_network(plan)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith("bias_table"):
                parameter.normal_(std=0.5)
    tensors = network.state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, tensors, make_header(plan, stage="pretrain"))
    return tensors


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pre-trained trunk with its controller."""
    path = tmp_path_factory.mktemp("pre") / "trunk.safetensors"
    write_start(path, no_head())
    return path


@pytest.fixture(scope="module")
def whole(labelled: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneJob:
    """A run of six steps with everything as published, which nothing disturbed."""
    job = swin_job(labelled, tmp_path_factory.mktemp("whole") / "run", start=start)
    finetune(job, QUIET)
    return job


def started(labelled: Path, start: Path, *settings: str) -> Any:
    job = swin_job(labelled, start.parent / "run", *settings, start=start)
    check_start(start, job.recipe)
    torch.manual_seed(0)
    return build_started(job, 6, Progress()).state_dict()


# A run


def test_the_controller_stays_and_all_else_learns(whole: FinetuneJob, start: Path) -> None:
    before, after = load_file(start), load_file(whole.run / CHECKPOINT)
    same = {key for key, value in before.items() if torch.equal(value, after[key])}
    assert same == {key for key in before if key.startswith(CONTROLLER)}
    assert {key.removeprefix(CONTROLLER)[0] for key in same} == {"w", "b"}
    header = read_header(whole.run / CHECKPOINT)
    assert header.network.trunk == TRUNK.model_copy(update={"semantic_weight": 0.2})
    assert (header.network.pooling, header.preprocessing.interpolation) == ("avg", "bilinear")
    assert header.recipe is not None
    assert header.recipe["swin"] == {
        "patch": 2, "window": 4, "depths": [1, 1, 2, 1], "semantic_weight": 0.2, "train_controller": False,
        "drop_path": 0.4,
    }  # fmt: skip
    facts = json.loads((whole.run / "run.json").read_text())
    assert facts["loss"] == pytest.approx(facts["identity"] + facts["triplet"])
    assert 1 / 17 < facts["scores"]["map"] < 1


def test_the_controller_stays_after_the_trunk_was_frozen_and_learns_if_asked(
    labelled: Path, start: Path, tmp_path: Path
) -> None:
    before = load_file(start)
    learned = {}
    for name, settings in {"late": ("freeze_epochs=0.4",), "all": NEW}.items():
        job = swin_job(labelled, tmp_path / name, *settings, start=start)
        finetune(job, QUIET)
        after = load_file(job.run / CHECKPOINT)
        learned[name] = {key for key, value in before.items() if not torch.equal(value, after[key])}
    assert learned["late"] == {key for key in before if not key.startswith(CONTROLLER)}
    assert learned["all"] == set(before)


def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, start: Path, whole: FinetuneJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = swin_job(labelled, tmp_path / "run", start=start)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 3)
        with pytest.raises(StoppedError, match="stopped on request after step 3"):
            finetune(job, QUIET)
    assert read_state(job.run)["step"] == 3
    torch.manual_seed(99)
    finetune(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole.run / CHECKPOINT).read_bytes()


def test_two_processes_are_one(labelled: Path, start: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    one, two = (swin_job(labelled, tmp_path / name, start=start) for name in ("one", "two"))
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    for key, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][key], rtol=1e-9, atol=1e-9), key


def test_recomputed_blocks_give_the_same_run(labelled: Path, start: Path, whole: FinetuneJob, tmp_path: Path) -> None:
    job = swin_job(labelled, tmp_path / "run", "net.checkpoint_activations=true", start=start)
    finetune(job, QUIET)
    expected = load_file(whole.run / CHECKPOINT)
    assert all(torch.equal(value, expected[key]) for key, value in load_file(job.run / CHECKPOINT).items())
    assert plan_finetuning(job).memory_bytes < plan_finetuning(whole).memory_bytes


def test_a_step_is_timed_with_all_of_it(labelled: Path, tmp_path: Path) -> None:
    recipe = swin_job(labelled, tmp_path / "run", *NONE).recipe
    assert 0 < time_step(recipe, torch.device("cpu"), budget_s=0.01) < 30


# Starts


def test_windows_may_be_others(labelled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "pre" / "trunk.safetensors"
    given = write_start(path, no_head(), window=7)
    found = started(labelled, path)
    assert capsys.readouterr().err.endswith("new head; biases resized from windows of 7 to 4 tokens\n")
    for key, value in given.items():
        if key.endswith("bias_table"):
            assert (value.shape[0], found[key].shape[0]) == (169, 49)
            assert float(found[key].std()) > 0.2
        else:
            assert torch.equal(found[key], value), key


def test_a_network_like_it_keeps_its_neck(labelled: Path, tmp_path: Path) -> None:
    path = tmp_path / "tuned" / "reid.safetensors"
    given = write_start(path, neck(9), window=7)
    found = started(labelled, path, "swin.window=7")
    assert {key for key, value in found.items() if key not in given or not torch.equal(value, given[key])} == {
        "head.classifier.weight"
    }


def test_a_controller_can_be_left_out_and_be_new(
    labelled: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert not any(key.startswith(CONTROLLER) for key in started(labelled, start, *NONE))
    assert capsys.readouterr().err.endswith("; its semantic controller not used\n")
    path = tmp_path / "pre" / "trunk.safetensors"
    write_start(path, no_head(), semantic_weight=None)
    assert any(key.startswith(CONTROLLER) for key in started(labelled, path, *NEW))
    assert capsys.readouterr().err.endswith("; new semantic controller\n")
    with pytest.raises(UsageError, match=r"without a semantic controller; swin\.semantic_weight = 0\.2 needs one"):
        started(labelled, path)
    with pytest.raises(UsageError, match="scratch: without a semantic controller"):
        finetune(swin_job(labelled, tmp_path / "run"), QUIET)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "settings", "message", "hint"),
    [
        (
            {"dim": 96, "heads": (3, 6, 12, 24)}, (), "swin-t depths 1-1-2-1 patch 2 window 4 semantic weight 0; the",
            "--arch swin-t",
        ),
        ({}, ("net.arch=swin-b", "swin.depths=[]"), "the recipe says swin-b patch 2 window 4", "--arch swin-u --set"),
        ({"patch": 4}, (), "the recipe says swin-u depths 1-1-2-1 patch 2", "--set 'swin.patch=4'"),
        ({"heads": (2, 4, 8, 16)}, (), "which is none of swin-u, swin-t, swin-s, swin-b", "lupctl dump"),
    ],
)  # fmt: skip
def test_others_are_refused_by_name(
    labelled: Path, tmp_path: Path, changes: dict[str, Any], settings: tuple[str, ...], message: str, hint: str
) -> None:
    path = tmp_path / "pre" / "trunk.safetensors"
    write_start(path, no_head(), **changes)
    with pytest.raises(UsageError) as caught:
        check_start(path, swin_job(labelled, tmp_path / "run", *settings, start=path).recipe)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_a_start_of_another_family(labelled: Path, tmp_path: Path) -> None:
    path = tmp_path / "pre" / "r18.safetensors"
    plan = plan_network(no_head())
    path.parent.mkdir()
    write_checkpoint(path, build_network(plan).state_dict(), make_header(plan))
    with pytest.raises(UsageError, match=r"a residual network \(r18 width 4\); the recipe trains a Swin transformer"):
        check_start(path, swin_job(labelled, tmp_path / "run", start=path).recipe)


def test_imagenet_weights_are_torchvisions(labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.models import Swin_T_Weights

    torch.manual_seed(3)
    state = swin_t(weights=None).state_dict()
    monkeypatch.setattr(Swin_T_Weights, "get_state_dict", lambda self, **_: state)
    settings = ("start=imagenet", "net.arch=swin-t", "swin.depths=[]", "swin.patch=4", *NONE)
    job = swin_job(labelled, tmp_path / "run", *settings)
    check_start(None, job.recipe)
    found = build_started(job, 6, QUIET).state_dict()
    assert torch.equal(found["backbone.patch_embed.projection.weight"], state["features.0.0.weight"])
    assert torch.equal(found["backbone.stages.2.blocks.5.ffn.layers.1.bias"], state["features.5.5.mlp.3.bias"])
    with pytest.raises(UsageError, match=r"net\.arch = swin-u: torchvision has ImageNet weights of swin-t, swin-s"):
        check_start(None, swin_job(labelled, tmp_path / "run", "start=imagenet", *NONE).recipe)
    with pytest.raises(UsageError, match=r"swin\.patch = 2: torchvision has ImageNet weights of swin-t, swin-s"):
        check_start(None, swin_job(labelled, tmp_path / "run", *settings, "swin.patch=2").recipe)
