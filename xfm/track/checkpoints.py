"""Checkpoints in MLflow's model registry: one version for each run and content, with where it came from.

A version's files are those of the run's artifacts, so that the registry stays whole where OUTPUT is moved or removed;
what is too large for that, or lies in a bucket, is named by its place. No flavour and no pickle: `safetensors` and
JSON, which `--backbone.checkpoint` reads once they are downloaded. No version is crowned: `models:/NAME/latest` is
MLflow's own word for the newest, and the alias `champion` is for the person who has compared them.
"""

import hashlib
import posixpath
import re
from pathlib import Path
from typing import Any

from xfm.track.spool import Record

WEIGHTS = "model.safetensors"
LARGEST_COPY = 2 * 2**30  # bytes of a checkpoint that are still copied
DIGEST_TAG = "xfm.weights"
MAX_MODEL_NAME = 200


class CheckpointChanged(Exception):
    """The folder no longer holds the weights that were to be registered."""


def add_version(client: Any, error: type[Exception], run: str, record: Record) -> None:
    """Adds a version unless this run has one with these weights.

    Args:
        client, error: `mlflow.MlflowClient` and `mlflow.exceptions.MlflowException`.
        run: MLflow's id of the run that made it.
        record: name, sha256, folder or uri, tags and description.

    Raises:
        CheckpointChanged: the weights are gone or others.
    """
    name = model_name(record["name"])
    try:
        client.create_registered_model(name)
    except error as problem:
        if getattr(problem, "error_code", None) != "RESOURCE_ALREADY_EXISTS":
            raise
    # A crash may have come between making the version and remembering it.
    versions = client.search_model_versions(f"name = '{name}' and run_id = '{run}'")
    if any(version.tags.get(DIGEST_TAG) == record["sha256"] for version in versions):
        return
    source = record["uri"] if "uri" in record else _copied(client, run, Path(record["folder"]), record["sha256"])
    tags = {key: str(value) for key, value in record["tags"].items()} | {DIGEST_TAG: record["sha256"]}
    client.create_model_version(name, source, run, tags=tags, description=record["description"], await_creation_for=0)


def model_name(name: str) -> str:
    """A name the registry takes: letters, digits and `_-. `."""
    return re.sub(r"[^\w\-. ]", "_", name)[:MAX_MODEL_NAME].lstrip(".") or "_"


def _copied(client: Any, run: str, folder: Path, sha256: str) -> str:
    """Where the files are to be found from now on: among the run's artifacts, or where they were if they are large."""
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise CheckpointChanged(f"checkpoint {weights} is not there any more")
    with weights.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise CheckpointChanged(f"checkpoint {weights} has changed since: sha256 {found[:12]}, not {sha256[:12]}")
    if sum(file.stat().st_size for file in folder.iterdir()) > LARGEST_COPY:
        return folder.as_uri()
    # Its own folder: another training of the same run must not change what this version names.
    place = f"checkpoint/{sha256[:12]}"
    client.log_artifacts(run, str(folder), place)
    return posixpath.join(client.get_run(run).info.artifact_uri, place)
