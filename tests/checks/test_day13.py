"""Day 13: a right tie passes in any style, and each typical mistake gets its own sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from llmcourse.checks import check
from llmcourse.checks.day13 import tie as reference

Say = Callable[[], str]


def groups(model: nn.Module) -> list[dict[str, Any]]:
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


def shared(model: Any, std: float = 0.02) -> None:
    model.lm_head.weight = model.transformer.wte.weight
    nn.init.normal_(model.lm_head.weight, std=std)


def other_way(model: Any) -> Any:
    nn.init.normal_(model.lm_head.weight, mean=0.0, std=0.02)
    model.transformer["wte"].weight = model.lm_head.weight
    return tuple(groups(model)[::-1])


def new_parameter(model: Any) -> Any:
    both = nn.Parameter(0.02 * torch.randn_like(model.lm_head.weight))
    model.lm_head.weight = model.transformer.wte.weight = both
    return groups(model)


def new_embedding(model: Any) -> Any:
    V, C = model.lm_head.weight.shape
    model.transformer.wte = nn.Embedding(V, C)
    with torch.no_grad():
        model.transformer.wte.weight.mul_(0.02)
    model.lm_head.weight = model.transformer.wte.weight
    decay, rest = {}, {}
    for name, p in model.named_parameters():
        (decay if p.dim() > 1 else rest)[name] = p
    return [
        {"params": list(rest.values()), "weight_decay": 0.0, "lr": 1e-3},
        {"params": list(decay.values()), "weight_decay": 0.1, "lr": 1e-3},
    ]


def as_optimizer(model: Any) -> Any:
    shared(model)
    return torch.optim.AdamW(groups(model), lr=1e-3)


def lazy(model: Any) -> Any:
    shared(model)
    return [{**g, "params": iter(g["params"])} for g in groups(model)]


def three_groups(model: Any) -> Any:
    shared(model)
    g = groups(model)
    table = model.lm_head.weight
    rest = [p for p in g[0]["params"] if p is not table]
    return [{"params": rest, "weight_decay": 0.1}, g[1], {"params": table, "weight_decay": 0.1}]


RIGHT = [reference, other_way, new_parameter, new_embedding, as_optimizer, lazy, three_groups]


@pytest.mark.parametrize("learner", RIGHT, ids=lambda f: f.__name__)
def test_a_right_tie_passes_in_any_style(learner: Any, said: Say) -> None:
    assert check("day13", learner), said()
    assert said().startswith("day13: right. ")


Change = Callable[[Any], Any]


def then_groups(change: Change) -> Change:
    def tie(model: Any) -> Any:
        change(model)
        return groups(model)

    return tie


def nothing(model: Any) -> None:
    pass


def data_only(model: Any) -> None:
    nn.init.normal_(model.transformer.wte.weight, std=0.02)
    model.lm_head.weight.data = model.transformer.wte.weight.data


def detached(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(model.transformer.wte.weight.detach())


def cloned(model: Any) -> None:
    nn.init.normal_(model.transformer.wte.weight, std=0.02)
    model.lm_head.weight = nn.Parameter(model.transformer.wte.weight.clone())


def copied(model: Any) -> None:
    with torch.no_grad():
        model.lm_head.weight.copy_(model.transformer.wte.weight.normal_(std=0.02))


def transposed(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(model.transformer.wte.weight.T)


def transposed_both(model: Any) -> None:
    model.lm_head.weight = model.transformer.wte.weight = nn.Parameter(0.02 * torch.randn(model.lm_head.weight.T.shape))


def tied_then_untied(model: Any) -> None:
    model.lm_head.weight = model.transformer.wte.weight
    for module in (model.lm_head, model.transformer.wte):
        module.weight = nn.Parameter(0.02 * torch.randn_like(module.weight))


def half_replaced(model: Any) -> None:
    model.lm_head.weight = nn.Parameter(torch.randn_like(model.lm_head.weight))


def still_one(model: Any) -> None:
    model.lm_head.weight = model.transformer.wte.weight


def everything_redrawn(model: Any) -> None:
    still_one(model)
    model.init_weights()


def variance(model: Any) -> None:
    shared(model, std=math.sqrt(0.02))


def too_small(model: Any) -> None:
    shared(model, std=0.02 / math.sqrt(2 * model.config.n_layer))


def zeros(model: Any) -> None:
    still_one(model)
    nn.init.zeros_(model.lm_head.weight)


def uniform(model: Any) -> None:
    still_one(model)
    a = 0.02 * math.sqrt(3)
    nn.init.uniform_(model.lm_head.weight, -a, a)


def shifted(model: Any) -> None:
    still_one(model)
    nn.init.normal_(model.lm_head.weight, mean=0.02, std=0.02)


def std_as_mean(model: Any) -> None:
    still_one(model)
    nn.init.normal_(model.lm_head.weight, 0.02)


def module_shared(model: Any) -> None:
    model.lm_head = model.transformer.wte
    nn.init.normal_(model.lm_head.weight, std=0.02)


def head_removed(model: Any) -> None:
    shared(model)
    table = model.transformer.wte.weight
    del model.lm_head
    model.lm_head = lambda x: x @ table.T


class Detached(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.detach())


def head_detached(model: Any) -> None:
    V, C = model.lm_head.weight.shape
    model.lm_head = Detached(C, V, bias=False)
    shared(model)


def another_name(model: Any) -> None:
    shared(model)
    model.table = model.lm_head.weight


def frozen(model: Any) -> None:
    shared(model)
    model.lm_head.weight.requires_grad_(False)


def with_bias(model: Any) -> None:
    V, C = model.lm_head.weight.shape
    model.lm_head = nn.Linear(C, V)
    shared(model)


def scaled_head(model: Any) -> None:
    shared(model)
    model.lm_head.register_forward_hook(lambda module, inputs, out: out / 8)


def returns_none(model: Any) -> None:
    shared(model)


def returns_model(model: Any) -> Any:
    shared(model)
    return model


def returns_parameters(model: Any) -> Any:
    shared(model)
    return list(model.parameters())


def returns_names(model: Any) -> Any:
    shared(model)
    return [{"params": [n for n, p in model.named_parameters() if p.ndim > 1], "weight_decay": 0.1}]


def groups_first(model: Any) -> Any:
    made = groups(model)
    shared(model)
    return made


def by_modules(model: Any) -> Any:
    shared(model)
    params = [p for m in model.modules() for p in m.parameters(recurse=False)]
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": 0.1},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


def by_state_dict(model: Any) -> Any:
    shared(model)
    params = list(model.state_dict().values())
    return [{"params": params, "weight_decay": 0.1}]


def blocks_only(model: Any) -> Any:
    shared(model)
    return [
        {"params": [p for p in model.transformer.h.parameters() if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]


def no_vectors(model: Any) -> Any:
    shared(model)
    return groups(model)[:1]


def decay(matrices: float, vectors: float) -> Change:
    def tie(model: Any) -> Any:
        shared(model)
        g = groups(model)
        return [{**g[0], "weight_decay": matrices}, {**g[1], "weight_decay": vectors}]

    return tie


def no_decay_given(model: Any) -> Any:
    shared(model)
    return [{"params": list(model.parameters())}]


def table_without_decay(model: Any) -> Any:
    shared(model)
    g = groups(model)
    table = model.lm_head.weight
    rest = [p for p in g[0]["params"] if p is not table]
    return [{"params": rest, "weight_decay": 0.1}, {"params": [*g[1]["params"], table], "weight_decay": 0.0}]


WRONG: dict[str, tuple[Callable[..., Any], str]] = {
    "nothing tied": (then_groups(nothing), "nothing is shared"),
    ".data": (then_groups(data_only), "share their memory but are two parameters"),
    ".detach()": (then_groups(detached), "share their memory but are two parameters"),
    "clone": (then_groups(cloned), "in two places, a copy"),
    "copy_": (then_groups(copied), "in two places, a copy"),
    "transposed": (then_groups(transposed), "you gave the head the transposed matrix"),
    "transposed, shared": (then_groups(transposed_both), "share a matrix of shape (48, 257), which is transposed"),
    "tied, then untied": (then_groups(tied_then_untied), "after tying unties them"),
    "one of them new": (then_groups(half_replaced), "one of them was replaced"),
    "N(0, 1) stays": (then_groups(still_one), "still hold their N(0, 1) numbers"),
    "everything drawn anew": (then_groups(everything_redrawn), "has changed too"),
    "variance": (then_groups(variance), "a variance of 0.02"),
    "residual scale": (then_groups(too_small), "standard deviation of 0.0099"),
    "zeros": (then_groups(zeros), "are the same: tokens could not be told apart"),
    "uniform": (then_groups(uniform), "no number far from 0"),
    "mean": (then_groups(shifted), "a mean of 0.02"),
    "std as mean": (then_groups(std_as_mean), "drawn anew with a standard deviation of 1.0"),
    "module shared": (then_groups(module_shared), "share its weight, not the module"),
    "head removed": (then_groups(head_removed), "has no lm_head.weight any more"),
    "head detached": (then_groups(head_detached), "as input only"),
    "another name": (then_groups(another_name), "a name that it did not have, table"),
    "head with bias": (then_groups(with_bias), "a name that it did not have, lm_head.bias"),
    "frozen": (then_groups(frozen), "requires_grad=False"),
    "logits scaled": (then_groups(scaled_head), "gives other logits"),
    "returns None": (returns_none, "tie returned None"),
    "returns the model": (returns_model, "tie returned the model"),
    "returns parameters": (returns_parameters, "not list of Parameter"),
    "returns names": (returns_names, "lists names or pairs"),
    "groups first": (groups_first, "made before tying"),
    "groups by modules": (by_modules, "list the shared table twice"),
    "groups by state_dict": (by_state_dict, "an optimizer made of them trains nothing"),
    "table missing": (blocks_only, "No group holds the shared table"),
    "vectors missing": (no_vectors, "No group holds transformer.h.0.ln_1.weight"),
    "decays swapped": (decay(0.0, 0.1), "have changed places"),
    "vectors decayed": (decay(0.1, 0.1), "Biases or LayerNorm gains get"),
    "another decay": (decay(0.01, 0.0), "Not all matrices and tables get"),
    "no decay given": (no_decay_given, "AdamW would take its own default"),
    "table not decayed": (table_without_decay, "gets no weight decay"),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_mistake_is_named(mistake: str, mistake_is_named: Callable[..., None]) -> None:
    mistake_is_named("day13", WRONG, mistake)


def test_mistakes_differ(mistakes_differ: Callable[..., None]) -> None:
    mistakes_differ("day13", WRONG, least=32)
