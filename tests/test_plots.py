"""Figures: the same bytes everywhere, readable in every theme, and true to what they were given."""

import math
import re
import subprocess
import sys
import warnings
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llmcourse import figure, plots
from llmcourse.errors import CourseError

ROOT = Path(__file__).parents[1]
ALT = "The loss falls from 4.2 to 1.5 nats per character."
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(autouse=True)
def _own_settings(monkeypatch: pytest.MonkeyPatch):
    """Every test starts from matplotlib's defaults, in what looks like a plain script."""
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    with matplotlib.rc_context():
        yield
    plt.close("all")


def make_log(n: int = 101, floor: float = 1.5, every: int = 10) -> list[dict[str, float]]:
    log: list[dict[str, float]] = []
    for step in range(n):
        loss = floor + 2.7 * math.exp(-step / 20)
        log.append({"step": step, "tokens": 512 * step, "seconds": 0.1 * step, "loss": loss})
        if step % every == 0:
            log[-1]["val_loss"] = loss + 0.1
    return log


def causal(n_head: int, T: int) -> torch.Tensor:
    scores = torch.randn(n_head, T, T, generator=torch.Generator().manual_seed(0))
    return torch.softmax(scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf), -1)


def page(fig: Any, alt: str = ALT, caption: str | None = None) -> plots.PageFigure:
    shown = plots.show(fig, alt=alt, caption=caption)
    assert shown is not None
    return shown


def drawn_names(fig: Any) -> list[str]:
    """All the words in the SVG, in order."""
    return ["".join(t.itertext()) for t in ET.fromstring(page(fig).svg).iter(f"{SVG}text")]


# --- the page figure ---------------------------------------------------------------------------------

SAMPLE = """
import matplotlib; matplotlib.use("Agg")
from llmcourse import plots
log = [{"step": s, "val_loss": 4.0 / (s + 1)} for s in range(50)]
ax = plots.loss_curves({"one": log}, baselines={"ln V": 4.17})
ax.bar([1], [2], hatch="//"); ax.pcolormesh([[0, 1], [1, 0]])
"""


def test_the_same_figure_gives_the_same_bytes_in_this_and_in_another_process():
    code = SAMPLE + f"print(plots.show(ax, alt={ALT!r})._repr_html_(), end='')"
    here = []
    for _ in range(2):
        scope: dict[str, Any] = {}
        exec(SAMPLE, scope)
        here.append(page(scope["ax"])._repr_html_())
    there = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert here[0] == here[1] == there.stdout


def test_two_figures_on_one_page_share_no_id_and_every_reference_finds_its_target():
    figures = [page(plots.loss_curves({"a": make_log(floor=floor)})).svg for floor in (1.5, 1.6)]
    figures.append(page(plots.attention_maps(causal(2, 6), list("ROMEO:"))).svg)
    ids = [re.findall(r'\bid="([^"]+)"', svg) for svg in figures]
    assert all(ids), "a figure without any id would prove nothing"
    everything = [name for names in ids for name in names]
    assert len(everything) == len(set(everything))
    for svg, names in zip(figures, ids, strict=True):
        assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)), "clip paths and ticks refer to ids"
        referred = {a or b for a, b in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', svg)}
        assert referred == set(names)


def test_the_svg_is_well_formed_and_scales_and_says_what_it_shows():
    html = page(plots.loss_curves({"a": make_log()}), caption="One run.")._repr_html_()
    figure = ET.fromstring(html)
    assert (figure.tag, figure.get("class")) == ("figure", "llm-figure mathjax_ignore tex2jax_ignore")
    svg, caption = list(figure)
    assert (svg.get("role"), svg.get("aria-label"), caption.text) == ("img", ALT, "One run.")
    assert svg.get("width") is None and svg.get("height") is None
    assert [float(v) for v in str(svg.get("viewBox")).split()] == pytest.approx([0, 0, 468, 266.4])
    assert "max-width" in str(svg.get("style"))
    assert not html.startswith("<?xml") and "<!DOCTYPE" not in html and "xlink" not in html
    assert "<style" not in html and "<metadata" not in html, "these would reach the whole page"


def test_text_and_axes_have_the_color_and_the_font_of_the_page_even_without_style():
    fig, ax = plt.subplots()  # matplotlib's own style: black text on white
    ax.plot([0, 1], [0, 1], color="#0072B2")
    ax.set_title("A title with $x^2$", style="italic", weight="bold")
    svg = page(fig).svg
    root = ET.fromstring(svg)
    texts = [e for e in root.iter() if e.tag in (f"{SVG}text", f"{SVG}tspan")]
    assert len(texts) > 10
    assert not any("fill" in e.get("style", "") or e.get("fill") for e in texts), "text inherits its color"
    assert root.get("fill") == "currentColor" and "stroke:currentColor" in svg
    assert "#000000" not in svg and "#ffffff" not in svg
    assert "stroke:#0072b2" in svg, "colors of curves stay"
    assert "DejaVu" not in svg and "font-family:inherit" in svg
    assert "font-weight:700" in svg and "font-style:" in svg


def luminance(rgb: np.ndarray) -> float:
    """Relative luminance of a color, as WCAG 2 defines it."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    return float(linear @ (0.2126, 0.7152, 0.0722))


@pytest.mark.promise(
    "The site",
    "Words in a figure that have the color of a curve keep a contrast of 4.5 to 1, in the light and in the dark.",
)
@pytest.mark.parametrize(("ink", "paper"), [("#222832", "#ffffff"), ("#ced6dd", "#14181e")])  # of the theme
def test_words_in_the_color_of_a_curve_are_mixed_with_ink_until_they_can_be_read(ink: str, paper: str):
    fig, ax = plt.subplots()
    for color in plots.COLORS:
        ax.annotate("a curve", (0.5, 0.5), color=color)
    ax.annotate("on a dark cell", (0.5, 0.5), color="white")
    svg = page(fig).svg
    mixed = re.findall(r"<text style=\"[^\"]*fill:color-mix\(in srgb,(#\w{6}) (\d+)%,currentColor\)", svg)
    assert [color.upper() for color, _ in mixed] == list(plots.COLORS[:-1]) and "fill:#ffffff" in svg
    to_rgb = matplotlib.colors.to_rgb
    for color, share in mixed:
        text = np.average([to_rgb(color), to_rgb(ink)], axis=0, weights=[int(share), 100 - int(share)])
        dark, light = sorted((luminance(text), luminance(np.array(to_rgb(paper)))))
        assert (light + 0.05) / (dark + 0.05) >= 4.5, color


def test_the_shorthand_of_older_matplotlib_also_loses_its_font():
    css = figure._attribute("style", "font: italic 700 10px 'DejaVu Sans', sans-serif; text-anchor: middle")
    rules = set(css.split(";"))
    assert rules == {"font-style:italic", "font-weight:700", "font-size:10px", "text-anchor:middle"}


def test_alt_and_caption_cannot_break_out_of_the_page():
    bad = '<script>alert("1")</script> & more "words" \'here\''
    html = page(plots.loss_curves({"</text><script>": make_log()}), alt=bad, caption=bad)._repr_html_()
    assert "<script" not in html
    figure = ET.fromstring(html)
    assert figure[0].get("aria-label") == bad and figure[1].text == bad
    assert "</text><script>" in ["".join(t.itertext()) for t in figure.iter(f"{SVG}text")]


@pytest.mark.parametrize("alt", ["", "   ", "A plot.", "x" * 40, "a  b" + " " * 30])
def test_a_figure_without_a_real_sentence_is_refused(alt: str):
    with pytest.raises(CourseError, match="alt"):
        plots.show(plots.loss_curves(make_log()), alt=alt)


def test_without_any_figure_show_says_so():
    with pytest.raises(CourseError, match="no figure"):
        plots.show(alt=ALT)


def test_show_takes_the_current_figure_or_axes_and_closes_it():
    plots.loss_curves({"a": make_log()})
    assert repr(plots.show(alt=ALT)) == f"[{ALT}]"
    assert plt.get_fignums() == []
    assert page(plots.loss_curves({"a": make_log()})).svg == page(plots.loss_curves({"a": make_log()}).figure).svg
    assert plt.get_fignums() == []


def test_a_saved_figure_stands_alone(tmp_path: Path):
    shown = page(plots.loss_curves({"a": make_log()}))
    shown.save(tmp_path / "loss.svg")
    text = (tmp_path / "loss.svg").read_text(encoding="utf-8")
    assert ET.fromstring(text).tag == f"{SVG}svg"
    assert "font-family:sans-serif" in text and "prefers-color-scheme:dark" in text
    with pytest.raises(CourseError, match=r"\.svg"):
        shown.save(tmp_path / "loss.png")


def test_a_heavy_figure_warns_and_a_normal_one_is_light():
    fig, ax = plt.subplots()
    for i in range(1_500):
        ax.add_patch(plt.Circle((i, i % 7), 1))
    with pytest.warns(UserWarning, match="kB"):
        plots.show(fig, alt=ALT)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        runs = {f"run {i}": make_log(5_000, floor=1.5 + i / 9) for i in range(4)}
        figures = [
            plots.loss_curves(runs, key="loss", smooth=0.9, baselines={"ln V": 4.17}),
            plots.lr_schedule(np.random.default_rng(0).random(50_000)),
            plots.attention_maps(causal(12, 16), list("But, soft! what ")),
            plots.heatmap(np.eye(65), rows=["a"] * 65, columns=["b"] * 65),
        ]
        fig, ax = plt.subplots()
        ax.scatter(*np.random.default_rng(0).random((2, 20_000)))
        fig.colorbar(ax.pcolormesh(np.random.default_rng(0).random((80, 80))))
        for drawn in [*figures, fig]:
            assert len(page(drawn)._repr_html_().encode()) < figure.MAX_BYTES


def test_importing_and_drawing_leave_matplotlib_as_it_was():
    code = """
import matplotlib
before = dict(matplotlib.rcParams)
import sys
from llmcourse import plots
plots.loss_curves([{"step": 0, "val_loss": 1.0}])
shown = plots.show(alt="A single point at a loss of one nat.")
changed = {k for k, v in matplotlib.rcParams.items() if v != before[k]} - {"backend"}
print(changed, "IPython" in sys.modules, shown)
plots.style(); plots.style()
print(matplotlib.rcParams["svg.fonttype"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["set() False [A single point at a loss of one nat.]", "none"]


def test_a_notebook_cell_shows_the_figure_exactly_once():
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    source = SAMPLE.replace('import matplotlib; matplotlib.use("Agg")', "") + f"plots.show(ax, alt={ALT!r})"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source)])
    here = {"metadata": {"path": str(ROOT)}}
    nbclient.NotebookClient(book, kernel_name="python3", timeout=120, resources=here).execute()
    (output,) = book.cells[0].outputs
    assert output["output_type"] == "display_data"
    assert set(output["data"]) == {"text/html", "text/plain"}
    assert output["data"]["text/plain"] == f"[{ALT}]"
    scope: dict[str, Any] = {}
    exec(SAMPLE, scope)
    assert output["data"]["text/html"] == page(scope["ax"])._repr_html_()


# --- thinning ----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(st.integers(4, 300), st.integers(5, 4_000), st.integers(0, 2**31))
def test_thinning_keeps_the_ends_the_extremes_and_the_limit(limit: int, n: int, seed: int):
    y = np.random.default_rng(seed).normal(size=n)
    a, b = plots.thin(np.arange(n), y, limit)
    assert len(a) == len(b) <= limit
    assert (a[0], a[-1]) == (0, n - 1) and np.all(np.diff(a) > 0)
    assert b.min() == y.min() and b.max() == y.max()
    assert np.array_equal(b, y[a.astype(int)]), "points are chosen, never made up"


def test_one_spike_in_a_long_run_and_one_gap_are_still_drawn():
    y = np.ones(100_000)
    y[54_321], y[70_000] = 9.0, np.nan
    fig, ax = plt.subplots()
    (line,) = ax.plot(y)
    page(fig)
    kept = np.asarray(line.get_ydata())
    assert len(kept) <= 2_400 and np.nanmax(kept) == 9.0 and np.isnan(kept).sum() == 1


def test_a_line_that_turns_back_or_is_short_is_left_alone():
    t = np.linspace(0, 6, 9_000)
    assert len(plots.thin(np.cos(t), np.sin(t))[0]) == 9_000
    assert np.array_equal(plots.thin([1, 2], [3, 4]), [[1, 2], [3, 4]])


# --- loss curves and schedules -----------------------------------------------------------------------


def lines_of(ax: Any) -> dict[str, Any]:
    return {str(line.get_label()): line for line in ax.lines}


def test_loss_curves_draw_every_record_that_has_the_number_and_name_each_end():
    log = make_log()
    ax = plots.loss_curves({"small": log, "large": make_log(floor=1.2)}, baselines={"ln V": math.log(65)})
    line = lines_of(ax)["small"]
    expected = [r["val_loss"] for r in log if "val_loss" in r]
    assert list(line.get_ydata()) == expected and list(line.get_xdata()) == list(range(0, 101, 10))
    assert lines_of(ax)["large"].get_color() != line.get_color()
    baseline = lines_of(ax)["ln V"]
    assert list(baseline.get_ydata()) == [math.log(65)] * 2 and baseline.get_linestyle() == "--"
    assert [t.get_text() for t in ax.texts] == ["small", "large", "ln V 4.17"]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("step", "validation loss\n(nats per character)")
    names = drawn_names(ax)
    assert {"small", "large", "ln V 4.17", "step"} <= set(names)


def test_loss_curves_choose_axis_number_and_unit_for_each_run():
    log = make_log()
    ax = plots.loss_curves(
        {"train": log, "validation": log}, key={"train": "loss"}, x="tokens", unit="nats per token"
    )
    assert list(lines_of(ax)["train"].get_ydata()) == [r["loss"] for r in log]
    assert list(lines_of(ax)["validation"].get_ydata()) == [r["val_loss"] for r in log if "val_loss" in r]
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("tokens seen", "loss\n(nats per token)")
    assert list(lines_of(ax)["train"].get_xdata()) == [r["tokens"] for r in log]
    assert "40k" in drawn_names(ax)


def test_a_recorded_run_and_a_single_log_need_no_wrapping():
    class Recorded:
        log = make_log()

    assert len(plots.loss_curves({"recorded": Recorded()}).lines) == 1
    ax = plots.loss_curves(make_log())
    assert len(ax.lines) == 1 and list(ax.texts) == []


def test_curves_go_into_axes_that_are_passed():
    fig, axes = plt.subplots(1, 2)
    assert plots.loss_curves(make_log(), ax=axes[1]) is axes[1]
    assert plots.lr_schedule([1, 2], ax=axes[0]) is axes[0]
    assert plt.get_fignums() == [fig.number]


def test_smoothing_averages_long_curves_and_leaves_few_points_alone():
    log = [{"step": s, "loss": float(s % 2), "val_loss": 1.0 + s % 3} for s in range(200)]
    ax = plots.loss_curves({"a": log}, key="loss", smooth=0.98)
    smooth, raw = ax.lines
    assert list(raw.get_ydata()) == [r["loss"] for r in log] and raw.get_alpha() < 1
    assert abs(smooth.get_ydata()[-1] - 0.5) < 0.02
    assert smooth.get_ydata()[0] == pytest.approx(0.0) and smooth.get_ydata()[1] == pytest.approx(1 / 1.98)
    few = plots.loss_curves({"a": log[:20]}, smooth=0.98)
    assert [list(line.get_ydata()) for line in few.lines] == [[r["val_loss"] for r in log[:20]]]


def test_a_diverged_run_is_drawn_up_to_where_it_broke():
    log = [{"step": s, "loss": 3.0 + s if s < 5 else math.nan} for s in range(9)]
    ax = plots.loss_curves({"too hot": log}, key="loss")
    assert ax.texts[0].xy == (4.0, 7.0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"runs": {}}, "at least one run"),
        ({"runs": {"a": make_log()}, "key": "perplexity"}, "'a' has no record with both 'perplexity'"),
        ({"runs": {"a": []}}, "no record"),
        ({"runs": {"a": [{"step": 1, "val_loss": math.nan}]}}, "no record"),
        ({"runs": {"a": make_log()}, "smooth": 1.0}, "below 1"),
    ],
)
def test_loss_curves_say_what_is_missing(arguments: dict[str, Any], sentence: str):
    with pytest.raises(CourseError, match=sentence):
        plots.loss_curves(**arguments)


@settings(deadline=None, max_examples=80)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.08))
def test_labels_never_overlap_and_keep_their_order(targets: list[float], gap: float):
    places = plots._spread(targets, gap)
    order = np.argsort(targets, kind="stable")
    assert np.all(np.diff(places[order]) >= gap - 1e-9)
    assert places.min() >= -1e-9 and places.max() <= 1 + 1e-9
    if np.all(np.diff(np.sort(targets)) >= gap):
        assert places == pytest.approx(targets), "labels that have room stay where they are"


def test_labels_of_curves_that_end_together_are_apart_on_the_page():
    ax = plots.loss_curves({f"run {i}": make_log(floor=1.5 + i / 500) for i in range(6)})
    ax.figure.draw_without_rendering()
    boxes = [t.get_window_extent() for t in ax.texts]
    heights = sorted(ax.transData.transform((0, t.xyann[1]))[1] for t in ax.texts)
    assert min(np.diff(heights)) > 11 * ax.figure.dpi / 72
    assert max(box.x1 for box in boxes) <= ax.figure.bbox.x1, "no label is cut off at the edge"


def test_schedules_are_drawn_from_zero_and_named():
    ax = plots.lr_schedule({"constant": [1e-3] * 10, "linear": torch.linspace(1e-3, 0, 10)})
    assert list(lines_of(ax)["constant"].get_ydata()) == [1e-3] * 10
    assert lines_of(ax)["linear"].get_ydata()[-1] == 0 and ax.get_ylim()[0] == 0
    assert [t.get_text() for t in ax.texts] == ["constant", "linear"]
    assert ax.get_ylabel() == "learning rate" and "0.001" in drawn_names(ax)
    for bad in ([], [[1, 2]], ["a"], [1.0, math.inf]):
        with pytest.raises(CourseError, match="schedule"):
            plots.lr_schedule(bad)


# --- matrices and distributions ----------------------------------------------------------------------


def test_attention_maps_draw_the_weights_and_leave_the_future_blank():
    w = causal(3, 5).bfloat16()
    fig = plots.attention_maps(w, ["O", " ", "\n", "$", "the long word here"])
    maps = [ax for ax in fig.axes if ax.images]
    assert [ax.get_title("left") for ax in maps] == ["head 0", "head 1", "head 2"]
    for h, ax in enumerate(maps):
        (image,) = ax.images
        values = image.get_array()
        assert image.get_clim() == (0, 1), "one color scale for all heads"
        assert np.array_equal(np.ma.getmaskarray(values), np.triu(np.ones((5, 5), bool), 1))
        lower = np.tril_indices(5)
        assert np.array_equal(values[lower].data, w[h].float().numpy()[lower])
    assert [t.get_text() for t in maps[0].get_yticklabels()] == ["O", "␣", "⏎", "$", "the␣long␣word…"]
    names = drawn_names(fig)
    assert names.count("␣") == 6 and names.count("$") == 6 and "attention weight" in names


def test_a_leaking_mask_is_shown_not_hidden():
    w = causal(1, 4)
    w[0, 0, 3] = 0.5
    image = plots.attention_maps(w, list("abcd")).axes[0].images[0]
    assert image.get_array()[0, 3] == 0.5 and np.ma.getmaskarray(image.get_array()).sum() == 5


def test_attention_maps_pick_heads_and_say_how_many_there_are():
    w = causal(6, 4)

    def titles(fig: Any) -> list[str]:
        return [ax.get_title("left") for ax in fig.axes if ax.images]

    assert titles(plots.attention_maps(w, list("abcd"))) == [f"head {h} of 6" for h in range(4)]
    assert titles(plots.attention_maps(w.numpy(), list("abcd"), heads=[5, 2])) == ["head 5 of 6", "head 2 of 6"]
    assert titles(plots.attention_maps(w[0], list("abcd"))) == ["head 0"]


@pytest.mark.parametrize(
    ("weights", "tokens", "options", "sentence"),
    [
        (causal(2, 4), list("abc"), {}, "does not fit 3 tokens"),
        (torch.zeros(2, 4, 3), list("abcd"), {}, "does not fit 4 tokens"),
        (torch.zeros(1, 1, 2, 4, 4), list("abcd"), {}, "one layer"),
        (causal(2, 4) * 3, list("abcd"), {}, "after the softmax"),
        (causal(2, 4).log(), list("abcd"), {}, "infinity"),
        (causal(2, 4), list("abcd"), {"heads": [2]}, "from 0 to 1"),
        (causal(2, 4), list("abcd"), {"heads": []}, "from 0 to 1"),
        (causal(1, 49), ["a"] * 49, {}, "too many"),
        ([[[1], [0.5, 0.5]]], list("ab"), {}, "regular grid"),
    ],
)
def test_attention_maps_refuse_what_they_cannot_draw(weights: Any, tokens: Any, options: Any, sentence: str):
    with pytest.raises(CourseError, match=sentence):
        plots.attention_maps(weights, tokens, **options)
    assert plt.get_fignums() == []


def test_no_title_is_cut_off_at_the_top():
    words = ["The", " cat", " sat", " on", " the", " mat", ".", "\n"]
    root = ET.fromstring(page(plots.attention_maps(causal(2, 8), words)).svg)
    heights = {t.text: float(t.get("y", "nan")) for t in root.iter(f"{SVG}text")}
    assert heights["head 0"] >= 11, "the baseline of 11-point text leaves room for its letters"


def test_labels_of_a_matrix_stay_readable_when_there_are_many():
    ax = plots.heatmap(np.eye(65), rows=["a"] * 65, columns=["b"] * 65)
    labels = [t for t in ax.get_xticklabels() if t.get_text()]
    assert 20 <= len(labels) < 65 and min(t.get_fontsize() for t in labels) >= 7
    ax = plots.heatmap([[1.0, math.nan]], xlabel="dimension", ylabel="position", label="value")
    assert np.ma.getmaskarray(ax.images[0].get_array()).tolist() == [[False, True]]
    assert {"dimension", "position", "value"} <= set(drawn_names(ax))
    with pytest.raises(CourseError, match="3 labels do not fit a side of 2"):
        plots.heatmap(np.eye(2), rows=["a", "b", "c"])
    with pytest.raises(CourseError, match="rows, columns"):
        plots.heatmap([1, 2, 3])


def test_a_distribution_shows_its_top_tokens_and_what_is_left():
    fig = plots.distribution(torch.tensor([0.1, 0.6, 0.004, 0.296]), ["a", " ", "c", "\n"], top=2)
    (ax,) = fig.axes
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.6, 0.296, 0.104])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["␣", "⏎", "2 others"]
    assert [t.get_text() for t in ax.texts] == ["0.60", "0.30", "0.10"]
    assert ax.get_ylim()[0] > ax.get_ylim()[1], "the most likely token is at the top"


def test_distributions_side_by_side_share_rows_and_scale():
    logits = torch.tensor([3.0, 1.0, 0.0, -4.0])
    at = {f"T = {t}": torch.softmax(logits / t, -1) for t in (0.5, 1, 2)}
    fig = plots.distribution(at, lambda i: "abcd"[i], compare={"flat": np.full(4, 0.25)})
    assert [ax.get_title("left") for ax in fig.axes] == ["T = 0.5", "T = 1", "T = 2", "flat"]
    for ax, p in zip(fig.axes, [*at.values(), torch.full((4,), 0.25)], strict=True):
        assert [bar.get_width() for bar in ax.patches] == pytest.approx(p.tolist())
        assert ax.get_xlim() == fig.axes[0].get_xlim()
        assert max(bar.get_width() for bar in ax.patches) < ax.get_xlim()[1]
    assert "<0.01" in [t.get_text() for t in fig.axes[0].texts]
    assert [t.get_text() for t in fig.axes[0].get_yticklabels()] == list("abcd")


@pytest.mark.parametrize(
    ("probs", "labels", "sentence"),
    [
        ([0.5, 0.6], ["a", "b"], "add up to 1"),
        ([1.5, -0.5], ["a", "b"], "add up to 1"),
        ([0.5, 0.5], ["a"], "1 probabilities"),
        ({"a": [0.5, 0.5], "b": [1.0]}, str, "2 probabilities"),
        ([[0.5, 0.5]], ["a", "b"], "one probability a token"),
        ({}, ["a"], "one to four"),
        ([0.5, math.nan], ["a", "b"], "nan"),
    ],
)
def test_a_distribution_that_is_none_is_refused(probs: Any, labels: Any, sentence: str):
    with pytest.raises(CourseError, match=sentence):
        plots.distribution(probs, labels)


# --- what was measured ---------------------------------------------------------------------------------


def test_lines_draw_the_mean_and_every_seed():
    ax = plots.lines([1, 10, 100], {"ours": [[1, 2, 3], [3, 2, 1]], "theirs": [4, math.nan, 5]},
                     xlabel="size", ylabel="loss", xscale="log", ticks=True, baselines={"floor": 0.5})  # fmt: skip
    mean, seeds, theirs, floor = ax.get_lines()
    assert list(mean.get_ydata()) == [2, 2, 2] and sorted(seeds.get_ydata()) == [1, 1, 2, 2, 3, 3]
    assert theirs.get_ydata()[2] == 5 and floor.get_ydata()[0] == 0.5
    assert {"ours", "theirs", "floor 0.50", "100", "size"} <= set(drawn_names(ax))


def test_lines_of_the_wrong_length_are_told():
    with pytest.raises(CourseError, match="'ours' has 2 points, but there are 3 values of x"):
        plots.lines([1, 2, 3], {"ours": [1, 2]}, xlabel="x", ylabel="y")


def test_dots_draw_every_seed_and_write_the_mean():
    ax = plots.dots({"with": [1.0, 1.5], "without": 2.0}, xlabel="loss", baselines={"bigram": 2.48}, digits=3)
    seeds = ax.get_lines()[0]
    assert list(seeds.get_xdata()) == [1.0, 1.5] and list(seeds.get_ydata()) == [0, 0]
    assert {"with", "without", "1.250", "2.000", "bigram 2.48"} <= set(drawn_names(ax))


def test_dots_refuse_what_is_not_a_number():
    with pytest.raises(CourseError, match="The row 'diverged' contains nan"):
        plots.dots({"diverged": [math.nan]}, xlabel="loss")
