"""The network that alignment trains: a fusion, and the temperature of its similarities."""

# Shapes: B cells, D numbers of an embedding, T labels, L text vectors of a label, P width of the shared space.

from math import log
from typing import Literal

import torch
from torch import Tensor, nn

from xfm.core.errors import Refused
from xfm.models.fusion.label_embeddings import TextBank
from xfm.models.fusion.network import Concatenation, FusionModel
from xfm.tasks.alignment.settings import LEAST_TEMPERATURE, MOST_TEMPERATURE, pair_distances

Loss = Literal["supcon_infonce", "margin"]


class AlignedFusion(nn.Module):
    """A fusion, the vectors of its labels, and a temperature.

    What a loss does not reach is frozen, or weight decay would wear it away: supcon_infonce looks at either side alone
    and never at the attention between them, margin at what comes out of that and never at the shared space. The vectors
    of the labels are part of the module, not of its state.

    Raises:
        Refused: NOT_A_FUSION, the network has no shared space.
    """

    texts: Tensor
    is_text: Tensor | None

    def __init__(self, fusion: FusionModel | Concatenation, bank: TextBank, temperature: float, loss: Loss) -> None:
        super().__init__()
        if not isinstance(fusion, FusionModel):
            raise Refused("NOT_A_FUSION", "alignment trains a fusion; this network has its inputs side by side")
        self.fusion = fusion
        self.log_temperature = nn.Parameter(torch.tensor(log(temperature)), requires_grad=loss == "supcon_infonce")
        self.register_buffer("texts", torch.from_numpy(bank.vectors.copy()), persistent=False)
        is_token = None if bank.is_token is None else torch.from_numpy(bank.is_token.copy())
        self.register_buffer("is_text", is_token, persistent=False)
        fusion.requires_grad_(True)
        if loss == "supcon_infonce":
            fusion.cross.requires_grad_(False)
        else:
            fusion.project_text.requires_grad_(False)
            fusion.project_gene.requires_grad_(False)

    @property
    def temperature(self) -> float:
        """As it counts: between the limits, beyond which the last step may have led."""
        return min(max(float(self.log_temperature.detach().exp()), LEAST_TEMPERATURE), MOST_TEMPERATURE)

    @property
    def width(self) -> int:
        """P."""
        return self.fusion.sizes.projection

    def genes(self, genes: Tensor) -> Tensor:
        """(B, D) to (B, P) unit vectors, of the cells alone."""
        return self.fusion.encode_gene(genes)

    def labels(self, codes: Tensor | None = None) -> Tensor:
        """(K,) codes to (K, P) unit vectors, of the words alone; without codes of all T labels."""
        if codes is None:
            codes = torch.arange(len(self.texts), device=self.texts.device)
        return self.fusion.encode_text(*self._words(codes))

    def distances(self, genes: Tensor, codes: Tensor) -> Tensor:
        """(B,) of the two sides of each pair, after both have met."""
        texts, is_text = self._words(codes)
        met = self.fusion(texts, genes, is_text)
        return pair_distances(met.text, met.gene)

    def word_weights(self, codes: Tensor) -> Tensor | None:
        """What the text latents take from each token of K labels: (K, N, L), mean over heads, last block. None where a
        label is one vector: attention then has nothing to choose from."""
        texts, is_text = self._words(codes)
        if texts.ndim == 2 or texts.shape[1] == 1:
            return None
        weights: list[Tensor] = self.fusion.resample_text(texts, is_text, need_weights=True)[1]
        return weights[-1]

    def _words(self, codes: Tensor) -> tuple[Tensor, Tensor | None]:
        return self.texts[codes], None if self.is_text is None else self.is_text[codes]
