"""One writer per OUTPUT.

A folder is locked with `flock`, which the kernel drops when the process dies. A bucket has no lock, so the holder
counts up in an object and a newcomer watches it: a counter that stands still for several beats belongs to a dead
process. Nobody compares clocks of two machines (Gray and Cheriton, SOSP 1989; fencing after Kleppmann, 2016).
"""

import errno
import fcntl
import json
import logging
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from typing import Any, Protocol

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.storage import Folder, Storage

logger = logging.getLogger(__name__)

LEASE = ".lease"
_PATIENCE = 4  # beats without a sign of life after which a holder counts as dead
_SETTLE = 0.4  # of a beat: how long after a claim a rival's claim may still arrive
_STARTED = datetime.now(UTC).isoformat(timespec="seconds")  # of this process


class Lease(Protocol):
    """The right to write the manifest."""

    def acquire(self) -> None:
        """Takes the lease.

        Raises:
            Refused: LOCKED; the message says who holds it.
        """

    def check(self) -> None:
        """Called before every write of the manifest.

        Raises:
            Refused: LEASE_LOST; another process took over and this one must not write.
        """

    def release(self) -> None:
        """Gives the lease back, if it is still ours."""


def lease_for(storage: Storage, beat_s: float) -> Lease:
    """The kind of lease that a storage can carry; `beat_s` matters for buckets only."""
    return FileLease(storage) if isinstance(storage, Folder) else ObjectLease(storage, beat_s)


class FileLease:
    """`flock` on OUTPUT/.lease. A forked child shares the lock; a started program does not inherit it."""

    def __init__(self, folder: Folder) -> None:
        self._path = folder.root / LEASE
        self._place = folder.place
        self._file = -1

    def acquire(self) -> None:
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as problem:
            raise Refused("OUTPUT_UNUSABLE", f"cannot write in {self._place}: {problem.strerror}") from problem
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(_me()).encode(), 0)
        except OSError as problem:
            holder = os.pread(file, 4096, 0)
            os.close(file)
            if problem.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise _locked(self._place, _parse(holder)) from problem
            raise EnvironmentProblem(f"{self._place} cannot be locked: {problem}") from problem
        self._file = file

    def check(self) -> None:
        try:
            there, ours = os.stat(self._path), os.fstat(self._file)
            same = (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)
        except OSError:
            same = False
        if not same:
            raise _lost(self._place, {})

    def release(self) -> None:
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class ObjectLease:
    """An object with a token and a counter, kept moving by a daemon thread.

    A live holder is found out within one beat; a dead one is replaced after `_PATIENCE` beats, measured by the
    newcomer's own monotonic clock. Two newcomers may claim at once: the later write stays, and the other sees it
    when it reads its claim again, or at the latest at its next beat or `check`.
    """

    def __init__(self, storage: Storage, beat_s: float) -> None:
        self._storage = storage
        self._beat_s = beat_s
        self._token = secrets.token_hex(16)
        self._counter = 0
        self._lost = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self) -> None:
        seen = self._read()
        if seen.get("token"):
            logger.info("%s has a lease of pid %s on %s; watching for %.0f s whether it is alive", self._storage.place,
                        seen.get("pid"), seen.get("host"), _PATIENCE * self._beat_s)  # fmt: skip
            self._watch(seen)
        self._write()
        time.sleep(_SETTLE * self._beat_s)
        now = self._read()
        if now.get("token") != self._token:
            raise _locked(self._storage.place, now)
        self._thread = threading.Thread(target=self._beat, name="xfm-lease", daemon=True)
        self._thread.start()

    def _watch(self, seen: dict[str, Any]) -> None:
        """Returns when the holder has shown no sign of life for long enough."""
        deadline = time.monotonic() + _PATIENCE * self._beat_s
        while time.monotonic() < deadline:
            time.sleep(self._beat_s / 4)
            now = self._read()
            if not now.get("token"):
                return
            if (now["token"], now.get("counter")) != (seen["token"], seen.get("counter")):
                raise _locked(self._storage.place, now)

    def _beat(self) -> None:
        """Counts up until stopped or robbed. A store that does not answer is asked again."""
        while not self._stop.wait(self._beat_s):
            try:
                if self._read().get("token") != self._token:
                    self._lost = True
                    return
                self._counter += 1
                self._write()
            except EnvironmentProblem as problem:
                logger.warning("the lease could not be renewed: %s", problem)

    def check(self) -> None:
        now = {} if self._lost else self._read()
        if now.get("token") != self._token:
            self._lost = True
            raise _lost(self._storage.place, now)

    def release(self) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        try:
            if not self._lost and self._read().get("token") == self._token:
                self._storage.write(LEASE, json.dumps(_me() | {"token": "", "counter": self._counter}).encode())
        except EnvironmentProblem as problem:
            logger.warning("the lease could not be given back, a next run will wait for it: %s", problem)

    def _read(self) -> dict[str, Any]:
        return _parse(self._storage.read(LEASE) or b"")

    def _write(self) -> None:
        self._storage.write(LEASE, json.dumps(_me() | {"token": self._token, "counter": self._counter}).encode())


def _me() -> dict[str, Any]:
    return {"host": socket.gethostname(), "pid": os.getpid(), "started": _STARTED}


def _parse(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _locked(place: str, holder: dict[str, Any]) -> Refused:
    who = f"pid {holder['pid']} on {holder['host']}, started {holder.get('started')}" if "pid" in holder else "unknown"
    return Refused("LOCKED", f"another run is writing to {place} ({who}). Wait for it, stop it, or give another "
                   "--output")  # fmt: skip


def _lost(place: str, holder: dict[str, Any]) -> Refused:
    who = f"pid {holder['pid']} on {holder['host']}" if "pid" in holder else "someone removed or replaced .lease"
    return Refused("LEASE_LOST", f"this run no longer holds {place} ({who}); what is committed stays valid")
