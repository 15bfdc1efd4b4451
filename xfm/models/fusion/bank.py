"""Vectors of labels: each different text is encoded once, and rows carry the text alone."""

# Shapes: K labels, L text vectors of a label, E width, N rows.

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from xfm.core.errors import Refused


@dataclass(frozen=True, slots=True, eq=False)
class LabelVectors:
    """What an encoder says of one label."""

    vectors: NDArray[np.float32]  # (1, E) float32 for one vector a label, or (L, E), one a token
    n_tokens: int | None  # how many tokens or words were read, special ones left out; None where nobody knows any more


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
        content = hashlib.sha256("\x1f".join(self.labels).encode())
        content.update(np.ascontiguousarray(self.vectors).tobytes())
        if self.is_token is not None:
            content.update(np.ascontiguousarray(self.is_token).tobytes())
        return content.hexdigest()
