"""Pictures with labels: folders of classes, Parquet, webdataset archives, or a data set on the Hugging Face Hub.

Pictures stay encoded: a JPEG of 64 x 64 pixels is a few kilobytes, its float32 tensor for a model of 224 x 224 pixels
600. Whoever needs pixels decodes them.
"""

import glob
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pydantic import PositiveInt, field_validator

from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import IMAGE
from xfm.core.source import Shard
from xfm.sources.files import images_folder, images_parquet, images_tar
from xfm.sources.files.class_names import TABLES, ClassTable, name_classes, read_table, warn_of_duplicates
from xfm.sources.files.columns import SPLIT, Layout, Outline
from xfm.sources.files.found import DataFile, find_files, resolve, snapshot
from xfm.sources.files.images_rows import IMAGE_SUFFIXES, Pictures, bounded, lay_out
from xfm.sources.files.rows import RowFiles
from xfm.sources.gene_table import missing
from xfm.sources.hub_files import parse
from xfm.sources.paths import is_hub

SUFFIXES = (".parquet", ".tar")
BESIDE = (images_tar.CLASS_NAMES,)


class HubImages(RowFiles):
    """Encoded pictures with labels, from files or from the Hugging Face Hub."""

    content: ClassVar[pa.Field] = pa.field(IMAGE, pa.large_binary())

    kind: Literal["hub_images"] = "hub_images"
    path: str
    """A folder of classes (CLASS/... or SPLIT/CLASS/... with .jpg, .jpeg, .png, .webp), .parquet or webdataset .tar
    files (one, a folder, a pattern), or hf://datasets/OWNER/NAME[@REVISION][/PATTERN]. Row ids are FILE/ROW, or a
    picture's path in a folder of classes."""
    image_column: str | None = None
    """Column of the picture; detected by name and type where not given."""
    class_names: str | None = None
    """A table that turns WordNet ids and folder names into words: imagenet, tiny_imagenet, imagenette or eurosat."""
    obs: tuple[str, ...] = ()
    """Columns to carry along, e.g. label,split,caption. `label` and `caption` mean whatever the files call them."""
    shard_rows: PositiveInt = 512
    """Rows in one shard."""

    @field_validator("class_names")
    @classmethod
    def _known(cls, class_names: str | None) -> str | None:
        if class_names is not None and class_names not in TABLES:
            raise ValueError(missing("table of class names", class_names, list(TABLES)))
        return class_names

    def shards(self) -> Sequence[Shard]:
        """Ranges of rows of each file, or of all files where they are shuffled; warns where classes share a name.

        Raises:
            Refused: there is no file, or none of them can be read.
        """
        shards, table = super().shards(), self._table()
        for file in self._files()[1]:
            look = self._look(file)
            if not isinstance(look, ShardRefused) and look[1].label is not None:
                keys = look[1].class_names or (table.keys if table else ())
                warn_of_duplicates(keys, name_classes(keys, keys, self.label_names, table)[0])
                break
        return shards

    def identity(self) -> dict[str, Any]:
        """Digest of every file, of the class names beside or in xfm, and the commit of a data set on the Hub."""
        names = {layout.class_names for _, layout in self._good_files()}
        table = self._table()
        tables = {"classes": _digest_of(sorted(names))} | ({"table": _digest_of(table.names)} if table else {})
        return super().identity() | tables

    def _good_files(self) -> Iterator[tuple[DataFile, Layout]]:
        for file in self._files()[1]:
            look = self._look(file)
            if not isinstance(look, ShardRefused):
                yield file, look[1]

    def _table(self) -> ClassTable | None:
        return None if self.class_names is None else read_table(self.class_names)

    def _find(self) -> tuple[str, list[DataFile]]:
        try:
            if is_hub(self.path) or not images_folder.is_folder_of_pictures(Path(self.path)):
                return find_files(self.path, SUFFIXES, BESIDE)
        except Refused as error:
            if error.code != "NO_FILES" or not is_hub(self.path) or glob.has_magic(parse(self.path).path):
                raise
        commit, root, location = self._folder()
        found = images_folder.folders_of_pictures(root, location)
        if not found:
            suffixes = ", ".join((*SUFFIXES, *IMAGE_SUFFIXES))
            raise Refused("NO_FILES", f"no {suffixes} file at {self.path}{f' (commit {commit})' if commit else ''}")
        return commit, found

    def _folder(self) -> tuple[str, Path, str]:
        """Commit, place and location of the folder of classes that the path names."""
        if not is_hub(self.path):
            return "", Path(self.path), self.path
        address = parse(self.path)
        revision = address.revision.replace("%2F", "/") if address.revision else None
        root = snapshot(address.repo, revision, _patterns(address.path))
        return root.name, root / address.path, f"hf://datasets/{address.repo}@{root.name}/{address.path}".rstrip("/")

    def _resolve(self, location: str) -> DataFile:
        if location.endswith(SUFFIXES):
            return resolve(location, self.path, BESIDE)
        if not is_hub(location):
            return images_folder.folder(Path(location), location, self.path)
        address = parse(location)
        path = snapshot(address.repo, address.revision, _patterns(address.path)) / address.path
        root = f"hf://datasets/{address.repo}@{address.revision}/{parse(self.path).path}"
        return images_folder.folder(path, location, root)

    def _digest(self, file: DataFile) -> str:
        return super()._digest(file) if file.path.is_file() else images_folder.digest(file.path)

    def _good(self, file: DataFile) -> tuple[Outline, Layout]:
        found = _layout_of(file).outline(file.path, file.name)
        return found, lay_out(
            found, file.name, split=file.split, image_column=self.image_column, label_column=self.label_column,
            label_names=self.label_names, obs=self.obs,
        )  # fmt: skip

    def _range(self, file: DataFile, layout: Layout, key: str, start: int, stop: int) -> Iterator[pa.RecordBatch]:
        yield from bounded(self._read(file, layout, key, np.arange(start, stop)))

    def _picked(self, file: DataFile, layout: Layout, key: str, rows: NDArray[np.int64]) -> pa.Table:
        order = np.argsort(rows)
        return pa.Table.from_batches(self._read(file, layout, key, rows[order])).take(np.argsort(order))

    def _cut(self, table: pa.Table) -> Iterator[pa.RecordBatch]:
        yield from bounded(table.to_batches())

    def _read(self, file: DataFile, layout: Layout, key: str, rows: NDArray[np.int64]) -> Iterator[pa.RecordBatch]:
        for pictures in _layout_of(file).read_rows(file.path, file.name, layout, rows):
            yield self._batch(pictures, file, layout, key)

    def _batch(self, pictures: Pictures, file: DataFile, layout: Layout, shard: str) -> pa.RecordBatch:
        """Rows as they leave the source; those without a picture or with a label out of range carry the reason."""
        n = len(pictures.ids)
        sizes = pc.binary_length(pictures.images).to_pylist()
        reasons = {i: "NO_IMAGE: there is no picture" for i, size in enumerate(sizes) if size is None}
        reasons |= {i: "EMPTY_IMAGE: the picture has 0 bytes" for i, size in enumerate(sizes) if size == 0}
        obs: list[pa.Array] = []
        for name, kind in layout.obs.items():
            column = layout.origin.get(name, name)
            if column == SPLIT and column not in pictures.columns:
                obs.append(pa.repeat(pa.scalar(file.split, pa.string()), n))
            elif column == layout.label:
                stated = () if self.label_names else layout.class_names
                values = pictures.columns[column].to_pylist()
                words, wrong = name_classes(values, stated, self.label_names, self._table())
                reasons = wrong | reasons
                obs.append(pa.array(words, pa.string()))
            else:
                obs.append(pictures.columns[column].cast(kind))
        reasons |= pictures.problems
        fixed = [pictures.ids, [shard] * n, [reasons.get(i) for i in range(n)]]
        arrays = [pa.array(values, pa.string()) for values in fixed]
        return pa.RecordBatch.from_arrays([*arrays, pictures.images, *obs], schema=self._schema(layout))


def _layout_of(file: DataFile) -> Any:
    """The module that reads a file."""
    by_suffix = {".parquet": images_parquet, ".tar": images_tar}
    return by_suffix.get(file.path.suffix, images_folder)


def _patterns(folder: str) -> tuple[str, ...]:
    """Patterns of all pictures in a folder of the Hub."""
    prefix = f"{folder}/" if folder else ""
    return tuple(f"{prefix}*{each}" for suffix in IMAGE_SUFFIXES for each in (suffix, suffix.upper()))


def _digest_of(names: Any) -> str:
    return f"sha256:{sha256(repr(names).encode()).hexdigest()}"
