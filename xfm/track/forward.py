"""Runs that were recorded somewhere else, told again as children of a job's own run.

A piece of a job that runs in another process keeps a spool of its own, which nothing is sent from; the job copies it
into its own spool under a child's name, once the piece has ended. Only one process ever writes to a spool.
"""

import time
from collections.abc import Collection
from pathlib import Path

from xfm.track.query import links
from xfm.track.spool import Record, Spool
from xfm.track.tracker import SpoolTracker


def forward(spool: Path, child: SpoolTracker) -> None:
    """Copies what the root run of a piece's spool recorded: settings, curves, words, files, data and models.

    A spool that is not there holds nothing; numbers that the child has already are not told twice.
    """
    records = [line.record for line in Spool(spool).read() if line.record]
    for record in records:
        if record.get("run") == records[0].get("run"):
            _tell(record, child)


def _tell(record: Record, child: SpoolTracker) -> None:
    match record.get("op"):
        case "params":
            child.params(record["params"])
        case "metrics":
            dropped = {name: float(value) for name, value in record["dropped"].items()}
            child.metrics(record["metrics"] | dropped, record["step"])
        case "tags":
            child.tags(record["tags"])
        case "artifact":
            child.artifact(Path(record["path"]), record["folder"])
        case "dataset":
            child.dataset(
                record["name"], record["digest"], record["source"], context=record["context"],
                profile=record["profile"],
            )  # fmt: skip
        case "model":
            place = Path(record["folder"]) if "folder" in record else str(record["uri"])
            child.model(record["name"], place, record["sha256"], tags=record["tags"], description=record["description"])


def finished_children(spool: Path) -> set[str]:
    """Keys of the children of a spool's own run that ended well, in any attempt."""
    found: set[str] = set()
    root = ""
    for record in (line.record for line in Spool(spool).read()):
        run = str(record.get("run", ""))
        root = root or run
        if run.startswith(f"{root}/") and record.get("op") in ("open", "close"):
            key = run.removeprefix(f"{root}/")
            found.discard(key)
            if record.get("status") == "FINISHED":
                found.add(key)
    return found


def child_links(spool: Path, keys: Collection[str], timeout_s: float = 30.0) -> dict[str, str]:
    """The MLflow runs of children by key: the address of each, or its id where the store is no server.

    Args:
        spool: of the job; its records are being sent.
        timeout_s: how long to wait while nothing is being sent. What is not sent by then is missing.
    """
    deadline, sent = time.monotonic() + timeout_s, -1
    while True:
        known, line = links(spool)
        found = {key: known[key] for key in keys if key in known}
        if len(found) == len(keys) or time.monotonic() > deadline:
            return found
        if line > sent:
            deadline, sent = time.monotonic() + timeout_s, line
        time.sleep(0.2)
