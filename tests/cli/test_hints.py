"""Every hint in the code, whether a test reaches it or not: the commands and options it names exist."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

import lupctl
from lupctl.cli.app import app
from tests.tools.hints import HintText, collect_hints

HINTS = collect_hints(Path(lupctl.__file__).parent)
ROOT = typer.main.get_command(app)
OPTION = re.compile(r"(?<![\w-])--[a-z][\w-]*")
# What a person does by hand, not at a prompt: at files, at other programs, at other machines.
BY_HAND = re.compile(
    r"(ask|check|choose|copy|delete|download|extract|fetch|find|free|get|give|inspect|join|keep|make|move|name|number|open|pack|"
    r"put|quote|read|remove|stop|rename|repair|replace|save|set|start|train|try|type|unpack|use|wait|write|leave|ls|mv|rm|pip|"
    r"iconv|unzip|export|if you trust it|add|pick|look|do not|did you mean|as in|often|the same command|then|without|"
    r"with) ?"
)
# What a person writes in Python, who has called `lupctl.load`.
IN_PYTHON = re.compile(r"net\.\w+\(|array\.\w+\(|sorted\(|\w+=|scale |load ")
# What was expected in a file, which nothing at a prompt can change.
FORMATS = re.compile(
    r"expected|X|known|one line|lines such as|the (header|roles)|an? |files|nothing|detections must|at most|otherwise"
)


def options_of(command: Any) -> set[str]:
    return {"--help", *(option for param in command.params for option in (*param.opts, *param.secondary_opts))}


def walk(command: Any) -> Iterator[Any]:
    yield command
    for below in getattr(command, "commands", {}).values():
        yield from walk(below)


ALL_OPTIONS = {option for command in walk(ROOT) for option in options_of(command)}
# Of other programs: the archiver's, torchrun's.
OTHER_OPTIONS = {"--out"}


def find_command(text: str) -> tuple[Any, str]:
    """The command at the start of a text without `lupctl `, None if there is none, and the words after it."""
    command, rest = ROOT, text
    while hasattr(command, "commands"):
        word, rest = re.match(r"[\w-]*", rest), rest.lstrip()
        assert word is not None
        if word[0] == "X":
            return ROOT, ""
        if word[0] not in command.commands:
            return None, rest
        command, rest = command.commands[word[0]], rest[word.end() :].lstrip()
    return command, rest


def test_hints_are_found() -> None:
    assert len(HINTS) > 300
    assert len({hint.where for hint in HINTS}) > 250


def wrong_names(hint: HintText) -> Iterator[str]:
    """The commands and options of a hint that lupctl does not have."""
    for piece in hint.text.split("lupctl ")[1:]:
        if not re.match(r"[a-z]", piece):
            continue
        command, rest = find_command(piece)
        if command is None:
            yield f"{hint.where}: no such command: {hint.text}"
            continue
        for option in OPTION.findall(re.split(r"[,;(:]|\bor\b", rest)[0]):
            if option not in options_of(command):
                yield f"{hint.where}: {command.name} has no {option}: {hint.text}"
    for option in OPTION.findall(hint.text):
        if option not in ALL_OPTIONS | OTHER_OPTIONS:
            yield f"{hint.where}: no command has {option}: {hint.text}"


def test_a_hint_names_commands_and_options_that_exist() -> None:
    assert [wrong for hint in HINTS for wrong in wrong_names(hint)] == []


def test_a_hint_is_one_line_with_something_to_type_or_to_do() -> None:
    untidy = [
        hint
        for hint in HINTS
        if hint.text != hint.text.strip() or "\n" in hint.text or re.search(r"\w\.$", hint.text) or not hint.text
    ]
    assert untidy == []
    idle = [
        hint
        for hint in HINTS
        if not ("lupctl " in hint.text or OPTION.search(hint.text))
        and not (BY_HAND.match(hint.text) or FORMATS.match(hint.text))
        and not (hint.where.startswith("core/stages/embed/") and IN_PYTHON.match(hint.text))
    ]
    assert idle == [], "nothing to type or to do"
