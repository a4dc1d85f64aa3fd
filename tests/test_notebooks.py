"""The notebooks are the lessons: same code, readable text, and outputs that are really compared."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import jupytext
import nbformat
import pytest
from course_cache import cached_outputs, fill_cache, fingerprint, open_cache, read_page, tidy_outputs
from course_config import Course
from IPython.core.inputtransformer2 import TransformerManager
from labels import Labels
from plain_markdown import ConversionError, PlainMarkdown

from notebooks import (
    CHECKED,
    NotebookWriter,
    PageError,
    checked_cells,
    code_cell,
    find_differences,
    main,
    to_text,
    write_all,
)

COURSE = Course()
LESSONS = [COURSE.docname(page) for page in COURSE.lessons]
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


def load(docname: str) -> nbformat.NotebookNode:
    return nbformat.read(COURSE.notebook_path(docname), as_version=4)


# ---- The notebooks of this repository ----------------------------------------------------------------


@pytest.mark.promise("The site", "The notebooks are in step with the pages.")
def test_notebooks_are_in_step_with_the_lessons() -> None:
    problems = find_differences(COURSE)
    assert not problems, "run `make notebooks`:\n" + "\n".join(problems)


@pytest.mark.parametrize("docname", [name for name in LESSONS if name != "book/index"])
def test_every_lesson_stores_at_least_three_outputs(docname: str) -> None:
    stored = [cell for cell in checked_cells(load(docname)) if cell.outputs]
    assert len(stored) >= 3, f"{docname} has {len(stored)} cells tagged {CHECKED}"


@pytest.mark.parametrize("docname", LESSONS)
def test_nothing_but_the_text_of_checked_cells_is_stored(docname: str) -> None:
    for cell in load(docname).cells:
        for output in cell.get("outputs", []):
            assert CHECKED in cell.metadata.tags
            assert output.output_type == "stream" or set(output.data) == {"text/plain"}


@pytest.mark.parametrize("docname", LESSONS)
def test_jupytext_reads_the_same_code_from_the_page(docname: str) -> None:
    page = COURSE.fill_in((COURSE.root / f"{docname}.md").read_text("utf-8"))
    by_jupytext = [c.source for c in jupytext.reads(page, fmt="md:myst").cells if c.cell_type == "code"]
    ours = [c.source for c in load(docname).cells[1:] if c.cell_type == "code"]
    assert [re.sub(r"^#@title .*\n", "", source) for source in ours] == by_jupytext


@pytest.mark.parametrize("docname", LESSONS)
def test_a_page_names_only_what_it_defined(docname: str) -> None:
    """The setup cell of a notebook imports modules; a page without it must not lean on them."""
    code = [c.source for c in read_page(COURSE, COURSE.root / f"{docname}.md").cells if c.cell_type == "code"]
    plain = TransformerManager().transform_cell("\n".join(code))
    command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821"]
    command += ["--config", 'builtins = ["get_ipython"]', "-"]
    done = subprocess.run(command, input=plain, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.promise("Versions", "A notebook installs the course on Colab only, and leaves torch and numpy alone.")
@pytest.mark.parametrize("docname", LESSONS)
def test_the_setup_cell_comes_first_and_touches_neither_torch_nor_numpy(docname: str) -> None:
    cell = load(docname).cells[0]
    assert cell.metadata.tags == ["setup"]
    assert "torch" not in cell.source and "numpy" not in cell.source and "requirements" not in cell.source
    assert f"git+{COURSE.repository_url}@{COURSE.branch}" in cell.source


@pytest.mark.parametrize(
    ("hosted", "installed", "installs"),
    [(False, False, 0), (False, True, 0), (True, True, 0), (True, False, 1)],
)
def test_the_setup_cell_installs_on_colab_only(
    hosted: bool, installed: bool, installs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = run_setup_cell(hosted, installed, True, monkeypatch)
    assert len(calls) == installs
    assert all(call.startswith("pip install --quiet --no-deps ") for call in calls)


def test_without_internet_the_setup_cell_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImportError, match="turn the internet on and run this cell again") as caught:
        run_setup_cell(True, False, False, monkeypatch)
    assert "\n" not in str(caught.value)


def run_setup_cell(hosted: bool, installed: bool, online: bool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the setup cell asks of IPython, on Colab or elsewhere, with and without a network."""
    calls: list[str] = []

    class Shell:
        def run_line_magic(self, name: str, line: str) -> None:  # pip's failure raises nothing in a notebook
            calls.append(f"{name} {line}")

    there = lambda name: object() if installed or (calls and online) else None  # noqa: E731
    monkeypatch.setattr("importlib.util.find_spec", there)
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    if hosted:
        monkeypatch.setitem(sys.modules, "google.colab", object())
    source = NotebookWriter.of(COURSE).setup_cell().source
    exec(TransformerManager().transform_cell(source), {"get_ipython": Shell})
    return calls


# ---- A small course in a temporary folder --------------------------------------------------------------

CHECKED_CELL = f"```{{{{code-cell}}}} ipython3\n:tags: [{CHECKED}]\n{{}}\n```\n\n"
PAGE = (
    "# One\n\nText.\n\n"
    + CHECKED_CELL.format("print('mean 0.123')")
    + "```{code-cell} ipython3\nx = 3\nprint(x)\n```\n\n"
    + CHECKED_CELL.format("x + 1")
    + CHECKED_CELL.format("import time\nprint(f'took {time.perf_counter():.3f} s', object())")
)


@pytest.fixture
def tiny(tmp_path: Path) -> Course:
    """A course of one page that runs code and two that do not."""
    book = tmp_path / "book"
    (book / "reference").mkdir(parents=True)
    (tmp_path / "llmcourse").mkdir()
    (tmp_path / "llmcourse" / "model.py").write_text("N = 1\n")
    shutil.copy(COURSE.root / "_config.yml", tmp_path)
    shutil.copy(COURSE.book / "references.bib", book)
    (tmp_path / "_toc.yml").write_text("root: book/index\nchapters: [{file: book/one}]\n")
    (book / "index.md").write_text("(start)=\n# The first page\n")
    (book / "picture.png").touch()
    (book / "reference" / "glossary.md").write_text(
        "# Glossary\n\n```{glossary}\nloss\n    What training lowers.\n\nBPE\nbyte pair encoding\n    Merges.\n```\n"
    )
    (book / "one.md").write_text(HEADER + PAGE, "utf-8")
    return Course(tmp_path)


def run_nbval(notebook: Path, select: str = "") -> list[str]:
    """The cells of a notebook that nbval finds wrong, run, compared and kept as `make test` does it."""
    report = notebook.with_suffix(".xml")
    command = [sys.executable, "-m", "pytest", "-p", "keep_outputs", f"{notebook}{select}"]
    command += ["--nbval-lax", "--nbval-current-env"]
    command += ["--nbval-sanitize-with", str(COURSE.root / "tests" / "nbval_sanitize.cfg")]
    command += ["-p", "no:cacheprovider", "--junitxml", str(report)]
    environment = os.environ | {"PYTHONPATH": str(COURSE.book / "_ext")}
    subprocess.run(command, cwd=notebook.parent, env=environment, capture_output=True)
    cases = list(ET.parse(report).getroot().iter("testcase"))
    assert select or len(cases) == 5  # the setup cell and four of the page
    return [case.get("name", "") for case in cases if case.find("failure") is not None]


def outputs(notebook: nbformat.NotebookNode | None) -> list[list[nbformat.NotebookNode]]:
    assert notebook is not None, "the page has to run"
    return [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.promise("The site", "What a page shows is what its cells printed in the run that was tested.")
def test_what_passed_under_nbval_is_what_the_page_shows(tiny: Course, capsys: pytest.CaptureFixture[str]) -> None:
    page, path = tiny.lessons[0], tiny.notebook_path("book/one")
    write_all(tiny, jobs=1, keep_cache=False)

    def kept() -> nbformat.NotebookNode | None:
        return cached_outputs(open_cache(tiny, keep=True), read_page(tiny, page))

    run = kept()
    assert run is not None
    by_the_book, language = outputs(run), run.metadata.language_info

    (tiny.root / "llmcourse" / "model.py").write_text("N = 2\n")  # nothing that was kept counts any more
    assert run_nbval(path, "::Cell 1") == []
    assert kept() is None, "one cell is not the page"
    good = path.read_text("utf-8")
    path.write_text(good.replace("mean 0.123", "mean 0.124", 1), "utf-8")
    assert len(run_nbval(path)) == 1
    assert kept() is None, "the notebook failed"
    path.write_text(good.replace("x = 3", "x = 3  # else"), "utf-8")
    assert run_nbval(path) == []
    assert kept() is None, "the notebook is not the page"
    path.write_text(good, "utf-8")
    assert run_nbval(path) == []
    run = kept()
    assert run is not None and run.metadata.language_info == language
    assert outputs(run)[:3] == by_the_book[:3]  # the fourth says how long it took
    assert tiny.page_seconds.keys() == {"book/one"}
    capsys.readouterr()
    assert fill_cache(tiny) == []
    assert "All 1 pages with code have been run before" in capsys.readouterr().out


@pytest.mark.promise("The site", "An output that differs from the stored one fails the tests.")
def test_nbval_accepts_what_was_stored_and_catches_every_planted_difference(tiny: Course) -> None:
    assert write_all(tiny, jobs=1, keep_cache=False) == []
    path = tiny.notebook_path("book/one")
    assert run_nbval(path) == [], "only time and address differ from what was stored"

    notebook = nbformat.read(path, as_version=4)
    mean, four, took = checked_cells(notebook)
    mean.outputs[0].text = mean.outputs[0].text.replace("0.123", "0.124")
    four.outputs[0].data["text/plain"] = "5"
    took.outputs[0].text = took.outputs[0].text.replace("took", "needed")
    nbformat.write(notebook, path)
    assert len(run_nbval(path)) == 3


def test_writing_twice_changes_no_byte(tiny: Course) -> None:
    write_all(tiny, jobs=1, keep_cache=False)
    first = tiny.notebook_path("book/one").read_bytes()
    shutil.rmtree(tiny.cache_folder)
    tiny.notebook_path("book/one").unlink()
    write_all(tiny, jobs=1, keep_cache=False)
    second = tiny.notebook_path("book/one").read_bytes()
    varying = re.compile(rb"took .*?>")  # the one cell that prints a time and an address
    assert varying.sub(b"", first) == varying.sub(b"", second)


def test_a_new_cell_leaves_the_ids_of_the_others_alone(tiny: Course) -> None:
    page = tiny.book / "one.md"
    before = [cell.id for cell in NotebookWriter.of(tiny).convert(page).cells]
    page.write_text(page.read_text().replace("Text.\n", "Text.\n\n```{code-cell} ipython3\npass\n```\n"))
    after = [cell.id for cell in NotebookWriter.of(tiny).convert(page).cells]
    assert [i for i in after if i in before] == before and len(after) == len(before) + 1


def test_differences_are_found_without_running_anything(tiny: Course) -> None:
    path = tiny.notebook_path("book/one")
    assert find_differences(tiny) == ["notebooks/one.ipynb: missing"]

    path.parent.mkdir()
    path.write_text(to_text(NotebookWriter.of(tiny).convert(tiny.book / "one.md")))
    problems = find_differences(tiny)
    assert len(problems) == 3 and all("stores no text" in problem for problem in problems)

    path.write_text(path.read_text().replace("x = 3", "x = 4"))
    assert "differs from its page" in find_differences(tiny)[0]

    (tiny.notebooks / "old.ipynb").write_text("{}")
    assert any("old.ipynb: no page of _toc.yml" in problem for problem in find_differences(tiny))


def test_a_page_that_fails_is_reported_and_its_last_notebook_stays(
    tiny: Course, capsys: pytest.CaptureFixture[str]
) -> None:
    write_all(tiny, jobs=1, keep_cache=False)
    page = tiny.book / "one.md"
    page.write_text(page.read_text().replace("x = 3", "x = 1 / 0"))
    assert write_all(tiny, jobs=1, keep_cache=False) == ["book/one.md: a cell failed, see above"]
    assert "ZeroDivisionError" in capsys.readouterr().out
    assert "x = 3" in tiny.notebook_path("book/one").read_text()


def test_the_cache_is_dropped_when_the_package_changes(tiny: Course) -> None:
    write_all(tiny, jobs=1, keep_cache=False)
    page, before = read_page(tiny, tiny.book / "one.md"), fingerprint(tiny)
    assert cached_outputs(open_cache(tiny), page) is not None

    (tiny.root / "llmcourse" / "model.py").write_text("N = 2\n")
    assert fingerprint(tiny) != before
    assert cached_outputs(open_cache(tiny, keep=True), page) is not None, "KEEP=1 keeps it"
    assert cached_outputs(open_cache(tiny), page) is None


def test_the_command_line_names_file_and_line_of_an_unknown_directive(
    tiny: Course, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tiny.book / "one.md"
    page.write_text(HEADER + "# One\n\nText.\n\n:::{guess}\nWell,\n\n```{wobble}\nNo.\n```\n:::\n")
    line = page.read_text().splitlines().index("```{wobble}") + 1
    monkeypatch.setattr("notebooks.Course", lambda: tiny)
    assert main(["--check"]) == 1
    assert f"book/one.md:{line}: unknown directive {{wobble}}" in capsys.readouterr().err


def test_a_fork_changes_one_file(tiny: Course) -> None:
    config = (tiny.root / "_config.yml").read_text()
    config = config.replace(COURSE.repository_url, "https://github.com/someone/fork")
    config = config.replace("branch: main", "branch: dev")
    (tiny.root / "_config.yml").write_text(config)
    page = tiny.book / "one.md"
    page.write_text(HEADER + "# One\n\n`git clone {{ repository_url }}`, then `cd {{ repository_name }}`.\n")
    fork = Course(tiny.root)
    text = to_text(NotebookWriter.of(fork).convert(page))
    assert "git+https://github.com/someone/fork@dev" in text
    assert "`git clone https://github.com/someone/fork`, then `cd fork`" in text
    assert fork.colab_url("book/one").endswith("/github/someone/fork/blob/dev/notebooks/one.ipynb")


# ---- What a cell may store --------------------------------------------------------------------------------


def output(kind: str, **content: object) -> nbformat.NotebookNode:
    return nbformat.v4.new_output(kind, **content)


def checked_cell() -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell("1", metadata={"tags": [CHECKED]})


@pytest.mark.parametrize(
    "bad",
    [
        output("display_data", data={"text/html": "<figure>", "text/plain": "<Figure>"}),
        output("execute_result", data={"image/png": "", "text/plain": "<Figure>"}),
        output("stream", name="stderr", text="UserWarning"),
        output("error", ename="ValueError", evalue="no"),
    ],
)
def test_a_checked_cell_that_shows_more_than_text_is_refused(bad: nbformat.NotebookNode) -> None:
    with pytest.raises(ConversionError, match="may only print text"):
        code_cell(checked_cell(), "", [bad], 7)


def test_outputs_of_cells_without_the_tag_are_not_stored() -> None:
    printed = [output("stream", name="stdout", text="x\n")]
    assert code_cell(nbformat.v4.new_code_cell("1"), "", printed, 0).outputs == []
    assert code_cell(checked_cell(), "", printed, 0).outputs == printed


def test_plotting_code_and_solutions_are_folded() -> None:
    hidden = nbformat.v4.new_code_cell("plot()", metadata={"tags": ["hide-input"]})
    assert code_cell(hidden, "", [], 0).source == "#@title Show the code\nplot()"
    solution = code_cell(nbformat.v4.new_code_cell("answer"), "Warm up", [], 0)
    assert solution.source == "#@title Solution: Warm up\nanswer"
    assert solution.metadata["cellView"] == "form" and solution.metadata["jupyter"]["source_hidden"]


def test_progress_bars_are_taken_out_and_warnings_stay() -> None:
    bar = " 40%|████      | 2/5 [00:01<00:02,  1.60it/s]"
    cell = nbformat.v4.new_code_cell("1")
    cell.outputs = [
        output("stream", name="stderr", text=f"\r{bar}\r100%|██████████| 5/5 [00:03<00:00,  1.61it/s]\n"),
        output("stream", name="stderr", text=f"{bar}\nUserWarning: look out\n"),
        output("stream", name="stdout", text="step 1\rstep 2\nloss 1.5 | 40% [done]\n"),
    ]
    tidy_outputs(nbformat.v4.new_notebook(cells=[cell]))
    assert [out.text for out in cell.outputs] == ["UserWarning: look out\n", "step 2\nloss 1.5 | 40% [done]\n"]


# ---- From MyST to plain Markdown ------------------------------------------------------------------------------

SITE = COURSE.site_url


@pytest.fixture
def converter(tiny: Course) -> PlainMarkdown:
    labels = Labels.of(tiny)
    labels.add_page("book/two", "(sec)=\n## A section\n\n```{exercise} Warm up\n:label: ex\n```\n\n$$ x $$ (eq-x)\n")
    labels.add_page("book/one", "# One\n\n$$\nx\n$$ (eq-y)\n")
    return PlainMarkdown("book/one", labels)


@pytest.mark.parametrize(
    ("myst", "plain"),
    [
        # The four boxes
        ("```{guess}\nHow much?\n```", "> **Guess first**\n>\n> How much?"),
        ("```{guess} Up or *down*?\nSay.\n```", "> **Guess first: Up or *down*?**\n>\n> Say."),
        ("```{plain}\nA cook.\n```", "> **In plain words**\n>\n> A cook."),
        (":::{field}\nGPT-4.\n:::", "> **In the field**\n>\n> GPT-4."),
        ("```{checkyourself}\n1. Why?\n```", "> **Check yourself**\n>\n> 1. Why?"),
        (
            "```{guess}\n:class: dropdown\nHow?\n```",
            "<details>\n<summary><b>Guess first</b></summary>\n\nHow?\n\n</details>",
        ),
        # Exercises and solutions
        ("```{exercise} Warm up\n:label: ex\nDo it.\n```", "> **Exercise: Warm up**\n>\n> Do it."),
        ("```{exercise-start} Warm up\n:label: ex\n```", "**Exercise: Warm up**"),
        ("```{exercise-end}\n```", ""),
        ("```{solution} ex\nx\n```", "<details>\n<summary><b>Solution: Warm up</b></summary>\n\nx\n\n</details>"),
        ("```{solution-start} ex\n```", "**Solution: Warm up**"),
        ("```{dropdown} More\nx\n```", "<details>\n<summary><b>More</b></summary>\n\nx\n\n</details>"),
        # Mathematics
        ("```{prf:theorem} Bayes\nIt holds.\n```", "> **Theorem (Bayes).** It holds."),
        ("```{math}\ne = 1\n```", "$$\ne = 1\n$$"),
        ("```{math}\n:label: eq-y\nx\n```", "$$\nx\n\\tag{1}\n$$"),
        ("$$\nx\n$$ (eq-y)", "$$\nx\n\\tag{1}\n$$"),
        ("as {math}`x_1` and {eq}`eq-y`", "as $x_1$ and (1)"),
        ("$[a](b)_{i}$ and `[a](b)` and \\{ref}", "$[a](b)_{i}$ and `[a](b)` and \\{ref}"),
        ("\\begin{align}\n[a](b) &= c\n\\end{align}", "\\begin{align}\n[a](b) &= c\n\\end{align}"),
        # Layout
        ("````{tab-set}\n```{tab-item} One\nx\n```\n````", "**One**\n\nx"),
        ("::::{grid} 2\n:::{grid-item-card} Read\nx\n:::\n::::", "**Read**\n\nx"),
        ("```{margin} Aside\nx\n```", "> **Aside**\n>\n> x"),
        ("```{table} Sizes\n| a |\n|---|\n| 1 |\n```", "**Sizes**\n\n| a |\n|---|\n| 1 |"),
        ("```{code-block} python\n:linenos:\nx = 1\n```", "```python\nx = 1\n```"),
        ("```python\nx = '{ref}`no`'\n```", "```python\nx = '{ref}`no`'\n```"),
        ("```{raw} html\n<br>\n```", "<br>"),
        ("```{glossary}\nloss\n    What it is.\n```", "**loss**: What it is."),
        ("```{bibliography}\n```", ""),
        ("- a\n\n  ```{guess}\n  x\n  ```", "- a\n\n  > **Guess first**\n  >\n  > x"),
        ("(here)=\n## Title", "## Title"),
        ("% a comment\ntext", "text"),
        ("{.wide}\ntext", "text"),
        ("x[^1]\n\n[^1]: Note.", "x<sup>1</sup>\n\n<sup>1</sup> Note."),
        # Pictures
        ("![A curve](picture.png){width=50%}", f"![A curve]({COURSE.raw_url('book/picture.png')})"),
        (
            "```{figure} picture.png\n:alt: A curve\nIt *falls*.\n```",
            f"![A curve]({COURSE.raw_url('book/picture.png')})\n\n*It *falls*.*",
        ),
        # Links
        ("[x](https://example.org)", "[x](https://example.org)"),
        ("[x](index.md)", f"[x]({SITE}/book/index.html)"),
        ("[](index.md)", f"[The first page]({SITE}/book/index.html)"),
        ("[the *code*](../llmcourse/model.py)", f"[the *code*]({COURSE.repository_url}/blob/main/llmcourse/model.py)"),
        ("[x](#sec)", f"[x]({SITE}/book/two.html#sec)"),
        # Roles
        ("{ref}`sec`", f"[A section]({SITE}/book/two.html#sec)"),
        ("{ref}`here <sec>`", f"[here]({SITE}/book/two.html#sec)"),
        ("{numref}`ex`", f"[Exercise: Warm up]({SITE}/book/two.html#ex)"),
        ("{doc}`index`", f"[The first page]({SITE}/book/index.html)"),
        ("{term}`Loss`", f"[Loss]({SITE}/book/reference/glossary.html#term-loss)"),
        ("{term}`pairs <BPE>`", f"[pairs]({SITE}/book/reference/glossary.html#term-BPE)"),
        ("| {term}`loss` |\n|---|", f"| [loss]({SITE}/book/reference/glossary.html#term-loss) |\n|---|"),
        ("{kbd}`Ctrl` {sub}`i` {sup}`2`", "<kbd>Ctrl</kbd> <sub>i</sub> <sup>2</sup>"),
        ("{guilabel}`Run --> All` {file}`a.py`", "Run → All `a.py`"),
    ],
)
def test_myst_becomes_plain_markdown(converter: PlainMarkdown, myst: str, plain: str) -> None:
    assert converter.convert(myst) == plain


def test_citations_name_authors_and_year(converter: PlainMarkdown) -> None:
    link = f"{SITE}/book/reference/bibliography.html#cite-"
    assert converter.convert("{cite:t}`kingma2015adam`") == f"[Kingma and Ba (2015)]({link}kingma2015adam)"
    both = converter.convert("{cite:p}`vaswani2017attention, shazeer2019fast`")
    assert both == f"([Vaswani et al., 2017]({link}vaswani2017attention); [Shazeer, 2019]({link}shazeer2019fast))"


@pytest.mark.parametrize(
    ("myst", "message", "line"),
    [
        ("a\n\n```{wobble}\n```", "unknown directive {wobble}", 2),
        ("a\n{wobble}`x`", "unknown role {wobble}", 1),
        ("```{note}\nx\n```", "four boxes", 0),
        ("```{guess}\n\nx\n\n{ref}`nowhere`\n```", "unknown label 'nowhere'", 4),
        ("{eq}`nowhere`", "unknown label", 0),
        ("{term}`wobble`", "not in the glossary", 0),
        ("{cite}`nobody1900`", "not in book/references.bib", 0),
        ("[x](nowhere.md)", "no such page or file", 0),
        ("![x](nowhere.png)", "no such file", 0),
        ("```{solution} nowhere\nx\n```", "unknown label", 0),
    ],
)
def test_what_plain_markdown_cannot_say_is_refused_with_its_line(
    converter: PlainMarkdown, myst: str, message: str, line: int
) -> None:
    with pytest.raises(ConversionError, match=message) as caught:
        converter.convert(myst, first_line=100)
    assert caught.value.line == 100 + line


def test_a_page_error_names_file_and_line(tiny: Course) -> None:
    page = tiny.book / "one.md"
    page.write_text(HEADER + "# One\n\n```{code-cell} ipython3\npass\n```\n\nText, then\n{wobble}`x`.\n")
    line = page.read_text().splitlines().index("{wobble}`x`.") + 1
    with pytest.raises(PageError, match=rf"^book/one\.md:{line}: unknown role"):
        NotebookWriter.of(tiny).convert(page)
