"""What reaches a terminal can be seen, and does nothing to it."""

import io
import json
import unicodedata

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lupctl.cli.output import print_error, print_table
from lupctl.core.errors import DataError, raise_all
from lupctl.core.system.printing import VisibleStream, one_line, visible

# However slow the machine is.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# Every character, halves of pairs and controls among them, and these often.
TEXTS = st.text(st.characters(codec=None) | st.sampled_from("\x1b\x07\x9b\r\n\t\x7f\u202e\u2028\ud800"))


@UNHURRIED
@given(TEXTS)
def test_nothing_in_a_line_steers(text: str) -> None:
    line = one_line(text)
    assert not any(unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") for letter in line)
    assert len(line) < 2_100
    line.encode("utf-8")


@UNHURRIED
@given(st.recursive(TEXTS | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(TEXTS, inner)))
def test_a_json_document_stays_what_it_is(document: object) -> None:
    assert json.loads(visible(json.dumps(document, ensure_ascii=False))) == document


def test_what_can_be_seen_stays() -> None:
    plain = "Zürich/人/foto 1.jpg — [b]:smile: 🦊 µ²"
    assert one_line(plain) == visible(plain) == plain
    assert visible("a\tb\nc") == "a\tb\nc"
    assert one_line("a\tb\nc") == r"a\tb\nc"


def test_a_long_line_keeps_both_ends() -> None:
    line = one_line("begin " + "x" * 10**6 + " end")
    assert line.startswith("begin xxx")
    assert line.endswith("xxx end")
    assert len(line) == 2_003


def test_a_stream_escapes_and_replaces() -> None:
    plain = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    print("ü\x1b]0;x\x07", file=VisibleStream(plain), flush=True)
    assert plain.buffer.getvalue() == b"?\\u001b]0;x\\u0007\n"


def test_an_error_is_a_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    print_error(DataError("a\nerror: b", hint="c\x1b[2J\nhint: d"))
    assert capsys.readouterr().err == "error: a\\nerror: b\nhint: c\\u001b[2J\\nhint: d\n"
    with pytest.raises(DataError) as raised:
        raise_all([DataError("one", hint="x"), DataError("two\n", hint="y")])
    print_error(raised.value)
    assert capsys.readouterr().err == "error: 2 failures:\n  one\n  two\\n\nhint: x\n"


def test_a_table_shows_markup_and_emoji_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("[/b]\x1b]0;x", ["na\x07me"], [["[bold]x[/red]"], [":smile:"], ["a\x1b[31m\nb"]], note="[/i]")
    out = capsys.readouterr().out
    for text in ("[/b]", "[bold]x[/red]", r"[/b]\u001b]0;x", r"na\u0007me", ":smile:", r"a\u001b[31m\nb", "[/i]"):
        assert text in out
