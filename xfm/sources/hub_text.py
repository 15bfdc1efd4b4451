"""Sentences from Parquet, JSON lines or CSV files: a file, a folder, a pattern, or a data set on the Hugging Face Hub.

Rows keep the order of their file. An embedding does not depend on the rows around it, so a file sorted by class does no
harm there. Training reads batches in order and would see one class at a time: `shuffle` deals all rows of all files
over the shards by a hash of file and row, the same on every machine and for every seed.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import PositiveInt, field_validator

from xfm.core.config import Config
from xfm.core.errors import Refused, ShardRefused
from xfm.core.random import key64, mix
from xfm.core.schema import REFUSED, RESERVED, ROW_ID, SHARD, TEXT
from xfm.core.source import Shard
from xfm.sources.gene_table import missing
from xfm.sources.hub_text_columns import SPLIT, Layout, lay_out, read_labels
from xfm.sources.hub_text_files import TextFile, find_files, resolve
from xfm.sources.hub_text_table import Outline, outline, read_rows
from xfm.sources.paths import digest, is_hub, slugs

logger = logging.getLogger(__name__)

BATCH_ROWS = 1024


class HubText(Config):
    """Sentences with labels, from files or from the Hugging Face Hub."""

    kind: Literal["hub_text"] = "hub_text"
    path: str
    """A .parquet, .jsonl or .csv file, a folder of them (train.parquet, test.parquet, ...), a pattern, or
    hf://datasets/OWNER/NAME[@REVISION][/PATTERN]. Row ids are FILE/ROW."""
    split: str | None = None
    """Only the files of this split (train, validation, test), as their names state it."""
    text_column: str | None = None
    """Column of the text; detected by name and type where not given."""
    label_column: str | None = None
    """Column of the label; detected by name where not given."""
    label_names: tuple[str, ...] = ()
    """Names of the classes 0, 1, ..., where the files do not state them, e.g. neg,pos."""
    obs: tuple[str, ...] = ()
    """Columns to carry along, e.g. label,split. Labels become names where those are known; `split` is the file's."""
    shard_rows: PositiveInt = 2048
    """Rows in one shard."""
    shuffle: bool = False
    """Deal all rows of all files over the shards, in keyed order. Every shard then reads every file."""
    encoding: str = "utf-8"
    """Of .jsonl and .csv files, e.g. cp1252."""

    @field_validator("path")
    @classmethod
    def _absolute(cls, path: str) -> str:
        # A worker's current folder is not the driver's.
        return path if is_hub(path) else str(Path(path).expanduser().absolute())

    @field_validator("obs")
    @classmethod
    def _not_ours(cls, obs: tuple[str, ...]) -> tuple[str, ...]:
        if taken := [name for name in obs if name in RESERVED]:
            raise ValueError(f"{taken[0]!r} is a name that xfm uses itself; rename that column of the files")
        return obs

    @field_validator("encoding")
    @classmethod
    def _known(cls, encoding: str) -> str:
        try:
            "".encode(encoding)
        except LookupError as problem:
            raise ValueError(f"{problem}; e.g. utf-8, cp1252, latin-1") from None
        return encoding

    @classmethod
    def neutral_fields(cls) -> set[str]:
        """Where the files are; `identity` says which they are."""
        return {"path"}

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch; the types of obs columns are those of the first good file."""
        for file in self._files()[1]:
            found = self._look(file)
            if not isinstance(found, ShardRefused):
                return _schema(found[1])
        return _schema(None)

    def shards(self) -> Sequence[Shard]:
        """Ranges of rows of each file, or of all files where they are shuffled.

        Raises:
            Refused: there is no file, or none of them can be read.
        """
        files = self._files()[1]
        looks = [(file, self._look(file)) for file in files]
        good = [(file, look[0]) for file, look in looks if not isinstance(look, ShardRefused)]
        broken = [(file, look) for file, look in looks if isinstance(look, ShardRefused)]
        for _, error in broken[:3]:
            logger.warning("file refused: %s", error)
        if not good:
            code = Counter(error.code for _, error in broken).most_common(1)[0][0]
            reasons = "; ".join(error.message for _, error in broken[:3])
            raise Refused(code, f"none of {len(files)} files at {self.path} can be used: {reasons}")
        if not any(found.rows for _, found in good):
            raise Refused("NO_ROWS", f"the {len(good)} files at {self.path} hold no row")
        stems = {file.name: file.name.removesuffix(file.path.suffix) for file in files}
        words = slugs(list(stems.values()))
        shards: list[Shard] = []
        if self.shuffle:
            shards += self._ranges("rows", sum(found.rows for _, found in good), "")
        prefix = "file-" if self.shuffle else ""
        for file, found in [] if self.shuffle else good:
            shards += self._ranges(words[stems[file.name]], found.rows, file.location)
        for file, _ in broken:
            shards.append(Shard(f"{prefix}{words[stems[file.name]]}-000000", 0, 0, None, file.location))
        logger.info("%d files, %d shards, %d files refused", len(files), len(shards), len(broken))
        return shards

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """Batches of at most 1,024 rows.

        Raises:
            ShardRefused: the file cannot be used, or no longer has the promised rows.
            EnvironmentProblem: the Hub cannot be reached and the cache has no copy.
        """
        if not shard.path:
            yield from self._dealt(shard)
            return
        file = resolve(shard.path, self.path)
        found, layout = self._good(file)
        if shard.rows is not None and shard.stop > found.rows:
            raise ShardRefused("ROWS_CHANGED", f"{file.name}: rows up to {shard.stop} promised, {found.rows} found")
        stop = found.rows if shard.rows is None else shard.stop
        for batch in self._range(file, layout, shard, shard.start, stop):
            for low in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(low, BATCH_ROWS)

    def genes(self) -> pa.Table | None:
        """None: texts have no genes."""
        return None

    def identity(self) -> dict[str, Any]:
        """Digest of every file, and the commit of a data set on the Hub."""
        commit, files = self._files()
        digests = {file.name: digest(file.path) for file in files}
        return {"files": digests} | ({"revision": commit} if commit else {})

    def _files(self) -> tuple[str, list[TextFile]]:
        commit, files = find_files(self.path)
        if self.split is None:
            return commit, files
        chosen = [file for file in files if file.split == self.split]
        if not chosen:
            known = sorted({file.split for file in files if file.split is not None})
            what = missing("split", self.split, known) if known else f"no file of {len(files)} names a split"
            raise Refused("NO_SPLIT", f"{self.path}: {what} (read from the files' names)")
        return commit, chosen

    def _good(self, file: TextFile) -> tuple[Outline, Layout]:
        """What a file holds and how it is read. Raises ShardRefused."""
        found = outline(file.path, file.name, self.encoding)
        return found, lay_out(
            found, file.name, split=file.split, text_column=self.text_column, label_column=self.label_column,
            label_names=self.label_names, obs=self.obs,
        )  # fmt: skip

    def _look(self, file: TextFile) -> tuple[Outline, Layout] | ShardRefused:
        try:
            return self._good(file)
        except ShardRefused as error:
            return error

    def _ranges(self, word: str, rows: int, location: str) -> list[Shard]:
        starts = range(0, rows, self.shard_rows)
        ends = [min(start + self.shard_rows, rows) for start in starts]
        pairs = enumerate(zip(starts, ends, strict=True))
        return [Shard(f"{word}-{i:06d}", start, end, end - start, location) for i, (start, end) in pairs]

    def _range(self, file: TextFile, layout: Layout, shard: Shard, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        for piece in read_rows(file.path, file.name, self.encoding, layout.columns, start, stop):
            yield _batch(piece.table, piece.problems, piece.start, file, layout, shard.key)

    def _dealt(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """The rows of one shard of the shuffled data."""
        looks = [(file, self._look(file)) for file in self._files()[1]]
        good = [(file, *look) for file, look in looks if not isinstance(look, ShardRefused)]
        numbers, rows = deal({file.name: found.rows for file, found, _ in good}, shard.start, shard.stop)
        if len(rows) != shard.rows:
            raise ShardRefused("ROWS_CHANGED", f"{shard.rows} rows promised, {len(rows)} found")
        tables, places = [], []
        for number, (file, _, layout) in enumerate(good):
            place = np.flatnonzero(numbers == number)
            wanted = rows[place]
            if len(wanted) == 0:
                continue
            low = int(wanted.min())
            batches = list(self._range(file, layout, shard, low, int(wanted.max()) + 1))
            tables.append(pa.Table.from_batches(batches).take(wanted - low))
            places.append(place)
        table = pa.concat_tables(tables, promote_options="permissive")
        yield from table.take(np.argsort(np.concatenate(places))).combine_chunks().to_batches(BATCH_ROWS)


def deal(rows: dict[str, int], start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places start to stop of all rows of all files, in the order of a hash of file and row.

    Args:
        rows: number of rows by file name.

    Returns:
        Two (stop - start,) arrays: the number of the file among `rows`, and the row in it.
    """
    words = [mix(np.arange(n, dtype=np.uint64) + np.uint64(key64(0, name))) for name, n in rows.items()]
    counts = np.array(list(rows.values()), dtype=np.int64)
    order = np.argsort(np.concatenate(words), kind="stable")[start:stop]
    ends = np.cumsum(counts)
    number = np.searchsorted(ends, order, side="right")
    return number, order - (ends - counts)[number]


def _schema(layout: Layout | None) -> pa.Schema:
    fixed = [pa.field(name, pa.string()) for name in (ROW_ID, SHARD, REFUSED, TEXT)]
    return pa.schema(fixed + [pa.field(name, kind) for name, kind in (layout.obs if layout else {}).items()])


def _batch(table: pa.Table, problems: Any, start: int, file: TextFile, layout: Layout, shard: str) -> pa.RecordBatch:
    """Rows as they leave the source; those without a text or with a label out of range carry the reason."""
    n = table.num_rows
    texts = table[layout.text].cast(pa.string()).to_pylist()
    reasons: dict[int, str] = {
        row: "EMPTY_TEXT: there is no text to read" for row, text in enumerate(texts) if not (text and text.strip())
    }
    obs: dict[str, pa.Array] = {}
    for name, kind in layout.obs.items():
        if name == SPLIT and name not in table.column_names:
            obs[name] = pa.repeat(pa.scalar(file.split, pa.string()), n)
        elif name == layout.label:
            words, wrong = read_labels(table[name].to_pylist(), layout.class_names)
            reasons = wrong | reasons
            obs[name] = pa.array(words, pa.string())
        else:
            obs[name] = table[name].cast(kind).combine_chunks()
    reasons |= problems
    arrays = [
        pa.array([f"{file.name}/{row}" for row in range(start, start + n)], pa.string()),
        pa.repeat(pa.scalar(shard, pa.string()), n),
        pa.array([reasons.get(row) for row in range(n)], pa.string()),
        pa.array(texts, pa.string()),
        *obs.values(),
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=_schema(layout))
