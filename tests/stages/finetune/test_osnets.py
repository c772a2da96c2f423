"""Fine-tuning OSNets: starts, batches of whomever, what is frozen, several processes, and resuming."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.choices import OsnetArch
from lupctl.core.errors import LupError, StoppedError, UsageError
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import read_header
from lupctl.core.formats.weights.osnet_plan import OsnetPlan
from lupctl.core.formats.weights.plan import FcHead, HeadPlan, NetworkPlan
from lupctl.core.recipes.finetune_sections import FinetuneData
from lupctl.core.recipes.models import FinetuneRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune import loop
from lupctl.core.stages.finetune.checks import check_start
from lupctl.core.stages.finetune.job import FinetuneJob, build_order, plan_finetuning
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_network
from tests.tools.networks import make_header, no_head
from tests.tools.tiny.training import compute_in_double, osnet_job, read_state, run_forked, signal_at

QUIET = Progress(quiet=True)
CHECKPOINT = "checkpoint.safetensors"
PUBLISHED = ("osnet", "osnet-x0.25", "osnet-ibn", "osnet-ain", "osnet-scratch")


def write_start(path: Path, head: HeadPlan, arch: OsnetArch = "osnet-x0.25") -> dict[str, torch.Tensor]:
    """A checkpoint with random weights; returns its tensors."""
    torch.manual_seed(7)
    plan = NetworkPlan(trunk=OsnetPlan(kind="osnet", arch=arch), pooling="avg", head=head)
    tensors = build_network(plan).state_dict()
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, tensors, make_header(plan, stage="convert"))
    return tensors


def fc(classes: int = 0) -> FcHead:
    return FcHead(kind="fc", classes=classes, outputs=512)


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network as `model convert` writes torchreid's."""
    path = tmp_path_factory.mktemp("pre") / "osnet.safetensors"
    write_start(path, fc())
    return path


@pytest.fixture(scope="module")
def whole(labelled: Path, start: Path, tmp_path_factory: pytest.TempPathFactory) -> FinetuneJob:
    """A run of six steps, which nothing disturbed."""
    job = osnet_job(labelled, tmp_path_factory.mktemp("whole") / "run", start=start)
    finetune(job, QUIET)
    return job


def test_all_of_it_learns(whole: FinetuneJob, start: Path) -> None:
    before, after = load_file(start), load_file(whole.run / CHECKPOINT)
    assert {key for key in after if key not in before} == {"head.classifier.weight", "head.classifier.bias"}
    assert not [key for key, value in before.items() if torch.equal(value, after[key])]
    header = read_header(whole.run / CHECKPOINT)
    assert header.network == NetworkPlan(trunk=OsnetPlan(kind="osnet", arch="osnet-x0.25"), pooling="avg", head=fc(6))
    facts = json.loads((whole.run / "run.json").read_text())
    assert facts["loss"] == pytest.approx(facts["identity"])
    assert facts["triplet"] > 0, "it is measured, and counts for nothing"
    assert 1 / 17 < facts["scores"]["map"] < 1
    assert "distil" not in facts


def test_stopped_and_continued_is_the_same_to_the_bit(
    labelled: Path, start: Path, whole: FinetuneJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The largest second moments of AMSGrad are part of the state, too."""
    job = osnet_job(labelled, tmp_path / "run", start=start)
    with monkeypatch.context() as patch:
        signal_at(patch, loop, 3)
        with pytest.raises(StoppedError, match="stopped on request after step 3"):
            finetune(job, QUIET)
    moments = read_state(job.run)["optimizer"]["state"][0]
    assert {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"} < set(moments)
    torch.manual_seed(99)
    finetune(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole.run / CHECKPOINT).read_bytes()


@pytest.mark.parametrize("arch", ["osnet-x0.25", "osnet-ain-x0.25"])
def test_two_processes_are_one(
    arch: OsnetArch, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "osnet.safetensors"
    write_start(start, fc(), arch)
    compute_in_double(monkeypatch, loop, loop, "build_started")
    monkeypatch.setattr(loop, "evaluate_network", lambda *given, **more: {"map": 0.0, "rank1": 0.0})
    # Not by Adam, which makes a step of the rounding of a gradient that is 0, as that of a bias before a norm.
    settings = (f"net.arch={arch}", "bn_groups=2", "pixels.width=32", "schedule.epochs=1", "optim.name=sgd")
    one, two = (osnet_job(labelled, tmp_path / name, *settings, start=start) for name in ("one", "two"))
    two.run.mkdir()
    finetune(one, QUIET)
    assert run_forked(loop.train_job, two, processes=2) == [0, 0]
    tensors = [load_file(job.run / CHECKPOINT) for job in (one, two)]
    for key, value in tensors[0].items():
        assert torch.allclose(value, tensors[1][key], rtol=1e-9, atol=1e-9), key


# torchreid's way


@pytest.mark.parametrize("recipe", PUBLISHED)
def test_published_recipes_are_as_published(recipe: str) -> None:
    found = resolve_recipe("finetune", recipe)
    assert isinstance(found, FinetuneRecipe)
    assert found.losses is not None
    assert (found.losses.identity, found.losses.triplet, found.losses.smoothing) == (1.0, 0.0, 0.1)
    assert (found.net.head, found.data.order, found.pixels.interpolation) == ("fc", "shuffled", "bilinear")
    assert (found.pixels.height, found.pixels.width, found.optim.weight_decay) == (256, 128, 5e-4)
    rate, batch, epochs, steps = {
        "osnet": (1.5e-3, 64, 150, (60, 120)),
        "osnet-x0.25": (3e-3, 128, 180, (80, 160)),
        "osnet-ibn": (1.5e-3, 64, 150, (60, 120)),
        "osnet-ain": (1.5e-3, 64, 100, ()),
        "osnet-scratch": (0.065, 64, 350, (150, 225, 300)),
    }[recipe]
    assert (found.optim.lr, found.data.persons * found.data.images) == (rate, batch)
    assert (found.schedule.epochs, found.schedule.milestones, found.schedule.warmup_epochs) == (epochs, steps, 0)
    assert found.freeze_epochs == (0 if recipe == "osnet-scratch" else 10)
    assert found.optim.name == ("sgd" if recipe == "osnet-scratch" else "amsgrad")
    jitter = found.augment.jitter
    assert (jitter.p, jitter.brightness, jitter.contrast, jitter.saturation, jitter.hue)[: 1 + 4 * (jitter.p > 0)] == (
        (1.0, 0.2, 0.15, 0.0, 0.0) if recipe in ("osnet-ibn", "osnet-ain") else (0.0,)
    )
    assert found.augment.flip == 0.5


def test_the_classifier_alone_learns_at_first(labelled: Path, start: Path, tmp_path: Path) -> None:
    """Frozen are the layer `fc`, too, and the statistics of all norms."""
    settings = ("net.arch=osnet-x0.25", "schedule.milestones=[]", "freeze_epochs=10", "optim.lr=1e-2")
    job = osnet_job(labelled, tmp_path / "run", *settings, recipe="osnet", start=start)
    finetune(job, QUIET)
    before, after = load_file(start), load_file(job.run / CHECKPOINT)
    assert all(torch.equal(value, after[key]) for key, value in before.items())
    weight = after["head.classifier.weight"]
    torch.manual_seed(job.recipe.seed)
    drawn = build_started(job, 6, QUIET).state_dict()["head.classifier.weight"]
    assert not torch.equal(weight, drawn)


def test_shuffled_batches_have_every_image_once_an_epoch(labelled: Path, tmp_path: Path) -> None:
    job = osnet_job(labelled, tmp_path / "run")
    plan = plan_finetuning(job)
    assert plan.steps_per_epoch == plan.images // 12
    order = build_order(job.recipe, *(2 * [torch.zeros(plan.images).numpy().astype(kind)][0] for kind in ("i8", "i2")))
    rows = [order.rows(step).tolist() for step in range(plan.steps_per_epoch)]
    assert all(len(one) == 12 for one in rows)
    seen = [row for one in rows for row in one]
    assert len(set(seen)) == len(seen)
    assert order.rows(plan.steps_per_epoch).tolist() not in rows
    assert FinetuneData().order == "epochs"


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (("losses.triplet=1",), "which losses.triplet = 1 cannot do without", "--set data.order=epochs"),
        (("net.arch=r18",), "net.head = 'fc' is of OSNets; net.arch is r18", "--set net.head=bnneck"),
        (("net.head=mgn",), "net.head = 'mgn' is not of OSNets", "lupctl recipe show"),
        (("net.width=32",), "net.width = 32 is of residual networks; net.arch is osnet-x0.25", "lupctl recipe show"),
        (("net.feature=before",), "net.feature = 'before' is of bnneck and jpm; net.head is fc", "net.feature=after"),
        (("net.pooling=token",), "net.pooling = 'token' needs the tokens of a vit", "lupctl recipe show"),
        (("pixels.width=8",), "pixels.height = 32, pixels.width = 8 leave too little", "lupctl recipe show"),
        (
            ("net.arch=osnet-ain-x0.25", "pixels.height=16"), "the last map of osnet-ain-x0.25, which", "recipe show",
        ),
    ],
)  # fmt: skip
def test_recipes_that_are_refused(
    labelled: Path, tmp_path: Path, settings: tuple[str, ...], message: str, hint: str
) -> None:
    with pytest.raises(UsageError) as caught:
        osnet_job(labelled, tmp_path / "run", *settings)
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_too_few_images_for_a_shuffled_batch(labelled: Path, tmp_path: Path) -> None:
    settings = ("data.persons=60",)
    with pytest.raises(UsageError, match="is a batch of 180; the training set has 36 images") as caught:
        plan_finetuning(osnet_job(labelled, tmp_path / "run", *settings))
    assert caught.value.hint == "--batch 16"


# Starts


def test_heads_of_starts(labelled: Path, start: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A network like it keeps `fc`; a trunk alone gets a new one; with BNNeck it is not used."""

    def built(path: Path, *settings: str) -> dict[str, torch.Tensor]:
        job = osnet_job(labelled, tmp_path / "run", *settings, start=path)
        check_start(path, job.recipe)
        return build_started(job, 6, Progress()).state_dict()

    given = load_file(start)
    found = built(start)
    assert all(torch.equal(value, found[key]) for key, value in given.items())
    assert "layer fc included; new classifier" in capsys.readouterr().err
    trunk = tmp_path / "pre" / "trunk.safetensors"
    write_start(trunk, no_head())
    found = built(trunk)
    assert torch.equal(found["backbone.conv5.conv.weight"], given["backbone.conv5.conv.weight"])
    assert not torch.equal(found["head.fc.0.weight"], given["head.fc.0.weight"])
    assert "; new head" in capsys.readouterr().err
    found = built(start, "net.head=bnneck")
    assert found["head.neck.weight"].shape == (128,)
    assert "7 of its head not used, new head" in capsys.readouterr().err


def test_starts_that_do_not_fit(labelled: Path, start: Path, tmp_path: Path) -> None:
    def refused(path: Path | None, *settings: str) -> LupError:
        with pytest.raises(UsageError) as caught:
            check_start(path, osnet_job(labelled, tmp_path / "run", *settings, start=path).recipe)
        return caught.value

    other = refused(start, "net.arch=osnet-x0.5")
    assert (other.message, other.hint) == (f"{start}: osnet-x0.25; the recipe says osnet-x0.5", "--arch osnet-x0.25")
    family = refused(start, "net.arch=r18", "net.head=bnneck")
    assert "an OSNet (osnet-x0.25); the recipe trains a residual network (r18)" in family.message
    imagenet = refused(None, "start=imagenet")
    assert "torchvision has no ImageNet weights of OSNets" in imagenet.message
    assert imagenet.hint.startswith("lupctl model download osnet-x0.25-imagenet --accept-terms")
