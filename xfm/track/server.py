"""Which MLflow store a job writes to, and how a person looks at it. Imports nothing heavy."""

import os
import re
import shlex
import sys
from importlib.util import find_spec
from pathlib import Path

from xfm.track.redact import redact_text

SQLITE = "sqlite:///"
DATABASES = ("postgresql", "mysql", "mssql")


def tracking_uri(output: str) -> str:
    """MLFLOW_TRACKING_URI where set, else a database in the current directory.

    A submitted Ray job runs in a temporary directory: there the database lies beside OUTPUT, and for a remote
    OUTPUT in the user's state directory (XDG_STATE_HOME, ~/.local/state).
    """
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        return uri
    folder = Path.cwd()
    if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ:
        local = output.removeprefix("file://")
        state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "xfm"
        folder = state if "://" in local else Path(local).absolute().parent
    return f"{SQLITE}{folder / 'mlflow.db'}"


def sqlite_file(uri: str) -> Path | None:
    """The database file of a `sqlite:///` URI, absolute; None for any other URI."""
    return Path(uri.removeprefix(SQLITE).partition("?")[0]).absolute() if uri.startswith(SQLITE) else None


def with_driver(uri: str) -> str:
    """`postgresql://` with the driver that is installed: SQLAlchemy 2.1 takes psycopg there, 2.0 took psycopg2."""
    plain, named = "postgresql://", "postgresql+psycopg2://"
    is_old = uri.startswith(plain) and find_spec("psycopg") is None and find_spec("psycopg2") is not None
    return uri.replace(plain, named, 1) if is_old else uri


def connect_once(uri: str) -> None:
    """Opens and closes a connection where the store is a database server, and raises what its driver raises.

    MLflow itself would try ten times, for 100 s, before it says why.
    """
    if re.split(r"[+:]", uri, maxsplit=1)[0] not in DATABASES:
        return
    import sqlalchemy

    engine = sqlalchemy.create_engine(uri)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def artifact_location(uri: str, experiment: str) -> str | None:
    """Where a local store keeps its files: `mlartifacts` beside the database. A server decides for itself: None."""
    file = sqlite_file(uri)
    folder = re.sub(r"[^\w\-.]", "_", experiment)
    return (file.parent / "mlartifacts" / folder).as_uri() if file else None


def ui_command(uri: str) -> str:
    """The shell line that opens MLflow's pages, on this machine only; for a server, its address."""
    if uri.startswith(("http://", "https://")):
        return redact_text(uri)
    python = Path(sys.executable)
    shown = python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else python
    # A database with a password is named by the variable that holds it, not spelled out.
    store = shlex.quote(uri) if redact_text(uri) == uri else '"$MLFLOW_TRACKING_URI"'
    return f"{shlex.quote(str(shown))} -m mlflow ui --host 127.0.0.1 --port 5000 --backend-store-uri {store}"
