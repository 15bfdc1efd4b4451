"""Small pictures of one colour each, in the layouts that data sets come in."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from tests.text_examples import class_label

COLOURS = {"red": (250, 5, 5), "green": (5, 250, 5), "blue": (5, 5, 250)}
NAMES = tuple(COLOURS)


def picture(colour: str, size: tuple[int, int] = (12, 9), kind: str = "png") -> bytes:
    """An encoded picture of one colour; size is width and height."""
    sink = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(sink, kind)
    return sink.getvalue()


def write_pictures(folder: Path, n: int = 4) -> Path:
    """SPLIT/CLASS/*.png: n pictures of each colour for training, half as many for testing; sizes differ."""
    for split, count in (("train", n), ("test", n // 2)):
        for colour in NAMES:
            (folder / split / colour).mkdir(parents=True, exist_ok=True)
            for i in range(count):
                (folder / split / colour / f"{i}.png").write_bytes(picture(colour, (10 + i, 9)))
    return folder


def hub_parquet(path: Path, pictures: Sequence[bytes | None], labels: Sequence[int | None], group: int = 4) -> Path:
    """A Parquet file in the layout of the Hub: image as struct<bytes, path>, label with its class names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    images = [{"bytes": data, "path": f"{i}.png"} for i, data in enumerate(pictures)]
    table = pa.table({"image": pa.array(images, kind), "label": pa.array(labels, pa.int64())})
    pq.write_table(
        table.replace_schema_metadata({"huggingface": class_label("label", NAMES)}), path, row_group_size=group
    )
    return path


def tar(path: Path, members: Sequence[tuple[str, bytes]]) -> Path:
    """An archive of the members in their order."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path
