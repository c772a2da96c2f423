"""Crops in an LMDB, with every kind of key file, and with what can be wrong with them."""

import os
import pickle
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import lmdb
import pytest

from lupctl.core.data.sources.guess import guess_layout
from lupctl.core.data.sources.layouts.lmdb_folder import LmdbSource
from lupctl.core.errors import CorruptImageError, DataError, FormatError
from lupctl.core.formats.pack.read import open_pack
from tests.tools.shell import Shell
from tests.tools.tiny.images import encode_tiny

KEYS = ["00_00_0000_00000000", "00_00_0000_00000001", "00_01_0000_00000000", "35_02_0658_00001234"]
NL_KEYS = ["00001_000007_0000120_00", "00001_433996_0000120_01", "21697_000007_0000000_00"]


def write_lmdb(path: Path, values: Mapping[str, bytes], *, subdir: bool = True) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with lmdb.open(str(path), map_size=1 << 24, subdir=subdir) as environment, environment.begin(write=True) as change:
        for key, value in values.items():
            change.put(key.encode(), value)
    return path


def write_keys(path: Path, held: Any) -> Path:
    path.write_bytes(pickle.dumps(held, 4))
    return path


@pytest.fixture
def values() -> dict[str, bytes]:
    return {key: encode_tiny(seed) for seed, key in enumerate(KEYS)}


@pytest.fixture
def folder(tmp_path: Path, values: dict[str, bytes]) -> Path:
    """As LUPerson's converter leaves it: lmdb/, and room for a key file beside it."""
    write_lmdb(tmp_path / "raw" / "lmdb", values)
    return tmp_path / "raw"


def open_source(path: Path, keys: str | None = None) -> LmdbSource:
    return LmdbSource(path, dataset="luperson", keys=keys)


def table(source: LmdbSource) -> list[tuple[str, int, int, int]]:
    found = source.list_images()
    columns = (found.name, found.person.tolist(), found.camera.tolist(), found.role.tolist())
    return list(zip(*columns, strict=True))


def test_without_a_key_file(folder: Path, values: dict[str, bytes]) -> None:
    source = open_source(folder)
    assert table(source) == [(f"{key}.jpg", -1, -1, 0) for key in KEYS]
    assert [source.read(f"{key}.jpg") for key in KEYS] == list(values.values())
    assert "every key of the database, 4 entries in the database; no persons" in str(source.facts["notes"])
    assert guess_layout(folder, dataset="mine").layout == "lmdb"
    assert guess_layout(folder / "lmdb", dataset="luperson").layout == "lmdb"


@pytest.mark.parametrize(
    ("held", "rows"),
    [
        ([KEYS[2], KEYS[0]], [(KEYS[0], -1, 0), (KEYS[2], -1, 0)]),
        ({"keys": KEYS[:2]}, [(KEYS[0], -1, 0), (KEYS[1], -1, 0)]),
        ({"keys": [KEYS[3], KEYS[1]], "pids": [8, 5]}, [(KEYS[1], 5, 1), (KEYS[3], 8, 1)]),
        ({"keys": KEYS[:2], "vids": [0, 1]}, [(KEYS[0], -1, 0), (KEYS[1], -1, 0)]),
        ({"keys": [key.encode() for key in KEYS[:1]]}, [(KEYS[0], -1, 0)]),
    ],
)
@pytest.mark.parametrize("name", ["keys.pkl", "key.pkl", "key_vid.pkl", "lmdb/keys.pkl"])
def test_key_files(folder: Path, name: str, held: Any, rows: list[tuple[str, int, int]]) -> None:
    write_keys(folder / name, held)
    for path in (folder, folder / "lmdb"):
        source = open_source(path)
        assert table(source) == [(f"{key}.jpg", person, -1, role) for key, person, role in rows]
        del source  # a process opens a database once


def test_luperson_nl_names_its_persons_in_the_keys(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "lmdb", {key: encode_tiny(1) for key in NL_KEYS})
    expected = [(f"{key}.jpg", person, -1, 1) for key, person in zip(NL_KEYS, (7, 433_996, 7), strict=True)]
    source = LmdbSource(path, dataset="luperson-nl")
    assert table(source) == expected
    assert "persons from the keys" in str(source.facts["notes"])
    del source
    write_keys(tmp_path / "keys.pkl", {"keys": NL_KEYS, "pids": [7, 433_996, 7]})
    assert table(LmdbSource(path, dataset="luperson-nl")) == expected, "pids say the same"


def test_several_key_files(folder: Path) -> None:
    write_keys(folder / "keys.pkl", KEYS[:1])
    write_keys(folder / "CFS_list.pkl", KEYS[1:])
    with pytest.raises(DataError, match="2 pickles could be its key file") as caught:
        open_source(folder)
    assert "--keys" in caught.value.hint
    assert [len(open_source(folder, keys).list_images()) for keys in ("keys.pkl", "none")] == [1, 4]
    assert len(open_source(folder, str(folder / "CFS_list.pkl")).list_images()) == 3
    with pytest.raises(DataError, match=r"no.pkl: there is no such key file"):
        open_source(folder, "no.pkl")


class Runs:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return os.mkdir, (str(self.path),)


def test_a_key_file_that_runs_something(lupctl: Shell, folder: Path, tmp_path: Path) -> None:
    write_keys(folder / "keys.pkl", {"keys": [*KEYS, Runs(tmp_path / "trap")]})
    ran = lupctl(f"data pack {folder} --name luperson")
    assert ran.code == 3
    assert "raw/keys.pkl: the pickle asks for posix.mkdir, which plain data never needs" in ran.err
    assert "nothing in it was run" in ran.err
    assert not (tmp_path / "trap").exists()


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ("text", "contains str; a list of keys or a dict with 'keys' was expected"),
        ({"pids": [1]}, "contains a dict with 'pids'; a list of keys"),
        ({"keys": "abc"}, "its keys are a str"),
        ({"keys": KEYS, "pids": [1, 2]}, "2 pids for 4 keys"),
        ({"keys": KEYS, "pids": [1, 2, "x", 4]}, "'x' is among its pids"),
        ({"keys": KEYS, "vids": [1, 2, 2**63, 4]}, "a number among its vids is too large"),
        ([KEYS[0], 7], "7 is among its keys; text of up to 511 bytes was expected"),
    ],
)
def test_a_key_file_that_is_none(held: Any, message: str, folder: Path) -> None:
    write_keys(folder / "keys.pkl", held)
    with pytest.raises(FormatError, match=rf"keys.pkl: .*{message}"):
        open_source(folder).list_images()


def test_missing_keys_are_counted_and_named(lupctl: Shell, folder: Path) -> None:
    write_keys(folder / "keys.pkl", [*KEYS, "99_00_0000_00000007"])
    with pytest.raises(CorruptImageError, match="the LMDB has no key 99_00_0000_00000007"):
        open_source(folder).read("99_00_0000_00000007.jpg")
    ran = lupctl(f"data pack {folder} --name luperson")
    assert ran.code == 3
    assert "luperson: 5 keys from keys.pkl, 4 entries in the database" in ran.err
    assert "1 of the 5 images cannot be read, --max-bad 0.001 allows 0: 99_00_0000_00000007.jpg" in ran.err
    assert lupctl(f"data pack {folder} --name luperson --max-bad 0.2").code == 0
    made = open_pack(Path("lup/packs/luperson.h5"))
    assert len(made) == 4
    assert made.record["quarantine"] == [
        {"name": "99_00_0000_00000007.jpg", "reason": "the LMDB has no key 99_00_0000_00000007"}
    ]


def test_packing_keeps_every_byte(lupctl: Shell, folder: Path, values: dict[str, bytes], tmp_path: Path) -> None:
    folder.rename(tmp_path / "moved")
    (tmp_path / "lup" / "raw").mkdir(parents=True)
    (tmp_path / "moved").rename(tmp_path / "lup" / "raw" / "luperson")
    assert lupctl("data pack").code == 0
    made = open_pack(tmp_path / "lup" / "packs" / "luperson.h5")
    assert [made.read(row) for row in range(len(made))] == list(values.values())
    assert "is up to date" in lupctl("data pack").err
    assert "lup/raw/luperson/lmdb" in lupctl("data info luperson").out
    write_lmdb(tmp_path / "lup" / "raw" / "luperson" / "lmdb", {"99_00_0000_00000000": encode_tiny(9)})
    assert lupctl("data pack").code == 2, "another key, another pack"


def test_a_value_that_is_no_image(lupctl: Shell, folder: Path) -> None:
    write_lmdb(folder / "lmdb", {"zz": b"\xff\xd8\xff cut"})
    ran = lupctl(f"data pack {folder} --name luperson")
    assert ran.code == 3
    assert "zz.jpg: a JPEG that is cut short" in ran.err


def test_nothing_is_written_beside_a_database(folder: Path) -> None:
    (folder / "lmdb" / "lock.mdb").unlink()
    source = open_source(folder)
    source.read(source.list_images().name[0])
    assert sorted(path.name for path in (folder / "lmdb").iterdir()) == ["data.mdb"]


def test_threads_and_forks_read_the_same(folder: Path, values: dict[str, bytes]) -> None:
    source = open_source(folder)
    names = list(source.list_images().name) * 50
    expected = [values[name.removesuffix(".jpg")] for name in names]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(source.read, names)) == expected
    _forked.append(source)
    with get_context("fork").Pool(1) as forked:
        assert forked.map(_read_forked, names[:8]) == expected[:8]
    _forked.clear()
    assert source.read(names[0]) == expected[0]


# What a forked process finds in its memory.
_forked: list[LmdbSource] = []


def _read_forked(name: str) -> bytes:
    return _forked[0].read(name)


def test_databases_that_are_none(folder: Path, tmp_path: Path) -> None:
    data = folder / "lmdb" / "data.mdb"
    content = data.read_bytes()
    for damaged in (b"", b"no database" * 1000):
        data.write_bytes(damaged)
        with pytest.raises(FormatError, match="not a readable LMDB"):
            open_source(folder).list_images()
    data.write_bytes(content[: len(content) // 2])
    with pytest.raises(FormatError, match=r"data.mdb: cut short, \d[\d,]* of \d[\d,]* bytes"):
        open_source(folder).list_images()
    with pytest.raises(DataError, match=r"contains no LMDB \(data.mdb\)"):
        open_source(tmp_path)
    write_lmdb(tmp_path / "raw" / "second", {})
    with pytest.raises(DataError, match="contains 2 LMDBs"):
        open_source(folder)


def test_a_single_file_and_keys_of_any_kind(tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "crops.lmdb", {"k\u00f6ln/1": b"x", "k\u00f6ln/1-2": b"y"}, subdir=False)
    source = open_source(path)
    assert source.list_images().name == ["k\u00f6ln/1-2.jpg", "k\u00f6ln/1.jpg"], "names are sorted, not keys"
    assert source.read("k\u00f6ln/1.jpg") == b"x"
    assert guess_layout(path, dataset="m").layout == "lmdb"
    del source
    with lmdb.open(str(path), subdir=False) as environment, environment.begin(write=True) as change:
        change.put(b"\xff", b"z")
    with pytest.raises(DataError, match="contains a key that is not UTF-8 text"):
        open_source(path).list_images()


def test_lmdb_is_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(DataError, match="needs the package lmdb, which is not installed") as caught:
        open_source(folder).list_images()
    assert caught.value.hint == "pip install 'lupctl[lmdb]'"


def test_damaged_pages_are_named(tmp_path: Path) -> None:
    keys = [f"00_00_0000_{row:08d}" for row in range(400)]
    database = write_lmdb(tmp_path / "raw" / "lmdb", {key: encode_tiny(0) for key in keys})
    data = database / "data.mdb"
    content = data.read_bytes()
    # Behind ten bytes a page's kind: 1 a branch of the tree. Behind sixteen, where its nodes are; the child of a node
    # is a page whose number's upper part stands behind four bytes.
    (branch,) = [at for at in range(8192, len(content), 4096) if content[at + 10] == 1]
    first, node = (
        branch + int.from_bytes(content[branch + 16 + 2 * row : branch + 18 + 2 * row], "little") for row in (0, 7)
    )
    broken = bytearray(content)
    broken[node + 4 : node + 6] = b"\xff\xff"
    data.write_bytes(bytes(broken))
    write_keys(tmp_path / "raw" / "keys.pkl", keys)
    for listed in ("keys.pkl", "none"):
        with pytest.raises(FormatError, match=r"damaged LMDB \(refers to a page that does not exist") as caught:
            open_source(tmp_path / "raw", listed).read_block(0, 400)
        assert caught.value.hint == "copy the database again"
    broken[node : node + 6] = content[first : first + 6]
    data.write_bytes(bytes(broken))
    with pytest.raises(FormatError, match=r"damaged LMDB \(refers to a page twice"):
        open_source(tmp_path / "raw").read_block(0, 400)


NUM_DAMAGED = 150


def test_no_damage_ends_the_process(tmp_path: Path) -> None:
    """Random bytes of a tree of branches, leaves and long values are changed; the library must see no such page."""
    values = {f"{row:08d}": encode_tiny(0) if row % 9 else bytes([row % 251]) * 9_000 for row in range(120)}
    content = (write_lmdb(tmp_path / "whole", values) / "data.mdb").read_bytes()
    # Meta pages, branches and leaves: the bytes of long values are harmless.
    tree = [at for at in range(0, len(content), 4096) if content[at + 10] in (1, 2, 8)]
    (tmp_path / "broken").mkdir()
    context = get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_read_damaged, args=(content, tree, tmp_path / "broken", theirs))
    child.start()
    theirs.close()
    seen = list[str]()
    with suppress(EOFError):
        while True:
            seen.append(ours.recv())
    child.join()
    assert child.exitcode == 0, f"after {len(seen)}: {seen[-1:]}"
    assert len(seen) == NUM_DAMAGED
    assert NUM_DAMAGED / 10 < sum("LMDB" in text for text in seen) < NUM_DAMAGED


def _read_damaged(content: bytes, tree: list[int], folder: Path, pipe: Any) -> None:
    chance = random.Random(1)
    for _ in range(NUM_DAMAGED):
        broken = bytearray(content)
        for _ in range(chance.randint(1, 3)):
            place = chance.choice(tree) + chance.choice(
                (chance.randrange(64), chance.randrange(256), chance.randrange(4096))
            )
            broken[place] = chance.choice((0, 1, 2, 0x7F, 0xFF, chance.randrange(256)))
        (folder / "data.mdb").write_bytes(bytes(broken))
        try:
            source = open_source(folder)
            for name in source.list_images().name:
                source.read(name)
            pipe.send("harmless")
        except (DataError, CorruptImageError) as error:
            pipe.send(error.message)


def test_a_damaged_database_leaves_other_data_alone(lupctl: Shell, tmp_path: Path) -> None:
    """Its first leaf says that its values are in pages far beyond the end of the file."""
    raw = tmp_path / "lup" / "raw"
    data = write_lmdb(raw / "bad", {f"{row:02d}": bytes(9_000) for row in range(20)}) / "data.mdb"
    content = bytearray(data.read_bytes())
    for at in range(8192, len(content), 4096):
        if content[at + 10] == 2:
            content[at + 400 : at + 4096] = bytes(3696).replace(b"\0", b"\x7f")
    data.write_bytes(bytes(content))
    (raw / "good").mkdir()
    for row in range(3):
        (raw / "good" / f"{row}.jpg").write_bytes(encode_tiny(row))
    ran = lupctl("data pack bad good")
    assert ran.code == 3
    assert "data.mdb: damaged LMDB (" in ran.err
    assert "hint: copy the database again" in ran.err
    assert len(open_pack(tmp_path / "lup" / "packs" / "good.h5")) == 3
