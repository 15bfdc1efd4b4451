"""Pictures in Parquet files: the Hub's struct<bytes, path>, or plain binary."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from xfm.sources.files.columns import Layout, Outline
from xfm.sources.files.images_rows import Pictures, encoded
from xfm.sources.files.parquet import open_parquet, outline_parquet, stamp

STEP_ROWS = 16  # decoded from Parquet at a time


def outline(path: Path, name: str) -> Outline:
    """What a file holds; a file that has not changed since is not read again.

    Raises:
        ShardRefused: NO_SUCH_FILE or DAMAGED_FILE.
    """
    return _outline(*stamp(path, name), name)


@lru_cache(maxsize=1024)
def _outline(path: Path, size: int, modified_ns: int, name: str) -> Outline:  # noqa: ARG001
    return outline_parquet(path, name)


def read_rows(path: Path, name: str, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Pictures]:
    """Some rows, a few at a time; only the pages between the first and the last of a row group are decoded.

    Args:
        path: of the file.
        name: of the file, for row ids and messages.
        layout: which columns.
        rows: (N,) ascending row numbers.

    Raises:
        ShardRefused: DAMAGED_FILE.
    """
    with open_parquet(path, name, streamed=True) as file:
        first = 0
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            wanted = rows[(rows >= first) & (rows < first + count)]
            low = first
            if len(wanted):
                for batch in file.iter_batches(STEP_ROWS, row_groups=[group], columns=list(layout.columns)):
                    here = wanted[(wanted >= low) & (wanted < low + batch.num_rows)]
                    if len(here):
                        batch.validate(full=True)  # text that is no UTF-8, before anything reads it
                        chosen = batch.take(here - low)
                        ids = [f"{name}/{row}" for row in here]
                        inside = [column for column in chosen.schema.names if column != layout.content]
                        columns = {column: chosen[column] for column in inside}
                        yield Pictures(ids, encoded(chosen[layout.content]), columns, {})
                    low += batch.num_rows
                    if low > wanted[-1]:
                        break
            first += count
