"""The fusion of embeddings with words as a recipe: from scratch by its sizes, or from an aligned checkpoint."""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from pydantic import NonNegativeInt

from xfm.core.config import fingerprint
from xfm.core.errors import Refused
from xfm.core.hub import Fetched, Place, fetch_folder
from xfm.core.schema import EMBEDDING
from xfm.core.storage import Storage
from xfm.models.fusion.checkpoint import PATTERNS, FusionHeader, file_digests, read_bank, read_fusion, read_header
from xfm.models.fusion.label_embeddings import TextBank, encode_labels
from xfm.models.fusion.sizes import FusionSizes
from xfm.models.fusion.text import AnyText, HashedText
from xfm.models.hub_folder import NoCells
from xfm.tokenizers.embedding import EmbeddingTokenizer

if TYPE_CHECKING:
    from xfm.models.fusion.network import Concatenation, FusionBackbone, FusionModel

logger = logging.getLogger(__name__)

FREE = ("dropout", "resampler_dropout")  # of the sizes, those that weights do not depend on


class Fusion(NoCells, FusionSizes):
    """A cell's embedding fused with the words for its type (the network of a public gene-text model, corrected)."""

    token_fields: ClassVar[tuple[str, ...]] = ("text_column",)
    """All that stored rows depend on: networks of other sizes, or further trained, read the same ones."""

    kind: Literal["fusion"] = "fusion"
    other_input = "embeddings", "embeddings"

    checkpoint: Place | None = None
    """Folder that `pretrain --task.kind alignment` wrote, or hf://OWNER/NAME[@REVISION]: its sizes and its text encoder
    then count, and others are refused; dropout may be another. Without: from scratch."""

    text_column: str = "cell_type"
    """obs column of the words."""

    text: AnyText = HashedText()
    """What turns words into vectors, each different label once: hashed, an encoder of the BERT family (its folder or
    hf://OWNER/NAME), or all settings of either as JSON."""

    weights_seed: NonNegativeInt | None = None
    """Of weights drawn from scratch, also in place of the checkpoint's; by default the seed of the job."""

    @classmethod
    def not_in_fingerprint(cls) -> set[str]:
        """Where the files lie; `identity` says what they are."""
        return {"checkpoint"}

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that a source must give."""
        return (EMBEDDING,)

    @property
    def columns(self) -> tuple[str, ...]:
        """obs columns that are read beside them; a job carries them along by itself."""
        return (self.text_column,)

    @classmethod
    def of_weights(cls) -> tuple[str, ...]:
        """Fields that a checkpoint answers where nobody asks for them."""
        return (*FusionSizes.model_fields, "text")

    def settled(self) -> Self:
        """With the sizes and the text encoder of the checkpoint, where there is one, and its dropout unless set.

        Raises:
            Refused: OTHER_SIZES, fields are set to something else; NO_CHECKPOINT, or as `read_header`.
        """
        if self.checkpoint is None:
            return self
        header, asked = self._header(), self._asked()
        wanted, found = self.sizes.recipe(), header.sizes.recipe()
        odd = [f"{name} {wanted[name]} (the checkpoint's: {found[name]})" for name in wanted
               if name in asked and name not in FREE and wanted[name] != found[name]]  # fmt: skip
        text, own = self.text, header.text
        if "text" in asked and text.recipe() != own.recipe():
            odd.append(f"text {text.recipe()} (the checkpoint's: {own.recipe()})")
        if odd:
            raise Refused("OTHER_SIZES", f"sizes and text encoder are those of {self.checkpoint}; --backbone asks for "
                          f"{'; '.join(odd)}. Leave these out, or leave out --backbone.checkpoint to start from "
                          "scratch")  # fmt: skip
        # The same encoder under another address: its files were moved.
        text = text if text.recipe() == own.recipe() else own
        free = {name: getattr(self, name) for name in FREE if name in asked}
        return self.model_copy(update={**dict(header.sizes), **free, "text": text})

    def _asked(self) -> set[str]:
        """Fields of the network that somebody set.

        In a recipe that was read back from a record all of them are set: there, those that are not the default.
        """
        named = self.model_fields_set.intersection(self.of_weights())
        if len(named) < len(self.of_weights()):
            return named
        default = type(self).model_fields
        return {name for name in named if getattr(self, name) != default[name].default}

    def tokenizer(self, seed: int) -> EmbeddingTokenizer:  # noqa: ARG002 - nothing is drawn
        """Light: of a checkpoint, the labels that it knows."""
        labels = () if self.checkpoint is None else self._header().labels
        return EmbeddingTokenizer(self.text_column, labels)

    def bank_of(self, labels: Sequence[str], cache: Storage | None) -> TextBank:
        """The vectors of labels, in any order and number: of a checkpoint's own, its; of others, its encoder's.

        Args:
            labels: the texts of all rows, or the different ones among them.
            cache: an OUTPUT, whose label_embeddings.parquet is read first and gets what was encoded; None for nowhere.

        Returns:
            All different labels, and those of the checkpoint.

        Raises:
            Refused: NO_TEXT, a label is empty; OTHER_ENCODER, the checkpoint's encoder was another; or as its `encode`.
        """
        settled = self.settled()
        if self.checkpoint is None:
            return TextBank.of(encode_labels(settled.text, labels, cache), settled.text.about())
        bank = self._bank()
        more = sorted(set(labels) - set(bank.labels))
        if not more:
            return bank
        if settled.text.key() != bank.encoder["key"]:
            found = getattr(settled.text, "checkpoint", settled.text.kind)
            raise Refused("OTHER_ENCODER", f"{self.checkpoint} does not know {len(more)} of the labels, e.g. "
                          f"{more[0]!r}, and {found} is not the text encoder that it learned with. Name a copy of that "
                          "one as --backbone.text.checkpoint")  # fmt: skip
        return TextBank.of(bank.parts() | encode_labels(settled.text, more, cache), bank.encoder)

    def start(self, gene_dim: int, bank: TextBank, seed: int) -> "FusionModel | Concatenation":
        """The network at step 0, on the CPU, in training mode; `seed` draws weights where `weights_seed` is not set.

        Raises:
            Refused: OTHER_WIDTH, the checkpoint is of other embeddings or texts, or they do not divide into chunks.
        """
        from xfm.models.fusion.network import build_network

        settled = self.settled()
        if self.checkpoint is not None:
            header = self._header()
            for what, given, own in (("embeddings", gene_dim, header.gene_dim), ("texts", bank.dim, header.text_dim)):
                if given != own:
                    raise Refused("OTHER_WIDTH", f"{self.checkpoint} reads {what} of {own} numbers, these have "
                                  f"{given}: are they of the model that it was aligned on?")  # fmt: skip
            if self.weights_seed is None:
                return read_fusion(self._fetched().folder, settled.sizes).network.train()
        if settled.design == "fusion" and gene_dim % settled.gene_chunks:
            raise Refused("OTHER_WIDTH", f"embeddings of {gene_dim} numbers cannot be cut into --backbone.gene_chunks "
                          f"{settled.gene_chunks} equal pieces")  # fmt: skip
        seed = seed if self.weights_seed is None else self.weights_seed
        return build_network(settled.sizes, gene_dim, bank.dim, seed)

    def build(self, device: str) -> "FusionBackbone":
        """Reads the weights, or draws them where `weights_seed` says so; float32, in evaluation mode.

        Raises:
            Refused: NO_CHECKPOINT, NO_BLOCKS (a concatenation), or as `read_fusion`.
        """
        from xfm.models.fusion.network import FusionBackbone, FusionModel

        self._check_blocks()
        bank = self._bank()
        network = self.start(self._header().gene_dim, bank, 0)
        assert isinstance(network, FusionModel)
        return FusionBackbone(network, bank).to(device).eval()

    def identity(self) -> dict[str, Any]:
        """File digests, and the commit of a Hub checkpoint; of drawn weights what they follow from."""
        if self.checkpoint is None:
            content = {"sizes": self.sizes.recipe(), "text": self.text.key(), "seed": self.weights_seed}
            return {"weights": "random", "initial": fingerprint(content)}
        self.settled()
        fetched = self._fetched()
        identity: dict[str, Any] = file_digests(fetched.folder, weights=self.weights_seed is None)
        if self.weights_seed is not None:
            identity |= {"weights": "random", "seed": self.weights_seed}
        return identity | ({"revision": fetched.revision} if fetched.revision else {})

    def describe(self) -> dict[str, Any]:
        """Sizes, text encoder and labels; of a checkpoint also how many numbers were learned.

        Raises:
            Refused: as `settled` and `read_fusion`.
        """
        settled = self.settled()
        sizes, said = settled.sizes.recipe(), {"text_column": self.text_column}
        if self.checkpoint is None:
            return {"architecture": {"family": "fusion", **sizes}, "text": settled.text.about(), **said}
        header, network = self._header(), read_fusion(self._fetched().folder).network
        parameters = sum(parameter.numel() for parameter in network.parameters())
        widths = {"gene_dim": header.gene_dim, "text_dim": header.text_dim, "parameters": parameters}
        if self.text_column != header.text_column:
            logger.warning("words come from %s, the checkpoint learned from %s", self.text_column, header.text_column)
        if (seed := self.weights_seed) is not None:
            said["weights"] = f"random, seed {seed}"
            logger.warning("fresh weights from seed %d: nothing that %s learned is used", seed, self.checkpoint)
        return {
            "architecture": {"family": "fusion", **sizes, **widths}, "text": header.encoder,
            "labels": list(header.labels), "label_vectors": header.label_vectors, "about": header.about, **said,
        }  # fmt: skip

    def about(self) -> dict[str, Any]:
        """What the checkpoint says of how it was made; nothing where there is none."""
        return {} if self.checkpoint is None else self._header().about

    def n_layers(self) -> int:
        """Blocks of a resampler, and the meeting of both sides.

        Raises:
            Refused: NO_CHECKPOINT, nothing was learned yet; NO_BLOCKS, a concatenation has none.
        """
        self._check_blocks()
        return self.settled().layers + 1

    def dim(self) -> int:
        """Width of a latent; raises as `n_layers`."""
        self._check_blocks()
        return self.settled().hidden

    def randomised(self, seed: int) -> Self:
        return self.model_copy(update={"weights_seed": seed})

    def _check_blocks(self) -> None:
        if self.settled().design == "concat":
            raise Refused("NO_BLOCKS", "--backbone.design concat has no layers to read: judge the embedding itself")
        if self.checkpoint is None:
            raise Refused("NO_CHECKPOINT", "--backbone.kind fusion has learned nothing yet. Align it first, "
                          "`jobs/pretrain.py --task.kind alignment --output DIR`, and name --backbone.checkpoint "
                          "DIR/checkpoint; or train it from scratch, `jobs/finetune.py --task.kind "
                          "adversarial`")  # fmt: skip

    def _fetched(self) -> Fetched:
        assert self.checkpoint is not None
        return fetch_folder(self.checkpoint, PATTERNS)

    def _header(self) -> FusionHeader:
        return read_header(self._fetched().folder)

    def _bank(self) -> TextBank:
        return read_bank(self._fetched().folder, self._header())
