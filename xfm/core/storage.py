"""Where an OUTPUT lives: a folder or a bucket, behind the few operations the commit protocol needs.

A reader sees a file whole or not at all. In a folder that takes a temporary name, fsync, rename and fsync of the
folder (Pillai et al., OSDI 2014, on what file systems promise); in a bucket an object appears when it is closed.
"""

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

import pyarrow as pa
from pyarrow import fs

from xfm.core.errors import EnvironmentProblem, Refused

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NO_FOLDER_SYNC = {errno.EINVAL, errno.ENOTSUP}  # some network file systems


class Storage(Protocol):
    """Files below one root, named by `/`-separated relative names."""

    uri: str  # absolute: means the same in every process
    place: str  # for messages: `uri` without what a query or a password may hold
    appends: bool  # whether `append` exists; a bucket can only replace whole objects

    def create(self) -> None:
        """Makes the root, where that means anything.

        Raises:
            Refused: the root cannot be a folder we write to.
        """

    def names(self) -> set[str]:
        """Files and folders directly below the root; empty where there is no root yet.

        Raises:
            Refused: the root is a file.
        """

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file directly in `folder`; empty where there is no such folder."""

    def size(self, name: str) -> int | None:
        """Bytes of one file, or None where there is none."""

    def read(self, name: str) -> bytes | None:
        """The whole file, or None where there is none."""

    def open(self, name: str) -> Any | None:
        """The file for reading at any offset (a pyarrow.NativeFile, to be closed), or None where there is none."""

    def write(self, name: str, data: bytes) -> None:
        """Replaces the file as a whole; when this returns, it survives a crash.

        Raises:
            EnvironmentProblem: no space left, or the place cannot be written; nothing is half-published.
        """

    def append(self, name: str, data: bytes) -> None:
        """Adds to the end of an existing file, durably, in one write. Only where `appends`.

        Raises:
            EnvironmentProblem: as for `write`; the file is as long as before.
        """

    def remove(self, name: str) -> None:
        """Deletes the file if it is there."""

    def sweep(self) -> None:
        """Removes what killed writers left under temporary names."""


def open_storage(uri: str) -> Storage:
    """The storage behind a local path, a `file://` URI or any URI that pyarrow can write to.

    `AWS_ENDPOINT_URL` and `s3://...?endpoint_override=...&scheme=http` point to an S3-compatible store.

    Raises:
        Refused: the URI is empty, of an unknown kind, or names no place below a bucket.
    """
    if not uri:
        raise Refused("OUTPUT_URI", "the output is an empty string; give a folder or a URI such as s3://bucket/prefix")
    parts = urlsplit(uri)
    if "://" not in uri:
        return Folder(Path(uri))
    if parts.scheme == "file":
        return Folder(Path(unquote(parts.path)))
    try:
        if parts.scheme == "hf":
            raise pa.ArrowInvalid("the Hub is no place for a running job")
        filesystem, root = fs.FileSystem.from_uri(uri)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ImportError, ValueError) as problem:
        raise Refused("OUTPUT_URI", f"cannot write to {parts.scheme}://...: {problem}. "
                      "A local folder, s3://bucket/prefix or gs://bucket/prefix works") from problem  # fmt: skip
    if not root.strip("/"):
        raise Refused("OUTPUT_URI", f"{parts.scheme}:// names no bucket; give e.g. {parts.scheme}://bucket/prefix")
    return Bucket(uri, parts.scheme, filesystem, root.strip("/"))


def below(uri: str, name: str) -> str:
    """The place `name` inside an OUTPUT; what stands behind a `?` stays behind."""
    place, mark, query = uri.partition("?")
    return f"{place.rstrip('/')}/{name}{mark}{query}"


class Folder:
    """A folder on a file system that all workers share."""

    appends = True

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))  # not resolve(): a link to a scratch disk keeps its name
        self.uri = self.place = str(self.root)

    def create(self) -> None:
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise Refused("OUTPUT_UNUSABLE", f"cannot make the folder {self.place}: {problem.strerror}. "
                          "Give --output a folder that you may write to") from problem  # fmt: skip
        if not os.access(self.root, os.W_OK | os.X_OK):
            raise Refused("OUTPUT_UNUSABLE", f"{self.place} is not writable for this user; give another --output")

    def names(self) -> set[str]:
        try:
            return set(os.listdir(self.root))
        except FileNotFoundError:
            return set()
        except OSError as problem:
            raise Refused("OUTPUT_UNUSABLE", f"{self.place} cannot be used as a folder: {problem.strerror}. "
                          "Give --output a folder or a path that does not exist yet") from problem  # fmt: skip

    def sizes(self, folder: str) -> dict[str, int]:
        if not (self.root / folder).is_dir():
            return {}
        with os.scandir(self.root / folder) as entries:
            return {entry.name: entry.stat().st_size for entry in entries if entry.is_file()}

    def size(self, name: str) -> int | None:
        with suppress(FileNotFoundError):
            return (self.root / name).stat().st_size
        return None

    def read(self, name: str) -> bytes | None:
        with _explained(name, self.place, 0), suppress(FileNotFoundError):
            return (self.root / name).read_bytes()
        return None

    def open(self, name: str) -> Any | None:
        with _explained(name, self.place, 0), suppress(FileNotFoundError):
            return pa.OSFile(str(self.root / name))
        return None

    def write(self, name: str, data: bytes) -> None:
        path = self.root / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
        with _explained(name, self.place, len(data)):
            if not path.parent.is_dir():
                path.parent.mkdir(parents=True, exist_ok=True)
                _sync_folder(path.parent.parent)
            try:
                _write_durably(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666), data)
                os.replace(temporary, path)
            except BaseException:
                temporary.unlink(missing_ok=True)
                raise
            _sync_folder(path.parent)

    def append(self, name: str, data: bytes) -> None:
        with _explained(name, self.place, len(data)):
            file = os.open(self.root / name, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)
            length = os.fstat(file).st_size
            try:
                _write_durably(os.dup(file), data)
            except BaseException:
                os.ftruncate(file, length)
                raise
            finally:
                os.close(file)

    def remove(self, name: str) -> None:
        with _explained(name, self.place, 0):
            (self.root / name).unlink(missing_ok=True)

    def sweep(self) -> None:
        for folder in (self.root, *(entry for entry in self.root.iterdir() if entry.is_dir())):
            for stale in folder.glob(".*.tmp"):
                stale.unlink(missing_ok=True)


class Bucket:
    """A prefix in an object store, through pyarrow. Uploads that were cut short are left to the store's own expiry."""

    appends = False

    def __init__(self, uri: str, scheme: str, filesystem: Any, root: str) -> None:
        self.uri, self.root = uri, root
        self.place = f"{scheme}://{root}"
        self._fs = filesystem

    def create(self) -> None:
        """Nothing to do: a prefix exists once an object does."""

    def names(self) -> set[str]:
        return {info.base_name for info in self._list(self.root)}

    def sizes(self, folder: str) -> dict[str, int]:
        return {i.base_name: int(i.size) for i in self._list(f"{self.root}/{folder}") if i.type == fs.FileType.File}

    def size(self, name: str) -> int | None:
        with _explained(name, self.place, 0):
            info = self._fs.get_file_info(f"{self.root}/{name}")
        return int(info.size) if info.type == fs.FileType.File else None

    def _list(self, path: str) -> list[Any]:
        with _explained("the listing", self.place, 0):
            return list(self._fs.get_file_info(fs.FileSelector(path, allow_not_found=True)))

    def read(self, name: str) -> bytes | None:
        path = f"{self.root}/{name}"
        with _explained(name, self.place, 0), suppress(FileNotFoundError), self._fs.open_input_stream(path) as stream:
            return bytes(stream.read())
        return None

    def open(self, name: str) -> Any | None:
        with _explained(name, self.place, 0), suppress(FileNotFoundError):
            return self._fs.open_input_file(f"{self.root}/{name}")
        return None

    def write(self, name: str, data: bytes) -> None:
        # One write of everything: an exception between two writes would publish the first of them on close.
        with _explained(name, self.place, len(data)), self._fs.open_output_stream(f"{self.root}/{name}") as stream:
            stream.write(data)

    def append(self, name: str, data: bytes) -> None:
        """Objects cannot grow."""
        raise NotImplementedError(f"{self.place}/{name} is an object; {len(data)} bytes cannot be appended to it")

    def remove(self, name: str) -> None:
        with _explained(name, self.place, 0), suppress(FileNotFoundError):
            self._fs.delete_file(f"{self.root}/{name}")

    def sweep(self) -> None:
        """Nothing to do: an object that was not closed never had a name."""


def _write_durably(file: int, data: bytes) -> None:
    """Writes all of `data` and closes the descriptor."""
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(file, rest) :]
        os.fsync(file)
    finally:
        os.close(file)


def _sync_folder(folder: Path) -> None:
    """Makes a rename in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    except OSError as problem:
        if problem.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(handle)


@contextmanager
def _explained(name: str, place: str, size: int) -> Iterator[None]:
    """Turns what the system says about a file into what a user can do about it."""
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as problem:
        if problem.errno in _FULL:
            raise EnvironmentProblem(
                f"no space left in {place} for {name} ({size:,} bytes). Nothing half-written was kept: free some space "
                "and run the same command again, it continues where it stopped"
            ) from problem
        raise EnvironmentProblem(f"{place}: {name} could not be read or written: {problem}") from problem
