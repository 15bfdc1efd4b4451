"""Pretraining of a fusion: embeddings of cells beside the words for their types.

Labels are encoded once, on the driver, when the rows have been read and it is known which there are.
"""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.errors import Refused
from xfm.core.parts import TRAIN
from xfm.core.report import Figure, Report
from xfm.core.schema import EMBEDDING
from xfm.core.source import Source
from xfm.core.storage import open_storage
from xfm.engine.planning import ShardPlan
from xfm.engine.pretrain import Pretraining
from xfm.engine.pretrain_config import PretrainConfig
from xfm.models.fusion.checkpoint import write_fusion
from xfm.models.fusion.config import Fusion
from xfm.tasks.alignment.figures import drawer
from xfm.tasks.alignment.learner import AlignmentRecipe
from xfm.tasks.alignment.report import alignment_report
from xfm.tasks.alignment.settings import Alignment
from xfm.training.settings import Settings, Trained
from xfm.training.tokens import TokenParts, TokenStore


class AlignmentPretraining(Pretraining):
    """A fusion on embeddings and words.

    Args:
        task: sizes, loss and columns.
        source: of the embeddings.
        config: of training.
    """

    kind: ClassVar[str] = "fusion"
    noun: ClassVar[str] = "cells"

    def __init__(self, task: Alignment, source: Source, config: PretrainConfig) -> None:
        self.task, self.source, self.config = task, source, config
        self.columns = (task.text_column,)
        self.carried = tuple(dict.fromkeys(name for name in (task.text_column, config.split, config.group) if name))
        # What nobody asked for stays unset: a checkpoint's own counts there.
        asked = {name: getattr(task, name) for name in Fusion.of_weights() if name in task.model_fields_set}
        self._start = Fusion(checkpoint=task.init, text_column=task.text_column, **asked)
        self._recipe: AlignmentRecipe | None = None

    @property
    def start(self) -> Fusion:
        """The network at step 0."""
        return self._start

    @property
    def row_bytes(self) -> int:
        """Of an embedding, where the source says how long one is."""
        found = self.source.schema
        kind = found.field(EMBEDDING).type if EMBEDDING in found.names else None
        return 4 * kind.list_size if kind is not None and pa.types.is_fixed_size_list(kind) else 0

    def recipe(self, parts: TokenParts, identity: dict[str, Any]) -> AlignmentRecipe:
        """See `Pretraining`; encodes the labels.

        Raises:
            Refused: as `Fusion.bank_of`; ONE_TYPE where the loss needs a second one to train on.
        """
        config, task, store = self.config, self.task, TokenStore(parts)
        columns = store.column(task.text_column)
        labels = _different(columns)
        # Wrong pairs are made of types that are trained on.
        trained = _different([column.slice(0, n) for column, n in zip(columns, parts.count(TRAIN), strict=True)])
        if task.loss == "margin" and len(trained) == 1:
            raise Refused("ONE_TYPE", f"--task.loss margin sets a cell against a type that is not its own, and "
                          f"{task.text_column} has one value alone in the training rows, {trained[0]!r}")  # fmt: skip
        bank = self._start.bank_of(labels, open_storage(config.output))
        first = next(number for number, sizes in enumerate(parts.sizes) if sum(sizes))
        row = store.take(np.array([first]), np.array([0]))
        # Settings of the network from scratch may differ from those that the rows were prepared with.
        found = identity if task.init else self._start.identity()
        return AlignmentRecipe(
            self._start, bank, row[EMBEDDING].type.list_size, parts, task, config.batch_size, config.validation_cells,
            config.seed, found, config.group,
        )  # fmt: skip

    def settle(self, recipe: AlignmentRecipe) -> None:
        """See `Pretraining`."""
        self._recipe = recipe

    def write(self, weights: Mapping[str, Any], folder: Path) -> str:
        """model.safetensors, fusion.json and label_embeddings.parquet, which `Fusion` reads."""
        recipe = self._settled
        network = recipe.network("cpu")
        unknown = network.load_state_dict(dict(weights), strict=False).unexpected_keys
        assert not unknown, unknown
        about = {"loss": self.task.loss, "temperature": network.temperature, "xfm_pretrain": self.config.recipe()}
        write_fusion(folder, network.fusion, recipe.start, recipe.bank, recipe.gene_dim, about, replace=True)
        size = sum(parameter.numel() for parameter in network.fusion.parameters())
        return (
            f"Fusion, {size:,} parameters, embeddings of {recipe.gene_dim} numbers with {len(recipe.bank.labels)} "
            "labels. To use it: --backbone.kind fusion --backbone.checkpoint DIR"
        )

    def report(
        self, trained: Trained, settings: Settings, plan: ShardPlan, rows: tuple[int, int], refused: Mapping[str, int]
    ) -> Report:
        """See `Pretraining`."""
        return alignment_report(
            trained, settings, plan.run, rows, refused, task=self.task, encoder=self._settled.bank.encoder
        )

    def drawer(self, trained: Trained, settings: Settings) -> Callable[[Path], list[Figure]]:  # noqa: ARG002
        """See `Pretraining`."""
        start = "before training" if self.task.init else "random weights"
        return drawer(trained, start=start)

    @property
    def _settled(self) -> AlignmentRecipe:
        assert self._recipe is not None  # `settle` comes first
        return self._recipe


def _different(columns: Iterable[pa.ChunkedArray]) -> list[str]:
    """Sorted values of some columns of text."""
    found = [pc.unique(column.cast(pa.string())).to_pylist() for column in columns]
    return sorted({value for values in found for value in values if value is not None})
