"""Every layout reads as the same network, and what does not fit is refused by name."""

import contextlib
import json
import os

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scgpt_cases import small_network, small_tokens, small_vocab

from xfm.core.errors import Refused
from xfm.models.scgpt.checkpoint import build_network, read_checkpoint, write_checkpoint


def write_folder(folder, state, args, vocab, name="best_model.pt"):
    folder.mkdir(exist_ok=True)
    if name.endswith(".safetensors"):
        save_file({key: tensor.contiguous() for key, tensor in state.items()}, folder / name)
    else:
        torch.save(state, folder / name)
    settings = "config.json" if "nhead" in args else "args.json"
    (folder / settings).write_text(json.dumps(args))
    if vocab is not None:
        (folder / "vocab.json").write_text(json.dumps(vocab))
    return folder


def flash(state, impl=False):
    inner = "self_attn._impl." if impl else "self_attn."
    renamed = {key.replace("self_attn.in_proj_", f"{inner}Wqkv."): tensor for key, tensor in state.items()}
    return {key.replace("self_attn.out_proj", f"{inner}out_proj"): tensor for key, tensor in renamed.items()}


def hub(state):
    names = {"encoder": "gene_encoder", "transformer_encoder": "transformer", "decoder": "expr_decoder"}
    parts = {key: key.partition(".") for key in state if not key.startswith(("cls_decoder", "mvc_decoder"))}
    return {names.get(p[0], p[0]) + "." + p[2]: state[key] for key, p in parts.items()}


LAYOUTS = {
    "torch": lambda state: state,
    "flash": flash,
    "flash impl": lambda state: flash(state, impl=True),
    "module.": lambda state: {f"module.{key}": tensor for key, tensor in state.items()},
    "model_state_dict": lambda state: {"epoch": 3, "model_state_dict": state, "optimizer": {"lr": 0.1}},
    "state_dict": lambda state: {"state_dict": {f"module.{key}": tensor for key, tensor in flash(state).items()}},
    "model": lambda state: {"model": state},
    "bf16": lambda state: {key: tensor.bfloat16() for key, tensor in state.items()},
    "fp16": lambda state: {key: tensor.half() for key, tensor in flash(state).items()},
    "extra": lambda state: state | {"flag_encoder.weight": torch.ones(2, 32), "pert_encoder.x": torch.ones(1)},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_reads_as_the_same_tensors(layout, official, tmp_path):
    state, args, vocab = official
    read = read_checkpoint(write_folder(tmp_path / "c", LAYOUTS[layout](state), args, vocab))
    rounding = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(layout, torch.float32)
    assert read.tensors.keys() == state.keys()
    for key, tensor in state.items():
        assert read.tensors[key].dtype == torch.float32
        assert torch.equal(read.tensors[key], tensor.to(rounding).float())
    assert ("flash" in read.layout) == (layout in {"flash", "flash impl", "fp16", "state_dict"})
    if layout == "extra":
        assert (read.ignored, read.unknown) == (("flag_encoder.weight",), ("pert_encoder.x",))


def test_an_official_file_in_the_legacy_format_is_read(official, tmp_path):
    state, args, vocab = official
    folder = write_folder(tmp_path / "c", state, args, vocab)
    torch.save(state, folder / "best_model.pt", _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(folder).tensors["decoder.fc.0.bias"], state["decoder.fc.0.bias"])


def test_the_hubs_names_and_settings_give_the_official_arithmetic(official, tokens, reference, tmp_path):
    state, _, vocab = official
    config = {
        "model_type": "scgpt", "vocab_size": 808, "embsize": 32, "d_hid": 32, "nlayers": 12, "nhead": 4,
        "max_seq_len": 1536, "dropout": 0.2, "pad_token_id": 0, "use_fast_transformer": True,
        "input_emb_style": "continuous", "cell_emb_style": "cls", "norm_scheme": "post", "explicit_zero_prob": True,
        "use_flash_attention": False,
    }  # fmt: skip
    folder = write_folder(tmp_path / "hub", hub(state), config, None, "model.safetensors")
    with pytest.raises(Refused, match=r"NO_VOCABULARY: .*--backbone\.vocab"):
        read_checkpoint(folder)
    elsewhere = tmp_path / "vocab.json"
    elsewhere.write_text(json.dumps({token: i for token, i in vocab.items() if not token.startswith("<")}))
    read = read_checkpoint(folder, elsewhere)
    assert read.absent_heads == ("mvc_decoder", "cls_decoder")
    assert "explicit_zero" in read.overruled[0]
    assert read.pad_id == vocab["<pad>"]
    assert (read.architecture.max_length, read.layout) == (1536, "torch hub")
    network = build_network(read)
    with torch.inference_mode():
        states = list(network.layers(tokens))
        predicted = network.decode_expression(states[-1], tokens)
    np.testing.assert_allclose(states[-1][:, 0].numpy(), reference["cls"][:, -1], rtol=0, atol=1e-4)
    real = tokens.is_token.numpy()
    np.testing.assert_allclose(predicted.numpy()[real], reference["mlm_output"][real], rtol=0, atol=1e-4)


def test_pre_norm_is_honoured_in_the_flash_layout_only(official, tmp_path):
    state, args, vocab = official
    args = args | {"pre_norm": True}
    assert read_checkpoint(write_folder(tmp_path / "f", flash(state), args, vocab)).architecture.pre_norm
    torch_layout = read_checkpoint(write_folder(tmp_path / "t", state, args, vocab))
    assert not torch_layout.architecture.pre_norm
    assert "pre_norm" in torch_layout.overruled[0]


@pytest.mark.parametrize(
    "parts",
    [
        {"mvc": "inner product", "n_classes": 4},
        {"value_style": "category", "n_value_bins": 12, "mvc": "concat query"},
        {"value_style": "scaling", "input_norm": "bn", "mvc": "sum query", "decoder": False},
        {"input_norm": "dsbn", "n_labels": 3, "label_encoder": True, "mvc": "inner product", "explicit_zero": True},
        {"pre_norm": True, "cell_style": "w-pool", "n_classes": 2, "n_layers_cls": 1, "mvc": "inner product, detach"},
        {"n_layers": 1, "dim": 8, "n_heads": 1, "ffn": 4, "n_tokens": 5, "max_length": 77, "dropout": 0.0},
    ],
)
def test_what_is_written_is_read_back_bit_for_bit(parts, tmp_path):
    network = small_network(**parts)
    vocab = small_vocab(network.architecture.n_tokens)
    write_checkpoint(tmp_path / "deep" / "c", network, vocab, training={"lr": 0.1, "embsize": 9})
    read = read_checkpoint(tmp_path / "deep" / "c")
    assert read.architecture == network.architecture
    assert (read.vocab, read.ignored, read.unknown, read.overruled) == (vocab, (), (), ())
    assert read.tensors.keys() == network.state_dict().keys()
    assert all(torch.equal(read.tensors[key], tensor) for key, tensor in network.state_dict().items())
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["c"]
    if network.architecture.n_tokens == 30:
        labels = torch.tensor([0, 1, 0])
        tokens = small_tokens(condition=labels)
        again = list(build_network(read).layers(tokens))
        assert all(torch.equal(a, b) for a, b in zip(network.layers(tokens), again, strict=True))


def test_an_existing_checkpoint_is_replaced_only_when_asked(tmp_path):
    write_checkpoint(tmp_path / "c", small_network(1), small_vocab())
    with pytest.raises(Refused, match="OUTPUT_EXISTS"):
        write_checkpoint(tmp_path / "c", small_network(2), small_vocab())
    write_checkpoint(tmp_path / "c", small_network(2), small_vocab(), replace=True)
    read = read_checkpoint(tmp_path / "c")
    assert torch.equal(read.tensors["decoder.fc.0.bias"], small_network(2).state_dict()["decoder.fc.0.bias"])
    with pytest.raises(Refused, match="WRONG_VOCABULARY"):
        write_checkpoint(tmp_path / "d", small_network(1), small_vocab(29))


class Bomb:
    def __reduce__(self):
        return eval, ("__import__('os').putenv('XFM_TEST_CANARY', 'went off')",)


@pytest.mark.parametrize("form", ["zip", "legacy", "bare pickle", "nested"])
def test_a_pickle_bomb_is_refused_and_never_runs(form, official, tmp_path, monkeypatch):
    state, args, vocab = official
    executed = []
    monkeypatch.setattr(os, "putenv", lambda *a: executed.append(a))
    folder = write_folder(tmp_path / "c", state, args, vocab)
    path = folder / "best_model.pt"
    if form == "bare pickle":
        path.write_bytes(b"cos\nputenv\n(S'XFM_TEST_CANARY'\nS'went off'\ntR.")
    else:
        bomb = state | {"encoder.embedding.weight": Bomb()}
        payload = {"model": bomb} if form == "nested" else bomb
        torch.save(payload, path, _use_new_zipfile_serialization=form != "legacy")
    with pytest.raises(Refused, match="UNSAFE_FILE"):
        read_checkpoint(folder)
    assert executed == []
    with contextlib.suppress(Exception):
        torch.load(path, weights_only=False)
    assert executed, "the bomb of this test is a dud"


@pytest.mark.parametrize("name", ["best_model.pt", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 0.5, 0.99])
def test_a_file_cut_short_is_refused(name, keep, official, tmp_path):
    state, args, vocab = official
    folder = write_folder(tmp_path / "c", state, args, vocab, name)
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: keep if isinstance(keep, int) else int(len(content) * keep)])
    with pytest.raises(Refused, match="BROKEN_FILE"):
        read_checkpoint(folder)


def altered(state, changes):
    new = dict(state)
    for key, tensor in changes.items():
        if tensor is None:
            del new[key]
        else:
            new[key] = tensor
    return new


BLOCK = "transformer_encoder.layers."
VALUE_PARTS = ("linear1", "linear2", "norm")
FAULTS = {
    "a missing tensor": ({BLOCK + "3.norm1.bias": None}, {}, rf"MISSING_TENSOR: tensor {BLOCK}3.norm1.bias \(32,\)"),
    "no embedding": ({"encoder.embedding.weight": None}, {}, "MISSING_TENSOR: tensor encoder.embedding.weight"),
    "no value encoder": (
        {f"value_encoder.{part}.{kind}": None for part in VALUE_PARTS for kind in ("weight", "bias")},
        {}, r"MISSING_TENSOR: tensor value_encoder.linear1.weight \(32, 1\)"),
    "too few layers": ({}, {"nlayers": 13}, rf"MISSING_TENSOR: tensor {BLOCK}12\..* 13 layers"),
    "too many layers": ({}, {"nlayers": 11}, rf"UNEXPECTED_TENSOR: tensor {BLOCK}11\..* 11 layers"),
    "another width": ({}, {"embsize": 64}, r"WRONG_SHAPE: tensor encoder.embedding.weight: \(808, 64\).*\(808, 32\)"),
    "another d_hid": ({}, {"d_hid": 64}, rf"WRONG_SHAPE: tensor {BLOCK}0.linear1.weight: \(64, 32\).*\(32, 32\)"),
    "another vocab_size": ({}, {"vocab_size": 900}, "WRONG_VOCABULARY|WRONG_SHAPE"),
    "a wrong shape": ({BLOCK + "0.linear2.bias": torch.ones(31)}, {}, r"layers.0.linear2.bias: \(32,\).*\(31,\)"),
    "half a head": ({"mvc_decoder.W.weight": None}, {}, "PARTIAL_HEAD: tensor mvc_decoder.W.weight"),
    "half a decoder": ({"decoder.fc.2.bias": None}, {}, "PARTIAL_HEAD: tensor decoder.fc.2.bias"),
    "no output layer": ({"cls_decoder.out_layer.weight": None}, {}, "PARTIAL_HEAD: .*cls_decoder.out_layer.weight"),
    "a deeper class head": ({}, {"n_layers_cls": 4}, "PARTIAL_HEAD: tensor cls_decoder._decoder.6.weight"),
    "a wide decoder": ({"decoder.fc.0.weight": torch.ones(32, 64)}, {}, "batch_encoder.embedding.weight is missing"),
    "NaN": ({"decoder.fc.0.bias": torch.full((32,), torch.nan)}, {}, "NOT_FINITE: tensor decoder.fc.0.bias"),
    "other heads": ({}, {"nheads": 5}, "width 32 does not divide into 5 heads"),
    "zero heads": ({}, {"nheads": 0}, "0 heads"),
    "no heads": ({}, {"nheads": None}, "NO_HEADS"),
    "words for numbers": ({}, {"embsize": "wide"}, r"BAD_SETTINGS: .*embsize.*'wide'"),
    "linear attention": ({}, {"fast_transformer_backend": "linear"}, "LINEAR_ATTENTION"),
    "another value encoder": ({}, {"input_emb_style": "category"}, "WRONG_VALUE_ENCODER"),
    "an unknown style": ({}, {"input_emb_style": "fourier"}, "input_emb_style.*'fourier'"),
    "no domain norm": ({}, {"DSBN": True}, "normalisation 'dsbn', but its tensors are missing"),
    "another pad": ({}, {"pad_token": "[PAD]"}, r"lacks the padding token '\[PAD\]'"),
    "another mvc": ({}, {"mvc_decoder_style": "sum query"}, "WRONG_HEAD"),
    "a twin": ({"module.decoder.fc.0.bias": torch.ones(32)}, {}, "AMBIGUOUS_TENSOR.*decoder.fc.0.bias"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused_by_name(fault, official, tmp_path):
    changes, settings, message = FAULTS[fault]
    state, args, vocab = official
    folder = write_folder(tmp_path / "c", altered(state, changes), args | settings, vocab)
    with pytest.raises(Refused, match=message):
        read_checkpoint(folder)


@pytest.mark.parametrize("content", [torch.ones(3), {"a": 1}, [torch.ones(2)], {"model": {"epoch": 1}}, {}])
def test_a_file_without_a_state_dict_is_refused(content, official, tmp_path):
    _, args, vocab = official
    with pytest.raises(Refused, match="NO_STATE_DICT"):
        read_checkpoint(write_folder(tmp_path / "c", content, args, vocab))


@pytest.mark.parametrize("drop", ["mvc_decoder", "cls_decoder", "decoder"])
def test_a_head_may_be_absent_as_a_whole(drop, official, tmp_path):
    state, args, vocab = official
    kept = {key: tensor for key, tensor in state.items() if not key.startswith(f"{drop}.")}
    read = read_checkpoint(write_folder(tmp_path / "c", kept, args, vocab))
    assert read.absent_heads == (drop,)
    build_network(read)


@pytest.mark.parametrize("size", [-1, 1])
def test_a_vocabulary_of_another_size_is_refused(size, official, tmp_path):
    state, args, vocab = official
    genes = [token for token in vocab if not token.startswith("<")]
    other = genes[:size] if size < 0 else [*genes, "ANOTHER"]
    with pytest.raises(Refused, match=rf"WRONG_VOCABULARY: .* {808 + size} tokens .*encoder.embedding.weight"):
        read_checkpoint(write_folder(tmp_path / "c", state, args, other))


def test_what_settings_leave_out_is_read_off_the_tensors(official, tmp_path):
    state, args, vocab = official
    full = read_checkpoint(write_folder(tmp_path / "a", state, args, vocab))
    short = read_checkpoint(write_folder(tmp_path / "b", state, {"nheads": 4}, vocab))
    assert short.architecture == full.architecture
    assert (full.architecture.mvc, full.architecture.n_classes) == ("inner product", 1)
