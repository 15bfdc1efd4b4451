"""scGPT as a recipe: which checkpoint, which tokens. Builds its tokenizer and its network where they are used."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
from pydantic import Field, NonNegativeInt, PositiveInt

from xfm.core.config import Config, fingerprint
from xfm.core.errors import Refused
from xfm.core.hub import Fetched, Place, fetch_folder
from xfm.models.scgpt.files import Files, find_files, gene_tokens, read_vocab
from xfm.models.scgpt.fresh import draw
from xfm.models.scgpt.settings import Architecture, Declared, declare, read_args

if TYPE_CHECKING:
    from xfm.models.scgpt.network import ScGPTBackbone
    from xfm.tokenizers.binned import BinnedTokenizer

logger = logging.getLogger(__name__)

PATTERNS = ("*.safetensors", "*.pt", "*.json")
REFERENCE_BINS = 51


class ScGPT(Config):
    """An scGPT checkpoint in any of its layouts (Cui et al., Nature Methods 2024)."""

    kind: Literal["scgpt"] = "scgpt"

    checkpoint: Place
    """Folder with weights, args.json (or config.json) and vocab.json; or hf://OWNER/NAME[@REVISION]."""

    vocab: Place | None = None
    """vocab.json, where the checkpoint has none (the Hub's tdc/scGPT)."""

    ties: Literal["mid", "keyed", "low", "high"] = "mid"
    """Bin of a value that spans several: the middle one, the lowest, the highest, or one drawn by seed and cell."""

    max_length: PositiveInt = Field(1200, ge=2)
    """Tokens of a cell, <cls> included; longer cells are sampled by a keyed choice."""

    n_bins: PositiveInt | None = Field(None, ge=3)
    """Bins, zero included; by default what the checkpoint was trained with, 51 where it does not say."""

    cls_value: float | None = None
    """Value at <cls>; by default the checkpoint's pad_value, as its package embeds. Some fine-tuned models used 0."""

    min_overlap: float = Field(0.1, ge=0, le=1)
    """Least share of genes that must be known (of the data's genes or of the vocabulary, whichever is smaller)."""

    batch_key: str | None = None
    """obs column with the batch label of each cell, for checkpoints conditioned on it; add it to --source.obs."""

    batch_labels: tuple[str, ...] = ()
    """Values of batch_key in the order the checkpoint numbers them."""

    autocast: bool = False
    """bfloat16 on CUDA; CPUs compute in float32 always."""

    random_weights: NonNegativeInt | None = None
    """Seed of fresh weights in place of the checkpoint's: same architecture, vocabulary and tokens, nothing learned."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the files lie; `identity` says what they are."""
        return {"checkpoint", "vocab"}

    def recipe(self) -> dict[str, Any]:
        """`random_weights` only where set: without it a run's fingerprint is what it was before there was the field."""
        plain = super().recipe()
        return plain if self.random_weights is not None else {k: v for k, v in plain.items() if k != "random_weights"}

    def tokenizer(self, seed: int) -> "BinnedTokenizer":
        """Reads the vocabulary, and the weights only where settings leave open which value stands for padding."""
        from xfm.tokenizers.binned import BinnedTokenizer

        declared, vocabulary = self._declared(), self._vocabulary()
        pad_value = -2 if declared.pad_value is None else declared.pad_value
        cls_value = float(pad_value)
        if declared.value_style == "category":
            pad_value = self._checked()[0].pad_value
            # Values are rows of an embedding there; fine-tuning gives <cls> the value 0.
            cls_value = 0.0 if pad_value < 0 else float(pad_value)
        return BinnedTokenizer(
            vocabulary=gene_tokens(vocabulary),
            cls_id=vocabulary["<cls>"],
            pad_id=vocabulary[declared.pad_token or "<pad>"],
            cls_value=cls_value if self.cls_value is None else self.cls_value,
            pad_value=float(pad_value),
            n_bins=self.n_bins or declared.n_bins or REFERENCE_BINS,
            ties=self.ties,
            max_length=self.max_length,
            seed=seed,
            min_overlap=self.min_overlap,
            batch_key=self.batch_key,
            batch_labels=self.batch_labels,
        )

    def build(self, device: str) -> "ScGPTBackbone":
        """Reads the weights, or draws them.

        Raises:
            Refused: unsafe or broken file, missing tensors, shapes that do not fit.
        """
        from xfm.models.scgpt.checkpoint import build_network, read_checkpoint

        if self.random_weights is not None:
            architecture = self._checked()[0]
            pad_id = self._vocabulary()[architecture.pad_token]
            return draw(architecture, pad_id, self.random_weights, autocast=self.autocast).to(device).eval()
        checkpoint = read_checkpoint(self._fetched().folder, vocab_path=self._vocab_path())
        return build_network(checkpoint, autocast=self.autocast).to(device).eval()

    def identity(self) -> dict[str, Any]:
        """File digests, and the commit of a Hub checkpoint; of fresh weights what they follow from."""
        revision = self._fetched().revision
        files = self._files()
        identity: dict[str, Any] = {**files.digests()}
        if self.random_weights is not None:
            del identity[files.weights.name]
            sizes = self._checked()[0].model_dump(mode="json")
            identity |= {"weights": "random", "seed": self.random_weights, "architecture": fingerprint(sizes)}
        return identity | ({"revision": revision} if revision else {})

    def n_layers(self) -> int:
        return self._checked()[0].n_layers

    def dim(self) -> int:
        return self._checked()[0].dim

    def describe(self) -> dict[str, Any]:
        """What the checkpoint holds, and what of it is not used.

        Raises:
            Refused: as `build`.
        """
        architecture, report = self._checked()
        labels = architecture.n_labels
        if self.batch_key is not None and len(self.batch_labels) != labels:
            raise Refused(
                "BAD_LABELS",
                f"the checkpoint knows {labels} batch labels; --backbone.batch_labels names {len(self.batch_labels)}: "
                "name all of them, in the order the checkpoint numbers them",
            )
        described = {"architecture": architecture.model_dump(), **report}
        if self.random_weights is not None:
            file = self._files().weights.name
            described["weights"] = (
                f"random, seed {self.random_weights}; of {file} the shapes were read, not the numbers"
            )
            logger.warning("fresh weights from seed %d: nothing that %s learned is used", self.random_weights, file)
        if self.batch_key is None and architecture.input_norm == "dsbn":
            logger.warning("no --backbone.batch_key: cells are normalised by the average over %d batch labels", labels)
            described["batch_normalisation"] = f"average over {labels} labels, for want of --backbone.batch_key"
        return described

    def check_decoder(self) -> None:
        """Whether expression can be decoded with these settings.

        Raises:
            Refused: NO_DECODER, or NEEDS_LABELS for a decoder that is conditioned on batch labels.
        """
        architecture = self._checked()[0]
        if not architecture.decoder:
            raise Refused("NO_DECODER", f"{self.checkpoint} has no expression decoder (decoder.fc.*)")
        if architecture.label_encoder and self.batch_key is None:
            raise Refused(
                "NEEDS_LABELS",
                f"the decoder of {self.checkpoint} is conditioned on {architecture.n_labels} batch labels: give "
                "--backbone.batch_key COLUMN and --backbone.batch_labels A,B,...",
            )

    def check_genes(self, genes: pa.Table) -> dict[str, Any]:
        """Overlap of a gene table with the vocabulary.

        Raises:
            Refused: NO_OVERLAP.
        """
        from xfm.tokenizers.vocabulary import match_genes

        return match_genes(genes, gene_tokens(self._vocabulary()), self.min_overlap).describe()

    def randomised(self, seed: int) -> Self:
        return self.model_copy(update={"random_weights": seed})

    def _fetched(self) -> Fetched:
        return fetch_folder(self.checkpoint, PATTERNS)

    def _vocab_path(self) -> Path | None:
        if self.vocab is None:
            return None
        if not self.vocab.startswith("hf://"):
            return Path(self.vocab).expanduser()
        folder, _, name = self.vocab.rpartition("/")
        return fetch_folder(folder, (f"*{name}",)).folder / name

    def _checked(self) -> tuple[Architecture, dict[str, Any]]:
        return _read_once(self._fetched().folder, self._vocab_path())

    def _files(self) -> Files:
        return find_files(self._fetched().folder, self._vocab_path())

    def _declared(self) -> Declared:
        return declare(read_args(self._fetched().folder))

    def _vocabulary(self) -> dict[str, int]:
        vocabulary = read_vocab(self._files().vocab)
        pad = self._declared().pad_token or "<pad>"
        if pad not in vocabulary:
            raise Refused("BAD_VOCABULARY", f"the settings name the padding token {pad!r}, which the vocabulary lacks")
        return vocabulary


@lru_cache(maxsize=8)
def _read_once(folder: Path, vocab: Path | None) -> tuple[Architecture, dict[str, Any]]:
    """Reads the weights to judge them, and lets them go."""
    from xfm.models.scgpt.checkpoint import read_checkpoint

    checkpoint = read_checkpoint(folder, vocab_path=vocab)
    checkpoint.log()
    return checkpoint.architecture, checkpoint.report()
