"""Cells from a Census-layout store, against the matrix it was written from."""

import shutil
import time

import anndata
import cellxgene_census
import cellxgene_census.experimental
import numpy as np
import pyarrow as pa
import pytest
import scipy.sparse
import tiledbsoma

from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.core.schema import GENE_TABLE_KEY, ROW_ID
from xfm.core.source import Shard
from xfm.sources.census.arrays import hosted_embedding
from xfm.sources.census.source import Census
from xfm.sources.census.store import write_census_store


@pytest.fixture
def census(census_store):
    def recipe(**settings):
        return Census(**{"uri": str(census_store), **settings})

    return recipe


def table_of(source):
    return pa.concat_tables(
        [pa.Table.from_batches([batch]) for shard in source.shards() for batch in source.read(shard)]
    )


@pytest.mark.parametrize("shard_rows", [7, 64, 2048])
def test_rows_equal_the_source_matrix(census, census_cells, counts, dense, shard_rows):
    ids, found = dense(census(primary_only=False, shard_rows=shard_rows), 50)
    assert ids == [str(i) for i in range(300)]
    np.testing.assert_array_equal(found, counts(census_cells))


def test_only_primary_cells_are_read_unless_told_otherwise(census, census_cells, counts, dense):
    source = census(shard_rows=64)
    ids, found = dense(source, 50)
    primary = np.flatnonzero(census_cells.obs["is_primary_data"])
    assert ids == [str(i) for i in primary]
    np.testing.assert_array_equal(found, counts(census_cells)[primary])
    assert source.identity()["filter"] == "is_primary_data == True"
    assert census(primary_only=False).identity()["filter"] is None


def test_a_filter_with_or_does_not_let_duplicates_in(census, census_cells):
    source = census(value_filter="kind == 'rare' or n_spots == 3", obs=("kind", "n_spots", "is_primary_data"))
    table = table_of(source).to_pandas()
    obs = census_cells.obs
    wanted = obs["is_primary_data"] & ((obs["kind"] == "rare") | (obs["n_spots"] == 3))
    assert table[ROW_ID].tolist() == [str(i) for i in np.flatnonzero(wanted)]
    assert table["is_primary_data"].all()
    assert table["kind"].tolist() == obs["kind"][wanted].tolist()
    assert table["n_spots"].tolist() == obs["n_spots"][wanted].tolist()


@pytest.mark.parametrize("value_filter", ["score < 0.03", "score < 0.3", "soma_joinid in [0, 1, 299]"])
def test_scattered_cells_keep_their_own_counts(census, census_cells, counts, dense, value_filter):
    ids, found = dense(census(value_filter=value_filter, primary_only=False), 50)
    score = census_cells.obs["score"].to_numpy()
    wanted = {"score < 0.03": np.flatnonzero(score < 0.03), "score < 0.3": np.flatnonzero(score < 0.3)}.get(
        value_filter, np.array([0, 1, 299])
    )
    assert ids == [str(i) for i in wanted]
    np.testing.assert_array_equal(found, counts(census_cells)[wanted])


def test_shards_keep_to_tiles_and_to_the_promised_size(census):
    shards = census(shard_rows=64, primary_only=False).shards()
    assert [(s.start, s.stop, s.rows) for s in shards] == [(i, i + 64, min(64, 300 - i)) for i in range(0, 300, 64)]
    assert [shard.key for shard in shards] == [f"census-store-{i:06d}" for i in range(5)]


def test_reading_twice_gives_the_same_bytes(census):
    source = census(obs=("cell_type", "score"), obsm=("scvi",))
    shard = source.shards()[0]
    first, second = (next(source.read(shard)) for _ in range(2))
    assert first.equals(second, check_metadata=True)
    assert first.schema.equals(source.schema)
    genes = pa.ipc.open_stream(first.schema.metadata[GENE_TABLE_KEY]).read_all()
    assert genes["feature_id"].to_pylist()[:2] == ["ENSG00000000000", "ENSG00000000001"]
    assert genes["feature_name"].to_pylist()[49] == "Name49"
    assert census(gene_column="feature_name").genes().column_names == ["feature_name"]


def test_embeddings_come_from_the_store_or_from_an_address(census, census_cells, tmp_path):
    truth = census_cells.obsm["scvi"]
    table = table_of(census(obsm=("scvi",), value_filter="kind == 'rare'", primary_only=False))
    np.testing.assert_array_equal(np.array(table["obsm_scvi"].to_pylist()), truth[20:80])

    address = str(tmp_path / "embedding")
    cells, width = np.indices((30, 4)).reshape(2, -1)
    with tiledbsoma.SparseNDArray.create(address, type=pa.float32(), shape=(300, 4)) as array:
        values = pa.array(truth[:30].ravel())
        array.write(pa.Table.from_pydict({"soma_dim_0": cells, "soma_dim_1": width, "soma_data": values}))
        array.metadata["CxG_embedding_info"] = '{"census_version": "2023-12-15", "experiment_name": "homo_sapiens"}'
    table = table_of(census(obsm=("geneformer",), embedding_uri=address, primary_only=False))
    found = table["obsm_geneformer"].to_pylist()
    np.testing.assert_array_equal(np.array(found[:30]), truth[:30])
    assert found[30:] == [None] * 270
    with tiledbsoma.open(address, "w") as array:
        array.metadata["CxG_embedding_info"] = '{"census_version": "2023-12-15", "experiment_name": "mus_musculus"}'
    with pytest.raises(Refused, match="EMBEDDING_MISMATCH"):
        census(obsm=("geneformer",), embedding_uri=address).shards()


def test_an_embedding_that_is_nowhere_is_refused(census):
    with pytest.raises(Refused, match=r"NO_EMBEDDING.*Did you mean 'scvi'"):
        census(obsm=("scvy",)).shards()


def test_a_moved_store_reads_the_same(census, census_store, tmp_path, dense):
    shutil.copytree(census_store, tmp_path / "elsewhere" / "store")
    before, after = census(), census(uri=str(tmp_path / "elsewhere" / "store"))
    assert before.shards() == after.shards()
    np.testing.assert_array_equal(dense(before, 50)[1], dense(after, 50)[1])
    assert before.identity()["cells_digest"] == after.identity()["cells_digest"]


def test_the_store_is_what_cellxgene_census_reads(census_store, census_cells, counts):
    with cellxgene_census.open_soma(uri=str(census_store)) as store:
        found = cellxgene_census.get_anndata(
            store, "homo_sapiens", obs_value_filter="kind == 'rare'", obsm_layers=["scvi"]
        )
    np.testing.assert_array_equal(np.asarray(found.X.todense()), counts(census_cells)[20:80])
    np.testing.assert_array_equal(found.obs["nnz"], (counts(census_cells)[20:80] > 0).sum(axis=1))
    np.testing.assert_array_equal(found.obs["raw_sum"], counts(census_cells)[20:80].sum(axis=1))
    np.testing.assert_array_equal(found.obsm["scvi"], census_cells.obsm["scvi"][20:80])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"value_filter": "cell_typ == 'B cell'"}, "BAD_FILTER.*cell_typ.*cell_type"),
        ({"value_filter": "cell_type =="}, "BAD_FILTER"),
        ({"value_filter": "kind == 'unheard of'"}, "NO_ROWS.*unheard of"),
        ({"obs": ("cell_typ",)}, "NO_OBS_COLUMN.*Did you mean 'cell_type'"),
        ({"organism": "mus_musculus"}, "NOT_CENSUS.*homo_sapiens"),
        ({"measurement": "rna"}, "NOT_CENSUS.*RNA"),
        ({"x_name": "normalized"}, "NOT_CENSUS.*raw"),
        ({"gene_column": "symbol"}, "NO_GENE_COLUMN.*feature_name"),
    ],
)
def test_what_is_not_there_is_refused_by_name(census, settings, message):
    with pytest.raises(Refused, match=message):
        census(**settings).shards()


def test_a_place_without_a_store_is_refused(census, tmp_path):
    with pytest.raises(Refused, match="NO_STORE"):
        census(uri=str(tmp_path)).shards()
    with tiledbsoma.Collection.create(str(tmp_path / "other")):
        pass
    with pytest.raises(Refused, match=r"NOT_CENSUS.*census_data"):
        census(uri=str(tmp_path / "other")).shards()


def test_a_shard_that_lost_cells_since_listing_is_refused(census):
    shard = census(primary_only=False).shards()[0]
    with pytest.raises(ShardRefused, match="300 rows promised, 240 found"):
        next(census().read(shard))
    with pytest.raises(ShardRefused, match="5 rows promised, 0 found"):
        next(census().read(Shard("census-x-000000", 5000, 6000, 5)))


@pytest.mark.parametrize(
    "settings", [{"release": "stable"}, {"release": "latest"}, {}, {"release": "2025-11-08", "uri": "x"}]
)
def test_a_release_is_pinned_and_excludes_an_address(settings):
    with pytest.raises(ValueError, match="2025-11-08"):
        Census(**settings)


def test_a_store_without_primary_column_is_refused_until_told(tmp_path, make):
    write_census_store(make(5, 4), tmp_path / "store")
    with tiledbsoma.open(str(tmp_path / "store/census_data/homo_sapiens"), "w") as experiment:
        with tiledbsoma.open(experiment.obs.uri) as obs:
            frame = obs.read().concat().to_pandas().drop(columns="is_primary_data")
        tiledbsoma.io.update_obs(experiment, frame)
    with pytest.raises(Refused, match=r"NO_PRIMARY.*--no-source.primary-only"):
        Census(uri=str(tmp_path / "store")).shards()
    assert sum(shard.rows for shard in Census(uri=str(tmp_path / "store"), primary_only=False).shards()) == 5


def test_a_store_is_written_once_and_of_counts_only(tmp_path, census_store, census_cells):
    with pytest.raises(Refused, match="STORE_EXISTS"):
        write_census_store(census_cells, census_store)
    with pytest.raises(Refused, match="NOT_COUNTS"):
        write_census_store(anndata.AnnData(scipy.sparse.csr_matrix([[0.5]])), tmp_path / "log")
    assert not (tmp_path / "log").exists()


def test_a_remote_store_is_asked_again_and_not_for_ever(monkeypatch):
    source, shard = Census(uri="s3://bucket/store"), Shard("census-store-000000", 0, 2048, 1)
    answers = iter([tiledbsoma.SOMAError("timeout"), tiledbsoma.SOMAError("timeout"), "batch"])
    waited = []

    def read(self, shard):
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Census, "_read", read)
    monkeypatch.setattr(time, "sleep", waited.append)
    assert list(source.read(shard)) == ["batch"]
    assert waited == [1.0, 2.0]
    answers = iter([tiledbsoma.SOMAError("timeout")] * 9)
    with pytest.raises(EnvironmentProblem, match="no answer in 4 attempts: timeout"):
        next(source.read(shard))
    answers = iter([tiledbsoma.SOMAError("bad tile")])
    with pytest.raises(ShardRefused, match="STORE_UNREADABLE"):
        next(Census(uri="here").read(shard))


def test_a_hosted_embedding_is_looked_up_by_name_and_release(monkeypatch):
    def manifest(name, organism, release, kind):
        if (name, organism, release, kind) != ("scvi", "homo_sapiens", "2023-12-15", "obs_embedding"):
            raise ValueError("No embeddings found")
        return {"census_version": release, "id": "CxG-contrib-1"}

    monkeypatch.setattr(cellxgene_census.experimental, "get_embedding_metadata_by_name", manifest)
    address = "s3://cellxgene-contrib-public/contrib/cell-census/soma/2023-12-15/CxG-contrib-1"
    assert hosted_embedding("scvi", "homo_sapiens", "2023-12-15") == address
    with pytest.raises(Refused, match="NO_EMBEDDING"):
        hosted_embedding("scvi", "homo_sapiens", "2023-05-15")
