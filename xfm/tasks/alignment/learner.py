"""Cells' embeddings learning to lie beside the words for their types, over any number of workers.

The words are vectors already when training begins (`fusion/label_embeddings.py`): no text encoder is called. For the
loss over the whole batch a worker computes the vectors of its own cells and of its share of the types, and all vectors
are gathered, as for pictures and captions (`contrastive.py`); a wrong pair of the margin loss needs no other cell.
"""

# Shapes: N cells of a whole batch, M of them on this worker, K types among them, T labels, P width of the shared space.

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.compute.embed import check_identity
from xfm.core.parts import TEST, TRAIN, VALIDATION
from xfm.core.random import rng_for
from xfm.core.schema import EMBEDDING
from xfm.models.fusion.config import Fusion
from xfm.models.fusion.label_embeddings import TextBank
from xfm.tasks.alignment.batches import PairBatch, TypeDraws, frequencies, other_types
from xfm.tasks.alignment.network import AlignedFusion
from xfm.tasks.alignment.outcome import AlignedRows, outcome, seen_by
from xfm.tasks.alignment.settings import TEMPERATURE, Alignment, limit_temperature, margin_losses, supcon_gradients
from xfm.tokenizers.embedding import vectors_of
from xfm.training.group import Group, all_gather_rows
from xfm.training.settings import Record, measured
from xfm.training.tokens import TokenParts, TokenStore

I64 = NDArray[np.int64]
HALVES = {"supcon_infonce": ("from_cells_loss", "from_types_loss"), "margin": ("right_pairs_loss", "wrong_pairs_loss")}


class AlignmentLearner:
    """One worker's share; see `training.learner.Learner`.

    Raises:
        Refused: NO_TRAINING_ROWS.
    """

    def __init__(self, recipe: "AlignmentRecipe", rows: TokenStore, group: Group, device: str) -> None:
        self.recipe, self.rows, self.group, self.device = recipe, rows, group, device
        self.network, task, parts = recipe.network(device), recipe.task, recipe.parts
        columns = zip(rows.column(task.text_column), parts.count(TRAIN), strict=True)
        types = np.concatenate([recipe.bank.codes(column.slice(0, size)) for column, size in columns])
        self.draws = TypeDraws(parts.count(TRAIN), types, recipe.batch_size, recipe.seed, task.sampler)
        self.frequencies = frequencies(types, len(recipe.bank.labels), task.negatives)
        self.held = AlignedRows.of(self, *parts.sample(VALIDATION, recipe.validation_rows, recipe.seed))

    @property
    def names(self) -> tuple[str, ...]:
        """The loss and its halves: from cells and from types, or of right pairs and of wrong ones."""
        return ("loss", *HALVES[self.recipe.task.loss])

    @property
    def steps_per_epoch(self) -> int:
        """Batches of as many draws as there are training rows."""
        return self.draws.order.batches_per_epoch

    def examples(self, step: int) -> PairBatch:
        parts, rows, types = self.draws.share(step, self.group.rank, self.group.world)
        table = self.rows.take(parts, rows)
        others = None
        if self.recipe.task.loss == "margin":
            everyone = self.draws.batch(step)[2]
            drawn = other_types(everyone, self.frequencies, rng_for(self.recipe.seed, f"wrong types {step}"))
            others = torch.from_numpy(drawn[self.group.rank :: self.group.world])
        genes = torch.from_numpy(vectors_of(table[EMBEDDING]).copy())
        return PairBatch(genes, torch.from_numpy(types), others, self.draws.batch_size)

    def counts(self, examples: PairBatch, step: int) -> list[float]:  # noqa: ARG002
        """Cells, or pairs: a right one and a wrong one a cell."""
        cells = float(len(examples.types))
        return [cells if examples.others is None else 2 * cells, cells, cells]

    def backward(self, examples: PairBatch, counts: Tensor, step: int) -> Tensor:  # noqa: ARG002
        cells = examples.to(self.device)
        return self._contrast(cells) if cells.others is None else self._margin(cells, cells.others, float(counts[0]))

    def validate(self, step: int) -> Record:  # noqa: ARG002
        """Loss and scores on validation cells, none of them where no cell is held out."""
        if self.held is None:
            return {}
        found = seen_by(self, self.network, self.held)
        return measured(found.scores)

    def outcome(self, step: int) -> dict[str, Any]:  # noqa: ARG002
        """Of test cells, or of validation cells where no cell is for testing; see `outcome.outcome`."""
        parts = self.recipe.parts
        part = TEST if sum(parts.count(TEST)) else VALIDATION
        judged = AlignedRows.of(self, *parts.everything(part))
        if judged is None:
            return {"part": "", "cells": 0} | self._trained_on()
        return outcome(self, self.recipe.network(self.device), judged, part.word) | self._trained_on()

    def _trained_on(self) -> dict[str, Any]:
        """training_types: (T,) training rows of each label."""
        return {"training_types": np.bincount(self.draws.types, minlength=len(self.recipe.bank.labels))}

    def _contrast(self, cells: PairBatch) -> Tensor:
        network, group = self.network, self.group
        limit_temperature(network.log_temperature)
        genes = network.genes(cells.genes)
        types = all_gather_rows(group, cells.types, cells.total)
        present, places = torch.unique(types, return_inverse=True)
        mine = slice(group.rank, None, group.world)
        is_busy = len(present) > group.rank
        texts = network.labels(present[mine]) if is_busy else genes.new_zeros(0, network.width)
        halves, by_gene, by_text, by_temperature = supcon_gradients(
            all_gather_rows(group, genes, cells.total),
            all_gather_rows(group, texts, len(present)),
            places,
            network.log_temperature,
        )
        # The temperature is everybody's: each worker gives its share, so that the sum counts it once.
        torch.autograd.backward([genes, network.log_temperature], [by_gene[mine], by_temperature / group.world])
        if is_busy:
            torch.autograd.backward([texts], [by_text[mine]])
        return torch.cat([halves.mean()[None], halves]).double() * len(cells.types)

    def _margin(self, cells: PairBatch, others: Tensor, pairs: float) -> Tensor:
        distances = self.network.distances(cells.genes.repeat(2, 1), torch.cat([cells.types, others]))
        is_match = torch.arange(len(distances), device=self.device) < len(others)
        losses = margin_losses(distances, is_match, self.recipe.task.margin)
        torch.autograd.backward([losses.sum() / pairs])
        halves = losses.detach().double().view(2, -1).sum(1)
        return torch.cat([halves.sum()[None], halves])


@dataclass(frozen=True)
class AlignmentRecipe:
    """The recipe of an `AlignmentLearner`; it travels."""

    start: Fusion  # the network at step 0
    bank: TextBank  # every label of the rows, with its vectors
    gene_dim: int  # numbers of an embedding
    parts: TokenParts  # embeddings and words
    task: Alignment  # the loss and its settings
    batch_size: int  # cells of a step, over all workers
    validation_rows: int  # cells to validate on at most
    seed: int  # of draws and of initial weights
    identity: dict[str, Any]  # what `start` must find; another copy of a checkpoint is refused
    group: str | None = None  # column whose values are resampled whole for intervals; None for cells

    def network(self, device: str) -> AlignedFusion:
        """At step 0.

        Raises:
            Refused: as `Fusion.start`, or NOT_A_FUSION.
        """
        fusion = self.start.start(self.gene_dim, self.bank, self.seed)
        temperature = self.task.temperature or self.start.about().get("temperature", TEMPERATURE)
        return AlignedFusion(fusion, self.bank, temperature, self.task.loss).to(device)

    def build(self, group: Group, device: str) -> AlignmentLearner:
        """Opens the rows and builds the network.

        Raises:
            EnvironmentProblem: another copy of the checkpoint.
            Refused: NO_TRAINING_ROWS, FEW_ROWS for so many workers, or as `network`.
        """
        check_identity(self.start, self.identity)
        return AlignmentLearner(self, TokenStore(self.parts), group, device)
