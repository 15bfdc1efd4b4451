from pathlib import Path

import pyarrow as pa
import pytest
import torch

from xfm.core.errors import Refused
from xfm.models.scgpt.checkpoint import write_checkpoint
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.fresh import FreshScGPT, ordered, vocabulary_of
from xfm.models.scgpt.settings import Architecture


def test_a_vocabulary_takes_each_symbol_once_in_order_and_not_the_accessions():
    genes = pa.table(
        {
            "feature_id": ["ENSG00000000003", "ENSG00000000005.2", "ENSG00000000007"],
            "feature_name": ["TP53", "CD4", "TP53"],
        }
    )
    assert vocabulary_of(genes) == ("TP53", "CD4", "<pad>", "<cls>", "<eoc>")


def test_accessions_are_tokens_where_there_are_no_symbols():
    assert vocabulary_of(pa.table({"index": ["ENSG00000000003"]}))[0] == "ENSG00000000003"


def test_an_empty_gene_table_is_refused():
    with pytest.raises(Refused, match="NO_GENES"):
        vocabulary_of(pa.table({"index": pa.array([], pa.string())}))


def test_ids_with_a_gap_are_refused():
    with pytest.raises(Refused, match="without a gap"):
        ordered({"A": 0, "B": 5}, "vocab.json")


def test_initial_weights_follow_from_the_seed_and_leave_the_global_generator_alone():
    recipe = FreshScGPT(
        tokens=("A", "<pad>", "<cls>", "<eoc>"),
        architecture=Architecture(n_tokens=4, n_layers=1, n_heads=1, dim=4, ffn=4, mvc="inner product"),
        seed=1,
    )
    before = torch.get_rng_state()
    one, same = recipe.build("cpu").state_dict(), recipe.build("cpu").state_dict()
    other = recipe.model_copy(update={"seed": 2}).build("cpu").state_dict()
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["encoder.embedding.weight"], other["encoder.embedding.weight"])


def test_what_is_written_is_read_as_a_backbone_with_the_same_tokens(tmp_path: Path):
    recipe = FreshScGPT(
        tokens=("A", "B", "<pad>", "<cls>", "<eoc>"),
        architecture=Architecture(n_tokens=5, n_layers=2, n_heads=2, dim=8, ffn=8, n_bins=7, mvc="inner product"),
    )
    network = recipe.build("cpu")
    write_checkpoint(tmp_path / "checkpoint", network, recipe.vocabulary(), training={"xfm_pretrain": {"lr": 1.0}})
    read = ScGPT(checkpoint=str(tmp_path / "checkpoint"))
    assert read.build("cpu").architecture == network.architecture
    ours, theirs = recipe.tokenizer(0), read.tokenizer(0)
    assert (ours.vocabulary, ours.cls_id, ours.pad_id, ours.n_bins, ours.cls_value) == (
        theirs.vocabulary, theirs.cls_id, theirs.pad_id, theirs.n_bins, theirs.cls_value,
    )  # fmt: skip
