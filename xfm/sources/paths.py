"""What sources made of files share: addresses and roots, words for file names, and digests."""

import glob
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from xfm.core.errors import Refused, ShardRefused

SAMPLED_FROM_BYTES = 256 * 2**20
SAMPLE_BLOCKS, BLOCK_BYTES = 16, 2**20
_ADDRESS = re.compile(r"hf://(?:datasets/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?")
MAX_SLUG = 134  # with "-", 8 digits of a digest, "-" and 6 digits of a number: below 150


def _absolute(uri: str) -> str:
    return uri if "://" in uri else str(Path(uri).expanduser().absolute())


Uri = Annotated[str, AfterValidator(_absolute)]  # a worker's current folder is not the driver's


def is_hub(path: str) -> bool:
    """Whether a path is an address on the Hub."""
    return path.startswith("hf://")


@dataclass(frozen=True, slots=True)
class Address:
    """`hf://datasets/OWNER/NAME[@REVISION][/PATH]`; without "datasets/" it means the same."""

    repo: str
    revision: str | None
    path: str


def parse(path: str) -> Address:
    """Raises Refused: BAD_ADDRESS."""
    match = _ADDRESS.fullmatch(path)
    if match is None:
        raise Refused("BAD_ADDRESS", f"{path!r} is not hf://datasets/OWNER/NAME[@REVISION][/PATTERN]")
    return Address(match["repo"], match["revision"], (match["path"] or "").strip("/"))


def local_root(path: str, metadata_csv: str | None) -> Path:
    """The folder that names are relative to.

    It is the folder itself, a file's folder, or the part of a pattern before its first wildcard; with a metadata CSV
    the CSV's folder, where that holds `path`.
    """
    given = Path(path)
    root = given if given.is_dir() else given.parent
    if not given.exists() and glob.has_magic(path):
        root = Path(*takewhile(lambda part: not glob.has_magic(part), given.parts))
    if metadata_csv is not None:
        folder = Path(metadata_csv).resolve().parent
        if root.resolve().is_relative_to(folder):
            return folder
    return root


def files_below(folder: Path) -> Iterator[Path]:
    """All files of a folder and of the folders in it, links followed, in order; a link to nothing is among them.

    A link to a folder that it lies in itself is not followed again.

    Raises:
        Refused: UNREADABLE, a folder cannot be listed.
    """
    yield from _below(folder, frozenset())


def _below(folder: Path, above: frozenset[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise Refused("UNREADABLE", f"{folder} cannot be listed: {error.strerror}") from None
    here = status.st_dev, status.st_ino
    for entry in entries if here not in above else ():
        if entry.is_dir():
            yield from _below(Path(entry.path), above | {here})
        else:
            yield Path(entry.path)


def matching(pattern: str) -> list[Path]:
    """Files that a local pattern means, links to nothing among them."""
    return [path for path in map(Path, glob.glob(pattern, recursive=True)) if not path.is_dir()]


def stamp(path: Path, name: str) -> tuple[Path, int, int]:
    """Path, size and time of change: the key under which a file's content is remembered.

    Raises:
        ShardRefused: NO_SUCH_FILE.
    """
    if not path.is_file():
        raise ShardRefused("NO_SUCH_FILE", f"{name}: not at {path}")
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


def slugs(names: Sequence[str]) -> dict[str, str]:
    """A file-name safe, unique word for every file.

    The name without its suffix, "/" as "__". A part of the name's digest is appended where characters were replaced
    or two names give the same word.
    """
    plain = {name: re.sub(r"\.h5ad(\.gz)?$|\.gz$", "", name).replace("/", "__") for name in names}
    safe = {name: re.sub(r"[^A-Za-z0-9._-]|^[.-]", "_", word)[:MAX_SLUG] for name, word in plain.items()}
    shared = Counter(word.casefold() for word in safe.values())
    lossy = {name for name, word in safe.items() if word != plain[name] or "__" in name or shared[word.casefold()] > 1}
    ends = {name: f"-{hashlib.sha256(name.encode()).hexdigest()[:8]}" for name in lossy}
    return {name: f"{word}{ends.get(name, '')}" for name, word in safe.items()}


def digest(path: Path) -> str:
    """SHA-256 of a file; above 256 MiB of its size and 16 evenly spaced blocks of 1 MiB.

    Reading a data set of terabytes twice, once only to name it, would cost more than the job. The blocks include the
    first and the last, where HDF5 keeps its superblock and what was written latest; a changed length always shows.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if size <= SAMPLED_FROM_BYTES:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        sampled = hashlib.sha256(str(size).encode())
        for block in range(SAMPLE_BLOCKS):
            file.seek((size - BLOCK_BYTES) * block // (SAMPLE_BLOCKS - 1))
            sampled.update(file.read(BLOCK_BYTES))
    return f"sampled-sha256:{sampled.hexdigest()}"
