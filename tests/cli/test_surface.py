"""What every command has in common: help, options, exit codes, errors, completion, and how fast it starts."""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from lupctl.cli import output as show
from lupctl.cli.app import app
from lupctl.cli.manual import TOPICS, read_chapter
from lupctl.core import errors
from lupctl.core.stages.pretrain.run import pretrain
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell
from tests.tools.tiny.training import pretrain_job

HEAVY = (
    "torch", "torchvision", "numpy", "h5py", "cv2", "faiss", "pydantic", "safetensors", "matplotlib", "onnx",
    "onnxruntime", "onnxscript", "rich.table",
)  # fmt: skip


@pytest.fixture(autouse=True)
def _forget_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(show, "_debug", False)


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command with the words that call it, groups left out."""
    if not hasattr(command, "commands"):
        yield words, command
        return
    for name, below in command.commands.items():
        yield from walk(below, (*words, name))


COMMANDS = dict(walk(typer.main.get_command(app)))
every_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)


def test_the_commands() -> None:
    assert {" ".join(words) for words in COMMANDS} >= {
        "data list", "data download", "data pack", "data info", "data verify", "pretrain", "finetune", "dump", "eval",
        "recipe list", "recipe show", "model convert", "demo", "doctor",
    }  # fmt: skip


def test_help_is_light_and_fast(tmp_path: Path) -> None:
    code = (
        "import sys; sys.argv = ['lupctl', '--help']\n"
        "from lupctl.cli.app import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        f"print([name for name in {HEAVY} if name in sys.modules and name != 'rich.table'], file=sys.stderr)"
    )
    # As it is installed, with compiled modules; and in seconds of processor time, which other work does not take.
    places = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    places["PYTHONPYCACHEPREFIX"] = str(tmp_path)
    first, ran = run_timed(code, places)
    assert ran.stderr == "[]\n"
    assert "lupctl demo" in ran.stdout
    bare = min(run_timed("import typer, rich.console", places)[0] for _ in range(3))
    spent = [first]
    while min(spent) >= max(0.3, 3.5 * bare) and len(spent) < 6:
        spent.append(run_timed(code, places)[0])
    assert min(spent) < max(0.3, 3.5 * bare), (spent, bare)


def run_timed(code: str, environment: dict[str, str]) -> tuple[float, subprocess.CompletedProcess[str]]:
    """The processor time of a fresh interpreter, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, ran


@every_command
def test_every_help_has_an_example_that_parses(words: tuple[str, ...]) -> None:
    text = COMMANDS[words].help
    examples = [line for line in re.findall(r"`(lupctl[^`]*)`", text) if line.startswith("lupctl")]
    assert any(example.split()[1 : 1 + len(words)] == list(words) for example in examples), text
    for example in examples:
        _, *rest = shlex.split(example.partition(" > ")[0])
        command: Any = typer.main.get_command(app)
        while hasattr(command, "commands"):
            command = command.commands[rest.pop(0)]
        params = command.make_context("lupctl", rest).params
        if params.get("recipe"):
            from lupctl.core.recipes.shipped import find_text

            assert find_text(params["recipe"], command.name)


@every_command
def test_every_command_takes_the_common_options(words: tuple[str, ...]) -> None:
    options = {option for param in COMMANDS[words].params for option in param.opts}
    assert {"--json", "--quiet", "--debug"} <= options
    # These look nowhere, and the demo makes its own workspace.
    if words not in {("recipe", "list"), ("manual",), ("demo",)}:
        assert "--home" in options
    if words[0] in ("pretrain", "finetune", "dump", "eval", "demo") or words == ("data", "pack"):
        assert {"--out", "--force", "--dry-run"} <= options
    if words[0] in ("pretrain", "finetune"):
        assert {"--recipe", "--set", "--arch", "--gpus", "--processes", "--workers"} <= options
    assert not {"--output", "--dir", "--overwrite", "--config", "--model", "--data-dir"} & options


@every_command
def test_the_manual_names_every_option(words: tuple[str, ...]) -> None:
    text = "".join(read_chapter(topic) for topic in TOPICS)
    assert re.search(rf"\b{' '.join(words)}\b", text), f"the manual does not say what lupctl {' '.join(words)} does"
    for param in COMMANDS[words].params:
        for option in (*param.opts, *param.secondary_opts):
            if option.startswith("--"):
                assert re.search(rf"{option}(?![\w-])", text), f"the manual does not name {option}"


def test_an_option_means_the_same_everywhere() -> None:
    """Same short names, kind, and words of help wherever an option occurs; --set is of a recipe, or of a network."""
    shared = {"--home", "--out", "--recipe", "--set", "--arch", "--gpus", "--processes", "--device", "--force",
              "--dry-run", "--json", "--quiet", "--debug"}  # fmt: skip
    seen: dict[str, dict[tuple[Any, ...], list[str]]] = {}
    for words, command in COMMANDS.items():
        for param in command.params:
            for option in param.opts:
                if option in shared:
                    told = (tuple(param.opts), param.multiple, param.help)
                    seen.setdefault(option, {}).setdefault(told, []).append(" ".join(words))
    assert set(seen) == shared
    of_networks = [commands for told, commands in seen["--set"].items() if "network" in told[2]]
    assert of_networks == [["dump", "eval"]]
    for option, meanings in seen.items():
        assert len(meanings) == (2 if option == "--set" else 1), (option, meanings)


ERRORS = errors.KINDS
CODES = {
    "LupError": 1, "UsageError": 2, "DataError": 3, "FormatError": 3, "CorruptImageError": 3, "GateError": 4,
    "DeviceError": 5, "StoppedError": 75, "InterruptedRunError": 130,
}  # fmt: skip


@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("debug", [False, True])
def test_every_error_leaves_with_its_code(
    lupctl: Shell, monkeypatch: pytest.MonkeyPatch, kind: type[errors.LupError], debug: bool
) -> None:
    def fail(home: Path) -> None:
        raise kind("the file is what it is", hint="type this")

    monkeypatch.setattr("lupctl.core.stages.doctor.examine", fail)
    ran = lupctl("doctor --debug" if debug else "doctor")
    assert ran.code == CODES[kind.__name__]
    assert ran.err.endswith("error: the file is what it is\nhint: type this\n")
    assert ("Traceback (most recent call last)" in ran.err) == debug
    assert ("in fail" in ran.err) == debug
    assert ran.out == ""


@pytest.mark.parametrize(
    "error",
    [
        MemoryError("3 GiB"),
        type("OutOfMemoryError", (RuntimeError,), {})("CUDA out of memory. Tried to allocate 3 GiB\nand more"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 3 GiB"),
    ],
)
def test_memory_that_is_not_there_is_five(lupctl: Shell, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(home: Path) -> None:
        raise error

    monkeypatch.setattr("lupctl.core.stages.doctor.examine", fail)
    ran = lupctl("doctor")
    assert ran.code == 5
    first, second = ran.err.splitlines()
    assert first.startswith("error: out of memory (")
    assert "3 GiB" in first
    assert second.startswith("hint: ")


def test_our_own_bugs_show_themselves(lupctl: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(home: Path) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("lupctl.core.stages.doctor.examine", fail)
    ran = lupctl("doctor")
    assert ran.code == 1
    assert "Traceback (most recent call last)" in ran.err
    assert ran.err.splitlines()[-2:] == [
        "error: a mistake in lupctl itself (RuntimeError: a bug)",
        "hint: lupctl manual security says how to report it",
    ]


def test_ctrl_c_anywhere_is_130(lupctl: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(home: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lupctl.core.stages.doctor.examine", fail)
    assert lupctl("doctor").code == 130


@pytest.mark.parametrize(
    "line", ["nonsense", "doctor --nonsense", "recipe show", "pretrain --gpus -1", "eval a b", "dump a b c", "run rm"]
)
def test_a_wrong_command_line_is_two(lupctl: Shell, line: str) -> None:
    ran = lupctl(line)
    assert (ran.code, ran.out) == (2, "")
    assert "Traceback" not in ran.err


def test_a_reader_that_goes_away_is_no_error() -> None:
    main = "from lupctl.cli.app import main; main()"
    ran = subprocess.run(
        f"{shlex.quote(sys.executable)} -c {shlex.quote(main)} recipe show bot | true; echo ${{PIPESTATUS[0]}}",
        shell=True, capture_output=True, text=True, check=True, executable="/bin/bash",
    )  # fmt: skip
    assert ran.stderr == ""
    assert ran.stdout == "0\n"


@pytest.mark.parametrize("command", ["pretrain", "finetune x --from scratch"])
def test_gpus_that_are_not_there_are_five(lupctl: Shell, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    ran = lupctl(f"{command} --gpus 8")
    assert (ran.code, ran.out) == (5, "")
    assert ran.err.splitlines()[-2:] == [
        "error: --gpus 8: this machine has 1 visible CUDA device",
        "hint: --gpus 0 runs on the CPU; lupctl doctor shows what is there",
    ]


def test_where_training_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from lupctl.core.system.jobs.device import pick_placement

    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert pick_placement(gpus=None, processes=None).line == "device: cpu, 1 process (no GPU is visible)"
    assert pick_placement(gpus=0, processes=3).line == "device: cpu, 3 processes (--gpus 0)"
    assert pick_placement(gpus=None, processes=2).processes == 2
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "Fast")
    assert pick_placement(gpus=None, processes=None).line == "device: 4 x Fast"
    assert (pick_placement(gpus=2, processes=None).kind, pick_placement(gpus=2, processes=None).processes) == (
        "cuda",
        2,
    )
    assert pick_placement(gpus=0, processes=None).kind == "cpu"
    with pytest.raises(errors.UsageError, match="--processes 2: only for the CPU"):
        pick_placement(gpus=None, processes=2)


@pytest.mark.parametrize(
    ("processes", "named", "threads"),
    [(None, None, None), (1, None, 4), (2, None, 4), (4, None, 4), (4, "3", None)],
    ids=["all of one", "one", "two", "four", "as the environment says"],
)
def test_threads_that_no_number_of_processes_moves(
    monkeypatch: pytest.MonkeyPatch, processes: int | None, named: str | None, threads: int | None
) -> None:
    import torch

    from lupctl.core.system.jobs.device import computing_threads, pick_placement, pick_threads

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if named is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", named)
    monkeypatch.setattr("torch.get_num_threads", lambda: 16)
    placement = pick_placement(gpus=0, processes=processes)
    assert pick_threads(placement, shares=4) == threads
    assert pick_threads(placement, shares=64) == (threads and 1)
    monkeypatch.undo()
    before = torch.get_num_threads()
    with computing_threads(threads and 3):
        assert torch.get_num_threads() == (3 if threads else before)
    assert torch.get_num_threads() == before


def test_doctor(lupctl: Shell, tmp_path: Path) -> None:
    ran = lupctl("doctor --json")
    assert (ran.code, ran.err) == (0, "")
    assert ran.json["schema"] == "lupctl.doctor/1"
    findings = {finding["what"]: finding for finding in ran.json["findings"]}
    assert {"lupctl", "torch", "device", "faiss", "JPEG decoder", "cores", "disk", "file locks"} <= set(findings)
    assert all(finding["found"] and finding["used"] for finding in findings.values())
    assert findings["device"]["found"].startswith("device: ")
    assert str(tmp_path) in findings["disk"]["found"]
    assert "JPEG decoder" in lupctl("doctor").out
    assert not (tmp_path / "lup").exists()


def test_recipes_are_listed(lupctl: Shell) -> None:
    ran = lupctl("recipe list --json")
    assert ran.json["schema"] == "lupctl.recipes/1"
    rows = {row["name"]: row for row in ran.json["recipes"]}
    assert rows["luperson-moco"]["stage"] == "pretrain"
    assert rows["bot"]["Command"] == "lupctl finetune market1501 --recipe bot --from imagenet"
    table = lupctl("recipe list").out
    assert all(name in table for name in rows)


def test_a_shown_recipe_can_be_given_back(lupctl: Shell, crowd: Path, tmp_path: Path) -> None:
    shown = lupctl("recipe show luperson-moco --set data.batch=32 --set optim.lr=0.25")
    (tmp_path / "mine.toml").write_text(shown.out)
    assert lupctl("recipe show mine.toml").out == shown.out
    ran = lupctl(f"pretrain --recipe mine.toml --data {crowd} --gpus 0 --dry-run --json")
    assert ran.code == 0, ran.err
    assert (ran.json["schema"], ran.json["batch"], ran.json["epochs"]) == ("lupctl.pretrain-plan/1", 32, 200)
    assert (ran.json["images"], ran.json["steps"]) == (36, 200)
    assert not (tmp_path / "lup").exists()
    assert lupctl("recipe show mine.toml --json").json["recipe"]["optim"]["lr"] == 0.25


def test_the_recipe_of_a_run_is_shown(lupctl: Shell, crowd: Path, tmp_path: Path) -> None:
    run = tmp_path / "lup" / "runs" / "mine"
    pretrain(pretrain_job(crowd, run), Progress(quiet=True))
    assert lupctl("recipe show mine").out == (run / "recipe.toml").read_text()
    assert lupctl("recipe show lup/runs/mine").out == (run / "recipe.toml").read_text()
    assert lupctl("recipe show mine --set seed=9").out == (run / "recipe.toml").read_text().replace(
        "seed = 1", "seed = 9"
    )


def test_recipes_that_cannot_be_shown(lupctl: Shell, tmp_path: Path) -> None:
    ran = lupctl("recipe show luperson-mco")
    assert ran.code == 2
    assert ran.err == (
        "error: no recipe 'luperson-mco'; did you mean 'luperson-moco'?\nhint: lupctl recipe show luperson-moco\n"
    )
    for text, message in (("seed = 1", "stage = None, expected"), ('stage = "x"', "stage = 'x', expected")):
        (tmp_path / "mine.toml").write_text(text)
        ran = lupctl("recipe show mine.toml")
        assert ran.code == 2
        assert message in ran.err


def complete(lupctl: Shell, words: str, home: Path) -> list[str]:
    """What the shell would offer for the last word."""
    from typer.testing import CliRunner

    env = {
        "_LUPCTL_COMPLETE": "complete_bash", "COMP_WORDS": f"lupctl {words}", "LUPCTL_HOME": str(home),
        "COMP_CWORD": str(len(f"lupctl {words}".split(" ")) - 1),
    }  # fmt: skip
    return CliRunner().invoke(app, [], prog_name="lupctl", env=env).output.split()


def test_the_shell_completes(lupctl: Shell, tmp_path: Path) -> None:
    home = tmp_path / "lup"
    for name in ("alpha", "beta"):
        (home / "runs" / name).mkdir(parents=True)
        (home / "runs" / name / "recipe.toml").write_text("")
    (home / "packs").mkdir()
    (home / "packs" / "crops.h5").write_text("")
    assert complete(lupctl, "pretrain --arch r1", home) == ["r101", "r152", "r18"]
    assert complete(lupctl, "finetune x --arch r5", home) == ["r50"]
    assert complete(lupctl, "pretrain --recipe luperson-m", home) == [
        f"luperson-moco{end}" for end in ("", "-r101", "-r152", "-vit")
    ]
    assert complete(lupctl, "recipe show b", home) == ["beta", "bot"]
    assert complete(lupctl, "finetune cr", home) == ["crops"]
    assert complete(lupctl, "pretrain --data m", home) == ["market1501", "msmt17"]
    assert complete(lupctl, "finetune crops --from ", home) == ["alpha", "beta", "finetuned", "imagenet", "scratch"]
    assert complete(lupctl, "dump a", home) == ["alpha"]
    assert complete(lupctl, "eval be", home) == ["beta"]
    assert complete(lupctl, "manual fi", home) == ["finetuning", "files"]
    assert complete(lupctl, "dump ", tmp_path / "nowhere") == []


def test_no_bars_where_no_one_looks(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr("lupctl.core.system.progress.bars.open_bar", lambda *given, **more: opened.append(given))
    with Progress().task("work", total=3, unit="things") as bar:
        bar.advance(note="one")
    with Progress(quiet=True).task("work", total=3, unit="things") as bar:
        bar.advance()
    assert opened == []
    Progress().say("a line")
    Progress(quiet=True).say("not this")
    Progress(quiet=True).warn("this though")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "a line\nwarning: this though\n")


def test_a_training_log_has_no_bars_and_no_colours(lupctl: Shell, crowd: Path) -> None:
    from tests.tools.tiny.training import PRETRAIN, as_options

    ran = lupctl(f"pretrain --data {crowd} --gpus 0 --workers 0 --out run {' '.join(as_options(PRETRAIN))} --json")
    assert ran.code == 0
    *before, last = ran.err.splitlines()
    assert before == ["recipe: luperson-moco (LUPerson's, the default)", "device: cpu, 1 process (--gpus 0)"]
    assert re.fullmatch(
        r"step 4 of 4: loss \d\.\d{3}, rank \d+\.\d, spread \d\.\d\d, lr 0\.015, [\d,]+ images/s, "
        r"waiting for data \d+%, took \d+ s",
        last,
    )
    assert ran.json["schema"] == "lupctl.pretrain/1"
    assert (ran.json["run"], ran.json["steps"]) == ("run", 4)
    assert json.loads(Path("run/run.json").read_text())["loss"] == ran.json["loss"]
    quiet = lupctl(f"pretrain --data {crowd} --gpus 0 --out run {' '.join(as_options(PRETRAIN))} --quiet")
    assert (quiet.code, quiet.out, quiet.err) == (0, "run\n", "")


def test_the_version(lupctl: Shell) -> None:
    assert re.fullmatch(r"lupctl \d+\.\d+\.\d+\n", lupctl("--version").out)
