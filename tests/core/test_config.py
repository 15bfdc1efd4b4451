"""Recipes: what counts, what does not, and where two differ."""

import hashlib

import pytest
from pydantic import ValidationError

from xfm.core.config import Config, differing_fields, fingerprint


class Inner(Config):
    path: str = "here"
    rows: int = 3

    @classmethod
    def not_in_fingerprint(cls):
        return {"path"}


class Outer(Config):
    inner: Inner = Inner()
    layers: tuple[int, ...] = (1, 2)
    output: str = "out"

    @classmethod
    def not_in_fingerprint(cls):
        return {"output"}


def test_a_fingerprint_is_the_hash_of_canonical_json_whatever_the_order_of_keys():
    expected = hashlib.sha256(b'{"a":[1,2],"b":{"c":null,"d":"\\u00b5"}}').hexdigest()
    assert fingerprint({"a": [1, 2], "b": {"c": None, "d": "µ"}}) == expected
    assert fingerprint({"b": {"d": "µ", "c": None}, "a": [1, 2]}) == expected
    assert fingerprint({"a": [2, 1], "b": {"c": None, "d": "µ"}}) != expected


def test_a_recipe_leaves_out_what_cannot_change_a_result():
    assert Outer().recipe()["layers"] == [1, 2]
    assert "output" not in Outer().recipe()
    assert fingerprint(Outer(output="elsewhere").recipe()) == fingerprint(Outer().recipe())
    assert fingerprint(Outer(layers=(1,)).recipe()) != fingerprint(Outer().recipe())


def test_neutral_fields_of_a_section_are_left_out_too():
    assert Outer().recipe()["inner"] == {"rows": 3}
    moved = Outer(inner=Inner(path="/mnt/other"))
    assert fingerprint(moved.recipe()) == fingerprint(Outer().recipe())


def test_configs_are_frozen_and_strict_about_keys():
    with pytest.raises(ValidationError, match="frozen"):
        Outer().output = "x"
    with pytest.raises(ValidationError, match="Extra inputs"):
        Outer(layer=3)


def test_differing_fields_are_named_with_both_values():
    a = {"x": 1, "s": {"k": "old", "same": 0, "gone": [1]}, "n": None}
    b = {"x": 1, "s": {"k": "new", "same": 0}, "t": {"deep": True}}
    assert differing_fields(a, b) == ["s.gone: [1] -> null", 's.k: "old" -> "new"', 't: null -> {"deep": true}']
    assert differing_fields(a, a) == []
    assert differing_fields({"a": None}, {}) == []


class Grown(Config):
    """With a field that came later."""

    size: int = 1
    extra: str | None = None

    @classmethod
    def added_later(cls):
        return {"extra": None}


def test_a_field_that_came_later_counts_once_it_is_used():
    assert Grown().recipe() == {"size": 1}
    assert Grown(extra="x").recipe() == {"size": 1, "extra": "x"}
    assert fingerprint(Grown().recipe()) != fingerprint(Grown(extra="x").recipe())
