"""A checksum over everything in a file of a pack except the images, which have their own."""

import hashlib
import json
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lupctl.core.formats.pack.samples import Samples
from lupctl.core.formats.pack.shards import Shard

COLUMNS_KEY = "columns"


def digest_columns(
    record: Mapping[str, object],
    *,
    offsets: NDArray[np.int64],
    crc32: NDArray[np.uint32],
    size: NDArray[np.uint16],
    samples: Samples,
) -> str:
    """SHA-256 over a file's record and columns; the record carries it under `columns`.

    Args:
        record: of the file; its own `columns` entry does not count.
        offsets: (n+1) where images begin and end.
        crc32: (n) of the encoded images.
        size: (n, 2) height and width.
        samples: who is in each image.
    """
    # Through JSON and back first: a number used as a key becomes a string when it is read, and is sorted as one.
    plain = json.loads(json.dumps({key: value for key, value in record.items() if key != COLUMNS_KEY}))
    digest = hashlib.sha256(json.dumps(plain, sort_keys=True, ensure_ascii=False).encode())
    for values, kind in (
        (offsets, "<i8"),
        (crc32, "<u4"),
        (size, "<u2"),
        (samples.person, "<i8"),
        (samples.camera, "<i2"),
        (samples.role, "u1"),
    ):
        digest.update(np.ascontiguousarray(values, kind).data)
    for part in samples.name.joined():
        digest.update(part)
    return f"sha256:{digest.hexdigest()}"


def columns_hold(shard: Shard, samples: Samples, size: NDArray[np.uint16]) -> bool:
    """Whether record, labels, names and offsets of a file's images are those that were written.

    Args:
        shard: the file.
        samples: of its n images.
        size: (n, 2) their height and width.
    """
    found = digest_columns(shard.record, offsets=shard.offsets, crc32=shard.crc32, size=size, samples=samples)
    return bool(shard.record.get(COLUMNS_KEY, found) == found)  # packs made before this checksum existed have none
