"""`lupctl init`: what it finds, what it advises, and that what it prints can be typed."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.flows.init import machine as machines
from lupctl.core.flows.init.model import Machine
from lupctl.core.recipes.models import FinetuneRecipe, PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.finetune import speed as finetune_speed
from lupctl.core.stages.pretrain import speed as pretrain_speed
from tests.tools.shell import Ran, Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.videos import write_mot, write_video

SMALL: dict[str, Any] = {"height": 32, "width": 16, "shots": 2, "cameras": 2}
TINY = "--workers 0 --set net.width=4 --set pixels.height=32 --set pixels.width=16 --set schedule.epochs=1"
SMALLER = {"pretrain": TINY, "finetune": TINY}


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes a second on the machine of these tests, whatever it is busy with."""
    monkeypatch.setattr(finetune_speed, "time_step", lambda recipe, device, **given: 1.0)
    monkeypatch.setattr(pretrain_speed, "time_step", lambda recipe, device, **given: 1.0)


def write_staff(root: Path, persons: int = 8, *, cameras: int = 2, prefix: bool = True) -> Path:
    """A folder for each person, as one's own images come."""
    source = SyntheticSource(SyntheticPlan(train_persons=persons, **{**SMALL, "cameras": cameras}))
    samples = source.list_images()
    for number, name in enumerate(samples.name):
        camera = f"c{samples.camera[number]}_" if prefix else ""
        path = root / f"{samples.person[number]:04d}" / f"{camera}{number:03d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(name))
    return root


def write_drawn(root: Path, plan: SyntheticPlan) -> Path:
    """Drawn images in the layout of Market-1501."""
    source = SyntheticSource(plan)
    for name in source.list_images().name:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(source.read(name))
    return root


def write_boxes(path: Path, *, frames: int, persons: int) -> None:
    """Boxes of persons who stand side by side in every frame."""
    found = [(frame, person) for frame in range(1, frames + 1) for person in range(1, persons + 1)]
    boxes = [(frame, (10.0 * person, 10.0, 10.0 * person + 20, 60.0)) for frame, person in found]
    write_mot(path, boxes, persons=[person for _, person in found])


def commands_of(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("lupctl ")]


def flat(text: str) -> str:
    """A text without the breaks in its longer comments."""
    return text.replace("\n#     ", " ").replace("\n# ", " ")


def type_later(lupctl: Shell, text: str, picture: bytes) -> Ran:
    """Types the command that asks for a picture."""
    Path("PERSON.jpg").write_bytes(picture)
    (command,) = re.findall(r"with a picture of a person: lupctl (.* ?PERSON.jpg.*)", flat(text))
    return lupctl(f"{command} --device cpu")


def type_all(lupctl: Shell, text: str) -> list[Ran]:
    """Types every printed command, with networks as small as they come."""
    done = []
    for command in commands_of(text):
        words = shlex.split(command)[1:]
        ran = lupctl(shlex.join([*words, *SMALLER.get(words[0], "").split()]))
        assert ran.code == 0, (command, ran.err)
        done.append(ran)
    return done


def test_from_a_folder_for_each_person_to_scores(lupctl: Shell, tmp_path: Path) -> None:
    write_staff(tmp_path / "staff")
    ran = lupctl("init staff")
    assert ran.code == 0, ran.err
    assert commands_of(ran.out) == [
        "lupctl data pack staff --split persons:0.5",
        "lupctl finetune staff --recipe small-bot --from scratch --set data.persons=4",
        "lupctl eval --rerank",
    ]
    assert "# 32 images (train 32), 8 persons, 2 cameras\n" in ran.out
    assert "half of the persons to train on, the others to test with 8 queries" in flat(ran.out)
    done = type_all(lupctl, ran.out)
    assert "re-ranked: k1=20" in done[-1].out
    assert "valid queries 8 / 8" in done[-1].out
    assert type_later(lupctl, ran.out, encode_tiny(1)).code == 0


def test_the_times_are_steps_times_what_a_step_takes(lupctl: Shell, tmp_path: Path) -> None:
    write_staff(tmp_path / "staff", persons=40)
    ran = lupctl("init staff --json")
    pack, train, score = ran.json["steps"]
    # 20 persons to train on with 4 images each: 20 / 16 batches of 16 x 4, rounded down, in each of 40 epochs; the rest
    # are 6 s to start and the images of the test, each a third of a second's 64th.
    assert train["seconds"] == pytest.approx(6 + 40 * 1 + (6 + 80 / 64 / 3))
    assert score["seconds"] == pytest.approx(6 + 80 / 64 / 3)
    assert 0 < pack["seconds"] < 10


@pytest.mark.slow
def test_one_camera_is_tested_on_itself_and_says_so(lupctl: Shell, tmp_path: Path) -> None:
    write_staff(tmp_path / "staff", cameras=1, persons=6)
    ran = lupctl("init staff")
    assert "cameras: one; so matches from the query's own camera count" in flat(ran.out)
    done = type_all(lupctl, ran.out)
    assert "same-camera-allowed" in done[-1].out + done[-1].err


def test_a_benchmark_is_known_by_its_folders_and_needs_no_split(lupctl: Shell, tmp_path: Path) -> None:
    write_drawn(tmp_path / "mine", SyntheticPlan(train_persons=6, test_persons=4, **SMALL))
    ran = lupctl("init mine")
    assert ran.out.startswith("# mine: a benchmark in the layout of Market-1501\n")
    assert commands_of(ran.out)[0] == "lupctl data pack mine"
    type_all(lupctl, ran.out)


def test_a_table(lupctl: Shell, tmp_path: Path) -> None:
    write_staff(tmp_path / "faces", prefix=False)
    rows = [
        f"{path.relative_to(tmp_path).as_posix()},{path.parent.name},{'door' if number % 2 else 'hall'}"
        for number, path in enumerate(sorted((tmp_path / "faces").rglob("*.jpg")))
    ]
    (tmp_path / "my list.csv").write_text("\n".join(["path,person,camera", *rows]))
    ran = lupctl("init 'my list.csv'")
    assert commands_of(ran.out)[0] == "lupctl data pack 'my list.csv' --name my-list --split persons:0.5"
    type_all(lupctl, ran.out)


def test_images_of_nobody_are_learned_from_and_searched(lupctl: Shell, tmp_path: Path) -> None:
    write_drawn(tmp_path / "photos", SyntheticPlan(unlabelled_persons=30, scenes=1, height=32, width=16))
    ran = lupctl("init photos")
    assert [command.split()[1] for command in commands_of(ran.out)] == ["data", "pretrain", "dump"]
    assert "labels: no scores" in ran.out
    type_all(lupctl, ran.out)
    query = min((tmp_path / "photos").rglob("*.jpg"))
    found = type_later(lupctl, ran.out, query.read_bytes())
    assert found.code == 0, found.err
    assert query.relative_to(tmp_path / "photos").as_posix() in found.out + found.err


def test_videos_with_boxes_are_cut_split_and_scored(lupctl: Shell, tmp_path: Path) -> None:
    write_video(tmp_path / "hall/hall.mp4")
    boxes = [
        (frame, (10.0 * person, 10.0, 10.0 * person + 20, 60.0)) for frame in range(1, 9) for person in range(1, 5)
    ]
    write_mot(tmp_path / "hall/gt/gt.txt", boxes, persons=[1, 2, 3, 4] * 8)
    ran = lupctl("init hall")
    assert commands_of(ran.out) == [
        "lupctl data build hall --videos hall --detections hall/gt/gt.txt --format mot",
        "lupctl data pack lup/packs/hall.h5 --name hall-split --split persons:0.5",
        "lupctl finetune hall-split --recipe small-bot --from scratch --set data.persons=2",
        "lupctl eval --rerank",
    ]
    assert "# hall: 1 video with 32 boxes of 4 persons (mot)\n" in ran.out
    assert "cameras: one; so matches from the query's own camera count" in flat(ran.out)
    assert "lupctl find PERSON.jpg --in hall" in ran.out
    type_all(lupctl, ran.out)
    found = type_later(lupctl, ran.out, encode_tiny(1))
    assert found.code == 0, found.err
    assert "person 4" in found.out
    # Where the crops are there, nothing is cut again; and what is split already is not split again.
    assert commands_of(lupctl("init hall").out) == commands_of(ran.out)[1:]
    assert [line.split()[1] for line in commands_of(lupctl("init hall-split").out)] == ["finetune", "eval"]


def test_many_crops_of_a_person_are_thinned_out(lupctl: Shell, tmp_path: Path) -> None:
    write_video(tmp_path / "hall/hall.mp4")
    write_boxes(tmp_path / "hall/gt/gt.txt", frames=200, persons=2)
    ran = lupctl("init hall --json")
    assert ran.json["steps"][0]["command"].endswith(" --every 4")
    assert ran.json["counts"]["images"] == 100


def test_videos_of_the_workspace_are_named_by_their_path(lupctl: Shell, tmp_path: Path) -> None:
    write_video(tmp_path / "lup/raw/hall/one.mp4")
    write_video(tmp_path / "lup/raw/hall/two.mp4")
    write_mot(tmp_path / "lup/raw/hall/det/det.txt", [(1, (10.0, 10.0, 30.0, 60.0))], persons=[-1])
    (command,) = commands_of(lupctl("init hall").out)
    assert "--videos lup/raw/hall --detections lup/raw/hall/det/det.txt" in command


def test_videos_without_boxes_ask_for_a_detector(lupctl: Shell, tmp_path: Path) -> None:
    write_video(tmp_path / "door.mp4")
    ran = lupctl("init door.mp4")
    (command,) = commands_of(ran.out)
    assert command.startswith("lupctl data build door --videos door.mp4 --detector fasterrcnn-mobile --every 5")
    assert lupctl(f"{command.removeprefix('lupctl ')} --dry-run").code == 0
    assert "no detections (boxes of the persons in each frame)" in ran.out
    assert "lupctl init door" in ran.out


@pytest.mark.parametrize(
    ("persons", "part"),
    [(1, "other persons: images of one person alone"), (2, "persons: too few to test with others than")],
)
def test_too_few_persons(lupctl: Shell, tmp_path: Path, persons: int, part: str) -> None:
    write_staff(tmp_path / "faces", persons=persons, cameras=2)
    rows = [f"{path.relative_to(tmp_path)},{path.parent.name}" for path in sorted((tmp_path / "faces").rglob("*.jpg"))]
    (tmp_path / "few.csv").write_text("\n".join(["path,person", *rows]))
    ran = lupctl("init few.csv")
    assert part in flat(ran.out)
    type_all(lupctl, ran.out)


def test_an_empty_workspace_shows_where_to_begin(lupctl: Shell, tmp_path: Path) -> None:
    ran = lupctl("init")
    assert commands_of(ran.out) == ["lupctl demo", "lupctl data list"]
    assert "lupctl data download market1501 --accept-terms" in ran.out
    assert not (tmp_path / "lup").exists()


@pytest.mark.slow
def test_a_workspace_begins_with_what_has_labels(lupctl: Shell, tmp_path: Path) -> None:
    write_drawn(tmp_path / "w/raw/crops", SyntheticPlan(unlabelled_persons=3, scenes=1, height=32, width=16))
    write_drawn(tmp_path / "w/raw/market1501", SyntheticPlan(train_persons=6, test_persons=4, **SMALL))
    ran = lupctl("init --home w")
    assert commands_of(ran.out) == [
        "lupctl data pack market1501 --home w",
        "lupctl finetune market1501 --recipe small-bot --from scratch --set data.persons=6 --home w",
        "lupctl eval --rerank --home w",
    ]
    assert "also here: crops: lupctl init crops" in ran.out
    type_all(lupctl, ran.out)


def test_the_script_runs_and_is_not_overwritten(lupctl: Shell, tmp_path: Path) -> None:
    write_staff(tmp_path / "staff")
    ran = lupctl("init staff --write run.sh")
    assert (ran.code, ran.out) == (0, "run.sh\n")
    script = tmp_path / "run.sh"
    assert script.stat().st_mode & 0o777 == 0o755
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    (bin_ / "lupctl").write_text('#!/bin/sh\necho "$@" >> typed.txt\n')
    (bin_ / "lupctl").chmod(0o755)
    environment = {**os.environ, "PATH": f"{bin_}{os.pathsep}{os.environ['PATH']}"}
    subprocess.run([script], check=True, env=environment)
    typed = (tmp_path / "typed.txt").read_text().splitlines()
    assert [f"lupctl {line}" for line in typed] == commands_of(script.read_text())
    before = script.read_bytes()
    ran = lupctl("init staff --write run.sh")
    assert (ran.code, ran.out) == (2, "")
    assert "run.sh: exists" in ran.err
    assert script.read_bytes() == before
    assert lupctl("init staff --write run.sh --force").code == 0


def test_json_has_all_that_the_text_says(lupctl: Shell, tmp_path: Path) -> None:
    write_staff(tmp_path / "staff")
    found = lupctl("init staff --json --quiet")
    assert found.err == ""
    assert found.json["schema"] == "lupctl.init/1"
    assert [step["command"] for step in found.json["steps"]] == commands_of(lupctl("init staff").out)
    assert found.json["counts"]["persons"] == 8
    assert found.json["script"] is None
    json.dumps(found.json)


@pytest.mark.parametrize(
    ("given", "message", "hint"),
    [
        ("q.jpg", "q.jpg: one picture; ", "lupctl find q.jpg --in VIDEO"),
        ("notes.txt", "notes.txt: a file of another kind; ", "lupctl init ."),
        ("stafff", "stafff: there is no such file or folder; ", "did you mean lupctl init staff?"),
        ("./staf", "./staf: there is no such file or folder; ", "did you mean lupctl init staff?"),
    ],
)
def test_what_is_no_data(lupctl: Shell, tmp_path: Path, given: str, message: str, hint: str) -> None:
    write_staff(tmp_path / "staff", persons=2)
    for name in ("q.jpg", "notes.txt"):
        Path(name).write_text("x")
    ran = lupctl(f"init {given}")
    assert (ran.code, ran.out) == (3, "")
    assert ran.err.splitlines() == [
        f"error: {message}a folder, a table (.csv), a video or a pack was expected",
        f"hint: {hint}",
    ]


def test_a_video_of_nobody(lupctl: Shell, tmp_path: Path) -> None:
    write_video(tmp_path / "hall.mp4", frames=4)
    (tmp_path / "hall.txt").write_text("")
    ran = lupctl("init hall.mp4")
    assert ran.code == 0, ran.err
    assert "\n# 0 images, persons not known, cameras not known\n" in ran.out


@pytest.mark.parametrize("given", ["nowhere", "empty"])
def test_nothing_there(lupctl: Shell, tmp_path: Path, given: str) -> None:
    (tmp_path / "empty").mkdir()
    ran = lupctl(f"init {given}")
    assert ran.code == 3
    assert ran.err.splitlines()[-2].startswith("error: ")


@pytest.mark.parametrize(
    ("machine", "persons", "words"),
    [
        (Machine("cuda", 1, 8, "1 x Fast"), 50, "--recipe bot --from imagenet --gpus 1"),
        (Machine("cuda", 8, 64, "8 x Fast"), 50, "--from imagenet --gpus 8"),
        (Machine("cuda", 3, 64, "3 x Fast"), 50, "--from imagenet --gpus 2"),
        (Machine("cuda", 8, 64, "8 x Fast"), 10, "--recipe bot --from imagenet --gpus 1 --set data.persons=10"),
    ],
    ids=["one", "eight", "three", "few persons"],
)
def test_the_recipe_fits_the_gpus(lupctl: Shell, tmp_path: Path, machine: Machine, persons: int, words: str) -> None:
    labels = torch.arange(persons).repeat_interleave(8).numpy()
    found = machines.choose_finetuning(machine, labels, pretrained=False)
    assert found.words == tuple(words.split())
    write_drawn(tmp_path / "mine", SyntheticPlan(train_persons=persons, test_persons=4, **SMALL))
    assert lupctl("data pack mine").code == 0
    planned = lupctl(f"finetune mine {words} --dry-run --json")
    assert planned.code == 0, planned.err
    assert planned.json["devices"] == int(words.split()[words.split().index("--gpus") + 1])


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (63, None),
        (64, "--recipe small-moco --set data.batch=16 --set moco.queue=32 --set optim.lr=0.0075"),
        (500, "--recipe small-moco --set data.batch=64 --set moco.queue=128 --set optim.lr=0.03"),
        (2000, "--recipe small-moco"),
    ],
)
def test_pretraining_fits_the_images(images: int, words: str | None) -> None:
    found = machines.choose_pretraining(Machine("cpu", 1, 2, "cpu"), images)
    assert (None if found is None else " ".join(found.words)) == words
    eight = machines.choose_pretraining(Machine("cuda", 8, 64, "8 x Fast"), 200_000)
    assert eight is not None
    assert eight.words == ("--arch", "r50", "--gpus", "8")


@pytest.mark.parametrize("name", ["demo-bot", "small-mgn"])
def test_a_step_of_finetuning_is_measured(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.undo()
    overrides = ("net.width=4", "pixels.height=96", "pixels.width=16", "data.persons=4", "data.images=2")
    recipe = resolve_recipe("finetune", name, overrides=overrides)
    assert isinstance(recipe, FinetuneRecipe)
    assert 0 < finetune_speed.time_step(recipe, torch.device("cpu"), budget_s=0) < 60
    assert 0 < finetune_speed.time_step(recipe, torch.device("cpu"), devices=2, budget_s=0) < 60


def test_a_step_of_pretraining_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    overrides = ("net.width=4", "pixels.height=32", "pixels.width=16", "data.batch=8", "moco.queue=16")
    recipe = resolve_recipe("pretrain", "demo-moco", overrides=overrides)
    assert isinstance(recipe, PretrainRecipe)
    assert 0 < pretrain_speed.time_step(recipe, torch.device("cpu"), budget_s=0) < 60


def test_what_starts_a_command_imports_nothing_heavy() -> None:
    code = "import sys, lupctl.core.flows.init.advice; print('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
