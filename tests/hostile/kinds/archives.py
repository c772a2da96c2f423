"""Archives from a server: bombs, escapes, links, devices, duplicates, and names."""

import io
import tarfile
import zipfile
from random import Random

from tests.hostile.runner import Case, Place
from tests.hostile.values import encodable, mutate, number_text
from tests.tools.tiny.images import encode_tiny

ESCAPES = (
    "../outside",
    "../../outside",
    "/tmp/lupctl-outside",
    "a/../../outside",
    "..\\outside",
    "C:outside",
    "./../outside",
)
TYPES = (
    tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.GNUTYPE_SPARSE, b"?",
)  # fmt: skip
HEADERS = ("mtime", "size", "uid", "path", "GNU.sparse.map", "GNU.sparse.size", "GNU.sparse.major")
OWN = (".lupctl.json", "sub/.lupctl.json", ".lupctl-part/lock", ".lupctl-hashes/x")


def make(draw: Random, place: Place) -> Case:
    """An archive to download and unpack."""
    suffix = draw.choice((".zip", ".tar", ".tar.gz", ".tar.bz2", ".tar.xz", ".tgz", ".7z", ".zip.001"))
    content = _zip(draw) if suffix.startswith(".zip") else _tar(draw, suffix)
    if draw.random() < 0.4:
        content = mutate(draw, content)
    url = place.serve(f"x{suffix}", content)
    return Case(["data", "download", draw.choice(("mine", "market1501")), "--accept-terms", "--url", url, "--quiet"])


def _name(draw: Random) -> str:
    kind = draw.randrange(5)
    if kind == 0:
        return draw.choice(ESCAPES)
    if kind == 1:
        return draw.choice(OWN)
    if kind == 2:
        return encodable(draw)
    return draw.choice(("a.jpg", "a.jpg", "sub/b.jpg", "sub", "a.jpg/b", "A.jpg", "./a.jpg", "sub/"))


def _zip(draw: Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", draw.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for seed in range(draw.randrange(1, 4)):
            info = zipfile.ZipInfo(_name(draw) or "x", (1980, 1, 1, 0, 0, 0))
            if draw.random() < 0.3:
                info.external_attr = draw.choice((0o120777, 0o020644, 0o010644, 0o140644)) << 16
            if draw.random() < 0.2:
                info.date_time = (1980, draw.choice((0, 13)), 31, 25, 61, 62)
            try:
                archive.writestr(info, encode_tiny(seed) if draw.random() < 0.9 else bytes(1 << 20))
            except (ValueError, UserWarning, OSError):
                continue
    return buffer.getvalue()


def _tar(draw: Random, suffix: str) -> bytes:
    buffer = io.BytesIO()
    mode = {".tar.gz": "w:gz", ".tgz": "w:gz", ".tar.bz2": "w:bz2", ".tar.xz": "w:xz"}.get(suffix, "w")
    kind = draw.choice((tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=buffer, mode=mode, format=kind) as archive:  # type: ignore[call-overload]
        for seed in range(draw.randrange(1, 4)):
            info = tarfile.TarInfo(_name(draw) or "x")
            content = encode_tiny(seed)
            info.size = len(content)
            if draw.random() < 0.3:
                info.type = draw.choice(TYPES)
                info.linkname = draw.choice(("/etc/passwd", "../outside", "a.jpg"))
                info.size = 0
            if draw.random() < 0.4:
                info.pax_headers = {draw.choice(HEADERS): draw.choice((number_text(draw), encodable(draw)))}
            try:
                archive.addfile(info, io.BytesIO(content))
            except (ValueError, OSError):
                continue
    return buffer.getvalue()
