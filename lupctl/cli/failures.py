"""Command lines that cannot be read: one error line, and the command that was probably meant."""

import re
import shlex
from collections.abc import Sequence
from typing import Any, Final

import typer
from typer.core import TyperGroup, TyperOption

from lupctl.cli.meant import Meant, meant_choice, meant_command, meant_option
from lupctl.core.errors import UsageError

NO_OPTION = re.compile(r"No such option: (-\S+)")
NO_COMMAND = re.compile(r"No such command ['\"](.*?)['\"]\.")
NO_CHOICE = re.compile(r"Invalid value for '(--[\w-]+)'[^:]*: (?:Value error, )?'(.*?)' is not one of (.*)")
MOST_MISTAKES: Final = 8


def names_group(root: Any, arguments: Sequence[str]) -> bool:
    """Whether a command line names a group of commands and nothing more, as `lupctl` and `lupctl data` do."""
    command, words, rest = find_command(root, arguments)
    return isinstance(command, TyperGroup) and not rest and len(words) == len(arguments)


def find_command(root: Any, arguments: Sequence[str]) -> tuple[Any, list[str], list[str]]:
    """The command that the first words of a command line name, those words, and the rest."""
    command, words, rest = root, list[str](), list(arguments)
    while isinstance(command, TyperGroup) and rest and rest[0] in command.commands:
        words.append(rest.pop(0))
        command = command.commands[words[-1]]
    return command, words, rest


def explain(error: typer.TyperException, root: Any, arguments: Sequence[str]) -> UsageError:
    """An error of the command line's reader as one of ours, whose hint is the whole command as it was meant.

    Args:
        error: as Typer raised it.
        root: the whole program as one command.
        arguments: the words after `lupctl`.
    """
    message, fixed, mistakes = _describe(error, root, arguments)
    while fixed is not None and (next_error := check(root, fixed)) is not None:
        mistakes += 1
        fixed = _describe(next_error, root, fixed)[1] if mistakes < MOST_MISTAKES else None
    words = find_command(root, arguments)[1]
    return UsageError(message, hint=shlex.join(["lupctl", *(fixed or [*words, "--help"])]))


def check(root: Any, arguments: Sequence[str]) -> typer.TyperException | None:
    """What is wrong with a command line; nothing is run."""
    command, _, rest = find_command(root, arguments)
    try:
        if isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
            command.resolve_command(typer.Context(command), rest)
        elif not {"--help", "--version"}.intersection(rest):
            command.make_context("lupctl", rest)
    except typer.TyperException as error:
        return error
    return None


def _describe(error: typer.TyperException, root: Any, arguments: Sequence[str]) -> tuple[str, list[str] | None, int]:
    """The message of an error, the command line with that mistake put right, and the number of mistakes so far."""
    command, words, rest = find_command(root, arguments)
    said = error.format_message()
    where = f"{' '.join(words)}: " if words else ""
    if found := NO_OPTION.match(said):
        name, fixed, remark = _put_option_right(command, words, rest, found[1])
        return f"{where}there is no option {name}{remark}", fixed, 1
    if (found := NO_COMMAND.match(said)) and isinstance(command, TyperGroup):
        meant = meant_command(command, found[1])
        fixed = None if meant is None else [*(words if _is_below(command, meant) else ()), *meant, *rest[1:]]
        return f"{where}there is no command {found[1]}", fixed, 1
    if found := NO_CHOICE.match(said):
        choice = meant_choice(found[2], re.findall(r"'([^']+)'", found[3]))
        fixed = None if choice is None else [*words, *_replaced(rest, found[1], found[2], choice)]
        return f"{where}{_sentence(said)}", fixed, 1
    return f"{where}{_sentence(said)}", None, 1


def _put_option_right(
    command: Any, words: Sequence[str], rest: Sequence[str], name: str
) -> tuple[str, list[str] | None, str]:
    """An unknown option as it was typed, the command line without it, and what to say about it."""
    index = next(
        (
            index for index, word in enumerate(rest)
            if word.partition("=")[0] == name or (len(name) == 2 and word.startswith(name))
        ), None,
    )  # fmt: skip
    if index is None:
        return name, None, ""
    typed, equals, value = rest[index].partition("=")
    following = rest[index + 1] if index + 1 < len(rest) else None
    if not equals:
        value = "" if following is None or following.startswith("--") else following
    options = [param for param in command.params if isinstance(param, TyperOption)]
    meant = meant_option(words, options, typed, value or None) or Meant(())
    if not meant.words and not meant.remark:
        return typed, None, ""
    used = 2 if value and not equals and meant.takes_value else 1
    return typed, [*words, *rest[:index], *meant.words, *rest[index + used :]], meant.remark


def _is_below(group: TyperGroup, meant: Sequence[str]) -> bool:
    return meant[0] in group.commands


def _replaced(rest: Sequence[str], option: str, old: str, new: str) -> list[str]:
    """A command line with another value of an option."""
    words = list(rest)
    for index, word in enumerate(words):
        if word == f"{option}={old}":
            words[index] = f"{option}={new}"
        elif word == old and index and words[index - 1] == option:
            words[index] = new
    return words


def _sentence(text: str) -> str:
    """Typer's sentence in our manner: lower case, no full stop, one line."""
    line = " ".join(text.split()).replace("Value error, ", "").replace(": Input", ": input").rstrip(".")
    return line[:1].lower() + line[1:]
