"""One plot style for the whole book, and the few figures that come back in every lesson.

A figure is drawn with matplotlib and shown as an SVG inside the page. Three ideas carry the file.
**Black means ink**: `show` turns all that is drawn in black (text, axes, ticks) into the page's own text
color, so the same figure reads on a light and on a dark page. **Text stays text**: letters do not become
outlines; they use the page's font and stay sharp at any size. **Every figure says what it shows**: without
a sentence for those who cannot see it, there is no figure.

    ax = plots.loss_curves({"my GPT": log}, baselines={"ln V": math.log(65)})
    plots.show(ax, alt="The validation loss falls from 4.2 to 1.6 nats per character in 2,000 steps.")
"""

import hashlib
import html
import io
import math
import re
import sys
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection, QuadMesh
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, StrMethodFormatter

from llmcourse.errors import CourseError

INK = "#000000"
# Okabe & Ito (2008), told apart under every common color blindness. Their yellow is left out (contrast 1.3
# to 1 on white). Lines and bars have these colors; text never has.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
MAX_BYTES = 60_000
_MAX_POINTS = 2_400  # of all lines of a figure together: about 36 kB
_STYLE: Any = {
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor"), "none"),
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor"), INK),
    **dict.fromkeys(("xtick.color", "ytick.color", "grid.color"), INK),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.7),
    **dict.fromkeys(("axes.titlesize", "figure.titlesize", "figure.labelsize"), "medium"),
    **dict.fromkeys(("axes.spines.top", "axes.spines.right", "legend.frameon"), False),
    **dict.fromkeys(("figure.dpi", "savefig.dpi"), 150),
    "figure.figsize": (6.5, 3.7),  # inches; with 11-point text, legible from 350 to 700 pixels
    "font.size": 11,
    "figure.constrained_layout.use": True,
    "axes.titlelocation": "left",
    "axes.xmargin": 0.02,
    "axes.prop_cycle": cycler(color=COLORS),
    "grid.alpha": 0.12,
    "image.cmap": "cividis",  # equal steps look equal, with and without color vision
    "image.interpolation": "none",  # one pixel a cell: small, and the browser enlarges it without blur
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
    "svg.hashsalt": "llmcourse",
}


def style() -> None:
    """Use the book's style for every figure from now on (the functions below use it in any case)."""
    mpl.rcParams.update(_STYLE)


@dataclass(frozen=True, repr=False)
class PageFigure:
    """A finished figure: HTML for a notebook or a page, its alt text in brackets for a terminal."""

    svg: str
    alt: str
    caption: str | None = None

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure class="llm-figure" style="margin:1em 0">{self.svg}{caption}</figure>'

    def __repr__(self) -> str:
        return f"[{self.alt}]"

    def save(self, path: str | Path) -> None:
        """Write an `.svg` file that stands alone: it has no page to inherit its font and ink from."""
        if Path(path).suffix != ".svg":
            raise CourseError(f"Cannot save a figure as '{path}'; use a name that ends in .svg.")
        ink = "<style>:root{color:#222}@media(prefers-color-scheme:dark){:root{color:#ddd}}</style>"
        svg = self.svg.replace("font-family:inherit", "font-family:sans-serif", 1).replace(">", ">" + ink, 1)
        Path(path).write_text(svg, encoding="utf-8")


def show(fig: Figure | Axes | None = None, *, alt: str, caption: str | None = None) -> PageFigure | None:
    """Show a figure (default: pyplot's current one) inline, in light and dark themes, and close it.

    alt: a real sentence, what a reader who cannot see the figure should learn from it. caption: plain text.
    A notebook shows the figure and gets None, so it never appears twice. A plain script cannot show it
    and gets the `PageFigure`, to `save`.
    """
    alt = " ".join(str(alt).split())
    if len(alt) < 20 or " " not in alt:
        raise CourseError(f"Say in alt what the figure shows, in a sentence of 20 characters or more: {alt!r}.")
    if fig is None and not plt.get_fignums():
        raise CourseError("There is no figure to show; draw one first or pass it: plots.show(fig, alt=...).")
    figure: Any = plt.gcf() if fig is None else fig.figure
    page = PageFigure(_svg(figure, alt), alt, caption)
    plt.close(figure)
    if (size := len(page._repr_html_().encode())) > MAX_BYTES:
        message = f"This figure weighs {size // 1000} kB (the book's limit is {MAX_BYTES // 1000}); draw fewer"
        warnings.warn(f"{message} points or call set_rasterized(True) on its heaviest part.", stacklevel=2)
    ipython = sys.modules.get("IPython")  # never imported from here
    if ipython is None or ipython.get_ipython() is None:
        return page
    from IPython.display import display

    display(page)
    return None


def _svg(fig: Figure, alt: str) -> str:
    """The figure as one self-contained `<svg>` element that can stand in a page beside others."""
    _lighten(fig)
    buffer, no_clock = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has more fonts
        fig.draw_without_rendering()  # titles find their place only while drawing; then the layout is right
        fig.savefig(buffer, format="svg", transparent=True, metadata=no_clock)
    root = ET.fromstring(buffer.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag.endswith(("}style", "}metadata")):  # this style rule would reach the whole page
                parent.remove(child)
    for element in root.iter():
        element.tag, element.tail = element.tag.rpartition("}")[2], None
        if element.tag not in ("text", "tspan"):
            element.text = None
        attributes = {name.rpartition("}")[2]: " ".join(value.split()) for name, value in element.items()}
        element.attrib = {
            name: _attribute(name, value)
            for name, value in attributes.items()
            if not value.startswith("rotate(-0 ")  # by nothing
        }

    # Drop the names that nothing refers to; make the others unique to this figure.
    values = [value for element in root.iter() for value in element.attrib.values()]
    used = {name for value in values for name in re.findall(r"^#(.+)$|url\(#(.+?)\)", value) for name in name}
    digest = hashlib.sha256("\0".join([*values, *root.itertext(), alt]).encode()).hexdigest()
    for element in root.iter():
        for key, value in list(element.attrib.items()):
            if key == "id" and value not in used:
                del element.attrib[key]
            elif key == "id":
                element.set(key, f"f{digest[:10]}-{value}")
            elif key == "href" or "url(#" in value:
                element.set(key, re.sub(r"(^|url\()#", rf"\g<1>#f{digest[:10]}-", value))
    root.attrib = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": root.attrib["viewBox"], "role": "img"}
    root.attrib |= {"aria-label": alt, "fill": "currentColor", "stroke-linejoin": "round"}
    width = f"width:100%;max-width:{108 * fig.get_figwidth():.0f}px;height:auto"
    root.set("style", f"font-family:inherit;{width}")
    return ET.tostring(root, encoding="unicode")


def _attribute(name: str, value: str) -> str:
    """One SVG attribute: black becomes the page's text color, the page's font replaces matplotlib's."""
    if name in ("d", "x", "y", "width", "height"):  # a hundredth of a point is enough
        return re.sub(r"-?\d+\.\d{3,}", lambda m: f"{float(m[0]):.2f}".rstrip("0").rstrip("."), value)
    if name in ("fill", "stroke") and value == INK:
        return "currentColor"
    if name != "style":
        return value
    rules = dict(re.findall(r"([\w-]+): ?([^;]+)", value))
    rules.pop("font-family", None)
    if "font" in rules:  # older matplotlib writes "font: italic 700 10px 'DejaVu Sans', ..."
        *words, rules["font-size"] = (rules.pop("font").split("px")[0] + "px").split()
        rules |= {"font-weight" if w.isdigit() or w == "bold" else "font-style": w for w in words}
    return ";".join(f"{key}:{_attribute(key, rule)}" for key, rule in rules.items())


def _lighten(fig: Figure) -> None:
    """Keep the file small: thin out long lines, turn meshes and large scatter plots into pixels."""
    data = {line: np.array(line.get_data(orig=False)) for ax in fig.axes for line in ax.lines}
    long = [line for line in data if data[line].shape[1] > 200]
    if sum(data[line].shape[1] for line in long) > _MAX_POINTS:
        for line in long:
            line.set_data(*thin(data[line][0], data[line][1], max(4, _MAX_POINTS // len(long))))
    for artist in fig.findobj():
        scatter: Any = artist if isinstance(artist, PathCollection) else None
        if isinstance(artist, QuadMesh) or (scatter and len(scatter.get_offsets()) > 300):
            artist.set_rasterized(True)


def thin(x: Any, y: Any, limit: int = _MAX_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `limit` (>= 4) points of a long line, with its ends, its peaks and its dips.

    Of each of (limit - 2) / 2 equal pieces the lowest and the highest point stay, so that one spike in a
    million steps is still seen, and a gap (nan) stays a gap. Where x goes back, the line stays as it is.
    """
    x, y = np.asarray(x, float), np.asarray(y, float)
    if len(x) <= limit or np.any(np.diff(x) < 0):
        return x, y
    keep = {0, len(x) - 1}
    for piece in np.array_split(np.arange(1, len(x) - 1), (limit - 2) // 2):
        values = y[piece]
        low = values.argmin()  # the first nan, if there is one
        high = np.where(np.isnan(values), -np.inf, values).argmax()
        keep |= {int(piece[low]), int(piece[high])}
    index = np.array(sorted(keep))
    return x[index], y[index]


_NAMES = {"loss": "training loss", "val_loss": "validation loss", "lr": "learning rate"}
_NAMES |= {"tokens": "tokens seen", "seconds": "time (seconds)", "grad_norm": "gradient norm"}


@mpl.rc_context(_STYLE)
def loss_curves(
    runs: Any, *, key: str | Mapping[str, str] = "val_loss", baselines: Mapping[str, float] | None = None,
    ax: Axes | None = None, smooth: float = 0.0, x: str = "step", unit: str = "nats per character",
) -> Axes:  # fmt: skip
    """Draw one number from the logs of some runs, each curve with its name at its end.

    runs: {name: log}; a log is a list of records as `Trainer.run` returns it, or a thing with such a `.log`;
    one log without a name is fine. key: the number ("loss", "val_loss" ...), or {name: key} to mix them;
    records without it are skipped. baselines: {name: value}, dashed lines. x: "step", "tokens", "seconds".
    smooth: weight of the past, in [0, 1), in a running average of every curve of more than 30 points; the
    raw curve stays, faint. unit: of the y axis, "" for none.
    """
    named = runs if isinstance(runs, Mapping) else {"": runs}
    if not named or not 0 <= smooth < 1:
        raise CourseError("Pass at least one run as {name: log}, and a smooth of at least 0 and below 1.")
    ax, ends, fields = ax or plt.subplots()[1], [], []
    for name, run in named.items():
        field = key if isinstance(key, str) else key.get(name, "val_loss")
        records = [r for r in getattr(run, "log", run) if r.get(field) is not None and r.get(x) is not None]
        if not any(math.isfinite(r[field]) for r in records):
            raise CourseError(f"The run '{name}' has no record with both '{field}' and '{x}'; choose another.")
        xs, raw = (np.array([r[k] for r in records], float) for k in (x, field))
        many = len(xs) > 30
        ys = _average(raw, smooth) if smooth and many else raw
        (line,) = ax.plot(xs, ys, marker=None if many else "o", markersize=3.5, label=name or "_run")
        if ys is not raw:
            ax.plot(xs, raw, color=line.get_color(), alpha=0.45, linewidth=0.7, zorder=1.5)
        last = np.flatnonzero(np.isfinite(ys))[-1]
        ends.append((name, xs[last], ys[last], line.get_color()))
        fields.append(_NAMES.get(field, field))
    for name, value in (baselines or {}).items():
        ax.axhline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label=name)
        ends.append((f"{name} {value:.2f}", math.inf, value, INK))
    ax.set_xlabel(_NAMES.get(x, x))
    ax.set_ylabel((fields[0] if len(set(fields)) == 1 else "loss") + (f"\n({unit})" if unit else ""))
    if ax.get_xlim()[1] >= 10_000:
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    return _label_ends(ax, ends)


@mpl.rc_context(_STYLE)
def lr_schedule(lrs: Any, *, ax: Axes | None = None, xlabel: str = "step") -> Axes:
    """Draw learning rates by step: one sequence, or {name: sequence} to compare schedules."""
    ax, ends = ax or plt.subplots()[1], []
    for name, values in (lrs if isinstance(lrs, Mapping) else {"": lrs}).items():
        ys = _array(values, 1, "A schedule", "one learning rate a step")
        (line,) = ax.plot(ys, label=name or "_schedule")
        ends.append((name, len(ys) - 1, ys[-1], line.get_color()))
    ax.set(xlabel=xlabel, ylabel="learning rate", ylim=(0, None))
    ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    return _label_ends(ax, ends)


def _average(values: np.ndarray, weight: float) -> np.ndarray:
    """Exponential running average, corrected for its start as in Adam (Kingma & Ba, 2015, section 3)."""
    out, total, norm = np.full(len(values), np.nan), 0.0, 0.0
    for i in np.flatnonzero(np.isfinite(values)):
        total, norm = weight * total + (1 - weight) * values[i], weight * norm + (1 - weight)
        out[i] = total / norm
    return out


def _label_ends(ax: Axes, ends: list[Any]) -> Axes:
    """Write each (name, x, y, color) right of the axes at its own height, moved only as far as needed."""
    ends = [end for end in ends if end[0]]
    left, right = ax.get_xlim()
    to_axes, gap = ax.transData + ax.transAxes.inverted(), 15 * ax.figure.dpi / 72 / ax.bbox.height
    levels = _spread([to_axes.transform((right, y))[1] for _, _, y, _ in ends], gap)
    for (name, x, y, color), level in zip(ends, levels, strict=True):
        leader = {"arrowstyle": "-", "color": color, "shrinkA": 2, "shrinkB": 0, "relpos": (0, 0.5)}
        leader |= {"linewidth": 0.8, "linestyle": ":"} if x < right - 0.05 * (right - left) else {}
        place = (1.05, to_axes.inverted().transform((1.0, level))[1])
        ax.annotate(name, (min(x, right), y), place, textcoords=("axes fraction", "data"), va="center",
                    annotation_clip=False, arrowprops=leader)  # fmt: skip
    ax.set_xlim(left, right)
    return ax


def _spread(targets: Sequence[float], gap: float) -> np.ndarray:
    """Heights in [0, 1], `gap` or more apart, ordered as `targets`, least squared shift: isotonic regression."""
    order = np.argsort(targets, kind="stable")
    blocks: list[tuple[float, int]] = []  # (mean, members)
    for rank, i in enumerate(order):
        blocks.append((targets[i] - rank * gap, 1))
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (a, m), (b, n) = blocks[-2:]
            blocks[-2:] = [((a * m + b * n) / (m + n), m + n)]
    base = np.array([mean for mean, members in blocks for _ in range(members)])
    out = np.empty(len(order))
    out[order] = np.clip(base, 0, max(0, 1 - gap * (len(order) - 1))) + gap * np.arange(len(order))
    return out


@mpl.rc_context(_STYLE)
def heatmap(
    matrix: Any, *, xlabel: str = "", ylabel: str = "", label: str | None = "", rows: Sequence[str] | None = None,
    columns: Sequence[str] | None = None, vmin: float | None = None, vmax: float | None = None,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw a (rows, columns) matrix as colors; nan cells stay blank.

    rows, columns: a label for each cell of a side. label: the name of the color scale; None leaves it out.
    """
    values = _array(matrix, 2, "A heatmap", "rows, columns", finite=False)
    for names, size in ((rows, values.shape[0]), (columns, values.shape[1])):
        if names is not None and len(names) != size:
            raise CourseError(f"{len(names)} labels do not fit a side of {size} cells; pass one for each.")
    square = rows is not None and columns is not None
    height = 0.7 + 5.2 * min(1.2, len(values) / values.shape[1])
    ax = ax or plt.subplots(figsize=(6.5, height) if square else None)[1]
    image = ax.imshow(values, vmin=vmin, vmax=vmax, aspect="equal" if square else "auto")
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.spines[:].set_visible(False)
    room = 0.9 * min(ax.bbox.size) / ax.figure.dpi * 72 / max(values.shape)  # points for one cell
    for axis, names in ((ax.xaxis, columns), (ax.yaxis, rows)):
        if names is not None:
            every = math.ceil(7 / room)
            shown = [visible(name) for name in names][::every]
            turn = 90 if axis is ax.xaxis and max(map(len, shown)) > 1 else 0
            size = min(10.5, room * every)
            axis.set_ticks(range(0, len(names), every), shown, rotation=turn, fontsize=size, parse_math=False)
            axis.set_tick_params(length=0, pad=2)
    if label is not None:
        _scale(image, ax, label)
    return ax


def _scale(image: Any, axes: Any, label: str) -> None:
    bar = image.figure.colorbar(image, ax=axes, shrink=0.8, aspect=24, pad=0.02, label=label)
    bar.outline.set_visible(False)


@mpl.rc_context(_STYLE)
def attention_maps(
    weights: Any, tokens: Sequence[str], *, heads: Sequence[int] | None = None, max_heads: int = 4
) -> Figure:
    """Draw what each position looks at, a small map for each head: rows ask, columns are looked at.

    weights: (n_head, T, T) or (T, T), in [0, 1]; tokens: T strings; heads: which (default: the first
    `max_heads`). Zeros above the diagonal (a token never sees the next one) stay blank; other weights
    there are drawn, because they mean that the mask leaks.
    """
    w = _array(weights, (2, 3), "Attention", "one layer and text: n_head, T, T")
    w = w[None] if w.ndim == 2 else w
    n_head, T = w.shape[:2]
    if w.shape[1:] != (len(tokens), len(tokens)):
        raise CourseError(f"Attention must be (n_head, T, T); {w.shape} does not fit {len(tokens)} tokens.")
    if T > 48:
        raise CourseError(f"{T} tokens are too many to read; show a piece, such as weights[:, :32, :32].")
    if w.min() < -1e-4 or w.max() > 1 + 1e-4:
        raise CourseError("Attention weights must be between 0 and 1; pass them after the softmax.")
    chosen = list(range(min(n_head, max_heads)) if heads is None else heads)
    if not chosen or not all(0 <= h < n_head for h in chosen):
        raise CourseError(f"Choose one or more heads from 0 to {n_head - 1}, not {chosen}.")
    down = math.ceil(len(chosen) / min(4, max(1, 400 // (11 * T))))  # 11 points or more for a cell
    across = math.ceil(len(chosen) / down)
    side = min(5.6 / across, 1.2 + 0.3 * T)
    fig, axes = plt.subplots(down, across, figsize=(6.5, down * (side + 0.2)), squeeze=False)
    for h, ax in zip(chosen, axes.flat, strict=False):
        blank = np.triu(w[h] == 0, k=1)
        seen = np.where(blank, np.nan, w[h])
        heatmap(seen, rows=tokens, columns=tokens, label=None, vmin=0, vmax=1, ax=ax)
        ax.set_title(f"head {h}" if len(chosen) == n_head else f"head {h} of {n_head}")
    for ax in axes.flat[len(chosen) :]:
        ax.set_axis_off()
    _scale(axes.flat[0].images[0], axes, "attention weight")
    fig.supxlabel("is looked at")
    fig.supylabel("token that looks")
    return fig


@mpl.rc_context(_STYLE)
def distribution(
    probs: Any, labels: Sequence[str] | Callable[[int], str], *, top: int = 10,
    compare: Mapping[str, Any] | None = None,
) -> Figure:  # fmt: skip
    """Draw the most likely next tokens as bars with their numbers.

    probs: (V,), or {name: (V,)} for several side by side ("T = 0.5", "T = 1"); `compare` adds more.
    labels: V strings, or a function from a token id to its string. The first distribution picks the `top`
    rows of all; a last row holds what is left, so that every column adds up to 1.
    """
    named = (dict(probs) if isinstance(probs, Mapping) else {"": probs}) | dict(compare or {})
    panels = {name: _array(p, 1, "A distribution", "one probability a token") for name, p in named.items()}
    V = 0 if callable(labels) else len(labels)
    for p in panels.values():
        V = V or len(p)
        if len(p) != V or p.min() < 0 or abs(p.sum() - 1) > 1e-3:
            raise CourseError(f"Pass {V} probabilities (after the softmax) that add up to 1, not {len(p)} that "
                              f"add up to {p.sum():.4g}; labels and distributions are equally long.")  # fmt: skip
    if not 1 <= len(panels) <= 4 or top < 1:
        raise CourseError("Pass one to four distributions and a top of 1 or more.")
    ids = np.argsort(-next(iter(panels.values())), kind="stable")[:top]
    names = [visible(labels(int(i)) if callable(labels) else labels[i]) for i in ids]
    if left := V - len(ids):
        names.append(f"{left} other{'s' * (left > 1)}")
    size = (6.5, 0.9 + 0.24 * len(names))
    fig, axes = plt.subplots(1, len(panels), figsize=size, sharey=True, sharex=True, squeeze=False)
    longest = 0.0
    for ax, (name, p), color in zip(axes[0], panels.items(), COLORS, strict=False):
        shares = np.append(p[ids], 1 - p[ids].sum())[: len(names)].clip(0)
        bars = ax.barh(range(len(names)), shares, color=color, height=0.72)
        ax.bar_label(bars, [f"{v:.2f}" if v >= 0.005 else "<0.01" for v in shares], padding=3)
        if left:
            bars[-1].set_alpha(0.45)
        longest = max(longest, shares.max())
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        ax.set_title(name)
    ax.set(xlim=(0, longest * (1.1 + 0.16 * len(panels))), xticks=[])  # room for the numbers
    ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.invert_yaxis()
    fig.supxlabel("probability")
    return fig


def visible(token: str) -> str:
    """A token as a label: spaces and line ends can be seen, and a long one is cut."""
    shown = token.translate({ord(" "): "␣", ord("\n"): "⏎", ord("\r"): "␍", ord("\t"): "⇥"})
    return shown if len(shown) <= 14 else shown[:13] + "…"


def _array(values: Any, ndim: int | tuple[int, ...], what: str, sizes: str, finite: bool = True) -> np.ndarray:
    """Numbers as an array; a torch tensor may have any device and precision."""
    try:
        array = np.asarray(values.detach().float().cpu() if hasattr(values, "detach") else values, dtype=float)
    except (TypeError, ValueError) as error:
        raise CourseError(f"{what} must be a regular grid of numbers ({sizes}).") from error
    if array.ndim not in np.atleast_1d(ndim) or array.size == 0:
        raise CourseError(f"{what} cannot have the shape {array.shape}; it needs {sizes}.")
    if finite and not np.isfinite(array).all():
        raise CourseError(f"{what} contains nan or infinity; find where it came from before you draw it.")
    return array
