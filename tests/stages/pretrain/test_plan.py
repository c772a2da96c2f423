"""What a dry run of pre-training promises: the published plan, without the devices and without the data."""

from dataclasses import replace
from pathlib import Path

import pytest

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.stages.pretrain.job import plan_pretraining
from lupctl.core.training.nets.memory import activation_bytes, recomputed_bytes
from tests.tools.networks import plan_network, projection
from tests.tools.shell import Shell
from tests.tools.tiny.training import PRETRAIN, as_options, pretrain_job

GIB = 2**30


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)


def test_the_published_plan_needs_neither_gpus_nor_data(lupctl: Shell, tmp_path: Path) -> None:
    ran = lupctl("pretrain --arch r50 --gpus 8 --dry-run --json")
    assert ran.code == 0, ran.err
    plan = ran.json
    assert plan["schema"] == "lupctl.pretrain-plan/1"
    assert (plan["arch"], plan["device"], plan["devices"], plan["machines"]) == ("r50", "cuda", 8, 1)
    assert (plan["batch"], plan["batch_per_device"], plan["bn_groups"], plan["epochs"]) == (2560, 320, 8, 200)
    assert [plan[key] for key in ("images", "steps", "data_bytes", "read_bytes")] == [None] * 4
    # Two encoders, gradient and momentum are 0.45 GiB; activations in 16 bits about 20 MiB an image.
    assert 4 * GIB < plan["memory_bytes"] < 20 * GIB
    assert ran.err.splitlines() == [
        "recipe: luperson-moco (LUPerson's, the default)",
        "data: unknown; lup/packs: no unlabelled pack to pre-train on",
        "hint: put images under raw/NAME of the workspace, then: lupctl data pack",
        "device: 8 x cuda (planned; 0 visible here)",
    ]
    assert list(tmp_path.iterdir()) == []
    assert "320" in lupctl("pretrain --arch r50 --gpus 8 --dry-run").out


@pytest.mark.parametrize("arch", ["r101", "r152"])
def test_a_deeper_network_takes_its_own_recipe(lupctl: Shell, arch: str) -> None:
    ran = lupctl(f"pretrain --arch {arch} --gpus 8 --dry-run --json")
    assert f"recipe: luperson-moco-{arch} (LUPerson's, the default)" in ran.err
    assert (ran.json["arch"], ran.json["batch_per_device"]) == (arch, 320)


def test_a_plan_counts_the_data(lupctl: Shell, labelled: Path) -> None:
    """36 of the pack's images are to train on; with a batch of 16, an epoch reads 32 of them."""
    ran = lupctl(f"pretrain --data {labelled} --gpus 4 --dry-run --json {' '.join(as_options(PRETRAIN))}")
    assert ran.code == 0, ran.err
    pack = open_pack(labelled)
    rows = [row for row, role in enumerate(pack.samples.role.tolist()) if role == 1]
    data_bytes = sum(len(pack.read(row)) for row in rows)
    assert (ran.json["images"], ran.json["steps_per_epoch"], ran.json["steps"]) == (36, 2, 4)
    assert ran.json["data_bytes"] == data_bytes < pack.num_bytes
    assert ran.json["read_bytes"] == 4 * 16 * data_bytes // 36


def test_a_real_run_still_wants_its_gpus_and_its_data(lupctl: Shell, crowd: Path) -> None:
    ran = lupctl(f"pretrain --gpus 8 --data {crowd}")
    assert (ran.code, ran.out) == (5, "")
    assert lupctl("pretrain --gpus 0").code == 3
    named = lupctl("pretrain --gpus 8 --dry-run --data gone")
    assert named.code == 3
    assert "no pack of 'gone'" in named.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--gpus 3", "a batch of 2560 does not divide among 3 devices"),
        ("--gpus 16", "bn_groups = 8 does not divide among 16 devices"),
        ("--gpus 8 --set optim.accumulate=2", "bn_groups = 8 does not divide among 8 devices with 2 parts each"),
        ("--gpus 8 --nodes 2", "--nodes 2: the machines need a place to meet"),
    ],
)
def test_a_plan_that_does_not_come_out(lupctl: Shell, words: str, message: str) -> None:
    ran = lupctl(f"pretrain {words} --dry-run --json")
    assert (ran.code, ran.out) == (2, "")
    assert f"error: {message}" in ran.err


def test_one_device_takes_the_batch_of_eight_in_parts(lupctl: Shell) -> None:
    whole = lupctl("pretrain --gpus 1 --dry-run --json").json
    parts = lupctl("pretrain --gpus 1 --set optim.accumulate=8 --dry-run --json").json
    assert (parts["batch"], parts["batch_per_device"], parts["part_per_device"]) == (2560, 2560, 320)
    assert whole["part_per_device"] == 2560
    assert parts["memory_bytes"] < whole["memory_bytes"] / 4
    recomputed = lupctl("pretrain --gpus 8 --set net.checkpoint_activations=true --dry-run --json").json
    assert recomputed["memory_bytes"] < 0.7 * lupctl("pretrain --gpus 8 --dry-run --json").json["memory_bytes"]


def test_a_cpu_works_through_one_batch_norm_group_after_the_other(lupctl: Shell) -> None:
    one, four = (lupctl(f"pretrain --gpus 0 --processes {count} --dry-run --json").json for count in (1, 4))
    assert (one["batch_per_device"], one["part_per_device"]) == (2560, 320)
    assert (four["batch_per_device"], four["part_per_device"]) == (640, 320)
    asked = lupctl("pretrain --gpus 0 --set optim.accumulate=2 --dry-run --json").json
    assert asked["part_per_device"] == 320, "smaller parts than were asked for do no harm"


def test_what_recomputing_keeps_is_what_it_says() -> None:
    """R18, width 64, at 64 x 32: stem 16 x 32 x 64 twice (convolution and norm), pooled 8 x 16; then eight outputs."""
    plan = plan_network(projection(32), width=64)
    maps = [16 * 8 * 64, 8 * 4 * 128, 4 * 2 * 256, 2 * 1 * 512]  # outputs of the stages
    stem = 2 * 32 * 16 * 64 + 16 * 8 * 64
    # Inside the first block of stage 2, the largest: two convolutions and norms, and those of the shortcut; stage 1 has
    # two convolutions and norms on maps of twice the size.
    inside = 4 * 16 * 8 * 64
    expected = 4 * (stem + 2 * sum(maps) + inside + 512)
    assert recomputed_bytes(plan, height=64, width=32) == expected
    assert recomputed_bytes(plan, height=64, width=32) < activation_bytes(plan, height=64, width=32)


def test_a_rate_made_for_another_batch_is_said(lupctl: Shell, crowd: Path) -> None:
    line = f"pretrain --data {crowd} --gpus 0 --dry-run --set data.batch=32"
    said = "rate: 0.3, made for a batch of 2560; in proportion to 32 it would be 0.00375: --lr 0.00375"
    assert said in lupctl(line).err
    assert "rate: " not in lupctl(f"{line} --set optim.lr=0.01").err
    assert "rate: " not in lupctl(f"{line} --lr 0.00375").err
    assert "batch norm: one group" in lupctl(f"{line} --set bn_groups=1").err
    for other in ("--method simclr", "--method pnl --set pnl.variant=ce"):
        ran = lupctl(f"pretrain {other} --gpus 0 --dry-run --set bn_groups=1")
        assert ran.code == 0, ran.err
        assert "batch norm" not in ran.err, "no keys are shuffled"


def test_a_plan_without_data_is_for_looking_only(crowd: Path, tmp_path: Path) -> None:
    job = replace(pretrain_job(crowd, tmp_path / "run"), packs=())
    plan = plan_pretraining(job)
    assert (plan.images, plan.batch_per_device) == (None, 16)
    assert not (tmp_path / "run").exists()
