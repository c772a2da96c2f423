"""Typing what a hint says, as a person would who takes it at its word."""

import ast
import difflib
import re
import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.tools.shell import Ran, Shell

# Where the command in a hint ends and the explanation begins.
AFTERWARDS = re.compile(
    r"[,;:?]( |$)| \(| or | (then|makes|shows|gives|lists|writes|prints|reads|runs|takes|first|trains|scores)( |$)"
)
PLACEHOLDER = re.compile(r"\b(RUN|PACK|DATASET|FOLDER|FILE|NAME|IMAGE|NUMBER)\b")
# What would take minutes is only planned: a plan meets the same errors.
PLANNED = ("finetune", "pretrain", "demo")


@dataclass(frozen=True)
class Mistake:
    """What a command that went wrong said.

    Args:
        code: exit code.
        error: the line after `error: `.
        hint: the line after `hint: `.
    """

    code: int
    error: str
    hint: str


@dataclass
class Followed:
    """A command and what came of its hints, typed one after the other.

    Args:
        lines: what was typed.
        mistakes: one for each line but the last, if that one worked.
        last: what the last line did.
    """

    lines: list[str] = field(default_factory=list)
    mistakes: list[Mistake] = field(default_factory=list)
    last: Ran | None = None


def read_mistake(ran: Ran) -> Mistake:
    """The one error line and the one hint of a failed command; anything else is an assertion error."""
    lines = ran.err.rstrip("\n").splitlines()
    errors = [line for line in lines if line.startswith("error: ")]
    hints = [line for line in lines if line.startswith("hint: ")]
    assert len(errors) == len(hints) == 1, ran.err
    assert lines[-2:] == [errors[0], hints[0]], ran.err
    return Mistake(ran.code, errors[0].removeprefix("error: "), hints[0].removeprefix("hint: "))


def type_hint(line: str, mistake: Mistake, fills: Mapping[str, str]) -> list[str]:
    """The lines that a person types who follows a hint; those of lupctl without its name, others with `$ ` in front.

    Args:
        line: the command that went wrong.
        mistake: what it said.
        fills: what the person means by RUN, FOLDER and such.
    """
    hint = PLACEHOLDER.sub(lambda found: fills.get(found[0], found[0]), mistake.hint)
    if meant := re.match(r"did you mean (.+?)\?", hint):
        return [_replace_wrong_word(line, mistake.error, meant[1])]
    if "type the same command again" in hint and (shell := re.match(r"(?:mv|rm) [^,;]+", hint)):
        return [f"$ {shell[0]}", line]
    if left_out := re.match(r"leave (\S+) out", hint):
        return [_leave_out(line, left_out[1])]
    if (start := hint.find("lupctl ")) >= 0:
        words = _up_to_the_explanation(hint[start + len("lupctl ") :])
        planned = " --dry-run" if words.split()[0] in PLANNED and "--dry-run" not in words else ""
        return [words + planned]
    if another := re.search(r"name another (?:place with )?(--[\w-]+)", hint):
        plain = "--force" if hint.startswith("add --force") else f"{another[1]} elsewhere/other.png"
        return [f"{line} {plain}"]
    if (start := hint.find("--")) >= 0:
        return [_add_options(line, _up_to_the_explanation(hint[start:]))]
    if shell := re.match(r"(ls|mv|rm|pip) .+", hint):
        return [f"$ {_up_to_the_explanation(shell[0])}"]
    raise AssertionError(f"a hint that cannot be typed: {mistake.hint}")


def follow(shell: Shell, line: str, fills: Mapping[str, str], *, most: int = 1) -> Followed:
    """Types a command and then what the hints say, until one works or `most` hints were followed.

    Every hint has to lead on: the same error twice is an assertion error.
    """
    followed, waiting = Followed(), [line]
    while waiting:
        typed = waiting.pop(0)
        if typed.startswith("$ "):
            _run_in_shell(typed.removeprefix("$ "))
            continue
        followed.lines.append(typed)
        followed.last = shell(typed)
        if followed.last.code == 0:
            continue
        mistake = read_mistake(followed.last)
        seen = [one.error for one in followed.mistakes]
        assert mistake.error not in seen, f"the hint leads back: {followed.lines}: {mistake.error}"
        followed.mistakes.append(mistake)
        if len(followed.mistakes) > most:
            break
        waiting = type_hint(typed, mistake, fills)
    return followed


def _replace_wrong_word(line: str, error: str, meant: str) -> str:
    """The line with the word that the error names replaced by the one that was meant."""
    words = shlex.split(line)
    named = [word for word in words if word.partition("=")[0] in error] or words
    alike = max(named, key=lambda word: (difflib.SequenceMatcher(None, word, meant).ratio(), len(word)))
    if len(named) > 1 and difflib.SequenceMatcher(None, alike, meant).ratio() < 0.5:
        alike = max(named, key=len)
    at = max(index for index, word in enumerate(words) if word == alike)  # what is named twice was meant the first time
    return shlex.join([*words[:at], meant, *words[at + 1 :]])


def _up_to_the_explanation(text: str) -> str:
    found = AFTERWARDS.search(text)
    return (text[: found.start()] if found else text).strip()


def _add_options(line: str, options: str) -> str:
    """The line with options added, or replaced where it has them."""
    words, added = shlex.split(line), shlex.split(options)
    name, repeated = added[0], ("--set", "--data")
    if name in words and name not in repeated:
        at = words.index(name)
        takes_value = at + 1 < len(words) and not words[at + 1].startswith("--")
        words = words[:at] + words[at + 1 + takes_value :]
    return shlex.join([*words, *added])


def _leave_out(line: str, name: str) -> str:
    """The line without a word, and without its value if it is an option that has one."""
    words = shlex.split(line)
    at = words.index(name)
    takes_value = name.startswith("--") and at + 1 < len(words) and not words[at + 1].startswith("--")
    return shlex.join([*words[:at], *words[at + 1 + takes_value :]])


def _run_in_shell(words: str) -> None:
    command, *paths = shlex.split(words)
    match command:
        case "ls":
            assert Path(paths[0]).exists()
        case "mv":
            Path(paths[0]).rename(paths[1])
        case "rm":
            target = Path(paths[-1])
            shutil.rmtree(target) if target.is_dir() and not target.is_symlink() else target.unlink()
        case _:
            raise AssertionError(f"not typed in a test: {words}")


@dataclass(frozen=True)
class HintText:
    """A hint as it is written in the code, with X where a value is put in."""

    where: str
    text: str


def collect_hints(package: Path) -> list[HintText]:
    """Every hint in a package, as far as its text can be read without running it; both ends of a choice."""
    found = []
    for path in sorted(package.rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        constants = dict[str, list[str]]()
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                constants.setdefault(node.targets[0].id, []).extend(_texts(node.value, {}))
        for node in ast.walk(tree):
            values = list[ast.expr]()
            if isinstance(node, ast.keyword) and node.arg == "hint":
                values.append(node.value)
            if isinstance(node, ast.FunctionDef) and "hint" in node.name:
                values += [one.value for one in ast.walk(node) if isinstance(one, ast.Return) and one.value is not None]
            for value in values:
                where = f"{path.relative_to(package)}:{value.lineno}"
                found += [HintText(where, text) for text in _texts(value, constants)]
    return found


def _texts(node: ast.expr, constants: Mapping[str, list[str]]) -> list[str]:
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.JoinedStr(values=parts):
            texts = [""]
            for part in parts:
                ends = _texts(part.value if isinstance(part, ast.FormattedValue) else part, {}) or ["X"]
                texts = [text + end for text in texts for end in ends]
            return texts
        case ast.IfExp(body=body, orelse=orelse):
            return [*_texts(body, constants), *_texts(orelse, constants)]
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return [a + b for a in _texts(left, constants) for b in _texts(right, constants)]
        case ast.Name(id=name):
            return constants.get(name, [])
        case _:
            return []
