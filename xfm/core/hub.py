"""`hf://OWNER/NAME[@REVISION][/FOLDER]`: files of a Hugging Face model repository, pinned to one commit."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator

from xfm.core.errors import EnvironmentProblem, Refused

ADDRESS = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w.-]+))?(/(?P<folder>[\w./-]+))?")

BUSY = {408, 429, *range(500, 600)}  # HTTP states that pass


@dataclass(frozen=True, slots=True)
class Fetched:
    """A folder on this machine."""

    folder: Path  # where the files are
    revision: str | None  # the commit they come from; None for a local folder


@lru_cache(maxsize=16)
def fetch_folder(address: str, patterns: tuple[str, ...]) -> Fetched:
    """A local folder as it is, or the matching files of a Hub repository from its cache.

    A branch name is resolved to a commit, once; the commit goes into the run's record.

    Raises:
        Refused: NO_CHECKPOINT, no such folder or repository.
        EnvironmentProblem: the Hub cannot be reached and the cache has no copy.
    """
    if not address.startswith("hf://"):
        folder = Path(address).expanduser()
        if not folder.is_dir():
            near = ", ".join(sorted(p.name for p in folder.parent.glob("*/"))[:8]) if folder.parent.is_dir() else ""
            beside = f" Folders beside it: {near}." if near else ""
            raise Refused("NO_CHECKPOINT", f"{address!r} is no folder here.{beside} Or name one as hf://OWNER/NAME.")
        return Fetched(folder, None)
    match = ADDRESS.fullmatch(address)
    if match is None or ".." in address:
        raise Refused("NO_CHECKPOINT", f"{address!r} is not of the form hf://OWNER/NAME[@REVISION][/FOLDER].")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        root = snapshot_download(match["repo"], revision=match["revision"], allow_patterns=list(patterns))
    except HfHubHTTPError as error:
        if error.response.status_code in BUSY:
            raise EnvironmentProblem(f"{address}: the Hub does not answer now, try again later: {error}") from None
        raise Refused("NO_CHECKPOINT", f"{address}: {error}") from None
    except OSError as error:
        raise EnvironmentProblem(
            f"{address}: the Hub cannot be reached and no copy is in the cache ({type(error).__name__}). Download it "
            f"once where there is a network (`hf download {match['repo']}`), or name a local folder."
        ) from None
    folder = Path(root) / (match["folder"] or "")
    if not folder.is_dir():
        raise Refused("NO_CHECKPOINT", f"{address}: the repository has no folder {match['folder']!r}.")
    return Fetched(folder, Path(root).name)


def absolute(address: str) -> str:
    """A folder as an absolute path, since workers run in folders of their own; hf://OWNER/NAME[@REVISION] as it is."""
    return address if address.startswith("hf://") else str(Path(address).expanduser().absolute())


Place = Annotated[str, AfterValidator(absolute)]  # a field that names a folder or a Hub repository
