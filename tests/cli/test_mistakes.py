"""What people get wrong, each answered by one line and a hint; and what comes of typing the hint."""

import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from lupctl.core.formats.pack.read import open_pack
from lupctl.core.stages.dump.job import DumpJob
from lupctl.core.stages.dump.run import dump
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.command_line import comment_command
from lupctl.core.system.progress.lines import Progress
from tests.tools.hints import Followed, follow
from tests.tools.shell import Shell
from tests.tools.tiny.training import FINETUNE, as_options, finetune_job

QUIET = Progress(quiet=True)
TINY = " ".join(as_options(FINETUNE))
FILLS = {"RUN": "fine", "DATASET": "town", "PACK": "town", "FOLDER": "lup/raw/town", "IMAGE": "q.jpg", "NAME": "town"}
FINISHED = ("checkpoint.safetensors", "run.json", "metrics.jsonl")


@dataclass(frozen=True)
class Case:
    """A mistake.

    Args:
        line: what was typed.
        code: the exit code.
        error: a part of the error line.
        hint: a part of the hint.
        most: how many hints have to be followed until a command works; 0 if the first one leads to another error.
        lacks: what of the workspace is not there yet.
        at: the folder in which it is typed.
    """

    line: str
    code: int
    error: str
    hint: str
    most: int = 1
    lacks: tuple[str, ...] = ()
    at: str = "."


NO_PACK, NO_RUN = ("lup/packs", "lup/runs"), ("lup/runs",)
CASES = [
    # Typing errors.
    Case("finetune twon --from scratch --dry-run", 3, "no pack of 'twon'", "did you mean town?"),
    Case("finetune town --from scratch --recipe small-bott --dry-run", 2, "no finetune recipe 'small-bott'",
         "--recipe small-bot", 2),
    Case("finetune town --from scracth --dry-run", 3, "no checkpoint 'scracth'", "did you mean scratch?"),
    Case("eval fnie", 3, "fnie: neither a file, nor a folder, nor a run", "did you mean fine?"),
    Case("search fine p.jpg", 3, "p.jpg: there is no such file", "did you mean q.jpg?"),
    Case("data info town --sheet s.gif", 2, "must end in one of .png", "--sheet s.gif.png"),
    Case("finetune town --from scratch --reciepe bot --dry-run", 2, "there is no option --reciepe", "--recipe bot", 2),
    Case("finetune town --from scratch --gpu 0 --dry-run", 2, "there is no option --gpu", "--gpus 0"),
    Case("finetune town --from scratch --arch r5O --dry-run", 2, "'r5O' is not one of", "--arch r50"),
    Case("evl fine", 2, "there is no command evl", "lupctl eval fine"),
    Case("data lsit", 2, "there is no command lsit", "lupctl data list"),
    Case("version", 2, "there is no command version", "lupctl --version"),
    Case("finetune town --dropout 0.1 --from scratch --dry-run", 2, "there is no option --dropout", "finetune --help"),
    Case("finetune town --name mine --recipe small-bot --from scratch --dry-run", 2, "there is no option --name",
         "--out mine", 2),
    Case("finetune town --epochs 0", 2, "'--epochs': input should be greater than or equal to 1", "finetune --help"),
    # The wrong order.
    Case("finetune town --from scratch --dry-run", 3, "no pack of 'town'", "lupctl data pack town", lacks=NO_PACK),
    Case("eval", 3, "no finished fine-tuning run", "lupctl finetune town --from scratch", lacks=NO_RUN),
    Case("eval", 3, "no finished fine-tuning run", "lupctl data pack", lacks=NO_PACK),
    Case("dump", 3, "no finished run", "lupctl finetune town --from scratch", lacks=NO_RUN),
    Case("eval town", 3, "town: a dataset; a run or a features file", "lupctl finetune town", 2, lacks=NO_RUN),
    Case("search town q.jpg", 3, "town: a dataset; a run or a features file", "lupctl finetune town", 2, lacks=NO_RUN),
    Case("finetune town --dry-run", 3, "no finished pre-training run", "--from scratch", 0),
    # The wrong thing.
    Case("eval town", 3, "town: a dataset; a run or a features file was expected", "lupctl eval fine"),
    Case("eval lup/packs/town.h5", 3, "town.h5: a pack; a run or a features file was expected", "lupctl eval fine"),
    Case("eval lup/raw/town", 3, "lup/raw/town: a folder; a run or a features file", "lupctl eval fine"),
    Case("eval photos", 3, "photos: a folder; a run or a features file", "lupctl dump fine photos"),
    Case("eval lup/runs/fine/checkpoint.safetensors", 3, "a file of a run, but not its features",
         "did you mean lup/runs/fine?"),
    Case("eval lup/runs/fine/recipe.toml", 3, "a file of a run, but not its features", "did you mean lup/runs/fine?"),
    Case("eval lup/runs", 3, "lup/runs: holds 1 run; one was expected", "did you mean fine?"),
    Case("eval lup", 3, "lup: holds 1 run; one was expected", "did you mean fine?"),
    Case("eval --all town", 3, "no checkpoint 'town'", "did you mean fine?"),
    Case("model info town", 3, "no checkpoint 'town'", "did you mean fine?"),
    Case("model info lup/packs/town.h5", 3, "town.h5: a pack or features; a run", "did you mean fine?"),
    Case("search fine lup/packs/town.h5", 3, "a pack or features; an image was expected", "ls lup/packs", 0),
    Case("search fine q.jpg --images gone", 3, "no pack of 'gone'", "leave --images out"),
    Case("eval fine --images gone", 3, "no pack of 'gone'", "leave --images out"),
    Case("data info lup/runs/fine/town.features.h5", 3, "contains features; a pack file", "did you mean town?"),
    Case("dump lup/packs/town.h5", 3, "town.h5: a pack or features; a run or a checkpoint", "did you mean fine?", 2),
    Case("search q.jpg fine", 2, "q.jpg: an image; the run or features file comes first", "lupctl search fine q.jpg"),
    Case("search town q.jpg", 3, "town: a dataset; a run or a features file was expected", "did you mean fine?"),
    Case("search fine lup/raw/town", 3, "a folder without images directly in it", "did you mean lup/raw/town/query?"),
    Case("finetune town --from town.h5 --dry-run", 3, "no checkpoint 'town.h5'", "did you mean fine?", 0),
    Case("finetune town --from lup/packs/town.h5 --dry-run", 3, "a pack or features; a run or a checkpoint",
         "did you mean fine?", 0),
    Case("data info fine", 3, "fine: a run; a pack or a folder of images was expected", "did you mean town?"),
    Case("finetune lup/runs/fine --from scratch --dry-run", 3, "a run; a pack or a folder", "did you mean town?"),
    Case("dump town fine", 3, "no checkpoint 'town'", "did you mean fine?", 3),
    # Twice.
    Case("data info town --sheet there.png", 2, "there.png: exists already", "add --force, or name another --sheet"),
    Case("search fine q.jpg --sheet there.png", 2, "there.png: exists already", "add --force, or name another --sheet"),
    Case("dump fine town --out there.png", 2, "there.png: exists already", "add --force, or name another --out"),
    # The wrong place.
    Case("eval", 3, "no finished fine-tuning run in lup/runs", "--home ..", at="lup/raw"),
    Case("data info town", 3, "no pack of 'town'", "--home ..", at="lup/runs"),
    Case("dump half", 3, "no checkpoint 'half'", "--home .", 0, at="lup"),
    Case("eval --home lupp", 3, "no finished fine-tuning run in lupp/runs", "--home lup"),
    # Interrupted, or gone.
    Case("eval half", 3, "the run is not finished", "lupctl finetune town --from scratch --recipe bot --"),
    Case("dump", 3, "no finished run", "half was stopped; continue it: lupctl finetune", lacks=("lup/runs/fine",)),
    Case("data info town", 3, "town.h5: cut short", "lupctl data pack", lacks=("half of the pack",)),
    # The wrong options.
    Case(f"finetune town --from scratch --recipe bot --workers 0 --gpus 2 {TINY}", 5,
         "--gpus 2: this machine has 0 visible", "--gpus 0"),
]  # fmt: skip
# More of the same kinds.
RARE = [
    Case("eval fine --k1 10", 2, "--k1 has no meaning without --rerank", "add --rerank"),
    Case("eval fine --alpha 2", 2, "--alpha has no meaning without", "add --aqe 5"),
    Case("eval fine --same-camera drop --protocol same-camera-allowed", 2, "contradicts", "leave --same-camera out"),
    Case("eval fine --device cpu --gpus 0", 2, "both name devices", "leave --gpus out"),
    Case("eval fine --draws 3", 2, "--draws has no meaning with --protocol market1501", "--protocol single-shot"),
    Case("eval fine --protocol single-shot --persons some", 2, "half, or a number of persons", "--persons half"),
    Case("eval fine --threshold often", 2, "--threshold often", "--threshold 0.001"),
    Case("eval --compare fine", 2, "takes two or more different runs", "lupctl eval --compare RUN RUN", 0),
    Case("eval --compare fine lup/runs/fine --force", 2, "are the same run", "leave lup/runs/fine out", 0),
    Case("eval --all --min-map 0.5 fine", 2, "--min-map has no meaning with --all", "lupctl eval --all"),
    Case("eval fine --device gpu", 2, "gpu", "--device cpu"),
    Case("dump fine town --out d.h5 --role qeury", 2, "--role qeury", "--role query"),
    Case("data pack lup/raw/town --name other --size big", 2, "height and width", "--size 256x128"),
    Case("data download markt1501", 2, "is not a dataset that lupctl knows", "did you mean market1501?", 0),
    Case("data download dukemtmc", 3, "withdrawn", "lupctl data list"),
    Case("recipe show bto", 2, "no recipe 'bto'", "lupctl recipe show bot"),
    Case("manual dta", 2, "dta", "lupctl manual data"),
    Case("model download luperson-r51", 2, "luperson-r51", "did you mean luperson-r50?", 0),
    Case("eval fine lup", 2, "fine: not a file; several names", "lupctl eval --compare fine lup", 0),
]  # fmt: skip


@pytest.fixture(scope="module")
def made(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a workspace of raw data, its pack, a finished run and one that was stopped. Shared: copy it."""
    folder = tmp_path_factory.mktemp("made")
    space = folder / "lup"
    pack, raw = open_pack(labelled), space / "raw" / "town"
    for row, name in enumerate(pack.samples.name):
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).write_bytes(pack.read(row))
    (folder / "q.jpg").write_bytes(pack.read(len(pack) - 1))
    (folder / "there.png").write_bytes(b"")
    (folder / "photos").mkdir()
    shutil.copy(folder / "q.jpg", folder / "photos" / "p.jpg")
    (space / "packs").mkdir()
    from lupctl.core.data.sources.build import build_source
    from lupctl.core.stages.pack import pack as pack_images

    pack_images(build_source("market1501", raw, dataset="town"), out=space / "packs" / "town.h5", progress=QUIET)
    finetune(
        finetune_job(space / "packs" / "town.h5", space / "runs" / "fine", "schedule.epochs=1", 'data.packs=["town"]'),
        QUIET,
    )
    fine, half = space / "runs" / "fine", space / "runs" / "half"
    shutil.copytree(fine, half, ignore=shutil.ignore_patterns(*FINISHED))
    recipe = half / "recipe.toml"
    typed = shlex.split(f"lupctl finetune town --from scratch --recipe bot {TINY} --set schedule.epochs=1")
    recipe.write_text(comment_command(typed) + recipe.read_text())
    job = DumpJob(fine / "checkpoint.safetensors", space / "packs" / "town.h5", fine / "town.features.h5", workers=0)
    dump(job, torch.device("cpu"), QUIET)
    return folder


@pytest.fixture
def desk(made: Path, lupctl: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shell:
    """Types commands next to a workspace of one's own."""
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    facts = tmp_path / "lup/runs/fine/run.json"
    facts.write_text(facts.read_text().replace(str(made), str(tmp_path)))
    return lupctl


def take_away(lacks: tuple[str, ...]) -> None:
    for name in lacks:
        if name == "half of the pack":
            pack = Path("lup/packs/town.h5")
            pack.write_bytes(pack.read_bytes()[: pack.stat().st_size // 2])
        else:
            shutil.rmtree(name)


@pytest.mark.parametrize(
    "case",
    [*CASES, *(pytest.param(case, marks=pytest.mark.slow) for case in RARE)],
    ids=lambda case: f"{case.line}{' without ' if case.lacks else ''}{','.join(case.lacks)}",
)
def test_a_mistake_is_one_line_and_a_hint_that_works(desk: Shell, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    take_away(case.lacks)
    if "half" not in case.line and case.lacks != ("lup/runs/fine",):
        shutil.rmtree("lup/runs/half", ignore_errors=True)
    monkeypatch.chdir(case.at)
    followed: Followed = follow(desk, case.line, FILLS, most=max(1, case.most))
    first = followed.mistakes[0]
    assert (first.code, case.error in first.error, case.hint in first.hint) == (case.code, True, True), first
    if case.most:
        assert followed.last is not None
        assert followed.last.code == 0, (followed.lines, followed.last.err)
        assert len(followed.lines) <= case.most + 1


def test_what_is_typed_twice_is_no_mistake(desk: Shell) -> None:
    """The second time says in one line that it is done, and changes nothing."""
    tiny = f"finetune town --from scratch --recipe bot --gpus 0 --workers 0 --out mine {TINY} --set schedule.epochs=1"
    for line, said in (
        ("data pack town", "town: lup/packs/town.h5 is up to date"),
        (tiny, "mine: already finished; --force trains again"),
        ("eval fine --rerank", ""),
        ("eval fine", "is there already, re-ranked too; shown as it is"),
    ):
        first = desk(line)
        assert first.code == 0, first.err
        before = {path: path.stat().st_mtime_ns for path in Path().rglob("*.*5") if path.is_file()}
        again = desk(line)
        assert (again.code, said in again.err) == (0, True), again.err
        assert {path: path.stat().st_mtime_ns for path in before} == before
