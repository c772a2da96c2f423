"""What a features file records of the number type of the passes that made it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

PRECISION_KEY: Final = "precision"
JOINED_BY: Final = " + "


def read_precisions(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The types as options call them: one of a file, perhaps more of several; none where nothing is recorded.

    >>> read_precisions({"precision": "float32 + bfloat16"}), read_precisions({"precision": 16})
    (('float32', 'bf16'), ())
    """
    found = record.get(PRECISION_KEY)
    if not isinstance(found, str):
        return ()
    return tuple("bf16" if name == "bfloat16" else name for name in found.split(JOINED_BY))


def join_precisions(records: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The entry for several files together; nothing where none has one."""
    found = dict.fromkeys(record[PRECISION_KEY] for record in records if isinstance(record.get(PRECISION_KEY), str))
    return {PRECISION_KEY: JOINED_BY.join(found)} if found else {}


def describe_bf16_features(record: Mapping[str, Any], dataset: str) -> str:
    """What there is to say of features that were not all computed in float32; nothing of others."""
    found = read_precisions(record)
    if "bf16" not in found:
        return ""
    return f"the features of {dataset} were computed in {' and '.join(found)}: scores differ a little from float32's"
