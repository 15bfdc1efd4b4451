"""Stored vectors as rows: what is written is what is read, bad vectors are refused one by one, nothing else is read."""

import json
import shutil
import warnings
from hashlib import sha256

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from xfm.core.errors import Refused, ShardRefused
from xfm.core.ledger import part_name
from xfm.core.schema import EMBEDDING, REFUSED, ROW_ID
from xfm.sources.stored.source import Embeddings

SIZES = (9, 4, 30)


def vectors(n, width, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def fixed(values):
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), values.shape[1])


def write_output(folder, change=None):
    """The OUTPUT of an embed job by hand: three parts with two layers each."""
    (folder / "parts").mkdir(parents=True)
    lines, start = [], 0
    truth = {"mean_l00": vectors(43, 3, 1), "mean_l07": vectors(43, 5, 2)}
    for number, n in enumerate(SIZES):
        rows = slice(start, start + n)
        table = pa.table(
            {ROW_ID: [f"c{i}" for i in range(start, start + n)]}
            | {"cell_type": pa.array(["a", "b"] * 50)[rows].dictionary_encode(), "age": list(range(start, start + n))}
            | {name: fixed(values[rows]) for name, values in truth.items()}
        )
        key = f"shard-{number}"
        pq.write_table(table if change is None else change(key, table), folder / part_name(key))
        data = (folder / part_name(key)).read_bytes()
        receipt = {"key": key, "rows": n, "sha256": sha256(data).hexdigest(), "bytes": len(data), "seconds": 0.1}
        lines.append(json.dumps(receipt | {"attempts": 1, "refused": 0}))
        start += n
    (folder / "manifest.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "run.json").write_text(json.dumps({"job": "embed", "fingerprint": "f", "recipe": {"config": {}}}))
    (folder / "report.json").write_text("{}")
    return truth


def table_of(source):
    return pa.Table.from_batches([batch for shard in source.shards() for batch in source.read(shard)])


def matrix(table):
    return np.array(table[EMBEDDING].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("output") / "run"
    return folder, write_output(folder)


@pytest.mark.parametrize("shard_rows", [1, 8, 10, 2048])
def test_a_layer_of_an_output_is_what_was_stored(output, shard_rows):
    folder, truth = output
    source = Embeddings(path=str(folder), column="mean_l07", obs=("age", "cell_type"), shard_rows=shard_rows)
    table = table_of(source)
    np.testing.assert_array_equal(matrix(table), truth["mean_l07"])
    assert table[ROW_ID].to_pylist() == [f"c{i}" for i in range(43)]
    assert table["age"].to_pylist() == [str(i) for i in range(43)]
    assert table["cell_type"].to_pylist() == (["a", "b"] * 22)[:43]
    assert table[REFUSED].null_count == 43
    assert table.schema.equals(source.schema)
    assert source.schema.field(EMBEDDING).type == pa.list_(pa.float32(), 5)
    assert source.genes() is None
    assert table_of(Embeddings(path=str(folder), column="mean_l00")).column_names == source.schema.names[:4]


def test_only_the_column_and_the_obs_asked_for_are_read(tmp_path, monkeypatch):
    write_output(tmp_path / "o")
    read = []
    original = pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda file, columns: read.extend(columns) or original(file, columns))
    source = Embeddings(path=str(tmp_path / "o"), column="mean_l07", obs=("cell_type",))
    shards = source.shards()
    read.clear()
    list(source.read(shards[0]))
    assert set(read) <= {"mean_l07", "cell_type", ROW_ID}
    assert "mean_l07" in read


def test_a_vector_that_is_not_finite_is_refused_alone(tmp_path):
    def spoilt(key, table):
        values = table["mean_l07"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, 5).copy()
        values[2, 1], values[3] = np.inf, np.nan
        return (
            table.set_column(table.column_names.index("mean_l07"), "mean_l07", fixed(values))
            if key[-1] == "1"
            else table
        )

    truth = write_output(tmp_path / "o", spoilt)
    table = table_of(Embeddings(path=str(tmp_path / "o"), column="mean_l07", shard_rows=10))
    reasons = dict(zip(table[ROW_ID].to_pylist(), table[REFUSED].to_pylist(), strict=True))
    assert {row: why for row, why in reasons.items() if why} == {
        "c11": "NOT_FINITE: 1 of 5 numbers of the embedding are not finite",
        "c12": "NOT_FINITE: 5 of 5 numbers of the embedding are not finite",
    }
    good = np.setdiff1d(np.arange(43), [11, 12])
    np.testing.assert_array_equal(matrix(table)[good], truth["mean_l07"][good])
    assert table_of(Embeddings(path=str(tmp_path / "o"), column="mean_l00"))[REFUSED].null_count == 43


def test_what_is_not_stored_is_refused_by_name(output, tmp_path):
    folder, _ = output
    with pytest.raises(Refused, match=r"NO_COLUMN.*no embedding 'mean_l7'.*There are: mean_l00, mean_l07"):
        Embeddings(path=str(folder), column="mean_l7").shards()
    with pytest.raises(Refused, match=r"NO_COLUMN.*no obs column 'donor'.*cell_type, age"):
        Embeddings(path=str(folder), column="mean_l07", obs=("donor",)).shards()
    with pytest.raises(Refused, match="NOT_AN_OUTPUT"):
        Embeddings(path=str(tmp_path), column="mean_l07").shards()
    with pytest.raises(Refused, match=r"NO_SPLIT.*--source.split stratified_cell"):
        Embeddings(path=str(folder), column="mean_l07", obs=("split",)).shards()
    with pytest.raises(Refused, match=r"NO_COLUMN.*donor_id"):
        Embeddings(path=str(folder), column="mean_l07", split="stratified_cell").shards()
    with pytest.raises(ValidationError, match="what OUTPUT calls a column of its own"):
        Embeddings(path=str(folder), column="mean_l07", obs=("cls_l00",))


def test_a_part_that_was_changed_is_refused(tmp_path):
    write_output(tmp_path / "o")
    source = Embeddings(path=str(tmp_path / "o"), column="mean_l07")
    (shard,) = source.shards()
    part = tmp_path / "o" / part_name("shard-1")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(bytes(data))
    with pytest.raises(Refused, match="CORRUPT_PART"):
        source.shards()
    part.unlink()
    with pytest.raises(ShardRefused, match="CORRUPT_PART"):
        list(source.read(shard))


def test_any_obsm_of_an_anndata_is_read_and_its_x_is_not(tmp_path):
    cells = anndata.AnnData(
        np.zeros((50, 2), np.float32),
        obs=pd.DataFrame(
            {"cell_type": pd.Categorical(["a", "b"] * 25), "old": [i % 3 == 0 for i in range(50)]},
            index=[f"c{i}" for i in range(50)],
        ),
        obsm={"X_scgpt_cls_l07": vectors(50, 4), "X_pca": vectors(50, 3, 1)},
    )
    path = tmp_path / "a.h5ad"
    cells.write_h5ad(path)
    with h5py.File(path, "a") as file:
        del file["X"]
    for column, truth in (("X_scgpt_cls_l07", cells.obsm["X_scgpt_cls_l07"]), ("X_pca", cells.obsm["X_pca"])):
        table = table_of(Embeddings(path=str(path), column=column, obs=("cell_type", "old"), shard_rows=20))
        np.testing.assert_array_equal(matrix(table), truth)
        assert table["cell_type"].to_pylist() == ["a", "b"] * 25
        assert table["old"].to_pylist() == ["true" if i % 3 == 0 else "false" for i in range(50)]
    assert Embeddings(path=str(path), column="cls_l07").identity()["column"] == "X_scgpt_cls_l07"


def test_a_split_is_the_same_in_shards_of_any_size_and_in_the_identity(output):
    folder, _ = output
    split = {"by": ("cell_type",)}
    base = {"path": str(folder), "column": "mean_l07", "split": split}
    whole, cut = Embeddings(**base), Embeddings(**base, obs=("split", "age"), shard_rows=4)
    assert whole.schema.names[-1:] == cut.schema.names[-1:] == ["split"]
    first, second = table_of(whole)["split"].to_pylist(), table_of(cut)["split"].to_pylist()
    assert first == second
    assert {word: first.count(word) for word in ("train", "validation", "test")} == {
        "train": 31, "validation": 4, "test": 8,
    }  # 22 and 21 rows: 4 of each to test, 2 to validation  # fmt: skip
    plain = Embeddings(path=str(folder), column="mean_l07").identity()
    assert whole.identity() == plain | {"split": cut.identity()["split"]}
    assert Embeddings(**base | {"split": split | {"seed": 1}}).identity()["split"] != whole.identity()["split"]
    assert Embeddings(**base | {"column": "mean_l00"}).identity()["split"] == whole.identity()["split"]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_a_file_that_is_written_again_is_read_again_whole(tmp_path, suffix):
    """Donors, cell names and the split too: its path, columns and rows are what they were."""
    path = tmp_path / f"a.{suffix}"

    def write(name, seed):
        cells = anndata.AnnData(
            obs=pd.DataFrame({"donor_id": [f"{name}{i % 4}" for i in range(60)], "cell_type": ["a", "b", "b"] * 20},
                             index=[f"{name}-cell-{i}" for i in range(60)]),
            obsm={"X_pca": vectors(60, 3, seed)},
        )  # fmt: skip
        if suffix == "zarr":
            shutil.rmtree(path, ignore_errors=True)
        with anndata.settings.override(zarr_write_format=3, auto_shard_zarr_v3=False), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr: consolidated metadata are an extension
            getattr(cells, f"write_{suffix}")(path)
        return cells

    source = Embeddings(path=str(path), column="X_pca", obs=("donor_id",), split={"by": ("donor_id",)}, shard_rows=25)
    identities = []
    for name, seed in (("old", 1), ("new", 2)):
        cells, table = write(name, seed), table_of(source)
        np.testing.assert_array_equal(matrix(table), cells.obsm["X_pca"])
        assert table["donor_id"].to_pylist() == cells.obs["donor_id"].tolist()
        assert table[ROW_ID].to_pylist() == cells.obs_names.tolist()
        identities.append(source.identity())
    assert identities[0]["embeddings"] != identities[1]["embeddings"]
    assert identities[0]["split"] != identities[1]["split"]
