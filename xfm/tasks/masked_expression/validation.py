"""Errors on cells that are never trained on, beside guesses that need no model."""

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from xfm.core.parts import TRAIN, VALIDATION
from xfm.core.schema import INPUT_IDS, VALUES
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.nn.losses import squared_error
from xfm.tasks.masked_expression.masker import Masker
from xfm.tasks.masked_expression.settings import OBJECTIVES, Example, Switches, objective_errors
from xfm.tokenizers.ragged import ragged
from xfm.training.group import Group
from xfm.training.learner import evaluating
from xfm.training.order import Order
from xfm.training.tokens import RowReader, TokenParts

F64 = NDArray[np.float64]
# Columns of scores, one row a cell: hidden genes, then summed squared errors.
SCORES = ("n", *OBJECTIVES, "gene_mean", "cell_mean")
GENE_MEAN_CELLS = 20_000  # enough for a mean of each gene; more would only be read


class Validation:
    """Up to `limit` validation cells, shared out to the workers, with masks that never change. Every worker makes the
    same calls and gets all scores."""

    def __init__(
        self, masker: Masker, cells: RowReader, parts: TokenParts, *, limit: int, seed: int, group: Group, device: str
    ) -> None:
        self.cells, self.training, validation = cells, parts.count(TRAIN), parts.count(VALIDATION)
        self.seed, self.group, self.device = seed, group, device
        self.count = min(limit, sum(validation))
        self.examples: list[Example] = []
        if self.count > group.rank:
            _, numbers, rows = Order(validation, self.count, seed).batch(0)
            numbers, rows = numbers[group.rank :: group.world], rows[group.rank :: group.world]
            table = cells.take(numbers, rows + parts.offsets(VALIDATION)[numbers])
            self.examples = masker.examples(table, "validation")

    def errors(self, network: ScGPTBackbone, is_on: Switches) -> F64:
        """(C, 4) hidden genes and summed squared errors of the objectives; NaN for one that is not on."""
        scores = torch.zeros(self.count, 1 + len(OBJECTIVES), dtype=torch.float64, device=self.device)
        with evaluating(network):
            for example in self.examples:
                rows = self._rows(example).to(self.device)
                errors = objective_errors(network, example.to(self.device), is_on)
                scores[rows, 0] = example.hidden.sum(dim=1).to(scores)
                scores[rows, 1:] = errors.T.double()
        merged: F64 = self.group.sum(scores).cpu().numpy()
        merged[:, [False, *(not on for on in is_on)]] = np.nan
        return merged

    def scores(self, network: ScGPTBackbone, is_on: Switches) -> F64:
        """(C, 6), columns as in SCORES."""
        means = torch.from_numpy(self._gene_means(network.architecture.n_tokens)) if self.count else torch.zeros(0)
        guesses = torch.zeros(self.count, 2, dtype=torch.float64)
        for example in self.examples:
            assert example.tokens.values is not None
            shown = example.tokens.is_content & ~example.hidden
            visible = example.tokens.values.double().masked_fill(~shown, 0.0).sum(1) / shown.sum(1).clamp(min=1)
            # A cell of one gene shows nothing when that one is hidden; the middle gene's mean is then the best guess.
            visible = torch.where(shown.any(1), visible, means.median())
            by_gene = squared_error(means[example.tokens.ids], example.target.double(), example.hidden)
            by_cell = squared_error(visible[:, None], example.target.double(), example.hidden)
            guesses[self._rows(example)] = torch.stack([by_gene, by_cell], dim=1)
        merged = self.group.sum(guesses.to(self.device)).cpu().numpy()
        return np.concatenate([self.errors(network, is_on), merged], axis=1)

    def _rows(self, example: Example) -> torch.Tensor:
        """Worker r has cells r, r + world, ..."""
        return torch.from_numpy(example.rows * self.group.world + self.group.rank)

    def _gene_means(self, n_tokens: int) -> F64:
        _, parts, rows = Order(self.training, GENE_MEAN_CELLS, self.seed).batch(0)
        return gene_means(self.cells.take(parts, rows), n_tokens)


def gene_means(cells: pa.Table, n_tokens: int) -> F64:
    """(V,) mean bin of each token id over cells; the overall mean for a token they lack."""
    table = cells.combine_chunks()
    offsets, ids = ragged(table[INPUT_IDS].chunk(0))
    _, values = ragged(table[VALUES].chunk(0))
    is_gene = np.ones(len(ids), dtype=bool)
    is_gene[offsets[:-1]] = False
    counts = np.bincount(ids[is_gene], minlength=n_tokens)
    sums = np.bincount(ids[is_gene], values[is_gene], minlength=n_tokens)
    means: F64 = np.where(counts > 0, sums / np.maximum(counts, 1), sums.sum() / counts.sum())
    return means
