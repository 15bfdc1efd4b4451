"""What turns labels into vectors: an encoder of the BERT family, or hashed words where nothing may be downloaded."""

from typing import Literal

from pydantic import Field, PositiveInt

from xfm.core.config import Config

TextLevel = Literal["label", "tokens"]


class TextEncoder(Config):
    """How labels are read."""

    template: str = "{}"
    """What is encoded of a label, e.g. "a {} of the human brain"."""

    level: TextLevel = "label"
    """label: one vector a label; tokens: one a token, which gives attention something to choose from."""


class HashedText(TextEncoder):
    """Hashed words and character triples: deterministic, no download; labels that share words have like vectors."""

    kind: Literal["hashed"] = "hashed"

    dim: PositiveInt = 768
    """Numbers of a vector."""


class BertText(TextEncoder):
    """A frozen encoder of the BERT family, e.g. BioBERT, in evaluation mode."""

    kind: Literal["bert"] = "bert"

    checkpoint: str = "hf://dmis-lab/biobert-v1.1"
    """Folder or hf://OWNER/NAME[@REVISION]."""

    pooling: Literal["cls", "mean"] = "cls"
    """Of the last layer: the first token, or the mean over tokens that are not special (--text.level label)."""

    max_length: PositiveInt = Field(32, ge=4)
    """Tokens of a label, special ones included; longer ones are cut."""
