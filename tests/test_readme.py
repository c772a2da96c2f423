"""Every command of the README runs, on drawn persons and with networks as small as they come."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from lupctl.cli.app import main
from lupctl.core.data.sources.synthetic import SyntheticPlan, SyntheticSource
from lupctl.core.training.nets.resnet.trunk import ResNetTrunk
from tests.conftest import encode_tiny
from tests.stages.test_convert import published
from tests.tools.tiny_videos import luperson_frames, write_mot, write_pickle, write_video

README = Path(__file__).parents[1] / "README.md"
TINY = "--gpus 0 --workers 0 --set net.width=4 --set pixels.height=32 --set pixels.width=16 --set schedule.epochs=1"
SMALLER = {
    "pretrain": f"{TINY} --set data.batch=8 --set bn_groups=2 --set moco.queue=32 --set optim.lr=0.01",
    "finetune": f"{TINY} --set pixels.height=96 --set data.persons=4 --set data.images=2",
    "demo": "--dry-run",
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


def readme_commands() -> list[str]:
    """The lines of all shell blocks that call lupctl, in order; those with a loop are another test's."""
    blocks = [block for block in readme_blocks() if not block.startswith("for ")]
    return [line for block in blocks for line in block.splitlines() if line.startswith("lupctl ")]


def readme_blocks() -> list[str]:
    return re.findall(r"```bash\n(.*?)```", README.read_text(encoding="utf-8"), flags=re.DOTALL)


def write_source(root: Path, plan: SyntheticPlan) -> None:
    source = SyntheticSource(plan)
    for name in source.list_images().name:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(source.read(name))


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder as the README assumes it: raw data in a workspace, and one's own images."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUPCTL_HOME", raising=False)
    small = {"height": 32, "width": 16, "cameras": 2, "shots": 2}
    write_source(Path("lup/raw/market1501"), SyntheticPlan(train_persons=6, test_persons=4, **small))
    write_source(Path("lup/raw/luperson"), SyntheticPlan(unlabelled_persons=10, scenes=2, height=32, width=16))
    write_source(Path("photos"), SyntheticPlan(seed=1, unlabelled_persons=3, scenes=1, height=32, width=16))
    source = SyntheticSource(SyntheticPlan(seed=2, train_persons=3, **small))
    samples = source.list_images()
    for number, name in enumerate(samples.name):
        path = Path(f"staff/{samples.person[number]:04d}/c{samples.camera[number]}_{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(name))
    write_benchmarks(Path("lup/raw"), small)
    write_videos()
    torch.save({"model": published()}, "market.pth")
    shutil.copyfile(min(Path("lup/raw/market1501/query").iterdir()), "person.jpg")
    monkeypatch.setattr(
        "lupctl.core.stages.finetune.network.imagenet_trunk",
        lambda arch, *, progress: ResNetTrunk(arch, width=4).state_dict(),
    )
    return tmp_path


def write_benchmarks(raw: Path, small: dict[str, int]) -> None:
    """CUHK03's two kinds of boxes, MSMT17's lists, and a table of images."""
    for seed, kind in enumerate(("labeled", "detected"), start=3):
        write_source(raw / "cuhk03-np" / kind, SyntheticPlan(seed=seed, train_persons=2, test_persons=2, **small))
    image = encode_tiny(0)
    for name in ("train", "val", "query", "gallery"):
        camera = {"query": 2}.get(name, 1)
        inside = f"0000/0000_000_{camera:02d}_{name}.jpg"
        path = raw / "msmt17" / ("train" if name in ("train", "val") else "test") / inside
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image)
        (raw / "msmt17" / f"list_{name}.txt").write_text(f"{inside} 0\n")
    names = [f"photos/{path.name}" for path in sorted(Path("photos").rglob("*.jpg"))]
    paths = [path.as_posix() for path in sorted(Path("photos").rglob("*.jpg"))]
    assert len(names) == len(paths)
    lines = [f"{path},{'Ada' if row % 2 else 'Zoë'},door" for row, path in enumerate(paths)]
    Path("my.csv").write_text("\n".join(["path,person,camera", *lines]), encoding="utf-8")


def write_videos() -> None:
    """A video in the manner of LUPerson, one of MOTChallenge, a list of videos, and one's own footage."""
    box = (10.0, 10.0, 60.0, 90.0)
    write_video(Path("videos/us/boston/us+boston+aaaaaaaaaaa.mp4"))
    write_pickle(Path("dets/us+boston+aaaaaaaaaaa.pkl"), luperson_frames([(1, box), (5, box)]))
    write_video(Path("pets09-s2l1/pets09-s2l1.mp4"))
    write_mot(Path("pets09-s2l1/gt/gt.txt"), [(1, box), (2, box)], persons=[1, 2])
    write_video(Path("hall.mp4"))
    Path("vnames.txt").write_text("us+boston+aaaaaaaaaaa\n")


def run(line: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr("sys.argv", shlex.split(line))
    try:
        main()
    except SystemExit as end:
        return int(end.code or 0)
    return 0


def test_every_command_of_the_readme(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = readme_commands()
    assert len(lines) > 35
    for line in lines:
        if line == "lupctl data pack luperson --layout images":  # that chapter's workspace holds no other such pack
            for pack in set(Path("lup/packs").glob("*.h5")) - {Path("lup/packs/market1501.h5")}:
                pack.unlink()
        command, _, target = line.partition(" > ")
        if "--gpus 8" in command:
            if "--dry-run" not in command:
                assert run(command, monkeypatch) == 5, "no eight GPUs here, and no silent CPU"
                assert "--gpus 8: this machine has" in capsys.readouterr().err
            if "--nodes" in command:
                continue
            command = command.replace(" --gpus 8", "")
        command = f"{command} {SMALLER.get(command.split()[1], '')}".strip()
        if command.startswith(PLANNED):
            command += " --dry-run"
        code = run(command, monkeypatch)
        captured = capsys.readouterr()
        assert code == EXPECTED.get(line, 0), f"{command}: {captured.err}"
        if "--quiet" not in command and code == 0:
            assert captured.out, f"{command} printed no result"
        if target:
            Path(target).write_text(captured.out, encoding="utf-8")
    assert (place / "sheet.png").is_file()
    assert (place / "photos.features.h5").is_file()
    assert (place / "out.png").is_file()


@pytest.mark.slow
def test_the_loop_of_the_readme(place: Path) -> None:
    """Two shares and two seeds of it, from scratch, in a real shell."""
    (loop,) = (block for block in readme_blocks() if block.startswith("for "))
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


def test_the_readme_names_the_installed_test_command() -> None:
    text = README.read_text(encoding="utf-8")
    assert "pip install -e '.[dev]'" in text
    ci = (README.parent / ".ci" / "run").read_text(encoding="utf-8")
    for command in re.findall(r"## Working on lupctl\n\n```bash\n(.*?)```", text, flags=re.DOTALL)[0].splitlines():
        for part in command.split(" && "):
            assert part in ci.splitlines(), f"CI does not run {part!r}"


def test_every_shipped_recipe_stands_in_the_readme() -> None:
    text = README.read_text(encoding="utf-8")
    for path in sorted((README.parent / "recipes").glob("*/*.toml")):
        assert f"| `{path.stem}` | {path.parent.name} |" in text
