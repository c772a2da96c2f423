"""Small pickles that would take for ever, gigabytes or the stack; each is refused at once, whatever reads it."""

import pickle
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.errors import DataError, FormatError
from lupctl.core.system.disk import unpickling
from lupctl.core.system.disk.pickles import load_arrays, load_plain
from tests.tools.shell import Shell
from tests.tools.tiny.videos import write_video

ENCODE = b"c_codecs\nencode\n"
A_BYTE = ENCODE + b"X\x01\0\0\0aX\x06\0\0\0latin1\x86R"
A_TYPE = b"cnumpy\ndtype\nX\x02\0\0\0u1\x85R"
BOMBS = {
    "a pair of itself, 45 times": b"\x80\x02]K\x01" + b"2\x86" * 45 + b"a.",
    "the same as an argument": b"\x80\x02" + ENCODE + b"X\x01\0\0\0aK\x01" + b"2\x86" * 45 + b"\x86R.",
    "the same from memory": b"\x80\x02K\x01" + b"".join(b"q%ch%c\x86" % (row, row) for row in range(60)) + b".",
    "the same as a key": b"\x80\x02}K\x01" + b"".join(b"q%ch%c\x86" % (row, row) for row in range(60)) + b"Ns.",
    "lists filled from the outside": b"\x80\x02" + b"".join(b"]q%c" % row for row in range(60))
    + b"".join(b"h%ch%cah%ca" % (row, row + 1, row + 1) for row in range(59)) + b".",
    "a list of itself": b"\x80\x02]q\x00h\x00a.",
    "a memory of 2,147,483,647 values": b"\x80\x02]r\xff\xff\xff\x7f.",
    "tuples a million deep": b"\x80\x02)" + b"\x85" * 1_000_000 + b".",
    "lists 100,000 deep": b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".",
    "a number of a gigabyte": b"\x80\x02\x8b\x00\x00\x00\x40.",
    "a number of 100,000 digits": b"I" + b"9" * 100_000 + b"\n.",
    "a number of 80 bits": b"\x80\x02\x8a\x0b" + b"\xff" * 10 + b"\x00.",
    "bytes of 9 exabytes": b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
    "the same text 5,000 times": b"\x80\x02X\x00\x00\x01\x00" + b"a" * 65_536 + b"q\x00("
    + b"".join(ENCODE + b"h\x00X\x06\0\0\0latin1\x86R" for _ in range(5_000)) + b"t.",
    "an array of 33 sides": b"\x80\x02cnumpy.core.numeric\n_frombuffer\n(" + A_BYTE + A_TYPE
    + b"(" + b"K\x01" * 33 + b"tX\x01\0\0\0CtR.",
    "no end of its list": b"\x80\x02K\x01(.",
    "two values": b"\x80\x02K\x01K\x02.",
    "an item of nothing": b"\x80\x02a.",
    "a call of a text": b"\x80\x02X\x01\0\0\0a)R.",
    "a call with a list": b"\x80\x02" + ENCODE + b"]R.",
    "a state for a list": b"\x80\x02]}b.",
    "a name of numbers": b"\x80\x04K\x01K\x02\x93.",
    "what is not in memory": b"\x80\x02h\x05.",
    "a hole of the memory": b"\x80\x02Nq\x02h\x01.",
}  # fmt: skip


@pytest.mark.parametrize("load", [load_plain, load_arrays])
@pytest.mark.parametrize("name", BOMBS)
def test_bombs(name: str, load: Any, tmp_path: Path) -> None:
    path = tmp_path / "keys.pkl"
    path.write_bytes(BOMBS[name])
    before, started_at = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(DataError) as caught:
        load(path)
    assert time.process_time() - started_at < 5
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 << 10, "KiB"
    assert len(caught.value.message) < 500


def test_bombs_on_a_command_line(lupctl: Shell, tmp_path: Path) -> None:
    lmdb = pytest.importorskip("lmdb")
    folder = tmp_path / "m"
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as change:
        change.put(b"a", b"b")
    (folder / "keys.pkl").write_bytes(BOMBS["a pair of itself, 45 times"])
    ran = lupctl("data pack m --layout lmdb")
    assert ran.code == 3
    assert "keys.pkl: not a whole pickle of plain data (the operation DUP, which data never needs)" in ran.err
    write_video(tmp_path / "v" / "a.avi")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "a.pkl").write_bytes(BOMBS["the same as an argument"])
    ran = lupctl("data build x --videos v --detections d --format luperson")
    assert ran.code == 3
    assert "a.pkl: not a whole pickle of plain data" in ran.err


def test_limits_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "keys.pkl"
    monkeypatch.setattr(unpickling, "MOST_OPERATIONS", 1000)
    monkeypatch.setattr(unpickling, "MOST_CONTAINERS", 50)
    path.write_bytes(pickle.dumps(list(range(900))))
    assert len(load_plain(path)) == 900
    path.write_bytes(pickle.dumps(list(range(1000))))
    with pytest.raises(FormatError, match="more than 1,000 operations"):
        load_plain(path)
    path.write_bytes(pickle.dumps([[] for _ in range(49)]))
    assert len(load_plain(path)) == 49
    path.write_bytes(pickle.dumps([[] for _ in range(50)]))
    with pytest.raises(FormatError, match="more than 50 lists, tuples and the like"):
        load_plain(path)


def test_what_data_shares_is_read(tmp_path: Path) -> None:
    """The same entry for many frames, as trackers write them, and the same text and array everywhere."""
    box, name = [1.0, 2.0, 3.0, 4.0], "bbox of a person"
    entry = {name: box, "pair": (box, box), "array": np.arange(4.0)}
    held = {frame: [[0, entry], [1, {name: box}]] for frame in range(2_000)}
    for protocol in (0, 2, 4, 5):
        path = tmp_path / "v.pkl"
        path.write_bytes(pickle.dumps(held, protocol))
        back = load_arrays(path)
        assert back.keys() == held.keys()
        assert back[1999][0][1]["pair"] == (box, box)
        assert back[7][0][1]["array"].tolist() == [0, 1, 2, 3]
        assert back[7][0][1] is back[8][0][1]


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary(min_size=1)
)
PLAIN: st.SearchStrategy[Any] = st.deferred(
    lambda: (
        LEAVES | st.lists(PLAIN, max_size=4) | st.tuples(PLAIN, PLAIN) | st.dictionaries(st.text(), PLAIN, max_size=3)
    )
)


@settings(max_examples=30, deadline=None)
@given(held=PLAIN, protocol=st.sampled_from(range(pickle.HIGHEST_PROTOCOL + 1)))
def test_any_data_comes_back_as_pickle_reads_it(
    held: Any, protocol: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("any") / "a.pkl"
    path.write_bytes(pickle.dumps(held, protocol))
    assert load_arrays(path) == held


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_bytes_are_data_or_refused(data: st.DataObject, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A whole pickle with some bytes changed: what comes back is plain, and nothing else is raised."""
    protocol = data.draw(st.sampled_from(range(pickle.HIGHEST_PROTOCOL + 1)))
    held = {"keys": ["a", "b"], 7: [(1, 2.5), {"x": None}, {3, 4}, b"raw", np.arange(3)]}
    content = bytearray(pickle.dumps(held, protocol))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("any") / "a.pkl"
    path.write_bytes(bytes(content))
    with suppress(DataError):
        assert type(load_arrays(path)) in {dict, list, tuple, str, int, float, bytes, type(None), bool, set}
