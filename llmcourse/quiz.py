"""Quizzes: a few questions at the end of a page, with an explanation for every choice.

A page's quiz is one data file, `quizzes/NAME.toml`: questions with choices, or with a number as the answer. Each
choice has its own explanation, because a wrong one is a misconception worth naming. The HTML is complete as it
stands (all answers are under "Show the answers"); a few lines of JavaScript add the marking.

    quiz("one_sitting")
"""

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields, replace
from html import escape
from pathlib import Path
from typing import Any

from .errors import CourseError, did_you_mean
from .frame import fragment

FOLDER = Path(__file__).parent / "quizzes"

# ---- Text with `code`, *emphasis* and $math$, and nothing else ----------------------------------------------

_MARKS = re.compile(r"`([^`]+)`|(?<![\w*])\*(?!\s)([^*]+?)(?<!\s)\*(?![\w*])|\$(?!\s)([^$]+?)(?<!\s)\$(?!\w)")
_SYMBOLS = {"cdot": "·", "times": "×", "approx": "≈", "sqrt": "√", "le": "≤", "ge": "≥", "neq": "≠", "sum": "∑"}
_SYMBOLS |= {"infty": "∞", "to": "→", "theta": "θ", "tau": "τ", "sigma": "σ", "mu": "μ", "beta": "β", "dots": "…"}


def rich(text: str) -> str:
    """HTML of a quiz text. A formula reads well as it is, and a page that has MathJax sets it (see `_JS`)."""

    def mark(m: re.Match[str]) -> str:
        if m[3]:
            reading = _formula(escape(m[3]), "<sup>{}</sup>", "<sub>{}</sub>")
            return f'<span class="lc-math" data-tex="{escape(m[3])}">{reading}</span>'
        return f"<code>{escape(m[1])}</code>" if m[1] else f"<em>{escape(m[2])}</em>"

    return _map_marks(text, mark, escape)


def plain(text: str) -> str:
    """The same for a terminal: no stars and dollar signs, and the code in its backticks."""
    return _map_marks(text, lambda m: _formula(m[3], "^({})", "_{}") if m[3] else m[2] or m[0], str)


def _map_marks(text: str, mark: Callable[[re.Match[str]], str], between: Callable[[str], str]) -> str:
    out, end = "", 0
    for m in _MARKS.finditer(text):
        out, end = out + between(text[end : m.start()]) + mark(m), m.end()
    return out + between(text[end:])


def _formula(tex: str, above: str, below: str) -> str:
    """A simple formula as text: `\\ln V` is ln V, `e^{-x}` an e with −x `above` it."""
    tex = re.sub(r"\\(?:text|mathrm)\{([^{}]*)\}", r"\1", tex).replace("-", "−")
    tex = re.sub(r"\\([a-zA-Z]+)", lambda m: _SYMBOLS.get(m[1], m[1]), tex)
    tex = re.sub(r"\^(?:\{([^{}]*)\}|(\w))", lambda m: above.format(m[1] or m[2]), tex)
    return re.sub(r"_(?:\{([^{}]*)\}|(\w))", lambda m: below.format(m[1] or m[2]), tex)


# ---- The quiz ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Choice:
    """One possible answer and why it is right or wrong."""

    text: str
    why: str
    right: bool = False


@dataclass(frozen=True)
class Wrong:
    """A number that people often give instead of the right one, and what they mixed up."""

    value: float
    why: str
    compute: str = ""


@dataclass(frozen=True)
class Question:
    """A question with `choices`, exactly one of them right, or with a number as its `answer`.

    A number counts as right within `tolerance` (absolute). `compute` is the Python expression that gives it, for
    the tests and for the reader; `unit` stands behind the field; `wrong` are the numbers that deserve their own reply.
    """

    text: str
    choices: tuple[Choice, ...] = ()
    answer: float | None = None
    tolerance: float = 0.0
    compute: str = ""
    unit: str = ""
    why: str = ""
    wrong: tuple[Wrong, ...] = ()


_CSS = """
.lc form{margin:0 0 1.4rem} .lc fieldset{border:0;margin:0;padding:0;min-width:0}
.lc legend{float:none;width:auto;font-size:1rem;font-weight:600;line-height:1.5;margin:0 0 .2rem;padding:0}
.lc .lc-tick{align-items:flex-start;padding:.55rem 0;cursor:pointer} .lc .lc-tick input{margin-top:.13rem}
.lc .lc-say:empty{display:none} .lc-math sup,.lc-math sub{line-height:0}
.lc .lc-say{border-left:3px solid var(--b);padding:.1rem 0 .1rem .8rem} .lc .lc-say.lc-yes{border-color:var(--a)}
.lc summary{cursor:pointer;padding:.6rem 0;color:var(--q);font-size:.9rem} .lc ul{margin:.2rem 0;padding-left:1.2rem}
.lc li{margin:.3rem 0} .lc .lc-number{display:flex;flex-wrap:wrap;gap:.6rem;align-items:center;margin:.4rem 0}
.lc .lc-number input{font:inherit;width:8rem;min-height:2.75rem;padding:.3rem .6rem;color:inherit;background:none;
 border:1px solid var(--q);border-radius:6px}
"""
# Each answer's explanation is in the list of its question already; marking copies it from there.
_JS = """
if (window.MathJax) {
  root.querySelectorAll("[data-tex]").forEach(e => {
    e.classList.add("math"); e.textContent = `\\\\(${e.dataset.tex}\\\\)`;
  });
  if (MathJax.typesetPromise) MathJax.typesetPromise([root]);
}
const forms = [...root.querySelectorAll("form")], state = forms.map(() => null);
function mark(i, item, otherwise) {
  const right = Boolean(item && item.dataset.right), place = forms[i].querySelector(".lc-say");
  const start = document.createElement("b");
  start.textContent = right ? "Right. " : "Not quite. ";
  const why = item ? [...item.querySelector(".lc-why").cloneNode(true).childNodes] : [otherwise];
  place.replaceChildren(start, ...why);
  place.classList.toggle("lc-yes", right);
  state[i] = right;
  const count = x => state.filter(s => s === x).length, open = count(null);
  say(".lc-score", `${count(true)} of ${forms.length} right` + (open ? `, ${open} to go` : ""));
}
forms.forEach((form, i) => {
  const items = [...form.querySelectorAll("li")], field = form.querySelector("[type=text]");
  form.addEventListener("change", e => { if (e.target.type === "radio") mark(i, items[+e.target.value]); });
  form.addEventListener("submit", e => {
    e.preventDefault();
    if (!field) return;
    const big = Math.abs(+items[0].dataset.value) >= 1000;  // then a comma groups digits, else it starts decimals
    const typed = field.value.replace(/[\\s_]/g, "").replace("−", "-").replace(/,/g, big ? "" : ".");
    const x = Number(typed);
    if (typed === "" || !Number.isFinite(x)) return mark(i, null, "Type a number, such as 2.5.");
    const near = item => Math.abs(x - item.dataset.value) <= +items[0].dataset.tolerance * 1.000001;
    mark(i, items.find(near), "That is another number. Try again, or look at the answer.");
  });
});"""


@dataclass(frozen=True, repr=False)
class Quiz:
    """The questions of one page. A notebook shows them to click; `print(quiz.answers())` is for a terminal."""

    name: str
    questions: tuple[Question, ...]

    def _repr_html_(self) -> str:
        body = "".join(_question(i, q) for i, q in enumerate(self.questions, 1))
        score = f'<p class="lc-score" hidden>{len(self.questions)} questions</p>'
        return fragment(body + score, _JS, label="Quiz", css=_CSS)

    def __repr__(self) -> str:
        lines = []
        for i, q in enumerate(self.questions, 1):
            lines += [f"{i}. {plain(q.text)}", *(f"   ( ) {plain(c.text)}" for c in q.choices)]
            lines += [] if q.choices else [f"   ____ {plain(q.unit)}".rstrip()]
        return "\n".join([*lines, "The answers: print(quiz.answers())"])

    def answers(self) -> str:
        """Every choice with its explanation, as text."""
        lines = []
        for i, q in enumerate(self.questions, 1):
            lines += [f"{i}. {plain(q.text)}"]
            lines += [f"   ({'x' if c.right else ' '}) {plain(c.text)} {plain(c.why)}" for c in q.choices]
            if q.answer is not None:
                lines += [f"   (x) {_number(q)}. {plain(q.why)}"]
                lines += [f"   ( ) {w.value:,.10g}. {plain(w.why)}" for w in q.wrong]
        return "\n".join(lines)


def _number(q: Question) -> str:
    return f"{q.answer:,.10g} {plain(q.unit)}".rstrip()


def _question(number: int, q: Question) -> str:
    if q.choices:
        tick = '<label class="lc-tick"><input type="radio" name="q{}" value="{}"><span>{}</span></label>'.format
        field = "".join(tick(number, i, rich(c.text)) for i, c in enumerate(q.choices))
        answers = "".join(_answer(c.right, f":</b> <span>{rich(c.text)}</span>", c.why) for c in q.choices)
    else:
        field = (
            '<div class="lc-number" hidden><input type="text" inputmode="decimal" autocomplete="off" '
            f'aria-label="Your answer to question {number}"><span>{rich(q.unit)}</span><button>Check</button></div>'
        )
        formula = f" = <code>{escape(q.compute)}</code>" if q.compute else ""
        values = f' data-value="{q.answer}" data-tolerance="{q.tolerance}"'
        answers = _answer(True, f": {rich(_number(q))}</b>{formula}.", q.why, values)
        for w in q.wrong:
            answers += _answer(False, f": {w.value:,.10g}.</b>", w.why, f' data-value="{w.value}"')
    return (
        f'<form method="dialog"><fieldset><legend>{number}. {rich(q.text)}</legend>{field}'  # "dialog" leads nowhere
        '<p class="lc-say" role="status" aria-live="polite"></p><details><summary>Show the answers</summary>'
        f"<ul>{answers}</ul></details></fieldset></form>"
    )


def _answer(right: bool, what: str, why: str, values: str = "") -> str:
    verdict = ' data-right="1"><b>Right' if right else "><b>Wrong"
    return f'<li{values}{verdict}{what} <span class="lc-why">{rich(why)}</span></li>'


# ---- The files ---------------------------------------------------------------------------------------------


def names(folder: Path = FOLDER) -> list[str]:
    """The quizzes that there are."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def quiz(name: str, folder: Path = FOLDER) -> Quiz:
    """The quiz of a page; CourseError for an unknown name and, with file and question, for a malformed file."""
    path = folder / f"{name}.toml"
    if name not in names(folder):
        raise CourseError(f"There is no quiz {name!r}: {did_you_mean(str(name), names(folder))}")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as e:
        raise CourseError(f"{path.name} is not a TOML file ({e}): mend that line.") from e
    questions = content.pop("question", None)
    if content or not isinstance(questions, list) or not questions:
        raise CourseError(f"{path.name} must hold [[question]] entries and nothing else: look for a typing error.")
    return Quiz(name, tuple(_parse(q, f"{path.name}, question {i}") for i, q in enumerate(questions, 1)))


def _parse(entry: Any, place: str) -> Question:
    q = _build(Question, entry, place)
    choices = tuple(_build(Choice, c, f"{place}, choice {i}") for i, c in enumerate(q.choices, 1))
    wrong = tuple(_build(Wrong, w, f"{place}, wrong value {i}") for i, w in enumerate(q.wrong, 1))
    q = replace(q, choices=choices, wrong=wrong)
    if bool(q.choices) == (q.answer is not None):
        raise CourseError(f"{place}: give it either choices or an answer (a number), not both.")
    if q.choices and (len(q.choices) < 2 or sum(c.right for c in q.choices) != 1):
        raise CourseError(f"{place}: it needs two or more choices, and right = true on exactly one of them.")
    if q.choices and (q.why or q.wrong or q.compute or q.unit or q.tolerance):
        raise CourseError(f"{place}: with choices, each choice has its own why; remove the question's other fields.")
    if q.answer is not None and not (q.why and q.tolerance > 0 and math.isfinite(q.answer)):
        raise CourseError(f"{place}: a number needs a why and a tolerance above 0.")
    for w in q.wrong:
        if abs(w.value - (q.answer or 0.0)) <= q.tolerance:
            raise CourseError(f"{place}: the wrong value {w.value:g} lies within the tolerance of the answer.")
    return q


def _build(kind: Any, entry: Any, place: str) -> Any:
    """A dataclass from a TOML table; every field must be known, of its type, and not empty."""
    if not isinstance(entry, Mapping):
        raise CourseError(f"{place}: it must be a table with named fields.")
    known = {field.name: field for field in fields(kind)}
    types: dict[str, Any] = {"right": bool, "choices": list, "wrong": list}
    types |= dict.fromkeys(("answer", "tolerance", "value"), (int, float))
    for name, value in entry.items():
        if name not in known:
            raise CourseError(f"{place}: there is no field {name!r}; there are {', '.join(known)}.")
        if not isinstance(value, types.get(name, str)) or value == "" or (name != "right" and isinstance(value, bool)):
            raise CourseError(f"{place}: {name!r} cannot be {value!r}.")
    if missing := [name for name, field in known.items() if field.default is MISSING and name not in entry]:
        raise CourseError(f"{place}: it has no {missing[0]!r}.")
    return kind(**entry)
