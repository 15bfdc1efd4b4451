"""A pretrained transformer whose every layer can be read."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Protocol, Self

import pyarrow as pa
from torch import Tensor, nn

from xfm.core.tokenizer import Tokenizer, Tokens


class Backbone(nn.Module, ABC):
    """Shapes: B rows, T tokens, D width, L transformer blocks."""

    n_layers: int  # L
    dim: int  # D

    @property
    @abstractmethod
    def blocks(self) -> nn.ModuleList:
        """The L transformer blocks, the first applied first."""

    @abstractmethod
    def layers(self, tokens: Tokens) -> Iterator[Tensor]:
        """Yields L + 1 states (B, T, D): 0 is the input embedding, i the output of block i.

        A generator: a caller that stops early saves the deeper blocks. Values at padding are finite and
        meaningless.
        """


class BackboneConfig(Protocol):
    """A frozen config that builds the tokenizer (light) and the weights (heavy) of one model."""

    def tokenizer(self, seed: int) -> Tokenizer:
        """Called on CPU workers; reads the vocabulary, no weights."""

    def build(self, device: str) -> Backbone:
        """Reads the weights: once per worker. In evaluation mode, on `device`."""

    def identity(self) -> dict[str, Any]:
        """SHA-256 of the weights and of the vocabulary, and the resolved revision. Part of the fingerprint."""

    def describe(self) -> dict[str, Any]:
        """What the checkpoint holds and what of it is not used, for the report. Reads the weights once.

        Raises:
            Refused: they cannot be used.
        """

    def n_layers(self) -> int:
        """Transformer blocks."""

    def dim(self) -> int:
        """Width of a state."""

    def check_genes(self, genes: pa.Table) -> dict[str, Any]:
        """Overlap of a gene table with the vocabulary.

        Raises:
            Refused: fewer genes are known than the config's threshold.
        """

    def randomised(self, seed: int) -> Self:
        """The same tokens and architecture with weights drawn from `seed`: what training must have improved on."""


class Reduction(Protocol):
    """What is kept of a layer: its (B, T, D) becomes named columns with leading dimension B."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The names, before the layer is appended."""

    def __call__(self, state: Tensor, tokens: Tokens, backbone: Backbone) -> dict[str, Tensor]:
        """{column: (B, D)} of one layer's (B, T, D)."""
