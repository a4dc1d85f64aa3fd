"""A matplotlib figure made fit for a page: an SVG in the ink and font of the page, with words for those who cannot see.

Three ideas carry the file. **Black means ink**: `show` turns all that is drawn in black (text, axes, ticks) into the
page's own text color, so the same figure reads on a light and on a dark page. **Text stays text**: letters do not
become outlines; they use the page's font and stay sharp at any size. **Every figure says what it shows**: without a
sentence for those who cannot see it, there is no figure.
"""

import hashlib
import html
import io
import re
import sys
import warnings
import xml.etree.ElementTree as ET
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
from matplotlib.text import Text

from llmcourse.errors import CourseError
from llmcourse.files import atomic_file
from llmcourse.frame import AS_TEXT

INK = "#000000"
# Okabe & Ito (2008), told apart under every common color blindness. Their yellow is left out (contrast 1.3
# to 1 on white). Lines and bars have these colors. Text has them mixed with the page's ink: 4.5 to 1 in light and dark.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", INK)
_SERIES = re.compile(rf"(?<=fill:)({'|'.join(COLORS[:-1])})", re.I)
MAX_BYTES = 60_000
_UNFIT = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # what XML, and so SVG, cannot hold
_MAX_POINTS = 2_400  # of all lines of a figure together: about 36 kB
STYLE: Any = {
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
    mpl.rcParams.update(STYLE)


@dataclass(frozen=True, repr=False)
class PageFigure:
    """A finished figure: HTML for a notebook or a page, its alt text in brackets for a terminal."""

    svg: str
    alt: str
    caption: str | None = None

    def _repr_html_(self) -> str:
        caption = f"<figcaption>{html.escape(self.caption)}</figcaption>" if self.caption else ""
        return f'<figure class="llm-figure {AS_TEXT}" style="margin:1em 0">{self.svg}{caption}</figure>'

    def __repr__(self) -> str:
        return f"[{self.alt}]"

    def save(self, path: str | Path) -> None:
        """Write an `.svg` file that stands alone: it has no page to inherit its font and ink from."""
        if Path(path).suffix != ".svg":
            raise CourseError(f"Cannot save a figure as '{path}'; use a name that ends in .svg.")
        ink = "<style>:root{color:#222}@media(prefers-color-scheme:dark){:root{color:#ddd}}</style>"
        svg = self.svg.replace("font-family:inherit", "font-family:sans-serif", 1).replace(">", ">" + ink, 1)
        with atomic_file(path) as file:
            file.write(svg.encode())


def show(fig: Figure | Axes | None = None, *, alt: str, caption: str | None = None) -> PageFigure | None:
    """Show a figure (default: pyplot's current one) inline, in light and dark themes, and close it.

    alt: a real sentence, what a reader who cannot see the figure should learn from it. caption: plain text.
    A notebook shows the figure and gets None, so it never appears twice. A plain script cannot show it
    and gets the `PageFigure`, to `save`.
    """
    alt, caption = drawable(" ".join(str(alt).split())), drawable(caption) if caption else None
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
    for text in fig.findobj(Text):
        if (fit := drawable(text.get_text())) != text.get_text():
            text.set_text(fit)
    buffer, no_clock = io.StringIO(), dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with mpl.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # the browser has more fonts
        fig.draw_without_rendering()  # titles find their place only while drawing; then the layout is right
        fig.savefig(buffer, format="svg", transparent=True, metadata=no_clock)
    root = ET.fromstring(drawable(buffer.getvalue()))  # labels of ticks are made only while drawing
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
        if element.tag in ("text", "tspan") and "style" in element.attrib:
            element.set("style", _SERIES.sub(r"color-mix(in srgb,\1 55%,currentColor)", element.attrib["style"]))

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


def drawable(text: str) -> str:
    """The text with � for each control character and each half of a character (a lone surrogate)."""
    return _UNFIT.sub("\N{REPLACEMENT CHARACTER}", text)


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
