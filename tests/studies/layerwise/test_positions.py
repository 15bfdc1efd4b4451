"""What is compared with what: every prediction with the bin of its own position, and no answer in the input."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.studies.layerwise.layer_cases import (
    MASK,
    FakeConfig,
    echo,
    fit_and_score,
    make_design,
    noise_states,
    random_cells,
    token_table,
)
from xfm.core.errors import EnvironmentProblem, Refused, ShardRefused
from xfm.core.schema import DEPTH, INPUT_IDS, ROW_ID, SHARD, VALUES
from xfm.models.scgpt.config import ScGPT
from xfm.studies.layerwise.scoring import FitLayers, LayerReader, ScoreLayers


def mean_squared(sums):
    """Over all predictions of (C, 5) sums of cells."""
    return sums[:, 1].sum() / sums[:, 0].sum()


@pytest.fixture(scope="module")
def reference(tiny_scgpt):
    with np.load(tiny_scgpt / "reference.npz") as file:
        return {name: file[name] for name in file.files}


@pytest.fixture(scope="module")
def reader(tiny_scgpt):
    return LayerReader(ScGPT(checkpoint=str(tiny_scgpt / "checkpoint")), make_design(batch_tokens=9000), None)


def reference_table(reference, n):
    """The tokens that the official package was given, as a tokenised shard."""
    lengths = reference["lengths"][:n]
    ids = [row[:length].tolist() for row, length in zip(reference["gene_ids"], lengths, strict=False)]
    values = [row[:length].astype(int).tolist() for row, length in zip(reference["values"], lengths, strict=False)]
    return pa.table(
        {
            ROW_ID: reference["barcodes"][:n].astype(str),
            SHARD: ["s"] * n,
            DEPTH: pa.array(np.full(n, 1000.0), pa.float32()),
            INPUT_IDS: pa.array(ids, pa.large_list(pa.uint16())),
            VALUES: pa.array(values, pa.large_list(pa.int16())),
        }
    )


def test_the_decoder_at_scored_positions_is_the_reference_in_every_layer(reader, reference):
    n, seen = 12, 0
    for cells in reader.cells(reference_table(reference, n)):
        for layer, state, predicted in reader.states(cells, "visible"):
            expected = [reference["expr_pred"][row, layer, 1 : reference["lengths"][row]] for row in cells.rows]
            np.testing.assert_allclose(predicted, np.concatenate(expected), rtol=0, atol=1e-4)
            assert state.shape == (len(predicted), reader.backbone.dim)
        bins = [reference["values"][row, 1 : reference["lengths"][row]] for row in cells.rows]
        np.testing.assert_array_equal(cells.bins[cells.scored("visible")], np.concatenate(bins))
        seen += len(cells.rows)
    assert seen == n


def test_a_score_on_the_neighbours_truth_is_another_score(reader, reference):
    (cells,) = reader.cells(reference_table(reference, 4))
    target = cells.bins[cells.scored("visible")]
    *_, (_, _, predicted) = reader.states(cells, "visible")
    right, shifted = np.mean((predicted - target) ** 2), np.mean((predicted[:-1] - target[1:]) ** 2)
    assert abs(right - shifted) > 1e-3


def shifted_echo(layer, ids, values):
    """Each position holds what its left neighbour was shown: the early system's mistake, planted."""
    return torch.stack([values.roll(1, dims=1), ids.float()], dim=-1)


def scores_of(state, cells):
    _, _, columns, _ = fit_and_score(FakeConfig(state), make_design(), [token_table(cells)])
    return columns


def test_a_decoder_that_repeats_its_input_is_perfect_where_the_input_holds_the_answer():
    columns = scores_of(echo, random_cells(20, 1))
    for layer in range(3):
        assert mean_squared(columns[f"visible_decoder_l{layer:02d}"]) == 0
        assert mean_squared(columns[f"visible_ridge_l{layer:02d}"]) < 1e-6
        assert mean_squared(columns[f"masked_decoder_l{layer:02d}"]) > 100


def test_a_decoder_that_says_the_next_gene_is_perfect_against_the_next_gene_alone():
    def next_echo(layer, ids, values):
        return torch.stack([values.roll(-1, dims=1), ids.float()], dim=-1)

    config, table = FakeConfig(next_echo), token_table(random_cells(20, 1))
    _, _, columns, _ = fit_and_score(config, make_design(modes=("visible",), misaligned=True), [table])
    assert mean_squared(columns["visible_misaligned_l01"]) == 0
    assert mean_squared(columns["visible_decoder_l01"]) > 100
    # The last gene of each cell has no next one.
    assert (columns["visible_decoder_l01"][:, 0] - columns["visible_misaligned_l01"][:, 0] == 1).all()
    plain = fit_and_score(config, make_design(modes=("visible",)), [table])[2]
    assert "visible_misaligned_l01" not in plain


def test_a_decoder_off_by_one_position_is_not_perfect():
    cells = random_cells(20, 1)
    columns = scores_of(shifted_echo, cells)
    errors = [np.mean(np.diff([-2, *bins]) ** 2) for _, bins in cells]
    counts = columns["visible_decoder_l00"][:, 0]
    by_size = {len(bins): [] for _, bins in cells}
    for (_, bins), error in zip(cells, errors, strict=True):
        by_size[len(bins)].append(error)
    for size, squared in zip(counts, columns["visible_decoder_l00"][:, 1], strict=True):
        assert np.isclose(by_size[int(size)], squared / size).any()
    assert mean_squared(columns["visible_decoder_l00"]) > 100


def test_bins_of_hidden_positions_never_reach_the_model():
    config, cells = FakeConfig(), random_cells(12, 2)
    reader = LayerReader(config, make_design(modes=("masked",), batch_tokens=150), None)
    batches = 0
    for batch in reader.cells(token_table(cells)):
        ((_, _, predicted), *_) = reader.states(batch, "masked")
        assert (predicted == MASK).all()
        shown = config.built[0].seen[-1]
        hidden = batch.padded(batch.hidden)
        for i, row in enumerate(batch.rows):
            genes, bins = cells[row]
            assert shown.ids[i, 1 : len(genes) + 1].tolist() == genes
            expected = np.where(hidden[i, 1 : len(genes) + 1], MASK, bins)
            np.testing.assert_array_equal(shown.values[i, 1 : len(genes) + 1], expected)
            assert hidden[i].sum() == int(len(genes) * 0.25)
            assert not hidden[i, 0]
        batches += 1
    assert batches > 2


def test_masking_leaves_the_batch_itself_alone_so_that_visible_mode_sees_all_bins():
    reader = LayerReader(FakeConfig(), make_design(), None)
    (batch,) = reader.cells(token_table(random_cells(5, 3)))
    list(reader.states(batch, "masked"))
    ((_, _, predicted), *_) = reader.states(batch, "visible")
    np.testing.assert_array_equal(predicted, batch.bins[batch.is_gene])


def test_the_mean_of_a_cell_uses_only_what_the_input_shows():
    table = token_table(random_cells(30, 4))
    _, _, columns, rows = fit_and_score(FakeConfig(), make_design(), [table])
    position = {name: i for i, name in enumerate(rows)}
    for batch in LayerReader(FakeConfig(), make_design(), None).cells(table):
        for start, stop, row in zip(batch.offsets[:-1], batch.offsets[1:], batch.rows, strict=True):
            name = f"cell-{row}"
            if name not in position:
                continue
            bins, hidden = batch.bins[start + 1 : stop], batch.hidden[start + 1 : stop]
            masked = np.sum((bins[hidden] - bins[~hidden].mean()) ** 2)
            assert columns["masked_cell_mean"][position[name], 1] == pytest.approx(masked)
            visible = np.sum((bins - bins.mean()) ** 2)
            assert columns["visible_cell_mean"][position[name], 1] == pytest.approx(visible)


def test_a_cell_with_a_single_gene_is_scored_without_its_answer():
    table = token_table([([3], [7]), *random_cells(20, 5)])
    design = next(d for d in (make_design(seed=seed) for seed in range(9)) if not d.is_fit(table)[0])
    _, _, columns, rows = fit_and_score(FakeConfig(), design, [table])
    at = rows.index("cell-0")
    assert columns["masked_cell_mean"][at, 0] == 1
    assert columns["masked_cell_mean"][at, 1] > 0
    assert np.isnan(columns["masked_decoder_l00"][at, 3])


def test_every_cell_is_on_one_side_and_a_group_never_on_both():
    table = token_table(random_cells(40, 6), donor=[f"d{i % 7}" for i in range(40)])
    for design, unit in ((make_design(), ROW_ID), (make_design(group="donor"), "donor")):
        is_fit = design.is_fit(table)
        assert 0 < is_fit.sum() < 40
        names = np.array(table[unit].to_pylist())
        assert not set(names[is_fit]) & set(names[~is_fit])
    *_, scored = fit_and_score(FakeConfig(), make_design(), [table])
    assert scored == np.array(table[ROW_ID].to_pylist())[~make_design().is_fit(table)].tolist()


def test_the_split_of_a_cell_does_not_depend_on_its_shard():
    table, design = token_table(random_cells(30, 7)), make_design()
    pieces = np.concatenate([design.is_fit(table.slice(i, 7)) for i in range(0, 30, 7)])
    np.testing.assert_array_equal(pieces, design.is_fit(table))


def test_a_shard_without_cells_of_a_side_gives_an_empty_table_of_the_same_columns():
    config, table = FakeConfig(), token_table(random_cells(20, 8))
    readouts, *_ = fit_and_score(config, make_design(), [table])
    is_fit = make_design().is_fit(table)
    scorer = ScoreLayers(config, make_design(), readouts)
    full, empty = scorer(table), scorer(table.filter(pa.array(is_fit)))
    assert empty.num_rows == 0
    assert empty.schema == full.schema
    nothing = FitLayers(config, make_design())(table.filter(pa.array(~is_fit)))
    assert nothing.num_rows == 0
    assert nothing.schema == FitLayers(config, make_design())(table).schema


def test_what_cannot_be_read_is_refused_with_a_reason():
    table = token_table(random_cells(10, 9))
    with pytest.raises(Refused, match="NO_DECODER"):
        FitLayers(FakeConfig(decoder=False), make_design())
    with pytest.raises(Refused, match=r"NO_COLUMN.*--source\.obs"):
        FitLayers(FakeConfig(), make_design(group="donor_id"))(table)
    with pytest.raises(EnvironmentProblem, match="checkpoint on this machine"):
        FitLayers(FakeConfig(), make_design(), identity={"weights": "others"})
    broken = FakeConfig(lambda layer, ids, values: noise_states(layer, ids, values) / (layer != 1))
    with pytest.raises(ShardRefused, match=r"NOT_FINITE.*layer 1"):
        FitLayers(broken, make_design())(table)


def test_the_halves_of_the_fitting_cells_are_whole_cells_and_together_all_of_them():
    cells, design = random_cells(40, 12), make_design(modes=("visible",), batch_tokens=200)
    table = token_table(cells)
    fitted = FitLayers(FakeConfig(), design)(table)
    sums = {name: np.array(values) for name, values in zip(*fitted.to_pydict().values(), strict=True)}
    chosen = [cell for cell, is_fit in zip(cells, design.is_fit(table), strict=True) if is_fit]
    # States repeat (bin, gene id), and the target is the bin.
    rows = np.concatenate([np.stack([bins, genes, np.ones(len(bins)), bins], axis=1) for genes, bins in chosen])
    first, second = (sums[f"visible_gram{half}_l01"].reshape(4, 4) for half in (0, 1))
    np.testing.assert_allclose(first + second, rows.T @ rows)
    sizes = {len(bins) for _, bins in chosen}
    assert min(first[2, 2], second[2, 2]) >= min(sizes)
    alone = {}
    for row in range(len(cells)):
        part = FitLayers(FakeConfig(), design)(table.slice(row, 1)).to_pydict()
        grams = dict(zip(part["name"], part["values"], strict=True))
        if grams:
            counts = [np.reshape(grams[f"visible_gram{half}_l01"], (4, 4))[2, 2] for half in (0, 1)]
            assert sorted(counts) == [0, len(cells[row][0])]
            alone[row] = counts
    np.testing.assert_allclose(np.sum(list(alone.values()), axis=0), [first[2, 2], second[2, 2]])


def test_a_group_lies_in_one_half_of_the_fitting_cells():
    """Else the penalty would be chosen on cells of donors that it was fitted on."""
    donors = np.arange(60) % 12
    table = token_table(random_cells(60, 12)).append_column("donor", pa.array([f"d{donor}" for donor in donors]))
    design, seen = make_design(modes=("visible",), group="donor"), set()
    for donor in range(12):
        fitted = FitLayers(FakeConfig(), design)(table.filter(pa.array(donors == donor))).to_pydict()
        grams = dict(zip(fitted["name"], fitted["values"], strict=True))
        if grams:
            counts = [np.reshape(grams[f"visible_gram{half}_l01"], (4, 4))[2, 2] for half in (0, 1)]
            assert min(counts) == 0 < max(counts)
            seen.add(int(np.argmax(counts)))
    assert seen == {0, 1}
