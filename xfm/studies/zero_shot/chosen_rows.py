"""A source seen by a zero-shot job: only the rows that are to be scored, those of no known class refused by name."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import REFUSED, spoken
from xfm.core.source import Shard, Source

SHOWN = 60  # letters of a value in a message


@dataclass(frozen=True, slots=True)
class RowChoice:
    """Which rows are read for."""

    column: str | None = None  # that states parts; None reads all rows as test rows
    # only the rows that have it, all of them test rows; None takes train, validation and test as stated
    value: str | None = None

    @classmethod
    def from_text(cls, text: str | None) -> "RowChoice":
        """COLUMN, or COLUMN=VALUE.

        Raises:
            Refused: BAD_SPLIT.
        """
        if text is None:
            return cls()
        column, equals, value = text.partition("=")
        if not column.strip() or (equals and not value.strip()):
            raise Refused("BAD_SPLIT", f"--split {text}: expected COLUMN or COLUMN=VALUE, e.g. split=test")
        return cls(column.strip(), value.strip() if equals else None)

    def in_words(self, noun: str) -> str:
        """For people."""
        if self.column is None:
            return f"all {noun} of the source"
        if self.value is None:
            return f"the {noun} whose {self.column} says test"
        return f"the {noun} whose {self.column} is {self.value}"


@dataclass(frozen=True, slots=True)
class ChosenRows:
    """A source with fewer rows."""

    source: Any  # where rows come from
    label: str  # column of the class
    known: frozenset[str] | None = None  # values that are classes; None lets any value through
    choice: RowChoice = field(default_factory=RowChoice)  # which rows
    # rows by shard, as the source promised them; None where only reading can tell
    promised: Mapping[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, source: Any, shards: Sequence[Shard], label: str, choice: RowChoice) -> "ChosenRows":
        """The chosen rows of a source whose shards are listed already."""
        return cls(source, label, None, choice, {shard.key: shard.rows for shard in shards})

    @property
    def schema(self) -> pa.Schema:
        return self.source.schema

    def shards(self) -> Sequence[Shard]:
        """Those of the source; where rows are left out, none promises how many it has."""
        return [self.without_promise(shard) for shard in self.source.shards()]

    def without_promise(self, shard: Shard) -> Shard:
        """A shard of the source as one of this one."""
        return shard if self.choice.value is None else replace(shard, rows=None)

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """Batches of the rows that are chosen; a batch may be empty.

        Raises:
            ShardRefused: the file cannot be read, or has not the rows it promised.
        """
        # A shard that promises nothing would be read to the end of its file.
        whole, rows = replace(shard, rows=self.promised.get(shard.key, shard.rows)), 0
        for batch in self.source.read(whole):
            rows += batch.num_rows
            yield self._marked(self._filtered(batch))
        if whole.rows is not None and rows != whole.rows:
            raise ShardRefused("ROWS_CHANGED", f"shard {shard.key}: {whole.rows} rows promised, {rows} read")

    def genes(self) -> pa.Table | None:
        return self.source.genes()

    def identity(self) -> dict[str, Any]:
        return dict(self.source.identity())

    def _filtered(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        if self.choice.value is None:
            return batch
        # A row that could not be read may lack the value: it stays, to be quarantined.
        kept = [
            value == self.choice.value or (value is None and why is not None)
            for value, why in zip(_words(batch, str(self.choice.column)), batch[REFUSED].to_pylist(), strict=True)
        ]
        return batch.filter(pa.array(kept, pa.bool_()))

    def _marked(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        reasons = batch[REFUSED].to_pylist()
        for row, value in enumerate(_words(batch, self.label)):
            if reasons[row] is not None:
                continue
            if value is None or not value.strip():
                reasons[row] = f"LABEL_MISSING: {self.label} has no value"
            elif self.known is not None and value not in self.known:
                shown = value if len(value) <= SHOWN else value[:SHOWN] + "..."
                reasons[row] = f"LABEL_UNKNOWN: {self.label} is {shown!r}, none of the {len(self.known)} classes"
        place = batch.schema.get_field_index(REFUSED)
        return batch.set_column(place, batch.schema.field(place), pa.array(reasons, pa.string()))


@dataclass(frozen=True, slots=True)
class LabelWork:
    """What workers share that list the values of a label: a source, and its shards by key."""

    source: ChosenRows
    shards: dict[str, Shard]


def label_values(work: LabelWork, key: str) -> pa.Table:
    """The values of one shard: value, rows.

    Raises:
        ShardRefused: the file cannot be read.
    """
    counts: dict[str, int] = {}
    for batch in work.source.read(work.shards[key]):
        good = batch.filter(pc.is_null(batch[REFUSED]))
        for value in _words(good, work.source.label):
            assert value is not None
            counts[value] = counts.get(value, 0) + 1
    values = sorted(counts)
    return pa.table({"value": pa.array(values, pa.string()), "rows": pa.array([counts[v] for v in values], pa.int64())})


def check_columns(source: Source, wanted: Sequence[str]) -> None:
    """Whether a source gives the columns of the settings. Raises Refused: NO_COLUMN."""
    given = source.schema.names
    for name in wanted:
        if name not in given:
            raise Refused("NO_COLUMN", f"the source gives no column {name!r}; it gives {', '.join(given)}")


def _words(batch: pa.RecordBatch, name: str) -> list[str | None]:
    if name not in batch.schema.names:
        raise ShardRefused("NO_COLUMN", f"there is no column {name!r}, only {spoken(batch.schema.names)}")
    return [None if value is None else str(value) for value in batch[name].to_pylist()]
