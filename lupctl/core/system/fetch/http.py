"""Fetching a file over HTTP: resumed, retried, and never a mixture of two versions."""

import re
import threading
from collections.abc import Generator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue

import requests
import urllib3

from lupctl.core.errors import DataError
from lupctl.core.system.fetch.part import Part, same_version, version_of
from lupctl.core.system.fetch.transfer import (
    ByteBar,
    Patience,
    Stopwatch,
    check_space,
    full_disk_named,
    innermost_reason,
    stopped,
)

CHUNK_BYTES = 1 << 18
POLL_S = 0.05
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
NUMBER = re.compile(r"[0-9]{1,18}")
CONTENT_RANGE = re.compile(rf"bytes ({NUMBER.pattern})-({NUMBER.pattern})/({NUMBER.pattern}|\*)")


class _CutError(Exception):
    """An attempt that failed in a way that the next one may not."""

    def __init__(self, why: str, *, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def fetch_http(
    url: str,
    out: Path,
    *,
    cancel: threading.Event,
    bar: ByteBar,
    patience: Patience | None = None,
    hash_known: bool = False,
) -> Path:
    """Fetch a file, continuing what an earlier call left in `<out>.part`.

    A part is continued only if the server's ETag or time of change shows that the file is still the same, or if its
    hash is known; if the server ignores the range or has another version, the download starts again.

    Args:
        url: http or https; redirects to either are followed.
        out: the complete file's path.
        cancel: set by another thread to stop.
        bar: counts the bytes.
        patience: how often and how long to try.
        hash_known: whether the caller compares a hash afterwards.

    Raises:
        DataError: not an http address, refused by the server, interrupted too often, too slow, or the disk is full;
            what was fetched stays in `<out>.part`.
        StoppedError: `cancel` was set; the same.
    """
    patience = patience or Patience()
    part = Part(out, url, hash_known=hash_known)
    bar.grow(part.size if part.can_continue else 0)
    bar.advance(part.size if part.can_continue else 0)
    farthest, failures = part.size if part.can_continue else 0, 0
    stopwatch = Stopwatch(url, patience)
    with requests.Session() as session, closing(part):
        while not part.is_complete:
            try:
                with full_disk_named(part.path):
                    _Attempt(session, url, part, cancel, bar, patience, stopwatch).run()
                break
            except _CutError as cut:
                failures = 1 if part.size > farthest else failures + 1
                farthest = max(farthest, part.size)
                if failures >= patience.attempts:
                    raise DataError(
                        f"{url}: {cut}, {failures} times in a row; {part.size:,} bytes are kept",
                        hint="type the same command again later; it continues",
                    ) from cut
                if cancel.wait(min(cut.wait_s, patience.most_wait_s) or patience.wait_s(failures)):
                    raise stopped() from cut
        with full_disk_named(part.path):
            part.finish(out)
    return out


class _Attempt:
    """One request, and as much of its response as arrives."""

    def __init__(
        self,
        session: requests.Session,
        url: str,
        part: Part,
        cancel: threading.Event,
        bar: ByteBar,
        patience: Patience,
        stopwatch: Stopwatch,
    ) -> None:
        self.stopwatch = stopwatch
        self.session, self.url, self.part = session, url, part
        self.cancel, self.bar, self.patience = cancel, bar, patience

    def run(self) -> None:
        if self.cancel.is_set():
            raise stopped()
        with self._request() as response, closing(response), _shut_down_on(self.cancel, response):
            total = self._begin(response)
            if total is not None:
                check_space(self.part.path, needed=total - self.part.size)
            for chunk in _chunks(response):
                if self.cancel.is_set():
                    raise stopped()
                if total is not None and self.part.size + len(chunk) > total:
                    self._restart(f"sent more than the {total:,} bytes that it announced")
                self.stopwatch.check(total or self.part.size)
                self.part.append(chunk)
                self.bar.advance(len(chunk))
        if self.cancel.is_set():
            raise stopped()
        if total is not None and self.part.size < total:
            raise _CutError(f"the server announced {total:,} bytes but stopped after {self.part.size:,}")

    @contextmanager
    def _request(self) -> Generator[requests.Response, None, None]:
        # Ranges count stored bytes, so the server is asked not to compress them.
        headers = {"Accept-Encoding": "identity", **self.part.request_headers()}
        try:
            response = self._ask(headers)
        except requests.exceptions.SSLError as error:
            raise DataError(f"{self.url}: the connection is not trusted ({error})", hint="check the address") from error
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
            raise _CutError(f"no answer ({innermost_reason(error)})") from error
        except (requests.RequestException, ValueError) as error:
            raise DataError(
                f"{self.url}: cannot be requested ({error})", hint="give an http or https address"
            ) from error
        yield response

    def _ask(self, headers: dict[str, str]) -> requests.Response:
        """The head of the answer, in a thread: a server may send a letter of it now and then, and requests waits."""
        answers = SimpleQueue[requests.Response | Exception]()

        def ask() -> None:
            try:
                answers.put(self.session.get(self.url, headers=headers, stream=True, timeout=self.patience.timeout_s))
            except Exception as error:
                answers.put(error)

        threading.Thread(target=ask, daemon=True).start()
        while True:
            with suppress(Empty):
                answer = answers.get(timeout=POLL_S)
                break
            if self.cancel.is_set():
                raise stopped()
            self.stopwatch.check(self.part.size)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _begin(self, response: requests.Response) -> int | None:
        """Prepare the part for the bytes that follow; returns the size of the whole file if the server states it."""
        code = response.status_code
        encoding = response.headers.get("Content-Encoding", "identity").lower()
        if code == 200:
            if encoding != "identity" and not self.url.lower().endswith((".gz", ".tgz")):
                raise DataError(
                    f"{self.url}: the server compresses it ({encoding}), so its size cannot be checked",
                    hint="fetch it by hand",
                )
            length = response.headers.get("Content-Length", "")
            total = int(length) if NUMBER.fullmatch(length) else None
            self.bar.advance(-self.part.size if self.part.can_continue else 0)
            self.bar.grow(total or 0)
            self.part.begin(version_of(self.url, response.headers, total=total))
            return total
        if code == 206:
            return self._continue(response)
        if code == 416:
            self._restart("now has a file of another size")
        if code in TRY_AGAIN:
            after = response.headers.get("Retry-After", "")
            raise _CutError(
                f"the server answers {code} {response.reason}", wait_s=float(after) if NUMBER.fullmatch(after) else 0
            )
        raise DataError(
            f"{self.url}: the server answers {code} {response.reason}", hint="check the address, or fetch it by hand"
        )

    def _continue(self, response: requests.Response) -> int | None:
        found = CONTENT_RANGE.fullmatch(response.headers.get("Content-Range", ""))
        before = self.part.version
        if found is None or before is None or int(found[1]) != self.part.size:
            self._restart("sent a range other than the requested one")
        assert found is not None
        assert before is not None
        total = None if found[3] == "*" else int(found[3])
        if not same_version(before, version_of(self.url, response.headers, total=total)):
            self._restart("now has another version")
        if before.total is None:
            self.bar.grow((total or 0) - self.part.size)
        return total if total is not None else before.total

    def _restart(self, why: str) -> None:
        self.bar.advance(-self.part.size)
        self.part.discard()
        raise _CutError(f"the server {why}; started again")


def _chunks(response: requests.Response) -> Generator[bytes, None, None]:
    """The bytes as sent, not decompressed; an error on the way is a cut."""
    while True:
        try:
            # Whatever has arrived, up to this size: a read that waits for all of it would lose it to a kill.
            chunk = response.raw.read1(CHUNK_BYTES, decode_content=False)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise _CutError(f"the connection was cut ({innermost_reason(error)})") from error
        if not chunk:
            return
        yield chunk


@contextmanager
def _shut_down_on(cancel: threading.Event, response: requests.Response) -> Generator[None, None, None]:
    """Abort a read that waits for a silent server as soon as `cancel` is set."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(POLL_S):
            if cancel.is_set():
                with suppress(ValueError, RuntimeError, OSError):
                    response.raw.shutdown()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
