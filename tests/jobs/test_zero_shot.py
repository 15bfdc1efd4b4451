"""The zero-shot job as a user runs it: guesses of transformers, bad rows named, work not done twice."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn.functional import normalize

from tests.clip_examples import write_clip
from tests.zero_shot_examples import CUT_OFF, EACH, NAMES, colour_picture, write_colours
from xfm.core.storage import open_storage
from xfm.judging.score import SCHEMA
from xfm.studies.compare.gather import read_run

pytestmark = pytest.mark.ray

TEMPLATES = ("a photo of a {} square.", "the {} one")


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    """42 pictures of 7 colours, one of them cut off, by a tiny CLIP."""
    folder = tmp_path_factory.mktemp("zero_shot")
    data, checkpoint = write_colours(folder / "data"), write_clip(folder / "clip")
    words = ["--source.kind", "hub_images", "--source.path", str(data), "--source.shard_rows", "16", "--workers", "1",
             "--backbone.kind", "clip", "--backbone.checkpoint", str(checkpoint), "--bootstrap", "200"]  # fmt: skip
    prompts = ["--templates", ",".join(TEMPLATES), "--keep-logits"]
    output = ["--output", str(folder / "out")]
    printed = cluster.run("zero_shot", *words, *prompts, *output, cwd=folder, expect=3)
    return folder, words, [*words, *prompts, *output], printed


def parts_of(folder):
    return pa.concat_tables([pq.read_table(part) for part in sorted((folder / "parts").glob("*.parquet"))])


def read_json(path):
    return json.loads(path.read_text())


def test_its_guesses_are_those_of_transformers_for_both_ways_to_ask(made):
    from transformers import CLIPModel, CLIPProcessor

    folder, _, _, _ = made
    table = parts_of(folder / "out" / "images")
    good = [(name, i) for name in NAMES for i in range(EACH) if f"test/{name}/{i}.png" != CUT_OFF]
    rows = {row: number for number, row in enumerate(table["row_id"].to_pylist())}
    order = [rows[f"{'test' if i else 'train'}/{name}/{i}.png"] for name, i in good]
    assert len(rows) == len(good) == 41
    assert [table["label"][row].as_py() for row in order] == [name.replace("_", " ") for name, _ in good]

    model = CLIPModel.from_pretrained(folder / "clip").eval()
    processor = CLIPProcessor.from_pretrained(folder / "clip")
    images = [colour_picture(name, i) for name, i in good]
    names = [name.replace("_", " ") for name in NAMES]
    with torch.inference_mode():
        inputs = processor(
            text=[f"a photo of a {name}." for name in names], images=images, padding=True, truncation=True,
            return_tensors="pt",
        )  # fmt: skip
        one = model(**inputs)
        found = np.stack(table["one_template_l02_all"].to_pylist())[order]
        np.testing.assert_allclose(found, one.logits_per_image.numpy(), atol=2e-3)
        classes = []
        for name in names:
            texts = processor(
                text=[template.format(name) for template in TEMPLATES], padding=True, truncation=True,
                return_tensors="pt",
            )  # fmt: skip
            own = normalize(model.get_text_features(**texts).pooler_output, dim=-1)
            classes.append(normalize(own.mean(dim=0), dim=-1))
        logits = model.logit_scale.exp() * one.image_embeds @ torch.stack(classes).T
    np.testing.assert_allclose(np.stack(table["lens_l02_all"].to_pylist())[order], logits.numpy(), atol=2e-3)
    guessed = np.stack(table["lens_l02_classes"].to_pylist())[order, 0]
    np.testing.assert_array_equal(guessed, logits.argmax(dim=1).numpy())
    right = np.mean([NAMES[g] == name for g, (name, _) in zip(guessed, good, strict=True)])
    assert read_json(folder / "out" / "report.json")["numbers"]["accuracy"]["value"] == pytest.approx(right)


def test_what_it_leaves_behind_pins_prompts_and_names_what_was_not_used(made):
    folder, _, _, printed = made
    out = folder / "out"
    report, run = read_json(out / "report.json"), read_json(out / "run.json")
    assert report["refused"] == {"BAD_IMAGE": 1}
    lines = [json.loads(line) for line in (out / "quarantine.jsonl").read_text().splitlines()]
    assert [(line["key"], line["code"]) for line in lines] == [(CUT_OFF, "BAD_IMAGE")]
    assert report["provenance"]["prompts"]["light yellow"] == [t.format("light yellow") for t in TEMPLATES]
    assert report["provenance"]["rows"]["scored"] == "all images of the source"
    assert report["headline"] in printed
    assert report["figures"][0]["name"] == "zero_shot_layers"
    scores = pq.read_table(out / "scores.parquet")
    assert scores.column_names == [name for name in SCHEMA.names if name != "predicted"]
    assert set(scores["task"].to_pylist()) == {"zero_shot"}
    assert {"zero_shot", "lens_l00", "lens_l01", "one_template", "majority", "chance", "random_lens_l02"} <= set(
        scores["representation"].to_pylist()
    )
    # compare reads it, and knows which rows it was.
    read = read_run("zs", open_storage(str(out)), ("all",))
    assert (read.data, read.split) == (run["recipe"]["cells"], run["recipe"]["split"])
    assert read.model == "clip"
    assert any(score.representation == "zero_shot" and score.metric.name == "accuracy" for score in read.scores)


@pytest.mark.slow
def test_the_same_command_computes_nothing_again_and_another_recipe_is_refused_at_once(made, cluster):
    folder, _, words, _ = made
    before = (folder / "out" / "scores.parquet").read_bytes()
    again = cluster.run("zero_shot", *words, cwd=folder, expect=3)
    for stage, pieces in (("labels", 4), ("prompts", 3), ("images", 4), ("random", 4)):
        assert f"{stage}: {pieces} of {pieces} " in again
    assert (folder / "out" / "scores.parquet").read_bytes() == before
    other = ["a sketch of a {}" if word == ",".join(TEMPLATES) else word for word in words]
    refused = cluster.run("zero_shot", *other, cwd=folder, expect=4)
    assert "OTHER_RUN" in refused
    assert "config.templates" in refused


@pytest.mark.nightly
def test_a_saved_classifier_and_one_part_of_the_data(made, cluster, tmp_path):
    folder, words, _, _ = made
    more = ["--classifier", str(folder / "out"), "--source.obs", "split", "--split", "split=test",
            "--baselines", "chance", "--layers", "1"]  # fmt: skip
    cluster.run("zero_shot", *words, *more, "--output", str(tmp_path / "out"), cwd=tmp_path, expect=3)
    whole, part = parts_of(folder / "out" / "images"), parts_of(tmp_path / "out" / "images")
    assert set(part["row_id"].to_pylist()) == {row for row in whole["row_id"].to_pylist() if row.startswith("test/")}
    same = whole.filter(pc.is_in(whole["row_id"], part["row_id"])).sort_by("row_id")
    part = part.sort_by("row_id")
    assert part["row_id"].to_pylist() == same["row_id"].to_pylist()
    for name in ("lens_l02_classes", "lens_l02_confidence"):
        np.testing.assert_allclose(np.stack(part[name].to_pylist()), np.stack(same[name].to_pylist()), atol=1e-5)
    report = read_json(tmp_path / "out" / "report.json")
    assert report["provenance"]["rows"]["scored"] == "the images whose split is test"
    saved = (tmp_path / "out" / "classifier.safetensors").read_bytes()
    assert saved == (folder / "out" / "classifier.safetensors").read_bytes()


@pytest.mark.nightly
def test_labels_that_are_no_class_are_quarantined_by_row(made, cluster, tmp_path):
    _, words, _, _ = made
    more = ["--classes", "black=coal,blue,green,grey,red,white", "--baselines", "majority"]
    cluster.run("zero_shot", *words, *more, "--output", str(tmp_path / "out"), cwd=tmp_path, expect=3)
    report = read_json(tmp_path / "out" / "report.json")
    assert report["refused"] == {"BAD_IMAGE": 1, "LABEL_UNKNOWN": EACH}
    assert report["numbers"]["images scored"] == 7 * EACH - 1 - EACH
    assert report["provenance"]["classes"]["black"] == "coal"
    assert not (tmp_path / "out" / "labels").exists()
