"""The made atlas: its vectors are the sum that it says, its donors lie in data sets, its shards are independent."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError
from scipy.stats import kstest

from xfm.core.errors import Refused
from xfm.core.schema import EMBEDDING, ROW_ID, SHARD
from xfm.sources.synthetic.atlas import TYPES, Atlas


def frame_of(source):
    table = pa.Table.from_batches([batch for shard in source.shards() for batch in source.read(shard)])
    return table.to_pandas(), np.array(table[EMBEDDING].to_pylist(), np.float32)


@pytest.fixture(scope="module")
def atlas():
    return frame_of(Atlas())


def test_the_default_has_the_specified_sizes_and_uneven_types(atlas):
    rows, vectors = atlas
    assert vectors.shape == (4000, 64)
    assert vectors.dtype == np.float32
    assert Atlas().schema.field(EMBEDDING).type == pa.list_(pa.float32(), 64)
    assert [rows[name].nunique() for name in ("cell_type", "donor_id", "dataset_id", "sex")] == [8, 6, 2, 2]
    counts = rows["cell_type"].value_counts()
    assert set(counts.index) == set(TYPES[:8])
    assert counts.iloc[0] > 20 * counts.iloc[-1]
    assert counts.iloc[-1] >= 6
    assert rows[ROW_ID].is_unique


def test_donors_lie_in_one_data_set_and_have_one_sex(atlas):
    rows, _ = atlas
    assert (rows.groupby("donor_id")[["dataset_id", "sex"]].nunique() == 1).all(axis=None)


@pytest.mark.parametrize(("donors", "datasets"), [(6, 2), (20, 2), (20, 4), (12, 3), (7, 1), (9, 2)])
def test_sexes_are_balanced_over_donors_and_in_each_data_set(donors, datasets):
    rows, _ = frame_of(Atlas(n_cells=300, n_types=2, n_donors=donors, n_datasets=datasets, dim=2))
    people = rows.drop_duplicates("donor_id")
    assert len(people) == donors
    sexes = people["sex"].value_counts()
    assert abs(sexes["male"] - sexes["female"]) <= 1
    inside = people.groupby(["dataset_id", "sex"]).size().unstack(fill_value=0)
    assert (abs(inside["male"] - inside["female"]) <= 1).all()


def test_vectors_are_the_sum_of_their_effects_and_standard_normal_noise(atlas):
    rows, vectors = atlas
    effects = Atlas().effects()
    place = {name: i for i, name in enumerate(TYPES)}
    noise = (
        vectors
        - effects.types[[place[name] for name in rows["cell_type"]]]
        - effects.donors[[int(name[-2:]) - 1 for name in rows["donor_id"]]]
        - effects.datasets[[int(name[-1]) - 1 for name in rows["dataset_id"]]]
        - (rows["sex"] == "male").to_numpy()[:, None] * effects.sex
    )
    assert kstest(noise.ravel(), "norm").pvalue > 0.001
    # A correlation over 4,000 cells has a standard deviation of 1/63; neighbouring cells are no more alike.
    correlations = np.corrcoef(noise.T)[np.triu_indices(64, 1)]
    assert abs(correlations).max() < 5 / 63
    assert abs(np.corrcoef(noise[:-1].ravel(), noise[1:].ravel())[0, 1]) < 0.01
    assert effects.types.std() == pytest.approx(1, abs=0.15)
    assert effects.donors.std() == pytest.approx(0.25, abs=0.05)


def test_an_effect_that_is_zero_is_not_in_the_vectors():
    """What is left of two donors of one sex in one data set is noise alone."""
    rows, vectors = frame_of(Atlas(donor_effect=0))
    other, _ = frame_of(Atlas())
    assert rows["donor_id"].tolist() == other["donor_id"].tolist()
    common = rows["cell_type"] == TYPES[0]
    means = [vectors[common & (rows["donor_id"] == donor)].mean(axis=0) for donor in ("donor-01", "donor-05")]
    n = [int((common & (rows["donor_id"] == donor)).sum()) for donor in ("donor-01", "donor-05")]
    z = (means[0] - means[1]) / np.sqrt(1 / n[0] + 1 / n[1])
    assert kstest(z, "norm").pvalue > 0.001


def test_shards_do_not_change_a_cell_and_a_larger_atlas_begins_with_the_smaller():
    rows, vectors = frame_of(Atlas(n_cells=700))
    again, same = frame_of(Atlas(n_cells=700, shard_rows=7))
    np.testing.assert_array_equal(vectors, same)
    assert rows.drop(columns=[SHARD, EMBEDDING]).equals(again.drop(columns=[SHARD, EMBEDDING]))
    longer, more = frame_of(Atlas(n_cells=900))
    np.testing.assert_array_equal(more[:700], vectors)
    assert longer["donor_id"][:700].tolist() == rows["donor_id"].tolist()
    few, many = (Atlas(n_donors=n).effects().donors for n in (6, 20))
    np.testing.assert_array_equal(many[:6], few)


def test_seeds_are_other_atlases():
    assert Atlas(seed=1).identity()["atlas"] != Atlas().identity()["atlas"]
    assert not np.array_equal(Atlas(seed=1).vectors(np.arange(9)), Atlas().vectors(np.arange(9)))


def test_the_split_is_in_the_rows_and_in_the_identity():
    rows, _ = frame_of(Atlas())
    assert rows["split"].value_counts(normalize=True).round(2).to_dict() == {
        "train": 0.7,
        "test": 0.2,
        "validation": 0.1,
    }
    assert set(rows["donor_id"][rows["split"] == "train"]) == set(rows["donor_id"])
    other = Atlas(split="held_out_types")
    assert other.identity()["split"] != Atlas().identity()["split"]
    rows, _ = frame_of(other)
    assert not set(rows["cell_type"][rows["split"] == "test"]) & set(rows["cell_type"][rows["split"] != "test"])
    none = Atlas(split=None)
    assert "split" not in none.identity()
    assert "split" not in frame_of(none)[0]


def test_obs_columns_are_chosen_and_the_split_comes_once():
    assert Atlas(obs=("sex", "split")).schema.names[-2:] == ["sex", "split"]
    with pytest.raises(Refused, match=r"NO_OBS_COLUMN.*'donor'.*Did you mean 'donor_id'"):
        _ = Atlas(obs=("donor",)).schema
    with pytest.raises(Refused, match=r"NO_OBS_COLUMN.*'split'.*--source.split stratified_cell"):
        _ = Atlas(obs=("split",), split=None).schema


def test_some_donors_may_be_of_unknown_sex_and_keep_their_vectors():
    rows, vectors = frame_of(Atlas(unknown_sex=0.3))
    plain, same = frame_of(Atlas())
    np.testing.assert_array_equal(vectors, same)
    unknown = rows["sex"] == "unknown"
    assert rows["donor_id"][unknown].nunique() == 2
    assert rows["sex"][~unknown].tolist() == plain["sex"][~unknown].tolist()


def test_an_atlas_too_small_for_its_types_is_refused():
    with pytest.raises(ValidationError, match="at least 48"):
        Atlas(n_cells=40)
    with pytest.raises(ValidationError, match="2 donors cannot fill 3 data sets"):
        Atlas(n_donors=2, n_datasets=3)
    rows, _ = frame_of(Atlas(n_cells=80, n_types=20, n_donors=4, split=None))
    assert "cell type 17" in set(rows["cell_type"])
    assert rows.groupby(["cell_type", "donor_id"]).ngroups == 80
