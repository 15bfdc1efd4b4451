import pytest

from xfm.core.parts import LEFT_OUT, PARTS, TEST, TRAIN, VALIDATION, part_of


def test_the_numbers_are_those_of_stored_tokens():
    assert [*map(int, PARTS), int(LEFT_OUT)] == [0, 1, 2, 3]
    assert [part.word for part in (*PARTS, LEFT_OUT)] == ["train", "validation", "test", "left out"]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (TRAIN, ("train", "Training", " TRAIN ")),
        (VALIDATION, ("validation", "valid", "val", "DEV")),
        (TEST, ("test", "testing")),
        (None, ("", "holdout", "left out", "trains")),
    ],
)
def test_data_sets_call_a_part_by_several_words(part, words):
    assert {part_of(word) for word in words} == {part}
