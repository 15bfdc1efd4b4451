"""Vectors that another job or another program stored: a layer of a backbone as the input of the next model.

Any layer of any backbone that `jobs/embed.py` wrote, or any dense matrix in obsm of an AnnData. A read touches that
column and the obs columns, no other; X of an AnnData is never opened. A row whose vector is not finite is refused.
"""

import logging
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import PositiveInt

from xfm.core.config import Config
from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import Carried
from xfm.core.source import Shard, cut
from xfm.sources.cell_split import CellSplit, RowParts, refuse_no_split, split_rows, with_split, without_split
from xfm.sources.cells import embedding_batch, embedding_schema
from xfm.sources.paths import Uri
from xfm.sources.stored.anndata import SUFFIXES, open_anndata
from xfm.sources.stored.columns import StoredEmbeddings
from xfm.sources.stored.output import open_output

logger = logging.getLogger(__name__)


class Embeddings(Config):
    """Embeddings that `embed` stored, or in obsm of an AnnData, as rows."""

    kind: Literal["embeddings"] = "embeddings"
    path: Uri
    """OUTPUT of an embed job (folder or URI), or an .h5ad or .zarr with embeddings in obsm."""
    column: str
    """Which embedding: mean_l07 of an OUTPUT, X_scgpt_cls_l07 or any other name in obsm."""
    obs: Carried = ()
    """obs columns to carry along as text, e.g. cell_type,donor_id,sex,dataset_id."""
    split: CellSplit | None = None
    """Draws a column `split`: stratified_cell, random_cell or held_out_types. It hides one of that name in the data."""
    shard_rows: PositiveInt = 2048
    """Rows in one shard."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the embeddings are; `identity` says which they are."""
        return {"path"}

    @property
    def schema(self) -> pa.Schema:
        found = open_embeddings(self.path, verify=False).column(self.column)
        return embedding_schema(found.dim, dict.fromkeys(with_split(self.obs, self.split), pa.string()))

    def shards(self) -> Sequence[Shard]:
        """Ranges of rows. All bytes of an OUTPUT are compared with its manifest here, once.

        Raises:
            Refused: NO_COLUMN, NO_SPLIT, BAD_OBS, DUPLICATE_ROWS; or nothing usable is stored (`open_embeddings`).
        """
        stored = open_embeddings(self.path)
        found = stored.column(self.column)
        refuse_no_split(self.obs, self.split, stored.obs_names())
        _frame(stored, without_split(self.obs, self.split))
        if self.split is not None:
            _parts(stored, self.split)
        if not stored.is_finished():
            logger.warning("%s has no report: its job has not finished; rows may be missing", stored.place)
        shards = cut("embeddings", stored.rows, self.shard_rows)
        logger.info("%d rows of %s (%d numbers) in %d shards", stored.rows, found.name, found.dim, len(shards))
        return shards

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """The rows of one shard as one batch.

        Raises:
            ShardRefused: ROWS_CHANGED, or what is stored is damaged.
        """
        try:
            yield self._read(shard)
        except ShardRefused:
            raise
        except Refused as problem:
            raise ShardRefused(problem.code, f"shard {shard.key}: {problem.message}") from problem

    def genes(self) -> pa.Table | None:
        return None

    def identity(self) -> dict[str, Any]:
        """What is stored, the column, and the digest of the split."""
        stored = open_embeddings(self.path, verify=False)
        found = {"embeddings": stored.identity(), "column": stored.column(self.column).key}
        return found | ({"split": _parts(stored, self.split).digest} if self.split is not None else {})

    def _read(self, shard: Shard) -> pa.RecordBatch:
        stored = open_embeddings(self.path, verify=False)
        if shard.stop > stored.rows:
            found = f"rows up to {shard.stop} promised, {stored.rows} found"
            raise ShardRefused("ROWS_CHANGED", f"shard {shard.key}: {found}")
        vectors = stored.read(self.column, np.arange(shard.start, shard.stop), finite=False)
        ids, table = _frame(stored, without_split(self.obs, self.split))
        rows = slice(shard.start, shard.stop)
        row_ids = ids[rows].to_pylist()
        obs = {name: table[name].chunk(0)[rows] for name in table.column_names}
        if self.split is not None:
            obs["split"] = _parts(stored, self.split).column(row_ids)
        return embedding_batch(vectors, row_ids=row_ids, shard=shard.key, obs=obs, absent={})


def open_embeddings(path: str, *, verify: bool = True) -> StoredEmbeddings:
    """What is stored in an OUTPUT (folder or URI) or a local .h5ad or .zarr, as a recipe that may travel to workers.

    Args:
        verify: compare every byte of an OUTPUT with its manifest, once, now.

    Raises:
        Refused: NOT_AN_OUTPUT, NOTHING_COMMITTED, NO_EMBEDDINGS, CORRUPT_PART or MIXED_PARTS of an OUTPUT;
            NO_SUCH_FILE, NOT_ANNDATA, NO_EMBEDDINGS or BAD_ORIGIN of an AnnData; NOT_LOCAL.
    """
    name = PurePosixPath(path.removesuffix(".gz"))
    if name.suffix not in SUFFIXES:
        return open_output(path, verify=verify)
    if "://" in path and not path.startswith("file://"):
        raise Refused("NOT_LOCAL", f"{path}: an AnnData is read where it lies; copy it to a local disk first")
    if path.endswith(".gz"):
        raise Refused("NOT_ANNDATA", f"{path} is compressed as a whole: `gunzip --keep` it first")
    return open_anndata(path.removeprefix("file://"))


# A worker reads ids and obs once, not once a shard. What was stored is part of the key: for an OUTPUT its manifest, for
# an AnnData the times and sizes of its files.
@lru_cache(maxsize=4)
def _frame(stored: StoredEmbeddings, names: tuple[str, ...]) -> tuple[pa.Array, pa.Table]:
    """All row ids and some obs columns as text, one chunk each."""
    found = stored.obs(names) if names else pa.table({})
    columns = {name: _as_text(found[name], f"{stored.place}: obs column {name!r}") for name in names}
    return pa.array(stored.row_ids(), pa.string()), pa.table(columns)


@lru_cache(maxsize=4)
def _parts(stored: StoredEmbeddings, split: CellSplit) -> RowParts:
    ids, table = _frame(stored, split.columns)
    return split_rows(split, ids.to_pylist(), table)


def _as_text(column: pa.ChunkedArray, what: str) -> pa.Array:
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    try:
        text = column.cast(kind).cast(pa.string())
    except pa.ArrowNotImplementedError:
        raise Refused("BAD_OBS", f"{what} is {kind}, which is no text and no number") from None
    return pa.concat_arrays(text.chunks) if text.num_chunks else pa.array([], pa.string())
