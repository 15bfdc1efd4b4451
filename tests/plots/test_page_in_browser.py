"""The page of a report as large as an evaluation makes it, as a reader's browser shows it."""

import pytest

from tests.browser import open_page
from tests.plots.rich_report import HEADLINE, TYPES, rich_report
from xfm.plots.page import render_page

SEEN = """(() => {
  const shown = [...document.images].map(i => ({
    natural: i.naturalWidth, width: i.width, height: i.height, alt: i.alt, top: i.getBoundingClientRect().top,
    cut: i.closest('.scroll').scrollWidth - i.closest('.scroll').clientWidth,
  }));
  const inside = [...document.querySelectorAll('h1, h2, p, dd, dt, li, figcaption, summary')]
    .map(e => [e.getBoundingClientRect().right, e.textContent.trim()])
    .filter(([right]) => right > document.documentElement.clientWidth + 0.5);
  document.querySelectorAll('details').forEach(d => d.open = true);
  return {
    images: shown, outside: inside, page: document.documentElement.scrollWidth,
    rows: [...document.querySelectorAll('table')].map(t => t.tBodies[0].rows.length),
    tallest: Math.max(...[...document.querySelectorAll('tbody tr')].map(r => r.offsetHeight)),
    first: getComputedStyle(document.querySelector('.best td')).fontWeight,
  };
})()"""
WORDS = ["0.912 [0.892, 0.932]", "2,000", "Before you believe it", "majority", "What was refused", "NEGATIVE_COUNT"]


def written(report, folder):
    (folder / "report.html").write_text(render_page(report, folder), encoding="utf-8")
    return (folder / "report.html").as_uri()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    return rich_report(folder), folder


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_shows_everything_at_this_width(report, tmp_path, width, pixels):
    what, folder = report
    picture = tmp_path / "page.png"
    (tmp_path / "profile").mkdir()
    page = open_page(
        written(what, folder), tmp_path / "profile", width=width, screenshot=picture, until=[HEADLINE], ask=SEEN
    )
    assert page.console == []
    assert page.requests == [(folder / "report.html").as_uri()]
    text = " ".join(page.text.split())
    for words in (*WORDS, *TYPES, *(figure.caption for figure in what.figures), *what.warnings):
        assert words in text
    seen = page.answer
    assert len(seen["images"]) == 5
    for image in seen["images"]:
        assert image["natural"] > 500
        assert image["width"] > 300
        assert len(image["alt"]) > 60
    assert seen["page"] == width
    assert seen["outside"] == []
    assert sorted(seen["rows"]) == [2, 3, 7, 9, 56, 56, 56]
    assert seen["tallest"] < 120
    # The hero is seen whole, and its blue line is really there.
    hero = seen["images"][0]
    assert hero["cut"] <= 0
    part = pixels(picture)[round(hero["top"]) : round(hero["top"] + hero["height"])]
    # Scaled down to a phone, the line mixes with its band.
    assert (abs(part - [0x00, 0x72, 0xB2]).max(axis=-1) <= 40).sum() > 100


@pytest.mark.slow
def test_closed_tables_are_open_on_paper(report, tmp_path):
    """The page's own print style, asked of the browser's layout."""
    what, folder = report
    ask = """(() => {
      const inner = document.querySelector('details table');
      const rules = [...document.styleSheets[0].cssRules].filter(r => r.media && r.media.mediaText === 'print');
      const before = inner.checkVisibility();
      rules.forEach(r => { r.media.mediaText = 'screen'; });
      return [document.querySelectorAll('details[open]').length, before, inner.checkVisibility(), inner.offsetHeight];
    })()"""
    page = open_page(written(what, folder), tmp_path, ask=ask)
    open_ones, before, after, height = page.answer
    assert open_ones == 0
    assert (before, after) == (False, True)
    assert height > 500
