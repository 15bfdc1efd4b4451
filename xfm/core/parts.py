"""The parts of a split: rows that are trained on, chosen on, scored, or left out.

The numbers are those of the column `part` in stored tokens (`core.schema.PART`).
"""

from enum import IntEnum


class Part(IntEnum):
    """Where a row stands."""

    TRAIN = 0
    VALIDATION = 1
    TEST = 2
    LEFT_OUT = 3
    """A row without a label, or whose part is not stated."""

    @property
    def word(self) -> str:
        """As tables and columns spell it: train, validation, test, left out."""
        return self.name.lower().replace("_", " ")

    @property
    def adjective(self) -> str:
        """As sentences say it, "training rows"."""
        return "training" if self is Part.TRAIN else self.word


TRAIN, VALIDATION, TEST, LEFT_OUT = Part
PARTS = (TRAIN, VALIDATION, TEST)
# What data sets and their files call their parts, in lower case.
SYNONYMS = {
    "train": TRAIN, "training": TRAIN,
    "validation": VALIDATION, "valid": VALIDATION, "val": VALIDATION, "dev": VALIDATION,
    "test": TEST, "testing": TEST,
}  # fmt: skip


def part_of(word: str) -> Part | None:
    """The part that a word of a split column names, in any case; None where it names none."""
    return SYNONYMS.get(word.strip().lower())
