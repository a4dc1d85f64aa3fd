"""Day 41: the right answers pass in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.checks import check
from llmcourse.checks.day41 import LoRALinear, answer_only

Say = Callable[[], str]


class Transposed(nn.Module):
    """Factors stored the other way round, the zero in the first one, the base's matrix used directly."""

    def __init__(self, layer: nn.Linear, rank: int, alpha: float, dropout: float = 0.0) -> None:
        super().__init__()
        self.layer, self.factor = layer, alpha / rank
        layer.weight.requires_grad = False
        if layer.bias is not None:
            layer.bias.requires_grad = False
        self.down = nn.Parameter(torch.zeros(layer.in_features, rank))
        self.up = nn.Parameter(torch.randn(rank, layer.out_features))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.layer.weight + self.factor * (self.down @ self.up).T, self.layer.bias)

    def merge(self) -> nn.Linear:
        old = self.layer
        new = nn.Linear(old.in_features, old.out_features, bias=old.bias is not None)
        new.load_state_dict(old.state_dict())
        new.weight.data += self.factor * (self.down @ self.up).T
        return new


class Sublayers(nn.Module):
    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()
        self.base, self.r, self.alpha = base, r, alpha
        for p in base.parameters():
            p.requires_grad_(False)
        self.A = nn.Linear(base.in_features, r, bias=False)
        self.B = nn.Linear(r, base.out_features, bias=False)
        nn.init.zeros_(self.B.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.B(self.A(x)) * (self.alpha / self.r)

    def merge(self) -> nn.Linear:
        new = copy.deepcopy(self.base)
        with torch.no_grad():
            new.weight.addmm_(self.B.weight, self.A.weight, alpha=self.alpha / self.r)
        return new


@pytest.mark.parametrize("learner", [LoRALinear, Transposed, Sublayers])
def test_lora_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day41", learner), said()
    assert said().startswith("day41: right. ")


def variant(
    *, init: Any = None, forward: Any = None, merge: Any = None, scale: Any = None
) -> type[nn.Module]:
    """The reference with one part exchanged."""

    class Learner(LoRALinear):
        def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
            super().__init__(base, r, alpha)
            if scale:
                self.scale = scale(r, alpha)
            if init:
                init(self)

    if forward:
        Learner.forward = forward  # type: ignore[method-assign]
    if merge:
        Learner.merge = merge  # type: ignore[method-assign]
    return Learner


def both_random(s: Any) -> None:
    nn.init.normal_(s.B)


def both_zero(s: Any) -> None:
    nn.init.zeros_(s.A)


def copied(s: Any) -> None:
    s.base = copy.deepcopy(s.base)


def new_bias(s: Any) -> None:
    s.bias = nn.Parameter(torch.zeros(len(s.B)))


def full_matrix(s: Any) -> None:
    s.A = nn.Parameter(torch.zeros(s.base.weight.shape))


def square_factor(s: Any) -> None:
    s.A = nn.Parameter(torch.zeros(2, 2))


def plain_tensors(s: Any) -> None:
    A, B = s.A.data, s.B.data
    del s.A, s.B
    s.A, s.B = A, B


def fixed_product(s: Any) -> None:
    s.product = (s.B @ s.A).detach()


def without_bias(s: Any, x: Tensor) -> Tensor:
    return x @ s.base.weight.T + s.scale * (x @ s.A.T @ s.B.T)


def bent(s: Any, x: Tensor) -> Tensor:
    return s.base(x) + s.scale * ((x @ s.A.T).relu() @ s.B.T)


def no_base(s: Any, x: Tensor) -> Tensor:
    return s.base(x) * 2 + s.scale * (x @ s.A.T @ s.B.T)


def merged_with(change: Callable[[Any, Any], None]) -> Callable[[Any], Any]:
    def merge(s: Any) -> Any:
        new = copy.deepcopy(s.base)
        with torch.no_grad():
            change(s, new)
        return new

    return merge


def bias_lost(s: Any) -> nn.Linear:
    new = nn.Linear(s.base.in_features, s.base.out_features, bias=False)
    new.weight.data = s.base.weight + s.scale * s.B @ s.A
    return new


def into_base(s: Any) -> nn.Linear:
    s.base.weight.data += s.scale * (s.B @ s.A).data
    return s.base


class BaseTrains(LoRALinear):
    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__(base, r, alpha)
        base.requires_grad_(True)


class BiasTrains(LoRALinear):
    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__(base, r, alpha)
        if base.bias is not None:
            base.bias.requires_grad_(True)


class Plain:
    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        pass


class NoMerge(nn.Module):
    def __init__(self, base: nn.Linear, r: int, alpha: float) -> None:
        super().__init__()


WRONG_LORA: dict[str, tuple[Any, str]] = {
    "both random": (variant(init=both_random), "both start random"),
    "both zero": (variant(init=both_zero), "both start at zero"),
    "no factor": (variant(scale=lambda r, a: 1.0), "factor alpha / r is missing"),
    "inverted": (variant(scale=lambda r, a: r / a), "wrong way round, alpha / r"),
    "alpha only": (variant(scale=lambda r, a: a), "not divided by r"),
    "1 / r": (variant(scale=lambda r, a: 1 / r), "not multiplied by alpha"),
    "root of r": (variant(scale=lambda r, a: a / r**0.5), "rsLoRA"),
    "some other factor": (variant(scale=lambda r, a: 0.7), "multiplied by 0.7"),
    "base trains": (BaseTrains, "The base still trains"),
    "bias trains": (BiasTrains, "its bias still trains"),
    "a copy": (variant(init=copied), "works on a copy"),
    "a new bias": (variant(init=new_bias), "a new bias that trains"),
    "a full matrix": (variant(init=full_matrix), "A full matrix trains"),
    "other shapes": (variant(init=square_factor), "here it is (2, 2), (10, 2)"),
    "plain tensors": (variant(init=plain_tensors), "Nothing in the layer trains"),
    "product kept": (
        variant(init=fixed_product, forward=lambda s, x: s.base(x) + s.scale * (x @ s.product.T)),
        "A and B have no effect",
    ),
    "base's bias dropped": (variant(forward=without_bias), "The bias of the base is lost"),
    "base doubled": (variant(forward=no_base), "does not start as its base: its output should be base(x)"),
    "bent between": (variant(forward=bent), "something between A and B"),
    "merge into the base": (variant(merge=into_base), "merge() writes into the base"),
    "merge gives None": (variant(merge=lambda s: None), "merge() returns None"),
    "merge gives a tensor": (variant(merge=lambda s: s.base.weight + s.B @ s.A), "of type Tensor"),
    "merge gives the base": (variant(merge=lambda s: s.base), "returns the base as it is"),
    "merge without bias": (variant(merge=bias_lost), "has lost the bias"),
    "merge without factor": (
        variant(merge=merged_with(lambda s, new: new.weight.add_(s.B @ s.A))), "without the factor",
    ),
    "merge twice": (
        variant(merge=merged_with(lambda s, new: new.weight.add_(2 * s.scale * s.B @ s.A))), "adds the adapter twice.",
    ),
    "merge takes off": (
        variant(merge=merged_with(lambda s, new: new.weight.sub_(s.scale * s.B @ s.A))), "takes the adapter off",
    ),
    "merge is the update": (
        variant(merge=merged_with(lambda s, new: new.weight.copy_(s.scale * s.B @ s.A))), "the update alone",
    ),
    "merge transposed": (
        variant(merge=merged_with(lambda s, new: new.weight.add_(s.scale * (s.B @ s.A).T))), "merge() fails",
    ),
    "merge without adapter": (variant(merge=lambda s: copy.deepcopy(s.base)), "A and B are not in it"),
    "no module": (Plain, "is no nn.Module"),
    "no merge": (NoMerge, "has no method merge"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_LORA)
def test_lora_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day41", WRONG_LORA, mistake)


def test_lora_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day41", WRONG_LORA, least=20)


def by_list(prompt: list[int], answer: list[int]) -> Any:
    ids = [*prompt, *answer]
    y = [-100] * (len(prompt) - 1) + answer
    return torch.tensor(ids[:-1]), torch.tensor(y)


def by_where(prompt: list[int], answer: list[int]) -> Any:
    ids = torch.tensor(prompt + answer)
    belongs = torch.arange(len(ids)) < len(prompt)
    return ids[:-1], torch.where(belongs, -100, ids)[1:]


@pytest.mark.parametrize("learner", [answer_only, by_list, by_where])
def test_answer_only_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day41b", learner), said()


def masking(start: Any = 0, stop: Any = lambda p, a: p - 1, fill: int = -100, ahead: int = 1) -> Any:
    def learner(prompt: list[int], answer: list[int]) -> Any:
        ids = torch.tensor(prompt + answer)
        x, y = ids[:-1], (ids[1:] if ahead else ids[:-1]).clone()
        y[start if isinstance(start, int) else start(len(prompt)) : stop(len(prompt), len(answer))] = fill
        return x, y

    return learner


def input_masked(prompt: list[int], answer: list[int]) -> Any:
    x, y = answer_only(prompt, answer)
    x = x.clone()
    x[: len(prompt)] = -100
    return x, y


def not_moved(prompt: list[int], answer: list[int]) -> Any:
    ids = torch.tensor(prompt + answer)
    return ids[:-1], torch.tensor([-100] * len(prompt) + answer)


def swapped(prompt: list[int], answer: list[int]) -> Any:
    return answer_only(answer, prompt)


def stop_lost(prompt: list[int], answer: list[int]) -> Any:
    x, y = answer_only(prompt, answer)
    y[-1] = -100
    return x, y


WRONG_LABELS: dict[str, tuple[Any, str]] = {
    "no mask": (masking(stop=lambda p, a: 0), "No target is masked"),
    "one too many": (masking(stop=lambda p, a: p), "The first token of the answer is masked"),
    "one too few": (masking(stop=lambda p, a: p - 2), "Some tokens of the prompt are still targets"),
    "the answer masked": (masking(start=lambda p: p - 1, stop=lambda p, a: p + a), "it is the wrong way round"),
    "everything masked": (masking(stop=lambda p, a: p + a), "Every target is masked"),
    "filled with 0": (masking(fill=0), "the number that cross_entropy ignores"),
    "not ahead": (masking(ahead=0), "but they are the inputs themselves"),
    "not moved": (not_moved, "it is not moved by one"),
    "inputs masked": (input_masked, "among the inputs"),
    "the other order": (swapped, "prompt and answer in one row"),
    "the end lost": (stop_lost, "The last token of the answer is masked"),
    "lists": (lambda p, a: tuple(v.tolist() for v in answer_only(p, a)), "x and y are lists"),
    "one tensor": (lambda prompt, answer: torch.tensor(prompt + answer), "Return two tensors"),
    "fixed length": (
        lambda p, a: (answer_only(p, a)[0], masking(stop=lambda *_: 3)(p, a)[1]), "right for a prompt of 4 tokens",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", WRONG_LABELS)
def test_label_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day41b", WRONG_LABELS, mistake)


def test_label_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day41b", WRONG_LABELS, least=10)
