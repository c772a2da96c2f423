"""Answers of a server that lies about length, ranges, names, and where the file went."""

import json
from random import Random
from typing import Any

from tests.hostile.runner import Case, Place
from tests.hostile.values import as_json, number_text, spoil, text
from tests.tools.tiny.images import encode_tiny

HEADERS = (
    "Content-Length", "Content-Range", "ETag", "Last-Modified", "Content-Disposition", "Location", "Content-Encoding",
    "Retry-After", "Transfer-Encoding", "Set-Cookie", "Content-Type", "Accept-Ranges", "Age",
)  # fmt: skip
VALUES = (
    "bytes 0-9/10", "bytes */*", "bytes 9-0/5", "bytes ²-³/9", f"bytes 0-{'9' * 20}/{'9' * 20}", "bytes 100-794/795",
    'attachment; filename="../../outside"', "attachment; filename*=UTF-8''%2e%2e%2foutside", "gzip", "chunked", 'W/"x"',
    '"' + "x" * 9_000 + '"', "http://127.0.0.1:9/", "file:///etc/passwd", "gopher://x", "//", "http://[::1",
    "http://\x80/",
)  # fmt: skip
CODES = (100, 199, 204, 206, 301, 302, 307, 400, 401, 403, 404, 410, 416, 418, 429, 451, 500, 503, 599, 999)
NAMES = (
    "a.jpg", "a.jpg", "a.zip", "x", "a.tar.gz", "%2e%2e%2foutside", "..%5coutside", "%00", "a%0ab", "%1b%5d0;x%07.jpg",
    "a" * 300 + ".jpg", "%ff.jpg", "", "?name=../../outside", ".lupctl.json",
)  # fmt: skip
OPTIONS = ("", "", "--json", f"--sha256 {'0' * 64}", "--dry-run", "--force")


def make(draw: Random, place: Place) -> Case:
    """A file from a server."""
    more: dict[str, Any] = {
        "headers": {draw.choice(HEADERS): _header(draw) for _ in range(draw.choice((0, 1, 1, 2)))},
        "claimed": draw.choice((0, 0, 0, 5, -5, 2**40, 2**70, -(2**31))),
        "chunked": draw.random() < 0.2,
    }
    if draw.random() < 0.4:
        more["statuses"] = [draw.choice(CODES)] * draw.choice((1, 9))
    if draw.random() < 0.3:
        more["cuts"] = [draw.choice((0, 1, 100, 500))] * draw.choice((1, 9))
    url = place.serve(draw.choice(NAMES), encode_tiny(1), **more)
    if draw.random() < 0.2:
        part = place.work / "lup" / "raw" / "mine" / ".lupctl-part" / "a.jpg" / "a.jpg.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(encode_tiny(1)[:100])
        note = {"url": url, "etag": '"a"', "modified": "", "total": 795}
        written = as_json(spoil(draw, note, times=draw.choice((1, 2)))) if draw.random() < 0.8 else json.dumps(note)
        part.with_name("a.jpg.part.json").write_text(written)
    options = draw.choice(OPTIONS).split()
    return Case(["data", "download", "mine", "--url", url, "--quiet", *options], changes=("lup/raw/mine/.lupctl-part",))


def _header(draw: Random) -> str:
    cleaned = text(draw).translate({10: None, 13: None, 0: None}).encode("latin-1", "replace").decode("latin-1")
    return draw.choice((number_text(draw), cleaned[:60_000], draw.choice(VALUES)))
