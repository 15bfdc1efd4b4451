import base64
import re
from html.parser import HTMLParser

import pytest

from xfm.core.report import Estimate, Figure, Report, Table
from xfm.plots.layer_curve import Series, draw_layer_curve
from xfm.plots.page import flat, render_page

EVIL = "<script>alert(1)</script>"
VOID = {"meta", "link", "img", "br"}


@pytest.fixture
def report(tmp_path):
    figure = draw_layer_curve(tmp_path, "skill", [Series("ridge", [0, 1], [0.1, 0.2])], metric="skill", caption=EVIL)
    table = Table(
        name="layers",
        caption=f"Layers {EVIL}",
        columns=["layer", "skill", EVIL],
        rows=[[0, Estimate(value=0.5, low=0.4, high=0.6), EVIL], [1, None, "b"]],
        best=0,
    )
    return Report(
        title=f"Title {EVIL}",
        job="layerwise",
        headline="Layer 0 beats layer 1.",
        numbers={"cells": 18220, EVIL: EVIL},
        tables=[table],
        figures=[figure],
        warnings=[EVIL],
        provenance={"data": {"uri": EVIL, "files": {"a.h5ad": "abc123"}}, EVIL: 1},
        refused={"EMPTY": 1234, EVIL: 1},
    )


class Reader(HTMLParser):
    """Collects tags, addresses and text, and checks that tags close in order."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.open, self.text = [], [], [], ""

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "srcset", "action"}]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data + " "


def read(text):
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    return reader


def test_the_page_stands_alone_and_words_cannot_become_code(report, tmp_path):
    text = render_page(report, tmp_path)
    page = read(text)
    assert "script" not in page.tags
    assert all(address.startswith("data:") for address in page.addresses)
    assert not re.search(r"@import|@font-face|url\(|https?://", text)
    assert page.text.count(EVIL) >= 8


def test_the_picture_inside_is_the_picture_beside(report, tmp_path):
    (image,) = re.findall(r'src="data:image/png;base64,([^"]+)"', render_page(report, tmp_path))
    assert base64.b64decode(image) == (tmp_path / "plots" / "skill.png").read_bytes()


def test_the_page_says_what_was_found_what_ran_and_what_was_refused(report, tmp_path):
    page = read(render_page(report, tmp_path))
    words = " ".join(page.text.split())
    for part in ("Layer 0 beats layer 1.", "18,220", "0.500 [0.400, 0.600]", "files.a.h5ad abc123", "EMPTY 1,234"):
        assert part in words
    assert words.index("Layer 0 beats layer 1.") < words.index("18,220")


def test_a_report_with_nothing_but_a_sentence_is_a_page(tmp_path):
    page = read(render_page(Report(title="t", job="embed", headline="Done."), tmp_path))
    assert "Nothing: every row and file was used." in page.text


def test_a_figure_that_is_missing_or_no_png_is_an_error(tmp_path):
    report = Report(title="t", job="j", headline="h", figures=[Figure(name="f", caption="c", png="f.png")])
    with pytest.raises(FileNotFoundError):
        render_page(report, tmp_path)
    (tmp_path / "f.png").write_text("<svg onload=alert(1)>")
    with pytest.raises(ValueError, match="not a PNG"):
        render_page(report, tmp_path)


def test_nested_facts_become_dotted_names():
    assert flat({"a": {"b": 1, "c": [1, 2]}, "d": None, "e": [{"f": "x"}]}) == [
        ("a.b", "1"),
        ("a.c", "1, 2"),
        ("d", "none"),
        ("e[0].f", "x"),
    ]


def test_an_interval_is_set_apart_from_its_value(report, tmp_path):
    number = report.model_copy(update={"numbers": {"F1": Estimate(value=0.9, low=0.8, high=1.0)}})
    text = render_page(number, tmp_path)
    assert '<dd>0.900 <span class="interval">[0.800, 1.000]</span></dd>' in text
    assert '<td class="right">0.500 <span class="interval">[0.400, 0.600]</span></td>' in text


@pytest.mark.parametrize(("rows", "is_behind"), [(15, False), (16, True)])
def test_a_long_table_waits_behind_its_caption(tmp_path, rows, is_behind):
    table = Table(name="t", caption="All of them", columns=["n"], rows=[[n] for n in range(rows)], note="A note.")
    page = read(render_page(Report(title="t", job="j", headline="h", tables=[table]), tmp_path))
    assert ("details" in page.tags) == is_behind
    assert (f"All of them {rows} rows" in " ".join(page.text.split())) == is_behind
    assert "A note." in page.text


def test_a_long_summary_is_open(tmp_path):
    table = Table(name="a_summary", caption="c", columns=["n"], rows=[[n] for n in range(16)])
    text = render_page(Report(title="t", job="j", headline="h", tables=[table]), tmp_path)
    assert "<details open>" in text
    other = table.model_copy(update={"name": "a"})
    assert "<details>" in render_page(Report(title="t", job="j", headline="h", tables=[other]), tmp_path)


def test_summaries_come_first_then_figures_then_tables_then_what_ran(report, tmp_path):
    table = report.tables[0]
    tables = [table.model_copy(update={"name": name, "caption": f"Table {name}"}) for name in ("all", "short_summary")]
    figures = [report.figures[0].model_copy(update={"caption": f"Figure {number}."}) for number in (1, 2)]
    page = read(render_page(report.model_copy(update={"tables": tables, "figures": figures}), tmp_path))
    order = ["Layer 0 beats", "Figure 1.", "18,220", "Before you believe it", "Table short_summary", "Figure 2.",
             "Table all", "What was refused", "EMPTY", "What ran"]  # fmt: skip
    places = [page.text.index(part) for part in order]
    assert places == sorted(places)


def test_those_who_do_not_see_a_figure_are_told_its_numbers(report, tmp_path):
    figure = report.figures[0]
    assert figure.alt
    assert f'alt="{figure.alt}"' in render_page(report, tmp_path)
    without = report.model_copy(update={"figures": [figure.model_copy(update={"alt": "", "caption": "Only this."})]})
    assert 'alt="Only this."' in render_page(without, tmp_path)


def test_many_facts_wait_behind_the_name_of_their_section(report, tmp_path):
    files = {f"{number}.h5ad": "abc" for number in range(40)}
    page = read(render_page(report.model_copy(update={"provenance": {"data": {"files": files}}}), tmp_path))
    assert "details" in page.tags
    assert "data 40 entries" in " ".join(page.text.split())
