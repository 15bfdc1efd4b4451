"""Which shards are fitted on, and what a joint result does when an input file changes."""

import pytest

from xfm.core.errors import Refused
from xfm.core.source import Shard
from xfm.engine.output import Output
from xfm.studies.layerwise.run import fit_shards


def test_shards_are_chosen_until_there_are_enough_fitting_cells():
    shards = [Shard(f"s{i}", 0, 100, 100) for i in range(50)]
    chosen = fit_shards(shards, fit_cells=500, fit_fraction=0.5, seed=0)
    assert len(chosen) == 10
    assert chosen == [shard for shard in shards if shard in chosen]
    assert fit_shards(shards, 500, 0.5, seed=1) != chosen
    assert fit_shards(shards, 10**6, 0.5, seed=0) == shards


def test_files_of_unknown_length_never_stand_alone():
    broken = Shard("bad", 0, 0, None)
    shards = [broken, *(Shard(f"good{i}", 0, 400, 400) for i in range(5))]
    for seed in range(20):
        assert sum(shard.rows or 0 for shard in fit_shards(shards, 2000, 0.5, seed)) >= 1000
    packed = [Shard(f"gz{i}", 0, 0, None) for i in range(30)]
    assert len(fit_shards(packed, 2000, 0.5, seed=0)) == 4


def run(digest):
    return {"job": "j", "recipe": {"data": {"files": {"a.h5ad": digest}}}, "versions": {}}


def test_a_joint_result_refuses_a_changed_file_and_leaves_output_as_it_was(tmp_path):
    with Output(str(tmp_path / "out"), run("1"), joint=True) as output:
        output.write_json("report.json", {"fine": True})
    before = (tmp_path / "out" / "run.json").read_text()
    with pytest.raises(Refused, match=r"OTHER_RUN.*a\.h5ad"), Output(str(tmp_path / "out"), run("2"), joint=True):
        pass
    assert (tmp_path / "out" / "run.json").read_text() == before
    assert (tmp_path / "out" / "report.json").exists()
    with Output(str(tmp_path / "out"), run("2")) as output:
        assert output.attempt == 2
