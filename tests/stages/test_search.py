"""`lupctl search`: the nearest images by the book, the kept index, the sheet, and what cannot be searched."""

import shutil
from pathlib import Path
from typing import Any

import cv2
import faiss
import numpy as np
import pytest
import torch

from lupctl.core.errors import DeviceError
from lupctl.core.formats.features.file import Features, read_features, write_features
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.ranking.metrics.vectors import UnitRows
from lupctl.core.ranking.reports.page.sheet import CELL_HEIGHT, CELL_WIDTH, draw_sheet
from lupctl.core.ranking.retrieval.ivf import build_index, search_index
from lupctl.core.stages.dump.job import DumpJob
from lupctl.core.stages.dump.run import dump
from lupctl.core.stages.finetune.run import finetune
from lupctl.core.system.progress.lines import Progress
from tests.tools.shell import Shell
from tests.tools.tiny.training import finetune_job

CPU = torch.device("cpu")
QUIET = Progress(quiet=True)


@pytest.fixture(scope="module")
def space(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a run, features of its pack, and three of the pack's images as files. Shared: copy to change."""
    space = tmp_path_factory.mktemp("space")
    run = space / "runs" / "fine"
    finetune(finetune_job(labelled, run), QUIET)
    job = DumpJob(checkpoint=run / "checkpoint.safetensors", data=labelled, out=run / "toy.features.h5", workers=0)
    dump(job, CPU, QUIET)
    (space / "packs").mkdir()
    shutil.copy(labelled, space / "packs" / "labelled.h5")
    made = open_pack(labelled)
    names = read_features(job.out).samples.name
    for at, number in enumerate((0, 7, 20)):
        row = list(made.samples.name).index(names[number])
        (space / f"{at}.jpg").write_bytes(made.read(row))
    return space


def test_the_nearest_are_those_of_a_full_sort(lupctl: Shell, space: Path) -> None:
    gallery = space / "runs/fine/toy.features.h5"
    ran = lupctl(
        f"search {gallery} {space}/0.jpg {space}/1.jpg {space}/2.jpg --top 9 --home {space} --device cpu --json"
    )
    assert ran.code == 0, ran.err
    assert f"checkpoint: {space}/runs/fine/checkpoint.safetensors (it made the gallery)" in ran.err
    assert ran.json["schema"] == "lupctl.search/1"
    features = read_features(gallery)
    unit = features.features / np.linalg.norm(features.features, axis=1, keepdims=True)
    assert [one["query"] for one in ran.json["queries"]] == [f"{space}/{at}.jpg" for at in range(3)]
    for one, number in zip(ran.json["queries"], (0, 7, 20), strict=True):
        apart = 1 - unit @ unit[number]
        order = np.argsort(apart, kind="stable")[1:10]
        assert one["left_out"] == [features.samples.name[number]], "the query itself is in the gallery"
        assert [hit["distance"] for hit in one["hits"]] == pytest.approx(apart[order].tolist(), abs=1e-5)
        assert [hit["rank"] for hit in one["hits"]] == list(range(1, 10))
        for hit in one["hits"]:
            row = list(features.samples.name).index(hit["name"])
            assert hit["distance"] == pytest.approx(apart[row], abs=1e-5)
            assert (hit["person"], hit["camera"]) == (features.samples.person[row], features.samples.camera[row])
            assert hit["distance"] >= 0
    assert "3 of 3 queries are in the gallery too, and left out of the results: " in ran.err
    table = lupctl(f"search {gallery} {space}/0.jpg --home {space} --device cpu --quiet")
    assert table.err == ""
    assert table.out.count("\n") > 20, "twenty results unless told otherwise"
    assert ran.json["queries"][0]["hits"][1]["name"] in table.out


def test_the_index_is_built_once_and_again_for_other_features(lupctl: Shell, space: Path, tmp_path: Path) -> None:
    gallery = tmp_path / "toy.features.h5"
    shutil.copy(space / "runs/fine/toy.features.h5", gallery)
    line = f"search {gallery} {space}/0.jpg --top 3 --home {space} --device cpu --json"
    plan = lupctl(f"{line} --index ivf --dry-run").json
    assert plan["index_file"] == f"{gallery}.ivf.faiss (to be built)"
    assert [path.name for path in tmp_path.iterdir()] == [gallery.name]
    first = lupctl(f"{line} --index ivf")
    assert "built now and kept" in first.err
    again = lupctl(f"{line} --index ivf")
    assert "built now" not in again.err
    exact = lupctl(line).json["queries"]
    assert first.json["queries"] == again.json["queries"]
    for found, wanted in zip(first.json["queries"][0]["hits"], exact[0]["hits"], strict=True):
        assert found["name"] == wanted["name"], "one list holds so small a gallery, so nothing is missed"
        assert found["distance"] == pytest.approx(wanted["distance"], abs=1e-5)
    features = read_features(gallery)
    write_features(gallery, Features(features.features[::-1].copy(), features.samples, features.record))
    turned = lupctl(f"{line} --index ivf")
    assert "built now and kept" in turned.err
    assert turned.json["queries"][0]["hits"] != first.json["queries"][0]["hits"]
    Path(f"{gallery}.ivf.faiss").write_bytes(b"no index")
    ran = lupctl(f"{line} --index ivf")
    assert (ran.code, ran.out) == (3, "")
    assert "toy.features.h5.ivf.faiss: cannot be read" in ran.err


def test_a_larger_index_finds_nearly_all() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((60, 24))
    vectors = (centres[rng.integers(0, 60, 3000)] + 0.3 * rng.standard_normal((3000, 24))).astype(np.float32)
    rows = UnitRows(vectors, np.arange(3000), device=CPU)
    index = build_index(rows, progress=QUIET)
    assert index.ntotal == 3000
    assert 70 <= index.nlist <= 76, "so that each list has 39 images to learn from"
    index.nprobe = 8
    queries = rows.unit(0, 200).numpy()
    _, found = index.search(queries, 10)
    wanted = (-(queries @ rows.unit(0, 3000).numpy().T)).argsort(axis=1)[:, :10]
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, wanted, strict=True)])
    assert recall > 0.95
    np.testing.assert_array_equal(faiss.deserialize_index(faiss.serialize_index(index)).ntotal, 3000)


def test_a_gpu_searches_where_faiss_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a GPU: what is handed to faiss, and what becomes of its complaint."""
    rng = np.random.default_rng(1)
    rows = UnitRows(rng.standard_normal((400, 8)).astype(np.float32), np.arange(400), device=CPU)
    index, queries, seen = build_index(rows, progress=QUIET), rows.unit(0, 5).numpy(), []

    def move(resources: object, number: int, given: Any) -> Any:
        seen.append((resources, number))
        return given

    monkeypatch.setattr(faiss, "StandardGpuResources", lambda: "resources", raising=False)
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", move, raising=False)
    plain = search_index(index, queries, 3, device=torch.device("cuda", 1))
    assert seen == [], "faiss sees no GPU"
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 2)
    search_index(index, queries, 3, device=CPU)
    assert seen == [], "the CPU was asked for"
    moved = search_index(index, queries, 3, device=torch.device("cuda", 1))
    assert seen == [("resources", 1)]
    np.testing.assert_array_equal(moved[1], plain[1])
    index.nprobe = 4000
    search_index(index, queries, 3, device=torch.device("cuda", 1))
    assert len(seen) == 1, "more lists than faiss's kernels take"

    def refuse(*_: object) -> None:
        raise RuntimeError("Error in virtual void* allocMemory: Failed to cudaMalloc 12 bytes\nat somewhere")

    index.nprobe = 8
    monkeypatch.setattr(faiss, "index_cpu_to_gpu", refuse, raising=False)
    with pytest.raises(DeviceError, match=r"cuda:1: not enough memory for the index of 400 images \(Error in virtual"):
        search_index(index, queries, 3, device=torch.device("cuda", 1))


def test_the_sheet_shows_queries_and_results(lupctl: Shell, space: Path, tmp_path: Path) -> None:
    gallery = space / "runs/fine/toy.features.h5"
    line = f"search {gallery} {space}/0.jpg {space}/1.jpg --top 4 --home {space} --device cpu --sheet out.png"
    ran = lupctl(f"{line} --images labelled")
    assert ran.code == 0, ran.err
    assert "sheet: out.png" in ran.out
    read = cv2.imread(str(tmp_path / "out.png"))
    assert read is not None
    sheet = cv2.cvtColor(read, cv2.COLOR_BGR2RGB)
    query, first = sheet[6 : 6 + CELL_HEIGHT, 6 : 6 + CELL_WIDTH], sheet[6 : 6 + CELL_HEIGHT, 88 : 88 + CELL_WIDTH]
    assert query.std() > 20
    assert first.std() > 20
    assert (query != first).any(), "the query itself is left out"
    assert (lupctl(line).code, lupctl(f"{line} --force").code) == (2, 0)
    ran = lupctl(f"search {gallery} {space}/0.jpg --home {space} --sheet out.gif")
    assert (ran.code, "must end in one of .png" in ran.err) == (2, True)


def test_cells_without_an_image_stay_empty() -> None:
    white = np.full((40, 20, 3), 255, np.uint8)
    sheet = draw_sheet([((white, ["query"]), [(None, ["1"]), (white, ["2"])]), ((white, []), [])])
    assert sheet.shape == (6 + 2 * (CELL_HEIGHT + 36), 6 + CELL_WIDTH + 18 + 2 * (CELL_WIDTH + 6), 3)
    left = 6 + CELL_WIDTH + 18
    assert (sheet[6 : 6 + CELL_HEIGHT, left : left + CELL_WIDTH] == 232).all()
    assert (sheet[6 : 6 + CELL_HEIGHT, left + CELL_WIDTH + 6 : left + 2 * CELL_WIDTH + 6] == 255).all()


def test_what_cannot_be_searched_is_said(lupctl: Shell, space: Path, tmp_path: Path, crowd: Path) -> None:
    gallery = space / "runs/fine/toy.features.h5"
    base = f"--home {space} --device cpu"
    ran = lupctl(f"search {gallery} nowhere.jpg {base}")
    assert (ran.code, "nowhere.jpg: there is no such file; an image was expected" in ran.err) == (3, True)
    ran = lupctl(f"search gone.features.h5 {space}/0.jpg")
    assert (ran.code, "gone.features.h5: neither a file, nor a folder, nor a run" in ran.err) == (3, True)
    (tmp_path / "text.jpg").write_text("no image")
    ran = lupctl(f"search {gallery} text.jpg {base}")
    assert (ran.code, "text.jpg: does not decode" in ran.err) == (3, True)
    ran = lupctl(f"search {gallery} {space}/0.jpg --home {tmp_path} --device cpu")
    assert ran.code == 0, "the checkpoint lies beside the gallery"
    moved = tmp_path / "toy.features.h5"
    shutil.copy(gallery, moved)
    ran = lupctl(f"search {moved} {space}/0.jpg --home {tmp_path} --device cpu")
    assert (ran.code, ran.out) == (3, "")
    assert "is neither next to it nor in" in ran.err
    assert "--from FILE" in ran.err
    other = tmp_path / "other"
    finetune(finetune_job(space / "packs/labelled.h5", other, "seed=9", "schedule.epochs=1"), QUIET)
    ran = lupctl(f"search {moved} {space}/0.jpg --from {other} {base}")
    assert (ran.code, ran.out) == (3, "")
    assert "distances between features of two networks mean nothing" in ran.err
    features = read_features(gallery)
    bare = {**features.record, "parents": {}}
    write_features(moved, Features(features.features, features.samples, bare))
    ran = lupctl(f"search {moved} {space}/0.jpg {base}")
    assert (ran.code, "its record does not name the network that made it" in ran.err) == (3, True)
    ran = lupctl(f"search {moved} {space}/0.jpg --from fine {base}")
    assert (ran.code, "warning: " in ran.err) == (0, True)
    write_features(moved, Features(features.features[:, :5].copy(), features.samples, bare))
    ran = lupctl(f"search {moved} {space}/0.jpg --from fine {base}")
    assert (ran.code, "5 values per image" in ran.err) == (3, True)
    none = features.samples.select(np.zeros(0, np.int64))
    write_features(moved, Features(features.features[:0], none, features.record))
    ran = lupctl(f"search {moved} {space}/0.jpg --from fine {base}")
    assert (ran.code, "has no images" in ran.err) == (3, True)


def test_a_run_and_a_folder_of_pictures(lupctl: Shell, space: Path, tmp_path: Path) -> None:
    """A run stands for its features, which are made if there are none; a folder for the images directly in it."""
    home = tmp_path / "home"
    shutil.copytree(space, home)
    (home / "runs/fine/toy.features.h5").unlink()
    pictures = tmp_path / "pictures"
    (pictures / "below").mkdir(parents=True)
    for at in range(3):
        shutil.copy(space / f"{at}.jpg", pictures / f"{2 - at}.jpg")
    shutil.copy(space / "0.jpg", pictures / "below" / "9.jpg")
    (pictures / "notes.txt").write_text("no picture")
    (pictures / ".hidden.jpg").write_text("no picture")
    line = f"search fine pictures {space}/1.jpg --top 2 --home {home} --device cpu"
    plan = lupctl(f"{line} --dry-run --json").json
    assert plan["gallery"] == f"{home}/runs/fine: its features would be made first"
    assert plan["queries"] == ["pictures/0.jpg", "pictures/1.jpg", "pictures/2.jpg", f"{space}/1.jpg"]
    assert not list((home / "runs/fine").glob("*.features.h5"))
    ran = lupctl(f"{line} --json")
    assert ran.code == 0, ran.err
    assert ran.json["gallery"] == f"{home}/runs/fine/labelled.features.h5"
    assert [one["query"] for one in ran.json["queries"]] == plan["queries"]
    names = read_features(home / "runs/fine/labelled.features.h5").samples.name
    assert [one["left_out"] for one in ran.json["queries"]] == [[names[20]], [names[7]], [names[0]], [names[7]]]
    assert lupctl(f"search {home}/runs/fine pictures --home {home} --device cpu").code == 0, "a path to it"
    empty = lupctl(f"search fine {pictures}/.. --home {home} --device cpu")
    assert empty.err.endswith(f"hint: did you mean {pictures}/../pictures?\n")
    (tmp_path / "nothing").mkdir()
    assert lupctl(f"search fine nothing --home {home}").err.endswith("hint: ls nothing\n")


def test_a_query_is_recognised_by_its_bytes_else_by_its_name(lupctl: Shell, space: Path, tmp_path: Path) -> None:
    gallery = space / "runs/fine/toy.features.h5"
    name = read_features(gallery).samples.name[0]
    line = f"--top 3 --home {space} --device cpu --json"

    def search(query: str, more: str = "") -> Any:
        ran = lupctl(f"search {gallery} {query} {line} {more}")
        assert ran.code == 0, ran.err
        (one,) = ran.json["queries"]
        assert [hit["rank"] for hit in one["hits"]] == [1, 2, 3]
        return one["left_out"], one["hits"][0], ran.err

    left_out, first, said = search(f"{space}/0.jpg")
    assert (left_out, first["name"] != name) == ([name], True)
    assert f"this query is in the gallery too, and left out of the results: {space}/0.jpg ({name})" in said
    # The same pixels in another file are another picture.
    pixels = cv2.imread(str(space / "0.jpg"))
    assert pixels is not None
    cv2.imwrite(str(tmp_path / "again.png"), pixels)
    left_out, first, said = search("again.png")
    assert (left_out, first["name"], "left out" in said) == ([], name, False)
    assert first["distance"] == pytest.approx(0, abs=1e-5)
    # Where the gallery's images are not here, the name decides, and only where the features are the same.
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / Path(name).name).write_bytes((space / "0.jpg").read_bytes())
    assert search(Path(name).name, "--images elsewhere")[0] == [name]
    assert search(f"{space}/0.jpg", "--images elsewhere")[0] == []
    (tmp_path / Path(name).name).write_bytes((space / "1.jpg").read_bytes())
    assert search(Path(name).name, "--images elsewhere")[0] == []
