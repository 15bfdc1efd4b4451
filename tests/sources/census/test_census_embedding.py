"""Census cells as embeddings: counts are never opened, cells without a vector are refused, the rows are Census' own."""

import shutil

import cellxgene_census
import numpy as np
import pyarrow as pa
import pytest
import tiledbsoma

from xfm.core.errors import Refused
from xfm.core.schema import COUNTS, EMBEDDING, GENE_IDS, REFUSED, ROW_ID
from xfm.sources.census.source import Census
from xfm.sources.census.tables import drawn


def table_of(source):
    return pa.Table.from_batches([batch for shard in source.shards() for batch in source.read(shard)])


def matrix(table):
    return np.array(table[EMBEDDING].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def without_x(census_store, tmp_path_factory):
    """The store with every file of X and var gone from the disk."""
    folder = tmp_path_factory.mktemp("poisoned") / "store"
    shutil.copytree(census_store, folder)
    for name in ("X", "var"):
        shutil.rmtree(folder / "census_data" / "homo_sapiens" / "ms" / "RNA" / name)
    return folder


@pytest.fixture
def census(without_x):
    def recipe(**settings):
        return Census(**{"uri": str(without_x), "embedding": "scvi", **settings})

    return recipe


def test_a_store_without_counts_is_of_no_use_to_a_job_that_reads_them(without_x):
    """Else the tests below would show nothing."""
    with pytest.raises((Refused, tiledbsoma.SOMAError)):
        table_of(Census(uri=str(without_x)))


@pytest.mark.parametrize("shard_rows", [7, 64, 2048])
def test_vectors_are_read_and_counts_are_not_opened(census, census_cells, shard_rows):
    source = census(primary_only=False, shard_rows=shard_rows, obs=("cell_type", "score"))
    table = table_of(source)
    np.testing.assert_array_equal(matrix(table), census_cells.obsm["scvi"])
    assert table[ROW_ID].to_pylist() == [str(i) for i in range(300)]
    assert table["cell_type"].to_pylist() == census_cells.obs["cell_type"].tolist()
    assert table[REFUSED].null_count == 300
    assert source.genes() is None
    assert not {GENE_IDS, COUNTS} & set(source.schema.names)
    assert source.schema.field(EMBEDDING).type == pa.list_(pa.float32(), 4)
    assert table.schema.equals(source.schema)


def test_all_cells_with_a_filter_are_what_the_references_call_returns(census, census_store):
    """`get_anndata` with a filter, obs columns and an embedding, and without is_primary_data: spec 1.1."""
    source = census(value_filter="kind == 'rare' or n_spots == 3", primary_only=False, obs=("cell_type", "kind"))
    table = table_of(source).to_pandas()
    with cellxgene_census.open_soma(uri=str(census_store)) as store:
        found = cellxgene_census.get_anndata(
            store, "homo_sapiens", obs_value_filter="kind == 'rare' or n_spots == 3", obsm_layers=["scvi"]
        )
    assert table[ROW_ID].tolist() == found.obs["soma_joinid"].astype(str).tolist()
    assert table["cell_type"].tolist() == found.obs["cell_type"].tolist()
    np.testing.assert_array_equal(np.stack(table[EMBEDDING]), found.obsm["scvi"])


def test_duplicates_are_left_out_by_default(census, census_cells):
    primary = np.flatnonzero(census_cells.obs["is_primary_data"])
    np.testing.assert_array_equal(matrix(table_of(census())), census_cells.obsm["scvi"][primary])


def test_a_cell_that_was_not_embedded_is_refused_and_never_zero(census, census_cells, tmp_path):
    address, truth = str(tmp_path / "embedding"), census_cells.obsm["scvi"]
    truth = np.where(np.arange(300)[:, None] == 5, 0, truth)  # an explicit zero is a number like others
    rows = np.setdiff1d(np.arange(300), [3, 50, 299])
    cells, width = np.repeat(rows, 4), np.tile(np.arange(4), len(rows))
    with tiledbsoma.SparseNDArray.create(address, type=pa.float32(), shape=(300, 4)) as array:
        values = pa.array(truth[rows].ravel())
        array.write(pa.Table.from_pydict({"soma_dim_0": cells, "soma_dim_1": width, "soma_data": values}))
    source = census(embedding="geneformer", embedding_uri=address, primary_only=False, shard_rows=64)
    table = table_of(source)
    reasons = table[REFUSED].to_pylist()
    assert [i for i, why in enumerate(reasons) if why] == [3, 50, 299]
    assert reasons[3] == "NO_EMBEDDING_ROW: embedding 'geneformer' holds no vector of this cell"
    found = matrix(table)
    assert np.isnan(found[[3, 50, 299]]).all()
    np.testing.assert_array_equal(found[rows], truth[rows])


def test_an_embedding_that_is_nowhere_is_refused_before_a_worker_starts(census):
    with pytest.raises(Refused, match=r"NO_EMBEDDING.*'scvy'.*Did you mean 'scvi'"):
        census(embedding="scvy").shards()


def test_the_split_is_drawn_within_the_selected_cells(census, census_cells):
    split = {"by": ("kind", "cell_type")}
    source = census(split=split, obs=("kind", "split"), shard_rows=50)
    table = table_of(source).to_pandas()
    assert source.schema.names[-2:] == ["kind", "split"]
    rare = table["split"][table["kind"] == "rare"].value_counts()
    types = census_cells.obs["cell_type"][(census_cells.obs["kind"] == "rare") & census_cells.obs["is_primary_data"]]
    assert rare["test"] == sum(int(n * 0.2 + 0.5) for n in types.value_counts())
    assert rare["validation"] == sum(int(n * 0.1 + 0.5) for n in types.value_counts())
    whole = census(split=split)
    assert table_of(whole)["split"].to_pylist() == table["split"].tolist()
    assert whole.identity()["split"] == source.identity()["split"]
    assert census(split="random_cell").identity()["split"] != source.identity()["split"]
    assert "split" not in census().identity()
    with pytest.raises(Refused, match=r"NO_SPLIT.*--source.split"):
        census(obs=("split",)).shards()
    with pytest.raises(Refused, match=r"NO_OBS_COLUMN.*donor_id"):
        census(split="stratified_cell").identity()


def test_counts_may_be_split_too(census_store):
    source = Census(uri=str(census_store), split="random_cell")
    table = table_of(source)
    assert table.schema.names[-1] == "split"
    counts = table["split"].to_pylist()
    assert [counts.count(word) for word in ("train", "validation", "test")] == [173, 19, 48]
    assert table.schema.equals(source.schema)


def rewritten(uri, change):
    """One obs column of a store anew."""
    with tiledbsoma.open(uri + "/census_data/homo_sapiens/obs", mode="r") as obs:
        table = obs.read().concat()
    with tiledbsoma.open(uri + "/census_data/homo_sapiens/obs", mode="w") as obs:
        obs.write(change(table))


def test_the_split_of_a_store_that_was_written_again_is_drawn_again(without_x, tmp_path):
    uri = str(shutil.copytree(without_x, tmp_path / "store"))
    source = Census(uri=uri, embedding="scvi", split={"by": ("n_spots",)}, primary_only=False)
    before, said = source.identity(), table_of(source)["split"].to_pylist()
    drawn.cache_clear()
    assert source.identity() == before
    calls = drawn.cache_info().misses
    assert table_of(source.model_copy(update={"shard_rows": 50}))["split"].to_pylist() == said
    assert drawn.cache_info().misses == calls, "drawn once, however many shards ask"

    def shuffled(table):
        values = pa.array(np.roll(table["n_spots"].to_numpy(), 1), table["n_spots"].type)
        return table.set_column(table.column_names.index("n_spots"), "n_spots", values)

    rewritten(uri, shuffled)
    assert source.identity()["cells_digest"] == before["cells_digest"]
    assert source.identity()["split"] != before["split"]
    assert table_of(source)["split"].to_pylist() != said


def vectors_at(address, values):
    with tiledbsoma.DenseNDArray.create(address, type=pa.float32(), shape=values.shape) as array:
        array.write((slice(0, values.shape[0] - 1), slice(0, values.shape[1] - 1)), pa.Tensor.from_numpy(values))
    return address


def test_replaced_vectors_are_other_data(census, census_store, tmp_path):
    """What was read from them must not be taken for what would be read now."""
    address, values = str(tmp_path / "embedding"), np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    source = census(embedding="geneformer", embedding_uri=vectors_at(address, values), primary_only=False)
    before = source.identity()
    assert before == source.identity() == source.model_copy(update={"shard_rows": 7}).identity()
    assert before["embedding_digest"] != census().identity()["embedding_digest"]
    values[200, 2] += 1
    shutil.rmtree(address)
    vectors_at(address, values)
    after = source.identity()
    assert {name for name in before if before[name] != after[name]} == {"embedding_digest"}
    assert "embedding_digest" not in Census(uri=str(census_store)).identity()
