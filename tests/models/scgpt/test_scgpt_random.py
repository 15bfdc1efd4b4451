"""The same architecture with random weights: what the checkpoint's layers are held against."""

import json
import shutil
from itertools import pairwise

import pytest
import torch
from scgpt_cases import small_network, small_vocab
from torch import nn

from xfm.compute.read import read_tokens
from xfm.core.config import differing_fields, fingerprint
from xfm.core.schema import INPUT_IDS, VALUES
from xfm.models.scgpt.checkpoint import write_checkpoint
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.fresh import FreshScGPT
from xfm.models.scgpt.network import ScGPTBackbone
from xfm.models.scgpt.settings import Architecture
from xfm.sources.h5ad.source import H5ad

BLOCK = "transformer_encoder.layers.0."


@pytest.fixture
def trained(tiny_scgpt):
    return ScGPT(checkpoint=str(tiny_scgpt / "checkpoint"))


@pytest.fixture
def drawn(trained):
    return trained.randomised(0).build("cpu")


def test_the_seed_decides_the_weights_and_the_global_generator_is_left_alone(trained, drawn):
    before = torch.get_rng_state()
    torch.randn(3)  # wherever the stream stands
    again = trained.randomised(0).build("cpu").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in drawn.state_dict().items())
    torch.set_rng_state(before)
    other = trained.randomised(1).build("cpu").state_dict()
    assert torch.equal(before, torch.get_rng_state())
    constant = {name for name, tensor in drawn.state_dict().items() if torch.equal(tensor, other[name])}
    norms = ("norm", "_decoder.2.", "_decoder.5.")
    zeros = ("in_proj_bias", "out_proj.bias")
    assert constant == {name for name in other if any(part in name for part in norms) or name.endswith(zeros)}


def test_nothing_of_the_checkpoint_is_left_but_its_shapes(trained, drawn, checkpoint):
    assert drawn.architecture == checkpoint.architecture
    assert {name: tensor.shape for name, tensor in drawn.state_dict().items()} == {
        name: tensor.shape for name, tensor in checkpoint.tensors.items()
    }
    # The fixture's tensors are drawn one by one, norms and biases included: not even a constant may be alike.
    assert not [name for name, tensor in drawn.state_dict().items() if torch.equal(tensor, checkpoint.tensors[name])]
    assert not any(module.training for module in drawn.modules())


def test_every_tensor_starts_where_torch_and_scgpt_start_it(drawn):
    tensors, dim = drawn.state_dict(), drawn.dim
    assert tensors["encoder.embedding.weight"].abs().max() <= 0.1
    assert tensors["encoder.embedding.weight"].std() == pytest.approx(0.1 / 3**0.5, rel=0.02)
    architecture = drawn.architecture
    torch.manual_seed(5)
    block = nn.TransformerEncoderLayer(dim, architecture.n_heads, architecture.ffn).state_dict()
    block |= {f"linear1 of {name}": t for name, t in nn.Linear(1, dim).state_dict().items()}
    ours = {name: tensors[BLOCK + name] for name in block if BLOCK + name in tensors}
    ours |= {f"linear1 of {name}": tensors[f"value_encoder.linear1.{name}"] for name in ("weight", "bias")}
    assert ours.keys() == block.keys()
    for name, reference in block.items():
        if reference.unique().numel() == 1:
            assert torch.equal(ours[name], reference), name
        else:
            # Uniform draws: the extremes tell the bounds, the more the larger the tensor; 32 numbers are the fewest.
            assert ours[name].abs().max() == pytest.approx(float(reference.abs().max()), rel=0.12), name
            assert ours[name].min() < 0 < ours[name].max()
    for one, next_one in pairwise(drawn.transformer_encoder["layers"]):
        assert not torch.equal(one.linear1.weight, next_one.linear1.weight)


def test_statistics_of_batch_labels_stay_at_their_start(tmp_path):
    write_checkpoint(tmp_path / "c", small_network(input_norm="dsbn", n_labels=3, label_encoder=True), small_vocab())
    config = ScGPT(checkpoint=str(tmp_path / "c"))
    read, drawn = config.build("cpu").state_dict(), config.randomised(0).build("cpu").state_dict()
    names = [name for name in drawn if name.startswith("dsbn.") and not name.endswith("num_batches_tracked")]
    assert len(names) == 6
    for name in names:
        assert torch.equal(drawn[name], torch.full((24,), 0.0 if "mean" in name else 1.0))
        assert not torch.equal(drawn[name], read[name])


def test_tokens_are_those_of_the_checkpoint(trained, tiny_scgpt):
    source = H5ad(path=str(tiny_scgpt / "cells.h5ad"))
    shard = source.shards()[0]
    ours, theirs = (read_tokens(source, c.tokenizer(4), shard).tokens for c in (trained.randomised(0), trained))
    assert ours.num_rows == 64
    for column in (INPUT_IDS, VALUES):
        assert ours[column].equals(theirs[column])


def test_every_layer_tells_cells_apart_and_stays_in_range(drawn, tokens):
    with torch.inference_mode():
        for layer, state in enumerate(drawn.layers(tokens)):
            real = state[tokens.is_token]
            assert real.isfinite().all()
            assert 0.5 < real.std() < 2
            # At the input <cls> is the same for every cell.
            assert state[:, 0].unique(dim=0).shape[0] == (len(state) if layer else 1)


def test_a_run_without_the_field_keeps_its_fingerprint(trained):
    # What `recipe` gave before the field was there.
    earlier = {"kind": "scgpt", "ties": "mid", "max_length": 1200, "n_bins": None, "cls_value": None,
               "min_overlap": 0.1, "batch_key": None, "batch_labels": [], "autocast": False}  # fmt: skip
    assert fingerprint(trained.recipe()) == fingerprint(earlier)
    assert differing_fields(earlier, trained.randomised(0).recipe()) == ["random_weights: null -> 0"]


def test_identity_holds_all_that_the_weights_follow_from_and_no_more(trained, tiny_scgpt, tmp_path):
    shutil.copytree(tiny_scgpt / "checkpoint", tmp_path / "c")
    tensors = torch.load(tmp_path / "c" / "best_model.pt", weights_only=True)
    torch.save({name: tensor + 1 for name, tensor in tensors.items()}, tmp_path / "c" / "best_model.pt")
    identity, retrained = trained.randomised(0).identity(), ScGPT(checkpoint=str(tmp_path / "c"), random_weights=0)
    assert (identity["weights"], identity["seed"]) == ("random", 0)
    assert {name for name, value in identity.items() if len(str(value)) == 64} == {
        "args.json", "vocab.json", "architecture",
    }  # fmt: skip
    assert retrained.identity() == identity
    assert trained.randomised(1).identity() != identity
    without_head = {name: tensor for name, tensor in tensors.items() if not name.startswith("mvc_decoder.")}
    shutil.copytree(tmp_path / "c", tmp_path / "d")
    torch.save(without_head, tmp_path / "d" / "best_model.pt")
    assert ScGPT(checkpoint=str(tmp_path / "d"), random_weights=0).identity() != identity


def test_the_report_says_that_the_numbers_were_not_read(trained):
    described = trained.randomised(2).describe()
    assert described["weights"] == "random, seed 2; of best_model.pt the shapes were read, not the numbers"
    assert described["architecture"] == trained.describe()["architecture"]
    assert json.loads(json.dumps(described)) == described
    assert "weights" not in trained.describe()


def test_a_network_from_scratch_has_other_weights_by_another_seed():
    architecture = Architecture(n_tokens=4, n_layers=1, n_heads=1, dim=4, ffn=4)
    recipe = FreshScGPT(tokens=("A", "<pad>", "<cls>", "<eoc>"), architecture=architecture, seed=1)
    other = recipe.randomised(2)
    assert (other.seed, other.tokens, other.architecture) == (2, recipe.tokens, recipe.architecture)
    weights: list[ScGPTBackbone] = [recipe.build("cpu"), other.build("cpu")]
    assert not torch.equal(weights[0].encoder.embedding.weight, weights[1].encoder.embedding.weight)
