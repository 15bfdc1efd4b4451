"""Two sequences of latents that attend to each other."""

# Shapes: B rows, N latents of either side, h width.

from typing import Literal

from torch import Tensor, nn

Pooling = Literal["residual", "attended"]


class CrossModalAttention(nn.Module):
    """Text latents attend to gene latents, and gene latents to text latents.

    The public model that this follows shares one attention between both directions, lets the gene side attend to the
    text side's *updated* latents, and pools what was attended before the residual, so that the last norm is never used
    and both vectors are mixtures of the other side. Each of that is an option; the defaults are the other way.

    Args:
        hidden: width.
        heads: of each attention.
        dropout: of what was attended.
        is_shared: one attention for both directions.
        is_parallel: both sides attend to what the other was, not one to what the other has become.
        pool: mean over latents of the sum after its norm ("residual"), or of what was attended ("attended").
    """

    def __init__(
        self, hidden: int, heads: int, dropout: float, *, is_shared: bool, is_parallel: bool, pool: Pooling
    ) -> None:
        super().__init__()
        self.text_attends = nn.MultiheadAttention(hidden, heads, batch_first=True)
        self.gene_attends = self.text_attends if is_shared else nn.MultiheadAttention(hidden, heads, batch_first=True)
        # Where the attended part is pooled nothing reads a side's sum, and its norm would never learn; but for the text
        # side's, if the gene side attends to it.
        self.norm_text = nn.LayerNorm(hidden) if pool == "residual" or not is_parallel else None
        self.norm_gene = nn.LayerNorm(hidden) if pool == "residual" else None
        self.dropout = nn.Dropout(dropout)
        self.is_parallel, self.pool = is_parallel, pool

    def forward(
        self, text: Tensor, gene: Tensor, *, need_weights: bool = False
    ) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """(B, N, h) of either side to the (B, h) vectors of text and gene, and the (B, N, N) weights of text to gene
        and of gene to text, averaged over heads, where wanted."""
        text_attended, text_weights = self.text_attends(text, gene, gene, need_weights=need_weights)
        text_after = text if self.norm_text is None else self.norm_text(text + self.dropout(text_attended))
        asked = text if self.is_parallel else text_after
        gene_attended, gene_weights = self.gene_attends(gene, asked, asked, need_weights=need_weights)
        if self.norm_gene is None:
            return text_attended.mean(1), gene_attended.mean(1), text_weights, gene_weights
        gene_after = self.norm_gene(gene + self.dropout(gene_attended))
        return text_after.mean(1), gene_after.mean(1), text_weights, gene_weights
