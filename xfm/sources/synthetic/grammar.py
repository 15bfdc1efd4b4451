"""Sentences of praise and blame from a small grammar, whose label has to be composed.

An adjective is good or bad; what a sentence says depends on what stands around it. Negation turns a clause round, an
intensifier does not, after `but` only the second clause counts, `although` discounts its own clause, and `nobody would
say that` denies what follows. Counting words therefore cannot label most sentences; reading them in order can. The
five rules are those that treebanks of film reviews show to matter (Socher et al., EMNLP 2013, sections 4 and 5).
"""

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from itertools import count
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import Field

from xfm.core.random import key64, rng_for
from xfm.core.schema import ROW_ID, TEXT
from xfm.sources.synthetic.rows import Made

GOOD = (
    "good", "great", "brilliant", "touching", "clever", "charming", "funny", "fresh", "elegant", "gripping", "warm",
    "honest",
)  # fmt: skip
BAD = (
    "bad", "awful", "dull", "tired", "clumsy", "shallow", "boring", "stale", "ugly", "tedious", "cold", "phoney",
)  # fmt: skip
NOUNS = (
    "film", "story", "plot", "acting", "script", "music", "ending", "cast", "dialogue", "humour", "pace", "camera",
    "opening", "romance",
)  # fmt: skip
VERBS = ("is", "was", "seems", "feels")
NEGATIONS = ("not", "never", "hardly", "by no means")
INTENSIFIERS = ("very", "really", "extremely", "quite")
OPENERS = ("", "frankly , ", "to me , ", "in the end , ", "this time , ", "at its heart , ")
STRUCTURES = ("plain", "intensified", "negated", "contrast", "concession", "denied")

MAX_ROWS = 20_000  # a third of what the smallest structure can say would be used up
SHARES = {"test": 0.15, "validation": 0.15}


class Clause(NamedTuple):
    """`the NOUN VERB [negation] [intensifier] ADJECTIVE`."""

    noun: str
    verb: str
    negation: str
    intensifier: str
    adjective: str

    def words(self) -> str:
        """The clause as text."""
        return " ".join(word for word in ("the", *self) if word)

    def is_praise(self) -> bool:
        """What the clause says when it stands alone."""
        return (self.adjective in GOOD) != bool(self.negation)


class Sentence(NamedTuple):
    """A sentence with what is known about it."""

    text: str
    structure: str
    label: str


class Grammar(Made):
    """Synthetic sentences whose label depends on how their words combine."""

    kind: Literal["grammar"] = "grammar"
    n: int = Field(4000, ge=1, le=MAX_ROWS)
    """Sentences in all splits together, all different; about 70 % train, 15 % validation, 15 % test."""
    obs: tuple[Literal["label", "structure", "split"], ...] = ("label", "structure", "split")
    """Columns to carry along: positive or negative; plain, intensified, negated, contrast, concession or denied."""

    def identity(self) -> dict[str, Any]:
        """Digest of all sentences with their labels."""
        lines = "\n".join("\t".join(sentence) for sentence in sentences(self.n, self.seed))
        return {"sentences": f"sha256:{hashlib.sha256(lines.encode()).hexdigest()}"}

    def _content(self) -> dict[str, pa.DataType]:
        return {TEXT: pa.string()}

    def _columns(self) -> Sequence[str]:
        return self.obs

    def _rows(self) -> NDArray[np.int64]:
        if self.split is None:
            return np.arange(self.n, dtype=np.int64)
        return np.flatnonzero([split_of(each.text) == self.split for each in sentences(self.n, self.seed)])

    def _make(self, rows: NDArray[np.int64]) -> dict[str, list[str] | list[bytes]]:
        every = sentences(self.n, self.seed)
        texts, structures, labels = (list(values) for values in zip(*(every[row] for row in rows), strict=True))
        ids = [f"grammar-{self.seed}/{row}" for row in rows]
        splits = [split_of(text) for text in texts]
        return {ROW_ID: ids, TEXT: texts, "label": labels, "structure": structures, "split": splits}


def split_of(text: str) -> str:
    """The split of a sentence: a hash of its words, so that no seed puts it into another one."""
    place = key64(0, text) / 2**64
    return "test" if place < SHARES["test"] else "validation" if place < sum(SHARES.values()) else "train"


@lru_cache(maxsize=4)
def sentences(n: int, seed: int) -> tuple[Sentence, ...]:
    """The first n different sentences of a seed; more of them begin with the same ones."""
    seen: dict[str, Sentence] = {}
    numbers = count()
    while len(seen) < n:
        sentence = compose(rng_for(seed, f"grammar-{next(numbers)}"))
        seen.setdefault(sentence.text, sentence)
    return tuple(seen.values())


def compose(rng: np.random.Generator) -> Sentence:
    """One sentence; every structure is as likely as another."""
    structure, opener = _one(STRUCTURES, rng), _one(OPENERS, rng)
    main = clause(rng, negated=structure == "negated", intensified=structure == "intensified")
    text, praise = main.words(), main.is_praise()
    if structure == "denied":
        main = clause(rng, negated=rng.random() < 0.5)
        text, praise = f"nobody would say that {main.words()}", not main.is_praise()
    elif structure in ("contrast", "concession"):
        main = clause(rng, negated=rng.random() < 0.3)
        other = clause(rng, negated=rng.random() < 0.3, other_than=main)
        praise = main.is_praise()
        if structure == "contrast":
            text = f"{other.words()} but {main.words()}"
        elif rng.random() < 0.5:
            text = f"although {other.words()} , {main.words()}"
        else:
            text = f"{main.words()} although {other.words()}"
    return Sentence(f"{opener}{text} .", structure, "positive" if praise else "negative")


def clause(
    rng: np.random.Generator, *, negated: bool = False, intensified: bool = False, other_than: Clause | None = None
) -> Clause:
    """One clause; with `other_than` about another noun, and saying the opposite."""
    nouns = [noun for noun in NOUNS if other_than is None or noun != other_than.noun]
    praise = not other_than.is_praise() if other_than is not None else bool(rng.random() < 0.5)
    return Clause(
        noun=_one(nouns, rng),
        verb=_one(VERBS, rng),
        negation=_one(NEGATIONS, rng) if negated else "",
        intensifier=_one(INTENSIFIERS, rng) if intensified else "",
        adjective=_one(GOOD if praise != negated else BAD, rng),
    )


def _one(words: Sequence[str], rng: np.random.Generator) -> str:
    return words[int(rng.integers(len(words)))]
