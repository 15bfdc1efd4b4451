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
from xfm.core.hub import Place
from xfm.core.schema import IMAGE, Carried
from xfm.core.source import Shard
from xfm.sources.files import images_folder, images_tar, parquet
from xfm.sources.files.class_names import TABLES, ClassTable, name_classes, read_table, warn_of_duplicates
from xfm.sources.files.columns import IMAGE_SUFFIXES, Layout, Outline, Rows, by_name, named
from xfm.sources.files.found import DataFile, snapshot
from xfm.sources.files.parquet import SAVED
from xfm.sources.files.rows import RowFiles
from xfm.sources.gene_table import missing
from xfm.sources.paths import is_hub, parse

STEP_ROWS = 16  # of Parquet that are decoded at a time
BATCH_ROWS, BATCH_BYTES = 256, 32 * 2**20
# Names that public data sets give these columns, the most common first.
IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "images")
CAPTION_NAMES = ("caption", "captions", "txt", "text", "sentence", "description")


class HubImages(RowFiles):
    """Encoded pictures with labels, from files or from the Hugging Face Hub."""

    content: ClassVar[tuple[str, pa.DataType]] = (IMAGE, pa.large_binary())
    suffixes: ClassVar[tuple[str, ...]] = (".parquet", ".tar")
    beside: ClassVar[tuple[str, ...]] = (images_tar.CLASS_NAMES,)

    kind: Literal["hub_images"] = "hub_images"
    path: Place
    """A folder of classes (CLASS/... or SPLIT/CLASS/... with .jpg, .jpeg, .png, .webp), .parquet or webdataset .tar
    files (one, a folder, a pattern), a folder that `datasets` saved (save_to_disk), or
    hf://datasets/OWNER/NAME[@REVISION][/PATTERN]. Row ids are FILE/ROW, or a picture's path in a folder of classes."""
    image_column: str | None = None
    """Column of the picture; detected by name and type where not given."""
    class_names: str | None = None
    """A table that turns WordNet ids and folder names into words: imagenet, tiny_imagenet, imagenette or eurosat."""
    obs: Carried = ()
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
        """As of every source of rows in files; warns where classes share a name."""
        shards, table = super().shards(), self._table()
        labelled = next((layout for _, _, layout in self._good_files() if layout.label is not None), None)
        if labelled is not None:
            keys = labelled.class_names or (table.keys if table else ())
            warn_of_duplicates(keys, name_classes(keys, keys, self.label_names, table)[0])
        return shards

    def identity(self) -> dict[str, Any]:
        """Digest of every file, of the class names beside or in xfm, and the commit of a data set on the Hub."""
        names, table = sorted({layout.class_names for _, _, layout in self._good_files()}), self._table()
        classes = {"classes": _digest_of(names)} | ({"table": _digest_of(table.names)} if table else {})
        return super().identity() | classes

    def _table(self) -> ClassTable | None:
        return None if self.class_names is None else read_table(self.class_names)

    def _find(self) -> tuple[str, list[DataFile]]:
        try:
            if is_hub(self.path) or not images_folder.is_folder_of_pictures(Path(self.path)):
                return super()._find()
        except Refused as error:
            if error.code != "NO_FILES" or not is_hub(self.path) or glob.has_magic(parse(self.path).path):
                raise
        commit, root, location = "", Path(self.path), self.path
        if is_hub(self.path):
            address = parse(self.path)
            root = snapshot(address.repo, address.revision, _patterns(address.path))
            commit, root = root.name, root / address.path
            location = f"hf://datasets/{address.repo}@{commit}/{address.path}".rstrip("/")
        found = images_folder.folders_of_pictures(root, location)
        if not found:
            suffixes = ", ".join((*self.suffixes, *IMAGE_SUFFIXES))
            raise Refused("NO_FILES", f"no {suffixes} file at {self.path}{f' (commit {commit})' if commit else ''}")
        return commit, found

    def _resolve(self, location: str) -> DataFile:
        if location.endswith((*self.suffixes, SAVED)):
            return super()._resolve(location)
        if not is_hub(location):
            return images_folder.folder(Path(location), location, self.path)
        address = parse(location)
        path = snapshot(address.repo, address.revision, _patterns(address.path)) / address.path
        root = f"hf://datasets/{address.repo}@{address.revision}/{parse(self.path).path}"
        return images_folder.folder(path, location, root)

    def _digest(self, file: DataFile) -> str:
        return super()._digest(file) if file.path.is_file() else images_folder.digest(file.path)

    def _outline(self, file: DataFile) -> Outline:
        return _reader_of(file).outline(file.path, file.name)  # type: ignore[no-any-return]

    def _column(self, types: Mapping[str, pa.DataType], name: str) -> str:
        images = [column for column in types if _is_image(types[column])]
        choice = f"columns of encoded pictures: {', '.join(images) or 'none'}; all columns: {', '.join(types)}"
        image = named(types, self.image_column, "image column", name) or by_name(images, IMAGE_NAMES)
        if image is None and len(images) != 1:
            why = "which column is the picture? Name it with --source.image_column"
            raise ShardRefused("NO_COLUMN", f"{name}: {why}; {choice}")
        if image is not None and image not in images:
            raise ShardRefused("NOT_IMAGE", f"{name}: column {image!r} is {types[image]}; {choice}")
        return image or images[0]

    def _other_names(self, outline: Outline, content: str, label: str | None) -> dict[str, str | None]:
        """`label` and `caption` among the obs columns mean whatever the file calls them."""
        return {"label": label, "caption": by_name([each for each in outline.types if each != content], CAPTION_NAMES)}

    def _cut(self, batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        """At most 256 rows and 32 MiB of pictures in a batch (one row where it alone is larger)."""
        held: list[pa.RecordBatch] = []
        rows = size = 0
        for batch in batches:
            start = 0
            for i, length in enumerate(pc.fill_null(pc.binary_length(batch[IMAGE]), 0).to_pylist()):
                if rows and (rows == BATCH_ROWS or size + length > BATCH_BYTES):
                    yield _joined([*held, batch.slice(start, i - start)])
                    held, rows, size, start = [], 0, 0, i
                rows, size = rows + 1, size + length
            held.append(batch.slice(start))
        if rows:
            yield _joined(held)

    def _rows(self, file: DataFile, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
        if file.path.suffix not in parquet.SUFFIXES:
            yield from _reader_of(file).read_rows(file.path, file.name, layout, rows)
            return
        for found in parquet.read_rows(file.path, file.name, layout, rows, STEP_ROWS):
            images = found.content
            images = pc.struct_field(images, "bytes") if pa.types.is_struct(images.type) else images
            yield found._replace(content=images.cast(pa.large_binary()))

    def _empty(self, content: pa.Array) -> dict[int, str]:
        sizes = pc.binary_length(content).to_pylist()
        reasons = {i: "NO_IMAGE: there is no picture" for i, size in enumerate(sizes) if size is None}
        return reasons | {i: "EMPTY_IMAGE: the picture has 0 bytes" for i, size in enumerate(sizes) if size == 0}

    def _words(self, values: Sequence[Any], layout: Layout) -> tuple[list[str | None], dict[int, str]]:
        stated = () if self.label_names else layout.class_names
        return name_classes(values, stated, self.label_names, self._table())


def _reader_of(file: DataFile) -> Any:
    """The module that reads a file."""
    by_suffix = dict.fromkeys(parquet.SUFFIXES, parquet) | {".tar": images_tar}
    return by_suffix.get(file.path.suffix, images_folder)


def _patterns(folder: str) -> tuple[str, ...]:
    """Patterns of all pictures in a folder of the Hub."""
    prefix = f"{folder}/" if folder else ""
    return tuple(f"{prefix}*{each}" for suffix in IMAGE_SUFFIXES for each in (suffix, suffix.upper()))


def _is_image(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold encoded pictures: bytes, or the Hub's struct<bytes, path>."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and _is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _digest_of(names: Any) -> str:
    return f"sha256:{sha256(repr(names).encode()).hexdigest()}"
