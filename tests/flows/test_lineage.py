"""What a network was trained on, found again from its features: its own pack, its start's, and what is missing."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lupctl.core.recipes.distil_sections import DistilSettings
from lupctl.core.resolve.retrieval.lineage import find_lineage, find_tested, lineage_of
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import Workspace
from tests.tools.drawn_packs import repack
from tests.tools.shell import Shell
from tests.tools.tiny.training import finetune_job, pretrain_job

QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def made(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network pre-trained on the test images of `labelled` without labels, fine-tuned on its training images.

    `leaky` is a test set made of these training images.
    """
    home = tmp_path_factory.mktemp("made") / "lup"
    (home / "packs").mkdir(parents=True)
    shutil.copy(labelled, home / "packs" / "labelled.h5")
    web = repack(labelled, home / "packs" / "web.h5", {"query": "unlabelled", "gallery": "unlabelled"}, dataset="web")
    repack(labelled, home / "packs" / "leaky.h5", {"train": "query"}, dataset="leaky")
    pretrain(pretrain_job(web, home / "runs" / "pre", "data.batch=8", "bn_groups=2"), QUIET)
    start = home / "runs" / "pre" / "checkpoint.safetensors"
    finetune(finetune_job(home / "packs" / "labelled.h5", home / "runs" / "one", start=start), QUIET)
    return home


@pytest.fixture
def space(made: Path, lupctl: Shell, tmp_path: Path) -> Workspace:
    """A copy of it, as ./lup; the run's record of its pack points to the original, which is not in the workspace."""
    shutil.copytree(made, tmp_path / "lup")
    facts = tmp_path / "lup" / "runs" / "one" / "run.json"
    facts.write_text(facts.read_text().replace(str(made), str(tmp_path / "lup")))
    return Workspace(Path("lup"))


def warnings_of(ran: object) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for warning in ran["warnings"]:  # type: ignore[index]
        found.setdefault(warning["kind"], []).append(warning["text"])
    return found


def test_all_packs_of_a_lineage(lupctl: Shell, space: Workspace) -> None:
    lineage = lineage_of(space, space.runs / "one" / "checkpoint.safetensors")
    assert [path.parent.name for path in lineage.checkpoints] == ["one", "pre"]
    assert [(one.dataset, one.stage, one.is_labelled) for one in lineage.trained] == [
        ("labelled", "finetune", True),
        ("web", "pretrain", False),
    ]
    assert all(one.path is not None and one.path.exists() for one in lineage.trained)
    assert lineage.unknown == ()


def test_eval_says_that_it_was_pretrained_on_the_test_images(lupctl: Shell, space: Workspace) -> None:
    ran = lupctl("eval one --device cpu --json")
    assert ran.code == 0, ran.err
    found = warnings_of(ran.json)
    tested = ran.json["counts"]["queries"] + ran.json["counts"]["gallery"]
    [text] = found["pretraining"]
    assert text.startswith(f"{tested} of {tested} test images of labelled are, byte for byte, among the images of web")
    assert set(found) == {"pretraining", "verification"}
    training = ran.json["training"]
    assert (training["run"], training["device"], training["epochs"], training["steps"]) == ("one", "cpu", 2, 6)
    assert training["start"] == "pre (moco on web for 2 epochs)"
    assert training["curve"]["step"] == [6]
    assert training["curve"]["scored_at"] == [6]
    assert training["curve"]["map"] == [pytest.approx(ran.json["scores"]["map"], abs=1e-3)]
    page = (space.runs / "one" / "report.html").read_text()
    assert "<h1>one on labelled</h1>" in page
    assert text in page
    assert "from pre (moco on web for 2 epochs) for 2 epochs in batches of 12" in page
    again = lupctl("eval one --device cpu --force")
    lines = again.out.splitlines()
    assert lines[0].strip() == "one on labelled"
    assert f"warning: {text}" in lines, "one line each, however long"
    assert "warning: labelled.h5 has not been verified as it is now: lupctl data verify labelled" in lines
    assert (space.runs / "one" / "report.html").read_text() == page.replace("eval one --device cpu --json", "eval one")
    lupctl("data verify labelled")
    assert set(warnings_of(lupctl("eval one --device cpu --json --force").json)) == {"pretraining"}


def test_a_matrix_marks_a_pack_made_of_training_images(lupctl: Shell, space: Workspace) -> None:
    ran = lupctl("eval --all one pre --device cpu")
    assert ran.code == 0, ran.err
    rows = {line.split()[0]: line for line in ran.out.splitlines() if line.strip().startswith(("one", "pre"))}
    assert rows["one"].count("!") == 1
    assert rows["one"].rstrip().endswith("!"), "leaky, the second column"
    assert rows["one"].count("*") == 1
    assert "!" not in rows["pre"], "images without labels are said, and not marked"
    assert "! trained on images, or persons, that it is tested on: scores are too high" in ran.out
    assert "warning: one: 36 of 36 test images of leaky are, byte for byte, among the training images of l" in ran.out
    assert ran.out.count("labelled.h5 has not been verified") == 1, "once, not for every run"
    again = lupctl("eval --all one pre --device cpu --json --force").json
    cells = {cell["dataset"]: cell for cell in again["runs"][0]["cells"]}
    assert cells["labelled"]["trained_on"]
    assert not cells["leaky"]["trained_on"], "its training images are not among them: it has none"
    assert warnings_of(cells["leaky"])["overlap"]
    page = (space.home / "comparisons" / "all--one--pre.html").read_text()
    assert page.count('title="trained on images, or persons, that it is tested on">!<') == 1
    assert "one: 36 of 36 test images of leaky are" in page


def test_a_comparison_warns_of_each_of_its_runs(lupctl: Shell, space: Workspace) -> None:
    for name in ("one", "pre"):
        assert lupctl(f"dump {name} labelled --device cpu --out {name}.features.h5").code == 0
    ran = lupctl("eval --compare one.features.h5 pre.features.h5 --device cpu")
    assert ran.code == 0, ran.err
    for name in ("one", "pre"):
        assert re.search(
            rf"warning: {name}.features.h5: (\d+) of \1 test images of labelled are, byte for byte", ran.out
        )
    assert ran.out.count("labelled.h5 has not been verified") == 1
    found = lupctl("eval --compare one.features.h5 pre.features.h5 --device cpu --json --force").json
    assert [set(warnings_of(run)) for run in found["runs"]] == [{"pretraining", "verification"}] * 2
    page = (space.home / "comparisons" / "one--pre.html").read_text()
    assert page.index('<section class="warnings"') < page.index("<main")


def test_packs_and_networks_that_are_gone(lupctl: Shell, space: Workspace) -> None:
    """Each is said; a pack that was made again from other images is not the one that was trained on."""
    lupctl("eval one --device cpu --json")
    features = space.runs / "one" / "labelled.features.h5"
    (space.packs / "web.h5").unlink()
    repack(space.packs / "labelled.h5", space.packs / "web.h5", {"train": "unlabelled"}, dataset="web")
    found = warnings_of(lupctl("eval one --device cpu --json --force").json)
    assert found["not checked"] == ["overlap with web: not checked, its pack is not here"]
    shutil.rmtree(space.runs / "pre")
    found = warnings_of(lupctl("eval one --device cpu --json --force").json)
    text = "overlap of training and test images: not checked, pre that it started from is not here"
    assert found["not checked"] == [text]
    (space.packs / "labelled.h5").rename(space.packs / "renamed.h5")
    (pack,) = find_tested(space, (features,))
    assert pack.path == space.packs / "renamed.h5", "a pack under another name is found by its fingerprint"
    assert lupctl("eval one --device cpu --force").code == 0
    assert "data:image" in (space.runs / "one" / "report.html").read_text(), "and so are its images"
    (space.packs / "renamed.h5").unlink()
    assert find_tested(space, (features,))[0].path is None
    (space.runs / "one" / "run.json").write_text("{")
    (space.runs / "one" / "metrics.jsonl").write_text('{"step": 1, "loss": NaN, "lr": 1}\n{')
    training = lupctl("eval --no-page lup/runs/one/labelled.features.h5 --device cpu --json --force").json["training"]
    assert (training["run"], training["epochs"], training["device"], training["curve"]) == ("one", 2, None, None)
    moved = features.rename(Path("alone.features.h5"))
    shutil.rmtree(space.runs / "one")
    assert find_lineage(space, moved).unknown == ("the network's checkpoint is not here",)
    ran = lupctl("eval alone.features.h5 --device cpu --json --out alone.json")
    assert warnings_of(ran.json)["not checked"] == [
        "overlap of training and test images: not checked, the network's checkpoint is not here"
    ]
    assert ran.json["training"] is None


def test_what_a_teacher_has_seen_counts_too(lupctl: Shell, space: Workspace, labelled: Path) -> None:
    """A network that learned on other images, from one that was trained on the tested ones."""
    taught = finetune_job(space.packs / "leaky.h5", space.runs / "two")
    teacher = space.runs / "one" / "checkpoint.safetensors"
    recipe = taught.recipe.model_copy(update={"distil": DistilSettings(teacher="one")})
    repack(labelled, space.packs / "other.h5", {"query": "train", "gallery": "train"}, dataset="other")
    finetune(replace(taught, recipe=recipe, teacher=teacher, packs=(space.packs / "other.h5",)), QUIET)
    own = space.runs / "two" / "checkpoint.safetensors"
    lineage = lineage_of(space, own)
    assert [path.parent.name for path in lineage.checkpoints] == ["two", "one", "pre"]
    assert [one.dataset for one in lineage.trained] == ["other", "labelled", "web"]
    assert not lineage.unknown
    shutil.rmtree(space.runs / "one")
    assert lineage_of(space, own).unknown == ("one that it learned from is not here",)
