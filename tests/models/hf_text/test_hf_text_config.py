"""The recipe: what it states about a checkpoint, and which checkpoints it refuses."""

import json
import shutil

import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.text_examples import write_encoder
from xfm.core.errors import Refused
from xfm.models.hf_text.config import HFText


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture
def checkpoint(written, tmp_path):
    return shutil.copytree(written, tmp_path / "checkpoint")


def recipe(folder, **more):
    return HFText(checkpoint=str(folder), **more)


def set_config(folder, **changes):
    content = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(content))


def test_it_says_what_the_checkpoint_is(checkpoint):
    config = recipe(checkpoint)
    described = config.describe()
    assert described["architecture"] | {"vocabulary": 0, "parameters": 0} == {
        "family": "bert", "n_layers": 2, "dim": 32, "n_heads": 4, "vocabulary": 0, "parameters": 0,
    }  # fmt: skip
    weights = load_file(checkpoint / "model.safetensors")
    used = sum(tensor.numel() for name, tensor in weights.items() if not name.startswith("pooler."))
    assert described["architecture"]["parameters"] == used
    assert described["max_length"] == 64
    assert (config.n_layers(), config.dim()) == (2, 32)
    assert set(config.identity()) == {"model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json"}


def test_another_tokenizer_setting_or_tensor_is_another_identity(checkpoint, tmp_path):
    before = recipe(checkpoint).identity()
    for name in ("tokenizer.json", "config.json", "model.safetensors"):
        other = shutil.copytree(checkpoint, tmp_path / name)
        with (other / name).open("ab") as file:
            file.write(b" ")
        after = recipe(other).identity()
        assert {key for key in before if before[key] != after[key]} == {name}


def test_weights_that_nothing_uses_are_named(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    save_file(weights | {"cls.predictions.bias": torch.zeros(3)}, checkpoint / "model.safetensors", {"format": "pt"})
    assert recipe(checkpoint).describe()["unused"] == ["cls.predictions.bias"]


def test_weights_that_lack_their_pooler_are_enough(checkpoint):
    weights = {k: v for k, v in load_file(checkpoint / "model.safetensors").items() if "pooler" not in k}
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    recipe(checkpoint).build("cpu")


def test_a_tensor_that_is_missing_is_never_drawn(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    del weights["encoder.layer.1.output.dense.weight"]
    save_file(weights, checkpoint / "model.safetensors", {"format": "pt"})
    with pytest.raises(Refused, match=r"MISSING_TENSORS.*asks for 1 tensors that the weights lack.*layer\.1\.output"):
        recipe(checkpoint).describe()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_hidden_layers": 3}, "MISSING_TENSORS.*lack"),
        ({"num_hidden_layers": 1}, "MISSING_TENSORS.*has no block for 16 tensors that the weights hold"),
        ({"intermediate_size": 65}, r"OTHER_SHAPES.*\(64,\) in the weights and \(65,\) by config.json"),
        ({"model_type": "gpt2"}, "UNKNOWN_FAMILY.*'gpt2' is none of bert, camembert, distilbert"),
        ({"is_decoder": True}, "UNKNOWN_FAMILY.*only encoders"),
        ({"num_hidden_layers": "two"}, "BAD_SETTINGS.*num_hidden_layers"),
        ({"vocab_size": 20}, "BAD_TOKENIZER|OTHER_SHAPES"),
    ],
)
def test_a_config_that_is_not_that_of_the_weights_is_refused(checkpoint, changes, said):
    set_config(checkpoint, **changes)
    with pytest.raises(Refused, match=said):
        recipe(checkpoint).describe()


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("model.safetensors", None, "NO_WEIGHTS.*save_pretrained"),
        ("model.safetensors", b"no tensors", "BROKEN_WEIGHTS"),
        ("config.json", None, "NO_SETTINGS"),
        ("config.json", b"{", "BAD_SETTINGS.*no JSON"),
        ("config.json", b"[]", "BAD_SETTINGS.*no JSON object"),
        ("tokenizer.json", None, "NO_TOKENIZER"),
        ("tokenizer.json", b"{}", "BAD_TOKENIZER"),
        ("tokenizer.json", b"{", "BAD_TOKENIZER"),
    ],
)
def test_a_missing_or_broken_file_is_refused(checkpoint, name, content, said):
    (checkpoint / name).unlink() if content is None else (checkpoint / name).write_bytes(content)
    config = recipe(checkpoint)
    with pytest.raises(Refused, match=said):
        config.identity() and config.describe()


def test_a_pickle_is_never_opened(checkpoint):
    weights = load_file(checkpoint / "model.safetensors")
    (checkpoint / "model.safetensors").unlink()
    torch.save(weights, checkpoint / "pytorch_model.bin")
    for ask in (lambda config: config.identity(), lambda config: config.build("cpu")):
        with pytest.raises(Refused, match=r"UNSAFE_WEIGHTS.*pytorch_model\.bin.*run code.*save_pretrained"):
            ask(recipe(checkpoint))


def test_weights_in_several_files_are_read_and_each_counts(checkpoint, tmp_path):
    from transformers import AutoModel

    cut = shutil.copytree(checkpoint, tmp_path / "cut")
    (cut / "model.safetensors").unlink()
    AutoModel.from_pretrained(checkpoint).save_pretrained(cut, max_shard_size="20KB")
    parts = {path.name for path in cut.glob("model-*.safetensors")}
    assert len(parts) > 1
    assert parts < set(recipe(cut).identity())
    mine, other = recipe(cut).build("cpu").state_dict(), recipe(checkpoint).build("cpu").state_dict()
    assert mine.keys() == other.keys()
    assert all(torch.equal(mine[name], other[name]) for name in mine)
    next(cut.glob("model-*.safetensors")).unlink()
    with pytest.raises(Refused, match=r"NO_WEIGHTS.*lists files that are not there"):
        recipe(cut).identity()


def test_length_is_bounded_by_the_positions(checkpoint, tmp_path):
    assert recipe(checkpoint, max_length=10).tokenizer(0).max_length == 10
    with pytest.raises(Refused, match=r"TOO_LONG: --backbone.max_length 65: this network has 64 positions"):
        recipe(checkpoint, max_length=65).describe()
    with pytest.raises(Refused, match="room for the text in 2 tokens"):
        recipe(checkpoint, max_length=2).describe()
    roberta = write_encoder(tmp_path / "roberta", "roberta")
    with pytest.raises(Refused, match="this network has 62 positions"):  # padding has id 1: rows 0 and 1 hold none
        recipe(roberta, max_length=63).describe()


def test_random_weights_need_no_weights(checkpoint):
    (checkpoint / "model.safetensors").unlink()
    config = recipe(checkpoint).randomised(3)
    assert config.identity()["weights"] == "random"
    assert config.describe()["weights"] == "random, seed 3"
    state = torch.get_rng_state()
    one, two = config.build("cpu").state_dict(), recipe(checkpoint).randomised(4).build("cpu").state_dict()
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(
        one["network.encoder.layer.0.output.dense.weight"], two["network.encoder.layer.0.output.dense.weight"]
    )


def test_genes_and_expression_are_refused(checkpoint):
    with pytest.raises(Refused, match=r"OTHER_INPUT.*2 genes.*hub_text"):
        recipe(checkpoint).check_genes(pa.table({"feature_name": ["A", "B"]}))
    with pytest.raises(Refused, match="NO_DECODER"):
        recipe(checkpoint).check_decoder()


def test_reading_prints_nothing(checkpoint, capfd):
    recipe(checkpoint).build("cpu")
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
