"""Runs of self-distillation: continued, on any number of processes, started from; and what they refuse."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lupctl.core.errors import StoppedError, UsageError
from lupctl.core.formats.weights.file import read_method
from lupctl.core.formats.weights.header import read_header
from lupctl.core.formats.weights.trunk_plan import plan_trunk
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain import loop, setup, step
from lupctl.core.stages.pretrain.job import PretrainJob, plan_pretraining, student_plan
from lupctl.core.stages.pretrain.memory import estimate_memory, head_bytes
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.jobs.device import Placement
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import read_metrics
from lupctl.core.training.nets.dino import build_dino
from tests.tools.shell import Shell
from tests.tools.tiny.training import compute_in_double, run_forked, signal_at

QUIET = Progress(quiet=True)
CHECKPOINT, METHOD = "checkpoint.safetensors", "method.safetensors"
TINY = (
    "vit.depth=2", "vit.drop_path=0.3", "pixels.height=32", "pixels.width=16", "local.height=16", "local.width=8",
    "local.count=2", "dino.outputs=40", "dino.hidden=16", "dino.bottleneck=8", "data.batch=16", "bn_groups=4",
    "schedule.epochs=2", "schedule.warmup_epochs=1", "saving.every_epochs=0",
)  # fmt: skip
# One batch-norm group over all images, in as many processes as there are.
SPANNING = ("vit.stem=ics", "vit.patch=16", "vit.stride=16", "local.width=16", "bn_groups=1")


def dino_job(pack: Path, run: Path, *settings: str, processes: int = 1) -> PretrainJob:
    """Four steps of a tiny vision transformer, two of them with the last layer frozen."""
    recipe = resolve_recipe("pretrain", "small-dino", overrides=(*TINY, *settings))
    assert isinstance(recipe, PretrainRecipe)
    placement = Placement("cpu", processes, "")
    return PretrainJob(recipe=recipe, packs=(pack,), run=run, placement=placement, workers=0, command=())


@pytest.fixture(scope="module")
def whole(crowd: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing disturbed."""
    run = tmp_path_factory.mktemp("whole") / "run"
    pretrain(dino_job(crowd, run), QUIET)
    return run


def test_a_checkpoint_keeps_the_trunk_of_the_teacher_alone(whole: Path) -> None:
    header = read_header(whole / CHECKPOINT)
    assert (header.network.trunk.kind, header.network.pooling, header.network.head.kind) == ("vit", "token", "none")
    kept = load_file(whole / CHECKPOINT)
    assert all(key.startswith("backbone.") for key in kept)
    every = read_method(whole / METHOD).tensors
    assert all(torch.equal(value, every[f"teacher.embedding.{key}"]) for key, value in kept.items())
    assert not all(torch.equal(value, every[f"student.embedding.{key}"]) for key, value in kept.items())
    assert every["centre"].shape == (40,)
    assert float(every["centre"].abs().max()) > 0
    assert every["student.head.last_layer.weight"].shape == (40, 8)


def test_a_row_of_the_metrics_watches_the_outputs(whole: Path) -> None:
    row = read_metrics(whole)[-1]
    assert {"loss", "teacher_entropy", "student_entropy", "kl", "rank", "spread", "used"} <= row.keys()
    assert 0 < row["used"] <= 1


def test_stopped_and_continued_is_the_same_to_the_bit(
    crowd: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped inside the second epoch, whose first step is the last layer's first."""
    job = dino_job(crowd, tmp_path / "run")
    for number in (1, 2):
        with monkeypatch.context() as patch:
            signal_at(patch, step, number)
            with pytest.raises(StoppedError, match="of 4"):
                pretrain(job, QUIET)
    pretrain(job, QUIET)
    assert (job.run / CHECKPOINT).read_bytes() == (whole / CHECKPOINT).read_bytes()
    assert (job.run / METHOD).read_bytes() == (whole / METHOD).read_bytes()


def test_any_number_of_processes_gives_the_same_bits(crowd: Path, whole: Path, tmp_path: Path) -> None:
    """Four groups, one part each, in one process or two."""
    job = dino_job(crowd, tmp_path / "two", processes=2)
    job.run.mkdir()
    assert run_forked(loop.train_job, job, processes=2) == [0, 0]
    one, two = read_method(whole / METHOD).tensors, read_method(job.run / METHOD).tensors
    assert all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.slow
def test_one_group_over_two_processes_is_one_group(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, because sums of statistics are taken in another order; running statistics included."""
    compute_in_double(monkeypatch, step, setup, "place_method")
    jobs = [dino_job(crowd, tmp_path / str(number), *SPANNING, processes=number) for number in (1, 2)]
    for number, job in enumerate(jobs, start=1):
        plan_pretraining(job)
        job.run.mkdir()
        assert run_forked(loop.train_job, job, processes=number) == [0] * number
    one, two = (read_method(job.run / METHOD).tensors for job in jobs)
    assert any(key.endswith("running_var") for key in one)
    for key, value in one.items():
        if not key.endswith("attn.qkv.bias"):  # that of the keys is rounding, of which AdamW makes whole steps
            torch.testing.assert_close(two[key], value, rtol=1e-4, atol=1e-6, msg=key)


def test_fine_tuning_can_start_from_it() -> None:
    """The recipe of its partner has the same trunk, but for the resize of positions, which is that of local crops."""
    pre, fine = resolve_recipe("pretrain", "small-dino"), resolve_recipe("finetune", "small-vit")
    trunks = [
        plan_trunk(recipe.net, recipe.pixels, vit=recipe.vit).model_dump(exclude={"position"}) for recipe in (pre, fine)
    ]
    assert trunks[0] == trunks[1]


@pytest.mark.parametrize(
    ("settings", "message", "hint"),
    [
        (["local.height=144"], "local.height = 144 is larger than pixels.height = 128", "--set local.height=64"),
        (["local.width=72"], "local.width = 72 is larger than pixels.width = 64", "--set local.width=32"),
        (["pixels.height=130"], "pixels.height = 130 is no multiple of vit-t's patch of 8", "--set pixels.height=128"),
        (["local.width=20"], "local.width = 20 is no multiple of vit-t's patch of 8", "--set local.width=16"),
        (["data.batch=1"], "data.batch", None),
        (["bn_groups=64"], "bn_groups = 64 does not divide data.batch = 64 into equal parts of two or more", None),
        (["moco.queue=64"], "[moco] is a section of the method moco; this recipe's method is dino", None),
        (["schedule.unit=epoch"], "kind = 'dino' has one rate for each step", None),
        (["schedule.hold_epochs=2.0"], "hold_epochs and kind = 'dino' cannot be combined", None),
        (["local.count=33"], "local.count", None),
        (["data.keep=1.5"], "keep = 1.5; a share up to 1 or a whole number of images is expected", None),
    ],
)
def test_what_cannot_work_is_refused(settings: list[str], message: str, hint: str | None) -> None:
    with pytest.raises(UsageError) as caught:
        resolve_recipe("pretrain", "small-dino", overrides=settings)
    assert message in caught.value.message
    assert caught.value.exit_code == 2
    if hint is not None:
        assert caught.value.hint == hint
        resolve_recipe("pretrain", "small-dino", overrides=[*settings, hint.removeprefix("--set ")])


def test_other_methods_have_no_part_of_it() -> None:
    for entry, message in (
        ("dino.outputs=5", r"\[dino\] is a section of the method dino"),
        ("local.count=2", r"\[local\] is a section of the method dino"),
        ("augment_second.blur=0.1", r"\[augment_second\] is a section of the method dino"),
        ("vit.drop_path=0.1", r"vit\.drop_path = 0\.1 is of the method dino"),
    ):
        with pytest.raises(UsageError, match=message):
            resolve_recipe("pretrain", "small-moco-vit", overrides=[entry])


def test_devices_share_groups_that_span_them(lupctl: Shell) -> None:
    plan = "pretrain --method dino --gpus {} --dry-run --json {}"
    found = lupctl(plan.format(8, "--arch vit-s-ics")).json
    assert (found["arch"], found["batch"], found["batch_per_device"], found["rate"]) == ("vit-s", 512, 64, 1e-3)
    assert (found["bn_groups"], found["part_per_device"], found["steps"]) == (1, 64, None)
    assert 4e9 < found["memory_bytes"] < 30e9
    # Without batch norm, a share is cut into parts whatever the groups; with it, a part needs whole ones.
    parts = lupctl(plan.format(8, "--arch vit-s --set optim.accumulate=4")).json
    assert (parts["batch_per_device"], parts["part_per_device"]) == (64, 16)
    assert parts["memory_bytes"] < lupctl(plan.format(8, "--arch vit-s")).json["memory_bytes"]
    refused = lupctl(plan.format(8, "--arch vit-s-ics --set bn_groups=2 --set optim.accumulate=2"))
    assert refused.code == 2
    assert "hint: --set optim.accumulate=1" in refused.err
    uneven = lupctl(plan.format(8, "--arch vit-s --set data.batch=528 --set optim.accumulate=4"))
    assert "a share of 66 images does not divide into optim.accumulate = 4" in uneven.err
    assert "hint: --set optim.accumulate=2" in uneven.err


@pytest.mark.parametrize(
    ("arch", "recipe"),
    [("vit-s", "dino-vit-s"), ("vit-s-ics", "dino-vit-s-ics"), ("vit-b-ics", "dino-vit-b-ics"), ("r50", "dino-resnet")],
)
def test_an_architecture_has_its_recipe(lupctl: Shell, arch: str, recipe: str) -> None:
    said = lupctl(f"pretrain --method dino --arch {arch} --gpus 8 --dry-run")
    assert said.code == 0
    assert f"recipe: {recipe} (" in said.err


def test_a_run_too_short_for_its_last_layer_says_so(lupctl: Shell) -> None:
    plan = "pretrain --method dino --gpus 8 --dry-run --epochs 1"
    assert (
        "last layer: never trained, because it is frozen for 1 epoch of 1: --set dino.frozen_epochs=0"
        in lupctl(plan).err
    )
    assert "last layer" not in lupctl(f"{plan} --set dino.frozen_epochs=0").err


def test_the_head_is_part_of_the_memory() -> None:
    """Three networks' worth of it per device, its logits, and two moments of AdamW."""
    recipe = resolve_recipe("pretrain", "dino-vit-s")
    assert isinstance(recipe, PretrainRecipe)
    with torch.device("meta"):
        head = build_dino(student_plan(recipe), hidden=2048, bottleneck=256, outputs=65536).head
    assert head_bytes(recipe.settings, student_plan(recipe)) == 4 * sum(value.numel() for value in head.parameters())

    def estimate(*settings: str) -> int:
        changed = resolve_recipe("pretrain", "dino-vit-s", overrides=settings)
        assert isinstance(changed, PretrainRecipe)
        return estimate_memory(changed, student_plan(changed), processes=8, parts=1, is_half=True)

    few = estimate("dino.outputs=1024")
    # 64,512 more rows of 256: student, gradient, two moments, message, teacher; the centre; logits.
    rows = 64512 * 4 * (256 * 6 + 1)
    assert estimate() - few == rows + 64 * 64512 * 4 * (2 * 10 + 4)
    without = estimate("local.count=0")
    assert 1.5 < estimate() / without < 3
    assert estimate("net.checkpoint_activations=true") < 0.8 * estimate()
