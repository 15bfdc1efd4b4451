"""Telling classes apart: a head on one vector a row, and how much of the network below it is trained."""

from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from xfm.core.config import Config

HeadName = Literal["linear", "mlp"]
Mode = Literal["full", "head", "last_n", "lora"]


class Classification(Config):
    """Classes of a column, told by a head on the last state."""

    kind: Literal["classification"] = "classification"

    label: str = "label"
    """Column of the classes."""

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
