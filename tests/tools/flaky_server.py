"""A local web server that misbehaves as asked, for the tests of downloads."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Page:
    """A file on the server, and how it is served.

    Args:
        content: the bytes.
        cuts: after how many bytes of the answer each of the next answers is cut; then no more cuts.
        ranges: whether ranges are honoured.
        if_range: whether `If-Range` is honoured.
        etag: gives an ETag, which follows the content.
        modified: the time of change it states.
        claimed: added to the length it states.
        statuses: what the next answers are instead of the file.
        then: replaces the content after the first answer.
        headers: more headers.
        silent: says nothing any more after so many bytes, and does not hang up.
        chunked: sends no length.
        pause_s: waits this long after each byte of the answer.
        slow_head: sends headers, now and then, for ever.
    """

    content: bytes
    cuts: list[int] = field(default_factory=list)
    ranges: bool = True
    if_range: bool = True
    etag: bool = True
    modified: str = ""
    claimed: int = 0
    statuses: list[int] = field(default_factory=list)
    then: bytes | None = None
    headers: dict[str, str] = field(default_factory=dict)
    silent: int | None = None
    chunked: bool = False
    pause_s: float = 0.0
    slow_head: bool = False
    asked: list[dict[str, str]] = field(default_factory=list)

    @property
    def mark(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()[:8]}"'


class Server(ThreadingHTTPServer):
    """Pages by their path."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.pages: dict[str, Page] = {}
        self.over = threading.Event()

    def add(self, path: str, content: bytes, **more: Any) -> Page:
        self.pages[path] = Page(content, **more)
        return self.pages[path]

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}{path}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        return  # a client that hangs up is part of the tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        return

    def do_GET(self) -> None:
        page = self.server.pages.get(self.path.partition("?")[0])
        if page is None:
            self.send_error(404)
            return
        page.asked.append(dict(self.headers.items()))
        if page.slow_head:
            self.wfile.write(b"HTTP/1.1 200 OK\r\n")
            while not self.server.over.wait(0.02):
                self.wfile.write(b"X: y\r\n")
            return
        if page.statuses:
            self._answer(page, page.statuses.pop(0), b"", {})
            return
        content, etag, total = page.content, page.mark, len(page.content)
        if page.then is not None:
            page.content, page.then = page.then, None
        headers = {"ETag": etag} if page.etag else {}
        if page.modified:
            headers["Last-Modified"] = page.modified
        wanted = self.headers.get("Range", "")
        condition = self.headers.get("If-Range")
        same = condition is None or not page.if_range or condition in (etag, page.modified)
        if wanted and page.ranges and same:
            start = int(wanted.removeprefix("bytes=").partition("-")[0])
            if start >= total:
                self._answer(page, 416, b"", {"Content-Range": f"bytes */{total}"})
                return
            headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
            self._answer(page, 206, content[start:], headers)
        else:
            self._answer(page, 200, content, headers)

    def _answer(self, page: Page, code: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, **page.headers}.items():
            self.send_header(name, value)
        if not page.chunked:
            self.send_header("Content-Length", str(len(content) + (page.claimed if code < 300 else 0)))
        self.close_connection = True
        self.send_header("Connection", "close")
        self.end_headers()
        cut = page.cuts.pop(0) if page.cuts and code < 300 else None
        if page.silent is not None:
            self.wfile.write(content[: page.silent])
            self.wfile.flush()
            self.server.over.wait(30)
            return
        for byte in content if page.pause_s else b"":
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            if self.server.over.wait(page.pause_s):
                return
        if not page.pause_s:
            self.wfile.write(content if cut is None else content[:cut])
            self.wfile.flush()


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()
        thread.join()
