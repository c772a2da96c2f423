"""Person numbers of datasets that count from 0, and from 0 again in the test set.

In a pack person 0 is a distractor, -1 is junk, and one number is one person. MSMT17 counts its training persons from 0,
and its test persons, who are other people, from 0 again. Its numbers are shifted by fixed amounts, so that a person has
the same number in a part of the dataset as in the whole.
"""

from typing import Final

from lupctl.core.choices import Role

TRAIN_OFFSET: Final = 1
TEST_OFFSET: Final = 10_001
# Key in a pack's `source` for the number that was added to the dataset's own training numbers.
OFFSET_FACT: Final = "train_offset"
DESCRIPTION: Final = (
    "persons are counted from 0, and from 0 again in the test set: in the pack, 1 is added to the training numbers and "
    "10,001 to those of query and gallery; there is no distractor"
)
FACTS: Final[dict[str, object]] = {OFFSET_FACT: TRAIN_OFFSET, "test_offset": TEST_OFFSET}


def move_person(person: int, role: Role) -> int:
    """A person's number in the pack; junk stays junk.

    >>> move_person(0, "train"), move_person(0, "query"), move_person(-1, "gallery")
    (1, 10001, -1)
    """
    if person < 0:
        return person
    return person + (TRAIN_OFFSET if role == "train" else TEST_OFFSET)
