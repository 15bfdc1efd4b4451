"""A checkpoint folder of the Hugging Face library: weights, settings, tokenizer. Light to import, reads no tensor."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from xfm.core.errors import Refused

PATTERNS = ("*.safetensors", "*.json", "*.txt")

WEIGHTS, INDEX, SETTINGS = "model.safetensors", "model.safetensors.index.json", "config.json"
TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
VOCABULARIES = (("tokenizer.json",), ("vocab.txt",), ("vocab.json", "merges.txt"))


@dataclass(frozen=True, slots=True)
class Files:
    """Paths of one checkpoint."""

    weights: tuple[Path, ...]  # the tensors, in one file or several with their index; empty where none are needed
    settings: Path  # config.json
    tokenizer: tuple[Path, ...]  # all files that a tokenizer is read from
    images: tuple[Path, ...] = ()  # all files that say how pictures are prepared; empty for models of text


def digests(files: Files) -> dict[str, str]:
    """File name to SHA-256 of its bytes."""
    paths = (*files.weights, files.settings, *files.tokenizer, *files.images)
    return {path.name: _sha256(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def find_files(folder: Path, *, weights: bool = True, images: tuple[str, ...] = ()) -> Files:
    """The files of a folder.

    Args:
        folder: of the checkpoint.
        weights: whether weights are needed.
        images: names of files that say how pictures are prepared, of which one is needed; none for models of text.

    Raises:
        Refused: NO_SETTINGS, NO_WEIGHTS, UNSAFE_WEIGHTS, NO_TOKENIZER or NO_PREPROCESSOR.
    """
    settings = folder / SETTINGS
    if not settings.is_file():
        raise Refused("NO_SETTINGS", f"{folder} holds no {SETTINGS}, which says what network the weights belong to")
    if not any(all((folder / name).is_file() for name in names) for names in VOCABULARIES):
        raise Refused(
            "NO_TOKENIZER",
            f"{folder} holds none of tokenizer.json, vocab.txt, or vocab.json with merges.txt: put the tokenizer's "
            "files beside the weights",
        )
    prepared = tuple(folder / name for name in images if (folder / name).is_file())
    if images and not prepared:
        raise Refused(
            "NO_PREPROCESSOR",
            f"{folder} holds none of {', '.join(images)}, which say how pictures are cropped and scaled: put that of "
            "the model's repository beside the weights",
        )
    tokenizer = tuple(folder / name for name in TOKENIZER if (folder / name).is_file())
    reader = "AutoProcessor" if images else "AutoTokenizer"
    return Files(_weights(folder, reader) if weights else (), settings, tokenizer, prepared)


def _weights(folder: Path, reader: str) -> tuple[Path, ...]:
    if (folder / WEIGHTS).is_file():
        return (folder / WEIGHTS,)
    if (folder / INDEX).is_file():
        names = set(read_json(folder / INDEX).get("weight_map", {}).values())
        parts = tuple(folder / name for name in sorted(names))
        if parts and all(part.parent == folder and part.is_file() for part in parts):
            return (folder / INDEX, *parts)
        raise Refused("NO_WEIGHTS", f"{folder / INDEX} lists files that are not there: {', '.join(sorted(names))}")
    pickles = sorted(path.name for path in folder.glob("*.bin"))
    convert = (
        f'Convert a checkpoint you trust, once: python -c "from transformers import AutoModel, {reader} as T; '
        "AutoModel.from_pretrained('NAME').save_pretrained('DIR'); T.from_pretrained('NAME').save_pretrained('DIR')\", "
        "and give --backbone.checkpoint DIR"
    )
    if pickles:
        raise Refused(
            "UNSAFE_WEIGHTS",
            f"{folder} holds {', '.join(pickles)} only: a pickle, which can run code when it is read. {convert}",
        )
    raise Refused("NO_WEIGHTS", f"{folder} holds no {WEIGHTS}. Where the repository has pytorch_model.bin: {convert}")


def read_json(path: Path) -> dict[str, Any]:
    """Raises Refused: BAD_SETTINGS."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as problem:
        raise Refused("BAD_SETTINGS", f"{path} is no JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise Refused("BAD_SETTINGS", f"{path} is no JSON object")
    return content


@contextmanager
def new_folder(folder: Path, *, replace: bool) -> Iterator[Path]:
    """A folder to write into, which takes its name when all is written; where writing fails nothing is left.

    Args:
        folder: created; its parent too.
        replace: whether an existing folder is exchanged.

    Raises:
        Refused: OUTPUT_EXISTS, the folder is there and `replace` is not set.
    """
    if folder.exists() and not replace:
        raise Refused("OUTPUT_EXISTS", f"{folder} exists already; a checkpoint is written to a new folder")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new, old = Path(scratch) / "new", Path(scratch) / "old"
        new.mkdir()
        yield new
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
        shutil.rmtree(old, ignore_errors=True)


@lru_cache(maxsize=256)
def _sha256(path: Path, mtime_ns: int, size: int) -> str:  # noqa: ARG001 - a file that was replaced is read again
    """Once a process: weights are hundreds of megabytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
