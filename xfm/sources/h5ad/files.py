"""The .h5ad files of a source: which ones a path means, fetched and inflated where they must be, and what they hold.

A path is local, or an address on the Hugging Face Hub, where files are those of one commit and downloaded one by one.
"""

import csv
import errno
import glob
import gzip
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatch, fnmatchcase
from functools import lru_cache
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.sources.h5ad.file import H5adFile, Values
from xfm.sources.paths import files_below, is_hub, local_root, matching, parse, stamp

SUFFIXES = (".h5ad", ".h5ad.gz")
CHUNK_BYTES = 2**20


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
        found = files_below(given) if given.is_dir() else matching(path)
        names = [file.relative_to(root).as_posix() for file in found if file.name.endswith(SUFFIXES)]
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


def list_hub(path: str, metadata_csv: str | None, folder: Path) -> tuple[str, list[Entry]]:
    """The commit a path resolves to now, and its files sorted by name.

    Args:
        metadata_csv: a CSV in the data set; only files in its column `file_path` count.
        folder: where the CSV is downloaded to.

    Raises:
        Refused: no such data set or no such files.
        EnvironmentProblem: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, errors

    address, api = parse(path), HfApi()
    try:
        commit = str(api.dataset_info(address.repo, revision=address.revision).sha)
        tree = api.list_repo_tree(address.repo, recursive=True, revision=commit, repo_type="dataset")
        digests = {node.path: _digest(node) for node in tree if hasattr(node, "size")}
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise Refused("NO_DATASET", f"{path}: no such data set or revision, or no access: {error}") from error
    except (_network_error(), OSError) as error:
        raise EnvironmentProblem(f"the Hub cannot be reached for {path}: {error}") from error
    names = select(list(digests), address.path)
    if metadata_csv is not None:
        # A pattern means the newest: data sets date their metadata, metadata_YYYY-MM-DD.csv.
        dated = sorted(name for name in digests if fnmatch(name, metadata_csv))
        if not dated:
            raise Refused("NO_SUCH_FILE", f"no {metadata_csv} in {address.repo} (commit {commit})")
        local = download(f"hf://datasets/{address.repo}@{commit}/{dated[-1]}", folder)
        listed = set(read_file_paths(local.read_text(encoding="utf-8-sig"), dated[-1]))
        names = [name for name in names if name in listed]
    if not names:
        raise Refused("NO_FILES", f"no .h5ad or .h5ad.gz file at {path} (commit {commit})")
    return commit, [Entry(name, f"hf://datasets/{address.repo}@{commit}/{name}", digests[name]) for name in names]


def _digest(node: Any) -> str:
    """What the Hub states: the SHA-256 of a large file, else the Git id of its content."""
    return f"sha256:{node.lfs.sha256}" if getattr(node, "lfs", None) else f"git:{node.blob_id}"


def _network_error() -> type[Exception]:
    """The base error of whichever HTTP library the installed Hub client stands on; it differs between versions."""
    from huggingface_hub import errors

    base: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    return base


def download(location: str, folder: Path) -> Path:
    """Fetch one file into a folder.

    Raises:
        Refused: NO_SUCH_FILE.
        EnvironmentProblem: the Hub cannot be reached or the disk is full.
    """
    from huggingface_hub import HfApi, errors

    at, fetch = parse(location), HfApi().hf_hub_download
    try:
        return Path(fetch(at.repo, at.path, repo_type="dataset", revision=at.revision, local_dir=folder))
    except (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise Refused("NO_SUCH_FILE", f"{location}: {error}") from error
    except (_network_error(), OSError) as error:
        raise EnvironmentProblem(f"{location} cannot be downloaded: {error}") from error


class Outline(NamedTuple):
    """What listing learns about a good plain file."""

    rows: int
    layer: str
    unique_names: bool
    notes: tuple[str, ...] = ()  # what a reader should know of the matrix


def is_plain(location: str) -> bool:
    """Whether a file can be opened where it lies."""
    return not is_hub(location) and not location.endswith(".gz")


@lru_cache(maxsize=1024)
def cached_outline(path: Path, size: int, modified_ns: int, name: str, layer: str, values: Values) -> Outline:  # noqa: ARG001
    """A worker reads many shards of one file; size and time of change tell whether it is still the same."""
    with H5adFile(path, name) as file:
        return survey(file, layer, values)


def survey(file: H5adFile, layer: str, values: Values) -> Outline:
    """Rows, the matrix to read with its structure checked, and whether obs names repeat."""
    names = file.row_names()
    chosen, notes = file.choose(layer, values)
    matrix, is_gene = file.matrix(chosen), file.is_gene(chosen)
    if is_gene is not None:
        left = int((~is_gene).sum())
        notes += (f"{file.name}: {left:,} of {len(is_gene):,} features of {chosen} are no genes (var says another type "
                  "than Gene Expression) and are left out",)  # fmt: skip
    with file.reading():
        off = matrix.off_whole() if values == "auto" else 0.0
    if off:
        notes += (f"{file.name}: counts of {chosen} are rounded; they differ from whole numbers by up to {off:.1g}",)
    return Outline(file.n_obs, chosen, len(set(names)) == len(names), notes)


@contextmanager
def local_copy(location: str, name: str) -> Iterator[Path]:
    """A file on this machine, inflated; temporary copies are gone afterwards."""
    if is_plain(location):
        yield stamp(Path(location), name)[0]
        return
    with TemporaryDirectory(prefix="xfm-h5ad-") as folder:
        path = Path(location)
        if is_hub(location):
            try:
                path = download(location, Path(folder))
            except Refused as error:
                raise ShardRefused(error.code, error.message) from error
        yield inflate(path, Path(folder), name) if location.endswith(".gz") else path


def inflate(path: Path, folder: Path, name: str) -> Path:
    """Inflates a .gz file as a whole into a folder, and verifies its checksum and length.

    A flipped bit in a gzip stream shows only in the checksum at its very end, so a file inflated while it is read would
    hand out wrong rows first and the error last.

    Raises:
        ShardRefused: EMPTY_FILE, NOT_GZIP, GZ_TRUNCATED or GZ_CORRUPT.
        EnvironmentProblem: the disk is full.
    """
    target = folder / "inflated.h5ad"
    with path.open("rb") as file:
        magic = file.read(2)
    if not magic:
        raise ShardRefused("EMPTY_FILE", f"{name}: zero bytes")
    if magic != b"\x1f\x8b":
        raise ShardRefused("NOT_GZIP", f"{name}: does not begin like a gzip file. Is it a saved error page?")
    try:
        with gzip.open(path, "rb") as source, target.open("wb") as sink:
            shutil.copyfileobj(source, sink, CHUNK_BYTES)
    except EOFError as error:
        raise ShardRefused("GZ_TRUNCATED", f"{name}: ends before its end-of-stream mark") from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise ShardRefused("GZ_CORRUPT", f"{name}: {error}") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise EnvironmentProblem(f"NO_DISK_SPACE: inflating {name} into {folder}: {error}") from error
        raise
    if target.stat().st_size == 0:
        raise ShardRefused("EMPTY_FILE", f"{name}: inflates to zero bytes")
    return target
