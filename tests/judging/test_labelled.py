"""Who is trained on and judged: labels, copies, and what is refused."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from tests.tasks.classification.sentiment import Memory
from xfm.core.errors import Refused
from xfm.core.schema import IMAGE, INPUT_IDS, ROW_ID, VALUES
from xfm.judging.eval_set import EvalSet, labels_of
from xfm.judging.labelled import CONTENT, SplitWithContent, codes_of, content_of, labelled_rows
from xfm.judging.split import Split, split_as_given

SPLITS = ["train"] * 6 + ["validation"] * 3 + ["test"] * 3


def table(ids, labels, splits=SPLITS, **columns):
    n = len(ids)
    rows = {ROW_ID: [f"r{i}" for i in range(n)], INPUT_IDS: pa.array(ids, pa.large_list(pa.int32())), "label": labels}
    return pa.table(rows | {"split": splits} | columns)


def found(rows, **more):
    store = Memory([SplitWithContent(0, 0.2, split="split", **more)(rows)])
    return labelled_rows(store, "label", more.get("group"), seed=0, resamples=100, noun="sentences")


def different(n=12):
    return [[1, 10 + i, 2] for i in range(n)]


LABELS = ["pos", "neg"] * 6


def test_the_content_of_a_row_is_what_the_network_sees():
    ids = pa.array([[1, 2], [1, 2], [1], [2, 1]], pa.large_list(pa.int32()))
    one = content_of(pa.table({INPUT_IDS: ids, ROW_ID: ["a", "b", "c", "d"]}))
    assert one[0] == one[1]
    assert len(set(one.tolist())) == 3
    values = pa.array([[1.0, 2.0], [1.0, 3.0], [1.0], [0.0, 0.0]], pa.large_list(pa.float32()))
    assert len(set(content_of(pa.table({INPUT_IDS: ids, VALUES: values})).tolist())) == 4
    pictures = pa.table({IMAGE: pa.array([b"\x1fa", b"\x1fa", b"b"], pa.large_binary())})
    assert len(set(content_of(pictures).tolist())) == 2


def test_a_slice_has_the_content_of_its_own_rows():
    ids = pa.array([[7, 7], [1, 2], [3]], pa.large_list(pa.int32()))
    rows = pa.table({INPUT_IDS: ids})
    assert content_of(rows.slice(1)).tolist() == content_of(rows)[1:].tolist()


def test_the_digests_are_those_of_an_evaluation_of_the_same_rows_and_split():
    """Built as `evaluate` builds them, in another order of the rows."""
    rows = table(different(), LABELS)
    labelled = found(rows)
    order = np.arange(12)[::-1]
    ids = [f"r{i}" for i in order]
    column = rows["label"].take(order)
    split = split_as_given([SPLITS[i] for i in order], ids, np.arange(12), 0, 0.2)
    other = EvalSet(np.arange(12), tuple(ids), (labels_of(column, "label", 1),), split, seed=0, resamples=100)
    assert labelled.judged.cells_digest() == other.cells_digest()
    assert labelled.judged.split_digest() == other.split_digest()
    moved = replace(other, split=Split(np.roll(split.parts, 1), split.groups))
    assert moved.split_digest() != other.split_digest()


def test_rows_of_no_known_group_are_drawn_alone_as_in_an_evaluation():
    films = ["a", "a", "b", "b", None, None, "c", None, "unknown", "d", None, None]
    labelled = found(table(different(), LABELS, film=films), group="film")
    assert len(np.unique(labelled.judged.split.groups)) == 4 + 5 + 1  # films, missing ones, "unknown"


def test_rows_are_known_in_the_order_of_the_store():
    labelled = found(table(different(), LABELS, splits=SPLITS[::-1]))
    assert labelled.judged.row_ids[:3] == ("r6", "r7", "r8")
    assert labelled.held(2).tolist() == [9, 10, 11]


def test_a_test_split_that_is_in_training_is_refused():
    ids = different()
    ids[9:] = ids[:3]
    with pytest.raises(Refused, match=r"TRAIN_IS_TEST.*each of the 3 test sentences"):
        found(table(ids, LABELS))


def test_copies_in_training_are_counted():
    ids = different()
    ids[11] = ids[0]
    (copies, few) = found(table(ids, LABELS)).warnings
    assert copies.startswith("1 test sentences have an exact copy in training")
    assert few.startswith("Only 3 test sentences")


def test_classes_without_training_or_test_rows_are_named():
    labels = ["pos", "neg"] * 5 + ["new", "pos"]
    said = " ".join(found(table(different(), labels)).warnings)
    assert "No training sentences of new" in said
    assert "No test sentences of neg" not in said


@pytest.mark.parametrize(
    ("labels", "splits", "message"),
    [
        (["pos"] * 12, SPLITS, "ONE_CLASS"),
        (["pos"] * 6 + ["neg"] * 6, SPLITS, "all training sentences are of the class 'pos'"),
        ([0.5] * 12, SPLITS, "NUMERIC_LABEL"),
        (LABELS, ["train"] * 6 + ["test"] * 6, "no validation row has a label; give a share"),
        (LABELS, ["train"] * 6 + ["validation"] * 6, "no test row has a label"),
        (LABELS, ["train"] * 11 + ["later"], "'later' is none of train, validation, test"),
    ],
)
def test_what_cannot_be_learned_is_refused(labels, splits, message):
    with pytest.raises(Refused, match=message):
        found(table(different(), labels, splits))


def test_rows_without_a_label_stay_and_are_counted():
    labelled = found(table(different(), [*LABELS[:10], None, "unknown"]))
    assert "2 sentences have no label" in " ".join(labelled.warnings)
    assert len(labelled.judged.rows) == 12
    assert len(labelled.held(2)) == 1


def test_codes_are_places_among_the_classes_whatever_the_type():
    assert codes_of(pa.chunked_array([["b", None], ["a", "x"]]), ("a", "b")).tolist() == [1, -1, 0, -1]
    assert codes_of(pa.array([2, 10, None]), ("10", "2")).tolist() == [1, 0, -1]
    assert codes_of(pa.array(["a", "b"]).dictionary_encode(), ("a", "b")).tolist() == [0, 1]
    assert codes_of(pa.array([True, False]), ("false", "true")).tolist() == [1, 0]


def test_content_is_a_column_of_every_part():
    assert CONTENT in SplitWithContent(0, 0.2)(table(different(), LABELS)).column_names
