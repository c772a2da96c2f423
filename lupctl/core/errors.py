"""Errors that a user can meet, one class per exit code.

Every error can be pickled, and sent as text to a process that trusts only text.
"""

import errno
import json
import os
from collections.abc import Sequence
from typing import Final


class LupError(Exception):
    """A failure the user can act on: one line that says what is wrong, one that says what to type.

    Args:
        message: the file or key, what is the case and what was expected; lower case, no full stop.
        hint: one thing to do, usually a command.
    """

    exit_code = 1

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.add_note(f"hint: {hint}")  # the second line of a traceback, where lupctl is used from Python

    def __reduce__(self) -> tuple[type["LupError"], tuple[str, str]]:
        # The default reduction loses the hint; worker processes send these errors through a pipe.
        return type(self), (self.message, self.hint)


class UsageError(LupError):
    """A command line or a recipe that asks for something impossible."""

    exit_code = 2


class DataError(LupError):
    """Data that is missing, corrupt or refused."""

    exit_code = 3


class FormatError(DataError):
    """A file whose content does not match its format."""


class CorruptImageError(FormatError):
    """An encoded image that does not decode, or whose checksum is wrong."""


class GateError(LupError):
    """A score below the one the user demanded."""

    exit_code = 4


class DeviceError(LupError):
    """A device that does not exist, or has no memory left."""

    exit_code = 5


class StoppedError(LupError):
    """A run that was asked to stop and can be continued."""

    exit_code = 75


class InterruptedRunError(StoppedError):
    """A run that was stopped with Ctrl-C and can be continued."""

    exit_code = 130


def raise_all(errors: Sequence[LupError]) -> None:
    """Raises the errors, several as one of the first one's class; does nothing if there are none."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        messages = "\n  ".join(error.message for error in errors)
        raise type(errors[0])(f"{len(errors)} failures:\n  {messages}", hint=errors[0].hint)


def refused_by_system(error: OSError) -> DataError | None:
    """The error for a user when the system refuses a file or a folder; None for errors that are not the system's."""
    if error.errno is None:
        return None
    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    found = DataError(
        f"{where}{'the disk is full' if is_full else (error.strerror or 'refused by the system').lower()}",
        hint="free some space, or name another place with --out or --home"
        if is_full
        else "check that path, its permissions and its disk",
    )
    found.__cause__ = error
    return found


def out_of_memory(error: Exception) -> DeviceError:
    """The error for a user when Python or PyTorch has run out of memory."""
    reason = str(error).partition("\n")[0]
    found = DeviceError(
        f"out of memory ({reason})",
        hint="use less at once: a smaller --batch in training, a smaller --chunk in dump, or fewer --workers",
    )
    found.__cause__ = error
    return found


KINDS: Final[tuple[type[LupError], ...]] = (
    LupError,
    UsageError,
    DataError,
    FormatError,
    CorruptImageError,
    GateError,
    DeviceError,
    StoppedError,
    InterruptedRunError,
)


def write_error(error: LupError) -> str:
    """An error as one line of JSON: its kind, its message and its hint.

    A class that a module defines for itself is written as its base class among `KINDS`.

    >>> write_error(DataError("a.h5: there is no such pack", hint="lupctl data pack"))
    '["DataError", "a.h5: there is no such pack", "lupctl data pack"]'
    """
    kind = next(kind for kind in type(error).__mro__ if kind in KINDS)
    return json.dumps([kind.__name__, error.message, error.hint])


def read_error(text: str) -> LupError:
    """The error that `write_error` wrote.

    >>> read_error('["DeviceError", "no GPU", "--gpus 0"]').exit_code
    5

    Raises:
        ValueError: not such a line, or of an unknown kind.
    """
    name, message, hint = json.loads(text)
    for kind in KINDS:
        if kind.__name__ == name:
            return kind(str(message), str(hint))
    raise ValueError(f"{name!r} is not a kind of error")
