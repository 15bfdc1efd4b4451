"""What turns labels into vectors: an encoder of the BERT family, or hashed words where nothing may be downloaded.

Light to import; the arithmetic is in `hashed` and `bert`. An encoder's `key` says which vectors it makes: two encoders
with one key give the same label the same vectors, and those that are stored under another key are never taken for them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, field_validator
from pydantic_core import from_json

from xfm.core.config import Config, fingerprint
from xfm.core.hub import Place
from xfm.models.fusion.bank import LabelVectors
from xfm.models.hf_text.config import HFText

TextLevel = Literal["label", "tokens"]


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
    """Hashed words and character triples: deterministic, no download; labels that share words have like vectors."""

    kind: Literal["hashed"] = "hashed"

    dim: PositiveInt = 768
    """Numbers of a vector."""

    def weights(self) -> str:
        """The version of the hashing."""
        return "words and triples, 1"

    def encode(self, labels: Sequence[str]) -> list[LabelVectors]:
        """(1, dim) a label, or (words, dim)."""
        from xfm.models.fusion.hashed import hash_text

        return [hash_text(text, self.dim, by_word=self.level == "tokens") for text in self.texts(labels)]


class BertText(TextEncoder):
    """A frozen encoder of the BERT family, e.g. BioBERT, in evaluation mode."""

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
        """(1, width) a label, or (tokens, width) without special tokens.

        Raises:
            Refused: as `HFText.build` and `HFText.tokenizer`; EMPTY, nothing of a label becomes a token.
        """
        from xfm.models.fusion.bert import read_texts

        return read_texts(self.encoder, self.texts(labels), None if self.level == "tokens" else self.pooling)


def _in_a_word(text: Any) -> Any:
    """A flag is one word: hashed, a checkpoint, or all settings as JSON."""
    if not isinstance(text, str) or not text:
        return text
    if text.startswith("{"):
        return from_json(text)
    return {"kind": "hashed"} if text == "hashed" else {"kind": "bert", "checkpoint": text}


AnyText = Annotated[HashedText | BertText, Field(discriminator="kind"), BeforeValidator(_in_a_word)]
