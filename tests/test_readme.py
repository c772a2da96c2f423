"""Every command of the README and of the manual runs, on drawn persons and with networks as small as they come."""

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lupctl.cli.app import main
from lupctl.cli.manual import TOPICS, summary
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk
from tests.references.osnet import OSNETS
from tests.references.osnet import draw_state as draw_osnet
from tests.references.transreid_layouts import TINY as TINY_VIT
from tests.references.transreid_layouts import draw_state, reid_layout
from tests.tools.nets.onnx_files import write_foreign
from tests.tools.published import published
from tests.tools.tiny.footage import Stay, write_footage, write_stays
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.videos import luperson_frames, write_pickle, write_video

ROOT = Path(__file__).parents[1]
MANUAL = ROOT / "lupctl" / "manual"
DOCUMENTS = {"README": ROOT / "README.md", **{topic: MANUAL / f"{topic}.md" for topic in TOPICS}}
every_document = pytest.mark.parametrize("document", DOCUMENTS)
CPU_PACKAGES = "https://download.pytorch.org/whl/cpu"
MOST_BYTES = 8192  # of the README: what is longer belongs into a chapter

TINY = "--gpus 0 --workers 0 --set net.width=4 --set pixels.height=32 --set pixels.width=16 --set schedule.epochs=1"
SMALLER = {
    "pretrain": f"{TINY} --set data.batch=8 --set bn_groups=2 --set moco.queue=32 --set optim.lr=0.01",
    "finetune": f"{TINY} --set pixels.height=96 --set data.persons=4 --set data.images=2",
    "demo": "--dry-run",
}
# Width is of residual networks; of a vision or Swin transformer it is blocks that make it small.
SHALLOW = {"--set net.width=4": "--set vit.depth=2"}
SHALLOW_SWIN = {"--set net.width=4": "--set swin.depths=[1,1,1,1]"}
# An OSNet has the width of its name.
NARROWEST = {"--set net.width=4": "--arch osnet-x0.25"}
# Self-distillation has small views and no queue.
CROPS = {
    **SHALLOW,
    "--set moco.queue=32": "--set dino.outputs=32 --set dino.hidden=16 --set local.height=16 --set local.width=16",
}
# Clusters in which nobody is far away from anybody.
CLUSTERED = {
    "--set data.persons=4": "--set bn_groups=1 --set data.persons=2 --set clusters.steps=1 --set clusters.least=2 "
    "--set clusters.k1=3",
}
# SOLIDER also clusters the tokens of last maps, of which there must be some.
BODY_PARTS = {
    **CROPS,
    **SHALLOW_SWIN,
    "--set pixels.height=32": "--set pixels.height=64 --set solider.parts=2",
    "--set pixels.width=16": "--set pixels.width=32",
}
# What needs a network, or the weights of a detector; what is planned without them is checked.
PLANNED = (
    "lupctl data download",
    "lupctl data build luperson-crops",
    "lupctl data build hall",
    "lupctl model download",
)
# A drawn Market-1501 has not the published counts, a tiny network not the scores of a gate; everything else succeeds.
EXPECTED = {"lupctl data verify market1501": 3, "lupctl eval lup/runs/half --min-map 0.85 --min-rank1 0.94": 4}

# What a reader of a chapter has done before, as the chapters before it say.
SMALL_BOT = "lupctl finetune market1501 --arch r18 --recipe small-bot --from scratch"
BEFORE = {
    "pretraining": ("lupctl data pack market1501",),
    "finetuning": (
        "lupctl data pack market1501 cuhk03-np",
        "lupctl pretrain --arch r18 --data market1501 --recipe small-moco",
    ),
    "unlabelled": ("lupctl data pack market1501",),
    "recipes": ("lupctl data pack market1501",),
    "evaluation": (
        "lupctl data pack market1501",
        f"{SMALL_BOT} --out lup/runs/half",
        f"{SMALL_BOT} --set seed=2 --out lup/runs/mine",
    ),
    "models": (
        "lupctl data pack market1501", "lupctl pretrain --arch r18 --data market1501 --out lup/runs/watched",
    ),
    "clusters": ("lupctl data pack luperson",),
    "files": ("lupctl data pack market1501", SMALL_BOT),
    "videos": ("lupctl data pack market1501", f"{SMALL_BOT} --out lup/runs/mine", "lupctl eval"),
}  # fmt: skip
SLOW = ("models",)  # it converts, dumps, fine-tunes and exports a whole MGN
RAW = {"data": ("market1501", "luperson", "cuhk03-np", "msmt17"), "finetuning": ("market1501", "cuhk03-np")}
LEFT = {
    "start": ("run.sh", "sheet.png", "photos.features.h5", "lup/packs/staff.h5"),
    "videos": ("crops.png", "page.html"),
    "models": ("r50.pth", "mgn.onnx", "report.json", "small.onnx", "small.xml", "small.bin"),
    "evaluation": ("out.png", "half.features.h5", "osnet.json", "osnet.explanation.json"),
}


def blocks_of(document: str) -> list[str]:
    """The shell blocks of a document."""
    return re.findall(r"```bash\n(.*?)```", DOCUMENTS[document].read_text(encoding="utf-8"), flags=re.DOTALL)


def commands_of(document: str) -> list[str]:
    """The calls of lupctl in all shell blocks, in order; a loop is another test's."""
    lines = [line for block in blocks_of(document) if not block.startswith("for ") for line in block.splitlines()]
    parts = [part.removeprefix(".venv/bin/") for line in lines for part in line.split(" && ")]
    return [part for part in parts if part.startswith("lupctl ")]


def write_source(root: Path, plan: SyntheticPlan) -> None:
    source = SyntheticSource(plan)
    for name in source.list_images().name:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(source.read(name))


@pytest.fixture(scope="session")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All the raw data and images that the documents speak of, drawn once; `raw` is the workspace's."""
    root = tmp_path_factory.mktemp("everything")
    small: dict[str, Any] = {"height": 32, "width": 16, "cameras": 2, "shots": 2}
    write_source(root / "raw/market1501", SyntheticPlan(train_persons=6, test_persons=4, **small))
    write_source(root / "raw/luperson", SyntheticPlan(unlabelled_persons=10, scenes=2, height=32, width=16))
    write_source(root / "photos", SyntheticPlan(seed=1, unlabelled_persons=3, scenes=1, height=32, width=16))
    source = SyntheticSource(SyntheticPlan(seed=2, train_persons=6, **small))
    samples = source.list_images()
    for number, name in enumerate(samples.name):
        path = root / f"staff/{samples.person[number]:04d}/c{samples.camera[number]}_{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(name))
    write_benchmarks(root / "raw", small)
    write_table(root)
    write_videos(root)
    torch.save({"model": published()}, root / "market.pth")
    transformer = reid_layout(replace(TINY_VIT, tokens=210, cameras=6), classes=5, jpm=True)
    torch.save(draw_state(transformer), root / "transformer_120.pth")
    torch.save(draw_osnet(OSNETS["osnet-x0.25"]), root / "osnet_x0_25_msmt17.pth")
    write_foreign(root / "osnet.onnx", sides=(256, 128))
    shutil.copyfile(min((root / "raw/market1501/query").iterdir()), root / "person.jpg")
    return root


@pytest.fixture
def place(everything: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with one's own images in it, and no ImageNet weights to wait for; the workspace is still empty."""
    shutil.copytree(everything, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("raw"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUPCTL_HOME", raising=False)
    monkeypatch.setattr(
        "lupctl.core.stages.finetune.network.imagenet_trunk",
        lambda arch, *, progress: ResNetTrunk(arch, width=4).state_dict(),
    )
    return tmp_path


def write_benchmarks(raw: Path, small: dict[str, Any]) -> None:
    """CUHK03's two kinds of boxes, and MSMT17's lists."""
    for seed, kind in enumerate(("labeled", "detected"), start=3):
        write_source(raw / "cuhk03-np" / kind, SyntheticPlan(seed=seed, train_persons=2, test_persons=2, **small))
    image = encode_tiny(0)
    root = raw / "msmt17" / "MSMT17_V1"
    for name in ("train", "val", "query", "gallery"):
        camera = {"query": 2}.get(name, 1)
        inside = f"0000/0000_000_{camera:02d}_{name}.jpg"
        path = root / ("train" if name in ("train", "val") else "test") / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
        (root / f"list_{name}.txt").write_text(f"{inside} 0\n")


def write_table(root: Path) -> None:
    """A CSV of the photos."""
    paths = [path.relative_to(root).as_posix() for path in sorted((root / "photos").rglob("*.jpg"))]
    lines = [f"{path},{'Ada' if row % 2 else 'Zoë'},door" for row, path in enumerate(paths)]
    (root / "my.csv").write_text("\n".join(["path,person,camera", *lines]), encoding="utf-8")


def write_videos(root: Path) -> None:
    """A video in the manner of LUPerson, one of MOTChallenge, a list of videos, and one's own footage."""
    box = (10.0, 10.0, 60.0, 90.0)
    write_video(root / "videos/us/boston/us+boston+aaaaaaaaaaa.mp4")
    write_pickle(root / "dets/us+boston+aaaaaaaaaaa.pkl", luperson_frames([(1, box), (5, box)]))
    stays = [Stay(person, 2 * person, 2 * person + 14, person - 1) for person in range(1, 6)]
    write_footage(root / "pets09-s2l1/pets09-s2l1.avi", stays, frames=24)
    write_stays(root / "pets09-s2l1/gt/gt.txt", stays)
    write_video(root / "hall.mp4")
    (root / "vnames.txt").write_text("us+boston+aaaaaaaaaaa\n")


def smaller(line: str) -> str:
    """A command with options that make its network and its training as small as they come."""
    options = SMALLER.get("pretrain" if "--curve" in line else line.split()[1], "")
    changes = (SHALLOW if "vit" in line else {}) | (CROPS if "dino" in line or "pretrain --arch swin" in line else {})
    changes |= SHALLOW_SWIN if "swin" in line else {}
    changes |= NARROWEST if "osnet" in line else {}
    changes |= CLUSTERED if "clusters" in line and line.split()[1] == "finetune" else {}
    changes |= BODY_PARTS if line.startswith("lupctl pretrain") and "solider" in line else {}
    for old, new in changes.items():
        options = options.replace(old, new)
    return re.sub(r"--probe-seconds \d+", "--probe-seconds 1", f"{line} {options}".strip())


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", shlex.split(line))
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


@pytest.mark.parametrize(
    "document",
    [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in DOCUMENTS if commands_of(name)],
)
def test_every_command_runs(
    document: str, everything: Path, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("lupctl.core.flows.machine.exercise.SECONDS", 1.0)  # of the minute that it takes
    for name in RAW.get(document, ("market1501", "luperson")):
        shutil.copytree(everything / "raw" / name, place / "lup" / "raw" / name)
    for line in BEFORE.get(document, ()):
        command = smaller(line)
        assert run(command, monkeypatch) == 0, f"{command}: {capsys.readouterr().err}"
    capsys.readouterr()
    for line in commands_of(document):
        command, _, target = line.partition(" > ")
        if "--gpus 8" in command:
            if "--dry-run" not in command:
                assert run(command, monkeypatch) == 5, "no eight GPUs here, and no silent CPU"
                assert "--gpus 8: this machine has" in capsys.readouterr().err
            if "--nodes" in command:
                continue
            command = command.replace(" --gpus 8", "")
        command = smaller(command)
        if command.startswith(PLANNED):
            command += " --dry-run"
        code = run(command, monkeypatch)
        captured = capsys.readouterr()
        assert code == EXPECTED.get(line, 0), f"{command}: {captured.err}"
        if "--quiet" not in command and code == 0:
            assert captured.out, f"{command} printed no result"
        if target:
            Path(target).write_text(captured.out, encoding="utf-8")
    for left in LEFT.get(document, ()):
        assert (place / left).is_file()


@pytest.mark.slow
def test_the_loop_over_shares_and_seeds(everything: Path, place: Path) -> None:
    """Two shares and two seeds of it, from scratch, in a real shell."""
    shutil.copytree(everything / "raw" / "market1501", place / "lup" / "raw" / "market1501")
    (loop,) = (block for document in DOCUMENTS for block in blocks_of(document) if block.startswith("for "))
    smaller = f"--recipe small-bot {SMALLER['finetune']} --set data.persons=2"
    for theirs, ours in (
        ("0.1 0.3 0.5 1", "0.5 1"), ("1 2 3", "1 2"), ("--from imagenet", f"--from scratch --arch r18 {smaller}"),
        ("r50-from-imagenet", "r18-from-scratch"),
    ):  # fmt: skip
        assert theirs in loop
        loop = loop.replace(theirs, ours)
    python = f"{shlex.quote(sys.executable)} -c 'from lupctl.cli.app import main; main()'"
    loop = f"set -e\n{python} data pack market1501\n" + loop.replace("lupctl ", f"{python} ", 2)
    ran = subprocess.run(["bash", "-c", loop], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert len(list(Path("lup/runs").iterdir())) == 4, "a run for each share and seed"
    assert len(list(Path("lup/comparisons").glob("*.json"))) == 1


def test_the_readme_is_short_and_sets_up_in_one_line_each() -> None:
    text = DOCUMENTS["README"].read_text(encoding="utf-8")
    assert len(text.encode()) <= MOST_BYTES
    lines = [line for block in blocks_of("README") for line in block.splitlines() if "venv" in line]
    with_cpu = f".venv/bin/pip install torch torchvision --index-url {CPU_PACKAGES}"
    without_cuda = ".venv/bin/pip install -r lupctl/requirements-cpu.txt && .venv/bin/pip install --no-deps -e ."
    assert lines == [
        "python3 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/lupctl demo",
        "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest",
        f"python3 -m venv .venv && {with_cpu} && {without_cuda}",
    ]


def test_ci_runs_what_the_readme_says() -> None:
    text = DOCUMENTS["README"].read_text(encoding="utf-8")
    (block,) = re.findall(r"## Working on lupctl\n.*?```bash\n(.*?)```", text, flags=re.DOTALL)
    install, *commands = block.splitlines()
    assert install == "pip install -e '.[dev]'"
    ran = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    assert "pip install --quiet -e '.[dev]'" in ran
    assert len(commands) >= 3
    for command in commands:
        for part in command.split(" && "):
            assert part in ran, f"CI does not run {part!r}"


def test_the_manual_holds_its_chapters_and_pictures_alone() -> None:
    assert {path.stem for path in MANUAL.glob("*.md")} == set(TOPICS)
    assert {path.suffix for path in MANUAL.iterdir()} == {".md", ".png"}
    for picture in MANUAL.glob("*.png"):
        assert picture.stat().st_size < 250_000


@every_document
def test_a_document_names_its_chapters_and_its_links_resolve(document: str) -> None:
    path = DOCUMENTS[document]
    text = path.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text)
    for target in targets:
        assert target.startswith("https://") or (path.parent / target).is_file(), target
    for topic in re.findall(r"\[`lupctl manual (\w+)`\]\((?:lupctl/manual/)?(\w+)\.md\)", text):
        assert topic[0] == topic[1], "a link leads to the chapter that it names"
    for topic in re.findall(r"lupctl manual ([a-z]+)", text):
        assert topic in TOPICS
    if document == "README":
        assert {f"lupctl/manual/{topic}.md" for topic in TOPICS} <= set(targets)
    else:
        assert text.startswith("# ")
        assert 20 < len(summary(text)) < 110, "the first paragraph says in one line what the chapter is about"


def test_every_shipped_recipe_is_in_the_manual() -> None:
    text = DOCUMENTS["recipes"].read_text(encoding="utf-8")
    for path in sorted((ROOT / "recipes").glob("*/*.toml")):
        assert f"| `{path.stem}` | {path.parent.name} |" in text
