"""Batches of a shard and what is kept of them: every row once, the same numbers however it is cut."""

from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.studies.layerwise.layer_cases import FakeConfig, noise_states, random_cells, token_table
from xfm.compute.embed import Embedder, batches
from xfm.core.errors import EnvironmentProblem, ShardRefused
from xfm.core.schema import INPUT_IDS, ROW_ID
from xfm.models.reductions import Pool
from xfm.models.scgpt.config import ScGPT
from xfm.studies.embed.run import embed_report

POOLS = (Pool("cls"), Pool("mean"), Pool("max"))


def make_embedder(config, layers=(0, 1, 2), pools=POOLS, **options):
    return Embedder(config, pools, layers, **({"batch_tokens": 2048, "device": "cpu", "seed": 0} | options))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=60), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget_unless_one_row_alone_exceeds_it(lengths, budget):
    array = np.array(lengths, dtype=np.int64)
    cut = list(batches(array, budget))
    assert sorted(np.concatenate(cut).tolist() if cut else []) == list(range(len(lengths)))
    for rows in cut:
        assert len(rows) == 1 or len(rows) * array[rows].max() <= budget
    order = [array[row] for rows in cut for row in rows]
    assert order == sorted(lengths, reverse=True)


def test_poolings_are_those_of_numpy_over_genes_only():
    cells = random_cells(7, 1)
    columns = make_embedder(FakeConfig(), layers=(0,)).embed(token_table(cells))  # states are (bin, gene id)
    assert list(columns) == ["cls_l00", "mean_l00", "max_l00"]
    for row, (genes, bins) in enumerate(cells):
        content = np.stack([bins, genes], axis=1)
        np.testing.assert_allclose(columns["cls_l00"][row], [-2, 200])
        np.testing.assert_allclose(columns["mean_l00"][row], content.mean(axis=0), rtol=1e-6)
        np.testing.assert_allclose(columns["max_l00"][row], content.max(axis=0))


@pytest.fixture(scope="module")
def tiny(tiny_scgpt):
    return ScGPT(checkpoint=str(tiny_scgpt / "checkpoint"))


@pytest.fixture(scope="module")
def reference(tiny_scgpt):
    with np.load(tiny_scgpt / "reference.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def real_tokens(reference):
    n = 8
    rows = [slice(1, length) for length in reference["lengths"][:n]]
    ids = [reference["gene_ids"][i, part].tolist() for i, part in enumerate(rows)]
    values = [reference["values"][i, part].astype(int).tolist() for i, part in enumerate(rows)]
    table = token_table(list(zip(ids, values, strict=True)))
    # `<cls>` of the real vocabulary instead of the hand-written one.
    flat = np.concatenate([[int(reference["cls_id"]), *row] for row in ids]).astype(np.uint16)
    column = pa.LargeListArray.from_arrays(table[INPUT_IDS].chunk(0).offsets, pa.array(flat))
    return table.set_column(table.schema.get_field_index(INPUT_IDS), INPUT_IDS, column)


def test_embeddings_are_the_reference_and_do_not_depend_on_budget_or_order(tiny, real_tokens, reference):
    layers = tuple(range(13))
    tables = {
        budget: make_embedder(tiny, layers, POOLS[:2], batch_tokens=budget)(real_tokens) for budget in (1, 100_000)
    }
    backwards = real_tokens.take(np.arange(real_tokens.num_rows)[::-1])
    reversed_rows = make_embedder(tiny, layers, POOLS[:2])(backwards)
    for layer in layers:
        for name, key in ((f"cls_l{layer:02d}", "cls"), (f"mean_l{layer:02d}", "gene_mean")):
            one, all_at_once = (np.array(tables[budget][name].to_pylist()) for budget in (1, 100_000))
            np.testing.assert_allclose(one, all_at_once, rtol=0, atol=1e-5)
            np.testing.assert_allclose(np.array(reversed_rows[name].to_pylist())[::-1], one, rtol=0, atol=1e-5)
            np.testing.assert_allclose(one, reference[key][: len(one), layer], rtol=0, atol=1e-4)


def test_the_same_shard_gives_the_same_bytes_twice(tiny, real_tokens):
    first, second = (make_embedder(tiny, (0, 12), POOLS[:1])(real_tokens) for _ in range(2))
    assert first.equals(second)


def test_obs_columns_are_kept_and_tokens_are_not():
    table = token_table(random_cells(3, 2), cell_type=["B", None, "T"])
    out = make_embedder(FakeConfig(), (2,), POOLS[:1])(table)
    assert out.column_names == [ROW_ID, "cell_type", "cls_l02"]
    assert out["cell_type"].to_pylist() == ["B", None, "T"]
    assert out.schema.field("cls_l02").type == pa.list_(pa.float32(), 2)


def test_a_table_without_rows_keeps_the_whole_schema():
    table, embedder = token_table(random_cells(3, 2), donor=["a", "b", "c"]), make_embedder(FakeConfig())
    empty = embedder(table.slice(0, 0))
    assert empty.num_rows == 0
    assert empty.schema == embedder(table).schema
    filtered = table.filter(pa.array([False] * 3))
    assert embedder(filtered).schema == embedder(table).schema


def test_half_precision_is_stored_on_request_and_an_overflow_is_refused():
    table = token_table(random_cells(4, 3))
    exact = make_embedder(FakeConfig(noise_states, width=4)).embed(table)
    out = make_embedder(FakeConfig(noise_states, width=4), stored_dtype="float16")(table)
    assert out.schema.field("mean_l01").type == pa.list_(pa.float16(), 4)
    np.testing.assert_allclose(np.array(out["mean_l01"].to_pylist()), exact["mean_l01"], rtol=1e-3, atol=1e-6)
    large = FakeConfig(lambda layer, ids, values: 70_000 + noise_states(layer, ids, values), width=4)
    assert make_embedder(large)(table).num_rows == 4
    with pytest.raises(ShardRefused, match=r"NOT_FINITE: cls_l00 reaches 70000.*--dtype float32"):
        make_embedder(large, stored_dtype="float16")(table)


def test_a_state_that_is_not_finite_is_refused():
    broken = FakeConfig(lambda layer, ids, values: noise_states(layer, ids, values) / (layer != 1), width=4)
    with pytest.raises(ShardRefused, match="NOT_FINITE: cls_l01"):
        make_embedder(broken)(token_table(random_cells(4, 3)))
    assert make_embedder(broken, (0, 2))(token_table(random_cells(4, 3))).num_rows == 4


@pytest.mark.parametrize(("layers", "blocks"), [((0,), 0), ((0, 2), 2), ((5, 1), 5), (tuple(range(7)), 6)])
def test_extraction_stops_after_the_deepest_layer_asked_for(layers, blocks):
    config = FakeConfig(layers=6)
    out = make_embedder(config, layers, POOLS[:1])(token_table(random_cells(3, 4)))
    assert config.built[0].blocks_run == blocks
    assert out.column_names[1:] == [f"cls_l{layer:02d}" for layer in layers]


def test_another_checkpoint_on_this_machine_is_an_environment_problem():
    with pytest.raises(EnvironmentProblem, match="checkpoint on this machine"):
        make_embedder(FakeConfig(), identity={"weights": "others"})


def test_the_report_counts_rows_speed_and_refusals():
    run = {"recipe": {"weights": {"w": "1"}, "data": {"d": "2"}}, "versions": {}}
    result = SimpleNamespace(
        rows=1200, computed=200, wall_s=4.0, refused={"EMPTY": 2, "NOT_COUNTS": 1}, seconds={"embed": 6.0}, notes=[]
    )
    genes = {"column": "feature_name", "matched": 700, "genes": 765, "repeated": 0, "overlap": 0.9}
    report = embed_report(run, genes, result, (0, 1, 2), ("cls", "mean"))
    assert report.headline == "1,200 rows have 3 layers x 2 poolings each; 3 rows or files were refused."
    assert report.numbers["rows per second, start of workers included"] == 50
    assert {table.name: table.rows for table in report.tables} == {
        "seconds": [["embed", 6.0, 30.0]],
        "genes": [["feature_name", 700, 765, 0]],
    }
    resumed = SimpleNamespace(rows=1200, computed=0, wall_s=0.0, refused={}, seconds={}, notes=[{"genes": [genes]}])
    again = embed_report(run, {}, resumed, (0,), ("cls",))
    assert again.headline == "1,200 rows have 1 layers x 1 poolings each."
    assert [table.name for table in again.tables] == ["genes"]
