"""Text encoders of the Hugging Face library: which checkpoint, how many tokens, and what is read of its folder.

Light to import.
"""

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PositiveInt

from xfm.core.errors import Refused
from xfm.core.schema import TEXT
from xfm.models import pretrained
from xfm.models.hub_folder import Files, HubCheckpoint, find_files, read_json
from xfm.models.pretrained import FAMILIES
from xfm.tokenizers.text import TextTokenizer

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Subwords

    from xfm.models.hf_text.network import TextBackbone

# These number positions from the padding id + 1, so that many rows of the table hold none.
POSITIONS_AFTER_PADDING = ("roberta", "xlm-roberta", "camembert")
LONGEST = 512  # tokens; what these families were trained on, whatever their tables could hold
HEAD = "pooler."  # on top of the last state, in BERT and RoBERTa; no layer


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

    def tokenizer(self, seed: int) -> TextTokenizer:  # noqa: ARG002 - nothing is drawn
        """Reads the tokenizer's files, no weights.

        Raises:
            Refused: BAD_TOKENIZER or TOO_LONG.
        """
        return TextTokenizer(*read_subwords(self.folder, self.max_length))

    def build(self, device: str) -> "TextBackbone":
        """Reads the weights, or draws them; float32.

        Raises:
            Refused: unsafe or broken file, missing tensors.
        """
        from xfm.models.hf_text.network import TextBackbone

        return TextBackbone(_network(self.folder, self.random_weights)[0].to(device)).eval()

    def files(self, *, weights: bool) -> Files:
        return find_files(self.folder, weights=weights)

    def architecture(self) -> dict[str, Any]:
        """See `HubCheckpoint`; with the longest text."""
        a = read_architecture(self.folder)
        parameters, unused = _sizes(self.folder, self.random_weights is None)
        architecture = {"family": a.model_type, **pretrained.tower_sizes(a)}
        architecture |= {"vocabulary": a.vocab_size, "parameters": parameters}
        return {"architecture": architecture, "unused": list(unused), "max_length": self.tokenizer(0).max_length}

    def n_layers(self) -> int:
        return int(read_architecture(self.folder).num_hidden_layers)

    def dim(self) -> int:
        return int(read_architecture(self.folder).hidden_size)


@lru_cache(maxsize=8)
def read_architecture(folder: Path) -> Any:
    """config.json with every default filled in, as a `PreTrainedConfig`.

    Raises:
        Refused: NO_SETTINGS, BAD_SETTINGS or UNKNOWN_FAMILY.
    """
    settings = find_files(folder, weights=False).settings
    content = read_json(settings)
    family = content.get("model_type")
    if family not in FAMILIES:
        raise Refused("UNKNOWN_FAMILY", f"{settings}: model_type {family!r} is none of {', '.join(sorted(FAMILIES))}")
    if content.get("is_decoder"):
        raise Refused("UNKNOWN_FAMILY", f"{settings}: is_decoder is set; only encoders are read")
    return pretrained.read_config(folder)


@lru_cache(maxsize=8)
def read_subwords(folder: Path, max_length: int | None) -> tuple["Subwords", int, int, int, int]:
    """The tokenizer that cuts at a length and does not pad, as the fields of `TextTokenizer`.

    Raises:
        Refused: BAD_TOKENIZER, TOO_LONG, or as `read_architecture`.
    """
    architecture = read_architecture(folder)
    tokenizer = pretrained.read_tokenizer(folder, architecture.vocab_size)
    skipped = architecture.pad_token_id + 1 if architecture.model_type in POSITIONS_AFTER_PADDING else 0
    limit = int(architecture.max_position_embeddings - skipped)  # tokens that the table of positions has room for
    if max_length is not None and max_length > limit:
        raise Refused("TOO_LONG", f"--backbone.max_length {max_length}: this network has {limit} positions")
    length = max_length or min(LONGEST, limit, tokenizer.model_max_length)
    before, after = pretrained.cut_subwords(tokenizer.backend_tokenizer, length, str(folder))
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else architecture.pad_token_id
    return tokenizer.backend_tokenizer, int(pad or 0), length, before, after


def _network(folder: Path, seed: int | None) -> tuple[Any, list[str]]:
    """The network on the CPU, without a head, and the names of tensors that belong to none of its parts; with weights
    drawn as `transformers` draws them where there is a seed."""
    architecture = read_architecture(folder)
    if seed is None:
        find_files(folder)
        blocks = f"{FAMILIES[architecture.model_type]}."
        network, unused = pretrained.read_network(folder, architecture, blocks, (HEAD,))
    else:
        network, unused = pretrained.draw_network(architecture, seed), []
    if hasattr(network, "pooler"):
        network.pooler = None
    return network, unused


@lru_cache(maxsize=8)
def _sizes(folder: Path, has_weights: bool) -> tuple[int, tuple[str, ...]]:
    """Parameters, and tensors of the checkpoint that no part takes. Reads the weights and lets them go."""
    network, unused = _network(folder, None if has_weights else 0)
    return sum(parameter.numel() for parameter in network.parameters()), tuple(unused)
