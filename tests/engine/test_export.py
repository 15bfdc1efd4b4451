"""From an OUTPUT to one AnnData."""

import json
import logging

import anndata
import numpy as np
import pyarrow as pa
import pytest

from xfm.core.errors import Refused
from xfm.core.ledger import Receipt
from xfm.engine.export import export
from xfm.engine.output import Output, write_part

DIGEST = "ab" * 32
RUN = {
    "job": "embed",
    "recipe": {
        "config": {"backbone": {"kind": "scgpt"}},
        "weights": {"sha256": DIGEST, "revision": "v1", "layers": 2},
        "data": {"files": {"x/a.h5ad": DIGEST}},
    },
}


def vectors(key, column, dtype="f4"):
    return np.random.default_rng([ord(key), len(column)]).normal(size=(3, 4)).astype(dtype)


def a_part(key):
    columns = {
        "row_id": [f"{key}{i}" for i in range(3)],
        "tissue": ["lung", None, "liver"],
        "depth": pa.array([5, None, 2**60 + 1], pa.int64()),
    }
    for name, dtype in {"cls_l00": "f4", "cls_l01": "f2", "mean_l01": "f4", "obsm_pca": "f4"}.items():
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(vectors(key, name, dtype).ravel()), 4)
    return pa.table(columns)


@pytest.fixture
def output(tmp_path):
    with Output(str(tmp_path / "o"), RUN) as output:
        for key in "ba":  # finished in this order
            digest, size = write_part(output.uri, key, a_part(key))
            output.record(Receipt(key, 3, digest, size, 0.0, 1, path="x/a.h5ad"))
        output.finish(["b", "a"])  # and listed in this one
        output.write_json("report.json", {})
    return output.uri


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_an_export_holds_every_row_column_and_where_they_came_from(output, tmp_path, suffix):
    target = tmp_path / f"cells.{suffix}"
    assert export(output, str(target)) == 6
    cells = anndata.read_h5ad(target) if suffix == "h5ad" else anndata.read_zarr(target)
    assert list(cells.obs_names) == ["b0", "b1", "b2", "a0", "a1", "a2"]
    assert cells.shape == (6, 0)
    assert sorted(cells.obsm) == ["X_scgpt_cls_l00", "X_scgpt_cls_l01", "X_scgpt_mean_l01", "obsm_pca"]
    for name, column in {"X_scgpt_cls_l00": "cls_l00", "X_scgpt_mean_l01": "mean_l01", "obsm_pca": "obsm_pca"}.items():
        assert cells.obsm[name].dtype == np.float32
        np.testing.assert_array_equal(cells.obsm[name], np.vstack([vectors("b", column), vectors("a", column)]))
    np.testing.assert_array_equal(cells.obsm["X_scgpt_cls_l01"][:3], vectors("b", "cls_l01", "f2").astype("f4"))
    assert cells.obs["depth"].isna().tolist() == [False, True, False] * 2
    assert int(cells.obs["depth"].iloc[2]) == 2**60 + 1  # a gap does not make integers floats
    assert cells.obs["tissue"].isna().tolist() == [False, True, False] * 2
    assert json.loads(cells.uns["xfm"]["run"])["recipe"] == RUN["recipe"]
    hashes = cells.uns["xfm"]["hashes"]
    assert (hashes["weights.sha256"], hashes["weights.revision"]) == (DIGEST, "v1")
    assert {"fingerprint", "parts", "data.files"} <= hashes.keys()
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"cells.{suffix}", "o"]


def test_a_subset_of_layers(output, tmp_path):
    export(output, str(tmp_path / "a.h5ad"), layers=[1])
    cells = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert sorted(cells.obsm) == ["X_scgpt_cls_l01", "X_scgpt_mean_l01", "obsm_pca"]
    with pytest.raises(Refused, match=r"NO_LAYER.*stored are \[0, 1\]"):
        export(output, str(tmp_path / "b.h5ad"), layers=[1, 7])


def test_a_changed_part_is_refused_and_nothing_is_written(output, tmp_path):
    part = tmp_path / "o/parts/a.parquet"
    data = bytearray(part.read_bytes())
    data[100] ^= 1
    part.write_bytes(data)
    with pytest.raises(Refused, match=r"CORRUPT_PART: parts/a\.parquet"):
        export(output, str(tmp_path / "a.h5ad"))
    part.unlink()
    with pytest.raises(Refused, match="missing on disk"):
        export(output, str(tmp_path / "a.h5ad"))
    assert [path.name for path in tmp_path.iterdir()] == ["o"]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_an_existing_target_is_replaced_only_on_demand(output, tmp_path, suffix):
    target = tmp_path / f"a.{suffix}"
    export(output, str(target), layers=[0])
    with pytest.raises(Refused, match="TARGET_EXISTS"):
        export(output, str(target))
    export(output, str(target), layers=[1], overwrite=True)
    cells = anndata.read_h5ad(target) if suffix == "h5ad" else anndata.read_zarr(target)
    assert "X_scgpt_cls_l00" not in cells.obsm


def test_what_cannot_be_exported_says_why(output, tmp_path):
    for target in ("a.csv", "a", "s3://b/a.h5ad", str(tmp_path / "none/a.h5ad")):
        with pytest.raises(Refused, match="BAD_TARGET"):
            export(output, target)
    for place in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(Refused, match="NOT_AN_OUTPUT"):
            export(str(place), str(tmp_path / "a.h5ad"))
    with Output(str(tmp_path / "empty"), RUN):
        pass
    with pytest.raises(Refused, match="NOTHING_COMMITTED"):
        export(str(tmp_path / "empty"), str(tmp_path / "a.h5ad"))


def test_repeated_row_ids_are_refused(tmp_path):
    with Output(str(tmp_path / "o"), RUN) as output:
        for key in "ab":
            digest, size = write_part(output.uri, key, a_part("a"))
            output.record(Receipt(key, 3, digest, size, 0.0, 1))
    with pytest.raises(Refused, match="DUPLICATE_ROWS"):
        export(output.uri, str(tmp_path / "a.h5ad"))


def test_an_unfinished_output_is_exported_by_key_with_a_warning(output, tmp_path, caplog):
    (tmp_path / "o/report.json").unlink()
    with caplog.at_level(logging.WARNING):
        export(output, str(tmp_path / "a.h5ad"))
    assert "has not finished" in caplog.text
    assert list(anndata.read_h5ad(tmp_path / "a.h5ad").obs_names)[:1] == ["a0"]
