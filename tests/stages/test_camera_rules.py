"""Cameras from a dump to a report: by every rule the right features, and said in the record, the table and the page."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lupctl.core.choices import CameraUse
from lupctl.core.errors import DataError, UsageError
from lupctl.core.formats.features.file import Features, read_features, write_features
from lupctl.core.formats.images.codec import decode_rgb
from lupctl.core.formats.pack.read import Pack, open_pack
from lupctl.core.ranking.reports.model.single import read_report
from lupctl.core.ranking.retrieval.inputs import read_joined
from lupctl.core.stages.dump.job import DumpJob, Shard
from lupctl.core.stages.dump.run import dump
from lupctl.core.system.progress.lines import Progress
from lupctl.core.training.nets.build import Network
from lupctl.core.training.nets.vit.side import MEAN_ROW, NO_ROW
from tests.tools.nets.camera_networks import camera_header, write_camera_network
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny
from tests.tools.tiny.training import run_forked

QUIET = Progress(quiet=True)
CPU = torch.device("cpu")
OUT = Path("f.features.h5")


@pytest.fixture
def space(tmp_path: Path, labelled: Path, lupctl: Shell) -> Path:
    """A workspace with runs on the cameras 1 and 2 of `labelled`, of which it has 3; `learned` has an unknown row."""
    home = tmp_path / "lup"
    (home / "packs").mkdir(parents=True)
    shutil.copy(labelled, home / "packs" / "labelled.h5")
    for name, unknown in (("plain", False), ("learned", True)):
        write_camera_network(
            home / "runs" / name / "checkpoint.safetensors", camera_header((1, 2), rows=2, unknown=unknown)
        )
        finish_run(home, name)
    return home


def finish_run(home: Path, name: str) -> None:
    facts = {"command": "finetune", "dataset": "labelled", "pack": str(home / "packs" / "labelled.h5")}
    (home / "runs" / name / "run.json").write_text(json.dumps(facts))


def run_of(space: Path, name: str) -> Path:
    return space / "runs" / name / "checkpoint.safetensors"


def job_of(space: Path, name: str, use: CameraUse | None = None, *, data: Path | None = None) -> DumpJob:
    source = data or space / "packs" / "labelled.h5"
    return DumpJob(run_of(space, name), source, OUT, cameras=use, chunk=5, workers=0)


def by_hand(network: Network, pack: Pack, rows: NDArray[np.int64], given: list[int]) -> NDArray[np.float32]:
    """Features by the book, one image at a time, with the camera rows that are given; images are 32 x 16."""
    found = []
    for row, camera in zip(rows.tolist(), given, strict=True):
        pixels = torch.from_numpy(decode_rgb(pack.read(row))).permute(2, 0, 1)[None] / 255
        mean, std = (torch.tensor(values)[:, None, None] for values in (PIXELS.mean, PIXELS.std))
        with torch.no_grad():
            found.append(network.embed((pixels - mean) / std, torch.tensor([camera]))[0].numpy())
    return np.stack(found)


PIXELS = camera_header((1, 2), rows=2).preprocessing


@pytest.mark.parametrize(
    ("name", "use", "third"), [("plain", "mean", MEAN_ROW), ("learned", None, 2), ("learned", "none", NO_ROW)]
)
def test_features_are_those_of_the_rows_of_the_rule(space: Path, name: str, use: CameraUse | None, third: int) -> None:
    dump(job_of(space, name, use), CPU, QUIET)
    features, pack = read_features(OUT), open_pack(space / "packs" / "labelled.h5")
    rows = np.flatnonzero(pack.samples.role >= 2)
    camera = pack.samples.camera[rows].tolist()
    assert set(camera) == {1, 2, 3}
    given = [NO_ROW if use == "none" else {1: 0, 2: 1, 3: third}[number] for number in camera]
    header = camera_header((1, 2), rows=2, unknown=name == "learned")
    network = write_camera_network(Path("same.safetensors"), header)
    np.testing.assert_allclose(features.features, by_hand(network, pack, rows, given), rtol=1e-4, atol=1e-5)
    own = 0 if use == "none" else sum(number < 3 for number in camera)
    others = len(camera) - own
    assert features.record["cameras"] == {
        "rule": use or "mean",
        "own_row": own,
        "unknown_row": others if third == 2 else 0,
        "mean_row": others if third == MEAN_ROW else 0,
        "no_term": others if third == NO_ROW else 0,
    }


def test_known_is_refused_before_an_image_is_read(space: Path, lupctl: Shell) -> None:
    for more in ("", " --dry-run"):
        ran = lupctl(f"dump plain --cameras known --home {space} --device cpu --out f.features.h5{more}")
        assert (ran.code, ran.out) == (3, "")
        assert (
            f"--cameras known: 10 of 34 images of labelled are from no camera of {run_of(space, 'plain')}: " in ran.err
        )
        assert "camera 3 (10 images)" in ran.err
    assert not OUT.exists()
    ran = lupctl(f"eval plain --cameras known --home {space} --device cpu --dry-run")
    assert (ran.code, ran.out) == (3, "")
    assert "10 of 34 images of labelled are from no camera of" in ran.err
    write_camera_network(run_of(space, "whole"), camera_header((1, 2, 3)))
    finish_run(space, "whole")
    ran = lupctl(f"dump whole --cameras known --home {space} --device cpu --out f.features.h5 --workers 0")
    assert ran.code == 0, ran.err
    assert "cameras: " not in ran.err, "every image has its own"
    assert read_features(OUT).record["cameras"]["own_row"] == 34
    assert read_features(OUT).record["command"] == ["lupctl", "dump", "whole", "--cameras", "known"]


def test_what_is_done_with_cameras_is_said(space: Path, lupctl: Shell) -> None:
    line = f"--home {space} --device cpu --workers 0 --out f.features.h5 --force"
    ran = lupctl(f"dump learned {line}")
    assert (
        "cameras: 10 of 34 images of labelled get the row that the network learned for unknown cameras: camera 3 "
        "(10 images)\n"
    ) in ran.err
    assert "cameras: 10 of 34 images of labelled get the mean of all rows: " in lupctl(f"dump plain {line}").err
    ran = lupctl(f"dump plain --cameras none {line}")
    assert "cameras: none, so 34 images of labelled get no camera's row\n" in ran.err
    plan = lupctl(f"dump learned --home {space} --device cpu --out g.h5 --dry-run --json").json
    assert plan["cameras"].startswith("mean (24 images by the row of their own camera, 10 images by the learned row")


def test_a_network_without_cameras_dumps_as_before(space: Path, lupctl: Shell) -> None:
    write_camera_network(run_of(space, "bare"), camera_header((), rows=1))
    finish_run(space, "bare")
    line = f"dump bare --home {space} --device cpu --workers 0 --out f.features.h5"
    for use in ("known", "mean", "none"):
        ran = lupctl(f"{line} --cameras {use}")
        assert (ran.code, ran.out) == (2, "")
        assert f"--cameras {use}: {run_of(space, 'bare')} takes no cameras" in ran.err
        assert "hint: leave out --cameras" in ran.err
    assert lupctl(line).code == 0
    assert "cameras" not in read_features(OUT).record
    assert "cameras" not in lupctl(f"{line} --force --dry-run --json").json


@pytest.mark.parametrize("use", ["mean", "none"])
def test_processes_and_shards_leave_the_bytes_of_one(space: Path, use: CameraUse) -> None:
    job = job_of(space, "learned", use)
    dump(job, CPU, QUIET)
    wanted = OUT.read_bytes()
    OUT.unlink()
    assert run_forked(dump_quietly, job, processes=2) == [0, 0]
    assert OUT.read_bytes() == wanted
    OUT.unlink()
    for number in (3, 1, 2):
        dump(replace(job, shard=Shard(number, 3)), CPU, QUIET)
        if number == 3:
            part = read_features(Shard(3, 3).path(OUT))
            assert sum(part.record["cameras"][key] for key in ("own_row", "unknown_row", "no_term")) == len(part)
    assert OUT.read_bytes() == wanted


def dump_quietly(job: DumpJob) -> None:
    """One process of a joined job."""
    dump(job, CPU, QUIET)


def test_a_shard_by_another_rule_is_named(space: Path) -> None:
    job = job_of(space, "learned", "mean")
    dump(replace(job, shard=Shard(1, 2)), CPU, QUIET)
    with pytest.raises(DataError, match="of cameras 'mean', this command's is 'none'"):
        dump(replace(job, cameras="none", shard=Shard(2, 2)), CPU, QUIET)


def test_chunks_by_another_rule_are_not_continued(space: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the features by one rule and half by another would be those of no network."""
    from lupctl.core.formats.features.chunks import FeatureChunks

    job, append = job_of(space, "learned", "none"), FeatureChunks.append

    def stop(chunks: FeatureChunks, number: int, vectors: Any, left_out: Any) -> None:
        append(chunks, number, vectors, left_out)
        if number == 2:
            raise KeyboardInterrupt

    dump(replace(job, out=Path("whole.h5"), cameras="mean"), CPU, QUIET)
    with monkeypatch.context() as patch:
        patch.setattr(FeatureChunks, "append", stop)
        with pytest.raises(KeyboardInterrupt):
            dump(job, CPU, QUIET)
    dump(replace(job, cameras="mean"), CPU, QUIET)
    np.testing.assert_array_equal(read_features(OUT).features, read_features(Path("whole.h5")).features)


def test_files_of_a_folder_have_no_camera(space: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(9):
        (photos / f"{number}.jpg").write_bytes(encode_tiny(number) if number not in (1, 6) else b"I am no image")
    dump(job_of(space, "learned", data=photos), CPU, QUIET)
    record = read_features(OUT).record
    assert record["cameras"] == {"rule": "mean", "own_row": 0, "unknown_row": 7, "mean_row": 0, "no_term": 0}
    with pytest.raises(DataError, match=r"all 9 images of photos are from no camera of .*: no camera \(9 images\)"):
        dump(replace(job_of(space, "learned", "known", data=photos), force=True), CPU, QUIET)


def test_a_report_names_the_rule_and_its_images(space: Path, lupctl: Shell) -> None:
    ran = lupctl(f"eval learned --home {space} --device cpu")
    assert ran.code == 0, ran.err
    said = "mean (24 images by the row of their own camera, 10 images by the learned row for unknown cameras)"
    assert f"\ncameras: {said}\n" in ran.out
    run = space / "runs" / "learned"
    report = read_report(run / "report.json")
    assert report.camera_use is not None
    assert report.camera_use.model_dump() == read_features(run / "labelled.features.h5").record["cameras"]
    assert f"Cameras that the network was given: {said}." in (run / "report.html").read_text()
    ran = lupctl(f"eval plain --cameras none --home {space} --device cpu --no-page --json")
    assert ran.json["camera_use"] == {"rule": "none", "own_row": 0, "unknown_row": 0, "mean_row": 0, "no_term": 34}
    ran = lupctl(f"eval --compare learned plain --home {space} --device cpu")
    assert ran.code == 0, ran.err
    instead = "instead of their camera's\n"
    assert f"warning: learned: 10 of 34 images of labelled got the row for unknown cameras {instead}" in ran.out
    assert f"warning: plain: 34 of 34 images of labelled got no camera's row {instead}" in ran.out


def test_features_by_another_rule_are_not_taken_for_those_asked_for(space: Path, lupctl: Shell) -> None:
    base = f"--home {space} --device cpu --no-page"
    assert lupctl(f"eval plain {base}").code == 0
    made = space / "runs" / "plain" / "labelled.features.h5"
    before = made.read_bytes()
    for target, again in (("plain", f"lupctl dump {space}/runs/plain --cameras none --force"), (made, "--out OTHER")):
        for more in ("", " --dry-run", " --force"):
            ran = lupctl(f"eval {target} --cameras none {base}{more}")
            assert (ran.code, ran.out) == (2, "")
            assert f"--cameras none: the features in {made} are by the rule mean (24 images by " in ran.err
            assert again in ran.err
    assert made.read_bytes() == before
    assert lupctl(f"eval plain --cameras mean {base} --force").code == 0
    for mode in ("--compare", "--all"):
        ran = lupctl(f"eval {mode} plain learned --cameras none --home {space}")
        assert (ran.code, ran.out) == (2, "")
        assert f"--cameras has no meaning with {mode}" in ran.err


def test_where_every_image_has_its_own_camera_known_and_mean_are_the_same(space: Path, lupctl: Shell) -> None:
    write_camera_network(run_of(space, "whole"), camera_header((1, 2, 3)))
    finish_run(space, "whole")
    base = f"--home {space} --device cpu --no-page --json"
    report = lupctl(f"eval whole --cameras known {base}").json
    assert report["camera_use"]["rule"] == "known"
    assert "cameras" not in [warning["kind"] for warning in report["warnings"]]
    assert lupctl(f"eval whole --cameras mean {base} --force").code == 0
    assert lupctl(f"eval whole --cameras none {base} --force").code == 2


def test_features_with_and_without_cameras_are_not_scored_together(space: Path) -> None:
    for name, use in (("a", "mean"), ("b", "known"), ("c", "none")):
        write_camera_network(run_of(space, "whole"), camera_header((1, 2, 3)))
        job = job_of(space, "whole", use)  # type: ignore[arg-type]
        dump(replace(job, out=Path(f"{name}.h5"), roles=("query",) if name == "a" else ("gallery",)), CPU, QUIET)
    joined = read_joined([Path("a.h5"), Path("b.h5")], progress=QUIET)
    assert joined.record["cameras"] == {"rule": "mean", "own_row": 34, "unknown_row": 0, "mean_row": 0, "no_term": 0}
    with pytest.raises(DataError, match=r"c.h5: by the rule none for cameras, but a.h5 by mean"):
        read_joined([Path("a.h5"), Path("c.h5")], progress=QUIET)


def test_features_that_say_nothing_of_cameras_take_no_rule(space: Path, lupctl: Shell) -> None:
    write_camera_network(run_of(space, "bare"), camera_header((), rows=1))
    dump(job_of(space, "bare"), CPU, QUIET)
    ran = lupctl(f"eval f.features.h5 --cameras mean --home {space} --device cpu --no-page")
    assert (ran.code, ran.out) == (2, "")
    assert "--cameras mean: the network of f.features.h5 takes no cameras, or is not known" in ran.err


@pytest.mark.parametrize(("use", "row"), [(None, 2), ("none", NO_ROW)])
def test_a_search_gives_its_pictures_what_their_gallery_got(
    space: Path, lupctl: Shell, use: CameraUse | None, row: int
) -> None:
    pack = open_pack(space / "packs" / "labelled.h5")
    rows = np.flatnonzero(pack.samples.role >= 2)
    Path("person.jpg").write_bytes(pack.read(int(rows[4])))
    option = "" if use is None else f"--cameras {use}"
    ran = lupctl(f"search learned person.jpg {option} --home {space} --device cpu --top 40 --json")
    assert ran.code == 0, ran.err
    learned = "cameras: 1 query without a camera gets the row that the network learned for unknown cameras\n"
    assert ("cameras: none, so 1 query gets no camera's row\n" if use else learned) in ran.err
    network = write_camera_network(Path("same.safetensors"), camera_header((1, 2), rows=2, unknown=True))
    query = by_hand(network, pack, rows[4:5], [row])[0]
    gallery = read_features(space / "runs" / "learned" / "labelled.features.h5")
    apart = 1 - gallery.features @ query / np.linalg.norm(gallery.features, axis=1) / np.linalg.norm(query)
    hits = {hit["name"]: hit["distance"] for hit in ran.json["queries"][0]["hits"]}
    left_out = ran.json["queries"][0]["left_out"]
    assert left_out == ([gallery.samples.name[4]] if use else []), "with its camera's row it is another vector"
    assert len(hits) == 34 - len(left_out)
    for name, distance in zip(gallery.samples.name, apart.tolist(), strict=True):
        if name in hits:
            assert hits[name] == pytest.approx(max(0.0, distance), abs=1e-5)
    ran = lupctl(f"search learned person.jpg --cameras known --home {space} --device cpu")
    assert ran.code == 2


def test_a_person_in_footage_is_looked_for_without_a_camera(space: Path, lupctl: Shell) -> None:
    """In a pack of cameras that the network never saw."""
    pack = open_pack(space / "packs" / "labelled.h5")
    Path("person.jpg").write_bytes(pack.read(int(np.flatnonzero(pack.samples.role == 2)[0])))
    write_camera_network(run_of(space, "whole"), camera_header((1, 2, 3), datasets=("town",)))
    finish_run(space, "whole")
    ran = lupctl(f"find person.jpg --in {space}/packs/labelled.h5 --run whole --home {space} --device cpu --json")
    assert ran.code == 0, ran.err
    assert "cameras: 1 query without a camera gets the mean of all rows\n" in ran.err
    assert "cameras: all 70 images of labelled get the mean of all rows: " in ran.err
    assert "; the network was trained on town\n" in ran.err
    (made,) = (space / "footage").rglob("*.features.h5")
    assert read_features(made).record["cameras"]["mean_row"] == 70


def test_a_record_that_was_tampered_with_says_nothing(space: Path, lupctl: Shell) -> None:
    dump(job_of(space, "plain"), CPU, QUIET)
    made = read_features(OUT)
    write_features(OUT, Features(made.features, made.samples, {**made.record, "cameras": {"rule": "all"}}))
    ran = lupctl(f"eval f.features.h5 --home {space} --device cpu --no-page --json")
    assert ran.code == 0, ran.err
    assert ran.json["camera_use"] is None


def test_a_rule_for_a_network_without_cameras_is_refused_by_the_stage(space: Path) -> None:
    write_camera_network(run_of(space, "bare"), camera_header((), rows=1))
    with pytest.raises(UsageError, match="takes no cameras"):
        dump(job_of(space, "bare", "none"), CPU, QUIET)
