"""Coloured digits: what a row says is what its picture shows; held-out pairs and digits stay where they belong."""

import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from xfm.core.errors import Refused, ShardRefused
from xfm.core.schema import IMAGE, REFUSED, ROW_ID, SHARD
from xfm.core.source import Shard
from xfm.sources.synthetic.digits import COLOURS, DIGITS, TEMPLATES, Digits, bundled_digits, place

PAIRS = {f"{colour} {digit}" for colour in COLOURS for digit in DIGITS}


def rows_of(source):
    return [row for shard in source.shards() for batch in source.read(shard) for row in batch.to_pylist()]


def pixels(row):
    with Image.open(io.BytesIO(row[IMAGE])) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB")).astype(float)


@pytest.fixture(scope="module")
def plain():
    return rows_of(Digits())


def test_ten_pairs_never_occur_in_training_and_their_words_do(plain):
    train = [row for row in plain if row["split"] == "train"]
    seen = {row["pair"] for row in train}
    held = PAIRS - seen
    assert len(held) == 10
    assert Counter(pair.split()[1] for pair in held) == dict.fromkeys(DIGITS, 1)
    assert Counter(pair.split()[0] for pair in held) == dict.fromkeys(COLOURS, 2)
    assert not any(pair in row["caption"] for row in train for pair in held)
    for split in ("validation", "test"):
        assert {row["pair"] for row in plain if row["split"] == split} == PAIRS
        chosen = rows_of(Digits(split=split, pairs="held_out"))
        assert {row["pair"] for row in chosen} == held
        assert {row[ROW_ID] for row in chosen} < {row[ROW_ID] for row in plain if row["split"] == split}
    assert {row["pair"] for row in rows_of(Digits(split="validation", pairs="seen"))} == seen
    with pytest.raises(Refused, match=r"NO_ROWS.*held_out"):
        Digits(split="train", pairs="held_out").shards()
    other = Digits(domain="shifted", split="train", seed=5)
    assert held.isdisjoint(row["pair"] for batch in other.read(other.shards()[0]) for row in batch.to_pylist())


def test_no_digit_is_in_two_splits_in_any_domain_or_seed(plain):
    def split_of_digit(rows):
        return {(row[ROW_ID].split("/")[1].split("-")[0], row["split"]) for row in rows}

    places = split_of_digit(plain)
    assert len(places) == 1797
    assert Counter(split for _, split in places) == {"train": 1050, "validation": 150, "test": 597}
    other = Digits(domain="shifted", seed=3, renderings=2)
    chosen = [row for shard in other.shards()[::8] for batch in other.read(shard) for row in batch.to_pylist()]
    assert split_of_digit(chosen) <= places


def test_a_row_says_what_its_picture_shows(plain):
    numbers = load_digits().target
    for row in plain[::37]:
        image = int(row[ROW_ID].split("/")[1].split("-")[0])
        assert row["digit"] == DIGITS[numbers[image]]
        assert row["pair"] == f"{row['colour']} {row['digit']}"
        shown = pixels(row)
        assert shown.shape == (32, 32, 3)
        stroke = shown[shown.max(axis=2) > 120].mean(axis=0)
        distance = {name: np.linalg.norm(stroke - 0.9 * np.array(rgb)) for name, rgb in COLOURS.items()}
        assert min(distance, key=distance.get) == row["colour"]
        assert np.median(shown) < 60  # a dark ground


def test_an_unmoved_glyph_is_the_digit_that_scikit_learn_has():
    glyphs, _ = bundled_digits()
    drawn = place(glyphs[:20], 8, np.zeros(20), np.ones(20), np.zeros((20, 2)))
    np.testing.assert_allclose(drawn, load_digits().images[:20] / 16, atol=1e-12)
    moved = place(glyphs[:20], 8, np.zeros(20), np.ones(20), np.tile([1 / 8, 0], (20, 1)))
    np.testing.assert_allclose(moved[:, :, 1:], drawn[:, :, :-1], atol=1e-12)
    turned = place(glyphs[:20], 8, np.full(20, np.pi / 2), np.ones(20), np.zeros((20, 2)))
    np.testing.assert_allclose(turned, np.rot90(drawn, -1, axes=(1, 2)), atol=1e-9)
    small = place(glyphs[:20], 32, np.zeros(20), np.full(20, 0.5), np.zeros((20, 2)))
    assert small[:, :6].max() == small[:, :, 26:].max() == 0


def test_the_shifted_domain_is_dark_on_light_and_noisy(plain):
    shifted = rows_of(Digits(domain="shifted", split="validation"))
    assert {row["pair"] for row in shifted} == PAIRS
    bright = np.mean([pixels(row).mean() for row in shifted[::20]])
    dark = np.mean([pixels(row).mean() for row in plain[::200]])
    assert bright > 170
    assert dark < 80
    corner = np.stack([pixels(row)[:3, :3] for row in shifted[::20]])
    assert 8 < corner.std(axis=(1, 2)).mean() < 30


def test_captions_use_six_templates_and_name_the_colour_in_half_of_them(plain):
    things = {t: [] for t in TEMPLATES}
    for row in plain:
        fits = [t for t in TEMPLATES if row["caption"] in (t.format(row["digit"]), t.format(row["pair"]))]
        assert len(fits) == 1
        things[fits[0]].append(row["colour"] in row["caption"])
    counts = np.array([len(found) for found in things.values()])
    assert (abs(counts / len(plain) - 1 / 6) < 0.02).all()  # a deviation is 0.004
    assert abs(np.mean([named for found in things.values() for named in found]) - 0.5) < 0.03


def test_a_picture_depends_on_seed_and_digit_alone(plain):
    small = Digits(split="test", pairs="held_out", shard_rows=7, obs=("digit",))
    by_id = {row[ROW_ID]: row[IMAGE] for row in plain}
    first = next(iter(small.read(small.shards()[1]))).to_pylist()
    assert [by_id[row[ROW_ID]] for row in first] == [row[IMAGE] for row in first]
    assert set(first[0]) == {ROW_ID, SHARD, REFUSED, IMAGE, "digit"}
    two = Digits(split="test", pairs="held_out", renderings=2)
    again = rows_of(two)
    assert {row[ROW_ID]: row[IMAGE] for row in again if row[ROW_ID] in by_id} == {
        row[ROW_ID]: by_id[row[ROW_ID]] for row in again if row[ROW_ID] in by_id
    }
    assert len({row[IMAGE] for row in again}) == len(again) == 2 * 597
    other = rows_of(Digits(split="test", pairs="held_out", seed=1))
    assert not {row[IMAGE] for row in other} & set(by_id.values())


def test_a_shard_of_other_settings_is_refused():
    with pytest.raises(ShardRefused, match=r"ROWS_CHANGED.*100 rows promised, 0 there"):
        list(Digits(split="validation").read(Shard("digits-000009", 9000, 9100, 100)))


def test_the_size_of_pictures_is_chosen():
    assert pixels(rows_of(Digits(split="validation", pairs="held_out", size=48))[0]).shape == (48, 48, 3)
