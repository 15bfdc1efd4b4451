"""The evaluation that ends the demo: its page in a browser, and its score worked out again with scikit-learn."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from tests.browser import open_page
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.demo

FOLDER = REPOSITORY / "runs" / "demo" / "evaluate"
# Every picture decoded by the browser, and no sideways scrolling of the page itself.
ASK = "[[...document.images].map(i => i.complete && i.naturalWidth), document.documentElement.scrollWidth]"


@pytest.fixture(scope="module")
def report():
    if not (FOLDER / "report.json").exists():
        pytest.skip("runs/demo has no finished evaluation: run `make demo` first")
    return json.loads((FOLDER / "report.json").read_text())


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_curve_and_numbers_without_an_error(report, tmp_path, width):
    page = open_page((FOLDER / "report.html").as_uri(), tmp_path, width=width, ask=ASK)
    assert page.console == []
    assert [address for address in page.requests if not address.startswith("file:")] == []
    pictures, scrolled = page.answer
    assert len(pictures) == len(report["figures"]) >= 5
    assert all(pictures)
    assert scrolled <= width
    assert report["headline"] in page.text
    chosen = report["numbers"]["bulk_labels macro F1, chosen layer"]
    assert f"{chosen['value']:.3f}" in page.text
    assert report["figures"][0]["name"] == "bulk_labels_f1"


def test_the_curve_holds_the_stored_scores_and_the_chosen_one_follows_from_its_confusion_table(report):
    lines = (FOLDER / "plots" / "bulk_labels_f1.csv").read_text().splitlines()[1:]
    curve = [line.split(",") for line in lines]
    drawn = {f"{name}_l{int(at):02d}": float(value) for name, at, value, *_ in curve if at and name in ("cls", "mean")}
    assert len(drawn) == 10
    scores = pq.read_table(FOLDER / "scores.parquet").to_pandas()
    f1 = scores.query("task == 'probe' and metric == 'f1' and split == 'test'").set_index("representation")["value"]
    assert drawn == pytest.approx({name: f1[name] for name in drawn})
    chosen = report["provenance"]["choice"]["bulk_labels"]["representation"]
    assert f1_of_the_confusion_table() == pytest.approx(drawn[chosen])


def f1_of_the_confusion_table():
    lines = [line.split(",") for line in (FOLDER / "plots" / "bulk_labels_confusion.csv").read_text().splitlines()[1:]]
    counts = np.array([[int(cell) for cell in line[1:]] for line in lines])
    truth, predicted = np.nonzero(counts)
    weights = counts[truth, predicted]
    held = np.flatnonzero(counts.sum(axis=1))
    return f1_score(truth, predicted, sample_weight=weights, average="macro", labels=held, zero_division=0)


def test_cells_stand_on_one_side_and_baselines_beside_the_layers(report):
    scores = pq.read_table(FOLDER / "scores.parquet", columns=["representation", "kind", "task", "split"]).to_pandas()
    assert {"majority", "hvg", "pca", "random_cls_l04"} <= set(scores["representation"])
    assert set(scores["kind"]) == {"layer", "combination", "baseline"}
    numbers = report["numbers"]
    assert numbers["training cells"] + numbers["validation cells"] + numbers["test cells"] == numbers["cells"] == 271
