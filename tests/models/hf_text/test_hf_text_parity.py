"""States are the `hidden_states` of the plain transformers model, whatever the batch."""

import pyarrow as pa
import pytest
import torch

from tests.rounding import assert_same_but_rounding
from tests.text_examples import sentences, write_encoder
from xfm.compute.embed import Embedder
from xfm.core.schema import REFUSED, ROW_ID, SHARD, TEXT
from xfm.core.tokenizer import Tokens
from xfm.models.hf_text import network as network_module
from xfm.models.hf_text.config import HFText
from xfm.models.hf_text.network import TextBackbone
from xfm.models.pretrained import FAMILIES
from xfm.models.reductions import Pool


@pytest.fixture(scope="module", params=["bert", "distilbert", "roberta"])
def checkpoint(request, tmp_path_factory):
    return write_encoder(tmp_path_factory.mktemp(request.param), request.param)


def batch(texts):
    columns = {ROW_ID: [str(i) for i in range(len(texts))], SHARD: ["s"] * len(texts), REFUSED: [None] * len(texts)}
    columns = {name: pa.array(column, pa.string()) for name, column in (columns | {TEXT: texts}).items()}
    return pa.RecordBatch.from_pydict(columns)


def plain(checkpoint, texts, max_length=62):
    """Padded inputs and all hidden states as any user of transformers gets them."""
    from transformers import AutoModel, AutoTokenizer

    model = AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    with torch.inference_mode():
        return inputs, model(**inputs, output_hidden_states=True).hidden_states


@pytest.mark.parametrize("group_tokens", [1, 100, 10**6])
def test_every_layer_is_the_hidden_state_of_transformers(checkpoint, group_tokens, monkeypatch):
    monkeypatch.setattr(network_module, "GROUP_TOKENS", group_tokens)
    texts = [*sentences(14)[0], "film " * 200]
    config = HFText(checkpoint=str(checkpoint), max_length=62)
    inputs, expected = plain(checkpoint, texts)
    tokenizer = config.tokenizer(0)
    tokens = tokenizer.collate(tokenizer(batch(texts)))
    mask = inputs["attention_mask"].bool()
    assert torch.equal(tokens.ids, inputs["input_ids"])
    with torch.inference_mode():
        states = list(config.build("cpu").layers(tokens))
    assert len(states) == len(expected) == config.n_layers() + 1 == 3
    for state, other in zip(states, expected, strict=True):
        assert state.shape == other.shape
        assert_same_but_rounding(state[mask], other[mask], 64)


def test_cls_and_mean_of_every_layer_leave_out_special_tokens_and_padding(checkpoint):
    """The job's own computation, rows sorted and batched by length, against one padded batch of transformers."""
    texts = sentences(14)[0]
    config = HFText(checkpoint=str(checkpoint))
    embedder = Embedder(config, (Pool("cls"), Pool("mean")), range(3), batch_tokens=60, device="cpu", seed=0)
    columns = embedder.embed(pa.Table.from_batches([config.tokenizer(0)(batch(texts))]))
    inputs, expected = plain(checkpoint, texts)
    lengths = inputs["attention_mask"].sum(1).tolist()
    for layer, state in enumerate(expected):
        means = torch.stack([row[1 : length - 1].mean(0) for row, length in zip(state, lengths, strict=True)])
        for name, other in (("cls", state[:, 0]), ("mean", means)):
            found = torch.from_numpy(columns[f"{name}_l{layer:02d}"])
            assert_same_but_rounding(found, other, 64)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_walked_block_by_block(family):
    from transformers import AutoConfig, AutoModel

    sizes = {"num_hidden_layers": 3, "hidden_size": 24, "intermediate_size": 48, "num_attention_heads": 3}
    if family == "distilbert":
        sizes = {"n_layers": 3, "dim": 24, "hidden_dim": 48, "n_heads": 3}
    config = AutoConfig.for_model(family, vocab_size=50, max_position_embeddings=40, pad_token_id=1, **sizes)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModel.from_config(config).eval()
        ids = torch.randint(5, 50, (4, 12))
    mask = torch.arange(12)[None] < torch.tensor([12, 3, 7, 1])[:, None]
    ids[~mask] = 1
    with torch.inference_mode():
        expected = model(input_ids=ids, attention_mask=mask.long(), output_hidden_states=True).hidden_states
        states = list(TextBackbone(model).layers(Tokens(ids, None, mask, mask)))
    assert len(states) == 4
    for state, other in zip(states, expected, strict=True):
        assert_same_but_rounding(state[mask], other[mask], 64)


def test_who_stops_early_does_not_pay_for_deeper_blocks(checkpoint):
    config = HFText(checkpoint=str(checkpoint))
    backbone, tokenizer = config.build("cpu"), config.tokenizer(0)
    entered = []
    for i, block in enumerate(backbone.blocks):
        block.register_forward_pre_hook(lambda module, inputs, i=i: entered.append(i))
    states = backbone.layers(tokenizer.collate(tokenizer(batch(["a film"]))))
    next(states)
    assert entered == []
    next(states)
    assert entered == [0]


def test_half_precision_on_disk_is_computed_in_float32(checkpoint, tmp_path):
    from transformers import AutoModel, AutoTokenizer

    AutoModel.from_pretrained(checkpoint).half().save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(tmp_path)
    assert AutoModel.from_pretrained(tmp_path).dtype == torch.float16  # what would happen otherwise
    backbone = HFText(checkpoint=str(tmp_path)).build("cpu")
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.float32}
