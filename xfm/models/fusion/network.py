"""The fusion of a cell's embedding with the words for its cell type.

Each side is resampled to latents of its own, then both attend to each other. Before they do, each side alone also has a
vector in a shared space: only those may be used for retrieval, because a vector that has seen both sides of a pair
says nothing of whether they belong together.
"""

# Shapes: B rows, S gene vectors of a row (1: one embedding of the cell), L text vectors (1: one of the label),
# N latents, h hidden width, P width of the shared space.

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfm.core.random import key64
from xfm.models.fusion.sizes import FusionSizes
from xfm.nn.cross_attention import CrossModalAttention
from xfm.nn.perceiver import PerceiverResampler


@dataclass(frozen=True, slots=True)
class FusionOutput:
    """What the network says of B rows."""

    text: Tensor  # text, gene: (B, h) after both sides have met; both are functions of both inputs
    gene: Tensor
    # text_to_gene, gene_to_text: (B, N, N) weights between latents, averaged over heads; None unless wanted
    text_to_gene: Tensor | None
    gene_to_text: Tensor | None


class FusionModel(nn.Module):
    """See the top of the file.

    Args:
        sizes: of the network.
        gene_dim: numbers of a cell's embedding.
        text_dim: numbers of a text vector.

    Raises:
        ValueError: `gene_dim` cannot be cut into `sizes.gene_chunks`.
    """

    def __init__(self, sizes: FusionSizes, gene_dim: int, text_dim: int) -> None:
        super().__init__()
        if gene_dim % sizes.gene_chunks:
            raise ValueError(f"{gene_dim} numbers of an embedding cannot be cut into {sizes.gene_chunks} equal chunks")
        self.sizes, self.gene_dim, self.text_dim = sizes, gene_dim, text_dim
        shape = {"layers": sizes.layers, "dropout": sizes.resampler_dropout}
        self.resample_text = PerceiverResampler(text_dim, sizes.hidden, sizes.latents, sizes.heads, **shape)  # type: ignore[arg-type]
        self.resample_gene = PerceiverResampler(
            gene_dim // sizes.gene_chunks,
            sizes.hidden,
            sizes.latents,
            sizes.heads,
            **shape,  # type: ignore[arg-type]
        )
        self.cross = CrossModalAttention(
            sizes.hidden, sizes.heads, sizes.dropout, is_shared=sizes.share_attention, is_parallel=sizes.parallel,
            pool=sizes.pool,
        )  # fmt: skip
        self.dropout = nn.Dropout(sizes.dropout)
        self.project_text = nn.Linear(sizes.hidden, sizes.projection)
        self.project_gene = nn.Linear(sizes.hidden, sizes.projection)

    @property
    def feature_dim(self) -> int:
        """Width of `features`."""
        return 2 * self.sizes.hidden

    def forward(
        self, text: Tensor, gene: Tensor, is_text: Tensor | None = None, *, need_weights: bool = False
    ) -> FusionOutput:
        """Both sides, met.

        Args:
            text: (B, text_dim) or (B, L, text_dim).
            gene: (B, gene_dim).
            is_text: (B, L) bool, False at padding.
            need_weights: also return what was attended to.
        """
        text_latents, _ = self.resample_text(text, is_text)
        gene_latents, _ = self.resample_gene(self.chunks(gene))
        met = self.cross(self.dropout(text_latents), self.dropout(gene_latents), need_weights=need_weights)
        return FusionOutput(*met)

    def features(self, text: Tensor, gene: Tensor, is_text: Tensor | None = None) -> Tensor:
        """(B, 2 h): [text; gene] after both have met; what classifiers read."""
        found = self(text, gene, is_text)
        return torch.cat([found.text, found.gene], dim=1)

    def encode_text(self, text: Tensor, is_text: Tensor | None = None) -> Tensor:
        """(B, P) unit vectors of the text alone; arguments as for `forward`."""
        latents, _ = self.resample_text(text, is_text)
        return functional.normalize(self.project_text(self.dropout(latents).mean(1)), dim=1)

    def encode_gene(self, gene: Tensor) -> Tensor:
        """(B, P) unit vectors of (B, gene_dim) embeddings alone."""
        latents, _ = self.resample_gene(self.chunks(gene))
        return functional.normalize(self.project_gene(self.dropout(latents).mean(1)), dim=1)

    def chunks(self, gene: Tensor) -> Tensor:
        """(B, gene_dim) to (B, S, gene_dim / S)."""
        return gene.reshape(len(gene), self.sizes.gene_chunks, -1)


class Concatenation(nn.Module):
    """No fusion at all: the inputs beside each other, for the plain classifiers that a fusion has to beat.

    Args:
        inputs: "both", "gene" or "text".
        gene_dim, text_dim: of the inputs.
    """

    def __init__(self, inputs: str, gene_dim: int, text_dim: int) -> None:
        super().__init__()
        self.inputs, self.gene_dim, self.text_dim = inputs, gene_dim, text_dim

    @property
    def feature_dim(self) -> int:
        """Width of `features`."""
        return {"both": self.text_dim + self.gene_dim, "gene": self.gene_dim, "text": self.text_dim}[self.inputs]

    def features(self, text: Tensor, gene: Tensor, is_text: Tensor | None = None) -> Tensor:
        """(B, feature_dim): the inputs as they are; several text vectors as their mean."""
        if text.ndim == 3:
            held = torch.ones(text.shape[:2], dtype=torch.bool, device=text.device) if is_text is None else is_text
            text = (text * held[..., None]).sum(1) / held.sum(1, keepdim=True)
        return {"both": torch.cat([text, gene], dim=1), "gene": gene, "text": text}[self.inputs]


def build_network(sizes: FusionSizes, gene_dim: int, text_dim: int, seed: int) -> FusionModel | Concatenation:
    """With weights drawn from a seed: the same on every worker and machine."""
    if sizes.design == "concat":
        return Concatenation(sizes.inputs, gene_dim, text_dim)
    # Initialisers take no generator. The CPU's is put back; torch.manual_seed would also reseed those of GPUs.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(key64(seed, "weights"))
        return FusionModel(sizes, gene_dim, text_dim)
