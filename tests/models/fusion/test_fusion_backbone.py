"""What each layer of a fusion is, and that a job's embedder keeps the cell's side and the columns of the source."""

import numpy as np
import pytest
import torch

from tests.fusion_examples import DONORS, GENE_DIM, TYPES, Vectors, tiny_fusion, write_tiny_fusion
from xfm.compute.embed import Embedder
from xfm.compute.read import read_tokens
from xfm.core.errors import Refused
from xfm.core.schema import EMBEDDING
from xfm.models.adapters import LoRA, add_lora, keep_last
from xfm.models.fusion.config import Fusion
from xfm.models.reductions import Pool

OPTIONS = [{"layers": 2, "gene_chunks": 3}, {"share_attention": True, "parallel": False, "pool": "attended"},
           {"text": {"kind": "hashed", "dim": 24, "level": "tokens"}}]  # fmt: skip


@pytest.fixture(params=OPTIONS, ids=["chunks", "public", "tokens"])
def config(request, tmp_path):
    return Fusion(checkpoint=str(write_tiny_fusion(tmp_path / "aligned", tiny_fusion(**request.param))))


@pytest.fixture
def rows(config):
    """Of the first shard: five rows, two are refused."""
    return read_tokens(Vectors(), config.tokenizer(0), Vectors().shards()[0]).tokens


def test_layers_go_from_what_is_projected_to_where_both_sides_have_met(config, rows):
    backbone, bank = config.build("cpu"), config.bank_of(TYPES, None)
    network = backbone.network
    with torch.no_grad():
        states = list(backbone.layers(config.tokenizer(0).collate(rows)))
        gene = torch.tensor(rows[EMBEDDING].to_pylist())
        codes = bank.codes(rows["cell_type"])
        text = torch.from_numpy(bank.vectors[codes])
        held = None if bank.is_token is None else torch.from_numpy(bank.is_token[codes])
        met = network(text, gene, held)
        latents_gene = network.resample_gene(network.chunks(gene))[0]
        latents_text = network.resample_text(text, held)[0]
    assert len(states) == backbone.n_layers + 1 == config.n_layers() + 1 == network.sizes.layers + 2
    for side, vector in enumerate((met.gene, met.text)):
        torch.testing.assert_close(states[-1][:, side], vector, rtol=1e-5, atol=1e-5)
    for side, latents in enumerate((latents_gene, latents_text)):
        torch.testing.assert_close(states[-2][:, side], latents.mean(1), rtol=1e-5, atol=1e-5)
    projected = [network.resample_gene.project(part).mean(0) for part in network.chunks(gene)]
    torch.testing.assert_close(states[0][:, 0], torch.stack(projected))
    words = [text[i][None] if held is None else text[i][held[i]] for i in range(len(text))]
    projected = [network.resample_text.project(part).mean(0) for part in words]
    torch.testing.assert_close(states[0][:, 1], torch.stack(projected), rtol=1e-5, atol=1e-5)


def test_only_the_last_layer_of_the_gene_side_depends_on_the_words(config, rows):
    backbone = config.build("cpu")
    tokens = config.tokenizer(0).collate(rows)
    tokens.ids[:, 1] = (tokens.ids[:, 1] + 1) % len(TYPES)
    with torch.no_grad():
        before, after = (list(backbone.layers(some)) for some in (config.tokenizer(0).collate(rows), tokens))
    same = [torch.equal(one[:, 0], other[:, 0]) for one, other in zip(before, after, strict=True)]
    assert same == [True] * backbone.n_layers + [False]
    assert not any(torch.equal(one[:, 1], other[:, 1]) for one, other in zip(before, after, strict=True))


def test_an_embedder_gives_the_gene_side_as_cls_and_carries_the_columns_along(config, rows):
    layers = range(config.n_layers() + 1)
    embedder = Embedder(config, [Pool("cls"), Pool("mean")], layers, batch_tokens=4, device="cpu", seed=0,
                        identity=config.identity())  # fmt: skip
    out = embedder(rows)
    assert out["cell_type"].to_pylist() == [TYPES[i % 3] for i in (0, 1, 2, 5, 6)]
    assert out["donor_id"].to_pylist() == [DONORS[i % 2] for i in (0, 1, 2, 5, 6)]
    with torch.no_grad():
        states = list(config.build("cpu").layers(config.tokenizer(0).collate(rows)))
    for layer, state in enumerate(states):
        np.testing.assert_allclose(np.array(out[f"cls_l{layer:02d}"].to_pylist()), state[:, 0], atol=1e-5)
        np.testing.assert_allclose(np.array(out[f"mean_l{layer:02d}"].to_pylist()), state.mean(1), atol=1e-5)


def test_the_blocks_are_the_resamplers_and_the_meeting(config):
    backbone = config.build("cpu")
    assert len(backbone.blocks) == backbone.n_layers
    kept = {id(parameter) for block in backbone.blocks for parameter in block.parameters()}
    left = {name for name, parameter in backbone.named_parameters() if id(parameter) not in kept}
    sides = [f"network.resample_{side}" for side in ("text", "gene")]
    assert left == {f"{side}.{part}" for side in sides for part in ("project.weight", "project.bias", "latents")} | {
        f"network.project_{side}.{part}" for side in ("text", "gene") for part in ("weight", "bias")
    }
    keep_last(backbone, 1)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    assert trained
    assert all(name.startswith("network.cross.") for name in trained)
    with pytest.raises(Refused) as refused:
        add_lora(backbone, LoRA())
    assert refused.value.code == "NO_LORA"


def test_the_labels_are_no_weights_of_the_network(config):
    state = config.build("cpu").state_dict()
    assert all(name.startswith("network.") for name in state)
    assert config.build("cpu").texts.shape[-1] == 24
    assert GENE_DIM % config.settled().gene_chunks == 0
