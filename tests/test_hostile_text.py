"""Text of learners, corpora and models is shown as text: it never becomes markup, a script or a formula of the page.

One list of hostile texts goes everywhere at once: as token, prompt, sample, name of a run, baseline, caption and alt.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import checks, plots, sampler, widgets
from llmcourse.figure import drawable
from llmcourse.model import GPT, GPTConfig
from llmcourse.quiz import Choice, Question, Quiz
from llmcourse.tokenizer import CharTokenizer
from llmcourse.trainer import TrainConfig, Trainer

ROOT = Path(__file__).resolve().parents[1]
SCRIPT = "<script>window.hacked = 1</script>"
HOSTILE = [
    SCRIPT,
    "\"><img src=x onerror='window.hacked=2'>",
    "'><svg onload=window.hacked=3>",
    "</script><script>window.hacked=4</script>",
    "</style></pre></text></svg><script>window.hacked=5</script>",
    "]]><!--",
    "{{ 7*7 }} {% raw %} ${1} `${window.hacked=6}`",
    "&amp; &lt;script&gt; &#60;",
    r"$\input{/etc/passwd}$",
    r"$\href{javascript:window.hacked=7}{here}$",
    "$x_$",
    "$x_",
    r"\$ \( x \) \[ y \]",
    "a\nb\r\nc\td",
    "\x00\x07\x1b[31m\x7f\x85",
    "\ud800 \udfff \uffff \ufeff",
    "\u2028\u2029\u202e",
    "",
    "_",
]
PLAIN = "plain"


@pytest.fixture(autouse=True)
def _plain_script(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    yield
    plt.close("all")


class Structure(HTMLParser):
    """The elements of a fragment with the names of their attributes; and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: set[tuple[str, ...]] = set()
        self.scripts, self.text = 0, ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.add((tag, *(name for name, _ in attrs)))
        self.scripts += tag == "script"

    def handle_data(self, data: str) -> None:
        self.text += data


def figures(text: str) -> list[Any]:
    """Plots of every way to write a label, with `text` wherever the plot shows what it was given."""
    log = [{"step": i, "val_loss": 3.0 - i} for i in range(3)]
    attention = np.tril(np.ones((3, 3)))
    attention /= attention.sum(1, keepdims=True)
    drawn = [
        plots.attention_maps(attention, [text, "b", text]),
        plots.distribution({text: [0.5, 0.3, 0.2], "b": [0.2, 0.3, 0.5]}, [text, "b", "c"]),
        plots.loss_curves({text: log}, baselines={text: 2.0}),
        plots.dots({text: [1.0, 2.0]}, baselines={text: 1.5}, xlabel="x"),
    ]
    return [plots.show(f, alt=f"What this figure shows: {text}", caption=f"Caption: {text}") for f in drawn]


def pieces(text: str) -> list[str]:
    """Every interactive piece, with `text` wherever it shows what it was given."""
    log = [{"step": 0, "val_loss": 4.0, "sample": text}, {"step": 5, "loss": 2.0, "val_loss": 2.0, "sample": text}]
    run = SimpleNamespace(log=log, about=lambda: text)
    question = Question(text or "x", (Choice(text, text, True), Choice(f"`{text}`", f"${text}$")))
    return [
        widgets.temperature_slider([text, "b"], [2.0, 1.0], {1.0: text, 0.2: text}, prompt=text).html,
        widgets.training_player(run, baselines={text: 3.0}).html,
        Quiz("q", (question, Question("n", answer=1.0, tolerance=0.1, why=text, unit=text)))._repr_html_(),
    ]


@pytest.mark.promise(
    "Bad input",
    "Any text can be a token, a label or the name of a run in a plot: markup, halves of formulas, control characters, "
    "lone surrogates.",
)
def test_no_text_changes_what_a_figure_is_made_of() -> None:
    usual = [Structure(figure._repr_html_()).elements for figure in figures(PLAIN)]
    for text in HOSTILE[:10:2] + HOSTILE[10:]:  # whole formulas and markup: one of each pair says what the other says
        for figure, elements in zip(figures(text), usual, strict=True):
            html = figure._repr_html_()
            assert html.encode() and Structure(html).scripts == 0
            strange = Structure(html).elements - elements
            assert not any(tag not in {t for t, *_ in elements} or "on" in str(names) for tag, *names in strange), text
            svg, caption = list(ET.fromstring(html))  # well-formed as well: it can be saved as an .svg
            assert caption.text == drawable(f"Caption: {text}").replace("\r\n", "\n")  # as every reader of XML does
            assert svg.get("aria-label") == drawable(" ".join(f"What this figure shows: {text}".split()))


@pytest.mark.promise(
    "Network and privacy",
    "What a learner or a model wrote is shown as text in plots, widgets and quizzes; as a script it never runs.",
)
def test_no_text_changes_what_a_widget_or_a_quiz_is_made_of() -> None:
    usual = [Structure(html).elements for html in pieces(PLAIN)]
    for text in HOSTILE:
        for html, elements in zip(pieces(text), usual, strict=True):
            assert html.encode()
            structure = Structure(html)
            assert structure.scripts == 1 and structure.elements <= elements | {("q",), ("em",), ("code",)}, text


@settings(max_examples=8)
@given(st.lists(st.text(st.characters(), max_size=20), min_size=6, max_size=6))
def test_any_characters_can_be_the_labels_of_a_map(labels: list[str]) -> None:
    ax = plots.heatmap(np.arange(36).reshape(6, 6), rows=labels, columns=labels, label=None)
    figure = plots.show(ax, alt="Six labels of any characters on both sides.")
    words = ["".join(t.itertext()) for t in ET.fromstring(figure.svg).iter("{http://www.w3.org/2000/svg}text")]
    assert words == 2 * [w for w in map(plots.visible, labels) if w.strip()]  # below, then on the left


def test_a_corpus_of_markup_is_learnt_and_shown(tmp_path: Path) -> None:
    """From the corpus to the plots by the way of a lesson: training, samples, attention, bets."""
    corpus = "".join(HOSTILE).encode(errors="ignore").decode() * 3
    tokenizer = CharTokenizer.from_text(corpus)
    ids = torch.tensor(tokenizer.encode(corpus))
    torch.manual_seed(0)
    model = GPT(GPTConfig(vocab_size=tokenizer.vocab_size, block_size=16, n_layer=1, n_head=2, n_embd=16))
    config = TrainConfig(max_steps=2, eval_interval=1, warmup_steps=1, batch_size=2)
    log = Trainer(model, config, ids, ids, tokenizer=tokenizer, out_dir=tmp_path).run()
    text = sampler.generate_text(model, tokenizer, SCRIPT[:8], 20, seed=1)
    log[-1]["sample"] = text
    attention = torch.full((2, 16, 16), 1 / 16)
    shown = [
        plots.show(plots.attention_maps(attention, list(SCRIPT[:16])), alt="Attention over the letters of a script."),
        plots.show(plots.loss_curves({SCRIPT: log}), alt="The loss over two steps of training."),
    ]
    letters = [tokenizer.decode([i]) for i in range(tokenizer.vocab_size)]
    logits = model(ids[None, :16])[0, -1].detach()
    sliders = [widgets.temperature_slider(letters, logits, {1.0: text}, prompt=SCRIPT), widgets.training_player(log)]
    assert all(Structure(figure._repr_html_()).scripts == 0 for figure in shown)
    assert all(Structure(piece.html).scripts == 1 for piece in sliders)


def test_what_a_check_says_is_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    def attention(q: Any, k: Any, v: Any) -> Any:
        print(SCRIPT)
        raise ValueError(SCRIPT)

    assert checks.check("day09", attention) is False  # and nothing that a notebook would show as HTML
    assert capsys.readouterr().out.count(SCRIPT) >= 1  # a notebook shows what is printed as text


@pytest.mark.browser
def test_a_browser_runs_none_of_it(open_page: Callable[..., Any]) -> None:
    texts = [text for text in HOSTILE if "hacked" in text or "$" in text or "&" in text]
    fragments = [f._repr_html_() for text in texts[:3] for f in figures(text)] + [h for t in texts for h in pieces(t)]
    page = open_page(*fragments)
    page.evaluate("""document.querySelectorAll("[type=range]").forEach(slider => {
        for (slider.value of [slider.min, slider.max]) slider.dispatchEvent(new Event("input", {bubbles: true}));
    })""")
    page.evaluate("document.querySelectorAll('[type=radio]').forEach(choice => choice.click())")
    assert page.evaluate("window.hacked") is None
    assert page.locator("img, .lc svg[onload], figure [onload]").count() == 0
    assert page.locator("script").count() == 3 * len(texts)  # one for each piece
    assert page.locator(".lc q").first.text_content() == SCRIPT


@pytest.mark.promise(
    "Network and privacy",
    "A formula in a text stays text, also in JupyterLab, whose MathJax could make a link of it that runs a script.",
)
@pytest.mark.browser
def test_mathjax_makes_no_formula_of_what_somebody_wrote(open_page: Callable[..., Any]) -> None:
    script = (ROOT / "book" / "_static" / "vendor" / "mathjax" / "tex-chtml.js").as_uri()
    head = '<script>window.MathJax = {"tex": {"inlineMath": [["$", "$"], ["\\\\(", "\\\\)"]]}}</script>'
    text = r"$\href{javascript:window.hacked=7}{here}$ \(x^2\)"
    fragments = [figure._repr_html_() for figure in figures(text)] + pieces(text)[:2]
    page = open_page("<p id='ours'>$x^2$</p>", *fragments, head=f'{head}<script src="{script}"></script>')
    page.wait_for_function("document.querySelector('#ours mjx-container')")
    page.evaluate("MathJax.startup.promise")
    assert page.locator(".llm-figure mjx-container, .lc mjx-container").count() == 0
    assert page.locator("a[href^=javascript]").count() == 0
