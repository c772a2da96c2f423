"""`lupctl manual`: the chapters of the manual in the terminal, from the installed package."""

import os
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Annotated

import typer

from lupctl.cli.options import DebugOption, JsonOption, QuietOption
from lupctl.cli.output import print_json, print_table
from lupctl.core.choices import nearest_name
from lupctl.core.errors import UsageError
from lupctl.core.system.printing import as_drawn

# In the order in which a newcomer would read them.
TOPICS = (
    "start", "data", "videos", "pretraining", "finetuning", "unlabelled", "recipes", "evaluation", "models", "clusters",
    "files", "scripts", "python", "security", "people",
)  # fmt: skip
WIDEST = 120  # Lines longer than this are hard to read, however wide the terminal is.


def complete_topic(incomplete: str) -> list[str]:
    """Chapters of the manual, for shell completion."""
    return [topic for topic in TOPICS if topic.startswith(incomplete)]


TopicArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[TOPIC]",
        help="A chapter [default: list them all].",
        autocompletion=complete_topic,
        show_default=False,
    ),
]


def manual(
    topic: TopicArgument = None, json: JsonOption = False, quiet: QuietOption = False, debug: DebugOption = False
) -> None:
    """Shows a chapter of the manual, or lists the chapters. Works offline.

    On a terminal the chapter opens in a pager ($PAGER); piped, it is the Markdown text.

    Examples:

    `lupctl manual`

    `lupctl manual evaluation`
    """
    if topic is None:
        _print_topics(json=json)
        return
    text = read_chapter(topic)
    if json:
        print_json("lupctl.manual-chapter/1", {"topic": topic, "summary": summary(text), "text": text})
    elif sys.stdout.isatty():
        _show_on_terminal(text)
    else:
        print(text, end="")


def read_chapter(topic: str) -> str:
    """The Markdown text of a chapter.

    Raises:
        UsageError: there is no such chapter.
    """
    if topic not in TOPICS:
        guess = nearest_name(topic.lower(), TOPICS)
        raise UsageError(
            f"the manual has no chapter {topic!r}" + (f"; did you mean {guess!r}?" if guess else ""),
            hint=f"lupctl manual {guess}" if guess else "lupctl manual",
        )
    return (manual_folder() / f"{topic}.md").read_text(encoding="utf-8")


def summary(text: str) -> str:
    """What a chapter is about: the first paragraph under its title, on one line.

    >>> summary("# Data\\n\\nGetting images,\\nand packing them.\\n\\nMore.\\n")
    'Getting images, and packing them.'
    """
    return " ".join(text.split("\n\n")[1].split())


def manual_folder() -> Path:
    """The folder of the chapters: package data, next to the code."""
    return Path(str(files("lupctl") / "manual"))


def _print_topics(*, json: bool) -> None:
    summaries = {topic: summary(read_chapter(topic)) for topic in TOPICS}
    if json:
        chapters = [{"topic": topic, "summary": text} for topic, text in summaries.items()]
        print_json("lupctl.manual/1", {"chapters": chapters})
        return
    print_table("", ["chapter", "what it is about"], list(summaries.items()))
    print("read one: lupctl manual TOPIC")


def _show_on_terminal(text: str) -> None:
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console(file=as_drawn(sys.stdout), highlight=False)
    console.width = min(console.width, WIDEST)
    # As in git: less keeps colours, and text that fits on one screen is not paged.
    os.environ.setdefault("LESS", "FRX")
    without_pictures = re.sub(r"^!\[.*\)\n\n?", "", text, flags=re.MULTILINE)
    with console.pager(styles=not console.no_color):
        console.print(Markdown(without_pictures, code_theme="ansi_dark"))
