"""Which files of a folder are read, and which vocabularies are accepted."""

import hashlib
import json
import subprocess
import sys

import pytest

from xfm.core.errors import Refused
from xfm.models.scgpt.files import find_files, read_vocab


def folder_with(tmp_path, *names):
    for name in names:
        (tmp_path / name).write_bytes(name.encode())
    return tmp_path


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["model.safetensors", "best_model.pt", "other.pt"], "model.safetensors"),
        (["best_model.pt", "other.pt"], "best_model.pt"),
        (["other.pt"], "other.pt"),
    ],
)
def test_weights_are_chosen_in_a_fixed_order(names, chosen, tmp_path):
    files = find_files(folder_with(tmp_path, *names, "args.json", "config.json", "vocab.json"))
    assert (files.weights.name, files.settings.name) == (chosen, "args.json")
    assert files.digests()[chosen] == hashlib.sha256(chosen.encode()).hexdigest()
    assert files.digests().keys() == {chosen, "args.json", "vocab.json"}


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a.pt", "b.pt", "args.json", "vocab.json"], "AMBIGUOUS_WEIGHTS: .* a.pt, b.pt"),
        (["args.json", "vocab.json"], "NO_WEIGHTS"),
        (["best_model.pt", "vocab.json"], "NO_SETTINGS: .*args.json nor config.json"),
        (["best_model.pt", "args.json"], "NO_VOCABULARY"),
    ],
)
def test_a_folder_that_lacks_something_is_refused(names, message, tmp_path):
    with pytest.raises(Refused, match=message):
        find_files(folder_with(tmp_path, *names))


def test_no_folder_is_refused(tmp_path):
    with pytest.raises(Refused, match="NO_CHECKPOINT"):
        find_files(tmp_path / "nowhere")


@pytest.mark.parametrize("content", [{"B": 1, "A": 0}, ["A", "B"], {"token2idx": {"A": 0, "B": 1}}])
def test_missing_specials_are_appended_in_the_official_order(content, tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps(content))
    assert read_vocab(path) == {"A": 0, "B": 1, "<pad>": 2, "<cls>": 3, "<eoc>": 4}


def test_specials_that_are_there_keep_their_index(tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(json.dumps({"<cls>": 0, "A": 1}))
    assert read_vocab(path) == {"<cls>": 0, "A": 1, "<pad>": 2, "<eoc>": 3}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"A": 0, "B": 0}', "index 0 stands for both 'A' and 'B'"),
        ('{"A": 0, "A": 1}', "'A' stands twice"),
        ('["A", "A"]', "'A' stands twice"),
        ('{"A": -1}', "index -1"),
        ('{"A": 1.5}', "index 1.5"),
        ('{"A": true}', "index True"),
        ('{"A": "x"}', "index 'x'"),
        ("[1, 2]", "token 1 is no string"),
        ("{}", "an object of token to index"),
        ('"A"', "an object of token to index"),
        ("{", "is no JSON"),
    ],
)
def test_a_vocabulary_that_cannot_be_meant_is_refused(text, message, tmp_path):
    path = tmp_path / "vocab.json"
    path.write_text(text)
    with pytest.raises(Refused, match=f"BAD_VOCABULARY: .*{message}"):
        read_vocab(path)


def test_files_and_settings_are_read_without_torch():
    code = "import sys, xfm.models.scgpt.files, xfm.models.scgpt.settings; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
