"""Baselines from expression, beside scanpy on the training cells alone."""

import anndata
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scanpy
import scipy.sparse

from tests.rounding import assert_same_but_rounding
from xfm.core.errors import Refused
from xfm.sources.h5ad.source import H5ad
from xfm.sources.pbmc import pbmc_counts
from xfm.studies.evaluate.baselines import expression_baselines
from xfm.studies.evaluate.expression_matrix import common_genes, read_expression

N, GENES = 300, 120


def some_cells(n=N, n_genes=GENES, seed=0, prefix="cell"):
    """Two kinds of cells, a few genes apart."""
    rng = np.random.default_rng(seed)
    rates = rng.gamma(0.7, 2.0, n_genes) * np.where(rng.random((n, 1)) < 0.5, 1, rng.gamma(1, 2, n_genes))
    counts = rng.poisson(rates * rng.uniform(0.3, 2, (n, 1))).astype("f4")
    obs = pd.DataFrame(index=[f"{prefix}-{i}" for i in range(n)])
    var = pd.DataFrame({"ensembl": [f"ENSG{i:011d}" for i in range(n_genes)]}, index=[f"G{i}" for i in range(n_genes)])
    return anndata.AnnData(scipy.sparse.csr_matrix(counts), obs=obs, var=var)


def source_of(cells, path, **settings):
    cells.write_h5ad(path)
    return H5ad(path=str(path), **({"shard_rows": 64} | settings))


@pytest.fixture
def is_train():
    return np.random.default_rng(1).random(N) < 0.6


def by_scanpy(train, genes, components):
    train = train.copy()
    scanpy.pp.normalize_total(train, target_sum=1e4)
    scanpy.pp.log1p(train)
    scanpy.pp.highly_variable_genes(train, n_top_genes=genes, flavor="seurat")
    chosen = train[:, train.var["highly_variable"]].copy()
    scanpy.pp.pca(chosen, n_comps=components, svd_solver="full", dtype="float64")
    return chosen


def test_genes_and_components_are_those_of_scanpy_on_the_training_cells(tmp_path):
    cells = pbmc_counts()
    is_train = np.random.default_rng(0).random(cells.n_obs) < 0.6
    source = source_of(cells, tmp_path / "a.h5ad", shard_rows=256)
    found = expression_baselines(source, list(cells.obs_names), is_train, genes=200, components=10)
    dense = cells.copy()
    # In float64: the tenth and the eleventh component differ by 0.4 % in length, so rounding would turn them.
    dense.X = dense.X.toarray().astype(np.float64)
    expected = by_scanpy(dense[is_train], 200, 10)
    assert list(found.genes) == list(expected.var_names)
    np.testing.assert_allclose(found.hvg[is_train], expected.X, rtol=2e-6, atol=1e-6)
    flips = np.sign((found.pca[is_train] * expected.obsm["X_pca"]).sum(axis=0))
    assert_same_but_rounding(found.pca[is_train] * flips, expected.obsm["X_pca"], 8)
    # What the loadings say of cells they were not fitted on: centred by the training cells.
    logged = dense[:, found.genes].X * (1e4 / dense.X.sum(axis=1, keepdims=True))
    centred = np.log1p(logged) - expected.X.mean(axis=0)
    assert_same_but_rounding(found.pca * flips, centred @ expected.varm["PCs"], 8)
    assert (found.hvg.dtype, found.pca.dtype) == (np.float32, np.float32)
    np.testing.assert_array_equal(found.counts.toarray(), dense[:, found.genes].X)
    np.testing.assert_allclose(found.depth, dense.X.sum(axis=1))


def test_test_cells_have_no_say_in_genes_components_or_the_place_of_training_cells(tmp_path, is_train):
    cells = some_cells()
    ids = list(cells.obs_names)
    one = expression_baselines(source_of(cells, tmp_path / "a.h5ad"), ids, is_train, genes=40, components=8)
    counts = cells.X.toarray()
    rng = np.random.default_rng(5)
    counts[~is_train] = rng.poisson(rng.gamma(0.2, 30, GENES), ((~is_train).sum(), GENES))
    cells.X = scipy.sparse.csr_matrix(counts)
    two = expression_baselines(source_of(cells, tmp_path / "b.h5ad"), ids, is_train, genes=40, components=8)
    assert one.genes == two.genes
    np.testing.assert_array_equal(one.hvg[is_train], two.hvg[is_train])
    np.testing.assert_array_equal(one.pca[is_train], two.pca[is_train])
    assert np.abs(one.pca[~is_train] - two.pca[~is_train]).max() > 1  # the change was one


def test_a_cell_of_the_test_is_placed_by_its_own_expression_alone(tmp_path, is_train):
    cells = some_cells()
    twin, cell = np.flatnonzero(is_train)[0], np.flatnonzero(~is_train)[0]
    counts = cells.X.toarray()
    counts[cell] = counts[twin]
    cells.X = scipy.sparse.csr_matrix(counts)
    found = expression_baselines(source_of(cells, tmp_path / "a.h5ad"), list(cells.obs_names), is_train, genes=40)
    np.testing.assert_allclose(found.pca[cell], found.pca[twin], atol=1e-5)


def test_rows_come_in_the_order_they_are_named_and_others_are_left(tmp_path):
    cells = some_cells()
    source = source_of(cells, tmp_path / "a.h5ad")
    order = np.random.default_rng(2).permutation(N)[:50]
    found = read_expression(source, list(cells.obs_names[order]))
    np.testing.assert_array_equal(found.values.toarray(), cells.X.toarray()[order])
    np.testing.assert_allclose(found.totals, cells.X.toarray()[order].sum(axis=1))
    assert found.genes == tuple(cells.var_names)
    assert found.values.has_sorted_indices


def test_files_that_name_genes_differently_share_one_axis(tmp_path):
    (tmp_path / "data").mkdir()
    one, two = some_cells(seed=1), some_cells(seed=2)
    two = two[:, np.random.default_rng(0).permutation(GENES)[:90]].copy()  # in another order, and fewer
    two.var = pd.DataFrame({"symbol": two.var_names}, index=[f"{gene}.7" for gene in two.var["ensembl"]])
    one.write_h5ad(tmp_path / "data/one.h5ad")
    two.write_h5ad(tmp_path / "data/two.h5ad")
    ids = [f"two.h5ad/{i}" for i in range(N)] + [f"one.h5ad/{i}" for i in range(N)]
    found = read_expression(H5ad(path=str(tmp_path / "data")), ids)
    shared = [gene for gene in one.var_names if gene in set(two.var["symbol"])]
    assert len(shared) == 90
    in_two = two.X.toarray()[:, [list(two.var["symbol"]).index(gene) for gene in shared]]
    np.testing.assert_array_equal(found.values.toarray(), np.vstack([in_two, one[:, shared].X.toarray()]))
    np.testing.assert_array_equal(found.values.indices, scipy.sparse.csr_matrix(found.values.toarray()).indices)
    # A cell's depth counts every gene of its file.
    np.testing.assert_allclose(found.totals[N:], one.X.toarray().sum(axis=1))
    assert found.notes == ("90 genes are in all of 2 gene tables; the largest has 120",)


def test_rows_that_are_missing_or_repeat_are_refused_with_numbers(tmp_path):
    cells = some_cells(30)
    source = source_of(cells, tmp_path / "a.h5ad")
    with pytest.raises(Refused, match=r"MISSING_ROWS: 2 of 31 rows are not in the source: x, y$"):
        read_expression(source, ["x", *cells.obs_names[:29], "y"])
    with pytest.raises(Refused, match="DUPLICATE_ROWS: 3 rows were named by 2 ids"):
        read_expression(source, ["cell-0", "cell-1", "cell-0"])

    class Twice(H5ad):
        def shards(self):
            return [*super().shards(), *super().shards()]

    with pytest.raises(
        Refused, match="DUPLICATE_ROWS: 2 of 2 rows come more than once from the source: cell-0, cell-4"
    ):
        read_expression(Twice(path=source.path), ["cell-0", "cell-4"])


def test_a_refused_row_or_file_matters_where_its_cells_are_wanted(tmp_path):
    (tmp_path / "data").mkdir()
    cells = some_cells(30)
    cells.X[3, 0] = -1
    cells.write_h5ad(tmp_path / "data/a.h5ad")
    (tmp_path / "data/b.h5ad").write_bytes(b"no HDF5")
    source = H5ad(path=str(tmp_path / "data"), values="counts", layer="X")
    good = [f"a.h5ad/{i}" for i in range(30) if i != 3]
    np.testing.assert_array_equal(
        read_expression(source, good).values.toarray(), np.delete(cells.X.toarray(), 3, axis=0)
    )
    with pytest.raises(Refused, match=r"MISSING_ROWS: 2 of 31.*b\.h5ad: not a whole HDF5 file.*a\.h5ad/3: NEGATIVE"):
        read_expression(source, [*good, "a.h5ad/3", "b.h5ad/0"])


def test_a_source_without_counts_says_so_itself(tmp_path, is_train):
    cells = some_cells()
    cells.X = cells.X * np.float32(0.37)
    with pytest.raises(Refused, match=r"NOT_COUNTS.*--source\.values log"):
        expression_baselines(source_of(cells, tmp_path / "a.h5ad"), list(cells.obs_names), is_train)


def test_log_values_are_used_as_they_are(tmp_path, is_train):
    cells = some_cells()
    logged = cells.copy()
    scanpy.pp.normalize_total(logged, target_sum=1e4)
    scanpy.pp.log1p(logged)
    ids = list(cells.obs_names)
    del logged.uns["log1p"]
    one = expression_baselines(source_of(cells, tmp_path / "a.h5ad"), ids, is_train, genes=40)
    two = expression_baselines(source_of(logged, tmp_path / "b.h5ad", values="log"), ids, is_train, genes=40)
    assert one.genes == two.genes
    np.testing.assert_allclose(one.hvg, two.hvg, rtol=2e-6)
    np.testing.assert_allclose(one.pca, two.pca, atol=1e-4)
    assert two.depth is None
    assert two.counts is None
    assert "the source holds log values, used as they are" in two.notes


def test_cells_without_counts_and_limits_that_are_too_high_pass(tmp_path, is_train):
    cells = some_cells()
    counts = cells.X.toarray()
    counts[7] = 0
    cells.X = scipy.sparse.csr_matrix(counts)
    found = expression_baselines(
        source_of(cells, tmp_path / "a.h5ad"), list(cells.obs_names), is_train, genes=5000, components=500
    )
    assert found.hvg.shape[1] == found.pca.shape[1] == len(found.genes) <= GENES
    assert np.isfinite(found.pca).all()
    assert not found.hvg[7].any()
    assert found.depth[7] == 0


def test_nothing_to_fit_on_is_refused(tmp_path, is_train):
    cells = some_cells()
    source = source_of(cells, tmp_path / "a.h5ad")
    with pytest.raises(Refused, match=r"TOO_FEW_CELLS.*found 2"):
        expression_baselines(source, list(cells.obs_names), np.arange(N) < 2)
    cells.X = scipy.sparse.csr_matrix(np.ones((N, GENES), "f4"))
    with pytest.raises(Refused, match="NO_VARIABLE_GENES: none of 120 genes"):
        expression_baselines(source_of(cells, tmp_path / "b.h5ad"), list(cells.obs_names), is_train)


def table(**columns):
    return pa.table({name: pa.array(values, pa.string()) for name, values in columns.items()})


def test_one_gene_table_keeps_all_its_genes_under_the_names_that_repeat_least():
    names, axes, notes = common_genes([table(symbol=["A", "A", None], index=["x", "y", "z"])])
    assert (names, notes) == (("x", "y", "z"), ())
    assert axes[0].tolist() == [0, 1, 2]
    assert common_genes([table(symbol=["A", None])])[0] == ("A", "gene 1")


def test_the_second_gene_of_a_name_meets_the_second():
    one = table(index=["A", "B", "A", "C", None])
    two = table(index=["A", "C", "A", "A", None], other=["q", "r", "s", "t", "u"])
    names, axes, _ = common_genes([one, two])
    assert names == ("A", "A", "C")
    assert axes[0].tolist() == [0, -1, 1, 2, -1]
    assert axes[1].tolist() == [0, 2, 1, -1, -1]


def test_accessions_meet_whatever_their_version():
    one = table(id=["ENSG00000000001.3", "ENSG00000000002.1", "ENSG00000000003"], symbol=["A", "B", "C"])
    two = table(id=["ENSG00000000003.9", "ENSG00000000001.4"], symbol=["x", "A"])
    names, axes, _ = common_genes([one, two])
    assert names == ("ENSG00000000001", "ENSG00000000003")
    assert (axes[0].tolist(), axes[1].tolist()) == ([0, -1, 1], [1, 0])


def test_tables_without_a_common_gene_are_refused_with_examples():
    with pytest.raises(Refused, match=r"NO_COMMON_GENES.*\['A', 'B'\].*\['a', 'b'\]"):
        common_genes([table(index=["A", "B"]), table(index=["a", "b"])])
