"""Stored embeddings: the OUTPUT of an embed job, and AnnData."""

import gzip
import json
import logging
import pickle
import shutil
import warnings
from hashlib import sha256
from pathlib import Path

import anndata
import h5py
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse
import zarr

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.ledger import Receipt
from xfm.engine.export import export
from xfm.engine.output import Output, write_part
from xfm.sources.stored.columns import layer_columns
from xfm.sources.stored.source import open_embeddings

RUN = {"job": "embed", "recipe": {"config": {"backbone": {"kind": "scgpt"}}, "data": {"files": {"a": "sha256:1"}}}}
SIZES = {"b": 4, "a": 1, "c": 7}
WIDTHS = {"cls_l00": 3, "cls_l12": 3, "mean_l12": 3, "obsm_pca": 2}


def vectors(key, name):
    return (
        np.random.default_rng([ord(key), len(name), ord(name[0])]).normal(size=(SIZES[key], WIDTHS[name])).astype("f4")
    )


def a_part(key, dtypes=None, **more):
    n = SIZES[key]
    columns = {
        "row_id": [f"{key}{i}" for i in range(n)],
        "cell_type": [f"type {i % 2}" for i in range(n)],
        "n.x": [n] * n,
    }
    columns |= more
    for name, width in WIDTHS.items():
        flat = vectors(key, name).astype((dtypes or {}).get(name, "f4")).ravel()
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(flat), width)
    return pa.table(columns)


def write(folder, parts, order=None, run=RUN):
    with Output(str(folder), run) as output:
        for key, table in parts.items():
            digest, size = write_part(output.uri, key, table)
            output.record(Receipt(key, table.num_rows, digest, size, 0.0, 1))
        output.finish(order or list(parts))
        output.write_json("report.json", {})
    return str(folder)


@pytest.fixture
def output(tmp_path):
    parts = {key: a_part(key, {"mean_l12": "f2"}) for key in "abc"}
    return write(tmp_path / "o", parts, order=["b", "a", "c"])


def expected(name, dtype="f4"):
    return np.vstack([vectors(key, name).astype(dtype).astype("f4") for key in "bac"])


def replace_column(table, name, values):
    flat = pa.array(np.asarray(values, "f4").ravel())
    column = pa.FixedSizeListArray.from_arrays(flat, table.schema.field(name).type.list_size)
    return table.set_column(table.schema.get_field_index(name), name, column)


def flip(path, start, stop):
    data = bytearray(path.read_bytes())
    for at in range(start, stop):
        data[at] ^= 0xFF
    path.write_bytes(data)


def test_an_output_tells_its_rows_and_columns_in_shard_order(output):
    stored = open_embeddings(output)
    assert stored.rows == 12
    assert [(c.name, c.pool, c.layer, c.dim) for c in stored.columns] == [
        ("cls_l00", "cls", 0, 3), ("cls_l12", "cls", 12, 3), ("mean_l12", "mean", 12, 3), ("obsm_pca", None, None, 2)
    ]  # fmt: skip
    assert stored.pools() == {"cls": (0, 12), "mean": (12,)}
    assert stored.row_ids() == ["b0", "b1", "b2", "b3", "a0", *(f"c{i}" for i in range(7))]
    assert stored.obs_names() == ["cell_type", "n.x"]
    obs = stored.obs(["n.x", "cell_type"])
    assert obs.column_names == ["n.x", "cell_type"]
    assert obs["n.x"].to_pylist() == [4] * 4 + [1] + [7] * 7
    assert stored.origin()["recipe"] == RUN["recipe"]


def test_a_column_is_read_as_it_was_written_and_half_precision_becomes_single(output):
    stored = open_embeddings(output)
    for name, dtype in {"cls_l00": "f4", "cls_l12": "f4", "mean_l12": "f2", "obsm_pca": "f4"}.items():
        values = stored.read(name)
        assert values.dtype == np.float32
        np.testing.assert_array_equal(values, expected(name, dtype))


@pytest.mark.parametrize("rows", [[0, 3, 5, 11], [4], [], list(range(12)), [1, 2]])
def test_rows_are_those_of_the_whole_column(output, rows):
    stored = open_embeddings(output)
    rows = np.array(rows, np.int64)
    np.testing.assert_array_equal(stored.read("cls_l12", rows), expected("cls_l12")[rows])
    seen = []
    for positions, block in stored.blocks(["mean_l12", "cls_l00"], rows):
        assert list(block) == ["mean_l12", "cls_l00"]
        np.testing.assert_array_equal(block["cls_l00"], expected("cls_l00")[rows][positions])
        np.testing.assert_array_equal(block["mean_l12"], expected("mean_l12", "f2")[rows][positions])
        seen += positions.tolist()
    assert seen == list(range(len(rows)))


@pytest.mark.parametrize("rows", [[3, 3], [2, 1], [-1], [12]])
def test_rows_that_do_not_rise_or_do_not_exist_are_an_error(output, rows):
    with pytest.raises(ValueError, match="must rise strictly from 0 to at most 11"):
        open_embeddings(output).read("cls_l00", np.array(rows))


def test_one_column_is_read_without_the_bytes_of_others(output):
    stored = open_embeddings(output)
    for key in SIZES:
        path = Path(output, "parts", f"{key}.parquet")
        for i in range(pq.ParquetFile(path).metadata.num_columns):
            chunk = pq.ParquetFile(path).metadata.row_group(0).column(i)
            if chunk.path_in_schema.startswith("mean_l12"):
                start = chunk.dictionary_page_offset or chunk.data_page_offset
                flip(path, start, start + chunk.total_compressed_size)
    np.testing.assert_array_equal(stored.read("cls_l12"), expected("cls_l12"))
    assert len(stored.row_ids()) == 12
    with pytest.raises(Refused, match=r"CORRUPT_PART: parts/b\.parquet"):  # found out by its bytes, once it matters
        stored.read("mean_l12")
    with pytest.raises(Refused, match="CORRUPT_PART"):  # or where it is opened
        open_embeddings(output)
    assert open_embeddings(output, verify=False).rows == 12


def test_a_part_of_another_length_or_none_is_refused_at_every_read(output):
    stored = open_embeddings(output)
    part = Path(output, "parts", "c.parquet")
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.raises(Refused, match=r"CORRUPT_PART: parts/c\.parquet.* bytes on disk"):
        stored.read("cls_l00")
    np.testing.assert_array_equal(stored.read("cls_l00", np.arange(5)), expected("cls_l00")[:5])  # none of its rows
    part.unlink()
    with pytest.raises(Refused, match="missing on disk"):
        stored.obs(["cell_type"])


def test_a_part_that_is_whole_and_yet_no_parquet_is_a_problem_of_the_environment(tmp_path, output):
    stored = open_embeddings(output)
    part = Path(output, "parts", "a.parquet")
    data = b"x" * part.stat().st_size
    part.write_bytes(data)
    manifest = Path(output, "manifest.jsonl")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[1]["sha256"] = sha256(data).hexdigest()
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(EnvironmentProblem, match="part a could not be read"):
        open_embeddings(output, verify=False).read("cls_l00")
    with pytest.raises(Refused, match="CORRUPT_PART"):
        stored.read("cls_l00")


def test_bytes_that_read_well_but_are_not_those_committed_are_refused(output, tmp_path):
    part = Path(output, "parts", "a.parquet")
    table = pq.read_table(part)
    digest, size = write_part(output, "a", replace_column(table, "cls_l12", -vectors("a", "cls_l12")))
    manifest = Path(output, "manifest.jsonl")
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    lines[1]["bytes"] = size
    assert lines[1]["sha256"] != digest
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for use in (open_embeddings, lambda place: export(place, str(tmp_path / "a.h5ad"))):
        with pytest.raises(Refused, match=rf"CORRUPT_PART: parts/a\.parquet.*{digest} on disk"):
            use(output)


def test_parts_that_differ_are_refused(tmp_path):
    other = a_part("a").rename_columns([name.replace("l12", "l11") for name in a_part("a").column_names])
    with pytest.raises(Refused, match=r"MIXED_PARTS: part a .* other columns than b"):
        open_embeddings(write(tmp_path / "1", {"b": a_part("b"), "a": other}))
    with pytest.raises(Refused, match=r"MIXED_PARTS.*differ in donor"):
        open_embeddings(write(tmp_path / "2", {"b": a_part("b"), "a": a_part("a", donor=["d"])}))
    stored = open_embeddings(write(tmp_path / "3", {"b": a_part("b", d=[1] * 4), "a": a_part("a", d=["x"])}))
    with pytest.raises(Refused, match="MIXED_PARTS: obs columns"):
        stored.obs(["d"])
    gaps = open_embeddings(write(tmp_path / "4", {"b": a_part("b", d=pa.nulls(4)), "a": a_part("a", d=["x"])}))
    assert gaps.obs(["d"])["d"].to_pylist() == [None] * 4 + ["x"]


def test_repeated_row_ids_are_refused(tmp_path):
    stored = open_embeddings(write(tmp_path / "o", {"x": a_part("c"), "y": a_part("c")}))
    with pytest.raises(Refused, match=r"DUPLICATE_ROWS: .* has 14 rows but 7 row ids, 'c0' twice"):
        stored.row_ids()


def test_numbers_that_are_not_finite_are_counted_and_named(tmp_path):
    values = vectors("c", "cls_l12")
    values[[1, 2, 4, 6], 1] = [np.nan, np.inf, -np.inf, np.nan]
    bad = replace_column(a_part("c"), "cls_l12", values)
    stored = open_embeddings(write(tmp_path / "o", {"b": a_part("b"), "c": bad}))
    stored.read("cls_l00")
    with pytest.raises(Refused, match=r"NOT_FINITE: cls_l12 of .* in 4 of 11 rows: c1, c2, c4, \.\.\."):
        stored.read("cls_l12")
    with pytest.raises(Refused, match=r"in 2 of 3 rows: c2, c6\. "):
        list(stored.blocks(["cls_l12"], np.array([0, 6, 10])))
    assert np.isfinite(stored.read("cls_l12", np.array([0, 4, 7]))).all()


def test_a_missing_column_is_answered_with_the_nearest_and_what_to_do(output):
    stored = open_embeddings(output)
    with pytest.raises(Refused, match=r"NO_COLUMN.*Did you mean 'cell_type'.*--source\.obs cell_type,n\.x,celltype"):
        stored.obs(["celltype"])
    with pytest.raises(Refused, match=r"NO_COLUMN.*no embedding 'cls_l13'\. Did you mean 'cls_l12'"):
        stored.read("cls_l13")


def test_what_travels_is_a_recipe(output):
    stored = open_embeddings(output)
    again = pickle.loads(pickle.dumps(stored))  # noqa: S301
    assert again == stored
    np.testing.assert_array_equal(again.read("cls_l12"), expected("cls_l12"))


def test_identity_is_the_content_wherever_it_lies(output, tmp_path):
    shutil.copytree(output, tmp_path / "copy")
    one, two = open_embeddings(output).identity(), open_embeddings(str(tmp_path / "copy")).identity()
    assert one == two
    json.dumps(one)
    parts = {key: a_part(key, {"mean_l12": "f2"}) for key in "abc"} | {"c": a_part("c")}
    assert open_embeddings(write(tmp_path / "other", parts)).identity() != one


def test_an_unfinished_output_is_read_by_key_with_a_warning(output, caplog):
    Path(output, "report.json").unlink()
    with caplog.at_level(logging.WARNING):
        assert open_embeddings(output).row_ids()[0] == "a0"
    assert "has not finished" in caplog.text


def test_places_without_embeddings_say_what_they_are(tmp_path):
    (tmp_path / "empty").mkdir()
    for place in (tmp_path / "nowhere", tmp_path / "empty"):
        with pytest.raises(Refused, match=r"NOT_AN_OUTPUT.*has no run\.json"):
            open_embeddings(str(place))
    (tmp_path / "empty" / "run.json").write_text('{"torn":')
    with pytest.raises(Refused, match=r"NOT_AN_OUTPUT.*damaged"):
        open_embeddings(str(tmp_path / "empty"))
    with pytest.raises(Refused, match="NOTHING_COMMITTED"):
        open_embeddings(write(tmp_path / "o", {}))
    with pytest.raises(Refused, match=r"NO_EMBEDDINGS.*'pretrain'"):
        open_embeddings(write(tmp_path / "p", {"a": pa.table({"row_id": ["x"]})}, run=RUN | {"job": "pretrain"}))


# AnnData


def some_cells(n=9000, width=600):
    """Enough rows for several pieces of the wide matrix."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical(rng.choice(["B", "T"], n)),
            "donor": [f"d{i % 5}" for i in range(n)],
            "age": rng.random(n),
            "n_genes": rng.integers(0, 9, n),
            "is_normal": rng.random(n) < 0.5,
            "stage": pd.array([1, None, 3] * (n // 3), dtype="Int64"),
        },
        index=[f"cell-{i}" for i in range(n)],
    )
    obs.loc["cell-1", "cell_type"] = None
    obs.loc["cell-2", "age"] = None
    obsm = {
        "X_scgpt_cls_l00": rng.normal(size=(n, 4)).astype("f4"),
        "X_scgpt_cls_l07": rng.normal(size=(n, width)).astype("f2"),
        "X_scgpt_mean_l07": rng.normal(size=(n, 4)),
        "X_pca": rng.normal(size=(n, 3)).astype("f4"),
        "spatial_graph": scipy.sparse.csr_matrix((n, 2)),
    }
    return anndata.AnnData(scipy.sparse.csr_matrix((n, 5), dtype="f4"), obs=obs, obsm=obsm)


def save(cells, folder, name, kind):
    """Writes cells as h5ad, or as zarr of format 2 or 3."""
    path = folder / f"{name}.{kind.rstrip('23')}"
    if kind == "h5ad":
        cells.write_h5ad(path)
    else:
        with (
            anndata.settings.override(zarr_write_format=int(kind[-1]), auto_shard_zarr_v3=False),
            warnings.catch_warnings(),
        ):
            # anndata announces another default, zarr that consolidated metadata are an extension.
            warnings.simplefilter("ignore")
            cells.write_zarr(path)
    return str(path)


@pytest.fixture(params=["h5ad", "zarr2", "zarr3"])
def kind(request):
    return request.param


def test_an_anndata_is_read_without_its_expression(tmp_path, kind):
    cells = some_cells()
    path = save(cells, tmp_path, "a", kind)
    if kind == "h5ad":
        with h5py.File(path, "a") as file:
            del file["X"]
    else:
        shutil.rmtree(Path(path, "X"))
    stored = pickle.loads(pickle.dumps(open_embeddings(path)))  # noqa: S301
    assert [(c.name, c.pool, c.layer, c.dim) for c in sorted(stored.columns, key=lambda c: c.key)] == [
        ("X_pca", None, None, 3), ("cls_l00", "cls", 0, 4), ("cls_l07", "cls", 7, 600), ("mean_l07", "mean", 7, 4)
    ]  # fmt: skip
    assert stored.rows == 9000
    assert stored.row_ids() == list(cells.obs_names)
    rows = np.array([0, 17, 5000, 8999])
    for name, key in {"cls_l07": "X_scgpt_cls_l07", "mean_l07": "X_scgpt_mean_l07", "X_pca": "X_pca"}.items():
        assert stored.read(name).dtype == np.float32
        np.testing.assert_array_equal(stored.read(name), cells.obsm[key].astype("f4"))
        np.testing.assert_array_equal(stored.read(name, rows), cells.obsm[key].astype("f4")[rows])
    np.testing.assert_array_equal(stored.read("X_scgpt_cls_l00"), cells.obsm["X_scgpt_cls_l00"])  # by its key
    assert len(list(stored.blocks(["cls_l07"]))) > 1
    assert stored.origin() is None


def test_obs_columns_keep_their_values_and_gaps(tmp_path, kind):
    cells = some_cells()
    stored = open_embeddings(save(cells, tmp_path, "a", kind))
    assert stored.obs_names() == list(cells.obs.columns)
    obs = stored.obs(stored.obs_names())
    assert obs["cell_type"].to_pylist() == [None if v is np.nan else v for v in cells.obs["cell_type"].astype(object)]
    assert pa.types.is_string(obs["cell_type"].type) or pa.types.is_large_string(obs["cell_type"].type)
    assert obs["donor"].to_pylist() == cells.obs["donor"].tolist()
    assert obs["n_genes"].to_pylist() == cells.obs["n_genes"].tolist()
    assert obs["is_normal"].to_pylist() == cells.obs["is_normal"].tolist()
    assert obs["stage"].to_pylist() == [1, None, 3] * 3000
    assert obs["age"].null_count == 1
    with pytest.raises(Refused, match=r"NO_COLUMN.*Did you mean 'donor'"):
        stored.obs(["doner"])


def test_categories_of_anndata_0_7_are_decoded(tmp_path):
    path = save(some_cells(30), tmp_path, "a", "h5ad")
    with h5py.File(path, "a") as file:
        obs = file["obs"]
        codes = obs["cell_type/codes"][:]
        del obs["cell_type"]
        obs["cell_type"] = codes
        obs["__categories/cell_type"] = np.array(["B", "T"], dtype=h5py.string_dtype())
        obs["cell_type"].attrs["categories"] = obs["__categories/cell_type"].ref
        for name in (obs.attrs["_index"], "n_genes"):
            obs[name].attrs.clear()
    stored = open_embeddings(path)
    expected = [None if code < 0 else "BT"[code] for code in codes]
    obs = stored.obs(["cell_type", "n_genes"])
    assert obs["cell_type"].to_pylist() == expected
    assert stored.row_ids() == [f"cell-{i}" for i in range(30)]
    assert pa.types.is_integer(obs["n_genes"].type)
    assert "__categories" not in stored.obs_names()
    assert None in expected


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_an_export_is_read_as_the_output_it_came_from(output, tmp_path, suffix):
    target = str(tmp_path / f"a.{suffix}")
    export(output, target)
    one, two = open_embeddings(output), open_embeddings(target)
    assert two.pools() == one.pools()
    assert two.row_ids() == one.row_ids()
    for column in one.columns:
        np.testing.assert_array_equal(two.read(column.name), one.read(column.name))
    assert two.obs(["n.x"])["n.x"].to_pylist() == one.obs(["n.x"])["n.x"].to_pylist()
    assert two.origin() == one.origin()


def test_an_anndata_has_the_identity_of_its_content(tmp_path, kind):
    cells = some_cells(30)
    path = Path(save(cells, tmp_path, "a", kind))
    one = open_embeddings(str(path)).identity()
    (shutil.copytree if path.is_dir() else shutil.copy)(path, tmp_path / f"b{path.suffix}")
    assert open_embeddings(str(tmp_path / f"b{path.suffix}")).identity() == one
    cells.obsm["X_pca"][3, 1] += 1
    assert open_embeddings(save(cells, tmp_path, "c", kind)).identity() != one


def test_anndata_with_rows_that_repeat_or_numbers_that_are_none_are_refused(tmp_path, kind):
    cells = some_cells(30)
    cells.obsm["X_pca"][[3, 8], 1] = np.nan
    cells.obsm["X_scgpt_mean_l07"][5, 0] = 1e300  # finite in double, not in single precision
    path = save(cells, tmp_path, "a", kind)
    with pytest.raises(Refused, match=r"NOT_FINITE: X_pca of .* in 2 of 30 rows: cell-3, cell-8\. "):
        open_embeddings(path).read("X_pca")
    with pytest.raises(Refused, match=r"NOT_FINITE: X_scgpt_mean_l07 .* cell-5"):
        open_embeddings(path).read("mean_l07")
    cells = some_cells(30)
    cells.obs.index = ["same", *cells.obs_names[1:-1], "same"]
    path = save(cells, tmp_path, "b", kind)
    with pytest.raises(Refused, match=r"DUPLICATE_ROWS.*'same' twice; adata\.obs_names_make_unique"):
        open_embeddings(path).row_ids()


def test_places_that_hold_no_embeddings_of_cells_say_what_they_are(tmp_path):
    with pytest.raises(Refused, match="NO_SUCH_FILE"):
        open_embeddings(str(tmp_path / "none.h5ad"))
    (tmp_path / "text.h5ad").write_text("hello")
    (tmp_path / "empty.zarr").mkdir()
    with h5py.File(tmp_path / "other.h5ad", "w") as file:
        file["x"] = [1]
    zarr.open_group(str(tmp_path / "other.zarr"), mode="w")
    for name in ("text.h5ad", "empty.zarr", "other.h5ad", "other.zarr"):
        with pytest.raises(Refused, match="NOT_ANNDATA"):
            open_embeddings(str(tmp_path / name))
    with gzip.open(tmp_path / "a.h5ad.gz", "wb") as file:
        file.write(b"x")
    with pytest.raises(Refused, match=r"NOT_ANNDATA.*gunzip"):
        open_embeddings(str(tmp_path / "a.h5ad.gz"))
    with pytest.raises(Refused, match="NOT_LOCAL"):
        open_embeddings("s3://bucket/a.h5ad")
    cells = some_cells(30)
    for key in [key for key in cells.obsm if key != "spatial_graph"]:
        del cells.obsm[key]
    with pytest.raises(Refused, match=r"NO_EMBEDDINGS.*spatial_graph"):
        open_embeddings(save(cells, tmp_path, "b", "h5ad"))
    cells = some_cells(30)
    cells.uns["xfm"] = {"run": "no json"}
    with pytest.raises(Refused, match="BAD_ORIGIN"):
        open_embeddings(save(cells, tmp_path, "c", "h5ad"))


def names_of(keys, backbones=()):
    return [(c.name, c.pool, c.layer) for c in layer_columns(dict.fromkeys(keys, 2), backbones)]


def test_pool_and_layer_are_read_from_names():
    assert names_of(["X_scgpt_cls_l07", "X_umap", "X_cell_length"]) == [
        ("cls_l07", "cls", 7), ("X_umap", None, None), ("X_cell_length", None, None)
    ]  # fmt: skip
    # One backbone whose name has an underscore; a pool with one where the backbone is known.
    assert names_of(["X_gene_former_mean_l00"]) == [("mean_l00", "mean", 0)]
    assert names_of(["X_scgpt_attn_mean_l00"], ["scgpt"]) == [("attn_mean_l00", "attn_mean", 0)]
    # Two backbones in one file stay apart.
    assert names_of(["X_scgpt_cls_l01", "X_geneformer_cls_l01"]) == [
        ("scgpt_cls_l01", "scgpt_cls", 1), ("geneformer_cls_l01", "geneformer_cls", 1)
    ]  # fmt: skip
    # A stored name belongs to its own column, in whichever order they come.
    for keys in (["X_cls_l07", "cls_l07"], ["cls_l07", "X_cls_l07"]):
        assert {name: layer for name, _, layer in names_of(keys)} == {"X_cls_l07": None, "cls_l07": 7}
