"""Sentences from Parquet, JSON lines or CSV files: a file, a folder, a pattern, or a data set on the Hub."""

from collections.abc import Iterator, Mapping
from typing import ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import field_validator

from xfm.core.schema import TEXT
from xfm.sources.files.columns import SPLIT, Layout, Outline, read_labels
from xfm.sources.files.found import DataFile, find_files, resolve
from xfm.sources.files.rows import RowFiles
from xfm.sources.files.text_columns import lay_out
from xfm.sources.files.text_table import SUFFIXES, outline, read_rows

BATCH_ROWS = 1024


class HubText(RowFiles):
    """Sentences with labels, from files or from the Hugging Face Hub."""

    content: ClassVar[pa.Field] = pa.field(TEXT, pa.string())

    kind: Literal["hub_text"] = "hub_text"
    path: str
    """A .parquet, .jsonl or .csv file, a folder of them (train.parquet, test.parquet, ...), a pattern, or
    hf://datasets/OWNER/NAME[@REVISION][/PATTERN]. Row ids are FILE/ROW."""
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

    def _good(self, file: DataFile) -> tuple[Outline, Layout]:
        found = outline(file.path, file.name, self.encoding)
        return found, lay_out(
            found, file.name, split=file.split, text_column=self.text_column, label_column=self.label_column,
            label_names=self.label_names, obs=self.obs,
        )  # fmt: skip

    def _range(self, file: DataFile, layout: Layout, key: str, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        for piece in read_rows(file.path, file.name, self.encoding, layout.columns, start, stop):
            batch = self._batch(piece.table, piece.problems, piece.start, file, layout, key)
            for low in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(low, BATCH_ROWS)

    def _picked(self, file: DataFile, layout: Layout, key: str, rows: NDArray[np.int64]) -> pa.Table:
        low = int(rows.min())
        return pa.Table.from_batches(self._range(file, layout, key, low, int(rows.max()) + 1)).take(rows - low)

    def _cut(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        yield from table.to_batches(BATCH_ROWS)

    def _batch(
        self, table: pa.Table, problems: Mapping[int, str], start: int, file: DataFile, layout: Layout, shard: str
    ) -> pa.RecordBatch:
        """Rows as they leave the source; those without a text or with a label out of range carry the reason."""
        n = table.num_rows
        texts = table[layout.content].cast(pa.string()).to_pylist()
        reasons: dict[int, str] = {
            row: "EMPTY_TEXT: there is no text to read" for row, text in enumerate(texts) if not (text and text.strip())
        }
        obs: dict[str, pa.Array] = {}
        for name, kind in layout.obs.items():
            if name == SPLIT and name not in table.column_names:
                obs[name] = pa.repeat(pa.scalar(file.split, pa.string()), n)
            elif name == layout.label:
                words, wrong = read_labels(table[name].to_pylist(), layout.class_names)
                reasons = wrong | reasons
                obs[name] = pa.array(words, pa.string())
            else:
                obs[name] = table[name].cast(kind).combine_chunks()
        reasons |= problems
        arrays = [
            pa.array([f"{file.name}/{row}" for row in range(start, start + n)], pa.string()),
            pa.repeat(pa.scalar(shard, pa.string()), n),
            pa.array([reasons.get(row) for row in range(n)], pa.string()),
            pa.array(texts, pa.string()),
            *obs.values(),
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema(layout))
