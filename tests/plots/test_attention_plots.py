import csv
import math

import numpy as np
import pytest
from scipy.special import softmax

from xfm.plots.attention import (
    AttentionSample,
    draw_cross_attention,
    draw_mean_attention,
    draw_resampled_attention,
    refuse_single_key,
)


def some(*shape, seed=0):
    return softmax(np.random.default_rng(seed).normal(size=shape), axis=-1)


SAMPLES = [AttentionSample(f"cell {n}", some(4, 4, seed=n), 0.5 * some(4, 4, seed=9 + n) + 0.125) for n in range(3)]


def rows_of(path):
    with path.open() as file:
        return list(csv.reader(file))


def test_the_csv_holds_every_weight_of_three_cells_in_both_directions(tmp_path):
    figure = draw_cross_attention(tmp_path, SAMPLES)
    head, *rows = rows_of(tmp_path / figure.csv)
    assert head == ["cell", "direction", "asks", "is asked", "weight"]
    assert len(rows) == 3 * 2 * 16
    held = {(cell, way, int(a), int(b)): float(value) for cell, way, a, b, value in rows}
    assert held["cell 1", "text to gene", 2, 3] == SAMPLES[1].text_to_gene[2, 3]
    assert held["cell 2", "gene to text", 0, 1] == SAMPLES[2].gene_to_text[0, 1]


def test_latents_are_called_latents_on_both_axes_and_in_the_caption(tmp_path, axes):
    figure = draw_cross_attention(tmp_path, SAMPLES)
    maps = [one for one in axes if one.images]
    words = [(one.get_ylabel(), one.get_xlabel()) for one in maps]
    assert (
        words
        == [("text latent (asks)", "gene latent (is asked)")] * 3
        + [("gene latent (asks)", "text latent (is asked)")] * 3
    )
    assert figure.caption.startswith("Cross attention of 3 cells, mean over heads. Rows and columns are latents")
    assert "neither single genes nor single words" in figure.caption


def test_all_maps_of_a_figure_share_one_scale_from_zero(tmp_path, axes):
    draw_cross_attention(tmp_path, SAMPLES)
    scales = {one.images[0].get_clim() for one in axes if one.images}
    assert scales == {(0, max(max(s.text_to_gene.max(), s.gene_to_text.max()) for s in SAMPLES))}


def test_a_sequence_of_one_is_refused_by_all(tmp_path):
    """The reference drew such maps: every weight is 1 whatever the cell is."""
    alone = np.ones((3, 16, 1))
    with pytest.raises(ValueError, match="sequence of length 1"):
        refuse_single_key(alone)
    with pytest.raises(ValueError, match="sequence of length 1"):
        draw_resampled_attention(tmp_path, alone, ["a", "b", "c"])
    with pytest.raises(ValueError, match="sequence of length 1"):
        draw_cross_attention(tmp_path, [AttentionSample("a", np.ones((1, 1)), np.ones((1, 1)))])
    with pytest.raises(ValueError, match="sequence of length 1"):
        draw_mean_attention(tmp_path, np.ones((1, 1)), entropy=0.0, variation=0.0, cells=5)
    with pytest.raises(ValueError, match="sequence of length 1"):
        draw_resampled_attention(tmp_path, some(1, 4, 3), ["neuron"], key_names=[["neuron"]])
    assert not (tmp_path / "plots").exists()


def test_the_mean_says_what_it_hides(tmp_path):
    figure = draw_mean_attention(tmp_path, some(8, 8), entropy=1.234, variation=0.31, cells=6356, noun="test cells")
    assert "Entropy of a row 1.234 nats" in figure.caption
    assert f"log 8 = {math.log(8):.3f}" in figure.caption
    assert "total-variation distance between two test cells 0.31" in figure.caption
    assert "the same for every cell" not in figure.caption
    same = draw_mean_attention(tmp_path, some(8, 8), entropy=1.234, variation=1e-5, cells=6356)
    assert "The map is the same for every cell" in same.caption
    assert "parameters, not biology" in same.alt


def test_tokens_have_their_names_and_padding_is_left_out(tmp_path, axes):
    weights = np.zeros((2, 3, 4))
    weights[0, :, :2] = some(3, 2)
    weights[1] = some(3, 4)
    names = [["neu", "ron"], ["oligo", "dendro", "cyte", "s"]]
    figure = draw_resampled_attention(
        tmp_path, weights, ["neuron", "oligodendrocytes"], side="text", keys="token", key_names=names
    )
    drawn = [[text.get_text() for text in one.get_xticklabels()] for one in axes if one.images]
    assert drawn == names
    rows = rows_of(tmp_path / figure.csv)
    assert [row[3] for row in rows if row[0] == "neuron" and row[2] == "0"] == ["neu", "ron"]


def test_weights_with_dropout_in_them_are_refused(tmp_path):
    with pytest.raises(ValueError, match="was dropout on"):
        draw_mean_attention(tmp_path, some(4, 4) * 1.4, entropy=1.0, variation=0.1, cells=3)


@pytest.mark.slow
def test_the_picture_opens_and_its_bytes_are_the_same_each_time(tmp_path, pixels):
    path = tmp_path / draw_cross_attention(tmp_path, SAMPLES).png
    first = path.read_bytes()
    assert pixels(path).min() < 100
    draw_cross_attention(tmp_path, SAMPLES)
    assert path.read_bytes() == first


def test_none_or_too_many_cells_are_refused(tmp_path):
    for samples in ([], SAMPLES * 3):
        with pytest.raises(ValueError, match="one to six"):
            draw_cross_attention(tmp_path, samples)
