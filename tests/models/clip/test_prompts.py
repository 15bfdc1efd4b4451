"""Class names and templates: what the text tower is asked, and what is refused."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.rounding import UNIT
from xfm.core.errors import Refused
from xfm.models.clip.prompts import ClassPrompts, Prompts, ensembled


def test_values_found_become_names_with_blanks_in_their_order():
    found = ClassPrompts(templates=("a photo of a {}.", "art of the {}.")).prompts(["sea_lake", "forest", "sea_lake"])
    assert found.values == ("forest", "sea_lake")
    assert found.names == ("forest", "sea lake")
    assert found.texts[1] == ("a photo of a sea lake.", "art of the sea lake.")


def test_listed_classes_keep_their_order_and_a_mapping_names_them():
    by_name = ClassPrompts(classes={"n03000684": "chain saw", "n01440764": "tench"}).prompts()
    assert by_name.values == ("n03000684", "n01440764")
    assert by_name.texts == (("a photo of a chain saw.",), ("a photo of a tench.",))
    by_sign = ClassPrompts(classes=("n03000684=chain saw", "tench")).prompts()
    assert by_sign.names == ("chain saw", "tench")


def test_braces_other_than_the_slot_are_left_alone():
    assert ClassPrompts(templates=("{} in {curly} words",)).prompts(["a", "b"]).texts[0] == ("a in {curly} words",)


@pytest.mark.parametrize("template", ["a photo", "a {} of a {}", "a {name}"])
def test_a_template_without_exactly_one_slot_is_refused(template):
    with pytest.raises(ValidationError, match=r"needs exactly one \{\}"):
        ClassPrompts(templates=("a {}.", template))


def test_sentences_of_a_class_replace_the_templates_for_it_alone():
    config = ClassPrompts(templates=("a {}.",), class_templates={"crane": ("a tall machine.", "a {} lifts.")})
    assert config.prompts(["crane", "dog"]).texts == (("a tall machine.", "a crane lifts."), ("a dog.",))
    with pytest.raises(Refused, match=r"UNKNOWN_CLASS.*'cran'"):
        ClassPrompts(class_templates={"cran": ("x",)}).prompts(["crane", "dog"])


def test_two_classes_of_one_name_are_refused_with_both_values():
    with pytest.raises(Refused, match=r"DUPLICATE_CLASSES.*'n02012849' and 'n03126707'.*Crane"):
        ClassPrompts(classes={"n02012849": "crane", "n1": "dog", "n03126707": "Crane "}).prompts()
    with pytest.raises(Refused, match=r"DUPLICATE_CLASSES.*'a' stands twice"):
        ClassPrompts(classes=("a", "b", "a")).prompts()


def test_two_classes_of_one_name_may_stay_where_their_sentences_differ():
    config = ClassPrompts(classes={"bird": "crane", "machine": "crane"}, class_templates={"bird": ("a {}, a bird.",)})
    assert config.prompts().texts == (("a crane, a bird.",), ("a photo of a crane.",))


@pytest.mark.parametrize(("classes", "code"), [(("one",), "FEW_CLASSES"), (("a=", "b"), "NO_NAME")])
def test_a_list_that_names_nothing_to_tell_apart_is_refused(classes, code):
    with pytest.raises(Refused, match=code):
        ClassPrompts(classes=classes).prompts()
    with pytest.raises(Refused, match="FEW_CLASSES"):
        ClassPrompts().prompts([])


def test_a_class_is_the_unit_mean_of_its_unit_texts():
    """By hand: (3, 0) and (0, 1) point to 45 degrees however long they are; a mean of raw vectors would not."""
    vectors = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, -2.0]])
    np.testing.assert_allclose(ensembled(vectors, [2, 1]), [[0.5**0.5, 0.5**0.5], [0.0, -1.0]], atol=4 * UNIT)


def test_prompts_survive_a_file():
    found = ClassPrompts(templates=("a {}.", "the {}.")).prompts(["x", "y"])
    assert Prompts.from_json(found.to_json()) == found
    assert found.with_template("one {}").texts == (("one x",), ("one y",))
