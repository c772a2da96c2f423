"""Fine-tuning on several labelled packs at once, and going on from a fine-tuned network."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lupctl.core.data.sources.synthetic import SyntheticPlan
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.header import read_header
from lupctl.core.stages.finetune.job import FinetuneJob, plan_finetuning
from lupctl.core.stages.finetune.network import build_started
from lupctl.core.stages.finetune.persons import pick_rows
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.engine.runs import read_metrics
from tests.tools.drawn_packs import pack_drawn
from tests.tools.networks import neck
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, as_options, finetune_job

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four more drawn persons with the numbers, and the cameras, of the first four of `labelled`; 16 images."""
    plan = SyntheticPlan(seed=5, train_persons=4, test_persons=3, cameras=2, shots=2, height=32, width=16)
    return pack_drawn(plan, tmp_path_factory.mktemp("other") / "other.h5", dataset="other")


def joint_job(labelled: Path, other: Path, run: Path, *settings: str) -> FinetuneJob:
    return replace(finetune_job(labelled, run, *settings), packs=(labelled, other))


def test_persons_and_cameras_of_two_packs_differ(labelled: Path, other: Path, tmp_path: Path) -> None:
    packs = [open_pack(path) for path in (labelled, other)]
    train = pick_rows(joint_job(labelled, other, tmp_path / "run").recipe, packs)
    numbers = [np.unique(pack.samples.person[pack.samples.role == 1]).tolist() for pack in packs]
    assert set(numbers[1]) < set(numbers[0]), "the same numbers mean others"
    wanted = [f"{pack.dataset}/{number}" for pack, own in zip(packs, numbers, strict=True) for number in own]
    assert train.persons == tuple(wanted)
    every = [(pack, row) for pack in packs for row in range(len(pack))]
    seen: dict[int, set[tuple[str, int]]] = {}
    for row, label, camera in zip(train.rows.tolist(), train.label.tolist(), train.camera.tolist(), strict=True):
        pack, own = every[row]
        assert pack.samples.role[own] == 1
        assert train.persons[label] == f"{pack.dataset}/{pack.samples.person[own]}"
        seen.setdefault(camera, set()).add((pack.dataset, int(pack.samples.camera[own])))
    assert all(len(meant) == 1 for meant in seen.values())
    assert len(seen) == sum(len(np.unique(pack.samples.camera[pack.samples.role == 1])) for pack in packs)


def test_a_joint_run(lupctl: Shell, labelled: Path, other: Path) -> None:
    options = " ".join(as_options(FINETUNE))
    line = f"finetune {labelled} {other} --from scratch --recipe bot --gpus 0 --workers 0 {options}"
    plan = lupctl(f"{line} --dry-run --json").json
    images = [int((open_pack(path).samples.role == 1).sum()) for path in (labelled, other)]
    assert (plan["images"], plan["persons"], plan["packs"]) == (sum(images), 10, [str(labelled), str(other)])
    ran = lupctl(line)
    assert ran.code == 0, ran.err
    run = Path(ran.out.splitlines()[-1])
    assert run.name == "finetune-labelled+other-r18-from-scratch"
    assert f"{labelled} and {other}: {sum(images)} images of 10 persons, each pack's its own classes" in ran.err
    assert f"on every test set here: lupctl eval --all {run}" in ran.err
    assert [line.split()[0] for line in ran.out.splitlines() if line.startswith(("  labelled", "  other"))] == [
        "labelled",
        "other",
    ]
    header = read_header(run / "checkpoint.safetensors")
    assert (header.network.head, header.classes[0], header.classes[-1]) == (neck(10), "labelled/1", "other/4")
    assert set(header.parents) == {"pack:labelled", "pack:other"}
    assert header.to_json()["recipe"]["data"]["packs"] == ["labelled", "other"]
    rows = [row for row in read_metrics(run) if "map" in row]
    assert [row["dataset"] for row in rows] == ["labelled", "other"]
    assert all(0 < row["map"] < 1 for row in rows)
    assert rows[0]["map"] != rows[1]["map"]


def test_a_share_is_one_of_each_pack(labelled: Path, other: Path, tmp_path: Path) -> None:
    packs = [open_pack(path) for path in (labelled, other)]
    recipe = joint_job(labelled, other, tmp_path / "run", "data.subset=ids:0.5", "data.repeat=2").recipe
    train = pick_rows(recipe, packs)
    assert [str(name).partition("/")[0] for name in train.persons] == ["labelled"] * 3 + ["other"] * 2
    assert len(train.rows) == 2 * train.num_images
    first = np.bincount((train.rows >= len(packs[0])).astype(int))
    alone = pick_rows(recipe, packs[:1])
    assert first[0] == len(alone.rows), "the same part of the first pack as without the second"


def test_packs_that_do_not_go_together(labelled: Path, other: Path, crowd: Path, tmp_path: Path) -> None:
    split = tmp_path / "few.txt"
    split.write_text("1\n2\n")
    with pytest.raises(UsageError, match="a split file names the images of one dataset, not of 2"):
        plan_finetuning(joint_job(labelled, other, tmp_path / "run", f"data.subset={split}"))
    with pytest.raises(UsageError, match="both contain the dataset 'labelled'"):
        plan_finetuning(joint_job(labelled, labelled, tmp_path / "run"))
    with pytest.raises(DataError, match=r"crowd\.h5: 0 labelled training images of 0 persons"):
        plan_finetuning(joint_job(labelled, crowd, tmp_path / "run"))


def test_going_on_from_a_fine_tuned_network_with_other_persons(
    labelled: Path, other: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Six classes were learnt, four are wanted: the neck stays, the classifier is new, and that is said."""
    first = tmp_path / "first"
    finetune(finetune_job(labelled, first), QUIET)
    capsys.readouterr()
    start = first / "checkpoint.safetensors"
    job = finetune_job(other, tmp_path / "second", start=start)
    network, wanted = build_started(job, 4, Progress()), load_file(start)
    assert capsys.readouterr().err == f"start: {len(wanted) - 1} tensors from {start}, neck included; new classifier\n"
    state = network.state_dict()
    assert state.pop("head.classifier.weight").shape == (4, 32)
    assert all((state[key] == wanted[key]).all() for key in state)
    facts = finetune(job, QUIET)
    assert (facts["persons"], facts["start"]) == (4, "first")


def test_a_start_with_a_tensor_too_few_or_too_many_leaves_nothing_behind(
    lupctl: Shell, labelled: Path, tmp_path: Path
) -> None:
    finetune(finetune_job(labelled, tmp_path / "first"), QUIET)
    start = tmp_path / "first" / "checkpoint.safetensors"
    with safe_open(start, "pt") as file:
        metadata = file.metadata()
    whole, options = load_file(start), " ".join(as_options(FINETUNE))
    key = "backbone.layer3.1.bn2.running_var"
    for name, tensors, message in (
        ("lack", {one: value for one, value in whole.items() if one != key}, f"1 missing ({key})"),
        ("more", {**whole, "part.weight": torch.zeros(3)}, "1 not in the network (part.weight)"),
        ("bent", {**whole, key: torch.zeros(3)}, f"1 of another shape ({key})"),
    ):
        save_file(tensors, tmp_path / f"{name}.safetensors", metadata=metadata)
        line = f"finetune {labelled} --from {name}.safetensors --recipe bot --gpus 0 --workers 0 {options}"
        ran = lupctl(f"{line} --out {name}")
        assert ran.code == 3
        assert f"error: {name}.safetensors: does not fit the network: {message}\n" in ran.err
        assert not Path(name).exists()


def test_a_batch_is_persons_times_images(lupctl: Shell, labelled: Path) -> None:
    line = f"finetune {labelled} --from scratch --recipe bot --gpus 0"
    ran = lupctl(f"{line} --set data.batch=64")
    assert ran.code == 2
    assert ran.err.endswith(
        "error: data.batch: a batch of fine-tuning is data.persons persons with data.images images each\n"
        "hint: --batch 64\n"
    )
    ran = lupctl(f"{line} --processes 3 --set data.persons=4 --set data.images=4")
    assert ran.code == 2
    assert "4 x 4 is a batch of 16, which does not divide among 3 devices\nhint: --set data.persons=6" in ran.err
