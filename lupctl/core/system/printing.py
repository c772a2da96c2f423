"""Text on its way to a terminal: what would steer one instead of being shown is escaped, and lines have an end.

Names of files, texts in files and answers of servers reach messages; a name may hold `\\x1b]0;…`, which sets a window's
title, a line end, or half a character.
"""

import io
import json
import re
from typing import Final, TextIO

# Control characters, invisible ones and those that reverse the direction of text, and halves of characters.
STEERING: Final = (
    r"\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    r"\U000e0000-\U000e0fff"
)
IN_TEXT: Final = re.compile(f"[{STEERING}]")
IN_LINE: Final = re.compile(rf"[\t\n{STEERING}]")
# A path has at most 4,096 bytes, and few messages have more than one.
MOST_LETTERS: Final = 2_000


def visible(text: str) -> str:
    r"""A text of several lines in which every character is one that can be seen.

    Escapes are those of JSON, so that a JSON document stays what it is.

    >>> print(visible("a\x1b[31m.jpg"))
    a\u001b[31m.jpg
    """
    return IN_TEXT.sub(_escape, text)


def one_line(text: str, *, most: int = MOST_LETTERS) -> str:
    r"""The same for a text that has to be a line: ends of lines and tabs are escaped, and the middle is left out.

    >>> one_line("a\nb"), one_line("abcdefghij", most=5)
    ('a\\nb', 'ab … ij')

    Args:
        text: any text.
        most: its letters after escaping, without the mark of what is left out.
    """
    line = IN_LINE.sub(_escape, text[:most] + text[-most:] if len(text) > 2 * most else text)
    half = most // 2
    return f"{line[:half]} … {line[-half:]}" if max(len(line), len(text)) > most else line


def _escape(found: re.Match[str]) -> str:
    return json.dumps(found[0])[1:-1]


class VisibleStream(io.TextIOBase):
    """A stream of text that shows what is written to it, and does nothing that it says.

    Args:
        inner: the stream to write to.
    """

    def __init__(self, inner: TextIO) -> None:
        super().__init__()
        self.inner = inner

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream below, as libraries ask for it."""
        return self.inner.encoding or "utf-8"

    def write(self, text: str, /) -> int:
        """Writes a text, with what the stream's encoding does not have as `?`."""
        shown = visible(text)
        if not self.encoding.lower().startswith("utf"):
            shown = shown.encode(self.encoding, "replace").decode(self.encoding)
        self.inner.write(shown)
        return len(text)

    def writable(self) -> bool:
        """It is."""
        return True

    def flush(self) -> None:
        """Flushes the stream below."""
        self.inner.flush()

    def isatty(self) -> bool:
        """Whether the stream below is a terminal."""
        return self.inner.isatty()

    def fileno(self) -> int:
        """The descriptor of the stream below."""
        return self.inner.fileno()


def as_drawn(stream: TextIO) -> TextIO:
    """The stream below, for what draws on a terminal on purpose and escapes names itself: tables, bars, pages."""
    return stream.inner if isinstance(stream, VisibleStream) else stream
