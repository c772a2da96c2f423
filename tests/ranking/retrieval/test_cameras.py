"""The row of each image's camera, by every rule; and what cannot be given one."""

from typing import Any

import numpy as np
import pytest
import torch

from lupctl.core.choices import CameraUse
from lupctl.core.errors import DataError, FormatError, UsageError
from lupctl.core.formats.features.cameras import CameraCounts, read_counts, same_result, sum_counts
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.ranking.retrieval.answerable import gallery_rows, query_rows
from lupctl.core.ranking.retrieval.cameras import (
    CameraRows,
    CameraTable,
    camera_table,
    choose_query_rows,
    choose_rows,
)
from lupctl.core.ranking.retrieval.extract import Encoder, embed_steadily, extract_features
from lupctl.core.ranking.retrieval.quick import score_pack
from lupctl.core.ranking.retrieval.score import score
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.loading.images import PackImages
from lupctl.core.training.loading.loaders import ChunkDataset
from lupctl.core.training.nets.vit.side import MEAN_ROW, NO_ROW
from lupctl.core.training.views.draws import SampleDraws
from lupctl.core.training.views.pixels import make_view
from lupctl.core.training.views.plan import ViewPlan, draw_view
from tests.tools.nets.camera_networks import camera_header, plan_camera_network, write_camera_network
from tests.tools.networks import make_header, no_head, plan_network

CPU = torch.device("cpu")
VIEW = ViewPlan(32, 16, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))
QUIET = Progress(quiet=True)
# Rows of the cameras 2, 5 and 7 of a town, as published networks have them, and with a row for unknown ones.
PLAIN = CameraTable((2, 5, 7), ("town",), 3, False)
LEARNED = CameraTable((2, 5, 7), ("town",), 3, True)
CAMERA = np.array([7, 2, 2, 9, -1, 5, 9], np.int16)


def chosen(table: CameraTable, camera: Any, use: CameraUse | None, *, dataset: str = "town") -> CameraRows:
    found = choose_rows(table, np.array(camera, np.int16), dataset=dataset, use=use, network="n.safetensors")
    assert found is not None
    assert found.rows.dtype == np.int64
    return found


@pytest.mark.parametrize("use", ["mean", None])
def test_an_unknown_camera_takes_the_learned_row_else_the_mean(use: CameraUse | None) -> None:
    assert chosen(LEARNED, CAMERA, use).rows.tolist() == [2, 0, 0, 3, 3, 1, 3]
    found = chosen(PLAIN, CAMERA, use)
    assert found.rows.tolist() == [2, 0, 0, MEAN_ROW, MEAN_ROW, 1, MEAN_ROW]
    assert found.count() == CameraCounts("mean", own_row=4, unknown_row=0, mean_row=3, no_term=0)
    counts = chosen(LEARNED, CAMERA, use).count()
    assert counts == CameraCounts("mean", own_row=4, unknown_row=3, mean_row=0, no_term=0)
    assert found.line == (
        "cameras: 3 of 7 images of town get the mean of all rows: no camera (1 image), camera 9 (2 images)"
    )
    assert (
        "3 of 7 images of town get the row that the network learned for unknown cameras: "
        in chosen(LEARNED, CAMERA, use).line
    )


@pytest.mark.parametrize("table", [PLAIN, LEARNED])
def test_no_cameras_at_all(table: CameraTable) -> None:
    found = chosen(table, CAMERA, "none")
    assert found.rows.tolist() == [NO_ROW] * 7
    assert found.line == "cameras: none, so 7 images of town get no camera's row"
    assert found.count() == CameraCounts("none", own_row=0, unknown_row=0, mean_row=0, no_term=7)


@pytest.mark.parametrize("table", [PLAIN, LEARNED])
def test_known_refuses_whatever_is_not_known(table: CameraTable) -> None:
    found = chosen(table, [7, 2, 5, 5], "known")
    assert (found.rows.tolist(), found.line) == ([2, 0, 1, 1], "")
    assert found.count() == CameraCounts("known", own_row=4, unknown_row=0, mean_row=0, no_term=0)
    with pytest.raises(DataError) as caught:
        chosen(table, CAMERA, "known")
    assert caught.value.message == (
        "--cameras known: 3 of 7 images of town are from no camera of n.safetensors: no camera (1 image), camera 9 "
        "(2 images)"
    )
    assert "--cameras mean" in caught.value.hint
    assert "--cameras none" in caught.value.hint


def test_cameras_of_another_dataset_are_strangers_with_the_same_numbers() -> None:
    found = chosen(PLAIN, [2, 5, 2], "mean", dataset="village")
    assert found.rows.tolist() == [MEAN_ROW] * 3
    assert found.line == (
        "cameras: all 3 images of village get the mean of all rows: camera 2 (2 images), camera 5 (1 image); the "
        "network was trained on town"
    )
    assert chosen(PLAIN, [2, 5, 2], "known", dataset="village").rows.tolist() == [0, 1, 0]
    somewhere = CameraTable((2, 5, 7), (), 3, False)
    found = chosen(somewhere, [2, 5, 2], "mean", dataset="village")
    assert found.rows.tolist() == [0, 1, 0], "a converted network"
    taken = "are taken by the numbers of their cameras, as the network does not say whose those are"
    assert found.line == f"cameras: the images of village {taken}"
    found = chosen(somewhere, [2, 6, 2], "mean", dataset="village")
    assert found.line == (
        f"cameras: 1 of 3 images of village gets the mean of all rows: camera 6 (1 image); the other images of village "
        f"{taken}"
    )
    assert chosen(somewhere, [2, 5, 2], "known", dataset="village").line == "", "who says so need not be told"
    assert taken not in chosen(somewhere, [-1], "mean").line


def test_a_network_of_several_datasets_tells_their_cameras_apart() -> None:
    table = CameraTable(("town/1", "town/2", "old/town/1", "village/2"), ("town", "old/town", "village"), 4, False)
    assert chosen(table, [1, 2, 1], "known", dataset="town").rows.tolist() == [0, 1, 0]
    assert chosen(table, [1, 2], "mean", dataset="old/town").rows.tolist() == [2, MEAN_ROW]
    assert chosen(table, [2], "mean", dataset="village").rows.tolist() == [3]
    assert chosen(table, [2], "mean", dataset="city").rows.tolist() == [MEAN_ROW]
    with pytest.raises(DataError, match=r"all 2 images of city are from no camera of n\.safetensors"):
        chosen(table, [1, 2], "known", dataset="city")


def test_a_network_that_does_not_name_its_cameras_knows_none() -> None:
    table = camera_table(camera_header(()), origin="n.safetensors")
    assert table == CameraTable((), ("labelled",), 3, False)
    assert chosen(table, [1, 2], "mean", dataset="labelled").rows.tolist() == [MEAN_ROW] * 2
    with pytest.raises(DataError, match="all 2 images"):
        chosen(table, [1, 2], "known", dataset="labelled")


def test_a_network_without_cameras_refuses_a_rule_for_them() -> None:
    for plan in (plan_network(no_head()), plan_camera_network(0), plan_camera_network(1)):
        assert camera_table(make_header(plan), origin="n.safetensors") is None
    assert choose_rows(None, CAMERA, dataset="town", use=None, network="n.safetensors") is None
    assert choose_query_rows(None, 3, gallery={}) is None
    for use in ("known", "mean", "none"):
        with pytest.raises(UsageError, match=f"--cameras {use}: n.safetensors takes no cameras") as caught:
            choose_rows(None, CAMERA, dataset="town", use=use, network="n.safetensors")  # type: ignore[arg-type]
        assert caught.value.hint == "leave out --cameras"


@pytest.mark.parametrize("cameras", [(1, 2), (1, 2, 3, 4), (1, 1, 2)])
def test_a_header_that_does_not_fit_its_table_is_refused(cameras: tuple[int, ...]) -> None:
    with pytest.raises(FormatError, match=r"n.safetensors: names \d different cameras for the 3 rows of its table"):
        camera_table(camera_header(cameras), origin="n.safetensors")


def test_queries_follow_the_rule_of_their_gallery() -> None:
    for made, row in (("mean", 3), ("known", 3), ("none", NO_ROW)):
        record = {"cameras": {"rule": made, "own_row": 1, "unknown_row": 0, "mean_row": 0, "no_term": 0}}
        found = choose_query_rows(LEARNED, 2, gallery=record)
        assert found is not None
        assert found.rows.tolist() == [row, row], made
    found = choose_query_rows(PLAIN, 2, gallery={})
    assert found is not None
    assert found.rows.tolist() == [MEAN_ROW] * 2
    assert found.line == "cameras: 2 queries without a camera get the mean of all rows"


def test_counts_of_a_part_without_files_that_are_no_images() -> None:
    found = chosen(LEARNED, [2, -1, -1, 7, -1], "mean", dataset="town")
    assert found.count(range(1, 5)) == CameraCounts("mean", own_row=1, unknown_row=3, mean_row=0, no_term=0)
    assert found.count(range(1, 5), left_out=2).unknown_row == 1
    assert chosen(PLAIN, [-1] * 4, "mean").count(left_out=1).mean_row == 3
    assert chosen(PLAIN, [-1] * 4, "none").count(left_out=1).no_term == 3


def test_records_of_features_are_read_with_care() -> None:
    good = {"rule": "mean", "own_row": 3, "unknown_row": 0, "mean_row": 2, "no_term": 0}
    assert read_counts({"cameras": good}) == CameraCounts("mean", 3, 0, 2, 0)
    for bad in ({}, {"cameras": 7}, {"cameras": {**good, "rule": "all"}}, {"cameras": {**good, "own_row": "3"}}):
        assert read_counts(bad) is None, bad
    assert read_counts({"cameras": {key: good[key] for key in ("rule", "own_row")}}) is None


def test_counts_of_several_files_add_up() -> None:
    known, mean = CameraCounts("known", 5, 0, 0, 0), CameraCounts("mean", 1, 2, 3, 0)
    assert sum_counts([known, known]) == CameraCounts("known", 10, 0, 0, 0)
    assert sum_counts([known, mean]) == CameraCounts("mean", 6, 2, 3, 0)
    assert same_result(known, "mean")
    assert not same_result(mean, "known")
    assert not same_result(CameraCounts("none", 0, 0, 0, 4), "mean")


@pytest.fixture
def pack(labelled: Any) -> Pack:
    return open_pack(labelled)


@pytest.mark.parametrize("unknown", [False, True])
@pytest.mark.parametrize("flip", [False, True])
def test_every_image_is_embedded_with_its_own_row(pack: Pack, tmp_path: Any, unknown: bool, flip: bool) -> None:
    """By the book, one image at a time; in chunks and groups of any size, and of any number of workers."""
    network = write_camera_network(tmp_path / "n.safetensors", camera_header((1, 2, 3), unknown=unknown))
    encoder = Encoder(network, VIEW, CPU, torch.float32)
    images = PackImages([pack], query_rows(pack.samples))
    rows = (np.arange(len(images)) * 5) % 6 - 2  # from NO_ROW to the unknown row
    if not unknown:
        rows[rows == 3] = 2
    wanted = []
    with torch.no_grad():
        for image, row in enumerate(rows.tolist()):
            pixels = torch.from_numpy(images.decode(image))[None]
            draws = draw_view(VIEW, np.array([[32, 16]]), SampleDraws(np.zeros(1, np.int64), seed=0, epoch=0, view=0))
            view = make_view(VIEW, pixels, draws.tensors())
            feature = network.embed(view, torch.tensor([row]))
            if flip:
                feature = feature + network.embed(view.flip(3), torch.tensor([row]))
            wanted.append(feature[0].numpy())
    apart = np.linalg.norm(np.array(wanted)[:, None] - np.array(wanted), axis=2)
    assert apart[rows[:, None] != rows].min() > 0.1, "another row is another feature"
    for chunk, workers in ((1, 0), (5, 0), (64, 2)):
        found = extract_features(encoder, images, chunk=chunk, workers=workers, flip=flip, progress=QUIET, cameras=rows)
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        dataset = ChunkDataset(images, VIEW, chunk=chunk, cameras=rows)
        parts = [part for _, part in embed_steadily(encoder, dataset, range(len(dataset)), workers=workers, flip=flip)]
        np.testing.assert_allclose(np.concatenate(parts), wanted, rtol=1e-4, atol=1e-5)


def test_a_quick_evaluation_uses_the_default_rule(pack: Pack, tmp_path: Any) -> None:
    network = write_camera_network(tmp_path / "n.safetensors", camera_header((1, 2), rows=2))
    table = CameraTable((1, 2), ("labelled",), 2, False)
    found = score_pack(Encoder(network, VIEW, CPU, torch.float32, table), pack, workers=0)
    rows = np.concatenate([query_rows(pack.samples), gallery_rows(pack.samples)])
    placed = chosen(table, pack.samples.camera[rows], "mean", dataset="labelled")
    assert placed.count().own_row > 0
    assert placed.count().mean_row > 0
    for given, same in ((placed.rows, True), (np.full(len(rows), NO_ROW), False)):
        features = extract_features(
            Encoder(network, VIEW, CPU, torch.float32), PackImages([pack], rows), chunk=128, workers=0, flip=False,
            progress=QUIET, cameras=given,
        )  # fmt: skip
        assert np.array_equal(found.features, features) == same
        scored = score(features, pack.samples.select(rows), device=CPU)
        assert (scored.scores == found.scores) == same
