"""Vectors of labels: each different text is encoded once, rows carry the text alone, and a Parquet file keeps them.

A row of the file belongs to the key of its encoder (settings and weights) and its label; other columns are for readers.
The file states a digest of what it holds, so that a torn or damaged one is seen.
"""

# Shapes: K labels, L text vectors of a label, E width, N rows.

import hashlib
import io
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.storage import Storage, open_storage
from xfm.models.fusion.text import LabelVectors, TextEncoder

logger = logging.getLogger(__name__)

FILE = "label_embeddings.parquet"
DIGEST = b"xfm.digest"
SCHEMA = pa.schema([
    ("key", pa.string()), ("encoder", pa.string()), ("weights", pa.string()), ("pooling", pa.string()),
    ("template", pa.string()), ("level", pa.string()), ("label", pa.string()), ("n_tokens", pa.int32()),
    ("vector", pa.list_(pa.float32())), ("tokens", pa.list_(pa.list_(pa.float32()))),
])  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class TextBank:
    """Labels and what an encoder says of them; small enough to travel with a recipe."""

    labels: tuple[str, ...]  # K different texts, sorted
    vectors: NDArray[np.float32]  # (K, E) float32, one vector a label, or (K, L, E), one a token
    is_token: NDArray[np.bool_] | None  # (K, L) bool, False at padding; None for one vector a label
    encoder: dict[str, Any]  # what made them: kind, checkpoint, revision, pooling, template

    @classmethod
    def of(cls, found: Mapping[str, LabelVectors], encoder: dict[str, Any]) -> "TextBank":
        """Labels sorted; where the encoder's level is tokens, rows are padded with zeros to the longest label."""
        labels = tuple(sorted(found))
        rows = [found[label].vectors for label in labels]
        if encoder.get("level") != "tokens":
            return cls(labels, np.concatenate(rows), None, encoder)
        longest = max(len(row) for row in rows)
        vectors = np.zeros((len(rows), longest, rows[0].shape[1]), np.float32)
        for place, row in enumerate(rows):
            vectors[place, : len(row)] = row
        return cls(labels, vectors, np.arange(longest) < np.array([[len(row)] for row in rows]), encoder)

    def parts(self) -> dict[str, LabelVectors]:
        """The vectors of each label, without padding."""
        if self.is_token is None:
            return {label: LabelVectors(self.vectors[i : i + 1], None) for i, label in enumerate(self.labels)}
        return {
            label: LabelVectors(self.vectors[i, held], int(held.sum()))
            for i, (label, held) in enumerate(zip(self.labels, self.is_token, strict=True))
        }

    @property
    def dim(self) -> int:
        """E."""
        return int(self.vectors.shape[-1])

    def codes(self, texts: pa.ChunkedArray | pa.Array | Sequence[str]) -> NDArray[np.int64]:
        """(N,) the place of each text among the labels.

        Raises:
            Refused: UNKNOWN_LABEL, a text that was never encoded.
        """
        column = texts if isinstance(texts, pa.ChunkedArray | pa.Array) else pa.array(texts, pa.string())
        words = column.cast(pa.string())
        found = pc.index_in(words, pa.array(self.labels, pa.string()))
        if found.null_count:
            odd = words.filter(found.is_null())[0].as_py()
            raise Refused("UNKNOWN_LABEL", f"{odd!r} is none of the {len(self.labels)} labels that were encoded: "
                          f"{', '.join(self.labels[:5])}{', ...' if len(self.labels) > 5 else ''}")  # fmt: skip
        return np.asarray(found.to_numpy(zero_copy_only=False), np.int64)

    def digest(self) -> str:
        """SHA-256 over labels, vectors and padding."""
        content = hashlib.sha256("\x1f".join(self.labels).encode() + self.vectors.tobytes())
        if self.is_token is not None:
            content.update(self.is_token.tobytes())
        return content.hexdigest()


def encode_labels(encoder: TextEncoder, labels: Sequence[str], cache: Storage | None) -> dict[str, LabelVectors]:
    """The vectors of each different label, encoded where the cache does not have them.

    Args:
        labels: in any order and number.
        cache: its label_embeddings.parquet is read first, and gets what was encoded; a damaged one is made anew.

    Raises:
        Refused: NO_TEXT, there is no label or an empty one; or as the encoder's `encode`.
    """
    wanted = sorted(set(labels))
    if not wanted or not all(label.strip() for label in wanted):
        raise Refused("NO_TEXT", f"{len(wanted)} different labels are to be encoded"
                      f"{', an empty one among them' if wanted else ''}; each needs a letter or a sign")  # fmt: skip
    key, stored = encoder.key(), _stored(cache)
    known = {} if stored is None else vectors_under(stored, key)
    more = [label for label in wanted if label not in known]
    if more:
        logger.info("text encoder %s: %d of %d labels are new", key[:12], len(more), len(wanted))
        known |= dict(zip(more, encoder.encode(more), strict=True))
        if cache is not None:
            added = rows_of({label: known[label] for label in more}, encoder.about())
            cache.write(FILE, to_bytes(added if stored is None else pa.concat_tables([stored, added])))
    return {label: known[label] for label in wanted}


def _stored(cache: Storage | None) -> pa.Table | None:
    content = None if cache is None else cache.read(FILE)
    if content is None:
        return None
    try:
        return from_bytes(content)
    except ValueError as problem:
        logger.warning("%s is made anew: %s", FILE, problem)
        return None


def share_labels(network: Any, columns: Iterable[pa.ChunkedArray], common: str, own: str) -> None:
    """Vectors of all words in some columns, made by whoever comes first, into the OUTPUT of a job.

    Args:
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


def rows_of(found: Mapping[str, LabelVectors], about: Mapping[str, Any]) -> pa.Table:
    """Labels, sorted, with their vectors and what `TextEncoder.about` says; of tokens `vector` is the mean."""
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
