"""The figures that come back in every lesson, in one style: curves, comparisons over seeds, maps, distributions.

They take logs, arrays or tensors as the package makes them, draw with matplotlib, and leave the result to `show`
(`figure.py`), which puts it into the page.

    ax = plots.loss_curves({"my GPT": log}, baselines={"ln V": math.log(65)})
    plots.show(ax, alt="The validation loss falls from 4.2 to 1.6 nats per character in 2,000 steps.")
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, StrMethodFormatter

from llmcourse.errors import CourseError, is_number
from llmcourse.figure import COLORS, INK, STYLE, PageFigure, drawable, show, style, thin

__all__ = [
    "COLORS",
    "INK",
    "PageFigure",
    "attention_maps",
    "distribution",
    "dots",
    "heatmap",
    "lines",
    "loss_curves",
    "lr_schedule",
    "show",
    "style",
    "thin",
    "visible",
]

_NAMES = {"loss": "training loss", "val_loss": "validation loss", "lr": "learning rate"}
_NAMES |= {"tokens": "tokens seen", "seconds": "time (seconds)", "grad_norm": "gradient norm"}


@mpl.rc_context(STYLE)
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
    if not named or not is_number(smooth) or not 0 <= smooth < 1:
        raise CourseError("Pass at least one run as {name: log}, and a smooth of at least 0 and below 1.")
    ax, ends, fields = ax or plt.subplots()[1], [], []
    for name, run in named.items():
        field = key if isinstance(key, str) else key.get(name, "val_loss")
        log = getattr(run, "log", run)
        log = list(log) if isinstance(log, Iterable) else [log]
        if not all(isinstance(r, Mapping) for r in log):
            raise CourseError(
                f"A log is a list of records, such as {{'step': 10, '{field}': 2.5}}; the run '{name}' is none."
            )
        records = [r for r in log if r.get(field) is not None and r.get(x) is not None]
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


@mpl.rc_context(STYLE)
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


@mpl.rc_context(STYLE)
def lines(
    xs: Any, series: Any, *, xlabel: str, ylabel: str, baselines: Mapping[str, float] | None = None,
    xscale: str = "linear", yscale: str = "linear", ticks: bool = False, ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Draw what was measured against what was varied, each line with its name at its end.

    xs: the N values tried. series: {name: ys}, or one ys; ys is (N,), or (seeds, N), where the line is the mean and
    each seed a dot. nan leaves a gap. baselines: {name: value}, dashed. ticks: mark the N values on the axis.
    """
    ax, ends, values = ax or plt.subplots()[1], [], _array(xs, 1, "xs", "one value a measurement")
    ax.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, yscale=yscale)
    for name, numbers in (series if isinstance(series, Mapping) else {"": series}).items():
        ys = np.atleast_2d(_array(numbers, (1, 2), f"The line '{name}'", "N or seeds, N", finite=False))
        if ys.shape[1] != len(values):
            raise CourseError(f"The line '{name}' has {ys.shape[1]} points, but there are {len(values)} values of x.")
        mean, few = ys.mean(axis=0), len(values) <= 30
        (line,) = ax.plot(values, mean, marker="o" if few and len(ys) == 1 else None, markersize=4, label=name or "_")
        if len(ys) > 1:
            ax.plot(np.tile(values, len(ys)), ys.ravel(), "o", color=line.get_color(), markersize=3, alpha=0.7)
        last = np.flatnonzero(np.isfinite(mean))[-1:]
        ends += [(name, values[i], mean[i], line.get_color()) for i in last]
    for name, value in (baselines or {}).items():
        ax.axhline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 3)), label=name)
        ends.append((f"{name} {value:.2f}", math.inf, value, INK))
    if ticks:
        ax.set_xticks(values, [f"{x:,g}" for x in values])
        ax.set_xticks([], minor=True)
    return _label_ends(ax, ends)


@mpl.rc_context(STYLE)
def dots(
    results: Mapping[str, Any], *, xlabel: str, baselines: Mapping[str, float] | None = None, digits: int = 2,
    ax: Axes | None = None,
) -> Axes:  # fmt: skip
    """Compare variants: a row for each, every seed a dot, the mean a bar across them with its number.

    results: {name: number, or one number a seed}. baselines: {name: value}, dashed lines from top to bottom.
    """
    if not isinstance(results, Mapping):
        raise CourseError("Pass the results as {name: one number a seed}, so that every row has a name.")
    rows = {name: _array(np.atleast_1d(r), 1, f"The row '{name}'", "one number a seed") for name, r in results.items()}
    room = 0.35 if baselines else 0.0
    ax = ax or plt.subplots(figsize=(6.5, 0.9 + room + 0.32 * len(rows)))[1]
    for y, values in enumerate(rows.values()):
        color = COLORS[0]
        ax.plot(values, np.full(len(values), y), "o", color=color, markersize=4.5, alpha=0.7)
        ax.plot([values.mean()] * 2, [y - 0.3, y + 0.3], color=color)
        ax.annotate(f"{values.mean():z.{digits}f}", (values.max(), y), (8, 0), textcoords="offset points", va="center")
    for n, (name, value) in enumerate((baselines or {}).items()):
        ax.axvline(value, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
        ax.annotate(f"{name} {value:.2f}", (value, 1), (0, 3 + 13 * (n % 2)), textcoords="offset points",
                    xycoords=("data", "axes fraction"), ha="center", parse_math=False)  # fmt: skip
    ax.set(xlabel=xlabel, ylim=(len(rows) - 0.4, -0.6))
    ax.set_yticks(range(len(rows)), map(drawable, rows), parse_math=False)
    ax.tick_params(axis="y", length=0)
    low, high = ax.get_xlim()
    ax.set_xlim(low, high + 0.1 * (high - low))  # room for the numbers
    return ax


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
                    annotation_clip=False, arrowprops=leader, parse_math=False)  # fmt: skip
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


@mpl.rc_context(STYLE)
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


@mpl.rc_context(STYLE)
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


@mpl.rc_context(STYLE)
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
    if not 1 <= len(panels) <= 4 or not is_number(top, whole=True) or top < 1:
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
        numbers = [f"{v:.2f}" if v >= 0.005 else "<0.01" if v > 1e-6 else "0" for v in shares]
        ax.bar_label(bars, numbers, padding=3)
        if left:
            bars[-1].set_alpha(0.45)
        longest = max(longest, shares.max())
        ax.spines[:].set_visible(False)
        ax.tick_params(length=0)
        ax.set_title(name, parse_math=False)
    ax.set(xlim=(0, longest * (1.1 + 0.16 * len(panels))), xticks=[])  # room for the numbers
    for ax in axes[0]:  # the panels share their labels, but not that these are no formulas
        ax.set_yticks(range(len(names)), names, parse_math=False)
    ax.invert_yaxis()
    fig.supxlabel("probability")
    return fig


_PICTURES = {code: 0x2400 + code for code in range(0x20)} | {0x7F: "␡", ord(" "): "␣", ord("\n"): "⏎", ord("\t"): "⇥"}


def visible(token: str) -> str:
    """A token as a label: spaces, line ends and control characters can be seen, and a long one is cut."""
    shown = drawable(str(token).translate(_PICTURES))
    return shown if len(shown) <= 14 else shown[:13] + "…"


def _array(values: Any, ndim: int | tuple[int, ...], what: str, sizes: str, finite: bool = True) -> np.ndarray:
    """Numbers as an array; a torch tensor may have any device and precision."""
    try:
        array = np.asarray(values.detach().float().cpu() if hasattr(values, "detach") else values, dtype=float)
    except (TypeError, ValueError, OverflowError, NotImplementedError) as error:
        raise CourseError(f"{what} must be a regular grid of numbers ({sizes}).") from error
    if array.ndim not in np.atleast_1d(ndim) or array.size == 0:
        raise CourseError(f"{what} cannot have the shape {array.shape}; it needs {sizes}.")
    if finite and not np.isfinite(array).all():
        raise CourseError(f"{what} contains nan or infinity; find where it came from before you draw it.")
    return array
