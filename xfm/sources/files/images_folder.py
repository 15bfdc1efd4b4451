"""Pictures in a folder per class: ROOT/CLASS/..., or ROOT/SPLIT/CLASS/... where a folder bears the name of a split."""

import os
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import ShardRefused
from xfm.core.schema import IMAGE
from xfm.sources.files.columns import IMAGE_SUFFIXES, Layout, Outline, Rows
from xfm.sources.files.found import DataFile, is_split, split_of
from xfm.sources.files.parquet import SUFFIXES as TABLES
from xfm.sources.paths import SAMPLED_FROM_BYTES

LABEL = "label"
ROOT = "pictures"  # stands for the root itself, whose pictures' ids begin with their class
OTHER_SUFFIXES = (*TABLES, ".tar")
SAMPLED_FILES, _STEP_ROWS = 256, 16
_KEPT = (*IMAGE_SUFFIXES, *OTHER_SUFFIXES)


def is_folder_of_pictures(path: Path) -> bool:
    """Whether a path is a folder that holds pictures as files of their own and no file of another layout."""
    return path.is_dir() and not _pictures(path, OTHER_SUFFIXES) and bool(_pictures(path))


def folders_of_pictures(root: Path, location: str) -> list[DataFile]:
    """The folders of a root where one bears the name of a split, else the root itself; none where there is no picture.

    `location` is the root as any machine of the cluster finds it.
    """
    if not root.is_dir() or not _pictures(root):
        return []
    parts = [each for each in _entries(root)[1] if _pictures(root / each)]
    if any(is_split(each) for each in parts):
        return [folder(root / each, f"{location.rstrip('/')}/{each}", location) for each in parts]
    return [folder(root, location.rstrip("/"), location)]


def folder(path: Path, location: str, root: str) -> DataFile:
    """One folder that `folders_of_pictures` lists: its path here, its location, and that of the root."""
    name = ROOT if location.rstrip("/") == root.rstrip("/") else path.name
    return DataFile(name, location, path, split_of(path.name) if is_split(path.name) else None)


def outline(path: Path, name: str) -> Outline:
    """What a folder holds: pictures, with a label where they lie in folders of their own.

    Raises:
        ShardRefused: NO_SUCH_FILE.
    """
    if not path.is_dir():
        raise ShardRefused("NO_SUCH_FILE", f"{name}: no folder at {path}")
    pictures = _pictures(path)
    classes = dict.fromkeys(label for each in pictures if (label := _label(each)) is not None)
    types = {IMAGE: pa.large_binary()} | ({LABEL: pa.string()} if classes else {})
    return Outline(len(pictures), types, {LABEL: tuple(classes)} if classes else {})


def read_rows(path: Path, name: str, layout: Layout, rows: NDArray[np.int64]) -> Iterator[Rows]:
    """Some rows, whose numbers ascend, a few at a time. Ids are paths below the root that was listed.

    Raises:
        ShardRefused: ROWS_CHANGED, a picture is gone since it was listed.
    """
    pictures = _pictures(path)
    prefix = "" if name == ROOT else f"{name}/"
    for low in range(0, len(rows), _STEP_ROWS):
        chosen = [pictures[row] for row in rows[low : low + _STEP_ROWS]]
        images: list[bytes | None] = []
        problems: dict[int, str] = {}
        for i, each in enumerate(chosen):
            try:
                images.append((path / each).read_bytes())
            except FileNotFoundError as problem:
                raise ShardRefused("ROWS_CHANGED", f"{prefix}{each} was there when listed and is gone") from problem
            except OSError as problem:
                images.append(None)
                problems[i] = f"UNREADABLE: {problem.strerror}"
        inside = {LABEL: pa.array([_label(each) for each in chosen], pa.string())} if LABEL in layout.columns else {}
        yield Rows([f"{prefix}{each}" for each in chosen], pa.array(images, pa.large_binary()), inside, problems)


def digest(path: Path) -> str:
    """SHA-256 over names, sizes and contents; above 256 MiB over the contents of 256 evenly spaced pictures."""
    pictures = _pictures(path)
    sizes = [(path / each).stat().st_size for each in pictures]
    summed = sha256("\n".join(f"{each}\t{size}" for each, size in zip(pictures, sizes, strict=True)).encode())
    whole = sum(sizes) <= SAMPLED_FROM_BYTES
    for place in range(len(pictures)) if whole else np.linspace(0, len(pictures) - 1, SAMPLED_FILES).astype(int):
        summed.update((path / pictures[place]).read_bytes())
    return f"{'' if whole else 'sampled-'}sha256:{summed.hexdigest()}"


def _label(picture: str) -> str | None:
    """The first folder of a path."""
    return picture.split("/")[0] if "/" in picture else None


def _pictures(path: Path, suffixes: tuple[str, ...] = IMAGE_SUFFIXES) -> list[str]:
    """Paths of all pictures, or other files, below a folder, in the order of folders and names."""
    files, folders = _entries(path)
    here = [name for name in files if name.lower().endswith(suffixes)]
    return here + [f"{folder}/{each}" for folder in folders for each in _pictures(path / folder, suffixes)]


def _entries(path: Path) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return _listed(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=65536)
def _listed(path: Path, modified_ns: int) -> tuple[tuple[str, ...], tuple[str, ...]]:  # noqa: ARG001
    """Data files and folders of one folder; a folder that has not changed since is not listed again."""
    with os.scandir(path) as found:
        entries = [(entry.name, entry.is_dir()) for entry in found if not entry.name.startswith(".")]
    files = sorted(name for name, is_folder in entries if not is_folder and name.lower().endswith(_KEPT))
    return tuple(files), tuple(sorted(name for name, is_folder in entries if is_folder))
