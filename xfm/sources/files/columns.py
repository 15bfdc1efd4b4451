"""What a file of rows holds, how it is read, and what a label's number is called: common to texts and pictures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from xfm.core.errors import ShardRefused
from xfm.sources.gene_table import missing

# Names that public data sets give a label, the most common first.
LABEL_NAMES = ("label", "labels", "cls", "fine_label", "sentiment", "target", "class", "category", "polarity")
IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".tif", ".tiff", ".bmp", ".gif",
)  # fmt: skip


class Outline(NamedTuple):
    """What a file holds."""

    rows: int  # exact number
    types: Mapping[str, pa.DataType]  # of every column
    # of every column whose classes the file names, in the order of their numbers
    class_names: Mapping[str, tuple[str, ...]]


class Layout(NamedTuple):
    """How a file is read."""

    content: str  # column of the text or the picture
    label: str | None  # column of the label, None where there is none
    class_names: tuple[str, ...]  # what the label's numbers mean; empty where that is not known
    columns: tuple[str, ...]  # what has to be read of the file: the content and the obs columns that lie in it
    obs: Mapping[str, pa.DataType]  # type of every obs column asked for, in the order asked for
    origin: Mapping[str, str]  # column of the file that each obs column is, where their names differ


class Rows(NamedTuple):
    """Some rows of a file, as each format hands them on."""

    ids: Sequence[str]  # of the rows
    content: pa.Array  # the text or the encoded picture; null where there is none
    columns: Mapping[str, pa.Array]  # the obs columns that lie in the file, by their names there
    problems: Mapping[int, str]  # row number in `ids` to "CODE: why" for rows that cannot be read


def read_labels(values: Sequence[Any], names: Sequence[str]) -> tuple[list[str | None], dict[int, str]]:
    """Labels as words, and "CODE: why" of every row whose label is none.

    Args:
        values: numbers or words. Missing, empty and, where classes have names, -1 are no label: so data sets of the Hub
            withhold the answers of a test split.
        names: of the classes; without them a number stands for itself. A word that is a name is that class, even where
            it looks like a number.
    """
    words: list[str | None] = []
    problems: dict[int, str] = {}
    numbers = {str(i): name for i, name in enumerate(names)}
    known = numbers | {name: name for name in names}
    for row, value in enumerate(values):
        plain = int(value) if isinstance(value, float) and value.is_integer() else value
        is_missing = plain is None or plain == "" or (isinstance(plain, float) and math.isnan(plain))
        meaning = known if isinstance(plain, str) else numbers
        words.append(None if is_missing else meaning.get(str(plain)) if names else str(plain))
        if words[row] is None and not is_missing and str(plain) != "-1":
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            problems[row] = f"BAD_LABEL: {value!r} is none of 0 to {len(names) - 1} ({shown})"
    return words, problems


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def is_class(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold labels."""
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(plain or is_text(kind) or pa.types.is_null(kind))


def named(types: Mapping[str, pa.DataType], column: str | None, what: str, name: str) -> str | None:
    """A column that was asked for by name. Raises ShardRefused: NO_COLUMN, with the columns there are."""
    if column is not None and column not in types:
        raise ShardRefused("NO_COLUMN", f"{name}: {missing(what, column, list(types))}")
    return column


def by_name(columns: Sequence[str], words: Sequence[str]) -> str | None:
    """The first of some words that is a column, whatever its case."""
    found = {column.lower(): column for column in reversed(columns)}
    return next((found[word] for word in words if word in found), None)


def find_label(found: Outline) -> str | None:
    """The column of the label: by its name, else the only one whose classes have names."""
    only = next(iter(found.class_names)) if len(found.class_names) == 1 else None
    return by_name(list(found.types), LABEL_NAMES) or only
