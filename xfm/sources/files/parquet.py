"""Rows of a Parquet file, or of an Arrow file that the library `datasets` saved: what it holds, and some of its rows.

Parquet is read with pyarrow itself. The streams of `datasets` give the same values, but do not know the number of rows,
import torch, leave a lock file in the user's cache for every file, and take several times as long for ranges of rows.
tests/sources/test_datasets_limits.py shows this, and why the other formats keep readers of their own.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xfm.core.errors import ShardRefused
from xfm.sources.files.columns import Layout, Outline, Rows
from xfm.sources.paths import stamp

SAVED = ".arrow"  # what `Dataset.save_to_disk` writes, a folder a split
SUFFIXES = (".parquet", SAVED)

_STREAM_BYTES = 2**20
_END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream; without it rows may have been cut off between two batches


def outline(path: Path, name: str) -> Outline:
    """What a file holds; a file that has not changed since is not read again.

    Raises:
        ShardRefused: NO_SUCH_FILE or DAMAGED_FILE.
    """
    return _outline(*stamp(path, name), name)


def read_rows(
    path: Path, name: str, layout: Layout, rows: NDArray[np.int64], step_rows: int | None = None
) -> Iterator[Rows]:
    """Some rows, a few at a time; their content is the column as it is.

    Args:
        rows: (N,) ascending row numbers.
        step_rows: decoded at a time, of Parquet only the pages between the first and the last row of a row group, so
            that pictures do not fill gigabytes; None: a whole row group.

    Raises:
        ShardRefused: DAMAGED_FILE.
    """
    with _opened(path, name) as file:
        for low, batch in _batches(file, list(layout.columns), rows, step_rows) if len(rows) else ():
            here = rows[(rows >= low) & (rows < low + batch.num_rows)]
            if len(here):
                batch.validate(full=True)  # text that is no UTF-8, before anything reads it
                found = batch.take(here - low)
                columns = {column: found[column] for column in layout.columns}
                yield Rows([f"{name}/{row}" for row in here], found[layout.content], columns, {})


def _batches(
    file: Any, columns: list[str], rows: NDArray[np.int64], step_rows: int | None
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Record batches that hold all of some rows, each with the number of its first row."""
    if not isinstance(file, pq.ParquetFile):
        low = int(rows[0])
        for batch in file.select_columns(columns)[low : int(rows[-1]) + 1].to_batches(step_rows):
            yield low, batch
            low += batch.num_rows
        return
    first = 0
    for group in range(file.num_row_groups):
        count = file.metadata.row_group(group).num_rows
        wanted = rows[(rows >= first) & (rows < first + count)]
        low = first
        for batch in file.iter_batches(step_rows or count, row_groups=[group], columns=columns) if len(wanted) else ():
            yield low, batch
            low += batch.num_rows
            if low > wanted[-1]:
                break
        first += count


@contextmanager
def _opened(path: Path, name: str) -> Iterator[Any]:
    """A `ParquetFile`, or a `Dataset` in a memory map; what goes wrong while it is read is a ShardRefused."""
    try:
        if path.suffix == SAVED:
            yield _saved(path, name)
        else:
            with pq.ParquetFile(path, buffer_size=_STREAM_BYTES, pre_buffer=False) as file:
                yield file
    except (pa.ArrowException, OSError) as problem:
        kind = "an Arrow stream" if path.suffix == SAVED else "Parquet"
        raise ShardRefused("DAMAGED_FILE", f"{name} cannot be read as {kind}: {problem}") from problem


def _saved(path: Path, name: str) -> Any:
    """The `Dataset` of one file; nothing is copied, and nothing written to a cache."""
    from datasets import Dataset

    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - len(_END)))
        if file.read() != _END:
            raise ShardRefused("DAMAGED_FILE", f"{name} has no end: it was cut off, or is no stream of Arrow")
    try:
        return Dataset.from_file(str(path)).with_format("arrow")
    except (ValueError, KeyError, TypeError) as problem:
        raise ShardRefused("DAMAGED_FILE", f"{name} is no data set that `datasets` saved: {problem}") from problem


@lru_cache(maxsize=1024)
def _outline(path: Path, size: int, modified_ns: int, name: str) -> Outline:  # noqa: ARG001
    with _opened(path, name) as file:
        parquet = isinstance(file, pq.ParquetFile)
        rows, schema = (file.metadata.num_rows, file.schema_arrow) if parquet else (len(file), file.data.schema)
        return Outline(rows, dict(zip(schema.names, schema.types, strict=True)), _names(schema))


def _names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Class names as the library `datasets` writes them into a file: features of type ClassLabel."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        labels = {name: feature for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
        return {name: tuple(map(str, feature["names"])) for name, feature in labels.items() if name in schema.names}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # absent, or of a form that no longer says which names there are
