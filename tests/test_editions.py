"""Three editions from one source: the student's has nothing of a solution, anywhere.

Unmistakable words are planted in a tiny book: in a solution's prose, in its code, in what its code prints, in a
teaching note and in the explanation of a quiz. Then all three editions are built for real and every file is searched.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

import build_book
import nbformat
import pytest
from course_config import Course
from edition_text import EditionError, directives, edit, solutions
from editions import find_leaks
from labels import Labels
from plain_markdown import PlainMarkdown

import notebooks

COURSE = Course()
EDITIONS = ("learner", "student", "instructor")
HEADER = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---

"""
LESSON = HEADER + """\
# Day 9 · Attention

Prose with a ovalpublic word.

```{teaching} Before the corktitle
Let them guess first: corkteach.
```

```{code-cell} ipython3
:tags: [nbval-check-output]

from llmcourse.checks import check, hint
from llmcourse.quiz import quiz

def attention(q, k, v):
    raise NotImplementedError

solved = check("day09", attention)
hint("day09", 1)
```

```{exercise-start} Write it
:label: ex-write
```
Fill in `attention`.
```{exercise-end}
```

```{solution-start} ex-write
:class: dropdown
:label: the-answer
```
Here stands corkprose.

```{code-cell} ipython3
:tags: [nbval-check-output]

from IPython.display import HTML

corkcode = "tuptuokroc"  # corkcomment
print(corkcode[::-1])
```

```{code-cell} ipython3
HTML(f"<b>{'lmthkroc'[::-1]}</b>")
```
And corkafter.
```{solution-end}
```

```{exercise} By hand
:label: ex-hand
Do it.
```

````{guess} A box
- Open it.

- ```{solution} ex-hand
  :class: dropdown
  A nested corknested:

  :::{plain}
  corkdeeper
  :::
  ```
````

:::{solution} ex-hand
:class: dropdown
Another way to a corkcolon.
:::

```{code-cell} ipython3
:tags: [nbval-check-output]

print("cilbupkroc"[::-1])
```

```{code-cell} ipython3
quiz("one_sitting")
```

The end of ovalpublic.
"""
PROSE = ["corkprose", "corkafter", "corknested", "corkdeeper", "corkcolon"]
CODE = ["corkcode", "corkcomment", "tuptuokroc"]
PRINTED = ["corkoutput", "corkhtml"]
SECRET = [*PROSE, *CODE, *PRINTED]
TEACHING = ["corktitle", "corkteach"]
EVERYWHERE = ["ovalpublic", "corkpublic"]
EXPLANATION = "That is a later stage (week 6)."  # of a wrong choice in the quiz


@dataclass
class Built:
    """The tiny book, and what `make book` and `make notebooks` left of each edition."""

    course: Course
    handouts: Path

    def site(self, edition: str) -> Path:
        return self.course.site_of(edition)

    def page(self, edition: str) -> str:
        return (self.site(edition) / "book" / "one.html").read_text("utf-8")

    def text(self, edition: str) -> str:
        """The page as it reads: highlighted code in one piece."""
        return re.sub(r"<[^>]*>", "", self.page(edition))

    def files(self, edition: str) -> dict[str, str]:
        """All text files of an edition: pages, sources, downloads, search index, and the notebooks apart."""
        files = [*self.site(edition).rglob("*"), *(self.handouts / edition).rglob("*")]
        suffixes = {".html", ".md", ".txt", ".js", ".json", ".ipynb", ".log", ".xml", ".inv", ""}
        texts = {str(f): f.read_text("utf-8", "replace") for f in files if f.is_file() and f.suffix in suffixes}
        return {name: re.sub(r"<[^>]*>", "", t) if name.endswith("html") else t for name, t in texts.items()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    root = tmp_path_factory.mktemp("course")
    shutil.copytree(COURSE.book / "_ext", root / "book" / "_ext", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(COURSE.book / "_static", root / "book" / "_static")
    for name in ("_config.yml", "book/references.bib"):
        shutil.copy(COURSE.root / name, root / name)
    (root / "llmcourse").mkdir()
    (root / "_toc.yml").write_text("format: jb-book\nroot: book/index\nchapters: [{file: book/one}]\n")
    (root / "book" / "index.md").write_text("# A tiny book\n\n" + "It has one page only. " * 20 + "\n", "utf-8")
    (root / "book" / "one.md").write_text(LESSON, "utf-8")
    course = Course(root)
    handouts = tmp_path_factory.mktemp("handouts")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_book, "Course", lambda: Course(root))
        patch.setattr(notebooks, "Course", lambda: Course(root))
        assert notebooks.main([]) == 0
        committed = (course.notebooks / "one.ipynb").read_bytes()
        for edition in EDITIONS:
            assert build_book.main(["--edition", edition]) == 0
            assert notebooks.main(["--edition", edition, "--out", str(handouts / edition)]) == 0
    assert (course.notebooks / "one.ipynb").read_bytes() == committed, "notebooks/ stays what it was"
    return Built(course, handouts)


# ---- The student edition ----------------------------------------------------------------------------------


@pytest.mark.promise("The site", "No page, notebook or search index of the student edition holds a line of a solution.")
def test_no_file_of_the_student_edition_has_a_word_of_a_solution(built: Built) -> None:
    files = built.files("student")
    assert any(name.endswith("searchindex.js") for name in files)
    assert any(name.endswith("_sources/book/one.md") for name in files)
    assert any(name.endswith("_sources/book/one.ipynb") for name in files)
    assert any(name.startswith(str(built.handouts)) for name in files)
    found = [(name, word) for name, text in files.items() for word in SECRET + TEACHING if word in text.lower()]
    assert found == []


def test_no_file_of_any_kind_has_one(built: Built) -> None:
    """Bytes of everything, pictures and inventories too."""
    for file in (f for f in built.site("student").rglob("*") if f.is_file() and "vendor" not in f.parts):
        content = file.read_bytes()
        assert not [word for word in SECRET + TEACHING if word.encode() in content], file


def test_the_student_edition_has_everything_else(built: Built) -> None:
    text = built.text("student")
    assert all(word in text for word in EVERYWHERE), "prose and outputs outside of solutions"
    assert "raise NotImplementedError" in text and "Fill in" in text
    assert "day09: not yet." in text and "Hint 1 of" in text, "the check of a stub says so, and fails no page"
    assert EXPLANATION in text, "explanations of the quiz stay"
    notebook = nbformat.read(built.handouts / "student" / "one.ipynb", as_version=4)
    printed = [output.text for cell in notebook.cells for output in cell.get("outputs", [])]
    assert len(printed) == 2 and printed[1] == "corkpublic\n", "checked outputs are stored as in the other editions"


def test_the_student_edition_leads_to_no_solutions(built: Built) -> None:
    links = re.findall(r'href="([^"]*)"', built.page("student"))
    assert not [link for link in links if COURSE.repository in link]
    assert "../_sources/book/one.ipynb" in links
    assert [link for link in re.findall(r'href="([^"]*)"', built.page("learner")) if COURSE.repository in link]


def test_the_download_of_an_edition_is_its_own_notebook(built: Built) -> None:
    for edition in EDITIONS:
        download = (built.site(edition) / "_sources" / "book" / "one.ipynb").read_bytes()
        assert download == (built.handouts / edition / "one.ipynb").read_bytes()


# ---- The other two --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("edition", ["learner", "instructor"])
def test_solutions_are_in_the_pages_the_notebooks_and_the_search(built: Built, edition: str) -> None:
    text = built.text(edition)
    assert [word for word in SECRET + EVERYWHERE if word not in text] == []
    notebook = (built.handouts / edition / "one.ipynb").read_text("utf-8")
    assert [word for word in [*PROSE, *CODE, "corkoutput"] if word not in notebook] == []
    index = (built.site(edition) / "searchindex.js").read_text("utf-8")
    assert "corkpros" in index and "corknest" in index  # the index has stems
    assert EXPLANATION in text


def solution_classes(page: str) -> list[set[str]]:
    return [set(names.split()) for names in re.findall(r'<div class="([^"]*\bsolution\b[^"]*)"', page)]


def test_learners_open_a_solution_and_instructors_see_it(built: Built) -> None:
    learner, instructor = (solution_classes(built.page(edition)) for edition in ("learner", "instructor"))
    assert len(learner) == len(instructor) == 3
    assert all("dropdown" in names for names in learner)
    assert not any("dropdown" in names for names in instructor)
    folded = {edition: (built.handouts / edition / "one.ipynb").read_text("utf-8") for edition in EDITIONS}
    assert "<details>" in folded["learner"] and '"cellView": "form"' in folded["learner"]
    assert "<details>" not in folded["instructor"] and '"cellView": "form"' not in folded["instructor"]


def test_teaching_notes_and_times_are_for_instructors(built: Built) -> None:
    seconds = json.loads((built.course.build_folder / "page_seconds.json").read_text())["book/one"]
    for edition in EDITIONS:
        texts = [built.text(edition), *built.files(edition).values()]
        shown = any(word in text for text in texts for word in TEACHING)
        assert shown == (edition == "instructor"), edition
        assert (f"ran in {seconds:.0f} s" in built.text(edition)) == (edition == "instructor")
    assert "> **Teaching note: Before the corktitle**" in "\n".join(
        cell.source for cell in nbformat.read(built.handouts / "instructor" / "one.ipynb", as_version=4).cells
    )


def test_nothing_ran_twice(built: Built) -> None:
    runs = list((built.course.cache_folder / "executed").iterdir())
    assert len(runs) == 1


# ---- The search for leaks ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("book/one.html", "<p>x</p><p>Here <em>stands</em>\ncorkprose.</p>"),
        ("book/one.html", '<span class="n">corkcode</span> <span>=</span> &quot;tuptuokroc&quot; <i># corkcomment'),
        ("book/one.html", "<span class='o'>print</span>(<span>corkcode</span>[::-1])"),
        ("reports/one.log", "And corkafter.\n"),
        ("_sources/book/one.md", "  A nested corknested:\n"),
    ],
)
def test_a_planted_line_of_a_solution_is_found(built: Built, tmp_path: Path, file: str, text: str) -> None:
    made = Course(built.course.build_folder / "editions" / "student")
    path = tmp_path / file
    path.parent.mkdir(parents=True)
    path.write_text("<p>ovalpublic</p>")
    assert find_leaks(built.course, made, [tmp_path]) == []
    path.write_text(text)
    assert [problem.partition(" has ")[0] for problem in find_leaks(built.course, made, [tmp_path])] == [file]


def test_notebooks_are_searched_with_their_outputs(built: Built, tmp_path: Path) -> None:
    made = Course(built.course.build_folder / "editions" / "student")
    shutil.copy(built.handouts / "learner" / "one.ipynb", tmp_path)
    assert len(find_leaks(built.course, made, [tmp_path])) == 1
    notebook = nbformat.read(built.handouts / "student" / "one.ipynb", as_version=4)
    notebook.cells[-1].source += "\nAnother way to a corkcolon."
    nbformat.write(notebook, tmp_path / "one.ipynb")
    assert len(find_leaks(built.course, made, [tmp_path])) == 1


def test_the_handout_does_not_replace_the_committed_notebooks(
    built: Built, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(notebooks, "Course", lambda: built.course)
    assert notebooks.main(["--edition", "student", "--out", str(built.course.notebooks)]) == 1
    assert "holds the learner edition" in capsys.readouterr().err


# ---- The text of a page ----------------------------------------------------------------------------------------


def test_a_line_has_the_same_number_in_every_edition() -> None:
    lines = LESSON.split("\n")
    for edition in EDITIONS:
        new = edit(LESSON, edition).split("\n")
        assert len(new) == len(lines)
        assert all(b in ("", a, a.replace("dropdown", "open")) for a, b in zip(lines, new, strict=True))
        assert edit("\n".join(new), edition) == "\n".join(new), "to edit twice changes nothing"


@pytest.mark.parametrize(
    ("page", "kept"),
    [
        ("a\n```{solution} x\nb\n```\nc", "a c"),
        ("a\n``` {solution} x\nb\n```\nc", "a c"),
        ("a\n~~~{solution} x\n```\nb\n```\n~~~\nc", "a c"),
        ("a\n:::{solution} x\n```{code-block} python\nb\n```\n:::\nc", "a c"),
        ("a\n````{solution} x\n```\nb\n```\n````\nc", "a c"),
        ("> a\n> ```{solution} x\n> b\n> ```\n\nc", "> a c"),
        ("a\n1. ```{solution} x\n   b\n   ```\nc", "a c"),
        ("::::{tab-set}\n:::{solution} x\nb\n:::\nc\n::::", "::::{tab-set} c ::::"),
        ("a\n```{solution} x\nb, and no end", "a"),
        ("```{solution-start} x\n```\nb\n```{code-cell}\nb\n```\n```{solution-end}\n```\nc", "c"),
        ("```{teaching}\nb\n```\nc", "c"),
        ("`` {solution} `` and `{solution}` are words", "`` {solution} `` and `{solution}` are words"),
    ],
)
def test_solutions_are_found_as_the_book_reads_them(page: str, kept: str) -> None:
    assert " ".join(line for line in edit(page, "student").split("\n") if line) == kept


@pytest.mark.parametrize(
    ("page", "message", "line"),
    [
        ("a\n```{solution-start} x\n```\nb", "without {solution-end}", 1),
        ("a\n```{solution-end}\n```\nb", "without {solution-start}", 1),
        ("```{solution-start} x\n```\n```{solution-start} y\n```\n```{solution-end}\n```", "inside another one", 2),
        ("a\n````{code-block} md\n```{solution} x\nb\n```\n````", "cannot be taken out", 2),
    ],
)
def test_a_solution_that_cannot_be_taken_out_stops_the_edition(page: str, message: str, line: int) -> None:
    with pytest.raises(EditionError, match=re.escape(message)) as caught:
        edit(page, "student")
    assert caught.value.line == line


def test_what_code_shows_is_no_directive() -> None:
    page = "````md\n```{guess}\n```\n````\n```{code-cell}\n:::{plain}\n```\n:::{field}\nx\n:::"
    assert [d.name for d in directives(page.split("\n"))] == ["code-cell", "field"]


def test_every_page_of_this_book_can_be_edited() -> None:
    for page in COURSE.pages:
        text = page.read_text("utf-8")
        student = edit(text, "student")
        assert not solutions(student.split("\n"))
        assert edit(text, "learner") == text or "{teaching}" in text


def test_an_unknown_edition_is_named() -> None:
    with pytest.raises(ValueError, match="no edition 'teacher'"):
        edit("x", "teacher")


def test_a_teaching_note_is_a_quotation_in_a_notebook(built: Built) -> None:
    made = Course(built.course.build_folder / "editions" / "instructor")
    convert = PlainMarkdown("book/one", Labels.of(made)).convert
    assert convert("```{teaching}\nTen minutes.\n```") == "> **Teaching note**\n>\n> Ten minutes."
    assert convert("```{solution} ex-hand\nIt is 3.\n```") == "**Solution: By hand**\n\nIt is 3."
