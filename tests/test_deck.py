"""The slides of the tour: made from the pages, self-contained, turned with the keyboard."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from course_cache import open_cache, read_page
from course_config import Course
from deck import MOST_LINES, DeckError, definitions, write_deck
from jupyter_cache.base import CacheBundleIn
from lesson import Lesson
from lesson_rules import MOST_WORDS, stops_of_the_tour

HEAD = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---

# Tour 1 · Two stops

"""
PAGE = (
    HEAD
    + """\
## Stop 0 · A *small* world

```{slide}
All there is to read are two books. A {term}`token` is one **word**; {term}`losses <loss>` are small.
```

```{code-cell} ipython3
:tags: [slide]
print("one & <two>")
```

```{code-cell} ipython3
print("not on the slide")
```

## Stop 1 · The end

```{slide}
Nothing more.
```

## Exercises

Text that belongs to no stop.
"""
)
GLOSSARY = """\
# Glossary

```{glossary}
loss
    How wrong a model is, in a *number*.

piece
token
    A piece of text that has a number of its own. See {term}`loss`.
```
"""


class Tour:
    """A course with one page of the tour."""

    def __init__(self, root: Path) -> None:
        for folder in ("book/tour", "book/reference", "book/_static"):
            (root / folder).mkdir(parents=True)
        shutil.copy(Course().root / "_config.yml", root)
        shutil.copy(Course().book / "_static" / "course.css", root / "book" / "_static")
        (root / "book/reference/glossary.md").write_text(GLOSSARY)
        (root / "_toc.yml").write_text(
            "root: book/index\nchapters: [{file: book/tour/tour01_two}, {file: book/reference/glossary}]\n"
        )
        self.course, self.page, self.deck = Course(root), root / "book/tour/tour01_two.md", root / "slides.html"
        self.page.write_text(PAGE)

    def change(self, old: str, new: str) -> None:
        assert old in PAGE, f"the page has no {old!r} to break"
        self.page.write_text(self.page.read_text().replace(old, new))

    def write(self, printed: str = "one & <two>\n", figure: str = "") -> str:
        """The deck, as if the page had been run and its tagged cell had shown this."""
        notebook = read_page(self.course, self.page)
        first, *others = (cell for cell in notebook.cells if cell.cell_type == "code")
        goes = printed.splitlines(keepends=True)  # a slow cell prints line by line
        first.outputs = [nbformat.v4.new_output("stream", name="stdout", text=line) for line in goes]
        if figure:
            first.outputs.append(nbformat.v4.new_output("display_data", data={"text/html": figure}))
        for cell in others:
            cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text="not on the slide\n")]
        bundle = CacheBundleIn(notebook, str(self.page))
        open_cache(self.course, keep=True).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)
        write_deck(self.course, self.deck)
        return self.deck.read_text("utf-8")


@pytest.fixture
def tour(tmp_path: Path) -> Tour:
    return Tour(tmp_path)


def test_a_slide_is_the_heading_the_lead_and_what_the_tagged_cells_show(tour: Tour) -> None:
    html = tour.write(figure="<figure><svg></svg></figure>")
    first, _, second = html.partition("<main>")[2].partition("</section>")
    assert "Stop 0</span> A <em>small</em> world" in first and "<strong>word</strong>" in first
    assert "<pre>one &amp; &lt;two&gt;</pre><figure><svg></svg></figure>" in first
    assert "Nothing more." in second and "0 of 1" in first and "1 of 1" in second
    assert "not on the slide" not in html and "belongs to no stop" not in html


def test_the_glossary_is_read_with_its_shared_entries(tour: Tour) -> None:
    found = definitions(tour.course)
    assert found == {
        "loss": "How wrong a model is, in a *number*.",
        "piece": "A piece of text that has a number of its own. See {term}`loss`.",
        "token": "A piece of text that has a number of its own. See {term}`loss`.",
    }


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("```{slide}\nNothing more.\n```\n", "", "stop 1 has no {slide}"),
        ("## Stop 1", "## Stop 2", "The stops are not in order: 0, 2."),
        ("## Stop 0 · A *small* world", "## A small world", "outside of a stop"),
        ("```{slide}\nNothing more.\n```", "```{slide}\nA.\n```\n\n```{slide}\nB.\n```", "or is its second"),
        ("{term}`token`", "{term}`zebra`", "'zebra' (stop 0) is not in the glossary"),
        ("**word**", "{doc}`nowhere`", "there is no such page"),
    ],
)
def test_a_stop_that_cannot_be_a_slide_is_refused(tour: Tour, old: str, new: str, message: str) -> None:
    tour.change(old, new)
    with pytest.raises(DeckError) as caught:
        tour.write()
    assert message in str(caught.value)


def test_more_text_than_fits_is_refused(tour: Tour) -> None:
    assert "line 16" in tour.write("".join(f"line {i}\n" for i in range(1, MOST_LINES + 1)))
    with pytest.raises(DeckError, match="no room for 17 lines"):
        tour.write("line\n" * (MOST_LINES + 1))
    with pytest.raises(DeckError, match="of up to 200 characters"):
        tour.write("x" * 200)


def test_pages_that_have_not_run_have_no_slides(tour: Tour) -> None:
    with pytest.raises(DeckError, match="book/tour/tour01_two has not been run"):
        write_deck(tour.course, tour.deck)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("", "", None),
        ("## Stop 1 · The end", "## Stop one: The end", "The heading of a stop is"),
        ("```{slide}\nNothing", "Some text.\n\n```{slide}\nNothing", "Right below the heading of a stop"),
        ("```{slide}\nNothing more.\n```\n", "", "Right below the heading of a stop"),
        ("Nothing more.", "word " * (MOST_WORDS + 1), f"This slide has {MOST_WORDS + 1} words"),
        ("Nothing more.", "It is $x$.", "no formula"),
        ("Nothing more.", "It is so {cite}`x`.", "no {cite}"),
    ],
)
def test_the_standard_looks_at_stops(tour: Tour, old: str, new: str, message: str | None) -> None:
    tour.change(old, new)
    found = [problem.text for problem in stops_of_the_tour(Lesson(tour.course, tour.page))]
    assert (not found) if message is None else (len(found) == 1 and message in found[0]), found


@pytest.mark.browser
def test_keys_and_buttons_turn_the_slides_and_words_explain_themselves(tour: Tour, browser: Any) -> None:
    tour.write()
    context = browser.new_context(viewport={"width": 390, "height": 800}, color_scheme="dark")
    page, asked, complaints = context.new_page(), list[str](), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(tour.deck.as_uri())

    def shown() -> list[str]:
        return page.evaluate("[...document.querySelectorAll('section')].filter(s => s.offsetHeight).map(s => s.id)")

    assert shown() == ["stop-0"] and page.get_by_label("Previous slide").is_disabled()
    page.keyboard.press("ArrowRight")
    assert shown() == ["stop-1"] and page.url.endswith("#stop-1") and page.get_by_label("Next slide").is_disabled()
    page.get_by_role("searchbox").fill("number")
    assert page.get_by_role("status").inner_text() == "3 of 3 entries"
    page.get_by_role("searchbox").fill("WRONG")
    assert page.locator("dt:visible").all_inner_texts() == ["loss"]
    page.locator("h2:visible").click()
    page.get_by_label("Previous slide").click()
    assert shown() == ["stop-0"] and not page.get_by_role("searchbox").is_visible()

    tip = page.locator("dfn", has_text="losses").locator("[role=tooltip]")
    assert not tip.is_visible()
    page.locator("dfn", has_text="losses").hover()
    box = tip.bounding_box()
    assert tip.is_visible() and box and box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.goto(tour.deck.as_uri() + "#stop-1")
    page.reload()
    assert shown() == ["stop-1"]  # an address names its slide
    assert all(url.startswith("file:") for url in asked) and complaints == []
    context.close()


@pytest.mark.promise("The site", "Without JavaScript all slides of the tour can be read.")
@pytest.mark.browser
def test_without_a_script_all_slides_stand_below_each_other(tour: Tour, browser: Callable[..., Any]) -> None:
    tour.write()
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(tour.deck.as_uri())
    assert page.locator("section:visible").count() == 2
    context.close()
