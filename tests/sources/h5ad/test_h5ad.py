"""Cells from .h5ad files, against the matrix they were written from."""

import gzip

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import scipy.sparse

from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import GENE_IDS, GENE_TABLE_KEY, REFUSED, ROW_ID, SHARD
from xfm.sources.h5ad import matrix
from xfm.sources.h5ad.source import H5ad

FORMATS = {
    "csr": scipy.sparse.csr_matrix,
    "csc": scipy.sparse.csc_matrix,
    "dense": lambda x: x,
    "float64": lambda x: scipy.sparse.csr_matrix(x.astype(np.float64)),
    "int8": lambda x: x.astype(np.int8),
    "uint16_csc": lambda x: scipy.sparse.csc_matrix(x.astype(np.uint16)),
    "int64": lambda x: scipy.sparse.csr_matrix(x.astype(np.int64)),
}


def written(cells, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    cells.write_h5ad(path)
    return str(path)


def zipped(cells, path):
    plain = path.parent / "plain"
    written(cells, plain)
    path.write_bytes(gzip.compress(plain.read_bytes(), 1))
    plain.unlink()
    return str(path)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("shard_rows", [7, 4096])
def test_every_matrix_format_gives_the_counts_that_were_written(cells, counts, dense, tmp_path, form, shard_rows):
    truth = counts(cells)
    cells.X = FORMATS[form](truth)
    ids, found = dense(H5ad(path=written(cells, tmp_path / "a.h5ad"), shard_rows=shard_rows), 30)
    assert ids == list(cells.obs_names)
    np.testing.assert_array_equal(found, truth)


@pytest.mark.parametrize("form", ["csc", "dense"])
def test_matrices_read_piece_by_piece_lose_nothing_at_the_seams(cells, counts, dense, tmp_path, monkeypatch, form):
    monkeypatch.setattr(matrix, "CSC_ENTRIES", 37)
    monkeypatch.setattr(matrix, "DENSE_ENTRIES", 100)
    truth = counts(cells)
    cells.X = FORMATS[form](truth)
    np.testing.assert_array_equal(dense(H5ad(path=written(cells, tmp_path / "a.h5ad"), shard_rows=11), 30)[1], truth)


def test_batches_are_bounded_and_their_bytes_repeat(make, tmp_path):
    source = H5ad(path=written(make(2500, 5), tmp_path / "a.h5ad"), shard_rows=2000, obs=("cell_type", "score"))
    shards = source.shards()
    assert [(s.key, s.start, s.stop, s.rows) for s in shards] == [
        ("a-000000", 0, 2000, 2000),
        ("a-000001", 2000, 2500, 500),
    ]
    first, second = (pa.Table.from_batches(list(source.read(shards[0]))) for _ in range(2))
    assert first.equals(second, check_metadata=True)
    assert max(batch.num_rows for batch in source.read(shards[0])) == 1024
    assert first.schema.equals(source.schema)
    assert set(first[SHARD].to_pylist()) == {"a-000000"}


def test_obs_columns_keep_numbers_and_decode_categories(cells, tmp_path):
    cells.obs["flag"] = cells.obs["n_spots"] > 4
    cells.obs["some"] = pd.array([None, *range(39)], dtype="Int64")
    cells.obs.iloc[3, 0] = np.nan
    names = ("score", "cell_type", "n_spots", "flag", "some")
    source = H5ad(path=written(cells, tmp_path / "a.h5ad"), obs=names)
    table = pa.Table.from_batches(list(source.read(source.shards()[0])))
    assert table.schema.names[-5:] == list(names)
    assert table["cell_type"].to_pylist() == [None if pd.isna(v) else v for v in cells.obs["cell_type"]]
    for name in ("score", "n_spots", "flag"):
        assert table[name].to_pylist() == cells.obs[name].tolist()
    assert table["some"].to_pylist() == [None, *range(39)]


def test_gene_table_holds_every_identifier_and_only_those(cells, tmp_path):
    path = written(cells, tmp_path / "a.h5ad")
    source = H5ad(path=path)
    batch = next(iter(source.read(source.shards()[0])))
    table = pa.ipc.open_stream(batch.schema.metadata[GENE_TABLE_KEY]).read_all()
    assert table.to_pydict() == {"index": list(cells.var_names), "feature_id": list(cells.var["feature_id"])}
    assert source.genes().equals(table)
    assert H5ad(path=path, gene_column="feature_id").genes().column_names == ["feature_id"]
    with pytest.raises(Refused, match="Did you mean 'feature_id'"):
        H5ad(path=path, gene_column="feature_ids").shards()


def test_counts_are_looked_for_in_layers_then_raw_then_x(cells, counts, dense, tmp_path):
    truth = counts(cells)
    log = scipy.sparse.csr_matrix(np.log1p(truth * 0.7))
    full = anndata.AnnData(log.copy(), obs=cells.obs, var=cells.var)
    full.raw = anndata.AnnData(cells.X * 2, obs=cells.obs, var=cells.var)
    full.layers["counts"] = cells.X * 3
    for drop, factor in (("nothing", 3), ("layer", 2)):
        if drop == "layer":
            del full.layers["counts"]
        source = H5ad(path=written(full, tmp_path / f"{drop}.h5ad"))
        np.testing.assert_array_equal(dense(source, 30)[1], truth * factor)
    assert source.identity()["layers"] == {"layer.h5ad": "raw"}
    full.raw = anndata.AnnData(log, obs=cells.obs, var=cells.var)
    full.X = cells.X
    source = H5ad(path=written(full, tmp_path / "x.h5ad"))
    assert source.identity()["layers"] == {"x.h5ad": "X"}


def test_genes_of_raw_belong_to_raw(cells, tmp_path):
    part = cells[:, :10].copy()
    part.raw = cells
    source = H5ad(path=written(part, tmp_path / "a.h5ad"))
    assert source.genes().num_rows == 30


def test_log_values_are_refused_with_a_hint_and_read_when_declared(cells, counts, dense, tmp_path):
    cells.X = scipy.sparse.csr_matrix(np.log1p(counts(cells) * 1.7))
    path = written(cells, tmp_path / "a.h5ad")
    with pytest.raises(Refused, match=r"--source.values log.*--source.layer") as refused:
        H5ad(path=path).shards()
    assert refused.value.code == "NOT_COUNTS"
    np.testing.assert_array_equal(dense(H5ad(path=path, values="log"), 30)[1], counts(cells))


def test_a_missing_layer_or_obs_column_is_refused_with_the_nearest_name(cells, tmp_path):
    path = written(cells, tmp_path / "a.h5ad")
    with pytest.raises(Refused, match=r"Did you mean 'cell_type'.*n_spots") as refused:
        H5ad(path=path, obs=("cell_typ",)).shards()
    assert refused.value.code == "NO_OBS_COLUMN"
    with pytest.raises(Refused, match="NO_LAYER"):
        H5ad(path=path, layer="counts").shards()


def test_bad_values_refuse_their_row_and_no_other(cells, counts, tmp_path):
    truth = counts(cells)
    truth[:, 4] = 1
    for row, value in ((1, np.nan), (2, np.inf), (3, -1), (4, 0.5), (5, 1e12)):
        truth[row, 4] = value
    cells.X = scipy.sparse.csr_matrix(truth)
    source = H5ad(path=written(cells, tmp_path / "a.h5ad"), obs=("score",))
    table = pa.Table.from_batches(list(source.read(source.shards()[0])))
    reasons = {i: why.split(":")[0] for i, why in enumerate(table[REFUSED].to_pylist()) if why}
    assert reasons == {1: "NAN", 2: "INFINITE", 3: "NEGATIVE", 4: "NOT_COUNTS", 5: "TOO_LARGE"}
    assert [len(row) for row in table[GENE_IDS].to_pylist()[1:6]] == [0] * 5
    assert table[GENE_IDS].to_pylist()[6] == np.flatnonzero(truth[6]).tolist()
    assert table["score"].null_count == 0


def test_declared_counts_are_checked_row_by_row(cells, counts, tmp_path):
    cells.X = scipy.sparse.csr_matrix(counts(cells) + 0.5)
    source = H5ad(path=written(cells, tmp_path / "a.h5ad"), layer="X", values="counts")
    batch = next(iter(source.read(source.shards()[0])))
    assert all(why.startswith("NOT_COUNTS") for why in batch[REFUSED].to_pylist())


def test_row_ids_are_file_and_row_for_repeated_names_and_many_files(cells, make, dense, tmp_path):
    cells.obs_names = ["same"] * 40
    path = written(cells, tmp_path / "one" / "a.h5ad")
    assert dense(H5ad(path=path), 30)[0] == [f"a.h5ad/{i}" for i in range(40)]
    for name in ("many/x/b.h5ad", "many/b.h5ad", "many/x__b.h5ad", "many/tümör 1.h5ad"):
        written(make(3), tmp_path / name)
    zipped(make(2), tmp_path / "many" / "b.h5ad.gz")
    source = H5ad(path=str(tmp_path / "many"))
    keys = [shard.key for shard in source.shards()]
    assert len(set(keys)) == 5
    assert all(key.isascii() and "/" not in key and " " not in key for key in keys)
    ids, _ = dense(source, 30)
    assert len(ids) == len(set(ids)) == 14
    assert {"x/b.h5ad/2", "b.h5ad.gz/0", "tümör 1.h5ad/0"} <= set(ids)
    pattern = H5ad(path=str(tmp_path / "many" / "*.h5ad"))
    assert {shard.path.rsplit("/", 1)[1] for shard in pattern.shards()} == {"b.h5ad", "x__b.h5ad", "tümör 1.h5ad"}


def test_a_compressed_file_gives_the_rows_of_the_plain_one(cells, dense, tmp_path):
    cells.X = scipy.sparse.csc_matrix(cells.X)
    plain = H5ad(path=written(cells, tmp_path / "a.h5ad"))
    packed = H5ad(path=zipped(cells, tmp_path / "b.h5ad.gz"), shard_rows=9)
    assert [shard.rows for shard in packed.shards()] == [None]
    assert dense(packed, 30)[0] == dense(plain, 30)[0]
    np.testing.assert_array_equal(dense(packed, 30)[1], dense(plain, 30)[1])
    assert packed.genes() is None


def test_a_metadata_csv_selects_files_and_cannot_leave_its_folder(make, dense, tmp_path):
    for name in ("TCGA_SKCM/FF/a.h5ad.gz", "TCGA_SKCM/FFPE/b.h5ad.gz", "TCGA_KIRC/FF/c.h5ad.gz", "not_listed.h5ad.gz"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        zipped(make(2), tmp_path / name)
    table = tmp_path / "metadata_2025.csv"
    table.write_text(
        "sample,file_path\n1,TCGA_SKCM/FF/a.h5ad.gz\n2,TCGA_SKCM/FFPE/b.h5ad.gz\n3,TCGA_KIRC/FF/c.h5ad.gz\n"
    )
    source = H5ad(path=str(tmp_path / "TCGA_SKCM" / "*" / "*.gz"), metadata_csv=str(table))
    assert dense(source, 30)[0][::2] == ["TCGA_SKCM/FF/a.h5ad.gz/0", "TCGA_SKCM/FFPE/b.h5ad.gz/0"]
    assert len(H5ad(path=str(tmp_path), metadata_csv=str(table)).shards()) == 3
    for bad in ("../x.h5ad", "/etc/x.h5ad", "a/../../x.h5ad"):
        table.write_text(f"file_path\n{bad}\n")
        with pytest.raises(Refused, match="BAD_METADATA"):
            source.shards()


def test_dense_log_values_of_a_spatial_file_pass_unchanged(cells, counts, dense, tmp_path):
    cells.X = np.log1p(counts(cells) * 1.7).astype(np.float32)
    source = H5ad(path=zipped(cells, tmp_path / "spots.h5ad.gz"), values="log", obs=("score",))
    np.testing.assert_array_equal(dense(source, 30)[1], cells.X)
    undeclared = source.model_copy(update={"values": "auto"})
    with pytest.raises(ShardRefused, match=r"NOT_COUNTS.*--source.values log"):
        next(undeclared.read(undeclared.shards()[0]))


def test_a_relative_path_means_the_same_from_another_folder(cells, dense, tmp_path, monkeypatch):
    written(cells, tmp_path / "data" / "a.h5ad")
    monkeypatch.chdir(tmp_path)
    source = H5ad(path="data", obs=("score",))
    monkeypatch.chdir("/")
    assert dense(source, 30)[0][0] == "cell-0"


def test_identity_changes_with_one_byte_and_not_with_the_folder(cells, tmp_path):
    for folder in ("a", "b"):
        written(cells, tmp_path / folder / "x.h5ad")
    (tmp_path / "b" / "x.h5ad").write_bytes((tmp_path / "a" / "x.h5ad").read_bytes())
    a, b = (H5ad(path=str(tmp_path / folder)) for folder in "ab")
    assert a.identity() == b.identity()
    assert a.recipe() == b.recipe()
    before = b.identity()["files"]
    with (tmp_path / "b" / "x.h5ad").open("ab") as file:
        file.write(b"\0")
    assert b.identity()["files"] != before


def test_a_file_that_lost_rows_since_listing_is_refused(cells, tmp_path):
    source = H5ad(path=written(cells, tmp_path / "a.h5ad"), shard_rows=16)
    last = source.shards()[-1]
    written(cells[:33].copy(), tmp_path / "a.h5ad")
    with pytest.raises(ShardRefused, match="ROWS_CHANGED"):
        list(source.read(last))


def test_rows_without_genes_stay(dense, tmp_path, cells, counts):
    truth = counts(cells)
    truth[[0, 39]] = 0
    cells.X = scipy.sparse.csr_matrix(truth)
    source = H5ad(path=written(cells, tmp_path / "a.h5ad"))
    np.testing.assert_array_equal(dense(source, 30)[1], truth)
    assert next(iter(source.read(source.shards()[0])))[ROW_ID].to_pylist()[0] == "cell-0"


def rows_of(source):
    return [row for shard in source.shards() for batch in source.read(shard) for row in batch.to_pylist()]


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_proteins_beside_genes_are_left_out_and_said(cells, counts, dense, tmp_path, caplog, form):
    """As 10x stores CITE-seq: antibodies are called like the genes whose proteins they bind."""
    truth = counts(cells)
    proteins = np.full((40, 3), 300, np.float32)
    both = anndata.AnnData(
        FORMATS[form](np.hstack([truth[:, :10], proteins, truth[:, 10:]])), obs=cells.obs,
        var=pd.DataFrame({"feature_types": ["Gene Expression"] * 10 + ["Antibody Capture"] * 3
                          + ["Gene Expression"] * 20},
                         index=[*cells.var_names[:10], "GENE1_P", "GENE2_P", "GENE3_P", *cells.var_names[10:]]),
    )  # fmt: skip
    source = H5ad(path=written(both, tmp_path / "a.h5ad"))
    np.testing.assert_array_equal(dense(source, 30)[1], truth)
    assert source.genes()["index"].to_pylist() == list(cells.var_names)
    assert any("3 of 33 features of X are no genes" in record.getMessage() for record in caplog.records)


def test_a_poorer_matrix_of_counts_is_read_with_a_word_on_the_fuller_one(cells, counts, dense, tmp_path, caplog):
    truth = counts(cells)
    some = cells[:, :12].copy()
    some.layers["counts"], some.raw, some.X = some.X.copy(), cells, np.log1p(some.X.toarray())
    path = written(some, tmp_path / "a.h5ad")
    np.testing.assert_array_equal(dense(H5ad(path=path), 12)[1], truth[:, :12])
    assert any("layers/counts is read, with 12 genes, and raw holds counts of 30: --source.layer raw reads those"
               in record.getMessage() for record in caplog.records)  # fmt: skip
    np.testing.assert_array_equal(dense(H5ad(path=path, layer="raw"), 30)[1], truth)


def test_a_matrix_of_zeros_is_passed_over_where_another_holds_counts(cells, counts, dense, tmp_path, caplog):
    cells.layers["counts"] = cells.X * 0
    np.testing.assert_array_equal(dense(H5ad(path=written(cells, tmp_path / "a.h5ad")), 30)[1], counts(cells))
    assert any("layers/counts holds nothing but zeros" in record.getMessage() for record in caplog.records)


def test_a_broken_matrix_is_passed_over_where_another_is_good(cells, counts, dense, tmp_path, caplog):
    cells.raw = cells.copy()
    path = written(cells, tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        file["raw/X/indptr"][-1] += 1
    np.testing.assert_array_equal(dense(H5ad(path=path), 30)[1], counts(cells))
    assert any("passed over: raw of a.h5ad" in record.getMessage() for record in caplog.records)
    with pytest.raises(Refused, match="BAD_INDICES"):
        H5ad(path=path, layer="raw").shards()


@pytest.mark.parametrize("frames", [("obs",), ("obs", "var")])
def test_nullable_names_are_read_as_plain_ones_are(cells, counts, dense, tmp_path, frames):
    """As pandas 3 and recent anndata write an index: values and a mask in a group of their own."""
    path = written(cells, tmp_path / "a.h5ad")
    with h5py.File(path, "r+") as file:
        for frame in frames:
            name = file[frame].attrs["_index"]
            values = file[frame][name][:]
            del file[frame][name]
            group = file[frame].create_group(name)
            group.attrs["encoding-type"] = "nullable-string-array"
            group["values"], group["mask"] = values, np.zeros(len(values), bool)
    ids, found = dense(H5ad(path=path, obs=("cell_type",)), 30)
    assert ids == list(cells.obs_names)
    np.testing.assert_array_equal(found, counts(cells))


def test_counts_with_round_off_are_counts_and_decimals_are_none(cells, counts, dense, tmp_path, caplog):
    truth = counts(cells)
    off = truth.astype(np.float64) * (1 + np.random.default_rng(0).choice([0, 1e-7, -1e-7], truth.shape))
    cells.X = scipy.sparse.csr_matrix(off)
    np.testing.assert_array_equal(dense(H5ad(path=written(cells, tmp_path / "a.h5ad")), 30)[1], truth)
    assert any("counts of X are rounded; they differ from whole numbers by up to" in r.getMessage()
               for r in caplog.records)  # fmt: skip
    cells.X = scipy.sparse.csr_matrix(truth * 0.9995)
    with pytest.raises(Refused, match=r"NOT_COUNTS: .*X holds 0\.9995"):
        H5ad(path=written(cells, tmp_path / "b.h5ad")).shards()
