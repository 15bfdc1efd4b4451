"""Bad input never becomes numbers: what is refused or quarantined, with which exit code and words."""

import gzip
import json
from pathlib import Path

import anndata
import numpy as np
import pytest

from tests.conftest import load_job
from xfm.engine.job import main


@pytest.fixture
def run(tmp_path, tiny_scgpt, monkeypatch, capsys, caplog):
    """Runs embed in this process without a cluster; everything here must be found out before one is needed."""
    # An address where nobody listens: a job that got as far as Ray would end with 5.
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.chdir(tmp_path)
    embed = load_job("embed")

    def start(path, *more, checkpoint=tiny_scgpt / "checkpoint", expect=4):
        words = ["--source.kind", "h5ad", "--source.path", str(path), "--backbone.kind", "scgpt",
                 "--backbone.checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), *more]  # fmt: skip
        with pytest.raises(SystemExit) as end:
            main(embed.EmbedJob, embed.run, "embed", words)
        printed = capsys.readouterr()
        assert end.value.code == expect, printed.err
        return printed.out + printed.err + caplog.text

    return start


@pytest.fixture
def cells(tiny_scgpt):
    return anndata.read_h5ad(tiny_scgpt / "cells.h5ad")


def written(cells, path):
    cells.write_h5ad(path)
    return path


def test_log_values_are_refused_with_the_way_out(run, cells, tmp_path):
    cells.X = np.log1p(cells.X)
    text = run(written(cells, tmp_path / "logged.h5ad"))
    assert "NOT_COUNTS" in text
    assert "--source.values log" in text
    assert not (tmp_path / "out" / "parts").exists()


def test_genes_of_another_species_are_refused(run, cells, tmp_path):
    cells.var_names = cells.var_names.str.capitalize() + "x"
    cells.var["feature_name"] = cells.var_names
    assert "NO_OVERLAP" in run(written(cells, tmp_path / "mouse.h5ad"))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_file_is_refused(run, tiny_scgpt, tmp_path, share):
    whole = (tiny_scgpt / "cells.h5ad").read_bytes()
    (tmp_path / "cut.h5ad").write_bytes(whole[: int(len(whole) * share)])
    assert "H5_" in run(tmp_path / "cut.h5ad")


class Bomb:
    def __init__(self, canary):
        self.canary = canary

    def __reduce__(self):
        return (Path.touch, (Path(self.canary),))


def test_a_checkpoint_that_would_run_code_is_refused_and_does_not_run(run, tiny_scgpt, tmp_path):
    import torch

    folder = tmp_path / "checkpoint"
    folder.mkdir()
    for name in ("args.json", "vocab.json"):
        (folder / name).write_bytes((tiny_scgpt / "checkpoint" / name).read_bytes())
    torch.save({"encoder.embedding.weight": Bomb(tmp_path / "canary")}, folder / "best_model.pt")
    assert "UNSAFE_FILE" in run(tiny_scgpt / "cells.h5ad", checkpoint=folder)
    assert not (tmp_path / "canary").exists()


def test_a_missing_file_a_missing_column_and_a_missing_checkpoint_say_what_is_there(run, tiny_scgpt, tmp_path):
    assert "no_such.h5ad" in run(tmp_path / "no_such.h5ad")
    text = run(tiny_scgpt / "cells.h5ad", "--source.obs", "bulk_label")
    assert "bulk_labels" in text
    assert "NO_CHECKPOINT" in run(tiny_scgpt / "cells.h5ad", checkpoint=tmp_path / "nowhere")


def test_typos_end_with_2_and_the_nearest_name(run, tiny_scgpt):
    assert "--source.shard_rows" in run(tiny_scgpt / "cells.h5ad", "--source.shard_row", "3", expect=2)
    assert "--pools" in run(tiny_scgpt / "cells.h5ad", "--pools", "clss", expect=2)
    assert "has layers 0" in run(tiny_scgpt / "cells.h5ad", "--layers", "13")


def test_a_cluster_that_is_not_there_ends_with_5(run, tiny_scgpt):
    assert "127.0.0.1:1" in run(tiny_scgpt / "cells.h5ad", expect=5)


def test_a_dry_run_says_what_would_happen_and_writes_nothing(run, tiny_scgpt, tmp_path):
    text = run(tiny_scgpt / "cells.h5ad", "--source.shard_rows", "10", "--dry-run", expect=0)
    assert "shards        7" in text
    assert "rows          64" in text
    # 64 rows x 26 columns x 32 numbers x 4 bytes = 212,992
    assert "213.0 kB" in text
    assert not (tmp_path / "out").exists()


@pytest.mark.ray
@pytest.mark.slow
def test_good_rows_and_files_are_done_and_bad_ones_quarantined(cluster, cells, tiny_scgpt, tmp_path):
    folder = tmp_path / "cells"
    folder.mkdir()
    dense = cells.X.toarray()
    dense[3, 0], dense[5, 0], dense[7, 0], dense[9] = -1, np.nan, np.inf, 0
    bad_rows = cells.copy()
    bad_rows.X = dense
    written(bad_rows, folder / "a.h5ad")
    packed = gzip.compress((tiny_scgpt / "cells.h5ad").read_bytes(), 1)
    (folder / "b.h5ad.gz").write_bytes(packed)
    (folder / "c.h5ad.gz").write_bytes(packed[: len(packed) // 2])
    (folder / "d.h5ad").write_bytes((tiny_scgpt / "cells.h5ad").read_bytes()[:50_000])
    cells.X = np.log1p(cells.X)
    written(cells, folder / "e.h5ad")
    words = ["--source.kind", "h5ad", "--source.path", str(folder), "--backbone.kind", "scgpt",
             "--backbone.checkpoint", str(tiny_scgpt / "checkpoint"), "--output", str(tmp_path / "out"),
             "--layers", "0,12", "--pools", "cls"]  # fmt: skip
    cluster.run("embed", *words, cwd=tmp_path, expect=3)
    lines = [json.loads(line) for line in (tmp_path / "out" / "quarantine.jsonl").read_text().splitlines()]
    found = {
        line["key"].rpartition("/")[2] if "a.h5ad/" in line["key"] else Path(line["key"]).name: line["code"]
        for line in lines
    }
    assert found["3"] == "NEGATIVE"
    assert found["5"] == "NAN"
    assert found["7"] == "INFINITE"
    assert found["9"] == "EMPTY"
    assert found["c.h5ad.gz"] == "GZ_TRUNCATED"
    assert found["d.h5ad"].startswith("H5_")
    assert found["e.h5ad"] == "NOT_COUNTS"
    assert len(lines) == 7
    manifest = [json.loads(line) for line in (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()]
    assert sum(line["rows"] for line in manifest) == 60 + 64
