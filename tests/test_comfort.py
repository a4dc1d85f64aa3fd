"""What makes the site comfortable: reading times, ticks, link previews, the page for wrong addresses, the archive."""

from __future__ import annotations

import ast
import re
import zipfile
from pathlib import Path
from types import SimpleNamespace

import build_book
import pytest
from api import Entry, entries
from archive import archive_name, write_archive
from course_config import Course
from course_links import LINES_A_MINUTE, WORDS_A_MINUTE, reading_minutes
from docutils.core import publish_doctree
from not_found import from_the_root
from page_times import table
from progress_ticks import days
from reliability import TOPICS, equalities, of_lessons, promises
from short_addresses import addresses
from social_card import LENGTH, description, draw_picture
from sphinx.errors import ExtensionError

COURSE = Course()
CELL = "```{code-cell} ipython3\n" + "x = 1\n" * LINES_A_MINUTE * 10 + "```\n"


def test_reading_takes_longer_with_more_words_and_with_more_code() -> None:
    prose = "word " * WORDS_A_MINUTE * 20
    assert reading_minutes(prose) == 20
    assert reading_minutes(f"---\nkernelspec: x\n---\n{prose}\n{CELL}") == 30
    assert reading_minutes("A short page.") == 5


def test_every_day_can_be_ticked_and_nothing_else() -> None:
    found = days(COURSE)
    names = [day["name"] for day in found]
    assert names[:42] == [f"day{n:02}" for n in range(1, 43)] and names[42] == "speedrun"
    assert all(name.startswith("tour") for name in names[43:])
    assert len(set(names)) == len(names)
    assert {day["row"] for day in found[:7]} == {"Week 1"} and found[-1]["row"] == "The tour"
    page = "book/week2/day09_self_attention.html"
    assert found[8] == {"name": "day09", "row": "Week 2", "label": "day 9", "page": page}


@pytest.mark.parametrize(
    ("html", "fixed"),
    [
        ('<a href="book/index.html#x">', '<a href="/site/book/index.html#x">'),
        ('<html data-content_root="./" >', '<html data-content_root="/site/" >'),
        ('<script src="_static/a.js?v=1">', '<script src="/site/_static/a.js?v=1">'),
        ('<a href="#main">', None),
        ('<a href="https://example.org/">', None),
        ('<img src="data:image/png;base64,x">', None),
        ('<a href="/site/already">', None),
    ],
)
def test_links_of_the_page_for_wrong_addresses_start_at_the_root(html: str, fixed: str | None) -> None:
    assert from_the_root(html, "/site/") == (fixed or html)


def test_short_and_old_addresses_lead_to_pages() -> None:
    short = addresses(COURSE, {})
    assert short["day9"] == "book/week2/day09_self_attention" and short["tour11"] == "book/tour/tour11_reasoner"
    assert len([name for name in short if name.startswith("day")]) == 42
    assert addresses(COURSE, {"book/old": "book/index"}) == short | {"book/old": "book/index"}


@pytest.mark.parametrize(
    "moved, why",
    [
        ({"book/index": "book/reference/glossary"}, "book/index is still a page of _toc.yml"),
        ({"book/old": "book/nowhere"}, "book/nowhere is no page of _toc.yml"),
    ],
)
def test_a_move_that_cannot_be_stops_the_build(moved: dict[str, str], why: str) -> None:
    with pytest.raises(ExtensionError, match=why):
        addresses(COURSE, moved)


def test_a_page_is_described_by_its_first_paragraph() -> None:
    text = "Title\n=====\n\n.. note::\n\n   Not this.\n\nThis is\nwhat it *says*.\n\nNot this.\n"
    assert description(publish_doctree(text)) == "This is what it says."
    long = description(publish_doctree("Title\n=====\n\n" + "many words " * 60))
    assert len(long) <= LENGTH and long.endswith("words…")
    assert description(publish_doctree("Title\n=====\n")) == ""


def test_the_picture_of_a_link_has_the_size_that_is_asked_for(tmp_path: Path) -> None:
    draw_picture(tmp_path / "a.png", "A title: and more")
    data = (tmp_path / "a.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert [int.from_bytes(data[i : i + 4]) for i in (16, 20)] == [1200, 630]
    draw_picture(tmp_path / "b.png", "A title: and more")
    assert (tmp_path / "b.png").read_bytes() == data


def test_the_archive_holds_the_site_and_not_itself(tmp_path: Path) -> None:
    (tmp_path / "_config.yml").write_text("repository: {url: https://github.com/someone/my-book}\n")
    course = Course(tmp_path)
    (course.site_folder / "book").mkdir(parents=True)
    (course.site_folder / "index.html").write_text("<p>Hello")
    (course.site_folder / "book" / "one.html").write_text("<p>One")
    packed = write_archive(course)
    first = packed.read_bytes()
    assert packed.name == archive_name(course) == "my-book.zip"
    with zipfile.ZipFile(packed) as archive:
        assert archive.namelist() == ["my-book/book/one.html", "my-book/index.html"]
        assert archive.read("my-book/index.html") == b"<p>Hello"
    assert write_archive(course).read_bytes() == first


def test_only_a_site_without_problems_from_these_very_sources_is_not_built_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    course = SimpleNamespace(root=tmp_path, build_folder=tmp_path, site_folder=tmp_path, pages=[], toc=[])
    course.site_of = lambda edition: tmp_path
    page, built = tmp_path / "_toc.yml", []

    def build(course: object) -> list[str]:
        built.append(page.read_text())
        if built[-1] == "changed while it is built":
            page.write_text("late")
        return ["a warning"] if built[-1] == "bad" else []

    monkeypatch.setattr(build_book, "Course", lambda: course)
    monkeypatch.setattr(build_book, "fill_cache", lambda *args: [])
    monkeypatch.setattr(build_book, "build", build)
    for text, problems in (("good", 0), ("good", 0), ("bad", 1), ("good", 0), ("changed while it is built", 0)):
        page.write_text(text)
        assert build_book.main([]) == problems
    assert build_book.main([]) == 0
    assert built == ["good", "bad", "good", "changed while it is built", "late"]


def test_the_table_of_times_has_a_line_for_every_page_with_code() -> None:
    lines = table(COURSE)
    assert len(lines) == len(COURSE.lessons) + 3
    for page, line in zip(COURSE.lessons, lines[2:-1], strict=True):
        assert re.fullmatch(rf"\| \{{doc\}}`/{COURSE.docname(page)}` \| \d+ \| \d* \|", line)


SOURCE = '''
class Tokenizer(Base):
    """Cuts text."""

    def __init__(self, chars: str = "ab") -> None:
        """Not shown: it is the signature of the class."""

    @property
    def size(self) -> int:
        """How many."""

    @classmethod
    def train(cls, text: str, *, quick: bool = False) -> "Tokenizer":
        """Learn."""

    def _hidden(self):
        """No."""

    def silent(self):
        pass

class Plain(NamedTuple):
    """Two numbers."""

def split(x: int, /, *rest: str) -> list[int]:
    """Cut `x`."""

def undocumented():
    pass
'''


def test_the_reference_lists_what_is_public_and_says_what_it_does() -> None:
    assert list(entries(ast.parse(SOURCE))) == [
        Entry("Tokenizer", "", "class Tokenizer(chars: str='ab')", "Cuts text."),
        Entry("size", "Tokenizer", "size: int", "How many."),
        Entry("train", "Tokenizer", "train(text: str, *, quick: bool=False) -> 'Tokenizer'", "Learn."),
        Entry("Plain", "", "class Plain(NamedTuple)", "Two numbers."),
        Entry("split", "", "split(x: int, /, *rest: str) -> list[int]", "Cut `x`."),
    ]


def test_the_reference_names_every_file_of_the_package() -> None:
    """But those that only others lean on, and the command line, which `--help` explains."""
    page = (COURSE.book / "reference" / "api.md").read_text("utf-8")
    shown = re.findall(r"```\{api\} (\w+)\n```", page)
    files = {path.stem for path in (COURSE.root / "llmcourse").glob("*.py")} - {"__init__", "__main__"}
    assert files - set(shown) == {"cli", "figure", "files", "frame"}
    assert re.findall(r"## `llmcourse\.(\w+)`", page) == shown


TESTS = '''
import pytest

@pytest.mark.promise("Bad input", "B.")
@pytest.mark.parametrize("x", [1])
def test_b(x): ...

@pytest.mark.promise("Faults", "A.")
def test_a(): ...

@pytest.mark.slow
def test_c(): ...
'''


def test_promises_are_read_from_the_tests_by_topic(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(TESTS)
    found = promises(tmp_path)
    assert [(p.topic, p.sentence, p.line, p.test) for p in found] == [
        ("Faults", "A.", 9, "test_a"),
        ("Bad input", "B.", 6, "test_b"),
    ]
    (tmp_path / "test_y.py").write_text(TESTS.replace("Faults", "Fruits"))
    with pytest.raises(ValueError, match=r"promises something about 'Fruits'; known: Faults, "):
        promises(tmp_path)


def test_every_topic_has_promises_and_each_is_a_sentence_said_once() -> None:
    found = promises(COURSE.root / "tests")
    assert {promise.topic for promise in found} == set(TOPICS)
    sentences = [promise.sentence for promise in found]
    assert len(set(sentences)) == len(sentences)
    assert [s for s in sentences if not re.fullmatch(r"[A-Z`].*[.]", s) or "|" in s] == []


ASSERTING = """
torch.testing.assert_close(mine(x), theirs(x))
assert torch.equal(a[0], b) and ids == tiktoken.encode(text)
same = torch.allclose(c, d)
assert torch.allclose(e, f, atol=1e-5), "differs"
assert n == 3 and g < h and len(i) == len(j)
assert torch.equal(k, l) or m
"""


def test_equalities_are_what_a_cell_asserts_to_be_the_same() -> None:
    expected = [("mine(x)", "theirs(x)"), ("a[0]", "b"), ("ids", "tiktoken.encode(text)"), ("e", "f")]
    assert list(equalities(ASSERTING)) == expected


def test_nearly_every_day_proves_what_it_builds() -> None:
    found = of_lessons(COURSE)
    days = [name for name in map(COURSE.docname, COURSE.lessons) if re.search(r"/day\d\d", name)]
    assert len([day for day in days if found.get(day)]) >= 0.9 * len(days)
