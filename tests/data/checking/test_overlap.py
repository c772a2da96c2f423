"""Images that two packs share: found by keys, confirmed by bytes, whatever collides."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lupctl.core.data.checking.overlap import shared_rows
from lupctl.core.errors import CorruptImageError, DataError, FormatError
from lupctl.core.formats.pack.keys import count_images, read_keys
from lupctl.core.formats.pack.write import write_pack
from lupctl.core.formats.pack.write_shard import PackedImage
from tests.tools.tiny.images import TinyImages

FEW = st.lists(st.sampled_from([b"a", b"b", b"c", b"aa", b"bb", b"abc"]), max_size=12)


def keys_of(images: list[bytes], *, kinds: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Few kinds of keys, so that different images collide all the time."""
    return np.array([zlib.crc32(image) % kinds for image in images], np.uint64)


@settings(max_examples=300, deadline=None)
@given(FEW, FEW, st.integers(1, 5), st.randoms(use_true_random=False))
def test_shared_rows_are_those_of_a_slow_loop(one: list[bytes], other: list[bytes], kinds: int, random: object) -> None:
    rows = np.arange(len(one))[:: 1 + len(other) % 2]
    others = np.arange(len(other))[len(one) % 2 :]
    found = shared_rows(
        keys_of(one, kinds=kinds), rows, keys_of(other, kinds=kinds), others,
        read=one.__getitem__, read_other=other.__getitem__,
    )  # fmt: skip
    expected = [row for row in rows.tolist() if any(one[row] == other[at] for at in others.tolist())]
    assert list(found) == expected


def test_only_candidates_are_read_and_damage_is_not_shared() -> None:
    images = [b"x", b"y", b"z", b"z"]
    read: list[int] = []

    def note(row: int) -> bytes:
        read.append(row)
        if row == 2:
            raise CorruptImageError("row 2 is damaged", hint="pack again")
        return images[row]

    keys = np.array([1, 2, 3, 3], np.uint64)
    found = shared_rows(
        np.array([3, 9, 2], np.uint64), np.arange(3), keys, np.arange(4),
        read=[b"z", b"?", b"other"].__getitem__, read_other=note,
    )  # fmt: skip
    assert list(found) == [0], "row 3 has the bytes that the damaged row 2 has no more"
    assert sorted(read) == [1, 2, 3], "nothing is read of an image whose key nobody has"


def test_keys_tell_checksum_and_length(tmp_path: Path, tiny_images: TinyImages) -> None:
    """In one file and in many: the same keys, in the order of the rows."""
    images = tiny_images(7)
    rows = [
        PackedImage(image, 32, 16, f"{at}.jpg", person=at, camera=1, role="train" if at < 3 else "query")
        for at, image in enumerate(images)
    ]
    one = write_pack(tmp_path / "one.h5", rows, dataset="tiny")
    many = write_pack(tmp_path / "many.h5", rows, dataset="tiny", shard_bytes=2 * len(images[0]))
    assert many.is_dir()
    for path in (one, many):
        keys = read_keys(path)
        assert keys.key.tolist() == [zlib.crc32(image) << 32 | len(image) for image in images]
        assert (keys.person.tolist(), keys.role.tolist()) == (list(range(7)), [1] * 3 + [2] * 4)
        assert count_images(path) == len(keys) == 7
    with pytest.raises(DataError, match="there is no such pack"):
        read_keys(tmp_path / "none.h5")
    one.write_bytes(one.read_bytes()[:2000])
    with pytest.raises(FormatError, match="cut short"):
        count_images(one)
