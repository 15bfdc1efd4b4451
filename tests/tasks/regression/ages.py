"""Tiny sentences with a number that their words decide, in memory, and a learner on them."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from tests.tasks.classification.sentiment import Memory, tokenised
from tests.text_examples import TONE, sentences
from xfm.judging.labelled import SplitWithContent
from xfm.models.hf_text.config import HFText
from xfm.tasks.regression.learner import RegressionLearner, RegressionRecipe
from xfm.tasks.regression.rows import RegressionRows, regression_rows
from xfm.tasks.regression.settings import Regression
from xfm.training.group import Group


def ages(n: int = 200) -> tuple[list[str], np.ndarray]:
    """Texts, and 40 + 10 for a bright one + noise of deviation 1: the tone explains 25 / 26 of the variance."""
    texts, _ = sentences(n)
    bright = np.array([any(word in text for word in TONE[1]) for text in texts])
    return texts, 40.0 + 10.0 * bright + np.random.default_rng(1).normal(size=n)


def memory(config: HFText, *, missing: int = 0) -> Memory:
    """Two parts; the first `missing` rows have no number."""
    texts, values = ages()
    column = pa.array(values, pa.float64(), mask=np.arange(len(values)) < missing)
    table = tokenised(config, texts, column, donor=[f"d{i % 25}" for i in range(len(texts))])
    split = SplitWithContent(0, 0.2, 0.2)
    return Memory([split(table.slice(start, 100)) for start in (0, 100)])


def target_rows(rows: Memory) -> RegressionRows:
    return regression_rows(rows, "label", "donor", seed=0, resamples=200, noun="sentences")


def learner(folder: Path | str, task: Regression, rows: Memory, *, group: Group | None = None) -> RegressionLearner:
    """As `RegressionRecipe.build`, with rows in memory."""
    config = HFText(checkpoint=str(folder))
    recipe = RegressionRecipe(config, task, rows.parts(), 16, 100, 0, 0, {}, target_rows(rows).scale)
    return RegressionLearner(recipe, rows, group or Group(), "cpu")
