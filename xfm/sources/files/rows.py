"""What sources of rows in files have in common: which files, which shards, and how rows are dealt.

Rows keep the order of their file. An embedding does not depend on the rows around it, so a file sorted by class does no
harm there. Training reads batches in order and would see one class at a time: `shuffle` deals all rows of all files
over the shards by a hash of file and row, the same on every machine and for every seed.
"""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import PositiveInt

from xfm.core.config import Config
from xfm.core.errors import Refused, ShardRefused
from xfm.core.hub import Place
from xfm.core.random import key64, mix
from xfm.core.schema import Carried
from xfm.core.source import Shard, cut, row_batch, row_schema
from xfm.sources.cell_split import SPLIT
from xfm.sources.files.columns import Layout, Outline, Rows, find_label, is_class, is_text, named, read_labels
from xfm.sources.files.found import DataFile, find_files, resolve
from xfm.sources.gene_table import missing
from xfm.sources.paths import digest, slugs

logger = logging.getLogger(__name__)


class RowFiles(Config):
    """Rows of files, cut into ranges or dealt. A source says which files, how one is read, and how batches are cut."""

    content: ClassVar[tuple[str, pa.DataType]]  # name and type of the column of the text or the picture
    suffixes: ClassVar[tuple[str, ...]]  # of the formats that are read
    beside: ClassVar[tuple[str, ...]] = ()  # small files that a data set of the Hub may have next to its data

    path: Place
    split: str | None = None
    """Only the files of this split (train, validation, test), as their names state it."""
    label_column: str | None = None
    """Column of the label; detected by name where not given."""
    label_names: tuple[str, ...] = ()
    """Names of the classes 0, 1, ..., where the files do not state them, e.g. neg,pos."""
    obs: Carried = ()
    """Columns to carry along, e.g. label,split. Labels become names where those are known; `split` is the file's."""
    shard_rows: PositiveInt = 2048
    """Rows in one shard."""
    shuffle: bool = False
    """Deal all rows of all files over the shards, in keyed order. Every shard then reads every file."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the files are; `identity` says which they are."""
        return {"path"}

    def _find(self) -> tuple[str, list[DataFile]]:
        """The commit of a data set on the Hub, else "", and all files."""
        return find_files(self.path, self.suffixes, self.beside)

    def _resolve(self, location: str) -> DataFile:
        """A file that was listed, on this machine."""
        return resolve(location, self.path, self.beside)

    @abstractmethod
    def _outline(self, file: DataFile) -> Outline:
        """What a file holds. Raises ShardRefused."""

    @abstractmethod
    def _column(self, types: Mapping[str, pa.DataType], name: str) -> str:
        """The column of the text or the picture in a file of that name. Raises ShardRefused."""

    def _other_names(self, outline: Outline, content: str, label: str | None) -> dict[str, str | None]:  # noqa: ARG002
        """Names of obs columns that stand for another column where the file has none of that name."""
        return {}

    @abstractmethod
    def _rows(self, file: DataFile, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
        """Some rows of a file, whose numbers ascend, piece by piece."""

    @abstractmethod
    def _empty(self, content: pa.Array) -> dict[int, str]:
        """Row number to "CODE: why" where there is no text or no picture."""

    def _words(self, values: Sequence[Any], layout: Layout) -> tuple[list[str | None], dict[int, str]]:
        """Labels as words, and "CODE: why" of every row whose label is none."""
        return read_labels(values, layout.class_names)

    @abstractmethod
    def _cut(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same rows in batches of the size that this source gives."""

    def _digest(self, file: DataFile) -> str:
        return digest(file.path)

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch; the types of obs columns are those of the first good file."""
        return row_schema(dict([self.content]), next((layout.obs for _, _, layout in self._good_files()), {}))

    def shards(self) -> Sequence[Shard]:
        """Ranges of rows of each file, or of all files where they are shuffled.

        Raises:
            Refused: there is no file, or none of them can be read.
        """
        files = self._files()[1]
        rows: dict[str, int] = {}
        broken: dict[str, ShardRefused] = {}
        for file in files:
            try:
                rows[file.location] = self._good(file)[0].rows
            except ShardRefused as problem:
                broken[file.location] = problem
        errors = list(broken.values())
        for error in errors[:3]:
            logger.warning("file refused: %s", error)
        if not rows:
            code = Counter(error.code for error in errors).most_common(1)[0][0]
            reasons = "; ".join(error.message for error in errors[:3])
            raise Refused(code, f"none of {len(files)} files at {self.path} can be used: {reasons}")
        if not any(rows.values()):
            raise Refused("NO_ROWS", f"the {len(rows)} files at {self.path} hold no row")
        stems = {file.location: file.name.removesuffix(file.path.suffix) for file in files}
        words = slugs(list(stems.values()))
        shards = cut("rows", sum(rows.values()), self.shard_rows) if self.shuffle else []
        for location, n in {} if self.shuffle else rows.items():
            shards += cut(words[stems[location]], n, self.shard_rows, location)
        prefix = "file-" if self.shuffle else ""
        shards += [Shard(f"{prefix}{words[stems[place]]}-000000", 0, 0, None, place) for place in broken]
        logger.info("%d files, %d shards, %d files refused", len(files), len(shards), len(broken))
        return shards

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """Rows of one shard in batches of bounded size.

        Raises:
            ShardRefused: the file cannot be used, or no longer has the promised rows.
            EnvironmentProblem: the Hub cannot be reached and the cache has no copy.
        """
        if not shard.path:
            yield from self._dealt(shard)
            return
        file = self._resolve(shard.path)
        found, layout = self._good(file)
        if shard.rows is not None and shard.stop > found.rows:
            raise ShardRefused("ROWS_CHANGED", f"{file.name}: rows up to {shard.stop} promised, {found.rows} found")
        stop = found.rows if shard.rows is None else shard.stop
        yield from self._cut(self._read(file, layout, shard.key, np.arange(shard.start, stop)))

    def genes(self) -> pa.Table | None:
        return None

    def identity(self) -> dict[str, Any]:
        """Digest of every file, and the commit of a data set on the Hub."""
        commit, files = self._files()
        digests = {file.name: self._digest(file) for file in files}
        return {"files": digests} | ({"revision": commit} if commit else {})

    def _files(self) -> tuple[str, list[DataFile]]:
        commit, files = self._find()
        if self.split is None:
            return commit, files
        chosen = [file for file in files if file.split == self.split]
        if not chosen:
            known = sorted({file.split for file in files if file.split is not None})
            what = missing("split", self.split, known) if known else f"no file of {len(files)} names a split"
            raise Refused("NO_SPLIT", f"{self.path}: {what} (read from the files' names)")
        return commit, chosen

    def _good(self, file: DataFile) -> tuple[Outline, Layout]:
        """What a file holds, and how it is read: its label and its obs columns. Raises ShardRefused."""
        found, name = self._outline(file), file.name
        types, content = found.types, self._column(found.types, name)
        label = named(types, self.label_column, "label column", name) or find_label(found)
        others = self._other_names(found, content, label)
        origin = {new: old for new, old in others.items() if old is not None and new in self.obs and new not in types}
        kinds: dict[str, pa.DataType] = {}
        for asked in self.obs:
            column = origin.get(asked, asked)
            named({SPLIT: pa.string(), **types} if file.split else types, column, "column", name)
            as_text = column in (label, SPLIT) or is_text(types.get(column, pa.string()))
            kinds[asked] = pa.string() if as_text else types[column]
            if column == label and not is_class(types[column]):
                why = f"column {label!r} is {types[column]}; a label is a number or a word"
                raise ShardRefused("BAD_LABEL_COLUMN", f"{name}: {why}")
        names = (self.label_names or found.class_names.get(label, ())) if label is not None else ()
        inside = [column for column in (origin.get(asked, asked) for asked in self.obs) if column in types]
        return found, Layout(content, label, names, tuple(dict.fromkeys([content, *inside])), kinds, origin)

    def _good_files(self) -> Iterator[tuple[DataFile, Outline, Layout]]:
        for file in self._files()[1]:
            try:
                outline, layout = self._good(file)
            except ShardRefused:
                continue
            yield file, outline, layout

    def _dealt(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """The rows of one shard of the shuffled data."""
        good = list(self._good_files())
        numbers, rows = deal({file.name: found.rows for file, found, _ in good}, shard.start, shard.stop)
        if len(rows) != shard.rows:
            raise ShardRefused("ROWS_CHANGED", f"{shard.rows} rows promised, {len(rows)} found")
        tables, places = [], []
        for number, (file, _, layout) in enumerate(good):
            place = np.flatnonzero(numbers == number)
            if len(place):
                place = place[np.argsort(rows[place])]
                tables.append(pa.Table.from_batches(self._read(file, layout, shard.key, rows[place])))
                places.append(place)
        table = pa.concat_tables(tables, promote_options="permissive")
        yield from self._cut(table.take(np.argsort(np.concatenate(places))).combine_chunks().to_batches())

    def _read(self, file: DataFile, layout: Layout, key: str, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """Some rows of a file, whose numbers ascend; those that cannot be used carry the reason."""
        for found in self._rows(file, layout, rows):
            reasons = self._empty(found.content)
            obs: dict[str, pa.Array] = {}
            for name, kind in layout.obs.items():
                column = layout.origin.get(name, name)
                if column == SPLIT and column not in found.columns:
                    obs[name] = pa.repeat(pa.scalar(file.split, pa.string()), len(found.ids))
                elif column == layout.label:
                    words, wrong = self._words(found.columns[column].to_pylist(), layout)
                    reasons = wrong | reasons
                    obs[name] = pa.array(words, pa.string())
                else:
                    obs[name] = found.columns[column].cast(kind)
            yield row_batch(found.ids, key, {**reasons, **found.problems}, {self.content[0]: found.content}, obs)


def deal(rows: dict[str, int], start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places start to stop of all rows of all files, whose numbers are given, in the order of a hash of file and row.

    Returns:
        Two (stop - start,) arrays: the number of the file among `rows`, and the row in it.
    """
    words = [mix(np.arange(n, dtype=np.uint64) + np.uint64(key64(0, name))) for name, n in rows.items()]
    order = np.argsort(np.concatenate(words), kind="stable")[start:stop]
    counts = np.array(list(rows.values()), dtype=np.int64)
    ends = np.cumsum(counts)
    number = np.searchsorted(ends, order, side="right")
    return number, order - (ends - counts)[number]
