"""The part of the images that a run keeps: by scores, by a list of names, and what is refused."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from lupctl.core.formats.record import build_record
from lupctl.core.formats.scores.file import Scores, scores_path, write_scores
from lupctl.core.formats.weights.header import read_header
from lupctl.core.recipes.models import PretrainRecipe
from lupctl.core.recipes.shipped import resolve_recipe
from lupctl.core.stages.pretrain.job import choose_rows, describe_setup, plan_pretraining
from lupctl.core.stages.pretrain.keeping import Choice, keep_best
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.disk.atomic import file_fingerprint
from lupctl.core.system.progress.lines import Progress
from lupctl.core.workspace import read_run
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import PRETRAIN, as_options, pretrain_job

QUIET = Progress(quiet=True)


@pytest.fixture
def pack(crowd: Path, tmp_path: Path) -> Path:
    """36 images without labels, in a folder of its own."""
    (tmp_path / "packs").mkdir()
    return Path(shutil.copy(crowd, tmp_path / "packs" / "crowd.h5"))


def score(
    pack: Path, score: np.ndarray, *, fingerprint: str = "", after: str = "sha256:b", out: Path | None = None
) -> Path:
    """Scores beside a pack, as `data score` writes them."""
    opened, path = open_pack(pack), out or scores_path(pack)
    parents = {f"pack:{opened.dataset}": fingerprint or opened.fingerprint, "before": "sha256:a", "after": after}
    facts = {
        "dataset": opened.dataset,
        "distance": "cosine",
        "before": {"name": "dino"},
        "after": {"name": "tuned"},
        "pooling": "avg",
    }
    write_scores(path, Scores(score, build_record("scores", 1, command=(), parents=parents, facts=facts)))
    return path


def choose(pack: Path, run: Path, *settings: str) -> Choice:
    return choose_rows(pretrain_job(pack, run, *settings).recipe, [open_pack(pack)])


def names_of(pack: Path, rows: np.ndarray) -> list[str]:
    return list(open_pack(pack).samples.name.take(rows))


def write_list(path: Path, names: list[str]) -> Path:
    path.write_text("\n".join(names), encoding="utf-8")
    return path


def test_the_best_are_kept_and_equal_ones_in_their_order(pack: Path, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 6, 36) / 5.0
    path = score(pack, values)
    best = sorted(sorted(range(36), key=lambda row: (-values[row], row))[:22])
    choice = choose(pack, tmp_path / "run", "data.keep=0.6")
    assert choice.rows.tolist() == best
    assert choose(pack, tmp_path / "run", "data.keep=22", f"data.scores='{path}'").rows.tolist() == best
    assert choose(pack, tmp_path / "run", "data.keep=1").rows.tolist() == list(range(36))
    assert choice.kept is not None
    assert (choice.kept.images, choice.kept.of) == (22, 36)
    (used,) = choice.kept.lists
    assert (used.path, used.fingerprint) == (str(path), file_fingerprint(path))
    assert used.made == {
        "distance": "cosine", "pooling": "avg", "before": {"name": "dino"}, "after": {"name": "tuned"},
    }  # fmt: skip


def test_a_share_is_of_the_images_to_train_on(labelled: Path, tmp_path: Path) -> None:
    """36 of the pack's 70 images are, the test images have the best scores, and are not trained on all the same."""
    pack = Path(shutil.copy(labelled, tmp_path / "labelled.h5"))
    role = open_pack(pack).samples.role
    score(pack, np.where(role == 1, np.arange(len(role)) / 100.0, 5.0))
    rows = choose(pack, tmp_path / "run", "data.keep=0.5").rows
    assert rows.tolist() == np.flatnonzero(role == 1)[-18:].tolist()
    assert choose(pack, tmp_path / "run").rows.tolist() == np.flatnonzero(role == 1).tolist()


def test_labels_are_numbered_without_those_left_out(labelled: Path, tmp_path: Path) -> None:
    pack = Path(shutil.copy(labelled, tmp_path / "labelled.h5"))
    samples = open_pack(pack).samples
    train = np.flatnonzero(samples.role == 1)
    first = samples.person == samples.person[train[0]]
    score(pack, np.where(first, 0.0, 1.0))
    job = replace(pretrain_job(pack, tmp_path / "run"), recipe=supcon(keep=30))
    kept = samples.person[choose_rows(job.recipe, [open_pack(pack)]).rows]
    assert kept.tolist() == samples.person[train[~first[train]]].tolist()
    assert plan_pretraining(job).classes == 5
    score(pack, np.where(first, 1.0, 0.0))
    with pytest.raises(DataError, match="have the same label"):
        choose_rows(supcon(keep=6), [open_pack(pack)])


def supcon(*, keep: int) -> PretrainRecipe:
    """A method that learns from labels."""
    settings = [entry for entry in PRETRAIN if not entry.startswith("moco.")]
    recipe = resolve_recipe("pretrain", "luperson-nl-supcon", overrides=(*settings, f"data.keep={keep}"))
    assert isinstance(recipe, PretrainRecipe)
    return recipe


def test_a_list_is_a_prefix_of_its_names(pack: Path, tmp_path: Path) -> None:
    order = np.random.default_rng(3).permutation(36)
    names = names_of(pack, order)
    for path in (tmp_path / "CFS_list.pkl", tmp_path / "best.txt"):
        path.write_bytes(pickle.dumps(names, 0) if path.suffix == ".pkl" else "\n".join(names).encode())
        choice = choose(pack, tmp_path / "run", "data.keep=0.6", f"data.scores='{path}'")
        assert choice.rows.tolist() == sorted(order[:22].tolist())
        assert choice.kept is not None
        assert (choice.kept.images, choice.kept.of, choice.kept.lists[0].made) == (22, 36, None)
    some = write_list(tmp_path / "some.txt", names[:7])
    assert choose(pack, tmp_path / "run", f"data.scores='{some}'").rows.tolist() == sorted(order[:7].tolist())


@pytest.mark.parametrize("form", ["images/{}.jpg", "{}.jpg"])
def test_published_names_are_found_in_a_folder_and_in_an_lmdb(tmp_path: Path, form: str) -> None:
    """The list has 30_00_0292_00000238.jpg; a folder's pack images/ before it; keys have no ending."""
    keys = [f"30_00_0292_{number:08d}" for number in range(4)]
    images = [PackedImage(encode_tiny(n), 32, 16, form.format(key)) for n, key in enumerate(keys)]
    opened = open_pack(write_pack(tmp_path / "a.h5", images, dataset="luperson"))
    for written in ("{}.jpg", "{}", form):
        path = write_list(tmp_path / "list.txt", [written.format(keys[n]) for n in (2, 0, 3)])
        choice = keep_best([opened], np.arange(4), keep=2, scores=str(path))
        assert choice.rows.tolist() == [0, 2]


def test_an_image_that_was_left_out_of_the_pack_may_be_named(pack: Path, tmp_path: Path) -> None:
    opened = open_pack(pack)
    opened.record["quarantine"] = [{"name": "bad.jpg", "reason": "cut short"}]
    path = write_list(tmp_path / "list.txt", ["bad.jpg", *names_of(pack, np.array([5, 3]))])
    choice = keep_best([opened], np.arange(36), keep=0, scores=str(path))
    assert (choice.rows.tolist(), choice.unusable) == ([3, 5], 1)


@pytest.mark.parametrize(
    ("names", "keep", "said"),
    [
        (["no.jpg", "there.jpg"], 0, r"2 of \d+ names not in .*crowd.h5 \(no.jpg, there.jpg\)"),
        ("twice", 0, "1 name given more than once"),
        ("all", 37, "there are only 36 images"),
        ("few", 20, "names 9 of the 36 images to train on, and 20 are to be kept"),
        ("sorted", 0.5, "alphabetical order, which is no ranking"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    pack: Path, tmp_path: Path, names: list[str] | str, keep: float, said: str
) -> None:
    own = names_of(pack, np.random.default_rng(0).permutation(36))
    made = {"twice": [*own, own[0]], "all": own, "few": own[:9], "sorted": sorted(own)}
    path = write_list(tmp_path / "list.txt", made[names] if isinstance(names, str) else [*own, *names])
    with pytest.raises(DataError, match=said) as refused:
        choose(pack, tmp_path / "run", f"data.keep={keep}", f"data.scores='{path}'")
    assert refused.value.exit_code == 3
    sorted_all = write_list(tmp_path / "sorted.txt", sorted(own))
    assert len(choose(pack, tmp_path / "run", f"data.scores='{sorted_all}'").rows) == 36


def test_scores_of_another_pack_are_refused_with_the_command_for_the_right_ones(
    pack: Path, labelled: Path, tmp_path: Path
) -> None:
    path = score(labelled, np.ones(len(open_pack(labelled))), out=tmp_path / "other.scores.h5")
    with pytest.raises(DataError) as refused:
        choose(pack, tmp_path / "run", "data.keep=0.6", f"data.scores='{path}'")
    for fingerprint in (open_pack(labelled).fingerprint, open_pack(pack).fingerprint):
        assert fingerprint in refused.value.message
    assert refused.value.hint == f"lupctl data score {pack} --before dino --after tuned"


def test_missing_and_unfit_scores_are_refused(pack: Path, labelled: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DataError, match="there are no scores of"):
        choose(pack, run, "data.keep=0.6")
    path = score(pack, np.ones(36))
    with pytest.raises(UsageError, match="not how many to keep"):
        choose(pack, run, f"data.scores='{path}'")
    with pytest.raises(DataError, match="leaves none"):
        choose(pack, run, "data.keep=0.01")
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(DataError, match=r"cut short|damaged"):
        choose(pack, run, "data.keep=0.6")


def test_several_packs_are_ranked_together_if_their_scores_can_be_compared(
    pack: Path, labelled: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copy(labelled, tmp_path / "labelled.h5"))
    packs = [open_pack(pack), open_pack(other)]
    score(pack, np.linspace(0, 1, 36))
    path = score(other, np.full(len(packs[1]), 0.5))
    job = pretrain_job(pack, tmp_path / "run", "data.keep=20")
    # 18 of the first pack are above 0.5; the next best two are the first training images of the second.
    train = 36 + np.flatnonzero(packs[1].samples.role == 1)
    choice = choose_rows(job.recipe, packs)
    assert choice.rows.tolist() == [*range(18, 36), *train[:2]]
    assert choice.kept is not None
    assert len(choice.kept.lists) == 2
    with pytest.raises(UsageError, match="the scores of one pack, and 2 are trained on"):
        choose_rows(pretrain_job(pack, tmp_path / "run", "data.keep=20", f"data.scores='{path}'").recipe, packs)
    score(other, np.full(len(packs[1]), 0.5), after="sha256:c")
    with pytest.raises(DataError, match="other networks or another distance"):
        choose_rows(job.recipe, packs)


def test_a_run_trains_on_the_best_and_says_so(pack: Path, tmp_path: Path) -> None:
    path = score(pack, np.arange(36.0))
    job = pretrain_job(pack, tmp_path / "run", "data.keep=0.6")
    plan = plan_pretraining(job)
    assert (plan.images, plan.steps_per_epoch, plan.steps) == (22, 1, 2)
    facts = pretrain(job, QUIET)
    assert facts["images"] == 22
    header = read_header(job.run / "checkpoint.safetensors")
    assert header.kept is not None
    assert facts["kept"] == read_run(job.run)["kept"] == header.kept.to_json()
    assert (header.kept.images, header.kept.of) == (22, 36)
    assert header.parents[f"list:{path}"] == file_fingerprint(path)
    # The worst image of all is damaged, and nobody notices.
    assert facts["damaged"] == 0


def test_a_changed_list_is_another_run(pack: Path, tmp_path: Path) -> None:
    score(pack, np.arange(36.0))
    job = pretrain_job(pack, tmp_path / "run", "data.keep=0.6")
    before = describe_setup(job)
    pretrain(job, QUIET)
    path = score(pack, -np.arange(36.0))
    assert describe_setup(job) != before
    with pytest.raises(UsageError, match=rf"contains a run with inputs.list:{path} = 'sha256:"):
        pretrain(job, QUIET)


def test_without_a_choice_nothing_is_recorded(pack: Path, tmp_path: Path) -> None:
    job = pretrain_job(pack, tmp_path / "run")
    facts = pretrain(job, QUIET)
    assert "kept" not in facts
    assert list(describe_setup(job)["inputs"]) == ["pack:crowd"]
    assert read_header(job.run / "checkpoint.safetensors").kept is None


@pytest.mark.parametrize(
    ("option", "code", "said", "hint"),
    [
        ("--keep 0", 2, "a share above 0", "--keep 0.6"),
        ("--keep -1", 2, "a share above 0", "--keep 0.6"),
        ("--keep nan", 2, "a share above 0", "--keep 0.6"),
        ("--keep inf", 2, "a share above 0", "--keep 0.6"),
        ("--keep 1.5", 2, "above 1 it is a number of images", "--keep 0.6"),
        ("--keep 60%", 3, "neither a number nor a file", "--keep 0.6"),
        ("--keep nothing", 3, "neither a number nor a file", "--keep 0.6"),
        ("--keep 0.pkl", 3, "--keep 0.pkl: there is no such file; scores, or a list", "lupctl data score PACK"),
        ("--keep 0.h5", 3, "--keep 0.h5: there is no such file; scores, or a list", "lupctl data score PACK"),
        ("--keep 0.5 --keep 3", 2, "two numbers", "--keep 3"),
        ("--keep 37", 3, "there are only 36 images", "--keep 36"),
        ("--keep 0.6", 3, "there are no scores", "lupctl data score"),
    ],
)
def test_a_wrong_keep_is_refused(lupctl: Shell, pack: Path, option: str, code: int, said: str, hint: str) -> None:
    if option == "--keep 37":
        score(pack, np.ones(36))
    ran = lupctl(f"pretrain --data {pack} --gpus 0 --dry-run {option} {' '.join(as_options(PRETRAIN))}")
    assert (ran.code, ran.out) == (code, "")
    message, advice = ran.err.splitlines()[-2:]
    assert said in message
    assert hint in advice


def test_the_plan_and_a_line_name_the_list(lupctl: Shell, pack: Path, tmp_path: Path) -> None:
    path = score(pack, np.arange(36.0))
    line = f"pretrain --data {pack} --gpus 0 --dry-run {' '.join(as_options(PRETRAIN))}"
    ran = lupctl(f"{line} --keep 0.6 --json")
    assert ran.code == 0, ran.err
    assert (ran.json["images"], ran.json["kept"]["of"], ran.json["kept"]["lists"][0]["path"]) == (22, 36, str(path))
    assert f"images: 22 of 36 (61.1%), the best by {path} (cosine between dino and tuned)" in ran.err
    ran = lupctl(f"{line} --keep 0.6")
    assert f"22 of 36, by {path}" in ran.out
    listed = write_list(tmp_path / "list.txt", names_of(pack, np.array([9, 4, 30, 17, *range(18, 30)])))
    ran = lupctl(f"{line} --keep {listed} --json")
    assert ran.json["images"] == 16
    assert f"images: 16 of 36 (44.4%), by the names in {listed}" in ran.err
    assert "kept" not in lupctl(f"{line} --json").json
