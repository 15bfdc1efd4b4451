"""Which column of a file is the text."""

from collections.abc import Mapping, Sequence

import pyarrow as pa

from xfm.core.errors import ShardRefused
from xfm.sources.files.columns import Layout, Outline, by_name, is_text, lay_out_rows, named

# Names that public data sets give this column, the most common first.
TEXT_NAMES = ("text", "sentence", "review", "content", "document", "comment", "tweet", "utterance", "body")


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
    """Finds the columns of one file of texts; the arguments are those of `lay_out_rows`.

    Raises:
        ShardRefused: NO_COLUMN, NOT_TEXT or BAD_LABEL_COLUMN.
    """
    types = found.types
    text = named(types, text_column, "text column", name) or _text(types, name)
    if not is_text(types[text]):
        others = ", ".join(column for column in types if is_text(types[column])) or "none"
        raise ShardRefused("NOT_TEXT", f"{name}: column {text!r} is {types[text]}; columns of text: {others}")
    return lay_out_rows(
        found, name, text, split=split, label_column=label_column, label_names=label_names, obs=obs
    )  # fmt: skip


def _text(types: Mapping[str, pa.DataType], name: str) -> str:
    texts = [column for column in types if is_text(types[column])]
    if (found := by_name(texts, TEXT_NAMES)) is not None:
        return found
    if len(texts) != 1:
        raise ShardRefused(
            "NO_COLUMN",
            f"{name}: which column is the text? Name it with --source.text_column; columns of text: "
            f"{', '.join(texts) or 'none'}; all columns: {', '.join(types)}",
        )
    return texts[0]
