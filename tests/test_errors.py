"""Errors on their way from one process to another."""

import pickle

import pytest

from lupctl.core import errors
from lupctl.core.errors import KINDS, FormatError, LupError, read_error, write_error


class LocalError(FormatError):
    """As a module may have one for itself."""


def test_the_table_names_every_kind() -> None:
    defined = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, LupError)}
    assert set(KINDS) == defined
    assert len(KINDS) == len(defined)


@pytest.mark.parametrize("kind", [*KINDS, LocalError], ids=lambda kind: kind.__name__)
def test_a_pickled_error_keeps_kind_message_and_hint(kind: type[LupError]) -> None:
    error = pickle.loads(pickle.dumps(kind('ä.h5: 3 "images"\nmissing', hint="lupctl data pack")))
    assert type(error) is kind
    assert (error.message, error.hint, str(error)) == ('ä.h5: 3 "images"\nmissing', "lupctl data pack", error.message)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_a_written_error_keeps_kind_message_and_hint(kind: type[LupError]) -> None:
    text = write_error(kind('ä.h5: 3 "images"\nmissing', hint="lupctl data pack"))
    assert "\n" not in text
    error = read_error(text)
    assert type(error) is kind
    assert (error.message, error.hint) == ('ä.h5: 3 "images"\nmissing', "lupctl data pack")


def test_a_kind_of_one_module_is_written_as_what_it_is_derived_from() -> None:
    assert type(read_error(write_error(LocalError("a", hint="b")))) is FormatError


@pytest.mark.parametrize("text", ['["OSError", "a", "b"]', '["DataError", "a"]', "{", '["__class__", "a", "b"]'])
def test_other_text_is_no_error(text: str) -> None:
    with pytest.raises(ValueError, match=r"kind|unpack|Expecting"):
        read_error(text)
