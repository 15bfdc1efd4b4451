"""What a job says before it starts, and which layers it takes."""

import logging

import pyarrow as pa
import pytest

from xfm.core.errors import Refused
from xfm.core.schema import COUNTS, GENE_IDS, REFUSED, ROW_ID, SHARD, TEXT
from xfm.core.source import Shard
from xfm.engine.config import JobConfig
from xfm.engine.planning import chosen_layers, describe_plan, format_bytes, plan_shards


class FakeSource:
    def __init__(self, rows):
        self.rows = rows

    @property
    def schema(self):
        return pa.schema([(name, pa.string()) for name in (ROW_ID, SHARD, REFUSED, GENE_IDS, COUNTS)])

    def shards(self):
        return [Shard(f"s-{i}", 0, rows or 0, rows) for i, rows in enumerate(self.rows)]

    def genes(self):
        return None if None in self.rows else "table"

    def identity(self):
        return {"files": {"a": "1"}}


class FakeRecipe:
    def identity(self):
        return {"weights.pt": "ff"}

    def describe(self):
        return {"blocks": 2}

    def check_genes(self, genes):
        return {"matched": 700, "genes": 765, "column": "feature_name", "repeated": 3}


def plan_of(*rows):
    return plan_shards("embed", JobConfig(output="o", workers=3), FakeSource(rows), FakeRecipe())


@pytest.mark.parametrize(
    ("asked", "layers"), [("all", (0, 1, 2, 3)), ((3, 0), (0, 3)), ((2, 2, 1), (1, 2)), ((0,), (0,))]
)
def test_layers_are_sorted_and_taken_once(asked, layers):
    assert chosen_layers(asked, 3) == layers


@pytest.mark.parametrize(("asked", "said"), [((4,), "--layers 4"), ((0, -1), "--layers -1"), ((), "--layers names")])
def test_a_layer_that_the_model_lacks_is_refused(asked, said):
    with pytest.raises(Refused, match=rf"NO_LAYER: {said}.*0 \(input embedding\) to 3"):
        chosen_layers(asked, 3)


def test_a_plan_records_what_runs_and_leaves_out_where(caplog):
    with caplog.at_level(logging.INFO):
        plan = plan_of(2000, 48)
    assert plan.rows == 2048
    recipe = plan.run["recipe"]
    assert recipe["job"] == "embed"
    assert recipe["weights"] == plan.weights == {"weights.pt": "ff"}
    assert recipe["data"] == {"files": {"a": "1"}}
    assert recipe["config"] == {"seed": 0}
    assert plan.run["settings"]["workers"] == 3
    assert "700 of 765 (feature_name) are in the vocabulary" in caplog.text
    assert "3 genes share a feature_name" in caplog.text


def test_a_dry_run_prints_shards_rows_bytes_and_actors():
    text = describe_plan(plan_of(2000, 48), columns=26, dim=512, itemsize=4, workers=None, gpus=0)
    lines = dict(line.split(maxsplit=1) for line in text.replace("output bytes", "output").splitlines())
    assert lines["shards"] == "2"
    assert lines["rows"] == "2,048"
    assert lines["output"].startswith("109.1 MB (26 columns of 512")  # 2048 * 26 * 512 * 4 = 109,051,904
    assert lines["actors"] == "one per CPU, CPU, one thread each"
    assert lines["genes"] == "700 of 765 in the vocabulary"
    assert "one per GPU, 1 GPU each" in describe_plan(plan_of(1), 1, 1, 4, None, 1)
    assert "3, 0.5 GPU each" in describe_plan(plan_of(1), 1, 1, 4, 3, 0.5)


def test_a_dry_run_says_what_compressed_files_hide():
    plan = plan_of(5, None)
    assert plan.rows is None
    assert describe_plan(plan, 1, 1, 4, 1, 0).count("unknown until files are inflated") == 2


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (1_500_000, "1.5 MB"), (2.5e12, "2.5 TB"), (3e16, "30000.0 TB")]
)
def test_bytes_are_written_for_people(size, text):
    assert format_bytes(size) == text


def test_a_source_that_gives_other_columns_than_the_model_reads_is_refused():
    class Reader(FakeRecipe):
        kind, reads = "hf_text", (TEXT,)

    with pytest.raises(Refused, match=r"OTHER_INPUT: --backbone.kind hf_text reads text; .* gives row_id"):
        plan_shards("embed", JobConfig(output="o"), FakeSource((1,)), Reader())
