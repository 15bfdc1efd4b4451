"""What the shards said, put together: who is scored, their classes, and the best guesses of every representation."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.errors import Refused
from xfm.core.parts import TEST
from xfm.core.schema import ROW_ID, layer_column
from xfm.judging.eval_set import EvalSet, Labels, group_keys, is_unknown
from xfm.judging.representations import RANDOM, UNSEEING, Kind, Representation
from xfm.judging.split import Split, split_as_given
from xfm.studies.zero_shot.chosen_rows import RowChoice
from xfm.studies.zero_shot.scorer import CLASSES, CONFIDENCE, SCALE

# Shapes: N rows, T best guesses.
LENS, ONE_TEMPLATE, ZERO_SHOT = "lens", "one_template", "zero_shot"


@dataclass(frozen=True, slots=True)
class Guesses:
    """What one representation says of N rows."""

    ranked: NDArray[np.int32]  # (N, T) class numbers, best first; places in the list of classes
    confidence: NDArray[np.float32] | None = None  # (N,) probability of the first one; None where nobody states any


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of some parts, in the order of the parts."""

    row_ids: tuple[str, ...]  # (N,) names
    obs: Mapping[str, Sequence[str | None]]  # (N,) words by column, None where a row has none
    guesses: Mapping[str, Guesses]  # by name of a head and layer, e.g. lens_l07.
    scale: float  # that cosines were multiplied by

    def ordered_as(self, row_ids: Sequence[str]) -> "Table | None":
        """The same with its rows in another order; None where they are not the same rows."""
        if tuple(row_ids) == self.row_ids:
            return self
        place = {row: number for number, row in enumerate(self.row_ids)}
        if len(place) != len(row_ids) or not place.keys() >= set(row_ids):
            return None
        order = np.array([place[row] for row in row_ids], np.int64)
        guesses = {
            name: Guesses(one.ranked[order], None if one.confidence is None else one.confidence[order])
            for name, one in self.guesses.items()
        }
        obs = {name: [own[i] for i in order] for name, own in self.obs.items()}
        return Table(tuple(row_ids), obs, guesses, self.scale)


def table_of_parts(parts: Iterable[pa.Table], obs: Sequence[str]) -> Table:
    """Reads parts one by one, without their logits.

    Raises:
        Refused: NO_ROWS; nothing was scored.
    """
    pieces = [part.select([name for name in part.column_names if _is_read(name, obs)]) for part in parts]
    pieces = [piece for piece in pieces if piece.num_rows]
    if not pieces:
        raise Refused("NO_ROWS", "no row could be scored: each one's reason stands in quarantine.jsonl")
    table = pa.concat_tables(pieces, promote_options="permissive")
    row_ids = tuple(table[ROW_ID].to_pylist())
    assert len(set(row_ids)) == len(row_ids), "a row was scored twice"
    guesses = {}
    for name in table.column_names:
        if name.endswith(f"_{CLASSES}"):
            head = name.removesuffix(f"_{CLASSES}")
            ranked = table[name].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
            guesses[head] = Guesses(ranked, table[f"{head}_{CONFIDENCE}"].to_numpy())
    words = {
        name: [None if value is None else str(value) for value in table[name].to_pylist()]
        for name in dict.fromkeys(obs)
    }
    return Table(row_ids, words, guesses, float(table[SCALE][0].as_py()))


def judged_of(
    table: Table, label: str, choice: RowChoice, *, group: str | None, validation: float, seed: int, resamples: int,
    noun: str,
) -> EvalSet:  # fmt: skip
    """Rows, classes and split as an evaluation of the same rows has them, so that their digests agree.

    Args:
        group: column whose rows are resampled together, or None.
        validation: share of the training rows that become validation rows where the data name none, as in evaluate.

    Raises:
        Refused: ONE_CLASS, BAD_SPLIT, NO_GROUPS.
    """
    keys = group_keys(table.obs[group], table.row_ids) if group else list(table.row_ids)
    if group and all(map(is_unknown, table.obs[group])):
        raise Refused("NO_GROUPS", f"--group {group}: no row has a value; leave it out to resample row by row")
    own = np.arange(len(table.row_ids))
    if choice.column is not None and choice.value is None:
        try:
            split = split_as_given(table.obs[choice.column], keys, own, seed, validation)
        except Refused as problem:
            where = f"--split {choice.column}"
            raise Refused(problem.code, f"{where}: {problem.message}; {where}=VALUE reads one part alone") from problem
    else:
        groups = np.unique(np.asarray(keys, dtype=object).astype(str), return_inverse=True)[1]
        split = Split(np.full(len(own), TEST, np.int8), groups.astype(np.int64))
    labels = _labels(table.obs[label], label)
    return EvalSet(
        rows=own, row_ids=table.row_ids, labels=(labels,), split=split, seed=seed, resamples=resamples, noun=noun
    )


def representations_of(table: Table, random: Table | None, baselines: Sequence[str]) -> Iterator[Representation]:
    """What is scored: the classifier itself, the lens at other layers, and baselines."""
    last = max(_layers(table))
    yield _representation(ZERO_SHOT, "layer", "parts", last)
    for layer in _layers(table):
        if layer != last:
            yield _representation(layer_column(LENS, layer), "layer", "parts", layer)
    if any(name.startswith(ONE_TEMPLATE) for name in table.guesses):
        yield Representation(ONE_TEMPLATE, "baseline", "column", "parts", ())
    for name in UNSEEING:
        if name in baselines:
            yield Representation(name, "baseline", "none", "", ())
    if random is not None:
        for layer in _layers(random):
            yield _representation(f"{RANDOM}_{layer_column(LENS, layer)}", "baseline", RANDOM, layer)


def guesses_of(representation: Representation, table: Table, random: Table | None) -> Guesses:
    """Of a representation that looks at rows."""
    if representation.name == ONE_TEMPLATE:
        return next(one for name, one in table.guesses.items() if name.startswith(ONE_TEMPLATE))
    place = random if representation.place == RANDOM else table
    assert place is not None
    assert representation.layer is not None
    return place.guesses[layer_column(LENS, representation.layer)]


def guess_blindly(
    name: str, truth: NDArray[np.int32], known: NDArray[np.int32], n_classes: int, rng: np.random.Generator
) -> Guesses:
    """What one says who looks at no row.

    Args:
        name: majority, the most frequent classes in their order; or chance, classes drawn as often as they occur.
        truth: (N,) classes of the rows to guess; only their number counts.
        known: (M,) classes that frequencies are taken from.
    """
    if name == "chance":
        return Guesses(rng.choice(known, len(truth))[:, None].astype(np.int32))
    order = np.argsort(-np.bincount(known, minlength=n_classes), kind="stable")[: min(5, n_classes)]
    return Guesses(np.tile(order.astype(np.int32), (len(truth), 1)))


def _representation(name: str, kind: Kind, place: str, layer: int) -> Representation:
    return Representation(name, kind, "column", place, (), LENS, layer)


def _layers(table: Table) -> list[int]:
    return sorted(int(name.rpartition("_l")[2]) for name in table.guesses if name.startswith(f"{LENS}_l"))


def _is_read(name: str, obs: Sequence[str]) -> bool:
    return name in (ROW_ID, SCALE) or name in obs or name.endswith((f"_{CLASSES}", f"_{CONFIDENCE}"))


def _labels(values: Sequence[str | None], name: str) -> Labels:
    """As `judged.labels_of` numbers them, without its limits: nothing is fitted here."""
    classes = tuple(sorted({value for value in values if value is not None}))
    if len(classes) < 2:
        raise Refused("ONE_CLASS", f"--label {name}: all rows are {classes[0] if classes else 'without one'}; there is "
                      "nothing to tell apart")  # fmt: skip
    code = {value: number for number, value in enumerate(classes)}
    codes = np.array([-1 if value is None else code[value] for value in values], np.int32)
    return Labels(name, codes, classes, {}, sum(value is None for value in values))
