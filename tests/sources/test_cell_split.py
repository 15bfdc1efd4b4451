"""Splits of cells, by law: quotas counted by hand, any order of rows, disjoint types, every donor trained on."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from xfm.core.errors import Refused, ShardRefused
from xfm.core.parts import PARTS, TEST, TRAIN, VALIDATION
from xfm.sources.cell_split import CellSplit, digest_of, split_rows

WORDS = np.array([part.word for part in PARTS])


def some_cells(sizes, start=0):
    """Rows of strata, given as {(donor, type): how many}."""
    pairs = [pair for pair, n in sizes.items() for _ in range(n)]
    ids = [f"cell-{start + i}" for i in range(len(pairs))]
    donors, types = zip(*pairs, strict=True)
    return ids, pa.table({"donor_id": donors, "cell_type": types})


def counted(split, ids, table):
    """{(donor, type): (train, validation, test)}."""
    parts = split.parts(ids, table)
    rows = zip(table["donor_id"].to_pylist(), table["cell_type"].to_pylist(), parts.tolist(), strict=True)
    found = Counter(rows)
    pairs = {row[:2] for row in found}
    return {pair: tuple(found[*pair, part] for part in (TRAIN, VALIDATION, TEST)) for pair in pairs}


def test_random_cells_have_the_references_numbers():
    """31,780 cells: 25,424 train and 6,356 test, spec 1.1; a tenth of the former is for validation here."""
    ids = [str(i) for i in range(31_780)]
    parts = CellSplit(scheme="random_cell").parts(ids, pa.table({}))
    assert np.bincount(parts).tolist() == [25_424 - 2_542, 2_542, 6_356]


def test_each_stratum_gives_its_exact_quota():
    sizes = {("d1", "a"): 100, ("d1", "b"): 30, ("d2", "a"): 17, ("d2", "b"): 10}
    assert counted(CellSplit(), *some_cells(sizes)) == {
        ("d1", "a"): (70, 10, 20),
        ("d1", "b"): (21, 3, 6),
        ("d2", "a"): (12, 2, 3),  # 1.7 and 3.4
        ("d2", "b"): (7, 1, 2),
    }


@pytest.mark.parametrize(
    ("rows", "wanted"),
    [(1, (1, 0, 0)), (2, (2, 0, 0)), (3, (2, 0, 1)), (4, (3, 0, 1)), (5, (3, 1, 1)), (15, (10, 2, 3))],
)
def test_a_small_stratum_fills_training_first(rows, wanted):
    assert counted(CellSplit(), *some_cells({("big", "a"): 100, ("small", "a"): rows}))["small", "a"] == wanted


def test_shares_that_ask_for_everything_leave_one_row_to_train_on():
    found = counted(CellSplit(validation=0.49, test=0.5), *some_cells({("big", "a"): 40, ("d", "a"): 1, ("e", "a"): 2}))
    assert found["d", "a"] == (1, 0, 0)
    assert found["e", "a"] == (1, 0, 1)


@pytest.mark.parametrize("scheme", ["stratified_cell", "held_out_types"])
def test_every_donor_has_training_rows(scheme):
    rng = np.random.default_rng(0)
    sizes = {(f"d{d}", t): int(n) for d in range(14) for t, n in zip("abcdef", rng.integers(0, 9, 6), strict=True)}
    sizes |= {("lonely", "a"): 1}
    found = counted(CellSplit(scheme=scheme), *some_cells({pair: n for pair, n in sizes.items() if n}))
    trained = {donor for (donor, _), (train, _, _) in found.items() if train}
    assert trained == {donor for donor, _ in found}


@pytest.mark.parametrize("scheme", ["random_cell", "stratified_cell", "held_out_types"])
def test_neither_the_order_of_rows_nor_of_columns_matters(scheme):
    ids, table = some_cells({("d1", "a"): 40, ("d1", "b"): 33, ("d2", "a"): 21, ("d2", "c"): 55})
    split = CellSplit(scheme=scheme, **({"n_held_out": 1} if scheme == "held_out_types" else {}))
    before = dict(zip(ids, WORDS[split.parts(ids, table)].tolist(), strict=True))
    order = np.random.default_rng(1).permutation(len(ids))
    shuffled, other = [ids[i] for i in order], table.take(order).select(["cell_type", "donor_id"])
    assert dict(zip(shuffled, WORDS[split.parts(shuffled, other)].tolist(), strict=True)) == before
    assert set(before.values()) == {"train", "validation", "test"}
    whole, again = split_rows(split, ids, table), split_rows(split, shuffled, other)
    assert whole.digest == again.digest
    assert whole.column(shuffled[:50]).to_pylist() == [before[row] for row in shuffled[:50]]


def test_another_stratum_does_not_move_the_rows_of_this_one():
    ids, table = some_cells({("d1", "a"): 40})
    more, wider = some_cells({("d1", "a"): 40, ("d9", "z"): 60})
    np.testing.assert_array_equal(CellSplit().parts(ids, table), CellSplit().parts(more, wider)[:40])


def test_seeds_draw_other_rows_and_the_same_quotas():
    ids, table = some_cells({("d1", "a"): 100, ("d2", "a"): 50})
    first, second = (CellSplit(seed=seed).parts(ids, table) for seed in (0, 1))
    assert (first != second).sum() > 20
    assert np.bincount(first).tolist() == np.bincount(second).tolist() == [105, 15, 30]
    assert digest_of(ids, first) != digest_of(ids, second)


def test_types_that_are_held_out_are_tested_and_never_trained_on():
    ids, table = some_cells({(d, t): 20 for d in ("d1", "d2", "d3") for t in "abcdef"})
    drawn = set()
    for seed in range(6):
        found = counted(CellSplit(scheme="held_out_types", n_held_out=2, seed=seed), ids, table)
        held = {kind for (_, kind), (_, _, test) in found.items() if test}
        assert len(held) == 2
        for (_, kind), counts in found.items():
            assert counts == ((0, 0, 20) if kind in held else (18, 2, 0))
        drawn |= held
    assert len(drawn) > 2
    named = counted(CellSplit(scheme="held_out_types", held_out=("b",)), ids, table)
    assert {kind for (_, kind), counts in named.items() if counts[TEST]} == {"b"}


def test_a_type_that_is_all_of_a_donor_is_not_drawn_and_refused_by_name():
    ids, table = some_cells({("d1", "a"): 20, ("d1", "b"): 20, ("d2", "a"): 20})
    for seed in range(5):
        found = counted(CellSplit(scheme="held_out_types", n_held_out=1, seed=seed), ids, table)
        assert found["d1", "b"] == (0, 0, 20)
    with pytest.raises(Refused, match=r"NO_TRAINING_ROWS.*without a .*donor_id 'd2'"):
        CellSplit(scheme="held_out_types", held_out=("a",)).parts(ids, table)
    with pytest.raises(Refused, match=r"TOO_FEW_TYPES: 2 of 2 types \(a, b\).*1 can be"):
        CellSplit(scheme="held_out_types", n_held_out=2).parts(ids, table)


def test_rows_without_a_value_are_a_stratum_of_their_own():
    ids = [str(i) for i in range(60)]
    table = pa.table({"donor_id": ["d"] * 60, "cell_type": ["a"] * 30 + [None] * 30})
    parts = CellSplit().parts(ids, table)
    assert np.bincount(parts[:30]).tolist() == np.bincount(parts[30:]).tolist() == [21, 3, 6]
    held = CellSplit(scheme="held_out_types", n_held_out=1).parts(ids, table)
    assert set(held[:30].tolist()) == {TEST}
    assert np.bincount(held[30:]).tolist() == [27, 3]


def test_a_number_of_types_that_nothing_reads_is_refused():
    with pytest.raises(ValidationError, match="n_held_out goes with scheme held_out_types, found stratified_cell"):
        CellSplit(n_held_out=2)
    with pytest.raises(ValidationError, match="held_out names 1 types, n_held_out draws 2; give one of them"):
        CellSplit(scheme="held_out_types", held_out=("a",), n_held_out=2)
    for split in (CellSplit(), CellSplit(scheme="held_out_types", held_out=("a",))):
        assert CellSplit.model_validate(split.model_dump(mode="json")) == split


def test_what_cannot_be_split_is_refused():
    ids, table = some_cells({("d1", "a"): 40})
    with pytest.raises(
        Refused, match=r"NO_COLUMN: split stratified_cell needs donor, cell_type.*Did you mean 'donor_id'"
    ):
        CellSplit(by=("donor", "cell_type")).parts(ids, table)
    with pytest.raises(Refused, match=r"NO_TYPE.*no cell_type 'B'.*There are: a"):
        CellSplit(scheme="held_out_types", held_out=("B",)).parts(ids, table)
    with pytest.raises(Refused, match="DUPLICATE_ROWS: 40 rows have 39 row ids"):
        CellSplit().parts([*ids[:-1], ids[0]], table)
    with pytest.raises(Refused, match=r"NO_ROWS.*no validation row"):
        CellSplit().parts(ids[:3], table[:3])
    with pytest.raises(ShardRefused, match="ROWS_CHANGED: row 'new'"):
        split_rows(CellSplit(), ids, table).column([ids[3], "new"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"validation": 0.5, "test": 0.5}, "leave no training rows"),
        ({"scheme": "held_out_types", "test": 0.2}, "test rows are those of the types"),
        ({"held_out": ("a",)}, "goes with scheme held_out_types"),
        ({"by": ()}, "random_cell draws without strata"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings, message):
    with pytest.raises(ValidationError, match=message):
        CellSplit(**settings)


def test_a_word_stands_for_a_scheme():
    assert CellSplit.model_validate("random_cell") == CellSplit(scheme="random_cell")
    with pytest.raises(ValidationError, match="random_cell"):
        CellSplit.model_validate("random")
