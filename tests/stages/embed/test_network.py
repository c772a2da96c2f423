"""A loaded network: the features of a dump, from whatever images, and what it says about persons."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import lupctl
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.features.file import Features, read_features, write_features
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.weights.file import write_checkpoint
from lupctl.core.formats.weights.header import describe_pixels
from lupctl.core.formats.weights.settings import SETTINGS_KEY
from lupctl.core.ranking.retrieval.extract import GROUP
from lupctl.core.recipes.sections import Pixels
from lupctl.core.stages.dump.job import DumpJob
from lupctl.core.stages.dump.run import dump
from lupctl.core.stages.embed.passes import ROUNDS
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import build_network
from tests.tools.nets.camera_networks import camera_header, write_camera_network
from tests.tools.networks import make_header, neck, plan_network
from tests.tools.tiny.images import draw_tiny, encode_tiny

QUIET = Progress(quiet=True)
# Two libraries of different builds, and passes of other sizes, differ by about 1e-7.
CLOSE = 1e-6


def write_network(path: Path, *, seed: int = 0) -> Path:
    """A small network of random weights for images of 32 x 16."""
    torch.manual_seed(seed)
    plan = plan_network(neck(5), last_stride=1)
    header = make_header(plan, preprocessing=describe_pixels(Pixels(height=32, width=16, interpolation="bicubic")))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_checkpoint(path, build_network(plan).state_dict(), header)
    return path


def dump_units(path: Path, data: Path, out: Path, **more: Any) -> tuple[Features, NDArray[np.float32]]:
    """The features of a dump, and the same divided by their length."""
    dump(DumpJob(path, data, out, workers=0, **more), torch.device("cpu"), QUIET)
    features = read_features(out)
    vectors = np.array(features.features)
    return features, vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_network(tmp_path_factory.mktemp("net") / "net.safetensors")


@pytest.fixture(scope="module")
def net(checkpoint: Path) -> lupctl.LoadedNetwork:
    return lupctl.load(checkpoint, device="cpu")


@pytest.fixture(scope="module")
def dumped(
    checkpoint: Path, labelled: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Features, NDArray[np.float32], list[bytes]]:
    """Features of a pack and their file, the same with unit length, and the encoded images in their order."""
    out = tmp_path_factory.mktemp("dumped") / "labelled.features.h5"
    features, units = dump_units(checkpoint, labelled, out)
    pack = open_pack(labelled)
    row_of = {name: row for row, name in enumerate(pack.samples.name)}
    return out, features, units, [pack.read(row_of[name]) for name in features.samples.name]


Dumped = tuple[Path, Features, NDArray[np.float32], list[bytes]]
KINDS: dict[str, Callable[[list[bytes]], Any]] = {
    "bytes": lambda encoded: encoded,
    "generator": lambda encoded: (one for one in encoded),
    "arrays": lambda encoded: [decode_rgb(one) for one in encoded],
    "batch": lambda encoded: np.stack([decode_rgb(one) for one in encoded]),
    "tensors": lambda encoded: torch.from_numpy(np.stack([decode_rgb(one) for one in encoded])).permute(0, 3, 1, 2),
    "mixture": lambda encoded: (
        [encoded[0], np.stack([decode_rgb(one) for one in encoded[1:5]])]
        + [Image.fromarray(decode_rgb(one)) for one in encoded[5:]]
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("threads", [1, 3])
def test_features_are_those_of_a_dump(kind: str, threads: int, net: lupctl.LoadedNetwork, dumped: Dumped) -> None:
    _, _, units, encoded = dumped
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        found = net.embed(KINDS[kind](encoded))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (found.dtype.name, found.shape) == ("float32", (len(encoded), net.dimension))
    assert np.abs(found - units).max() < CLOSE
    assert np.abs(units[0] - units[1:]).max(axis=1).min() > 1e-3, "of other images other features"


def test_one_image_none_and_more_than_one_round(net: lupctl.LoadedNetwork, dumped: Dumped, tmp_path: Path) -> None:
    _, _, units, encoded = dumped
    (tmp_path / "a.jpg").write_bytes(encoded[3])
    for one in (tmp_path / "a.jpg", str(tmp_path / "a.jpg"), decode_rgb(encoded[3]), [encoded[3]]):
        assert np.abs(net.embed(one) - units[3:4]).max() < CLOSE
    nothing: tuple[Any, ...] = ([], iter(()), np.zeros((0, 8, 8, 3), np.uint8))
    for given in nothing:
        found = net.embed(given)
        assert (found.dtype.name, found.shape) == ("float32", (0, net.dimension))
    many = GROUP * ROUNDS + 3
    found = net.embed(encoded[at % len(encoded)] for at in range(many))
    assert np.abs(found - units[np.arange(many) % len(encoded)]).max() < CLOSE


def test_images_of_other_sizes_side_by_side(net: lupctl.LoadedNetwork, checkpoint: Path, tmp_path: Path) -> None:
    """Of a folder of any sizes, as `dump` reads it; and mirrored."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed, (height, width) in enumerate([(32, 16), (80, 24), (16, 40), (200, 120), (8, 8)]):
        (folder / f"{seed}.png").write_bytes(encode_tiny(seed, ".png", height, width))
    paths = sorted(folder.iterdir())
    for flip in (False, True):
        _, units = dump_units(checkpoint, folder, tmp_path / f"{flip}.features.h5", flip=flip)
        assert np.abs(net.embed(paths, flip=flip) - units).max() < CLOSE


def test_boxes_of_frames_are_their_crops(net: lupctl.LoadedNetwork) -> None:
    frames = [draw_tiny(seed, 64, 96) for seed in range(2)]
    boxes = [np.array([[3, 4, 20, 40], [-5, 8, 12.6, 70]]), np.array([[50.5, 1.5, 90, 64]])]
    crops = [frames[0][4:40, 3:20], frames[0][8:64, 0:13], frames[1][2:64, 50:90]]
    wanted = net.embed(crops)
    assert np.abs(net.embed(frames[0], boxes=boxes[0]) - wanted[:2]).max() < CLOSE
    assert np.abs(net.embed(frames, boxes=boxes) - wanted).max() < CLOSE
    assert np.abs(net.embed(np.stack(frames), iter(boxes)) - wanted).max() < CLOSE
    assert net.embed(frames[0], boxes=[]).shape == (0, net.dimension)
    with pytest.raises(UsageError, match=r"box 0 \(100, 1, 120, 40\): no pixel of it is inside the frame of 96 x 64"):
        net.embed(frames[0], boxes=[[100, 1, 120, 40]])
    with pytest.raises(UsageError, match="boxes: 1 for more images; one for each was expected"):
        net.embed(frames, boxes=boxes[:1])
    with pytest.raises(UsageError, match="boxes: more than images"):
        net.embed(frames, boxes=[*boxes, boxes[0]])
    with pytest.raises(UsageError, match="boxes=int: of several frames"):
        net.embed(frames, boxes=3)


def test_cameras_as_in_a_dump(labelled: Path, tmp_path: Path) -> None:
    write_camera_network(tmp_path / "vit.safetensors", camera_header((1, 2, 3)))
    net = lupctl.load(tmp_path / "vit.safetensors", device="cpu")
    assert net.cameras == (1, 2, 3)
    features, units = dump_units(tmp_path / "vit.safetensors", labelled, tmp_path / "known.features.h5")
    pack = open_pack(labelled)
    row_of = {name: row for row, name in enumerate(pack.samples.name)}
    encoded = [pack.read(row_of[name]) for name in features.samples.name]
    cameras = features.samples.camera.tolist()
    assert np.abs(net.embed(encoded, cameras=cameras) - units).max() < CLOSE
    unknown = net.embed(encoded)
    assert np.abs(unknown - units).max() > 1e-3
    np.testing.assert_array_equal(net.embed(encoded, cameras=[None, -1] * (len(encoded) // 2)), unknown)
    np.testing.assert_array_equal(net.embed(encoded[:3], cameras="2"), net.embed(encoded[:3], cameras=[2, 2, 2]))
    np.testing.assert_array_equal(net.embed(encoded[:3], cameras=2), net.embed(encoded[:3], cameras=np.int64(2)))
    features, without = dump_units(
        tmp_path / "vit.safetensors", labelled, tmp_path / "none.features.h5", cameras="none"
    )
    assert np.abs(net.embed(encoded, cameras="none") - without).max() < CLOSE
    found = net.nearest(encoded[:2], tmp_path / "none.features.h5", top=1)
    assert found.similarity == pytest.approx(1, abs=1e-5), "queries are made as their gallery was"
    with pytest.raises(UsageError, match="has no camera 9 among 3 rows; it has 1, 2, 3"):
        net.embed(encoded, cameras=9)
    with pytest.raises(UsageError, match="cameras: 2 for more images"):
        net.embed(encoded, cameras=[1, 2])


def test_a_network_without_cameras_refuses_them(net: lupctl.LoadedNetwork) -> None:
    assert net.cameras == ()
    with pytest.raises(UsageError, match=r"cameras=3: .*net\.safetensors takes no cameras"):
        net.embed([], cameras=3)


def test_the_nearest_are_those_of_a_full_sort(net: lupctl.LoadedNetwork, dumped: Dumped) -> None:
    path, features, units, encoded = dumped
    wanted = np.argsort(1 - units[:5] @ units.T, axis=1, kind="stable")[:, :7]
    for queries in (units[:5], features.features[:5], torch.from_numpy(units[:5]), encoded[:5]):
        for gallery in (path, str(path), units, np.array(features.features)):
            found = net.nearest(queries, gallery, top=7)
            np.testing.assert_array_equal(found.row, wanted)
            assert found.similarity == pytest.approx(np.take_along_axis(units[:5] @ units.T, wanted, 1), abs=1e-5)
    found = net.nearest(units[2], path, top=3)
    assert found.name.tolist() == [[features.samples.name[row] for row in wanted[2, :3]]]
    np.testing.assert_array_equal(found.person, features.samples.person[wanted[2:3, :3]])
    np.testing.assert_array_equal(found.camera, features.samples.camera[wanted[2:3, :3]])
    assert net.nearest(units[0], units).row.shape == (1, 20)
    assert net.nearest(units, units[:4]).row.shape == (len(units), 4), "a gallery of four"
    assert net.nearest([], units, top=3).row.shape == (0, 3)
    assert net.nearest([], units[:2], top=3).row.shape == (0, 2)
    assert net.nearest(units[0], units).name is None


def test_galleries_that_cannot_be_searched(net: lupctl.LoadedNetwork, dumped: Dumped, tmp_path: Path) -> None:
    path, features, units, _ = dumped
    other = lupctl.load(write_network(tmp_path / "other.safetensors", seed=1), device="cpu")
    with pytest.raises(DataError, match="distances between features of two networks mean nothing"):
        other.nearest(units[0], path)
    changed = tmp_path / "changed.features.h5"
    write_features(changed, Features(units, features.samples, {**features.record, SETTINGS_KEY: {"size": "64x32"}}))
    with pytest.raises(DataError, match="made with size=64x32 set of the network"):
        net.nearest(units[0], changed)
    write_features(changed, Features(units, features.samples, {**features.record, "parents": {}}))
    with pytest.warns(UserWarning, match="names no network"):
        assert net.nearest(units[0], changed, top=1).row == [[0]]
    with pytest.raises(UsageError, match=rf"gallery: float32 of shape \(60, 3\); features \(N, {net.dimension}\)"):
        net.nearest(units[0], np.zeros((60, 3), np.float32))
    with pytest.raises(UsageError, match="gallery: has no rows"):
        net.nearest(units[0], units[:0])
    with pytest.raises(DataError, match="gallery: row 1 is a feature without a direction"):
        net.nearest(units[0], np.stack([units[0], units[0] * np.nan]))
    with pytest.raises(DataError, match="queries: row 0 is a feature without a direction"):
        net.nearest(np.zeros_like(units[0]), units)
    with pytest.raises(UsageError, match="top=0: at least 1 was expected"):
        net.nearest(units[0], units, top=0)
    with pytest.raises(DataError, match="gone"):
        net.nearest(units[0], tmp_path / "gone.features.h5")


def test_what_is_known_of_it(net: lupctl.LoadedNetwork, checkpoint: Path) -> None:
    assert (net.path, net.size, net.dimension, net.trained_on) == (checkpoint, (32, 16), 32, ())
    assert net.device == torch.device("cpu")
    text = f"<r18 width 4, avg pooling, head bnneck (finetune) of {checkpoint}: 32 x 16 to 32 numbers; on cpu>"
    assert repr(net) == text


def test_a_network_that_gives_no_direction(tmp_path: Path) -> None:
    path = write_network(tmp_path / "net.safetensors")
    plan = plan_network(neck(5), last_stride=1)
    broken = {key: torch.zeros_like(value) for key, value in build_network(plan).state_dict().items()}
    write_checkpoint(path, broken, make_header(plan, preprocessing=describe_pixels(Pixels(height=32, width=16))))
    with pytest.raises(DataError, match=r"image 0: .* gives a feature without a direction"):
        lupctl.load(path, device="cpu").embed(draw_tiny(0))
