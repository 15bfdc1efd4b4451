"""What the demos on sentences and on coloured digits must show, read from the reports that they left."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.browser import open_page
from tests.conftest import REPOSITORY
from xfm.core.schema import PART

pytestmark = pytest.mark.demo


def report(demo: str, job: str) -> dict[str, Any]:
    path = REPOSITORY / "runs" / demo / job / "report.json"
    if not path.exists():
        pytest.skip(f"runs/{demo} has no finished {job}: run jobs/demo.py --config jobs/presets/{demo}.yaml first")
    return json.loads(path.read_text())


def value(found: dict[str, Any], number: str) -> float:
    return found["numbers"][number]["value"]


def test_pairs_that_training_never_showed_are_named_without_an_example():
    found = report("demo_digits", "zero_shot")
    assert value(found, "accuracy") >= 0.80
    parts = (REPOSITORY / "runs" / "demo_digits" / "pretrain" / "tokens" / "parts").glob("*.parquet")
    tables = [pq.read_table(part, columns=["caption", PART]) for part in parts]
    rows = [row for table in tables for row in table.to_pylist()]
    trained = {row["caption"] for row in rows if row[PART] == 0}
    images = (REPOSITORY / "runs" / "demo_digits" / "zero_shot" / "images" / "parts").glob("*.parquet")
    scored = {pair for part in images for pair in pq.read_table(part)["pair"].to_pylist()}
    assert len(scored) == 10
    assert not [caption for caption in trained if any(caption.endswith(pair) for pair in scored)]


def test_sixteen_images_a_digit_adapt_the_image_tower_and_cost_something_elsewhere():
    found = report("demo_digits", "adapt")
    assert value(found, "test accuracy, adapted") >= 0.70
    assert value(found, "test accuracy, zero-shot") <= 0.40
    assert value(found, "forgetting: accuracy, adapted") < value(found, "forgetting: accuracy, zero-shot")


def test_training_composes_labels_that_frozen_random_layers_do_not_tell():
    frozen, tuned = report("demo_text", "frozen"), report("demo_text", "finetune")
    assert value(frozen, "label macro F1, chosen layer") <= 0.75
    assert value(tuned, "test accuracy") >= 0.90
    board = report("demo_text", "compare")
    assert "finetune" in json.dumps(board["tables"])


@pytest.mark.parametrize(
    ("demo", "job"),
    [("demo_digits", "zero_shot"), ("demo_digits", "adapt"), ("demo_text", "finetune"), ("demo_text", "compare")],
)
def test_pages_open_without_an_error_and_say_what_they_do_not_show(demo: str, job: str, tmp_path: Path):
    found = report(demo, job)
    if job != "compare":
        assert any("it says nothing of" in warning for warning in found["warnings"])
    page = open_page((REPOSITORY / "runs" / demo / job / "report.html").as_uri(), tmp_path)
    assert page.errors == []
    assert found["headline"][:40] in page.text
