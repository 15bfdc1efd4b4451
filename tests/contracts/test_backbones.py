"""What every backbone promises, over all entries of the registry."""

import json
import pickle
from dataclasses import fields, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import torch
from examples import BACKBONES, example

from tests.rounding import assert_same_but_rounding
from xfm.compute.embed import carried
from xfm.compute.read import read_tokens
from xfm.core import registry, schema
from xfm.core.config import differing_fields
from xfm.core.schema import EMBEDDING, INPUT_IDS, PIXELS, ROW_ID

ROWS = 6


@pytest.fixture(scope="module", params=sorted(registry.BACKBONES))
def given(request, tmp_path_factory):
    return example(BACKBONES, request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def backbone(given):
    return given.config.build("cpu")


@pytest.fixture(scope="module")
def rows(given):
    """Tokenised rows, of unlike lengths where a row is a sequence of ids."""
    tokenizer = given.config.tokenizer(0)
    tokens = read_tokens(given.source, tokenizer, given.source.shards()[0]).tokens
    order = tokenizer.lengths(tokens).argsort()
    return tokens.take(order[:: max(1, len(order) // ROWS)][:ROWS])


@pytest.fixture(scope="module")
def tokens(given, rows):
    return given.config.tokenizer(0).collate(rows)


def stands_for_ids(tokens):
    """(B, T): where pixels or a vector, all of one size, stand in for an id. No row is longer than another then."""
    if tokens.vectors is not None:
        # Each vector of a row is a token, and what follows has ids of its own.
        return torch.arange(tokens.ids.shape[1]).expand(tokens.ids.shape) < tokens.vectors.shape[1]
    return torch.full(tokens.ids.shape, tokens.pixels is not None)


def states_of(backbone, tokens):
    with torch.inference_mode():
        return list(backbone.layers(tokens))


def test_no_carried_column_reaches_the_network_whatever_it_is_called(given, rows, tokens):
    """A perturbation is often called `condition`, a depth `depth`: such columns of the data are the data's own."""
    tokenizer, shard = given.config.tokenizer(0), given.source.shards()[0]
    ours = [value for value in vars(schema).values() if isinstance(value, str) and value.startswith(schema.OURS)]
    names = [value.removeprefix(schema.OURS) for value in ours if value != schema.OURS]
    assert {"condition", "counts", "shard"} <= set(names)

    def with_columns(batch):
        for number, name in enumerate(names):
            if name not in batch.schema.names:
                batch = batch.append_column(name, pa.array(np.arange(batch.num_rows) + number, pa.int32()))
        return batch

    class Source:
        def read(self, shard):
            yield from map(with_columns, given.source.read(shard))

    found = read_tokens(Source(), tokenizer, shard).tokens
    again = found.filter(pc.is_in(found[ROW_ID], rows[ROW_ID].combine_chunks()))
    again = again.take([again[ROW_ID].to_pylist().index(row) for row in rows[ROW_ID].to_pylist()])
    for name in rows.column_names:
        assert again[name].to_pylist() == rows[name].to_pylist()
    collated = tokenizer.collate(again)
    for field in fields(tokens):
        assert_equal(getattr(collated, field.name), getattr(tokens, field.name))
    assert set(names) <= set(carried(found)), "and each is carried"


def assert_equal(one, other):
    if isinstance(other, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_there_is_one_finite_state_per_block_and_one_for_the_input(given, backbone, tokens):
    states = states_of(backbone, tokens)
    assert len(states) == backbone.n_layers + 1 == given.config.n_layers() + 1
    for state in states:
        assert state.shape == (*tokens.ids.shape, backbone.dim)
        assert state.isfinite().all()
    assert backbone.dim == given.config.dim()
    for before, after in pairwise(states):
        assert not torch.allclose(before[tokens.is_token], after[tokens.is_token])


def test_a_state_is_not_changed_by_the_blocks_after_it(backbone, tokens):
    with torch.inference_mode():
        copies = [state.clone() for state in backbone.layers(tokens)]
    for state, copy in zip(states_of(backbone, tokens), copies, strict=True):
        torch.testing.assert_close(state[tokens.is_token], copy[tokens.is_token], rtol=0, atol=0)


def test_a_row_does_not_depend_on_its_batch(given, backbone, rows, tokens):
    together, lengths = states_of(backbone, tokens), given.config.tokenizer(0).lengths(rows)
    assert (len(set(lengths)) > 1) != bool(stands_for_ids(tokens).any())
    for i, length in enumerate(lengths):
        alone = states_of(backbone, given.config.tokenizer(0).collate(rows.slice(i, 1)))
        for layer, state in enumerate(alone):
            # Other shapes of matrices add up in another order.
            assert_same_but_rounding(state[0], together[layer][i, :length], 128)


def test_what_stands_at_padding_or_in_ids_that_something_stands_in_for_does_not_matter(backbone, tokens):
    stood_for = stands_for_ids(tokens)
    padding = stood_for | ~tokens.is_token
    assert padding.any()
    ids = tokens.ids.masked_fill(padding, 3 if stood_for.any() else int(tokens.ids[0, 1]))
    assert not torch.equal(ids, tokens.ids)
    values = None if tokens.values is None else tokens.values.masked_fill(padding, 37.0)
    changed = states_of(backbone, replace(tokens, ids=ids, values=values))
    for state, other in zip(states_of(backbone, tokens), changed, strict=True):
        assert_same_but_rounding(state[tokens.is_token], other[tokens.is_token], 128)


def test_what_stands_in_for_ids_matters_and_so_does_every_id_that_nothing_stands_in_for(backbone, tokens):
    *_, last = states_of(backbone, tokens)
    changed = []
    if tokens.vectors is not None:
        changed.append(replace(tokens, vectors=tokens.vectors.flip(0)))
    if tokens.pixels is not None:
        changed.append(replace(tokens, pixels=tokens.pixels.flip(0)))
    read = tokens.is_content & ~stands_for_ids(tokens)
    if read.any():
        changed.append(replace(tokens, ids=tokens.ids.masked_scatter(read, tokens.ids[read].roll(1))))
    for other in changed:
        assert not torch.allclose(states_of(backbone, other)[-1][tokens.is_token], last[tokens.is_token])
    assert changed


def test_a_built_backbone_is_in_evaluation_mode(backbone):
    assert not any(module.training for module in backbone.modules())


def test_a_recipe_describes_itself(given):
    config = given.config
    assert type(config).model_validate(json.loads(config.model_dump_json())) == config
    identity, description = config.identity(), config.describe()
    assert identity == json.loads(json.dumps(identity))
    assert all(len(digest) >= 40 for digest in identity.values())
    assert description == json.loads(json.dumps(description))
    assert description
    genes = given.source.genes()
    if genes is not None:
        assert config.check_genes(genes)["matched"] > 0


def test_random_weights_have_the_same_tokens_and_shapes_and_nothing_of_what_was_learned(given, backbone, rows, tokens):
    config = given.config.randomised(3)
    random, again = config.build("cpu"), config.build("cpu")
    assert (random.n_layers, random.dim) == (backbone.n_layers, backbone.dim) == (config.n_layers(), config.dim())
    assert not any(module.training for module in random.modules())
    collated = config.tokenizer(0).collate(rows)
    assert torch.equal(collated.ids, tokens.ids)
    assert tokens.pixels is None or torch.equal(collated.pixels, tokens.pixels)
    assert tokens.vectors is None or torch.equal(collated.vectors, tokens.vectors)
    learned = states_of(backbone, tokens)
    for state, same, other in zip(states_of(random, tokens), states_of(again, tokens), learned, strict=True):
        assert state.isfinite().all()
        assert torch.equal(state, same)
        assert not torch.allclose(state[tokens.is_token], other[tokens.is_token])
    identity = config.identity()
    assert identity == json.loads(json.dumps(identity))
    assert identity not in (given.config.identity(), given.config.randomised(4).identity())
    assert type(config).model_validate(json.loads(config.model_dump_json())) == config
    assert differing_fields(given.config.recipe(), config.recipe())


def test_a_tokenizer_travels_and_gives_the_same_tokens(given, rows):
    tokenizer = pickle.loads(pickle.dumps(given.config.tokenizer(0)))  # noqa: S301 - our own bytes
    again = read_tokens(given.source, tokenizer, given.source.shards()[0]).tokens
    assert {INPUT_IDS, PIXELS, EMBEDDING} & set(again.column_names)
    chosen = {row[ROW_ID]: row for row in again.to_pylist()}
    for row in rows.to_pylist():
        assert chosen[row[ROW_ID]] == row
    assert tokenizer.describe() == json.loads(json.dumps(tokenizer.describe()))


def test_collating_pads_on_the_right(given, rows, tokens):
    lengths = torch.from_numpy(given.config.tokenizer(0).lengths(rows))
    expected = torch.arange(int(lengths.max()))[None] < lengths[:, None]
    assert torch.equal(tokens.is_token, expected)
    assert not (tokens.is_content & ~tokens.is_token).any()
    assert tokens.is_content.any(dim=1).all()
    assert tokens.ids.dtype == torch.int64


def test_rows_that_are_kept_for_training_collate_to_the_same_tokens(given, rows, tokens):
    tokenizer = given.config.tokenizer(0).for_training()
    kept = read_tokens(given.source, tokenizer, given.source.shards()[0]).tokens
    place = {row: i for i, row in enumerate(kept[ROW_ID].to_pylist())}
    chosen = kept.take([place[row] for row in rows[ROW_ID].to_pylist()])
    assert tokenizer.lengths(chosen).tolist() == given.config.tokenizer(0).lengths(rows).tolist()
    again = tokenizer.collate(chosen)
    for name in ("ids", "values", "is_token", "is_content", "pixels", "vectors"):
        one, other = getattr(tokens, name), getattr(again, name)
        assert (one is None and other is None) or torch.equal(one, other)
