"""Every quiz file is sound, its numbers are computed, and a quiz works with mouse, keyboard and no JavaScript."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmcourse.errors import CourseError
from llmcourse.quiz import Choice, Question, Quiz, names, plain, quiz, rich

ROOT = Path(__file__).resolve().parents[1]
LENGTHS = {"one_sitting": (12, 12)}  # all others belong to lessons
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked=2'> & \"q\" \u2028"
GOOD = """
[[question]]
text = "2 + 2?"
[[question.choices]]
text = "4"
why = "Count."
right = true
[[question.choices]]
text = "22"
why = "That joins strings."
"""
NUMBER = """
[[question]]
text = "How many?"
answer = 12345
tolerance = 10
why = "So many."
"""


class Checker(HTMLParser):
    """Fails where a tag is not closed in its turn; collects tags and visible text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("input", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data


# ---- The files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", names())
def test_a_quiz_has_the_right_length_and_explains_every_choice(name: str) -> None:
    found = quiz(name)
    least, most = LENGTHS.get(name, (3, 5))
    assert least <= len(found.questions) <= most
    for q in found.questions:
        if q.choices:
            assert sum(c.right for c in q.choices) == 1 and len(q.choices) >= 3, q.text
            assert all(len(c.why) >= 20 for c in q.choices), q.text
            assert len({c.text for c in q.choices}) == len({c.why for c in q.choices}) == len(q.choices), q.text
        else:
            assert q.compute and q.wrong and all(len(w.why) >= 20 for w in q.wrong), q.text
    assert len({q.text for q in found.questions}) == len(found.questions)


@pytest.mark.promise("The site", "The numbers of the quizzes are computed, not typed.")
@pytest.mark.parametrize("name", names())
def test_stored_numbers_are_what_their_expressions_give(name: str) -> None:
    for q in quiz(name).questions:
        if q.answer is None:
            continue
        assert eval(q.compute, {"math": math}) == pytest.approx(q.answer, rel=5e-3), q.text
        assert abs(eval(q.compute, {"math": math}) - q.answer) <= q.tolerance / 5, "the rounding eats the tolerance"
        for w in q.wrong:
            assert w.compute and eval(w.compute, {"math": math}) == pytest.approx(w.value, rel=5e-3, abs=1e-9), w.why


@pytest.mark.parametrize("name", names())
def test_neither_the_place_nor_the_length_gives_the_answer_away(name: str) -> None:
    choices = [q.choices for q in quiz(name).questions if q.choices]
    places = Counter(next(i for i, c in enumerate(cs) if c.right) for cs in choices)
    longest = sum(max(cs, key=lambda c: len(c.text)).right for cs in choices)
    assert longest <= max(1, len(choices) / 2)
    if len(choices) > 2:
        assert len(places) > 1 and max(places.values()) <= max(2, len(choices) / 2)


@pytest.mark.parametrize("name", names())
def test_the_page_is_complete_well_formed_and_loads_nothing(name: str) -> None:
    found = quiz(name)
    html = found._repr_html_()
    assert html == quiz(name)._repr_html_()
    seen = Checker(html)
    count = len(found.questions)
    assert seen.tags["fieldset"] == seen.tags["legend"] == seen.tags["details"] == count
    assert seen.tags["script"] == seen.tags["style"] == 1 and html.count('role="status"') == count
    assert not seen.attributes & {"id", "src", "href", "onclick"}
    reasons = [c.why for q in found.questions for c in q.choices] + [w.why for q in found.questions for w in q.wrong]
    assert seen.tags["li"] == len(reasons) + sum(not q.choices for q in found.questions)
    assert all(rich(why) in html for why in reasons)


@pytest.mark.parametrize("name", names())
def test_a_terminal_gets_questions_and_answers_as_text(name: str) -> None:
    found = quiz(name)
    assert "(x)" not in repr(found) and "quiz.answers()" in repr(found)
    for q in found.questions:
        assert plain(q.text) in repr(found) and plain(q.text) in found.answers()
        assert all(plain(c.text) in repr(found) and plain(c.why) in found.answers() for c in q.choices)
    assert found.answers().count("(x)") == len(found.questions)
    assert not re.search(r"\$|<|\\[a-z]", repr(found) + found.answers())


def test_an_unknown_quiz_is_named_with_its_neighbor_or_all_there_are() -> None:
    for name, near in (("day9", "day09"), ("Day 9", "day09"), ("day90", "day09"), ("speed run", "speedrun")):
        with pytest.raises(CourseError, match=rf"no quiz '{name}': did you mean {near}\?"):
            quiz(name)
    with pytest.raises(CourseError, match=r"no quiz 'poem': there are .*one_sitting"):
        quiz("poem")
    with pytest.raises(CourseError, match="no quiz"):
        quiz("../quizzes/one_sitting")


@pytest.mark.parametrize(("content", "message"), [
    ("[[question", r"bad\.toml is not a TOML file"),
    ("", r"bad\.toml must hold \[\[question\]\]"),
    ("questions = 3", r"bad\.toml must hold"),
    ("question = [3]", r"bad\.toml, question 1: it must be a table"),
    (GOOD + "[[question]]\ntext = 'x'", r"bad\.toml, question 2: give it either choices or an answer"),
    (GOOD.replace("right = true", ""), r"question 1: .*exactly one"),
    (GOOD.replace("strings.\"", "strings.\"\nright = true"), r"question 1: .*exactly one"),
    (GOOD + GOOD.replace('why = "Count."', ""), r"bad\.toml, question 2, choice 1: it has no 'why'"),
    (GOOD.replace('"22"', '""'), r"question 1, choice 2: 'text' cannot be ''"),
    (GOOD.replace("right = true", "right = 1"), r"choice 1: 'right' cannot be 1"),
    (GOOD.replace("right = true", "correct = true"), r"choice 1: there is no field 'correct'"),
    (GOOD.replace('"2 + 2?"', '"2 + 2?"\nanswer = 4'), r"question 1: give it either"),
    (GOOD.replace('"2 + 2?"', '"2 + 2?"\nwhy = "x"'), r"question 1: with choices"),
    (NUMBER.replace("tolerance = 10", ""), r"question 1: a number needs a why and a tolerance"),
    (NUMBER.replace("12345", "true"), r"question 1: 'answer' cannot be True"),
    (NUMBER.replace("12345", "nan"), r"question 1: a number needs"),
    (NUMBER + "[[question.wrong]]\nvalue = 12350\nwhy = 'near'", r"question 1: the wrong value 12350 lies within"),
])  # fmt: skip
def test_a_malformed_file_is_refused_with_file_and_question(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "bad.toml").write_text(content)
    with pytest.raises(CourseError, match=message):
        quiz("bad", tmp_path)


def test_a_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CourseError, match=r"bad\.toml is not a TOML file"):
        quiz("bad", tmp_path)


# ---- Text --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("text", "html", "terminal"), [
    ("use `a < b` *now*", "use <code>a &lt; b</code> <em>now</em>", "use `a < b` now"),
    ("2 * 3 * 4 and a*b*c", "2 * 3 * 4 and a*b*c", "2 * 3 * 4 and a*b*c"),
    ("`*x*` stays", "<code>*x*</code> stays", "`*x*` stays"),
    ("costs $5 and $6", "costs $5 and $6", "costs $5 and $6"),
    ("<b>&</b> [x](y) **z**", "&lt;b&gt;&amp;&lt;/b&gt; [x](y) **z**", "<b>&</b> [x](y) **z**"),
    (r"$\ln V$", r'<span class="lc-math" data-tex="\ln V">ln V</span>', "ln V"),
    (r"$e^{-2} \approx 0.1$", r'<span class="lc-math" data-tex="e^{-2} \approx 0.1">e<sup>−2</sup> ≈ 0.1</span>',
     "e^(−2) ≈ 0.1"),
    (r"$p_i < 1$", '<span class="lc-math" data-tex="p_i &lt; 1">p<sub>i</sub> &lt; 1</span>', "p_i < 1"),
])  # fmt: skip
def test_code_emphasis_and_simple_formulas_and_nothing_else(text: str, html: str, terminal: str) -> None:
    assert rich(text) == html
    assert plain(text) == terminal


@given(st.text(st.sampled_from("ab `*$<>&\"'\\{}^_-\n"), max_size=40))
def test_no_text_breaks_out_of_its_element(text: str) -> None:
    seen = Checker(rich(text))
    assert set(seen.tags) <= {"code", "em", "span", "sup", "sub"}
    marks = str.maketrans("", "", "`*${}^_()\\-−")
    assert seen.text.translate(marks) == text.translate(marks)
    assert isinstance(plain(text), str)


# ---- In the browser ----------------------------------------------------------------------------------------

browser_only = pytest.mark.usefixtures("browser")
Open = Callable[..., Any]


def said(form: Any) -> str:
    return str(form.get_by_role("status").inner_text())


@browser_only
@pytest.mark.browser
def test_every_choice_and_every_number_gets_its_own_reply(open_page: Open) -> None:
    found = quiz("one_sitting")
    page = open_page(found._repr_html_())
    for number, (form, q) in enumerate(zip(page.locator("form").all(), found.questions, strict=True), 1):
        assert form.get_by_role("group", name=f"{number}. ").count() == 1  # its name is the question
        for i, choice in enumerate(q.choices):
            form.locator("label").nth(i).click()
            verdict = "Right." if choice.right else "Not quite."
            assert said(form) == f"{verdict} {Checker(rich(choice.why)).text}"
        for value, verdict, why in [(q.answer, "Right.", q.why), *((w.value, "Not quite.", w.why) for w in q.wrong)]:
            if q.answer is not None:
                form.get_by_role("textbox").fill(str(value))
                form.get_by_role("button", name="Check").click()
                assert said(form) == f"{verdict} {Checker(rich(why)).text}"
    page.wait_for_timeout(50)
    assert page.url.endswith("page0.html")  # sending a number does not leave the page


@pytest.mark.promise("The site", "A quiz can be taken with the keyboard alone.")
@browser_only
@pytest.mark.browser
def test_the_quiz_can_be_taken_with_the_keyboard_alone_and_keeps_the_score(open_page: Open) -> None:
    found = quiz("one_sitting")
    page = open_page(found._repr_html_())
    score = page.locator(".lc-score")
    assert score.inner_text() == "12 questions"
    for number, q in enumerate(found.questions, 1):
        page.keyboard.press("Tab")
        if q.choices:
            page.keyboard.press("Space")
            for _ in range(next(i for i, c in enumerate(q.choices) if c.right)):
                page.keyboard.press("ArrowDown")
        else:
            page.keyboard.type(f"{q.answer}")
            page.keyboard.press("Enter")
            page.keyboard.press("Tab")  # over the button
        left = f", {12 - number} to go" if number < 12 else ""
        assert score.inner_text() == f"{number} of 12 right{left}"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.tagName") == "SUMMARY"
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1
    page.locator("form").first.locator("input").first.check()  # a change of mind counts
    assert score.inner_text() == "11 of 12 right"


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize(("typed", "reply"), [
    ("12345", "Right."), ("12,345", "Right."), (" 12 345 ", "Right."), ("12_350", "Right."), ("1.2345e4", "Right."),
    ("12356", "Not quite. That is another number"), ("−12345", "Not quite."), ("", "Not quite. Type a number"),
    ("twelve", "Not quite. Type a number"), ("1/0", "Not quite. Type a number"), ("Infinity", "Not quite. Type"),
])  # fmt: skip
def test_a_large_number_may_be_typed_in_many_ways(open_page: Open, tmp_path: Path, typed: str, reply: str) -> None:
    (tmp_path / "n.toml").write_text(NUMBER)
    page = open_page(quiz("n", tmp_path)._repr_html_())
    page.get_by_label("Your answer to question 1").fill(typed)
    page.keyboard.press("Enter")
    assert said(page.locator("form")).startswith(reply)


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("typed", ["4.174", "4,17", "4.2", "4.145", "04.1744"])
def test_a_small_number_may_have_a_decimal_comma(open_page: Open, typed: str) -> None:
    page = open_page(quiz("one_sitting")._repr_html_())
    form = page.locator("form").nth(2)
    form.get_by_role("textbox").fill(typed)
    form.get_by_role("button").click()
    assert said(form).startswith("Right.")


@pytest.mark.promise("Strangers' files", "The text of a quiz cannot become part of the page as code.")
@browser_only
@pytest.mark.browser
def test_text_of_a_quiz_cannot_become_part_of_the_page(open_page: Open) -> None:
    choices = (Choice(EVIL, f"why{EVIL}", True), Choice(f"`{EVIL}`", f"${EVIL}$"))
    evil = Quiz("evil", (Question(EVIL, choices), Question("n", answer=1.0, tolerance=0.1, why=EVIL, unit=EVIL)))
    assert Checker(evil._repr_html_()).tags["script"] == 1
    page = open_page(evil._repr_html_())
    for i in range(2):
        page.locator("form").first.locator("input").nth(i).check()
    page.get_by_role("textbox").fill("1")
    page.keyboard.press("Enter")
    assert EVIL in page.get_by_role("status").nth(1).text_content()
    assert page.evaluate("window.hacked") is None and page.locator(".lc img").count() == 0


@browser_only
@pytest.mark.browser
def test_two_copies_of_a_quiz_do_not_share_their_answers(open_page: Open) -> None:
    html = quiz("one_sitting")._repr_html_()
    page = open_page(html, html)
    for copy in (0, 1):
        page.locator(".lc").nth(copy).locator("form").first.locator("input").nth(1 - copy).check()
    replies = [said(page.locator(".lc").nth(copy).locator("form").first) for copy in (0, 1)]
    assert replies[0].startswith("Right.") and replies[1].startswith("Not quite.")
    assert page.locator("input:checked").count() == 2
    assert page.locator(".lc-score").all_inner_texts() == ["1 of 12 right, 11 to go", "0 of 12 right, 11 to go"]


@pytest.mark.promise("The site", "Without JavaScript all answers of a quiz can be opened.")
@browser_only
@pytest.mark.browser
def test_without_javascript_all_answers_can_be_opened(open_page: Open) -> None:
    found = quiz("one_sitting")
    page = open_page(found._repr_html_(), java_script_enabled=False)
    assert page.get_by_role("textbox").count() == page.get_by_role("button").count() == 0
    for summary in page.locator("summary").all():
        summary.click()
    text = page.locator("body").inner_text()
    assert text.count("Right:") == 12
    for q in found.questions:
        assert all(Checker(rich(c.why)).text in text for c in (*q.choices, *q.wrong))


@browser_only
@pytest.mark.browser
def test_formulas_are_set_where_the_page_has_mathjax(open_page: Open) -> None:
    script = (ROOT / "book" / "_static" / "vendor" / "mathjax" / "tex-chtml.js").as_uri()
    head = (
        '<script>window.MathJax = {"options": {"processHtmlClass": "tex2jax_process|mathjax_process|math|output_area",'
        f' "ignoreHtmlClass": "document"}}}}</script><script defer src="{script}"></script>'
    )
    page = open_page(f'<div class="document">{quiz("one_sitting")._repr_html_()}</div>', head=head)
    page.wait_for_selector("label mjx-container")
    assert page.locator("mjx-container").count() == page.locator(".lc-math").count() > 5
    assert page.locator("mjx-merror").count() == 0
    form = page.locator("form").nth(11)
    form.get_by_role("textbox").fill("15")
    page.keyboard.press("Enter")
    assert form.get_by_role("status").locator("mjx-container").count() == 1


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_can_be_touched(open_page: Open, theme: str, width: int) -> None:
    page = open_page(quiz("one_sitting")._repr_html_(), theme=theme, viewport={"width": width, "height": 844})
    page.locator("details").evaluate_all("list => list.forEach(d => d.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    heights = page.locator(".lc :is(button, label, input[type=text])").evaluate_all(
        "list => list.map(e => e.getBoundingClientRect().height)"
    )
    assert len(heights) > 40 and min(heights) >= 44
