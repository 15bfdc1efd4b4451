"""What a job's run is called in MLflow, the words to find it by, and the data it read, out of its run.json.

Experiment `xfm/JOB/DATA` and run `MODEL-FINGERPRINT-ATTEMPT`: what stands in one list answers one question about one
data set, and can be told apart there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from xfm.core.config import fingerprint
from xfm.track.redact import redact_text

FEW_FILES = 20  # so many are listed one by one, more as one data set
SHORT = 8  # digits of a fingerprint that people read
SUFFIXES = (".h5ad.gz", ".h5ad", ".zarr", ".soma", ".parquet")
WEIGHTS = (".safetensors", ".pt", ".bin", ".ckpt", ".pth")


@dataclass(frozen=True, slots=True)
class Dataset:
    """Data that a run read."""

    name: str  # shown to people
    digest: str  # equal digests are equal data
    source: str  # where it lies
    profile: dict[str, Any] = field(default_factory=dict)  # what is known of it without reading: cells, filter, release


def origin_of(run: Mapping[str, Any]) -> dict[str, Any]:
    """What a job that reads another's OUTPUT keeps of that one's run.json, as `run["origin"]` of its own."""
    if "job" not in run or "recipe" not in run:
        return {}
    names = {"job": run["job"], "model": model_name(run), "data_name": data_name(run)}
    return names | {"fingerprint": run.get("fingerprint", ""), "weights": run["recipe"].get("weights", {})}


def experiment_name(run: Mapping[str, Any]) -> str:
    """Where the user named none: `xfm/layerwise/pbmc`."""
    return f"xfm/{run['job']}/{data_name(run)}"


def run_name(run: Mapping[str, Any], attempt: int) -> str:
    """`scgpt-6d88f930-1`: the backbone, or the job where there is none, the recipe, and which start of it this is."""
    return f"{model_name(run)}-{fingerprint(run['recipe'])[:SHORT]}-{attempt}"


def model_name(run: Mapping[str, Any]) -> str:
    """The backbone, this job's or that of the OUTPUT it reads; the job where there is none."""
    return str(_section(run, "backbone").get("kind") or run.get("origin", {}).get("model") or run["job"])


def run_tags(run: Mapping[str, Any], place: str) -> dict[str, str]:
    """Words to find a run by; `place` is its OUTPUT, without credentials.

    Equal `xfm.data` are equal data under the same filter. `xfm.origin` is the `xfm.fingerprint` of the run whose OUTPUT
    this one reads.
    """
    recipe = run["recipe"]
    tags = {"xfm.job": str(run["job"]), "xfm.output": place, "xfm.fingerprint": fingerprint(recipe)}
    if recipe.get("data"):
        tags["xfm.data"] = fingerprint(dict(recipe["data"]))
    origin = run.get("origin", {})
    if weights := weights_digest(recipe.get("weights") or origin.get("weights", {})):
        tags["xfm.weights"] = weights
    if made_by := origin.get("fingerprint"):
        tags["xfm.origin"] = made_by
    if versions := run.get("versions"):
        tags["xfm.versions"] = ", ".join(f"{package} {version}" for package, version in versions.items())
    return tags


def weights_digest(weights: Mapping[str, Any]) -> str:
    """SHA-256 of the one file of weights, as `sha256sum` prints it; of all where there are several; "" if untrained."""
    if not weights or "initial" in weights:
        return ""
    files = [str(digest) for name, digest in weights.items() if name.endswith(WEIGHTS)]
    return files[0] if len(files) == 1 else fingerprint(dict(weights))


def data_name(run: Mapping[str, Any]) -> str:
    """The data in a word; where a job reads another's OUTPUT, the data that one read."""
    data, source = run["recipe"].get("data", {}), _section(run, "source")
    if name := run.get("origin", {}).get("data_name"):
        return str(name)
    if release := data.get("release"):
        return f"{source.get('kind', 'release')}-{release}"
    return _stem(_place(run) or next(iter(data.get("files", {})), ""))


def datasets(run: Mapping[str, Any]) -> list[Dataset]:
    """Every file where there are few, else one data set with a digest over all that says what it is."""
    data: Mapping[str, Any] = run["recipe"].get("data", {})
    files: Mapping[str, str] = data.get("files", {})
    if 0 < len(files) <= FEW_FILES:
        return [Dataset(path.rpartition("/")[2], digest, path) for path, digest in files.items()]
    if not data:
        return []
    name, source = data_name(run), _place(run) or str(data.get("release") or data_name(run))
    if "model" in (origin := run.get("origin", {})):
        name = f"{name}, {origin['job']} by {origin['model']}"
    digest = next((str(data[key]) for key in ("digest", "sha256", "parts") if key in data), fingerprint(dict(data)))
    profile = {key: value for key, value in data.items() if key != "uri" and isinstance(value, str | int | float)}
    profile |= {"files": len(files)} if files else {}
    return [Dataset(name, digest, source, profile)]


def _place(run: Mapping[str, Any]) -> str:
    """Where the data lie: address, path or pattern; "" where a release has none."""
    source, settings = _section(run, "source"), run.get("settings", {})
    place = run["recipe"].get("data", {}).get("uri") or source.get("path") or source.get("uri")
    return str(place or settings.get("embeddings") or "")


def _section(run: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    section = run.get("settings", {}).get(name)
    return section if isinstance(section, Mapping) else {}


def _stem(place: str) -> str:
    """`s3://b/lung.h5ad?x=1` is lung, `cells/*.h5ad` is cells, `hf://owner/atlas@0123abc` is atlas."""
    path = re.sub(r"^[a-z0-9+]+://", "", redact_text(place)).partition("?")[0].partition("#")[0]
    names = [name for name in path.split("/") if name not in ("", ".", "..") and not re.search(r"[*?\[\]{}]", name)]
    name = names[-1].partition("@")[0] if names else ""
    for suffix in SUFFIXES:
        name = name.removesuffix(suffix)
    return name or "data"
