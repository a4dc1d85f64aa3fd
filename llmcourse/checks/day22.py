"""Checker of day 22, the loop that writes.

The learner's loop gets a model that keeps a diary: what it was shown, in which mode, and whether autograd listened. Its
bet depends on the last token only and leaves two tokens to choose from, so that every drawn token tells which bet it
was drawn from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from . import Wrong, blame, call, exercise, tensor

Generate = Callable[[Any, Tensor, int], Any]
V, WINDOW, ROWS = 23, 6, 64
FAVORITE = 0.7  # probability of the likelier of the two tokens


@torch.no_grad()
def generate(model: nn.Module, idx: Tensor, max_new_tokens: int) -> Tensor:
    """Draw `max_new_tokens` for every row of `idx (B, T)`: `(B, T + max_new_tokens)`."""
    was_training = model.training
    model.eval()
    try:
        for _ in range(max_new_tokens):
            window = idx[:, -model.config.block_size :]  # type: ignore[union-attr, operator]
            probs = model(window)[:, -1].softmax(dim=-1)  # (B, V)
            token = torch.multinomial(probs, num_samples=1)  # (B, 1)
            idx = torch.cat((idx, token), dim=1)
    finally:
        model.train(was_training)
    return idx


@dataclass
class Forward:
    """One call of the model."""

    idx: Tensor  # (B, T)
    training: bool
    records: bool  # whether autograd listened


class Diary(nn.Module):
    """After token i it bets FAVORITE on 3 i + 1, the rest on 3 i + 8, and nothing on others (modulo V)."""

    def __init__(self, training: bool) -> None:
        super().__init__()
        self.config = SimpleNamespace(vocab_size=V, block_size=WINDOW)
        self.scale = nn.Parameter(torch.ones(()))
        self.forwards: list[Forward] = []
        self.train(training)

    def forward(self, idx: Tensor) -> Tensor:
        if not isinstance(idx, Tensor) or idx.ndim != 2 or idx.dtype != torch.int64:
            what = f"{tuple(idx.shape)} of {idx.dtype}" if isinstance(idx, Tensor) else type(idx).__name__
            raise Wrong(f"The model reads token ids of shape (B, T), int64; yours calls it with {what}.")
        T = idx.shape[1]
        if T == 0:
            raise Wrong("The model is handed a window of 0 tokens: idx[:, -block_size:] holds the last ones.")
        if T > WINDOW:
            raise Wrong(self.too_long(T))
        self.forwards.append(Forward(idx.clone(), self.training, torch.is_grad_enabled()))
        one, two = candidates(idx)
        logits = torch.full((*idx.shape, V), -40.0)
        logits.scatter_(-1, one[..., None], torch.tensor(FAVORITE).log().item())
        logits.scatter_(-1, two[..., None], torch.tensor(1 - FAVORITE).log().item())
        return logits * self.scale

    def too_long(self, T: int) -> str:
        """What to say about a window of T tokens."""
        if T == WINDOW + 1 and len(self.forwards) == 1:
            return (
                f"The crop stands before the loop, so it happens once: at the second step the model is handed {T} "
                f"tokens again. Crop in every round."
            )
        if T == WINDOW + 1 and not self.forwards:
            return f"The window is one too long: block_size is {WINDOW}, and the model is handed {T} tokens."
        return (
            f"The model reads {WINDOW} tokens (block_size) and is handed {T}: crop what it reads in every round, "
            "idx[:, -model.config.block_size:]."
        )


def candidates(idx: Tensor) -> tuple[Tensor, Tensor]:
    """The two tokens that may follow each token: the likelier one and the other."""
    return (3 * idx + 1) % V, (3 * idx + 8) % V


@exercise(
    "day22",
    title="A loop that never overreads",
    signature="generate(model, idx, max_new_tokens)",
    hints=[
        "In each round: window = idx[:, -model.config.block_size:], the scores of its last position model(window)[:, "
        "-1], softmax(dim=-1), torch.multinomial(probs, 1), and torch.cat((idx, token), dim=1).",
        "Two names: idx is the whole text and only ever grows; window is what the model reads in this round. Return "
        "idx.",
        "Around the loop: remember model.training, then model.eval(); at the end model.train(what_you_remembered). "
        "@torch.no_grad() above the function takes care of the gradients.",
    ],
    solution=generate,
    right="It reads at most block_size tokens, draws with the model's chances, keeps the prompt and leaves the model "
    "as it was.",
)
def check_generate(learner: Generate) -> None:
    short = texts(2)
    first = judge(learner, short, 3, training=False)  # stays within the window
    judge(learner, texts(2 * WINDOW), 4, training=False)  # begins beyond it
    grown = judge(learner, texts(WINDOW - 2), 8, training=False)  # grows beyond it
    judge_chances(grown, WINDOW - 2)
    if torch.equal(first, judge(learner, short, 3, training=False)):
        raise Wrong("Two calls draw exactly the same tokens: leave the seed to the caller and set none inside.")
    judge(learner, texts(3), 2, training=True)
    with blame("It fails for a single row"):
        judge(learner, texts(3, rows=1), 2, training=False)
    with blame("It fails when 0 new tokens are wanted"):
        judge(learner, short, 0, training=False)


def texts(T: int, rows: int = ROWS) -> Tensor:
    return torch.randint(V, (rows, T))


def judge(learner: Generate, idx: Tensor, n: int, training: bool) -> Tensor:
    """One call of the learner's loop, everything looked at but the chances; returns what it wrote."""
    model = Diary(training)
    try:
        result = call(learner, model=model, idx=idx, max_new_tokens=n)
    except RuntimeError as e:
        if "probability tensor" in str(e):
            raise Wrong("multinomial is given scores, some of them negative: the softmax comes before it.") from e
        raise
    judge_windows(model, idx, n)
    out = tensor_of(result, idx, n)
    judge_reading(model, out, idx.shape[1])
    judge_draws(out, idx.shape[1])
    if any(f.training for f in model.forwards):
        raise Wrong("A model that comes in training mode writes with dropout on: call model.eval() before the loop.")
    if any(f.records for f in model.forwards):
        raise Wrong("Everything is kept for a backward pass that never comes: put torch.no_grad() around the loop.")
    if training and not model.training:
        raise Wrong(
            "The model came in training mode and is left in evaluation mode: the caller's training would go on "
            "without dropout. Remember model.training, and put it back."
        )
    if model.training and not training:
        raise Wrong("The model came in evaluation mode and is left in training mode: put back the mode that it had.")
    return out


def judge_windows(model: Diary, idx: Tensor, n: int) -> None:
    """Mistakes that show in how often the model was asked, and in the first window."""
    seen = model.forwards
    if n and not seen:
        raise Wrong("The model is never asked: each new token needs model(window).")
    B, T = idx.shape
    for f in seen:
        if f.idx.shape[0] != B:
            raise Wrong(f"The model is handed {f.idx.shape[0]} of {B} rows: a batch goes through it as a whole.")
    if n > 1 and len(seen) == 1:
        raise Wrong(f"The model is asked once for {n} tokens: each needs a new reading, of a text that has grown.")
    if not n:
        return
    window, shown = idx[:, -WINDOW:], seen[0].idx
    if torch.equal(shown, window):
        return
    if T > WINDOW and torch.equal(shown, idx[:, :WINDOW]):
        raise Wrong(
            f"Of a prompt of {T} tokens it reads the first {WINDOW}: the last ones count, idx[:, -block_size:]."
        )
    if torch.equal(shown, idx[:, -1:]):
        raise Wrong("The model is handed the last token alone: without the others it has no context.")
    if torch.equal(shown, idx[:, -WINDOW + 1 :]):
        raise Wrong(f"It reads {WINDOW - 1} tokens where the model can read {WINDOW}: the crop is one too short.")
    if shown.shape[1] > window.shape[1]:
        raise Wrong("A prompt shorter than the window is filled up: padding moves it to other places; leave it short.")
    raise Wrong(
        f"For a prompt of {T} tokens the model should read its last {window.shape[1]}, and reads others "
        f"({shown.shape[1]})."
    )


def tensor_of(result: Any, idx: Tensor, n: int) -> Tensor:
    """The result as (B, T + n), with the prompt in front."""
    B, T = idx.shape
    if isinstance(result, Tensor) and result.ndim == 2 and result.shape[0] == B and result.shape[1] != T + n:
        length = result.shape[1]
        if length == n:
            raise Wrong("It returns the new tokens only: the prompt belongs in front of them.")
        if T > WINDOW and length <= WINDOW + n:
            raise Wrong(
                f"The crop also cut what you return: {length} instead of {T} + {n} tokens. Crop a copy for the model "
                "to read, not idx itself."
            )
        if length in (T + n - 1, T + n + 1):
            less = "one too few" if length < T + n else "one too many"
            raise Wrong(f"It appends {length - T} tokens instead of {n}, {less}: the loop is range(max_new_tokens).")
    out = tensor(result, (B, T + n), torch.int64, "(B, T + max_new_tokens)")
    if not torch.equal(out[:, :T], idx):
        raise Wrong("The prompt is not what stands in front of the result: append new tokens at the end, dim=1.")
    return out


def judge_reading(model: Diary, out: Tensor, T: int) -> None:
    """Whether each reading showed the text as it then was."""
    for step, f in enumerate(model.forwards[: out.shape[1] - T]):
        text = out[:, : T + step]
        if torch.equal(f.idx, text[:, -WINDOW:]):
            continue
        if torch.equal(f.idx, text[:, :T][:, -WINDOW:]):
            raise Wrong("The model reads the same prompt in every round: what it has just written is not handed back.")
        if torch.equal(f.idx, text[:, -1:]):
            raise Wrong("From the second round on the model is handed the newest token alone: its context is lost.")
        if torch.equal(f.idx, text[:, :WINDOW]):
            raise Wrong("Past block_size the model goes on reading the beginning: it is the last tokens that count.")
        raise Wrong(f"In round {step + 1} the model does not read the last tokens of the text as it then was.")


def judge_draws(out: Tensor, T: int) -> None:
    """Whether each new token is one of the two that the right bet allows."""
    if out.shape[1] == T:
        return
    new = out[:, T:]
    if possible(new, out[:, T - 1 : -1]):
        return
    firsts = [out[:, max(0, t - WINDOW)] for t in range(T, out.shape[1])]
    if possible(new, torch.stack(firsts, dim=1)):
        raise Wrong("The bet of the first position is used, logits[:, 0]: the next token follows the last one.")
    if T > 1 and possible(new, out[:, T - 2 : -2]):
        raise Wrong("The bet of the last but one position is used: the newest token stands at logits[:, -1].")
    raise Wrong(
        "It draws tokens to which the model gives no chance: use the row's own scores at the last position, and "
        "softmax over the vocabulary, dim=-1."
    )


def possible(new: Tensor, after: Tensor) -> bool:
    one, two = candidates(after)
    return bool(((new == one) | (new == two)).all())


def judge_chances(out: Tensor, T: int) -> None:
    """Whether the favorite is drawn as often as the model says."""
    hit = (out[:, T:] == candidates(out[:, T - 1 : -1])[0]).double()  # (B, n)
    share = hit.mean().item()
    if share == 1:
        raise Wrong("It always takes the likeliest token (argmax): draw, with torch.multinomial(probs, 1).")
    if share == 0:
        raise Wrong("It never takes the likeliest token: is the sign of the scores turned round?")
    if bool((hit == hit[:1]).all()):
        raise Wrong("All rows get the same throw of the dice: each row of the batch draws its own token.")
    if abs(share - FAVORITE) > 0.1:
        raise Wrong(
            f"A token to which the model gives {FAVORITE:.0%} is drawn in {share:.0%} of the cases: softmax, and "
            "nothing else, turns the scores into chances."
        )
