"""A fusion whose layers can be read like those of any backbone: two tokens a row, the cell's and the words'."""

# Shapes: B rows, S gene vectors of a row, L text vectors, h hidden width.

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from xfm.core.backbone import Backbone
from xfm.core.tokenizer import Tokens
from xfm.models.fusion.bank import TextBank
from xfm.models.fusion.network import FusionModel
from xfm.tokenizers.embedding import TEXT


class FusionBackbone(Backbone):
    """Layer 0 is the mean of what each side projects, i the mean over latents after block i of its resampler; the last
    is each side's vector after both have met. Until then no side knows of the other.

    Args:
        network: with its weights.
        bank: the labels whose places the ids of texts are.
    """

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
        network, text, is_text = self.network, *self._text(tokens)
        gene = network.chunks(tokens.vectors.flatten(1))
        yield _both(network.resample_gene.inputs(gene).mean(1), _mean(network.resample_text.inputs(text), is_text))
        steps = zip(network.resample_gene.steps(gene), network.resample_text.steps(text, is_text), strict=True)
        for (gene_latents, _), (text_latents, _) in steps:
            yield _both(gene_latents.mean(1), text_latents.mean(1))
        text_met, gene_met, _, _ = network.cross(network.dropout(text_latents), network.dropout(gene_latents))
        yield _both(gene_met, text_met)

    def _text(self, tokens: Tokens) -> tuple[Tensor, Tensor | None]:
        """(B, L, E) text vectors of the rows, and which of them are no padding."""
        assert isinstance(self.texts, Tensor)
        places = tokens.ids[:, TEXT]
        text = self.texts[places]
        if not isinstance(self.is_text, Tensor):
            return text[:, None], None
        return text, self.is_text[places]


def _both(gene: Tensor, text: Tensor) -> Tensor:
    """Two (B, h) to (B, 2, h)."""
    return torch.stack([gene, text], dim=1)


def _mean(inputs: Tensor, held: Tensor | None) -> Tensor:
    """(B, L, h) to (B, h), without padding."""
    if held is None:
        return inputs.mean(1)
    return (inputs * held[..., None]).sum(1) / held.sum(1, keepdim=True)
