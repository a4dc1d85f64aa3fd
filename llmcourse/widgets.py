"""Figures that answer when you move something: on the site, in JupyterLab and in Colab.

Python draws the figure as it stands at the start, in plain HTML; a few lines of JavaScript beside it then change its
numbers, bars and curves. No kernel, network or library is needed, and without JavaScript there is still a figure.
The script sets text, widths and lines but never writes HTML: what a model wrote cannot become code of the page.

    widgets.parameter_slider(n_layer=2, n_head=4, n_embd=128, vocab_size=65, block_size=32)
    widgets.temperature_slider(chars, logits, {0.5: "ROMEO: ...", 1.0: "ROMEO: ..."}, prompt="What is th")
    widgets.training_player(runs.load("cpu-fast"))
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from .errors import CourseError, is_number
from .frame import Widget, fragment
from .model import GPTConfig
from .plots import visible

MAX_BYTES = 40_000  # of one widget, everything included
_SAMPLE = '<pre tabindex="0" role="group" aria-label="Sample">{}</pre>'
# The frame of every interactive piece (frame.py) has the colors, buttons and focus rings; here are rows and bars.
_CSS = """
.lc input[type=range]{width:100%;min-width:0;height:2.75rem;margin:0}
.lc .lc-bar i{height:.9rem;min-width:1px;background:var(--a)}
.lc .lc-row{display:grid;grid-template-columns:12rem 1fr 4.5rem;gap:0 .8rem;align-items:center;margin:0}
.lc .lc-bar{display:grid;grid-template-columns:6.6rem 1fr 4.3rem;gap:.6rem;align-items:center;white-space:nowrap}
.lc .lc-bar.lc-long{grid-template-columns:6.6rem 1fr 11.2rem}
.lc .lc-row>:last-child,.lc .lc-bar>:last-child{text-align:right}
.lc pre{font-size:.85rem;line-height:1.45;white-space:pre-wrap;overflow-wrap:anywhere;color:inherit;background:none;
 margin:.3rem 0;padding:.5rem .8rem;border:0;border-left:2px solid var(--l);height:13em;overflow:auto}
@media(max-width:480px){.lc .lc-row{grid-template-columns:1fr 5rem} .lc .lc-row>input{grid-row:2;grid-column:1/3}
 .lc .lc-bar{font-size:.9rem}}
"""


def _slider(name: str, label: str, value: str, low: float, high: float, step: float, start: float) -> str:
    return (
        f'<label class="lc-row"><span>{label}</span><input type="range" name="{name}" min="{low:g}" max="{high:g}" '
        f'step="{step:g}" value="{start:g}" aria-valuetext="{value}"><output>{value}</output></label>'
    )


def _bar(name: str, share: float, value: str, look: str = "lc-bar") -> str:
    """A row: its name, a bar of `share` of the width, and what to write behind it."""
    bar = f'<i style="width:{100 * share:.2f}%"></i>'
    return f'<div class="{look}"><span>{escape(name)}</span>{bar}<span>{escape(value)}</span></div>'


# ---- How many parameters? --------------------------------------------------------------------------------
# Plain arithmetic, so that Python and JavaScript read the very same formulas; the tests hold both against GPT.
PARTS = {
    "embeddings": "((2 - tie_weights) * vocab_size + block_size) * n_embd",
    "attention": "n_layer * 4 * (n_embd + bias) * n_embd",
    "MLP": "n_layer * (8 * n_embd + 5 * bias) * n_embd",
    "norms": "(2 * n_layer + 1) * (1 + bias) * n_embd",
}
_NAMES = "n_layer, n_embd, vocab_size, block_size, tie_weights, bias"
PARTS_JS = f"function parts({{{_NAMES}}}) {{ return [{', '.join(PARTS.values())}]; }}"
_CHOICES = {
    "n_layer": ("blocks", tuple(range(1, 49))),
    "n_head": ("heads a block", ()),  # the script fills in the divisors of n_embd
    "n_embd": ("channels", (16, 32, 48, 64, 96, 128, 192, 256, 384, 512, 640, 768, 1024, 1280, 1600, 2048)),
    "vocab_size": ("tokens", (27, 65, 128, 256, 512, 1000, 2000, 5000, 10_000, 20_000, 32_000, 50_257, 100_277)),
    "block_size": ("tokens seen", (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)),
}
_PARAMETERS_JS = """
const c = {...data.start}, lists = {...data.choices}, n = x => x.toLocaleString("en-US");
function set(name, value) {
  const slider = find(`[name=${name}]`), list = lists[name];
  c[name] = value; slider.max = list.length - 1; slider.value = list.indexOf(value);
  slider.setAttribute("aria-valuetext", n(value)); slider.nextElementSibling.textContent = n(value);
}
function draw() {
  lists.n_head = Array.from({length: c.n_embd}, (_, i) => i + 1).filter(h => c.n_embd % h === 0);
  set("n_head", lists.n_head.filter(h => h <= c.n_head).pop());
  const counts = parts(c), total = counts.reduce((a, b) => a + b), bars = root.querySelectorAll(".lc-bar");
  counts.forEach((count, i) => {
    bars[i].children[1].style.width = (100 * count / total).toFixed(2) + "%";
    bars[i].children[2].textContent = `${n(count)} (${(100 * count / total).toFixed(1)}%)`;
  });
  say("[role=status]", `${n(total)} parameters`);
  say("[data-heads]", `${n(c.n_head)} × ${n(c.n_embd / c.n_head)}`);
}
root.addEventListener("input", e => {
  const name = e.target.name;
  if (name === "tie_weights") c.tie_weights = e.target.checked; else set(name, lists[name][+e.target.value]);
  draw();
});
Object.keys(lists).forEach(name => { if (name !== "n_head") set(name, c[name]); });
find("[name=tie_weights]").checked = c.tie_weights; draw();"""


def parameter_parts(**config: int) -> dict[str, int]:
    """Parameters of a GPT by part; their sum is `GPT(config).num_params()` (learned positions, LayerNorm, GELU)."""
    return {part: eval(formula, {}, config) for part, formula in PARTS.items()}


def parameter_slider(
    n_layer: int = 12, n_head: int = 12, n_embd: int = 768, vocab_size: int = 50257, block_size: int = 1024, *,
    tie_weights: bool = True, bias: bool = True,
) -> Widget:  # fmt: skip
    """Move the five numbers of a `GPTConfig` and see how many parameters that makes, and where they sit.

    The arguments are the starting point (GPT-2 small); `tie_weights` becomes a box to tick, `bias` stays. The slider
    of `n_head` offers the divisors of `n_embd` and changes nothing, and the figure says so. Errors are `GPTConfig`'s.
    """
    GPTConfig(vocab_size, block_size, n_layer, n_head, n_embd)  # its errors say what does not fit
    start = {"n_layer": n_layer, "n_head": n_head, "n_embd": n_embd, "vocab_size": vocab_size, "block_size": block_size}
    counts = parameter_parts(**start, tie_weights=tie_weights, bias=bias)
    total, numbers = sum(counts.values()), ", ".join(f"{name} {value:,}" for name, value in start.items())
    choices = {name: sorted({*values, start[name]}) for name, (_, values) in _CHOICES.items()}
    sliders = "".join(
        _slider(k, f"<code>{k}</code> <small>{about}</small>", f"{start[k]:,}", 0, len(choices[k]) - 1, 1, 0)
        for k, (about, _) in _CHOICES.items()
    )
    body = (
        f'<div hidden>{sliders}<label class="lc-tick"><input type="checkbox" name="tie_weights"><span>one matrix for '
        f"input and output (<code>tie_weights</code>)</span></label></div><noscript><p>{numbers}, "
        f"{'tied' if tie_weights else 'separate'} input and output matrices:</p></noscript>"
        f'<p role="status" aria-live="polite" style="font-weight:700">{total:,} parameters</p>'
        + "".join(_bar(k, n / total, f"{n:,} ({100 * n / total:.1f}%)", "lc-bar lc-long") for k, n in counts.items())
        + "<p class='lc-note'><code>n_head</code> changes nothing: the heads of a block share its <code>n_embd</code> "
        f"channels (now <span data-heads>{n_head:,} × {n_embd // n_head:,}</span>). It has to divide "
        "<code>n_embd</code>, so only divisors are offered.</p>"
    )
    data = {"start": {**start, "tie_weights": tie_weights, "bias": bias}, "choices": choices}
    html = fragment(body, PARTS_JS + _PARAMETERS_JS, data, label="How many parameters a GPT has", css=_CSS)
    return Widget(html, f"Sliders for the size of a GPT; at the start {numbers} make {total:,} parameters.")


# ---- What does the temperature do? -----------------------------------------------------------------------
_TEMPERATURE_JS = """
const slider = find("input"), top = data.logits.length, all = [...data.logits.map(z => [z, 1]), ...data.tail];
const percent = p => p > 0 && p < 0.001 ? "<0.1%" : (100 * p).toFixed(1) + "%";
function draw() {
  const T = +slider.value, x = all.map(r => (r[0] - all[0][0]) / T), e = x.map((v, i) => all[i][1] * Math.exp(v));
  const add = list => list.reduce((a, b) => a + b, 0), total = add(e), others = add(e.slice(top)) / total;
  const entropy = Math.max(0, Math.log(total) - add(e.map((v, i) => v * x[i])) / total);
  root.querySelectorAll(".lc-bar").forEach((bar, i) => {
    const p = i < top ? e[i] / total : others;
    bar.children[1].style.width = (100 * p).toFixed(2) + "%"; bar.children[2].textContent = percent(p);
  });
  slider.setAttribute("aria-valuetext", T.toFixed(1)); slider.nextElementSibling.textContent = T.toFixed(1);
  say("[data-h]", entropy.toFixed(3)); say("[data-n]", Math.exp(entropy).toFixed(1));
  if (!data.samples.length) return;
  const [at, text] = data.samples.reduce((a, b) => Math.abs(b[0] - T) < Math.abs(a[0] - T) ? b : a);
  say("[data-t]", at); say("pre", text);
}
slider.addEventListener("input", draw); draw();"""


def temperature_slider(
    tokens: Sequence[str], logits: Iterable[float], samples: Mapping[float, str] | None = None, *,
    prompt: str = "", top: int = 10,
) -> Widget:  # fmt: skip
    """Move the temperature from 0.1 to 3 and see one real bet on the next token become sharp or flat.

    tokens: V strings. logits: V finite numbers, the model's scores for them (a tensor `(V,)` is fine). samples:
    {temperature: what the model really wrote at it}; the nearest one is shown. prompt: what the model had read. The
    `top` likeliest tokens have a bar each, the others one together. Logits beyond the 500th are rounded to 0.1, so
    that a large vocabulary stays small; at temperature 1 that shifts their share by about a thousandth of itself.
    """
    try:
        scores = [round(float(z), 4) for z in logits]
    except (TypeError, ValueError, OverflowError) as error:  # no row of numbers
        raise CourseError("Pass logits as one row of numbers, one for each token.") from error
    if len(scores) != len(tokens) or len(scores) < 2 or not all(map(math.isfinite, scores)):
        raise CourseError(f"Pass tokens, two or more, each with a finite logit: {len(tokens)} and {len(scores)} given.")
    written = sorted((float(t), str(text)) for t, text in (samples or {}).items())
    if not is_number(top, whole=True) or top < 1 or any(not (math.isfinite(t) and t > 0) for t, _ in written):
        raise CourseError("Draw a top of at least 1 token, and pass samples as {temperature above 0: text}.")
    order = sorted(range(len(scores)), key=lambda i: -scores[i])
    best, rest = [scores[i] for i in order[:top]], [scores[i] for i in order[top:]]
    tail = sorted(Counter(round(z, 4 if rank < 500 else 1) for rank, z in enumerate(rest)).items(), reverse=True)
    shares, entropy = tempered(best, tail, 1.0)
    names = [visible(tokens[i]) for i in order[:top]] + [f"{len(order) - top:,} more"] * bool(tail)
    body = (
        f"<div hidden>{_slider('temperature', 'temperature', '1.0', 0.1, 3, 0.1, 1)}</div>"
        f"<p>The model's bet on the next token{f' after <q>{escape(prompt)}</q>' if prompt else ''}"
        "<noscript> at temperature 1</noscript>:</p>"
        + "".join(_bar(name, p, _percent(p)) for name, p in zip(names, shares, strict=False))
        + f'<p role="status" aria-live="polite">Entropy <b data-h>{entropy:.3f}</b> nats: as unsure as an even bet on '
        f"<b data-n>{math.exp(entropy):.1f}</b> of the {len(scores):,} tokens.</p>"
    )
    if written:
        at, text = min(written, key=lambda s: abs(s[0] - 1))
        body += f"<p>What it wrote at temperature <b data-t>{at:g}</b>:</p>{_SAMPLE.format(escape(text))}"
    data = {"logits": best, "tail": tail, "samples": written}
    html = fragment(body, _TEMPERATURE_JS, data, label="What the temperature does to a bet", css=_CSS)
    said = f"{names[0]!r} has {_percent(shares[0])}, the entropy is {entropy:.3f} nats"
    return Widget(html, f"Slider for the temperature of a bet on {len(scores):,} tokens; at 1.0 {said}.")


def tempered(top: Sequence[float], tail: Sequence[tuple[float, int]], temperature: float) -> tuple[list[float], float]:
    """Probabilities of the `top` logits (highest first) and of the whole tail, and the entropy of all in nats.

    `tail` is (logit, how many tokens have it). Entropy = ln(sum e^x) - mean(x), with x = (z - highest) / temperature.
    """
    rows = [((z - top[0]) / temperature, n) for z, n in [*((z, 1) for z in top), *tail]]
    weights = [n * math.exp(x) for x, n in rows]
    total = sum(weights)
    mean = sum(w * x for w, (x, _) in zip(weights, rows, strict=True)) / total
    return [w / total for w in [*weights[: len(top)], sum(weights[len(top) :])]], max(0.0, math.log(total) - mean)


def _percent(p: float) -> str:
    return "<0.1%" if 0 < p < 0.001 else f"{100 * p:.1f}%"


# ---- How did the training go? ----------------------------------------------------------------------------
_PLAYER_CSS = """
.lc .lc-plot{position:relative;height:14rem;margin:.3rem 1.3rem 2rem 2.6rem;border-left:1px solid var(--l)}
.lc .lc-plot{border-bottom:1px solid var(--l)} .lc .lc-plot svg{position:absolute;width:100%;height:100%}
.lc .lc-plot path{fill:none;vector-effect:non-scaling-stroke;stroke:var(--a);stroke-width:1.6;stroke-linejoin:round}
.lc .lc-plot .lc-val{stroke:var(--b)} .lc .lc-plot .lc-dots{stroke:var(--b);stroke-width:7;stroke-linecap:round}
.lc .lc-plot .lc-ink{stroke:currentColor;stroke-width:1;stroke-dasharray:4 4;opacity:.7}
.lc .lc-plot span{position:absolute;font-size:.8rem;line-height:1;white-space:nowrap}
.lc .lc-x{top:calc(100% + .4em);translate:-50%} .lc .lc-y{right:calc(100% + .4em);translate:0 -50%}
.lc .lc-base{right:.3rem;translate:0 -130%} .lc .lc-play{display:flex;gap:1rem;align-items:center}
.lc .lc-read{display:grid;grid-template-columns:repeat(auto-fit,minmax(8rem,1fr));gap:.2rem 1rem}
.lc .lc-play button{min-width:8.5rem} .lc .lc-read b{display:block} .lc .lc-read u{text-decoration:none;font-weight:700}
.lc .lc-hear{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%)}
"""
_PLAYER_JS = """
const frames = data.frames, last = frames.length - 1, slider = find("input"), button = find("button");
const still = matchMedia("(prefers-reduced-motion: reduce)"); let timer = 0;
const curves = [...root.querySelectorAll("[data-curve]")].map(p => [p, p.getAttribute("d").match(/[ML][^ML]+/g)]);
function show(i) {
  const [x, step, lr, loss, val, sample] = frames[i]; slider.value = i;
  curves.forEach(([path, points]) => path.setAttribute("d", points.filter(p => parseFloat(p.slice(1)) <= x).join("")));
  find("[data-now]").setAttribute("d", `M${x},0V400`);
  say("[data-step]", step); say("[data-lr]", lr); say("[data-loss]", loss); say("[data-val]", val);
  slider.setAttribute("aria-valuetext", `step ${step}, training loss ${loss}, validation loss ${val}`);
  if (data.samples.length) { say("[data-at]", data.samples[sample][0]); say("pre", data.samples[sample][1]); }
  if (!timer) button.textContent = i < last ? "Train" : "Train again";
}
const stop = i => { clearTimeout(timer); timer = 0; show(i); };
const tell = () => say("[role=status]", slider.getAttribute("aria-valuetext"));
function next() {
  let i = Math.min(last, +slider.value + 1);
  if (still.matches) while (i < last && frames[i][4] === frames[i - 1][4]) i++;  // from evaluation to evaluation
  show(i);
  if (i < last) timer = setTimeout(next, still.matches ? 1500 : Math.max(40, 12000 / last));
  else { stop(last); tell(); }
}
button.addEventListener("click", () => {
  if (timer) { stop(+slider.value); tell(); return; }
  if (+slider.value === last) show(0);
  timer = setTimeout(next, 0); button.textContent = "Pause";
});
slider.addEventListener("input", () => stop(+slider.value));
addEventListener("beforeprint", () => stop(last)); show(0);"""


def training_player(run: Any, *, baselines: Mapping[str, float] | None = None) -> Widget:
    """Replay a run: its loss curves, learning rate and samples at every moment, with a "Train" button.

    run: a `runs.Run`, or a log as `Trainer.run` returns it (records with step and, where known, lr, loss, val_loss,
    sample). baselines: {name: loss}, dashed lines beside ln V. A long log is thinned until the widget weighs less
    than 40 kB; evaluations and, along the way, the lowest and the highest training losses stay.
    """
    records = getattr(run, "log", run)
    records = records if isinstance(records, Iterable) else ()
    log = [r for r in records if isinstance(r, dict) and "step" in r]
    if not (_numbers(log, "loss") or _numbers(log, "val_loss")) or log[0]["step"] >= log[-1]["step"]:
        raise CourseError("A player needs a log of at least two records at different steps, with a loss in them.")
    lines = {f"ln {run.vocab_size}": math.log(run.vocab_size)} if hasattr(run, "vocab_size") else {}
    about = f'<p class="lc-note">{escape(run.about())}</p>' if hasattr(run, "about") else ""
    for records, letters in ((240, 1000), (160, 600), (100, 400), (60, 300), (30, 200)):
        widget = _player(log, lines | dict(baselines or {}), records, letters, about)
        if len(widget.html.encode()) < MAX_BYTES:
            break
    return widget


def _player(log: list[dict[str, Any]], lines: Mapping[str, float], limit: int, letters: int, about: str) -> Widget:
    first, final = log[0]["step"], log[-1]["step"]
    losses = [log[i][k] for k in ("val_loss", "loss") for i in _numbers(log, k)] + list(lines.values())
    low, high = min(losses), min(max(losses), 2 * max(losses[0], *lines.values(), 0.1))  # what explodes leaves it
    low, high = low - 0.06 * (high - low), high + 0.08 * (high - low) + 0.001

    def xy(step: float, loss: float) -> tuple[float, float]:  # 1000 × 400, y downwards
        return round(1000 * (step - first) / (final - first), 1), round(400 * (high - loss) / (high - low), 1)

    keep, frames, samples = _thinned(log, limit), [], []
    told = set(_evenly([i for i in sorted(keep) if "sample" in log[i]], limit // 8))
    now = {"lr": "–", "loss": "–", "val_loss": "–"}  # what the last record that has it says
    for i, r in enumerate(log):
        now |= {k: format(r[k], ".3g" if k == "lr" else ".3f") for k in now if r.get(k) is not None}
        if i in told:
            samples.append((f"{r['step']:,}", str(r["sample"])[:letters]))
        if i in keep:
            frames.append((xy(r["step"], 0)[0], f"{r['step']:,}", *now.values(), max(0, len(samples) - 1)))
    end, svg = frames[-1], ""
    for key, name, dots in (("loss", "lc-train", False), ("val_loss", "lc-val", False), ("val_loss", "lc-dots", True)):
        points = [xy(log[i]["step"], log[i][key]) for i in _numbers(log, key) if i in keep]
        d = "".join(f"{'M' if dots or not i else 'L'}{x},{y}{'h0' * dots}" for i, (x, y) in enumerate(points))
        svg += f'<path class="{name}" data-curve d="{d}"/>' if d else ""
    svg += f'<path class="lc-ink" data-now d="M{end[0]},0V400"/>'
    label = '<span class="lc-{}" style="{}:{:.1f}%">{}</span>'.format
    marks = "".join(label("y", "top", xy(0, y)[1] / 4, f"{y:g}") for y in _ticks(low, high, 5))
    marks += "".join(label("x", "left", xy(x, 0)[0] / 10, f"{x:,g}") for x in _ticks(first, final, 5))
    for name, loss in lines.items():
        svg += f'<path class="lc-ink" d="M0,{xy(0, loss)[1]}H1000"/>'
        marks += label("base", "top", xy(0, loss)[1] / 4, f"{escape(name)} = {loss:.2f}")
    said = f"at step {end[1]} the training loss is {end[3]}, the validation loss {end[4]}"
    body = (
        '<div class="lc-play" hidden><button type="button">Train</button><input type="range" min="0" '
        f'max="{len(frames) - 1}" value="0" aria-label="moment of the training"></div>'
        '<small>loss in nats per token, by step</small><div class="lc-plot">'
        f'<svg role="img" aria-label="Loss in nats by step: {said}." viewBox="0 0 1000 400" preserveAspectRatio="none">'
        f'{svg}</svg>{marks}</div><div class="lc-read"><span>step <b data-step>{end[1]}</b></span>'
        f"<span>learning rate <b data-lr>{end[2]}</b></span>"
        f'<span><u style="color:var(--a)">—</u> training loss <b data-loss>{end[3]}</b></span>'
        f'<span><u style="color:var(--b)">●</u> validation loss <b data-val>{end[4]}</b></span></div>'
        '<span class="lc-hear" role="status" aria-live="polite"></span>'
    )
    if samples:
        body += f"<p>What it wrote at step <b data-at>{samples[-1][0]}</b>:</p>{_SAMPLE.format(escape(samples[-1][1]))}"
    data = {"frames": frames, "samples": samples}
    html = fragment(body + about, _PLAYER_JS, data, label="Replay of a training run", css=_CSS + _PLAYER_CSS)
    return Widget(html, f"Replay of a training run; {said} nats.")


def _numbers(log: list[dict[str, Any]], key: str) -> list[int]:
    """The records that have this number, and neither infinite nor nan."""
    return [i for i, r in enumerate(log) if r.get(key) is not None and math.isfinite(r[key])]


def _evenly(items: list[int], limit: int) -> list[int]:
    """At most `limit` (>= 2) of the items, with the first and the last."""
    return items if len(items) <= limit else [items[round(i * (len(items) - 1) / (limit - 1))] for i in range(limit)]


def _thinned(log: list[dict[str, Any]], limit: int) -> set[int]:
    """The records to keep: both ends, evaluations and samples, and of each piece the lowest and highest loss."""
    keep = {0, len(log) - 1, *_evenly([i for i, r in enumerate(log) if "val_loss" in r or "sample" in r], limit // 3)}
    rest = [i for i, r in enumerate(log) if r.get("loss") is not None]
    size = max(1, math.ceil(len(rest) / (limit // 3)))
    for piece in (rest[i : i + size] for i in range(0, len(rest), size)):
        ranked = sorted(piece, key=lambda i: (not math.isfinite(log[i]["loss"]), log[i]["loss"]))  # nan is worst
        keep |= {ranked[0], ranked[-1]}
    return keep


def _ticks(low: float, high: float, most: int) -> list[float]:
    """Round numbers from low to high, about `most` of them at most."""
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(power * m for m in (1, 2, 5, 10, 20) if (high - low) / (power * m) <= most)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
