"""The finetune job as a user runs it: one worker and two, a killed driver, several seeds, bad input."""

import json
import signal
import time

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tests.text_examples import class_label, sentences, write_encoder

pytestmark = pytest.mark.ray


def write_data(folder, n=120):
    """As data sets come: three files, each sorted by class; one text is empty."""
    folder.mkdir(parents=True)
    texts, labels = sentences(n)
    texts = [f"{text} {i}" for i, text in enumerate(texts)]
    texts[4] = ""
    for part, name in enumerate(("train", "train", "train", "validation", "test")):
        own = range(part, n, 5)
        file = folder / f"{name}.parquet" if part > 2 else folder / f"train-{part}.parquet"
        table = pa.table({"text": [texts[i] for i in own], "label": pa.array([labels[i] for i in own], pa.int64())})
        pq.write_table(table.replace_schema_metadata({"huggingface": class_label("label", ("neg", "pos"))}), file)
    return folder


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    folder = tmp_path_factory.mktemp("finetune")
    write_data(folder / "data")
    write_encoder(folder / "encoder", "distilbert", dropout=0.0, attention_dropout=0.0)
    return folder


def flags(given, output, **more):
    settings = {
        "source.kind": "hub_text", "source.path": given / "data", "split": "split", "backbone.kind": "hf_text",
        "backbone.checkpoint": given / "encoder", "task.head": "mlp", "task.dropout": 0, "lr": 0.003, "batch_size": 16,
        "epochs": 15, "patience": 5, "watch": "loss", "schedule": "constant", "log_every": 1,
        "bootstrap": 200, "output": output,
    } | more  # fmt: skip
    return [word for name, value in settings.items() for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def undisturbed(cluster, given):
    """One worker; exit code 3 for the empty text."""
    printed = cluster.run("finetune", *flags(given, given / "out"), cwd=given, expect=3)
    return given / "out", printed


def weights(output):
    return load_file(output / "checkpoint" / "model.safetensors")


def curve(output):
    """Without the columns of the clock."""
    table = [line.split(",") for line in (output / "plots" / "loss.csv").read_text().splitlines()]
    seconds = table[0].index("seconds")
    return [line[:seconds] + line[seconds + 1 :] for line in table]


def test_the_job_learns_and_says_so(undisturbed):
    output, printed = undisturbed
    report = json.loads((output / "report.json").read_text())
    assert "label is told with a macro F1 of" in printed
    assert report["numbers"]["test macro F1"]["value"] > 0.9
    assert (report["numbers"]["training sentences"], report["numbers"]["test sentences"]) == (72, 23)
    assert report["refused"] == {"EMPTY_TEXT": 1}
    assert [figure["name"] for figure in report["figures"]] == ["loss", "confusion"]
    assert (output / "report.html").stat().st_size > 10_000


def test_the_scores_are_those_of_the_predictions(undisturbed):
    output, _ = undisturbed
    predicted = pq.read_table(output / "predictions.parquet")
    scores = pq.read_table(output / "scores.parquet")
    for split in ("validation", "test"):
        own = predicted.filter(pc.equal(predicted["part"], split))
        hits = np.mean(np.array(own["label"].to_pylist()) == np.array(own["predicted"].to_pylist()))
        wanted = {"split": split, "metric": "accuracy", "representation": "finetuned_full"}
        (row,) = [row for row in scores.to_pylist() if wanted.items() <= row.items()]
        assert row["value"] == pytest.approx(hits)


def test_the_checkpoint_is_one_that_transformers_reads_and_predicts_the_same(undisturbed):
    output, _ = undisturbed
    predicted = pq.read_table(output / "predictions.parquet")
    test = predicted.filter(pc.equal(predicted["part"], "test"))
    texts = pq.read_table(output.parent / "data" / "test.parquet")["text"].to_pylist()
    own = [texts[int(name.rpartition("/")[2])] for name in test["row_id"].to_pylist()]
    model = AutoModelForSequenceClassification.from_pretrained(output / "checkpoint").eval()
    tokenizer = AutoTokenizer.from_pretrained(output / "checkpoint")
    with torch.inference_mode():
        shares = model(**tokenizer(own, padding=True, return_tensors="pt")).logits.softmax(1).numpy()
    np.testing.assert_allclose(np.stack(test["probabilities"].to_numpy()), shares, atol=1e-4)
    assert [model.config.id2label[code] for code in shares.argmax(1)] == test["predicted"].to_pylist()


@pytest.mark.slow
def test_embedding_with_the_checkpoint_gives_its_predictions_for_rows(cluster, undisturbed, tmp_path):
    output, _ = undisturbed
    words = ["--source.kind", "hub_text", "--source.path", str(output.parent / "data"), "--backbone.kind", "hf_text",
             "--backbone.checkpoint", str(output / "checkpoint"), "--layers", "2", "--predictions",
             "--output", str(tmp_path / "out")]  # fmt: skip
    cluster.run("embed", *words, cwd=tmp_path, expect=3)
    parts = pa.concat_tables([pq.read_table(path) for path in sorted((tmp_path / "out" / "parts").iterdir())])
    found = dict(zip(parts["row_id"].to_pylist(), parts["probabilities"].to_pylist(), strict=True))
    predicted = pq.read_table(output / "predictions.parquet")
    own = [found[name] for name in predicted["row_id"].to_pylist()]
    np.testing.assert_allclose(own, np.stack(predicted["probabilities"].to_numpy()), atol=1e-5)


@pytest.mark.slow
def test_a_dry_run_says_what_would_be_done(cluster, given, tmp_path):
    printed = cluster.run("finetune", *flags(given, tmp_path / "out"), "--dry-run", cwd=tmp_path)
    assert "rows          120" in printed
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_label_that_is_no_column_is_refused(cluster, given, tmp_path):
    printed = cluster.run("finetune", *flags(given, tmp_path / "out", **{"task.label": "tone"}), cwd=tmp_path, expect=4)
    assert "tone" in printed
    assert "label" in printed


@pytest.mark.nightly
def test_two_workers_have_the_first_loss_of_one_and_learn_the_same(cluster, given, undisturbed, tmp_path):
    cluster.run("finetune", *flags(given, tmp_path / "out", workers=2), cwd=tmp_path, expect=3)
    one, two = curve(undisturbed[0]), curve(tmp_path / "out")
    loss = one[0].index("loss")
    assert float(two[1][loss]) == pytest.approx(float(one[1][loss]), abs=1e-5)
    numbers = [
        json.loads((output / "report.json").read_text())["numbers"] for output in (undisturbed[0], tmp_path / "out")
    ]
    assert numbers[0]["test macro F1"]["value"] == pytest.approx(numbers[1]["test macro F1"]["value"], abs=0.05)


@pytest.mark.slow
def test_a_killed_driver_ends_with_the_curve_and_weights_of_an_undisturbed_run(cluster, given, undisturbed, tmp_path):
    words = flags(given, tmp_path / "out")
    job = cluster.start("finetune", *words, cwd=tmp_path)
    deadline = time.monotonic() + 200
    while not registered(tmp_path / "out"):
        assert time.monotonic() < deadline, "no checkpoint was registered"
        assert job.poll() is None, f"ended early:\n{job.communicate()[0]}"
        time.sleep(0.05)
    job.send_signal(signal.SIGKILL)
    job.communicate()
    assert not (tmp_path / "out" / "checkpoint").exists()
    printed = cluster.run("finetune", *words, cwd=tmp_path, expect=3)
    assert "shards are committed already" in printed
    for name, tensor in weights(undisturbed[0]).items():
        assert np.array_equal(tensor, weights(tmp_path / "out")[name]), name
    assert curve(undisturbed[0]) == curve(tmp_path / "out")
    changed = cluster.run("finetune", *flags(given, tmp_path / "out", lr=0.001), cwd=tmp_path, expect=4)
    assert "OTHER_RUN" in changed


def registered(output):
    """Whether Ray Train knows a checkpoint; its file may be caught half-written."""
    try:
        snapshot = json.loads((output / "train" / "checkpoint_manager_snapshot.json").read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return False
    return bool(snapshot["checkpoint_results"])


@pytest.mark.nightly
def test_seeds_share_tokens_and_are_averaged(cluster, given, undisturbed, tmp_path):
    words = flags(given, tmp_path / "out", epochs=2, seeds=2)
    cluster.run("finetune", *words, cwd=tmp_path, expect=3)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    each = [json.loads((tmp_path / "out" / f"seed-{seed}" / "report.json").read_text())["numbers"] for seed in (0, 1)]
    values = [numbers["test accuracy"]["value"] for numbers in each]
    assert report["numbers"]["test accuracy, mean"] == pytest.approx(np.mean(values))
    assert report["numbers"]["test accuracy, sd"] == pytest.approx(np.std(values, ddof=1))
    assert not (tmp_path / "out" / "seed-0" / "tokens").exists()
    runs = [json.loads((tmp_path / "out" / f"seed-{seed}" / "run.json").read_text()) for seed in (0, 1)]
    assert [run["recipe"]["config"]["seed"] for run in runs] == [0, 1]
    assert runs[0]["recipe"]["split"] == runs[1]["recipe"]["split"]
    printed = cluster.run("finetune", *words, cwd=tmp_path, expect=3)
    assert "seed 0 is done already" in printed
    spool = [json.loads(line) for line in (tmp_path / "out" / "tracking.jsonl").read_text().splitlines()]
    opened = {record["name"]: record["parent"] for record in spool if record["op"] == "open" and record["parent"]}
    assert set(opened) == {"seed 0", "seed 1"}
