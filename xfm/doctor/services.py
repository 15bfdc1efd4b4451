"""Checks of what a job talks to: Ray, the Hugging Face Hub, MLflow. Short knocks, nothing is changed.

No secret is shown: whether there is a token is said, what it is never. Addresses are redacted by `doctor.examine`.
"""

import http.client
import os
import platform
import socket
import sqlite3
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from xfm.doctor.finding import Finding, gigabytes
from xfm.doctor.machine import nearest, ray_folder, unwritable
from xfm.doctor.packages import ABSENT, Versions, found_version
from xfm.track.server import sqlite_file, tracking_uri

KNOCK_S, ANSWER_S, LOCK_S, TASK_S = 2.0, 3.0, 1.0, 60.0  # longest waits
HUB = "https://huggingface.co"
YES = {"1", "on", "true", "yes"}
PORTS = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
SPOOL = "jobs run and keep their records; `python -m xfm sync OUTPUT` sends them later"


def knock(host: str, port: int) -> str:
    """Why nobody answers there; empty where somebody does."""
    try:
        socket.create_connection((host, port), timeout=KNOCK_S).close()
    except OSError as error:
        return error.strerror or str(error)
    except (ValueError, OverflowError) as error:  # no host name, no port
        return str(error)
    return ""


def request(url: str, method: str) -> tuple[int, str]:
    """The HTTP status, and 0 with a reason where there is none. Credentials in the address are not sent."""
    scheme, _, rest = url.partition("://")
    plain = f"{scheme}://{rest.rpartition('@')[2]}"
    try:
        with urllib.request.urlopen(urllib.request.Request(plain, method=method), timeout=ANSWER_S) as answer:
            return int(answer.status), ""
    except urllib.error.HTTPError as error:
        return error.code, str(error.reason)
    except urllib.error.URLError as error:
        return 0, getattr(error.reason, "strerror", None) or str(error.reason)
    except (OSError, http.client.HTTPException, ValueError) as error:
        return 0, str(error) or type(error).__name__


def ray(environ: Mapping[str, str], versions: Versions = found_version) -> Finding:
    """Whether a job finds the cluster that it is told to join."""
    found, address = versions("ray"), environ.get("RAY_ADDRESS", "")
    if found is None:
        return Finding("Ray", "bad", ABSENT, "see packages")
    if address in ("", "local"):
        told = f"RAY_ADDRESS={address}" if address else "RAY_ADDRESS is not set"
        return Finding("Ray", "ok", f"{found}; {told}: a job starts its own, on loopback, and ends it")
    text, unset, place = f"RAY_ADDRESS={address}", "unset RAY_ADDRESS to use this machine alone", address
    if address == "auto":
        file = ray_folder(environ) / "ray_current_cluster"
        if not os.path.isfile(file):
            return Finding("Ray", "warn", f"{text}, but no cluster was started here (there is no {file})",
                           f"ray start --head, or {unset}")  # fmt: skip
        place = file.read_text().strip()
    host, _, port = place.rpartition("://")[2].rstrip("/").rpartition(":")
    if not port.isdigit():
        return Finding("Ray", "bad", f"{text} names no port", f"give it as HOST:PORT, e.g. 10.0.0.5:6379, or {unset}")
    if problem := knock(host.strip("[]"), int(port)):
        return Finding("Ray", "bad", f"no cluster answers at {text} ({problem})",
                       f"start one there, correct the address, or {unset}")  # fmt: skip
    if address.startswith(("http://", "https://")):
        return Finding("Ray", "warn", f"{text} is a dashboard: `ray job submit` takes it, a job started here does not",
                       f"to start jobs here give the head's HOST:PORT, often port 6379, or {unset}")  # fmt: skip
    return Finding("Ray", "ok", f"{found}; somebody answers at {text}")


def ray_token(environ: Mapping[str, str]) -> Finding:
    """What stands between the cluster and whoever reaches its ports.

    Ray looks for the token in RAY_AUTH_TOKEN, then RAY_AUTH_TOKEN_PATH, then ~/.ray/auth_token; a local cluster asks
    for one unless RAY_AUTH_MODE=disabled, and makes the last of these where there is none.
    """
    name, joins = "Ray token", environ.get("RAY_ADDRESS", "") not in ("", "local")
    mode, named = environ.get("RAY_AUTH_MODE", "").lower(), environ.get("RAY_AUTH_TOKEN_PATH")
    if mode == "disabled":
        return Finding(name, "warn", "RAY_AUTH_MODE=disabled: whoever reaches the cluster's ports can run code on it",
                       "unset RAY_AUTH_MODE, or set it to token")  # fmt: skip
    if environ.get("RAY_AUTH_TOKEN"):
        return Finding(name, "ok", "RAY_AUTH_TOKEN is set")
    home = Path(environ.get("HOME") or Path.home())
    file = Path(named) if named else home / ".ray" / "auth_token"
    if os.path.isfile(file):  # Path.is_file raises where a folder above is closed to this user
        if _others_can_read(file):
            return Finding(name, "warn", f"every user of this machine can read {file}", f"chmod 600 {file}")
        return Finding(name, "ok", f"in {file}")
    if named:
        return Finding(name, "bad", f"RAY_AUTH_TOKEN_PATH={named}: there is no such file", "correct or unset it")
    if joins and mode == "token":
        return Finding(name, "bad", f"RAY_AUTH_MODE=token, but there is neither RAY_AUTH_TOKEN nor {file}",
                       f"ask for the cluster's token and write it to {file}")  # fmt: skip
    if joins:
        text = "none here: a cluster that asks for one turns jobs away, one that asks for none runs anybody's code"
        remedy = f"write the cluster's token to {file}, or start it with RAY_AUTH_MODE=token"
        return Finding(name, "warn", text, remedy)
    if problem := unwritable(nearest(file.parent)):
        return Finding(name, "bad", f"Ray cannot write one to {file} ({problem})",
                       "set HOME to a folder of yours, or RAY_AUTH_TOKEN to a random word")  # fmt: skip
    return Finding(name, "ok", f"none yet; Ray makes one at its first start, in {file}")


def hub(environ: Mapping[str, str]) -> Finding:
    """Whether `hf://` checkpoints and data sets can be fetched."""
    home = Path(environ.get("HOME") or Path.home())
    cache = Path(environ.get("HF_HOME") or Path(environ.get("XDG_CACHE_HOME") or home / ".cache") / "huggingface")
    known = environ.get("HF_TOKEN") or os.path.isfile(environ.get("HF_TOKEN_PATH") or cache / "token")
    token = "a token is set" if known else "no token (HF_TOKEN), so public repositories only"
    if any(environ.get(name, "").lower() in YES for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")):
        return Finding("Hub", "ok", "HF_HUB_OFFLINE=1: not asked; local folders and what is in the cache work")
    url = environ.get("HF_ENDPOINT") or HUB
    status, reason = request(url, "HEAD")
    if 0 < status < 400:
        return Finding("Hub", "ok", f"{url} answers; {token}")
    found = f"{url} answers with HTTP {status} ({reason})" if status else f"{url} cannot be reached ({reason})"
    return Finding("Hub", "warn", found,
                   "local folders work; HF_HUB_OFFLINE=1 takes hf:// from the cache without asking; behind a proxy set "
                   "HTTPS_PROXY")  # fmt: skip


def mlflow(versions: Versions = found_version) -> Finding:
    """Whether records of a job started here would arrive. A job runs either way."""
    found, uri = versions("mlflow"), tracking_uri("runs")
    if found is None:
        return Finding("MLflow", "bad", ABSENT, "see packages")
    file, (scheme, _, _) = sqlite_file(uri), uri.partition("://")
    if file is not None:
        problem = _database(file)
    elif scheme in ("http", "https"):
        return _server(uri, found)
    elif scheme.partition("+")[0] in PORTS:
        problem = _database_server(uri)
    else:
        return Finding("MLflow", "ok", f"{found}; {uri}, not looked at")
    if problem:
        return Finding("MLflow", "warn", f"{found}; {uri}: {problem}",
                       f"mend that, or set MLFLOW_TRACKING_URI; until then {SPOOL}")  # fmt: skip
    made = ", which the first job makes" if file is not None and not file.exists() else ""
    return Finding("MLflow", "ok", f"{found}; {uri}{made}")


def start_ray() -> Finding:
    """Starts a cluster (or joins that of RAY_ADDRESS) as a job would, runs one task, and leaves."""
    name = "Ray started"
    if found_version("ray") is None:
        return Finding(name, "bad", ABSENT, "see packages")
    from xfm.core.errors import EnvironmentProblem
    from xfm.engine.cluster import connect, disconnect, prepare

    prepare()
    import ray
    from ray.exceptions import RayError

    begin = time.monotonic()
    try:
        connect()
        where = ray.get(ray.remote(platform.node).remote(), timeout=TASK_S)
        there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    except (EnvironmentProblem, RayError) as error:
        return Finding(name, "bad", str(error), "see Ray, Ray token and disk of Ray above")
    finally:
        disconnect()
    text = f"a task ran on {where} after {time.monotonic() - begin:.0f} s; {there.get('CPU', 0):g} CPUs, "
    store = gigabytes(there.get("object_store_memory", 0))
    return Finding(name, "ok", f"{text}{there.get('GPU', 0):g} GPUs, object store {store}; left again")


def _server(uri: str, found: str) -> Finding:
    status, reason = request(f"{uri.rstrip('/')}/health", "GET")
    if status == 200:
        return Finding("MLflow", "ok", f"{found}; {uri} answers")
    text = f"no server answers at {uri} ({reason})"
    remedy = "start it, or correct MLFLOW_TRACKING_URI; until then"
    if status:
        text = f"{uri} answers /health with HTTP {status} ({reason})"
        remedy = "is it an MLflow server, and are MLFLOW_TRACKING_USERNAME and _PASSWORD set? Until then"
    return Finding("MLflow", "warn", f"{found}; {text}", f"{remedy} {SPOOL}")


def _database_server(uri: str) -> str:
    """Why no database server answers; empty where one does."""
    try:
        parts = urlsplit(uri)
        port = parts.port or PORTS[parts.scheme.partition("+")[0]]
    except ValueError:  # its message would quote the password
        return "the address cannot be understood; in a password : / @ [ are written %3A %2F %40 %5B"
    return knock(parts.hostname, port) if parts.hostname else "the address names no host"


def _database(file: Path) -> str:
    """Why nothing can be written into a sqlite database; empty where it can. Takes the lock for a moment."""
    if not file.parent.is_dir():
        return "there is no such folder"
    if problem := unwritable(file.parent):
        return f"its folder cannot be written ({problem})"
    if not file.exists():
        return ""
    try:
        with closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=LOCK_S)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.rollback()
    except sqlite3.Error as error:
        return str(error)
    return ""


def _others_can_read(file: Path) -> bool:
    """Whether a user who is neither owner nor of the group gets at the content."""
    reachable = all(folder.stat().st_mode & 0o001 for folder in file.resolve().parents)
    return reachable and bool(file.stat().st_mode & 0o004)
