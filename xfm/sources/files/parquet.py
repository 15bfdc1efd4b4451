"""A Parquet file of rows: opened, outlined, and what it says about itself."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from xfm.core.errors import ShardRefused
from xfm.sources.files.columns import Outline

STREAM_BYTES = 2**20


def stamp(path: Path, name: str) -> tuple[Path, int, int]:
    """Path, size and time of change: the key under which a file's content is remembered.

    Raises:
        ShardRefused: NO_SUCH_FILE.
    """
    if not path.is_file():
        raise ShardRefused("NO_SUCH_FILE", f"{name}: not at {path}")
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


@contextmanager
def open_parquet(path: Path, name: str, *, streamed: bool = False) -> Iterator[Any]:
    """The open file; what goes wrong while it is read is a ShardRefused: DAMAGED_FILE.

    Args:
        path: of the file.
        name: of the file, for messages.
        streamed: read pages one after the other instead of whole column chunks, which pictures fill with gigabytes.
    """
    try:
        with pq.ParquetFile(path, buffer_size=STREAM_BYTES if streamed else 0, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError) as problem:
        raise ShardRefused("DAMAGED_FILE", f"{name} cannot be read as Parquet: {problem}") from problem


def outline_parquet(path: Path, name: str) -> Outline:
    """What a file holds, from its footer. Raises ShardRefused: DAMAGED_FILE."""
    with open_parquet(path, name) as file:
        schema = file.schema_arrow
        return Outline(file.metadata.num_rows, dict(zip(schema.names, schema.types, strict=True)), _names(schema))


def _names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Class names as the library `datasets` writes them into a Parquet file: features of type ClassLabel."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        labels = {name: feature for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
        return {name: tuple(map(str, feature["names"])) for name, feature in labels.items() if name in schema.names}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}  # absent, or of a form that no longer says which names there are
