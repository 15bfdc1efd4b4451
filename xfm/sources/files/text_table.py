"""Rows of one file of texts: Parquet by row groups, JSON lines and CSV as a whole.

JSON lines and CSV are cut at b"\\n" only. Other ends of line (U+0085, which is "..." in Windows-1252, U+2028) do occur
inside sentences, where `str.splitlines` would cut them in two.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from xfm.core.errors import ShardRefused
from xfm.sources.files.columns import Outline
from xfm.sources.files.parquet import open_parquet, outline_parquet, stamp

SUFFIXES = (".parquet", ".jsonl", ".csv")


class Piece(NamedTuple):
    """Consecutive rows of a file.

    Attributes:
        start: number of the first.
        table: the columns asked for.
        problems: row number in `table` to "CODE: why" for rows that cannot be read.
    """

    start: int
    table: pa.Table
    problems: Mapping[int, str]


def outline(path: Path, name: str, encoding: str) -> Outline:
    """What a file holds; a file that has not changed since is not read again.

    Raises:
        ShardRefused: NO_SUCH_FILE, DAMAGED_FILE, NO_ROWS or BAD_ENCODING.
    """
    return _outline(*stamp(path, name), name, encoding)


def read_rows(path: Path, name: str, encoding: str, columns: Sequence[str], start: int, stop: int) -> Iterator[Piece]:
    """Some columns of the rows from start to stop, piece by piece.

    Raises:
        ShardRefused: as `outline`.
    """
    if path.suffix != ".parquet":
        whole = _parsed(*stamp(path, name), name, encoding)
        problems = {row - start: why for row, why in whole.problems.items() if start <= row < stop}
        yield Piece(start, whole.table.select(columns).slice(start, stop - start), problems)
        return
    with open_parquet(path, name) as file:
        first = 0
        for group in range(file.num_row_groups):
            rows = file.metadata.row_group(group).num_rows
            low, high = max(start, first), min(stop, first + rows)
            if low < high:
                table = file.read_row_group(group, columns=list(columns)).slice(low - first, high - low)
                table.validate(full=True)  # strings that are no UTF-8, before anything reads them
                yield Piece(low, table, {})
            first += rows


@lru_cache(maxsize=1024)
def _outline(path: Path, size: int, modified_ns: int, name: str, encoding: str) -> Outline:
    if path.suffix == ".parquet":
        return outline_parquet(path, name)
    table = _parsed(path, size, modified_ns, name, encoding).table
    if not table.column_names:
        raise ShardRefused("NO_ROWS", f"{name} is empty")
    return Outline(table.num_rows, dict(zip(table.schema.names, table.schema.types, strict=True)), {})


@lru_cache(maxsize=2)
def _parsed(path: Path, size: int, modified_ns: int, name: str, encoding: str) -> Piece:  # noqa: ARG001
    """All rows of a JSON lines or CSV file; a worker reads many shards of one file."""
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as problem:
        other = "cp1252" if codecs.lookup(encoding).name == "utf-8" else "utf-8"
        raise ShardRefused(
            "BAD_ENCODING", f"{name} is not {encoding}: {problem}. Name its encoding, e.g. --source.encoding {other}"
        ) from problem
    return _json_lines(text, name) if path.suffix == ".jsonl" else _csv(text, name)


def _json_lines(text: str, name: str) -> Piece:
    rows: list[dict[str, Any]] = []
    problems: dict[int, str] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except ValueError as problem:
            value, why = None, str(problem)
        else:
            why = f"it is {type(value).__name__}"
        if not isinstance(value, dict):
            problems[len(rows)] = f"BAD_ROW: line {number} is no JSON object ({why})"
            value = {}
        rows.append(value)
    if rows and len(problems) == len(rows):
        raise ShardRefused("DAMAGED_FILE", f"{name}: no line is a JSON object; {problems[0].removeprefix('BAD_ROW: ')}")
    columns = dict.fromkeys(key for row in rows for key in row)
    return Piece(0, pa.table({key: _column([row.get(key) for row in rows]) for key in columns}), problems)


def _column(values: list[Any]) -> pa.Array:
    """An Arrow column; values of several types become text, numbers as JSON writes them."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])


def _csv(text: str, name: str) -> Piece:
    """All values are text."""
    reader = csv.reader(io.StringIO(text, newline="\n"), strict=True)
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
        raise ShardRefused(
            "DAMAGED_FILE", f"{name} cannot be read as CSV: line {reader.line_num}: {problem}"
        ) from problem
    if len(set(header)) != len(header):
        raise ShardRefused("DAMAGED_FILE", f"{name}: the header repeats a name: {', '.join(header)}")
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(header)
    arrays = {key: pa.array(column, pa.string()) for key, column in zip(header, columns, strict=True)}
    return Piece(0, pa.table(arrays), problems)
