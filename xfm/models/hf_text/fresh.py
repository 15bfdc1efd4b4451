"""A small DistilBERT from scratch: random weights, and word pieces made of texts at hand.

The folder it writes is one that `transformers` and kind `hf_text` read (Sanh et al., 2019). Word pieces are letters and
the most frequent whole words, lower case, cut as BERT's (Devlin et al., NAACL 2019). The trainer of the package
`tokenizers` would find syllables too, but breaks ties by the order of a hash table: two runs, two vocabularies.
"""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import PositiveInt, model_validator

from xfm.core.config import Config
from xfm.models.pretrained import draw_network

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class FreshDistilBERT(Config):
    """Sizes of a network that has learned nothing."""

    layers: PositiveInt = 4
    """Transformer blocks."""

    dim: PositiveInt = 64
    """Width of a state."""

    heads: PositiveInt = 4
    """Attention heads; must divide dim."""

    ffn: PositiveInt = 128
    """Hidden width of the feed-forward part."""

    vocabulary: PositiveInt = 2000
    """Word pieces at most."""

    max_length: PositiveInt = 64
    """Tokens of a text, special tokens included."""

    dropout: float = 0.1
    """Share of activations dropped in training."""

    seed: int = 0
    """Keys the weights."""

    @model_validator(mode="after")
    def _heads_fit(self) -> "FreshDistilBERT":
        if self.dim % self.heads:
            raise ValueError(f"dim {self.dim} does not divide into {self.heads} heads")
        return self

    def write(self, folder: Path, texts: Iterable[str]) -> Path:
        """Writes weights, settings and tokenizer.

        Args:
            folder: to fill; what it holds under the same names is replaced.
            texts: that word pieces are made of; their order does not matter.
        """
        from transformers import DistilBertConfig

        tokenizer = _word_pieces(texts, self.vocabulary, self.max_length)
        shape = DistilBertConfig(
            vocab_size=len(tokenizer), max_position_embeddings=self.max_length, n_layers=self.layers, dim=self.dim,
            n_heads=self.heads, hidden_dim=self.ffn, dropout=self.dropout, attention_dropout=self.dropout,
            pad_token_id=tokenizer.pad_token_id,
        )  # fmt: skip
        network = draw_network(shape, self.seed)
        folder.mkdir(parents=True, exist_ok=True)
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        return folder


def _word_pieces(texts: Iterable[str], size: int, max_length: int) -> Any:
    from tokenizers import normalizers, pre_tokenizers
    from transformers import DistilBertTokenizer

    normalise, cut = normalizers.BertNormalizer().normalize_str, pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    words = Counter(word for text in texts for word, _ in cut(normalise(text)))
    letters = sorted({letter for word in words for letter in word})
    pieces = [*SPECIAL, *letters, *(f"##{letter}" for letter in letters)]
    frequent = sorted(words, key=lambda word: (-words[word], word))
    pieces += [word for word in frequent if word not in set(letters)][: max(0, size - len(pieces))]
    return DistilBertTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, model_max_length=max_length
    )
