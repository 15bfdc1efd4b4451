"""Cells from .h5ad and .h5ad.gz files: one file, a folder, a pattern, or a data set on the Hugging Face Hub.

A plain local file is cut into shards of `shard_rows` cells and read in slices. A compressed or remote file is one
shard: it is fetched, inflated and verified as a whole before its first row leaves. A damaged file becomes a shard that
refuses itself when read, so one bad file costs that file and not the job.
"""

import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import pyarrow as pa
from pydantic import PositiveInt, ValidationInfo, field_validator

from xfm.core.config import Config
from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import Carried
from xfm.core.source import Shard, cut
from xfm.sources.cells import CheckedRows, cell_batch, cell_schema, of_genes
from xfm.sources.gene_table import encode_genes
from xfm.sources.h5ad import files
from xfm.sources.h5ad.file import H5adFile
from xfm.sources.h5ad.matrix import Matrix
from xfm.sources.paths import digest, is_hub, local_root, parse, slugs, stamp

logger = logging.getLogger(__name__)

THREADS = 8


class H5ad(Config):
    """Cells from .h5ad files."""

    kind: Literal["h5ad"] = "h5ad"
    path: str
    """A file, a folder (searched with its subfolders), a pattern such as "data/*.h5ad.gz", or
    hf://datasets/OWNER/NAME[@REVISION][/PATTERN]. Row ids are the obs names where this names a single file whose obs
    names are unique, else FILE/ROW."""
    shard_rows: PositiveInt = 4096
    """Cells in one shard of a plain local file. A compressed or remote file is one shard, whatever its size."""
    obs: Carried = ()
    """obs columns to carry along, e.g. cell_type,donor_id. Categories become strings."""
    layer: str = "auto"
    """Matrix to read: X, raw, or the name of a layer. auto: the first of layers['counts'], raw.X, X that holds
    counts; X where values are declared as log."""
    values: Literal["auto", "counts", "log"] = "auto"
    """What the matrix holds. auto: counts, and a file with anything else is refused; counts: the same, checked row by
    row where a layer is named; log: normalised values, passed on as they are."""
    gene_column: str | None = None
    """The var column that names genes ("index" for var_names). By default every column that looks like one."""
    metadata_csv: str | None = None
    """A CSV whose column file_path lists the files to read, relative to the CSV's folder (or to `path`, if the CSV
    lies elsewhere); `path` then selects among them. On the Hub: its path in the data set."""

    @field_validator("path", "metadata_csv")
    @classmethod
    def _absolute(cls, path: str | None, info: ValidationInfo) -> str | None:
        # A worker's current folder is not the driver's.
        if path is None or is_hub(path) or is_hub(info.data.get("path", "")):
            return path
        return str(Path(path).expanduser().absolute())

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the files are; `identity` says which they are."""
        return {"path", "metadata_csv"}

    @property
    def schema(self) -> pa.Schema:
        """Columns of every batch; the types of obs columns are those of the first plain local file that has them."""
        if self.obs:
            for entry in self._entries()[1]:
                if not files.is_plain(entry.location):
                    continue
                try:
                    with H5adFile(Path(entry.location), entry.name) as file:
                        columns = file.obs(self.obs, 0, 1)
                except ShardRefused:
                    continue
                return cell_schema({name: column.type for name, column in columns.items()})
        return cell_schema({})

    def shards(self) -> Sequence[Shard]:
        """Ranges of cells for plain local files, one shard for every other file.

        Raises:
            Refused: there is no file, or none of them can be read.
        """
        _, entries = self._entries()
        with ThreadPoolExecutor(THREADS) as pool:
            outlines = list(pool.map(self._outline, entries))
        words = slugs([entry.name for entry in entries])
        shards: list[Shard] = []
        for entry, outline in zip(entries, outlines, strict=True):
            if isinstance(outline, files.Outline):
                shards += cut(words[entry.name], outline.rows, self.shard_rows, entry.location)
            else:
                shards.append(Shard(f"{words[entry.name]}-000000", 0, 0, None, entry.location))
        broken = [outline for outline in outlines if isinstance(outline, ShardRefused)]
        for error in broken[:3]:
            logger.warning("file refused: %s", error)
        if len(broken) == len(entries):
            code = Counter(error.code for error in broken).most_common(1)[0][0]
            reasons = "; ".join(str(error) for error in broken[:3])
            raise Refused(code, f"none of {len(entries)} files at {self.path} can be used: {reasons}")
        for note in (note for outline in outlines if isinstance(outline, files.Outline) for note in outline.notes[:3]):
            logger.warning("%s", note)
        layers = Counter(outline.layer for outline in outlines if isinstance(outline, files.Outline))
        where = ", ".join(f"{layer} of {count:,}" for layer, count in layers.items()) or "known once read"
        logger.info(
            "%d files, %d shards, %d files refused; values from: %s", len(entries), len(shards), len(broken), where
        )
        return shards

    def read(self, shard: Shard) -> Iterator[pa.RecordBatch]:
        """Batches of at most 1,024 cells.

        Raises:
            ShardRefused: the file cannot be used, or no longer has the promised rows.
            EnvironmentProblem: no room for a temporary copy, or the Hub cannot be reached.
        """
        name = self._name(shard.path)
        with files.local_copy(shard.path, name) as path, H5adFile(path, name) as file:
            if files.is_plain(shard.path):
                rows, layer, unique, _ = files.cached_outline(*stamp(path, name), name, self.layer, self.values)
            else:
                rows, layer, unique, _ = files.survey(file, self.layer, self.values)
            start, stop = (0, rows) if shard.rows is None else (shard.start, shard.stop)
            if stop > rows:
                raise ShardRefused("ROWS_CHANGED", f"{name}: rows up to {stop} promised, {rows} found")
            matrix, is_gene = file.matrix(layer), file.is_gene(layer)
            genes = encode_genes(file.genes(layer, self.gene_column))
            by_name = unique and self._is_single()
            if not files.is_plain(shard.path):
                with file.reading():
                    matrix.check()
            counts = self.values != "log"
            for low, block in _blocks(file, matrix, start, stop, self.shard_rows):
                high = low + len(block.indptr) - 1
                block = block if is_gene is None else of_genes(block, is_gene)
                row_ids = file.row_names(low, high) if by_name else [f"{name}/{row}" for row in range(low, high)]
                obs = file.obs(self.obs, low, high)
                yield cell_batch(block, row_ids=row_ids, shard=shard.key, obs=obs, genes=genes, counts=counts)

    def genes(self) -> pa.Table | None:
        """The gene table of the first good plain local file; None where all are compressed or remote."""
        for entry in self._entries()[1]:
            outline = self._outline(entry)
            if isinstance(outline, files.Outline):
                with H5adFile(Path(entry.location), entry.name) as file:
                    return file.genes(outline.layer, self.gene_column)
        return None

    def identity(self) -> dict[str, Any]:
        """Digest of every file, and the matrix read from each plain one."""
        commit, entries = self._entries()
        with ThreadPoolExecutor(THREADS) as pool:
            digests = list(pool.map(lambda entry: entry.digest or _digest(entry), entries))
            outlines = list(pool.map(self._outline, entries))
        names = [entry.name for entry in entries]
        looks = zip(names, outlines, strict=True)
        layers = {name: look.layer for name, look in looks if isinstance(look, files.Outline)}
        # Another file beside a single one would rename the rows of both.
        row_ids = "obs names where unique" if self._is_single() else "FILE/ROW"
        found = {"files": dict(zip(names, digests, strict=True)), "layers": layers, "row_ids": row_ids}
        return found | ({"revision": commit} if commit else {})

    def _is_single(self) -> bool:
        """Whether the source is one file; a pattern on the Hub counts as many, to spare workers a listing."""
        one = files.names_one_file(self.path)
        return one if one or is_hub(self.path) else _count(self.path, self.metadata_csv) == 1

    def _entries(self) -> tuple[str, list[files.Entry]]:
        """The commit ("" for local files) and the files."""
        if is_hub(self.path):
            with TemporaryDirectory() as folder:
                return files.list_hub(self.path, self.metadata_csv, Path(folder))
        return "", files.list_local(self.path, self.metadata_csv)

    def _name(self, location: str) -> str:
        """A location relative to the root."""
        if is_hub(location):
            return parse(location).path
        return Path(location).relative_to(local_root(self.path, self.metadata_csv)).as_posix()

    def _outline(self, entry: files.Entry) -> files.Outline | ShardRefused | None:
        """What a plain local file holds or why it cannot be used; None for a file that only reading can tell."""
        if not files.is_plain(entry.location):
            return None
        path = Path(entry.location)
        try:
            if not path.is_file():
                raise ShardRefused("NO_SUCH_FILE", f"{entry.name}: listed in {self.metadata_csv}, not at {path}")
            outline = files.cached_outline(*stamp(path, entry.name), entry.name, self.layer, self.values)
            with H5adFile(path, entry.name) as file:
                file.obs(self.obs, 0, 0)
                file.genes(outline.layer, self.gene_column)
        except ShardRefused as error:
            return error
        return outline


def _blocks(file: H5adFile, matrix: Matrix, start: int, stop: int, step: int) -> Iterator[tuple[int, CheckedRows]]:
    """Rows start to stop with the number of their first; never more than `step` rows in memory."""
    for first in range(start, stop, step):
        low, batches = first, matrix.batches(first, min(first + step, stop))
        while low < min(first + step, stop):
            with file.reading():
                block = next(batches)
            yield low, block
            low += len(block.indptr) - 1


def _digest(entry: files.Entry) -> str:
    return digest(Path(entry.location)) if Path(entry.location).is_file() else "missing"


@lru_cache(maxsize=64)
def _count(path: str, metadata_csv: str | None) -> int:
    return len(files.list_local(path, metadata_csv))
