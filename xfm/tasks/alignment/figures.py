"""Pictures of an alignment: how training went, the shared space before and after, and the embeddings as they came."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from xfm.core.report import Figure
from xfm.plots.attention import draw_resampled_attention
from xfm.plots.training_curves import draw_training_metrics
from xfm.plots.umap import FEWEST, SEED, draw_embedding_umap, draw_shared_space, shared_points
from xfm.training.settings import Trained

SCORES = (
    "validation_retrieval", "validation_retrieval_macro", "validation_margin_accuracy",
    "validation_fused_margin_accuracy",
)  # fmt: skip
LOSSES = {
    "combined": "loss", "from cells": "from_cells_loss", "from types": "from_types_loss",
    "right pairs": "right_pairs_loss", "wrong pairs": "wrong_pairs_loss",
}  # fmt: skip


def drawer(trained: Trained, *, start: str) -> partial[list[Figure]]:
    """`draw`, waiting for its folder."""
    return partial(draw, trained, start)


def draw(trained: Trained, start: str, folder: Path) -> list[Figure]:
    """The figures of a report.

    Args:
        start: what the network was before, in words.
    """
    found = trained.outcome
    figures = [*_shared(found, start, folder)] if found["cells"] else []
    held = [name for name in SCORES if any(name in record for record in trained.history)]
    figures.append(
        draw_training_metrics(
            folder, trained.history, losses=LOSSES, scores=held,
            caption="Alignment by step and epoch; dots are validations, a line is a mean since the last record.",
        )
    )  # fmt: skip
    return figures + _words(found, folder) + _embeddings(found, folder) if found["cells"] else figures


def _words(found: dict[str, Any], folder: Path) -> list[Figure]:
    """Nothing where labels are one vector, or one word, each."""
    words = found["words"]
    if words is None or max(words["lengths"]) < 2:
        return []
    tokens = [[f"{number}" for number in range(1, length + 1)] for length in words["lengths"]]
    return [
        draw_resampled_attention(
            folder, words["weights"], words["names"], name="word_attention", side="text", keys="token",
            key_names=tokens,
            caption="What the text latents take from each token of a label, in the order of its words: mean over "
            "heads, last block.",
        )
    ]  # fmt: skip


def _shared(found: dict[str, Any], start: str, folder: Path) -> list[Figure]:
    drawn = found["shared"]
    types = drawn["types"].astype(np.intp)
    if len(types) + len(np.unique(types)) < FEWEST:
        return []
    before, after = (
        shared_points(drawn[genes], drawn[texts], types, SEED, per_type=len(types))
        for genes, texts in (("genes_before", "texts_before"), ("genes", "texts"))
    )
    said = (
        f"{len(types):,} {found['part']} cells, as many of each type where there are enough, and the words for the "
        "types, by the vectors that each side has on its own."
    )
    return [draw_shared_space(folder, before, after, found["labels"], titles=(start, "aligned"), caption=said)]


def _embeddings(found: dict[str, Any], folder: Path) -> list[Figure]:
    drawn = found["drawn"]
    vectors = drawn["embedding"]
    if len(vectors) < FEWEST or (vectors == vectors[0]).all():
        return []
    said = f"{len(vectors):,} {found['part']} cells by their embeddings as they came, before any alignment."
    return [draw_embedding_umap(folder, vectors, drawn["columns"], cells=drawn["rows"], caption=said)]
