"""What a run is called, found by, and made from."""

import pytest

from xfm.core.config import fingerprint
from xfm.track.lineage import data_name, datasets, experiment_name, origin_of, run_name, run_tags, weights_digest

SHA = "ab" * 32


def run_of(data, source=None, weights=None, **more):
    recipe = {"job": "embed", "config": {"seed": 0}, "weights": weights or {}, "data": data}
    settings = {"source": source or {}, "backbone": {"kind": "scgpt"}}
    return {"job": "embed", "recipe": recipe, "settings": settings} | more


def test_a_list_of_runs_says_job_data_model_recipe_and_attempt():
    run = run_of({"uri": "/data/pbmc.soma"})
    assert experiment_name(run) == "xfm/embed/pbmc"
    assert run_name(run, 3) == f"scgpt-{fingerprint(run['recipe'])[:8]}-3"
    other = run_of({"uri": "/data/pbmc.soma", "filter": "split == 'train'"})
    assert run_name(other, 3) != run_name(run, 3)
    assert run_name({"job": "pretrain", "recipe": {}}, 1).startswith("pretrain-")


@pytest.mark.parametrize(
    ("data", "source", "name"),
    [
        ({"release": "2025-11-08"}, {"kind": "census"}, "census-2025-11-08"),
        ({"uri": "s3://bucket/atlas/lung.soma/"}, {}, "lung"),
        ({"files": {"a.h5ad": SHA, "b.h5ad": SHA}}, {"path": "skin/*.h5ad"}, "skin"),
        ({"files": {"x": SHA}}, {"path": "hf://owner/atlas@0123abc"}, "atlas"),
        ({"files": {"x": SHA}}, {"path": "https://host/cells.h5ad.gz?token=abc"}, "cells"),
        ({"files": {"/data/only.h5ad": SHA}}, {}, "only"),
        ({"cells": 5}, {}, "data"),
    ],
)
def test_data_have_a_short_name(data, source, name):
    assert data_name(run_of(data, source)) == name


def test_no_name_holds_credentials():
    run = run_of({"files": {"x": SHA}}, {"path": "https://me:canary@host"})
    assert "canary" not in experiment_name(run) + str(datasets(run))


def test_few_files_are_data_sets_each_and_many_are_one():
    few = datasets(run_of({"files": {"skin/a.h5ad": SHA, "skin/b.h5ad": "cd" * 32}}))
    assert [(data.name, data.digest, data.source) for data in few] == [
        ("a.h5ad", SHA, "skin/a.h5ad"),
        ("b.h5ad", "cd" * 32, "skin/b.h5ad"),
    ]
    data = {"files": {f"{number}.h5ad": SHA for number in range(21)}}
    (many,) = datasets(run_of(data, {"path": "skin/*.h5ad"}))
    assert (many.name, many.source, many.digest) == ("skin", "skin/*.h5ad", fingerprint(data))
    assert many.profile == {"files": 21}


def test_a_job_on_an_output_says_which_data_model_and_run_are_behind_it():
    embed = run_of({"uri": "/data/pbmc.soma"}, weights={"model.safetensors": SHA, "vocab.json": "cd" * 32})
    embed["fingerprint"] = "ef" * 32
    recipe = {"job": "evaluate", "data": {"rows": 271, "parts": "12" * 32}}
    settings = {"embeddings": "runs/demo/embed"}
    run = {"job": "evaluate", "recipe": recipe, "settings": settings, "origin": origin_of(embed)}
    assert experiment_name(run) == "xfm/evaluate/pbmc"
    assert run_name(run, 1).startswith("scgpt-")
    tags = run_tags(run, "runs/x")
    assert tags["xfm.weights"] == SHA
    assert tags["xfm.origin"] == "ef" * 32
    assert tags["xfm.data"] != run_tags(embed, "runs/y")["xfm.data"]
    (data,) = datasets(run)
    assert (data.name, data.digest, data.source) == ("pbmc, embed by scgpt", "12" * 32, "runs/demo/embed")
    unknown = run | {"origin": origin_of({})}
    assert experiment_name(unknown) == "xfm/evaluate/embed"
    assert run_name(unknown, 1).startswith("evaluate-")


def test_weights_are_named_by_the_digest_that_sha256sum_prints():
    assert weights_digest({"best_model.pt": SHA, "args.json": "cd" * 32}) == SHA
    assert weights_digest({"a.safetensors": SHA, "b.safetensors": "cd" * 32}) not in (SHA, "")
    assert weights_digest({"initial": {"dim": 64}, "seed": 0}) == ""
