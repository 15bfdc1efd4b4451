"""Scores of a trained classifier as `evaluate` writes them, so that `compare` sets frozen beside fine-tuned."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from xfm.core.parts import TEST, VALIDATION
from xfm.core.random import rng_for
from xfm.core.schema import ROW_ID
from xfm.judging.eval_set import MISSING
from xfm.judging.judge import classifier_scores
from xfm.judging.labelled import Labelled
from xfm.judging.probe import Prediction, guessed, largest_class
from xfm.judging.representations import CHANCE, MAJORITY, Representation
from xfm.judging.score import table_of

TASK = "finetune"
SCORES, PREDICTIONS = "scores.parquet", "predictions.parquet"  # files of an OUTPUT
F32 = NDArray[np.float32]


def name_of(mode: str) -> str:
    """What the trained network is called beside the layers of frozen ones."""
    return f"finetuned_{mode}"


def score_table(outcome: Mapping[str, F32], labelled: Labelled, mode: str, note: str = "") -> pa.Table:
    """Rows of `evaluation.judge.SCHEMA`: the network, the largest class, and guessing by frequency.

    Args:
        outcome: {validation, test: (N, K) logits of all rows of the part, in the order of the store}.
    """
    judged, label = labelled.judged, labelled.label
    held = np.flatnonzero(label.codes != MISSING)
    codes, parts = label.codes[held], judged.split.parts[held]
    rng = rng_for(judged.seed, f"chance\x1f{label.name}")
    found = {
        (name_of(mode), "layer"): predicted(outcome, labelled, note),
        (MAJORITY, "baseline"): largest_class(codes, parts),
        (CHANCE, "baseline"): guessed(codes, parts, rng),
    }
    return pa.concat_tables(
        table_of(
            Representation(name, kind, "none", "", ()),  # type: ignore[arg-type]
            classifier_scores(TASK, prediction, judged, label),
        )
        for (name, kind), prediction in found.items()
    )


def predicted(outcome: Mapping[str, F32], labelled: Labelled, note: str = "") -> Prediction:
    """The class of the largest logit, of the rows of a part that have a class."""
    classes = {}
    for part in (VALIDATION, TEST):
        rows = np.flatnonzero(labelled.judged.split.parts == part)
        logits = outcome[part.word]
        assert len(logits) == len(rows)
        classes[part] = logits[np.isin(rows, labelled.held(part))].argmax(axis=1).astype(np.int32)
    return Prediction(classes[VALIDATION], classes[TEST], note)


def prediction_table(outcome: Mapping[str, F32], labelled: Labelled) -> pa.Table:
    """row_id, part, true and predicted class, and the probability of each class, of validation and test rows."""
    judged, label = labelled.judged, labelled.label
    tables = []
    for part in (VALIDATION, TEST):
        rows, logits = np.flatnonzero(judged.split.parts == part), outcome[part.word].astype(np.float64)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf))
        shares = (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
        words: dict[str, Any] = {
            ROW_ID: [judged.row_ids[row] for row in rows],
            "part": [part.word] * len(rows),
            label.name: [None if label.codes[row] == MISSING else label.classes[label.codes[row]] for row in rows],
            "predicted": [label.classes[code] for code in logits.argmax(axis=1)],
            "probabilities": pa.FixedSizeListArray.from_arrays(pa.array(shares.reshape(-1)), len(label.classes)),
        }
        tables.append(pa.table({name: pa.array(column) if isinstance(column, list) else column
                                for name, column in words.items()}))  # fmt: skip
    return pa.concat_tables(tables, promote_options="permissive")
