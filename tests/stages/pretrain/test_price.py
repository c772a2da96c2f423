"""What a pre-training will cost: measured steps that leave nothing, and what follows from them."""

import os
import shlex
import signal
import sysconfig
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
from torch import nn

from lupctl.cli.train.plan import describe_compiling, describe_measurement
from lupctl.core.data.catalog.costs import PUBLISHED_COSTS, PublishedCost
from lupctl.core.errors import UsageError
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.resolve.training.pretraining import resolve
from lupctl.core.stages.pretrain import job as job_module
from lupctl.core.stages.pretrain import step as step_module
from lupctl.core.stages.pretrain.job import PretrainJob, estimate_device
from lupctl.core.stages.pretrain.pricing import price as price_module
from lupctl.core.stages.pretrain.pricing.cheaper import list_changes
from lupctl.core.stages.pretrain.pricing.measure import Measured, Trial, measure
from lupctl.core.stages.pretrain.pricing.price import Price, place_here, price, rate_of
from lupctl.core.stages.pretrain.pricing.shares import cut_recipe, list_shares
from lupctl.core.system.jobs.device import Placement
from tests.tools.shell import Shell
from tests.tools.tiny.training import PRETRAIN, as_options, call_at, pretrain_job

TINY = ("net.arch=r18", "net.width=4", "pixels.height=32", "pixels.width=16", "data.batch=16", "bn_groups=4")
MEASURED = Measured(
    share=1, batch=256, steps=9, step_s=0.5, update_s=0.0, waiting_s=0.0, memory_bytes=2**30, before_bytes=0
)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


def shipped(name: str, *overrides: str) -> PretrainRecipe:
    recipe = resolve_recipe("pretrain", name, overrides=overrides)
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def planned(recipe: PretrainRecipe, gpus: int) -> PretrainJob:
    placement = Placement("cuda", gpus, "")
    return PretrainJob(recipe=recipe, packs=(), run=Path("run"), placement=placement, workers=0, command=())


def test_a_price_is_measured_and_leaves_nothing(crowd: Path, tmp_path: Path, lupctl: Shell) -> None:
    words = f"pretrain --data {crowd} --gpus 0 --workers 0 {' '.join(as_options(PRETRAIN))} --dry-run"
    plain = lupctl(f"{words} --json").json
    ran = lupctl(f"{words} --probe-seconds 1 --json")
    assert ran.code == 0, ran.err
    plan = ran.json
    found = plan.pop("price")
    assert plan == plain, "the plan is that of a dry run"
    measured = found["measured"]
    assert measured["steps"] >= 1
    assert 0 <= measured["update_s"] + measured["waiting_s"] < measured["step_s"]
    assert measured["memory_bytes"] >= measured["before_bytes"] > 2**20
    assert (found["pixels"], found["images"], found["images_of"]) == ("pack", 4 * 16, "crowd")
    # Four groups: one machine, or two, or four, of which each takes whole groups.
    assert [(one["devices"], one["basis"]) for one in found["scaled"]] == [
        (1, "measured"),
        (2, "linear"),
        (4, "linear"),
    ]
    for one in found["scaled"]:
        assert one["images_per_s"] == pytest.approx(found["images_per_s"] * one["devices"])
        assert one["hours"] == pytest.approx(64 / one["images_per_s"] / 3600)
    assert found["scaled"][0]["memory_bytes"] == plain["memory_bytes"]
    assert list(tmp_path.iterdir()) == []


def test_a_price_is_printed_and_drawn_data_is_random_pixels(tmp_path: Path, lupctl: Shell) -> None:
    ran = lupctl(f"pretrain --data synthetic --gpus 0 {' '.join(as_options(PRETRAIN))} --dry-run --probe-seconds 1")
    assert ran.code == 0, ran.err
    for words in (
        "images/s on cpu, 1 process; nothing was kept",
        "random pixels",
        "in RAM at the peak",
        "all of it: 8,360,480 images (4,180,243 images of LUPerson)",
        "--batch 8 --lr 0.05",
        "--set net.checkpoint_activations=true",
    ):
        assert words in ran.out
    assert "published:" not in ran.out, "nobody says what MoCo on LUPerson cost"
    assert list(tmp_path.iterdir()) == []


def test_a_price_says_whether_compiling_pays(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lupctl: Shell
) -> None:
    """Writing C++ for the network would take a minute; what was traced runs as it is here."""
    real, compiled = nn.Module.compile, list[nn.Module]()

    def compile_eagerly(network: nn.Module) -> None:
        compiled.append(network)
        real(network, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile_eagerly)
    options = as_options((*PRETRAIN, "net.compile=true"))
    ran = lupctl(f"pretrain --data {crowd} --gpus 0 --workers 0 {' '.join(options)} --dry-run --probe-seconds 1 --json")
    assert ran.code == 0, ran.err
    measured = ran.json["price"]["measured"]
    assert measured["first_s"] > 2 * measured["step_s"] > 0
    assert measured["plain_s"] > 0
    assert len(compiled) == 2, "student and teacher, of the share that was measured and of no other"


def test_compiling_pays_when_its_cost_is_saved() -> None:
    """60 s for 0.1 s less with each batch of 256: 600 steps."""
    found = replace(MEASURED, step_s=0.4, first_s=60.0)
    told = "compile: the first step took 1 min, the others 0.4 s, without 0.5 s"
    assert (
        describe_compiling(found, 0.5, batch=256, images=256_000)
        == f"{told}; that pays after 153,600 of 256,000 images"
    )
    never = "that does not pay in this run: --set net.compile=false"
    assert describe_compiling(found, 0.5, batch=256, images=150_000) == f"{told}; {never}"
    assert never in describe_compiling(found, 0.3, batch=256, images=10**9)


def test_compiling_needs_a_compiler(
    crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lupctl: Shell
) -> None:
    words = f"pretrain --data {crowd} --gpus 0 {' '.join(as_options((*PRETRAIN, 'net.compile=true')))} --dry-run"
    assert lupctl(words).code == 0
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    assert f"needs Python's headers, and {tmp_path / 'Python.h'} is not here" in lupctl(words).err
    monkeypatch.setenv("CXX", "no-such-compiler")
    ran = lupctl(words)
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.endswith(
        "error: net.compile: torch.compile needs a compiler, and no-such-compiler is not here\n"
        "hint: install a compiler (Debian: apt install g++ python3-dev), or --set net.compile=false\n"
    )


def test_a_price_needs_a_dry_run(crowd: Path, tmp_path: Path, lupctl: Shell) -> None:
    words = f"pretrain --data {crowd} --gpus 0 --workers 0 {' '.join(as_options(PRETRAIN))} --probe-seconds 1 --json"
    ran = lupctl(words)
    assert ran.code == 2
    assert ran.err.startswith("error: --probe-seconds 1: only with --dry-run")
    assert list(tmp_path.iterdir()) == []
    hint = ran.err.splitlines()[1].removeprefix("hint: ")
    assert shlex.split(hint) == ["lupctl", *shlex.split(words), "--dry-run"]
    assert lupctl(hint.removeprefix("lupctl ")).code == 0


@pytest.mark.parametrize(
    "method", ["dino", *(pytest.param(one, marks=pytest.mark.slow) for one in ("moco", "pnl", "simclr", "supcon"))]
)
def test_random_pixels_price_every_method(method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(job_module, "LUPERSON_NL_LABELS", 50)
    monkeypatch.setattr(price_module, "HOUR_S", 1)
    names = {"moco": "luperson-moco", "dino": "dino-resnet"}
    local = ("local.height=32", "local.width=16", "local.count=2", "dino.outputs=64") if method == "dino" else ()
    recipe = shipped(names.get(method, f"luperson-nl-{method}"), *TINY, *local, "schedule.epochs=20")
    job = replace(planned(recipe, 1), placement=Placement("cpu", 1, ""), run=tmp_path / "run")
    found = price(job, 1.0)
    assert found is not None
    assert found.pixels == "random"
    assert [cost.project for cost in found.published] == (["CION"] if method == "dino" else [])
    number = 10_683_716 if method in ("pnl", "supcon") else 4_180_243
    assert found.images == number // 16 * 16 * 20
    assert f"{number:,} images" in found.images_of
    assert found.scaled[0].hours == pytest.approx(found.images / found.images_per_s)
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_ends_a_price(crowd: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lupctl: Shell) -> None:
    call_at(monkeypatch, step_module, 3, lambda: os.kill(os.getpid(), signal.SIGINT))
    line = f"pretrain --data {crowd} --gpus 0 --workers 1 {' '.join(as_options(PRETRAIN))}"
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in a shell's background ignore it
    try:
        ran = lupctl(f"{line} --dry-run --probe-seconds 60")
    finally:
        signal.signal(signal.SIGINT, before)
    assert ran.code == 130
    assert ran.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_are_measured_together(crowd: Path, tmp_path: Path) -> None:
    found = price(pretrain_job(crowd, tmp_path / "run", processes=2), 2.0)
    assert found is not None
    assert (found.processes, found.measured.batch * found.measured.share) == (2, 16)
    # A row is a machine, and each takes both processes: four groups are for two machines at most.
    assert [one.devices for one in found.scaled] == [1, 2]
    assert found.scaled[0].images_per_s == pytest.approx(found.images_per_s)
    assert "cpu, 2 processes" in "\n".join(describe_measurement(found))
    assert list(tmp_path.iterdir()) == []


def test_a_slow_machine_measures_a_part_of_the_batch(crowd: Path, tmp_path: Path) -> None:
    """In no time at all nothing fits, so the smallest part is measured, by one step at least."""
    job = pretrain_job(crowd, tmp_path / "run")
    found = measure(Trial(job, (1, 2, 4, 8), 0.0, 0))
    assert found is not None
    assert (found.share, found.batch, found.steps) == (8, 2, 1)
    roomy = measure(Trial(job, (1, 2, 4, 8), 100 * found.step_s, 0))
    assert roomy is not None
    assert roomy.share < 8


def test_a_part_of_a_batch_tells_of_all_of_it() -> None:
    """An update takes as long for a large batch: 0.1 s of update and 0.2 s for 64 images; 512 images take 1.7 s."""
    part = replace(MEASURED, share=8, batch=64, step_s=0.3, update_s=0.1)
    assert rate_of(part, divisor=8) == pytest.approx(512 / 1.7)
    assert rate_of(part, divisor=1) == pytest.approx(64 / 0.3)


@pytest.mark.parametrize(
    ("divisor", "batch", "groups", "accumulate"), [(1, 64, 8, 4), (2, 32, 4, 4), (4, 16, 2, 2), (16, 4, 1, 1)]
)
def test_a_part_of_a_batch_keeps_its_groups(divisor: int, batch: int, groups: int, accumulate: int) -> None:
    cut = cut_recipe(shipped("luperson-moco", "data.batch=64", "optim.accumulate=4"), divisor)
    assert (cut.data.batch, cut.bn_groups, cut.optim.accumulate) == (batch, groups, accumulate)


def test_parts_of_a_batch_that_devices_can_run() -> None:
    recipe = shipped("luperson-moco", "data.batch=96", "bn_groups=4")
    # 3 and 6 would cut groups into unequal parts; 48 leaves a group of two.
    assert list_shares(recipe, "cpu", processes=1) == [1, 2, 4, 8, 12, 16, 24, 32, 48]
    assert list_shares(recipe, "cpu", processes=2) == [1, 2]
    assert list_shares(recipe, "cuda", processes=1, first=4) == [4, 8, 12, 16, 24, 32, 48]
    with pytest.raises(UsageError):
        cut_recipe(recipe, 3)


@pytest.mark.parametrize(
    ("name", "gpus"),
    [
        ("small-dino", 1),
        *(
            pytest.param(*one, marks=pytest.mark.slow)
            for one in (("luperson-moco", 1), ("luperson-moco", 8), ("luperson-nl-pnl", 4), ("dino-vit-s-ics", 2))
        ),
    ],
)
def test_every_change_can_be_typed_and_needs_the_memory_it_says(name: str, gpus: int) -> None:
    recipe, classes = shipped(name), 50
    now = estimate_device(recipe, "cuda", processes=gpus, classes=classes)
    changes = list_changes(recipe, "cuda", processes=gpus, classes=classes)
    assert changes
    for one in changes:
        words = one.options.split()
        named = dict(zip(words[::2], words[1::2], strict=True))
        flags: dict[str, float | None] = {"data.batch": None, "optim.lr": None}
        if "--batch" in named:
            flags = {"data.batch": int(named["--batch"]), "optim.lr": float(named["--lr"])}
        changed = resolve(name, flags, [named["--set"]] if "--set" in named else [])
        assert one.memory_bytes == estimate_device(changed, "cuda", processes=gpus, classes=classes) < now
        assert changed.optim.lr / changed.data.batch == pytest.approx(recipe.optim.lr / recipe.data.batch, rel=1e-5)


def test_changes_that_do_not_apply_are_not_offered() -> None:
    def offered(*overrides: str, kind: str = "cuda", gpus: int = 1) -> str:
        recipe = shipped("luperson-moco", *TINY[:4], *overrides)
        return "\n".join(one.options for one in list_changes(recipe, kind, processes=gpus, classes=0))

    assert "optim.accumulate=2\n--set optim.accumulate=4" in offered()
    assert "optim.accumulate" not in offered(kind="cpu"), "a CPU takes one group at a time"
    assert "optim.accumulate" not in offered(gpus=8), "one group on each device"
    assert "optim.accumulate=8" in offered("optim.accumulate=4")
    assert "checkpoint" not in offered("net.checkpoint_activations=true")
    assert "checkpoint" not in offered("net.compile=true"), "the two cannot be combined"
    assert "--batch" not in offered("data.batch=20", "bn_groups=10"), "groups of one image"


def test_gpus_are_scaled_from_a_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight GPUs are asked for and two are here: each takes 320 of 2,560 images, which took half a second."""
    given: list[Trial] = []

    def fake(trial: Trial) -> Measured:
        given.append(trial)
        return replace(MEASURED, share=4, batch=640)

    found = price_with(monkeypatch, planned(shipped("luperson-moco"), 8), visible=2, fake=fake)
    (trial,) = given
    assert (trial.job.placement.processes, trial.shares[0]) == (2, 4)
    assert found.images_per_s == pytest.approx(1280)
    assert [(one.devices, one.images_per_s) for one in found.scaled] == [(1, 640), (2, 1280), (4, 2560), (8, 5120)]
    assert {one.basis for one in found.scaled if one.devices != 2} == {"linear"}
    images = 4_180_243 // 2560 * 2560 * 200
    assert found.scaled[-1].hours == pytest.approx(images / 5120 / 3600)
    lines = lines_of(found)
    assert lines[0].startswith("measured: 1,280 images/s on 2 x a GPU")
    assert "1,024 MiB allocated at the peak" in lines[-1]


def test_without_a_gpu_only_this_cpu_is_priced(monkeypatch: pytest.MonkeyPatch) -> None:
    job = planned(shipped("luperson-moco"), 8)
    found = price_with(monkeypatch, job, visible=0, fake=lambda trial: replace(MEASURED, share=8, batch=320))
    assert (found.kind, found.processes) == ("cpu", 1)
    assert [(one.devices, one.basis) for one in found.scaled] == [(1, "measured")]
    assert (found.asked_kind, found.asked_processes) == ("cuda", 8)
    assert "device: no GPU is visible here; this is the CPU, from which nothing follows for GPUs" in lines_of(found)
    assert found.images_per_s == pytest.approx(640)
    assert found.images == 4_180_243 // 2560 * 2560 * 200
    job = planned(shipped("luperson-moco", "data.keep=0.6"), 8)
    found = price_with(monkeypatch, job, visible=0, fake=lambda trial: replace(MEASURED, share=8, batch=320))
    assert (found.images, found.images_of) == (2_508_146 // 2560 * 2560 * 200, "2,508,146 images of LUPerson")


def test_few_steps_are_called_rough(monkeypatch: pytest.MonkeyPatch) -> None:
    job = planned(shipped("luperson-moco"), 1)
    for steps, step_s, said in ((9, 0.5, ""), (2, 0.5, "--probe-seconds 60"), (1, 30.0, "--probe-seconds 300")):
        measured = replace(MEASURED, batch=2560, steps=steps, step_s=step_s)
        found = price_with(monkeypatch, job, visible=1, fake=Mock(return_value=measured))
        assert [line for line in lines_of(found) if "rough" in line] == (
            [f"rough: few steps; {said} takes more"] if said else []
        )
        assert not any("waits for it" in line for line in lines_of(found))


def lines_of(found: Price) -> list[str]:
    """What is said about the measurement."""
    return list(describe_measurement(found))


def price_with(
    patch: pytest.MonkeyPatch, job: PretrainJob, *, visible: int, fake: Callable[[Trial], Measured]
) -> Price:
    """A price from steps that somebody else measured, on a machine with some GPUs."""
    patch.setattr("torch.cuda.device_count", lambda: visible)
    patch.setattr("torch.cuda.get_device_name", lambda index: "a GPU")
    patch.setattr(price_module, "measure", fake)
    found = price(job, 60)
    assert found is not None
    return found


def test_machines_are_measured_alone(crowd: Path, tmp_path: Path) -> None:
    job = pretrain_job(crowd, tmp_path / "run", processes=2)
    assert place_here(job).placement.processes == 2


def test_published_costs_say_where() -> None:
    for cost in PUBLISHED_COSTS:
        assert isinstance(cost, PublishedCost)
        assert cost.page.startswith("https://")
        assert cost.hours > 0
