import pytest

from tests.fusion_examples import write_tiny_fusion
from xfm.core.errors import Refused
from xfm.engine.columns import columns_of, with_columns
from xfm.sources.h5ad.source import H5ad
from xfm.sources.stored.source import Embeddings
from xfm.sources.synthetic.atlas import Atlas
from xfm.studies.embed.config import EmbedJob
from xfm.studies.embed.run import embed
from xfm.studies.evaluate.config import EvaluateJob


class Reader:
    columns = ("cell_type",)


class Bare:
    """A source that can carry nothing."""


def test_what_is_lacking_is_added_once_behind_what_is_carried():
    source = H5ad(path="cells.h5ad", obs=("donor_id", "sex"))
    wider = with_columns(source, ["sex", "cell_type", "cell_type"])
    assert wider.obs == ("donor_id", "sex", "cell_type")
    assert wider.path == source.path
    assert source.obs == ("donor_id", "sex")


def test_a_source_that_carries_all_or_none_is_itself():
    source, bare = Atlas(n_cells=300), Bare()
    assert with_columns(source, ("donor_id", "sex")) is source
    assert with_columns(bare, ("anything",)) is bare


def test_sections_of_a_source_are_kept():
    wider = with_columns(Atlas(n_cells=300, obs=("sex",)), ("cell_type",))
    assert wider.split == Atlas().split
    assert wider.obs == ("sex", "cell_type")


def test_a_name_that_a_source_will_not_carry_is_refused():
    with pytest.raises(Refused, match=r"--source\.kind embeddings cannot carry row_id: ") as caught:
        with_columns(Embeddings(path="out", column="mean_l07"), ["row_id"])
    assert caught.value.code == "NO_COLUMN"


def test_a_network_names_the_columns_it_reads():
    assert columns_of(Reader()) == ("cell_type",)
    assert columns_of(Bare()) == ()


def test_embed_carries_what_a_fusion_reads_and_its_recipe_is_as_asked(tmp_path, monkeypatch):
    """Without the words beside the vectors every row would be refused."""
    planned = []

    class Planned(Exception):
        pass

    def plan(_job, config, source, _backbone):
        planned.extend([config, source])
        raise Planned

    monkeypatch.setattr("xfm.studies.embed.run.plan_shards", plan)
    fusion = {"kind": "fusion", "checkpoint": str(write_tiny_fusion(tmp_path / "fusion"))}
    source = {"kind": "atlas", "n_cells": 300, "obs": ("donor_id",)}
    with pytest.raises(Planned):
        embed(EmbedJob(source=source, backbone=fusion, output=str(tmp_path / "out")))
    config, carried = planned
    assert carried.obs == ("donor_id", "cell_type")
    assert config.recipe()["source"]["obs"] == ["donor_id"]


def test_settings_that_came_later_leave_the_recipes_of_older_runs_as_they_were():
    job = EvaluateJob
    plain = job(embeddings="e", labels=("donor_id",), output="o").recipe()
    assert not {"within", "leakage", "split", "choose_by"} & set(plain)
    asked = job(embeddings="e", labels=("donor_id",), output="o", within="dataset_id", leakage="sex").recipe()
    assert {name: asked[name] for name in asked if name not in plain} == {"within": "dataset_id", "leakage": "sex"}
