"""What classes are called: the tables as published, one name a class, and labels in every form."""

import logging

import pytest

from xfm.sources.files.class_names import TABLES, duplicates, name_classes, read_table, warn_of_duplicates


@pytest.mark.parametrize(
    ("name", "number", "key", "called"),
    [
        # Numbers as in every list of ImageNet-1k: tench 0, goldfish 1, Egyptian cat 285, toilet tissue 999.
        ("imagenet", 0, "n01440764", "tench"),
        ("imagenet", 1, "n01443537", "goldfish"),
        ("imagenet", 134, "n02012849", "crane bird"),
        ("imagenet", 285, "n02124075", "Egyptian Mau"),
        ("imagenet", 517, "n03126707", "construction crane"),
        ("imagenet", 999, "n15075141", "toilet paper"),
        ("tiny_imagenet", 0, "n01443537", "goldfish"),
        ("tiny_imagenet", 199, "n12267677", "acorn"),
        ("imagenette", 3, "n03000684", "chainsaw"),
        ("eurosat", 0, "AnnualCrop", "annual crop land"),
        ("eurosat", 9, "SeaLake", "lake or sea"),
    ],
)
def test_numbers_ids_and_names_stand_for_the_same_class(name, number, key, called):
    table = read_table(name)
    assert (table.keys[number], table.names[number]) == (key, called)
    assert name_classes([number, key, called, str(number)], (), (), table) == ([called] * 4, {})
    assert table.find(key) == table.find(called.upper()) == table.find(called.replace(" ", "_")) == called


@pytest.mark.parametrize(
    ("name", "n"), [("imagenet", 1000), ("tiny_imagenet", 200), ("imagenette", 10), ("eurosat", 10)]
)
def test_no_two_classes_of_a_table_share_a_key_or_a_name(name, n):
    table = read_table(name)
    assert len(table.keys) == len(set(table.keys)) == n
    assert len({called.lower() for called in table.names}) == n
    assert duplicates(table.keys, table.names) == {}
    assert name in TABLES


def test_subsets_of_imagenet_use_its_names_and_order():
    whole = read_table("imagenet")
    names = dict(zip(whole.keys, whole.names, strict=True))
    assert list(whole.keys) == sorted(whole.keys)
    for name in ("tiny_imagenet", "imagenette"):
        table = read_table(name)
        assert [names[key] for key in table.keys] == list(table.names)
        assert list(table.keys) == sorted(table.keys)


def test_the_hubs_own_names_of_classes_are_understood():
    # ClassLabel names of Sijuade/ImageNette and blanchon/EuroSAT_RGB.
    nette = ("tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
             "gas pump", "golf ball", "parachute")  # fmt: skip
    sat = ("Annual Crop", "Forest", "Herbaceous Vegetation", "Highway", "Industrial Buildings", "Pasture",
           "Permanent Crop", "Residential Buildings", "River", "SeaLake")  # fmt: skip
    for name, stated in (("imagenette", nette), ("eurosat", sat)):
        table = read_table(name)
        assert name_classes(list(range(10)), stated, (), table) == (list(table.names), {})


def test_labels_are_named_by_file_user_or_table():
    assert name_classes([0, 1, -1, None, 2], ("a_b", "c"), (), None)[0] == ["a b", "c", None, None, None]
    assert list(name_classes([0, 2], ("a_b", "c"), (), None)[1]) == [1]
    assert name_classes([0, 1], ("a", "b"), ("x_y", "z"), None) == (["x_y", "z"], {})
    assert name_classes(["sea_urchin", 3], (), (), None) == (["sea urchin", "3"], {})
    table = read_table("imagenette")
    names, problems = name_classes([0, 1, 2], ("n03888257", "n00000000", "golf ball"), (), table)
    assert names == ["parachute", None, "golf ball"]
    assert problems[1].startswith("BAD_LABEL: 'n00000000' is no class of the table (10 classes, n01440764")
    assert name_classes(["3"], ("3",), (), table)[0] == [None]  # a name as the file states it, not a number
    names, problems = name_classes([0, "9", 10, -1, None], (), (), table)
    assert names == ["tench", "parachute", None, None, None]
    assert list(problems) == [2]


def test_shared_names_are_found_with_their_keys_and_warned_about(caplog):
    keys, names = ["n02012849", "n03126707", "n1", "n2"], ["crane", "crane", "kite", None]
    assert duplicates(keys, names) == {"crane": ["n02012849", "n03126707"]}
    with caplog.at_level(logging.WARNING):
        warn_of_duplicates(keys, names)
    assert caplog.messages == ["2 classes are called 'crane' and become one: n02012849, n03126707"]
