"""Sentences from Parquet, JSON lines or CSV files: a file, a folder, a pattern, or a data set on the Hub.

JSON lines and CSV are cut at b"\\n" only. Other ends of line (U+0085, which is "..." in Windows-1252, U+2028) do occur
inside sentences, where `str.splitlines` would cut them in two.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import field_validator

from xfm.core.errors import ShardRefused
from xfm.core.hub import Place
from xfm.core.schema import TEXT
from xfm.sources.files import parquet
from xfm.sources.files.columns import Layout, Outline, Rows, by_name, is_text, named
from xfm.sources.files.found import DataFile
from xfm.sources.files.rows import RowFiles
from xfm.sources.paths import stamp

# Names that public data sets give the column of the text, the most common first.
TEXT_NAMES = ("text", "sentence", "review", "content", "document", "comment", "tweet", "utterance", "body")
BATCH_ROWS = 1024
LONGEST = 2**31 - 1  # characters of a value in CSV; Python's own limit is 131,072
SEPARATORS = (";", "\t", "|", ",")

_Whole = tuple[pa.Table, dict[int, str]]  # all rows, and "CODE: why" of those that cannot be read


class HubText(RowFiles):
    """Sentences with labels, from files or from the Hugging Face Hub."""

    content: ClassVar[tuple[str, pa.DataType]] = (TEXT, pa.string())
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".jsonl", ".csv", ".tsv")

    kind: Literal["hub_text"] = "hub_text"
    path: Place
    """A .parquet, .jsonl, .csv or .tsv file, a folder of them (train.parquet, test.parquet, ...), a pattern, a folder
    that `datasets` saved (save_to_disk), or hf://datasets/OWNER/NAME[@REVISION][/PATTERN]. Row ids are FILE/ROW."""
    text_column: str | None = None
    """Column of the text; detected by name and type where not given."""
    encoding: str = "utf-8"
    """Of .jsonl, .csv and .tsv files, e.g. cp1252. A byte order mark of UTF-16 is understood without it."""
    separator: str | None = None
    """What parts the values of a line: by default a comma in .csv and a tab in .tsv; ";" where a comma is decimal."""

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError as problem:
            raise ValueError(f"{problem}; e.g. utf-8, cp1252, latin-1") from None
        return encoding

    @field_validator("separator")
    @classmethod
    def _one_letter(cls, separator: str | None) -> str | None:
        meant = {"tab": "\t", "\\t": "\t"}.get(separator or "", separator)
        if meant is not None and (len(meant) != 1 or meant in '"\r\n'):
            raise ValueError(f"{separator!r} is no single character; e.g. ; or tab")
        return meant

    def _form(self, path: Path) -> tuple[str, str]:
        """Encoding and separator of a file."""
        return self.encoding, self.separator or ("\t" if path.suffix == ".tsv" else ",")

    def _outline(self, file: DataFile) -> Outline:
        if file.path.suffix in parquet.SUFFIXES:
            return parquet.outline(file.path, file.name)
        return _outline(*stamp(file.path, file.name), file.name, *self._form(file.path))

    def _column(self, types: Mapping[str, pa.DataType], name: str) -> str:
        texts = [column for column in types if is_text(types[column])]
        choice = f"columns of text: {', '.join(texts) or 'none'}"
        text = named(types, self.text_column, "text column", name) or by_name(texts, TEXT_NAMES)
        if text is None and len(texts) != 1:
            why = "which column is the text? Name it with --source.text_column"
            raise ShardRefused("NO_COLUMN", f"{name}: {why}; {choice}; all columns: {', '.join(types)}")
        if text is not None and text not in texts:
            raise ShardRefused("NOT_TEXT", f"{name}: column {text!r} is {types[text]}; {choice}")
        return text or texts[0]

    def _rows(self, file: DataFile, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
        if file.path.suffix in parquet.SUFFIXES:
            for found in parquet.read_rows(file.path, file.name, layout, rows):
                yield found._replace(content=found.content.cast(pa.string()))
            return
        table, problems = _parsed(*stamp(file.path, file.name), file.name, *self._form(file.path))
        chosen = table.select(layout.columns).take(rows).combine_chunks()
        columns = {column: chosen[column].combine_chunks() for column in layout.columns}
        unread = {i: problems[row] for i, row in enumerate(rows.tolist()) if row in problems}
        yield Rows([f"{file.name}/{row}" for row in rows], columns[layout.content].cast(pa.string()), columns, unread)

    def _empty(self, content: pa.Array) -> dict[int, str]:
        texts = enumerate(content.to_pylist())
        return {row: "EMPTY_TEXT: there is no text to read" for row, text in texts if not (text and text.strip())}

    def _cut(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for low in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(low, BATCH_ROWS)


@lru_cache(maxsize=1024)
def _outline(path: Path, size: int, modified_ns: int, name: str, encoding: str, separator: str) -> Outline:
    table, _ = _parsed(path, size, modified_ns, name, encoding, separator)
    if not table.column_names:
        raise ShardRefused("NO_ROWS", f"{name} is empty")
    return Outline(table.num_rows, dict(zip(table.schema.names, table.schema.types, strict=True)), {})


@lru_cache(maxsize=2)
def _parsed(path: Path, size: int, modified_ns: int, name: str, encoding: str, separator: str) -> _Whole:  # noqa: ARG001
    """All rows of a JSON lines or CSV file; a worker reads many shards of one file."""
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "utf-16"
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as problem:
        other = "cp1252" if codecs.lookup(encoding).name == "utf-8" else "utf-8"
        why = f"{problem}. Name its encoding, e.g. --source.encoding {other}"
        raise ShardRefused("BAD_ENCODING", f"{name} is not {encoding}: {why}") from problem
    return _json_lines(text, name) if path.suffix == ".jsonl" else _csv(text, name, separator)


def _json_lines(text: str, name: str) -> _Whole:
    rows: list[dict[str, Any]] = []
    problems: dict[int, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            why = f"it is {type(value).__name__}"
        except ValueError as problem:
            value, why = None, str(problem)
        if not isinstance(value, dict):
            problems[len(rows)] = f"BAD_ROW: line {number} is no JSON object ({why})"
        elif "\\u" in line and not _is_whole(value):
            problems[len(rows)] = f"BAD_ROW: line {number} holds half a character (a surrogate without its other half)"
        rows.append({} if len(rows) in problems else value)
    if rows and len(problems) == len(rows):
        raise ShardRefused("DAMAGED_FILE", f"{name}: no line is a JSON object; {problems[0].removeprefix('BAD_ROW: ')}")
    columns = dict.fromkeys(key for row in rows for key in row)
    return pa.table({key: _column([row.get(key) for row in rows]) for key in columns}), problems


def _is_whole(value: dict[str, Any]) -> bool:
    """Whether all text can be written as UTF-8; half of an emoji, as tweets are cut, cannot."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _column(values: list[Any]) -> pa.Array:
    """An Arrow column; values of several types become text, numbers as JSON writes them."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([value if isinstance(value, str | None) else json.dumps(value) for value in values])


def _csv(text: str, name: str, separator: str) -> _Whole:
    """All values are text, as long as they like."""
    csv.field_size_limit(LONGEST)
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True, delimiter=separator)
    rows: list[list[str]] = []
    problems: dict[int, str] = {}
    try:
        header = next(reader, [])
        for row in reader:
            if row and len(row) != len(header):
                problems[len(rows)] = f"BAD_ROW: line {reader.line_num} has {len(row)} values, the header {len(header)}"
            if row:
                rows.append((row + [""] * len(header))[: len(header)])
    except csv.Error as problem:
        why = f"line {reader.line_num}: {problem}"
        raise ShardRefused("DAMAGED_FILE", f"{name} cannot be read as CSV: {why}") from problem
    if len(header) == 1 and (other := [each for each in SEPARATORS if each != separator and each in header[0]]):
        shown = {"\t": "a tab"}.get(other[0], repr(other[0]))
        why = f"its header is one column that holds {shown}. Say what parts the values, e.g. --source.separator "
        raise ShardRefused("SEPARATOR", f"{name}: {why}{'tab' if other[0] == chr(9) else repr(other[0])}")
    if len(set(header)) != len(header):
        raise ShardRefused("DAMAGED_FILE", f"{name}: the header repeats a name: {', '.join(header)}")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    arrays = {key: pa.array(column, pa.string()) for key, column in zip(header, columns, strict=True)}
    return pa.table(arrays), problems
