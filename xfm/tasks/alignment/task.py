"""Embeddings and words as a task: a fusion that draws a cell's embedding and the words for its type together.

OUTPUT/label_embeddings.parquet   vectors of the labels, encoded once, when it is known which there are
"""

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import ClassVar

import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.schema import EMBEDDING
from xfm.core.storage import open_storage
from xfm.models.fusion.checkpoint import write_fusion
from xfm.models.fusion.config import Fusion
from xfm.models.fusion.label_embeddings import share_labels
from xfm.tasks.alignment.learner import AlignmentRecipe
from xfm.tasks.alignment.report import alignment_report, draw
from xfm.tasks.alignment.settings import Alignment
from xfm.training.state import with_weights
from xfm.training.task import Checkpoint, Result, Task, TaskContext, TrainingInputs, TrainingRun
from xfm.training.tokens import TokenParts, TokenStore, embedding_width


class AlignmentTask(Task):
    """A cell's embedding and the words for its type, drawn together."""

    fixed: ClassVar[frozenset[str]] = frozenset({"kind", "init", "text_column", "text"})
    noun = "cells"

    def __init__(self, context: TaskContext) -> None:
        super().__init__(context)
        task: Alignment = context.settings
        # What nobody asked for stays unset: a checkpoint's own counts there.
        asked = {name: getattr(task, name) for name in Fusion.of_weights() if name in task.model_fields_set}
        self._start = Fusion(checkpoint=task.init, text_column=task.text_column, **asked)

    @property
    def columns(self) -> tuple[str, ...]:
        """The words."""
        return (self.context.settings.text_column,)

    @property
    def required(self) -> tuple[str, ...]:
        """The words."""
        return self.columns

    @property
    def start(self) -> Fusion:
        """The network at step 0."""
        return self._start

    @property
    def row_bytes(self) -> int:
        """Of an embedding, where the source says how long one is."""
        schema = self.context.source.schema
        kind = schema.field(EMBEDDING).type if EMBEDDING in schema.names else None
        return 4 * kind.list_size if kind is not None and pa.types.is_fixed_size_list(kind) else 0

    def share(self, parts: TokenParts, common: str, own: str) -> None:
        """The vectors of all labels."""
        share_labels(self._start, TokenStore(parts).column(self._start.text_column), common, own)

    def recipe(self, given: TrainingInputs) -> AlignmentRecipe:
        """The fusion and its temperature; labels are encoded here.

        Raises:
            Refused: as `Fusion.bank_of`; ONE_TYPE where the loss needs a second one to train on.
        """
        context, training, store = self.context, self.context.training, TokenStore(given.parts)
        task: Alignment = context.settings
        columns = store.column(task.text_column)
        # Wrong pairs are made of types that are trained on.
        trained = _different([column.slice(0, n) for column, n in zip(columns, given.parts.count(TRAIN), strict=True)])
        if task.loss == "margin" and len(trained) == 1:
            raise Refused("ONE_TYPE", f"--task.loss margin sets a cell against a type that is not its own, and "
                          f"{task.text_column} has one value alone in the training rows, {trained[0]!r}")  # fmt: skip
        bank = self._start.bank_of(_different(columns), open_storage(context.uri))
        return AlignmentRecipe(
            self._start, bank, embedding_width(store, given.parts), given.parts, task, given.settings.batch_size,
            training.validation_rows, training.seed, given.identity, training.group,
        )  # fmt: skip

    def result(self, recipe: AlignmentRecipe, run: TrainingRun) -> Result:
        """model.safetensors, fusion.json and label_embeddings.parquet, which `Fusion` reads; retrieval of types beside
        random weights, the most frequent type and chance."""
        task, trained = recipe.task, run.trained

        def write(folder: Path) -> str:
            network = with_weights(recipe.network("cpu"), trained.weights)
            about = {"loss": task.loss, "temperature": network.temperature, "xfm_pretrain": dict(self.context.record)}
            write_fusion(folder, network.fusion, recipe.start, recipe.bank, recipe.gene_dim, about, replace=True)
            size = sum(parameter.numel() for parameter in network.fusion.parameters())
            return (
                f"Fusion, {size:,} parameters, embeddings of {recipe.gene_dim} numbers with "
                f"{len(recipe.bank.labels)} labels. To use it: --backbone.kind fusion --backbone.checkpoint DIR"
            )

        start = "before training" if task.init else "random weights"
        report = alignment_report(run, task, recipe.bank.encoder, start)
        return Result(Checkpoint("fusion", write), report, partial(draw, trained, start))


def _different(columns: Iterable[pa.ChunkedArray]) -> list[str]:
    """Sorted values of some columns of text."""
    found = [pc.unique(column.cast(pa.string())).to_pylist() for column in columns]
    return sorted({value for values in found for value in values if value is not None})
