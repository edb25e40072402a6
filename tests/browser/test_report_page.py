"""The report in Chromium, as a reader sees it: on a wide screen and on a telephone, in light and in dark, on paper."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.browser

WIDTHS, SCHEMES = (1200, 400), ("light", "dark")

# Everything that sticks out of the window and does not scroll in itself.
CUT_OFF = """() => [...document.querySelectorAll('body *')].filter(each => {
  const box = each.getBoundingClientRect();
  const scrolls = each.closest('.wide') && each !== each.closest('.wide');
  return box.width && !scrolls && !each.closest('svg *') && (box.right > innerWidth + 1 || box.left < -1);
}).map(each => each.outerHTML.slice(0, 120))"""

# Neighbours in the text that lie upon each other.
OVERLAPPING = """() => {
  const found = [], boxes = each => each.getBoundingClientRect();
  for (const parent of document.querySelectorAll('main, details[open], .matrices > div')) {
    const children = [...parent.children].filter(each => boxes(each).height);
    children.forEach((each, place) => {
      const next = children[place + 1];
      if (next && boxes(next).top < boxes(each).bottom - 1) found.push(next.outerHTML.slice(0, 120));
    });
  }
  return found;
}"""

# Words that reach out of their cell of a table, into the next.
OUT_OF_THEIR_CELL = """() => [...document.querySelectorAll('th, td')].filter(
  each => each.getClientRects().length && each.scrollWidth > each.clientWidth + 1).map(each => each.innerText)"""


@pytest.fixture(
    params=[(width, scheme) for width in WIDTHS for scheme in SCHEMES], ids=lambda pair: "-".join(map(str, pair))
)
def seen(request, browser, report):
    """The page in a window of its own; what it said and what it asked for."""
    width, scheme = request.param
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.said, page.asked = [], []
    page.on("console", lambda message: page.said.append(message.text))
    page.on("pageerror", lambda error: page.said.append(str(error)))
    page.on("request", lambda asked: page.asked.append(asked.url))
    page.goto(report.as_uri())
    yield page
    page.close()


def open_all(page):
    page.evaluate("document.querySelectorAll('details').forEach(each => { each.open = true })")


def test_it_says_nothing_to_the_console_and_asks_for_nothing_but_itself(seen, report):
    open_all(seen)
    seen.wait_for_load_state("networkidle")
    assert seen.said == []
    assert [url for url in seen.asked if not url.startswith("data:")] == [report.as_uri()]
    assert seen.evaluate("document.scripts.length") == 0
    assert seen.title() == "A run: base, SFT, GRPO on the test split"  # what a model wrote is text


def test_nothing_sticks_out_and_nothing_overlaps(seen):
    for _ in range(2):  # as it opens, then with everything unfolded
        assert seen.evaluate("document.documentElement.scrollWidth") <= seen.viewport_size["width"]
        assert seen.evaluate(CUT_OFF) == []
        assert seen.evaluate(OVERLAPPING) == []
        assert seen.evaluate(OUT_OF_THEIR_CELL) == []
        open_all(seen)


def test_wide_tables_scroll_in_themselves_and_keep_their_first_column(seen):
    moved = seen.evaluate("""() => [...document.querySelectorAll('.wide')].filter(
        each => each.scrollWidth > each.clientWidth && each.getClientRects().length).map(each => {
      const first = each.querySelector('tbody tr > *'), before = first.getBoundingClientRect().left;
      each.scrollLeft = 60;
      return [getComputedStyle(each).overflowX, each.tabIndex, each.scrollLeft > 0,
        first.getBoundingClientRect().left - before];
    })""")
    assert all(each[:3] == ["auto", 0, True] and abs(each[3]) < 1 for each in moved)
    assert len(moved) > 3 or seen.viewport_size["width"] > 400


def test_the_table_of_contents_leads_to_every_section(seen):
    links = seen.locator("nav a")
    assert links.count() == seen.locator("main h2").count() == 9
    for number in range(links.count()):
        links.nth(number).scroll_into_view_if_needed()
        links.nth(number).click()
        target = links.nth(number).get_attribute("href")
        top, window = seen.evaluate(
            "id => [document.querySelector(id).getBoundingClientRect().top, innerHeight]", target
        )
        assert 0 <= top < window, target


def test_letters_are_large_enough_to_read(seen):
    open_all(seen)
    sizes = seen.evaluate("""() => [...document.querySelectorAll('svg text, main p, main td, main dd')].filter(
        each => each.getClientRects().length).map(each => each instanceof SVGElement
          ? parseFloat(getComputedStyle(each).fontSize) * each.getScreenCTM().a
          : parseFloat(getComputedStyle(each).fontSize))""")
    assert min(sizes) >= 9


def test_on_paper_everything_is_unfolded_and_fits(browser, report):
    page = browser.new_page(viewport={"width": 720, "height": 1000}, color_scheme="dark")
    page.goto(report.as_uri())
    page.emulate_media(media="print", color_scheme="dark")
    shut = page.locator("details:not([open]) pre, details:not([open]) dl")
    assert shut.count() > 10
    assert all(shut.nth(number).bounding_box()["height"] > 10 for number in range(shut.count()))
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    paper = page.pdf(format="A4")
    page.close()
    assert background == "rgb(255, 255, 255)"
    assert paper.startswith(b"%PDF")
