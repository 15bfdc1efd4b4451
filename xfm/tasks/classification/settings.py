"""Telling classes apart: a head on one vector a row, and how much of the network below it is trained.

The heads are those of the package `transformers`: "linear" as BertForSequenceClassification has it, dropout and one
linear layer, and "mlp" as DistilBertForSequenceClassification, a hidden layer with ReLU before them.
"""

# Shapes: B rows, D width of a row's vector, K classes.

from typing import Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from xfm.core.config import Config
from xfm.core.random import key64

HeadName = Literal["linear", "mlp"]
Mode = Literal["full", "head", "last_n", "lora"]
INITIAL_STD = 0.02  # of the head's weights, as the package draws them


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


class Head(nn.Module):
    """(B, D) to (B, K) logits.

    Args:
        dim: D.
        n_classes: K.
        name: which head.
        dropout: before the last layer.
        seed: of the weights, drawn as the package draws them: normal with deviation 0.02, biases 0.
    """

    def __init__(self, dim: int, n_classes: int, name: HeadName, dropout: float, seed: int) -> None:
        super().__init__()
        self.pre_classifier = nn.Linear(dim, dim) if name == "mlp" else None
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(dim, n_classes)
        generator = torch.Generator().manual_seed(key64(seed, "head"))
        for layer in (self.pre_classifier, self.classifier):
            if layer is not None:
                nn.init.normal_(layer.weight, std=INITIAL_STD, generator=generator)
                nn.init.zeros_(layer.bias)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, D) to (B, K)."""
        if self.pre_classifier is not None:
            vectors = functional.relu(self.pre_classifier(vectors))
        logits: Tensor = self.classifier(self.dropout(vectors))
        return logits
