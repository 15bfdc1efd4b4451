"""Getting at one file of a source: fetched and inflated where it must be, and what listing learns about it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from xfm.core.errors import Refused, ShardRefused
from xfm.sources.h5ad.file import H5adFile, Values
from xfm.sources.h5ad.inflate import inflate
from xfm.sources.hub_files import download
from xfm.sources.paths import is_hub


class Outline(NamedTuple):
    """What listing learns about a good plain file."""

    rows: int
    layer: str
    unique_names: bool


def is_plain(location: str) -> bool:
    """Whether a file can be opened where it lies."""
    return not is_hub(location) and not location.endswith(".gz")


def stamp(path: Path) -> tuple[Path, int, int]:
    """Path, size and time of change: the key under which an outline is remembered."""
    status = path.stat()
    return path, status.st_size, status.st_mtime_ns


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
        if not Path(location).is_file():
            raise ShardRefused("NO_SUCH_FILE", f"{name}: not at {location}")
        yield Path(location)
        return
    with TemporaryDirectory(prefix="xfm-h5ad-") as folder:
        path = Path(location)
        if is_hub(location):
            try:
                path = download(location, Path(folder))
            except Refused as error:
                raise ShardRefused(error.code, error.message) from error
        yield inflate(path, Path(folder), name) if location.endswith(".gz") else path
