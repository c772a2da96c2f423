"""Networks of other programs in ONNX: what is found out from the file, their features, and what cannot be run."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

import lupctl
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.weights.runtimes.open import open_session
from lupctl.core.ranking.retrieval.onnx.open import parse_foreign
from tests.tools.nets.onnx_files import DIM, HEIGHT, PATCH, WEIGHTS, WIDTH, write_foreign
from tests.tools.tiny.images import draw_tiny

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def compute_slowly(images: list[NDArray[np.uint8]], kind: str) -> NDArray[np.float64]:
    """The same by loops over patches, with unit length."""
    found = np.zeros((len(images), DIM))
    for row, image in enumerate(images):
        pixels = image.astype(np.float64)
        if kind != "uint8":
            pixels = (pixels / 255 - MEAN) / STD
        patches = [
            max(0.0, float((WEIGHTS[unit] * pixels[top : top + PATCH, left : left + PATCH].transpose(2, 0, 1)).sum()))
            for unit in range(DIM)
            for top in range(0, HEIGHT, PATCH)
            for left in range(0, WIDTH, PATCH)
        ]
        found[row] = np.array(patches).reshape(DIM, -1).mean(axis=1)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("kind", ["float32", "float16", "uint8"])
@pytest.mark.parametrize("batch", ["batch", 1, 4])
def test_layout_type_and_batch_are_found_out(layout: str, kind: str, batch: int | str, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "net.onnx", layout=layout, kind=kind, batch=batch)
    constants: dict[str, Any] = {} if kind == "uint8" else {"mean": MEAN, "std": "0.2,0.3,0.25"}
    net = lupctl.load(path, **constants)
    images = [draw_tiny(seed, HEIGHT, WIDTH) for seed in range(6)]
    found = net.embed(images)
    assert (found.dtype.name, net.size, net.dimension) == ("float32", (HEIGHT, WIDTH), DIM)
    assert np.abs(found - compute_slowly(images, kind)).max() < (2e-3 if kind == "float16" else 1e-5)
    assert np.abs(net.embed(images[2:3]) - found[2:3]).max() < 1e-6
    axes = f"3 x {HEIGHT} x {WIDTH}" if layout == "NCHW" else f"{HEIGHT} x {WIDTH} x 3"
    assert f"(images: {kind}, {batch if isinstance(batch, int) else 'N'} x {axes})" in repr(net)


def test_a_size_that_the_file_leaves_open_has_to_be_named(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "net.onnx", sides=("h", "w"))
    with pytest.raises(UsageError, match="takes images of any size, and of which it was trained on is not in the file"):
        lupctl.load(path, mean="imagenet", std="imagenet")
    for size in ("32x16", (32, 16)):
        assert lupctl.load(path, pixels=size, mean=MEAN, std=STD).size == (32, 16)
    first, second = (lupctl.load(path, pixels="32x16", mean=mean, std=STD) for mean in (MEAN, (0.0, 0.0, 0.0)))
    image = draw_tiny(0)
    assert np.abs(first.embed(image) - second.embed(image)).max() > 1e-3
    # The same file with other constants is another network.
    assert first._opened.fingerprint != second._opened.fingerprint


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"pixels": "64x32"}, "takes images of 32 x 16, not of 64 x 32"),
        ({}, "takes pixels of float32, and the mean and deviation of its training are not in the file"),
        ({"mean": "imagenet"}, "the mean and deviation of its"),
        (
            {"mean": "imagenet", "std": "imagenet", "device": "cuda"},
            "ONNX network, which is computed on the CPU, not on cuda",
        ),
        ({"mean": "imagnet", "std": "imagenet"}, "mean imagnet: imagenet, or three numbers were expected"),
        ({"mean": "0.5,0.5", "std": "imagenet"}, "mean 0.5,0.5: imagenet, or three numbers"),
        ({"mean": "imagenet", "std": (1, 0, 1)}, r"std \(1, 0, 1\): finite numbers, above 0, were expected"),
        ({"mean": "nan,0,0", "std": "imagenet"}, "mean nan,0,0: finite numbers were expected"),
        ({"pixels": "256*128"}, r"pixels 256\*128: height and width from 1 to 2,048 pixels were expected"),
        ({"interpolation": "nearest"}, "interpolation nearest: bilinear or bicubic was expected"),
        ({"pixels": (0, 128)}, "pixels 0x128: height and width"),
    ],
)
def test_what_does_not_fit_the_file_is_said(more: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "net.onnx")
    with pytest.raises(UsageError, match=message):
        lupctl.load(path, **more)


def test_constants_inside_of_the_file_are_left_alone(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "net.onnx", kind="uint8")
    with pytest.raises(UsageError, match="takes pixels of uint8, so a mean and a deviation are inside"):
        lupctl.load(path, mean="imagenet", std="imagenet")


def test_words_of_a_command_line_and_values_of_a_program_mean_the_same() -> None:
    values = parse_foreign((256, 128), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), "bicubic")
    assert parse_foreign("256x128", "imagenet", "imagenet", "bicubic") == values
    assert parse_foreign("256x128", "0.485,0.456, 0.406", "0.229,0.224,0.225", "bicubic") == values


def value(name: str, kind: int = TensorProto.FLOAT, shape: tuple[Any, ...] = ("batch", 3, 32, 16)) -> Any:
    return helper.make_tensor_value_info(name, kind, list(shape))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (
            {"inputs": [value("others")], "nodes": [helper.make_node("Identity", ["others"], ["same"])]},
            r"its inputs are images float32 \(batch, 3, 32, 16\), others float32 \(batch, 3, 32, 16\); one input for",
        ),
        (
            {"inputs": [value("cameras", TensorProto.INT64, ("batch",))],
             "nodes": [helper.make_node("Identity", ["cameras"], ["same"])]},
            r"images float32 .*, cameras int64 \(batch\); one input",
        ),
        (
            {"nodes": [helper.make_node("Identity", ["features"], ["logits"])],
             "outputs": [value("logits", shape=("batch", DIM))]},
            "its outputs are features, logits; one was expected",
        ),
        (
            {"nodes": [helper.make_node("Sharpen", ["features"], ["sharp"], domain="com.studio")],
             "opsets": [helper.make_opsetid("com.studio", 1)]},
            r"onnxruntime lacks its operator com\.studio:Sharpen",
        ),
    ],
    ids=["two images", "another input", "two outputs", "unknown operator"],
)  # fmt: skip
def test_networks_that_are_not_for_images_alone(graph: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "net.onnx", **graph)
    with pytest.raises(FormatError, match=message):
        lupctl.load(path, mean=MEAN, std=STD)


def test_a_network_without_an_image(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["sound"], ["features"])],
        "net",
        [value("sound", shape=("batch", 40))],
        [value("features", shape=("batch", 40))],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx"
    )
    with pytest.raises(FormatError, match=r"its inputs are sound float32 \(batch, 40\); one input for RGB images"):
        lupctl.load(tmp_path / "net.onnx", mean=MEAN, std=STD)


def test_one_row_for_all_images_is_no_feature(tmp_path: Path) -> None:
    path = write_foreign(
        tmp_path / "net.onnx", nodes=[helper.make_node("ReduceMean", ["features"], ["mean"], axes=[0])],
        outputs=[value("mean", shape=(1, DIM))],
    )  # fmt: skip
    model = onnx.load(str(path))
    del model.graph.output[0]
    onnx.save(model, str(path))
    with pytest.raises(FormatError, match=r"does not run on two images of 32 x 16 \(1 rows for 2 images\)"):
        lupctl.load(path, mean=MEAN, std=STD)


def test_weights_beside_the_file_are_read_and_others_are_refused(tmp_path: Path) -> None:
    plain = write_foreign(tmp_path / "plain.onnx")
    inside = tmp_path / "inside"
    inside.mkdir()
    model = onnx.load(str(plain))
    path = inside / "net.onnx"
    onnx.save_model(model, str(path), save_as_external_data=True, location="net.bin", size_threshold=0)
    image = draw_tiny(0, HEIGHT, WIDTH)
    wanted = lupctl.load(plain, mean=MEAN, std=STD).embed(image)
    np.testing.assert_array_equal(lupctl.load(path, mean=MEAN, std=STD).embed(image), wanted)
    (inside / "net.bin").rename(tmp_path / "net.bin")
    with pytest.raises(DataError, match=r"keeps weights in net\.bin, and there is no such file"):
        open_session(path)
    (inside / "net.bin").symlink_to(tmp_path / "net.bin")
    with pytest.raises(DataError, match=r"keeps weights in net\.bin, outside of its folder"):
        open_session(path)
    for place in ("../net.bin", str(tmp_path / "net.bin")):
        moved = onnx.load(str(path), load_external_data=False)
        for tensor in moved.graph.initializer:
            for entry in tensor.external_data:
                entry.value = place if entry.key == "location" else entry.value
        path.write_bytes(moved.SerializeToString())
        with pytest.raises(DataError, match="outside of its folder"):
            open_session(path)


def test_files_that_are_no_networks(tmp_path: Path) -> None:
    path = write_foreign(tmp_path / "net.onnx")
    with pytest.raises(DataError, match=r"gone\.onnx: there is no such file; an ONNX network was expected"):
        lupctl.load(tmp_path / "gone.onnx")
    whole = path.read_bytes()
    for content in (b"", b"no network", whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(FormatError, match="not a complete ONNX file"):
            lupctl.load(path)
    os.mkfifo(tmp_path / "pipe.onnx")
    with pytest.raises(DataError, match="a FIFO, not a regular file"):
        lupctl.load(tmp_path / "pipe.onnx")


@pytest.mark.real
@pytest.mark.slow
def test_a_published_network_on_real_images(real_data: Path) -> None:
    """OSNet x0.25 of torchreid's zoo, exported by somebody else; its scores are in the README beside it."""
    net = lupctl.load(
        real_data / "models/osnet_x0_25_msmt17.onnx", pixels="256x128", mean="imagenet", std="imagenet",
        interpolation="bilinear",
    )  # fmt: skip
    roles = {"query": 2, "bounding_box_test": 3}
    paths = [path for role in roles for path in sorted((real_data / "market1501-mini" / role).glob("*.jpg"))]
    found = net.embed(paths)
    assert found.shape == (132 + 515, 512)
    person, camera = (
        np.array([int(path.name.split("_")[part].lstrip("c").partition("s")[0]) for path in paths]) for part in (0, 1)
    )
    role = np.array([roles[path.parent.name] for path in paths])
    cosine = found[role == 2] @ found[role == 3].T
    precisions, ranks = [], []
    for row, (own, seen) in enumerate(zip(person[role == 2], camera[role == 2], strict=True)):
        kept = ~((person[role == 3] == own) & (camera[role == 3] == seen))
        right = (person[role == 3] == own)[kept][np.argsort(-cosine[row][kept], kind="stable")]
        hits = np.flatnonzero(right)
        precisions.append(np.mean([(number + 1) / (at + 1) for number, at in enumerate(hits)]))
        ranks.append(hits[0] + 1)
    scores = [np.mean(precisions), *(np.mean(np.array(ranks) <= rank) for rank in (1, 5, 10))]
    assert scores[1:] == pytest.approx([0.8182, 0.9242, 0.9697], abs=5e-5)
    assert scores[0] == pytest.approx(0.6278, abs=2e-4), "theirs is resized by OpenCV"
