"""Which .h5ad files a path means, what they are called in shard keys, and their digests."""

import csv
import glob
import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from xfm.core.errors import Refused

SUFFIXES = (".h5ad", ".h5ad.gz")
SAMPLED_FROM_BYTES = 256 * 2**20
SAMPLE_BLOCKS, BLOCK_BYTES = 16, 2**20
MAX_SLUG = 134  # with "-", 8 digits of a digest, "-" and 6 digits of a number: below 150


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source.

    Attributes:
        name: its path relative to the root, with forward slashes; stands for it in row ids and messages.
        location: where it is: a local path or an address on the Hub with its commit.
        digest: what the Hub states about its content, "" for a local file.
    """

    name: str
    location: str
    digest: str = ""


def is_hub(path: str) -> bool:
    """Whether a path is an address on the Hub."""
    return path.startswith("hf://")


def names_one_file(path: str) -> bool:
    """Whether a path names one file, rather than a folder or a pattern."""
    if is_hub(path):
        return path.endswith(SUFFIXES) and not glob.has_magic(path)
    return Path(path).is_file()


def local_root(path: str, metadata_csv: str | None) -> Path:
    """The folder that names are relative to.

    It is the folder itself, a file's folder, or the part of a pattern before its first wildcard; with a metadata CSV
    the CSV's folder, where that holds `path`.
    """
    given = Path(path)
    if given.is_dir():
        root = given
    elif given.exists() or not glob.has_magic(path):
        root = given.parent
    else:
        parts = given.parts
        first = next(i for i, part in enumerate(parts) if glob.has_magic(part))
        root = Path(*parts[:first])
    if metadata_csv is not None:
        folder = Path(metadata_csv).resolve().parent
        if root.resolve().is_relative_to(folder):
            return folder
    return root


def list_local(path: str, metadata_csv: str | None) -> list[Entry]:
    """The files of a local path, sorted by name.

    Raises:
        Refused: NO_FILES, or a CSV that is none or points outside the root.
    """
    root = local_root(path, metadata_csv)
    given = Path(path)
    if metadata_csv is not None:
        listed = read_file_paths(Path(metadata_csv).read_text(encoding="utf-8-sig"), metadata_csv)
        pattern = str(given.absolute())
        names = [name for name in listed if _selected(str(root.absolute() / name), pattern)]
    else:
        if given.is_dir():
            found = [file for file in given.rglob("*") if file.name.endswith(SUFFIXES)]
        elif given.exists():
            found = [given]
        else:
            found = [Path(file) for file in glob.glob(path, recursive=True) if file.endswith(SUFFIXES)]
        names = [file.relative_to(root).as_posix() for file in found if file.is_file()]
    if not names:
        besides = f", listed in {metadata_csv}" if metadata_csv else ""
        raise Refused("NO_FILES", f"no {' or '.join(SUFFIXES)} file at {path}{besides}")
    return [Entry(name, str(root / name)) for name in sorted(names)]


def _selected(file: str, pattern: str) -> bool:
    """Whether a file is the path, lies below it, or matches it as a pattern ("*" matches "/" as well)."""
    return file == pattern or file.startswith(pattern.rstrip("/") + "/") or fnmatchcase(file, pattern)


def select(names: Sequence[str], pattern: str) -> list[str]:
    """Those of some relative names that a pattern, a folder or a file means; all where it is empty."""
    return sorted(n for n in names if n.endswith(SUFFIXES) and (not pattern or _selected(n, pattern)))


def read_file_paths(text: str, name: str) -> list[str]:
    """Column `file_path` of a metadata CSV.

    Raises:
        Refused: BAD_METADATA: no such column, or an entry that leaves the root.
    """
    rows = csv.DictReader(text.splitlines())
    if "file_path" not in (rows.fieldnames or []):
        raise Refused("BAD_METADATA", f"{name}: no column 'file_path'. There are: {', '.join(rows.fieldnames or [])}")
    paths = []
    for row in rows:
        path = PurePosixPath((row["file_path"] or "").strip())
        if path.is_absolute() or ".." in path.parts or "\\" in str(path) or str(path) == ".":
            raise Refused("BAD_METADATA", f"{name}: file_path {row['file_path']!r} is not a path below the root")
        paths.append(str(path))
    return sorted(set(paths))


def slugs(names: Sequence[str]) -> dict[str, str]:
    """A file-name safe, unique word for every file.

    The name without its suffix, "/" as "__". A part of the name's digest is appended where characters were replaced
    or two names give the same word.
    """
    plain = {name: re.sub(r"\.h5ad(\.gz)?$|\.gz$", "", name).replace("/", "__") for name in names}
    safe = {name: re.sub(r"[^A-Za-z0-9._-]|^[.-]", "_", word)[:MAX_SLUG] for name, word in plain.items()}
    shared = Counter(word.casefold() for word in safe.values())
    result = {}
    for name, word in safe.items():
        lossy = word != plain[name] or "__" in name or shared[word.casefold()] > 1
        result[name] = f"{word}-{hashlib.sha256(name.encode()).hexdigest()[:8]}" if lossy else word
    return result


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
