"""Lines of a manifest as a crash leaves them."""

from xfm.core.ledger import MANIFEST, Receipt, intact, parse, render

ONE, TWO = Receipt("a", 3, "0" * 64, 10, 0.5, 1), Receipt("b", 4, "1" * 64, 12, 0.5, 1)


def test_a_line_without_its_end_was_never_written_even_where_it_is_whole():
    """What is appended next would stand on the same line, and both would be lost."""
    whole = render([ONE, TWO])
    assert parse(whole, Receipt, MANIFEST) == [ONE, TWO]
    assert parse(whole[:-1], Receipt, MANIFEST) == [ONE]
    assert parse(whole[:-9], Receipt, MANIFEST) == [ONE]


def test_a_shard_stands_only_with_its_part_and_all_its_refusals():
    lines = render([ONE, TWO])
    assert set(intact(lines, b"", {"a.parquet": 10, "b.parquet": 12})[0]) == {"a", "b"}
    assert set(intact(lines, b"", {"a.parquet": 9, "b.parquet": 12})[0]) == {"b"}
    assert set(intact(lines, b"", {"b.parquet": 12})[0]) == {"b"}
