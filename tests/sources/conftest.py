"""Small cells, how they are written, and one Census-layout store for the session."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from xfm.core.schema import COUNTS, GENE_IDS, ROW_ID
from xfm.core.source import Source
from xfm.sources.census.store import write_census_store


def make_cells(n_cells: int = 40, n_genes: int = 30, seed: int = 0) -> anndata.AnnData:
    """Poisson counts with about a third of non-zero entries; symbols in var_names, Ensembl ids beside them."""
    rng = np.random.default_rng(seed)
    counts = rng.poisson(0.5, (n_cells, n_genes)).astype(np.float32)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(rng.choice(["B cell", "T cell", "µ-glia"], n_cells)),
            "n_spots": rng.integers(0, 9, n_cells),
            "score": rng.random(n_cells),
        },
        index=[f"cell-{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame(
        {"feature_id": [f"ENSG{i:011d}" for i in range(n_genes)], "genome": "GRCh38"},
        index=[f"GENE{i}" for i in range(n_genes)],
    )
    return anndata.AnnData(scipy.sparse.csr_matrix(counts), obs=obs, var=var)


def dense_of(source: Source, n_genes: int) -> tuple[list[str], np.ndarray]:
    """Row ids and (cells, genes) counts of a whole source."""
    ids: list[str] = []
    rows = []
    for shard in source.shards():
        n_rows = 0
        for batch in source.read(shard):
            n_rows += batch.num_rows
            ids += batch[ROW_ID].to_pylist()
            for genes, values in zip(batch[GENE_IDS].to_pylist(), batch[COUNTS].to_pylist(), strict=True):
                assert genes == sorted(set(genes))
                assert 0 not in values
                row = np.zeros(n_genes, np.float32)
                row[genes] = values
                rows.append(row)
        assert shard.rows in (None, n_rows)
    return ids, np.stack(rows)


@pytest.fixture
def cells() -> anndata.AnnData:
    return make_cells()


@pytest.fixture
def make() -> Callable[..., anndata.AnnData]:
    return make_cells


@pytest.fixture
def dense() -> Callable[[Source, int], tuple[list[str], np.ndarray]]:
    return dense_of


@pytest.fixture(scope="session")
def census_cells() -> anndata.AnnData:
    """300 cells, the first of every five not primary, cells 20 to 79 of type "rare", an embedding of width 4."""
    cells = make_cells(300, 50, seed=1)
    cells.obs["is_primary_data"] = np.arange(300) % 5 != 0
    kind = np.array(["common"] * 300, dtype=object)
    kind[20:80] = "rare"
    cells.obs["kind"] = pd.Categorical(kind)
    cells.var["feature_name"] = [f"Name{i}" for i in range(50)]
    cells.obsm["scvi"] = np.random.default_rng(2).normal(size=(300, 4)).astype(np.float32)
    return cells


@pytest.fixture(scope="session")
def census_store(census_cells: anndata.AnnData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("census") / "store"
    write_census_store(census_cells, folder)
    return folder


@pytest.fixture
def counts() -> Callable[[Any], np.ndarray]:
    return lambda cells: np.asarray(cells.X.toarray())
