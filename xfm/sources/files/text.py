"""Sentences from Parquet, JSON lines or CSV files: a file, a folder, a pattern, or a data set on the Hub."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import field_validator

from xfm.core.errors import ShardRefused
from xfm.core.schema import TEXT
from xfm.sources.files.columns import Layout, Outline, Rows, by_name, is_text, named, read_labels
from xfm.sources.files.found import DataFile, find_files, resolve
from xfm.sources.files.rows import RowFiles
from xfm.sources.files.text_table import SUFFIXES, outline, read_rows

# Names that public data sets give the column of the text, the most common first.
TEXT_NAMES = ("text", "sentence", "review", "content", "document", "comment", "tweet", "utterance", "body")
BATCH_ROWS = 1024


class HubText(RowFiles):
    """Sentences with labels, from files or from the Hugging Face Hub."""

    content: ClassVar[pa.Field] = pa.field(TEXT, pa.string())

    kind: Literal["hub_text"] = "hub_text"
    path: str
    """A .parquet, .jsonl or .csv file, a folder of them (train.parquet, test.parquet, ...), a pattern, a folder
    that `datasets` saved (save_to_disk), or hf://datasets/OWNER/NAME[@REVISION][/PATTERN]. Row ids are FILE/ROW."""
    text_column: str | None = None
    """Column of the text; detected by name and type where not given."""
    encoding: str = "utf-8"
    """Of .jsonl and .csv files, e.g. cp1252."""

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError as problem:
            raise ValueError(f"{problem}; e.g. utf-8, cp1252, latin-1") from None
        return encoding

    def _find(self) -> tuple[str, list[DataFile]]:
        return find_files(self.path, SUFFIXES)

    def _resolve(self, location: str) -> DataFile:
        return resolve(location, self.path)

    def _outline(self, file: DataFile) -> Outline:
        return outline(file.path, file.name, self.encoding)

    def _column(self, types: Mapping[str, pa.DataType], name: str) -> str:
        texts = [column for column in types if is_text(types[column])]
        choice = f"columns of text: {', '.join(texts) or 'none'}"
        text = named(types, self.text_column, "text column", name) or by_name(texts, TEXT_NAMES)
        if text is None and len(texts) != 1:
            where = f"{choice}; all columns: {', '.join(types)}"
            raise ShardRefused(
                "NO_COLUMN", f"{name}: which column is the text? Name it with --source.text_column; {where}"
            )
        if text is not None and text not in texts:
            raise ShardRefused("NOT_TEXT", f"{name}: column {text!r} is {types[text]}; {choice}")
        return text or texts[0]

    def _rows(self, file: DataFile, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
        for found in read_rows(file.path, file.name, self.encoding, layout, rows):
            yield found._replace(content=found.content.cast(pa.string()))

    def _empty(self, content: pa.Array) -> dict[int, str]:
        texts = enumerate(content.to_pylist())
        return {row: "EMPTY_TEXT: there is no text to read" for row, text in texts if not (text and text.strip())}

    def _words(self, values: Sequence[Any], layout: Layout) -> tuple[list[str | None], dict[int, str]]:
        return read_labels(values, layout.class_names)

    def _cut(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for low in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(low, BATCH_ROWS)
