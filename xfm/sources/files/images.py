"""Pictures with labels: folders of classes, Parquet, webdataset archives, or a data set on the Hugging Face Hub.

Pictures stay encoded: a JPEG of 64 x 64 pixels is a few kilobytes, its float32 tensor for a model of 224 x 224 pixels
600. Whoever needs pixels decodes them.
"""

import glob
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from xfm.sources.files import images_folder, images_tar, parquet
from xfm.sources.files.class_names import TABLES, ClassTable, name_classes, read_table, warn_of_duplicates
from xfm.sources.files.columns import Layout, Outline, Rows, by_name
from xfm.sources.files.found import DataFile, find_files, resolve, snapshot
from xfm.sources.files.images_rows import CAPTION_NAMES, IMAGE_SUFFIXES, bounded, encoded, image_column
from xfm.sources.files.parquet import SAVED
from xfm.sources.files.rows import RowFiles
from xfm.sources.gene_table import missing
from xfm.sources.hub_files import parse
from xfm.sources.paths import is_hub

SUFFIXES = (".parquet", ".tar")
BESIDE = (images_tar.CLASS_NAMES,)
STEP_ROWS = 16  # of Parquet that are decoded at a time


class HubImages(RowFiles):
    """Encoded pictures with labels, from files or from the Hugging Face Hub."""

    content: ClassVar[pa.Field] = pa.field(IMAGE, pa.large_binary())

    kind: Literal["hub_images"] = "hub_images"
    path: str
    """A folder of classes (CLASS/... or SPLIT/CLASS/... with .jpg, .jpeg, .png, .webp), .parquet or webdataset .tar
    files (one, a folder, a pattern), a folder that `datasets` saved (save_to_disk), or
    hf://datasets/OWNER/NAME[@REVISION][/PATTERN]. Row ids are FILE/ROW, or a picture's path in a folder of classes."""
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
        if location.endswith((*SUFFIXES, SAVED)):
            return resolve(location, self.path, BESIDE)
        if not is_hub(location):
            return images_folder.folder(Path(location), location, self.path)
        address = parse(location)
        path = snapshot(address.repo, address.revision, _patterns(address.path)) / address.path
        root = f"hf://datasets/{address.repo}@{address.revision}/{parse(self.path).path}"
        return images_folder.folder(path, location, root)

    def _digest(self, file: DataFile) -> str:
        return super()._digest(file) if file.path.is_file() else images_folder.digest(file.path)

    def _outline(self, file: DataFile) -> Outline:
        found: Outline = _layout_of(file).outline(file.path, file.name)
        return found

    def _column(self, types: Mapping[str, pa.DataType], name: str) -> str:
        return image_column(types, name, self.image_column)

    def _other_names(self, types: Mapping[str, pa.DataType], content: str) -> Mapping[str, str] | None:
        """`label` and `caption` among the obs columns mean whatever the file calls them."""
        caption = by_name([column for column in types if column != content], CAPTION_NAMES)
        return {"caption": caption} if caption else {}

    def _cut(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        yield from bounded(batches)

    def _rows(self, file: DataFile, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
        if file.path.suffix not in parquet.SUFFIXES:
            yield from _layout_of(file).read_rows(file.path, file.name, layout, rows)
            return
        for found in parquet.read_rows(file.path, file.name, layout, rows, STEP_ROWS):
            yield found._replace(content=encoded(found.content))

    def _empty(self, content: pa.Array) -> dict[int, str]:
        sizes = pc.binary_length(content).to_pylist()
        reasons = {i: "NO_IMAGE: there is no picture" for i, size in enumerate(sizes) if size is None}
        return reasons | {i: "EMPTY_IMAGE: the picture has 0 bytes" for i, size in enumerate(sizes) if size == 0}

    def _words(self, values: Sequence[Any], layout: Layout) -> tuple[list[str | None], dict[int, str]]:
        stated = () if self.label_names else layout.class_names
        return name_classes(values, stated, self.label_names, self._table())


def _layout_of(file: DataFile) -> Any:
    """The module that reads a file."""
    by_suffix = dict.fromkeys(parquet.SUFFIXES, parquet) | {".tar": images_tar}
    return by_suffix.get(file.path.suffix, images_folder)


def _patterns(folder: str) -> tuple[str, ...]:
    """Patterns of all pictures in a folder of the Hub."""
    prefix = f"{folder}/" if folder else ""
    return tuple(f"{prefix}*{each}" for suffix in IMAGE_SUFFIXES for each in (suffix, suffix.upper()))


def _digest_of(names: Any) -> str:
    return f"sha256:{sha256(repr(names).encode()).hexdigest()}"
