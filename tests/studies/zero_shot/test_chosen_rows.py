"""Which rows a zero-shot job scores, and which it refuses by name."""

from dataclasses import dataclass, replace

import pyarrow as pa
import pytest

from xfm.core import schema
from xfm.core.errors import Refused, ShardRefused
from xfm.core.source import Shard
from xfm.studies.zero_shot.chosen_rows import ChosenRows, LabelWork, RowChoice, check_columns, label_values

LABELS = ["cat", "dog", None, "bird", " ", "cat"]
SPLITS = ["train", "test", "test", "test", "test", None]
REFUSED = [None, None, None, None, None, "BAD_IMAGE: torn"]


@dataclass
class Given:
    """Six rows in one shard."""

    @property
    def schema(self):
        return self._all().schema

    def shards(self):
        return [Shard("first", 0, 4, 4), Shard("last", 4, 6, 2)]

    def read(self, shard):
        """As sources do: to the end of the file where a shard promises nothing."""
        batch = self._all()
        yield batch if shard.rows is None else batch.slice(shard.start, shard.rows)

    def _all(self):
        return pa.record_batch(
            {"row_id": [f"r{i}" for i in range(6)], schema.REFUSED: pa.array(REFUSED), "label": LABELS, "part": SPLITS}
        )


def chosen(text):
    return ChosenRows.of(Given(), Given().shards(), "label", RowChoice.from_text(text))


def reasons(source):
    table = pa.Table.from_batches([batch for shard in source.shards() for batch in source.read(shard)])
    return dict(zip(table["row_id"].to_pylist(), table[schema.REFUSED].to_pylist(), strict=True))


def test_a_row_of_no_known_class_is_named_and_stays():
    found = reasons(ChosenRows(Given(), "label", frozenset({"cat", "dog"})))
    assert list(found) == [f"r{i}" for i in range(6)]
    assert found["r0"] is None
    assert found["r1"] is None
    assert found["r2"].startswith("LABEL_MISSING: ")
    assert found["r3"] == "LABEL_UNKNOWN: label is 'bird', none of the 2 classes"
    assert found["r4"].startswith("LABEL_MISSING: ")
    assert found["r5"] == "BAD_IMAGE: torn"  # the first reason stands


def test_only_rows_of_the_part_are_read_but_a_broken_one_is_not_lost():
    source = replace(chosen("part=test"), known=frozenset({"dog", "bird"}))
    table = pa.Table.from_batches([batch for shard in source.shards() for batch in source.read(shard)])
    assert table.num_rows == 5  # no row twice
    found = reasons(source)
    assert list(found) == ["r1", "r2", "r3", "r4", "r5"]
    assert [row for row, why in found.items() if why is None] == ["r1", "r3"]
    assert [shard.rows for shard in source.shards()] == [None, None]
    assert [shard.rows for shard in ChosenRows(Given(), "label").shards()] == [4, 2]


def test_a_source_that_gives_fewer_rows_than_promised_is_found_out():
    source = replace(chosen("part=test"), promised={"first": 9, "last": 2})
    with pytest.raises(ShardRefused, match="9 rows promised, 6 read"):
        list(source.read(source.shards()[0]))


def test_values_are_counted_where_rows_are_good():
    source = chosen("part=test")
    work = LabelWork(source, {shard.key: shard for shard in source.shards()})
    assert label_values(work, "first").to_pydict() == {"value": ["bird", "dog"], "rows": [1, 1]}
    assert label_values(work, "last").num_rows == 0


@pytest.mark.parametrize("text", ["", "=test", "part="])
def test_half_a_choice_is_refused(text):
    with pytest.raises(Refused, match="BAD_SPLIT"):
        RowChoice.from_text(text)


def test_a_choice_is_said_in_words():
    assert RowChoice.from_text(None).in_words("images") == "all images of the source"
    assert RowChoice.from_text("split=test").in_words("images") == "the images whose split is test"
    assert RowChoice.from_text("split").in_words("images") == "the images whose split says test"


def test_a_missing_column_is_refused_with_those_that_are_there():
    with pytest.raises(Refused, match=r"NO_COLUMN.*'species'.*label"):
        check_columns(Given(), ["label", "species"])
