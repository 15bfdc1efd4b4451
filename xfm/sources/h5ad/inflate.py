"""A .gz file, inflated as a whole into a temporary folder before anything of it is used.

A flipped bit in a gzip stream shows only in the checksum at its very end, so a file inflated while it is read would
hand out wrong rows first and the error last.
"""

import errno
import gzip
import zlib
from pathlib import Path

from xfm.core.errors import EnvironmentProblem, ShardRefused

CHUNK_BYTES = 2**20


def inflate(path: Path, folder: Path, name: str) -> Path:
    """Inflate a file, verify its checksum and length, and return the result.

    Args:
        path: the compressed file.
        folder: where the result goes; the caller removes it.
        name: stands for the file in messages.

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
            while chunk := source.read(CHUNK_BYTES):
                sink.write(chunk)
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
