"""What classes of pictures are called: WordNet ids and folder names become the words that a prompt can say.

The tables in `tables/` hold one class a line: key, name, other keys. A class is found by any of them, whatever its case
and punctuation. Where the names come from, and their licences, stands in tables/README.md.
"""

import logging
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from xfm.sources.files.columns import read_labels

logger = logging.getLogger(__name__)

_NUMBER = re.compile(r"-?\d{1,9}")
TABLES = ("eurosat", "imagenet", "imagenette", "tiny_imagenet")


class ClassTable(NamedTuple):
    """Classes in the order of their numbers."""

    keys: tuple[str, ...]  # WordNet ids or folder names
    names: tuple[str, ...]  # what the classes are called
    words: dict[str, int]  # number of a class by everything it may be written as, in lower case without punctuation

    def find(self, word: str, *, is_number: bool = False) -> str | None:
        """The name of the class that a word, or a number in digits, means; None where it means none."""
        number = int(word) if is_number else self.words.get(_plain(word), -1)
        return self.names[number] if 0 <= number < len(self.names) else None


@lru_cache(maxsize=len(TABLES))
def read_table(name: str) -> ClassTable:
    """One of `TABLES`."""
    text = (files("xfm.sources") / "tables" / f"{name}.tsv").read_text(encoding="utf-8")
    rows = [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]
    words: dict[str, int] = {}
    for column in (0, 2, 1):  # a key means one class; of classes with one name, the first is meant by it
        for number, row in enumerate(rows):
            for word in row[column].split("|") if column < len(row) else ():
                words.setdefault(_plain(word), number)
    return ClassTable(tuple(row[0] for row in rows), tuple(row[1] for row in rows), words)


def name_classes(
    values: Sequence[Any], stated: Sequence[str], given: Sequence[str], table: ClassTable | None
) -> tuple[list[str | None], dict[int, str]]:
    """Labels as names, and "CODE: why" of every row whose label is none.

    Args:
        values: numbers or words; missing ones and, where classes have names, -1 are no label.
        stated: names of the classes 0, 1, ... as the file states them; an underscore in them is read as a space.
        given: names of the classes as the user states them; they overrule the others and stay as they are.
        table: turns those names, or else the values themselves, into its own.
    """
    words, problems = read_labels(values, given or stated)
    if table is None:
        return [word if word is None or given else word.replace("_", " ") for word in words], problems
    names: list[str | None] = []
    for row, word in enumerate(words):
        is_number = word is not None and not (given or stated) and _NUMBER.fullmatch(word) is not None
        names.append(None if word is None or word == "-1" else table.find(word, is_number=is_number))
        if names[row] is None and word not in (None, "-1"):
            size = f"{len(table.keys)} classes, {table.keys[0]} to {table.keys[-1]}"
            problems[row] = f"BAD_LABEL: {word!r} is no class of the table ({size})"
    return names, problems


def duplicates(keys: Sequence[str], names: Sequence[str | None]) -> dict[str, list[str]]:
    """Names that several classes share, each with the keys of those classes."""
    shared: dict[str, list[str]] = {}
    for key, name in zip(keys, names, strict=True):
        if name is not None:
            shared.setdefault(name, []).append(key)
    return {name: found for name, found in shared.items() if len(found) > 1}


def warn_of_duplicates(keys: Sequence[str], names: Sequence[str | None]) -> None:
    """Logs every name that several classes share: no prompt tells them apart."""
    for name, found in duplicates(keys, names).items():
        logger.warning("%d classes are called %r and become one: %s", len(found), name, ", ".join(found))


def _plain(word: str) -> str:
    return re.sub(r"[^a-z0-9]", "", word.lower())
