"""What MLflow takes: names, lengths, types. After mlflow.utils.validation and the columns of its database."""

import hashlib
import posixpath
import re
from collections.abc import Mapping
from typing import Any

MAX_NAME = 250
MAX_PARAM = 6000
MAX_TAG = 8000
MAX_DIGEST = 36
MAX_DATASET = 500


def clean_name(name: str) -> str:
    """A name MLflow takes: letters, digits and `_-. :/`, at most 250 long, no path that resolves to another."""
    cleaned = posixpath.normpath(re.sub(r"[^\w\-. :/]", "_", name)).lstrip("/") or "_"
    cleaned = re.sub(r"^\.+", "_", cleaned)
    if len(cleaned) > MAX_NAME:
        cleaned = f"{cleaned[: MAX_NAME - 9]}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return cleaned


def fit_tags(tags: Mapping[str, Any]) -> dict[str, str]:
    """Tags with names and lengths that MLflow takes."""
    return {clean_name(name): str(value)[:MAX_TAG] for name, value in tags.items()}


def dataset_source(place: str, digest: str) -> tuple[str, dict[str, str]]:
    """MLflow's type of a data set's source, which decides how its page shows it, and the source as that type reads it.

    The digest is here in full; MLflow's own field is too short for it.
    """
    scheme, separator, rest = place.partition("://")
    if not separator:
        kind = "local" if "/" in place else "external"  # a release has no address
    else:
        kind = {"file": "local", "https": "http", "hf": "hugging_face"}.get(scheme, scheme)
    path = "/".join(rest.partition("@")[0].split("/")[:2]) if scheme == "hf" else place
    return kind, {"uri": place, "url": place, "path": path, "digest": digest}


def without_attempt(name: str) -> str:
    """A run's name without the number of its attempt, which a later attempt replaces."""
    return re.sub(r"-\d+$", "", name)
