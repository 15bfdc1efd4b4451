"""The fusion of a cell's embedding with the words for its cell type.

Each side is resampled to latents of its own, then both attend to each other. Before they do, each side alone also has a
vector in a shared space: only those may be used for retrieval, because a vector that has seen both sides of a pair
says nothing of whether they belong together. As a backbone a fusion has two tokens a row, the cell's and the words'.
"""

# Shapes: B rows, S gene vectors of a row (1: one embedding of the cell), L text vectors (1: one of the label),
# N latents, h hidden width, P width of the shared space.

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from xfm.core.backbone import Backbone
from xfm.core.random import key64
from xfm.core.tokenizer import Tokens
from xfm.models.fusion.label_embeddings import TextBank
from xfm.models.fusion.sizes import FusionSizes
from xfm.nn.cross_attention import CrossModalAttention
from xfm.nn.perceiver import PerceiverResampler
from xfm.tokenizers.embedding import TEXT


@dataclass(frozen=True, slots=True)
class FusionOutput:
    """What the network says of B rows."""

    text: Tensor  # text, gene: (B, h) after both sides have met; both are functions of both inputs
    gene: Tensor
    # text_to_gene, gene_to_text: (B, N, N) weights between latents, averaged over heads; None unless wanted
    text_to_gene: Tensor | None
    gene_to_text: Tensor | None


class FusionModel(nn.Module):
    """See the top of the file. `gene_dim` and `text_dim` are the numbers of a cell's embedding and of a text vector.

    Raises:
        ValueError: `gene_dim` cannot be cut into `sizes.gene_chunks`.
    """

    def __init__(self, sizes: FusionSizes, gene_dim: int, text_dim: int) -> None:
        super().__init__()
        if gene_dim % sizes.gene_chunks:
            raise ValueError(f"{gene_dim} numbers of an embedding cannot be cut into {sizes.gene_chunks} equal chunks")
        self.sizes, self.gene_dim, self.text_dim = sizes, gene_dim, text_dim
        self.resample_text = _resampler(sizes, text_dim)
        self.resample_gene = _resampler(sizes, gene_dim // sizes.gene_chunks)
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
    """No fusion at all: the inputs beside each other, for the plain classifiers that a fusion has to beat."""

    def __init__(self, inputs: str, gene_dim: int, text_dim: int) -> None:
        super().__init__()
        self.inputs, self.gene_dim, self.text_dim = inputs, gene_dim, text_dim

    @property
    def feature_dim(self) -> int:
        """Width of `features`."""
        return {"both": self.text_dim + self.gene_dim, "gene": self.gene_dim, "text": self.text_dim}[self.inputs]

    def features(self, text: Tensor, gene: Tensor, is_text: Tensor | None = None) -> Tensor:
        """(B, feature_dim): the inputs as they are; several text vectors as their mean."""
        text = _mean(text, is_text) if text.ndim == 3 else text
        return {"both": torch.cat([text, gene], dim=1), "gene": gene, "text": text}[self.inputs]


def build_network(sizes: FusionSizes, gene_dim: int, text_dim: int, seed: int) -> FusionModel | Concatenation:
    """With weights drawn from a seed: the same on every worker and machine."""
    if sizes.design == "concat":
        return Concatenation(sizes.inputs, gene_dim, text_dim)
    # Initialisers take no generator. The CPU's is put back; torch.manual_seed would also reseed those of GPUs.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(key64(seed, "weights"))
        return FusionModel(sizes, gene_dim, text_dim)


class FusionBackbone(Backbone):
    """Layer 0 is the mean of what each side projects, i the mean over latents after block i of its resampler; the last
    is each side's vector after both have met. Until then no side knows of the other.

    Args:
        network: with its weights.
        bank: the labels whose places the ids of texts are.
    """

    texts: Tensor
    is_text: Tensor | None

    def __init__(self, network: FusionModel, bank: TextBank) -> None:
        super().__init__()
        self.network = network
        self.n_layers = network.sizes.layers + 1
        self.dim = network.sizes.hidden
        self.register_buffer("texts", torch.from_numpy(bank.vectors), persistent=False)
        held = None if bank.is_token is None else torch.from_numpy(bank.is_token)
        self.register_buffer("is_text", held, persistent=False)

    @property
    def blocks(self) -> nn.ModuleList:
        """Each block of the resamplers, both sides' together, and the attention across."""
        sides = zip(self.network.resample_gene.blocks, self.network.resample_text.blocks, strict=True)
        return nn.ModuleList([*(nn.ModuleList(pair) for pair in sides), self.network.cross])

    def layers(self, tokens: Tokens) -> Iterator[Tensor]:
        """Yields n_layers + 1 states (B, 2, h), the gene side first; see `Backbone.layers`."""
        assert tokens.vectors is not None
        network, places = self.network, tokens.ids[:, TEXT]
        text = self.texts[places] if self.is_text is not None else self.texts[places][:, None]  # (B, L, E)
        is_text = None if self.is_text is None else self.is_text[places]
        gene = network.chunks(tokens.vectors.flatten(1))
        sides = [network.resample_gene.inputs(gene).mean(1), _mean(network.resample_text.inputs(text), is_text)]
        yield torch.stack(sides, dim=1)
        steps = zip(network.resample_gene.steps(gene), network.resample_text.steps(text, is_text), strict=True)
        for (gene_latents, _), (text_latents, _) in steps:
            yield torch.stack([gene_latents.mean(1), text_latents.mean(1)], dim=1)
        text_met, gene_met, _, _ = network.cross(network.dropout(text_latents), network.dropout(gene_latents))
        yield torch.stack([gene_met, text_met], dim=1)


def _resampler(sizes: FusionSizes, dim_in: int) -> PerceiverResampler:
    return PerceiverResampler(
        dim_in, sizes.hidden, sizes.latents, sizes.heads, layers=sizes.layers, dropout=sizes.resampler_dropout
    )


def _mean(inputs: Tensor, held: Tensor | None) -> Tensor:
    """(B, L, h) to (B, h), without padding."""
    if held is None:
        return inputs.mean(1)
    return (inputs * held[..., None]).sum(1) / held.sum(1, keepdim=True)
