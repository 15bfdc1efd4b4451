"""A head on one vector a row, and how much of the network below it is trained: what every task with one can choose.

The heads are those of the package `transformers`: "linear" as BertForSequenceClassification has it, dropout and one
linear layer, and "mlp" as DistilBertForSequenceClassification, a hidden layer with ReLU before them.
"""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from xfm.core.config import Config

HeadName = Literal["linear", "mlp"]
Mode = Literal["full", "head", "last_n", "lora"]
TRAINED: dict[Mode, str] = {
    "full": "all weights trained",
    "head": "only the head trained",
    "last_n": "the last {last_n} blocks trained",
    "lora": "low-rank updates trained",
}


class HeadSettings(Config):
    """What the head sees, its shape, and what of the network is trained with it."""

    pool: Literal["cls", "mean", "max"] = "cls"
    """What of the last state the head sees."""

    head: HeadName = "linear"
    """One linear layer; or mlp: a hidden layer with ReLU before it, as DistilBERT's classifier has."""

    dropout: float = Field(0.1, ge=0, lt=1)
    """Share of the head's input that is dropped in training."""

    network_dropout: float | None = Field(None, ge=0, lt=1)
    """Share of activations dropped inside the network in training; by default what its checkpoint says."""

    mode: Mode = "full"
    """What of the network is trained beside the head: all, nothing (head), its last blocks, or low-rank updates."""

    last_n: PositiveInt = 2
    """Blocks that mode last_n trains."""

    rank: PositiveInt = 8
    """Columns of a low-rank update (mode lora)."""

    alpha: PositiveFloat = 16.0
    """The update is scaled by alpha / rank."""

    lora_dropout: float = Field(0.0, ge=0, lt=1)
    """Share of its input that an update does not see in training."""

    @property
    def trained_words(self) -> str:
        """What is trained, for people."""
        return TRAINED[self.mode].format(last_n=self.last_n)
