"""Answers of a server that lies about length, ranges, names, and where the file went."""

from random import Random
from typing import Any

from tests.hostile.runner import Case, Place
from tests.hostile.values import number, text
from tests.tools.tiny.images import encode_tiny

HEADERS = ("Content-Length", "Content-Range", "ETag", "Last-Modified", "Content-Disposition", "Location", "Content-Encoding", "Retry-After", "Transfer-Encoding", "Set-Cookie", "Content-Type", "Accept-Ranges", "X-Linked-Size", "x-linked-etag", "Age")


def make(draw: Random, place: Place) -> Case:
    """A file from a server."""
    more: dict[str, Any] = {"headers": {}}
    for _ in range(draw.choice((0, 1, 1, 2))):
        more["headers"][draw.choice(HEADERS)] = _header(draw)
    if draw.random() < 0.4:
        more["statuses"] = [draw.choice((100, 199, 204, 206, 301, 302, 307, 400, 401, 403, 404, 410, 416, 418, 429, 451, 500, 503, 599, 999))] * draw.choice((1, 9))
    if draw.random() < 0.3:
        more["cuts"] = [draw.choice((0, 1, 100, 500))] * draw.choice((1, 9))
    more["claimed"] = draw.choice((0, 0, 0, 5, -5, 2**40, 2**70, -(2**31)))
    more["chunked"] = draw.random() < 0.2
    name = draw.choice(("a.jpg", "a.zip", "x", "a.tar.gz", "%2e%2e%2foutside", "..%5coutside", "%00", "a%0ab", "%1b%5d0;x%07.jpg", "a" * 300 + ".jpg", "%ff.jpg", "", "?name=../../outside", ".lupctl.json"))
    url = place.serve(name, encode_tiny(1), **more)
    if draw.random() < 0.2:
        part = place.work / "lup" / "raw" / "mine" / ".lupctl-part" / "a.jpg" / "a.jpg.part"
        part.parent.mkdir(parents=True)
        part.write_bytes(encode_tiny(1)[:100])
        part.with_name("a.jpg.part.json").write_text(draw.choice(('{"url": 3}', "[]", "null", '{"url": "' + url + '", "etag": 3, "modified": null, "total": "x"}', '{"url": "' + url + '", "etag": [], "modified": {}, "total": 1e999}', "[" * 100_000, '{"url": "' + url + '", "etag": "\\"a\\"", "modified": "", "total": -5}')))
    return Case(["data", "download", "mine", "--url", url, "--quiet", *draw.choice(([], [], ["--json"], ["--sha256", "0" * 64], ["--dry-run"]))])


def _header(draw: Random) -> str:
    kind = draw.randrange(3)
    if kind == 0:
        return str(number(draw)) if draw.random() < 0.8 else "9" * 5_000
    if kind == 1:
        cleaned = text(draw).replace("\n", "").replace("\r", "").replace("\0", "")
        return cleaned.encode("latin-1", "replace").decode("latin-1")[:60_000]
    return draw.choice(("bytes 0-9/10", "bytes */*", "bytes 9-0/5", "bytes ²-³/9", "bytes 0-99999999999999999999/99999999999999999999", "bytes 100-794/795", 'attachment; filename="../../outside"', "attachment; filename*=UTF-8''%2e%2e%2foutside", "gzip", "chunked", 'W/"x"', '"' + "x" * 9_000 + '"', "http://127.0.0.1:9/", "file:///etc/passwd", "gopher://x", "//", "http://[::1", "http://\x80/"))
