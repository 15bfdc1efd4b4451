"""Sentences from a grammar: labels as a reader would give them, no sentence twice, words alone not enough."""

from collections import Counter

import pytest
from pydantic import ValidationError
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from xfm.core.schema import ROW_ID, TEXT
from xfm.sources.synthetic.grammar import GOOD, STRUCTURES, Clause, Grammar


def rows_of(source):
    return [row for shard in source.shards() for batch in source.read(shard) for row in batch.to_pylist()]


@pytest.fixture(scope="module")
def rows():
    return rows_of(Grammar())


# Read and judged by hand; none of them is copied from what the grammar printed.
JUDGED = [
    ("the film is good .", True),
    ("frankly , the ending was awful .", False),
    ("the story is very dull .", False),
    ("the acting seems really brilliant .", True),
    ("the plot is not good .", False),
    ("to me , the plot is by no means bad .", True),
    ("the music was never stale .", True),
    ("the cast is awful but the script is clever .", True),
    ("the cast is clever but the script is awful .", False),
    ("the cast is not clever but the script is not awful .", True),
    ("although the pace is tedious , the humour is warm .", True),
    ("the pace is tedious although the humour is warm .", False),
    ("the pace is hardly tedious although the humour is cold .", True),
    ("nobody would say that the film is good .", False),
    ("nobody would say that the film is not good .", True),
    ("nobody would say that the film is never ugly .", False),
]


def read(text):
    """A reader of our own: clause by clause from the printed words."""
    words = text.removesuffix(" .")
    if "nobody would say that " in words:
        return not read(words.split("nobody would say that ")[1])
    if " but " in words:
        return read(words.split(" but ")[1])
    if words.startswith("although ") or " , although " in words:
        return read(words.split("although ", 1)[1].split(" , ", 1)[1])
    if " although " in words:
        return read(words.split(" although ")[0])
    denied = any(f" {word} " in words for word in ("not", "never", "hardly", "by no means"))
    return (words.rsplit(" ", 1)[1] in GOOD) != denied


@pytest.mark.parametrize(("text", "praise"), JUDGED)
def test_the_reader_of_these_tests_judges_as_a_person_does(text, praise):
    assert read(text) is praise


def test_every_label_is_what_the_printed_words_say(rows):
    assert {row["label"] for row in rows} == {"positive", "negative"}
    wrong = [row for row in rows if read(row[TEXT]) != (row["label"] == "positive")]
    assert wrong == []


def test_a_clause_means_its_adjective_unless_negated():
    clause = Clause("film", "is", "", "very", "good")
    assert clause.words() == "the film is very good"
    assert clause.is_praise()
    assert not clause._replace(negation="not").is_praise()
    assert clause._replace(negation="hardly", adjective="dull").is_praise()


def test_no_sentence_comes_twice_and_splits_do_not_depend_on_the_seed(rows):
    texts = [row[TEXT] for row in rows]
    assert len(set(texts)) == len(texts) == 4000
    splits = {row[TEXT]: row["split"] for row in rows}
    shares = Counter(splits.values())
    assert 2650 < shares["train"] < 2950
    assert 500 < shares["validation"] < 700
    assert 500 < shares["test"] < 700
    other = rows_of(Grammar(seed=1, n=20_000, obs=("split",)))
    both = [row for row in other if row[TEXT] in splits]
    assert len(both) > 100
    assert all(splits[row[TEXT]] == row["split"] for row in both)


def test_fewer_sentences_are_the_first_of_more_and_a_split_is_a_part(rows):
    fewer = rows_of(Grammar(n=300, shard_rows=77))
    assert [row[TEXT] for row in fewer] == [row[TEXT] for row in rows[:300]]
    test = rows_of(Grammar(split="test"))
    assert [row[ROW_ID] for row in test] == [row[ROW_ID] for row in rows if row["split"] == "test"]
    assert Grammar(n=300).identity() != Grammar(n=301).identity() != Grammar(n=301, seed=1).identity()


def test_structures_are_alike_in_number_and_balanced(rows):
    counts = Counter(row["structure"] for row in rows)
    assert set(counts) == set(STRUCTURES)
    for structure in STRUCTURES:
        chosen = [row["label"] == "positive" for row in rows if row["structure"] == structure]
        assert 550 < len(chosen) < 800
        assert 0.42 < sum(chosen) / len(chosen) < 0.58


def test_a_bag_of_words_does_not_solve_it(rows):
    train = [row for row in rows if row["split"] == "train"]
    test = [row for row in rows if row["split"] == "test"]
    count = CountVectorizer(token_pattern=r"[a-z]+|[.,]")
    model = LogisticRegression(max_iter=1000).fit(
        count.fit_transform([row[TEXT] for row in train]), [row["label"] for row in train]
    )
    accuracy = model.score(count.transform([row[TEXT] for row in test]), [row["label"] for row in test])
    assert 0.5 < accuracy < 0.72


def test_more_sentences_than_the_grammar_has_are_refused():
    with pytest.raises(ValidationError, match="20000"):
        Grammar(n=20_001)
