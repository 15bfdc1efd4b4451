"""The embed job on sentences, as a user runs it: no word of its own for text."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from tests.text_examples import sentences, write_encoder, write_sentences

pytestmark = [pytest.mark.ray, pytest.mark.slow]


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    """60 sentences, one of them empty, through a tiny BERT; at most 24 tokens."""
    folder = tmp_path_factory.mktemp("text")
    data, checkpoint = write_sentences(folder / "data", 60), write_encoder(folder / "bert", "bert")
    words = ["--source.kind", "hub_text", "--source.path", str(data), "--source.obs", "label,split",
             "--source.shard_rows", "17", "--backbone.kind", "hf_text", "--backbone.checkpoint", str(checkpoint),
             "--backbone.max_length", "24", "--output", str(folder / "out")]  # fmt: skip
    printed = cluster.run("embed", *words, cwd=folder, expect=3)
    return folder, words, printed


def test_a_layer_of_the_job_is_that_of_transformers(made):
    from transformers import AutoModel, AutoTokenizer

    folder, _, _ = made
    parts = sorted((folder / "out" / "parts").glob("*.parquet"))
    assert [part.stem for part in parts] == ["test-000000", "train-000000", "train-000001", "train-000002"]
    table = pa.concat_tables([pq.read_table(part) for part in parts])
    texts, labels = sentences(60)
    where = [f"train.parquet/{i}" if i < 45 else f"test.parquet/{i - 45}" for i in range(60)]
    rows = {name: i for i, name in enumerate(table["row_id"].to_pylist())}
    kept = [i for i in range(60) if i != 3]
    assert set(rows) == {where[i] for i in kept}
    order = [rows[where[i]] for i in kept]
    assert [table["label"][row].as_py() for row in order] == [("neg", "pos")[labels[i]] for i in kept]
    assert {table["split"][row].as_py() for row in order} == {"train", "test"}

    model, tokenizer = AutoModel.from_pretrained(folder / "bert"), AutoTokenizer.from_pretrained(folder / "bert")
    inputs = tokenizer(
        [texts[i] for i in kept], padding=True, truncation=True, max_length=24, return_tensors="pt"
    )  # fmt: skip
    with torch.inference_mode():
        states = model.eval()(**inputs, output_hidden_states=True).hidden_states
    for layer, state in enumerate(states):
        found = np.stack(table[f"cls_l{layer:02d}"].to_pylist())[order]
        np.testing.assert_allclose(found, state[:, 0].numpy(), atol=1e-5, rtol=0)


def test_the_report_counts_what_was_refused_and_what_was_cut(made):
    from transformers import AutoTokenizer

    folder, _, _ = made
    report = json.loads((folder / "out" / "report.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(folder / "bert")
    texts = sentences(60)[0]
    lengths = [len(tokenizer(text)["input_ids"]) for i, text in enumerate(texts) if i != 3]
    assert report["numbers"]["rows"] == 59
    assert report["numbers"]["rows cut at 24 tokens"] == sum(length > 24 for length in lengths) > 0
    lines = (folder / "out" / "quarantine.jsonl").read_text().splitlines()
    assert [(json.loads(line)["key"], json.loads(line)["code"]) for line in lines] == [
        ("train.parquet/3", "EMPTY_TEXT")
    ]
    run = json.loads((folder / "out" / "run.json").read_text())
    assert set(run["recipe"]["data"]["files"]) == {"train.parquet", "test.parquet"}
    assert run["recipe"]["weights"]["model.safetensors"]


@pytest.mark.slow
def test_the_same_command_continues_and_another_kind_of_input_is_refused(made, cluster, tiny_scgpt, tmp_path):
    folder, words, _ = made
    again = cluster.run("embed", *words, cwd=folder, expect=3)
    assert "4 of 4 shards are committed already" in again
    cells = ["--source.kind", "h5ad", "--source.path", str(tiny_scgpt / "cells.h5ad"), "--backbone.kind", "hf_text",
             "--backbone.checkpoint", str(folder / "bert"), "--output", str(tmp_path / "x")]  # fmt: skip
    assert "OTHER_INPUT: --backbone.kind hf_text reads text" in cluster.run("embed", *cells, cwd=tmp_path, expect=4)
