"""The report of an alignment: does a cell find the words for its type, beside guessing and the network before."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from xfm.core.metric import words_of
from xfm.core.report import Estimate, Figure, Report, Table
from xfm.metrics.resampling import Resampled, estimate
from xfm.plots.attention import draw_resampled_attention
from xfm.plots.training_curves import draw_training_metrics
from xfm.plots.umap import FEWEST, SEED, draw_embedding_umap, draw_shared_space, shared_points
from xfm.tasks.alignment.outcome import by_type
from xfm.tasks.alignment.settings import Alignment
from xfm.training.report import gained, out_of_time, pretraining_numbers, provenance, recall
from xfm.training.settings import Trained
from xfm.training.task import TrainingRun

RETRIEVAL = "R@1, cell to type"
FEW_ROWS = 10  # training rows of a type, fewer of which teach little
REMOVES_DONORS = (
    "Cells of one type are drawn to the same words whoever gave them: alignment removes donor information by design. "
    "A classifier of donors on this checkpoint is expected to lose by it."
)
FUSED = (
    "The margin loss never looks at the shared space that retrieval is measured in. Its own vectors have both sides in "
    "them, so they cannot be used for retrieval: to make one, the answer would have to be known."
)
SHOWN = (
    "loss", "fused_margin_accuracy", "retrieval", "retrieval_macro", "margin_accuracy", "alignment", "uniformity",
    "modality_gap",
)  # fmt: skip
CURVES = (
    "validation_retrieval", "validation_retrieval_macro", "validation_margin_accuracy",
    "validation_fused_margin_accuracy",
)  # fmt: skip
LOSSES = {
    "combined": "loss", "from cells": "from_cells_loss", "from types": "from_types_loss",
    "right pairs": "right_pairs_loss", "wrong pairs": "wrong_pairs_loss",
}  # fmt: skip


def alignment_report(run: TrainingRun, task: Alignment, encoder: Mapping[str, Any], start: str) -> Report:
    """What an alignment left behind; `start` is what the network was before, in words."""
    trained, settings, found = run.trained, run.settings, run.trained.outcome
    numbers = pretraining_numbers(run, "cells")
    if settings.watch:
        numbers["step that was kept"] = trained.best_step
    headline = f"{trained.steps:,} steps over {run.n_training:,} cells; none was held out to judge them on."
    tables: list[Table] = []
    if found["cells"]:
        guess = chances(found)
        after, before = (recall(found[name], found["groups"], settings.seed) for name in ("hits", "hits_before"))
        numbers |= {
            f"{found['part']} cells": found["cells"],
            RETRIEVAL: estimate(*after) or after.value,
            f"{RETRIEVAL}, {start}": estimate(*before) or before.value,
            "chance, most frequent type": guess["most frequent type"],
            "chance, any type": guess["any type"],
        }
        if task.loss == "supcon_infonce":
            numbers["temperature"] = found["temperature"]
        tables = [_summary(found, start, after, before, guess), _scores(found, start), _types(found)]
        headline = (
            f"After {trained.steps:,} steps, {after.value:.1%} of {found['cells']:,} {found['part']} cells find the "
            f"words for their type among {len(found['labels'])}; {start} {before.value:.1%}, the most frequent type "
            f"{guess['most frequent type']:.1%} ({gained(after, before)})."
        )
    return Report(
        title="Alignment of embeddings with words",
        job="pretrain",
        headline=headline,
        numbers=numbers,
        tables=tables,
        warnings=[*_warnings(found, task), *out_of_time(run)],
        provenance={"start": run.run["recipe"]["weights"], "text encoder": dict(encoder)} | provenance(run),
        refused=dict(run.refused),
    )


def chances(found: Mapping[str, Any]) -> dict[str, float]:
    """Retrieval without looking at a cell: the most frequent type of training rows for all, or any of them blindly."""
    frequent = int(np.argmax(found["training_types"]))
    return {"most frequent type": float((found["types"] == frequent).mean()), "any type": 1 / len(found["labels"])}


def _summary(
    found: Mapping[str, Any], start: str, after: Resampled, before: Resampled, guess: Mapping[str, float]
) -> Table:
    def one(of: Resampled) -> Estimate | float:
        return estimate(*of) or of.value

    rows: list[list[Any]] = [
        ["aligned", one(after), found["scores"]["retrieval_macro"]],
        [start, one(before), found["scores_before"]["retrieval_macro"]],
        ["most frequent type", guess["most frequent type"], 1 / len(np.unique(found["types"]))],
        ["any type", guess["any type"], guess["any type"]],
    ]
    who = "cells" if len(np.unique(found["groups"])) == len(found["groups"]) else "groups of cells"
    return Table(
        name="retrieval_summary",
        caption=f"Retrieval by {found['cells']:,} {found['part']} cells among the words for {len(found['labels'])} "
        f"types, 95 % intervals over {who}",
        columns=["network", RETRIEVAL, "mean over types"],
        rows=rows,
        note="By the vectors that either side has on its own, whatever the loss. The most frequent type is that of the "
        "training cells. Random weights send most cells to the same words: what they reach is the share of whatever "
        "types these happen to be.",
        best=0 if after.value > max(before.value, *guess.values()) else None,
    )


def _scores(found: Mapping[str, Any], start: str) -> Table:
    after, before = found["scores"], found["scores_before"]
    return Table(
        name="space",
        caption=f"The shared space, {found['part']} cells",
        columns=["score", "aligned", start],
        rows=[[words_of(name), after.get(name), before.get(name)] for name in SHOWN if name in after],
        note="d is the distance of unit vectors. Alignment is that of a cell from its own words; uniformity falls as "
        "cells spread over the sphere; margin accuracy is the share of cells nearer to their own words than to those "
        "of another type; the gap is between the mean cell and the mean of the cells' words.",
    )


def _types(found: Mapping[str, Any]) -> Table:
    after, before = (by_type(found[name], found["types"]) for name in ("hits", "hits_before"))
    trained, none = found["training_types"], (None, 0)
    order = sorted(range(len(found["labels"])), key=lambda code: (-int(trained[code]), code))
    return Table(
        name="types",
        caption=f"{RETRIEVAL}, by type, {found['part']} cells",
        columns=["type", "training cells", f"{found['part']} cells", "aligned", "before"],
        rows=[
            [found["labels"][c], int(trained[c]), after.get(c, none)[1], after.get(c, none)[0], before.get(c, none)[0]]
            for c in order
        ],
        note="A type without training cells is found by its words alone.",
    )


def _warnings(found: Mapping[str, Any], task: Alignment) -> list[str]:
    said = [REMOVES_DONORS]
    if task.loss == "margin":
        said.append(FUSED)
    trained = found["training_types"]
    if np.count_nonzero(trained) == 1:
        said.append(f"{task.text_column} has one value in training: there was nothing to tell apart.")
    names = found.get("labels", ())
    few = [f"{name} ({count})" for name, count in zip(names, trained.tolist(), strict=False) if count < FEW_ROWS]
    if few:
        said.append(f"Fewer than {FEW_ROWS} training cells: {', '.join(few)}.")
    if found["part"] == "validation":
        said.append("The data name no test cells: the scores are those of validation cells.")
    return said


def draw(trained: Trained, start: str, folder: Path) -> list[Figure]:
    """The figures of a report; `start` is what the network was before, in words."""
    found = trained.outcome
    figures = [*_shared(found, start, folder)] if found["cells"] else []
    held = [name for name in CURVES if any(name in record for record in trained.history)]
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
