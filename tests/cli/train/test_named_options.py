"""`--epochs`, `--batch`, `--lr`, and packs as arguments: what they set, over what, and what does not fit."""

import shutil
from pathlib import Path

import pytest

from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import read_resolved
from lupctl.core.stages.finetune import speed
from lupctl.core.stages.finetune.job import FinetuneJob
from lupctl.core.stages.finetune.speed import StepTimes
from tests.tools.drawn_packs import repack
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, PRETRAIN, as_options

PRE = f"pretrain --gpus 0 --workers 0 {' '.join(as_options(PRETRAIN))}"
FINE = f"finetune --recipe bot --from scratch --gpus 0 --workers 0 {' '.join(as_options(FINETUNE))}"


def put(tmp_path: Path, pack: Path, *names: str) -> None:
    """Copies a pack into the workspace."""
    packs = tmp_path / "lup" / "packs"
    packs.mkdir(parents=True, exist_ok=True)
    for name in names:
        shutil.copy(pack, packs / f"{name}.h5")


def test_named_options_come_last(lupctl: Shell, crowd: Path, labelled: Path) -> None:
    ran = lupctl(f"{PRE} {crowd} --batch 8 --epochs 1 --lr 0.02 --set optim.lr=0.5 --out pre")
    assert ran.code == 0, ran.err
    recipe = read_resolved(Path("pre"))
    assert isinstance(recipe, PretrainRecipe)
    assert (recipe.data.batch, recipe.schedule.epochs, recipe.optim.lr) == (8, 1, 0.02)
    ran = lupctl(f"{FINE} {labelled} --batch 6 --epochs 1 --lr 0.02 --set data.persons=5 --out fine")
    assert ran.code == 0, ran.err
    tuned = read_resolved(Path("fine"))
    assert isinstance(tuned, FinetuneRecipe)
    assert (tuned.data.persons, tuned.data.images, tuned.schedule.epochs, tuned.optim.lr) == (2, 3, 1, 0.02)
    assert (
        (Path("fine") / "recipe.toml").read_text().startswith("# Command: lupctl finetune --recipe bot --from scratch")
    )


@pytest.mark.parametrize(
    ("batch", "more", "message", "right"),
    [
        (10, "", "a batch is two persons or more with data.images = 3 images each and bn_groups = 2 equal parts", 12),
        (9, "", "bn_groups = 2 equal parts", 6),
        (3, "", "two persons or more", 6),
        (10, "--set bn_groups=1", "a batch is two persons or more with data.images = 3 images each", 9),
        (20, "--set data.images=4 --set bn_groups=3", "data.images = 4 images each and bn_groups = 3 equal parts", 24),
    ],
)
def test_a_batch_of_persons_that_does_not_divide(
    lupctl: Shell, labelled: Path, batch: int, more: str, message: str, right: int
) -> None:
    line = f"{FINE} {labelled} {more} --dry-run --json"
    ran = lupctl(f"{line} --batch {batch}")
    assert ran.code == 2
    assert f"error: --batch {batch}: " in ran.err
    assert message in ran.err
    assert ran.err.endswith(f"\nhint: --batch {right}\n")
    typed = lupctl(f"{line} --batch {right}")
    assert (typed.code, typed.json["batch_per_device"]) == (0, right), typed.err


def test_a_batch_of_pretraining_has_whole_groups(lupctl: Shell, crowd: Path) -> None:
    line = f"{PRE} {crowd} --dry-run --json"
    ran = lupctl(f"{line} --batch 18")
    assert ran.code == 2
    assert "error: --batch 18: the recipe's bn_groups = 4 needs 4 equal parts of two images or more" in ran.err
    assert ran.err.endswith("hint: --batch 16\n")
    typed = lupctl(f"{line} --batch 16")
    assert (typed.code, typed.json["batch"]) == (0, 16)
    assert "rate: 0.1, made for a batch of 2560" not in typed.err, "the rate was set"
    other = lupctl(f"pretrain {crowd} --gpus 0 --batch 16 --dry-run")
    assert "rate: 0.3, made for a batch of 2560; in proportion to 16 it would be 0.00187: --lr 0.00187" in other.err
    assert "rate: " not in lupctl(f"pretrain {crowd} --gpus 0 --batch 16 --lr 0.00187 --dry-run").err


def test_the_batch_that_fine_tuning_has_no_key_for(lupctl: Shell, labelled: Path) -> None:
    ran = lupctl(f"{FINE} {labelled} --set data.batch=6 --dry-run")
    assert ran.code == 2
    assert ran.err.endswith("hint: --batch 6\n")
    assert lupctl(f"{FINE} {labelled} --batch 6 --dry-run").code == 0


def test_a_plan_of_fine_tuning_says_how_long_it_takes(
    lupctl: Shell, labelled: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"{FINE} {labelled} --batch 6 --probe-seconds 1"
    ran = lupctl(line)
    assert ran.code == 2
    assert ran.err.startswith("error: --probe-seconds 1: only with --dry-run")
    measured = lupctl(f"{line} --dry-run --json").json["steps_measured"]
    assert (measured["device"], measured["batch"], measured["plain_s"]) == ("cpu", 6, None)
    assert 0 < measured["step_s"] <= measured["first_s"] < 60
    planned = lupctl(f"{FINE} {labelled} --gpus 2 --batch 6 --dry-run --json")
    assert "steps_measured" not in planned.json
    total = planned.json["steps"]

    def probe(job: FinetuneJob, *, seconds: float) -> StepTimes:
        return StepTimes("cpu", 3, step_s=3600.0, first_s=1000.0, plain_s=3700.0)

    monkeypatch.setattr(speed, "probe_steps", probe)
    shown = lupctl(f"{FINE} {labelled} --gpus 2 --batch 6 --set net.compile=true --probe-seconds 1 --dry-run").out
    assert "a step of 3.6e+03 s with 3 images of random pixels on one CPU process" in shown
    assert "from which nothing follows for GPUs" in shown
    assert f"all of it: {total}.0 h for {total} steps, without reading images, evaluation, messages" in shown
    assert f"that pays after 60 of {total * 6} images" in shown


def test_a_training_shorter_than_its_schedule_says_so(lupctl: Shell, labelled: Path) -> None:
    line = f"finetune {labelled} --recipe bot --from scratch --gpus 0 --set data.persons=4 --dry-run"
    ran = lupctl(f"{line} --epochs 12")
    assert (
        "schedule: made for 120 epochs; schedule.milestones = [40, 70] reaches past the end of 12; in proportion: "
        "--set schedule.milestones=[4,7]\n" in ran.err
    )
    assert "schedule: " not in lupctl(f"{line} --epochs 12 --set schedule.milestones=[4,7]").err
    assert "schedule: " not in lupctl(line).err
    longer = lupctl(f"{line} --epochs 500")
    assert "schedule: " not in longer.err


def test_packs_are_named_either_way(lupctl: Shell, labelled: Path, crowd: Path, tmp_path: Path) -> None:
    put(tmp_path, labelled, "a", "b")

    def packs(line: str) -> list[str]:
        ran = lupctl(f"{line} --dry-run --json")
        assert ran.code == 0, ran.err
        return [Path(path).stem for path in ran.json["packs"]]

    for line in (PRE, FINE):
        if line == PRE:
            assert (
                packs(f"{line} a b") == packs(f"{line} --data a --data b") == packs(f"{line} a --data b") == ["a", "b"]
            )
        assert packs(f"{line} b --data b") == packs(f"{line} --data b") == ["b"]
        run = lupctl(f"{line} a --dry-run --json").json["run"]
        assert run == lupctl(f"{line} --data a --dry-run --json").json["run"]


def test_finetuning_takes_the_one_labelled_pack(lupctl: Shell, labelled: Path, crowd: Path, tmp_path: Path) -> None:
    ran = lupctl(f"{FINE} --dry-run")
    assert ran.code == 3
    assert "error: lup/packs: no labelled pack to fine-tune on\nhint: put images under lup/raw/NAME" in ran.err
    put(tmp_path, crowd, "street")
    assert "no labelled pack to fine-tune on (without labels: street)" in lupctl(f"{FINE} --dry-run").err
    tests = repack(labelled, tmp_path / "tests.h5", {"query": "query", "gallery": "gallery"}, dataset="tests")
    put(tmp_path, tests, "a")
    ran = lupctl(f"{FINE} --dry-run")
    assert "no labelled pack to fine-tune on (without labels: street; tests: a)" in ran.err
    assert ran.err.endswith("hint: without labels: lupctl finetune street --labels clusters\n")
    (tmp_path / "lup/packs/street.h5").unlink()
    ran = lupctl(f"{FINE} --labels clusters --dry-run")
    assert "no pack to fine-tune on (tests: a)\nhint: put images under lup/raw/NAME" in ran.err
    put(tmp_path, labelled, "staff")
    ran = lupctl(f"{FINE} --dry-run --json")
    assert (ran.code, ran.json["packs"]) == (0, ["lup/packs/staff.h5"])
    assert "data: lup/packs/staff.h5 (the only labelled pack here)\n" in ran.err
    put(tmp_path, labelled, "guests")
    ran = lupctl(f"{FINE} --dry-run")
    assert ran.code == 3
    assert ran.err == "error: lup/packs: 2 labelled packs (guests, staff)\nhint: choose one: lupctl finetune guests\n"
    chosen = lupctl(f"{FINE} guests --dry-run --json")
    assert (chosen.code, chosen.json["packs"]) == (0, ["lup/packs/guests.h5"])
    of_recipe = lupctl(f'{FINE} --set data.packs=[\\"staff\\"] --dry-run --json')
    assert (of_recipe.code, of_recipe.json["packs"]) == (0, ["lup/packs/staff.h5"]), of_recipe.err


def test_fine_tuning_draws_curves(lupctl: Shell, labelled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with monkeypatch.context() as patch:
        patch.setattr("lupctl.core.training.engine.board.find_spec", lambda name: None)
        ran = lupctl(f"{FINE} {labelled} --tensorboard --out run")
        assert (ran.code, Path("run").exists()) == (2, False)
        assert "--tensorboard: the package tensorboard is not installed" in ran.err
    plain, curved = lupctl(f"{FINE} {labelled} --out plain"), lupctl(f"{FINE} {labelled} --tensorboard --out run")
    assert (plain.code, curved.code) == (0, 0), curved.err
    events = EventAccumulator(str(Path("run/tensorboard")))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {"loss", "lr", "map", "rank1"} <= tags
    assert not {"step", "steps"} & tags
    assert [point.step for point in events.Scalars("loss")] == [6]
    same = [Path(run, "checkpoint.safetensors").read_bytes() for run in ("plain", "run")]
    assert same[0] == same[1], "curves are no part of what was made"
