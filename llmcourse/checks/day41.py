"""Checkers of day 41: a LoRA layer that starts as the identity and merges exactly, and labels for an answer only.

The layer is judged from outside: which parameters train, what a forward pass gives before and after they are set by
hand, and what `merge` returns. The two factors are told apart by their shapes, so their names are free.
"""

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import Wrong, blame, call, exercise, tensor

IN, OUT, RANK, ALPHA = 6, 10, 2, 6.0  # all different, so that a mistaken dimension shows
IGNORE = -100


class LoRALinear(nn.Module):
    """`base(x)` plus `alpha / r` times `B A x`; only A `(r, in)` and B `(out, r)` train, and B starts at 0."""

    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)  # the same object, frozen
        self.scale = alpha / r
        self.A = nn.Parameter(torch.randn(r, base.in_features) / math.sqrt(base.in_features))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)

    @torch.no_grad()
    def merge(self) -> nn.Linear:
        """A new plain layer with the same output; the base stays as it is."""
        merged = copy.deepcopy(self.base)
        merged.weight += self.scale * self.B @ self.A  # (out, r) @ (r, in)
        return merged


@exercise(
    "day41",
    title="A LoRA layer",
    signature="LoRALinear(base, r, alpha)",
    wants="class",
    hints=[
        "In __init__: call super().__init__(), keep base itself (no copy), freeze it with base.requires_grad_(False), "
        "and make A (r, in) and B (out, r) as nn.Parameter.",
        "One of the two factors starts random and the other at zero. The forward pass is base(x) plus alpha / r times "
        "x @ A.T @ B.T; the product B @ A need not be formed.",
        "merge() copies the base (copy.deepcopy), adds alpha / r times B @ A to the copy's weight under "
        "torch.no_grad(), and returns the copy. Its bias comes along.",
    ],
    solution=LoRALinear,
    right="It starts as its base, trains A and B alone, and merges into one plain layer without touching the base.",
)
def check_lora(learner: Callable[..., Any]) -> None:
    base = fresh(IN, OUT)
    layer, x = build(learner, base, RANK, ALPHA), torch.randn(3, 4, IN)
    down, up = factors(layer, base)
    check_sharing(layer, base, x)
    check_start(layer, base, x, down, up)
    for p in (down, up):
        p.data.normal_()
    check_formula(layer, base, x, low_rank(down, up))
    check_merge(layer, base, x, low_rank(down, up), down, up)
    for n_in, n_out, r, alpha, bias in ((8, 8, 1, 1.0, True), (5, 9, 3, 16.0, False)):
        with blame(f"It is right for a layer of {IN} to {OUT} with bias, but fails for {n_in} to {n_out}, bias={bias}"):
            base, x = fresh(n_in, n_out, bias), torch.randn(2, n_in)
            layer = build(learner, base, r, alpha)
            for p in trainable(layer):
                p.data.normal_()
            with torch.no_grad():
                merge: Any = layer.merge
                if not same(layer(x), merge()(x)):
                    raise Wrong(f"It merges {IN} to {OUT} features exactly, but not {n_in} to {n_out}, r = {r}.")


def fresh(n_in: int, n_out: int, bias: bool = True) -> nn.Linear:
    return nn.Linear(n_in, n_out, bias=bias)


def build(learner: Callable[..., Any], base: nn.Linear, r: int, alpha: float) -> nn.Module:
    layer = learner(base, r, alpha)
    if not isinstance(layer, nn.Module):
        raise Wrong("The class is no nn.Module: write class LoRALinear(nn.Module), so that the model finds A and B.")
    if not callable(getattr(layer, "merge", None)):
        raise Wrong("The layer has no method merge(self): it returns a plain nn.Linear that does the same.")
    return layer


def trainable(layer: nn.Module) -> list[nn.Parameter]:
    return [p for p in layer.parameters() if p.requires_grad]


def factors(layer: nn.Module, base: nn.Linear) -> tuple[nn.Parameter, nn.Parameter]:
    """A and B, known by their shapes."""
    found = trainable(layer)
    if any(p is base.weight for p in found):
        raise Wrong("The base still trains: its weight has requires_grad=True; freeze it, as LoRA does.")
    if any(p is base.bias for p in found):
        raise Wrong("The weight of base is frozen, but its bias still trains: base.requires_grad_(False) does both.")
    if not found:
        raise Wrong("Nothing in the layer trains: A and B must be nn.Parameter (and not be frozen with the base).")
    shapes = sorted(tuple(p.shape) for p in found)
    if (OUT,) in shapes:
        raise Wrong("The layer has a new bias that trains: the update is a product of two matrices and nothing else.")
    if (OUT, IN) in shapes or (IN, OUT) in shapes:
        raise Wrong("A full matrix trains, as large as the base's: it should be two thin ones, (r, in) and (out, r).")
    down = [p for p in found if tuple(p.shape) in ((RANK, IN), (IN, RANK))]
    up = [p for p in found if tuple(p.shape) in ((OUT, RANK), (RANK, OUT))]
    if len(found) != 2 or len(down) != 1 or len(up) != 1:
        raise Wrong(
            f"For {IN} to {OUT} features and r = {RANK} two matrices should train, (r, in) = ({RANK}, {IN}) and "
            f"(out, r) = ({OUT}, {RANK}); here it is {', '.join(map(str, shapes))}."
        )
    return down[0], up[0]


def low_rank(down: Tensor, up: Tensor) -> Tensor:
    """B A `(out, in)`, whichever way round the two are stored."""
    down = down if down.shape[0] == RANK else down.T
    up = up if up.shape[1] == RANK else up.T
    return (up @ down).detach()


def check_sharing(layer: nn.Module, base: nn.Linear, x: Tensor) -> None:
    """A layer that keeps the base itself follows it when its weight changes."""
    before = output(layer, x)
    kept = base.weight.detach().clone()
    base.weight.data.add_(1.0)
    after = output(layer, x)
    base.weight.data.copy_(kept)
    if same(before, after):
        raise Wrong(
            "The layer does not use base's own weight: it works on a copy (or on none), so a hundred adapters would "
            "store the big matrix a hundred times; keep base itself."
        )


def output(layer: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return tensor(call(layer, x=x), (*x.shape[:-1], OUT), meaning="(..., out)")


def same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, rtol=1e-4, atol=1e-4)


def check_start(layer: nn.Module, base: nn.Linear, x: Tensor, down: Tensor, up: Tensor) -> None:
    with torch.no_grad():
        wanted = base(x)
    if not down.any() and not up.any():
        raise Wrong("A and B both start at zero, so the gradient of each is zero too: the layer can never learn.")
    if same(output(layer, x), wanted):
        return
    if down.any() and up.any():
        raise Wrong("A and B both start random, so the layer does not start as its base: one of them must be zero.")
    if base.bias is not None and same(output(layer, x), wanted - base.bias.detach()):
        raise Wrong("The bias of the base is lost in the forward pass: call base(x) instead of using its weight alone.")
    raise Wrong("One factor is zero, and still the layer does not start as its base: its output should be base(x).")


def check_formula(layer: nn.Module, base: nn.Linear, x: Tensor, product: Tensor) -> None:
    """With A and B set by hand: is the output base(x) + alpha / r * B A x, and if not, which factor is it?"""
    with torch.no_grad():
        added, update = output(layer, x) - base(x), x @ product.T
    factor = float((added * update).sum() / (update * update).sum())
    if not torch.allclose(added, factor * update, rtol=1e-3, atol=1e-3):
        if not added.any():
            raise Wrong("A and B have no effect on the output: is B @ A computed once in __init__, or never added?")
        raise Wrong("What is added to base(x) is no multiple of x @ A.T @ B.T: is there something between A and B?")
    if abs(factor) < 1e-6:
        raise Wrong("A and B have no effect on the output: is B @ A computed once in __init__, or never added?")
    named = {
        ALPHA / RANK: "",
        1.0: "The factor alpha / r is missing: the update is added as it is.",
        RANK / ALPHA: "The update is multiplied by r / alpha: it is the wrong way round, alpha / r.",
        ALPHA: "The update is multiplied by alpha and not divided by r.",
        1 / RANK: "The update is divided by r but not multiplied by alpha.",
        ALPHA / math.sqrt(RANK): "The update is divided by the root of r: that is rsLoRA; LoRA divides by r.",
    }
    for value, sentence in named.items():
        if math.isclose(factor, value, rel_tol=1e-3):
            if sentence:
                raise Wrong(sentence)
            return
    raise Wrong(f"The update is multiplied by {factor:.3g}; for alpha = {ALPHA:g}, r = {RANK} it should be alpha / r.")


def check_merge(
    layer: nn.Module, base: nn.Linear, x: Tensor, product: Tensor, down: nn.Parameter, up: nn.Parameter
) -> None:
    weight, bias, scale = base.weight.detach().clone(), base.bias.detach().clone(), ALPHA / RANK
    wanted = output(layer, x)
    with blame("merge() fails; B @ A must have the shape of base.weight, (out, in)"):
        merged: Any = layer.merge()  # type: ignore[operator]
    if not torch.equal(base.weight, weight) or not torch.equal(base.bias, bias):
        raise Wrong(
            "merge() writes into the base itself: called twice it adds the adapter twice, and other adapters then "
            "stand on a changed base; add to a copy."
        )
    if merged is None:
        raise Wrong("merge() returns None: return the new plain layer.")
    if not isinstance(merged, nn.Linear):
        raise Wrong(f"merge() returns something of type {type(merged).__name__}: it should be a plain nn.Linear.")
    if merged is base:
        raise Wrong("merge() returns the base as it is, without the adapter.")
    if merged.bias is None or not same(merged.bias.detach(), bias):
        raise Wrong("The merged layer has lost the bias of the base: copy it too.")
    if not torch.equal(output(layer, x), wanted):
        raise Wrong("After merge() the layer itself gives another output: merge() should only read A and B.")
    change = merged.weight.detach() - weight
    if not same(output(merged, x), wanted):
        if not change.any():
            raise Wrong("The merged weight is the base's: A and B are not in it.")
        if same(change, product):
            raise Wrong("merge() adds B @ A without the factor alpha / r, which the forward pass has.")
        if same(change, 2 * scale * product):
            raise Wrong("merge() adds the adapter twice.")
        if same(change, -scale * product):
            raise Wrong("merge() takes the adapter off instead of adding it.")
        if same(merged.weight.detach(), scale * product):
            raise Wrong("The merged weight is the update alone: the base's weight is missing in it.")
        raise Wrong("The merged layer gives another output than the layer with its adapter.")


# ---- the labels of an answer -------------------------------------------------------------------------------------


def answer_only(prompt: list[int], answer: list[int]) -> tuple[Tensor, Tensor]:
    """Inputs and targets `(T,)` of one dialog; targets that belong to the prompt are -100."""
    ids = torch.tensor(prompt + answer)
    x, y = ids[:-1], ids[1:].clone()  # y[t] is the token after x[t]
    y[: len(prompt) - 1] = IGNORE  # these targets are prompt tokens
    return x, y


@exercise(
    "day41b",
    title="Loss on the answer only",
    signature="answer_only(prompt, answer)",
    hints=[
        "Join prompt and answer to one row of ids; x is all but the last, y all but the first.",
        f"Fill the targets that are tokens of the prompt with {IGNORE}. The first token of the answer is predicted at "
        "the last position of the prompt, so that target stays.",
        "A prompt of P tokens has P - 1 tokens that are a target (the first is never one): y[: P - 1] = -100.",
    ],
    solution=answer_only,
    right="Every token of the answer counts, the first one too, and no token of the prompt.",
)
def check_answer_only(learner: Callable[..., Any]) -> None:
    for prompt, answer in (([11, 12, 13, 14], [21, 22, 23]), ([7], [8, 9]), ([5, 6, 7], [8])):
        result = learner(list(prompt), list(answer))
        if not isinstance(result, tuple | list) or len(result) != 2:
            raise Wrong("Return two tensors, x and y: return x, y.")
        T = len(prompt) + len(answer) - 1
        x, y = result
        if isinstance(x, list) or isinstance(y, list):
            raise Wrong("x and y are lists: return two tensors of whole numbers.")
        if isinstance(y, Tensor) and tuple(y.shape) == (T + 1,):
            raise Wrong("y is as long as prompt and answer together: it is not moved by one against x.")
        x, y = (tensor(v, (T,), torch.int64, "(T,), with T = prompt + answer - 1,") for v in (x, y))
        ids, P = torch.tensor(prompt + answer), len(prompt)
        if (x == IGNORE).any():
            raise Wrong(f"There is {IGNORE} among the inputs x: only targets are masked, the model reads the prompt.")
        if not torch.equal(x, ids[:-1]):
            raise Wrong("x should be prompt and answer in one row, without the last token.")
        if len(prompt) == 4:
            diagnose_targets(y, ids, P)
        expected = answer_only(prompt, answer)[1]
        if not torch.equal(y, expected):
            raise Wrong(f"It is right for a prompt of 4 tokens, but not for one of {P} and an answer of {len(answer)}.")


def diagnose_targets(y: Tensor, ids: Tensor, P: int) -> None:
    full = ids[1:]
    if torch.equal(y, full):
        raise Wrong("No target is masked: the model is trained to write the prompts as well.")
    masked = y == IGNORE
    if not masked.any():
        if (y == 0).any() or (y == -1).any():
            raise Wrong(f"Masked targets should be {IGNORE}, the number that cross_entropy ignores; 0 is a token.")
        if torch.equal(y, ids[:-1]):
            raise Wrong("The targets are the inputs: y must be one token ahead.")
    if (y == ids[:-1])[~masked].all() and not masked.all():
        raise Wrong("The targets are masked, but they are the inputs themselves: y must be one token ahead.")
    if masked.all():
        raise Wrong("Every target is masked: nothing is left to learn from.")
    if masked[P - 1 :].all():
        raise Wrong("The answer is masked and the prompt is learned: it is the wrong way round.")
    if masked[P - 1]:
        raise Wrong(
            "The first token of the answer is masked: its target stands at the last position of the prompt, so one "
            "target fewer must be masked."
        )
    if masked[-1]:
        raise Wrong("The last token of the answer is masked: the model would not learn where to stop.")
    if not masked[: P - 1].all():
        raise Wrong("Some tokens of the prompt are still targets: mask the first P - 1 targets (P tokens of prompt).")
    if not torch.equal(y[P - 1 :], full[P - 1 :]):
        raise Wrong("The targets of the answer are not its tokens.")
