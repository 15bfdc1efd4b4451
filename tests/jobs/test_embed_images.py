"""The embed job on pictures, as a user runs it: no word of its own for images."""

import json
from io import BytesIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.clip_examples import pictures, write_clip
from xfm.core.schema import OURS

pytestmark = [pytest.mark.ray, pytest.mark.nightly]  # pictures by a job: test_zero_shot.py, by day


@pytest.fixture(scope="module")
def made(cluster, tmp_path_factory):
    """24 pictures in four folders, one of them cut off, through a tiny CLIP."""
    folder = tmp_path_factory.mktemp("pictures")
    images, labels = pictures(24)
    for i, (data, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / "data" / label
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:02d}.{'png' if i % 2 == 0 else 'jpg'}").write_bytes(data if i != 5 else data[: len(data) // 2])
    checkpoint = write_clip(folder / "clip")
    words = ["--source.kind", "hub_images", "--source.path", str(folder / "data"), "--source.obs", "label",
             "--source.shard_rows", "9", "--backbone.kind", "clip",
             "--backbone.checkpoint", str(checkpoint)]  # fmt: skip
    cluster.run("embed", *words, "--batch_tokens", "40", "--output", str(folder / "out"), cwd=folder, expect=3)
    return folder, words


def test_layers_of_the_job_are_those_of_transformers(made):
    from transformers import CLIPModel
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder, _ = made
    table = pa.concat_tables([pq.read_table(part) for part in sorted((folder / "out" / "parts").glob("*.parquet"))])
    images, labels = pictures(24)
    rows = {int(name.rsplit("/", 1)[-1][:2]): i for i, name in enumerate(table["row_id"].to_pylist())}
    kept = [i for i in range(24) if i != 5]
    assert sorted(rows) == kept
    assert not [name for name in table.column_names if name.startswith(OURS)]
    order = [rows[i] for i in kept]
    assert [table["label"][row].as_py() for row in order] == [labels[i] for i in kept]
    opened = [Image.open(BytesIO(images[i])) for i in kept]
    inputs = CLIPImageProcessorPil.from_pretrained(folder / "clip")(opened, return_tensors="pt")
    with torch.inference_mode():
        model = CLIPModel.from_pretrained(folder / "clip").eval()
        states = model.vision_model(**inputs, output_hidden_states=True).hidden_states
    for layer, state in enumerate(states):
        for name, expected in (("cls", state[:, 0]), ("mean", state[:, 1:].mean(1))):
            found = np.stack(table[f"{name}_l{layer:02d}"].to_pylist())[order]
            np.testing.assert_allclose(found, expected.numpy(), atol=1e-5, rtol=0)


def test_a_broken_picture_is_quarantined_with_its_reason(made):
    folder, _ = made
    (line,) = (folder / "out" / "quarantine.jsonl").read_text().splitlines()
    refused = json.loads(line)
    assert (refused["code"], refused["key"].rsplit("/", 1)[-1]) == ("BAD_IMAGE", "05.jpg")


def test_what_needs_expression_or_words_is_refused(cluster, made):
    folder, words = made
    printed = cluster.run("layerwise", *words, "--output", str(folder / "layerwise"), cwd=folder, expect=4)
    assert "NO_DECODER" in printed
    words = ["--source.kind", "grammar", "--backbone.kind", "clip", "--backbone.checkpoint", str(folder / "clip")]
    printed = cluster.run("embed", *words, "--output", str(folder / "words"), cwd=folder, expect=4)
    assert "OTHER_INPUT" in printed
    assert "--backbone.kind clip reads image" in printed
