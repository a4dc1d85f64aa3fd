"""The frame in which every interactive piece of the book stands: the sliders, the player, the quizzes.

A piece is one string of HTML that needs nothing from outside: no kernel, no network, no library. It works on the
site, in JupyterLab and in Colab, takes its colors from the page around it, and shows a result without JavaScript.
"""

import hashlib
import json
from dataclasses import dataclass
from html import escape
from typing import Any

# For MathJax, which JupyterLab lets loose on all that a cell shows: what learners and models write is no formula.
AS_TEXT = "mathjax_ignore tex2jax_ignore"
# All rules begin with .lc and reach nothing else. Colors come from the page, its ink (currentColor) and its accent
# (the book's, else JupyterLab's, else a blue that can be seen on white and on black).
CSS = """
.lc{--a:var(--course-accent,var(--jp-brand-color1,#2a82bb));--b:#d55e00;margin:1.2em 0;padding:.9em 4px;max-width:46rem;
 --l:color-mix(in srgb,currentColor 22%,transparent);--q:color-mix(in srgb,currentColor 78%,transparent);
 border:solid var(--l);border-width:1px 0;font-size:1rem;line-height:1.5;font-variant-numeric:tabular-nums;
 color:var(--course-ink,var(--jp-content-font-color1,inherit))}
.lc *{box-sizing:border-box} .lc [hidden]{display:none!important} .lc p{margin:.5em 0} .lc input{accent-color:var(--a)}
.lc :is(input,button,summary,pre):focus-visible{outline:3px solid var(--a);outline-offset:2px}
.lc small,.lc .lc-note{font-size:.9rem;color:var(--q)}
.lc button{font:inherit;font-weight:600;min-height:2.75rem;padding:.3rem 1rem;border:1px solid var(--a);
 border-radius:6px;background:none;color:inherit;cursor:pointer}
.lc button:hover{background:var(--l)}
.lc .lc-tick{display:flex;gap:.7rem;align-items:center;min-height:2.75rem;margin:0}
.lc .lc-tick input{width:1.25rem;height:1.25rem;flex:none;margin:0}
"""


@dataclass(frozen=True, repr=False)
class Widget:
    """A finished interactive piece: HTML for a page or a notebook, one sentence for a terminal."""

    html: str
    text: str

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return f"[{self.text}]"


def fragment(body: str, script: str, data: Any = None, *, label: str, css: str = "") -> str:
    """One self-contained piece of HTML: style, `body` as it looks without JavaScript, and a script.

    `script` runs once for each copy on the page, with `root` (the element around `body`), `data`, `find(selector)`
    and `say(selector, text)`; what is `hidden` in `body` is shown to those who have JavaScript. Equal content gives
    equal bytes. No element has an id, and a script looks for the hash of its own content, so nothing collides.
    """
    values = json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for char in "<\u2028\u2029":  # in a string \u003c means "<", and it cannot close the script element
        values = values.replace(char, f"\\u{ord(char):04x}")
    key = hashlib.sha256("\0".join((label, body, script, values, css)).encode(errors="replace")).hexdigest()[:12]
    html = f"""<style>{CSS}{css}</style>
<div class="lc {AS_TEXT}" data-lc="{key}" data-lm-suppress-shortcuts="true" role="group"
 aria-label="{escape(label)}">{body}</div>
<script>(function () {{ "use strict"; const data = {values};
document.querySelectorAll('[data-lc="{key}"]').forEach(function (root) {{
if (root.lcReady) return;
root.lcReady = true;
const find = s => root.querySelector(s), say = (s, text) => {{ find(s).textContent = text; }};
root.querySelectorAll("[hidden]").forEach(e => {{ e.hidden = false; }});
{script}
}}); }})();</script>"""
    return html.encode(errors="replace").decode()  # half a character (a lone surrogate) could not be sent to a page
