"""Checkers of day 40: a temperature that hits a noisy target, and the cost of a text, given a prompt.

`tune` meets curves that no straight line describes, with noise; its calls are counted and their places are looked
at. `conditional_nll` meets a small model with random weights, whose bets differ from place to place.
"""

import math
import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..model import GPT, GPTConfig
from ..tokenizer import CharTokenizer
from . import Wrong, blame, exercise

Measure = Callable[[float], float]
Tune = Callable[[Measure, float, float, float], Any]
Nll = Callable[[GPT, CharTokenizer, str, str], Any]

CALLS, NOISE, NEAR = 100, 0.02, 0.03


def tune(measure: Measure, target: float, low: float, high: float) -> Any:
    """A T in [low, high] at which the mean of `measure` is near `target`."""
    for _ in range(8):  # 1/256 of the interval is far below the noise
        middle = (low + high) / 2
        mean = sum(measure(middle) for _ in range(12)) / 12
        if mean < target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def bent(T: float) -> float:
    """Rises from 0.33 at 0.3 to 0.95 at 1.5, steeply in the middle of the lower half."""
    return 0.3 + 0.65 / (1 + math.exp(-9 * (T - 0.62)))


class Counted:
    """A noisy measure that counts its calls."""

    def __init__(self, mean: Measure, seed: int, low: float, high: float) -> None:
        self.mean, self.rng, self.low, self.high, self.calls = mean, random.Random(seed), low, high, 0

    def __call__(self, T: float) -> float:
        if isinstance(T, bool) or not isinstance(T, int | float) or not math.isfinite(T):
            raise Wrong(f"You call measure with {T!r:.40}: it takes one number, the temperature.")
        if not self.low - 1e-9 <= T <= self.high + 1e-9:
            raise Wrong(
                f"You call measure at {T:.3g}, outside of the interval from {self.low:g} to {self.high:g}: do you use "
                "low and high, and nothing beyond?"
            )
        self.calls += 1
        if self.calls > CALLS:
            raise Wrong(
                f"More than {CALLS} calls of measure: a loop that waits for an exact hit never ends with noise, and a "
                "fine grid is too dear; halve the interval a fixed number of times."
            )
        return self.mean(T) + self.rng.gauss(0, NOISE)


def ask(learner: Tune, mean: Measure, target: float, low: float, high: float, seed: int) -> float:
    counted = Counted(mean, seed, low, high)
    with blame("Your function stops with an error, for a rising measure and a target"):
        said = learner(counted, target, low, high)
    if said is None:
        raise Wrong("Your function returned None: is the return line missing, or inside the loop's if?")
    try:
        said = float(said)
    except (TypeError, ValueError):
        raise Wrong(f"Your function returned {said!r:.40}; wanted is one number, the temperature.") from None
    if counted.calls == 0:
        raise Wrong("Your function never calls measure: without measuring, nothing can be hit.")
    return said


@exercise(
    "day40",
    title="Hit a target diversity",
    signature="tune(measure, target, low, high)",
    hints=[
        "Look at the middle: if the measurement there is below the target, the answer lies in the upper half.",
        "Average several calls at each middle before you throw a half away; the error falls with the root of their "
        "number.",
        "Eight halvings with twelve calls each are 96 calls. Return the middle of what is left.",
    ],
    solution=tune,
    right="It finds the place on a bent curve, through the noise, with the calls you had.",
)
def check_tune(learner: Tune) -> None:
    target = 0.78
    said = ask(learner, bent, target, 0.3, 1.5, 0)
    judge_first(said, target)
    check_other_interval(learner)
    check_reach(learner)
    check_noise(learner)


def judge_first(said: float, target: float) -> None:
    if math.isclose(said, target, abs_tol=0.004):
        raise Wrong("Your function returns the target itself, a diversity; wanted is the temperature that gives it.")
    if not 0.3 - 1e-9 <= said <= 1.5 + 1e-9:
        raise Wrong(f"Your function returns {said:.3g}, which does not lie between low and high.")
    error = bent(said) - target
    if abs(error) <= NEAR:
        return
    if said > 1.49 or said < 0.31:
        raise Wrong(
            f"Your function ends at the {'upper' if said > 1 else 'lower'} bound though the target lies between: a "
            "measurement below the target means that T has to rise (low moves up), one above that it has to fall."
        )
    if math.isclose(said, 0.9, abs_tol=0.02):
        raise Wrong("Your function returns the middle of the interval: after one look it has to go on halving.")
    line = 0.3 + 1.2 * (target - bent(0.3)) / (bent(1.5) - bent(0.3))
    if abs(said - line) < 0.12 and abs(error) > 0.05:
        raise Wrong(
            "Your function draws a straight line between the bounds, and the curve is bent: measure at the place that "
            "you found, and go on from there."
        )
    raise Wrong(
        f"Your function returns {said:.2f}, where the mean is {abs(error):.2f} too {'high' if error > 0 else 'low'}: "
        "does it stop too early, or round?"
    )


def check_other_interval(learner: Tune) -> None:
    def wide(T: float) -> float:
        return 0.01 * T - 2

    said = ask(learner, wide, 0.35, 100.0, 300.0, 1)
    if abs(wide(said) - 0.35) > 0.06:
        raise Wrong(
            "On a wider interval (100 to 300) your function misses: is there a fixed step, a fixed start or a width "
            "at which it stops that belongs to temperatures only?"
        )


def check_reach(learner: Tune) -> None:
    for target, bound, name in ((0.05, 0.3, "low"), (1.25, 1.5, "high")):
        said = ask(learner, bent, target, 0.3, 1.5, 2)
        if abs(said - bound) > 0.05:
            raise Wrong(
                f"A target out of reach ({target}, {'below' if name == 'low' else 'above'} all values) gets "
                f"{said:.3g}: the nearest that you can offer is the bound {name}."
            )


def check_noise(learner: Tune) -> None:
    """Many targets and much luck: a single call a step misses now and then, an average hardly ever."""
    missed = 0
    for seed in range(120):
        target = 0.5 + 0.003 * seed
        missed += abs(bent(ask(learner, bent, target, 0.3, 1.5, 100 + seed)) - target) > NEAR
    if missed > 2:
        raise Wrong(
            f"Of 120 noisy targets your function misses {missed} by more than {NEAR}: a single measurement in the "
            "wrong direction throws away the right half; average several calls before you decide (and halve often "
            "enough)."
        )


# The cost of a text, given a prompt


def conditional_nll(model: GPT, tokenizer: CharTokenizer, prompt: str, text: str) -> float:
    """Mean nats a character of `text`, given `prompt`."""
    all_ids = tokenizer.encode(prompt) + tokenizer.encode(text)
    n = len(tokenizer.encode(text))
    x = torch.tensor(all_ids, device=next(model.parameters()).device)
    seen = x[:-1][-model.config.block_size :]  # the last token has no say
    with torch.no_grad():
        log_probs = model(seen[None])[0, -n:].log_softmax(-1)
    return -log_probs.gather(1, x[-n:, None]).mean().item()


def small_model() -> tuple[GPT, CharTokenizer]:
    """A model whose bets are sharp and differ from place to place, though it has learned nothing."""
    tokenizer = CharTokenizer.from_text("abcdefghij :\n")
    config = GPTConfig(vocab_size=tokenizer.vocab_size, block_size=24, n_layer=1, n_head=2, n_embd=16, dropout=0.0)
    generator = torch.Generator().manual_seed(40)
    model = GPT(config).eval()
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.copy_(0.6 * torch.randn(p.shape, generator=generator))
    return model, tokenizer


PROMPT, TEXT = "\nbad:\n", "a jade bid ace"
LONG = "\nabide:\nhe had a cab\nfeed:\n"  # with TEXT longer than the window of 24


def table(model: GPT, tokenizer: CharTokenizer, string: str) -> tuple[Tensor, Tensor]:
    """Log-probabilities `(T, V)` at every place of a string, and its ids."""
    x = torch.tensor(tokenizer.encode(string))
    with torch.no_grad():
        return model(x[None])[0].log_softmax(-1), x


def nats(log_probs: Tensor, x: Tensor) -> Tensor:
    """What each character after the first costs, `(T - 1,)`."""
    return -log_probs[:-1].gather(1, x[1:, None])[:, 0]


@exercise(
    "day40b",
    title="The cost of a text",
    signature="conditional_nll(model, tokenizer, prompt, text)",
    hints=[
        "Encode prompt and text, join them, and leave out the last token of what the model reads: nothing follows it.",
        "The logits at position i are bets on token i + 1. Of the places the model reads, the last len(text) are those "
        "that bet on the text.",
        "x = ids[:-1][-block_size:]; log_probs = model(x[None])[0, -n:].log_softmax(-1); then gather the ids of the "
        "text, minus, mean.",
    ],
    solution=conditional_nll,
    right="Only the text's own characters count, with the prompt in view, and no more than the window holds.",
)
def check_nll(learner: Nll) -> None:
    model, tokenizer = small_model()
    said = number(learner, model, tokenizer, PROMPT, TEXT)
    judge_nll(said, model, tokenizer)
    one = number(learner, model, tokenizer, "a", "b")
    if not close(one, conditional_nll(model, tokenizer, "a", "b")):
        raise Wrong("For a prompt and a text of one character each the result is off: check the ends of your slices.")
    long = number(learner, model, tokenizer, LONG, TEXT)
    judge_long(long, model, tokenizer)


def close(a: float, b: float) -> bool:
    return math.isclose(a, b, abs_tol=2e-4)


def number(learner: Nll, model: GPT, tokenizer: CharTokenizer, prompt: str, text: str) -> float:
    long = len(prompt) + len(text) > model.config.block_size + 1
    what = (
        "With a prompt that does not fit into the window your function stops with an error: keep the last block_size "
        "tokens"
        if long
        else "Your function stops with an error for a short prompt and a short text"
    )
    with blame(what):
        said = learner(model, tokenizer, prompt, text)
    if said is None:
        raise Wrong("Your function returned None: is there a return line at its end?")
    if isinstance(said, Tensor):
        if said.numel() != 1:
            raise Wrong(
                f"Your function returned a tensor of shape {tuple(said.shape)}: wanted is the mean over the text, one "
                "number."
            )
        said = said.item()
    try:
        return float(said)
    except (TypeError, ValueError):
        raise Wrong(f"Your function returned something of type {type(said).__name__}; wanted is a number.") from None


def judge_nll(said: float, model: GPT, tokenizer: CharTokenizer) -> None:
    log_probs, x = table(model, tokenizer, PROMPT + TEXT)
    each, n, P = nats(log_probs, x), len(TEXT), len(PROMPT)  # each[i] is the cost of token i + 1
    right = each[-n:].mean().item()
    if close(said, right):
        return
    own = table(model, tokenizer, TEXT)
    full = model(x[None])[0].detach()  # (T, V), logits
    wrong_axis = -full[P - 1 : -1].log_softmax(0).gather(1, x[P:, None]).mean().item()
    wrong_axis_all = -full.log_softmax(0)[P - 1 : -1].gather(1, x[P:, None]).mean().item()
    wrong_axis_most = -full[:-1].log_softmax(0)[P - 1 :].gather(1, x[P:, None]).mean().item()
    here = -log_probs[P:].gather(1, x[P:, None]).mean().item()
    probs = log_probs[P - 1 : -1].exp().gather(1, x[P:, None])
    raw = -full[P - 1 : -1].gather(1, x[P:, None]).mean().item()
    swapped, y = table(model, tokenizer, TEXT + PROMPT)
    faults = (
        (-right, "The sign is wrong: log-probabilities are negative, a cost is minus their mean."),
        (each.mean().item(), "Your mean runs over the prompt's own characters too: they are given, and cost nothing."),
        (each[-n:].sum().item(), "That is the sum over the text: wanted is the mean, nats a character."),
        (
            each[-n:].sum().item() / (n + P),
            "You divide by the length of prompt and text together: only the text's characters are counted.",
        ),
        (
            each[-n:].sum().item() / (n + P - 1),
            "You divide by the number of all bets: only those on the text are counted.",
        ),
        (
            each[-n + 1 :].mean().item(),
            "The first character of the text is missing: the bet on it stands at the prompt's last position.",
        ),
        (
            each[-n - 1 :].mean().item(),
            "One character too many: the last one of the prompt is counted as if it belonged to the text.",
        ),
        (each[-n:-1].mean().item(), "The last character of the text is missing: the bet on it stands a place before."),
        (
            here,
            "Off by one: the logits at a position bet on the *next* token, and you ask them about the token that "
            "stands there.",
        ),
        (
            nats(*own).mean().item(),
            "The prompt is not in view: you score the text alone, from its second character on.",
        ),
        (
            right / math.log(2),
            "That is in bits: the natural logarithm gives nats.",
        ),
        (
            math.exp(right),
            "That is the perplexity: leave out the exponential.",
        ),
        (
            -math.log(probs.mean().item()),
            "You average the probabilities and take the logarithm then: take the logarithm of each, and average those.",
        ),
        (1 - probs.mean().item(), "You return one minus a probability: wanted is minus the logarithm."),
        (probs.mean().item(), "You return a mean probability: wanted is minus the logarithm of each, averaged."),
        (raw, "The softmax is missing: logits are no log-probabilities."),
        (nats(swapped, y)[-P:].mean().item(), "Prompt and text have changed places."),
        (each[: P - 1].mean().item(), "You score the prompt, and the text is what is asked for."),
    )
    for value, sentence in faults:
        if close(said, value):
            raise Wrong(sentence)
    if any(close(said, value) for value in (wrong_axis, wrong_axis_all, wrong_axis_most)):
        raise Wrong("The softmax runs over the positions: it has to run over the vocabulary, the last dimension.")
    raise Wrong(
        "The result is not the mean cost of the text's characters: check which positions bet on them, and that the "
        "logarithm of the softmax is taken over the vocabulary."
    )


def judge_long(said: float, model: GPT, tokenizer: CharTokenizer) -> None:
    T, n = model.config.block_size, len(TEXT)
    if close(said, conditional_nll(model, tokenizer, LONG, TEXT)):
        return
    whole = LONG + TEXT
    one_less = conditional_nll(model, tokenizer, whole[-T:-n], TEXT)
    if close(said, one_less):
        raise Wrong(
            "You crop to block_size tokens and drop the last one afterwards, so the model sees one token of the prompt "
            "less than fits: drop the last token first."
        )
    log_probs, x = table(model, tokenizer, whole[: T + 1][:T])
    if close(said, nats(log_probs, x).mean().item()) or close(said, nats(log_probs, x)[-n:].mean().item()):
        raise Wrong("When it is too long you keep the beginning: the text stands at the end, keep that.")
    first = conditional_nll(model, tokenizer, LONG[: T - n], TEXT)
    if close(said, first) or close(said, conditional_nll(model, tokenizer, LONG[: T - n + 1], TEXT)):
        raise Wrong("Of a long prompt you keep the beginning; what stands right before the text is its end.")
    raise Wrong(
        "With a prompt longer than the window the result is another: the model should see the last block_size tokens "
        "before the last character, and all characters of the text count."
    )
