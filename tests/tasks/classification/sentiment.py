"""Tiny sentences as training sees them: tokenised, split, in memory; and the recipe of a tiny encoder on them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tests.text_examples import NAMES, sentences
from xfm.core.schema import PART, REFUSED, ROW_ID, SHARD, TEXT
from xfm.judging.labelled import SplitWithContent
from xfm.models.hf_text.config import HFText
from xfm.tasks.classification.learner import ClassificationLearner, ClassificationRecipe
from xfm.tasks.classification.settings import Classification
from xfm.training.group import Group
from xfm.training.tokens import TokenParts


class Memory:
    """Parts in memory, and which rows were asked for."""

    def __init__(self, tables: Sequence[pa.Table]) -> None:
        self.tables = list(tables)
        self.taken: set[tuple[int, int]] = set()

    def take(self, parts: np.ndarray, rows: np.ndarray) -> pa.Table:
        self.taken |= set(zip(parts.tolist(), rows.tolist(), strict=True))
        return pa.concat_tables([self.tables[part].take(np.sort(rows[parts == part])) for part in np.unique(parts)])

    def column(self, name: str) -> list[pa.ChunkedArray]:
        return [table[name] for table in self.tables]

    def parts(self) -> TokenParts:
        counts = [np.bincount(table[PART].to_numpy(), minlength=4)[:3].tolist() for table in self.tables]
        keys = tuple(f"part-{number}" for number in range(len(counts)))
        return TokenParts("memory", keys, tuple(tuple(each) for each in counts))


def tokenised(
    config: HFText, texts: Sequence[str], labels: Sequence[Any], name: str = "row", **columns: Any
) -> pa.Table:
    """Rows as a source and the tokenizer of a checkpoint make them."""
    n = len(texts)
    batch = pa.RecordBatch.from_pydict(
        {
            ROW_ID: [f"{name}{i}" for i in range(n)],
            SHARD: ["s"] * n,
            REFUSED: pa.nulls(n, pa.string()),
            TEXT: list(texts),
            "label": pa.array(labels),
        }
        | columns
    )
    tokens = config.tokenizer(0)(batch)
    return pa.Table.from_batches([tokens]).drop_columns([REFUSED])


def memory(config: HFText, n: int = 120, parts: int = 2) -> Memory:
    """Sentences sorted by class, dealt over parts as they come: each part is of one class mostly."""
    texts, labels = sentences(n)
    table = tokenised(config, texts, [NAMES[label] for label in labels])
    split = SplitWithContent(0, 0.2, 0.2)
    size = -(-n // parts)
    return Memory([split(table.slice(start, size)) for start in range(0, n, size)])


def learner(
    folder: Path,
    task: Classification,
    *,
    rows: Memory | None = None,
    batch_size: int = 16,
    batch_tokens: int = 400,
    group: Group | None = None,
    seed: int = 0,
) -> ClassificationLearner:
    """As `ClassificationRecipe.build`, with rows in memory."""
    config = HFText(checkpoint=str(folder))
    rows = rows or memory(config)
    recipe = ClassificationRecipe(config, task, rows.parts(), batch_size, batch_tokens, seed, 0, {}, NAMES)
    return ClassificationLearner(recipe, rows, group or Group(), "cpu")


def worker(rank: int, world: int) -> Group:
    """One of several workers; nobody answers its collectives."""
    group = Group()
    group.rank, group.world = rank, world
    return group
