"""Rows of one file of texts: Parquet and Arrow by batches, JSON lines and CSV as a whole.

JSON lines and CSV are cut at b"\\n" only. Other ends of line (U+0085, which is "..." in Windows-1252, U+2028) do occur
inside sentences, where `str.splitlines` would cut them in two.
"""

import codecs
import csv
import io
import json
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import ShardRefused
from xfm.sources.files import parquet
from xfm.sources.files.columns import Layout, Outline, Rows
from xfm.sources.files.parquet import stamp

SUFFIXES = (".parquet", ".jsonl", ".csv")

_Whole = tuple[pa.Table, dict[int, str]]  # all rows, and "CODE: why" of those that cannot be read


def outline(path: Path, name: str, encoding: str) -> Outline:
    """What a file holds; a file that has not changed since is not read again.

    Raises:
        ShardRefused: NO_SUCH_FILE, DAMAGED_FILE, NO_ROWS or BAD_ENCODING.
    """
    return parquet.outline(path, name) if _is_table(path) else _outline(*stamp(path, name), name, encoding)


def read_rows(path: Path, name: str, encoding: str, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
    """Some rows, whose numbers ascend, piece by piece.

    Raises:
        ShardRefused: as `outline`.
    """
    if _is_table(path):
        yield from parquet.read_rows(path, name, layout, rows)
        return
    table, problems = _parsed(*stamp(path, name), name, encoding)
    chosen = table.select(layout.columns).take(rows).combine_chunks()
    columns = {column: chosen[column].combine_chunks() for column in layout.columns}
    found = {i: problems[row] for i, row in enumerate(rows.tolist()) if row in problems}
    yield Rows([f"{name}/{row}" for row in rows], columns[layout.content], columns, found)


def _is_table(path: Path) -> bool:
    return path.suffix in parquet.SUFFIXES


@lru_cache(maxsize=1024)
def _outline(path: Path, size: int, modified_ns: int, name: str, encoding: str) -> Outline:
    table, _ = _parsed(path, size, modified_ns, name, encoding)
    if not table.column_names:
        raise ShardRefused("NO_ROWS", f"{name} is empty")
    return Outline(table.num_rows, dict(zip(table.schema.names, table.schema.types, strict=True)), {})


@lru_cache(maxsize=2)
def _parsed(path: Path, size: int, modified_ns: int, name: str, encoding: str) -> _Whole:  # noqa: ARG001
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


def _json_lines(text: str, name: str) -> _Whole:
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
    return pa.table({key: _column([row.get(key) for row in rows]) for key in columns}), problems


def _column(values: list[Any]) -> pa.Array:
    """An Arrow column; values of several types become text, numbers as JSON writes them."""
    try:
        return pa.array(values)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError):
        return pa.array([value if value is None or isinstance(value, str) else json.dumps(value) for value in values])


def _csv(text: str, name: str) -> _Whole:
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
    return pa.table(arrays), problems
