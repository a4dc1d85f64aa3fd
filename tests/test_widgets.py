"""The interactive figures: numbers equal to Python's, safe HTML, and work with keyboard, mouse and no JavaScript."""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import widgets
from llmcourse.data import split
from llmcourse.errors import CourseError
from llmcourse.model import GPT, GPTConfig
from llmcourse.runs import Run
from llmcourse.tokenizer import CharTokenizer
from llmcourse.trainer import TrainConfig, Trainer

ROOT = Path(__file__).resolve().parents[1]
EVIL = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked=2'> & \"q\" \u2028 `${1}` \\u003c"
VOID = {"input", "img", "br", "meta", "link"}


class Checker(HTMLParser):
    """Fails where a tag is not closed in its turn or an attribute stands twice; collects what it saw."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"an attribute of {tag} stands twice"
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"


def make_log(steps: int, every: int, sample: str = "ROMEO:\nstep {}") -> list[dict[str, Any]]:
    rng = random.Random(3)
    log: list[dict[str, Any]] = [{"step": 0, "val_loss": 4.19, "sample": sample.format(0)}]
    for step in range(1, steps + 1):
        log.append({"step": step, "lr": 3e-3 * step / steps, "loss": 1.5 + 2.7 * math.exp(-8 * step / steps)})
        log[-1]["loss"] += rng.gauss(0, 0.03)
        if step % every == 0:
            log[-1] |= {"val_loss": log[-1]["loss"] + 0.1, "sample": sample.format(step)}
    return log


def make_run(log: list[dict[str, Any]]) -> Run:
    machine: dict[str, str | int | float] = {"device": "cpu", "name": "a laptop", "threads": 2}
    return Run("tiny", {}, 417_536, 65, {}, machine, seed=1, seconds=90.0, log=log)


RNG = random.Random(0)
TOKENS = [*"abcdefghijklmnopqrstuvwxyz", " ", "\n"]
LOGITS = [RNG.gauss(0, 2) for _ in TOKENS]
SAMPLES = {0.5: "cold cold cold", 1.0: "neither", 2.0: "hOt!x"}
LOG = make_log(60, 20)


def everything() -> dict[str, widgets.Widget]:
    return {
        "parameters": widgets.parameter_slider(2, 4, 128, 65, 32, tie_weights=False),
        "temperature": widgets.temperature_slider(TOKENS, LOGITS, SAMPLES, prompt="What is th"),
        "player": widgets.training_player(make_run(LOG), baselines={"6-gram": 1.558}),
    }


NAMES = ("parameters", "temperature", "player")


@pytest.mark.parametrize("name", NAMES)
def test_a_widget_is_well_formed_has_no_ids_and_loads_nothing(name: str) -> None:
    html = everything()[name]._repr_html_()
    seen = Checker(html)
    assert seen.tags.count("script") == seen.tags.count("style") == 1
    assert not {attribute for attribute, _ in seen.attributes} & {"id", "src", "href", "onclick", "onerror"}
    assert "http" not in html and "url(" not in html and "innerHTML" not in html
    assert len(html.encode()) < widgets.MAX_BYTES


@pytest.mark.parametrize("name", NAMES)
def test_the_same_content_gives_the_same_bytes_and_other_content_another_key(name: str) -> None:
    first, again = everything()[name].html, everything()[name].html
    assert first == again
    keys = {re.findall(r'data-lc="(\w+)"', widget.html)[0] for widget in everything().values()}
    assert len(keys) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_terminal_gets_one_sentence(name: str) -> None:
    text = repr(everything()[name])
    assert text.startswith("[") and text.endswith(".]") and "\n" not in text and 40 < len(text) < 200


def test_all_css_rules_stay_inside_the_widget() -> None:
    for widget in everything().values():
        css = re.findall(r"<style>(.*?)</style>", widget.html, re.S)[0]
        css = re.sub(r"@media\([^)]*\)\{(.*)\}\s*", r"\1", css, flags=re.S)
        rules = re.findall(r"([^{}]+)\{[^{}]*\}", css)
        selectors = [part for rule in rules for part in re.split(r",(?![^(]*\))", rule)]
        assert len(selectors) > 15
        assert [s for s in selectors if not s.strip().startswith(".lc")] == []


# ---- How many parameters? --------------------------------------------------------------------------------


def real_parameters(**config: Any) -> int:
    with torch.device("meta"):
        return GPT(GPTConfig(**config)).num_params()


@settings(max_examples=25)
@given(
    n_layer=st.integers(1, 6), n_embd=st.integers(1, 300), vocab_size=st.integers(1, 60_000),
    block_size=st.integers(1, 3000), tie_weights=st.booleans(), bias=st.booleans(),
)  # fmt: skip
def test_the_parts_add_up_to_the_real_model(**config: Any) -> None:
    assert sum(widgets.parameter_parts(**config).values()) == real_parameters(**config, n_head=1)


def test_each_part_is_what_its_name_says() -> None:
    config = {"n_layer": 3, "n_embd": 48, "vocab_size": 70, "block_size": 20, "tie_weights": False, "bias": True}
    parts = dict.fromkeys(widgets.PARTS, 0)
    for name, p in GPT(GPTConfig(**config, n_head=4)).named_parameters():
        part = next((k for k, v in {"attn": "attention", "mlp": "MLP", "ln_": "norms"}.items() if k in name), "")
        parts[{"attn": "attention", "mlp": "MLP", "ln_": "norms"}.get(part, "embeddings")] += p.numel()
    assert widgets.parameter_parts(**config) == parts


def test_the_static_figure_counts_gpt2() -> None:
    widget = widgets.parameter_slider()
    assert "124,439,808 parameters" in widget.html and "124,439,808 parameters" in repr(widget)


@pytest.mark.parametrize(("config", "message"), [
    ({"n_layer": 0}, "n_layer must be a whole number"),
    ({"n_embd": 100, "n_head": 3}, "multiple of n_head"),
    ({"vocab_size": 65.0}, "vocab_size must be a whole number"),
])  # fmt: skip
def test_an_impossible_configuration_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(CourseError, match=message):
        widgets.parameter_slider(**config)


# ---- What does the temperature do? -----------------------------------------------------------------------


def exact(logits: list[float], temperature: float) -> tuple[list[float], float]:
    """Probabilities, highest first, and entropy, by torch."""
    log_p = (torch.tensor(sorted(logits, reverse=True), dtype=torch.float64) / temperature).log_softmax(0)
    return log_p.exp().tolist(), float(-(log_p.exp() * log_p).sum())


@given(logits=st.lists(st.floats(-20, 20), min_size=2, max_size=40), temperature=st.floats(0.1, 3))
def test_probabilities_and_entropy_equal_the_softmax(logits: list[float], temperature: float) -> None:
    ordered = sorted(logits, reverse=True)
    shares, entropy = widgets.tempered(ordered[:10], [(z, 1) for z in ordered[10:]], temperature)
    p, expected = exact(logits, temperature)
    assert shares == pytest.approx([*p[:10], sum(p[10:])], abs=1e-12)
    assert entropy == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_a_large_vocabulary_stays_small_and_nearly_exact(temperature: float) -> None:
    rng = random.Random(5)
    logits = [rng.gauss(0, 3) for _ in range(50_257)]
    widget = widgets.temperature_slider([f"t{i}" for i in range(50_257)], logits)
    assert len(widget.html.encode()) < 25_000
    data = json.loads(re.findall(r"const data = (\{.*\});", widget.html)[0])
    assert sum(count for _, count in data["tail"]) == 50_257 - 10
    shares, entropy = widgets.tempered(data["logits"], data["tail"], temperature)
    p, expected = exact(logits, temperature)
    assert shares == pytest.approx([*p[:10], sum(p[10:])], rel=2e-3)
    assert entropy == pytest.approx(expected, rel=2e-3)


def test_a_tensor_of_logits_and_few_tokens_are_fine() -> None:
    html = widgets.temperature_slider(["yes", "no"], torch.tensor([math.log(3.0), 0.0])).html
    assert "75.0%" in html and "25.0%" in html and " more<" not in html and "<pre" not in html


@pytest.mark.parametrize("arguments", [
    (["a"], [1.0]), (["a", "b"], [1.0]), (["a", "b"], [1.0, math.inf]), (["a", "b"], [1.0, math.nan]),
    (["a", "b"], [1.0, 2.0], {0.0: "x"}),
])  # fmt: skip
def test_a_bet_that_makes_no_sense_is_refused(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(CourseError, match=r"Pass tokens|pass samples"):
        widgets.temperature_slider(*arguments)


# ---- How did the training go? ----------------------------------------------------------------------------


def player_data(widget: widgets.Widget) -> dict[str, Any]:
    return json.loads(re.findall(r"const data = (\{.*\});", widget.html)[0])


def test_a_short_log_is_replayed_whole() -> None:
    data = player_data(widgets.training_player(make_run(LOG)))
    assert [frame[1] for frame in data["frames"]] == [str(r["step"]) for r in LOG]
    assert data["samples"] == [[str(s), f"ROMEO:\nstep {s}"] for s in (0, 20, 40, 60)]
    for record, frame in zip(LOG, data["frames"], strict=True):
        last = max(r["step"] for r in LOG if "val_loss" in r and r["step"] <= record["step"])
        shown = [f"{record['lr']:.3g}", f"{record['loss']:.3f}"] if "lr" in record else ["–", "–"]
        assert frame[2:5] == [*shown, f"{LOG[last]['val_loss']:.3f}"]
        assert data["samples"][frame[5]][0] == str(last)


def test_the_static_figure_shows_the_end_of_the_run() -> None:
    widget = widgets.training_player(make_run(LOG))
    body = widget.html.split("<script>")[0]
    for text in ("ROMEO:\nstep 60", f"{LOG[-1]['loss']:.3f}", f"{LOG[-1]['val_loss']:.3f}", "ln 65 = 4.17", "90"):
        assert text in body
    assert "tiny: 417,536 parameters, 60 steps" in body
    assert body.count("<path") == 5 and f"{LOG[-1]['val_loss']:.3f}" in repr(widget)


def test_a_long_log_is_thinned_and_keeps_its_extremes_and_evaluations() -> None:
    log = make_log(20_000, 500, sample="ROMEO: «{}» " + "woe & <woe> " * 100)
    log[7777]["loss"], log[12_345]["loss"] = 9.5, 0.5
    widget = widgets.training_player(make_run(log))
    assert len(widget.html.encode()) < widgets.MAX_BYTES
    data = player_data(widget)
    losses = {frame[3] for frame in data["frames"]}
    assert {"9.500", "0.500"} <= losses and len(data["frames"]) > 50
    assert {f"{r['val_loss']:.3f}" for r in log if r["step"] in (0, 500, 20_000)} <= {f[4] for f in data["frames"]}
    assert data["samples"][0][0] == "0" and data["samples"][-1][0] == "20,000"


def test_a_run_that_exploded_is_still_drawn() -> None:
    log = make_log(40, 10)
    log[30]["loss"], log[31]["loss"], log[40]["val_loss"] = 1e9, math.nan, math.inf
    widget = widgets.training_player(make_run(log))
    paths = re.findall(r'data-curve d="([^"]+)"', widget.html)
    assert paths and not re.search(r"nan|inf", "".join(paths))
    assert player_data(widget)["frames"][31][3] == "nan" and player_data(widget)["frames"][40][4] == "inf"
    heights = [float(y) for y in re.findall(r",(-?[\d.]+)", paths[0])]
    assert sum(0 <= y <= 400 for y in heights) == len(heights) - 1


def test_a_plain_log_without_samples_can_be_played() -> None:
    widget = widgets.training_player([{"step": 0, "loss": 4.0}, {"step": 10, "loss": 2.0}])
    assert "<pre" not in widget.html and "2.000" in widget.html


@pytest.mark.parametrize("log", [
    [], [{"step": 0, "loss": 1.0}], [{"step": 0}, {"step": 1}],
    [{"step": 1, "loss": math.nan}, {"step": 2, "loss": math.nan}],
])  # fmt: skip
def test_a_log_without_a_curve_is_refused(log: list[dict[str, Any]]) -> None:
    with pytest.raises(CourseError, match="two records"):
        widgets.training_player(log)


def test_the_log_of_a_real_training_can_be_played() -> None:
    text = "to be or not to be, that is the question. " * 40
    tokenizer = CharTokenizer.from_text(text)
    train, val = split(torch.tensor(tokenizer.encode(text)))
    model = GPT(GPTConfig(tokenizer.vocab_size, 16, 1, 2, 16))
    settings = TrainConfig(max_steps=20, batch_size=8, warmup_steps=2, eval_interval=10, log_interval=2)
    log = Trainer(model, settings, train, val, tokenizer=tokenizer).run()
    data = player_data(widgets.training_player(log))
    assert [frame[1] for frame in data["frames"]] == [str(r["step"]) for r in log]
    assert data["frames"][-1][4] == f"{log[-1]['val_loss']:.3f}"


# ---- What a browser does with it ---------------------------------------------------------------------------

browser_only = pytest.mark.usefixtures("browser")


Open = Callable[..., Any]


@pytest.mark.promise("Equality", "The sliders of the parameter counter give the count of the real model.")
@browser_only
@pytest.mark.browser
def test_the_browser_counts_like_the_real_model(open_page: Open) -> None:
    rng = random.Random(11)
    configs = []
    for _ in range(60):
        n_embd = rng.choice([1, 7, 64, 100, 128, 768, 1600, 4096])
        configs.append({"n_layer": rng.randint(1, 30), "n_embd": n_embd, "vocab_size": rng.randint(1, 200_000),
                        "block_size": rng.randint(1, 9000), "tie_weights": rng.random() < 0.5,
                        "bias": rng.random() < 0.5})  # fmt: skip
    script = f"configs => {{ {widgets.PARTS_JS}; return configs.map(parts); }}"
    counts = open_page("<p>-</p>").evaluate(script, configs)
    assert [sum(parts) for parts in counts] == [real_parameters(**c, n_head=1) for c in configs]
    assert counts == [list(widgets.parameter_parts(**c).values()) for c in configs]


def shown_parameters(page: Any) -> tuple[str, list[str]]:
    bars = page.locator(".lc-bar span:last-child").all_inner_texts()
    return page.locator("[role=status]").inner_text(), [bar.split(" ")[0] for bar in bars]


@pytest.mark.promise("The site", "Sliders can be moved with the keyboard.")
@browser_only
@pytest.mark.browser
def test_the_sliders_change_the_count_by_keyboard_and_mouse(open_page: Open) -> None:
    page = open_page(everything()["parameters"].html)
    config = {"n_layer": 2, "n_embd": 128, "vocab_size": 65, "block_size": 32, "tie_weights": False, "bias": True}

    def check() -> None:
        parts = widgets.parameter_parts(**config)
        expected = f"{sum(parts.values()):,} parameters", [f"{n:,}" for n in parts.values()]
        assert shown_parameters(page) == expected

    check()
    page.keyboard.press("Tab")  # the first thing to reach is the first slider
    page.keyboard.press("ArrowRight")
    config["n_layer"] = 3
    check()
    slider = page.get_by_label("n_embd")
    slider.focus()
    page.keyboard.press("End")
    config["n_embd"] = 2048
    check()
    assert slider.get_attribute("aria-valuetext") == "2,048"
    box = page.get_by_label("vocab_size").bounding_box()
    page.mouse.click(box["x"] + box["width"] - 2, box["y"] + box["height"] / 2)
    config["vocab_size"] = 100_277
    check()
    page.get_by_label("tie_weights").check()
    config["tie_weights"] = True
    check()


@browser_only
@pytest.mark.browser
def test_heads_are_divisors_and_change_nothing(open_page: Open) -> None:
    page = open_page(widgets.parameter_slider(2, 4, 96, 65, 32).html)
    before, heads = shown_parameters(page), page.get_by_label("n_head")
    offered = []
    heads.focus()
    page.keyboard.press("Home")
    for _ in range(12):
        offered.append(int(heads.get_attribute("aria-valuetext")))
        assert page.locator("[data-heads]").inner_text() == f"{offered[-1]} × {96 // offered[-1]}"
        page.keyboard.press("ArrowRight")
    assert offered == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 96]
    assert shown_parameters(page) == before
    page.get_by_label("n_embd").focus()
    page.keyboard.press("ArrowLeft")  # 64 channels: 96 heads do not fit any more
    assert heads.get_attribute("aria-valuetext") == "64"


@pytest.mark.promise("Equality", "The temperature slider computes what Python computes.")
@browser_only
@pytest.mark.browser
def test_the_temperature_slider_computes_what_python_computes(open_page: Open) -> None:
    page = open_page(everything()["temperature"].html)
    slider = page.get_by_role("slider", name="temperature")
    logits = [round(z, 4) for z in LOGITS]
    slider.focus()
    page.keyboard.press("Home")
    for step in range(1, 31):
        temperature = step / 10
        p, entropy = exact(logits, temperature)
        shares = [*p[:10], sum(p[10:])]
        assert slider.get_attribute("aria-valuetext") == f"{temperature:.1f}"
        shown = page.locator(".lc-bar span:last-child").all_inner_texts()
        assert shown == ["<0.1%" if 0 < q < 0.001 else f"{100 * q:.1f}%" for q in shares]
        assert page.locator("[data-h]").inner_text() == f"{entropy:.3f}"
        nearest = min(SAMPLES, key=lambda t: abs(t - temperature))
        assert page.locator("pre").inner_text() == SAMPLES[nearest]
        assert page.locator("[data-t]").inner_text() == f"{nearest:g}"
        page.keyboard.press("ArrowRight")
    widths = [
        float(w.rstrip("%")) for w in page.locator(".lc-bar i").evaluate_all("bars => bars.map(b => b.style.width)")
    ]
    assert widths == pytest.approx([100 * q for q in shares], abs=0.006)


@browser_only
@pytest.mark.browser
def test_the_player_plays_pauses_scrubs_and_ends(open_page: Open) -> None:
    page = open_page(everything()["player"].html)
    button, slider, sample = (
        page.get_by_role("button"),
        page.get_by_label("moment of the training"),
        page.locator("pre"),
    )
    step = page.locator("[data-step]")
    drawn = "path => path.getAttribute('d').split(/[ML]/).length - 1"
    curve = page.locator("path.lc-train")
    assert (button.inner_text(), step.inner_text(), sample.inner_text()) == ("Train", "0", "ROMEO:\nstep 0")
    assert curve.evaluate(drawn) == 0 and page.locator("path.lc-dots").evaluate(drawn) == 1

    button.press("Enter")
    page.wait_for_function("+document.querySelector('.lc input').value >= 2")
    assert button.inner_text() == "Pause"
    button.click()
    stopped = step.inner_text()
    assert button.inner_text() == "Train" and page.get_by_role("status").inner_text().startswith(f"step {stopped},")
    page.wait_for_timeout(500)
    assert step.inner_text() == stopped and curve.evaluate(drawn) == int(stopped)

    slider.focus()
    page.keyboard.press("ArrowRight")
    assert step.inner_text() == str(int(stopped) + 1)
    slider.evaluate("s => { s.value = 41; s.dispatchEvent(new Event('input', {bubbles: true})) }")
    record = LOG[41]
    shown = [page.locator(f"[data-{key}]").inner_text() for key in ("step", "lr", "loss", "val", "at")]
    assert shown == ["41", f"{record['lr']:.3g}", f"{record['loss']:.3f}", f"{LOG[40]['val_loss']:.3f}", "40"]
    assert sample.inner_text() == "ROMEO:\nstep 40" and curve.evaluate(drawn) == 41

    page.keyboard.press("End")
    assert button.inner_text() == "Train again" and curve.evaluate(drawn) == 60
    button.click()
    page.wait_for_function("+document.querySelector('.lc input').value >= 1")
    assert button.inner_text() == "Pause" and int(step.inner_text()) < 20
    slider.evaluate("s => { s.value = 58; s.dispatchEvent(new Event('input', {bubbles: true})) }")
    button.click()
    page.wait_for_function("document.querySelector('.lc button').textContent === 'Train again'")
    assert step.inner_text() == "60" and page.get_by_role("status").inner_text().startswith("step 60,")


@browser_only
@pytest.mark.browser
def test_those_who_want_less_motion_get_one_picture_an_evaluation(open_page: Open) -> None:
    page = open_page(everything()["player"].html, reduced_motion="reduce")
    page.get_by_role("button").click()
    page.wait_for_function("document.querySelector('[data-step]').textContent !== '0'")
    assert page.locator("[data-step]").inner_text() == "20"
    page.wait_for_timeout(600)
    assert page.locator("[data-step]").inner_text() == "20"


@browser_only
@pytest.mark.browser
def test_two_copies_and_other_widgets_on_a_page_do_not_disturb_each_other(open_page: Open) -> None:
    html = everything()
    page = open_page(html["player"].html, html["temperature"].html, html["player"].html, html["parameters"].html)
    first, second = (page.locator(".lc").nth(i) for i in (0, 2))
    second.get_by_role("slider").press("End")
    assert first.locator("[data-step]").inner_text() == "0" and second.locator("[data-step]").inner_text() == "60"
    assert first.locator("pre").inner_text() == "ROMEO:\nstep 0"
    page.locator(".lc").nth(1).get_by_role("slider").press("End")
    assert page.locator(".lc").nth(3).locator("[role=status]").inner_text() == "417,536 parameters"


@browser_only
@pytest.mark.browser
def test_text_from_a_model_cannot_become_part_of_the_page(open_page: Open) -> None:
    tokens = [EVIL, "<b>", "c"]
    temperature = widgets.temperature_slider(tokens, [3.0, 2.0, 1.0], {1.0: EVIL, 0.2: f"cold{EVIL}"}, prompt=EVIL)
    log = [{"step": 0, "val_loss": 4.0, "sample": f"first{EVIL}"}, {"step": 5, "loss": 2.0, "sample": EVIL}]
    run = SimpleNamespace(log=log, about=lambda: EVIL)
    player = widgets.training_player(run, baselines={EVIL: 3.0})
    for widget in (temperature, player):
        assert Checker(widget.html).tags.count("script") == 1
    page = open_page(temperature.html, player.html)
    page.locator(".lc").nth(0).get_by_role("slider").press("Home")
    assert page.locator("pre").nth(0).text_content() == f"cold{EVIL}"
    assert page.locator("pre").nth(1).text_content() == f"first{EVIL}"
    page.locator(".lc").nth(1).get_by_role("slider").press("End")
    assert page.locator("pre").nth(1).text_content() == EVIL
    assert page.evaluate("window.hacked") is None and page.locator(".lc img").count() == 0


@browser_only
@pytest.mark.browser
def test_without_javascript_a_finished_figure_stands_there(open_page: Open) -> None:
    page = open_page(*(w.html for w in everything().values()), java_script_enabled=False)
    for role in ("slider", "button", "checkbox"):
        assert page.get_by_role(role).count() == 0
    text = page.locator("body").inner_text()
    parts, (p, entropy) = widgets.parameter_parts(
        n_layer=2, n_embd=128, vocab_size=65, block_size=32, tie_weights=False, bias=True
    ), exact([round(z, 4) for z in LOGITS], 1.0)  # fmt: skip
    for expected in (f"{sum(parts.values()):,} parameters", f"{parts['MLP']:,}", f"{100 * p[0]:.1f}%", f"{entropy:.3f}",
                     "neither", "step 60", f"{LOG[-1]['val_loss']:.3f}", "separate input and output"):  # fmt: skip
        assert expected in text
    assert page.locator("path.lc-train").bounding_box()["width"] > 300


def contrast(*colors: str) -> float:
    """WCAG's contrast ratio of two `rgb(…)` colors."""
    light = []
    for color in colors:
        rgb = [int(x) / 255 for x in re.findall(r"\d+", color)[:3]]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in rgb]
        light.append(0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2])
    return (max(light) + 0.05) / (min(light) + 0.05)


@browser_only
@pytest.mark.browser
@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_it_fits_and_can_be_read_and_touched(open_page: Open, theme: str, width: int) -> None:
    fragments = [w.html for w in everything().values()] + [widgets.parameter_slider(48, 25, 1600).html]
    around = f'<div style="color:#1e232b">{"".join(fragments)}</div>'  # pydata's theme does that in the dark
    page = open_page(around, theme=theme, viewport={"width": width, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    heights = page.locator(".lc :is(button, input[type=range], .lc-tick)").evaluate_all(
        "list => list.map(e => e.getBoundingClientRect().height)"
    )
    assert len(heights) > 10 and min(heights) >= 44
    bars = page.locator(".lc-bar").evaluate_all("list => list.map(b => b.scrollWidth - b.clientWidth)")
    assert max(bars) <= 0
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for selector, attribute, least in ((".lc-bar i", "backgroundColor", 3), ("path.lc-train", "stroke", 3),
                                       ("path.lc-dots", "stroke", 3), (".lc b", "color", 7)):  # fmt: skip
        color = page.locator(selector).first.evaluate(f"e => getComputedStyle(e).{attribute}")
        assert contrast(color, paper) >= least, (selector, color)
