"""The recipe: paths, batch labels, and values of checkpoints that take values as categories."""

import json
import shutil

import pytest

from xfm.core.errors import Refused
from xfm.models.scgpt.config import ScGPT
from xfm.models.scgpt.settings import Declared, settle


def test_a_relative_checkpoint_means_the_same_from_another_folder(tiny_scgpt, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_scgpt)
    config = ScGPT(checkpoint="checkpoint")
    monkeypatch.chdir(tmp_path)
    assert config.n_layers() == 12
    assert config.recipe() == ScGPT(checkpoint=str(tiny_scgpt / "checkpoint")).recipe()


def test_a_number_of_batch_labels_that_does_not_fit_is_refused(tiny_scgpt):
    config = ScGPT(checkpoint=str(tiny_scgpt / "checkpoint"), batch_key="batch", batch_labels=("a", "b"))
    with pytest.raises(Refused, match=r"BAD_LABELS.*knows 0 batch labels.*names 2"):
        config.describe()


def test_a_checkpoint_without_a_decoder_is_refused_where_one_is_needed(tiny_scgpt, tmp_path):
    import torch

    ScGPT(checkpoint=str(tiny_scgpt / "checkpoint")).check_decoder()
    shutil.copytree(tiny_scgpt / "checkpoint", tmp_path / "c")
    tensors = torch.load(tmp_path / "c" / "best_model.pt", weights_only=True, mmap=False)
    torch.save({k: v for k, v in tensors.items() if not k.startswith("decoder.")}, tmp_path / "c" / "best_model.pt")
    with pytest.raises(Refused, match="NO_DECODER"):
        ScGPT(checkpoint=str(tmp_path / "c")).check_decoder()


CATEGORY = {
    "encoder.embedding.weight": (10, 4),
    "transformer_encoder.layers.0.linear1.weight": (6, 4),
    "value_encoder.embedding.weight": (53, 4),
}


def test_padding_and_mask_of_a_category_checkpoint_stand_behind_its_bins_unless_settings_say_otherwise():
    silent = settle(Declared(n_heads=2), CATEGORY, flash=False)
    assert (silent.pad_value, silent.mask_value, silent.n_value_bins) == (51, 52, 53)
    said = settle(Declared(n_heads=2, pad_value=-2, mask_value=-1), CATEGORY, flash=False)
    assert (said.pad_value, said.mask_value) == (-2, -1)


def test_cls_gets_a_value_that_a_category_checkpoint_has(tiny_scgpt, tmp_path):
    import torch

    shutil.copytree(tiny_scgpt / "checkpoint", tmp_path / "c")
    tensors = torch.load(tmp_path / "c" / "best_model.pt", weights_only=True, mmap=False)
    kept = {key: tensor for key, tensor in tensors.items() if not key.startswith("value_encoder.linear")}
    kept = {key: tensor for key, tensor in kept.items() if not key.startswith("value_encoder.norm")}
    kept |= {"value_encoder.embedding.weight": torch.zeros(53, 32), "value_encoder.enc_norm.weight": torch.ones(32),
             "value_encoder.enc_norm.bias": torch.zeros(32)}  # fmt: skip
    torch.save(kept, tmp_path / "c" / "best_model.pt")
    args = json.loads((tmp_path / "c" / "args.json").read_text()) | {"input_emb_style": "category"}
    (tmp_path / "c" / "args.json").write_text(json.dumps(args))
    assert ScGPT(checkpoint=str(tmp_path / "c")).tokenizer(0).cls_value == 0.0
    for name in ("pad_value", "mask_value"):
        del args[name]
    shutil.copytree(tmp_path / "c", tmp_path / "d")
    (tmp_path / "d" / "args.json").write_text(json.dumps(args))
    assert ScGPT(checkpoint=str(tmp_path / "d")).tokenizer(0).cls_value == 51.0
