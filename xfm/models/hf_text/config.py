"""Text encoders of the Hugging Face library as a recipe: which checkpoint, how many tokens."""

import logging
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
from pydantic import NonNegativeInt, PositiveInt, field_validator

from xfm.core.config import Config, fingerprint
from xfm.core.errors import Refused
from xfm.core.hub import Fetched, fetch_folder
from xfm.core.schema import TEXT
from xfm.models.hub_folder import PATTERNS, digests, find_files, read_json

if TYPE_CHECKING:
    from xfm.models.hf_text.network import TextBackbone
    from xfm.tokenizers.text import TextTokenizer

logger = logging.getLogger(__name__)


class HFText(Config):
    """An encoder of text: BERT, BioBERT, MiniLM, DistilBERT, RoBERTa, XLM-RoBERTa, CamemBERT."""

    kind: Literal["hf_text"] = "hf_text"

    checkpoint: str
    """Folder with model.safetensors, config.json and the tokenizer's files; or hf://OWNER/NAME[@REVISION]."""

    max_length: PositiveInt | None = None
    """Tokens of a text, special tokens included; longer texts are cut. By default the model's limit, at most 512."""

    random_weights: NonNegativeInt | None = None
    """Seed of fresh weights in place of the checkpoint's: same architecture and tokens, nothing learned."""

    @field_validator("checkpoint")
    @classmethod
    def _absolute(cls, path: str) -> str:
        """Workers run in folders of their own."""
        return path if path.startswith("hf://") else str(Path(path).expanduser().absolute())

    @classmethod
    def neutral_fields(cls) -> set[str]:
        """Where the files lie; `identity` says what they are."""
        return {"checkpoint"}

    @property
    def reads(self) -> tuple[str, ...]:
        """Columns that a source must give."""
        return (TEXT,)

    def tokenizer(self, seed: int) -> "TextTokenizer":  # noqa: ARG002 - nothing is drawn
        """Reads the tokenizer's files, no weights.

        Raises:
            Refused: BAD_TOKENIZER or TOO_LONG.
        """
        from xfm.models.hf_text.loading import read_subwords
        from xfm.tokenizers.text import TextTokenizer

        subwords, pad_id, length, before, after = read_subwords(self._fetched().folder, self.max_length)
        return TextTokenizer(subwords, pad_id, length, before, after)

    def build(self, device: str) -> "TextBackbone":
        """Reads the weights, or draws them; float32.

        Raises:
            Refused: unsafe or broken file, missing tensors.
        """
        from xfm.models.hf_text.loading import draw_network, read_network
        from xfm.models.hf_text.network import TextBackbone

        folder = self._fetched().folder
        network = read_network(folder)[0] if self.random_weights is None else draw_network(folder, self.random_weights)
        return TextBackbone(network.to(device)).eval()

    def identity(self) -> dict[str, Any]:
        """File digests, and the commit of a Hub checkpoint; of fresh weights what they follow from."""
        fetched = self._fetched()
        files = find_files(fetched.folder, weights=self.random_weights is None)
        identity: dict[str, Any] = dict(digests(files))
        if self.random_weights is not None:
            identity |= {
                "weights": "random",
                "seed": self.random_weights,
                "architecture": fingerprint(read_json(files.settings)),
            }
        return identity | ({"revision": fetched.revision} if fetched.revision else {})

    def describe(self) -> dict[str, Any]:
        """Sizes, and what of the checkpoint is not used.

        Raises:
            Refused: as `build` and `tokenizer`.
        """
        folder = self._fetched().folder
        described = _describe(folder, self.random_weights is None)
        described |= {"max_length": self.tokenizer(0).max_length}
        if self.random_weights is not None:
            described["weights"] = f"random, seed {self.random_weights}"
            logger.warning("fresh weights from seed %d: nothing that %s learned is used", self.random_weights, folder)
        return described

    def n_layers(self) -> int:
        """Transformer blocks."""
        return int(self._architecture().num_hidden_layers)

    def dim(self) -> int:
        """Width of a state."""
        return int(self._architecture().hidden_size)

    def check_genes(self, genes: pa.Table) -> dict[str, Any]:
        """Refuses every gene table: the vocabulary is made of pieces of words.

        Raises:
            Refused: OTHER_INPUT.
        """
        raise Refused(
            "OTHER_INPUT",
            f"the source gives cells with {genes.num_rows} genes; --backbone.kind {self.kind} reads texts, e.g. those "
            "of --source.kind hub_text",
        )

    def check_decoder(self) -> None:
        """Raises Refused: NO_DECODER, since no expression can be decoded from text."""
        raise Refused("NO_DECODER", f"--backbone.kind {self.kind} has no expression decoder; use embed and evaluate")

    def randomised(self, seed: int) -> Self:
        """This recipe with fresh weights."""
        return self.model_copy(update={"random_weights": seed})

    def _fetched(self) -> Fetched:
        return fetch_folder(self.checkpoint, PATTERNS)

    def _architecture(self) -> Any:
        from xfm.models.hf_text.loading import read_architecture

        return read_architecture(self._fetched().folder)


@lru_cache(maxsize=8)
def _sizes(folder: Path, has_weights: bool) -> tuple[int, tuple[str, ...]]:
    """Parameters, and tensors of the checkpoint that no part takes. Reads the weights and lets them go."""
    from xfm.models.hf_text.loading import draw_network, read_network

    network, unused = read_network(folder) if has_weights else (draw_network(folder, 0), [])
    return sum(parameter.numel() for parameter in network.parameters()), tuple(unused)


def _describe(folder: Path, has_weights: bool) -> dict[str, Any]:
    from xfm.models.hf_text.loading import read_architecture

    a = read_architecture(folder)
    parameters, unused = _sizes(folder, has_weights)
    return {
        "architecture": {
            "family": a.model_type,
            "n_layers": a.num_hidden_layers,
            "dim": a.hidden_size,
            "n_heads": a.num_attention_heads,
            "vocabulary": a.vocab_size,
            "parameters": parameters,
        },
        "unused": list(unused),
    }
