"""Pictures in webdataset shards: tar archives in which files of one base name are one row.

`0001.jpg`, `0001.cls`, `0001.txt` and `0001.json` are one row with the columns image, cls, txt and the keys of the JSON
object. An archive's headers are read once, skipping what lies between; a row is then read from its place. Names follow
the webdataset format (Breuel, webdataset.github.io, "The WebDataset Format"); no code of the library is used.
"""

import json
import re
import tarfile
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import ShardRefused
from xfm.core.schema import IMAGE
from xfm.sources.files.columns import IMAGE_SUFFIXES, Layout, Outline, Rows, find_label
from xfm.sources.paths import stamp

CLASS_NAMES = "classnames.txt"  # beside the archives or one folder above: a line for each class
JSON = "json"
_BASE = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]+)")
_STEP_ROWS = 16


class TarRow(NamedTuple):
    """One row."""

    base: str
    members: dict[str, range]  # bytes of the archive that are their contents, by extension in lower case

    def image(self) -> range | None:
        """The picture: the first member with an extension of pictures."""
        return next((place for extension, place in self.members.items() if f".{extension}" in IMAGE_SUFFIXES), None)


def outline(path: Path, name: str) -> Outline:
    """What an archive holds: the image, and columns of text; those of the JSON members are the keys of the first one.

    Raises:
        ShardRefused: NO_SUCH_FILE, DAMAGED_FILE or NO_COLUMN.
    """
    rows = _rows(*stamp(path, name), name)
    extensions = dict.fromkeys(extension for row in rows for extension in row.members)
    if all(row.image() is None for row in rows):
        there = ", ".join(extensions) or "none"
        raise ShardRefused("NO_COLUMN", f"{name}: no member is a picture. Extensions: {there}")
    texts = [each for each in extensions if f".{each}" not in IMAGE_SUFFIXES and each != JSON]
    described = next((row for row in rows if JSON in row.members), None)
    if described is not None:
        with path.open("rb") as file:
            fields, _ = _fields(_content(file, described.members[JSON], name), described.base)
        texts += [field for field in fields if field not in (*texts, IMAGE)]
    types = {IMAGE: pa.large_binary()} | dict.fromkeys(texts, pa.string())
    found = Outline(len(rows), types, {})
    label, names = find_label(found), _class_names(path)
    return found._replace(class_names={label: names}) if label is not None and names else found


def read_rows(path: Path, name: str, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
    """Some rows, whose numbers ascend, a few at a time.

    Raises:
        ShardRefused: DAMAGED_FILE.
    """
    every = _rows(*stamp(path, name), name)
    wanted = [column for column in layout.columns if column != layout.content]
    with path.open("rb") as file:
        for low in range(0, len(rows), _STEP_ROWS):
            chosen = rows[low : low + _STEP_ROWS]
            images: list[bytes | None] = []
            columns: dict[str, list[str | None]] = {column: [] for column in wanted}
            problems: dict[int, str] = {}
            for i, row in enumerate(every[n] for n in chosen):
                place = row.image()
                images.append(None if place is None else _content(file, place, name))
                values, problem = _values(file, row, wanted, name)
                for column in wanted:
                    columns[column].append(values.get(column))
                problems |= {i: problem} if problem else {}
            arrays = {column: pa.array(values, pa.string()) for column, values in columns.items()}
            yield Rows([f"{name}/{n}" for n in chosen], pa.array(images, pa.large_binary()), arrays, problems)


def _values(file: BinaryIO, row: TarRow, wanted: list[str], name: str) -> tuple[dict[str, str | None], str]:
    """The row's text columns, and "CODE: why" where one cannot be read."""
    values: dict[str, str | None] = {}
    problem = ""
    if JSON in row.members and any(column not in row.members for column in wanted):
        values, problem = _fields(_content(file, row.members[JSON], name), row.base)
    for column in wanted:
        if column in row.members:
            try:
                values[column] = _content(file, row.members[column], name).decode().strip()
            except UnicodeDecodeError as error:
                problem = f"BAD_ROW: {row.base}.{column} is not UTF-8: {error}"
    return values, problem


def _fields(content: bytes, base: str) -> tuple[dict[str, str | None], str]:
    """Values of a JSON object as text, numbers as JSON writes them, and "CODE: why" where it is none."""
    try:
        found = json.loads(content)
    except ValueError as error:
        return {}, f"BAD_ROW: {base}.json is no JSON: {error}"
    if not isinstance(found, dict):
        return {}, f"BAD_ROW: {base}.json is {type(found).__name__}, not an object"
    texts = {key: value if isinstance(value, str | None) else json.dumps(value) for key, value in found.items()}
    return texts, ""


def _content(file: BinaryIO, place: range, name: str) -> bytes:
    file.seek(place.start)
    content = file.read(len(place))
    if len(content) != len(place):
        raise ShardRefused("DAMAGED_FILE", f"{name} ends {len(place) - len(content)} bytes too early")
    return content


@lru_cache(maxsize=16)
def _rows(path: Path, size: int, modified_ns: int, name: str) -> tuple[TarRow, ...]:  # noqa: ARG001
    """The rows of an archive; members that name no extension belong to none."""
    rows: list[TarRow] = []
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                if member.issparse():  # its header states a size that its content has not
                    raise ShardRefused("DAMAGED_FILE", f"{name}: {member.name} is sparse; write it out in full")
                match = _BASE.fullmatch(member.name) if member.isreg() else None
                if match is not None:
                    base, extension = match[1], match[2].lower()
                    if not rows or rows[-1].base != base or extension in rows[-1].members:
                        rows.append(TarRow(base, {}))
                    rows[-1].members[extension] = range(member.offset_data, member.offset_data + member.size)
                archive.members = []  # type: ignore[attr-defined]  # it keeps every header otherwise
            end = archive.offset
    except (tarfile.TarError, OSError) as problem:
        raise ShardRefused("DAMAGED_FILE", f"{name} cannot be read as a tar archive: {problem}") from problem
    if end >= size:
        raise ShardRefused("DAMAGED_FILE", f"{name} has no end: it was cut off after {len(rows)} rows")
    return tuple(rows)


def _class_names(path: Path) -> tuple[str, ...]:
    for folder in (path.parent, path.parent.parent):
        if (folder / CLASS_NAMES).is_file():
            lines = (folder / CLASS_NAMES).read_text(encoding="utf-8").split("\n")
            return tuple(line.strip() for line in lines if line.strip())
    return ()
