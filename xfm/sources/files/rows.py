"""What sources of rows in files have in common: which files, which shards, and how rows are dealt.

Rows keep the order of their file. An embedding does not depend on the rows around it, so a file sorted by class does no
harm there. Training reads batches in order and would see one class at a time: `shuffle` deals all rows of all files
over the shards by a hash of file and row, the same on every machine and for every seed.
"""

import logging
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import PositiveInt, field_validator

from xfm.core.config import Config
from xfm.core.errors import Refused, ShardRefused
from xfm.core.random import key64, mix
from xfm.core.schema import REFUSED, RESERVED, ROW_ID, SHARD
from xfm.core.source import Shard
from xfm.sources.files.columns import SPLIT, Layout, Outline, Rows, lay_out_rows
from xfm.sources.files.found import DataFile
from xfm.sources.gene_table import missing
from xfm.sources.paths import digest, is_hub, slugs

logger = logging.getLogger(__name__)


class RowFiles(Config):
    """Rows of files, cut into ranges or dealt. A source says which files, how one is read, and how batches are cut."""

    content: ClassVar[pa.Field]
    """Column of the text or the picture."""

    path: str
    split: str | None = None
    """Only the files of this split (train, validation, test), as their names state it."""
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

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the files are; `identity` says which they are."""
        return {"path"}

    @abstractmethod
    def _find(self) -> tuple[str, list[DataFile]]:
        """The commit of a data set on the Hub, else "", and all files."""

    @abstractmethod
    def _resolve(self, location: str) -> DataFile:
        """A file that was listed, on this machine."""

    @abstractmethod
    def _outline(self, file: DataFile) -> Outline:
        """What a file holds. Raises ShardRefused."""

    @abstractmethod
    def _column(self, types: Mapping[str, pa.DataType], name: str) -> str:
        """The column of the text or the picture in a file of that name. Raises ShardRefused."""

    def _other_names(self, types: Mapping[str, pa.DataType], content: str) -> Mapping[str, str] | None:  # noqa: ARG002
        """As for `lay_out_rows`."""
        return None

    @abstractmethod
    def _rows(self, file: DataFile, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
        """Some rows of a file, whose numbers ascend, piece by piece."""

    @abstractmethod
    def _empty(self, content: pa.Array) -> dict[int, str]:
        """Row number to "CODE: why" where there is no text or no picture."""

    @abstractmethod
    def _words(self, values: Sequence[Any], layout: Layout) -> tuple[list[str | None], dict[int, str]]:
        """Labels as words, and "CODE: why" of every row whose label is none."""

    @abstractmethod
    def _cut(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """The same rows in batches of the size that this source gives."""

    def _digest(self, file: DataFile) -> str:
        return digest(file.path)

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch; the types of obs columns are those of the first good file."""
        for file in self._files()[1]:
            found = self._look(file)
            if not isinstance(found, ShardRefused):
                return self._schema(found[1])
        return self._schema(None)

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
        """What a file holds and how it is read. Raises ShardRefused."""
        found = self._outline(file)
        content = self._column(found.types, file.name)
        return found, lay_out_rows(
            found, file.name, content, split=file.split, label_column=self.label_column, label_names=self.label_names,
            obs=self.obs, other_names=self._other_names(found.types, content),
        )  # fmt: skip

    def _look(self, file: DataFile) -> tuple[Outline, Layout] | ShardRefused:
        try:
            return self._good(file)
        except ShardRefused as error:
            return error

    def _ranges(self, word: str, rows: int, location: str) -> list[Shard]:
        starts = range(0, rows, self.shard_rows)
        ends = [min(start + self.shard_rows, rows) for start in starts]
        pairs = enumerate(zip(starts, ends, strict=True))
        return [Shard(f"{word}-{i:06d}", start, end, end - start, location) for i, (start, end) in pairs]

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
            if len(place):
                place = place[np.argsort(rows[place])]
                tables.append(pa.Table.from_batches(self._read(file, layout, shard.key, rows[place])))
                places.append(place)
        table = pa.concat_tables(tables, promote_options="permissive")
        yield from self._cut(table.take(np.argsort(np.concatenate(places))).combine_chunks().to_batches())

    def _read(self, file: DataFile, layout: Layout, key: str, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        """Some rows of a file, whose numbers ascend; those that cannot be used carry the reason."""
        for found in self._rows(file, layout, rows):
            n, reasons = len(found.ids), self._empty(found.content)
            obs: list[pa.Array] = []
            for name, kind in layout.obs.items():
                column = layout.origin.get(name, name)
                if column == SPLIT and column not in found.columns:
                    obs.append(pa.repeat(pa.scalar(file.split, pa.string()), n))
                elif column == layout.label:
                    words, wrong = self._words(found.columns[column].to_pylist(), layout)
                    reasons = wrong | reasons
                    obs.append(pa.array(words, pa.string()))
                else:
                    obs.append(found.columns[column].cast(kind))
            reasons |= found.problems
            fixed = [found.ids, [key] * n, [reasons.get(i) for i in range(n)]]
            arrays = [pa.array(values, pa.string()) for values in fixed]
            yield pa.RecordBatch.from_arrays([*arrays, found.content, *obs], schema=self._schema(layout))

    def _schema(self, layout: Layout | None) -> pa.Schema:
        fixed = [pa.field(name, pa.string()) for name in (ROW_ID, SHARD, REFUSED)]
        obs = layout.obs if layout else {}
        return pa.schema([*fixed, self.content, *(pa.field(name, kind) for name, kind in obs.items())])


def deal(rows: dict[str, int], start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Places start to stop of all rows of all files, in the order of a hash of file and row.

    Args:
        rows: number of rows by file name.
        start: the first place.
        stop: one past the last.

    Returns:
        Two (stop - start,) arrays: the number of the file among `rows`, and the row in it.
    """
    words = [mix(np.arange(n, dtype=np.uint64) + np.uint64(key64(0, name))) for name, n in rows.items()]
    counts = np.array(list(rows.values()), dtype=np.int64)
    order = np.argsort(np.concatenate(words), kind="stable")[start:stop]
    ends = np.cumsum(counts)
    number = np.searchsorted(ends, order, side="right")
    return number, order - (ends - counts)[number]
