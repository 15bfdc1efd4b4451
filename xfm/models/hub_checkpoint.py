"""Recipes of checkpoints that `transformers` reads: where they lie, what they are, fresh weights in their place."""

import logging
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar, Self

import pyarrow as pa
from pydantic import NonNegativeInt

from xfm.core.config import Config, fingerprint
from xfm.core.errors import Refused
from xfm.core.hub import Fetched, Place, fetch_folder
from xfm.models.hub_folder import PATTERNS, Files, digests, read_json

logger = logging.getLogger(__name__)


class HubCheckpoint(Config):
    """A folder of a backbone, on this machine or on the Hub."""

    other_input: ClassVar[tuple[str, str]]
    """What is read in place of genes, and a kind of source that has it."""

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
            Refused: as `hub_folder.find_files`.
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
        identity: dict[str, Any] = dict(digests(files))
        if self.random_weights is not None:
            identity |= {
                "weights": "random",
                "seed": self.random_weights,
                "architecture": fingerprint(read_json(files.settings)),
            }
        revision = self._fetched().revision
        return identity | ({"revision": revision} if revision else {})

    def describe(self) -> dict[str, Any]:
        """Sizes, tokens, and what of the checkpoint is not used.

        Raises:
            Refused: as `build` and the tokenizers.
        """
        described = self.architecture()
        if self.random_weights is not None:
            described["weights"] = f"random, seed {self.random_weights}"
            logger.warning(
                "fresh weights from seed %d: nothing that %s learned is used", self.random_weights, self.folder
            )
        return described

    def randomised(self, seed: int) -> Self:
        return self.model_copy(update={"random_weights": seed})

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

    def _fetched(self) -> Fetched:
        return fetch_folder(self.checkpoint, PATTERNS)
