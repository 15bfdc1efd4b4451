"""Vectors of labels as a Parquet file: what an encoder said once is not asked again.

A row belongs to the key of its encoder (settings and weights) and its label; other columns are for readers. The file
states a digest of what it holds, so that a torn or damaged one is seen.
"""

import hashlib
import io
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from xfm.core.storage import open_storage
from xfm.models.fusion.bank import LabelVectors

FILE = "label_embeddings.parquet"
DIGEST = b"xfm.digest"
SCHEMA = pa.schema([
    ("key", pa.string()), ("encoder", pa.string()), ("weights", pa.string()), ("pooling", pa.string()),
    ("template", pa.string()), ("level", pa.string()), ("label", pa.string()), ("n_tokens", pa.int32()),
    ("vector", pa.list_(pa.float32())), ("tokens", pa.list_(pa.list_(pa.float32()))),
])  # fmt: skip


def rows_of(found: Mapping[str, LabelVectors], about: Mapping[str, Any]) -> pa.Table:
    """Labels, sorted, with their vectors; of a token level `vector` is the mean of the tokens.

    Args:
        found: label to its vectors.
        about: of the encoder, `TextEncoder.about`.
    """
    labels = sorted(found)
    vectors = [found[label].vectors for label in labels]
    is_token = about["level"] == "tokens"
    own = [about["key"], about["kind"], about["weights"], about.get("pooling"), about["template"], about["level"]]
    columns = [
        *(pa.array([value] * len(labels), pa.string()) for value in own),
        pa.array(labels, pa.string()),
        pa.array([found[label].n_tokens for label in labels], pa.int32()),
        pa.array([row.mean(0) if is_token else row[0] for row in vectors], SCHEMA.field("vector").type),
        pa.array([list(row) if is_token else None for row in vectors], SCHEMA.field("tokens").type),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def vectors_under(table: pa.Table, key: str) -> dict[str, LabelVectors]:
    """Label to its vectors, of the rows that belong to an encoder."""
    rows = table.filter(pc.equal(table["key"], key)).select(["label", "level", "n_tokens", "vector", "tokens"])
    return {
        row["label"]: LabelVectors(
            np.array(row["tokens"] if row["level"] == "tokens" else [row["vector"]], np.float32), row["n_tokens"]
        )
        for row in rows.to_pylist()
    }


def share_labels(network: Any, columns: Iterable[pa.ChunkedArray], common: str, own: str) -> None:
    """Vectors of all words in some columns, made by whoever comes first, into the OUTPUT of a job.

    Args:
        network: recipe of a fusion.
        columns: of the words.
        common: URI of the folder where several jobs keep them.
        own: URI of the job's OUTPUT.

    Raises:
        Refused: as `Fusion.bank_of`.
    """
    found = [pc.unique(column.cast(pa.string())).to_pylist() for column in columns]
    shared, mine = open_storage(common), open_storage(own)
    network.bank_of(sorted({text for texts in found for text in texts if text is not None}), shared)
    content = shared.read(FILE)
    if content is not None and mine.size(FILE) is None:
        mine.create()
        mine.write(FILE, content)


def to_bytes(table: pa.Table) -> bytes:
    """The file."""
    stream = io.BytesIO()
    pq.write_table(table.replace_schema_metadata({DIGEST: _digest(table).encode()}), stream)
    return stream.getvalue()


def from_bytes(content: bytes) -> pa.Table:
    """What `to_bytes` wrote.

    Raises:
        ValueError: the bytes are not those; says why.
    """
    try:
        table = pq.read_table(io.BytesIO(content))
    except (pa.ArrowException, OSError) as problem:
        raise ValueError(f"no Parquet file that can be read ({problem})") from problem
    if not table.schema.equals(SCHEMA):
        raise ValueError(f"its columns are {', '.join(table.column_names)}, not {', '.join(SCHEMA.names)} of our types")
    if (table.schema.metadata or {}).get(DIGEST) != _digest(table).encode():
        raise ValueError("its content is not what its digest says")
    return table


def _digest(table: pa.Table) -> str:
    content = hashlib.sha256()
    for name in table.column_names:
        column = table[name].combine_chunks()
        while pa.types.is_list(column.type):
            content.update(str(pc.list_value_length(column).to_pylist()).encode())
            column = column.flatten()
        is_number = pa.types.is_float32(column.type)
        content.update(
            column.to_numpy(zero_copy_only=False).tobytes() if is_number else str(column.to_pylist()).encode()
        )
    return content.hexdigest()
