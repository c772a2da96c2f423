"""The advice as text: comments and commands, which a shell can run as they stand."""

import textwrap
from pathlib import Path

from lupctl.core.errors import UsageError
from lupctl.core.flows.init.model import Advice

WIDTH = 100


def write_text(advice: Advice) -> str:
    """Comments and commands, in order."""
    seen = advice.seen
    lines = [*_comment(seen.title), *_comment(f"{_describe(advice)}")]
    for step in advice.steps:
        time = "" if step.seconds is None else f"; {say_time(step.seconds)}"
        lines += ["", *_comment(f"{step.about}{time}"), step.command]
    known = [step.seconds for step in advice.steps]
    if len(known) > 1 and None not in known:
        total = sum(second for second in known if second is not None)
        lines += ["", *_comment(f"in all {say_time(total)} on {advice.machine.line}")]
    for title, entries in (("missing", advice.missing), ("then", advice.later)):
        if entries:
            lines += ["", f"# {title}:"]
            for entry in entries:
                lines += _comment(entry, first="#   ", next_="#     ")
    return "\n".join(lines) + "\n"


def write_script(advice: Advice, path: Path, *, force: bool) -> None:
    """Writes the same as a program for the shell, which stops at the first command that fails.

    Raises:
        UsageError: the file exists, and `force` is not given.
        DataError: it cannot be written.
    """
    from lupctl.core.system.disk.atomic import atomic_path

    if path.exists() and not force:
        raise UsageError(f"{path}: exists", hint=f"--force replaces it, or name another: --write {path.stem}-2.sh")
    with atomic_path(path) as partial:
        partial.write_text(f"#!/bin/sh\nset -e\n\n{write_text(advice)}", encoding="utf-8")
        partial.chmod(0o755)


def say_time(seconds: float) -> str:
    """A time in round numbers, as of an estimate.

    >>> [say_time(seconds) for seconds in (2, 34, 372, 10_000, 250_000)]
    ['about 5 s', 'about 35 s', 'about 6 min', 'about 3 h', 'about 3 days']
    """
    for unit, size, limit in (("s", 1, 90), ("min", 60, 90 * 60), ("h", 3600, 48 * 3600)):
        if seconds < limit:
            number = max(5, 5 * round(seconds / 5)) if unit == "s" else round(seconds / size)
            return f"about {number} {unit}"
    return f"about {round(seconds / 86_400)} days"


def _describe(advice: Advice) -> str:
    counts = advice.seen.counts
    if counts is None:
        return f"this machine: {advice.machine.line}"
    roles = {"train": counts.train, "query": counts.queries, "gallery": counts.gallery, "unlabelled": counts.unlabelled}
    there = ", ".join(f"{name} {count:,}" for name, count in roles.items() if count)
    cameras = f"{counts.cameras} camera{'s' if counts.cameras != 1 else ''}" if counts.cameras else "cameras not known"
    persons = "persons not known" if not counts.persons else f"{counts.persons:,} person{'s' * (counts.persons != 1)}"
    return f"{counts.images:,} images{f' ({there})' if there else ''}, {persons}, {cameras}"


def _comment(text: str, *, first: str = "# ", next_: str = "# ") -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=next_, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip
