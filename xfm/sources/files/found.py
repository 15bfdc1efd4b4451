"""Which data files a path means, where they lie on this machine, and which split each holds.

A data set on the Hub is fetched through the client's cache at one commit. Its files are then local files: listing can
count their rows, and a machine without a network finds what was downloaded before. Offline, the files are those of the
cached commit that were downloaded; the run's record names every one.
"""

import glob
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path

from xfm.core.errors import EnvironmentProblem, Refused
from xfm.core.hub import BUSY
from xfm.core.parts import SYNONYMS, part_of
from xfm.sources.files.parquet import SAVED
from xfm.sources.paths import files_below, is_hub, local_root, matching, parse

# As the library `datasets` names splits from files: a word of its own, or NAME-00000-of-00001.
_WORD = re.compile(rf"(?<![a-z0-9])({'|'.join(SYNONYMS)}|unsupervised)(?![a-z0-9])")
_NUMBERED = re.compile(r"(?P<split>\w+)-\d{5}-of-\d{5}\.")


@dataclass(frozen=True, slots=True)
class DataFile:
    """One file of a source, or one folder of pictures."""

    name: str  # its path relative to the root, with forward slashes; stands for it in row ids and messages
    location: str  # a local path, or an address on the Hub with its commit; any machine of the cluster can resolve it
    path: Path  # where it lies here
    split: str | None  # the split that its name states, None where it states none


def find_files(path: str, suffixes: Sequence[str], beside: Sequence[str] = ()) -> tuple[str, list[DataFile]]:
    """The commit ("" for local files) and the files, sorted by name.

    Args:
        beside: names of small files that a data set of the Hub may have next to its data; fetched with them.

    Raises:
        Refused: NO_FILES, NO_DATASET, BAD_ADDRESS, or MIXED_FORMATS.
        EnvironmentProblem: the Hub cannot be reached and the cache has no copy.
    """
    commit, root, names = _in_snapshot(path, suffixes, beside) if is_hub(path) else _in_folder(path, suffixes)
    if not names:
        raise Refused("NO_FILES", f"no {', '.join(suffixes)} file at {path}{f' (commit {commit})' if commit else ''}")
    formats = sorted({Path(name).suffix for name in names})
    if len(formats) > 1:
        why = f"holds {' and '.join(formats)} files, which may say the same twice"
        raise Refused("MIXED_FORMATS", f"{path} {why}; choose with a pattern such as FOLDER/*{formats[-1]}")
    prefix = f"hf://datasets/{parse(path).repo}@{commit}/" if commit else f"{root}/"
    return commit, [DataFile(name, f"{prefix}{name}", root / name, split_of(name)) for name in sorted(names)]


def resolve(location: str, root: str, beside: Sequence[str] = ()) -> DataFile:
    """One file again, on another machine, from its location and the path that was listed.

    Raises:
        Refused: NO_DATASET.
        EnvironmentProblem: the Hub cannot be reached and the cache has no copy.
    """
    if is_hub(location):
        address = parse(location)
        folder = snapshot(address.repo, address.revision, (address.path, *beside))
        return DataFile(address.path, location, folder / address.path, split_of(address.path))
    path = Path(location)
    name = path.relative_to(local_root(root, None)).as_posix()
    return DataFile(name, location, path, split_of(name))


def split_of(name: str) -> str | None:
    """train, validation, test, ... as a file's name or the nearest of its folders states it."""
    for part in reversed(name.split("/")):
        match = _NUMBERED.match(part)
        if match is not None and not (match["split"] == "data" and part.endswith(SAVED)):  # its folder is the split
            words = [match["split"].lower()]
        else:
            words = _WORD.findall(part.lower())
        if words:
            standard = part_of(words[-1])
            return words[-1] if standard is None else standard.word
    return None


def is_split(folder: str) -> bool:
    """Whether a folder's whole name is the name of a split."""
    return _WORD.fullmatch(folder.lower()) is not None


def _in_folder(path: str, suffixes: Sequence[str]) -> tuple[str, Path, list[str]]:
    given, root = Path(path), local_root(path, None)
    one = [given] if given.exists() else matching(path)
    found = files_below(given) if given.is_dir() else one
    wanted = [file for file in found if file.suffix in (*suffixes, SAVED) and not file.match(f"cache-*{SAVED}")]
    return "", root, [file.relative_to(root).as_posix() for file in wanted]


def _in_snapshot(path: str, suffixes: Sequence[str], beside: Sequence[str]) -> tuple[str, Path, list[str]]:
    address = parse(path)
    pattern = address.path
    exact = glob.has_magic(pattern) or pattern.endswith(tuple(suffixes))
    folder = f"{pattern}/" if pattern else ""
    patterns = (pattern,) if exact else tuple(f"{folder}*{suffix}" for suffix in suffixes)
    root = snapshot(address.repo, address.revision, (*patterns, *beside))
    names = [file.relative_to(root).as_posix() for file in files_below(root)]
    chosen = [name for name in names if any(fnmatchcase(name, each) for each in patterns)]
    return root.name, root, [name for name in chosen if name.endswith(tuple(suffixes))]


@lru_cache(maxsize=64)
def snapshot(repo: str, revision: str | None, patterns: tuple[str, ...]) -> Path:
    """The matching files of a data set from the client's cache; the folder is named after the commit.

    Raises:
        Refused: NO_DATASET.
        EnvironmentProblem: the Hub cannot be reached and the cache has no copy.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    revision = revision and revision.replace("%2F", "/")  # refs/convert/parquet
    try:
        return Path(snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=list(patterns)))
    except HfHubHTTPError as error:
        if error.response.status_code in BUSY:
            raise EnvironmentProblem(f"{repo}: the Hub does not answer now, try again later: {error}") from None
        raise Refused("NO_DATASET", f"{repo}: no such data set or revision, or no access: {error}") from None
    except OSError as error:
        raise EnvironmentProblem(
            f"the data set {repo} cannot be fetched and no copy is in the cache ({type(error).__name__}). Download it "
            f"once where there is a network (`hf download --repo-type dataset {repo}`), or name local files."
        ) from None
