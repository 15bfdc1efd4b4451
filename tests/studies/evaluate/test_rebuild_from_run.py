"""From run.json back to the source and the model of an embed job."""

import json
import shutil

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse

from xfm.core.errors import Refused
from xfm.core.unions import AnyBackbone, AnySource
from xfm.engine.config import JobConfig
from xfm.engine.planning import plan_shards
from xfm.models.scgpt.config import ScGPT
from xfm.sources.census.source import Census
from xfm.sources.census.store import write_census_store
from xfm.sources.h5ad.source import H5ad
from xfm.studies.evaluate.rebuild_from_run import backbone_of, source_of
from xfm.track.redact import redact


class Job(JobConfig):
    source: AnySource
    backbone: AnyBackbone


def recorded(source, checkpoint):
    """run.json as an embed job writes it."""
    config = Job(output="o", source=source, backbone=ScGPT(checkpoint=str(checkpoint), max_length=64, ties="low"))
    run = plan_shards("embed", config, config.source, config.backbone).run
    return json.loads(json.dumps(run | {"settings": redact(run["settings"])}))


def some_cells(genes):
    counts = np.random.default_rng(0).poisson(1.0, (20, len(genes))).astype("f4")
    obs = pd.DataFrame({"kind": ["a", "b"] * 10}, index=[f"cell-{i}" for i in range(20)])
    return anndata.AnnData(scipy.sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=genes))


@pytest.fixture
def checkpoint(tiny_scgpt):
    return tiny_scgpt / "checkpoint"


@pytest.fixture
def genes(checkpoint):
    return [gene for gene in json.loads((checkpoint / "vocab.json").read_text()) if not gene.startswith("<")][:30]


@pytest.fixture
def folder(tmp_path, genes):
    (tmp_path / "data").mkdir()
    for name in "ab":
        some_cells(genes).write_h5ad(tmp_path / f"data/{name}.h5ad")
    return tmp_path / "data"


@pytest.fixture
def origin(folder, checkpoint):
    return recorded(H5ad(path=str(folder), obs=("kind",), shard_rows=7), checkpoint)


def test_source_and_model_are_those_of_the_job(origin, folder, checkpoint):
    assert source_of(origin) == H5ad(path=str(folder), obs=("kind",), shard_rows=7)
    assert backbone_of(origin) == ScGPT(checkpoint=str(checkpoint), max_length=64, ties="low")


def test_a_census_store_is_opened_again(tmp_path, genes, checkpoint):
    cells = some_cells(genes)
    cells.obs["is_primary_data"] = np.arange(20) % 4 != 0
    write_census_store(cells, tmp_path / "store")
    source = Census(uri=str(tmp_path / "store"), obs=("kind",), value_filter="kind == 'a'")
    origin = recorded(source, checkpoint)
    assert source_of(origin) == source
    origin["recipe"]["data"]["cells"] += 1
    with pytest.raises(Refused, match=r"OTHER_DATA.*Then -> now: cells: "):
        source_of(origin)


def test_a_path_of_then_means_the_same_in_another_folder(folder, checkpoint, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    origin = recorded(H5ad(path="a.h5ad"), checkpoint)
    monkeypatch.chdir(tmp_path)
    assert [shard.path for shard in source_of(origin).shards()] == [str(folder / "a.h5ad")]


def test_other_data_in_the_same_place_are_refused_by_name(origin, folder, genes):
    cells = some_cells(genes)
    cells.obs["kind"] = "c"
    cells.write_h5ad(folder / "b.h5ad")
    with pytest.raises(
        Refused, match=r"OTHER_DATA: the cells that were embedded.*files\.b\.h5ad: \"sha256:"
    ) as problem:
        source_of(origin)
    assert "a.h5ad" not in problem.value.message
    some_cells(genes).write_h5ad(folder / "b.h5ad")
    some_cells(genes).write_h5ad(folder / "c.h5ad")
    with pytest.raises(Refused, match=r"OTHER_DATA.*files\.c\.h5ad: null -> "):
        source_of(origin)


def test_what_is_gone_is_said(origin, folder, tmp_path):
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(
        Refused, match=r"NO_FILES: the cells that were embedded cannot be read any more: no \.h5ad.*/data"
    ):
        source_of(origin)
    origin["settings"]["backbone"]["checkpoint"] = str(tmp_path / "gone")
    with pytest.raises(
        Refused, match=r"NO_CHECKPOINT: the checkpoint that embedded cannot be read any more: '.*/gone'"
    ):
        backbone_of(origin)
    origin["settings"]["source"] |= {"path": str(tmp_path), "metadata_csv": str(tmp_path / "gone.csv")}
    with pytest.raises(Refused, match=r"NO_FILES: .*cannot be read any more: .*gone\.csv"):
        source_of(origin)


def test_other_weights_are_refused(origin, checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "other")
    origin["settings"]["backbone"]["checkpoint"] = str(tmp_path / "other")
    assert backbone_of(origin).checkpoint == str(tmp_path / "other")  # a copy is the same
    origin["recipe"]["weights"]["vocab.json"] = "sha256:0"
    with pytest.raises(Refused, match=r"OTHER_WEIGHTS: the checkpoint that embedded.*vocab\.json: "):
        backbone_of(origin)


def test_a_credential_that_was_not_recorded_is_named_and_nothing_is_opened(origin):
    uri = "s3://bucket/store?access_key=AKIA0123456789&secret_key=verysecret"
    origin["settings"]["source"] = redact(Census(uri=uri).model_dump(mode="json"))
    assert "verysecret" not in str(origin)
    with pytest.raises(Refused, match=r"REDACTED: settings\.source\.uri held a credential.*AWS_ACCESS_KEY_ID"):
        source_of(origin)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": None}, r"names no source \(settings\.source"),
        ({"settings": {"source": "x"}}, "names no source"),
        ({"settings": {"source": {"kind": "tables"}}}, "none that this version knows: .*'tables'"),
        ({"settings": {"source": {"kind": "h5ad", "path": "x", "colour": 3}}}, "h5ad.colour: Extra inputs.*xfm 0"),
        ({"settings": {"source": {"kind": "h5ad", "path": "x"}}, "recipe": {}}, r"no recipe\.data"),
    ],
)
def test_a_record_that_says_too_little_is_no_origin(origin, change, message):
    with pytest.raises(Refused, match=rf"NO_ORIGIN.*{message}"):
        source_of(origin | change)
