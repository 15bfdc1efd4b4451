"""Files of a Hugging Face data set: listed at one commit, downloaded one at a time."""

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.sources.h5ad.listing import Entry, read_file_paths, select

_ADDRESS = re.compile(r"hf://(?:datasets/)?(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.*))?")


@dataclass(frozen=True, slots=True)
class Address:
    """`hf://datasets/OWNER/NAME[@REVISION][/PATH]`; without "datasets/" it means the same."""

    repo: str
    revision: str | None
    path: str


def parse(path: str) -> Address:
    """Raises Refused: BAD_ADDRESS."""
    match = _ADDRESS.fullmatch(path)
    if match is None:
        raise Refused("BAD_ADDRESS", f"{path!r} is not hf://datasets/OWNER/NAME[@REVISION][/PATTERN]")
    return Address(match["repo"], match["revision"], (match["path"] or "").strip("/"))


def list_hub(path: str, metadata_csv: str | None, folder: Path) -> tuple[str, list[Entry]]:
    """The commit a path resolves to now, and its files sorted by name.

    Args:
        metadata_csv: a CSV in the data set; only files in its column `file_path` count.
        folder: where the CSV is downloaded to.

    Raises:
        Refused: no such data set or no such files.
        EnvironmentProblem: the Hub cannot be reached.
    """
    from huggingface_hub import HfApi, errors

    address, api = parse(path), HfApi()
    try:
        commit = str(api.dataset_info(address.repo, revision=address.revision).sha)
        tree = api.list_repo_tree(address.repo, recursive=True, revision=commit, repo_type="dataset")
        digests = {node.path: _digest(node) for node in tree if hasattr(node, "size")}
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise Refused("NO_DATASET", f"{path}: no such data set or revision, or no access: {error}") from error
    except (_network_error(), OSError) as error:
        raise EnvironmentProblem(f"the Hub cannot be reached for {path}: {error}") from error
    names = select(list(digests), address.path)
    if metadata_csv is not None:
        # A pattern means the newest: data sets date their metadata, metadata_YYYY-MM-DD.csv.
        dated = sorted(name for name in digests if fnmatch(name, metadata_csv))
        if not dated:
            raise Refused("NO_SUCH_FILE", f"no {metadata_csv} in {address.repo} (commit {commit})")
        local = download(f"hf://datasets/{address.repo}@{commit}/{dated[-1]}", folder)
        listed = set(read_file_paths(local.read_text(encoding="utf-8-sig"), dated[-1]))
        names = [name for name in names if name in listed]
    if not names:
        raise Refused("NO_FILES", f"no .h5ad or .h5ad.gz file at {path} (commit {commit})")
    return commit, [Entry(name, f"hf://datasets/{address.repo}@{commit}/{name}", digests[name]) for name in names]


def _digest(node: Any) -> str:
    """What the Hub states: the SHA-256 of a large file, else the Git id of its content."""
    return f"sha256:{node.lfs.sha256}" if getattr(node, "lfs", None) else f"git:{node.blob_id}"


def _network_error() -> type[Exception]:
    """The base error of whichever HTTP library the installed Hub client stands on; it differs between versions."""
    from huggingface_hub import errors

    base: type[Exception] = errors.HfHubHTTPError.__bases__[0]
    return base


def download(location: str, folder: Path) -> Path:
    """Fetch one file into a folder.

    Raises:
        Refused: NO_SUCH_FILE.
        EnvironmentProblem: the Hub cannot be reached or the disk is full.
    """
    from huggingface_hub import HfApi, errors

    at, fetch = parse(location), HfApi().hf_hub_download
    try:
        return Path(fetch(at.repo, at.path, repo_type="dataset", revision=at.revision, local_dir=folder))
    except (errors.EntryNotFoundError, errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise Refused("NO_SUCH_FILE", f"{location}: {error}") from error
    except (_network_error(), OSError) as error:
        raise EnvironmentProblem(f"{location} cannot be downloaded: {error}") from error
