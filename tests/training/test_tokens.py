"""How tokenised rows are split, stored and read."""

from collections import OrderedDict
from pathlib import Path
from threading import Thread

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.parts import LEFT_OUT, TEST, TRAIN, VALIDATION
from xfm.core.schema import INPUT_IDS, N_TOKENS, PART, ROW_ID
from xfm.training.tokens import SplitRows, TokenStore, token_parts


def rows(n: int = 200, **more: list) -> pa.Table:
    """Row i has 1 + i % 5 ids, all of them i."""
    ids = pa.array([[i] * (1 + i % 5) for i in range(n)], pa.large_list(pa.int32()))
    donors = [f"d{i % 20}" for i in range(n)]
    return pa.table({ROW_ID: [f"row{i}" for i in range(n)], INPUT_IDS: ids, "donor": donors, **more})


def parts_of(table: pa.Table) -> dict[str, int]:
    return dict(zip(table[ROW_ID].to_pylist(), table[PART].to_pylist(), strict=True))


def test_shares_are_kept_and_parts_lie_in_their_order():
    split = SplitRows(0, 0.3, 0.2)(rows(2000))
    numbers = split[PART].to_numpy()
    assert (np.diff(numbers) >= 0).all()
    assert np.bincount(numbers) / 2000 == pytest.approx([0.5, 0.3, 0.2], abs=0.04)
    assert split[N_TOKENS].to_pylist() == [len(ids) for ids in split[INPUT_IDS].to_pylist()]


def test_where_a_row_goes_depends_on_its_name_and_the_seed_alone():
    whole = parts_of(SplitRows(0, 0.3, 0.2)(rows()))
    some = parts_of(SplitRows(0, 0.3, 0.2)(rows().take([7, 3, 150])))
    assert some == {name: whole[name] for name in some}
    assert parts_of(SplitRows(1, 0.3, 0.2)(rows())) != whole


def test_a_group_stands_on_one_side():
    table = SplitRows(0, 0.3, 0.3, "donor")(rows())
    pairs = set(zip(table["donor"].to_pylist(), table[PART].to_pylist(), strict=True))
    assert len(pairs) == 20
    assert {part for _, part in pairs} == {TRAIN, VALIDATION, TEST}
    with pytest.raises(Refused, match="--group tissue"):
        SplitRows(0, 0.3, 0.0, "tissue")(rows())


def test_data_that_come_split_stay_so():
    words = ["train", "Test", "val", "dev", "validation", None] * 20
    table = SplitRows(0, 0.5, 0.5, split="which")(rows(120, which=words))
    found = parts_of(table)
    expected = [TRAIN, TEST, VALIDATION, VALIDATION, VALIDATION, LEFT_OUT] * 20
    assert [found[f"row{i}"] for i in range(120)] == expected
    with pytest.raises(Refused, match="'holdout' is none of train, validation, test"):
        SplitRows(0, 0.5, split="which")(rows(2, which=["train", "holdout"]))


def test_validation_rows_are_carved_from_training_rows_alone():
    table = SplitRows(0, 0.25, split="which", carve=True)(rows(400, which=["train", "test"] * 200))
    numbers = np.array([parts_of(table)[f"row{i}"] for i in range(400)])
    assert (numbers[1::2] == TEST).all()
    assert np.bincount(numbers[::2], minlength=2)[:2] / 200 == pytest.approx([0.75, 0.25], abs=0.08)


def test_rows_without_a_label_are_left_out():
    table = SplitRows(0, 0.0, labels=["kind"])(rows(4, kind=["a", None, "b", None]))
    assert parts_of(table) == {"row0": TRAIN, "row1": LEFT_OUT, "row2": TRAIN, "row3": LEFT_OUT}


def stored(folder: Path) -> TokenStore:
    (folder / "parts").mkdir()
    for key, table in (("a", rows(60)), ("b", rows(40))):
        pq.write_table(SplitRows(0, 0.3, 0.2)(table), folder / "parts" / f"{key}.parquet")
    return TokenStore(token_parts(str(folder), ["a", "b"]), cache_rows=60)


def test_what_is_stored_is_found_by_part_and_row(tmp_path: Path):
    store = stored(tmp_path)
    found: list[str] = []
    for part in (TRAIN, VALIDATION, TEST):
        numbers, places = store.parts.everything(part)
        table = store.take(numbers, places)
        assert set(table[PART].to_pylist()) == {part}
        assert table.num_rows == sum(store.parts.count(part))
        found += table[ROW_ID].to_pylist()
    assert sorted(found) == sorted([f"row{i}" for i in range(60)] + [f"row{i}" for i in range(40)])


def test_a_part_that_this_machine_does_not_see_is_no_empty_part(tmp_path: Path):
    store = stored(tmp_path)
    (tmp_path / "parts" / "b.parquet").unlink()
    with pytest.raises(EnvironmentProblem, match="share"):
        store.take(np.array([1]), np.array([0]))


def test_a_part_that_another_thread_pushes_out_is_given_all_the_same(tmp_path: Path):
    store = stored(tmp_path)
    store.cache_rows = 1  # one part at a time
    other = Thread(target=store.take, args=(np.array([1]), np.array([0])))

    class Interrupted(OrderedDict):
        """Just when a part was read, the other thread asks for another one, and is given it unless it has to wait."""

        def __setitem__(self, number: int, table: pa.Table) -> None:
            super().__setitem__(number, table)
            if number == 0:
                other.start()
                other.join(timeout=0.3)

    store._read = Interrupted()
    assert store.take(np.array([0]), np.array([0])).num_rows == 1
    other.join()
