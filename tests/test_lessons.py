"""Every lesson against the lesson standard, and the standard against a tiny lesson, broken in each possible way.

What a lesson takes and what its numbers are can be checked only after `make book` has run it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import nbformat
import pytest
from course_cache import open_cache, read_page
from course_config import Course
from jupyter_cache.base import CacheBundleIn
from lesson import Lesson, bound, loaded, parse, without_code
from lesson_rules import RULES, is_run
from lesson_standard import over_budget, pages, problems, table, write_table

COURSE = Course()


@pytest.mark.promise("The site", "Every number in the text of a lesson was printed by one of its cells.")
@pytest.mark.parametrize("page", pages(COURSE), ids=COURSE.docname)
def test_a_lesson_is_as_the_standard_wants_it(page: Path) -> None:
    found = problems(COURSE, page)
    assert not found, "\n" + "\n".join(found)


# ---- A tiny good lesson -----------------------------------------------------------------------------------

GOOD = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  name: python3
  display_name: Python 3
---

# Day 9 · Looking back

**You build {term}`attention` by hand and prove it equal to PyTorch's.**

*You need:* day 8. *Time:* an hour.

```{guess} How much?
Will the {term}`loss` fall below 1.25? Write it down.
```

```{code-cell} ipython3
import torch
import torch.nn.functional as F
from llmcourse import plots
```

```{code-cell} ipython3
:tags: [nbval-check-output]

torch.manual_seed(1)
x = torch.randn(4, 8)  # (B, C)
target = torch.zeros(4, dtype=torch.long)
weight = torch.zeros(8, 3, requires_grad=True)
optimizer = torch.optim.SGD([weight], lr=0.5)
print(tuple(x.shape))
```

```{code-cell} ipython3
:tags: [nbval-check-output]

losses = []
for step in range(20):
    loss = F.cross_entropy(x @ weight, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
print(f"{losses[0]:.2f} {losses[-1]:.2f}")
```

It starts at 1.10 {term}`nats <nat>` and falls.

```{code-cell} ipython3
:tags: [hide-input]

fig = plots.loss_curves({"ours": losses})
plots.show(
    fig,
    alt="The loss falls from 1.1 nats towards zero within twenty steps.",
    caption="Loss while it trains.",
)
```

```{plain} the forecaster
Who is sure and wrong pays a lot. *Where the picture breaks:* a forecaster knows clouds.
```

```{field}
It is what GPT-2 does with 1,024 tokens {cite}`radford2019language`.
```

```{code-cell} ipython3
:tags: [nbval-check-output]

mine = -(x @ weight).log_softmax(-1)[:, 0].mean()
theirs = F.cross_entropy(x @ weight, target)
torch.testing.assert_close(mine, theirs)
assert mine < 1.25
print("equal")
```

```{exercise-start} Write it yourself
:label: ex-write
```
Fill in `attention`. Try `hint("day09")` when you are stuck.
```{exercise-end}
```

```{code-cell} ipython3
from llmcourse.checks import check

def attention(q, k, v):
    raise NotImplementedError("your code")

solved = check("day09", attention)
```

```{solution-start} ex-write
:class: dropdown
```

```{code-cell} ipython3
def solved_attention(q, k, v):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True)

assert check("day09", solved_attention)
```
```{solution-end}
```

```{exercise} Another rate
:label: ex-rate
Train with a rate of 5.
```

```{solution} ex-rate
:class: dropdown
It falls faster.
```

```{code-cell} ipython3
from llmcourse.quiz import quiz

quiz("day09")
```

**Keep this:**

- One.
- Two.
- Three.

**Sources:** {cite}`radford2019language`.
"""
QUESTION = """\
[[question]]
text = "What is 1 + 1?"
answer = 2
tolerance = 0.1
why = "Count."

"""
OUTPUTS = "(4, 8)\n1.10 0.02\nequal\n"
PAGE = "book/week2/day09_looking_back.md"


class Tiny:
    """A course with one lesson, which can be changed."""

    def __init__(self, root: Path) -> None:
        for folder in ("book/week2", "notebooks/week2", "llmcourse/quizzes", "_build"):
            (root / folder).mkdir(parents=True)
        shutil.copy(COURSE.root / "_config.yml", root)
        shutil.copy(COURSE.book / "references.bib", root / "book")
        (root / "_toc.yml").write_text("root: book/index\nchapters: [{file: book/week2/day09_looking_back}]\n")
        (root / "notebooks/week2/day09_looking_back.ipynb").touch()
        self.quiz = root / "llmcourse" / "quizzes" / "day09.toml"
        self.quiz.write_text(QUESTION * 3, "utf-8")
        self.course, self.page = Course(root), root / PAGE
        self.page.write_text(GOOD, "utf-8")

    def change(self, old: str, new: str) -> None:
        assert old in GOOD, f"the good lesson has no {old!r} to break"
        self.page.write_text(self.page.read_text("utf-8").replace(old, new), "utf-8")

    def run(self, printed: str = OUTPUTS) -> None:
        """As if the page had been run: its first cell printed this."""
        notebook = read_page(self.course, self.page)
        cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=printed)]
        bundle = CacheBundleIn(notebook, str(self.page))
        open_cache(self.course).cache_notebook_bundle(bundle, check_validity=False, overwrite=True)

    def seconds(self, value: float, docname: str = "book/week2/day09_looking_back") -> None:
        times = self.course.page_seconds | {docname: value}
        (self.course.build_folder / "page_seconds.json").write_text(json.dumps(times))

    def line(self, text: str) -> int:
        """The first line that has this text; 1 for none."""
        return next(i for i, line in enumerate(self.page.read_text("utf-8").split("\n"), 1) if text in line)

    def problems(self) -> list[str]:
        """The problems, without the name of the file."""
        return [problem.removeprefix(f"{PAGE}:") for problem in problems(self.course, self.page)]


@pytest.fixture
def tiny(tmp_path: Path) -> Tiny:
    return Tiny(tmp_path)


def test_a_good_lesson_passes(tiny: Tiny) -> None:
    assert tiny.problems() == []
    tiny.run()
    tiny.seconds(12.0)
    assert Lesson(tiny.course, tiny.page).outputs.strip() == OUTPUTS.strip()
    assert tiny.problems() == []


@pytest.mark.parametrize(
    ("old", "new", "at", "message"),
    [
        # 1. The opening
        ("format_name: myst", "format_name: markdown", "", "The front matter must have"),
        ("name: python3\n", "name: julia\n", "", "The front matter must have"),
        ("# Day 9 · Looking back", "# Day 8 · Looking back", "# Day 8", "The title must begin with “# Day 9 · ”"),
        ("# Day 9 · Looking back", "# Looking back", "# Looking", "The title must begin with “# Day 9 · ”"),
        ("**Keep this:**", "# More\n\n**Keep this:**", "# More", "A lesson has one title (# ...), this one has 2"),
        ("**You build", "You build", "You build", "Right below the title stands the promise"),
        ("equal to PyTorch's.**", "equal. You do.**", "You build", "The promise below the title is more than one"),
        ("*You need:* day 8.", "Have day 8.", "You build", "Before the first box or cell, say “*You need:* ...”"),
        ("*Time:* an hour.", "An hour.", "You build", "Before the first box or cell, say “*You need:* ...”"),
        # 2 and 3. Boxes
        ("```{guess} How much?", "```{checkyourself}", "", "There is no {guess} box"),
        ("How much?\nWill the {term}`loss` fall below 1.25?", "\n{term}`Loss`.", "{guess}", "The {guess} box has no"),
        ("```{plain} the forecaster", "```{checkyourself} x", "", "There is no {plain} box"),
        ("Where the picture breaks:", "Note:", "{plain}", "The {plain} box does not say where its picture breaks"),
        ("```{field}", "```{checkyourself} y", "", "There is no {field} box"),
        ("tokens {cite}`radford2019language`", "tokens", "{field}", "The {field} box cites nothing"),
        ("{cite}`radford2019language`.\n```", "{cite}`no1900`.\n```", "{field}", "{cite}`no1900` is not in book/ref"),
        # 4. Real computation
        ("alt=", "title=", "plots.show", "plots.show needs alt= and caption="),
        ("caption=", "title=", "plots.show", "plots.show needs alt= and caption="),
        ("The loss falls from 1.1 nats towards zero within twenty steps.", "A curve.", "plots.show", "The alt text is"),
        ("plots.show(\n", "print(\n", "", "There is no figure"),
        ("fig = plots", "plt.show()\nfig = plots", "plt.show", "plt.show shows a figure without words"),
        # 5. Numbers
        ("losses = []", "losses = [2.531, 2.011, 1.898, 1.775]", "2.531", "This list of 4 numbers looks like"),
        ("losses = []", "losses = {1: 2.531, 2: 2.011, 3: 1.898, 4: 1.775}", "2.531", "This list of 4 numbers"),
        ("losses = []", "losses = [2.531, 2.011, 1.898, 1.775]  # source: the paper", "", None),
        ("losses = []", "losses = []\nrates = [0.25, 0.5, 0.75, 1.0, 1.5]", "", None),
        # 6. Equality
        ("torch.testing.assert_close(mine, theirs)", "mine - theirs", "", "Nothing is proven equal to PyTorch"),
        ("torch.testing.assert_close(mine, theirs)", "assert mine == theirs", "", None),
        # 7. Exercises
        ("{exercise-start} Write it yourself", "{exercise-start}", "{exercise-start}", "The exercise has no title"),
        ("{solution} ex-rate", "{solution} ex-other", "{exercise}", "The exercise has no solution"),
        (":class: dropdown\nIt falls", "It falls", "{solution} ex-rate", "The solution is open: add `:class:"),
        ('solved = check("day09", attention)', "print(3)", "", 'No cell calls check("day09", ...) on the stub'),
        ('check("day09", solved', "print(solved", "solved = ", "The solution does not show that it passes check"),
        ('check("day09"', 'check("day09zz"', "solved = ", "There is no exercise 'day09zz' in llmcourse.checks"),
        ('raise NotImplementedError("your code")', "return q", "", "There is no stub"),
        ('`hint("day09")`', "a hint", "", 'The page does not tell the reader of hint("day09")'),
        ("\nquiz(", '\nsolution("day09")\nquiz(', 'solution("day09")', "This cell prints a solution outside of"),
        ("\nquiz(", "\nprint(solved_attention)\nquiz(", "print(solved_", "`solved_attention` comes from a solution"),
        ("\nquiz(", "\nsolved_attention = 3\nprint(solved_attention)\nquiz(", "", None),
        # 8. The quiz
        ('quiz("day09")', 'quiz("day10")', "", 'No cell shows the quiz: quiz("day09")'),
        # 9. Terms, takeaways, sources
        ("{term}`nats <nat>`", "nats", "", "There are 2 links to the glossary"),
        ("**Keep this:**", "**And:**", "", "There are no key takeaways"),
        ("- Three.\n", "", "", "There are no key takeaways"),
        ("**Sources:**", "**Thanks:**", "", "There are no sources"),
        # 10. Time
        ("import torch\n", "from tqdm.auto import tqdm\nimport torch\n", "tqdm", "Use `from tqdm import tqdm`"),
        # 11. Cells and language
        ("print(tuple(", "print(1)\n" * 25 + "print(tuple(", "torch.manual_seed", "This cell has 31 lines"),
        ("print(tuple(", "print((tuple(", "torch.manual_seed", "This cell is no Python"),
        ("It falls faster.", "It falls faster. \U0001f680", "It falls f", "There is an emoji in the text"),
        ('print("equal")', 'print("equal \U0001f680")', "", None),
        ("It falls faster.", "Exciting: it falls.", "Exciting", "“Exciting” is filler"),
        ("It falls faster.", "Let us\ndelve into it.", "delve", "“delve” is filler"),
        # 12. Seeds and checked outputs
        ("torch.manual_seed(1)", "torch.get_rng_state()", "get_rng", "Random numbers are used and no seed is set"),
    ],
)
def test_each_point_is_caught_by_its_own_message(tiny: Tiny, old: str, new: str, at: str, message: str | None) -> None:
    tiny.change(old, new)
    start = f"{tiny.line(at)}: {message}"
    assert [problem[: len(start)] for problem in tiny.problems()] == ([start] if message else [])


def test_a_broken_cell_is_named_even_if_its_code_was_needed_elsewhere(tiny: Tiny) -> None:
    tiny.change("for step in range(20):", "for step in range(20)")
    assert f"{tiny.line('losses = []')}: This cell is no Python: it cannot be read." in tiny.problems()


def test_a_plot_before_the_guess_is_caught(tiny: Tiny) -> None:
    guess = GOOD[GOOD.index("```{guess}") : GOOD.index("```{code-cell}")]
    tiny.change(guess, "")
    tiny.change("```{plain} the forecaster", guess + "```{plain} the forecaster")
    text = "The first {guess} box comes after this first run or plot: ask before showing."
    assert tiny.problems() == [f"{tiny.line('losses = []')}: {text}"]


def test_a_lesson_without_a_run_is_caught(tiny: Tiny) -> None:
    for old, new in [("for step in range(20):", "if True:"), ("loss.backward()", ""), ("optimizer.step()", "")]:
        tiny.change(old, new)
    assert tiny.problems() == ["1: No cell trains, evaluates or measures anything."]


@pytest.mark.parametrize(
    ("code", "run"),
    [
        ("optimizer.step()", True),
        ("Trainer(model, config, train, val).run()", True),
        ("log = train_model(model, 100)", True),
        ("started = time.perf_counter()", True),
        ("{t: entropy(logits / t) for t in (0.5, 1, 2)}", True),
        ("for n in sizes:\n    print(validation_loss(n))", True),
        ("run = runs.load('tiny')", True),
        ("for name in names:\n    print(name)", False),
        ("x = torch.arange(8)", False),
    ],
)
def test_what_counts_as_a_run(code: str, run: bool) -> None:
    assert is_run(parse(code)) == run


def test_one_exercise_is_not_enough(tiny: Tiny) -> None:
    end = GOOD.index("```{code-cell} ipython3\nfrom llmcourse.quiz")
    tiny.change(GOOD[GOOD.index("```{exercise} Another rate") : end], "")
    assert tiny.problems() == ["1: There are 1 exercises: a lesson has two or more, one of them open."]


def test_a_solution_without_code_is_caught(tiny: Tiny) -> None:
    start = GOOD.index("```{code-cell} ipython3\ndef solved_attention")
    tiny.change(GOOD[start : GOOD.index("```{solution-end}")], "")
    found = tiny.problems()
    assert f"{tiny.line('{solution-start}')}: No solution is executed: put its code between the gates." in found
    assert len(found) == 2  # and it does not pass the check


def test_an_exercise_without_hints_is_caught(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from llmcourse import checks

    monkeypatch.setitem(checks.EXERCISES, "day09", replace(checks.find("day09"), hints=()))
    calls = [tiny.line('check("day09", attention)'), tiny.line('check("day09", solved')]
    assert tiny.problems() == [f"{line}: The exercise 'day09' has no hints." for line in calls]


@pytest.mark.parametrize("number", [2, 6])
def test_the_quiz_has_three_to_five_questions(tiny: Tiny, number: int) -> None:
    tiny.quiz.write_text(QUESTION * number, "utf-8")
    assert tiny.problems() == [f"1: Its quiz has {number} questions, not 3 to 5."]


def test_a_quiz_that_is_missing_or_malformed_is_named(tiny: Tiny) -> None:
    tiny.quiz.write_text("[[question]]\ntext = 'x'\n")
    assert tiny.problems()[0].startswith("1: llmcourse/quizzes/day09.toml: ")
    tiny.quiz.unlink()
    assert "There is no quiz 'day09'" in tiny.problems()[0]


def test_a_page_that_is_not_in_the_book_is_caught(tiny: Tiny) -> None:
    (tiny.course.root / "_toc.yml").write_text("root: book/index\n")
    tiny.course.notebook_path(tiny.course.docname(tiny.page)).unlink()
    assert [problem[:32] for problem in tiny.problems()] == [
        "1: It is not listed in _toc.yml,",
        "1: Its Colab button would open n",
    ]


def test_too_few_checked_outputs_are_caught(tiny: Tiny) -> None:
    tiny.change(':tags: [nbval-check-output]\n\nmine', "mine")
    assert tiny.problems() == ["1: 2 cells are tagged nbval-check-output, and a lesson has at least three."]


def test_a_lesson_in_crumbs_is_caught(tiny: Tiny) -> None:
    crumb = "```{code-cell} ipython3\nprint(1)\n```\n\n"
    tiny.change("```{plain} the forecaster", crumb * 9 + "```{plain} the forecaster")
    assert tiny.problems() == ["1: 9 of 17 cells have fewer than 5 lines: join some."]


def test_a_solution_without_end_is_one_problem(tiny: Tiny) -> None:
    tiny.change("```{solution-end}\n```\n", "")
    assert tiny.problems() == [f"{tiny.line('{solution-start}')}: {{solution-start}} without {{solution-end}}"]


# ---- What only a page that was run can tell ------------------------------------------------------------------


def test_a_page_over_the_budget_is_remarked(tiny: Tiny) -> None:
    tiny.seconds(61.4)
    assert tiny.problems() == []  # another machine may be faster: the table says it, no test fails
    assert over_budget(tiny.course) == ["book/week2/day09_looking_back ran 61 s; the most is 60 s."]
    assert table(tiny.course).endswith("ran 61 s; the most is 60 s.")


def test_six_long_lessons_are_the_most(tiny: Tiny) -> None:
    for day in range(1, 8):
        name = f"book/week2/day{day:02}_x"
        (tiny.course.root / f"{name}.md").touch()
        tiny.seconds(29.0 + (day > 1), name)
    assert over_budget(tiny.course) == []
    for day in range(1, 8):
        tiny.seconds(30.0 + (day > 1), f"book/week2/day{day:02}_x")
    assert over_budget(tiny.course) == []
    tiny.seconds(31.0, "book/week2/day01_x")
    assert over_budget(tiny.course) == ["7 lessons ran over 30 s; the most is 6."]


@pytest.mark.parametrize(
    ("sentence", "missing"),
    [
        ("It starts at 1.10 and ends near 0.02.", []),
        ("It starts near 1.1.", []),  # coarser than printed
        ("It starts at 1.11.", ["1.11"]),
        ("Thousands are read: 1,115,394 characters.", ["1,115,394"]),
        ("That is 2.0 % of them.", []),  # 0.02 was printed
        ("Of 1.7 million, 3.7 % remain.", ["1.7", "3.7"]),
        ("GPT-3.5 came in 2022, and 7 is a number as well.", []),
        ("With `lr=7.5` in code, nothing is promised.", []),
        ("A paper says 9.99 {cite}`radford2019language`.", []),
    ],
)
def test_numbers_that_no_cell_shows_are_caught(tiny: Tiny, sentence: str, missing: list[str]) -> None:
    tiny.change("It starts at 1.10 {term}`nats <nat>` and falls.", f"{{term}}`nats <nat>`.\n{sentence}")
    tiny.run()
    line = tiny.line(sentence)
    assert tiny.problems() == [f"{line}: No cell prints or asserts the number {number}." for number in missing]


def test_what_is_printed_between_less_and_greater_is_no_html(tiny: Tiny) -> None:
    tiny.run(f"1 < 2\n{OUTPUTS}\n2 > 1\n")
    assert tiny.problems() == []


def test_numbers_are_not_judged_before_the_page_has_run(tiny: Tiny) -> None:
    tiny.change("It starts at 1.10", "It starts at 7.77")
    assert Lesson(tiny.course, tiny.page).outputs is None
    assert tiny.problems() == []


# ---- The one-sitting page, the table ---------------------------------------------------------------------------


def test_the_one_sitting_page_needs_no_day_and_no_check_but_twelve_questions(tiny: Tiny) -> None:
    page = tiny.course.book / "start" / "one_sitting.md"
    page.parent.mkdir()
    text = GOOD.replace("# Day 9 · ", "# ").replace('"day09"', '"one_sitting"').replace("check(", "print(")
    page.write_text(text, "utf-8")
    tiny.quiz.with_name("one_sitting.toml").write_text(QUESTION * 11, "utf-8")
    found = [problem for problem in problems(tiny.course, page) if "_toc" not in problem and "Colab" not in problem]
    assert found == ["book/start/one_sitting.md:1: Its quiz has 11 questions, not 12."]


def test_a_bonus_day_is_held_to_the_whole_standard(tiny: Tiny) -> None:
    tiny.page = tiny.page.with_name("day09_looking_back.md").rename(tiny.page.with_name("speedrun.md"))
    text = GOOD.replace("# Day 9 · ", "# Bonus · ").replace('"day09"', '"speedrun"')
    tiny.page.write_text(text, "utf-8")
    tiny.quiz.rename(tiny.quiz.with_name("speedrun.toml"))
    assert pages(tiny.course) == [tiny.page]
    places = ("_toc.yml", "Colab button")  # this page has neither
    found = [p for p in problems(tiny.course, tiny.page) if not any(place in p for place in places)]
    assert found == []
    tiny.page.write_text(text.replace("# Bonus · ", "# ").replace('hint("speedrun")', "help"), "utf-8")
    found = [p.partition(".md:")[2] for p in problems(tiny.course, tiny.page) if not any(q in p for q in places)]
    title = f"{tiny.line('# Looking back')}: The title must begin with “# Bonus · ”."
    assert found == ['1: The page does not tell the reader of hint("speedrun").', title]


def test_the_table_has_one_line_for_each_lesson(tiny: Tiny) -> None:
    tiny.seconds(12.34)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table(tiny.course).splitlines()]
    assert lines[0] == ["lesson", "seconds", "cells", "short", "checked", "figures", "exercises", "questions"]
    assert lines[2:] == [["week2/day09_looking_back", "12.3", "8", "0", "3", "1", "2", "3"]]
    write_table(tiny.course)
    assert "week2/day09_looking_back" in (tiny.course.build_folder / "reports" / "lessons.md").read_text("utf-8")


def test_every_rule_has_been_broken_above() -> None:
    names = {check.__name__ for check in RULES}
    assert len(names) == len(RULES) == 20, "a new rule needs a test (of the tour: in test_deck.py), and this number"


# ---- Reading a lesson ---------------------------------------------------------------------------------------------


def test_lines_of_cells_are_those_of_the_file(tiny: Tiny) -> None:
    lesson = Lesson(tiny.course, tiny.page)
    lines = GOOD.split("\n")
    assert [lines[cell.line - 1] for cell in lesson.cells] == [cell.source.split("\n")[0] for cell in lesson.cells]


def test_prose_is_neither_code_nor_options(tiny: Tiny) -> None:
    text = "\n".join(text for _, text in Lesson(tiny.course, tiny.page).prose)
    assert "Fill in" in text and "the forecaster" in text and "Write it yourself" in text
    assert "import" not in text and ":label:" not in text and "```" not in text and "kernelspec" not in text


def test_words_of_a_role_are_prose_and_code_is_not() -> None:
    assert without_code("a `b` {term}`c <d>` {cite}`e` ``f`g``") == "a  c   "


def test_names_that_a_cell_binds_and_reads() -> None:
    code = "import a.b\nfrom c import d as e\nx, y = 1, [z for z in w]\ndef f(q):\n    r = q\n%time\nfor i in x: j = i"
    tree = parse(code)
    assert bound(tree) == {"a", "e", "x", "y", "f", "i", "j"}
    assert loaded(tree)["w"] == 3 and loaded(tree)["x"] == 7
