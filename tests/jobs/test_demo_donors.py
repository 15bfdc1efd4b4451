"""What the demo on donors must show, and the demo's scGPT as gene embeddings, read from the reports that they left."""

import json
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.demo
RUNS = REPOSITORY / "runs"


def report(place: str, how: str) -> dict[str, Any]:
    path = RUNS / place / "report.json"
    if not path.exists():
        pytest.skip(f"runs/{place} is not finished: run jobs/{how} first")
    return json.loads(path.read_text())


def table(place: str) -> dict[str, dict[str, Any]]:
    """Of each row its numbers by metric, with what the table says of it."""
    rows: dict[str, dict[str, Any]] = {}
    for line in pq.read_table(RUNS / place / "ablation.parquet").to_pylist():
        rows.setdefault(line["row"], {"line": line})[f"{line['task']} {line['metric']}"] = line["value"]
    return rows


def test_the_demo_prints_every_row_of_the_published_table_and_the_rows_that_keep_it_honest():
    found = report("demo_donors/ablation", "demo.py --config jobs/presets/demo_donors.yaml")
    assert "(synthetic)" in found["title"]
    assert found["numbers"]["members that failed"] == 0
    rows = table("demo_donors/ablation")
    assert len(rows) == 15
    summary = found["tables"][0]
    aligned, adversary, sign = (summary["columns"].index(name) for name in ("alignment", "adversary", "sign"))
    designs = {(row[aligned], row[adversary], row[sign]) for row in summary["rows"]}
    assert designs >= {
        (a, b, c) for a in ("alignment", "-") for b, c in (("yes", "corrected"), ("yes", "reference"), ("no", "-"))
    }
    assert all(all(row["line"]["mlflow"]) for row in rows.values())
    assert rows["vanilla"]["finetune accuracy"] > rows["data set alone"]["probe accuracy"] + 0.2
    assert rows["text only"]["finetune accuracy"] < 0.15  # types say nothing of donors; chance is 1 in 20
    assert rows["majority"]["probe accuracy"] < 0.15


def test_layers_of_the_demos_network_are_gene_embeddings_of_real_cells():
    report("pbmc_fusion", "compare.py --config jobs/presets/pbmc_fusion.yaml")
    rows = table("pbmc_fusion")
    assert list(rows) == [
        "gene only",
        "aligned, gene side alone",
        "logistic regression",
        "kNN (15)",
        "majority",
        "chance",
    ]
    assert rows["gene only"]["finetune accuracy"] > rows["majority"]["probe accuracy"]
