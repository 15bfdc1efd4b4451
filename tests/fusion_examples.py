"""Cells as vectors beside the words for their type, some of them broken, and a tiny fusion that knows those words."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from xfm.core.config import Config
from xfm.core.schema import EMBEDDING, REFUSED, ROW_ID, SHARD
from xfm.core.source import Shard
from xfm.models.fusion.checkpoint import write_fusion
from xfm.models.fusion.config import Fusion

TYPES = ("astrocyte", "oligodendrocyte", "oligodendrocyte precursor cell")
DONORS = ("d1", "d2")
GENE_DIM = 12


class Vectors(Config):
    """A source of vectors in two shards; one row has none, as happens, and one a number that is not finite."""

    n: int = 14

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(ROW_ID, pa.string()), (SHARD, pa.string()), (REFUSED, pa.string()),
                          (EMBEDDING, pa.list_(pa.float32(), GENE_DIM)), ("cell_type", pa.string()),
                          ("donor_id", pa.string())])  # fmt: skip

    def shards(self) -> Sequence[Shard]:
        half = self.n // 2
        return [Shard("vectors-0", 0, half, half), Shard("vectors-1", half, self.n, self.n - half)]

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        vectors: list[Any] = list(np.random.default_rng(0).normal(size=(self.n, GENE_DIM)).astype(np.float32))
        vectors[3], vectors[4] = None, np.full(GENE_DIM, np.inf, np.float32)
        rows = range(shard.start, shard.stop)
        yield pa.RecordBatch.from_arrays([
            pa.array([f"cell-{i}" for i in rows]), pa.array([shard.key] * len(rows)), pa.nulls(len(rows), pa.string()),
            pa.array([vectors[i] for i in rows], pa.list_(pa.float32(), GENE_DIM)),
            pa.array([TYPES[i % len(TYPES)] for i in rows]), pa.array([DONORS[i % len(DONORS)] for i in rows]),
        ], schema=self.schema)  # fmt: skip

    def genes(self) -> None:
        return None

    def identity(self) -> dict[str, Any]:
        return {"vectors": self.n}


def tiny_fusion(**fields: Any) -> Fusion:
    """Four latents of width 16 on either side, words of 24 numbers."""
    return Fusion(**({"hidden": 16, "heads": 2, "latents": 4, "projection": 6, "text": {"kind": "hashed", "dim": 24}}
                     | fields))  # fmt: skip


def write_tiny_fusion(folder: Path, config: Fusion | None = None, **about: Any) -> Path:
    """A checkpoint folder with weights drawn from seed 0."""
    config = config or tiny_fusion()
    bank = config.bank_of(TYPES, None)
    write_fusion(folder, config.start(GENE_DIM, bank, 0), config, bank, GENE_DIM, about)
    return folder
