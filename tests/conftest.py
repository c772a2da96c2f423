"""Images and folders that several tests share; all small, all the same in every run."""

import os
from pathlib import Path

import pytest

# Tiny tensors gain nothing from threads, lose much where other work keeps the cores busy, and a forked process would
# wait for ever for the threads of its parent.
os.environ["OMP_NUM_THREADS"] = "1"
# No instructions for bfloat16: training with `auto` is in float32 on every processor, and its bits are the same.
os.environ["ONEDNN_MAX_CPU_ISA"] = "AVX512_CORE"

from lupctl.core.data.sources.synthetic import SyntheticPlan
from tests.tools.drawn_packs import pack_drawn
from tests.tools.shell import Shell
from tests.tools.tiny.images import TinyImages, encode_tiny

# They run networks in other libraries; after these PyTorch refuses to train in forked children, as other tests do.
LAST = ("stages/bench/", "stages/export/", "stages/exercise/", "ranking/retrieval/onnx/", "stages/test_dump_onnx.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that leave threads of other libraries in this process come last, in their order."""
    here = Path(__file__).parent.as_posix()
    items.sort(key=lambda item: item.path.as_posix().startswith(tuple(f"{here}/{place}" for place in LAST)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what only a GPU can run, and says so."""
    if item.get_closest_marker("gpu") is None:
        return
    import torch

    if not torch.cuda.is_available():
        pytest.skip("no CUDA device is visible")


@pytest.fixture
def tiny_images() -> TinyImages:
    """Draws `count` different JPEGs of 32 x 16 pixels: `tiny_images(5)`, `tiny_images(5, seed=100)`."""

    def draw(count: int, *, seed: int = 0) -> list[bytes]:
        return [encode_tiny(seed + index) for index in range(count)]

    return draw


@pytest.fixture
def market_folder(tmp_path: Path) -> Path:
    """Market-1501's layout, two cameras: persons 2 and 7 to train on, 3 and 5 to test, a distractor and junk."""
    root = tmp_path / "tiny-market"
    names = [
        *(f"bounding_box_train/{person:04d}_c{camera}s1_{frame:06d}_01.jpg"
          for person in (2, 7) for camera in (1, 2) for frame in (51, 76)),
        *(f"query/{person:04d}_c1s1_000101_00.jpg" for person in (3, 5)),
        *(f"bounding_box_test/{person:04d}_c{camera}s1_{frame:06d}_01.jpg"
          for person in (3, 5) for camera in (1, 2) for frame in (151,)),
        "bounding_box_test/0000_c2s1_000201_03.jpg",
        "bounding_box_test/-1_c1s1_000226_02.jpg",
    ]  # fmt: skip
    for seed, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encode_tiny(seed))
    return root


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real images, or a skip that says so."""
    named = os.environ.get("LUPCTL_REAL_DATA")
    if not named:
        pytest.skip("LUPCTL_REAL_DATA names no folder of real images")
    return Path(named)


@pytest.fixture
def lupctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    """Types commands in an empty folder, which is `tmp_path`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LUPCTL_HOME", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    return Shell(monkeypatch, capsys)


@pytest.fixture(scope="session")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of 36 drawn images of 13 persons without labels, 32 x 16. Shared: copy it before changing it."""
    plan = SyntheticPlan(unlabelled_persons=13, scenes=3, height=32, width=16)
    return pack_drawn(plan, tmp_path_factory.mktemp("crowd") / "crowd.h5", dataset="crowd")


@pytest.fixture(scope="session")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pack of drawn persons, 6 to train on (36 images) and 6 to test, 32 x 16. Shared: copy it before changing it."""
    plan = SyntheticPlan(train_persons=6, test_persons=6, cameras=3, shots=2, height=32, width=16)
    return pack_drawn(plan, tmp_path_factory.mktemp("labelled") / "labelled.h5", dataset="labelled")
