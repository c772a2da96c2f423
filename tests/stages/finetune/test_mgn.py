"""Fine-tuning an MGN end to end: resumed, spread over processes, frozen at first, and where it starts."""

import json
import math
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import StoppedError, UsageError
from lupctl.core.formats.weights.header import read_header
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.criterion import measure
from lupctl.core.stages.finetune.job import FinetuneJob, network_plan
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.training.nets.build import build_mgn
from lupctl.core.training.nets.mgn import HEADS, NEW_PARTS
from tests.references.mgn_losses import slow_head_loss
from tests.tools.networks import mgn_heads
from tests.tools.shell import Shell
from tests.tools.tiny.training import (
    as_options,
    compute_in_double,
    pretrain_job,
    read_state,
    run_forked,
    shrunk_job,
    signal_at,
)

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
# Four epochs of one step on 36 images of six persons; thawed after step 2, the third, or never frozen with 0.
TINY = (
    "net.arch=r18", "net.width=4", "net.embedding=8", "pixels.height=96", "pixels.width=32", "augment.pad=4",
    "data.persons=4", "data.images=6", "bn_groups=2", "schedule.epochs=4", "schedule.warmup_epochs=1",
    "schedule.hold_epochs=2", "saving.every_epochs=0", "freeze_epochs=2",
)  # fmt: skip


def mgn_job(
    pack: Path, run: Path, *settings: str, recipe: str = "mgn-luperson", start: Path | None = None, processes: int = 1
) -> FinetuneJob:
    return shrunk_job(pack, run, recipe, (*TINY, *settings), start=start, processes=processes)


@pytest.fixture(scope="module")
def whole(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four steps from scratch that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    finetune(mgn_job(labelled, run), QUIET)
    return run


@pytest.fixture(scope="module")
def backbone(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a pre-training run."""
    run = tmp_path_factory.mktemp("pre") / "crowd-run"
    pretrain(pretrain_job(crowd, run), QUIET)
    return run / CHECKPOINT


def test_a_run_says_what_it_did(whole: Path) -> None:
    facts = json.loads((whole / "run.json").read_text())
    assert (facts["steps"], facts["images"], facts["damaged"]) == (4, 36, 0)
    assert facts["loss"] == pytest.approx(facts["identity"] + facts["triplet"])
    assert 1 / 17 < facts["scores"]["map"] < 1
    header = read_header(whole / CHECKPOINT)
    assert header.network.head == mgn_heads(6, embedding=8, extra_bn=True)
    assert header.network.pooling == "gem"
    assert header.preprocessing.interpolation == "bicubic"
    tensors = load_file(whole / CHECKPOINT)
    assert tensors["b33_head.classifier.weight"].shape == (6, 8)
    assert not tensors["b1_head.bottleneck.1.bias"].any(), "the necks' shift stays at 0"


@pytest.mark.parametrize("steps", [2, 3])
def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """Once while the trunk is frozen, and once when only the heads have Adam's memory."""
    job = mgn_job(labelled, tmp_path / "run")
    with monkeypatch.context() as patch:
        signal_at(patch, loop, steps, signal.SIGTERM)
        with pytest.raises(StoppedError, match=f"stopped on request after step {steps} of 4"):
            finetune(job, QUIET)
    state = read_state(job.run)
    assert state["step"] == steps
    torch.manual_seed(99)
    finetune(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()


@pytest.mark.parametrize(
    "settings", [(), pytest.param(("losses.smoothing=0", "losses.mining=weighted"), marks=pytest.mark.slow)]
)
def test_two_processes_are_one(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: tuple[str, ...]
) -> None:
    # SGD, because Adam forgives a gradient that is twice as long.
    settings = ("optim.name=sgd", "optim.lr=0.01", "freeze_epochs=0", *settings)
    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    one, two = (mgn_job(labelled, tmp_path / name, *settings) for name in ("one", "two"))
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    assert tensors[0]["b1_head.classifier.weight"].dtype == torch.float64
    for key, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][key], rtol=1e-9, atol=1e-9), key
    facts = [json.loads((job.run / "run.json").read_text()) for job in (one, two)]
    for key in ("loss", "identity", "triplet", "accuracy"):
        assert facts[0][key] == pytest.approx(facts[1][key], rel=1e-5), key


def changed_after(labelled: Path, run: Path, monkeypatch: pytest.MonkeyPatch, steps: int, *settings: str) -> set[str]:
    """Which tensors a run has changed when it is stopped after so many steps."""
    job = mgn_job(labelled, run, *settings)
    torch.manual_seed(job.recipe.seed)
    before = build_started(job, 6, QUIET).state_dict()
    with monkeypatch.context() as patch:
        signal_at(patch, loop, steps)
        with pytest.raises(StoppedError):
            finetune(job, QUIET)
    after = read_state(run)["model"]
    return {key for key, value in before.items() if not torch.equal(value, after[key])}


@pytest.mark.parametrize("evaluating", [0, 1])
def test_the_trunk_stands_still_for_the_first_epochs_and_one_step(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, evaluating: int
) -> None:
    """freeze_epochs = 2 with one step per epoch: steps 0, 1 and 2. Looking at it meanwhile thaws nothing."""
    settings = (f"evaluation.every_epochs={evaluating}",)
    frozen = changed_after(labelled, tmp_path / "a", monkeypatch, 3, *settings)
    assert {key for key in frozen if not key.startswith(NEW_PARTS)} == set()
    for part in NEW_PARTS:
        assert [key for key in frozen if key.startswith(part)], f"{part} trains"
    assert "heads_extra_bn_b2.running_mean" in frozen
    freed = changed_after(labelled, tmp_path / "b", monkeypatch, 3, *settings, "freeze_epochs=1")
    for key in ("backbone.0.weight", "backbone.1.running_mean", "b1.1.0.conv1.weight", "b3.0.0.bn1.bias"):
        assert key in freed, "with one epoch the third step, number 2, is the first to train all"


def test_a_pretrained_trunk_goes_into_every_branch(
    labelled: Path, backbone: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = load_file(backbone)
    network = build_started(mgn_job(labelled, tmp_path / "run", start=backbone), 6, Progress())
    count = len([key for key in wanted if key.startswith("backbone.")])
    assert capsys.readouterr().err == (
        f"start: {count} trunk tensors from {backbone}; 4 of its head not used, new head\n"
    )
    state = network.state_dict()
    assert torch.equal(state["backbone.0.weight"], wanted["backbone.conv1.weight"])
    assert torch.equal(state["backbone.6.conv2.weight"], wanted["backbone.layer3.0.conv2.weight"])
    for branch in ("b1", "b2", "b3"):
        assert torch.equal(state[f"{branch}.0.0.conv1.weight"], wanted["backbone.layer3.1.conv1.weight"])
        assert torch.equal(state[f"{branch}.1.1.bn2.weight"], wanted["backbone.layer4.1.bn2.weight"])


def test_an_mgn_goes_on_from_an_mgn_with_new_classifiers(
    labelled: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    start = whole / CHECKPOINT
    network = build_started(mgn_job(labelled, tmp_path / "run", start=start), 9, Progress())
    state, wanted = network.state_dict(), load_file(start)
    assert capsys.readouterr().err == (
        f"start: {len(wanted) - 8} tensors from {start}, heads included; new classifiers\n"
    )
    for key, value in wanted.items():
        if "classifier" in key:
            assert state[key].shape == (9, 8)
        else:
            assert torch.equal(state[key], value), key


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (("net.embedding=16",), "an mgn with embedding 8 and extra_bn True; the recipe says 16", "net.embedding=8"),
        (("net.extra_bn=false",), "the recipe says 8 and False", "net.extra_bn=true"),
        (("net.head=bnneck",), "an mgn of three branches; the recipe's net.head is bnneck", "--recipe mgn-luperson"),
        (("net.width=8",), "a trunk r18 of width 4; the recipe says r18 of width 8", "--set net.width=4"),
    ],
)
def test_an_mgn_that_does_not_fit_is_refused(
    labelled: Path, whole: Path, tmp_path: Path, settings: tuple[str, ...], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        finetune(mgn_job(labelled, tmp_path / "run", *settings, start=whole / CHECKPOINT), QUIET)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_it_learns_its_persons(labelled: Path, tmp_path: Path) -> None:
    settings = (
        "schedule.epochs=30", "schedule.hold_epochs=20", "augment.erase=0", "augment.pad=0", "optim.lr=5e-3",
        "freeze_epochs=1",
    )  # fmt: skip
    facts = finetune(mgn_job(labelled, tmp_path / "run", *settings), QUIET)
    rows = [row for row in read_metrics(tmp_path / "run") if "loss" in row]
    assert facts["accuracy"] > 0.7, "of six persons"
    assert facts["identity"] < 0.5 * rows[0]["identity"]
    assert facts["triplet"] < 0.5 * rows[0]["triplet"]


def test_the_shipped_small_recipe_runs(labelled: Path, tmp_path: Path) -> None:
    job = mgn_job(labelled, tmp_path / "run", "net.embedding=4", recipe="small-mgn")
    assert finetune(job, QUIET)["steps"] == 4
    assert load_file(job.run / CHECKPOINT)["b1_head.bottleneck.0.weight"].shape == (4, 32, 1, 1)


def test_the_default_is_the_mgn_of_the_start(lupctl: Shell, labelled: Path, backbone: Path, tmp_path: Path) -> None:
    """Without a recipe: LUPerson's from a LUPerson-like pre-training, ImageNet's from ImageNet."""
    line = f"finetune {labelled} --gpus 0 --set data.persons=4 --dry-run"
    for start, recipe in ((backbone, "mgn-luperson"), ("imagenet", "mgn-imagenet")):
        ran = lupctl(f"{line} --from {start}")
        assert ran.code == 0, ran.err
        assert f"recipe: {recipe} (the default for this start; --recipe bot is lighter)\n" in ran.err
    ran = lupctl(f"{line} --from imagenet --arch r101")
    assert "recipe: mgn-imagenet-r101 (the default for this start;" in ran.err
    own = pretrain_job(labelled, tmp_path / "lup" / "runs" / "own", "pixels.mean=[0.4, 0.5, 0.6]")
    nl = pretrain_job(labelled, tmp_path / "lup" / "runs" / "nl", "pixels.mean=[0.3452, 0.3070, 0.3114]")
    for job in (own, nl):
        pretrain(job, QUIET)
    assert "recipe: mgn-luperson-nl (" in lupctl(f"{line} --from nl").err
    options = " ".join(as_options(TINY))
    ran = lupctl(f"finetune {labelled} --from own --gpus 0 --workers 0 --out run {options} --set schedule.epochs=1")
    assert ran.code == 0, ran.err
    assert "recipe: mgn-luperson (the default for this start, with the start's pixel constants;" in ran.err
    header = read_header(Path("run") / CHECKPOINT)
    assert header.preprocessing.mean == (0.4, 0.5, 0.6)
    assert header.network.head.kind == "mgn"


def test_a_dump_of_an_mgn_has_all_its_parts(lupctl: Shell, labelled: Path, whole: Path) -> None:
    ran = lupctl(f"dump {whole} {labelled} --out f.features.h5 --json")
    assert ran.code == 0, ran.err
    assert (ran.json["dim"], ran.json["images"]) == (len(HEADS) * 8, 34)
    assert ran.json["network"] == "r18 width 4, gem pooling, head mgn (finetune)"


def slow_soft_triplet(features: torch.Tensor, label: list[int]) -> float:
    """Mean of softplus(farthest own - nearest other) over rows, the row itself allowed as its own."""
    rows, total = features.tolist(), 0.0
    for i, row in enumerate(rows):
        own = max(math.dist(row, other) for j, other in enumerate(rows) if label[j] == label[i])
        near = min(math.dist(row, other) for j, other in enumerate(rows) if label[j] != label[i])
        total += math.log1p(math.exp(own - near))
    return total / len(rows)


def test_the_loss_is_an_eighth_of_eight_and_a_fifth_of_five(
    labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # oneDNN's gradients of these convolutions, in evaluation and channels first, write beyond their memory on AVX2.
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    recipe = mgn_job(labelled, tmp_path / "run").recipe
    torch.manual_seed(6)
    network = build_mgn(network_plan(recipe, 4)).eval()
    view, label = torch.randn(6, 3, 96, 32), [0, 1, 3, 3, 0, 1]
    parts = measure(recipe, network, view, torch.tensor(label), torch.float32)
    with torch.no_grad():
        features = network(view)
        weight = network.classifier_weight()
    named = dict(zip(HEADS, features.unbind(1), strict=True))
    halves, thirds = [named["b21"], named["b22"]], [named["b31"], named["b32"], named["b33"]]
    five = [named["b1"], named["b2"], named["b3"], torch.cat(halves, 1), torch.cat(thirds, 1)]
    triplet = sum(0.2 * slow_soft_triplet(feature, label) for feature in five)
    identity = slow_head_loss(features, weight, torch.tensor(label))
    assert parts["identity"].item() == pytest.approx(identity, rel=1e-4)
    assert parts["triplet"].item() == pytest.approx(triplet, rel=1e-4)
    assert parts["loss"].item() == pytest.approx(identity + triplet, rel=1e-4)
    cosine = torch.nn.functional.normalize(named["b1"]) @ torch.nn.functional.normalize(weight[0]).T
    hits = sum(int(row.argmax()) == own for row, own in zip(cosine, label, strict=True))
    assert parts["accuracy"].item() == pytest.approx(hits / 6)
    parts["loss"].backward()
    lacking = {key for key, value in network.named_parameters() if value.grad is None or not value.grad.abs().sum()}
    assert {key for key in lacking if not key.endswith("bottleneck.1.bias")} == set(), "every tensor learns"


@pytest.mark.parametrize("head", ["mgn", "bnneck"])
def test_ibn_is_an_option_of_both_heads_and_has_no_imagenet_weights(labelled: Path, tmp_path: Path, head: str) -> None:
    job = mgn_job(labelled, tmp_path / "run", "net.ibn=true", f"net.head={head}", "schedule.epochs=1")
    assert network_plan(job.recipe, 6).trunk.ibn
    finetune(job, QUIET)
    first = "backbone.4.0" if head == "mgn" else "backbone.layer1.0"
    tensors = load_file(job.run / CHECKPOINT)
    assert (tensors[f"{first}.bn1.IN.weight"].shape, tensors[f"{first}.bn1.BN.running_var"].shape) == ((2,), (2,))
    with pytest.raises(UsageError, match="torchvision has ImageNet weights for plain trunks only"):
        finetune(mgn_job(labelled, tmp_path / "other", "net.ibn=true", "start=imagenet"), QUIET)
