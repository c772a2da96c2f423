"""Every benchmark runs, at its smallest size: what it measures here means nothing, that it still can is the point."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lupctl.core.data.sources.synthetic import SyntheticPlan
from tests.tools.drawn_packs import pack_drawn
from tests.tools.tiny.videos import write_mot, write_video

HERE = Path(__file__).parent
# What others import; it has no command of its own.
PARTS = {"studies/learn_results.py"}
SMALLEST = (
    "build_speed.py --rounds 1",
    "cluster_speed.py --images 200 --dim 16 --rounds 1 --dense",
    "draw_speed.py 32 16 10",
    "dino_speed.py step --recipe small-dino --depth 1 --batch 4 --outputs 64 --rounds 1",
    "dino_speed.py launches --recipe small-dino --depth 1 --batch 4 --outputs 64",
    "dino_speed.py precision --recipe small-dino --depth 1 --batch 4 --outputs 64 --rounds 1 --only bfloat16",
    "dino_speed.py memory --batch 8 --outputs 4096",
    "embed_speed.py --arch r18 --width 4 --height 32 --frames 2 --rounds 1",
    "eval_speed.py --size tiny --repeats 1",
    "kills.py --kills 1 --only build --persons 4 --frames 4",
    "lmdb_speed.py --images 200 --height 32 --width 16 --rounds 1",
    "mgn_speed.py dump --rounds 1 --chunk 1 --height 96",
    "mgn_speed.py step --rounds 1 --images 2 --height 96",
    "mgn_speed.py start --rounds 1",
    "pack_speed.py --images 200 --height 32 --width 16 --rounds 1",
    "parts_speed.py --arch swin-u --height 128 --batch 1 --rounds 1",
    "pnl_speed.py --classes 500 --images 4 --rounds 1",
    "pnl_speed.py --step --classes 500 --images 4 --rounds 1",
    "precision_speed.py --only small-bot dump-r50 --rounds 1 --images 4",
    "read_speed.py --images 300 600 --rounds 1",
    "scale.py --images 100 200 --reads 500",
    "soak.py --images 200 --steps 2",
    "state_speed.py save --arch r18 --batch 2 --rounds 1",
    "state_speed.py memory --arch r18 --batch 2",
    "training_speed.py loader --persons 60 --height 32 --rounds 1 --steps 1",
    "training_speed.py loader --recipe small-dino --persons 60 --height 32 --rounds 1 --steps 1",
    "training_speed.py step --persons 20 --height 32 --rounds 1 --width 4 --batch 8",
    "swin_speed.py --arch swin-u --batch 1 --rounds 1",
    "swin_speed.py --dump --arch swin-u --batch 2 --rounds 1",
    "vit_speed.py timm --arch vit-t --batch 2 --rounds 1",
    "vit_speed.py plain --arch vit-t --batch 2 --rounds 1",
    "vit_speed.py jpm --arch vit-t --batch 2 --rounds 1",
    "vit_speed.py dump --arch vit-t --batch 2 --rounds 1",
    "transform_speed.py --source 64x32 --result 64x32 --batch 4 --rounds 1",
    "compile_speed.py small-vit --precision float32 --rounds 1",
    "studies/cfs_study.py run --home FOLDER --persons 30 --labelled 8 --seeds 1 --epochs 1 --tuned 1 --methods moco",
    "transform_speed.py --ten --source 64x32 --result 64x32 --batch 4 --rounds 1",
    "studies/cluster_study.py run PACK --home FOLDER --seeds 1 --first 1 --tuned 1 --recipes small-usl",
    "studies/learn_sweep.py sweep PACK --home FOLDER --seeds 1 --epochs 1 --only untrained base",
    "studies/learn_sweep.py labels PACK --home FOLDER --seeds 1 --epochs 1 --shares 1",
    "studies/noise_study.py run drawn --home FOLDER --noise 0.4 --seeds 1 --epochs 1 --methods SupCon",
    "studies/dino_study.py run PACK --home FOLDER --seeds 1 --epochs 1 --shares 1",
    "studies/solider_study.py run PACK --home FOLDER --seeds 1 --first 1 --second 1 --tuned 1",
    "studies/solider_study.py parts --home FOLDER --seeds 1 --starts scratch --images 40",
    "studies/precision_study.py run PACK --home FOLDER --seeds 1 --epochs 3 --precisions bf16 --set pixels.height=32",
    "studies/vit_study.py cameras --home FOLDER --seeds 1 --epochs 1 --only neither",
)


def test_none_is_forgotten() -> None:
    there = {path.relative_to(HERE).as_posix() for path in HERE.rglob("*.py")} - {Path(__file__).name} - PARTS
    assert {line.split()[0] for line in SMALLEST} == there


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that the lines share, with a pack, and with a video in the place of a real one."""
    folder = tmp_path_factory.mktemp("benchmarks")
    plan = SyntheticPlan(train_persons=22, test_persons=4, cameras=3, shots=2, height=32, width=16)
    pack_drawn(plan, folder / "drawn.h5", dataset="drawn")
    write_video(folder / "pets09-s2l1" / "pets09-s2l1.avi")
    boxes = [(frame, (20.0, 10.0, 50.0, 80.0)) for frame in range(1, 13)]
    write_mot(folder / "pets09-s2l1" / "gt" / "gt.txt", boxes)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("line", SMALLEST, ids=lambda line: " ".join(line.split()[:2]))
def test_a_benchmark_runs(line: str, home: Path) -> None:
    script, *words = line.replace("PACK", str(home / "drawn.h5")).replace("FOLDER", str(home / "sweep")).split()
    done = subprocess.run(
        [sys.executable, str(HERE / script), *words],
        capture_output=True,
        text=True,
        timeout=250,
        cwd=home,
        env={**os.environ, "LUPCTL_REAL_DATA": str(home)},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert any(message.isdigit() for message in done.stdout), done.stdout
