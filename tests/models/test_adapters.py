"""Low-rank updates and frozen blocks, on tiny networks with random weights."""

import json

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModel, CLIPConfig, CLIPModel

from tests.rounding import assert_same_but_rounding
from tests.text_examples import write_encoder
from xfm.core.backbone import Backbone
from xfm.core.errors import Refused
from xfm.core.tokenizer import Tokens
from xfm.models.adapters import (
    LoRA,
    add_lora,
    freeze,
    keep_last,
    lora_layers,
    merge,
    set_alpha,
    set_dropout,
    write_adapter,
)
from xfm.models.hf_text.config import HFText
from xfm.models.scgpt.fresh import FreshScGPT
from xfm.models.scgpt.settings import Architecture

FAMILIES = ("bert", "distilbert", "roberta")


@pytest.fixture(scope="module", params=FAMILIES)
def folder(request, tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("adapters") / request.param, request.param)


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp("adapters") / "only", "bert")


def network(folder):
    return HFText(checkpoint=str(folder)).build("cpu")


def tokens() -> Tokens:
    ids = torch.arange(1, 31).reshape(3, 10)
    is_token = torch.ones(3, 10, dtype=torch.bool)
    is_token[1, 6:] = False
    return Tokens(ids, None, is_token, is_token)


def last(backbone) -> torch.Tensor:
    with torch.inference_mode():
        *_, state = backbone.layers(tokens())
        return state.clone()


def shake(backbone):
    """As if it had been trained."""
    generator = torch.Generator().manual_seed(1)
    for name, parameter in backbone.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.02, generator=generator)
    return backbone


class TwoTowers(Backbone):
    """CLIP as far as adapters look at it: layers() would walk over the image tower."""

    def __init__(self) -> None:
        super().__init__()
        small = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
        text = small | {"num_hidden_layers": 3, "vocab_size": 20, "eos_token_id": 19, "bos_token_id": 18}
        vision = small | {"num_hidden_layers": 2, "image_size": 16, "patch_size": 8}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.network = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8)).eval()
        self.n_layers, self.dim = 2, 16

    @property
    def blocks(self):
        return self.network.vision_model.encoder.layers

    def layers(self, tokens):
        raise NotImplementedError


def test_an_adapted_network_begins_as_the_pretrained_one(folder):
    plain, adapted = network(folder), network(folder)
    assert add_lora(adapted, LoRA(rank=2)) == {"text": 6}
    assert torch.equal(last(plain), last(adapted))
    trained = {name for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    assert len(trained) == 12
    assert all("lora_" in name for name in trained)


def test_merged_equals_unmerged_under_the_old_names(folder):
    adapted = shake(add_and_return(network(folder)))
    before, plain = last(adapted), network(folder)
    assert not torch.allclose(before, last(plain), atol=1e-3)
    merge(adapted)
    assert_same_but_rounding(last(adapted), before, 64)
    assert adapted.state_dict().keys() == plain.state_dict().keys()


def add_and_return(backbone, **settings):
    add_lora(backbone, LoRA(rank=2, **settings))
    return backbone


def test_the_update_is_scaled_by_alpha_over_rank_and_the_share(bert):
    """One projection by hand: W x + share * alpha / rank * B A x."""
    adapted = shake(add_and_return(network(bert), alpha=3.0))
    name, layer = next(iter(lora_layers(adapted)))
    x = torch.randn(4, 32, generator=torch.Generator().manual_seed(0))
    base = network(bert).get_submodule(name)
    down, up = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    for share in (0.0, 0.25, 1.0):
        set_alpha(adapted, share)
        expected = x @ base.weight.T + base.bias + share * 1.5 * x @ (up @ down).T
        torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-6)


def test_share_0_is_the_pretrained_network_and_a_share_can_be_merged(bert):
    adapted = shake(add_and_return(network(bert)))
    set_alpha(adapted, 0.0)
    torch.testing.assert_close(last(adapted), last(network(bert)))
    set_alpha(adapted, 0.5)
    half = last(adapted)
    assert_same_but_rounding(last(merge(adapted)), half, 64)


@pytest.mark.parametrize(
    ("tower", "expected"),
    [("image", {"image": 6}), ("text", {"text": 9}), ("both", {"image": 6, "text": 9}), (None, {"image": 6})],
)
def test_only_the_towers_asked_for_are_adapted(tower, expected):
    backbone = TwoTowers()
    assert add_lora(backbone, LoRA(rank=2, tower=tower)) == expected
    names = [name for name, _ in lora_layers(backbone.network)]
    assert {name.split("_model")[0] for name in names} == {{"image": "vision"}.get(each, each) for each in expected}
    assert all(name.endswith(("q_proj", "k_proj", "v_proj")) for name in names)


def test_an_image_tower_is_refused_where_there_is_none(bert):
    with pytest.raises(Refused, match="no image tower"):
        add_lora(network(bert), LoRA(tower="image"))


def test_fused_attention_is_refused_with_what_would_work():
    architecture = Architecture(n_tokens=4, n_layers=1, n_heads=2, dim=8, ffn=8, n_bins=11, max_length=64)
    backbone = FreshScGPT(tokens=("A", "<pad>", "<cls>", "<eoc>"), architecture=architecture).build("cpu")
    with pytest.raises(Refused, match=r"NO_LORA.*last_n"):
        add_lora(backbone, LoRA())


def test_initial_updates_follow_from_the_seed_alone(bert):
    torch.manual_seed(1)
    before = torch.get_rng_state()
    one, other, third = (add_and_return(network(bert), seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before), "the global generator is put back"
    tensors = [dict(each.named_parameters()) for each in (one, other, third)]
    drawn = [name for name in tensors[0] if "lora_A" in name]
    assert all(torch.equal(tensors[0][name], tensors[1][name]) for name in drawn)
    assert not any(torch.equal(tensors[0][name], tensors[2][name]) for name in drawn)


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")  # peft 0.21 calls it
def test_a_written_adapter_is_one_that_peft_reads(folder, tmp_path):
    adapted = shake(add_and_return(network(folder), alpha=3.0))
    write_adapter(tmp_path, adapted.network, LoRA(rank=2, alpha=3.0), "base")
    assert json.loads((tmp_path / "adapter_config.json").read_text())["r"] == 2
    assert len(load_file(tmp_path / "adapter_model.safetensors")) == 12
    read = PeftModel.from_pretrained(AutoModel.from_pretrained(folder), str(tmp_path)).eval()
    given = tokens()
    with torch.inference_mode():
        state = read(input_ids=given.ids, attention_mask=given.is_token.long()).last_hidden_state
    kept = given.is_token
    torch.testing.assert_close(state[kept], last(adapted)[kept], rtol=1e-5, atol=1e-5)


def test_the_last_blocks_are_trained_and_the_others_named(folder):
    backbone = network(folder)
    frozen = keep_last(backbone, 1)
    trained = {name for name, parameter in backbone.named_parameters() if parameter.requires_grad}
    inside = {f"{place}" for place, module in backbone.named_modules() if module is backbone.blocks[-1]}
    assert trained == {f"{place}.{name}" for place in inside for name, _ in backbone.blocks[-1].named_parameters()}
    backbone.train()
    for module in frozen:
        module.eval()
    assert all(module.training for module in backbone.blocks[-1].modules())
    assert not any(module.training for module in backbone.blocks[0].modules())
    assert not any(module.training for module in backbone.network.embeddings.modules())
    with pytest.raises(Refused, match="the last 3 blocks of a network that has 2"):
        keep_last(backbone, 3)


def test_a_frozen_network_has_nothing_to_train(bert):
    backbone = network(bert)
    freeze(backbone)
    assert not any(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("names", [("query",), ("query", "key", "value")])
def test_another_architecture_of_a_known_family_is_refused(bert, names):
    backbone = network(bert)
    for block in backbone.blocks:
        for name in names:
            delattr(block.attention.self, name)
    with pytest.raises(Refused, match="NO_LORA"):
        add_lora(backbone, LoRA())


def test_dropout_is_switched_off_inside_attention_too(folder):
    backbone = network(folder)
    backbone.train()
    assert not torch.equal(_states(backbone), _states(backbone))
    set_dropout(backbone, 0.0)
    assert torch.equal(_states(backbone), _states(backbone))


def test_dropout_of_clip_and_of_cells_is_switched_off_too():
    architecture = Architecture(n_tokens=4, n_layers=1, n_heads=2, dim=8, ffn=8, n_bins=11, max_length=64, dropout=0.3)
    cells = FreshScGPT(tokens=("A", "<pad>", "<cls>", "<eoc>"), architecture=architecture).build("cpu")
    for backbone in (cells, TwoTowers()):
        set_dropout(backbone, 0.0)
        kept = [getattr(module, "dropout", 0.0) for module in backbone.modules()]
        assert not [share for share in kept if isinstance(share, float) and share]


def _states(backbone):
    *_, state = backbone.layers(tokens())
    return state
