"""A checkpoint folder of the Hugging Face library: weights, settings, tokenizer, and the recipe that names it.

Light to import, reads no tensor.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import NonNegativeInt

from xfm.core.config import Config, fingerprint
from xfm.core.errors import Refused
from xfm.core.hub import Fetched, Place, fetch_folder

logger = logging.getLogger(__name__)

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


def digests(paths: Iterable[Path]) -> dict[str, str]:
    """File name to SHA-256 of its bytes."""
    return {path.name: _sha256(path, path.stat().st_mtime_ns, path.stat().st_size) for path in paths}


def find_files(folder: Path, *, weights: bool = True, images: tuple[str, ...] = ()) -> Files:
    """The files of a folder.

    Args:
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


class NoCells(Config):
    """A backbone that reads something else than cells of genes."""

    other_input: ClassVar[tuple[str, str]]
    """What is read in place of genes, and a kind of source that has it."""

    def check_decoder(self) -> None:
        """Raises Refused: NO_DECODER, since no expression can be decoded from what is no cell."""
        raise Refused("NO_DECODER", f"--backbone.kind {self._kind} has no expression decoder; use embed and evaluate")

    def check_genes(self, genes: pa.Table) -> dict[str, Any]:
        """Refuses every gene table.

        Raises:
            Refused: OTHER_INPUT.
        """
        what, source = self.other_input
        raise Refused(
            "OTHER_INPUT",
            f"the source gives cells with {genes.num_rows} genes; --backbone.kind {self._kind} reads {what}, e.g. "
            f"those of --source.kind {source}",
        )

    @property
    def _kind(self) -> str:
        return str(self.model_dump(include={"kind"})["kind"])


class HubCheckpoint(NoCells):
    """A folder of a backbone, on this machine or on the Hub."""

    checkpoint: Place
    """Folder with model.safetensors, config.json and the tokenizer's files (for pictures also what prepares them); or
    hf://OWNER/NAME[@REVISION]."""

    random_weights: NonNegativeInt | None = None
    """Seed of fresh weights in place of the checkpoint's: same architecture and tokens, nothing learned."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the files lie; `identity` says what they are."""
        return {"checkpoint"}

    @property
    def folder(self) -> Path:
        """The checkpoint on this machine, fetched where it is the Hub's."""
        return self._fetched().folder

    @abstractmethod
    def files(self, *, weights: bool) -> Files:
        """Its files, those of the weights where they are needed.

        Raises:
            Refused: as `find_files`.
        """

    @abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Sizes for the report, and under "unused" what of the weights no part takes.

        Raises:
            Refused: the checkpoint cannot be used.
        """

    def identity(self) -> dict[str, Any]:
        """File digests, and the commit of a Hub checkpoint; of fresh weights what they follow from."""
        files = self.files(weights=self.random_weights is None)
        identity: dict[str, Any] = {**digests((*files.weights, files.settings, *files.tokenizer, *files.images))}
        if self.random_weights is not None:
            settings = fingerprint(read_json(files.settings))
            identity |= {"weights": "random", "seed": self.random_weights, "architecture": settings}
        revision = self._fetched().revision
        return identity | ({"revision": revision} if revision else {})

    def describe(self) -> dict[str, Any]:
        """Sizes, tokens, and what of the checkpoint is not used.

        Raises:
            Refused: as `build` and the tokenizers.
        """
        described = self.architecture()
        if (seed := self.random_weights) is not None:
            described["weights"] = f"random, seed {seed}"
            logger.warning("fresh weights from seed %d: nothing that %s learned is used", seed, self.folder)
        return described

    def randomised(self, seed: int) -> Self:
        return self.model_copy(update={"random_weights": seed})

    def _fetched(self) -> Fetched:
        return fetch_folder(self.checkpoint, PATTERNS)
