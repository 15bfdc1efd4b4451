"""Which .h5ad files a path means."""

import csv
import glob
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from xfm.core.errors import Refused
from xfm.sources.paths import is_hub, local_root

SUFFIXES = (".h5ad", ".h5ad.gz")


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of a source."""

    name: str  # its path relative to the root, with forward slashes; stands for it in row ids and messages
    location: str  # where it is: a local path or an address on the Hub with its commit
    digest: str = ""  # what the Hub states about its content, "" for a local file


def names_one_file(path: str) -> bool:
    """Whether a path names one file, rather than a folder or a pattern."""
    return path.endswith(SUFFIXES) and not glob.has_magic(path) if is_hub(path) else Path(path).is_file()


def list_local(path: str, metadata_csv: str | None) -> list[Entry]:
    """The files of a local path, sorted by name.

    Raises:
        Refused: NO_FILES, or a CSV that is none or points outside the root.
    """
    root, given = local_root(path, metadata_csv), Path(path)
    if metadata_csv is not None:
        listed = read_file_paths(Path(metadata_csv).read_text(encoding="utf-8-sig"), metadata_csv)
        names = [name for name in listed if _selected(str(root.absolute() / name), str(given.absolute()))]
    elif given.is_file():
        names = [given.relative_to(root).as_posix()]
    else:
        found = given.rglob("*") if given.is_dir() else map(Path, glob.glob(path, recursive=True))
        names = [file.relative_to(root).as_posix() for file in found if file.name.endswith(SUFFIXES) and file.is_file()]
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
    paths = set()
    for row in rows:
        path = PurePosixPath((row["file_path"] or "").strip())
        if path.is_absolute() or ".." in path.parts or "\\" in str(path) or str(path) == ".":
            raise Refused("BAD_METADATA", f"{name}: file_path {row['file_path']!r} is not a path below the root")
        paths.add(str(path))
    return sorted(paths)
