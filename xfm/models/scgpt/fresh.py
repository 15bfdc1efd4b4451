"""scGPT before its first step of training: sizes, a vocabulary, and weights drawn from a seed."""

import re
from typing import TYPE_CHECKING, Any, Literal, Self

import pyarrow as pa
from pydantic import Field

from xfm.core.config import Config, fingerprint
from xfm.core.errors import Refused
from xfm.core.random import key64
from xfm.models.scgpt.files import complete, gene_tokens
from xfm.models.scgpt.settings import Architecture

if TYPE_CHECKING:
    from xfm.models.scgpt.network import ScGPTBackbone
    from xfm.tokenizers.binned import BinnedTokenizer

ENSEMBL = re.compile(r"ENS[A-Z]*G\d{11}(\.\d+)?")


class FreshScGPT(Config):
    """An untrained scGPT (Cui et al., Nature Methods 2024)."""

    tokens: tuple[str, ...]  # in the order of their ids, special tokens included; see `vocabulary_of`
    architecture: Architecture  # sizes and parts; `n_tokens` is the length of `tokens`
    ties: Literal["mid", "keyed", "low", "high"] = "mid"  # bin of a value that spans several, as in `ScGPT`
    min_overlap: float = Field(0.1, ge=0, le=1)  # least share of genes that must be known
    seed: int = 0  # of the initial weights

    def vocabulary(self) -> dict[str, int]:
        """Token to id."""
        return {token: index for index, token in enumerate(self.tokens)}

    def tokenizer(self, seed: int) -> "BinnedTokenizer":
        from xfm.tokenizers.binned import BinnedTokenizer

        vocabulary, a = self.vocabulary(), self.architecture
        return BinnedTokenizer(
            vocabulary=gene_tokens(vocabulary),
            cls_id=vocabulary["<cls>"],
            pad_id=vocabulary[a.pad_token],
            cls_value=float(a.pad_value),
            pad_value=float(a.pad_value),
            n_bins=a.n_bins,
            ties=self.ties,
            max_length=a.max_length,
            seed=seed,
            min_overlap=self.min_overlap,
        )

    def build(self, device: str) -> "ScGPTBackbone":
        """The network with initial weights, the same on every worker and machine; in evaluation mode."""
        import torch

        network = draw(self.architecture, self.vocabulary()[self.architecture.pad_token], self.seed)
        assert network.decoder is not None
        last = network.decoder.fc[-1]
        assert isinstance(last, torch.nn.Linear)
        # Bins are quantiles: their mean is near the middle, where thousands of steps would otherwise go to reach it.
        torch.nn.init.constant_(last.bias, self.architecture.n_bins / 2)
        return network.to(device).eval()

    def identity(self) -> dict[str, Any]:
        """What stands in for the digest of weights: sizes, seed and the digest of the vocabulary."""
        sizes = self.architecture.model_dump(mode="json")
        return {"initial": sizes, "seed": self.seed, "vocabulary": fingerprint({"tokens": list(self.tokens)})}

    def describe(self) -> dict[str, Any]:
        return {"architecture": self.architecture.model_dump(mode="json")}

    def n_layers(self) -> int:
        return self.architecture.n_layers

    def dim(self) -> int:
        return self.architecture.dim

    def check_genes(self, genes: pa.Table) -> dict[str, Any]:
        """Overlap of a gene table with the vocabulary.

        Raises:
            Refused: NO_OVERLAP.
        """
        from xfm.tokenizers.vocabulary import match_genes

        return match_genes(genes, gene_tokens(self.vocabulary()), self.min_overlap).describe()

    def randomised(self, seed: int) -> Self:
        return self.model_copy(update={"seed": seed})


def draw(architecture: Architecture, pad_id: int, seed: int, *, autocast: bool = False) -> "ScGPTBackbone":
    """A network on the CPU with initial weights, the same on every worker for a seed; in training mode.

    Every tensor has the distribution that the published package (scgpt 0.2.4) starts it from: gene embeddings uniform
    in +-0.1 with padding among them, everything else PyTorch's default; statistics of batch normalisation are 0 and 1.
    One thing differs: `torch.nn.TransformerEncoder` copies one draw into all blocks, here each block has its own.
    """
    import torch

    from xfm.models.scgpt.network import ScGPTBackbone

    # Initialisers take no generator. The CPU's is put back; torch.manual_seed would also reseed those of GPUs.
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(key64(seed, "weights"))
        return ScGPTBackbone(architecture, pad_id=pad_id, autocast=autocast)


def vocabulary_of(genes: pa.Table) -> tuple[str, ...]:
    """A vocabulary from a gene table: each symbol once, in the table's order, then <pad>, <cls>, <eoc>.

    Of several identifier columns the first that is not mostly Ensembl accessions is taken, since scGPT's tokens are
    symbols; where there are only accessions, those.

    Raises:
        Refused: NO_GENES, the table is empty.
    """
    names = [[name for name in genes[column].to_pylist() if name] for column in genes.column_names]
    filled = [column for column in names if column]
    if not filled:
        raise Refused("NO_GENES", f"the source's gene table ({', '.join(genes.column_names)}) names no gene")
    symbols = (column for column in filled if sum(map(bool, map(ENSEMBL.fullmatch, column))) * 2 < len(column))
    distinct = dict.fromkeys(next(symbols, filled[0]))
    return ordered({name: index for index, name in enumerate(distinct)}, "the gene table")


def ordered(vocabulary: dict[str, int], where: str) -> tuple[str, ...]:
    """Tokens in the order of their ids, missing special tokens appended.

    Raises:
        Refused: BAD_VOCABULARY, ids that do not run from 0 without a gap.
    """
    whole = complete(vocabulary, where)
    tokens = sorted(whole, key=whole.__getitem__)
    if whole[tokens[-1]] != len(tokens) - 1:
        raise Refused(
            "BAD_VOCABULARY",
            f"{where}: {len(tokens)} tokens with ids up to {whole[tokens[-1]]}; ids must run from 0 without a gap",
        )
    return tuple(tokens)
