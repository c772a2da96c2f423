"""Several failures of one command."""

from collections.abc import Sequence

from lupctl.core.errors import LupError


def raise_all(errors: Sequence[LupError]) -> None:
    """Raises what went wrong, several failures as one of the first one's kind."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        messages = "\n  ".join(error.message for error in errors)
        raise type(errors[0])(f"{len(errors)} failures:\n  {messages}", hint=errors[0].hint)
