"""What alignment says of cells that it was not trained on: scores, and what pictures and tables are made from.

Alignment and uniformity: Wang and Isola, ICML 2020, equations 2 and 3, with powers 2 and 2. Modality gap: Liang et al.,
NeurIPS 2022, section 2.1. Retrieval: recall at 1 of a type among all labels of the bank, as Radford et al., ICML 2021,
measure zero-shot classes.
"""

# Shapes: N cells, M of them on this worker, D numbers of an embedding, T labels, P width of the shared space.

from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from xfm.core.random import rng_for
from xfm.core.schema import EMBEDDING, ROW_ID
from xfm.judging.eval_set import group_keys
from xfm.tasks.alignment.batches import other_types
from xfm.tasks.alignment.network import AlignedFusion
from xfm.tasks.alignment.settings import margin_losses, supcon_infonce
from xfm.tokenizers.embedding import vectors_of
from xfm.training.group import Group, all_gather_rows
from xfm.training.learner import evaluating
from xfm.training.tokens import strings_at

if TYPE_CHECKING:
    from xfm.tasks.alignment.learner import AlignmentLearner

I64 = NDArray[np.int64]
F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
UNIFORMITY_ROWS = 2000  # cells at most whose pairs are looked at: two million
PASS_ROWS = 1024  # cells of one pass where no gradient is kept
DRAWN_PER_TYPE = 20  # cells of a type in the picture of the shared space
DRAWN_CELLS = 1600  # in the picture of the embeddings as they came
DRAWN_LABELS = 3  # in the picture of what text latents take from words
DRAWN_COLUMNS = ("donor_id", "sex", "dataset_id")  # its panels, where rows bring them, beside the text column


class Seen(NamedTuple):
    """What a network makes of N cells."""

    scores: dict[str, float]
    genes: F32
    """(N, P) unit vectors of the cells."""
    texts: F32
    """(T, P) unit vectors of all labels."""


@dataclass(frozen=True, slots=True)
class AlignedRows:
    """Cells to be judged: worker r holds the embeddings of the cells r, r + world, ..."""

    parts: I64  # parts, rows: (N,) where they lie
    rows: I64
    types: I64  # (N,) their labels, the same on every worker
    # (N,) who is resampled together: every cell alone, or those with one value of a column; where that is not known,
    # the cell alone
    groups: I64
    genes: Tensor  # (M, D) embeddings of this worker's

    @classmethod
    def of(cls, learner: "AlignmentLearner", parts: I64, numbers: I64) -> "AlignedRows | None":
        """Reads them; None where there are none. Places must rise, since rows come in that order."""
        if not len(parts):
            return None
        rows, recipe, group = learner.rows, learner.recipe, learner.group
        types = recipe.bank.codes(strings_at(rows.column(recipe.task.text_column), parts, numbers))
        groups = np.arange(len(parts))
        if recipe.group is not None:
            columns = (rows.column(name) for name in (recipe.group, ROW_ID))
            named, ids = (strings_at(column, parts, numbers).to_pylist() for column in columns)
            groups = np.unique(group_keys(named, ids), return_inverse=True)[1].astype(np.int64)
        mine, genes = slice(group.rank, None, group.world), torch.zeros(0, recipe.gene_dim)
        if len(parts) > group.rank:
            table = rows.take(parts[mine], numbers[mine])
            genes = torch.from_numpy(vectors_of(table[EMBEDDING]).copy())
        return cls(parts, numbers, types, groups, genes)


def seen_by(learner: "AlignmentLearner", network: AlignedFusion, judged: AlignedRows) -> Seen:
    """Loss and scores of some cells, the same on every worker.

    Returns:
        Of `space_scores`, from vectors of either side alone whatever the loss is; loss: as in training, over batches
        as large; and where the loss is margin, fused_margin_accuracy: of the distances that it is about.
    """
    recipe, frequencies, group, device = learner.recipe, learner.frequencies, learner.group, learner.device
    total, wrong = len(judged.types), None
    if (frequencies.sum() > frequencies[judged.types]).all():
        wrong = other_types(judged.types, frequencies, rng_for(recipe.seed, "wrong types, held out"))
    with evaluating(network):
        pieces = [network.genes(piece.to(device)) for piece in torch.split(judged.genes, PASS_ROWS) if len(piece)]
        genes = all_gather_rows(group, torch.cat([*pieces, torch.zeros(0, network.width, device=device)]), total)
        texts = network.labels()
        if recipe.task.loss == "margin":
            assert wrong is not None  # training has two types
            met = [_fused(network, judged, types, group, device) for types in (judged.types, wrong)]
            losses = margin_losses(torch.cat(met), torch.arange(2 * total, device=device) < total, recipe.task.margin)
            scores = {
                "loss": float(losses.double().mean()),
                "fused_margin_accuracy": float((met[0] < met[1]).double().mean()),
            }
        else:
            scores = {"loss": _contrastive_loss(network, genes, texts, judged.types, recipe.batch_size, recipe.seed)}
    vectors = genes.cpu().numpy(), texts.cpu().numpy()
    return Seen(scores | space_scores(*vectors, judged.types, wrong, recipe.seed), *vectors)


def outcome(learner: "AlignmentLearner", before: AlignedFusion, judged: AlignedRows, part: str) -> dict[str, Any]:
    """What the report is made from.

    Returns:
        part: which cells these are; cells: N; labels: T names; types: (N,) labels; groups: (N,);
        hits, hits_before: (N,) whether a cell finds its label; scores, scores_before: of `seen_by`;
        temperature: what was learned;
        shared: a sample with as many cells of each type: types, genes, texts, and genes_before, texts_before;
        drawn: some cells as they came: embedding, columns and row ids;
        words: of some labels what the text latents take from each token; None where a label is one vector.
    """
    recipe, after = learner.recipe, learner.network
    trained, untrained = (seen_by(learner, each, judged) for each in (after, before))
    sample = _balanced(judged.types, recipe.seed)
    return {
        "part": part,
        "cells": len(judged.types),
        "labels": recipe.bank.labels,
        "types": judged.types,
        "groups": judged.groups,
        "hits": retrieved(trained.genes, trained.texts, judged.types),
        "hits_before": retrieved(untrained.genes, untrained.texts, judged.types),
        "scores": trained.scores,
        "scores_before": untrained.scores,
        "temperature": after.temperature,
        "shared": {
            "types": judged.types[sample],
            "genes": trained.genes[sample],
            "texts": trained.texts,
            "genes_before": untrained.genes[sample],
            "texts_before": untrained.texts,
        },
        "drawn": _drawn(learner, judged),
        "words": _words(learner, judged.types),
    }


def _words(learner: "AlignmentLearner", types: I64) -> dict[str, Any] | None:
    """The labels that most cells have: names, weights (K, N, L), and how many tokens each has."""
    bank, network = learner.recipe.bank, learner.network
    most = np.argsort(-np.bincount(types, minlength=len(bank.labels)), kind="stable")[:DRAWN_LABELS]
    with evaluating(network):
        weights = network.word_weights(torch.from_numpy(most).to(learner.device))
    if weights is None:
        return None
    held = bank.is_token
    lengths = [weights.shape[2]] * len(most) if held is None else held[most].sum(axis=1).tolist()
    names = [bank.labels[code] for code in most]
    return {"names": names, "weights": weights.cpu().numpy(), "lengths": lengths}


def _fused(network: AlignedFusion, judged: AlignedRows, types: I64, group: Group, device: str) -> Tensor:
    """(N,) distances between the two sides of pairs."""
    own = torch.from_numpy(types[group.rank :: group.world])
    pieces = [
        network.distances(genes.to(device), codes.to(device))
        for genes, codes in zip(torch.split(judged.genes, PASS_ROWS), torch.split(own, PASS_ROWS), strict=True)
        if len(genes)
    ]
    return all_gather_rows(group, torch.cat([*pieces, torch.zeros(0, device=device)]), len(types))


def _contrastive_loss(
    network: AlignedFusion, genes: Tensor, texts: Tensor, types: I64, batch_size: int, seed: int
) -> float:
    """Mean over batches as large as those of training, since the loss grows with the types of a batch."""
    size = min(batch_size, len(types))
    shuffled = rng_for(seed, "validation batches").permutation(len(types))
    losses = []
    for start in range(0, len(types) - size + 1, size):
        rows = torch.from_numpy(shuffled[start : start + size]).to(genes.device)
        present, places = torch.unique(torch.from_numpy(types).to(genes.device)[rows], return_inverse=True)
        halves = supcon_infonce(genes[rows], texts[present], places, network.temperature)
        losses.append(torch.stack(halves).double().mean())
    return float(torch.stack(losses).mean())


def _balanced(types: I64, seed: int) -> I64:
    """Rising places of at most `DRAWN_PER_TYPE` cells of each type."""
    chosen = [
        rng_for(seed, f"drawn of type {code}").permutation(np.flatnonzero(types == code))[:DRAWN_PER_TYPE]
        for code in np.unique(types)
    ]
    return np.sort(np.concatenate(chosen))


def _drawn(learner: "AlignmentLearner", judged: AlignedRows) -> dict[str, Any]:
    recipe = learner.recipe
    chosen = np.sort(rng_for(recipe.seed, "drawn cells").permutation(len(judged.types))[:DRAWN_CELLS])
    table = learner.rows.take(judged.parts[chosen], judged.rows[chosen])
    names = [recipe.task.text_column, *(name for name in DRAWN_COLUMNS if name in table.column_names)]
    columns = {name: table[name].cast(pa.string()).fill_null("").to_pylist() for name in dict.fromkeys(names)}
    return {"embedding": vectors_of(table[EMBEDDING]), "columns": columns, "rows": table[ROW_ID].to_pylist()}


def retrieved(genes: F32, texts: F32, types: I64) -> NDArray[np.bool_]:
    """(N,) whether the label nearest to a cell is its own; of equally near ones the first counts."""
    found: NDArray[np.bool_] = (genes @ texts.T).argmax(axis=1) == types
    return found


def by_type(values: NDArray[np.bool_], types: I64) -> dict[int, tuple[float, int]]:
    """Type -> mean of its cells, and how many they are; types in order."""
    names, places, counts = np.unique(types, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=values) / counts
    return {int(name): (float(mean), int(count)) for name, mean, count in zip(names, means, counts, strict=True)}


def space_scores(genes: F32, texts: F32, types: I64, others: I64 | None, seed: int) -> dict[str, float]:
    """What is said of a shared space.

    Args:
        genes: (N, P) unit vectors of cells.
        texts: (T, P) unit vectors of all labels.
        types: (N,) own labels.
        others: (N,) labels that are not their own, or None where there is one label alone.
        seed: of the sample whose pairs uniformity is measured on.

    Returns:
        retrieval: share of cells that find their label; retrieval_macro: the mean of that over types;
        margin_accuracy: share that is nearer to its own label than to the other one;
        alignment: mean squared distance to the own label; uniformity: log of the mean of exp(-2 d²) over pairs of
        cells, where there are two; modality_gap: distance of the mean cell from the mean of the cells' labels.
    """
    hits = retrieved(genes, texts, types)
    own = _squares(genes, texts[types])
    scores = {
        "retrieval": float(hits.mean()),
        "retrieval_macro": float(np.mean([share for share, _ in by_type(hits, types).values()])),
    }
    if others is not None:
        scores["margin_accuracy"] = float((own < _squares(genes, texts[others])).mean())
    scores["alignment"] = float(own.mean())
    if len(genes) > 1:
        scores["uniformity"] = _uniformity(genes, seed)
    gap = genes.astype(np.float64).mean(axis=0) - texts[types].astype(np.float64).mean(axis=0)
    return scores | {"modality_gap": float(np.linalg.norm(gap))}


def _squares(first: F32, second: F32) -> NDArray[np.float64]:
    squares: NDArray[np.float64] = ((first.astype(np.float64) - second) ** 2).sum(axis=1)
    return squares


def _uniformity(genes: F32, seed: int) -> float:
    chosen = np.sort(rng_for(seed, "uniformity").permutation(len(genes))[:UNIFORMITY_ROWS])
    rows = genes[chosen].astype(np.float64)
    similar = rows @ rows.T
    # Unit vectors: d² is 2 - 2 cos.
    kept = np.exp(-4 * (1 - similar[np.triu_indices(len(rows), 1)]))
    return log(float(kept.mean()))
