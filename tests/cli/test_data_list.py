"""`lupctl data list`: the catalogue, where things come from, and what is here."""

import json
import os
import re
import time
from pathlib import Path
from typing import Any, get_args

import pytest

from lupctl.core.choices import Dataset
from lupctl.core.data.catalog.links import dataset_links, has_signs
from lupctl.core.data.catalog.origin import read_origin, write_origin
from lupctl.core.formats.pack.read import open_pack
from lupctl.core.formats.pack.verdict import note_verdict, pack_files, read_verdict
from lupctl.core.stages.datasets import folder_bytes
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny


def states(lupctl: Shell) -> dict[str, list[str]]:
    return {row["name"]: row["state"] for row in lupctl("data list --json").json["datasets"]}


def row(lupctl: Shell, name: str) -> dict[str, Any]:
    return next(row for row in lupctl("data list --json").json["datasets"] if row["name"] == name)


def test_the_catalogue(lupctl: Shell, tmp_path: Path) -> None:
    ran = lupctl("data list --json")
    assert (ran.code, ran.err, ran.json["schema"]) == (0, "", "lupctl.datasets/1")
    rows = {row["name"]: row for row in ran.json["datasets"]}
    assert list(rows) == list(get_args(Dataset))
    assert {name for name, row in rows.items() if row["state"] == ["absent"]} == set(rows)
    assert rows["market1501"]["images"] == {"train": 12_936, "query": 3_368, "gallery": 19_732}
    assert (rows["luperson"]["images"], rows["luperson-nl"]["images"]) == (
        {"unlabelled": 4_180_243},
        {"train": 10_683_716},
    )
    assert rows["msmt17"]["archives"] == [
        {
            "name": "MSMT17_V1.tar.gz",
            "md5": "ea5502ae9dd06c596ad866bd1db0280d",
            "origin": "second-hand: checked by two third-party loaders, origin not traced",
            "caution": "",
        }
    ]
    assert {name: row["get"] for name, row in rows.items()} == {
        "market1501": "download", "cuhk03-labeled": "download", "cuhk03-detected": "download", "msmt17": "by hand",
        "dukemtmc": "withdrawn", "luperson": "download", "luperson-nl": "download", "synthetic": "drawn",
    }  # fmt: skip
    assert not (tmp_path / "lup").exists()


def test_both_lupersons_stand_side_by_side(lupctl: Shell) -> None:
    out = lupctl("data list --long").out
    assert "LUPerson: 4,180,243 images; its README says 4 M images of more than 200 K persons" in out
    assert "LUPerson-NL: 10,683,716 images; its README says 10 M images of more than 430 K persons" in out
    assert "all rights reserved" in " ".join(out.split())


def test_the_short_list_fits_a_terminal(lupctl: Shell, market: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert lupctl("data pack market1501").code == 0
    pack, now = Path("lup/packs/market1501.h5"), time.time()
    (market / "big.txt").write_bytes(bytes(3 << 20))
    os.utime(pack, (now - 7300, now - 7300))
    lines = lupctl("data list").out.splitlines()
    assert len(lines) <= 25
    assert max(map(len, lines)) <= 80
    found = {line.split()[0]: line.split() for line in lines if line.strip() and "─" not in line}
    assert set(get_args(Dataset)) <= set(found)
    assert found["market1501"] == ["market1501", "16/36,036", "raw,", "packed", "3.0", "MiB", "2", "h"]
    assert found["msmt17"] == ["msmt17", "126,441", "-", "-", "-"]
    assert found["dukemtmc"][2] == "withdrawn"
    measured = row(lupctl, "market1501")
    assert measured["pack_bytes"] == pack.stat().st_size
    assert measured["raw_bytes"] == sum(path.stat().st_size for path in market.rglob("*") if path.is_file())
    assert measured["changed_at"] == pytest.approx(now - 7300, abs=1)
    assert lines[-1] == "terms of use, counts by role, how to get one: lupctl data list --long"


def test_a_size_is_not_measured_for_ever(market: Path, tmp_path: Path) -> None:
    (market / "lost").symlink_to(tmp_path / "nowhere")
    assert folder_bytes(market, most=17) == sum(p.stat().st_size for p in market.rglob("*") if p.is_file())
    assert folder_bytes(market, most=16) is None


def test_no_way_leads_to_a_withdrawn_dataset(lupctl: Shell) -> None:
    found = row(lupctl, "dukemtmc")
    assert (found["published"], found["mirrors"], found["terms"][:27]) == ("", [], "withdrawn by its authors in")
    assert "http" not in json.dumps(found)
    links = dataset_links("dukemtmc")
    assert (links.downloads, links.steps, links.mirrors) == ((), (), ())


def test_links_are_well_formed() -> None:
    seen = set()
    for name in get_args(Dataset):
        links = dataset_links(name)
        for download in links.downloads:
            assert re.fullmatch(r"drive:[\w-]{28,33}", download.address)
            assert download.page == f"https://drive.google.com/file/d/{download.address[6:]}/view"
            seen.add(download.address)
        for known in links.archives:
            assert re.fullmatch(r"[0-9a-f]{32}", known.md5)
        if links.downloads or links.steps:
            assert any("{folder}" in step for step in links.steps), name
    assert len(seen) == 7, "Market-1501, CUHK03 in the new protocol, three of LUPerson, two of LUPerson-NL"


def test_signs(tmp_path: Path) -> None:
    assert not has_signs(tmp_path / "nothing", (("a",),))
    (tmp_path / "set" / "deep" / "a").mkdir(parents=True)
    assert has_signs(tmp_path / "set", (("x",), ("a",))), "in a folder right below"
    assert not has_signs(tmp_path, (("a",),)), "two below is too deep"
    assert not has_signs(tmp_path / "set", (("a", "b"),)), "all of a group"


@pytest.fixture
def market(tmp_path: Path, market_folder: Path) -> Path:
    folder = tmp_path / "lup" / "raw" / "market1501"
    folder.parent.mkdir(parents=True)
    return market_folder.rename(folder)


def test_from_absent_to_verified(lupctl: Shell, market: Path, tmp_path: Path) -> None:
    assert states(lupctl)["market1501"] == ["raw"]
    (market / "query").rename(tmp_path / "query")
    assert states(lupctl)["market1501"] == ["unrecognised"]
    (tmp_path / "query").rename(market / "query")
    lupctl("data pack market1501")
    pack = tmp_path / "lup/packs/market1501.h5"
    assert states(lupctl)["market1501"] == ["raw", "packed"]
    assert row(lupctl, "market1501")["packed_images"] == 16

    before = pack_files(pack)
    note_verdict(pack, files=before, fingerprint=open_pack(pack).fingerprint, sound=True, deep=True)
    assert states(lupctl)["market1501"] == ["raw", "packed", "verified"]
    assert "raw, packed, verified" in lupctl("data list").out
    note_verdict(pack, files=before, fingerprint="x", sound=False)
    assert states(lupctl)["market1501"] == ["raw", "packed", "failed verification"]
    note_verdict(pack, files=before, fingerprint="x", sound=True)
    os.utime(pack, ns=(1, time.time_ns()))
    assert states(lupctl)["market1501"] == ["raw", "packed"], "other files than those that were checked"
    pack.write_bytes(pack.read_bytes()[:1000])
    assert states(lupctl)["market1501"] == ["raw", "damaged pack"]
    assert row(lupctl, "market1501")["packed_images"] is None


def test_shards_and_what_is_left_of_a_note(lupctl: Shell, market: Path, tmp_path: Path) -> None:
    lupctl("data pack market1501 --shard-bytes 3000")
    pack = tmp_path / "lup/packs/market1501"
    assert row(lupctl, "market1501")["packed_images"] == 16
    note_verdict(pack, files=pack_files(pack), fingerprint="x", sound=True)
    assert states(lupctl)["market1501"] == ["raw", "packed", "verified"]
    note = tmp_path / "lup/packs/.verified/market1501.json"
    for text in ("", "[]", '{"sound": true}', "\xff"):
        note.write_text(text)
        assert read_verdict(pack) is None
    next(pack.glob("*.h5")).unlink()
    assert lupctl("data list").code == 0


def test_a_place_that_cannot_be_written_keeps_no_note(tmp_path: Path) -> None:
    pack = tmp_path / "x.h5"
    pack.write_bytes(b"1")
    (tmp_path / ".verified").write_text("a file where the folder would be")
    note_verdict(pack, files=pack_files(pack), fingerprint="x", sound=True)
    assert read_verdict(pack) is None


def test_ones_own_data_is_listed(lupctl: Shell, tmp_path: Path) -> None:
    raw = tmp_path / "lup/raw"
    (raw / "crops").mkdir(parents=True)
    (raw / "crops" / "1.jpg").write_bytes(encode_tiny(1))
    (raw / "empty").mkdir()
    (raw / ".lupctl-hashes").mkdir()
    assert lupctl("data pack crops").code == 0
    (raw / "crops").rename(raw / "other")
    found = states(lupctl)
    assert {name: found[name] for name in set(found) - set(get_args(Dataset))} == {
        "crops": ["packed"],
        "other": ["raw"],
        "empty": ["absent"],
    }
    assert (row(lupctl, "crops")["packed_images"], row(lupctl, "crops")["get"]) == (1, "own")
    assert "1 in the pack" in lupctl("data list --long").out
    (raw / "other" / ".lupctl-part" / "x").mkdir(parents=True)
    assert states(lupctl)["other"] == ["raw", "begun"]


@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("cuhk03-np", ["cuhk03-np/labeled/bounding_box_train/", "cuhk03-np/labeled/bounding_box_test/",
                       "cuhk03-np/labeled/query/"]),
        ("msmt17", ["MSMT17_V2/mask_train_v2/", "MSMT17_V2/mask_test_v2/", *(f"MSMT17_V2/list_{part}.txt" for part in
                    ("train", "val", "query", "gallery"))]),
        ("luperson", ["vname.txt", "dets.pkl"]),
        ("luperson", ["images/"]),
        ("luperson-nl", ["lmdb/"]),
        ("luperson-nl", ["vnames.txt", "dets/"]),
    ],
)  # fmt: skip
def test_raw_data_as_published(lupctl: Shell, tmp_path: Path, name: str, paths: list[str]) -> None:
    folder = tmp_path / "lup/raw" / name
    for path in paths:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).mkdir() if path.endswith("/") else (folder / path).write_text("")
    found = states(lupctl)
    wanted = ["cuhk03-labeled", "cuhk03-detected"] if name == "cuhk03-np" else [name]
    assert {entry for entry, state in found.items() if state == ["raw"]} == set(wanted)
    assert "cuhk03-np" not in found


def test_the_record_beside_raw_data(tmp_path: Path) -> None:
    folder = tmp_path / "raw" / "x"
    (folder / "inside" / "deeper").mkdir(parents=True)
    assert read_origin(folder) == {}
    write_origin(folder, {"terms": "für Forschung"})
    assert read_origin(folder / "inside" / "deeper") == {"format": 1, "terms": "für Forschung"}
    assert read_origin(tmp_path) == {}
    for text in ("", "[]", '{"format": 2}'):
        (folder / ".lupctl.json").write_text(text)
        assert read_origin(folder) == {}


def test_what_verify_found_is_listed(lupctl: Shell, market: Path, tmp_path: Path) -> None:
    market.rename(market.parent / "mine")
    assert lupctl("data pack mine").code == 0
    assert lupctl("data verify lup/packs/mine.h5 --fast").code == 0
    assert "verified" not in row(lupctl, "mine")["state"], "counts alone say nothing about the images"
    assert lupctl("data verify lup/packs/mine.h5").code == 0
    assert "verified" in row(lupctl, "mine")["state"]


def test_a_pack_tells_where_its_images_were_fetched(lupctl: Shell, market: Path) -> None:
    write_origin(market.rename(market.parent / "mine"), {"format": 1, "terms_accepted": "research only"})
    assert lupctl("data pack mine").code == 0
    assert open_pack(Path("lup/packs/mine.h5")).record["origin"]["terms_accepted"] == "research only"


def test_videos_and_detections_are_no_images_to_pack(lupctl: Shell, market: Path, tmp_path: Path) -> None:
    waiting = tmp_path / "lup" / "raw" / "luperson"
    (waiting / "videos" / "us").mkdir(parents=True)
    (waiting / "dets.pkl").write_bytes(b"")
    ran = lupctl("data pack")
    assert ran.code == 0, ran.err
    assert "luperson: no images yet; cut them with lupctl data build luperson" in ran.err
    assert not (tmp_path / "lup" / "packs" / "luperson.h5").exists()
