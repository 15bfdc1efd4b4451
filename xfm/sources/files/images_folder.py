"""Pictures in a folder per class: ROOT/CLASS/..., or ROOT/SPLIT/CLASS/... where a folder bears the name of a split."""

import logging
import os
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import IMAGE
from xfm.sources.files.columns import IMAGE_SUFFIXES, Layout, Outline, Rows
from xfm.sources.files.found import DataFile, is_split, split_of
from xfm.sources.files.parquet import SUFFIXES as TABLES
from xfm.sources.paths import SAMPLED_FROM_BYTES, files_below

logger = logging.getLogger(__name__)

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
    # A class may be called train, beside car and bus: what holds pictures of its own is a split only where all are.
    splits = [each for each in parts if is_split(each)]
    if splits and (splits == parts or any(not _own_pictures(root / each) for each in splits)):
        for each in parts:
            _check_classes(root / each)
            _tell_what_is_left_out(root / each)
        return [folder(root / each, f"{location.rstrip('/')}/{each}", location) for each in parts]
    _check_classes(root)
    _tell_what_is_left_out(root)
    return [folder(root, location.rstrip("/"), location)]


def _check_classes(root: Path) -> None:
    """Refuses folders that can hardly be classes: none holds a picture of its own, or all are named after splits.

    Raises:
        Refused: CLASS_FOLDERS, with the folder to name instead.
    """
    classes = [each for each in _entries(root)[1] if _pictures(root / each)]
    if not classes:
        return
    holds_none = all(not _own_pictures(root / each) for each in classes)
    named_so = len(classes) > 1 and all(split_of(each) is not None for each in classes)
    if holds_none or named_so:
        why = "hold folders and no picture of their own" if holds_none else "are named like parts of a data set"
        inner = next((root / each for each in classes if _entries(root / each)[1]), root / classes[0])
        raise Refused(
            "CLASS_FOLDERS",
            f"{root}: the folders {', '.join(classes[:5])} {why}, so that they are hardly the classes. Name the folder "
            f"whose folders are the classes, e.g. {inner}; folders that are called train, validation and test are "
            "understood as they are",
        )


def _own_pictures(path: Path) -> bool:
    return any(name.lower().endswith(IMAGE_SUFFIXES) for name in _entries(path)[0])


def _tell_what_is_left_out(root: Path) -> None:
    """Warns of a class folder without a picture, and of other files beside pictures, by their suffixes."""
    for each in _entries(root)[1]:
        others: Counter[str] = Counter()
        for file in files_below(root / each):
            if not file.name.startswith(".") and not file.name.lower().endswith(_KEPT):
                others[file.suffix.lower() or file.name] += 1
        left = ", ".join(f"{count:,} {suffix}" for suffix, count in others.most_common(4))
        if not _pictures(root / each):
            logger.warning("%s: no picture that can be read%s", root / each, f", only {left}" if left else "")
        elif left:
            logger.warning("%s: left out, as no picture: %s", root / each, left)


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
