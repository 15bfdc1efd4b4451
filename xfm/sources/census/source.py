"""Cells from CELLxGENE Census: a published release, or a SOMA store of the same layout on disk or in a bucket.

Census facts (read in cellxgene-census 1.18): obs holds `nnz` and `is_primary_data`, `ms/RNA/X/raw` sparse float32
counts in tiles of 2,048 x 2,048, joinids run from 0.
"""

import logging
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
from typing import Any, Literal, NamedTuple, Self, TypeVar

import pyarrow as pa
from pydantic import PositiveInt, field_validator, model_validator

from xfm.core.config import Config
from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.core.schema import Carried
from xfm.core.source import Shard
from xfm.sources.cell_split import SPLIT, CellSplit, RowParts, refuse_no_split, with_split, without_split
from xfm.sources.cells import cell_batch, cell_schema, embedding_batch, embedding_schema
from xfm.sources.census import arrays, tables
from xfm.sources.gene_table import encode_genes
from xfm.sources.paths import Uri

logger = logging.getLogger(__name__)

# Kept for at least five years each; weekly releases live for a month.
LONG_TERM = "2025-11-08, 2025-01-30, 2024-07-01, 2023-12-15, 2023-07-25, 2023-05-15"
ATTEMPTS = 4
T = TypeVar("T")


class Survey(NamedTuple):
    """One pass over obs: the shards, how many cells, their digest, and what the store says about itself."""

    shards: tuple[Shard, ...]
    cells: int
    digest: str
    about: dict[str, str]


class Census(Config):
    """Cells from CELLxGENE Census."""

    kind: Literal["census"] = "census"
    release: str | None = None
    """Date of a published release, e.g. 2025-11-08. Moving names such as "stable" are refused."""
    uri: Uri | None = None
    """A SOMA store of Census layout instead of a release: a folder or an address such as s3://bucket/store."""
    organism: str = "homo_sapiens"
    """Experiment under census_data."""
    measurement: str = "RNA"
    """Measurement of the experiment."""
    x_name: str = "raw"
    """Layer of X. Whole numbers are required of every layer except "normalized"."""
    value_filter: str | None = None
    """Which cells, in SOMA's language: "tissue_general == 'lung' and disease == 'normal'"."""
    primary_only: bool = True
    """Leave out cells that another data set of Census also holds: is_primary_data == True is added to the filter."""
    obs: Carried = ()
    """obs columns to carry along, e.g. cell_type,donor_id. Categories become strings."""
    obsm: tuple[str, ...] = ()
    """Embeddings to carry along as columns obsm_NAME: a layer of obsm, else `embedding_uri`, else one hosted by Census
    for the release."""
    embedding: str | None = None
    """An embedding to give instead of counts, found as those of `obsm` are: X is then never opened."""
    embedding_uri: Uri | None = None
    """Address of the SOMA array that holds the one embedding of `obsm` or `embedding` the store does not."""
    split: CellSplit | None = None
    """Draws a column `split` from obs: stratified_cell, random_cell or held_out_types."""
    shard_rows: PositiveInt = 2048
    """Most cells in a shard. Shards keep to storage tiles of 2,048 joinids, and hold fewer where cells are deep."""
    gene_column: str | None = None
    """The var column that names genes. By default feature_name and feature_id."""

    @classmethod
    def added_later(cls) -> dict[str, Any]:
        return {"embedding": None, "split": None}

    @field_validator("release")
    @classmethod
    def _pinned(cls, release: str | None) -> str | None:
        if release is not None and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", release):
            why = 'Results must name the data they came from, and names like "stable" or "latest" move'
            raise ValueError(f"release {release!r} is not a date. {why}. Long-term releases: {LONG_TERM}")
        return release

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if (self.release is None) == (self.uri is None):
            found = f"release={self.release!r} and uri={self.uri!r}"
            raise ValueError(f"give either release (long-term: {LONG_TERM}) or uri, found {found}")
        return self

    @property
    def schema(self) -> pa.Schema:
        with self._experiment() as experiment:
            return self._schema_of(experiment)

    def filter(self) -> str | None:
        """The filter as it is sent to the store."""
        parts = [f"({self.value_filter})"] if self.value_filter else []
        parts += [f"{tables.PRIMARY} == True"] if self.primary_only else []
        return " and ".join(parts) or None

    def shards(self) -> Sequence[Shard]:
        """Ranges of joinids with the exact number of selected cells in each.

        Raises:
            Refused: NO_ROWS, BAD_FILTER, NO_OBS_COLUMN, NO_PRIMARY, NO_EMBEDDING, NO_STORE, NO_RELEASE, NOT_CENSUS.
        """
        return _survey(self).shards

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """The cells of one shard as one batch. A remote store is asked up to four times.

        Raises:
            ShardRefused: the store no longer holds the promised cells, or is damaged.
            EnvironmentProblem: a remote store does not answer.
        """
        import tiledbsoma

        remote = self.uri is None or "://" in self.uri
        for attempt in range(ATTEMPTS):
            try:
                batch = self._read(shard)
                break
            except tiledbsoma.SOMAError as error:
                if not remote:
                    raise ShardRefused("STORE_UNREADABLE", f"shard {shard.key}: {error}") from error
                if attempt == ATTEMPTS - 1:
                    raise EnvironmentProblem(f"shard {shard.key}: no answer in {ATTEMPTS} attempts: {error}") from error
                logger.warning("shard %s: attempt %d failed: %s", shard.key, attempt + 1, error)
                time.sleep(2.0**attempt)
        yield batch

    def genes(self) -> pa.Table | None:
        """The gene table, in the order of var; None where an embedding is given instead of counts."""
        if self.embedding is not None:
            return None
        rest = {"value_filter": None, "obs": (), "obsm": (), "shard_rows": 1, "split": None, "embedding_uri": None}
        return _genes(self.model_copy(update=rest))  # without what they do not depend on

    def identity(self) -> dict[str, Any]:
        """Release or address, the complete filter, digests of (joinid, nnz), the split, and vectors of one's own."""
        survey = _survey(self)
        origin = {"release": self.release} if self.release else {"uri": self.uri}
        cells = {"cells": survey.cells, "cells_digest": survey.digest}
        if self.split is not None:
            cells["split"] = self._parts().digest
        # Vectors that are neither a release's nor another publisher's may change under their address.
        is_local = self.uri is not None or (self.embedding_uri is not None and "://" not in self.embedding_uri)
        if self.embedding is not None and is_local:
            cells["embedding_digest"] = _vectors_digest(self)
        return {**origin, "organism": self.organism, "filter": self.filter(), **cells, "census": survey.about}

    def _parts(self) -> RowParts:
        """Where each selected cell stands; drawn once in a process for all that ask alike.

        A store of one's own may change: its columns are read each time, and what they say is part of the key.
        """
        return tables.drawn(_strata(self.model_copy(update={"obs": (), "obsm": (), "shard_rows": 1})))

    @contextmanager
    def _experiment(self) -> Iterator[Any]:
        with arrays.open_store(self.release, self.uri) as store:
            yield arrays.experiment_of(store, self.organism, self.measurement, self._layer())

    def _layer(self) -> str | None:
        """The layer of X that is read, None where none is."""
        return self.x_name if self.embedding is None else None

    def _obs_types(self, experiment: Any) -> dict[str, pa.DataType]:
        refuse_no_split(self.obs, self.split, experiment.obs.schema.names)
        return tables.obs_types(experiment.obs, without_split(self.obs, self.split), self.primary_only)

    def _schema_of(self, experiment: Any) -> pa.Schema:
        given = self._obs_types(experiment)
        for name in self.obsm:
            with self._embedding(experiment, name) as array:
                given[f"obsm_{name}"] = pa.list_(pa.float32(), int(array.shape[1]))
        given |= dict.fromkeys(with_split((), self.split), pa.string())
        if self.embedding is None:
            return cell_schema(given)
        with self._embedding(experiment, self.embedding) as array:
            return embedding_schema(int(array.shape[1]), given)

    def _embedding(self, experiment: Any, name: str) -> AbstractContextManager[Any]:
        """The array of one embedding: in the store, at `embedding_uri`, or hosted."""
        asked = dict.fromkeys((*self.obsm, *([] if self.embedding is None else [self.embedding])))
        origin = (self.release, self.organism, self.embedding_uri)
        return arrays.embedding_array(experiment.ms[self.measurement], name, list(asked), *origin)

    def _read(self, shard: Shard) -> pa.RecordBatch:
        with self._experiment() as experiment:
            joinids, obs = tables.read_obs(experiment.obs, shard, self._obs_types(experiment), self.filter())
            row_ids = [str(joinid) for joinid in joinids.tolist()]
            for name in self.obsm:
                with self._embedding(experiment, name) as array:
                    obs[f"obsm_{name}"] = arrays.read_embedding(array, joinids)
            if self.split is not None:
                obs[SPLIT] = self._parts().column(row_ids)
            if self.embedding is not None:
                with self._embedding(experiment, self.embedding) as array:
                    vectors, absent = arrays.vectors_of(array, joinids, self.embedding)
                return embedding_batch(vectors, row_ids=row_ids, shard=shard.key, obs=obs, absent=absent)
            genes = self.genes()
            assert genes is not None
            rows = arrays.read_counts(experiment.ms[self.measurement].X[self.x_name], joinids, genes.num_rows)
        counts = self.x_name != "normalized"
        return cell_batch(rows, row_ids=row_ids, shard=shard.key, obs=obs, genes=encode_genes(genes), counts=counts)


def _kept_of_releases(read: Callable[[Census], T]) -> Callable[[Census], T]:
    """Remembers what was read: a release never changes, and obs of all of Census is worth reading once."""
    cached = lru_cache(maxsize=4)(read)
    return lambda census: (cached if census.release else read)(census)


@_kept_of_releases
def _survey(census: Census) -> Survey:
    tally = tables.Tally(census.shard_rows)
    census.genes()
    with arrays.open_store(census.release, census.uri) as store:
        experiment = arrays.experiment_of(store, census.organism, census.measurement, census._layer())
        census._schema_of(experiment)  # what is asked for is there, and of these cells
        for table in tables.selected(experiment.obs, census.filter()):
            nnz = table["nnz"].to_numpy() if "nnz" in table.column_names else None
            tally.add(table["soma_joinid"].to_numpy(), nnz)
        summary = tables.about(store)
    if tally.rows == 0:
        raise Refused("NO_ROWS", f"no cell of {census.release or census.uri} passes the filter {census.filter()}")
    origin = census.release or re.sub(r"[^A-Za-z0-9._-]+", "_", (census.uri or "").rstrip("/").split("/")[-1])[:100]
    shards = tuple(
        Shard(f"census-{origin}-{number:06d}", run.start, run.stop, run.rows) for number, run in enumerate(tally.runs())
    )
    logger.info("%d cells in %d shards, filter: %s", tally.rows, len(shards), census.filter() or "none")
    return Survey(shards, tally.rows, tally.digest(), summary)


@_kept_of_releases
def _genes(census: Census) -> pa.Table:
    with census._experiment() as experiment:
        return tables.read_genes(experiment.ms[census.measurement].var, census.gene_column)


@_kept_of_releases
def _strata(census: Census) -> tables.Strata:
    assert census.split is not None
    with census._experiment() as experiment:
        return tables.read_strata(experiment.obs, census.split, census.filter())


def _vectors_digest(census: Census) -> str:
    assert census.embedding is not None
    with census._experiment() as experiment, census._embedding(experiment, census.embedding) as array:
        return arrays.vectors_digest(array, tables.columns_of(experiment.obs, (), census.filter())[0], census.embedding)
