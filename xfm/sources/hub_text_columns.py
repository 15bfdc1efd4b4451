"""Which column of a file is the text, which the label, and what a label's number is called."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pyarrow as pa

from xfm.core.errors import ShardRefused
from xfm.sources.gene_table import missing
from xfm.sources.hub_text_table import Outline

# Names that public data sets give these columns, the most common first.
TEXT_NAMES = ("text", "sentence", "review", "content", "document", "comment", "tweet", "utterance", "body")
LABEL_NAMES = ("label", "labels", "sentiment", "target", "class", "category", "polarity")
SPLIT = "split"


class Layout(NamedTuple):
    """How a file is read.

    Attributes:
        text: column of the text.
        label: column of the label, None where there is none.
        class_names: what the label's numbers mean; empty where that is not known.
        columns: what has to be read of the file: the text and the obs columns that lie in it.
        obs: type of every obs column asked for, in the order asked for.
    """

    text: str
    label: str | None
    class_names: tuple[str, ...]
    columns: tuple[str, ...]
    obs: Mapping[str, pa.DataType]


def lay_out(
    found: Outline,
    name: str,
    *,
    split: str | None,
    text_column: str | None,
    label_column: str | None,
    label_names: Sequence[str],
    obs: Sequence[str],
) -> Layout:
    """Finds the columns of one file.

    Args:
        found: what the file holds.
        name: of the file, for messages.
        split: the split that its name states.
        text_column, label_column: named by the user, or None to detect them.
        label_names: named by the user; else those that the file states.
        obs: columns to carry along.

    Raises:
        ShardRefused: NO_COLUMN, NOT_TEXT or BAD_LABEL_COLUMN.
    """
    types = found.types
    text = _named(types, text_column, "text column", name) or _text(types, name)
    if not is_text(types[text]):
        others = ", ".join(column for column in types if is_text(types[column])) or "none"
        raise ShardRefused("NOT_TEXT", f"{name}: column {text!r} is {types[text]}; columns of text: {others}")
    label = _named(types, label_column, "label column", name) or _label(found)
    kinds: dict[str, pa.DataType] = {}
    for column in obs:
        in_file = _named({SPLIT: pa.string(), **types} if split else types, column, "column", name)
        assert in_file is not None
        as_text = column in (label, SPLIT) or is_text(types.get(column, pa.string()))
        kinds[column] = pa.string() if as_text else types[column]
    names: tuple[str, ...] = ()
    if label is not None:
        if label in obs and not _is_class(types[label]):
            raise ShardRefused(
                "BAD_LABEL_COLUMN", f"{name}: column {label!r} is {types[label]}; a label is a number or a word"
            )
        names = tuple(label_names) or found.class_names.get(label, ())
    return Layout(text, label, names, tuple(dict.fromkeys([text, *(c for c in obs if c in types)])), kinds)


def read_labels(values: Sequence[Any], names: Sequence[str]) -> tuple[list[str | None], dict[int, str]]:
    """Labels as words, and "CODE: why" of every row whose label is none.

    Args:
        values: numbers or words. Missing, empty and, where classes have names, -1 are no label: so data sets of the Hub
            withhold the answers of a test split.
        names: of the classes; without them a number stands for itself.
    """
    words: list[str | None] = []
    problems: dict[int, str] = {}
    known = {name: name for name in names} | {str(i): name for i, name in enumerate(names)}
    for row, value in enumerate(values):
        plain = int(value) if isinstance(value, float) and value.is_integer() else value
        if plain is None or plain == "" or (isinstance(plain, float) and math.isnan(plain)):
            words.append(None)
        elif not names:
            words.append(str(plain))
        elif str(plain) in ("-1", *known):
            words.append(known.get(str(plain)))
        else:
            words.append(None)
            shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
            problems[row] = f"BAD_LABEL: {value!r} is none of 0 to {len(names) - 1} ({shown})"
    return words, problems


def is_text(kind: pa.DataType) -> bool:
    """Whether a column of this type holds strings."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value) or pa.types.is_string_view(value))


def _is_class(kind: pa.DataType) -> bool:
    plain = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)
    return bool(plain or is_text(kind) or pa.types.is_null(kind))


def _named(types: Mapping[str, pa.DataType], column: str | None, what: str, name: str) -> str | None:
    if column is not None and column not in types:
        raise ShardRefused("NO_COLUMN", f"{name}: {missing(what, column, list(types))}")
    return column


def _text(types: Mapping[str, pa.DataType], name: str) -> str:
    texts = [column for column in types if is_text(types[column])]
    by_name = {column.lower(): column for column in reversed(texts)}
    for word in TEXT_NAMES:
        if word in by_name:
            return by_name[word]
    if len(texts) != 1:
        raise ShardRefused(
            "NO_COLUMN",
            f"{name}: which column is the text? Name it with --source.text_column; columns of text: "
            f"{', '.join(texts) or 'none'}; all columns: {', '.join(types)}",
        )
    return texts[0]


def _label(found: Outline) -> str | None:
    by_name = {column.lower(): column for column in reversed(list(found.types))}
    stated = list(found.class_names)
    return next((by_name[word] for word in LABEL_NAMES if word in by_name), stated[0] if len(stated) == 1 else None)
