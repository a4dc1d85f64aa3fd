"""The built site as a reader meets it: complete, self-contained, light, and whole in a real browser.

The site is what `make book` left in `_build/html`; without one, or without a browser, tests are skipped.
"""

from __future__ import annotations

import functools
import gzip
import http.server
import json
import os
import re
import shutil
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

import axe_playwright_python
import nbformat
import pytest
from archive import archive_name
from build_book import missing_pages
from course_config import Course
from deck import tour_pages
from playwright.sync_api import Browser, Page, sync_playwright
from progress_ticks import days

COURSE = Course()
SITE = COURSE.site_folder
PAGES = COURSE.toc
LESSONS = [COURSE.docname(page) for page in COURSE.lessons]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(not (SITE / "index.html").exists(), reason="there is no site: run `make book` first")
browser_only = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

OWN_LIMIT = 55_000  # bytes, gzipped: text of the page (the longest has 1,270 lines) and our css, without figures
PAGE_LIMIT = 1_300_000  # bytes, gzipped: everything a browser loads to show one page


# ---- What the files say ----------------------------------------------------------------------------------


@dataclass
class Document(HTMLParser):
    """Links, ids, pictures and headings of one page."""

    path: Path
    ids: set[str] = field(default_factory=set)
    links: list[str] = field(default_factory=list)  # of <a>
    assets: list[str] = field(default_factory=list)  # what the browser loads by itself
    images: list[dict[str, str | None]] = field(default_factory=list)
    figures: list[dict[str, str | None]] = field(default_factory=list)  # <svg> inside figure.llm-figure
    titles: int = 0
    in_article: bool = False  # outside of it the theme repeats the title, for print
    in_figure: bool = False

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.path.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.ids.update(filter(None, (attributes.get("id"), attributes.get("name"))))
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"] or "")
        elif tag in ("script", "img", "iframe", "source", "audio", "video") and attributes.get("src"):
            self.assets.append(attributes["src"] or "")
        elif tag == "link" and attributes.get("rel") not in ("canonical", "next", "prev", "search", "index", "author"):
            self.assets.append(attributes.get("href") or "")
        if tag == "img":
            self.images.append(attributes)
        elif tag == "figure" and "llm-figure" in (attributes.get("class") or ""):
            self.in_figure = True
        elif tag == "svg" and self.in_figure:
            self.figures.append(attributes)
        elif tag == "article":
            self.in_article = True
        elif tag == "h1":
            self.titles += self.in_article

    def handle_endtag(self, tag: str) -> None:
        if tag == "figure":
            self.in_figure = False
        elif tag == "article":
            self.in_article = False


@functools.cache
def document(path: Path) -> Document:
    return Document(path)


def page(docname: str) -> Document:
    return document(SITE / f"{docname}.html")


def broken(source: Path, links: list[str]) -> list[str]:
    """Links of a page that lead to a file or a place in it that the site does not have."""
    problems = []
    for link in links:
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            continue
        target = (source.parent / unquote(parts.path)).resolve() if parts.path else source
        target = target / "index.html" if target.is_dir() else target
        if not target.is_file():
            problems.append(f"{link}: no such file")
        elif parts.fragment and target.suffix == ".html" and unquote(parts.fragment) not in document(target).ids:
            problems.append(f"{link}: no such place")
    return problems


def test_every_page_of_the_table_of_contents_is_there_and_not_empty() -> None:
    assert missing_pages(COURSE) == []


@pytest.mark.parametrize("docname", PAGES)
def test_a_page_has_one_title_and_loads_nothing_from_elsewhere(docname: str) -> None:
    found = page(docname)
    assert found.titles == 1
    assert [asset for asset in found.assets if urlsplit(asset).netloc] == []


@pytest.mark.promise("The site", "Every link within the book leads to a page, and to a place on it, that exists.")
@pytest.mark.parametrize("docname", PAGES)
def test_links_and_files_of_a_page_exist(docname: str) -> None:
    found = page(docname)
    assert broken(found.path, found.links + found.assets) == []


def test_the_link_checker_finds_what_is_broken(tmp_path: Path) -> None:
    (tmp_path / "b.html").write_text("<p id='here'>x</p>")
    (tmp_path / "a.html").write_text(
        "<a href='b.html#here'></a><a href='b.html#gone'></a><a href='c.html'></a>"
        "<a href='#nowhere'></a><a href='https://example.org/x'></a><img src='no.png'>"
    )
    found = Document(tmp_path / "a.html")
    assert broken(found.path, found.links + found.assets) == [
        "b.html#gone: no such place",
        "c.html: no such file",
        "#nowhere: no such place",
        "no.png: no such file",
    ]


@pytest.mark.promise("The site", "Every picture says in words what it shows.")
@pytest.mark.parametrize("docname", PAGES)
def test_pictures_say_what_they_show(docname: str) -> None:
    found = page(docname)
    for image in found.images:
        alt = image.get("alt")
        assert alt is not None, f"no alt text: {image.get('src')}"
        assert not re.search(r"\.(png|svg|jpe?g)$", alt), f"the alt text is a file name: {alt}"
    for figure in found.figures:
        assert figure.get("role") == "img" and (figure.get("aria-label") or "").strip()


@pytest.mark.promise("The site", "Each lesson opens in Colab as the notebook that is kept beside it.")
@pytest.mark.parametrize("docname", LESSONS)
def test_colab_opens_a_notebook_that_exists(docname: str) -> None:
    links = {link for link in page(docname).links if "colab.research.google.com" in link}
    assert links == {COURSE.colab_url(docname)}
    path = COURSE.root / links.pop().partition(f"/blob/{COURSE.branch}/")[2]
    assert path.is_file()


@pytest.mark.parametrize("docname", LESSONS)
def test_the_download_is_the_readable_notebook(docname: str) -> None:
    found = page(docname)
    links = [link for link in found.links if link.endswith(".ipynb") and not urlsplit(link).scheme]
    downloads = {urljoin(f"{docname}.html", link) for link in links}
    assert downloads == {f"_sources/{docname}.ipynb"}
    assert (SITE / downloads.pop()).read_bytes() == COURSE.notebook_path(docname).read_bytes()


@pytest.mark.parametrize("docname", LESSONS)
def test_links_from_a_notebook_to_the_site_lead_somewhere(docname: str) -> None:
    notebook = nbformat.read(COURSE.notebook_path(docname), as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    links = re.findall(rf"\]\({re.escape(COURSE.site_url)}/([^)\s]+)\)", text)
    assert broken(SITE / "index.html", links) == []


def gzipped(*parts: bytes) -> int:
    return sum(len(gzip.compress(part)) for part in parts)


@pytest.mark.parametrize("docname", PAGES)
def test_our_own_part_of_a_page_is_light(docname: str) -> None:
    """Text, code and css; figures have a limit of their own (60 kB each, in llmcourse.plots)."""
    found = page(docname)
    html = re.sub(r'<figure class="llm-figure\b.*?</figure>', "", found.path.read_text("utf-8"), flags=re.S)
    loaded = {Path(urlsplit(asset).path).name for asset in found.assets}
    own = [path for path in (COURSE.book / "_static").glob("*.[cj]s*") if path.name in loaded]
    assert {path.name for path in own} >= {"course.css", "progress.js"}
    assert gzipped(html.encode(), *(path.read_bytes() for path in own)) <= OWN_LIMIT


@pytest.mark.parametrize("docname", PAGES)
def test_a_link_to_a_page_has_words_and_a_picture(docname: str) -> None:
    html = page(docname).path.read_text("utf-8")
    found = dict(re.findall(r'<meta (?:property|name)="([\w:]+)" content="([^"]*)"', html))
    assert len(found["description"]) >= 40 and found["og:description"] == found["description"]
    assert found["og:url"] == COURSE.page_url(docname) and found["og:title"]
    picture = found["og:image"].removeprefix(COURSE.site_url)
    assert (SITE / picture.lstrip("/")).stat().st_size > 10_000


def test_the_page_for_wrong_addresses_works_under_any_address() -> None:
    root = urlsplit(COURSE.site_url).path + "/"
    found = document(SITE / "404.html")
    local = [link for link in found.links + found.assets if not urlsplit(link).netloc and not link.startswith("#")]
    assert len(local) > 20 and all(link.startswith(root) for link in local)
    assert broken(SITE / "index.html", [link.removeprefix(root) for link in local]) == []


def test_the_whole_book_is_one_file_too() -> None:
    name = archive_name(COURSE)
    with zipfile.ZipFile(SITE / name) as archive:
        packed = set(archive.namelist())
    assert {f"{Path(name).stem}/{docname}.html" for docname in PAGES} <= packed


# ---- What a browser sees -----------------------------------------------------------------------------------


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The site, served on this machine."""
    handler = functools.partial(QuietHandler, directory=str(SITE))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-quic"])
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """A page in a fresh browser window, and everything it asked for or complained about."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("requestfailed", lambda request: self.complaints.append(f"failed: {request.url}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on(
            "console", lambda message: self.complaints.append(message.text) if message.type == "error" else None
        )
        self.page.goto(url, wait_until="networkidle")


@pytest.fixture
def visit(browser: Browser, request: pytest.FixtureRequest) -> Iterator[Visit]:
    options = {"color_scheme": "light", "viewport": {"width": 1400, "height": 1000}} | getattr(request, "param", {})
    context = browser.new_context(**options)
    yield Visit(context.new_page())
    context.close()


DARK = {"color_scheme": "dark"}
PHONE = {"width": 390, "height": 844}

# Loading a page costs seconds, asking it something costs nothing: two visits answer all that is asked of every page.


@pytest.mark.promise("Network and privacy", "A page of this site asks no other host for anything.")
@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("docname", PAGES)
def test_a_page_stays_on_its_host_logs_no_error_is_light_and_fits_a_phone(
    visit: Visit, address: str, docname: str
) -> None:
    visit.open(f"{address}/{docname}.html")
    assert [url for url in visit.requests if not url.startswith((address, "data:"))] == []
    assert visit.page.locator("mjx-merror").count() == 0, "MathJax could not set a formula"
    files = {SITE / unquote(urlsplit(url).path).lstrip("/") for url in visit.requests if url.startswith(address)}
    weights = {str(path.relative_to(SITE)): gzipped(path.read_bytes()) for path in files if path.is_file()}
    assert sum(weights.values()) <= PAGE_LIMIT, json.dumps(weights)

    visit.page.set_viewport_size(PHONE)
    assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390, "a phone would scroll sideways"
    assert visit.complaints == []


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("visit", [DARK], indirect=True, ids=["dark"])
@pytest.mark.parametrize("docname", PAGES)
def test_a_page_opened_from_disk_in_the_dark_works_too(visit: Visit, docname: str) -> None:
    visit.open((SITE / f"{docname}.html").as_uri())
    assert [url for url in visit.requests if not url.startswith(("file:", "data:"))] == []
    visit.page.wait_for_function("document.documentElement.dataset.theme === 'dark'")  # set by a script of the theme
    assert visit.complaints == []


@browser_only
@pytest.mark.browser
def test_the_four_boxes_differ_in_color_and_have_an_icon(visit: Visit, address: str) -> None:
    visit.open(f"{address}/book/index.html")
    looks = visit.page.evaluate(
        """[...document.querySelectorAll(".admonition.box > .admonition-title")].map(title => {
            const icon = getComputedStyle(title, "::after");
            return [icon.color, icon.content, icon.fontFamily];
        })"""
    )
    assert len(looks) == 4
    assert len({color for color, _, _ in looks}) == 4 and len({icon for _, icon, _ in looks}) == 4
    assert all("Font Awesome" in font for _, _, font in looks)
    assert visit.page.evaluate("document.fonts.check('900 16px \"Font Awesome 6 Free\"')")


@browser_only
@pytest.mark.browser
def test_a_term_shows_its_definition_when_pointed_at(visit: Visit, address: str) -> None:
    visit.open(f"{address}/book/start/setup.html")
    for term, definition in [
        ("gradient", "how much the loss would change"),
        ("parameter", "that training may change"),  # it shares its definition with "weight"
    ]:
        visit.page.locator("article a:has(.std-term)", has_text=term).first.hover()
        visit.page.locator(".tippy-box[data-state=visible]", has_text=definition).wait_for(timeout=5000)


GLOSSARY = "book/reference/glossary"


@browser_only
@pytest.mark.browser
def test_the_glossary_shows_the_entries_with_the_words_typed(visit: Visit, address: str) -> None:
    visit.open(f"{address}/{GLOSSARY}.html")
    window = visit.page
    field, status = window.get_by_role("searchbox", name="Filter the entries"), window.get_by_role("status")
    total = window.locator("dl.glossary dd").count()
    assert status.inner_text() == f"{total} entries"

    field.press_sequentially("causal MASK")
    shown = window.locator("dl.glossary dd:visible").count()
    assert 0 < shown < total and status.inner_text() == f"{shown} of {total} entries"
    assert window.locator("dt", has_text="causal mask").is_visible()
    assert not window.locator("#term-batch").is_visible()

    field.fill("zzz")
    assert status.inner_text() == f"0 of {total} entries"
    field.press("Enter")  # leads nowhere
    assert window.url == f"{address}/{GLOSSARY}.html"
    window.evaluate("location.hash = 'term-batch'")
    window.locator("#term-batch").wait_for(state="visible", timeout=5000)
    assert field.input_value() == ""

    field.fill("zzz")
    field.press("Escape")
    assert window.locator("dl.glossary dd:visible").count() == total
    assert visit.complaints == []


@browser_only
@pytest.mark.browser
def test_the_keyboard_reaches_the_glossary_filter(visit: Visit, address: str) -> None:
    visit.open(f"{address}/{GLOSSARY}.html")
    for _ in range(200):  # past the search, the contents and the buttons
        visit.page.keyboard.press("Tab")
        if visit.page.evaluate("document.activeElement.id") == "glossary-filter":
            break
    visit.page.keyboard.type("loss")
    assert " of " in visit.page.get_by_role("status").inner_text()


@pytest.mark.promise("The site", "Without JavaScript the glossary is whole.")
@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("visit", [{"java_script_enabled": False}], indirect=True, ids=["no-js"])
def test_the_glossary_is_whole_without_javascript(visit: Visit, address: str) -> None:
    visit.page.goto(f"{address}/{GLOSSARY}.html")
    entries = visit.page.locator("dl.glossary dd")
    assert entries.count() > 20 and visit.page.locator("#glossary-filter").count() == 0
    assert all(entry.is_visible() for entry in entries.all())


def test_only_the_glossary_loads_its_script() -> None:
    loading = [docname for docname in PAGES if any("glossary.js" in asset for asset in page(docname).assets)]
    assert loading == [GLOSSARY]


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("visit", [{"viewport": PHONE}], indirect=True, ids=["phone"])
@pytest.mark.skipif(not tour_pages(COURSE), reason="the tour has no page yet")
def test_every_slide_of_the_deck_fits_a_phone(visit: Visit, address: str) -> None:
    visit.open(f"{address}/slides.html")
    numbers = visit.page.evaluate("[...document.querySelectorAll('section')].map(slide => slide.id)")
    for number in numbers:
        assert visit.page.locator("section:visible").get_attribute("id") == number
        assert visit.page.evaluate("document.documentElement.scrollWidth") <= 390, f"{number} would scroll sideways"
        visit.page.keyboard.press("ArrowRight")
    assert [url for url in visit.requests if not url.startswith((address, "data:"))] == []
    assert visit.complaints == []


@browser_only
@pytest.mark.browser
def test_figures_fit_the_column(visit: Visit, address: str) -> None:
    """Of the first lesson that has one; every other figure is made by the same function."""
    docname = next((d for d in LESSONS if page(d).figures), None)
    if docname is None:
        pytest.skip("no lesson has a figure yet")
    visit.open(f"{address}/{docname}.html")
    widths = visit.page.evaluate(
        """[...document.querySelectorAll("figure.llm-figure svg")].map(
            svg => [svg.getBoundingClientRect().width, svg.closest("article").clientWidth])"""
    )
    assert widths and all(0.5 * column < width <= column for width, column in widths)


# ---- Comfort: ticks, keys, search, copying; and nobody left out ---------------------------------------------

DAY = "book/week2/day09_self_attention"


@pytest.mark.promise("Network and privacy", "The days you tick stay in your browser; nothing is sent.")
@browser_only
@pytest.mark.browser
def test_a_finished_day_is_ticked_marked_and_counted_in_this_browser_only(visit: Visit, address: str) -> None:
    window, total = visit.page, len(days(COURSE))
    visit.open(f"{address}/{DAY}.html")
    box = window.get_by_role("checkbox", name="I have finished this page")
    marks = window.locator(".bd-sidebar-primary .day-finished")
    assert not box.is_checked() and marks.count() == 0
    box.check()
    assert marks.count() == 1 and "Day 9" in (marks.locator("xpath=ancestor::a").inner_text())

    window.goto(f"{address}/book/index.html")
    weeks = window.locator("#your-weeks")
    assert weeks.locator("a").count() == total
    assert weeks.locator("a.done").count() == 1 and window.get_by_role("link", name="day 9, finished").is_visible()
    assert f"1 of {total} pages" in weeks.get_by_role("status").inner_text()
    window.get_by_role("link", name="day 9, finished").click()
    window.wait_for_url(f"{address}/{DAY}.html")
    assert box.is_checked() and marks.count() == 1

    window.goto(f"{address}/book/index.html")
    weeks.get_by_role("button").click()
    assert weeks.locator("a.done").count() == 0 and weeks.get_by_role("button").is_hidden() and marks.count() == 0
    assert [url for url in visit.requests if not url.startswith((address, "data:"))] == []
    assert visit.complaints == []


@pytest.mark.promise("The site", "A browser that keeps nothing, or something damaged, still shows every page.")
@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("kept", ["throws", '"{not json"', '"7"'], ids=["no storage", "damaged", "not a list"])
def test_a_browser_that_keeps_nothing_or_nonsense_is_no_error(visit: Visit, address: str, kept: str) -> None:
    key = "llm-42-days:finished"
    get = "throw Error('no')" if kept == "throws" else f"return name === '{key}' ? {kept} : get.call(this, name)"
    put = "throw Error('no')" if kept == "throws" else "return set.call(this, name, value)"
    visit.page.add_init_script(
        f"""const get = Storage.prototype.getItem, set = Storage.prototype.setItem;
        Storage.prototype.getItem = function (name) {{ if (name !== '{key}') return get.call(this, name); {get}; }};
        Storage.prototype.setItem = function (name, value) {{
            if (name !== '{key}') return set.call(this, name, value); {put}; }};"""
    )
    visit.open(f"{address}/{DAY}.html")
    visit.page.get_by_role("checkbox", name="I have finished this page").check()
    says = visit.page.locator(".day-tick").get_by_role("status").inner_text()
    assert ("keeps nothing" in says) == (kept == "throws")
    assert visit.complaints == []


@browser_only
@pytest.mark.browser
def test_arrow_keys_turn_the_pages(visit: Visit, address: str) -> None:
    after = PAGES[PAGES.index(DAY) + 1]
    visit.open(f"{address}/{DAY}.html")
    for key, leads_to in [("ArrowRight", after), ("ArrowLeft", DAY)]:
        # The network may rest before the scripts have run, and one of them rewrites the address, which would stop us.
        visit.page.wait_for_function("document.readyState === 'complete'")
        visit.page.keyboard.press(key)
        visit.page.wait_for_url(f"{address}/{leads_to}.html")


@pytest.mark.promise("The site", "A short address such as `day9.html` leads to that day.")
@browser_only
@pytest.mark.browser
@pytest.mark.parametrize(
    "visit, place", [({}, "#exercises"), ({"java_script_enabled": False}, "")], indirect=["visit"], ids=["js", "no-js"]
)
def test_a_short_address_leads_to_the_day(visit: Visit, address: str, place: str) -> None:
    visit.page.goto(f"{address}/day9.html{place}")
    visit.page.wait_for_url(f"{address}/{DAY}.html{place}")


@browser_only
@pytest.mark.browser
def test_the_search_finds_a_term_and_leads_to_it(visit: Visit, address: str) -> None:
    visit.open(f"{address}/search.html?q=perplexity")
    found = visit.page.locator("#search-results li a")
    found.first.wait_for(timeout=20_000)
    assert any(f"{GLOSSARY}.html" in (link.get_attribute("href") or "") for link in found.all())


@browser_only
@pytest.mark.browser
def test_code_can_be_copied(visit: Visit, address: str) -> None:
    visit.open(f"{address}/{DAY}.html")
    cells = visit.page.locator("div.cell_input:not(details *)")
    assert cells.count() > 5
    assert all(cell.locator("button.copybtn").count() == 1 for cell in cells.all())


KINDS = [  # one page of every kind: a minute for all pages of a kind says the same again
    "book/index",
    "book/start/one_sitting",
    DAY,
    "book/tour/index",
    GLOSSARY,
    "book/reference/cheatsheet",
    "book/reference/api",
    "search",
    "slides",
]

# What a page feels like is what a browser measures while it loads; Lighthouse adds up the same numbers.
OBSERVE = """
window.seen = {shift: 0, blocked: 0, largest: 0};
const watch = (type, add) =>
    new PerformanceObserver(list => list.getEntries().forEach(add)).observe({type, buffered: true});
watch('layout-shift', entry => { if (!entry.hadRecentInput) seen.shift += entry.value; });
watch('longtask', entry => { seen.blocked += Math.max(0, entry.duration - 50); });
watch('largest-contentful-paint', entry => { seen.largest = entry.startTime; });
"""
MEASURED = """() => ({...seen, first: performance.getEntriesByName('first-contentful-paint')[0].startTime,
    loaded: performance.getEntriesByType('navigation')[0].loadEventEnd,
    elements: document.querySelectorAll('*').length})"""


@pytest.mark.promise("The site", "On a phone a page stands still while it loads (a layout shift below 0.1).")
@browser_only
@pytest.mark.browser
def test_nothing_jumps_while_a_page_loads_and_the_report_says_how_quick_it_is(browser: Browser, address: str) -> None:
    """Milliseconds are of this machine and only written down, in `_build/reports/site.md`; a jump is one everywhere."""
    lines = [
        "| Page | Files | kB, gzipped | Elements | First paint | Largest paint | Loaded | Blocked | Jumps |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    jumping = {}
    for name in KINDS:
        context = browser.new_context(viewport=PHONE)  # a phone has the least room, so there most can move
        window, files = context.new_page(), set()
        window.add_init_script(OBSERVE)
        window.on("request", lambda request, files=files: files.add(SITE / urlsplit(request.url).path.lstrip("/")))
        window.goto(f"{address}/{name}.html", wait_until="networkidle")
        window.wait_for_function("performance.getEntriesByType('navigation')[0].loadEventEnd")
        seen = window.evaluate(MEASURED)
        kilobytes = gzipped(*(path.read_bytes() for path in files if path.is_file())) / 1000
        times = " | ".join(f"{seen[what]:.0f} ms" for what in ("first", "largest", "loaded", "blocked"))
        lines.append(
            f"| {name} | {len(files)} | {kilobytes:.0f} | {seen['elements']:,} | {times} | {seen['shift']:.3f} |"
        )
        if seen["shift"] > 0.1:  # what Lighthouse calls good
            jumping[name] = seen["shift"]
        context.close()
    report = COURSE.build_folder / "reports" / "site.md"
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert jumping == {}


AXE = (Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text("utf-8")
LOOKED_AT = KINDS if os.environ.get("COURSE_AXE") != "all" else [*PAGES, "search", "slides"]


@pytest.mark.promise("The site", "On every kind of page axe-core finds no serious barrier, in light and in dark.")
@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("visit", [{}, DARK], indirect=True, ids=["light", "dark"])
@pytest.mark.parametrize("name", LOOKED_AT)
def test_axe_finds_no_barrier(visit: Visit, address: str, name: str) -> None:
    """Nothing that axe-core calls serious or critical; `COURSE_AXE=all` looks at every page (half an hour)."""
    visit.open(f"{address}/{name}.html")
    theme = "dark" if visit.page.evaluate("matchMedia('(prefers-color-scheme: dark)').matches") else "light"
    visit.page.wait_for_function(f"document.documentElement.dataset.theme === '{theme}'")
    visit.page.wait_for_timeout(300)  # colors fade
    visit.page.evaluate(AXE)
    found = visit.page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    barriers = {
        v["id"]: [node["html"][:120] for node in v["nodes"]] for v in found if v["impact"] in ("serious", "critical")
    }
    assert barriers == {}
