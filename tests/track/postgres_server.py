"""A real PostgreSQL server on loopback, made in a folder of its own and gone with it."""

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.track.mlflow_server import free_port

UNPRIVILEGED = ("postgres", "nobody")  # root may not run it: one of these does


def programs() -> tuple[str, str]:
    """initdb and postgres; skips the test where they or the driver are not installed."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name))
    path = os.pathsep.join([os.environ.get("PATH", ""), *map(str, reversed(folders))])
    initdb, postgres = shutil.which("initdb", path=path), shutil.which("postgres", path=path)
    if initdb is None or postgres is None:
        pytest.skip("no initdb and postgres on PATH or in /usr/lib/postgresql/*/bin: apt-get install postgresql")
    pytest.importorskip("psycopg2", reason="no driver for PostgreSQL: pip install psycopg2-binary")
    return initdb, postgres


@contextmanager
def running(password: str) -> Iterator[str]:
    """A server that answers, with one database and one user, both called postgres.

    Args:
        password: of that user; without characters that a URI reserves.

    Yields:
        Its URI as users write it, password included.
    """
    initdb, postgres = programs()
    user = _owner()
    # Not tmp_path: only its owner may enter that, and the path of a socket is at most 107 bytes long.
    with tempfile.TemporaryDirectory(prefix="xfm-pg-") as name:
        folder, port = Path(name), free_port()
        (folder / "password").write_text(password)
        for path in (folder, folder / "password") if user else ():
            shutil.chown(path, user)
        log = folder / "server.log"
        with log.open("ab") as output:

            def start(*command: str) -> "subprocess.Popen[bytes]":
                environment = {"PATH": os.environ.get("PATH", ""), "LC_ALL": "C"}
                return subprocess.Popen(command, cwd=folder, env=environment, user=user, stdin=subprocess.DEVNULL,
                                        stdout=output, stderr=output)  # fmt: skip

            make = start(initdb, f"--pgdata={folder / 'data'}", "--username=postgres", "--auth=scram-sha-256",
                         f"--pwfile={folder / 'password'}", "--encoding=UTF8", "--no-sync")  # fmt: skip
            assert make.wait(120) == 0, log.read_text()
            (folder / "password").unlink()
            server = start(postgres, "-D", str(folder / "data"), "-p", str(port), "-k", str(folder), "-F",
                           "-c", "listen_addresses=127.0.0.1")  # fmt: skip
            try:
                _await(server, port, password, log)
                yield f"postgresql://postgres:{password}@127.0.0.1:{port}/postgres"
            finally:
                with suppress(ProcessLookupError):
                    server.send_signal(signal.SIGINT)  # its "fast" shutdown: sessions are cut off
                server.wait(60)


def _owner() -> str | None:
    """Who runs it: None for whoever runs the tests, except root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in UNPRIVILEGED if name in known)


def _await(server: "subprocess.Popen[bytes]", port: int, password: str, log: Path) -> None:
    import psycopg2

    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        assert server.poll() is None, f"PostgreSQL ended:\n{log.read_text()}"
        with suppress(psycopg2.OperationalError):
            psycopg2.connect(host="127.0.0.1", port=port, user="postgres", password=password).close()
            return
        time.sleep(0.1)
    raise AssertionError(f"PostgreSQL did not answer in time:\n{log.read_text()}")
