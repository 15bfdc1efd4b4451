"""Text encoders of the Hugging Face library as a recipe: which checkpoint, how many tokens."""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from xfm.core.schema import TEXT
from xfm.models.hub_checkpoint import HubCheckpoint
from xfm.models.hub_folder import Files, find_files

if TYPE_CHECKING:
    from xfm.models.hf_text.network import TextBackbone
    from xfm.tokenizers.text import TextTokenizer


class HFText(HubCheckpoint):
    """An encoder of text: BERT, BioBERT, MiniLM, DistilBERT, RoBERTa, XLM-RoBERTa, CamemBERT."""

    kind: Literal["hf_text"] = "hf_text"
    other_input = "texts", "hub_text"

    max_length: PositiveInt | None = None
    """Tokens of a text, special tokens included; longer texts are cut. By default the model's limit, at most 512."""

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

        subwords, pad_id, length, before, after = read_subwords(self.folder, self.max_length)
        return TextTokenizer(subwords, pad_id, length, before, after)

    def build(self, device: str) -> "TextBackbone":
        """Reads the weights, or draws them; float32.

        Raises:
            Refused: unsafe or broken file, missing tensors.
        """
        from xfm.models.hf_text.loading import draw_network, read_network
        from xfm.models.hf_text.network import TextBackbone

        folder = self.folder
        network = read_network(folder)[0] if self.random_weights is None else draw_network(folder, self.random_weights)
        return TextBackbone(network.to(device)).eval()

    def files(self, *, weights: bool) -> Files:
        return find_files(self.folder, weights=weights)

    def architecture(self) -> dict[str, Any]:
        """See `HubCheckpoint`; with the longest text."""
        return _describe(self.folder, self.random_weights is None) | {"max_length": self.tokenizer(0).max_length}

    def n_layers(self) -> int:
        return int(self._architecture().num_hidden_layers)

    def dim(self) -> int:
        return int(self._architecture().hidden_size)

    def _architecture(self) -> Any:
        from xfm.models.hf_text.loading import read_architecture

        return read_architecture(self.folder)


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
