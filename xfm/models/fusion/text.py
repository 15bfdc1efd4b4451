"""What turns labels into vectors: an encoder of the BERT family, or hashed words where nothing may be downloaded.

Light to import. An encoder's `key` says which vectors it makes: two encoders with one key give the same label the same
vectors, and those that are stored under another key are never taken for them.
"""

import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, PositiveInt, field_validator
from pydantic_core import from_json

from xfm.core.config import Config, fingerprint
from xfm.core.errors import Refused
from xfm.core.hub import Place
from xfm.core.random import key64, mix
from xfm.core.schema import INPUT_IDS, REFUSED, SHARD, TEXT
from xfm.models.hf_text.config import HFText

TextLevel = Literal["label", "tokens"]
WORD = re.compile(r"\w+|[^\w\s]")  # a sign is a word: CD4+ is not CD4-


@dataclass(frozen=True, slots=True, eq=False)
class LabelVectors:
    """What an encoder says of one label."""

    vectors: NDArray[np.float32]  # (1, E) float32 for one vector a label, or (L, E), one a token
    n_tokens: int | None  # how many tokens or words were read, special ones left out; None where nobody knows any more


class TextEncoder(Config, ABC):
    """How labels are read."""

    template: str = "{}"
    """What is encoded of a label, e.g. "a {} of the human brain"."""

    level: TextLevel = "label"
    """label: one vector a label; tokens: one a token, which gives attention something to choose from."""

    @field_validator("template")
    @classmethod
    def _one_place(cls, template: str) -> str:
        if template.count("{}") != 1:
            raise ValueError(f"template {template!r} must hold {{}} once, where the label goes")
        return template

    def texts(self, labels: Sequence[str]) -> list[str]:
        """What is read: each label in the template."""
        return [self.template.replace("{}", label) for label in labels]

    def key(self) -> str:
        """Of the vectors: settings and weights, wherever the files lie."""
        return fingerprint({**self.recipe(), "weights": self.weights()})

    def about(self) -> dict[str, Any]:
        """What makes the vectors, for the record."""
        return {**self.recipe(), "weights": self.weights(), "key": self.key()}

    @abstractmethod
    def weights(self) -> str:
        """What the vectors depend on beside the settings."""

    @abstractmethod
    def encode(self, labels: Sequence[str]) -> list[LabelVectors]:
        """The vectors of each label; no label's depend on another's."""


class HashedText(TextEncoder):
    """Hashed words and character triples: deterministic, no download; labels that share words have like vectors.

    Every feature (a word, or three letters of it, with a mark at either end) has a vector of signs that follows from
    its name alone; a text is the sum over its features, of unit length: a signed random projection of their counts, as
    Charikar (STOC 2002) and, with hashed features, Weinberger et al. (ICML 2009) use it. Cosines of two texts are then
    near those of their counts. "oligodendrocyte" and "oligodendrocyte precursor cell" share half of theirs.
    """

    kind: Literal["hashed"] = "hashed"

    dim: PositiveInt = 768
    """Numbers of a vector."""

    def weights(self) -> str:
        """The version of the hashing."""
        return "words and triples, 1"

    def encode(self, labels: Sequence[str]) -> list[LabelVectors]:
        """(1, dim) a label, or (words, dim)."""
        return [self._hashed(text) for text in self.texts(labels)]

    def _hashed(self, text: str) -> LabelVectors:
        words = WORD.findall(unicodedata.normalize("NFKC", text).casefold())
        sums = np.stack([_sum_of(word, self.dim) for word in words])
        counts = sums if self.level == "tokens" else sums.sum(axis=0, keepdims=True)
        lengths = np.sqrt((counts * counts).sum(axis=1, keepdims=True).astype(np.float64))
        # Opposite signs may cancel in a few dimensions, never in all of hundreds.
        return LabelVectors((counts / np.maximum(lengths, 1.0)).astype(np.float32), len(words))


def _sum_of(word: str, dim: int) -> NDArray[np.int64]:
    """(dim,) whole numbers, so that their sum is the same in any order."""
    marked = f"<{word}>"
    features = [f"word {word}", *(f"triple {marked[i : i + 3]}" for i in range(len(marked) - 2))]
    summed: NDArray[np.int64] = np.stack([_signs(feature, dim) for feature in features]).sum(axis=0)
    return summed


@lru_cache(maxsize=4096)
def _signs(feature: str, dim: int) -> NDArray[np.int64]:
    words = mix(np.arange(dim, dtype=np.uint64) ^ np.uint64(key64(0, feature)))
    return np.where(words >> np.uint64(63), 1, -1).astype(np.int64)


class BertText(TextEncoder):
    """A frozen encoder of the BERT family, e.g. BioBERT, in evaluation mode.

    It stays in that mode whatever happens to the network that reads its vectors: an encoder whose dropout follows the
    training mode of the whole gives a label another vector in every batch.
    """

    kind: Literal["bert"] = "bert"

    checkpoint: Place = "hf://dmis-lab/biobert-v1.1"
    """Folder or hf://OWNER/NAME[@REVISION]."""

    pooling: Literal["cls", "mean"] = "cls"
    """Of the last layer: the first token, or the mean over tokens that are not special (at level label)."""

    max_length: PositiveInt = Field(32, ge=4)
    """Tokens of a label, special ones included; longer ones are cut."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the files lie; `weights` says what they are."""
        return {"checkpoint"}

    @property
    def encoder(self) -> HFText:
        """The checkpoint as a backbone."""
        return HFText(checkpoint=self.checkpoint, max_length=self.max_length)

    def weights(self) -> str:
        """Digest of the checkpoint's files, the same for a copy in another place.

        Raises:
            Refused: there is no such checkpoint, or not all of its files.
        """
        return fingerprint({name: digest for name, digest in self.encoder.identity().items() if name != "revision"})

    def about(self) -> dict[str, Any]:
        """As above, with the address and the commit."""
        revision = self.encoder.identity().get("revision")
        return {**super().about(), "checkpoint": self.checkpoint} | ({"revision": revision} if revision else {})

    def encode(self, labels: Sequence[str]) -> list[LabelVectors]:
        """(1, width) a label, or (tokens, width) without special tokens; one by one, so that they depend on no other.

        Raises:
            Refused: as `HFText.build` and `HFText.tokenizer`; EMPTY, nothing of a label becomes a token.
        """
        import torch

        from xfm.models.reductions import Pool

        texts, tokenizer, backbone = self.texts(labels), self.encoder.tokenizer(0), self.encoder.build("cpu")
        rows = tokenizer(pa.RecordBatch.from_pydict({
            SHARD: pa.array(["labels"] * len(texts)), REFUSED: pa.nulls(len(texts), pa.string()), TEXT: pa.array(texts),
        }))  # fmt: skip
        for text, reason in zip(texts, rows.column(REFUSED).to_pylist(), strict=True):
            if reason:
                raise Refused("EMPTY", f"the label text {text!r}: {reason.partition(': ')[2]}")
        rows, pool, vectors = rows.select([INPUT_IDS]), Pool(self.pooling), []
        for row in range(len(texts)):
            tokens = tokenizer.collate(rows.slice(row, 1))
            with torch.inference_mode():
                *_, last = backbone.layers(tokens)
                said = last[tokens.is_content] if self.level == "tokens" else pool(last, tokens, backbone)[self.pooling]
            vectors.append(LabelVectors(said.numpy().copy(), int(tokens.is_content.sum())))
        return vectors


def _in_a_word(text: Any) -> Any:
    """A flag is one word: hashed, a checkpoint, or all settings as JSON."""
    if not isinstance(text, str) or not text:
        return text
    if text.startswith("{"):
        return from_json(text)
    return {"kind": "hashed"} if text == "hashed" else {"kind": "bert", "checkpoint": text}


AnyText = Annotated[HashedText | BertText, Field(discriminator="kind"), BeforeValidator(_in_a_word)]
