"""A checkpoint gives back what was written, or says what is wrong with it."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.fusion_examples import GENE_DIM, TYPES, tiny_fusion, write_tiny_fusion
from xfm.core.errors import Refused
from xfm.models.fusion.checkpoint import LABELS, SETTINGS, WEIGHTS, read_fusion, write_fusion
from xfm.models.fusion.config import Fusion


@pytest.fixture
def folder(tmp_path):
    return write_tiny_fusion(tmp_path / "aligned", steps=3)


def refusal(folder):
    with pytest.raises(Refused) as refused:
        read_fusion(folder)
    assert str(folder) in refused.value.message
    return refused.value.code


@pytest.mark.parametrize("fields", [
    {}, {"share_attention": True, "parallel": False, "pool": "attended"}, {"layers": 2, "gene_chunks": 3},
    {"text": {"kind": "hashed", "dim": 9, "level": "tokens"}}, {"design": "concat", "inputs": "gene"},
])  # fmt: skip
def test_what_is_read_is_what_was_written(tmp_path, fields):
    config = tiny_fusion(text_column="type", **fields)
    bank = config.bank_of(TYPES, None)
    network = config.start(GENE_DIM, bank, 7)
    write_fusion(tmp_path / "new", network, config, bank, GENE_DIM, {"steps": 3})
    found = read_fusion(tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == sorted((LABELS, SETTINGS, WEIGHTS))
    assert type(found.network) is type(network)
    wanted = network.state_dict()
    assert found.network.state_dict().keys() == wanted.keys()
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in found.network.state_dict().items())
    assert (found.bank.digest(), found.bank.labels, found.bank.encoder) == (bank.digest(), bank.labels, bank.encoder)
    header = found.header
    assert (header.sizes, header.text, header.text_column) == (config.sizes, config.text, "type")
    assert (header.gene_dim, header.text_dim, header.about) == (GENE_DIM, bank.dim, {"steps": 3})


def test_the_same_network_gives_the_same_bytes(folder, tmp_path):
    again = write_tiny_fusion(tmp_path / "again", steps=3)
    for name in (WEIGHTS, SETTINGS, LABELS):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_the_files_appear_together_or_not_at_all(tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("xfm.models.fusion.checkpoint.to_bytes", full)
    with pytest.raises(OSError, match="no space"):
        write_tiny_fusion(tmp_path / "half")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_not_overwritten_unasked(folder):
    before = (folder / SETTINGS).read_bytes()
    with pytest.raises(Refused) as refused:
        write_tiny_fusion(folder, steps=4)
    assert refused.value.code == "OUTPUT_EXISTS"
    assert (folder / SETTINGS).read_bytes() == before
    config = tiny_fusion()
    bank = config.bank_of(TYPES, None)
    write_fusion(folder, config.start(GENE_DIM, bank, 0), config, bank, GENE_DIM, {"steps": 4}, replace=True)
    assert read_fusion(folder).header.about == {"steps": 4}


def test_the_checkpoint_states_the_vectors_of_its_labels_and_knows_others(folder, tmp_path):
    """Of the same labels, width and encoder: only their digest tells them apart."""
    stated = json.loads((folder / SETTINGS).read_text())["label_vectors"]
    config = Fusion(checkpoint=str(folder))
    assert stated == config.bank_of((), None).digest() == config.describe()["label_vectors"]
    bank = tiny_fusion().bank_of(TYPES, None)
    other = replace(bank, vectors=bank.vectors[::-1].copy())
    write_fusion(tmp_path / "other", tiny_fusion().start(GENE_DIM, bank, 0), tiny_fusion(), other, GENE_DIM)
    shutil.copy(tmp_path / "other" / LABELS, folder / LABELS)
    assert refusal(folder) == "BROKEN_LABELS"


@pytest.mark.parametrize(
    ("name", "code"), [(SETTINGS, "NO_SETTINGS"), (WEIGHTS, "NO_WEIGHTS"), (LABELS, "BROKEN_LABELS")]
)
def test_a_missing_file_is_named(folder, name, code):
    (folder / name).unlink()
    assert refusal(folder) == code


@pytest.mark.parametrize(
    ("name", "code"), [(SETTINGS, "BAD_SETTINGS"), (WEIGHTS, "BROKEN_WEIGHTS"), (LABELS, "BROKEN_LABELS")]
)
def test_a_torn_file_is_refused(folder, name, code):
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
    assert refusal(folder) == code


@pytest.mark.parametrize(("change", "code"), [
    ({"format": 2}, "BAD_SETTINGS"), ({"sizes": {"hidden": 10, "heads": 4}}, "BAD_SETTINGS"),
    ({"text": {"kind": "tea leaves"}}, "BAD_SETTINGS"), ({"gene_dim": -1}, "BAD_SETTINGS"),
    ({"new": 1}, "BAD_SETTINGS"),
    ({"gene_dim": GENE_DIM + 1}, "OTHER_SHAPES"), ({"text_dim": 25}, "BROKEN_LABELS"),
    ({"labels": ["astrocyte"]}, "BROKEN_LABELS"), ({"encoder": {"key": "other"}}, "BROKEN_LABELS"),
])  # fmt: skip
def test_settings_that_belong_to_something_else_are_refused(folder, change, code):
    content = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps(content | change))
    assert refusal(folder) == code


def test_settings_that_are_no_object_are_refused(folder):
    (folder / SETTINGS).write_text("[]")
    assert refusal(folder) == "BAD_SETTINGS"


def lose(tensors):
    del tensors["project_gene.weight"]


def add(tensors):
    tensors["resample_gene.blocks.1.norm_attention.weight"] = torch.ones(16)


def widen(tensors):
    tensors["project_gene.weight"] = torch.ones(7, 16)


def spoil(tensors):
    tensors["project_gene.bias"][2] = np.nan


@pytest.mark.parametrize(("change", "code"), [
    (lose, "MISSING_TENSORS"), (add, "MISSING_TENSORS"), (widen, "OTHER_SHAPES"), (spoil, "NOT_FINITE"),
])  # fmt: skip
def test_other_tensors_are_refused(folder, change, code):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)
    assert refusal(folder) == code


def test_labels_of_another_checkpoint_are_refused(folder, tmp_path):
    other = write_tiny_fusion(tmp_path / "other", tiny_fusion(text={"kind": "hashed", "dim": 24, "template": "a {}"}))
    shutil.copyfile(other / LABELS, folder / LABELS)
    assert refusal(folder) == "BROKEN_LABELS"
