"""Getting at one file of a source: fetched and inflated where it must be, and what listing learns about it."""

import errno
import gzip
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.sources.h5ad.file import H5adFile, Values
from xfm.sources.hub_files import download
from xfm.sources.paths import is_hub, stamp

CHUNK_BYTES = 2**20


class Outline(NamedTuple):
    """What listing learns about a good plain file."""

    rows: int
    layer: str
    unique_names: bool


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
    chosen = file.choose(layer, values)
    file.matrix(chosen)
    return Outline(file.n_obs, chosen, len(set(names)) == len(names))


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
