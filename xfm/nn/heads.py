"""What is read from states: expression per token, expression from a cell, classes of a cell.

Parameter names are those of scGPT's modules, so that its checkpoints fit. Cui et al., Nature Methods 2024.
"""

# Shapes: B cells, T tokens, D width, E width of a cell vector (2 D where a batch label's vector is appended).

from typing import Literal

import torch
from torch import Tensor, nn

MvcStyle = Literal["inner product", "inner product, detach", "concat query", "sum query"]
QUERY_WIDTH = 64  # of the two styles with a hidden layer


def _stack(dim_in: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(dim_in, dim), nn.LeakyReLU(), nn.Linear(dim, dim), nn.LeakyReLU(), nn.Linear(dim, 1))


class ExpressionDecoder(nn.Module):
    """Expression of each token in bin space. `explicit_zero` holds the published head of zeros, which nothing reads."""

    def __init__(self, dim_in: int, dim: int, *, explicit_zero: bool) -> None:
        super().__init__()
        self.fc = _stack(dim_in, dim)
        self.zero_logit = _stack(dim_in, dim) if explicit_zero else None

    def forward(self, state: Tensor) -> Tensor:
        """(..., dim_in) to (...)."""
        values: Tensor = self.fc(state).squeeze(-1)
        return values


class MvcDecoder(nn.Module):
    """Expression of a gene from the cell vector alone and the gene's input embedding (masked value for a cell).

    The published forward cannot run the styles "concat query" and "sum query"; here they follow their formulas.
    """

    def __init__(self, dim: int, cell_dim: int, style: MvcStyle, *, explicit_zero: bool) -> None:
        super().__init__()
        self.style = style
        self.W_zero_logit: nn.Linear | None = None
        self.gene2query = nn.Linear(dim, QUERY_WIDTH if style == "concat query" else dim)
        if style.startswith("inner product"):
            self.W = nn.Linear(dim, cell_dim, bias=False)
            if explicit_zero:
                self.W_zero_logit = nn.Linear(dim, cell_dim)
            return
        if cell_dim != dim:
            raise ValueError(f"{style!r} takes a cell vector of {dim}; with batch labels it is {cell_dim} wide")
        self.fc1 = nn.Linear(dim + QUERY_WIDTH if style == "concat query" else dim, QUERY_WIDTH)
        self.hidden_activation = nn.PReLU()
        self.fc2 = nn.Linear(QUERY_WIDTH, 1)

    def forward(self, cell_BE: Tensor, genes_BTD: Tensor) -> Tensor:
        """Cell vectors and gene embeddings to (B, T) values in bin space."""
        query = self._query(genes_BTD)
        if self.style.startswith("inner product"):
            return _inner(query, cell_BE, self.W)
        cell = cell_BE.unsqueeze(1)
        if self.style == "concat query":
            joined = torch.cat([cell.expand(-1, query.shape[1], -1), query], dim=2)
        else:
            joined = cell + query
        values: Tensor = self.fc2(self.hidden_activation(self.fc1(joined))).squeeze(2)
        return values

    def _query(self, genes_BTD: Tensor) -> Tensor:
        genes = genes_BTD.detach() if self.style.endswith("detach") else genes_BTD
        return torch.sigmoid(self.gene2query(genes))


def _inner(query_BTD: Tensor, cell_BE: Tensor, linear: nn.Linear) -> Tensor:
    """(W q + b) . cell as q . (W^T cell) + b . cell, which spares a (B, T, E) product."""
    product = torch.bmm(query_BTD, (cell_BE @ linear.weight).unsqueeze(2)).squeeze(2)
    return product if linear.bias is None else product + (cell_BE @ linear.bias).unsqueeze(1)


class ClassDecoder(nn.Module):
    """(n_layers - 1) times Linear, ReLU, LayerNorm, then one Linear to the classes."""

    def __init__(self, dim: int, n_classes: int, n_layers: int) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for _ in range(n_layers - 1):
            hidden += [nn.Linear(dim, dim), nn.ReLU(), nn.LayerNorm(dim)]
        self._decoder = nn.Sequential(*hidden)
        self.out_layer = nn.Linear(dim, n_classes)

    def forward(self, cell_BD: Tensor) -> Tensor:
        """(B, D) to (B, n_classes) logits."""
        logits: Tensor = self.out_layer(self._decoder(cell_BD))
        return logits
