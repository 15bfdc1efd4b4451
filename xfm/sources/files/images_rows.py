"""Which column of a file is the picture, and batches of bounded size."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from xfm.core.errors import ShardRefused
from xfm.core.schema import IMAGE
from xfm.sources.files.columns import by_name, named

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".gif")
# Names that public data sets give these columns, the most common first.
IMAGE_NAMES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "images")
CAPTION_NAMES = ("caption", "captions", "txt", "text", "sentence", "description")

BATCH_ROWS, BATCH_BYTES = 256, 32 * 2**20


def image_column(types: Mapping[str, pa.DataType], name: str, asked: str | None) -> str:
    """The column of the pictures in a file of that name: the one asked for, else by its name, else the only one.

    Raises:
        ShardRefused: NO_COLUMN or NOT_IMAGE.
    """
    images = [column for column in types if is_image(types[column])]
    choice = f"columns of encoded pictures: {', '.join(images) or 'none'}; all columns: {', '.join(types)}"
    image = named(types, asked, "image column", name) or by_name(images, IMAGE_NAMES)
    if image is None and len(images) != 1:
        raise ShardRefused(
            "NO_COLUMN", f"{name}: which column is the picture? Name it with --source.image_column; {choice}"
        )
    if image is not None and image not in images:
        raise ShardRefused("NOT_IMAGE", f"{name}: column {image!r} is {types[image]}; {choice}")
    return image or images[0]


def is_image(kind: pa.DataType) -> bool:
    """Whether a column of this type can hold encoded pictures: bytes, or the Hub's struct<bytes, path>."""
    if pa.types.is_struct(kind):
        return kind.get_field_index("bytes") >= 0 and is_image(kind.field("bytes").type)
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def encoded(column: pa.Array) -> pa.Array:
    """Encoded pictures of a column as large_binary; null where a struct or its bytes are."""
    return (pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column).cast(pa.large_binary())


def bounded(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in batches of at most 256 rows and 32 MiB of pictures (one row where it alone is larger)."""
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


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    whole: pa.RecordBatch = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    return whole
